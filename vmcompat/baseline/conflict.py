"""Demands on pools that cannot be met: a smallest set of them that is to blame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Final, NamedTuple

from vmcompat.baseline.answer import some
from vmcompat.baseline.demands import Demands
from vmcompat.baseline.ground import Ground
from vmcompat.baseline.partition import pools_of
from vmcompat.baseline.parts import labels_of
from vmcompat.baseline.program import program

_TRIED: Final = 500  # sets of demands that are tried for one smaller than the first found


def possible(ground: Ground, demands: Demands) -> bool:
    """Whether any pools meet them."""
    clients = ground.clients(demands)
    if clients is None:
        return False
    problem = ground.problem(demands, clients, only=True)
    return program(problem, pools_of(problem, problem.anywhere)) is not None


def conflict(ground: Ground, demands: Demands) -> list[str]:
    """A smallest set of demands that cannot be met together, in words.

    Notes
    -----
    No demand of it can be spared. A smaller set might exist where there are more than some hundred to try.
    """
    every = list(_each(ground, demands))
    needless = replace(
        demands, k=len(ground.positions), min_hosts=1, min_capacity=0, n_plus=0, together=(), apart=(), must_keep=(),
        max_moves=None,
    )  # fmt: skip

    def met(chosen: Sequence[int]) -> bool:
        asked = needless
        for i in chosen:
            asked = every[i].put(asked)
        return possible(ground, asked)

    guilty = list(range(len(every)))
    for i in list(guilty):
        without = [j for j in guilty if j != i]
        if not met(without):
            guilty = without
    tried = 0
    for n in range(1, len(guilty)):
        for chosen in combinations(range(len(every)), n):
            tried += 1
            if tried > _TRIED:
                break
            if not met(chosen):
                return [every[i].words for i in chosen]
    return [every[i].words for i in guilty]


class _Demand(NamedTuple):
    """One of the demands: in words, and where it stands."""

    words: str
    field: str
    value: Any

    def put(self, demands: Demands) -> Demands:
        """Those with this one."""
        there = getattr(demands, self.field)
        changed: dict[str, Any] = {self.field: (*there, self.value) if isinstance(there, tuple) else self.value}
        return replace(demands, **changed)


def _each(ground: Ground, demands: Demands) -> Iterator[_Demand]:
    names = ground.division.fleet.names
    kinds = labels_of(ground.division.keys)
    never_meet = f", and hosts of {len(kinds)} kinds that never meet ({', '.join(kinds)})" if len(kinds) > 1 else ""
    yield _Demand(f"at most {demands.k} {'pool' if demands.k == 1 else 'pools'}{never_meet}", "k", demands.k)
    if demands.min_hosts > 1:
        yield _Demand(f"min_hosts={demands.min_hosts}", "min_hosts", demands.min_hosts)
    if demands.min_capacity > 0:
        yield _Demand(f"min_capacity={demands.min_capacity:g}", "min_capacity", demands.min_capacity)
    if demands.n_plus:
        yield _Demand(f"n_plus={demands.n_plus}", "n_plus", demands.n_plus)
    for hosts in demands.together:
        yield _Demand(f"together: {some([names[h] for h in hosts])}", "together", hosts)
    for hosts in demands.apart:
        yield _Demand(f"apart: {some([names[h] for h in hosts])}", "apart", hosts)
    for hosts, features in demands.must_keep:
        for feature in sorted(features):
            yield _Demand(_keeping(ground, hosts, feature), "must_keep", (hosts, frozenset([feature])))
    if demands.max_moves is not None:
        n = len({int(i) for i in ground.today[ground.positions] if i >= 0})
        yield _Demand(f"max_moves={demands.max_moves} from {n} pools of today", "max_moves", demands.max_moves)


def _keeping(ground: Ground, hosts: Sequence[int], feature: str) -> str:
    fleet = ground.division.fleet
    there = [fleet.names[h] for h in hosts if h in ground.at]
    lacking = [name for name in there if not fleet.features.at[name, feature]]
    told = f", which {some(lacking)} {'lacks' if len(lacking) == 1 else 'lack'}" if lacking else ""
    return f"must_keep: {feature}{told}"
