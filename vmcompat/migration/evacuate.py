"""Empty a host: which of its guests goes where, in which order, and why the others have no place."""

from __future__ import annotations

import html
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.migration.domains import Domains
from vmcompat.migration.kinds import BIT
from vmcompat.migration.placing import NOWHERE, Ints, balanced, most
from vmcompat.migration.reach import reachability
from vmcompat.migration.room import UNKNOWN, Named, Room, Task, load_on, rules_of
from vmcompat.schema import EVACUATION, EVACUATION_TARGETS, frame

Stay: TypeAlias = Literal["managed", "unknown", "stuck", "full"]

_GIB: Final = 1 << 20
_RULE: Final = "those with the fewest places first; of these the one that frees most memory, then by name"
_UNKNOWN_STATE: Final = "look whether it runs: virsh list --all, and fetch its live XML if it does: virsh dumpxml"


class NoPlace(NamedTuple):
    """Why a guest stays, and what to do about it; the reasons are checks, or words for what else is in the way."""

    verdict: Stay
    reasons: tuple[str, ...]
    evidence: str
    remedy: str


class Assignment(NamedTuple):
    """Where the guests of lost hosts go. ``complete`` is None where the documents do not say."""

    task: Task
    where: Ints
    complete: bool | None
    staying: Mapping[int, NoPlace]

    @property
    def placed(self) -> Iterator[tuple[Sequence[int], int]]:
        """Blocks of guests and their hosts."""
        for block, t in zip(self.task.items, self.where.tolist(), strict=True):
            if t != NOWHERE:
                yield block, self.task.targets[t]


def assign(room: Room, lost: Collection[int], *, balance: bool) -> Assignment:
    """Places as many guests of the lost hosts as there is sure room for, and says what of the others is known."""
    task = room.task(lost, sure=True)
    where = most(task.problem)
    assert where is not None
    if balance:
        where = balanced(task.problem, where)
    staying = [g for block, t in zip(task.items, where.tolist(), strict=True) if t == NOWHERE for g in block]
    if not staying:
        return Assignment(task, where, None if room.astray else True, {})
    hoped = room.task(lost, sure=False)
    best = most(hoped.problem)
    assert best is not None
    complete = None if hoped.problem.count(best) == hoped.problem.sizes.sum() else False
    at = {g: i for i, block in enumerate(hoped.items) for g in block}
    placed = {at[g] for g in at if g not in staying}
    told = {}
    for g in staying:
        told[g] = _by_checks(room, g, task.targets) or _by_room(
            room, g, task, where, lost, hopeless=most(hoped.problem, needed={*placed, at[g]}) is None
        )
    return Assignment(task, where, complete, told)


def _by_checks(room: Room, guest: int, targets: Sequence[int]) -> NoPlace | None:
    """What is in the way wherever it might go; None where nothing is at one host at least."""
    reach, record = room.reach, room.records[guest]
    if record.runs is None:
        return NoPlace("unknown", ("STATE",), "whether it runs is not known", _UNKNOWN_STATE)
    if room.allowed(guest, sure=True)[list(targets)].any():
        if room.needs[guest] != UNKNOWN:
            return None
        return NoPlace("unknown", ("memory",), "how much memory it has is not known",
            "fetch its XML again, with <memory> in it: virsh dumpxml",
        )  # fmt: skip
    if not targets:
        return NoPlace("stuck", (), "there is no other host", "read more hosts")
    no, unknown = reach.no[guest], reach.unknown[guest]
    nearest = min(targets, key=lambda t: (int(no[t]).bit_count(), int(unknown[t]).bit_count()))
    found = reach.obstacles(guest, nearest)
    verdict: Stay = "stuck"
    if room.allowed(guest, sure=False)[list(targets)].any():
        verdict = "managed" if int(no[nearest]) & BIT["OWNER"] else "unknown"
    return NoPlace(
        verdict,
        tuple(name for name, _ in found),
        f"nearest is {reach.fleet.names[nearest]}: " + "; ".join(dict.fromkeys(v.evidence for _, v in found)),
        "; ".join(dict.fromkeys(v.remedy for _, v in found if v.remedy)),
    )


