"""Items into hosts by whole numbers: as many as fit, then so that the fullest host is as empty as can be.

Programs for HiGHS count in floating point and call what is off by a millionth whole. So each of their answers is
counted again in integers, and one that does not hold is forbidden by name before the next is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from math import ceil, gcd
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vmcompat.errors import VmcompatError

Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]

UNLIMITED: Final = 1 << 60
NOWHERE: Final = -1
_HALVINGS: Final = 8  # of what the fullest target may be
_SLACK: Final = 1e-6  # as much as HiGHS itself does not see
_INFEASIBLE: Final = 2
# HiGHS holds its answer against the rows once more, and gives none ("Solve error") where rounding breaks a row of large
# factors by more than a millionth. Such rows are then divided.
_LARGEST: Final = (100.0, 10.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """What is to be placed where.

    Attributes
    ----------
    may : ndarray of bool
        Items by targets: where each may go, whatever room there is.
    sizes, memory, vcpus : ndarray of int64
        Of each item: how many guests it is, and what they take; memory [KiB].
    free, free_vcpus : ndarray of int64
        Of each target: what may still be taken there; ``UNLIMITED`` where nothing limits it.
    used, total : ndarray of int64
        Memory of each target that is taken already, and all of it [KiB].
    apart : tuple of ndarray
        Groups of items, of which a target takes one at most.
    """

    may: Bools
    sizes: Ints
    memory: Ints
    vcpus: Ints
    free: Ints
    free_vcpus: Ints
    used: Ints
    total: Ints
    apart: tuple[Ints, ...] = ()

    @property
    def fits(self) -> Bools:
        """Where each item may go and has room while no other comes."""
        return self.may & (self.memory[:, None] <= self.free) & (self.vcpus[:, None] <= self.free_vcpus)

    def count(self, where: Ints) -> int:
        """How many guests are placed."""
        return int(self.sizes[where != NOWHERE].sum())

    def load(self, where: Ints, of: Ints) -> Ints:
        """Sum of a column of the items at each target."""
        load = np.zeros(len(self.free), dtype=np.int64)
        placed = where != NOWHERE
        np.add.at(load, where[placed], of[placed])
        return load

    def fullest(self, where: Ints) -> Fraction:
        """Largest share of memory that is taken at a target that gets something."""
        load = self.load(where, self.memory) + self.used
        return max((Fraction(int(load[t]), int(self.total[t])) for t in set(where[where != NOWHERE].tolist())), default=
                   Fraction(0))  # fmt: skip


def most(problem: Problem, *, needed: Collection[int] = (), at_least: int = 0) -> Ints | None:
    """Places as many guests as there is room for.

    Parameters
    ----------
    problem : Problem
    needed : collection of int
        Items that have to be placed.
    at_least : int
        Guests that have to be placed.

    Returns
    -------
    ndarray of int64 or None
        The target of each item, ``NOWHERE`` for the others; None where what is asked for does not go.
    """
    quick = _first_fit(problem)
    if (quick != NOWHERE).all():
        return quick
    program = _Program(problem)
    program.asked(needed, at_least)
    return program.solved()


def balanced(problem: Problem, where: Ints) -> Ints:
    """Of all ways to place as many guests one whose fullest target, of those that get something, is emptiest."""
    n = problem.count(where)
    if not n:
        return where
    everything = n == problem.sizes.sum()
    low = _lower_bound(problem) if everything else Fraction(0)
    best, high = where, problem.fullest(where)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = _emptier(problem, middle, n)
        if found is None:
            low = middle
        else:
            best, high = found, problem.fullest(found)
    while not (everything and high == _lower_bound(problem)):
        found = _emptier(problem, high, n)  # the proof: there is nothing below, in whole KiB
        if found is None:
            break
        best, high = found, problem.fullest(found)
    return best


def _emptier(problem: Problem, limit: Fraction, n: int) -> Ints | None:
    """A way to place so many guests with every target that gets something below the limit; None if there is none."""
    below = np.array([ceil(limit * int(t)) - 1 for t in problem.total], dtype=np.int64) - problem.used
    return most(replace(problem, free=np.minimum(problem.free, below)), at_least=n)


def borrowed(problem: Problem) -> tuple[Ints, Ints, Ints]:
    """Where all that may go anywhere goes if memory and vCPUs could be borrowed: least memory, then fewest vCPUs.

    Returns
    -------
    where, memory, vcpus : ndarray of int64
        The target of each item, and what each target would have to borrow; memory [KiB].
    """
    endless = np.full(len(problem.free), UNLIMITED, dtype=np.int64)
    unlimited = replace(problem, free=endless, free_vcpus=endless)
    where = most(unlimited)
    assert where is not None
    n = unlimited.count(where)
    least: int | None = None
    for column, free in ((problem.memory, problem.free), (problem.vcpus, problem.free_vcpus)):
        program = _Program(unlimited)
        program.asked((), n)
        if least is not None:
            program.overrun(problem.memory, problem.free, most=least)
        program.overrun(column, free)
        found = program.solved()
        if found is not None and (least is None or _over(problem, found, problem.memory, problem.free).sum() <= least):
            where = found
        least = int(_over(problem, where, problem.memory, problem.free).sum())
    over = (
        _over(problem, where, problem.memory, problem.free),
        _over(problem, where, problem.vcpus, problem.free_vcpus),
    )
    return where, *over


def _over(problem: Problem, where: Ints, column: Ints, free: Ints) -> Ints:
    """What targets that get something would have to borrow; what is too much there already is no part of it."""
    load = problem.load(where, column)
    return np.where(load > 0, np.maximum(0, load - np.maximum(0, free)), 0)


def _lower_bound(problem: Problem) -> Fraction:
    """No answer that places all has a fullest target emptier than where the worst item alone is best off."""
    bound = Fraction(0)
    for need, targets in zip(problem.memory.tolist(), problem.fits, strict=True):
        at = np.flatnonzero(targets).tolist()
        bound = max(bound, min(Fraction(int(problem.used[t]) + need, int(problem.total[t])) for t in at))
    return bound


def _first_fit(problem: Problem) -> Ints:
    """The items with fewest places first, each where most memory is left: quick, and often all that is needed."""
    fits = problem.fits
    where = np.full(len(problem.sizes), NOWHERE, dtype=np.int64)
    free, vcpus = problem.free.copy(), problem.free_vcpus.copy()
    of: dict[int, list[int]] = {}
    for number, group in enumerate(problem.apart):
        for i in group.tolist():
            of.setdefault(i, []).append(number)
    taken = np.zeros((len(problem.apart), len(free)), dtype=np.bool_)
    order = sorted(range(len(where)), key=lambda i: (int(fits[i].sum()), -int(problem.memory[i]), i))
    for i in order:
        here = fits[i] & (problem.memory[i] <= free) & (problem.vcpus[i] <= vcpus)
        for number in of.get(i, ()):
            here &= ~taken[number]
        if not here.any():
            continue
        t = int(np.where(here, free, -1).argmax())
        where[i] = t
        free[t] -= problem.memory[i]
        vcpus[t] -= problem.vcpus[i]
        taken[of.get(i, []), t] = True
    return where


class _Program:
    """A mixed integer program: a column for each item and target where it fits, then others."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.item, self.target = np.nonzero(problem.fits)
        self.n = self.n_items_at = len(self.item)
        self.rows: list[tuple[Ints, npt.NDArray[np.float64], float, float]] = []
        self.cost = -problem.sizes[self.item].astype(np.float64)
        self.units = (_unit(problem.memory), _unit(problem.vcpus))
        at = [np.flatnonzero(self.target == t) for t in range(len(problem.free))]
        self.at = at
        for i in range(len(problem.sizes)):
            if len(mine := np.flatnonzero(self.item == i)) > 1:
                self._row(mine, 1.0, -np.inf, 1.0)
        limits = zip((problem.memory, problem.vcpus), (problem.free, problem.free_vcpus), self.units, strict=True)
        for column, free, unit in limits:
            for t, mine in enumerate(at):
                needs = column[self.item[mine]]
                if len(mine) and needs.sum() > free[t]:
                    self._row(mine, needs / unit, -np.inf, float(free[t] // unit))
        for group in problem.apart:
            among = np.isin(self.item, group)
            for mine in at:
                if len(both := mine[among[mine]]) > 1:
                    self._row(both, 1.0, -np.inf, 1.0)

    def _row(self, columns: Any, factors: Any, low: float, high: float) -> None:
        columns = np.asarray(columns, dtype=np.int64)
        self.rows.append((columns, np.broadcast_to(np.asarray(factors, np.float64), columns.shape), low, high))

    def asked(self, needed: Collection[int], at_least: int) -> None:
        """What has to be placed."""
        for i in needed:
            self._row(np.flatnonzero(self.item == i), 1.0, 1.0, 1.0)
        if at_least:
            sizes = self.problem.sizes[self.item].astype(np.float64)
            self._row(np.arange(len(self.item)), sizes, float(at_least), np.inf)

    def overrun(self, column: Ints, free: Ints, *, most: int | None = None) -> None:
        """What goes beyond what is free is to be least, or at most so much in all."""
        over: list[int] = []
        unit = max(1, int(column.max())) / 1000
        for t, mine in enumerate(self.at):
            needs, there = column[self.item[mine]], max(0, int(free[t]))
            if needs.sum() > there:
                self._row([*mine, self.n], [*(needs / unit), -1.0], -np.inf, there / unit)
                over.append(self.n)
                self.n += 1
        if most is None:
            self.cost = np.zeros(self.n)
            self.cost[over] = 1.0
        elif over:
            self._row(over, 1.0, -np.inf, most / unit + _SLACK)

    def solved(self) -> Ints | None:
        """The target of each item in a best answer that holds in integers; None where there is none."""
        if not self.n_items_at:
            asked = any(low > 0 for _, _, low, _ in self.rows)
            return None if asked else np.full(len(self.problem.sizes), NOWHERE, dtype=np.int64)
        while True:
            x = self._asked_of_highs()
            if x is None:
                return None
            chosen = np.flatnonzero(np.rint(x[: self.n_items_at]) == 1)
            where = np.full(len(self.problem.sizes), NOWHERE, dtype=np.int64)
            where[self.item[chosen]] = self.target[chosen]
            too_many = list(self._too_many(where))
            if not too_many:
                return where
            for t in too_many:
                both = chosen[self.target[chosen] == t]
                self._row(both, 1.0, -np.inf, len(both) - 1.0)

    def _too_many(self, where: Ints) -> Iterator[int]:
        problem = self.problem
        over = (problem.load(where, problem.memory) > problem.free) | (
            problem.load(where, problem.vcpus) > problem.free_vcpus
        )
        for t in np.flatnonzero(over).tolist():
            if (where == t).any():
                yield t

    def _asked_of_highs(self) -> npt.NDArray[np.float64] | None:
        from scipy.optimize import Bounds, LinearConstraint, milp

        n_other = self.n - self.n_items_at
        low, high = np.zeros(self.n), np.concatenate([np.ones(self.n_items_at), np.full(n_other, np.inf)])
        cost = np.concatenate([self.cost, np.zeros(self.n - len(self.cost))])
        whole = np.concatenate([np.ones(self.n_items_at), np.zeros(n_other)])
        for largest in (np.inf, *_LARGEST):
            limits = [LinearConstraint(*self._matrix(largest))] if self.rows else []
            result = milp(
                cost, integrality=whole, bounds=Bounds(low, high), constraints=limits, options={"mip_rel_gap": 0.0}
            )
            if result.x is not None or result.status == _INFEASIBLE:
                break
        else:
            raise VmcompatError(f"HiGHS found no answer: {result.message}; ask about fewer hosts at a time")
        return None if result.x is None else np.asarray(result.x, dtype=np.float64)

    def _matrix(self, largest: float) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The rows with their limits, divided so that no factor is larger than that."""
        from scipy.sparse import csr_array

        columns, factors, least, greatest = zip(*self.rows, strict=True)
        by = np.array([max(1.0, float(np.abs(f).max(initial=0.0)) / largest) for f in factors])
        divided = np.concatenate([f / d for f, d in zip(factors, by, strict=True)])
        at = np.repeat(np.arange(len(columns)), [len(c) for c in columns])
        matrix = csr_array((divided, (at, np.concatenate(columns))), shape=(len(columns), self.n))
        return matrix, np.array(least) / by, np.array(greatest) / by


def _unit(values: Ints) -> int:
    """What all of them are multiples of."""
    return max(1, reduce(gcd, np.unique(values).tolist(), 0))
