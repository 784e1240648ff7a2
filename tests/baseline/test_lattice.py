"""Maximal groups of rows: the same as brute force and another library find, nothing missing and nothing twice."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from concepts import Context
from hypothesis import given, settings
from hypothesis import strategies as st

from vmcompat.baseline import lattice
from vmcompat.baseline.lattice import Concepts, Table, all_concepts, next_steps, pack, robust_concepts, unpack, weigh

Bits = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Pair = tuple[frozenset[int], frozenset[int]]

MANY = 1 << 40


@st.composite
def tables(draw: st.DrawFn, max_rows: int = 10, max_columns: int = 12) -> tuple[Bits, Ints]:
    """Small tables with weights; equal rows and columns, full and empty ones come up often."""
    n_columns = draw(st.integers(1, max_columns))
    kinds = draw(st.lists(st.integers(0, 2**n_columns - 1), min_size=1, max_size=max_rows))
    rows = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=max_rows))
    bits = np.array([[row >> j & 1 for j in range(n_columns)] for row in rows], dtype=np.bool_)
    weights = draw(st.lists(st.integers(1, 9), min_size=len(rows), max_size=len(rows)))
    return bits, np.array(weights, dtype=np.int64)


def random_tables(n: int) -> Iterator[tuple[Bits, Ints]]:
    rng = np.random.default_rng(20261124)
    for _ in range(n):
        shape = rng.integers(1, (11, 20))
        bits = rng.random(shape) < rng.choice([0.2, 0.5, 0.7, 0.9])
        yield bits, rng.integers(1, 10, shape[0])


def brute_force(bits: Bits) -> dict[Pair, int]:
    """Every maximal pair of rows and columns, and how many rows the cheapest further column costs."""
    n_rows, n_columns = bits.shape
    rows_of = [{i for i in range(n_rows) if bits[i, j]} for j in range(n_columns)]
    found = {}
    for subset in range(1, 2**n_rows):
        members = [i for i in range(n_rows) if subset >> i & 1]
        shared = frozenset(j for j in range(n_columns) if all(bits[i, j] for i in members))
        group = frozenset(i for i in range(n_rows) if all(bits[i, j] for j in shared))
        found[group, shared] = 0
    return {
        (group, shared): min([len(group), *(len(group - rows_of[j]) for j in range(n_columns) if j not in shared)])
        for group, shared in found
    }


def other_library(bits: Bits) -> set[Pair]:
    rows, columns = ([f"{what}{i}" for i in range(n)] for what, n in zip("rc", bits.shape, strict=True))
    found = Context(rows, columns, bits.tolist()).lattice
    numbered = (({int(r[1:]) for r in c.extent}, {int(c[1:]) for c in c.intent}) for c in found)
    return {(frozenset(e), frozenset(i)) for e, i in numbered if e}


def pairs(table: Table, concepts: Concepts) -> list[Pair]:
    """The rows and columns of the original table that each concept stands for."""
    classes = unpack(concepts.extents, len(table.classes))
    bundles = with_ends(unpack(concepts.intents, table.n_bundles))
    rows, columns = classes[:, table.class_of_row], bundles[:, table.bundle_of_column]
    return [
        (frozenset(np.flatnonzero(e).tolist()), frozenset(np.flatnonzero(i).tolist()))
        for e, i in zip(rows, columns, strict=True)
    ]


def with_ends(bits: Bits) -> Bits:
    """With two more columns, which -2 and -1 stand for: one that nobody has, and one that all have."""
    return np.hstack([bits, np.zeros((len(bits), 1), np.bool_), np.ones((len(bits), 1), np.bool_)])


def check_complete(bits: Bits) -> None:
    table = Table.of(pack(bits), bits.shape[1])
    concepts = all_concepts(table, limit=MANY)
    found = pairs(table, concepts)
    assert len(found) == len(set(found))
    assert set(found) == set(brute_force(bits)) == other_library(bits)
    assert concepts.weights.tolist() == [len(rows) for rows, _ in found]
    assert (concepts.truncated, concepts.complete_from) == (False, 1)


@settings(max_examples=200)
@given(tables())
def test_every_maximal_pair_is_found_once(given_table: tuple[Bits, Ints]) -> None:
    check_complete(given_table[0])


@pytest.mark.slow
def test_every_maximal_pair_of_two_thousand_random_tables_is_found_once() -> None:
    n = 0
    for bits, _ in random_tables(2000):
        check_complete(bits)
        n += 1
    assert n == 2000


@pytest.mark.parametrize("shape", [(9, 150), (150, 9), (70, 70)])
def test_more_rows_and_columns_than_a_word_has_bits(shape: tuple[int, int]) -> None:
    bits = np.random.default_rng(1).random(shape) < (0.1 if shape == (70, 70) else 0.6)
    table = Table.of(pack(bits), shape[1])
    found = pairs(table, all_concepts(table, limit=MANY))
    assert len(found) == len(set(found))
    assert set(found) == other_library(bits)
    assert max(table.classes.shape) > 64 or shape == (150, 9)


@settings(max_examples=100)
@given(tables(), st.integers(1, 30))
def test_a_least_weight_leaves_out_just_the_lighter_groups(given_table: tuple[Bits, Ints], least: int) -> None:
    bits, weights = given_table
    table = Table.of(pack(bits), bits.shape[1], weights)
    found = pairs(table, all_concepts(table, min_weight=least, limit=MANY))
    heavy = {(rows, columns) for rows, columns in brute_force(bits) if weights[list(rows)].sum() >= least}
    assert len(found) == len(heavy)
    assert set(found) == heavy


@settings(max_examples=100)
@given(tables(), st.integers(1, 12))
def test_past_the_limit_the_heaviest_are_here_and_nothing_as_heavy_is_missing(
    given_table: tuple[Bits, Ints], limit: int
) -> None:
    bits, weights = given_table
    table = Table.of(pack(bits), bits.shape[1], weights)
    everything = brute_force(bits)
    heavy = sorted((int(weights[list(rows)].sum()) for rows, _ in everything), reverse=True)
    concepts = all_concepts(table, limit=limit)
    found = pairs(table, concepts)
    assert 1 <= len(found) <= limit
    assert concepts.truncated == (len(everything) > limit)
    floor = concepts.complete_from
    assert set(found) == {p for p in everything if weights[list(p[0])].sum() >= floor}
    if concepts.truncated:  # no lower floor would have done
        assert heavy[limit] == floor - 1


def test_an_answer_does_not_depend_on_the_size_of_the_pieces_it_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = np.random.default_rng(2).random((30, 18)) < 0.7
    table = Table.of(pack(bits), 18)
    at_once = [all_concepts(table, limit=limit) for limit in (MANY, 40)]
    monkeypatch.setattr(lattice, "_CHUNK", 7)
    for limit, whole in zip((MANY, 40), at_once, strict=True):
        pieces = all_concepts(table, limit=limit)
        assert set(pairs(table, pieces)) == set(pairs(table, whole))
        assert pieces.complete_from == whole.complete_from


@settings(max_examples=200)
@given(tables(), st.integers(1, 20), st.integers(1, 20))
def test_the_robust_ones_are_those_of_brute_force(given_table: tuple[Bits, Ints], delta: int, least: int) -> None:
    bits, weights = given_table
    table = Table.of(pack(bits), bits.shape[1], weights)
    found = pairs(table, robust_concepts(table, delta=delta, min_weight=least, limit=MANY))
    repeated = np.repeat(np.arange(len(bits)), weights)
    wanted = {
        (rows, columns)
        for rows, columns in brute_force(bits)
        if weights[list(rows)].sum() >= least and _cost(bits[repeated], set(rows), columns, repeated) >= delta
    }
    assert len(found) == len(wanted)
    assert set(found) == wanted


def _cost(bits: Bits, rows: set[int], columns: frozenset[int], row: Ints) -> int:
    """What the cheapest further column costs, counted on a table with every row as often as it weighs."""
    members = np.isin(row, list(rows))
    further = [j for j in range(bits.shape[1]) if j not in columns]
    return min([int(members.sum()), *(int((members & ~bits[:, j]).sum()) for j in further)])


@settings(max_examples=100)
@given(tables(), st.integers(1, 6))
def test_past_the_limit_the_most_robust_are_here(given_table: tuple[Bits, Ints], limit: int) -> None:
    bits = given_table[0]
    table = Table.of(pack(bits), bits.shape[1])
    concepts = robust_concepts(table, delta=1, limit=limit)
    found = pairs(table, concepts)
    assert len(found) <= limit
    wanted = {pair for pair, cost in brute_force(bits).items() if cost >= concepts.complete_from}
    assert set(found) == wanted
    assert concepts.truncated == (concepts.complete_from > 1)


@settings(max_examples=200)
@given(tables())
def test_the_next_step_is_the_cheapest_and_names_who_leaves_and_what_is_gained(given_table: tuple[Bits, Ints]) -> None:
    bits, _ = given_table
    table = Table.of(pack(bits), bits.shape[1])
    concepts = all_concepts(table, limit=MANY)
    steps = next_steps(table, concepts, np.arange(table.n_bundles))
    costs = brute_force(bits)
    leaving = pairs(table, concepts._replace(extents=steps.leaving, intents=steps.gained))
    for (rows, columns), bundle, cost, (gone, gained) in zip(
        pairs(table, concepts), steps.bundle, steps.cost, leaving, strict=True
    ):
        assert cost == costs[rows, columns]
        gained -= set(np.flatnonzero(table.bundle_of_column == -1).tolist())
        if bundle < 0:
            assert not any(bits[i, j] for i in rows for j in range(bits.shape[1]) if j not in columns)
            assert (gone, gained) == (frozenset(), frozenset())
        else:
            assert len(gone) == cost
            assert (rows - gone, columns | gained) in costs


@settings(max_examples=100)
@given(tables(), st.integers(0, 1000))
def test_another_order_of_the_rows_changes_no_answer(given_table: tuple[Bits, Ints], seed: int) -> None:
    bits, weights = given_table
    order = np.random.default_rng(seed).permutation(len(bits))
    here, there = (Table.of(pack(b), b.shape[1], w) for b, w in ((bits, weights), (bits[order], weights[order])))
    for ours, theirs in (
        (all_concepts(here, limit=5), all_concepts(there, limit=5)),
        (robust_concepts(here, delta=3, limit=MANY), robust_concepts(there, delta=3, limit=MANY)),
    ):
        assert ours.intents.tolist() == theirs.intents.tolist()
        assert ours.weights.tolist() == theirs.weights.tolist()
        moved = [(frozenset(order[list(rows)].tolist()), columns) for rows, columns in pairs(there, theirs)]
        assert moved == pairs(here, ours)


@settings(max_examples=100)
@given(tables())
def test_a_table_without_repetition_says_the_same(given_table: tuple[Bits, Ints]) -> None:
    bits, weights = given_table
    table = Table.of(pack(bits), bits.shape[1], weights)
    assert len(np.unique(table.classes, axis=0)) == len(table.classes) == len(np.unique(bits, axis=0))
    assert len(np.unique(table.classes, axis=1).T) == table.n_bundles
    assert (with_ends(table.classes)[table.class_of_row][:, table.bundle_of_column] == bits).all()
    assert table.weights.sum() == weights.sum()
    assert (table.weights == np.bincount(table.class_of_row, weights=weights)).all()


def test_nobody_and_nothing_are_tables_too() -> None:
    nobody = Table.of(np.zeros((0, 1), np.uint64), 3)
    assert len(all_concepts(nobody, limit=10).weights) == len(robust_concepts(nobody, delta=1, limit=10).weights) == 0
    nothing = Table.of(np.zeros((4, 1), np.uint64), 3)
    assert pairs(nothing, all_concepts(nothing, limit=10)) == [(frozenset(range(4)), frozenset())]
    assert robust_concepts(nothing, delta=4, limit=10).weights.tolist() == [4]
    assert robust_concepts(nothing, delta=5, limit=10).weights.tolist() == []


@pytest.mark.parametrize("n_kinds", [1, 700, 60_000])
def test_equal_rows_are_one_kind_however_many_there_are(n_kinds: int) -> None:
    rng = np.random.default_rng(n_kinds)
    kinds = rng.integers(0, 2, (n_kinds, 7), dtype=np.uint64) << rng.integers(0, 64, (n_kinds, 7), dtype=np.uint64)
    rows = kinds[rng.integers(0, n_kinds, 100_000)]
    kind, first = lattice.distinct(rows)
    _, first_of, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    assert sorted(first) == sorted(first_of)
    assert first.tolist() == sorted(first.tolist())
    assert (rows[first[kind]] == rows).all()
    assert len(np.unique(np.column_stack([kind, inverse]), axis=0)) == len(first)


@given(st.integers(0, 200), st.integers(1, 5))
def test_packing_is_undone_by_unpacking_and_weighed_like_the_bits(n: int, n_sets: int) -> None:
    rng = np.random.default_rng(n)
    bits = rng.random((n_sets, n)) < 0.5
    weights = rng.integers(0, 1 << 40, n)
    assert (unpack(pack(bits), n) == bits).all()
    assert weigh(pack(bits), weights).tolist() == (bits @ weights).tolist()
