"""What is told of many moves at a time, by the thread that waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import Any, Final

from vmcompat.migration.progress import Shown, Stats, show

_LINE_SECONDS: Final = 2.0
_SUMS: Final = ("memory_total", "memory_remaining", "memory_bps")


class Board:
    """How far the moves of a run are.

    Workers put up what they hear, and :meth:`tell`, in the caller's thread, passes it on: so a function that shows
    progress is never called from two threads.

    Parameters
    ----------
    progress : bool, callable or Progress
        As of :meth:`vmcompat.migration.migrate.MigrationPlan.run`. In place of a bar there are lines, and libvirt's
        statistics are those of :meth:`stats`.
    n_waves, n_moves : int
    """

    def __init__(self, progress: Shown, *, n_waves: int, n_moves: int) -> None:
        self._shown, self._in_lines = show(progress), progress is True
        self._n_waves, self._n_moves = n_waves, n_moves
        self._lock = threading.Lock()
        self._heard: SimpleQueue[str] = SimpleQueue()
        self._under_way: dict[str, tuple[str, Stats]] = {}
        self._next = 0.0
        self.wave = self.n_moved = 0

    def of(self, domain: str, target: str) -> OneOfMany:
        """Where the run of one move tells how far it is."""
        with self._lock:
            self._under_way[domain] = (target, {})
        return OneOfMany(self, domain)

    def say(self, text: str) -> None:
        """One line, from any thread."""
        self._heard.put(text)

    def put_up(self, domain: str, stats: Stats) -> None:
        """The transfer of one guest, as far as it is."""
        with self._lock:
            self._under_way[domain] = (self._under_way[domain][0], stats)

    def take_down(self, domain: str, *, moved: bool) -> None:
        """The move of one guest has ended; said twice it counts once."""
        with self._lock:
            known = self._under_way.pop(domain, None) is not None
            self.n_moved += known and moved

    def stats(self) -> dict[str, Any]:
        """How far the run is, and libvirt's statistics of each guest under way and of all of them together."""
        with self._lock:
            guests = {domain: dict(stats) for domain, (_, stats) in self._under_way.items()}
        sums = {key: sum(int(stats.get(key, 0)) for stats in guests.values()) for key in _SUMS}
        counts = {"wave": self.wave, "n_waves": self._n_waves, "n_moved": self.n_moved, "n_moves": self._n_moves}
        return {**counts, **sums, "guests": guests}

    def line(self) -> str:
        """The same in words."""
        with self._lock:
            guests = [f"{domain} -> {target} {_in_words(s)}" for domain, (target, s) in self._under_way.items()]
        head = f"wave {self.wave} of {self._n_waves}: {self.n_moved} of {self._n_moves} moved"
        return "; ".join([head, *guests])

    def tell(self) -> None:
        """Passes on what was heard since, and how far it is."""
        try:
            while True:
                self._shown.say(self._heard.get_nowait())
        except Empty:
            pass
        if not self._in_lines:
            self._shown.update(self.stats())
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_SECONDS
            self._shown.say(self.line())

    def close(self, *, complete: bool) -> None:
        """All has ended."""
        self._next = 0.0
        self.tell()
        self._shown.close(complete=complete)


class OneOfMany:
    """The progress of one move, put up on the board."""

    def __init__(self, board: Board, domain: str) -> None:
        self._board, self._domain = board, domain

    def say(self, text: str) -> None:
        """One line: what begins now."""
        self._board.say(f"{self._domain}: {text}")

    def update(self, stats: Mapping[str, Any]) -> None:
        """The transfer, as far as it is."""
        self._board.put_up(self._domain, stats)

    def close(self, *, complete: bool) -> None:
        """The transfer has ended."""


def _in_words(stats: Stats) -> str:
    if not stats.get("memory_total"):
        return "begins"
    return f"pass {stats.get('memory_iteration', 0)}, {stats.get('memory_remaining', 0) / 2**20:.0f} MiB left"
