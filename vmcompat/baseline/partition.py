"""The best split of hosts into pools, with its proof: arrays only, no labels and no frames.

A pool keeps what all its hosts share, so that the possible pools are the maximal baselines (any other pool is one of
these in disguise), and the question is that of the p-median: open at most so many, and place every host where most of
its value is kept. A Lagrangian relaxation of "every host has its place" gives an upper bound and shuts out pools that
no better answer can open; what is left is a small mixed integer program.

References
----------
O. Briant, D. Naddef, "The optimal diversity management problem", Operations Research 52 (4), 515-526, 2004: the same
question about wire harnesses of cars, as a p-median with Lagrangian bounds.

G. Cornuejols, M. L. Fisher, G. L. Nemhauser, "Location of bank accounts to optimize float", Management Science 23 (8),
789-810, 1977: the relaxation.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from vmcompat.baseline.lattice import Floats, Ints
from vmcompat.baseline.program import Pool, Problem, Relaxed, prices, program

_WANTED: Final = 40  # pools that new prices bring into the linear program
_PROGRAMS: Final = (60, 4_000)  # pools of the programs that look for good answers, and of the one that proves it


class Partition(NamedTuple):
    """An answer.

    Attributes
    ----------
    pools : tuple of Pool
        Those that hold somebody.
    placed : int array, pools by clients
        Units.
    bound : float
        No answer has more.
    proven : bool
        No answer has more than this one.
    """

    pools: tuple[Pool, ...]
    placed: Ints
    bound: float
    proven: bool


def solve(problem: Problem, *, time_limit: float) -> Partition:
    """The best partition, or the best found in time with a bound.

    Parameters
    ----------
    problem : Problem
    time_limit : float
        [s]; the first answers may take longer.

    Raises
    ------
    ValueError
        There is none at all.
    """
    problem.unwanted(Pool(0, -1, 0), problem.unit * problem.own, 0.0)  # what is not compiled yet is before time counts
    problem.profits(problem.unit * problem.own, 0.0)
    end = time.monotonic() + time_limit
    best = program(problem, [*pools_of(problem, problem.anywhere), *_as_today(problem)])
    if best is None:
        raise ValueError("no partition meets the demands")
    relaxed = _relaxed(problem, end=time.monotonic() + time_limit / 2)
    bound = relaxed.bound
    # the small program finds nearly all there is to win, and has its time whatever the bound has taken
    for most, until in zip(_PROGRAMS, (max(end, time.monotonic() + time_limit / 3), end), strict=True):
        if bound <= best.value + problem.tolerance or time.monotonic() > until:
            break
        pools, left_out = _surviving(problem, relaxed, best.value, most)
        better = program(problem, pools, relaxed=relaxed, floor=best.value, end=until)
        if better is not None:
            best = max(best, better, key=lambda found: found.value)
            bound = min(bound, max(better.bound, left_out, best.value))
    if problem.labels.any() and not problem.move_cost:
        pools, _ = _surviving(problem, relaxed, best.value, _PROGRAMS[-1], also=best.pools)
        best = program(problem, pools, relaxed=relaxed, floor=best.value, end=end, still=True) or best
    held = np.flatnonzero(best.placed.any(axis=1))
    proven = bound <= best.value + problem.tolerance
    return Partition(tuple(best.pools[i] for i in held), best.placed[held], max(bound, best.value), proven)


def _as_today(problem: Problem) -> list[Pool]:
    """Today's pools, so that no answer is worse than to leave all as it is, however little time there was."""
    found = []
    for label, part in enumerate(problem.label_part):
        possible = (problem.of_part == part) & problem.admits[:, problem.labels[:, label] > 0].all(axis=1)
        if possible.any():
            f = int(np.where(possible, problem.value, -np.inf).argmax())
            found += [Pool(f, label, t) for t in range(len(problem.needed))]
    return found


