"""The loops of the lattice, compiled: numba is imported with this module, and keeps on disk what it compiled.

Sets are rows of 64-bit words; bit *i* of word *w* stands for element ``64 * w + i``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Words: TypeAlias = npt.NDArray[np.uint64]
Ints: TypeAlias = npt.NDArray[np.int64]

_F = TypeVar("_F", bound=Callable[..., object])

_ONE = np.uint64(1)
_BYTE = np.uint64(255)


def _compiled(function: _F) -> _F:
    try:
        return cast("_F", numba.njit(cache=True)(function))
    except RuntimeError:  # no folder to keep it in: neither beside the package nor in the user's cache
        return cast("_F", numba.njit(function))


@_compiled
def has(words: Words, i: int) -> bool:
    """Whether element ``i`` is in the set."""
    return bool(words[i >> 6] >> np.uint64(i & 63) & _ONE)


@_compiled
def hashed(row: Words) -> np.uint64:
    """A hash of one packed row."""
    h = np.uint64(0x9E3779B97F4A7C15)
    for word in row:
        h = (h ^ word) * np.uint64(0xFF51AFD7ED558CCD)
        h ^= h >> np.uint64(32)
    return h


@_compiled
def distinct(rows: Words) -> tuple[Ints, Ints]:
    """The kind of each row, kinds numbered in the order of their first rows, and those first rows.

    A table of open addresses; rows of one hash are compared word by word, so that the answer does not rest on it.
    """
    size = 1024
    slots = np.full(size, -1, np.int64)
    kinds = np.empty(len(rows), np.int64)
    first = np.empty(len(rows), np.int64)
    marks = np.empty(len(rows), np.uint64)
    n_kinds = 0
    for i in range(len(rows)):
        h = hashed(rows[i])
        at = np.int64(h & np.uint64(size - 1))
        while True:
            kind = slots[at]
            if kind < 0:
                break
            same = marks[kind] == h
            if same:
                for w in range(rows.shape[1]):
                    if rows[i, w] != rows[first[kind], w]:
                        same = False
                        break
            if same:
                break
            at = (at + 1) & (size - 1)
        if kind < 0:
            kind = n_kinds
            slots[at], first[kind], marks[kind] = kind, i, h
            n_kinds += 1
            if 4 * n_kinds > size:
                size *= 4
                slots = np.full(size, -1, np.int64)
                for k in range(n_kinds):
                    at = np.int64(marks[k] & np.uint64(size - 1))
                    while slots[at] >= 0:
                        at = (at + 1) & (size - 1)
                    slots[at] = k
        kinds[i] = kind
    return kinds, first[:n_kinds].copy()


@_compiled
def weigh_one(words: Words, sums: Ints) -> np.int64:
    """The weight of one set; ``sums[b, x]`` is that of what ``x`` says as byte ``b`` of the set."""
    weight = np.int64(0)
    for w in range(len(words)):
        rest = words[w]
        b = w * 8
        while rest:
            weight += sums[b, np.int64(rest & _BYTE)]
            rest >>= np.uint64(8)
            b += 1
    return weight


@_compiled
def weigh(sets: Words, sums: Ints) -> Ints:
    """The weight of each set."""
    weights = np.empty(len(sets), np.int64)
    for i in range(len(sets)):
        weights[i] = weigh_one(sets[i], sums)
    return weights


@_compiled
def lacking(sets: Words, columns: Words, sums: Ints) -> Ints:
    """What those of each set weigh who lack each column: sets by columns."""
    weights = np.zeros((len(sets), len(columns)), np.int64)
    for i in range(len(sets)):
        for j in range(len(columns)):
            weight = np.int64(0)
            for w in range(columns.shape[1]):
                rest = sets[i, w] & ~columns[j, w]
                b = w * 8
                while rest:
                    weight += sums[b, np.int64(rest & _BYTE)]
                    rest >>= np.uint64(8)
                    b += 1
            weights[i, j] = weight
    return weights


@_compiled
def close_by_one(
    columns: Words,
    sums: Ints,
    min_weight: int,
    extents: Words,
    intents: Words,
    following: Ints,
    level: Ints,
    found_extents: Words,
    found_intents: Words,
    found_weights: Ints,
) -> int:
    """Goes on where the last call stopped, until the arrays for what is found are full; how many were found.

    A group is narrowed by one column at a time. It is new only if no column before that one is gained beside it:
    otherwise the way over that other column has found it, or will.
    """
    n, n_words = columns.shape
    n_intent = intents.shape[1]
    n_found = 0
    depth = level[0]
    while depth >= 0 and n_found < len(found_extents):
        j = following[depth]
        if j == n:
            depth -= 1
            continue
        following[depth] = j + 1
        if has(intents[depth], j):
            continue
        some = np.uint64(0)
        for w in range(n_words):
            both = extents[depth, w] & columns[j, w]
            extents[depth + 1, w] = both
            some |= both
        if not some:
            continue
        new = True
        for k in range(j):
            if has(intents[depth], k):
                continue
            outside = np.uint64(0)
            for w in range(n_words):
                outside = extents[depth + 1, w] & ~columns[k, w]
                if outside:
                    break
            if not outside:
                new = False
                break
        if not new:
            continue
        weight = weigh_one(extents[depth + 1], sums)
        if weight < min_weight:
            continue
        for w in range(n_intent):
            intents[depth + 1, w] = intents[depth, w]
        for k in range(j, n):
            outside = np.uint64(0)
            for w in range(n_words):
                outside = extents[depth + 1, w] & ~columns[k, w]
                if outside:
                    break
            if not outside:
                intents[depth + 1, k >> 6] |= _ONE << np.uint64(k & 63)
        for w in range(n_words):
            found_extents[n_found, w] = extents[depth + 1, w]
        for w in range(n_intent):
            found_intents[n_found, w] = intents[depth + 1, w]
        found_weights[n_found] = weight
        n_found += 1
        depth += 1
        following[depth] = j + 1
    level[0] = depth
    return n_found


@_compiled
def cheapest_steps(
    columns: Words, sums: Ints, values: Ints, extents: Words, intents: Words, weights: Ints
) -> tuple[Ints, Ints, Words]:
    """For each group the column that the fewest leave for, how much they weigh, and what those who stay gain.

    Where that is the same for several columns, the one with which the most value is gained, then the first. -1 where no
    column is left that some of the group have.
    """
    n, n_words = columns.shape
    best = np.full(len(extents), -1, np.int64)
    costs = weights.copy()
    gains = np.zeros(intents.shape, np.uint64)
    staying = np.empty(n_words, np.uint64)
    gain = np.empty(intents.shape[1], np.uint64)
    for i in range(len(extents)):
        best_value = np.int64(-1)
        for j in range(n):
            if has(intents[i], j):
                continue
            cost = np.int64(0)
            for w in range(n_words):
                rest = extents[i, w] & ~columns[j, w]
                b = w * 8
                while rest:
                    cost += sums[b, np.int64(rest & _BYTE)]
                    rest >>= np.uint64(8)
                    b += 1
                if cost > costs[i]:
                    break
            if cost > costs[i] or cost == weights[i]:
                continue
            for w in range(n_words):
                staying[w] = extents[i, w] & columns[j, w]
            value = np.int64(0)
            gain[:] = 0
            for k in range(n):
                if has(intents[i], k):
                    continue
                outside = np.uint64(0)
                for w in range(n_words):
                    outside = staying[w] & ~columns[k, w]
                    if outside:
                        break
                if not outside:
                    gain[k >> 6] |= _ONE << np.uint64(k & 63)
                    value += values[k]
            if cost < costs[i] or value > best_value:
                best[i], costs[i], best_value = j, cost, value
                for w in range(len(gain)):
                    gains[i, w] = gain[w]
    return best, costs, gains
