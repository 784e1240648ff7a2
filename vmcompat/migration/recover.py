"""After a crashed kernel or a killed client: looks at both ends of a migration, says what is safe, and does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from vmcompat.errors import ConnectError, MigrationError
from vmcompat.migration.aftermath import (
    FOUND,
    PAUSED_REASONS,
    RUNNING_REASONS,
    SHUTOFF_REASONS,
    Act,
    At,
    Call,
    Found,
    Job,
    Side,
    Verdict,
    judge,
)
from vmcompat.migration.domain import typed
from vmcompat.migration.observe import STATES
from vmcompat.migration.runbook import virsh

if TYPE_CHECKING:
    from vmcompat.calls import ConnectionCalls, DomainCalls
    from vmcompat.connect import Host

T = TypeVar("T")

_SECONDS: Final = 15.0  # for one answer: a libvirt that waits for a hung QEMU says so itself only after 30 s
_LOOKS: Final = 4  # at what may still move
_BETWEEN: Final = 1.0  # two looks [s]
_REASONS: Final = {"running": RUNNING_REASONS, "paused": PAUSED_REASONS, "shut off": SHUTOFF_REASONS}
_VIRSH: Final = {
    "abort": ("domjobabort",),
    "destroy": ("destroy",),
    "resume": ("resume",),
    "no autostart": ("autostart", "--disable"),
    "undefine": ("undefine", "--keep-nvram"),
}  # fmt: skip

_Progress: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, repr=False)
class Recovery:
    """What a migration has left behind.

    Attributes
    ----------
    domain : str
        Name.
    found : str
        One of :data:`vmcompat.migration.aftermath.FOUND`, which says of each what it means.
    safe : bool or None
        What ``steps`` do cannot harm the guest; where there are no steps, it is in no danger as it is. False where it
        is in danger and nothing helps that can be done from here, None where that cannot be told.
    evidence : tuple of str
        What was seen at the source, and at the target.
    steps : tuple of str
        Lines to type into a shell, with URIs without passwords; where ``safe`` is True they are what :meth:`act` does.
    remedy : str
        What to do, in words.
    source, target : Side
        What was seen.
    """

    domain: str
    found: Found
    safe: bool | None
    steps: tuple[str, ...]
    remedy: str
    source: Side
    target: Side
    _acts: tuple[Act, ...] = field(repr=False)
    _uris: tuple[str, str] = field(repr=False)  # as given, passwords included
    _write: bool = field(repr=False)

    @property
    def evidence(self) -> tuple[str, ...]:
        """What was seen, in words."""
        return (self.source.told(), self.target.told())

    def act(self, *, confirm: str) -> Recovery:
        """Does what ``steps`` say, if it is still the right thing, and looks again.

        Parameters
        ----------
        confirm : str
            The name of the domain, once more.

        Returns
        -------
        Recovery
            What is there now. More may be to do: an aborted job may leave a QEMU at the target.

        Raises
        ------
        MigrationError
            ``confirm`` is another name, it is not known to be safe, something has changed since, or a step failed;
            with what was done until then.
        """
        if confirm != self.domain:
            raise MigrationError(f"confirm={confirm!r} is not {self.domain!r}. Nothing was done")
        if self.safe is not True:
            raise MigrationError(f"{self.found}: not known to be safe: {self.remedy}. Nothing was done")
        if not self._write:
            raise MigrationError("it was looked at with write=False. Nothing was done; look again without")
        now = self._again()
        if (now.found, now._acts) != (self.found, self._acts):
            raise MigrationError(f"it was {self.found} and is {now.found} now. Nothing was done; look again")
        for number, (act, step) in enumerate(zip(self._acts, self.steps, strict=True)):
            try:
                now._do(act)
            except (ConnectError, MigrationError) as e:
                done = f"Done: {'; '.join(self.steps[:number])}" if number else "Nothing was done"
                raise MigrationError(f"{step}: {e}. {done}. Left to do: {'; '.join(self.steps[number:])}") from e
        return self._again()

    def _again(self) -> Recovery:
        return recover(self.domain, *self._uris, write=self._write)

    def _do(self, act: Act) -> None:
        """One step, if its end is still in the state that was judged: looked up in the same breath."""
        from vmcompat.connect import constant, open_host

        side, uri = (self.source, self._uris[0]) if act.at == "source" else (self.target, self._uris[1])
        keep_nvram = constant("VIR_DOMAIN_UNDEFINE_KEEP_NVRAM")
        calls: dict[Call, Callable[[DomainCalls], int]] = {
            "abort": lambda d: d.abortJob(),
            "destroy": lambda d: d.destroy(),
            "resume": lambda d: d.resume(),
            "no autostart": lambda d: d.setAutostart(0),
            "undefine": lambda d: d.undefineFlags(keep_nvram),
        }

        def do(c: ConnectionCalls) -> tuple[str, str]:
            domain = c.lookupByUUIDString(side.uuid)
            state = _state(domain.state())
            if state == (side.state, side.reason):
                calls[act.call](domain)
            return state

        with open_host(uri, write=True) as host:
            state = host.ask(f"to {act.call} {self.domain}", do)
        if state != (side.state, side.reason):
            raise MigrationError(f"it was {side.state} ({side.reason}) and is {state[0]} ({state[1]})")

    def __repr__(self) -> str:
        safe = {True: "safe", False: "not safe", None: "cannot tell what is safe"}[self.safe]
        lines = [f"<Recovery {self.domain}: {self.found}, {safe}: {FOUND[self.found]}>"]
        lines += [f"  {each}" for each in self.evidence]
        lines += [f"  {self.remedy}"] if self.remedy else []
        lines += [f"  {number}. {step}" for number, step in enumerate(self.steps, 1)]
        return "\n".join(lines)


def recover(domain: str, source: str, target: str, *, write: bool = True) -> Recovery:
    """Looks at both ends of a migration that nobody watches any more; touches nothing.

    Both hosts are asked over read-only connections, for about three seconds where a job or a paused QEMU might still
    move, and a libvirt that does not answer in time counts as silent.

    Parameters
    ----------
    domain : str
        Name.
    source, target : str
        URIs, as for virsh on this machine.
    write : bool
        False promises that no read-write connection is opened: :meth:`Recovery.act` then refuses.

    Returns
    -------
    Recovery
        With ``found``, ``safe``, ``evidence``, ``steps`` and :meth:`Recovery.act`, which does them. Where a host does
        not answer nothing is known to be safe.

    Raises
    ------
    ConnectError
        libvirt-python is not installed.

    Notes
    -----
    After a crash::

        left = vc.recover("web1", "qemu+ssh://h1/system", "qemu+ssh://h2/system")
        print(left)
        left = left.act(confirm="web1")
    """
    from vmcompat.connect import constant

    constant("VIR_ERR_NO_DOMAIN")  # without libvirt-python no host would answer, and that would say nothing of them
    with ExitStack() as stack:
        ends = [_End(stack, uri, domain) for uri in (source, target)]
        here, there = _watch(ends)
    verdict = judge(here, there)
    return Recovery(
        domain=domain,
        found=verdict.found,
        safe=verdict.safe,
        steps=tuple(_steps(verdict, here, there)),
        remedy=verdict.remedy,
        source=here,
        target=there,
        _acts=verdict.acts,
        _uris=(source, target),
        _write=write,
    )


def _steps(verdict: Verdict, source: Side, target: Side) -> list[str]:
    sides: dict[At, Side] = {"source": source, "target": target}
    name = {at: typed(side.domain, side.uuid) for at, side in sides.items()}
    steps = [virsh(sides[at].uri, *_VIRSH[call], "--domain", name[at]) for at, call in verdict.acts]
    if verdict.found == "post-copy failed" and not source.moved:
        options = ("--postcopy-resume", "--postcopy", "--live", "--domain", name["source"], "--desturi", target.uri)
        steps.append(virsh(source.uri, "migrate", *options))
    return steps


# ---- looking


class _End:
    """One host, asked as often as wanted; once it has not answered, it stays silent."""

    def __init__(self, stack: ExitStack, uri: str, domain: str) -> None:
        from vmcompat.connect import open_host, shown

        self.domain, self.uri = domain, shown(uri)
        self.trouble = ""
        self._host: Host | None = None
        try:
            self._host = stack.enter_context(open_host(uri))
        except ConnectError as e:
            self.trouble = str(e)

    def named(self) -> str:
        """The UUID of the domain of that name; empty where there is none."""
        return self._answer("", lambda host: self._uuids(host).get(self.domain, ""))

    def _uuids(self, host: Host) -> dict[str, str]:
        return host.ask(
            "its domains", lambda c: {d.name(): d.UUIDString() for d in c.listAllDomains()}, seconds=_SECONDS
        )

    def look(self, uuid: str) -> tuple[Side, _Progress]:
        """What is there of a domain, and how far its job is."""
        silent = Side(name=self._host.name if self._host else self.uri, uri=self.uri)
        side, progress = self._answer((silent, ()), lambda host: self._side(host, uuid))
        return replace(side, trouble=self.trouble), progress

    def _side(self, host: Host, uuid: str) -> tuple[Side, _Progress]:
        names = {found: name for name, found in self._uuids(host).items()}
        nothing = Side(name=host.name, uri=host.uri)
        if uuid not in names:
            return nothing, ()

        def details(c: ConnectionCalls) -> tuple[tuple[str, str], bool, bool, bool]:
            d = c.lookupByUUIDString(uuid)
            return _state(d.state()), bool(d.isActive()), bool(d.isPersistent()), bool(d.autostart())

        (state, reason), active, persistent, autostart = host.ask(
            f"the state of {self.domain}", details, seconds=_SECONDS
        )
        job, progress = self._job(host, uuid) if active else ("", ())
        side = replace(
            nothing, domain=names[uuid], uuid=uuid, state=state, reason=reason, active=active, persistent=persistent,
            autostart=autostart, job=job,
        )  # fmt: skip
        return side, progress

    def _job(self, host: Host, uuid: str) -> tuple[Job, _Progress]:
        from vmcompat.connect import constant

        try:
            stats = host.ask(
                f"the job of {self.domain}", lambda c: c.lookupByUUIDString(uuid).jobStats(), seconds=_SECONDS
            )
        except ConnectError as e:
            if e.code == constant("VIR_ERR_OPERATION_UNSUPPORTED"):  # its statistics are the source's
                return "incoming", ()
            raise
        if stats.get("type") not in (constant("VIR_DOMAIN_JOB_BOUNDED"), constant("VIR_DOMAIN_JOB_UNBOUNDED")):
            return "", ()
        if stats.get("operation") != constant("VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT"):
            return "other", ()
        return "migration", tuple(stats.get(key) for key in ("data_processed", "data_remaining", "memory_iteration"))

    def _answer(self, otherwise: T, ask: Callable[[Host], T]) -> T:
        from vmcompat.connect import constant

        if self._host is None or self.trouble:
            return otherwise
        try:
            try:
                return ask(self._host)
            except ConnectError as e:
                if e.code != constant("VIR_ERR_NO_DOMAIN"):
                    raise
                return ask(self._host)  # it has ended between two questions, and is on no list any more
        except ConnectError as e:
            self.trouble = str(e)
            return otherwise


def _watch(ends: Sequence[_End]) -> tuple[Side, Side]:
    """Both ends as they were at last, after looking long enough to see what moves."""
    names = [end.named() for end in ends]
    same = [names[0] or names[1]] * 2
    uuids = names if all(names) else same
    seen: list[_Progress] = []
    for again in range(_LOOKS):
        if again:
            time.sleep(_BETWEEN)
        (here, progress), (there, _) = (end.look(uuid) for end, uuid in zip(ends, uuids, strict=True))
        seen += [progress] if here.job == "migration" else []
        moved = len(set(seen)) > 1
        may_move = "waiting" in (here.holds, there.holds) or here.job
        if moved or not may_move or here.trouble or there.trouble:
            break
    # too few looks at a job that has just begun tell nothing
    watched = here.job == "migration" and (moved or len(seen) == _LOOKS)
    return replace(here, moved=moved if watched else None), there


def _state(numbers: Sequence[int]) -> tuple[str, str]:
    """State and reason in words."""
    number, reason = numbers[0], numbers[1]
    state = STATES[number] if number < len(STATES) else f"state {number}"
    reasons = _REASONS.get(state, ())
    return state, reasons[reason] if reason < len(reasons) else "unknown" if not reason else f"reason {reason}"
