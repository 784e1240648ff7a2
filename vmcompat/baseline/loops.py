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
_SEED = np.uint64(0x9E3779B97F4A7C15)
_FACTOR = np.uint64(0xFF51AFD7ED558CCD)


def compiled(function: _F) -> _F:
    """The function compiled, and kept on disk where there is a folder for it."""
    try:
        return cast("_F", numba.njit(cache=True)(function))
    except RuntimeError:  # no folder to keep it in: neither beside the package nor in the user's cache
        return cast("_F", numba.njit(function))


@compiled
def has(words: Words, i: int) -> bool:
    """Whether element ``i`` is in the set."""
    return bool(words[i >> 6] >> np.uint64(i & 63) & _ONE)


@compiled
def classify(rows: Words, kinds: Ints, first: Ints, size: int) -> int:
    """The kind of each row, kinds numbered in the order of their first rows, and those first rows.

    A table of ``size`` open addresses, a power of two; -1 where that is too few, else how many kinds there are. Rows of
    one hash are compared word by word, so that the answer does not rest on it.
    """
    last = np.uint64(size - 1)
    slots = np.full(size, -1, np.int64)
    marks = np.zeros(size, np.uint64)
    known = np.empty((size // 4, rows.shape[1]), np.uint64)  # first rows, close together
    n_kinds = 0
    kind = -1
    for i in range(len(rows)):
        if i > 0:  # hosts that were bought together lie together
            w = 0
            while w < rows.shape[1] and rows[i, w] == rows[i - 1, w]:
                w += 1
            if w == rows.shape[1]:
                kinds[i] = kind
                continue
        h = _SEED
        for w in range(rows.shape[1]):
            h = (h ^ rows[i, w]) * _FACTOR
            h ^= h >> np.uint64(32)
        at = h & last
        while True:
            kind = slots[at]
            if kind < 0:
                break
            if marks[at] == h:
                w = 0
                while w < rows.shape[1] and rows[i, w] == known[np.uint64(kind), w]:
                    w += 1
                if w == rows.shape[1]:
                    break
            at = (at + _ONE) & last
        if kind < 0:
            if n_kinds == size // 4:
                return -1
            kind = n_kinds
            slots[at], marks[at], first[kind] = kind, h, i
            known[kind] = rows[i]
            n_kinds += 1
        kinds[i] = kind
    return n_kinds


@compiled
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


@compiled
def weigh(sets: Words, sums: Ints) -> Ints:
    """The weight of each set."""
    weights = np.empty(len(sets), np.int64)
    for i in range(len(sets)):
        weights[i] = weigh_one(sets[i], sums)
    return weights


@compiled
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


@compiled
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


@compiled
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


@compiled
def preferred(extent: Words, intent: Words, other: Words, other_intent: Words, hosts: Ints, features: Ints) -> bool:
    """Whether the first of two groups of equal weight and value stands for both: more hosts, or else more features."""
    more = weigh_one(extent, hosts) - weigh_one(other, hosts)
    if more == 0:
        more = weigh_one(intent, features) - weigh_one(other_intent, features)
    return bool(more > 0)


@compiled
def at_least(kept: Ints, n: int, value: np.int64) -> int:
    """The first of the ``n`` rising values that is not less."""
    low, high = 0, n
    while low < high:
        middle = (low + high) >> 1
        if kept[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def promising(
    extent: Words,
    most: Ints,
    base: np.int64,
    own: np.int64,
    weights: Ints,
    covers: Ints,
    kept: Ints,
    n: int,
    floor: int,
) -> bool:
    """Whether some of a group may keep more than ``own``, weigh at least ``floor`` and be no worse than ``n`` points.

    Some of it that keep a value weigh no more than all who alone would keep as much: ``base``, and ``most`` of each.
    """
    above = np.zeros(2 * n + 1, np.int64)  # what those weigh who lie before a point (even) and level with it (odd)
    beyond = False
    for w in range(len(extent)):
        rest, c = extent[w], 64 * w
        while rest:
            if rest & _ONE:
                value = base + most[c]
                if value > own:
                    i = at_least(kept, n, value)
                    above[2 * i + (1 if i < n and kept[i] == value else 0)] += weights[c]
                    beyond |= i == n
            rest >>= _ONE
            c += 1
    weight = above[2 * n]
    if beyond and weight >= floor:
        return True
    for i in range(n - 1, -1, -1):
        weight += above[2 * i + 1]
        if weight >= covers[i] and weight >= floor:  # as good as this point, perhaps
            return True
        weight += above[2 * i]
        if weight > covers[i] and weight >= floor:
            return True
    return False


@compiled
def unbeaten(
    columns: Words,
    weights: Ints,
    sums: Ints,
    hosts: Ints,
    features: Ints,
    values: Ints,
    most: Ints,
    floor: int,
    budget: int,
    covers: Ints,
    kept: Ints,
    extents: Words,
    intents: Words,
) -> tuple[Ints, Ints, Words, Words, int]:
    """The points that no group beats in weight and value at once, and how many groups that took, at most ``budget``.

    The way of :func:`close_by_one`, but only over columns worth something (the first, as many as ``most`` has rows less
    one) and only where :func:`promising`. ``most[j, c]`` is what class ``c`` has in the columns from ``j`` on. Known
    points of at least ``floor`` to begin with: weights falling, values rising, the group of all classes among them
    where it weighs so much.
    """
    n, n_words = columns.shape
    n_valued, n_intent, n_points, n_nodes = len(most) - 1, intents.shape[1], len(covers), 0
    extent, intent = np.zeros((n + 2, n_words), np.uint64), np.zeros((n + 2, n_intent), np.uint64)
    following, depth = np.zeros(n + 2, np.int64), 0
    for c in range(len(weights)):
        extent[0, c >> 6] |= _ONE << np.uint64(c & 63)
    while depth >= 0 and n_nodes < budget:
        j = following[depth]
        if j == n_valued:
            depth -= 1
            continue
        following[depth] = j + 1
        if has(intent[depth], j):
            continue
        down = depth + 1
        some = np.uint64(0)
        for w in range(n_words):
            extent[down, w] = extent[depth, w] & columns[j, w]
            some |= extent[down, w]
        if not some:
            continue
        n_nodes += 1
        cover = weigh_one(extent[down], sums)
        if cover < floor:
            continue
        new, base, value = True, np.int64(0), np.int64(0)
        intent[down] = intent[depth]
        for k in range(n):
            if not has(intent[down], k):
                outside = np.uint64(0)
                for w in range(n_words):
                    outside = extent[down, w] & ~columns[k, w]
                    if outside:
                        break
                if outside:
                    continue
                if k < j:
                    new = False
                    break
                intent[down, k >> 6] |= _ONE << np.uint64(k & 63)
            value += values[k]
            if k <= j:
                base = value
        if not new:
            continue
        end = at_least(kept, n_points, value)
        level = end < n_points and kept[end] == value
        if end == n_points or covers[end] < cover:
            start = end
            end += 1 if level else 0
            while start > 0 and covers[start - 1] <= cover:
                start -= 1
            covers = np.concatenate((covers[:start], np.array([cover]), covers[end:]))
            kept = np.concatenate((kept[:start], np.array([value]), kept[end:]))
            extents = np.concatenate((extents[:start], extent[down : down + 1], extents[end:]))
            intents = np.concatenate((intents[:start], intent[down : down + 1], intents[end:]))
            n_points = len(covers)
        elif (  # otherwise the one found first stands: it has the first of the columns that only one of them has
            level
            and covers[end] == cover
            and preferred(extent[down], intent[down], extents[end], intents[end], hosts, features)
        ):
            extents[end], intents[end] = extent[down], intent[down]
        if promising(extent[down], most[j + 1], base, value, weights, covers, kept, n_points, floor):
            depth = down
            following[depth] = j + 1
    return covers, kept, extents, intents, n_nodes
