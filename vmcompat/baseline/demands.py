"""What is asked of pools, with hosts as positions in the fleet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from vmcompat.baseline.answer import some
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet

Keep: TypeAlias = "Iterable[str] | Mapping[str, Iterable[str]]"


@dataclass(frozen=True, kw_only=True)
class Demands:
    """Constraints on pools; hosts are positions in the fleet.

    Attributes
    ----------
    k : int
        Most pools.
    min_hosts, min_capacity, n_plus
        Of a pool, after losing its ``n_plus`` largest hosts.
    together, apart : tuples of tuples of int
    must_keep : tuple of (hosts, features)
        Features that the pools of these hosts keep.
    max_moves : int or None
    """

    k: int
    min_hosts: int = 1
    min_capacity: float = 0
    n_plus: int = 0
    together: tuple[tuple[int, ...], ...] = ()
    apart: tuple[tuple[int, ...], ...] = ()
    must_keep: tuple[tuple[tuple[int, ...], frozenset[str]], ...] = ()
    max_moves: int | None = None

    @property
    def splits(self) -> bool:
        """Whether hosts that are alike may have to be placed apart."""
        sized = self.min_hosts + self.n_plus > 1 or self.min_capacity > 0
        return sized or self.max_moves is not None or bool(self.apart)

    @property
    def units(self) -> list[list[int]]:
        """Hosts that stay together, sets with a host in common as one; and each host that must not meet another."""
        units: list[set[int]] = []
        for hosts in [*self.together, *([h] for pair in self.apart for h in pair)]:
            unit = set(hosts)
            for other in [u for u in units if u & unit]:
                units.remove(other)
                unit |= other
            units.append(unit)
        return [sorted(unit) for unit in units]


def kept(fleet: Fleet, must_keep: Keep) -> tuple[tuple[tuple[int, ...], frozenset[str]], ...]:
    """What pools must keep, by hosts.

    Raises
    ------
    FrameError
        A host or feature that is not known, or a feature that cannot be migrated.
    """
    asked: list[tuple[tuple[int, ...], frozenset[str]]]
    if isinstance(must_keep, Mapping):
        asked = [(tuple(fleet.positions([host])), frozenset(features)) for host, features in must_keep.items()]
    else:
        asked = [(tuple(range(len(fleet))), frozenset(must_keep))]
    for _, features in asked:
        if strange := sorted(features - fleet.cpu_map.index.keys()):
            raise FrameError(f"must_keep: the fleet's CPU map knows no {some(strange)}")
        if stuck := sorted(f for f in features if fleet.cpu_map.blocked >> fleet.cpu_map.index[f] & 1):
            raise FrameError(f"must_keep: {some(stuck)} cannot be migrated, so that no pool can keep it")
    return tuple((hosts, features) for hosts, features in asked if features)
