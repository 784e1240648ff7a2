"""How far a migration is, sample by sample; and how that is shown: as a bar, as lines, as the caller does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol, TypeAlias

import pandas as pd

from vmcompat.schema import MIGRATION_PROGRESS, frame

Stats: TypeAlias = Mapping[str, Any]

_LINE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A migration job at one moment, by libvirt's names; None is what libvirt did not tell.

    Attributes
    ----------
    time_elapsed : int
        Since the job began [ms].
    memory_total, memory_remaining : int
        All of the guest's memory, and what is still to be sent of it [B].
    memory_bps : int or None
        What is sent [B/s].
    memory_dirty_rate, memory_page_size : int or None
        What the guest rewrites [pages/s], and the size of such a page [B].
    memory_iteration : int or None
        Which pass over the memory.
    auto_converge_throttle : int or None
        By how much the guest's CPU is slowed down [%]; None where auto-converge is off or not yet at work.
    downtime : int or None
        For how long the guest would stand still if it were switched over now [ms].
    """

    time_elapsed: int
    memory_total: int
    memory_remaining: int
    memory_bps: int | None = None
    memory_dirty_rate: int | None = None
    memory_page_size: int | None = None
    memory_iteration: int | None = None
    auto_converge_throttle: int | None = None
    downtime: int | None = None

    @staticmethod
    def of(stats: Mapping[str, Any]) -> Sample | None:
        """From what ``virDomainGetJobStats`` gives; None while no memory is on its way."""
        if not stats.get("memory_total") or "memory_remaining" not in stats or "time_elapsed" not in stats:
            return None
        return Sample(**{f.name: int(stats[f.name]) for f in fields(Sample) if f.name in stats})

    @property
    def seconds(self) -> float:
        """Since the job began."""
        return self.time_elapsed / 1000

    @property
    def dirtied(self) -> float | None:
        """What the guest rewrites [B/s]; None where libvirt does not tell, as its 0 of the first pass does not."""
        if self.memory_dirty_rate is None or self.memory_page_size is None:
            return None
        if self.memory_dirty_rate == 0 and (self.memory_iteration or 0) <= 1:
            return None  # QEMU measures from pass to pass
        return self.memory_dirty_rate * self.memory_page_size


def course(samples: Sequence[Sample]) -> pd.DataFrame:
    """One row a sample; its columns are the attributes, `vmcompat.schema.MIGRATION_PROGRESS`."""
    return frame(MIGRATION_PROGRESS, [{name: getattr(s, name) for name in MIGRATION_PROGRESS} for s in samples])


class Progress(Protocol):
    """Where a run tells how far it is."""

    def say(self, text: str) -> None:
        """One line: what begins now."""

    def update(self, stats: Stats) -> None:
        """The transfer, as far as it is."""

    def close(self, *, complete: bool) -> None:
        """The transfer has ended, and all of it has arrived or not."""


Shown: TypeAlias = "bool | Callable[[Stats], None] | Progress"


def show(progress: Shown) -> Progress:
    """How progress is shown: a bar where tqdm is installed, else lines; as the caller does it; or not at all."""
    if callable(progress):
        return _Told(progress)
    if not isinstance(progress, bool):
        return progress
    if not progress:
        return _Told(lambda stats: None)
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _Lines()
    return _Bar(tqdm)


class _Told:
    def __init__(self, tell: Callable[[Stats], None]) -> None:
        self.update = tell

    def say(self, text: str) -> None:
        pass

    def close(self, *, complete: bool) -> None:
        pass


class _Lines:
    def __init__(self) -> None:
        self._next = 0.0

    def say(self, text: str) -> None:
        print(text)

    def update(self, stats: Stats) -> None:
        if stats.get("memory_total") and time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_SECONDS
            print(f"{_percent(stats):.0f} % {_details(stats)}")

    def close(self, *, complete: bool) -> None:
        pass


class _Bar:
    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._bar: Any = None

    def say(self, text: str) -> None:
        self._tqdm.write(text)

    def update(self, stats: Stats) -> None:
        if not stats.get("memory_total"):
            return
        if self._bar is None:
            self._bar = self._tqdm(total=100, unit="%", desc="migrating", bar_format="{l_bar}{bar}| {elapsed}{postfix}")
        self._bar.n = round(_percent(stats))
        self._bar.set_postfix_str(_details(stats))

    def close(self, *, complete: bool) -> None:
        if self._bar is not None:
            if complete:  # the last look was some time before the end
                self._bar.n = self._bar.total
                self._bar.set_postfix_str("arrived")
            self._bar.close()


def _percent(stats: Stats) -> float:
    total, remaining = int(stats["memory_total"]), int(stats.get("memory_remaining", 0))
    return 100.0 * (1.0 - remaining / total)


def _details(stats: Stats) -> str:
    left, speed = stats.get("memory_remaining", 0) / 2**20, stats.get("memory_bps", 0) / 2**20
    return f"pass {stats.get('memory_iteration', 0)}, {left:.0f} MiB left, {speed:.0f} MiB/s"
