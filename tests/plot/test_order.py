"""Which baselines are shown, and which lie inside which."""

import numpy as np
import pytest

from vmcompat.plot._order import choose, covering, unbeaten


def test_unbeaten_are_just_those_that_no_other_of_their_part_beats() -> None:
    chance = np.random.default_rng(5)
    sizes = chance.integers(1, 12, 80)
    values = chance.integers(0, 12, 80).astype(np.float64)
    part = chance.integers(0, 3, 80)

    def beats(i: int, j: int) -> bool:
        better = sizes[i] > sizes[j] or values[i] > values[j]
        return bool(part[i] == part[j] and sizes[i] >= sizes[j] and values[i] >= values[j] and better)

    expected = [not any(beats(i, j) for i in range(80)) for j in range(80)]
    assert unbeaten(sizes, values, part).tolist() == expected
    assert 3 <= sum(expected) < 80


def test_of_few_all_are_chosen() -> None:
    choice = choose(np.array([3, 2, 1]), np.array([1.0, 0.5, 2.0]), np.array([1, 1, 1]), np.zeros(3, dtype=np.int64))
    assert choice.rows.tolist() == [0, 1, 2]
    assert choice.best.tolist() == [True, False, True]


def test_of_many_the_unbeaten_and_the_most_robust_are_chosen_and_each_parts_largest() -> None:
    sizes = np.r_[np.arange(100, 0, -1), 7, np.full(50, 50)]
    values = np.r_[np.arange(100), 3, np.zeros(50)].astype(np.float64)
    part = np.r_[np.zeros(100), 1, np.zeros(50)].astype(np.int64)
    robustness = np.r_[np.full(100, 2), 1, np.arange(50)]
    choice = choose(sizes, values, robustness, part)
    assert len(choice.rows) == 40
    assert choice.n_best == 101
    assert choice.best.sum() == 26
    assert {0, 100} <= set(choice.rows.tolist()), "the largest group of each part"
    assert set(choice.rows[~choice.best].tolist()) == set(range(151 - 14, 151)), "the most robust of the others"


def test_covering_pairs_are_those_with_nothing_between() -> None:
    sets = [frozenset(s) for s in ("abcd", "abc", "ab", "bcd", "b", "x")]
    assert covering(sets) == [(0, 1), (0, 3), (1, 2), (2, 4), (3, 4)]


@pytest.mark.parametrize("sets", [[], [frozenset("a")]])
def test_nothing_lies_inside_nothing(sets: list[frozenset[str]]) -> None:
    assert covering(sets) == []
