"""How every figure of ``make bench`` is taken and written."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE: Final = 60.0  # seconds


def timed(run: Callable[[], T], *, repeats: int = 5) -> tuple[float, T]:
    """Seconds of the median run, after one that does not count, and the answer; of the only run if that is all."""
    answer = run() if repeats > 1 else None
    seconds = []
    for _ in range(repeats):
        answer = None  # the last answer's memory is free for the next
        start = time.perf_counter()
        answer = run()
        seconds.append(time.perf_counter() - start)
    assert answer is not None
    return statistics.median(seconds), answer


def peak() -> float:
    """Most memory that this process ever had [MiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def apart(run: Callable[..., T], *arguments: object, patience: float | None = None) -> T | str:
    """The answer of a run in a process of its own, or in words why there is none.

    Parameters
    ----------
    run : callable
    *arguments
    patience : float, optional
        When to end it [s].
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, run, arguments))
    process.start()
    there.close()
    try:
        answer: T | str = here.recv() if here.poll(patience) else f"no answer in {patience:.0f} s"
    except EOFError:
        answer = "ended without an answer"
    process.kill()
    process.join()
    return answer


def _answer(there: Connection, run: Callable[..., object], arguments: tuple[object, ...]) -> None:
    try:
        there.send(run(*arguments))
    except Exception as e:  # noqa: BLE001 - whatever a stranger's library raises is its cell of the table
        there.send(f"{type(e).__name__}: {e}")


def duration(seconds: float) -> str:
    """In words: two digits, or all whole milliseconds or seconds."""
    amount, unit = (seconds, "s") if seconds >= 1 else (seconds * 1000, "ms")
    return (
        f"{amount:,.0f} {unit}" if amount >= 100 else f"{amount:.2g} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    )


def times(ratio: float) -> str:
    """A ratio in words."""
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def head(title: str, explanation: str, columns: Iterable[str]) -> None:
    """Begins a table."""
    names = list(columns)
    print(f"\n**{title}.** {explanation}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}", flush=True)


def row(*cells: str) -> None:
    """One line of a table."""
    print(f"| {' | '.join(cells)} |", flush=True)
