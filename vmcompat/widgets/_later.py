"""Work that takes longer than a click: it waits for the clicks, and only what was asked last is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import RLock


class Later:
    """Runs what was asked last, a moment after it was asked.

    Where no event loop runs, as in a script, it is run at once.

    Parameters
    ----------
    lock : RLock
        Held while it works: a notebook calls back from several threads.
    seconds : float
        How long it waits for another click [s].
    """

    def __init__(self, lock: RLock, *, seconds: float) -> None:
        self._seconds = seconds
        self._asked = 0
        self._lock = lock

    def ask(self, work: Callable[[], bool]) -> None:
        """Runs it again and again until it returns False, forgetting what was asked before."""
        with self._lock:
            self._asked += 1
            self._go_on(work, self._asked, self._seconds)

    def forget(self) -> None:
        """Does nothing of what was asked."""
        with self._lock:
            self._asked += 1

    def _go_on(self, work: Callable[[], bool], number: int, seconds: float) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            while number == self._asked and work():
                pass
            return

        def step() -> None:
            with self._lock:
                if number == self._asked and work():
                    self._go_on(work, number, 0.01)

        loop.call_later(seconds, step)
