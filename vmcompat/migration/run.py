"""Does what a plan says, step by step, and knows at each of them what to undo and what to say.

The guest must never be lost, nor run twice, nor be left paused or off without the message saying so: every way out of
here names what was changed, what was undone and what to type next.
"""

from __future__ import annotations

import shlex
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

from vmcompat.errors import ConnectError, MigrationError, VmcompatError
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.migration.apply import ask_cpu, redefine, stored_xml
from vmcompat.migration.domain import Domain, cpu_text, read_domain, with_cpu
from vmcompat.migration.job import MigrationJob, Progress, Shown, Stats, show
from vmcompat.migration.observe import STATES, observe, reading
from vmcompat.migration.order import MigrationFailedError, MigrationResult, Order, Outcome
from vmcompat.migration.preflight import preflight

if TYPE_CHECKING:
    from vmcompat.connect import Host

SHUTDOWN_SECONDS: Final = 180.0
_START_SECONDS: Final = 300.0


def run(order: Order, *, progress: Shown = True, abort: threading.Event | None = None) -> MigrationResult:
    """See :meth:`vmcompat.migration.migrate.MigrationPlan.run`."""
    return _Run(order, show(progress), abort or threading.Event()).do()


class _Run:
    """One run: what it has done so far, so that every way out can tell."""

    def __init__(self, order: Order, progress: Progress, abort: threading.Event) -> None:
        self.order, self.progress, self.abort = order, progress, abort
        self.interrupted = False  # by Ctrl-C, which sets ``abort`` too
        self.started, self.begin = datetime.now(UTC), time.monotonic()
        self.changed: list[str] = []
        self.undone: list[str] = []
        self.not_given: tuple[str, ...] = ()
        self.restarted = False
        self.outcome: Outcome = "stayed"
        self.old = self.new = ""  # stored definitions, secrets included

    def do(self) -> MigrationResult:
        order = self.order
        if order.stops:
            stops = "; ".join(f"{f.id} ({f.severity}): {f.evidence}" for f in order.stops)
            raise self._failed(f"the plan is blocked by {stops}", next=" / ".join(f.remedy for f in order.stops))
        self._look_again()
        try:
            return self._act()
        except KeyboardInterrupt as e:
            if e.args or not self.changed:
                raise
            self.interrupted = True
            raise self._stopped("interrupted between two steps", next=self._look) from e
        except MigrationFailedError:
            raise
        except VmcompatError as e:
            raise self._failed(str(e), next=self._look) from e

    def _act(self) -> MigrationResult:
        from vmcompat.connect import open_host

        order, seen = self.order, self.order.seen
        with ExitStack() as stack:
            here, control, there = (
                stack.enter_context(open_host(uri, write=True)) for uri in (order.source, order.source, order.target)
            )
            if seen.stored is not None:
                self.old = stored_xml(here, order.domain, secrets=True)
                self.new = with_cpu(self.old, order.baseline.guest_xml) if order.baseline else self.old
            self._unless_aborted("the run was aborted before its first step")
            if order.restart:
                self._power_cycle(here)
                self._fits_the_target(here, there)
            before = self._live(here)
            self._unless_aborted(f"the run was aborted before the transfer; {order.domain} is on {here.name}")
            self._move(here, control, there)
            return self._verified(control, there, before)

    # ---- step by step

    def _look_again(self) -> None:
        order, then = self.order, self.order.seen
        now = observe(
            order.domain, order.source, order.target, baseline=order.baseline, restart=bool(order.restart),
            peer_uri=order.peer_uri, migrate_uri=order.migrate_uri,
        )  # fmt: skip
        changed = [
            what
            for what, was, is_now in (
                ("its state", then.state, now.state),
                ("its stored definition", then.stored and then.stored.xml, now.stored and now.stored.xml),
                ("its live definition", then.live and then.live.xml, now.live and now.live.xml),
            )
            if was != is_now
        ]
        if not changed:
            before = set(order.findings)
            changed = [f"{f.id} (now {f.severity}: {f.evidence})" for f in preflight(now) if f not in before]
        if changed:
            raise self._failed(
                f"{order.domain} or a host is not as it was when the plan was made: {', '.join(changed)}",
                next="plan again, and read the findings",
            )

    def _power_cycle(self, here: Host) -> None:
        """Off and on, in a thread of its own: once the guest is off, nothing but the start is a good moment to stop."""
        cycle = here.begin("the power cycle", lambda c: self._off_and_on(here))
        while True:
            try:
                if cycle.ended(0.5):
                    break
            except KeyboardInterrupt:
                self.interrupted = True
                self.abort.set()
                self.progress.say("interrupted: bringing the guest to a safe state first")
        try:
            cycle.answer(0.0)
        except VmcompatError as e:
            if self.interrupted:
                raise self._stopped(str(e), next=self._look) from e
            raise
        self._unless_aborted(f"{self.order.domain} runs on {here.name}")

    def _unless_aborted(self, problem: str) -> None:
        if self.abort.is_set():
            raise self._stopped(problem, next="plan again")

    @property
    def _stored(self) -> str:
        seen = self.order.seen
        return f"the stored CPU of {self.order.domain} on {seen.source.name} is {seen.baseline}"

    def _off_and_on(self, here: Host) -> None:
        name = self.order.domain
        stored = self.old
        if self.new != self.old:
            self.progress.say(f"storing the new definition of {name}")
            stored = redefine(here, name, expected=self.old, new=self.new)
            self.changed.append(self._stored)
        self.progress.say(f"powering {name} off")
        self.changed.append(f"{name} was told to power off")
        if not self._off(here):
            self._restore(here, stored)
            when = f"before the {self._stop}" if self.abort.is_set() else "in time"
            raise self._failed(
                f"{name} did not power off {when}, and may still do so",
                next=f"shut it down from inside, or plan with restart='destroy'; then: {self._virsh('domstate')}",
            )
        self.restarted = True
        self.progress.say(f"starting {name}")
        try:
            here.ask(f"to start {name}", lambda c: c.lookupByName(name).create(), seconds=_START_SECONDS)
        except ConnectError as e:
            self._start_from_old(here, stored, e)
        self.changed[-1] = f"{name} was powered off and on"
        live = self._live(here)
        self.not_given = _not_given(read_domain(stored, source=name), live, here.name, self.order.seen.source.libvirt)
        if self.not_given:
            self.progress.say(f"asked for, not given: {', '.join(self.not_given)}")

    def _off(self, here: Host) -> bool:
        name = self.order.domain

        def is_off() -> bool:
            return not here.ask(f"whether {name} runs", lambda c: c.lookupByName(name).isActive())

        if self.order.restart == "destroy":
            here.ask(f"to power {name} off", lambda c: c.lookupByName(name).destroy())
            return is_off()
        here.ask(f"to shut {name} down", lambda c: c.lookupByName(name).shutdown())
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while not is_off():
            if self.abort.wait(0.5) or time.monotonic() > deadline:
                return is_off()
        return True

    def _restore(self, here: Host, stored: str) -> None:
        if stored != self.old:
            redefine(here, self.order.domain, expected=stored, new=self.old)
            self.changed.remove(self._stored)
            self.undone.append(f"the old definition of {self.order.domain} is stored again")

    def _start_from_old(self, here: Host, stored: str, error: ConnectError) -> None:
        """The guest does not start: back to the definition that it had, and up again."""
        name = self.order.domain
        self.changed[-1] = f"{name} was powered off"
        problem = f"{name} did not start on {here.name}: {error}"
        if stored == self.old:
            raise self._failed(
                f"{problem}. It is off, and its definition is the one it had", next=self._virsh("start")
            ) from error
        try:
            self._restore(here, stored)
            here.ask(f"to start {name}", lambda c: c.lookupByName(name).create(), seconds=_START_SECONDS)
        except (ConnectError, MigrationError) as e:
            raise self._failed(
                f"{problem}. Going back failed too: {e}. The guest is off", next=self._virsh("start")
            ) from error
        self.undone.append(f"{name} was started from the old definition and runs on {here.name}")
        self.outcome = "restored"
        raise self._failed(problem, next="look at the reason; compute a baseline that this host can start") from error

    def _fits_the_target(self, here: Host, there: Host) -> None:
        """The CPU that the guest has got now, asked of the target before the transfer."""
        live = self._live(here)
        cpu = cpu_text(live.xml)
        if cpu is None:
            return
        answer = ask_cpu(there, cpu, live)
        if not answer.fits:
            raise self._failed(
                f"{there.name} cannot run the CPU that {live.name} has got: {answer.reason}. It runs on {here.name}",
                next="plan again: the new plan shows what differs",
            )

    def _move(self, here: Host, control: Host, there: Host) -> None:
        order, name = self.order, self.order.domain
        self.progress.say(f"migrating {name} from {here.name} to {there.name}")
        job = MigrationJob(
            here, control, name,
            peer_uri=order.peer_uri or "", parameters=self._parameters(), flags=_flags(persistent=bool(self.old)),
        )  # fmt: skip
        self.interrupted = job.watch(self.progress, abort=self.abort)
        try:
            job.result()
        except ConnectError as e:
            self.progress.close(complete=False)
            where = self._where(control, there)
            if where != self._arrived or not job.ended(0.0):
                at = f"{name} is {where['source']} on {here.name} and {where['target']} on {there.name}"
                self._did_not_move(at, where, e, ended=job.ended(0.0))
            # a late success is a success
            self.progress.say(f"{name} has arrived, although libvirt reported: {e}")
        else:
            self.progress.close(complete=True)
        self.outcome = "migrated"
        self.changed.append(f"{name} moved to {there.name}")
        if self.interrupted:
            raise self._stopped(self._too_late, next=self._look)

    def _did_not_move(self, at: str, where: dict[str, str], error: ConnectError, *, ended: bool) -> NoReturn:
        from vmcompat.connect import constant

        name = self.order.domain
        safe = ended and where["source"] == "running" and where["target"] in ("gone", "shut off")
        if safe:
            aborted = self.abort.is_set() and error.code == constant("VIR_ERR_OPERATION_ABORTED")
            problem = f"aborted; {at}" if aborted else f"libvirt did not migrate {name}: {error}. {at}"
            next = "plan again"
        else:
            self.outcome = "unknown"
            problem = f"libvirt did not migrate {name}: {error}. {at}"
            next = f"start it nowhere before both hosts have answered: {self._look}"
        if not ended:
            problem = f"libvirt has not answered the abort yet: the job may still run. {at}"
            next = f"{self._virsh('domjobabort')}; then {next}"
        raise self._stopped(problem, next=next) from error

    def _parameters(self) -> dict[str, Any]:
        from vmcompat.connect import constant

        parameters: dict[str, Any] = {}
        if self.order.migrate_uri:
            parameters[constant("VIR_MIGRATE_PARAM_URI")] = self.order.migrate_uri
        if self.new != self.old:
            parameters[constant("VIR_MIGRATE_PARAM_PERSIST_XML")] = self.new
        return parameters

    @property
    def _arrived(self) -> dict[str, str]:
        was_paused = self.order.seen.state == "paused" and not self.restarted
        return {"source": "gone", "target": "paused" if was_paused else "running"}

    def _where(self, control: Host, there: Host) -> dict[str, str]:
        return {
            "source": _state(self.order.source, self.order.domain, control),
            "target": _state(self.order.target, self.order.domain, there),
        }

    def _verified(self, control: Host, there: Host, before: Domain) -> MigrationResult:
        from vmcompat.connect import constant

        name = self.order.domain
        where = self._where(control, there)
        if where != self._arrived:
            raise self._failed(
                f"{name} is {where['source']} on {control.name} and {where['target']} on {there.name}",
                next=self._look,
            )
        after = self._live(there)
        faults = []
        if after.uuid != before.uuid:
            faults.append(f"its UUID was {before.uuid} and is {after.uuid}")
        if (lost := _not_given(before, after, there.name, self.order.seen.target.libvirt)) != ():
            faults.append(f"its live definition lacks {', '.join(lost)}")
        if self.new:
            stored = read_domain(stored_xml(there, name), source=there.name)
            if stored.cpu != read_domain(self.new, source=name).cpu:
                faults.append(f"the CPU of its stored definition on {there.name} is not the one that was to be stored")
        if faults:
            raise self._failed(
                f"{name} runs on {there.name}, but {'; '.join(faults)}", next=self._virsh("dumpxml", at_target=True)
            )
        flags = constant("VIR_DOMAIN_JOB_STATS_COMPLETED")
        try:
            stats = there.ask(f"the statistics of {name}", lambda c: c.lookupByName(name).jobStats(flags))
        except ConnectError as e:
            return self._result(message=f"it moved; {e}")
        return self._result(stats=stats, message=self._too_late if self.abort.is_set() else "")

    # ---- telling

    def _live(self, host: Host) -> Domain:
        name = self.order.domain
        xml = host.ask(f"the live definition of {name}", lambda c: c.lookupByName(name).XMLDesc(0))
        return read_domain(xml, source=f"{host.uri} {name}")

    def _virsh(self, command: str, *, at_target: bool = False) -> str:
        end = self.order.seen.target if at_target else self.order.seen.source
        return f"virsh -c {shlex.quote(end.uri)} {command} --domain {shlex.quote(self.order.domain)}"

    @property
    def _look(self) -> str:
        return f"{self._virsh('domstate')}; {self._virsh('domstate', at_target=True)}"

    def _result(self, *, message: str = "", stats: Stats | None = None) -> MigrationResult:
        stats = stats or {}
        return MigrationResult(
            domain=self.order.domain,
            source=self.order.seen.source.name,
            target=self.order.seen.target.name,
            outcome=self.outcome,
            started=self.started,
            seconds=time.monotonic() - self.begin,
            downtime_ms=stats.get("downtime"),
            transferred=stats.get("data_processed"),
            iterations=stats.get("memory_iteration"),
            restarted=self.restarted,
            baseline=self.order.seen.baseline,
            not_given=self.not_given,
            forced=self.order.forced,
            message=message,
        )

    def _failed(self, problem: str, *, next: str) -> MigrationFailedError:
        return MigrationFailedError(
            problem,
            changed=tuple(self.changed),
            undone=tuple(self.undone),
            next=next,
            result=self._result(message=problem),
        )

    @property
    def _stop(self) -> str:
        return "interrupt" if self.interrupted else "abort"

    @property
    def _too_late(self) -> str:
        return f"the {self._stop} came too late"

    def _stopped(self, problem: str, *, next: str) -> KeyboardInterrupt | MigrationFailedError:
        """Ctrl-C stays Ctrl-C, so that no loop over plans goes on after it; its text says what it left."""
        failed = self._failed(problem, next=next)
        if not self.interrupted:
            return failed
        self.progress.say(str(failed))
        return KeyboardInterrupt(str(failed))


