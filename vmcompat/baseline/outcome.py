"""Pools as they turned out, with names: what each keeps and gives up, where every host goes, and in which order."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, reduce
from itertools import islice
from typing import Any, Final

import numpy as np
import pandas as pd

from vmcompat.baseline.ground import Clients, Ground
from vmcompat.baseline.lattice import Bools
from vmcompat.baseline.meanings import level
from vmcompat.baseline.partition import Partition
from vmcompat.schema import MOVES, PLACEMENT, POOLS, frame

_COMPARED: Final = 60  # kinds of moves of which the best next one is looked for


@dataclass(frozen=True, eq=False)
class Made:
    """Hosts of one part in one pool.

    Attributes
    ----------
    ground : Ground
    label : int
        The pool of today that it goes on from; -1 for none.
    members : tuple of int
        By position in the fleet, in its order.
    """

    ground: Ground
    label: int
    members: tuple[int, ...]

    @cached_property
    def part(self) -> int:
        """Of its hosts."""
        return int(self.ground.part[self.ground.at[self.members[0]]])

    @cached_property
    def bits(self) -> Bools:
        """Bundles that all its hosts offer."""
        bits: Bools = np.logical_and.reduce(self.ground.offered[[self.ground.at[i] for i in self.members]])
        return bits

    @cached_property
    def value(self) -> Fraction:
        """Of what all its hosts offer."""
        return self.ground.worth(self.part, self.bits)

    @cached_property
    def capacity(self) -> Fraction:
        """Of its hosts."""
        return sum((self.ground.amount(i) for i in self.members), Fraction())

    @property
    def kept(self) -> Fraction:
        """By all its hosts together."""
        return self.value * self.capacity

    @cached_property
    def shared(self) -> int:
        """Set of the features that all its hosts offer and that can be migrated."""
        fleet = self.ground.division.fleet
        return reduce(int.__and__, {fleet.readings[i].offered for i in self.members}) & ~fleet.cpu_map.blocked

    @cached_property
    def given_up(self) -> int:
        """Set of the features that some of its hosts offer and another is known to lack."""
        fleet = self.ground.division.fleet
        kinds = {(fleet.readings[i].offered, fleet.readings[i].reported) for i in self.members}
        offered = reduce(int.__or__, (have for have, _ in kinds))
        return offered & reduce(int.__or__, (told & ~have for have, told in kinds)) & ~fleet.cpu_map.blocked


def made(ground: Ground, clients: Clients, found: Partition) -> list[Made]:
    """The pools of a partition, most hosts first; new ones that share the same are one where hosts may all meet."""
    filled: dict[Hashable, tuple[int, list[int]]] = {}
    rows = [(pool.label, placed) for pool, placed in zip(found.pools, found.placed, strict=True)]
    taken = [iter(ground.positions[members].tolist()) for members in clients.members]
    for n, (label, placed) in enumerate(rows):
        hosts: list[int] = []
        for g in np.flatnonzero(placed):
            size = len(clients.members[g]) // int(clients.many[g])
            hosts += islice(taken[g], int(placed[g]) * size)
        pool = Made(ground, label, tuple(hosts))
        key = (pool.part, pool.shared) if label < 0 and not clients.apart else n
        filled.setdefault(key, (label, []))[1].extend(hosts)
    pools = [Made(ground, label, tuple(sorted(hosts))) for label, hosts in filled.values()]
    return sorted(pools, key=lambda p: (-len(p.members), p.members[0]))


def today(ground: Ground) -> list[Made]:
    """Today's pools."""
    known = ground.positions[np.argsort(ground.positions)]
    of = ground.today[known]
    return [Made(ground, n, tuple(known[of == n].tolist())) for n in range(len(ground.today_names))]


def named(pools: Sequence[Made], names_today: Sequence[str]) -> list[str]:
    """Those that go on from today's have the names of these; the others are numbered."""
    numbers = (name for i in range(1, 2 * len(pools) + len(names_today) + 1)
               if (name := f"new-{i}" if names_today else f"pool-{i}") not in names_today)  # fmt: skip
    return [names_today[p.label] if p.label >= 0 else next(numbers) for p in pools]


def placement(ground: Ground, pools: Sequence[Made], names: Sequence[str]) -> pd.DataFrame:
    """See ``schema.PLACEMENT``."""
    fleet = ground.division.fleet
    pool_of = {i: at for at, pool in enumerate(pools) for i in pool.members}
    rows = []
    for i in sorted(pool_of):
        pool, label = pools[pool_of[i]], int(ground.today[i])
        own = ground.worth(pool.part, ground.offered[ground.at[i]])
        rows.append(
            {
                "pool": names[pool_of[i]],
                "today": ground.today_names[label] if label >= 0 else None,
                "moved": label >= 0 and label != pool.label,
                "restarts": label >= 0 and bool((ground.label_bits[label] & ~pool.bits).any()),
                "value": float(pool.value),
                "own_value": float(own),
                "gives_up": tuple(fleet.cpu_map.names(fleet.readings[i].offered & pool.given_up)),
            }
        )
    return frame(PLACEMENT, rows, index=pd.Index([fleet.names[i] for i in sorted(pool_of)], dtype="str", name="host"))


