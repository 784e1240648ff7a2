"""What hosts have left for the guests of lost ones, as far as documents tell: for sure, and at best.

Where documents are silent there are two answers. *Sure* counts everything against a place: what may run does, and a
host of which anything is not known takes nobody. *At best* counts nothing against it. What goes for sure is possible,
and what does not even go at best is not.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from vmcompat.baseline.answer import some
from vmcompat.errors import FrameError
from vmcompat.fleet.sources import HostRecord
from vmcompat.migration.domains import DomainRecord, Domains
from vmcompat.migration.kinds import BIT
from vmcompat.migration.placing import UNLIMITED, Bools, Ints, Problem
from vmcompat.migration.reach import Reachability

UNKNOWN: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the planner asks for.

    Attributes
    ----------
    memory_share : float
        Of a host's memory that its guests may have.
    vcpus_per_thread : float
        Virtual CPUs of all its guests for each of its threads.
    together, apart : tuple of tuple of int
        Groups of guests, by position; of ``together`` no two groups share a guest.
    """

    memory_share: float
    vcpus_per_thread: float
    together: tuple[tuple[int, ...], ...]
    apart: tuple[tuple[int, ...], ...]


Named = Iterable[Iterable[str]]


def rules_of(domains: Domains, *, memory_share: float, vcpus_per_thread: float, together: Named, apart: Named) -> Rules:
    """The rules, with guests by position.

    Raises
    ------
    FrameError
        A number is out of range, a group names a guest that is not there, or two guests are to be both together and
        apart.
    """
    if not 0 < memory_share <= 1:
        raise FrameError(f"memory_share={memory_share!r}: a share of the memory of a host, above 0 and at most 1")
    if not vcpus_per_thread > 0:
        raise FrameError(f"vcpus_per_thread={vcpus_per_thread!r}: above 0; math.inf for no limit")
    merged: list[set[int]] = []
    for group in _positions(domains, together, "together"):
        touching = [g for g in merged if g & group]
        merged = [g for g in merged if not g & group] + [group.union(*touching)]
    parted = [tuple(sorted(group)) for group in _positions(domains, apart, "apart")]
    for members in parted:
        for block in merged:
            if len(both := [domains.names[i] for i in members if i in block]) > 1:
                raise FrameError(f"{some(both)} are to be both together and apart: leave out one of the two")
    return Rules(
        memory_share=memory_share,
        vcpus_per_thread=vcpus_per_thread,
        together=tuple(tuple(sorted(g)) for g in merged),
        apart=tuple(parted),
    )


def _positions(domains: Domains, groups: Named, name: str) -> list[set[int]]:
    at = {n: i for i, n in enumerate(domains.names)}
    found = []
    for group in [groups] if isinstance(groups, str) else groups:
        if isinstance(group, str):
            raise FrameError(f"{name}={group!r}: a list of groups of guests, such as {name}=[('web1', 'web2')]")
        names = list(group)
        if strange := [n for n in names if n not in at]:
            raise FrameError(f"{name}: no guest {strange[0]!r} among the {len(domains)}: domains.names has them")
        found.append({at[n] for n in names})
    return found


