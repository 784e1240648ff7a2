"""Which of the known states a migration has left behind, judged from what was seen at both ends; asks nobody.

The rules are libvirt's own (migration protocol 3: begin, prepare, perform, finish, confirm). Until the target has
finished, its QEMU waits and has never run; until the source has confirmed, its QEMU is paused and still has everything.
What runs without post-copy is whole. So of two ends one is worthless only if it waits, and only while no job is left
that might wake it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

Found: TypeAlias = Literal[
    "at source", "definition at target", "migrating", "stuck", "incoming left", "switching", "paused at source",
    "paused at both", "source left", "definition left", "arrived", "paused at target", "post-copy", "post-copy failed",
    "post-copy lost", "two copies", "off", "gone", "name taken", "unknown",
]  # fmt: skip
FOUND: Final[Mapping[Found, str]] = {
    "at source": "the guest is at the source, and nothing of it at the target",
    "definition at target": "the guest is at the source; the target has a definition of it that does not run",
    "migrating": "the migration is under way and makes progress",
    "stuck": "a migration job at the source sends nothing; the guest runs there",
    "incoming left": "the guest is at the source and no job moves it; at the target a QEMU waits that nobody feeds",
    "switching": "the migration is at its end: paused at the source, with a job that has yet to end",
    "paused at source": "paused at the source for a switch-over, without a job; nothing runs at the target",
    "paused at both": "paused at both ends for a switch-over that nobody ends; the target has never run it",
    "source left": "the guest is at the target; the source still has its paused QEMU",
    "definition left": "the guest is at the target; the source still has its definition",
    "arrived": "the guest is at the target, and nothing of it at the source",
    "paused at target": "a QEMU waits at the target, and nothing runs at the source",
    "post-copy": "post-copy is under way: the guest runs at the target, with memory that is still at the source",
    "post-copy failed": "post-copy has lost a connection: the guest is at the target, with memory still at the source",
    "post-copy lost": "one half of a guest in post-copy is gone, and what it had with it",
    "two copies": "both hosts have a guest that may run: each may write to the same disks",
    "off": "the guest runs on neither host; a definition is left",
    "gone": "neither host knows the domain: it was never there, or was undefined, or was transient and has ended",
    "name taken": "the two hosts have different domains of this name",
    "unknown": "what the hosts say, or one that says nothing, does not tell where the guest is",
}
"""Every state, and what it means."""

RUNNING_REASONS: Final = (
    "unknown", "booted", "migrated", "restored", "from snapshot", "unpaused", "migration canceled", "save canceled",
    "wakeup", "crashed", "post-copy", "post-copy failed",
)  # fmt: skip
PAUSED_REASONS: Final = (
    "unknown", "user", "migration", "save", "dump", "I/O error", "watchdog", "from snapshot", "shutting down",
    "snapshot", "crashed", "starting up", "post-copy", "post-copy failed", "API error",
)  # fmt: skip
SHUTOFF_REASONS: Final = (
    "unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from snapshot", "daemon",
)  # fmt: skip

At: TypeAlias = Literal["source", "target"]
Call: TypeAlias = Literal["abort", "destroy", "resume", "no autostart", "undefine"]
Job: TypeAlias = Literal["", "migration", "incoming", "other"]
Holds: TypeAlias = Literal["silent", "nothing", "definition", "guest", "waiting", "post-copy", "unclear"]


class Act(NamedTuple):
    """One thing to do at one end."""

    at: At
    call: Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One end, as it was seen.

    Attributes
    ----------
    name : str
        Of the host; where it does not answer, its URI.
    uri : str
        Without a password.
    trouble : str
        Why it does not answer; empty where it does.
    domain, uuid : str
        What the domain is called there; empty where it is not.
    state : str
        As in :data:`vmcompat.migration.observe.STATES`.
    reason : str
        Of that state, such as ``"migration"``.
    active, persistent, autostart : bool
    job : {"", "migration", "incoming", "other"}
        What holds the domain: a migration away, one that comes in, or something else.
    moved : bool or None
        The migration has sent something while it was watched; None where it was not.
    """

    name: str
    uri: str
    trouble: str = ""
    domain: str = ""
    uuid: str = ""
    state: str = ""
    reason: str = ""
    active: bool = False
    persistent: bool = False
    autostart: bool = False
    job: Job = ""
    moved: bool | None = None

    @property
    def holds(self) -> Holds:
        """What of the guest is there: *waiting* is a QEMU that is paused for the end of a migration."""
        if self.trouble:
            return "silent"
        if not self.uuid:
            return "nothing"
        if not self.active:
            return "definition"
        if self.reason.startswith("post-copy"):
            return "post-copy"
        if self.state == "paused":
            if self.reason == "migration":
                return "waiting"
            # libvirt itself gives "unknown" after a restart, and "starting up" before QEMU is
            return "unclear" if self.reason in ("unknown", "starting up") else "guest"
        return "guest" if self.state in ("running", "blocked", "shutting down", "suspended") else "unclear"

    def told(self) -> str:
        """The same in words."""
        match self.holds:
            case "silent":
                return f"{self.name} does not answer: {self.trouble}"
            case "nothing":
                return f"{self.name} does not have it"
        words = [f"{self.state} ({self.reason})", "persistent" if self.persistent else "transient"]
        words += ["autostart"] if self.autostart else []
        job = {"": "", "migration": "a migration away", "incoming": "a migration here", "other": "another job"}[
            self.job
        ]
        moved = {None: "", True: " that makes progress", False: " that has sent nothing while it was watched"}[
            self.moved
        ]
        words += [f"held by {job}{moved}"] if job else []
        return f"{self.name} has it: {', '.join(words)}"


