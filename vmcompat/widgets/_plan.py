"""What the pool planner knows and answers, without a widget: demands, the curve of answers, and what moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import pandas as pd

from vmcompat.baseline.meanings import GROUPS, MEANINGS, meanings
from vmcompat.baseline.pools import Pools, pools
from vmcompat.errors import FrameError, VmcompatError
from vmcompat.fleet.frames import Fleet
from vmcompat.widgets._scene import Scene, parts_of

Answer: TypeAlias = "Pools | str"

TIME_LIMIT: Final = 5.0  # for each number of pools [s]
_CURVE: Final = 8  # points of the curve
WEIGHED: Final = tuple(group for group in GROUPS if group != "host facts")


class Pin(NamedTuple):
    """A host that goes where another goes; ``pool`` is what that one's pool was called when it was pinned."""

    host: str
    beside: str
    pool: str


class Demand(NamedTuple):
    """All that is asked but for the number of pools."""

    current: str | None = None
    weights: tuple[tuple[str, float], ...] = ()
    min_hosts: int = 1
    n_plus: int = 0
    max_moves: int | None = None
    pins: tuple[Pin, ...] = ()


@cache
def usual_weights() -> Mapping[str, float]:
    """What most features of each group weigh by default."""
    values: dict[str, Counter[float]] = {group: Counter() for group in WEIGHED}
    for what in MEANINGS.values():
        if what.group in values:
            values[what.group][what.value] += 1
    common = {group: counts.most_common(1)[0][0] if counts else 1.0 for group, counts in values.items()}
    return MappingProxyType(common)


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolsState:
    """How many pools, under which demands, and all that was answered so far.

    Attributes
    ----------
    fleet : Fleet
    k : int
    demand : Demand
    """

    fleet: Fleet
    k: int
    demand: Demand
    _found: dict[Demand, dict[int, Answer]] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(fleet: Fleet, *, current: str | None = None) -> PoolsState:
        """As many pools as there are today; without ``current`` the fewest that there can be.

        Raises
        ------
        FrameError
            No host of the fleet has a known CPU, or there is no such column.
        """
        if not len(fleet.features):
            raise FrameError("no host with a known CPU to make pools of: see fleet.findings")
        if current is not None and current not in fleet.hosts.columns:
            raise FrameError(f"no column {current!r} of today's pools; columns: {', '.join(fleet.hosts.columns)}")
        state = PoolsState(fleet=fleet, k=1, demand=Demand(current=current))
        many = 0 if state.today is None else len(state.today)
        return replace(state, k=min(max(many, state.ks[0]), state.ks[-1]))

    @cached_property
    def scene(self) -> Scene:
        """The fleet with its columns."""
        return Scene.of(self.fleet)

    @cached_property
    def ks(self) -> range:
        """Numbers of pools to choose from: one for each architecture and vendor at least."""
        known = [i for i, x in enumerate(self.fleet.readings) if x.status == "ok"]
        least = len(parts_of(self.scene, known))
        most = max(least, min(least + _CURVE - 1, len(known)))
        if self.today is not None:
            most = max(most, min(len(known), 2 * _CURVE, len(self.today) + 1))
        return range(least, most + 1)

    def asking(self, **changes: Any) -> PoolsState:
        """With other demands, fields of `Demand`; pins are forgotten with today's pools, whose names they use.

        Raises
        ------
        FrameError
            A weight that is negative.
        """
        if "current" in changes and changes["current"] != self.demand.current:
            changes |= {"pins": (), "max_moves": None}
        state = replace(self, demand=self.demand._replace(**changes))
        return replace(state, k=min(max(state.k, state.ks[0]), state.ks[-1]))

    def weighing(self, group: str, weight: float) -> PoolsState:
        """With another weight for the usual feature of a group."""
        weights = dict(self.demand.weights) | {group: weight}
        changed = {g: w for g, w in weights.items() if w != usual_weights()[g]}
        return self.asking(weights=tuple((g, changed[g]) for g in WEIGHED if g in changed))

    def pinning(self, host: str, pool: str) -> PoolsState:
        """With a host in one of the pools that are proposed now: where the first other host of it goes, it goes too.

        Raises
        ------
        FrameError
            No such host or pool, a host whose CPU is not known, or a pool without another host.
        """
        (at,) = self.fleet.positions([host])
        if self.fleet.readings[at].status != "ok":
            raise FrameError(f"{host}: its CPU is not known ({self.fleet.readings[at].status}), so that no pool has it")
        found = self.answer
        if not isinstance(found, Pools) or pool not in found.frame.index:
            raise FrameError(f"no pool {pool!r} is proposed now; wait for the answer, then pin")
        members = found.frame["hosts"][pool]
        pins = tuple(p for p in self.demand.pins if p.host != host)
        followers = {p.host for p in pins}
        beside = next((h for h in members if h != host and h not in followers), None)
        if beside is None:
            raise FrameError(f"{pool} has no other host that {host} could be pinned to")
        return self.asking(pins=(*pins, Pin(host, beside, pool)))

    @property
    def value(self) -> dict[str, float] | None:
        """Weights by feature; None where all are the default ones.

        A feature keeps its rank inside its group: its default weight is scaled as the usual one is, or raised where the
        usual one is 0.
        """
        if not self.demand.weights:
            return None
        chosen, usual = dict(self.demand.weights), usual_weights()
        vendors = {vendor for (_, vendor), _ in self._known_parts}
        table = meanings(self.fleet.cpu_map.features, vendor=vendors.pop() if len(vendors) == 1 else None)
        rows = zip(table.index, table["group"], table["value"], strict=True)
        found = {}
        for name, group, default in rows:
            if group in chosen and usual[group]:
                default *= chosen[group] / usual[group]
            elif group in chosen:
                default += chosen[group]
            found[str(name)] = float(default)
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of these weights."""
        if self.demand.weights and len({vendor for (_, vendor), _ in self._known_parts}) > 1:
            return (
                "with weights of your own a control counts on the hosts of every vendor that offers it; by default it "
                "counts on those of its own only",
            )
        return ()

    @cached_property
    def _known_parts(self) -> list[tuple[tuple[str | None, str | None], list[int]]]:
        return parts_of(self.scene, [i for i, x in enumerate(self.fleet.readings) if x.status == "ok"])

    @property
    def found(self) -> Mapping[int, Answer]:
        """What was answered to these demands so far, by number of pools: pools, or why there are none."""
        return self._found.get(self.demand, {})

    @property
    def answer(self) -> Answer | None:
        """For the chosen number of pools; None where it is not solved yet."""
        return self.found.get(self.k)

    @property
    def open(self) -> tuple[int, ...]:
        """Numbers of pools that are not solved yet, the chosen one first, then by distance from it."""
        return tuple(sorted((k for k in self.ks if k not in self.found), key=lambda k: (abs(k - self.k), k)))

    def solve(self, k: int) -> None:
        """Answers for one number of pools; a refusal is an answer too."""
        d = self.demand
        beside: dict[str, list[str]] = {}
        for pin in d.pins:
            beside.setdefault(pin.beside, []).append(pin.host)
        try:
            found: Answer = pools(
                self.fleet,
                k,
                value=self.value,
                min_hosts=d.min_hosts,
                n_plus=d.n_plus,
                together=[[host, *followers] for host, followers in beside.items()],
                current=d.current,
                max_moves=d.max_moves,
                time_limit=TIME_LIMIT,
                allow_missing=True,
            )
        except VmcompatError as e:
            found = str(e)
        self._found.setdefault(d, {})[k] = found

    @cached_property
    def today(self) -> pd.DataFrame | None:
        """The baselines of today's pools: columns of ``schema.BASELINES``; None where there are none."""
        if self.demand.current is None:
            return None
        known = self.fleet[self.fleet.features.index]
        return known.baselines(by=self.demand.current)

    @property
    def unknown(self) -> dict[str, str]:
        """Hosts that no pool has since their CPU is not known, with the status."""
        return {
            host: x.status for host, x in zip(self.fleet.names, self.fleet.readings, strict=True) if x.status != "ok"
        }

    @property
    def proposed(self) -> pd.DataFrame | None:
        """The baselines of the proposed pools, counted as today's: columns of ``schema.BASELINES``, index ``pool``."""
        found = self.answer
        if not isinstance(found, Pools):
            return None
        table = self.fleet.baselines(by=found.frame["hosts"].to_dict())
        return table.droplevel(["arch", "vendor"]).rename_axis("pool").loc[list(found.frame.index)]

    @property
    def exchange(self) -> pd.DataFrame | None:
        """How many hosts go from which of today's pools to which proposed one; None without either."""
        found = self.answer
        if not isinstance(found, Pools) or self.demand.current is None:
            return None
        placed = found.placement
        today = placed["today"].fillna("(none today)")
        table = pd.crosstab(today, placed["pool"])
        return table.reindex(columns=list(found.frame.index)).rename_axis(index="today", columns="pool")
