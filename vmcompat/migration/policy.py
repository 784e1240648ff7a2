"""How long a migration may take and what is done when it gets nowhere: policies as data, and who applies them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from vmcompat.errors import MigrationError
from vmcompat.migration.transfer import Transfer

Act: TypeAlias = Literal["downtime", "post-copy", "pause", "abort"]

_GIB: Final = 2**30
_BEGIN_SECONDS: Final = 60.0  # until the first byte is on its way


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a migration is driven.

    A migration is *stalled* when what remains to be sent has seen no new low for some time: every pass over the memory
    begins with more than the last one ended with, so that a larger number alone says nothing.

    Attributes
    ----------
    name : str
    downtimes : tuple of int
        How long the guest may stand still at the switch-over [ms]: the first from the start, the next after each stall.
    stall : float
        Without a new low of the remaining data, before the next step is taken [s].
    per_gib, least : float
        Deadline for all: so many seconds for each GiB of memory, and at least ``least`` [s].
    at_deadline : {"abort", "pause"}
        At the deadline, or where it is stalled and no step is left: abort, and the guest goes on at the source; or
        pause the guest, so that nothing is rewritten any more, for ``pause_seconds`` at most, then abort and resume.
        Where the transfer has the consent to post-copy, it is switched to that instead.
    pause_seconds : float
        Longest pause [s].
    auto_converge : bool
        Slow the guest's CPUs down where it rewrites memory faster than it is sent.
    parallel : int
        Connections; used where both hosts have it.
    bandwidth : int
        Most that is sent [MiB/s]; 0 is no limit.
    """

    name: str
    downtimes: tuple[int, ...]
    stall: float
    per_gib: float
    least: float
    at_deadline: Literal["abort", "pause"] = "abort"
    pause_seconds: float = 60.0
    auto_converge: bool = False
    parallel: int = 0
    bandwidth: int = 0

    def __post_init__(self) -> None:
        if not self.downtimes or min(self.downtimes) < 1 or list(self.downtimes) != sorted(self.downtimes):
            raise MigrationError(f"policy {self.name}: downtimes={self.downtimes}: rising numbers of milliseconds")
        if min(self.stall, self.per_gib + self.least, self.pause_seconds) <= 0 or min(self.per_gib, self.least) < 0:
            raise MigrationError(f"policy {self.name}: stall, per_gib, least and pause_seconds are seconds, above 0")

    def deadline(self, memory: int) -> float:
        """For the whole transfer of a guest of so much memory [bytes]; in seconds."""
        return max(self.least, self.per_gib * memory / _GIB)

    def settled(self, transfer: Transfer) -> Transfer:
        """A transfer with what it left to the policy; options that exclude each other are for whoever asked for one."""
        if transfer.offline:
            return transfer
        free = not transfer.compression and not transfer.post_copy  # neither goes with parallel connections everywhere
        return replace(
            transfer,
            parallel=transfer.parallel if transfer.parallel is not None else (self.parallel if free else 0),
            bandwidth=transfer.bandwidth if transfer.bandwidth is not None else self.bandwidth,
            auto_converge=transfer.auto_converge if transfer.auto_converge is not None else self.auto_converge,
        )

    def steps(self, transfer: Transfer, *, memory: int) -> Iterator[str]:
        """What is done when, in sentences, for a guest of so much memory [bytes]."""
        first, *more = self.downtimes
        raised = f"; after {self.stall:g} s without a new low of what remains: {_listed(more)} ms" if more else ""
        yield f"the guest may stand still for {first} ms at the switch-over{raised}"
        if transfer.auto_converge:
            yield "where it rewrites memory faster than it is sent, QEMU slows its CPUs down step by step"
        if transfer.bandwidth:
            yield f"at most {transfer.bandwidth} MiB/s are sent"
        if transfer.parallel:
            yield f"over {transfer.parallel} connections"
        when = f"after {self.deadline(memory):.0f} s, or {self.stall:g} s without a new low when no step is left"
        if transfer.post_copy:
            yield f"{when}: post-copy; from then on the guest is lost if a host or the link fails"
        elif self.at_deadline == "pause":
            yield f"{when}: the guest is paused so that it can finish, for {self.pause_seconds:g} s at most"
            yield "where that is not enough: abort; the guest is resumed and goes on at the source"
        else:
            yield f"{when}: abort; the guest goes on at the source"


def _listed(numbers: list[int]) -> str:
    return ", then ".join(map(str, numbers))