def _by_room(room: Room, guest: int, task: Task, where: Ints, lost: Collection[int], *, hopeless: bool) -> NoPlace:
    """What keeps it from the hosts that would take it, beside those that are placed."""
    names, left = room.reach.fleet.names, load_on(task, where)
    (item,) = (i for i, block in enumerate(task.items) if guest in block)
    need, vcpus = int(task.problem.memory[item]), int(task.problem.vcpus[item])
    allowed = room.allowed(guest, sure=True)
    by_word: dict[str, list[int]] = {}
    for k, t in enumerate(task.targets):
        if not allowed[t]:
            continue
        words = [room.barred(guest, t, lost, sure=True)] if not task.problem.may[item, k] else []
        words = [word or "together" for word in words]
        if room.doubt(t):
            words.append("doubt")
        elif not words:
            words += ["memory"] if need > left[t][0] else []
            words += ["vcpus"] if vcpus > left[t][1] else []
            words = words or ["apart"]
        for word in words:
            by_word.setdefault(word, []).append(t)
    told, todo = [], []
    for word, hosts in by_word.items():
        on = some([names[t] for t in hosts])
        if word == "memory":
            t = max(hosts, key=lambda t: left[t][0])
            told.append(f"no room for its {need / _GIB:.4g} GiB on {on}: {names[t]} has {_left_of(left[t][0])} left")
            todo.append(f"free {(need - max(0, left[t][0])) / _GIB:.4g} GiB on {names[t]}, or add a host like it")
        elif word == "vcpus":
            t = max(hosts, key=lambda t: left[t][1])
            told.append(f"no room for its {vcpus} vCPUs on {on}: {names[t]} has {max(0, left[t][1])} left")
            todo.append("allow more vcpus_per_thread, or add a host")
        elif word == "doubt":
            told.append("; ".join(room.doubt(t) for t in hosts[:3]) + (f", and so on {on}" if hosts[3:] else ""))
            todo.append("read the missing documents: virsh capabilities of hosts, virsh dumpxml of guests")
        else:
            told.append(_TOLD[word].format(on))
            todo.append(_TODO[word])
    if not hopeless and "doubt" not in by_word:
        told.append("what is not known of other hosts or guests may still make room")
    return NoPlace("full" if hopeless else "unknown", tuple(by_word), "; ".join(told), "; ".join(dict.fromkeys(todo)))


_TOLD: Final = {
    "apart": "a guest that it is kept apart from is on {}, or may be, or comes there",
    "together": "the guests that it stays together with cannot all be on {}",
    "name": "a domain of its name or UUID is on {} already",
}
_TODO: Final = {
    "apart": "give up apart, or move the other guest",
    "together": "give up together, or mend what keeps the others",
    "name": "find out which of the two is meant, and rename or undefine the other",
}


def _left_of(kib: int) -> str:
    return f"{max(0, kib) / _GIB:.4g} GiB"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Evacuation:
    """Where the guests of a host go. Made by :func:`plan_evacuation`.

    Attributes
    ----------
    host : str
    frame : DataFrame
        One row a guest of the host: columns of ``schema.EVACUATION``, index ``domain``.
    targets : DataFrame
        One row a host that gets some: columns of ``schema.EVACUATION_TARGETS``, index ``host``.
    complete : bool or None
        Whether all guests that run have a place. False: they have not, whatever else there is to know. None: that
        depends on what is not known, or on another manager, which has to move its own guests.
    doubts : tuple of str
        What is not known of hosts and guests, and what was taken for granted therefore.
    """

    host: str
    frame: pd.DataFrame
    targets: pd.DataFrame
    complete: bool | None
    doubts: tuple[str, ...]

    def explain(self) -> list[str]:
        """In sentences: who goes in which order, why others do not and what to do, and what is in doubt."""
        table = self.frame
        moves, n = table["verdict"] == "moves", int((table["verdict"] != "off").sum())
        answer = {True: "can be emptied", False: "cannot be emptied", None: "may perhaps be emptied"}[self.complete]
        told = [f"{self.host} {answer}: {int(moves.sum())} of {n} guests that run have a place"]
        if moves.any():
            first = self.targets["memory_share"].idxmax()
            n_waves = int(table["wave"].max())
            told.append(f"{n_waves} wave{'' if n_waves == 1 else 's'}, {_RULE}")
            told.append(
                f"the fullest target is {first}, then at {self.targets['memory_share'].max():.1%} of its memory"
            )
        groups: dict[tuple[str, str, str], list[str]] = {}
        for name, row in table[~moves].iterrows():
            groups.setdefault((row["verdict"], row["evidence"], row["remedy"]), []).append(str(name))
        for (verdict, evidence, remedy), names in groups.items():
            told.append(f"{some(names)} ({verdict}): {evidence}. To do: {remedy}")
        return told + list(self.doubts)

    def __repr__(self) -> str:
        counts = self.frame["verdict"].value_counts(sort=False)
        told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) or "no guests"
        return f"<Evacuation of {self.host}: {told}; complete: {self.complete}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + self.frame.to_html(border=0, max_rows=40, na_rep="")


