"""What a run is asked to do, and how it ended: values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

import pandas as pd

from vmcompat.errors import MigrationError
from vmcompat.migration.observe import Observation
from vmcompat.migration.policy import BALANCED, Policy
from vmcompat.migration.preflight import FORCEABLE, STOPS, Finding
from vmcompat.migration.transfer import PLAIN, Transfer
from vmcompat.schema import MIGRATION_RESULT, frame

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline

Restart: TypeAlias = Literal[False, True, "destroy"]
Outcome: TypeAlias = Literal["migrated", "restored", "stayed", "lost", "unknown"]
Phase: TypeAlias = Literal["plan", "power cycle", "transfer", "verification", "end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """All that a run needs to know: what was asked for, and what was seen then.

    Attributes
    ----------
    domain, source, target, baseline, restart
        As given to :func:`vmcompat.plan_migration`; the URIs as they were given, passwords included.
    peer_uri : str or None
        Where the source's libvirtd finds the target's.
    migrate_uri : str
        Where the source's QEMU sends the guest; empty leaves that to the target's libvirt.
    force : tuple of str
        Findings that may be passed.
    transfer : Transfer
        How the guest travels, with what the policy adds to what was asked for.
    policy : Policy
        How long it may take, and what is done when it gets nowhere.
    seen : Observation
    findings : tuple of Finding
    """

    domain: str
    source: str = field(repr=False)
    target: str = field(repr=False)
    baseline: Baseline | None = None
    restart: Restart = False
    peer_uri: str | None = field(repr=False, default=None)
    migrate_uri: str = field(repr=False, default="")
    force: tuple[str, ...] = ()
    transfer: Transfer = PLAIN
    policy: Policy = BALANCED
    seen: Observation = field(repr=False)
    findings: tuple[Finding, ...] = field(repr=False)

    @property
    def stops(self) -> tuple[Finding, ...]:
        """The findings that a run stops on."""
        return tuple(
            f for f in self.findings if f.severity in STOPS and not (f.severity in FORCEABLE and f.id in self.force)
        )

    @property
    def forced(self) -> tuple[str, ...]:
        """The findings that ``force`` passes."""
        return tuple(f.id for f in self.findings if f.severity in FORCEABLE and f.id in self.force)

    @property
    def memory(self) -> int:
        """Of the guest [bytes]; 0 where its definition does not tell."""
        domain = self.seen.live or self.seen.stored
        return 1024 * (domain.memory or 0) if domain else 0

    @property
    def way(self) -> str:
        """How the guest goes, in a word or two."""
        return "offline" if self.transfer.offline else "managed" if self.transfer.managed else "peer to peer"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationResult:
    """How one run ended.

    Attributes
    ----------
    outcome : {"migrated", "restored", "stayed", "lost", "unknown"}
        *restored*: the guest did not start with its new definition, and runs at the source with the old one again.
        *stayed*: it is at the source, or was not moved. *lost*: its QEMU or half of its memory is gone, and it can only
        be started again. *unknown*: what the hosts say, or one that says nothing, does not tell. ``message`` says more.
    phase : {"plan", "power cycle", "transfer", "verification", "end"}
        How far the run came.
    way : {"peer to peer", "managed", "offline"}
    policy : str
        Name of the policy.
    policy_steps : tuple of str
        What was done by it during the transfer.
    seconds : float
        From the first look to the last [s].
    transfer_seconds : float or None
        Of it, libvirt's own call [s]; None where it did not come to that.
    downtime_ms, transferred, iterations : int or None
        Of the transfer, by the target's own statistics: downtime [ms], to which what a held guest waited for after that
        is added, bytes sent [B], passes over the memory.
    restarted : bool
        The guest was powered off and on.
    not_given : tuple of str
        Features that its definition asks for and that it did not get at the start.
    forced : tuple of str
        Findings that were passed by ``force``.
    """

    domain: str
    source: str
    target: str
    outcome: Outcome
    phase: Phase = "end"
    way: str = "peer to peer"
    policy: str = ""
    policy_steps: tuple[str, ...] = ()
    started: datetime
    seconds: float
    transfer_seconds: float | None = None
    downtime_ms: int | None = None
    transferred: int | None = None
    iterations: int | None = None
    restarted: bool = False
    baseline: str = ""
    not_given: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()
    message: str = ""

    @property
    def frame(self) -> pd.DataFrame:
        """The result as one row; its columns are the attributes."""
        return frame(MIGRATION_RESULT, [{name: getattr(self, name) for name in MIGRATION_RESULT}])


class MigrationFailedError(MigrationError):
    """A run that did not end as planned.

    Parameters
    ----------
    problem : str
        What went wrong.
    changed, undone : tuple of str
        What the run had changed until then, and what of it was taken back.
    next : str
        What to type, or to do, next.
    result : MigrationResult
        The row of this run.
    """

    def __init__(
        self, problem: str, *, changed: tuple[str, ...], undone: tuple[str, ...], next: str, result: MigrationResult
    ) -> None:
        self.problem, self.changed, self.undone, self.next, self.result = problem, changed, undone, next, result
        what = f"Changed: {'; '.join(changed) or 'nothing'}."
        back = f" Undone: {'; '.join(undone)}." if undone else ""
        phase = "" if result.phase in ("plan", "end") else f" Phase: {result.phase}."
        super().__init__(f"{problem}.{phase} {what}{back} Next: {next}")
