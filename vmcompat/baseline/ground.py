"""The ground on which pools are made: a fleet as units to place and pools that there might be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.baseline.demands import Demands
from vmcompat.baseline.lattice import Bools, Floats, Ints, all_concepts, pack, robust_concepts, unpack
from vmcompat.baseline.parts import Division, labels_of
from vmcompat.baseline.program import Problem
from vmcompat.baseline.worth import Exact, host_amounts
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet

_ENUMERATED: Final = 300_000  # baselines of a part; of more, only the most robust can be pools
_ROBUST: Final = 5_000
_CELLS: Final = 100_000_000  # pools times clients
_UNIONS: Final = 500  # of what hosts need

PerHost: TypeAlias = "str | Mapping[str, float] | pd.Series | None"


class Clients(NamedTuple):
    """Hosts that no demand tells apart, in an order that does not depend on that of the hosts.

    Attributes
    ----------
    members : list of int arrays
        Hosts of each client, by position among the known hosts, by name.
    many : int array, clients
        Units that may be placed apart: each of its hosts, or all of them as one.
    bits : bool array, clients by bundles of all parts
        What they offer.
    need : bool array, clients by bundles of all parts
        What their pool must keep.
    apart : tuple of int arrays
        Clients of which no two may meet.
    """

    members: list[Ints]
    many: Ints
    bits: Bools
    need: Bools
    apart: tuple[Ints, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Ground:
    """A fleet with all that does not depend on the demands.

    Attributes
    ----------
    division : Division
    capacity : Exact, one a host of the fleet
    today : int array, one a host of the fleet
        Pool that it is in today, -1 for none.
    today_names : list of str
    restart : float array, one a host of the fleet
    move_cost : float
    """

    division: Division
    capacity: Exact
    today: Ints
    today_names: list[str]
    restart: Floats
    move_cost: float

    @cached_property
    def positions(self) -> Ints:
        """The known hosts of all parts, by position in the fleet."""
        return np.concatenate([p.positions for p in self.division.parts])

    @cached_property
    def part(self) -> Ints:
        """Of each known host."""
        return np.repeat(np.arange(len(self.division.parts)), [len(p.positions) for p in self.division.parts])

    @cached_property
    def starts(self) -> Ints:
        """The first bundle of each part among those of all parts, and how many there are."""
        return np.cumsum([0, *(p.table.n_bundles for p in self.division.parts)])

    @cached_property
    def classes(self) -> Ints:
        """Of each known host, numbered through all parts, in an order that does not depend on that of the hosts."""
        keys = labels_of(self.division.keys)
        order = sorted(range(len(keys)), key=lambda i: (keys[i], i))
        numbers: dict[int, Ints] = {}
        start = 0
        for i in order:
            table = self.division.parts[i].table
            rank = np.empty(len(table.classes), dtype=np.int64)
            rank[np.lexsort([np.zeros(len(rank)), *table.classes.T[::-1]])] = start + np.arange(len(table.classes))
            numbers[i], start = rank[table.class_of_row], start + len(rank)
        return np.concatenate([numbers[i] for i in range(len(keys))])

    @cached_property
    def offered(self) -> Bools:
        """Known hosts by bundles of all parts."""
        bits = np.zeros((len(self.positions), self.starts[-1]), dtype=np.bool_)
        at = 0
        for p, start in zip(self.division.parts, self.starts, strict=False):
            rows = p.table.classes[p.table.class_of_row]
            bits[at : at + len(rows), start : start + p.table.n_bundles] = rows
            at += len(rows)
        return bits

    @cached_property
    def at(self) -> dict[int, int]:
        """Where each known host is among them, by its position in the fleet."""
        return {int(position): i for i, position in enumerate(self.positions)}

    @cached_property
    def label_part(self) -> Ints:
        """The part of each of today's pools."""
        part = np.zeros(len(self.today_names), dtype=np.int64)
        today = self.today[self.positions]
        part[today[today >= 0]] = self.part[today >= 0]
        return part

    @cached_property
    def label_bits(self) -> Bools:
        """What all hosts of each of today's pools offer."""
        today = self.today[self.positions]
        shared = [self.offered[today == label].all(axis=0) for label in range(len(self.today_names))]
        return np.array(shared, dtype=np.bool_).reshape(len(self.today_names), self.starts[-1])

    @cached_property
    def baselines(self) -> tuple[Bools, Ints, bool]:
        """Every maximal baseline as bundles of all parts, the part of each, and whether these are all."""
        found, parts, complete = [], [], True
        for i, p in enumerate(self.division.parts):
            concepts = all_concepts(p.table, limit=_ENUMERATED)
            intents = concepts.intents
            if concepts.truncated or len(intents) * len(p.table.classes) > _CELLS:
                complete = False
                robust = robust_concepts(p.table, delta=1, limit=_ROBUST).intents
                intents = np.unique(np.concatenate([robust, pack(p.table.classes)]), axis=0)
            bits = np.zeros((len(intents), self.starts[-1]), dtype=np.bool_)
            bits[:, self.starts[i] : self.starts[i + 1]] = unpack(intents, p.table.n_bundles)
            found.append(bits)
            parts.append(np.full(len(intents), i))
        return np.concatenate(found), np.concatenate(parts), complete

    def worth(self, part: int, bits: Bools) -> Fraction:
        """The value of bundles of one part, with what all of it have."""
        p = self.division.parts[part]
        own = bits[self.starts[part] : self.starts[part + 1]]
        return Fraction(p.common_value + int(p.value.multiples[own].sum())) / Fraction(p.value.per_one)

    def amount(self, position: int) -> Fraction:
        """The capacity of one host of the fleet."""
        return Fraction(int(self.capacity.multiples[position])) / Fraction(self.capacity.per_one)

    def need(self, demands: Demands) -> Bools | None:
        """Bundles that the pool of each known host must keep; None where nobody in a part offers one of them."""
        need = np.zeros_like(self.offered)
        for hosts, features in demands.must_keep:
            for i, p in enumerate(self.division.parts):
                mine = [self.at[h] for h in hosts if h in self.at and self.part[self.at[h]] == i]
                if not mine:
                    continue
                asked = p.bundles(features)
                if asked is None:
                    return None
                need[mine, self.starts[i] : self.starts[i + 1]] |= unpack(asked, p.table.n_bundles)[0]
        return need

    def clients(self, demands: Demands) -> Clients | None:
        """The units to place; None where hosts that must stay together cannot, or what is needed is not offered."""
        need = self.need(demands)
        bound = demands.units
        if need is None:
            return None
        special = [np.array(sorted((self.at[h] for h in unit), key=self._name)) for unit in bound if unit[0] in self.at]
        codes = self._codes(need, amounts=demands.splits)
        free = np.setdiff1d(np.arange(len(self.positions)), np.concatenate([*special, np.empty(0, np.int64)]))
        by_name = free[np.argsort(np.array([self._name(i) for i in free], dtype=object), kind="stable")]
        _, kind = np.unique(codes[by_name], axis=0, return_inverse=True)
        order = np.argsort(kind.ravel(), kind="stable")
        ends = np.cumsum(np.bincount(kind.ravel())) if len(free) else np.empty(0, np.int64)
        members = [by_name[order[start:end]] for start, end in zip([0, *ends], ends, strict=False)]
        many = [len(m) if demands.splits else 1 for m in members]
        special.sort(key=lambda unit: (codes[unit].tolist(), [self._name(i) for i in unit]))
        members += special
        if any(len(set(self.part[unit].tolist())) > 1 for unit in special):
            return None
        where = {int(self.positions[i]): len(many) + at for at, unit in enumerate(special) for i in unit}
        apart = [[where[h] for h in hosts if h in where] for hosts in demands.apart]
        if any(len(set(clients)) < len(clients) for clients in apart):
            return None
        bits = np.array([self.offered[m].all(axis=0) for m in members], dtype=np.bool_)
        needed = np.array([need[m].any(axis=0) for m in members], dtype=np.bool_)
        if (needed & ~bits).any():
            return None
        many += [1] * len(special)
        return Clients(members, np.array(many, np.int64), bits, needed, tuple(np.array(c, np.int64) for c in apart))

    def _name(self, i: int) -> str:
        """Of a known host."""
        return self.division.fleet.names[int(self.positions[i])]

    def _codes(self, need: Bools, *, amounts: bool) -> Ints:
        """Numbers that are the same for hosts that nothing tells apart: known hosts by what may tell them apart."""
        columns = [self.classes, self.today[self.positions]]
        if self.restart.any():
            columns.append(np.unique(self.restart[self.positions], return_inverse=True)[1])
        if need.any():
            columns.append(np.unique(need, axis=0, return_inverse=True)[1].ravel())
        if amounts:
            columns.append(self.capacity.multiples[self.positions])
        return np.stack(columns, axis=1)

    def problem(self, demands: Demands, clients: Clients, *, only: bool = False) -> Problem:
        """The problem of placing them.

        Parameters
        ----------
        demands : Demands
        clients : Clients
        only : bool
            With no more pools than are needed to place everybody if that is possible.
        """
        wanted, wanted_part = self._wanted(clients)
        bits, part, _ = self.baselines
        if only:
            bits, part = wanted, wanted_part
        else:
            bits, part = np.concatenate([wanted, bits]), np.concatenate([wanted_part, part])
            keys = np.concatenate([part.astype(np.uint64)[:, None], pack(bits)], axis=1)
            _, first = np.unique(keys, axis=0, return_index=True)
            first = np.concatenate([np.arange(len(wanted)), first[first >= len(wanted)]])
            bits, part = bits[first], part[first]
        client_part = self.part[[m[0] for m in clients.members]]
        admits = part[:, None] == client_part
        for g, (offer, need) in enumerate(zip(clients.bits, clients.need, strict=True)):
            admits[:, g] &= ~(bits & ~offer).any(axis=1) & ~(need & ~bits).any(axis=1)
        values = [p.value.multiples / p.value.per_one for p in self.division.parts]
        common = np.array([p.common_value / p.value.per_one for p in self.division.parts])
        amounts = self.capacity.multiples / self.capacity.per_one
        sizes = amounts[self.positions]
        protects = demands.min_capacity > 0 and demands.n_plus > 0
        thresholds = np.unique(sizes) if protects else np.array([np.inf])
        n_labels = len(self.today_names)
        many = clients.many
        labels = np.array([np.bincount(self._labels(m), minlength=n_labels) for m in clients.members])
        restart = np.array(
            [np.bincount(self._labels(m), self._restarts(m), minlength=n_labels) for m in clients.members]
        )
        protected = np.array([np.minimum(sizes[m][:, None], thresholds).sum(axis=0) for m in clients.members])
        return Problem(
            many=many,
            unit=np.array([sizes[m].sum() for m in clients.members]) / many,
            hosts=np.array([len(m) for m in clients.members]) / many,
            thresholds=np.where(np.isfinite(thresholds), thresholds, 0.0),
            protected=protected / many[:, None],
            labels=labels.reshape(len(many), n_labels) // many[:, None],
            restart=restart.reshape(len(many), n_labels) / many[:, None],
            apart=clients.apart,
            value=bits.astype(np.float64) @ np.concatenate([*values, np.empty(0)]) + common[part],
            admits=admits,
            breaks=(self.label_bits[None] & ~bits[:, None]).any(axis=2).reshape(len(bits), n_labels),
            of_part=part,
            label_part=self.label_part,
            k=demands.k,
            min_hosts=float(least if (least := demands.min_hosts + demands.n_plus) > 1 else 0),
            min_capacity=float(demands.min_capacity),
            n_plus=demands.n_plus,
            max_moves=np.inf if demands.max_moves is None else float(demands.max_moves),
            move_cost=self.move_cost,
            copies=max(1, min(demands.k, sum(len(c) for c in clients.apart))),
            anywhere=np.arange(len(wanted)),
        )

    def _labels(self, members: Ints) -> Ints:
        today = self.today[self.positions[members]]
        return today[today >= 0]

    def _restarts(self, members: Ints) -> Floats:
        at = self.positions[members]
        return self.restart[at[self.today[at] >= 0]]

    def _wanted(self, clients: Clients) -> tuple[Bools, Ints]:
        """Baselines of which some suffice to place everybody: what is needed in a pool, and nothing else."""
        client_part = self.part[[m[0] for m in clients.members]]
        found: dict[tuple[int, bytes], Bools] = {}
        for i in range(len(self.division.parts)):
            needs = np.unique(clients.need[client_part == i], axis=0)
            unions = {bits.tobytes(): bits for bits in [np.zeros(self.starts[-1], np.bool_)]}
            for need in needs:
                for bits in list(unions.values()):
                    if len(unions) < _UNIONS:
                        unions.setdefault((bits | need).tobytes(), bits | need)
            for bits in unions.values():
                able = clients.bits[(client_part == i) & ~(bits & ~clients.bits).any(axis=1)]
                if len(able):
                    shared = able.all(axis=0)
                    found.setdefault((i, shared.tobytes()), shared)
        bits = np.array(list(found.values()), dtype=np.bool_)
        return bits.reshape(len(found), self.starts[-1]), np.array([i for i, _ in found], dtype=np.int64)


