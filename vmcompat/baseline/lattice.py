"""All maximal groups of rows with all that they share: the formal concepts of a table of bits, and the robust ones.

Bitsets only; no labels and no frames. Bit *i* of word *w* of a packed set stands for element ``64 * w + i``.

References
----------
B. Ganter, R. Wille, "Formal Concept Analysis: Mathematical Foundations", Springer, 1999: what a concept is, and that
equal rows and equal columns may be merged.

S. O. Kuznetsov, "A fast algorithm for computing all intersections of objects in a finite semi-lattice", Automatic
Documentation and Mathematical Linguistics 27 (5), 11-21, 1993: Close-by-One, here depth first and without recursion.

A. Buzmakov, S. O. Kuznetsov, A. Napoli, "Sofia: How to Make FCA Polynomial?", Proceedings of the 4th International
Workshop "What can FCA do for Artificial Intelligence?" (FCA4AI), CEUR Workshop Proceedings 1430, 27-34, 2015: the
robust concepts by a chain of projections, a column at a time, and a threshold that rises where there are too many.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Bools: TypeAlias = npt.NDArray[np.bool_]
Words: TypeAlias = npt.NDArray[np.uint64]
Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

_CHUNK: Final = 1 << 16  # concepts found between two looks at the limit


@dataclass(frozen=True, eq=False)
class Table:
    """A table of bits without repetition: equal rows are one class, equal columns one bundle.

    Attributes
    ----------
    classes : bool array, classes by bundles
        Classes in the order of their first rows; bundles by how few classes have them, then in the order of their first
        columns. No bundle that all classes have, or none.
    weights : int array, one a class
        How much each class counts; positive.
    class_of_row : int array, one a row of the original table
    bundle_of_column : int array, one a column of the original table
        -1 where all rows have the column, -2 where none has.
    """

    classes: Bools
    weights: Ints
    class_of_row: Ints
    bundle_of_column: Ints

    @staticmethod
    def of(rows: Words, n_columns: int, weights: Ints | None = None) -> Table:
        """The table of packed rows.

        Parameters
        ----------
        rows : uint64 array, rows by words
        n_columns : int
        weights : int array, one a row, optional
            Positive. Default: every row counts 1.

        Notes
        -----
        What holds of the classes holds of the rows: equal rows are in a group together or not at all. Linear in the
        number of rows.
        """
        class_of_row, first_rows = distinct(rows)
        bits = unpack(rows[first_rows], n_columns)
        bundle, first_columns = distinct(pack(bits.T))
        counts = bits[:, first_columns].sum(axis=0)
        numbers = np.where(counts == len(bits), -1, -2)
        kept = np.flatnonzero((counts > 0) & (counts < len(bits)))
        kept = kept[np.argsort(counts[kept], kind="stable")]  # rare ones first: Close-by-One is twice as quick
        numbers[kept] = np.arange(len(kept))
        ones = np.ones(len(rows), dtype=np.int64)
        weights, _ = summed(class_of_row, ones if weights is None else weights, len(first_rows))
        return Table(bits[:, first_columns[kept]], weights, class_of_row, numbers[bundle])

    @property
    def n_bundles(self) -> int:
        """Columns of :attr:`classes`."""
        n: int = self.classes.shape[1]
        return n

    @cached_property
    def columns(self) -> Words:
        """The classes of each bundle, packed."""
        return pack(self.classes.T)


class Concepts(NamedTuple):
    """Groups of classes with the bundles that they share, neither of which can grow unless the other shrinks.

    Attributes
    ----------
    extents : uint64 array, concepts by words
        Classes, packed; never none.
    intents : uint64 array, concepts by words
        Bundles, packed.
    weights : int array, one a concept
        Of its classes together.
    complete_from : int
        Every concept of at least this weight (of the robust ones: of at least this robustness) is here.
    truncated : bool
        There are others that were asked for: ``complete_from`` is more than that.
    """

    extents: Words
    intents: Words
    weights: Ints
    complete_from: int
    truncated: bool


class Steps(NamedTuple):
    """The next larger concept for each concept: what a further bundle costs.

    Attributes
    ----------
    bundle : int array
        -1 where the group is a single class, or otherwise has nothing more to share.
    cost : int array
        Weight of the classes that lack the bundle; of all of the group where there is none.
    leaving : uint64 array, concepts by words
        Those classes, packed.
    gained : uint64 array, concepts by words
        The bundles that the others share beyond the concept's, packed.
    """

    bundle: Ints
    cost: Ints
    leaving: Words
    gained: Words


def pack(bits: Bools) -> Words:
    """Rows of bool as rows of 64-bit words, at least one a row."""
    n_words = max(1, -(-bits.shape[1] // 64))
    octets = np.zeros((len(bits), 8 * n_words), dtype=np.uint8)
    packed = np.packbits(bits, axis=1, bitorder="little")
    octets[:, : packed.shape[1]] = packed
    return octets.view("<u8").astype(np.uint64, copy=False)


def unpack(words: Words, n: int) -> Bools:
    """Rows of 64-bit words as rows of ``n`` bool."""
    octets = np.ascontiguousarray(words, dtype="<u8").view(np.uint8)
    return np.unpackbits(octets, axis=1, count=n, bitorder="little").view(np.bool_)


def distinct(rows: Words) -> tuple[Ints, Ints]:
    """The kind of each row, kinds numbered in the order of their first rows, and those first rows.

    Parameters
    ----------
    rows : uint64 array, rows by words
    """
    from vmcompat.baseline import loops

    rows = np.ascontiguousarray(rows)
    kinds, first = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    size = 1 << 14  # more kinds of hosts than most fleets have
    while (n_kinds := loops.classify(rows, kinds, first, size)) < 0:
        size *= 4  # and once more from the start: kinds that are many are so early
    return kinds, first[:n_kinds].copy()


def weigh(sets: Words, weights: Ints) -> Ints:
    """The weight of each packed set.

    Parameters
    ----------
    sets : uint64 array, sets by words
    weights : int array, one an element
    """
    from vmcompat.baseline import loops

    return loops.weigh(np.ascontiguousarray(sets), _sums(weights, sets.shape[1]))


def summed(of: Ints, amounts: Ints, n: int) -> tuple[Ints, int]:
    """What each class or bundle amounts to.

    Parameters
    ----------
    of : int array
        The class or bundle of each amount; -1 and -2 as for :class:`Table`.
    amounts : int array
    n : int
        How many classes or bundles there are.

    Returns
    -------
    int array, int
        Of each, and of what all have.
    """
    sums = np.zeros(n, dtype=np.int64)
    np.add.at(sums, of[of >= 0], amounts[of >= 0])
    return sums, int(amounts[of == -1].sum())


def all_concepts(table: Table, *, min_weight: int = 1, limit: int) -> Concepts:
    """Every concept whose classes weigh at least ``min_weight``; where that is more than ``limit``, the heaviest.

    Parameters
    ----------
    table : Table
    min_weight : int
        At least 1: a group of nobody is no group.
    limit : int
        At least 1. Past it the minimum is raised as little as needed: what is left out are just the concepts lighter
        than ``complete_from``, whatever the order of the rows.

    Returns
    -------
    Concepts
        In the order of the search.

    Notes
    -----
    Linear in the number of concepts, which can be exponential in the size of the table. Past the limit some twenty
    searches of that many: the minimum is found by bisection.
    """
    total = int(table.weights.sum())
    if total < min_weight:
        return _search(table, total + 1, limit)[0]._replace(complete_from=min_weight)
    answer, finished = _search(table, min_weight, limit)
    if finished:
        return answer
    low, high = _next_floor(answer.weights, limit), total
    answer, _ = _search(table, high, limit)
    while low < high:
        middle = (low + high) // 2
        found, finished = _search(table, middle, limit)
        if finished:
            answer, high = found, middle
        else:
            low = _next_floor(found.weights, limit)
    return answer._replace(truncated=True)


def _search(table: Table, floor: int, limit: int) -> tuple[Concepts, bool]:
    """The concepts of at least that weight, until more than ``limit`` are found, and whether these are all."""
    from vmcompat.baseline import loops

    columns = table.columns
    n, n_words, n_intent = table.n_bundles, columns.shape[1], max(1, -(-table.n_bundles // 64))
    # One line for each column on the way down: the group, what it shares, and the column to try next.
    extents, intents = np.zeros((n + 2, n_words), np.uint64), np.zeros((n + 2, n_intent), np.uint64)
    extents[0] = pack(np.ones((1, len(table.classes)), dtype=np.bool_))
    following, level = np.zeros(n + 2, np.int64), np.zeros(1, np.int64)
    sums, total = _sums(table.weights, n_words), table.weights.sum(keepdims=True)
    top = total >= floor
    found = [(extents[:1][top], intents[:1][top], total[top])]
    n_found = len(found[0][0])
    while n_found and level[0] >= 0 and n_found <= limit:
        room = np.empty((_CHUNK, n_words), np.uint64), np.empty((_CHUNK, n_intent), np.uint64), np.empty(_CHUNK, "i8")
        n_new = loops.close_by_one(columns, sums, floor, extents, intents, following, level, *room)
        found.append((room[0][:n_new], room[1][:n_new], room[2][:n_new]))
        n_found += n_new
    parts = [np.concatenate(part) for part in zip(*found, strict=True)]
    return Concepts(parts[0], parts[1], parts[2], floor, truncated=False), n_found <= limit


def robust_concepts(table: Table, *, delta: int, min_weight: int = 1, limit: int) -> Concepts:
    """The concepts of which every further bundle would cost at least ``delta`` of the weight.

    Parameters
    ----------
    table : Table
    delta : int
        At least 1. What a bundle costs is the weight of the classes that lack it; a concept that could gain no bundle
        at any price is as robust as it is heavy.
    min_weight, limit : int
        As for :func:`all_concepts`; past the limit ``delta`` is raised.

    Returns
    -------
    Concepts
        In the order of the search.

    Notes
    -----
    The square of the number of columns times that of the most robust concepts on the way: what is not robust on some of
    the columns is not robust on more of them, so that it can be dropped at once.
    """
    from vmcompat.baseline import loops

    columns, n = table.columns, table.n_bundles
    sums = _sums(table.weights, columns.shape[1])
    extents = pack(np.ones((1, len(table.classes)), dtype=np.bool_))
    intents = np.zeros((1, n), dtype=np.bool_)
    size = np.array([table.weights.sum()])
    robustness, floor = size, delta
    for i in range(n):
        outside = loops.lacking(extents, columns[i : i + 1], sums)[:, 0]
        intents[:, i] = outside == 0
        split = np.flatnonzero((outside > 0) & (size - outside >= max(floor, min_weight)))
        narrowed, narrowed_size = extents[split] & columns[i], (size - outside)[split]
        gaps = loops.lacking(narrowed, columns[: i + 1], sums)
        shared = np.zeros((len(split), n), dtype=np.bool_)
        shared[:, : i + 1] = gaps == 0
        # of the groups that are narrowed to this one it comes from the one that shares as much of the columns before
        new = (shared[:, :i] == intents[split, :i]).all(axis=1)
        least = np.where(gaps > 0, gaps, narrowed_size[:, None]).min(axis=1)
        new &= least >= floor
        robustness = np.concatenate([np.where(outside > 0, np.minimum(robustness, outside), robustness), least[new]])
        if np.count_nonzero(robustness >= floor) > limit:
            floor = _next_floor(robustness, limit)
        kept = robustness >= floor
        extents = np.concatenate([extents, narrowed[new]])[kept]
        intents = np.concatenate([intents, shared[new]])[kept]
        size = np.concatenate([size, narrowed_size[new]])[kept]
        robustness = robustness[kept]
    kept = (size >= min_weight) & (robustness >= floor)
    return Concepts(extents[kept], pack(intents[kept]), size[kept], floor, floor > delta)


def next_steps(table: Table, concepts: Concepts, values: Ints) -> Steps:
    """What the cheapest further bundle costs each concept, and what is gained.

    Parameters
    ----------
    table : Table
    concepts : Concepts
    values : int array, one a bundle
        Of bundles that cost the same, the one counts with which the most value is gained, then the first.

    Returns
    -------
    Steps
        In the order of the concepts.
    """
    from vmcompat.baseline import loops

    sums = _sums(table.weights, concepts.extents.shape[1])
    bundle, cost, gained = loops.cheapest_steps(table.columns, sums, values, *concepts[:3])
    there = bundle >= 0
    leaving = np.zeros_like(concepts.extents)
    leaving[there] = concepts.extents[there] & ~table.columns[bundle[there]]
    return Steps(bundle, cost, leaving, gained)


def _next_floor(weights: Ints, limit: int) -> int:
    """The least threshold that at most ``limit`` of these weights reach; there are more than that."""
    return int(np.partition(weights, len(weights) - limit - 1)[len(weights) - limit - 1]) + 1


def _sums(weights: Ints, n_words: int) -> Ints:
    """What every value of every byte of a set weighs: 8 n_words by 256."""
    padded = np.zeros(64 * n_words, dtype=np.int64)
    padded[: len(weights)] = weights
    bits = np.arange(256)[None, :] >> np.arange(8)[:, None] & 1
    return padded.reshape(-1, 8) @ bits


class Front(NamedTuple):
    """The points of weight against value: the heaviest first, and each next one worth more.

    Attributes
    ----------
    weights, values : int arrays, one a point
    extents, intents : uint64 arrays, points by words
        As for :class:`Concepts`.
    complete_from : int
        Every point of at least this weight is here, and no other.
    """

    weights: Ints
    values: Ints
    extents: Words
    intents: Words
    complete_from: int

    def at(self, rows: Ints) -> Front:
        """Some of the points."""
        return Front(self.weights[rows], self.values[rows], self.extents[rows], self.intents[rows], self.complete_from)


def front(table: Table, weights: Ints, values: Ints, *, budget: int) -> Front:
    """The concepts of which no other weighs at least as much and is worth at least as much, with one of them more.

    Parameters
    ----------
    table : Table
    weights : int array, one a class
        At least 0.
    values : int array, one a bundle
        At least 0.
    budget : int
        Most groups to look at in one search. Where that is not enough, the least weight is raised in sixteenths of the
        whole as little as needed, in at most five searches more.

    Returns
    -------
    Front
        Of points with the same weight and value one is given, whatever the order of the rows: that with the greatest
        ``table.weights``, then the most columns of the original table, then the first bundle that the other lacks,
        where those worth something come first.

    Notes
    -----
    Close-by-One over the bundles that are worth something, since the others decide nothing. A group is gone into only
    if, for some point found, its classes that alone could be worth more than this one weigh more than the next. In the
    worst case that is exponential in the size of the table.
    """
    from vmcompat.baseline import loops

    n, total = table.n_bundles, int(weights.sum())
    order = np.argsort(values == 0, kind="stable")
    classes, worth = table.classes[:, order], values[order]
    columns, everybody = pack(classes.T), pack(np.ones((1, len(table.classes)), dtype=np.bool_))
    intents = pack(np.zeros((1, n), dtype=np.bool_))
    n_valued = int(np.count_nonzero(worth))
    most = np.zeros((n_valued + 1, len(classes)), dtype=np.int64)
    most[:-1] = np.cumsum((classes[:, :n_valued] * worth[:n_valued])[:, ::-1], axis=1)[:, ::-1].T
    n_columns, _ = summed(table.bundle_of_column, np.ones_like(table.bundle_of_column), n)
    n_words = columns.shape[1]
    sums, hosts = _sums(weights, n_words), _sums(table.weights, n_words)
    features = _sums(n_columns[order], intents.shape[1])
    points = Front(np.array([total]), np.zeros(1, np.int64), everybody, intents, 0)
    done, low, high = points.at(np.arange(0)), -1, 17
    floors = [*(total * i // 16 for i in range(17)), total + 1]
    while low + 1 < high:
        step = 0 if low < 0 else (low + high) // 2
        known = points.at(np.flatnonzero(points.weights >= floors[step]))
        covers, kept, extents, shared, n_seen = loops.unbeaten(
            columns, weights, sums, hosts, features, worth, most, floors[step], budget, *known[:4]
        )
        points = Front(covers, kept, extents, shared, floors[step])
        if n_seen < budget:
            done, high = points, step
        else:
            low = step
    back = np.zeros((len(done.weights), n), dtype=np.bool_)
    back[:, order] = unpack(done.intents, n)
    return done._replace(intents=pack(back), complete_from=floors[high])
