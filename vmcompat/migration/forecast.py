"""Will a migration converge, and how long will it take? Dirty rate against bandwidth, before the start."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from vmcompat.errors import ConnectError, MigrationError

if TYPE_CHECKING:
    from vmcompat.connect import Host

Range: TypeAlias = tuple[float, float]
Outlook: TypeAlias = Literal["converges", "may converge", "does not converge", "unknown"]

_MIB: Final = 2**20
_SAMPLED: Final = 2 * _MIB  # QEMU looks at 512 pages of each GiB: one of them stands for so much memory [bytes]
_MOST_PASSES: Final = 1000
_MORE_SECONDS: Final = 10.0  # for the answer, beyond the time of the measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a live migration would take, by the rate at which the guest rewrites its memory.

    The model: a pass sends what is left at the bandwidth, and what the guest rewrites meanwhile is left for the next
    one, until the rest fits into the allowed downtime. It takes every rewritten page for another one, so that it errs
    on the side of too long: a guest that rewrites the same few pages converges whatever the numbers say.

    Attributes
    ----------
    memory : int
        Of the guest [bytes].
    dirty_rate : (float, float)
        Least and most that it rewrites [bytes/s]: of several measurements, and one sampled page more or less.
    bandwidth : (float, float) or None
        Least and most that is sent [bytes/s]; None where nobody said.
    downtime : int
        Allowed at the switch-over [ms].
    throttled : bool
        Auto-converge may slow the guest down.
    """

    memory: int
    dirty_rate: Range
    bandwidth: Range | None
    downtime: int
    throttled: bool = False

    @property
    def outlook(self) -> Outlook:
        """By the best and the worst case; *may converge* where they disagree."""
        if self.bandwidth is None:
            return "unknown"
        best, worst = (self._passes(*case) is not None for case in self._cases(self.bandwidth))
        return "converges" if worst else "may converge" if best else "does not converge"

    @property
    def seconds(self) -> tuple[float, float | None] | None:
        """Least and most that the transfer takes [s].

        None in place of the most where the worst case never ends; None alone where even the best one does not, or where
        it is not known.
        """
        if self.bandwidth is None:
            return None
        best, worst = (self._passes(*case) for case in self._cases(self.bandwidth))
        return None if best is None else (best[0], None if worst is None else worst[0])

    def _cases(self, bandwidth: Range) -> tuple[Range, Range]:
        return (self.dirty_rate[0], bandwidth[1]), (self.dirty_rate[1], bandwidth[0])

    def _passes(self, dirty_rate: float, bandwidth: float) -> tuple[float, int] | None:
        """Seconds and passes until the rest fits into the downtime; None where it never does."""
        left, seconds = float(self.memory), 0.0
        for passes in range(_MOST_PASSES):
            if left <= bandwidth * self.downtime / 1000:
                return seconds + left / bandwidth, passes + 1
            taken = left / bandwidth
            seconds += taken
            if (rewritten := dirty_rate * taken) >= left:
                return None
            left = rewritten
        return None

    def explain(self) -> list[str]:
        """In sentences: what was measured, what follows, what would help."""
        low, high = (rate / _MIB for rate in self.dirty_rate)
        told = [f"the guest has {self.memory / _MIB:.0f} MiB and rewrites {low:.0f} to {high:.0f} MiB/s of it"]
        if self.bandwidth is None:
            told.append(
                f"how fast its memory is sent is not known: above {math.ceil(high)} MiB/s it converges, below "
                f"{math.floor(low)} MiB/s it does not; give bandwidth="
            )
            return told
        slow, fast = (b / _MIB for b in self.bandwidth)
        sent = f"{fast:.0f}" if slow == fast else f"{slow:.0f} to {fast:.0f}"
        told.append(f"at {sent} MiB/s and {self.downtime} ms of downtime it {self.outlook}{self._how_long()}")
        if self.outlook != "converges":
            worst = self.bandwidth[0] / self.dirty_rate[1] if self.dirty_rate[1] else 1.0
            slower = f"{max(0.0, 1 - worst):.0%} slower in the worst case"
            told.append(
                f"auto-converge would have to make the guest {slower}"
                if self.throttled
                else f"what helps: more bandwidth, a quieter hour, auto-converge ({slower}), or consent to post-copy"
            )
        return told

    def _how_long(self) -> str:
        if self.seconds is None:
            return ""
        least, most = self.seconds
        if most is None:
            return f", at best after {least:.0f} s"
        return f" after {least:.0f} s" if round(least) == round(most) else f" after {least:.0f} to {most:.0f} s"

    def __repr__(self) -> str:
        return f"<Forecast: {'; '.join(self.explain())}>"


def measured_dirty_rate(host: Host, name: str, *, memory: int, seconds: int, times: int) -> Range:
    """Least and most that a running guest rewrites [bytes/s], by QEMU's own measurement, which slows it down a little.

    Parameters
    ----------
    host : Host
        With write access.
    name : str
    memory : int
        Of the guest [bytes], of which it can rewrite no more.
    seconds : int
        Each measurement takes, 1 to 60 [s].
    times : int
        Number of measurements.

    Raises
    ------
    ConnectError
        libvirt is older than 7.2 or refuses, or does not answer in time.
    MigrationError
        A number is out of range.
    """
    if not 1 <= seconds <= 60 or times < 1:
        raise MigrationError(f"seconds={seconds}, times={times}: 1 to 60 seconds, at least once")
    rates = [_measure(host, name, seconds) for _ in range(times)]
    unsure = _SAMPLED / seconds
    return max(0.0, min(rates) - unsure), min(max(rates) + unsure, float(memory) / seconds or math.inf)


def _measure(host: Host, name: str, seconds: int) -> float:
    from vmcompat.connect import constant

    which, done = constant("VIR_DOMAIN_STATS_DIRTYRATE"), constant("VIR_DOMAIN_DIRTYRATE_MEASURED")
    what = f"how fast {name} rewrites its memory"
    host.ask(what, lambda c: c.lookupByName(name).startDirtyRateCalc(seconds))
    deadline = time.monotonic() + seconds + _MORE_SECONDS

    def look() -> dict[str, Any]:
        return host.ask(what, lambda c: c.domainListGetStats([c.lookupByName(name)], which)[0][1])

    time.sleep(seconds)
    while (stats := look()).get("dirtyrate.calc_status") != done:
        if time.monotonic() > deadline:
            raise ConnectError(f"{host.name}: {what}: no answer {_MORE_SECONDS:.0f} s after the measurement")
        time.sleep(0.1)
    return float(stats["dirtyrate.megabytes_per_second"]) * _MIB