def _flags(*, persistent: bool) -> int:
    from vmcompat.connect import constant

    names = ["VIR_MIGRATE_LIVE", "VIR_MIGRATE_PEER2PEER"]
    names += ["VIR_MIGRATE_PERSIST_DEST", "VIR_MIGRATE_UNDEFINE_SOURCE"] if persistent else []
    return sum(int(constant(name)) for name in names)


def _state(uri: str, name: str, host: Host) -> str:
    """Where a domain is, after anything may have happened: over a new connection if the old one does not answer."""
    from vmcompat.connect import constant, open_host

    def ask(of: Host) -> str:
        try:
            return STATES[of.ask(f"the state of {name}", lambda c: c.lookupByName(name).state()[0], seconds=15.0)]
        except ConnectError as e:
            if e.code == constant("VIR_ERR_NO_DOMAIN"):
                return "gone"
            raise

    try:
        return ask(host)
    except ConnectError:
        try:
            with open_host(uri) as again:
                return ask(again)
        except ConnectError as e:
            return f"in an unknown state ({e.__cause__ or e})"


def _not_given(asked: Domain, live: Domain, host: str, libvirt: str) -> tuple[str, ...]:
    """Features that a definition asks for and the running guest does not have."""
    if asked.cpu is None or asked.cpu.model is None or live.cpu is None or live.cpu.model is None:
        return ()
    wanted, has = (reading(d.cpu, host=host, libvirt=libvirt) for d in (asked, live))
    return tuple(CpuMap.load().names(wanted.offered & ~has.offered))