def pools_today(fleet: Fleet, current: str | None, keys: pd.DataFrame, parts: Sequence[Ints]) -> tuple[Ints, list[str]]:
    """Of each host today's pool, numbered by name; one name in several parts is told apart by vendor or arch.

    Raises
    ------
    FrameError
        No such column.
    """
    today = np.full(len(fleet), -1)
    if current is None:
        return today, []
    if current not in fleet.hosts.columns:
        raise FrameError(f"no column {current!r} of today's pools; columns: {', '.join(fleet.hosts.columns)}")
    column = fleet.hosts[current]
    where: dict[str, list[int]] = {}
    for i, positions in enumerate(parts):
        for name in column.iloc[positions].dropna().unique():
            where.setdefault(str(name), []).append(i)
    apart = "vendor" if keys["vendor"].is_unique else "arch"
    named = {
        (name, i): name if len(found) == 1 else f"{name} ({keys[apart].iloc[i]})"
        for name, found in where.items()
        for i in found
    }
    names = sorted(named.values())
    for i, positions in enumerate(parts):
        for at in positions:
            if pd.notna(column.iloc[at]):
                today[at] = names.index(named[str(column.iloc[at]), i])
    return today, names


def per_host(fleet: Fleet, given: PerHost) -> Floats:
    """A number of at least 0 for each host, from a column or by name; 0 where none is given.

    Raises
    ------
    FrameError
        No such column or host, or a number that is missing in a column, negative or none.
    """
    if given is None:
        return np.zeros(len(fleet))
    if isinstance(given, str):
        amounts, unknown = host_amounts(fleet.hosts, given)
        if unknown.any():
            raise FrameError(f"{given} is not known of {some([fleet.names[i] for i in np.flatnonzero(unknown)])}")
        numbers = amounts.multiples / amounts.per_one
    else:
        costs = {str(host): cost for host, cost in given.items()}
        fleet.positions(costs)
        numbers = np.array([costs.get(name, 0) for name in fleet.names], dtype=np.float64)
    if not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise FrameError("restart_cost=: give finite numbers of at least 0")
    return numbers
