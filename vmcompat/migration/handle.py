"""A run in the background: watched, slowed down, hurried up and aborted from a notebook cell."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Final

import pandas as pd

from vmcompat.errors import MigrationError
from vmcompat.migration.job import LibvirtJob
from vmcompat.migration.order import MigrationFailedError, MigrationResult, Order
from vmcompat.migration.progress import Sample, Shown, Stats, course, show
from vmcompat.migration.run import Run

_TURN: Final = 0.2  # between two looks while waiting, so that Ctrl-C is heard [s]


class MigrationJob:
    """A migration that runs in a thread of its own. Made by :meth:`vmcompat.migration.migrate.MigrationPlan.start`.

    A program that ends while one runs waits for it. Where the kernel dies, a peer-to-peer migration goes on, the guest
    is let run at the target all the same (:mod:`vmcompat.migration.standby`), and :func:`vmcompat.recover` says what
    became of it.
    """

    def __init__(self, order: Order, *, progress: Shown) -> None:
        self._samples: list[Sample] = []
        self._said: list[str] = []
        self._shown = show(progress)
        self._abort = threading.Event()
        self._order = order
        self._run = Run(order, self, self._abort)
        self._future: Future[MigrationResult] = Future()
        threading.Thread(target=self._work, name=f"migration of {order.domain}").start()

    def _work(self) -> None:
        try:
            self._future.set_result(self._run.do())
        except BaseException as e:  # noqa: BLE001  raised again by wait()
            self._future.set_exception(e)

    # What a run tells its progress to.

    def say(self, text: str) -> None:
        """One line: what begins now."""
        self._said.append(text)
        self._shown.say(text)

    def update(self, stats: Stats) -> None:
        """The transfer, as far as it is."""
        if (sample := Sample.of(stats)) is not None:
            self._samples.append(sample)
        self._shown.update(stats)

    def close(self, *, complete: bool) -> None:
        """The transfer has ended."""
        self._shown.close(complete=complete)

    # ---- for its owner

    @property
    def stats(self) -> pd.DataFrame:
        """Every look at the transfer so far, about two a second: columns of ``schema.MIGRATION_PROGRESS``."""
        return course(list(self._samples))

    @property
    def steps(self) -> tuple[str, ...]:
        """What the policy has done so far, in sentences."""
        job = self._run.job
        return tuple(job.steps) if job else ()

    @property
    def ended(self) -> bool:
        """Whether the run has ended, well or badly."""
        return self._future.done()

    def set_speed(self, mib_per_second: int) -> None:
        """Most that is sent from now on.

        Parameters
        ----------
        mib_per_second : int
            At least 1 [MiB/s].

        Raises
        ------
        MigrationError
            No transfer is under way.
        ConnectError
            libvirt refused.
        """
        if mib_per_second < 1:
            raise MigrationError(f"set_speed({mib_per_second}): at least 1 MiB/s; abort() stops it")
        self._transfer.set_speed(mib_per_second)

    def set_downtime(self, milliseconds: int) -> None:
        """Longest that the guest may stand still at the switch-over.

        Parameters
        ----------
        milliseconds : int
            At least 1 [ms].

        Raises
        ------
        MigrationError
            No transfer is under way.
        ConnectError
            libvirt refused.
        """
        if milliseconds < 1:
            raise MigrationError(f"set_downtime({milliseconds}): at least 1 ms")
        self._transfer.set_downtime(milliseconds)

    def abort(self) -> None:
        """Asks for the end of it and returns at once; :meth:`wait` tells what came of that."""
        self._abort.set()

    def wait(self, seconds: float | None = None) -> MigrationResult:
        """Waits for the end; Ctrl-C asks for an abort, and waits for the answer to that.

        Parameters
        ----------
        seconds : float, optional
            Longest wait [s]. The run goes on after it.

        Raises
        ------
        TimeoutError
            It has not ended in that time.
        MigrationFailedError
            As by :meth:`vmcompat.migration.migrate.MigrationPlan.run`.
        KeyboardInterrupt
            After Ctrl-C, once the run has ended; the text says where the guest is.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        interrupted = False
        while not self.ended:
            try:
                if deadline is not None and not interrupted and time.monotonic() >= deadline:
                    raise TimeoutError(f"the migration of {self._order.domain} has not ended after {seconds:g} s")
                time.sleep(_TURN)
            except KeyboardInterrupt:
                interrupted = True
                self.abort()
        if not interrupted:
            return self._future.result()
        try:
            result = self._future.result()
        except MigrationFailedError as e:
            raise KeyboardInterrupt(str(e)) from e
        raise KeyboardInterrupt(f"the interrupt came too late: {result.domain} runs on {result.target}")

    @property
    def _transfer(self) -> LibvirtJob:
        job = self._run.job
        if job is None or self.ended:
            raise MigrationError(f"no transfer of {self._order.domain} is under way")
        return job

    def __repr__(self) -> str:
        seen = self._order.seen
        said = self._said[-1] if self._said else "looking at both hosts"
        if self.ended:
            e = self._future.exception()
            said = str(e) if e is not None else self._future.result().outcome
        elif self._samples:
            now = self._samples[-1]
            said += f"; {now.memory_remaining / 2**20:.0f} of {now.memory_total / 2**20:.0f} MiB left"
        return f"<MigrationJob {self._order.domain}: {seen.source.name} -> {seen.target.name}; {said}>"
