"""Which of many baselines are worth a look, and how those lie inside each other. Numbers and sets only."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]


class Choice(NamedTuple):
    """Some of many groups.

    Attributes
    ----------
    rows : int array
        Which, ascending.
    best : bool array, one a chosen row
        No other group of its part is at least as large and worth at least as much, and one of them more.
    n_best : int
        How many such groups there are among all.
    """

    rows: Ints
    best: Bools
    n_best: int


def choose(
    sizes: Ints | Floats, values: Floats, robustness: Ints, part: Ints, *, most: int = 40, most_best: int = 26
) -> Choice:
    """The groups that no other beats, and beside them the most robust ones.

    Parameters
    ----------
    sizes, values, robustness : arrays, one a group
    part : int array, one a group
        Groups of different parts are not compared.
    most : int
        Where there are no more, all are chosen.
    most_best : int
        How many of the unbeaten ones are chosen then: the largest group of each part, then the most robust.

    Returns
    -------
    Choice
    """
    best = unbeaten(sizes, values, part)
    if len(sizes) <= most:
        return Choice(np.arange(len(sizes)), best, int(best.sum()))
    by_size = np.lexsort((np.arange(len(sizes)), -sizes))
    _, first = np.unique(part[by_size], return_index=True)
    largest = np.zeros(len(sizes), dtype=np.bool_)
    largest[by_size[first]] = True
    order = np.lexsort((np.arange(len(sizes)), -robustness, ~(largest & best)))
    kept = order[best[order]][:most_best]
    chosen = np.zeros(len(sizes), dtype=np.bool_)
    chosen[kept] = True
    others = np.lexsort((np.arange(len(sizes)), -robustness))
    chosen[others[~chosen[others]][: most - len(kept)]] = True
    rows = np.flatnonzero(chosen)
    return Choice(rows, best[rows], int(best.sum()))


def unbeaten(sizes: Ints | Floats, values: Floats, part: Ints) -> Bools:
    """Groups of which no other of their part is at least as good in size and in value, and better in one of them.

    Parameters
    ----------
    sizes, values, part : arrays, one a group
    """
    answer = np.zeros(len(sizes), dtype=np.bool_)
    order = np.lexsort((-values, -sizes, part))
    before, most, held = -1, -np.inf, -1
    for i in order.tolist():
        if part[i] != before:
            before, most, held = part[i], -np.inf, -1
        if values[i] > most or (values[i] == most and sizes[i] == held):
            answer[i], most, held = True, values[i], sizes[i]
    return answer


def covering(sets: Sequence[Set[str]]) -> list[tuple[int, int]]:
    """Pairs (larger, smaller) of sets of which one holds the other and no third lies between.

    Parameters
    ----------
    sets : sequence of set of str
        All different.
    """
    inside = np.array([[small < large for small in sets] for large in sets], dtype=np.bool_).reshape(
        len(sets), len(sets)
    )
    between = (inside.astype(np.int64) @ inside.astype(np.int64)) > 0
    return [(int(i), int(j)) for i, j in np.argwhere(inside & ~between)]