def pool_rows(
    ground: Ground,
    pools: Sequence[Made],
    names: Sequence[str],
    placed: pd.DataFrame,
    capacities: Sequence[float | None],
) -> pd.DataFrame:
    """See ``schema.POOLS``."""
    fleet = ground.division.fleet
    moved = placed.groupby("pool")["moved"].sum()
    rows: list[Mapping[str, Any]] = []
    for pool, name, capacity in zip(pools, names, capacities, strict=True):
        features = fleet.cpu_map.names(pool.shared)
        key = ground.division.keys.iloc[pool.part]
        rows.append(
            {
                "arch": key["arch"],
                "vendor": key["vendor"],
                "n_hosts": len(pool.members),
                "capacity": capacity,
                "n_features": len(features),
                "value": float(pool.value),
                "level": level(frozenset(features)),
                "n_moved": moved[name],
                "hosts": tuple(fleet.names[i] for i in pool.members),
                "features": tuple(features),
                "given_up": tuple(fleet.cpu_map.names(pool.given_up)),
            }
        )
    return frame(POOLS, rows, index=pd.Index(list(names), dtype="str", name="pool"))


def moves(ground: Ground, pools: Sequence[Made], names: Sequence[str], placed: pd.DataFrame) -> pd.DataFrame:
    """See ``schema.MOVES``: of every kind of move the one that wins most next, where there are not too many kinds."""
    fleet = ground.division.fleet
    pool_of = {i: at for at, pool in enumerate(pools) for i in pool.members}
    kinds: dict[Hashable, list[int]] = {}
    for i in sorted(pool_of):
        if 0 <= ground.today[i] != pools[pool_of[i]].label:
            kinds.setdefault((int(ground.today[i]), pool_of[i], int(ground.classes[ground.at[i]])), []).append(i)
    at: dict[int, set[int]] = {n: set() for n in range(len(pools))}
    for i, n in pool_of.items():
        if ground.today[i] < 0:
            at[n].add(i)  # in no pool today: not a move
    number = {pool.label: n for n, pool in enumerate(pools) if pool.label >= 0}
    for pool in today(ground):
        at.setdefault(number.get(pool.label, -1 - pool.label), set()).update(pool.members)
    rows, index = [], []
    for steps in _in_order(ground, kinds, at, pool_of, number):
        for i, value in steps:
            index.append(fleet.names[i])
            rows.append({"today": ground.today_names[ground.today[i]], "pool": names[pool_of[i]],
                         "restarts": placed.at[fleet.names[i], "restarts"], "value_after": float(value)})  # fmt: skip
    return frame(MOVES, rows, index=pd.Index(index, dtype="str", name="host"))


def _in_order(
    ground: Ground,
    kinds: dict[Hashable, list[int]],
    at: dict[int, set[int]],
    pool_of: Mapping[int, int],
    number: Mapping[int, int],
) -> Iterator[list[tuple[int, Fraction]]]:
    """The moves of one kind after the other, with the value that hosts in a pool today have after each."""

    def kept(n: int) -> Fraction:
        counted = [i for i in at[n] if ground.today[i] >= 0]
        if not counted:
            return Fraction()
        return Made(ground, -1, tuple(at[n])).value * sum((ground.amount(i) for i in counted), Fraction())

    value = {n: kept(n) for n in at}
    left = dict(kinds)

    def moved(hosts: Iterable[int]) -> tuple[int, int]:
        for i in hosts:
            here, there = number.get(int(ground.today[i]), -1 - int(ground.today[i])), pool_of[i]
            at[here].discard(i)
            at[there].add(i)
        return here, there

    def back(hosts: Iterable[int], here: int, there: int) -> None:
        at[there].difference_update(hosts)
        at[here].update(hosts)

    while left:
        best = next(iter(left))
        if 1 < len(left) <= _COMPARED:
            won = {}
            for kind, hosts in left.items():
                here, there = moved(hosts)
                won[kind] = kept(here) + kept(there) - value[here] - value[there]
                back(hosts, here, there)
            best = max(won, key=lambda kind: won[kind] / len(left[kind]))
        steps = []
        for i in left.pop(best):
            here, there = moved([i])
            value[here], value[there] = kept(here), kept(there)
            steps.append((i, sum(value.values(), Fraction())))
        yield steps
