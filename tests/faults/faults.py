"""What goes wrong, one function each: what is done to a trial, and what mends it afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from tests.faults.moments import Moment
from tests.rig import Rig, breakage

Way: TypeAlias = Literal["p2p", "managed", "post-copy"]
Act: TypeAlias = Callable[["Victim"], None]

_ALL: Final[tuple[Moment, ...]] = ("setup", "pre-copy", "switch-over", "post-copy")
_OUTAGE_SECONDS: Final = 4.5  # of a link: more than the rig's keepalive of 3 s
_RESTART_SECONDS: Final = 0.5


class Victim(Protocol):
    """What a fault can get at of a trial."""

    rig: Rig
    name: str
    source: str
    target: str

    def afterwards(self, mend: Callable[[], object]) -> None:
        """Do this once the client has come to its end."""

    def abort(self) -> None:
        """Ask the client to abort."""

    def interrupt(self) -> None:
        """Press Ctrl-C in the client."""

    def kill_client(self) -> None:
        """Kill the client."""

    def edit_definition(self) -> None:
        """Store a definition with another description at the source."""

    def plan_second(self) -> None:
        """Let another client plan to move the same guest."""

    def run_second(self) -> None:
        """Let it run its plan."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of thing that goes wrong.

    Attributes
    ----------
    name : str
    act : callable
        Does it.
    moments : tuple of str
        When it can strike.
    before : bool
        At the moment "setup" it strikes after the plan is made and before it is run; else once libvirt has begun.
    remote : bool
        The client is on neither host: its connections use the links.
    busy : bool
        The guest rewrites its memory faster than the link carries it.
    loses : tuple of str
        Phases in which it may cost the guest, whatever anybody does: then what is judged is that this is said.
    prepare : callable
        What has to be there before the migration begins.
    missing : callable
        Why it cannot be done on this machine; empty where it can.
    """

    name: str
    act: Act
    moments: tuple[Moment, ...]
    before: bool
    remote: bool
    busy: bool
    loses: tuple[str, ...]
    prepare: Act
    missing: Callable[[], str]


FAULTS: Final[list[Fault]] = []


def fault(
    name: str,
    *,
    moments: tuple[Moment, ...] = _ALL,
    before: bool = False,
    remote: bool = False,
    busy: bool = False,
    loses: tuple[str, ...] = (),
    prepare: Act = lambda victim: None,
    missing: Callable[[], str] = lambda: "",
) -> Callable[[Act], Act]:
    """Enter a function into the list."""

    def enter(act: Act) -> Act:
        FAULTS.append(
            Fault(name=name, act=act, moments=moments, before=before, remote=remote, busy=busy, loses=loses,
                  prepare=prepare, missing=missing)
        )  # fmt: skip
        return act

    return enter


# ---- processes


# at the switch-over it may run there already, and is killed with it
@fault("destination QEMU killed", loses=("switch-over", "post-copy"))
def _destination_qemu_killed(victim: Victim) -> None:
    """The incoming QEMU crashes; in post-copy it is the guest itself."""
    _kill_qemu(victim, victim.target)


@fault("source QEMU killed", loses=("no job", "setup", "pre-copy", "switch-over", "post-copy", "silent"))
def _source_qemu_killed(victim: Victim) -> None:
    """The guest crashes while it is moved: nothing can save it."""
    _kill_qemu(victim, victim.source)


def _kill_qemu(victim: Victim, host: str) -> None:
    """Kill a guest's QEMU, or wait a little for one that is about to start."""
    deadline = time.monotonic() + 3.0
    while not breakage.kill_emulators(victim.rig, host, victim.name) and time.monotonic() < deadline:
        time.sleep(0.01)


@fault("destination libvirtd killed")
def _destination_libvirtd_killed(victim: Victim) -> None:
    """It is started again at once, as systemd would."""
    _restart_libvirtd(victim, victim.target)


@fault("source libvirtd killed")
def _source_libvirtd_killed(victim: Victim) -> None:
    """It is started again at once, as systemd would."""
    _restart_libvirtd(victim, victim.source)


def _restart_libvirtd(victim: Victim, host: str) -> None:
    victim.rig.kill_libvirtd(host)
    time.sleep(_RESTART_SECONDS)
    victim.rig.start_libvirtd(host)


@fault("client killed")
def _client_killed(victim: Victim) -> None:
    """The notebook's kernel dies: nobody is told anything."""
    victim.kill_client()


# ---- links


@fault("source link down", remote=True)
def _source_link_down(victim: Victim) -> None:
    """The source's cable is pulled, and plugged in again after more than the keepalive."""
    _outage(victim, victim.source)