class Verdict(NamedTuple):
    """What was found; whether the acts, or doing nothing where there are none, are safe; and what to do."""

    found: Found
    safe: bool | None
    acts: tuple[Act, ...] = ()
    remedy: str = ""


_WAIT: Final = "wait, and look again"


def judge(source: Side, target: Side) -> Verdict:
    """The state that two ends are in.

    Parameters
    ----------
    source, target : Side
    """
    if source.uuid and target.uuid and source.uuid != target.uuid:
        return Verdict(
            "name taken", None, remedy="find out which is meant, by its UUID; then rename or remove the other"
        )
    match source.holds, target.holds:
        case ("silent" | "unclear", _) | (_, "silent" | "unclear"):
            return _unknown(source, target)
        case (_, "waiting") if target.job == "other":
            return _unknown(source, target)
        case _ if source.job == "incoming" or target.job == "migration":
            return Verdict("unknown", None,
                remedy=f"{target.name} sends it, or {source.name} gets it: were source and target swapped, or is there "
                "a third host? Look again with the two that it moves between, in that order",
            )  # fmt: skip
        case ("guest", "nothing" | "definition" | "waiting"):
            return _at_source(source, target)
        case ("nothing" | "definition", "guest"):
            return _at_target(source, target)
        case ("waiting", "guest" | "waiting" | "nothing" | "definition"):
            return _switch_over(source, target)
        case ("nothing" | "definition", "waiting"):
            return _paused_at_target(source, target)
        case ("post-copy", "post-copy") | ("post-copy", "waiting") | ("waiting", "post-copy"):
            return _post_copy(source, target)
        case ("post-copy", "nothing" | "definition") | ("nothing" | "definition", "post-copy"):
            return Verdict("post-copy lost", False,
                remedy="its memory is lost: destroy what is left of it, and start the guest again from its disks",
            )  # fmt: skip
        case ("definition", _) | (_, "definition"):
            return _off(source, target)
        case ("nothing", "nothing"):
            return Verdict("gone", None, remedy="look in both hosts' logs (/var/log/libvirt/qemu) for how it ended")
    return Verdict("two copies", False,
        remedy="which of them is the guest, nobody can tell from here: cut one off from its disks, look at both "
        "consoles and at what was written last, and only then destroy the other",
    )  # fmt: skip


def _unknown(source: Side, target: Side) -> Verdict:
    silent = [side.name for side in (source, target) if side.holds == "silent"]
    if silent:
        return Verdict("unknown", None,
            remedy=f"start and resume the guest nowhere before {' and '.join(silent)} can be asked again",
        )  # fmt: skip
    return Verdict("unknown", None,
        remedy="look again in a minute; if it stays so, look in both hosts' logs (/var/log/libvirt/qemu)",
    )  # fmt: skip


def _at_source(source: Side, target: Side) -> Verdict:
    """A whole guest at the source. What waits at the target has never run."""
    if source.job == "migration":
        if source.moved is not False:
            return Verdict("migrating", True, remedy=f"{_WAIT}; to end it: virsh domjobabort on {source.name}")
        return Verdict("stuck", True, (Act("source", "abort"),),
            remedy="abort the job: the guest goes on at the source",
        )  # fmt: skip
    if source.job:
        return Verdict("at source", True, remedy="another job holds the guest (a save, a backup): let it end")
    if target.holds == "waiting":
        return Verdict("incoming left", True, (Act("target", "destroy"),),
            remedy="end the QEMU that waits; it has never run, and the guest is at the source",
        )  # fmt: skip
    if target.holds == "nothing":
        return Verdict("at source", True)
    acts = _clearing("target", target, elsewhere=source.persistent)
    remedy = (
        "" if source.persistent else "the target's definition is the only one: the guest is transient at the source"
    )
    return Verdict("definition at target", True, acts, remedy=remedy)