def _relaxed(problem: Problem, *, end: float) -> Relaxed:
    """Prices at which the bound is low: those of the linear program over the pools that earlier prices asked for."""
    own = np.where(problem.admits, problem.value[:, None], -np.inf).argmax(axis=0)
    pools = dict.fromkeys(pools_of(problem, np.union1d(problem.anywhere, own)))
    lowest = Relaxed(np.inf, np.empty(0), 0.0, (), np.empty(0), 0.0)
    while True:
        price, per_move, reached, support = prices(problem, list(pools))
        tried = [(price, per_move)]
        if lowest.bound < np.inf:  # prices between these and the best ones are steadier than either
            tried.append(((price + lowest.price) / 2, (per_move + lowest.per_move) / 2))
        wanted: list[Pool] = []
        for price, per_move in tried:
            profit = problem.profits(price, problem.move_cost + per_move)
            chosen, least = _chosen(problem, profit)
            bound = float(problem.many @ price + sum(profit[p.f, p.label, p.t] for p in chosen))
            bound += per_move * problem.max_moves if per_move else 0.0
            if bound < lowest.bound:
                lowest = Relaxed(bound, profit, bound - least, support, price, per_move)
            wanted += [*chosen, *_most_wanted(problem, profit)]
        fresh = [pool for pool in wanted if pool not in pools]
        if not fresh or lowest.bound <= reached + 1e-7 * abs(reached) or time.monotonic() > end:
            return lowest
        pools |= dict.fromkeys(fresh)


def _most_wanted(problem: Problem, profit: Floats) -> list[Pool]:
    """Some that bring most, each with every copy of it."""
    none = profit.shape[1] - 1
    best = np.argsort(-profit, axis=None, kind="stable")[:_WANTED]
    found = []
    for f, label, t in zip(*np.unravel_index(best, profit.shape), strict=True):
        if profit[f, label, t] > 0:
            at = int(label) if label < none else -1
            found += [Pool(int(f), at, int(t), copy) for copy in range(problem.copies if at < 0 else 1)]
    return found


def _chosen(problem: Problem, profit: Floats) -> tuple[list[Pool], float]:
    """The pools that bring most together, and what the least of them brings (0 where another could be opened)."""
    n_labels = problem.labels.shape[1]
    candidates: list[tuple[float, Pool]] = []
    for label in range(n_labels):
        f, t = np.unravel_index(int(profit[:, label].argmax()), profit[:, label].shape)
        candidates.append((float(profit[f, label, t]), Pool(int(f), label, int(t))))
    best = profit[:, -1].max(axis=1)
    for f in np.argsort(-best, kind="stable")[: problem.k]:
        pool = Pool(int(f), -1, int(profit[f, -1].argmax()))
        candidates += [(float(best[f]), pool._replace(copy=i)) for i in range(problem.copies)]
    candidates = sorted((c for c in candidates if c[0] > 0), key=lambda c: -c[0])[: problem.k]
    full = len(candidates) == problem.k
    return [pool for _, pool in candidates], candidates[-1][0] if full else 0.0


def pools_of(problem: Problem, which: Ints) -> list[Pool]:
    """Pools of these baselines in every form."""
    labels = range(-1, problem.labels.shape[1])
    return [
        Pool(int(f), label, t, copy)
        for f in which
        for label in labels
        if label < 0 or problem.label_part[label] == problem.of_part[f]
        for t in range(len(problem.needed))
        for copy in range(problem.copies if label < 0 else 1)
    ]


def _surviving(
    problem: Problem, relaxed: Relaxed, floor: float, most: int, also: Sequence[Pool] = ()
) -> tuple[list[Pool], float]:
    """The pools that a better answer may open, at most so many, and the bound of answers that open another."""
    opened = np.minimum(relaxed.bound, relaxed.beside + relaxed.profit.ravel())
    alive = np.flatnonzero(opened >= floor - problem.tolerance)
    alive = alive[np.argsort(-relaxed.profit.ravel()[alive], kind="stable")]
    left_out = float(opened[alive[most]]) if len(alive) > most else -np.inf
    none = problem.labels.shape[1]
    pools = pools_of(problem, problem.anywhere)
    for f, label, t in zip(*np.unravel_index(alive[:most], relaxed.profit.shape), strict=True):
        at = int(label) if label < none else -1
        pools += [Pool(int(f), at, int(t), copy) for copy in range(problem.copies if at < 0 else 1)]
    return list(dict.fromkeys([*pools, *relaxed.support, *also])), left_out