class Task(NamedTuple):
    """A problem in the terms of guests and hosts: which guests its items are, and which hosts its targets."""

    problem: Problem
    items: tuple[tuple[int, ...], ...]
    targets: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Room:
    """The hosts, their guests and the rules.

    Attributes
    ----------
    reach : Reachability
    records : tuple of DomainRecord
        The guests as they are; those of ``reach`` may be as they will start.
    rules : Rules
    memory, vcpus : ndarray of int64
        That each guest takes where it is, ``UNKNOWN`` where its documents do not say; memory [KiB].
    needs, needs_vcpus : ndarray of int64
        That it takes where it comes to, likewise.
    total, limit, limit_vcpus : ndarray of int64
        Of each host: its memory, what guests may have of it [KiB], and virtual CPUs; ``UNKNOWN`` likewise.
    astray : tuple of int
        Guests that run, or may, and of which it is not known where.
    """

    reach: Reachability
    records: tuple[DomainRecord, ...]
    rules: Rules
    memory: Ints = field(init=False)
    vcpus: Ints = field(init=False)
    needs: Ints = field(init=False)
    needs_vcpus: Ints = field(init=False)
    total: Ints = field(init=False)
    limit: Ints = field(init=False)
    limit_vcpus: Ints = field(init=False)
    astray: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        hosts, share = self.reach.fleet.records, self.rules.memory_share
        known, coming = ([r.known for r in records] for records in (self.records, self.reach.guests.records))
        total = _numbers(r.fact("memory") for r in hosts)
        made = {
            "memory": _numbers(d.memory if d else None for d in known),
            "vcpus": _numbers(d.vcpus if d else None for d in known),
            "needs": _numbers(d.memory if d else None for d in coming),
            "needs_vcpus": _numbers(d.vcpus if d else None for d in coming),
            "total": total,
            "limit": _numbers(int(t * share) if t != UNKNOWN else None for t in total.tolist()),
            "limit_vcpus": _numbers(self._vcpus_of(r) for r in hosts),
            "astray": tuple(i for i, r in enumerate(self.records) if r.host is None and r.runs is not False),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def _vcpus_of(self, host: HostRecord) -> int | None:
        threads, per_thread = host.fact("threads"), self.rules.vcpus_per_thread
        if per_thread == float("inf"):
            return UNLIMITED
        return int(threads * per_thread) if isinstance(threads, int) else None

    def guests_on(self, hosts: Collection[int]) -> list[int]:
        """Guests of these hosts that run, or may."""
        return [g for host in hosts for g in self._on[host] if self.records[g].runs is not False]

    def everyone_on(self, host: int) -> list[int]:
        """All guests of a host, those that are off too."""
        return self._on[host]

    def vcpus_on(self, host: int) -> int:
        """Virtual CPUs that guests have there, as far as that is known."""
        return sum(max(0, int(self.vcpus[g])) for g in self.guests_on([host]))

    def task(self, lost: Collection[int], *, sure: bool) -> Task:
        """The guests of the lost hosts, and the hosts that are left; both in the order of their names."""
        names, hosts = self.reach.guests.names, self.reach.fleet.names
        targets = tuple(sorted((t for t in range(len(hosts)) if t not in lost), key=lambda t: hosts[t]))
        guests = [g for g in self.guests_on(lost) if sure or self.records[g].runs]
        mates = {g: group for group in self.rules.together for g in group}
        blocks: dict[Hashable, list[int]] = {}
        for g in sorted(guests, key=lambda g: names[g]):
            blocks.setdefault(mates.get(g, g), []).append(g)
        items = tuple(tuple(block) for block in blocks.values())
        may = np.array([self._may(block, lost, targets, sure=sure) for block in items], dtype=np.bool_)
        may = may.reshape(len(items), len(targets))
        free, free_vcpus, used = (column[list(targets)] for column in self._left[sure])
        problem = Problem(
            may=may,
            sizes=_numbers(len(block) for block in items),
            memory=_numbers(sum(max(0, int(self.needs[g])) for g in block) for block in items),
            vcpus=_numbers(sum(max(0, int(self.needs_vcpus[g])) for g in block) for block in items),
            free=free,
            free_vcpus=free_vcpus,
            used=used,
            total=self.total[list(targets)],
            apart=tuple(self._apart(items)),
        )
        return Task(problem, items, targets)

    def allowed(self, guest: int, *, sure: bool) -> Bools:
        """To which hosts the checks let a guest go; at best also where they cannot tell, or its manager moves it."""
        no, unknown = self.reach.no[guest], self.reach.unknown[guest]
        allowed: Bools = (no | unknown) == 0 if sure else (no & ~np.uint64(BIT["OWNER"])) == 0
        return allowed

    def doubt(self, host: int) -> str:
        """Why it is not known what is free on a host; empty where it is."""
        name = self.reach.fleet.names[host]
        if self.limit[host] == UNKNOWN:
            return f"how much memory {name} has is not known"
        if self.limit_vcpus[host] == UNKNOWN:
            return f"how many threads {name} has is not known"
        guests = self.guests_on([host])
        if silent := [self.reach.guests.names[g] for g in guests if self.memory[g] == UNKNOWN]:
            return f"how much memory {some(silent)} on {name} has is not known"
        return ""

    @cached_property
    def _left(self) -> Mapping[bool, tuple[Ints, Ints, Ints]]:
        """By whether it has to be sure: memory and vCPUs that are free on each host, and memory that is taken."""
        hosts = range(len(self.total))
        return {sure: tuple(_numbers(c) for c in zip(*(self._left_on(t, sure=sure) for t in hosts), strict=True))  # type: ignore[misc]
                for sure in (False, True)}  # fmt: skip

    def _left_on(self, host: int, *, sure: bool) -> tuple[int, int, int]:
        here = [g for g in self.guests_on([host]) if sure or self.records[g].runs]
        used, vcpus = (sum(max(0, int(of[g])) for g in here) for of in (self.memory, self.vcpus))
        if sure and self.doubt(host):
            return -1, -1, used
        limits = (int(x[host]) for x in (self.limit, self.limit_vcpus))
        free, free_vcpus = (
            UNLIMITED if limit in (UNKNOWN, UNLIMITED) else limit - taken
            for limit, taken in zip(limits, (used, vcpus), strict=True)
        )
        return free, free_vcpus, used

    def _may(self, block: Sequence[int], lost: Collection[int], targets: Sequence[int], *, sure: bool) -> Bools:
        names = [self.records[g].known.name for g in block if self.records[g].known is not None]  # type: ignore[union-attr]
        may = np.full(len(targets), len(set(names)) == len(names))
        for g in block:
            may &= self.allowed(g, sure=sure)[list(targets)]
            if sure and self.needs[g] == UNKNOWN:
                may[:] = False
            may &= [not self.barred(g, t, lost, sure=sure) for t in targets]
        return may

    def barred(self, guest: int, host: int, lost: Collection[int], *, sure: bool) -> str:
        """Which rule about other guests, that stay where they are, keeps a guest from a host; empty where none does."""
        for rule, groups in (("together", self.rules.together), ("apart", self.rules.apart)):
            for group in groups:
                if guest not in group:
                    continue
                for mate in group:
                    record, own = self.records[mate], int(self.reach.own[mate])
                    if mate == guest or own in lost or not (record.runs is not False if sure else record.runs):
                        continue
                    if own < 0 and record.host is None:
                        if sure:
                            return rule
                    elif (own == host) is not (rule == "together"):
                        return rule
        return "name" if any(self._takes_its_name(guest, other) for other in self._on[host]) else ""

    @cached_property
    def _on(self) -> Sequence[list[int]]:
        """All guests of each host, those that are off too."""
        return [np.flatnonzero(self.reach.own == host).tolist() for host in range(len(self.total))]

    def _takes_its_name(self, guest: int, other: int) -> bool:
        """Libvirt has no two domains of one name, or of one UUID; an old definition of the same guest it replaces."""
        a, b = self.records[guest].known, self.records[other].known
        if a is None or b is None:
            return False
        same_name, same_uuid = a.name == b.name, bool(a.uuid) and a.uuid.lower() == b.uuid.lower()
        stale = same_name and same_uuid and self.records[other].runs is False
        return (same_name or same_uuid) and not stale

    def _apart(self, items: Sequence[Sequence[int]]) -> Iterable[Ints]:
        of = {g: i for i, block in enumerate(items) for g in block}
        groups: list[Sequence[int]] = list(self.rules.apart)
        for key in ("name", "uuid"):
            same: dict[str, list[int]] = {}
            for g in of:
                known = self.records[g].known
                if known is not None and (value := str(getattr(known, key)).lower() if key == "uuid" else known.name):
                    same.setdefault(value, []).append(g)
            groups += [namesakes for namesakes in same.values() if len(namesakes) > 1]
        for group in groups:
            if len(members := sorted({of[g] for g in group if g in of})) > 1:
                yield np.array(members, dtype=np.int64)


def load_on(task: Task, where: Ints) -> Mapping[int, tuple[int, int]]:
    """Memory and vCPUs that are still free on each host with what is placed there."""
    problem = task.problem
    memory = problem.free - problem.load(where, problem.memory)
    vcpus = problem.free_vcpus - problem.load(where, problem.vcpus)
    return {t: (int(memory[k]), int(vcpus[k])) for k, t in enumerate(task.targets)}


def _numbers(values: Iterable[int | None]) -> Ints:
    return np.array([UNKNOWN if v is None else v for v in values], dtype=np.int64)
