"""One running migration: started, watched, driven by a policy, and aborted from a second connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from vmcompat.errors import ConnectError
from vmcompat.migration.policy import Driver, Step
from vmcompat.migration.progress import Progress, Stats

if TYPE_CHECKING:
    from vmcompat.calls import ConnectionCalls
    from vmcompat.connect import Host, Pending

POLL_SECONDS: Final = 0.5
ABORT_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 10.0
_TARGET_SECONDS: Final = 15.0  # of silence, until a target that only this client talks to counts as lost


class LibvirtJob:
    """A live migration that libvirt carries out.

    Parameters
    ----------
    here, there : Host
        Source and target, read-write; busy until the migration has ended. The target's is used in managed mode only.
    control : Host
        A second connection to the source, over which the job is watched, driven and aborted.
    domain : str
        Name.
    managed : bool
        Whether this client hands the guest over; else the source's libvirt calls ``peer_uri``.
    peer_uri : str
        Where the source's libvirtd finds the target's.
    parameters, flags
        Of ``virDomainMigrateToURI3`` and ``virDomainMigrate3``, by libvirt's names.

    Attributes
    ----------
    steps : list of str
        What was done to it by the policy, in sentences.
    paused : bool
        The guest was paused so that it can finish.
    post_copy : bool
        It was switched to post-copy: there is no way back any more.
    aborted : bool
        The policy had it aborted.
    """

    def __init__(
        self,
        here: Host,
        control: Host,
        there: Host,
        domain: str,
        *,
        managed: bool,
        peer_uri: str,
        parameters: Mapping[str, Any],
        flags: int,
    ) -> None:
        self.domain = domain
        self.steps: list[str] = []
        self._begun = time.monotonic()
        self._over: float | None = None
        self.paused = self.post_copy = self.aborted = False
        self._control = control
        self._there = there if managed else None
        what, given = f"to migrate {domain}", dict(parameters)
        self._call: Pending[object]
        if managed:
            self._call = here.begin_with(there, what, lambda c, d: c.lookupByName(domain).migrate3(d, given, flags))
        else:
            self._call = here.begin(
                what, lambda c: c.lookupByName(domain).migrateToURI3(peer_uri, given, flags), uri=peer_uri
            )

    def ended(self, seconds: float) -> bool:
        """Whether the migration has ended, well or badly, after waiting so long at most [s]."""
        over = self._call.ended(seconds)
        if over and self._over is None:
            self._over = time.monotonic()
        return over

    @property
    def seconds(self) -> float:
        """How long libvirt's call has taken [s], so far or in all."""
        return (self._over or time.monotonic()) - self._begun

    def stats(self) -> Stats:
        """What libvirt says of the job now; empty where it has none to tell, as before and after the transfer."""
        try:
            return self._control.ask(
                f"the progress of {self.domain}",
                lambda c: c.lookupByName(self.domain).jobStats(),
                seconds=_LOOK_SECONDS,
            )
        except ConnectError:
            return {}  # the last poll comes too late, and a lost connection shows in the call itself

    def set_speed(self, mib_per_second: int) -> None:
        """Most that is sent from now on [MiB/s]."""
        self._tell("the speed", lambda c: c.lookupByName(self.domain).migrateSetMaxSpeed(mib_per_second))

    def set_downtime(self, milliseconds: int) -> None:
        """Longest that the guest may stand still at the switch-over [ms]."""
        self._tell("the downtime", lambda c: c.lookupByName(self.domain).migrateSetMaxDowntime(milliseconds))

    def _tell(self, what: str, call: Callable[[ConnectionCalls], object]) -> None:
        self._control.ask(f"to set {what} of the migration of {self.domain}", call, seconds=_LOOK_SECONDS)

    def abort(self) -> None:
        """Asks libvirt to abort; the guest goes on at the source, unless the migration has just succeeded."""
        try:
            self._control.ask(
                f"to abort the job of {self.domain}",
                lambda c: c.lookupByName(self.domain).abortJob(),
                seconds=_LOOK_SECONDS,
            )
        except ConnectError:
            return  # no job yet, or no more: the caller asks again until the migration has ended

    def watch(
        self, progress: Progress, driver: Driver, *, abort: threading.Event, meanwhile: Callable[[], None]
    ) -> bool:
        """Waits for the end and does what the policy wants; once told to abort, waits for libvirt's answer to that.

        Parameters
        ----------
        progress : Progress
        driver : Driver
            Says when to do what.
        abort : threading.Event
            Set by whoever wants the job aborted, from any thread; Ctrl-C sets it too.
        meanwhile : callable
            Called at every turn.

        Returns
        -------
        bool
            Whether it was Ctrl-C. How the migration ended, :meth:`result` says.
        """
        interrupted = refused = False
        aborting_since: float | None = None
        target = _Pulse(self._there)
        while True:
            try:
                if self.post_copy and abort.is_set() and not refused:
                    progress.say("post-copy is under way: an abort would lose the guest, so it is not asked for")
                    refused = True
                if aborting_since is None and abort.is_set() and not self.post_copy:
                    aborting_since = time.monotonic()
                    by = "interrupted: " if interrupted else ""
                    progress.say(f"{by}asking libvirt to abort, and waiting for its answer")
                if aborting_since is None:
                    if self.ended(POLL_SECONDS):
                        return interrupted
                    meanwhile()
                    stats = self.stats()
                    progress.update(stats)
                    step = target.lost() or driver.look(stats, now=time.monotonic())
                    if step is not None and self._take(step, progress):
                        aborting_since = time.monotonic()
                else:
                    self.abort()
                    if self.ended(POLL_SECONDS) or time.monotonic() - aborting_since > ABORT_SECONDS:
                        return interrupted
            except KeyboardInterrupt:
                interrupted = True
                abort.set()

    def _take(self, step: Step, progress: Progress) -> bool:
        """Does a step of the policy; whether it is the abort, which the caller goes on asking for."""
        if step.act == "abort" and self.post_copy:
            return False
        told = {
            "downtime": f"{step.downtime} ms of downtime allowed",
            "post-copy": "switching to post-copy",
            "pause": "pausing the guest",
            "abort": "aborting",
        }[step.act]
        self.aborted = step.act == "abort"
        if step.why:
            self.steps.append(f"{told}: {step.why}")
            progress.say(self.steps[-1])
        try:
            if step.act == "downtime":
                self.set_downtime(step.downtime)
            elif step.act == "post-copy":
                self.post_copy = True  # before the call: one without an answer may have been heard
                self._tell("post-copy", lambda c: c.lookupByName(self.domain).migrateStartPostCopy())
            elif step.act == "pause":
                self.paused = True
                self._tell("a pause", lambda c: c.lookupByName(self.domain).suspend())
        except ConnectError as e:
            # the job has ended meanwhile, or it has not: either is seen at the next look
            self.steps.append(f"{told}: refused, {e}")
            if step.act == "post-copy" and e.code is not None:  # an answer: so it is not under way
                self.post_copy, self.aborted = False, True
        return self.aborted

    def result(self) -> None:
        """ConnectError unless the migration has succeeded."""
        self._call.answer(0.0)


class _Pulse:
    """Whether a target that this client talks to still answers; nobody else would notice in managed mode."""

    def __init__(self, host: Host | None) -> None:
        self._host = host
        self._heard = time.monotonic()
        self._asked: Pending[object] | None = None

    def lost(self) -> Step | None:
        if self._host is None:
            return None
        if self._asked is not None and self._asked.ended(0.0):
            try:
                self._asked.answer(0.0)
                self._heard = time.monotonic()
            except ConnectError:
                pass
            self._asked = None
        silent = time.monotonic() - self._heard
        if silent > _TARGET_SECONDS:
            return Step("abort", f"{self._host.name} has not answered for {silent:.0f} s")
        if self._asked is None:
            self._asked = self._host.begin("whether it answers", lambda c: c.getLibVersion())
        return None