@fault("destination link down", remote=True)
def _destination_link_down(victim: Victim) -> None:
    """The destination's cable is pulled, and plugged in again after more than the keepalive."""
    _outage(victim, victim.target)


@fault("both links down", remote=True)
def _both_links_down(victim: Victim) -> None:
    """A switch fails, and comes back after more than the keepalive."""
    _outage(victim, victim.source, victim.target)


def _outage(victim: Victim, *hosts: str) -> None:
    for host in hosts:
        breakage.cut_link(victim.rig, host)
    time.sleep(_OUTAGE_SECONDS)
    for host in hosts:
        breakage.mend_link(victim.rig, host)


@fault("link slow and lossy", remote=True, missing=breakage.why_no_lossy_links)
def _link_slow_and_lossy(victim: Victim) -> None:
    """Both directions lose three packets of a hundred, and the way back to the source becomes slow too."""
    for host in (victim.source, victim.target):
        breakage.lossy_link(victim.rig, host, 3.0)
        victim.afterwards(lambda host=host: breakage.sound_link(victim.rig, host))  # type: ignore[misc]
    breakage.slow_link(victim.rig, victim.target, 2, latency=50)
    victim.afterwards(lambda: breakage.free_link(victim.rig, victim.target))


# ---- what runs out


@fault("destination disk full", moments=("setup", "pre-copy", "switch-over"), before=True)
def _destination_disk_full(victim: Victim) -> None:
    """The file system on which the destination's libvirtd keeps its domains is full to the last byte."""
    breakage.fill_disk(victim.rig, victim.target)
    victim.afterwards(lambda: breakage.empty_disk(victim.rig, victim.target))


@fault(
    "destination memory short",
    moments=("setup", "pre-copy", "switch-over"),
    before=True,
    missing=breakage.why_no_memory_limits,
)
def _destination_memory_short(victim: Victim) -> None:
    """The destination has no more memory for the guest: the kernel kills the QEMU that asks for it."""
    pids = breakage.emulators(victim.rig, victim.target, victim.name)
    limit = breakage.MemoryLimit(victim.rig, mib=2 if pids else 24)
    victim.afterwards(limit.lift)
    for pid in pids or [breakage.daemon_pid(victim.rig, victim.target)]:
        limit.hold(pid)


# ---- other people


@fault("name taken in between", moments=("setup",), before=True)
def _name_taken(victim: Victim) -> None:
    """Somebody defines another domain of that name at the destination after the plan was made."""
    path = victim.rig.dir / "name-taken.xml"
    path.write_text(victim.rig.domain_xml(victim.name))
    victim.rig.virsh(victim.target, "define", str(path))
    victim.afterwards(lambda: victim.rig.virsh(victim.target, "undefine", victim.name))


@fault("definition changed in between", moments=("setup", "pre-copy", "switch-over"), before=True)
def _definition_changed(victim: Victim) -> None:
    """Somebody edits the stored definition at the source."""
    victim.edit_definition()


def _plan_a_second(victim: Victim) -> None:
    victim.plan_second()


@fault("two migrations at once", prepare=_plan_a_second)
def _two_migrations(victim: Victim) -> None:
    """A second person, who planned it before the first began, moves the same guest to the same host."""
    victim.run_second()


@fault("aborted")
def _aborted(victim: Victim) -> None:
    """The person changes their mind, from another thread."""
    victim.abort()


@fault("interrupted")
def _interrupted(victim: Victim) -> None:
    """The person presses Ctrl-C."""
    victim.interrupt()


# ---- time


@fault("never converges", moments=("pre-copy",), busy=True)
def _never_converges(victim: Victim) -> None:
    """Nothing goes wrong but that the guest is faster than the link, until the deadline."""


def _own_clocks(victim: Victim) -> None:
    for host in (victim.source, victim.target):
        breakage.give_own_clock(victim.rig, host)
        victim.afterwards(lambda host=host: breakage.take_own_clock(victim.rig, host))  # type: ignore[misc]


@fault(
    "clocks step", moments=("setup", "pre-copy", "switch-over"), prepare=_own_clocks, missing=breakage.why_no_own_clocks
)
def _clocks_step(victim: Victim) -> None:
    """The wall clocks of both libvirtds jump an hour, one ahead and one back."""
    for host, seconds in ((victim.source, 3600), (victim.target, -3600)):
        breakage.step_clock(victim.rig, host, seconds)


def ways(one: Fault, moment: Moment) -> tuple[Way, ...]:
    """How the guest travels where a fault strikes at a moment."""
    if moment == "post-copy":
        return ("post-copy",)
    return ("p2p", "managed")
