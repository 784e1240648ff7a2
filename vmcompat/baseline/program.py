"""Pools as a mixed integer program: arrays only, no labels and no frames."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np

from vmcompat.baseline.lattice import Bools, Floats, Ints

_EXACT: Final = 1e-9  # of all value that there is: what floating point leaves open
_FRACTION: Final = 1e-4  # of a unit: more than the solver's own tolerance


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """Hosts to place, and the pools that there might be.

    Attributes
    ----------
    many : int array, clients
        A client is so many units that nothing tells apart; a unit is a host, or hosts that stay together.
    unit : float array, clients
        What the value that a pool keeps is multiplied with, for one unit.
    hosts : float array, clients
        Of one unit.
    thresholds : float array, thresholds
        Capacities of a single host; see ``n_plus``.
    protected : float array, clients by thresholds
        Capacity of one unit, each of its hosts counted up to the threshold at most.
    labels : int array, clients by pools of today
        Hosts of one unit that are there today.
    restart : float array, clients by pools of today
        What it costs if the unit's guests of that pool have to restart.
    apart : tuple of int arrays
        Clients of one unit each, no two of which may meet.
    value : float array, pools
        What the pool keeps.
    admits : bool array, pools by clients
        Whether the client offers all that the pool keeps, and the pool keeps all that the client needs.
    breaks : bool array, pools by pools of today
        Whether the pool lacks what the guests of that pool were started with.
    of_part, label_part : int arrays, pools and pools of today
        Hosts of which part of the fleet they are for.
    k : int
        Most pools.
    min_hosts : float
        Of a pool; 0 where one host is enough.
    min_capacity : float
        Of a pool after losing its ``n_plus`` largest hosts: that is the most, over all thresholds *t*, of what its
        hosts have when each is counted up to *t* at most, less *t* for each lost host.
    n_plus : int
    max_moves : float
    move_cost : float
    copies : int
        How often a pool of the same baseline may be needed, because hosts of it may not meet.
    anywhere : int array
        Pools of which some answer consists if there is any.
    """

    many: Ints
    unit: Floats
    hosts: Floats
    thresholds: Floats
    protected: Floats
    labels: Ints
    restart: Floats
    apart: tuple[Ints, ...]
    value: Floats
    admits: Bools
    breaks: Bools
    of_part: Ints
    label_part: Ints
    k: int
    min_hosts: float
    min_capacity: float
    n_plus: int
    max_moves: float
    move_cost: float
    copies: int
    anywhere: Ints

    @cached_property
    def labelled(self) -> Ints:
        """Hosts of one unit that are in some pool today."""
        hosts: Ints = self.labels.sum(axis=1)
        return hosts

    @cached_property
    def needed(self) -> Floats:
        """The capacity that a pool needs for each threshold."""
        if self.min_capacity <= 0:
            return np.zeros(1)
        return self.min_capacity + self.n_plus * self.thresholds

    @cached_property
    def own(self) -> Floats:
        """What the pool that keeps most of each client keeps."""
        most: Floats = np.where(self.admits, self.value[:, None], -np.inf).max(axis=0)
        return most

    @cached_property
    def tolerance(self) -> float:
        """Values no further apart are the same."""
        return _EXACT * float(self.many @ (self.unit * np.maximum(self.own, 0.0)))

    @property
    def sized(self) -> bool:
        """Whether a pool may be too small."""
        return self.min_hosts > 0 or self.min_capacity > 0

    @property
    def splits(self) -> bool:
        """Whether the units of a client may have to be placed apart."""
        return self.sized or self.max_moves < np.inf or bool(self.apart)

    @property
    def flows(self) -> bool:
        """Whether units flow into open pools as through a network, where whole numbers come by themselves."""
        plain = self.min_capacity <= 0 and self.max_moves == np.inf and not self.apart
        return plain and (self.min_hosts <= 0 or bool((self.hosts == 1).all()))

    def moves(self, pool: Pool) -> Ints:
        """Hosts of one unit of each client that move when it is in this pool."""
        return self.labelled - (self.labels[:, pool.label] if pool.label >= 0 else 0)

    @cached_property
    def entries(self) -> tuple[Ints, Ints, Ints, Floats]:
        """Today's pools of each client: where its entries begin, and of each entry the pool, hosts and restarts."""
        client, label = np.nonzero(self.labels)
        starts = np.searchsorted(client, np.arange(len(self.many) + 1))
        return starts, label, self.labels[client, label], self.restart[client, label]

    def gains(self, pool: Pool, price: Floats, per_move: float) -> Floats:
        """What one unit of each client brings to a pool beyond its price."""
        from vmcompat.baseline import pricing

        out = np.empty(len(self.many))
        f = pool.f
        pricing.gains(
            self.admits[f], self.value[f], self.breaks[f], self.unit, price, *self.entries, per_move, pool.label, out
        )
        return out

    def profits(self, price: Floats, per_move: float) -> Floats:
        """An upper bound of what each pool brings: pools by today's pools (the last: none) by thresholds."""
        from vmcompat.baseline import pricing

        return pricing.profits(
            self.admits, self.value, self.breaks, self.of_part, self.many, self.unit, self.hosts, self.protected, price,
            *self.entries, self.label_part, per_move, self.min_hosts, self.needed,
        )  # fmt: skip

    def filled(self, pool: Pool, price: Floats, per_move: float) -> tuple[Floats, Floats]:
        """How many units of each client make the pool worth most at these prices, and their sizes where these count."""
        from vmcompat.baseline import pricing

        taken, other = np.zeros(len(self.many)), np.zeros(len(self.many))
        gain = self.gains(pool, price, per_move)
        by_hosts = pricing.filled(gain, self.many, self.hosts, self.min_hosts, taken)
        if self.needed[pool.t] > 0:
            size = self.protected[:, pool.t]
            if pricing.filled(gain, self.many, size, self.needed[pool.t], other) < by_hosts:
                return other, size
        return taken, self.hosts

    def unwanted(self, pool: Pool, price: Floats, per_move: float) -> Floats:
        """How much less the pool brings with a unit of each client in it: what size it lacks has a price too."""
        gain = self.gains(pool, price, per_move)
        taken, size = self.filled(pool, price, per_move)
        filling = (taken > 0) & (gain <= 0)
        per_size = float((-gain[filling] / size[filling]).max(initial=0.0))
        less: Floats = np.maximum(0.0, -(gain + per_size * size))
        return less


