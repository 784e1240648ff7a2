"""Does what a plan says, step by step, and knows at each of them what to undo and what to say.

The guest must never be lost, nor run twice, nor be left paused or off without the message saying so: every way out of
here names what was changed, what was undone and what to type next.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, Any, Final, NoReturn

from vmcompat.errors import ConnectError, VmcompatError
from vmcompat.migration import journal
from vmcompat.migration.account import Account
from vmcompat.migration.aftermath import FOUND, Found
from vmcompat.migration.apply import ask_cpu, stored_xml, without_secrets
from vmcompat.migration.cycle import PowerCycle
from vmcompat.migration.domain import Domain, cpu_text, difference, read_domain, with_cpu
from vmcompat.migration.job import LibvirtJob
from vmcompat.migration.observe import observe
from vmcompat.migration.order import MigrationFailedError, MigrationResult, Order, Outcome
from vmcompat.migration.policy import Driver
from vmcompat.migration.preflight import STOPS, preflight
from vmcompat.migration.progress import Progress, Shown, show
from vmcompat.migration.recover import recover
from vmcompat.migration.standby import standing_by
from vmcompat.migration.whereabouts import GONE, OFF, Whereabouts, let_run, not_given, state

if TYPE_CHECKING:
    from vmcompat.connect import Host

_BACK_SECONDS: Final = 15.0  # until a host that does not answer is called silent
_HELD_SECONDS: Final = 120.0  # of trying to let a guest run that arrived paused
_BROKEN_SECONDS: Final = 60.0  # until a source has noticed that the other end, or its client, is gone
_CALM_LOOKS: Final = 4  # at a guest that stays at the source, until that is taken for the end of it
_BETWEEN_LOOKS: Final = 2.0  # [s]
_OVER: Final = ("arrived", "definition left", "off", "gone", "two copies", "name taken", "post-copy lost")
_LEFT: Final[Mapping[Found, Outcome]] = {
    "at source": "stayed",
    "definition at target": "stayed",
    "incoming left": "stayed",
    "stuck": "stayed",
    "arrived": "migrated",
    "definition left": "migrated",
    "source left": "migrated",
    "post-copy lost": "lost",
    "off": "lost",  # it ran when the transfer began
    "gone": "lost",
}
"""What each state that a failed transfer may leave makes of the run; all others are *unknown*."""


def run(order: Order, *, progress: Shown = True, abort: threading.Event | None = None) -> MigrationResult:
    """See :meth:`vmcompat.migration.migrate.MigrationPlan.run`."""
    return Run(order, show(progress), abort or threading.Event()).do()


class Run(Account):
    """One run, from the second look to the verification."""

    def __init__(self, order: Order, progress: Progress, abort: threading.Event) -> None:
        super().__init__(order, progress, abort)
        # it has not been let run yet
        self._held = bool(order.transfer.hold) and order.seen.state not in ("paused", "suspended")
        self._came: float | None = None  # when it stood complete at the target
        self._taken = self._latest = ""  # definition that the transfer takes along, and what is stored there later
        self._edited = threading.Event()  # somebody has stored another one meanwhile

    def do(self) -> MigrationResult:
        """All of it, and a line in the log; see :func:`run`."""
        order = self.order
        if order.stops:
            stops = "; ".join(f"{f.id} ({f.severity}): {f.evidence}" for f in order.stops)
            raise self.failed(f"the plan is blocked by {stops}", next=" / ".join(f.remedy for f in order.stops))
        self._look_again()
        try:
            return self._acted()
        finally:
            if self.row is not None:
                journal.append(self.row)

    def _acted(self) -> MigrationResult:
        try:
            return self._act()
        except KeyboardInterrupt as e:
            if e.args or not self.changed:
                raise
            self.interrupted = True
            next = f"{self.recovery}; or {self.look}" if self._held else self.look
            raise self.stopped("interrupted between two steps", next=next) from e
        except MigrationFailedError:
            raise
        except VmcompatError as e:
            raise self.failed(str(e), next=self.look) from e

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
                self.phase = "power cycle"
                PowerCycle(self, here).do()
                self._unless_aborted(f"{order.domain} runs on {here.name}")
                self._fits_the_target(here, there)
            before = None if order.transfer.offline else self.live(here)
            self._unless_aborted(f"the run was aborted before the transfer; {order.domain} is on {here.name}")
            with self._standing_by():
                self._move(here, control, there)
            if not there.alive:
                there = stack.enter_context(open_host(order.target, write=True))
            return self._verified(control, there, before)

    def _standing_by(self) -> AbstractContextManager[None]:
        if not self._held:
            return nullcontext()
        return standing_by(self.order.domain, self.order.source, self.order.target)

    # ---- step by step

    def _look_again(self) -> None:
        order, then = self.order, self.order.seen
        now = observe(
            order.domain, order.source, order.target, baseline=order.baseline, restart=bool(order.restart),
            peer_uri=order.peer_uri, migrate_uri=order.migrate_uri, transfer=order.transfer,
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
            new = [f for f in preflight(now) if f.severity in STOPS and f not in before]
            changed = [f"{f.id} (now {f.severity}: {f.evidence})" for f in new]
        if changed:
            raise self.failed(
                f"{order.domain} or a host is not as it was when the plan was made: {', '.join(changed)}",
                next="plan again, and read the findings",
            )

    def _unless_aborted(self, problem: str) -> None:
        if self.abort.is_set():
            raise self.stopped(problem, next="plan again")

    def _fits_the_target(self, here: Host, there: Host) -> None:
        """The CPU that the guest has got now, asked of the target before the transfer."""
        live = self.live(here)
        cpu = cpu_text(live.xml)
        if cpu is None:
            return
        answer = ask_cpu(there, cpu, live)
        if not answer.fits:
            raise self.failed(
                f"{there.name} cannot run the CPU that {live.name} has got: {answer.reason}. It runs on {here.name}",
                next="plan again: the new plan shows what differs",
            )

    def _move(self, here: Host, control: Host, there: Host) -> None:
        order, name = self.order, self.order.domain
        self.phase = "transfer"
        self.progress.say(f"migrating {name} from {here.name} to {there.name}, {order.way}, policy {order.policy.name}")
        if self.old:
            control.on_lifecycle(name, "DEFINED", self._edited.set)
            self._taken = self._latest = stored_xml(control, name, secrets=True)
        if self._held:
            there.on_lifecycle(name, "SUSPENDED", self._note_arrival)
        driver = Driver(order.policy, memory=order.memory, post_copy=order.transfer.post_copy, now=time.monotonic())
        self.job = job = LibvirtJob(
            here, control, there, name,
            managed=order.transfer.managed, peer_uri=order.peer_uri or "", parameters=self._parameters(),
            flags=order.transfer.flags(persistent=bool(self.old)),
        )  # fmt: skip
        interrupted = job.watch(
            self.progress, driver, abort=self.abort, meanwhile=lambda: self._note_definition(control)
        )
        self.interrupted = interrupted or self.interrupted
        try:
            job.result()
        except ConnectError as e:
            self.progress.close(complete=False)
            if not order.transfer.managed and job.ended(0.0) and not here.alive:
                self._watch_anew()
            where = self._where_at_last(control, there)
            if where != self._arrived or not job.ended(0.0):
                self._did_not_move(job, control, there, where, e)
            # a late success is a success
            self.progress.say(f"{name} has arrived, although libvirt reported: {e}")
        else:
            self.progress.close(complete=True)
        self.outcome = "migrated"
        self.changed.append(f"{name} moved to {there.name}")
        if self._held:
            self._let_run(there)
        if self.interrupted and not self._held:  # else its QEMU has ended, which the verification tells
            raise self.stopped(self.too_late, next=self.look)

    def _let_run(self, there: Host) -> None:
        """The guest that arrived paused; the source has let go of it, or libvirt would not call it migrated."""
        from vmcompat.connect import constant, open_host

        name, deadline = self.order.domain, time.monotonic() + _HELD_SECONDS
        while self._held:
            try:
                with nullcontext(there) if there.alive else open_host(self.order.target, write=True) as host:
                    let_run(host, name)
                self._held = False
            except KeyboardInterrupt:  # nobody wants it to stand still
                self.interrupted = True
                self.abort.set()
            except ConnectError as e:
                if e.code == constant("VIR_ERR_NO_DOMAIN"):
                    return  # its QEMU has ended since, as the verification will find
                if time.monotonic() > deadline:
                    raise self.failed(
                        f"{name} has arrived on {there.name}, where it is paused: {e}",
                        next=self.virsh("resume", at_target=True),
                    ) from e
                self.progress.say(f"{name} has arrived paused, and cannot be let run yet: {e}; trying again")
                time.sleep(_BETWEEN_LOOKS)
        self.held_ms = None if self._came is None else round(1000 * (time.monotonic() - self._came))

    def _note_arrival(self) -> None:
        self._came = time.monotonic()

    def _note_definition(self, control: Host) -> None:
        """Libvirt takes the stored definition along as it was at the start: a later change would go unnoticed."""
        if not self.old or self.order.transfer.offline:
            return
        try:
            self._latest = stored_xml(control, self.order.domain, secrets=True)
        except ConnectError:
            return  # it has gone, or cannot be asked just now

    @property
    def _left_behind(self) -> str:
        """What was changed in the stored definition during the transfer, and is not at the target."""
        there = self.order.seen.target.name
        told = f"somebody changed its stored definition during the transfer, and {there} has it as it was before"
        if self._latest != self._taken:
            change = without_secrets(difference(self._taken, self._latest, name=self.order.domain))
            return f"{told}; change it there too:\n{change}"
        if self._edited.is_set():  # in its last moments
            return f"{told}; what it was is gone with the source's definition: ask who did it"
        return ""

    def _watch_anew(self) -> None:
        """Peer to peer a migration goes on when its client has lost the connection: until that has come to an end."""
        order = self.order
        self.progress.say("the connection is lost, and the migration may go on without it; looking from new ones")
        deadline = time.monotonic() + order.policy.deadline(order.memory)
        calm = 0
        while calm < _CALM_LOOKS and time.monotonic() < deadline:
            try:
                left = recover(order.domain, order.source, order.target)
                # between two steps of a migration there may be no job to see
                calm = _CALM_LOOKS if left.found in _OVER else calm + 1 if left.found == "at source" else 0
                if left.source.job == "migration" and self.abort.is_set():
                    self._abort_anew()
                if calm < _CALM_LOOKS:
                    time.sleep(_BETWEEN_LOOKS)
            except KeyboardInterrupt:
                self.interrupted = True
                self.abort.set()

    def _abort_anew(self) -> None:
        from vmcompat.connect import open_host

        name = self.order.domain
        try:
            with open_host(self.order.source, write=True) as control:
                control.ask(f"to abort the job of {name}", lambda c: c.lookupByName(name).abortJob())
        except ConnectError as e:
            self.progress.say(f"not aborted: {e}")

    def _did_not_move(
        self, job: LibvirtJob, control: Host, there: Host, where: Whereabouts, error: ConnectError
    ) -> NoReturn:
        from vmcompat.connect import constant

        name, ended = self.order.domain, job.ended(0.0)
        paused = [f"{name} was paused so that it could finish"] if job.paused else []
        if ended and where.source == "paused" and where.target in (GONE, OFF):
            if self._held and not paused and self._broken_off():
                paused = [f"{name} was paused at {control.name} for a switch-over that was broken off"]
            if paused:
                where = self._resumed(control, there)
        self.changed += paused
        if paused and where.source == self._home:  # libvirt itself resumes what it knows to have run before
            self.undone.append(f"{name} runs again on {control.name}")
        if job.post_copy:
            self.changed.append(f"{name} was switched to post-copy")
        at = where.told(name, control.name, there.name)
        why = f" ({job.steps[-1]})" if job.steps else ""
        problem = f"libvirt did not migrate {name}: {error}{why}. {at}"
        if ended and where.source == self._home and where.target in (GONE, OFF):
            if self.abort.is_set() or job.aborted:
                problem = f"aborted{why}; {at}"
                if error.code != constant("VIR_ERR_OPERATION_ABORTED"):  # the target may complain first
                    problem = f"{problem}. libvirt said: {error}"
            next = "plan again"
        elif ended and self._held and where == Whereabouts(self._home, "paused"):
            problem = f"{problem}. What waits on {there.name} has never run: it was held there"
            next = f"{self.virsh('destroy', at_target=True)}; {self.virsh('undefine', at_target=True)}; then plan again"
        else:
            problem, next = self._judged(problem)
        if not ended:
            problem = f"libvirt has not answered the abort yet: the job may still run{why}. {problem}"
            next = f"{self.virsh('domjobabort')}; then {next}"
        raise self.stopped(problem, next=next) from error

    def _judged(self, problem: str) -> tuple[str, str]:
        """What both hosts say of it now: the problem in these words too, and what to do next."""
        left = recover(self.order.domain, self.order.source, self.order.target)
        self.outcome = _LEFT.get(left.found, "unknown")
        next = "; ".join([*left.steps, *filter(None, [left.remedy])]) or "plan again"
        if not left.safe:
            next = f"{next}. Then look again: {self.recovery}; or {self.look}"
        return f"{problem}. {FOUND[left.found]}", next

    def _resumed(self, control: Host, there: Host) -> Whereabouts:
        """The guest that was paused so that it could finish runs on at the source, where it has stayed."""
        from vmcompat.connect import open_host

        try:
            with open_host(self.order.source, write=True) as anew:
                let_run(anew, self.order.domain)
        except ConnectError as e:
            self.progress.say(f"it could not be resumed: {e}; next: {self.virsh('resume')}")
        return self._where(control, there)

    def _broken_off(self) -> bool:
        """Whether a guest that moved held stands at the source, for a switch-over that nobody ends any more."""
        order, deadline = self.order, time.monotonic() + _BROKEN_SECONDS
        while (found := recover(order.domain, order.source, order.target).found) == "switching":
            if time.monotonic() > deadline:
                return False
            time.sleep(_BETWEEN_LOOKS)
        return found == "paused at source"

    def _parameters(self) -> dict[str, Any]:
        from vmcompat.connect import constant

        parameters = self.order.transfer.parameters()
        if self.order.migrate_uri:
            parameters[constant("VIR_MIGRATE_PARAM_URI")] = self.order.migrate_uri
        if self.new != self.old:
            parameters[constant("VIR_MIGRATE_PARAM_PERSIST_XML")] = self.new
        return parameters

    @property
    def _home(self) -> str:
        """The state in which the guest is to be, on one host or the other."""
        if self.order.transfer.offline:
            return OFF
        return "paused" if self.order.seen.state == "paused" and not self.restarted else "running"

    @property
    def _arrived(self) -> Whereabouts:
        return Whereabouts(GONE, "paused" if self._held else self._home)

    def _where(self, control: Host, there: Host) -> Whereabouts:
        return Whereabouts(
            state(self.order.source, self.order.domain, control), state(self.order.target, self.order.domain, there)
        )

    def _where_at_last(self, control: Host, there: Host) -> Whereabouts:
        """Where it is; a libvirtd that is just being restarted, or a link that comes back, is waited for."""
        deadline = time.monotonic() + _BACK_SECONDS
        waited = False
        while not (where := self._where(control, there)).known and time.monotonic() < deadline:
            if not waited:
                self.progress.say("a host does not answer; asking again")
                waited = True
            time.sleep(1.0)
        return where

    def _verified(self, control: Host, there: Host, before: Domain | None) -> MigrationResult:
        from vmcompat.connect import constant

        name = self.order.domain
        self.phase = "verification"
        where = self._where_at_last(control, there)
        if where != self._arrived:
            problem, next = self._judged(where.told(name, control.name, there.name))
            raise self.failed(problem, next=next)
        faults = [] if before is None else self._differences(before, self.live(there), there)
        if self.new:
            stored = read_domain(stored_xml(there, name), source=there.name)
            if stored.cpu != read_domain(self.new, source=name).cpu:
                faults.append(f"the CPU of its stored definition on {there.name} is not the one that was to be stored")
        if faults:
            raise self.failed(
                f"{name} runs on {there.name}, but {'; '.join(faults)}", next=self.virsh("dumpxml", at_target=True)
            )
        if self.old and self.order.seen.source.autostart:
            # last of all: from here on the target starts it, and the source has no definition of it any more
            there.ask(f"to mark {name} autostart", lambda c: c.lookupByName(name).setAutostart(1))
            self.changed.append(f"{name} is marked autostart on {there.name}")
        self.phase = "end"
        if before is None:
            return self.result()
        flags = constant("VIR_DOMAIN_JOB_STATS_COMPLETED")
        try:
            stats = there.ask(f"the statistics of {name}", lambda c: c.lookupByName(name).jobStats(flags))
        except ConnectError as e:
            return self.result(message=f"it moved; {e}")
        if self._left_behind:
            self.progress.say(self._left_behind)
        told = [self.too_late if self.abort.is_set() else "", self._left_behind]
        return self.result(stats=stats, message="; ".join(filter(None, told)))

    def _differences(self, before: Domain, after: Domain, there: Host) -> list[str]:
        faults = []
        if after.uuid != before.uuid:
            faults.append(f"its UUID was {before.uuid} and is {after.uuid}")
        if lost := not_given(before, after, there.name, self.order.seen.target.libvirt):
            faults.append(f"its live definition lacks {', '.join(lost)}")
        return faults