def plan_evacuation(
    host: str,
    fleet: Fleet,
    domains: Domains,
    *,
    memory_share: float = 0.9,
    vcpus_per_thread: float = 4.0,
    together: Named = (),
    apart: Named = (),
    at_once: int = 2,
) -> Evacuation:
    """Plans which guests of a host go where, all of them live; the plan is only a plan, and moves nothing.

    Parameters
    ----------
    host : str
        The host to empty.
    fleet : Fleet
        The host, and all hosts that may take its guests.
    domains : Domains
        All guests of these hosts: what is not among them counts as not there.
    memory_share : float
        Of the memory of each target that its guests may have: the rest is for the host itself and for QEMU.
    vcpus_per_thread : float
        Most virtual CPUs of all guests of a target for each of its threads; ``math.inf`` for no limit.
    together, apart : iterable of iterable of str
        Groups of guests that must be on one host, or each on another; also with guests of other hosts, which stay.
    at_once : int
        Most guests that move at a time.

    Returns
    -------
    Evacuation
        As many guests as possible are placed, and of all ways to do so one whose fullest target (memory taken, of all
        that it has) is emptiest; both are proven. A place is a host to which :func:`vmcompat.reachability` says yes
        and that has no domain of the guest's name or UUID.

    Raises
    ------
    FrameError
        The fleet has no such host, a group names a guest that is not there, or a number is out of range.

    Notes
    -----
    Memory and vCPUs are the most that guests may have by their live XML, else by their definition. Guests that are off
    take nothing, and stay: their definitions are no matter of a live migration. A target of which anything is not
    known takes nobody, and a guest that may run counts as running. Free huge pages, storage and networks are in no
    document: :func:`vmcompat.plan_migration` looks at what it can of each guest before it moves.
    The order is by number of hosts that would have had room for a guest alone, the fewest first; of those the one
    that frees most memory, then by name. Guests that stay together move next to each other.

    Solved by scipy's HiGHS as a mixed integer program, every answer counted again in whole numbers.

    Examples
    --------
    >>> import vmcompat as vc
    >>> fleet = vc.read_fleet("sample_caps/mixed")
    >>> plan_evacuation("ams-r1-h01", fleet, vc.read_domains("sample_caps/mixed/domains"))
    <Evacuation of ams-r1-h01: 2 moves; complete: True>
    """
    if host not in fleet.names:
        raise FrameError(f"no host {host!r} in the fleet of {len(fleet)}: fleet.hosts.index has the names")
    if at_once < 1:
        raise FrameError(f"at_once={at_once}: at least one guest moves at a time")
    rules = rules_of(
        domains, memory_share=memory_share, vcpus_per_thread=vcpus_per_thread, together=together, apart=apart
    )
    room = Room(reach=reachability(domains, fleet), records=domains.records, rules=rules)
    lost = fleet.names.index(host)
    found = assign(room, [lost], balance=True)
    guests = room.everyone_on(lost)
    rows = _rows(room, guests, found, at_once)
    return Evacuation(
        host=host,
        frame=frame(EVACUATION, rows, index=pd.Index([domains.names[g] for g in guests], dtype="str", name="domain")),
        targets=_targets(room, found),
        complete=found.complete,
        doubts=tuple(doubts_of(room, found.task.targets)),
    )


