"""The person at the keyboard: a process of its own that plans and runs one migration, and can be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from vmcompat.errors import VmcompatError
from vmcompat.migration.migrate import plan_migration
from vmcompat.migration.order import MigrationFailedError
from vmcompat.migration.policy import Policy
from vmcompat.migration.transfer import Transfer

_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a client is to do: arguments of ``plan_migration``."""

    domain: str
    source: str
    target: str
    peer_uri: str
    migrate_uri: str
    transfer: Transfer
    policy: Policy
    force: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Told:
    """How it ended, as the person sees it.

    Attributes
    ----------
    outcome : str
        Of the result row; "killed" where the client was, "hung" where it did not come to an end in time, "error"
        where it raised what it does not promise to raise.
    message, next : str
        Of the error, or of the result.
    """

    outcome: str
    message: str = ""
    next: str = ""
    seconds: float = 0.0
    steps: tuple[str, ...] = ()


class Client:
    """A client at work.

    Parameters
    ----------
    task : Task
    """

    def __init__(self, task: Task) -> None:
        self._mine, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_work, args=(task, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._killed = False

    def planned(self, seconds: float) -> Told | None:
        """Wait until the plan is made; what came instead where it was not."""
        told = self._receive(seconds)
        return told if isinstance(told, Told) else None

    def go(self) -> None:
        """Let the plan be run."""
        self._send("go")

    def abort(self) -> None:
        """Ask for an abort, as from another thread."""
        self._send("abort")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill the process, as a crashed kernel or a closed laptop would."""
        self._killed = True
        self._signal(signal.SIGKILL)

    @property
    def ended(self) -> bool:
        """Whether it has told how it ended, or is gone."""
        return self._mine.poll() or not self._process.is_alive()

    def result(self, seconds: float) -> Told:
        """How it ended; it is killed where it has not ended in that time."""
        told = self._receive(seconds)
        if self._killed:
            told = Told(outcome="killed")
        elif told is None:
            told = Told(outcome="hung", message=f"no end after {seconds:g} s")
        self._process.kill()
        self._process.join()
        self._mine.close()
        assert isinstance(told, Told)
        return told

    def _send(self, word: str) -> None:
        try:
            self._mine.send(word)
        except OSError:
            return  # it has ended: the fault came too late

    def _signal(self, number: signal.Signals) -> None:
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, number)

    def _receive(self, seconds: float) -> object:
        try:
            return self._mine.recv() if self._mine.poll(seconds) else None
        except (EOFError, ConnectionResetError):
            return Told(outcome="killed" if self._killed else "error", message="the client ended without a word")


def prepare() -> None:
    """Start the process that clients are forked from: it has everything imported, and no connection yet."""
    _CONTEXT.set_forkserver_preload(["tests.faults.client"])


def _work(task: Task, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    begin = time.monotonic()
    told: Told | None = None
    try:
        told = _migrate(task, pipe)
    except KeyboardInterrupt as e:
        told = Told(outcome="interrupted", message=str(e), next=str(e).rpartition("Next: ")[2])
    except MigrationFailedError as e:
        steps = e.result.policy_steps
        told = Told(outcome=e.result.outcome, message=str(e), next=e.next, steps=steps)
    except VmcompatError as e:
        told = Told(outcome="refused", message=str(e))
    except BaseException as e:  # noqa: BLE001  that it is none of the above is the finding
        told = Told(outcome="error", message=f"{type(e).__name__}: {e}")
    pipe.send(replace(told, seconds=time.monotonic() - begin))


def _migrate(task: Task, pipe: Connection) -> Told:
    plan = plan_migration(
        task.domain,
        task.source,
        task.target,
        peer_uri=task.peer_uri,
        migrate_uri=task.migrate_uri,
        transfer=task.transfer,
        policy=task.policy,
        force=task.force,
    )
    pipe.send("planned")
    pipe.recv()
    abort = threading.Event()

    def listen() -> None:
        try:
            pipe.recv()
            abort.set()
        except (EOFError, OSError):
            return

    threading.Thread(target=listen, daemon=True).start()
    result = plan.run(progress=False, abort=abort)
    told = f"{result.domain} runs on {result.target}. {result.message}"
    return Told(outcome=result.outcome, message=told, steps=result.policy_steps)
