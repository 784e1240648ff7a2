"""What the migration widget knows: the plan, whether it is armed, and how far its run is. No widget, no thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from vmcompat.errors import MigrationError, VmcompatError
from vmcompat.fleet.sources import natural
from vmcompat.migration.migrate import MigrationPlan, plan_migration
from vmcompat.migration.order import MigrationFailedError, MigrationResult, Restart
from vmcompat.migration.policy import BALANCED, Policy
from vmcompat.migration.preflight import FORCEABLE, WORST_FIRST, Finding
from vmcompat.migration.progress import Sample
from vmcompat.migration.transfer import PLAIN, Transfer

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline

Phase: TypeAlias = Literal["idle", "listing", "planning", "running", "aborting"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MigrateState:
    """A plan that may be armed and run once, one guest at a time.

    Attributes
    ----------
    source : str
        URI, as it was given.
    targets : tuple of str
        URIs to choose from.
    target : str
        The chosen one.
    wanted : str or None
        The domain asked for at the start, until the source has said what runs there.
    domain : str or None
        The chosen one of ``domains``, those that run at the source.
    restart, baseline, peer_uri, migrate_uri, transfer, policy, write
        As :func:`vmcompat.plan_migration` takes them.
    allow_run : bool
    phase : {"idle", "listing", "planning", "running", "aborting"}
    plan : MigrationPlan or None
        Void as soon as something else is chosen, and when its run has ended.
    typed : str
        What arms the plan if it is the domain's name.
    said : str
        What the run does now.
    samples : tuple of Sample
        Of the run that goes on, or of the last one.
    moved : str
        Whom these are of, in words.
    results : tuple of MigrationResult
        Of each run that has ended, the newest first.
    message, next : str
        Why something did not go, and what to type next.
    """

    source: str = field(repr=False)
    targets: tuple[str, ...] = field(repr=False)
    target: str = field(repr=False)
    wanted: str | None = None
    domain: str | None = None
    domains: tuple[str, ...] = ()
    restart: Restart = False
    baseline: Baseline | None = None
    peer_uri: str | None = field(repr=False, default=None)
    migrate_uri: str = field(repr=False, default="")
    transfer: Transfer = PLAIN
    policy: Policy = BALANCED
    write: bool = True
    allow_run: bool = False
    phase: Phase = "idle"
    plan: MigrationPlan | None = None
    typed: str = ""
    said: str = ""
    samples: tuple[Sample, ...] = field(repr=False, default=())
    moved: str = ""
    results: tuple[MigrationResult, ...] = ()
    message: str = ""
    next: str = ""

    @staticmethod
    def of(source: str, targets: str | Iterable[str], *, domain: str | None = None, **options: Any) -> MigrateState:
        """Nothing is asked yet.

        Raises
        ------
        MigrationError
            No target, or the address of one target for several.
        """
        targets = (targets,) if isinstance(targets, str) else tuple(dict.fromkeys(targets))
        if not targets:
            raise MigrationError("no target: give the URI of a host that the domain may move to, or a list of them")
        if len(targets) > 1 and (named := [n for n in ("peer_uri", "migrate_uri") if options.get(n)]):
            raise MigrationError(
                f"{' and '.join(named)}: the address of one target, and there are {len(targets)}; give one target, or "
                "leave it to their URIs"
            )
        return MigrateState(source=source, targets=targets, target=targets[0], wanted=domain, **options)

    # ---- what holds

    @property
    def busy(self) -> bool:
        """Whether hosts are being asked or a guest moves, so that nothing else can be chosen."""
        return self.phase != "idle"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of the plan, the worst first."""
        found = self.plan.order.findings if self.plan else ()
        return tuple(sorted(found, key=lambda f: WORST_FIRST.index(f.severity)))

    @property
    def forceable(self) -> tuple[Finding, ...]:
        """Risks and unknowns, which may be passed at one's own word."""
        return tuple(f for f in self.findings if f.severity in FORCEABLE)

    @property
    def unarmed(self) -> str:
        """Why the plan cannot be run now; empty where it is armed."""
        if not self.allow_run:
            return "this widget only plans: allow_run=True gives it a Run button"
        if self.phase in ("running", "aborting"):
            return "one guest at a time"
        if self.plan is None:
            return "plan first"
        if self.plan.blocked:
            return f"blocked by {', '.join(f.id for f in self.plan.order.stops)}"
        if not self.typed:
            return "type the domain's name to arm the button"
        return "" if self.typed == self.plan.order.domain else f"{self.typed!r} is not the domain of this plan"

    # ---- what changes it

    def listing(self) -> MigrateState:
        """While the source is asked what runs there."""
        return self if self.busy else replace(self._void(), phase="listing")

    def listed(self, names: Iterable[str]) -> MigrateState:
        """With the domains that run at the source; the chosen one stays chosen.

        Raises
        ------
        MigrationError
            The domain asked for at the start is not among them.
        """
        domains = tuple(sorted(names, key=natural))
        wanted = self.wanted if self.domain is None else self.domain
        state = replace(self, phase="idle", domains=domains, wanted=None)
        if wanted is None or wanted in domains:
            return replace(state, domain=wanted)
        runs = f"there run {', '.join(domains[:8])}" if domains else "no domain runs there"
        return replace(state, domain=None, message=f"no domain {wanted!r} runs on the source; {runs}")

    def choosing(self, **choice: Any) -> MigrateState:
        """With another ``domain``, ``target``, ``restart`` or ``policy``: the plan is void."""
        return self if self.busy else replace(self._void(), **choice)

    def planning(self) -> MigrateState:
        """While both hosts are asked.

        Raises
        ------
        MigrationError
            No domain is chosen, or something goes on.
        """
        if self.busy:
            raise MigrationError("wait for what goes on now")
        if self.domain is None:
            raise MigrationError("choose the domain first")
        return replace(self._void(), phase="planning")

    def look(self) -> MigrationPlan:
        """Asks both hosts, which takes seconds; changes nothing.

        Raises
        ------
        ConnectError, MigrationError
            As :func:`vmcompat.plan_migration` does.
        """
        return plan_migration(
            self.domain or "", self.source, self.target, baseline=self.baseline, restart=self.restart,
            peer_uri=self.peer_uri, migrate_uri=self.migrate_uri, transfer=self.transfer, policy=self.policy,
            write=self.write,
        )  # fmt: skip

    def planned(self, plan: MigrationPlan) -> MigrateState:
        """With a plan that nobody has armed yet."""
        return replace(self, phase="idle", plan=plan)

    def forcing(self, check: str, *, on: bool) -> MigrateState:
        """With a finding passed or not; a plan that passes something else has to be armed anew."""
        if self.plan is None or self.busy:
            return self
        force = tuple(f for f in self.plan.order.force if f != check) + ((check,) if on else ())
        return replace(self, plan=MigrationPlan(order=replace(self.plan.order, force=force)), typed="")

    def typing(self, text: str) -> MigrateState:
        """With what was typed to arm it."""
        return self if self.busy else replace(self, typed=text)

    def started(self) -> MigrateState:
        """While the plan is carried out.

        Raises
        ------
        MigrationError
            It is not armed.
        """
        if self.unarmed or self.busy or self.plan is None:
            raise MigrationError(f"nothing was started: {self.unarmed or 'wait for what goes on now'}")
        seen = self.plan.seen
        moved = f"Migration of {seen.domain} from {seen.source.name} to {seen.target.name}"
        return replace(
            self, phase="running", said="looking at both hosts again", samples=(), moved=moved, message="", next=""
        )

    def told(self, text: str) -> MigrateState:
        """With the step that begins now."""
        return replace(self, said=text)

    def measured(self, stats: Mapping[str, Any]) -> MigrateState:
        """With libvirt's statistics of the job, if they tell anything."""
        sample = Sample.of(stats)
        return self if sample is None else replace(self, samples=(*self.samples, sample))

    def aborting(self) -> MigrateState:
        """While libvirt is asked to abort."""
        if self.phase != "running":
            return self
        return replace(self, phase="aborting", said="abort asked for, waiting for libvirt's answer")

    def ended(self, result: MigrationResult) -> MigrateState:
        """With the row of a run; the plan is void, and a domain that has moved is no longer at the source."""
        state = replace(self._void(), phase="idle", said="", results=(result, *self.results))
        if result.outcome != "migrated":
            return state
        return replace(state, domain=None, domains=tuple(d for d in self.domains if d != result.domain))

    def failed(self, error: VmcompatError) -> MigrateState:
        """With why what went on has failed; its plan is void."""
        if isinstance(error, MigrationFailedError):
            told = str(error).removesuffix(f" Next: {error.next}")
            return replace(self.ended(error.result), message=told, next=error.next)
        return replace(self._void(), phase="idle", said="", message=str(error))

    def refused(self, error: VmcompatError) -> MigrateState:
        """With why a click has no effect; what goes on goes on."""
        return replace(self, message=str(error), next="")

    def _void(self) -> MigrateState:
        return replace(self, plan=None, typed="", message="", next="")


def running_domains(uri: str) -> tuple[str, ...]:
    """Names of the domains that run on a host, asked over a read-only connection.

    Raises
    ------
    ConnectError
        The host cannot be reached.
    """
    from vmcompat.connect import constant, open_host

    with open_host(uri) as host:
        active = constant("VIR_CONNECT_LIST_DOMAINS_ACTIVE")
        return tuple(host.ask("its running domains", lambda c: [d.name() for d in c.listAllDomains(active)]))