GENTLE: Final = Policy(
    name="gentle", downtimes=(100, 200, 300), stall=60.0, per_gib=800.0, least=600.0, bandwidth=0,
)  # fmt: skip
BALANCED: Final = Policy(
    name="balanced", downtimes=(300, 500, 1000, 2000), stall=30.0, per_gib=150.0, least=300.0, auto_converge=True,
)  # fmt: skip
MUST_FINISH: Final = Policy(
    name="must-finish", downtimes=(500, 1000, 2000, 5000), stall=15.0, per_gib=100.0, least=120.0, auto_converge=True,
    at_deadline="pause", pause_seconds=120.0,
)  # fmt: skip
HUGE_GUEST: Final = Policy(
    name="huge guest", downtimes=(500, 1000, 2000), stall=120.0, per_gib=60.0, least=900.0, auto_converge=True,
    parallel=4,
)  # fmt: skip

POLICIES: Final[Mapping[str, Policy]] = {p.name: p for p in (GENTLE, BALANCED, MUST_FINISH, HUGE_GUEST)}
"""By name. *gentle* never slows the guest down and may give up; *must-finish* would rather pause it than give up; *huge
guest* sends over several connections and is patient."""


def policy_of(policy: Policy | str) -> Policy:
    """A policy, or that of a name.

    Raises
    ------
    MigrationError
        There is none of that name.
    """
    if isinstance(policy, Policy):
        return policy
    if policy not in POLICIES:
        raise MigrationError(f"policy={policy!r}: there are {', '.join(POLICIES)}, or give a Policy")
    return POLICIES[policy]


class Step(NamedTuple):
    """What is to be done now, and why (empty for how it begins); ``downtime`` in milliseconds."""

    act: Act
    why: str
    downtime: int = 0


class Driver:
    """Watches the statistics of one transfer, and says what its policy wants done.

    Parameters
    ----------
    policy : Policy
    memory : int
        Of the guest [bytes].
    post_copy : bool
        There is consent to it.
    now : float
        When the transfer began, by the clock that :meth:`look` is given too [s].
    """

    def __init__(self, policy: Policy, *, memory: int, post_copy: bool, now: float) -> None:
        self._policy, self._post_copy = policy, post_copy
        self._begun = self._low_at = self._paused_at = now
        self._deadline = policy.deadline(memory)
        self._low: int | None = None
        self._downtimes = list(policy.downtimes)
        self._last: Act | None = None

    def look(self, stats: Mapping[str, Any], *, now: float) -> Step | None:
        """The step to take now; None where there is none.

        Parameters
        ----------
        stats : mapping
            Of ``virDomainGetJobStats``, by libvirt's names.
        now : float
            Time [s].
        """
        if self._last in ("post-copy", "abort"):
            return None  # of the one there is no way back, and the other needs no second
        self._note(stats, now)
        if self._last == "pause":
            if now - self._paused_at < self._policy.pause_seconds:
                return None
            return self._take(Step("abort", f"it has not finished within {self._policy.pause_seconds:g} s of pause"))
        if self._low is None:
            if now - self._begun < min(_BEGIN_SECONDS, self._deadline):
                return None
            return self._take(Step("abort", f"nothing was sent within {now - self._begun:.0f} s"))
        if self._last is None:
            return self._take(Step("downtime", "", self._downtimes.pop(0)))
        if now - self._begun >= self._deadline:
            return self._last_resort(f"the deadline of {self._deadline:.0f} s is over", now)
        quiet = now - self._low_at
        if quiet < self._policy.stall:
            return None
        why = f"no new low of what remains for {quiet:.0f} s"
        if self._downtimes:
            self._low_at = now
            return self._take(Step("downtime", why, self._downtimes.pop(0)))
        return self._last_resort(f"{why}, and no step is left", now)

    def _note(self, stats: Mapping[str, Any], now: float) -> None:
        remaining = stats.get("data_remaining", stats.get("memory_remaining"))
        total = stats.get("data_total", stats.get("memory_total"))
        if not total or remaining is None:  # the first looks may be all zero
            return
        if self._low is None or remaining < self._low:
            self._low, self._low_at = int(remaining), now

    def _last_resort(self, why: str, now: float) -> Step:
        if self._post_copy:
            return self._take(Step("post-copy", why))
        if self._policy.at_deadline == "pause":
            self._paused_at = now
            return self._take(Step("pause", why))
        return self._take(Step("abort", why))

    def _take(self, step: Step) -> Step:
        self._last = step.act
        return step
