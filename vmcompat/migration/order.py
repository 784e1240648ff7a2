"""What a run is asked to do, and how it ended: values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

import pandas as pd

from vmcompat.errors import MigrationError
from vmcompat.migration.observe import Observation
from vmcompat.migration.preflight import FORCEABLE, STOPS, Finding
from vmcompat.schema import MIGRATION_RESULT, frame

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline

Restart: TypeAlias = Literal[False, True, "destroy"]
Outcome: TypeAlias = Literal["migrated", "restored", "stayed", "unknown"]


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
    seen : Observation
    findings : tuple of Finding
    """

    domain: str
    source: str = field(repr=False)
    target: str = field(repr=False)
    baseline: Baseline | None = None
    restart: Restart = False
    peer_uri: str | None = field(repr=False, default=None)
    migrate_uri: str = ""
    force: tuple[str, ...] = ()
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationResult:
    """How one run ended.

    Attributes
    ----------
    outcome : {"migrated", "restored", "stayed", "unknown"}
        *restored*: the guest did not start with its new definition, and runs at the source with the old one again.
        *stayed*: it is at the source, or was not moved. *unknown*: a host did not answer. ``message`` says more.
    seconds : float
        From the first look to the last [s].
    downtime_ms, transferred, iterations : int or None
        Of the transfer, by the target's own statistics: downtime [ms], bytes sent [B], passes over the memory.
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
    started: datetime
    seconds: float
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
        super().__init__(f"{problem}. {what}{back} Next: {next}")