def _at_target(source: Side, target: Side) -> Verdict:
    remedies = []
    if target.state == "paused":  # by a person, or by a run that died
        remedies.append(
            f"it is paused: one that moved held is let run within seconds, even if its client has died; if it is not, "
            f"and nobody wants it paused: virsh resume on {target.name}"
        )
    if source.holds == "nothing":
        return Verdict("arrived", True, remedy="; ".join(remedies))
    acts = _clearing("source", source, elsewhere=target.persistent)
    if not target.persistent:
        remedies.append(
            "the source's definition is the only one: define the guest at the target too, then undefine here"
        )
    if source.autostart and not target.autostart:
        remedies.append(f"it started with its host so far: virsh autostart on {target.name} if it is to again")
    return Verdict("definition left", True, acts, remedy="; ".join(remedies))


def _clearing(at: At, side: Side, *, elsewhere: bool) -> tuple[Act, ...]:
    """Takes a definition away that would start the guest a second time; never the only one."""
    autostart = (Act(at, "no autostart"),) if side.autostart else ()
    return (*autostart, Act(at, "undefine")) if elsewhere else autostart


def _switch_over(source: Side, target: Side) -> Verdict:
    """Paused at the source: it has all, but the target may have run since."""
    if source.job or (target.job and target.holds == "guest"):
        return Verdict("switching", None,
            remedy=f"{_WAIT}: a host that lost the other notices within its keepalive time, half a minute by default",
        )  # fmt: skip
    if target.holds == "guest":
        # libvirt gives the first reason at the end of a migration, the second to a guest that arrived held
        if (target.state, target.reason) in (("running", "migrated"), ("running", "unpaused")):
            return Verdict("source left", True, (Act("source", "destroy"),),
                remedy="end the paused QEMU at the source: the guest runs at the target",
            )  # fmt: skip
        if (target.state, target.reason) == ("paused", "user"):
            # one that waits for its end has another reason: all of it has arrived, and was held or paused since
            return Verdict("source left", True, (Act("source", "destroy"), Act("target", "resume")),
                remedy="end the paused QEMU at the source, then let the guest run at the target, which has everything",
            )  # fmt: skip
        return Verdict("source left", None,
            remedy=f"whether {target.name} runs what came from {source.name}, its reason ({target.reason}) does not "
            f"tell: look at its console, then destroy the one at {source.name}, which must never be resumed",
        )  # fmt: skip
    if target.holds == "waiting":
        # a client that wakes up after all cannot finish at a target that is gone: libvirt then resumes the source too
        return Verdict("paused at both", True, (Act("target", "destroy"), Act("source", "resume")),
            remedy="end the QEMU at the target, which has never run, then resume the source, which has everything",
        )  # fmt: skip
    return Verdict("paused at source", None, remedy=_alone(source, target))


def _alone(source: Side, target: Side) -> str:
    look = (
        f"it may have run at {target.name} and ended there: look in {target.name}'s log (/var/log/libvirt/qemu) and at "
        f"when its disks were written. If it never ran there: virsh resume on {source.name}"
    )
    if target.holds == "nothing" and source.persistent:
        # libvirt stores the definition at the target before it lets the guest run there
        return (
            f"if vmcompat moved it, or virsh with --persistent, it never ran at {target.name}, which would have its "
            f"definition else: virsh resume on {source.name}. If not, {look}"
        )
    return look


def _paused_at_target(source: Side, target: Side) -> Verdict:
    if target.job:
        return Verdict("paused at target", None, remedy=f"{_WAIT}: its host is still busy with the migration")
    if (source.state, source.reason) == ("shut off", "migrated"):
        return Verdict("paused at target", True, (Act("target", "resume"),),
            remedy="resume it: the source has handed it over and ended its own",
        )  # fmt: skip
    return Verdict("paused at target", None,
        remedy=f"whether all of it has arrived, nobody can tell from here: look in {source.name}'s log "
        "(/var/log/libvirt/qemu) whether its QEMU ended after the migration had completed, or before",
    )  # fmt: skip


def _post_copy(source: Side, target: Side) -> Verdict:
    if "post-copy failed" not in (source.reason, target.reason):
        return Verdict("post-copy", False, remedy=f"{_WAIT}; abort and destroy nothing: each host has a part of it")
    if source.moved:  # libvirt's own connection broke, and not QEMU's
        return Verdict("post-copy failed", False,
            remedy=f"QEMU sends on, and libvirt ends it: {_WAIT}; abort and destroy nothing",
        )  # fmt: skip
    return Verdict("post-copy failed", False,
        remedy="destroy neither half. Mend the link, and look again: QEMU may go on by itself. If not, resume it with "
        "the options of the first try (--p2p where it had it); where that says that it is still running, break it off "
        f"first: virsh domjobabort --postcopy on {source.name}. Libvirt 8.5 and QEMU 3.0 at both ends can; with older "
        "ones the guest is lost",
    )  # fmt: skip


def _off(source: Side, target: Side) -> Verdict:
    reasons = {source.reason, target.reason} - {""}
    ended = f" ({', '.join(sorted(reasons))})" if reasons else ""
    return Verdict("off", None,
        remedy=f"find out whether it was meant to end{ended}; if not, start it on one host only",
    )  # fmt: skip