def _rows(room: Room, guests: Sequence[int], found: Assignment, at_once: int) -> Iterator[dict[str, Any]]:
    names, waves = room.reach.fleet.names, _waves(room, found, at_once)
    going = {g: t for block, t in found.placed for g in block}
    places = dict(zip(found.task.items, found.task.problem.fits.sum(axis=1).tolist(), strict=True))
    n_places = {g: n for block, n in places.items() for g in block}
    for g in guests:
        record = room.records[g]
        sizes = {"memory": room.needs[g], "vcpus": room.needs_vcpus[g]}
        row: dict[str, Any] = {k: None if v == UNKNOWN else int(v) for k, v in sizes.items()}
        row |= {"source": record.host, "n_places": n_places.get(g)}
        if g in going:
            row |= {"target": names[going[g]], "wave": waves[g], "verdict": "moves", "evidence": "", "remedy": ""}
            if record.state == "paused":
                row |= {"evidence": "it is paused, and would arrive paused", "remedy": "virsh resume, or find out why"}
        elif g in found.staying:
            row |= found.staying[g]._asdict()
        else:
            row |= {"verdict": "off", "evidence": f"it is {record.state}, and stays where it is"}
            row["remedy"] = "start it first, or take its definition over by hand, if it is needed meanwhile"
        yield row


def _waves(room: Room, found: Assignment, at_once: int) -> dict[int, int]:
    """By the rule of the order; a block that does not fit into the wave any more begins the next one."""
    names, problem = room.reach.guests.names, found.task.problem
    n_places = problem.fits.sum(axis=1)
    order = sorted(
        np.flatnonzero(found.where != NOWHERE).tolist(),
        key=lambda i: (int(n_places[i]), -int(problem.memory[i]), names[found.task.items[i][0]]),
    )
    waves: dict[int, int] = {}
    wave, n_in_it = 1, 0
    for i in order:
        block = sorted(found.task.items[i], key=lambda g: (-int(room.needs[g]), names[g]))
        if n_in_it and n_in_it + len(block) > at_once:
            wave, n_in_it = wave + 1, 0
        for g in block:
            if n_in_it == at_once:
                wave, n_in_it = wave + 1, 0
            waves[g] = wave
            n_in_it += 1
    return waves


def _targets(room: Room, found: Assignment) -> pd.DataFrame:
    problem, names = found.task.problem, room.reach.fleet.names
    memory, vcpus = (problem.load(found.where, of) for of in (problem.memory, problem.vcpus))
    n_domains = problem.load(found.where, problem.sizes)
    chosen = [k for k in np.argsort(found.task.targets).tolist() if n_domains[k]]
    rows = [
        {
            "n_domains": int(n_domains[k]),
            "memory_before": int(problem.used[k]),
            "memory_after": int(problem.used[k] + memory[k]),
            "memory": int(problem.total[k]),
            "memory_share": float((problem.used[k] + memory[k]) / problem.total[k]),
            "vcpus_before": room.vcpus_on(found.task.targets[k]),
            "vcpus_after": room.vcpus_on(found.task.targets[k]) + int(vcpus[k]),
        }
        for k in chosen
    ]
    index = pd.Index([names[found.task.targets[k]] for k in chosen], dtype="str", name="host")
    return frame(EVACUATION_TARGETS, rows, index=index)


def doubts_of(room: Room, targets: Sequence[int]) -> Iterator[str]:
    """What is not known of guests and targets, in sentences."""
    if room.astray:
        yield (
            f"where {some([room.reach.guests.names[g] for g in room.astray])} run, if they do, is not known: there may "
            "be less room than this, and more to move. To do: add rows to domains.csv"
        )
    closed = [(t, doubt) for t in sorted(targets) if (doubt := room.doubt(t))]
    if closed:
        yield (
            f"{some([room.reach.fleet.names[t] for t, _ in closed])} take nobody: {'; '.join(d for _, d in closed[:3])}"
        )
    if maybe := [room.reach.guests.names[g] for g in room.guests_on(targets) if room.records[g].runs is None]:
        yield f"{some(maybe)} may run, and count as running"