class Pool(NamedTuple):
    """One pool that might be opened: its baseline, the pool of today that it goes on from (-1: none), its threshold."""

    f: int
    label: int
    t: int
    copy: int = 0


class Relaxed(NamedTuple):
    """What the relaxation knows.

    Attributes
    ----------
    bound : float
        No partition has more.
    profit : float array, pools by pools of today (the last: none) by thresholds
        What each pool brings at most at these prices.
    beside : float
        What all else brings at most where a certain pool is opened.
    support : tuple of Pool
        Pools of which fractions are opened.
    price : float array, clients
    per_move : float
        The prices that tell so.
    """

    bound: float
    profit: Floats
    beside: float
    support: tuple[Pool, ...]
    price: Floats
    per_move: float


class Prices(NamedTuple):
    """Of a unit of each client and of a move; what fractions of pools reach, and of which pools there are some."""

    price: Floats
    per_move: float
    reached: float
    support: tuple[Pool, ...]


class Found(NamedTuple):
    """What a program found: units by pool and client, their value, and a bound for all that it might have found."""

    pools: tuple[Pool, ...]
    placed: Ints
    value: float
    bound: float


def program(
    problem: Problem,
    pools: Sequence[Pool],
    *,
    relaxed: Relaxed | None = None,
    floor: float = -np.inf,
    end: float = np.inf,
    still: bool = False,
) -> Found | None:
    """The best answer of these pools, as a mixed integer program; None where there is none or none in time.

    Parameters
    ----------
    problem : Problem
    pools : sequence of Pool
    relaxed : Relaxed, optional
        Units are not tried in pools where they cannot be in an answer of at least ``floor``.
    floor : float
    end : float
        By ``time.monotonic`` [s].
    still : bool
        Of all answers of at least ``floor`` the one that moves fewest hosts, then restarts fewest.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    free = np.zeros(len(problem.many))
    may = [_may(problem, pool, relaxed, floor) for pool in pools]
    pool = np.repeat(np.arange(len(pools)), [len(m) for m in may])
    client = np.concatenate([*may, np.empty(0, np.int64)]).astype(np.int64)
    gain = np.concatenate(
        [*(problem.gains(p, free, problem.move_cost)[m] for p, m in zip(pools, may, strict=True)), np.empty(0)]
    )
    scale = max(1e-300, float(np.abs(gain).max(initial=0.0))) / 1000
    rows = _rows(problem, pools, pool, client)
    cost = -gain / scale
    if still:
        rows.add(
            [0] * len(gain),
            len(pools) + np.arange(len(gain)),
            gain / scale,
            [(floor - problem.tolerance) / scale],
            np.inf,
        )
        cost = _unrest(problem, pools, pool, client)
    matrix, low, high = rows.matrix(len(pools) + len(client))

    def solved(whole: bool) -> Any:
        return milp(
            np.concatenate([np.zeros(len(pools)), cost]),
            integrality=np.concatenate([np.ones(len(pools)), np.full(len(client), float(whole))]),
            bounds=Bounds(0, np.concatenate([np.ones(len(pools)), problem.many[client]])),
            constraints=LinearConstraint(matrix, low, high),
            options={"mip_rel_gap": 0.0} | ({} if end == np.inf else {"time_limit": max(0.05, end - time.monotonic())}),
        )

    result = solved(still or not problem.flows)
    if result.x is not None and (np.abs(result.x - np.rint(result.x)) > _FRACTION).any():
        result = solved(True)  # between two corners of the network, where hosts would be in two halves
    bound = np.inf if result.mip_dual_bound is None else -float(result.mip_dual_bound) * scale
    if result.x is None:  # with a floor: no answer of these pools reaches it
        beaten = relaxed is not None and result.status == 2 and not still
        return Found((), np.empty((0, len(free)), np.int64), -np.inf, floor) if beaten else None
    placed = np.zeros((len(pools), len(free)), dtype=np.int64)
    placed[pool, client] = np.rint(result.x[len(pools) :]).astype(np.int64)
    if not (problem.splits or still):
        placed = _together(problem, pools, placed)
    return Found(tuple(pools), placed, _value(problem, pools, placed), np.inf if still else bound)


def prices(problem: Problem, pools: Sequence[Pool]) -> Prices:
    """What a unit of each client and a move cost where fractions of these pools may be opened."""
    from scipy.optimize import linprog
    from scipy.sparse import vstack

    may = [np.flatnonzero(problem.admits[p.f]) for p in pools]
    pool = np.repeat(np.arange(len(pools)), [len(m) for m in may])
    client = np.concatenate(may)
    gain = np.concatenate(
        [problem.gains(p, np.zeros(len(problem.many)), problem.move_cost)[m] for p, m in zip(pools, may, strict=True)]
    )
    scale = max(1e-300, float(np.abs(gain).max(initial=0.0))) / 1000
    rows = _rows(problem, pools, pool, client)
    matrix, low, high = rows.matrix(len(pools) + len(client))
    equal, most, least = low == high, np.isfinite(high) & (low != high), np.isfinite(low) & (low != high)
    result = linprog(
        np.concatenate([np.zeros(len(pools)), -gain / scale]),
        A_ub=vstack([matrix[most], -matrix[least]]),
        b_ub=np.concatenate([high[most], -low[least]]),
        A_eq=matrix[equal],
        b_eq=low[equal],
        bounds=(0, None),
        method="highs",
    )
    per_move = 0.0
    if problem.max_moves < np.inf:
        per_move = max(0.0, -float(result.ineqlin.marginals[np.searchsorted(np.flatnonzero(most), rows.moves)]) * scale)
    support = tuple(p for p, opened in zip(pools, result.x, strict=False) if opened > 1e-7)
    return Prices(-result.eqlin.marginals * scale, per_move, -float(result.fun) * scale, support)


def _may(problem: Problem, pool: Pool, relaxed: Relaxed | None, floor: float) -> Ints:
    """The clients that may be in the pool, in an answer of at least ``floor``."""
    may = problem.admits[pool.f]
    if relaxed is not None:
        per_move = problem.move_cost + relaxed.per_move
        unwanted = problem.unwanted(pool, relaxed.price, per_move)
        may = may & (
            relaxed.beside + relaxed.profit[pool.f, pool.label, pool.t] - unwanted >= floor - problem.tolerance
        )
    return np.flatnonzero(may)


def _together(problem: Problem, pools: Sequence[Pool], placed: Ints) -> Ints:
    """All units of a client in the first of the open pools that are best for it."""
    held = np.flatnonzero(placed.any(axis=1))
    gains = np.array([problem.gains(pools[int(i)], np.zeros(len(problem.many)), problem.move_cost) for i in held])
    whole = np.zeros_like(placed)
    whole[held[gains.argmax(axis=0)], np.arange(len(problem.many))] = problem.many
    return whole


def _value(problem: Problem, pools: Sequence[Pool], placed: Ints) -> float:
    free = np.zeros(len(problem.many))
    gains = [
        np.where(units > 0, problem.gains(p, free, problem.move_cost), 0.0)
        for p, units in zip(pools, placed, strict=True)
    ]
    return float(sum(gain @ units for gain, units in zip(gains, placed, strict=True)))


def _unrest(problem: Problem, pools: Sequence[Pool], pool: Ints, client: Ints) -> Floats:
    """Hosts moved by a unit of each client in each pool, and restarts, all of which together count less than one."""
    f = np.array([p.f for p in pools])[pool]
    moves = np.array([problem.moves(p) for p in pools]).reshape(len(pools), -1)[pool, client]
    restarts = (problem.labels[client] * problem.breaks[f]).sum(axis=1)
    answer: Floats = moves + restarts / (1.0 + float(problem.labelled @ problem.many))
    return answer


class _Rows:
    """The rows of a program, block by block."""

    def __init__(self) -> None:
        self.at: list[Ints] = []
        self.columns: list[Ints] = []
        self.factors: list[Floats] = []
        self.low: list[Floats] = []
        self.high: list[Floats] = []
        self.n = 0
        self.moves = -1

    def add(self, at: Any, columns: Any, factors: Any, low: Any, high: Any) -> None:
        """A block: entries by row within the block, and what each row is between."""
        low, high = np.broadcast_arrays(np.atleast_1d(low), np.atleast_1d(high))
        at = np.asarray(at, dtype=np.int64)
        self.at.append(at + self.n)
        self.columns.append(np.asarray(columns, dtype=np.int64))
        self.factors.append(np.broadcast_to(np.asarray(factors, dtype=np.float64), at.shape))
        self.low.append(low)
        self.high.append(high)
        self.n += len(low)

    def matrix(self, n_columns: int) -> tuple[Any, Floats, Floats]:
        """All of them."""
        from scipy.sparse import csr_array

        entries = np.concatenate(self.factors), (np.concatenate(self.at), np.concatenate(self.columns))
        return csr_array(entries, shape=(self.n, n_columns)), np.concatenate(self.low), np.concatenate(self.high)


def _rows(problem: Problem, pools: Sequence[Pool], pool: Ints, client: Ints) -> _Rows:
    """What an answer must keep; columns are the pools, then units by pool and client."""
    rows = _Rows()
    n, n_pools = len(pool), len(pools)
    units, opened = n_pools + np.arange(n), np.arange(n_pools)
    many = problem.many.astype(np.float64)
    rows.add(client, units, 1.0, many, many)
    at = np.arange(n)
    rows.add(np.append(at, at), np.append(units, pool), np.append(np.ones(n), -many[client]), np.full(n, -np.inf), 0.0)
    rows.add([0] * n_pools, opened, 1.0, [-np.inf], problem.k)
    labels = np.array([p.label for p in pools])
    for label in np.unique(labels[labels >= 0]):
        goes_on = np.flatnonzero(labels == label)
        rows.add([0] * len(goes_on), goes_on, 1.0, [-np.inf], 1.0)
    if problem.min_hosts > 0:
        sizes = problem.hosts[client]
        rows.add(np.append(pool, opened), np.append(units, opened),
                 np.append(sizes, np.full(n_pools, -problem.min_hosts)), np.zeros(n_pools), np.inf)  # fmt: skip
    if problem.min_capacity > 0:
        t = np.array([p.t for p in pools])
        largest = float(problem.protected.max())
        sizes, needed = problem.protected[client, t[pool]] / largest, problem.needed[t] / largest
        rows.add(
            np.append(pool, opened), np.append(units, opened), np.append(sizes, -needed), np.zeros(n_pools), np.inf
        )
    if problem.max_moves < np.inf:
        rows.moves = rows.n
        moves = np.array([problem.moves(p) for p in pools]).reshape(n_pools, -1)[pool, client]
        rows.add([0] * n, units, moves, [-np.inf], problem.max_moves)
    for clients in problem.apart:
        here = np.flatnonzero(np.isin(client, clients))
        rows.add(np.append(pool[here], opened), np.append(units[here], opened),
                 np.append(np.ones(len(here)), -np.ones(n_pools)), np.full(n_pools, -np.inf), 0.0)  # fmt: skip
    return rows
