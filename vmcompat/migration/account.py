"""What a run has done so far, so that every way out of it can tell: changed, undone, where to look, what to type."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vmcompat.migration.domain import Domain, read_domain, typed
from vmcompat.migration.explain import explain_error
from vmcompat.migration.job import LibvirtJob
from vmcompat.migration.order import MigrationFailedError, MigrationResult, Order, Outcome, Phase
from vmcompat.migration.progress import Progress, Stats
from vmcompat.migration.runbook import virsh

if TYPE_CHECKING:
    from vmcompat.connect import Host


class Account:
    """Kept by a run.

    Parameters
    ----------
    order : Order
    progress : Progress
    abort : threading.Event
        Set by whoever wants it to stop, from any thread.

    Attributes
    ----------
    interrupted : bool
        By Ctrl-C, which sets ``abort`` too.
    changed, undone : list of str
        What it has changed, and what of that it has taken back.
    not_given : tuple of str
        Features asked for at a start and not given.
    restarted : bool
        The guest was powered off and on.
    outcome, phase
        As in :class:`vmcompat.migration.order.MigrationResult`.
    job : LibvirtJob or None
        The transfer, once it has begun.
    row : MigrationResult or None
        How it ended, once somebody was told.
    held_ms : int or None
        How long the guest waited at the target to be let run [ms]; None where that was not seen.
    old, new : str
        The stored definition, secrets included, before and after; empty for a transient domain.
    """

    def __init__(self, order: Order, progress: Progress, abort: threading.Event) -> None:
        self.order, self.progress, self.abort = order, progress, abort
        self.interrupted = False
        self.changed: list[str] = []
        self.undone: list[str] = []
        self.not_given: tuple[str, ...] = ()
        self.restarted = False
        self.outcome: Outcome = "stayed"
        self.phase: Phase = "plan"
        self.job: LibvirtJob | None = None
        self.row: MigrationResult | None = None
        self.held_ms: int | None = 0
        self.old = self.new = ""
        self._started, self._begin = datetime.now(UTC), time.monotonic()

    def live(self, host: Host) -> Domain:
        """The domain as it runs on a host."""
        name = self.order.domain
        xml = host.ask(f"the live definition of {name}", lambda c: c.lookupByName(name).XMLDesc(0))
        return read_domain(xml, source=f"{host.uri} {name}")

    def virsh(self, command: str, *, at_target: bool = False) -> str:
        """A line for a shell about the domain."""
        seen = self.order.seen
        domain = seen.live or seen.stored
        name = typed(self.order.domain, domain.uuid if domain else "")
        return virsh((seen.target if at_target else seen.source).uri, command, "--domain", name)

    @property
    def look(self) -> str:
        """What to type to see where it is."""
        return f"{self.virsh('domstate')}; {self.virsh('domstate', at_target=True)}"

    @property
    def recovery(self) -> str:
        """What to call to see what is left of it, and what is safe."""
        end = self.order.seen
        return f"vc.recover({self.order.domain!r}, {end.source.uri!r}, {end.target.uri!r})"

    def result(self, *, message: str = "", stats: Stats | None = None) -> MigrationResult:
        """The row of the run, as it stands."""
        stats = stats or {}
        by_libvirt, held = stats.get("downtime"), self.held_ms
        self.row = MigrationResult(
            domain=self.order.domain,
            source=self.order.seen.source.name,
            target=self.order.seen.target.name,
            outcome=self.outcome,
            phase=self.phase,
            way=self.order.way,
            policy=self.order.policy.name,
            policy_steps=tuple(self.job.steps) if self.job else (),
            started=self._started,
            seconds=time.monotonic() - self._begin,
            transfer_seconds=self.job.seconds if self.job else None,
            downtime_ms=None if by_libvirt is None or held is None else by_libvirt + held,
            transferred=stats.get("data_processed"),
            iterations=stats.get("memory_iteration"),
            restarted=self.restarted,
            baseline=self.order.seen.baseline,
            not_given=self.not_given,
            forced=self.order.forced,
            message=message,
        )
        return self.row

    def failed(self, problem: str, *, next: str) -> MigrationFailedError:
        """The error that tells all of it; what is to be done about a certificate too, which no plan can see."""
        told = [p.remedy for p in explain_error(problem).problems if p.kind == "TLS"]
        if told:
            next = f"{'; '.join(told).replace('GUEST', self.order.domain)}; then {next}"
        return MigrationFailedError(
            problem,
            changed=tuple(self.changed),
            undone=tuple(self.undone),
            next=next,
            result=self.result(message=problem),
        )

    @property
    def stop(self) -> str:
        """What stopped it, in a word."""
        return "interrupt" if self.interrupted else "abort"

    @property
    def too_late(self) -> str:
        """What to say of a stop that found the guest moved already."""
        return f"the {self.stop} came too late: {self.order.domain} has moved to {self.order.seen.target.name}"

    def stopped(self, problem: str, *, next: str) -> KeyboardInterrupt | MigrationFailedError:
        """Ctrl-C stays Ctrl-C, so that no loop over plans goes on after it; its text says what it left."""
        failed = self.failed(problem, next=next)
        if not self.interrupted:
            return failed
        self.progress.say(str(failed))
        return KeyboardInterrupt(str(failed))
