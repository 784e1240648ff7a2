"""Merging costs what the merged group loses, and every step is the cheapest."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from vmcompat.plot._merges import Tree, cut, merge


def table(seed: int, n: int = 9, m: int = 7) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64]]:
    chance = np.random.default_rng(seed)
    kinds = np.unique(chance.random((n, m)) < 0.6, axis=0)
    kinds = kinds[chance.permutation(len(kinds))]
    return kinds, chance.integers(1, 9, len(kinds)), chance.integers(0, 20, m).astype(np.float64)


def lost_by(
    group: frozenset[int], kinds: NDArray[np.bool_], counts: NDArray[np.int64], values: NDArray[np.float64]
) -> float:
    here = sorted(group)
    shared = kinds[here].all(axis=0)
    return float((counts[here] * ((kinds[here] & ~shared) @ values)).sum())


def groups_of(tree: Tree) -> list[frozenset[int]]:
    return [frozenset(np.flatnonzero(row).tolist()) for row in tree.members]


@pytest.mark.parametrize("seed", range(12))
def test_a_group_loses_what_its_hosts_have_and_do_not_share(seed: int) -> None:
    kinds, counts, values = table(seed)
    tree = merge(kinds, counts, values)
    groups = groups_of(tree)
    assert tree.lost.tolist() == [lost_by(g, kinds, counts, values) for g in groups]
    assert all((tree.shared[i] == kinds[sorted(g)].all(axis=0)).all() for i, g in enumerate(groups))
    assert len(groups) == 2 * len(kinds) - 1
    assert groups[tree.root] == frozenset(range(len(kinds)))


@pytest.mark.parametrize("seed", range(12))
def test_every_step_is_a_cheapest_one(seed: int) -> None:
    kinds, counts, values = table(seed)
    tree = merge(kinds, counts, values)
    groups = groups_of(tree)
    present = set(groups[: tree.n_kinds])
    for i in range(tree.n_kinds, len(groups)):
        ends = {groups[end] for end in tree.parts_of(i)}
        rise = {
            (a, b): lost_by(a | b, kinds, counts, values) - lost_by(a, kinds, counts, values)
            - lost_by(b, kinds, counts, values)
            for a, b in combinations(present, 2)
        }  # fmt: skip
        assert tree.lost[i] - sum(tree.lost[end] for end in tree.parts_of(i)) == min(rise.values())
        present = (present - ends) | {groups[i]}


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_the_kinds_changes_only_their_numbers(seed: int) -> None:
    kinds, counts, values = table(seed)
    turned = np.random.default_rng(seed + 100).permutation(len(kinds))
    here, there = merge(kinds, counts, values), merge(kinds[turned], counts[turned], values)
    back = [frozenset(int(turned[k]) for k in g) for g in groups_of(there)]
    assert set(back) == set(groups_of(here))


def test_one_kind_is_a_tree_of_its_own() -> None:
    tree = merge(np.ones((1, 0), dtype=bool), np.array([5]), np.zeros(0))
    assert (tree.root, tree.parts_of(0), tree.lost.tolist()) == (0, (), [0.0])
    assert cut([tree], 80) == [[0]]


@pytest.mark.parametrize("most", [1, 3, 6, 80])
def test_a_cut_holds_every_kind_once_and_splits_what_loses_most(most: int) -> None:
    trees = [merge(*table(seed, n=12)) for seed in (3, 4)]
    drawn = cut(trees, most)
    for tree, leaves in zip(trees, drawn, strict=True):
        assert sorted(k for leaf in leaves for k in np.flatnonzero(tree.members[leaf])) == list(range(tree.n_kinds))
    n = sum(len(leaves) for leaves in drawn)
    assert n == min(max(most, 2), sum(tree.n_kinds for tree in trees))
    whole = [
        float(tree.lost[g]) for tree, leaves in zip(trees, drawn, strict=True) for g in leaves if g >= tree.n_kinds
    ]
    split = [
        float(tree.lost[g])
        for tree, leaves in zip(trees, drawn, strict=True)
        for g in range(tree.n_kinds, len(tree.lost))
        if any((tree.members[leaf] <= tree.members[g]).all() and leaf != g for leaf in leaves)
    ]
    assert not whole or not split or max(whole) <= min(split)
