"""Guests of lost hosts to the hosts that are left, and for each without a place the reason and what to do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from vmcompat.baseline.answer import some
from vmcompat.migration.kinds import BIT
from vmcompat.migration.placing import NOWHERE, Ints, balanced, most
from vmcompat.migration.room import UNKNOWN, Room, Task, load_on

Stay: TypeAlias = Literal["managed", "unknown", "stuck", "full"]

_GIB: Final = 1 << 20
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
