"""Cover against value: the points of all groups that no other beats, and nothing that hangs on the order of hosts."""

import re
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmcompat as vc
from tests.baseline.test_lattice import pairs, random_tables, tables
from tests.baseline.test_maximal import host
from tests.generator import instance
from vmcompat.baseline import frontier as room
from vmcompat.baseline.lattice import Concepts, Front, Table, front, pack
from vmcompat.errors import FrameError, NoBaselineError
from vmcompat.schema import FRONTIER

Bits: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]
Question: TypeAlias = tuple[Bits, Ints, Ints]  # a table, the weights of its rows and the values of its columns

MANY = 1 << 40


@pytest.fixture(scope="module")
def mixed() -> vc.Fleet:
    fleet = vc.read_fleet(Path(__file__).parents[2] / "sample_caps/mixed")
    return fleet.drop(*fleet.unknown)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Small tables of hosts that may weigh nothing and features that may be worth nothing; ties come up often."""
    bits, _ = draw(tables())
    weights = draw(st.lists(st.integers(0, 4), min_size=len(bits), max_size=len(bits)))
    values = draw(st.lists(st.integers(0, 3), min_size=bits.shape[1], max_size=bits.shape[1]))
    return bits, np.array(weights), np.array(values)


def groups_of(bits: Bits) -> set[tuple[frozenset[int], frozenset[int]]]:
    """Every subset of rows, grown to all rows that have what it shares, with that."""
    found = set()
    for size in range(1, len(bits) + 1):
        for members in combinations(range(len(bits)), size):
            shared = bits[list(members)].all(axis=0)
            grown = bits[:, shared].all(axis=1)
            found.add((frozenset(np.flatnonzero(grown).tolist()), frozenset(np.flatnonzero(shared).tolist())))
    return found


def best(points: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Those that no other is as good as in both and better in one, by comparing each with each."""
    every = set(points)
    kept = {p for p in every if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in every)}
    return sorted(kept, reverse=True)


def asked(question: Question, *, budget: int = MANY) -> tuple[Table, Front]:
    bits, weights, values = question
    table = Table.of(pack(bits), bits.shape[1])
    of_class, of_bundle = np.zeros(len(table.classes), np.int64), np.zeros(table.n_bundles, np.int64)
    np.add.at(of_class, table.class_of_row, weights)
    inside = table.bundle_of_column >= 0
    np.add.at(of_bundle, table.bundle_of_column[inside], values[inside])
    return table, front(table, of_class, of_bundle, budget=budget)


def groups(table: Table, found: Front) -> list[tuple[frozenset[int], frozenset[int]]]:
    return pairs(table, Concepts(found.extents, found.intents, found.weights, 0, truncated=False))


def points(question: Question, found: list[tuple[frozenset[int], frozenset[int]]]) -> list[tuple[int, int]]:
    """Cover and value counted on the rows and columns themselves."""
    _, weights, values = question
    return [(int(weights[list(rows)].sum()), int(values[list(columns)].sum())) for rows, columns in found]


def check_points(question: Question) -> None:
    every = groups_of(question[0])
    found = groups(*asked(question))
    assert set(found) <= every
    assert points(question, found) == best(points(question, list(every)))


@settings(max_examples=300)
@given(questions())
def test_the_points_are_those_of_all_groups_that_no_other_beats(question: Question) -> None:
    check_points(question)


@pytest.mark.slow
def test_the_points_of_two_thousand_random_tables_are_those_of_all_groups() -> None:
    rng = np.random.default_rng(7)
    n = 0
    for bits, weights in random_tables(2000):
        check_points((bits, weights, rng.integers(0, 9, bits.shape[1:])))
        n += 1
    assert n == 2000


@settings(max_examples=200)
@given(questions())
def test_of_equal_points_the_most_hosts_then_the_most_features_stand_for_all(question: Question) -> None:
    every = groups_of(question[0])
    for (rows, columns), point in zip(found := groups(*asked(question)), points(question, found), strict=True):
        level = [pair for pair, p in zip(every, points(question, list(every)), strict=True) if p == point]
        assert (len(rows), len(columns)) == max((len(r), len(c)) for r, c in level)


@pytest.mark.parametrize(
    ("features", "stands"),
    [
        ([[0], [1, 2]], [1, 2]),  # more features
        ([[1, 2], [0]], [1, 2]),
        ([[0], [1]], [0]),  # the first feature that the other lacks
        ([[1], [0]], [0]),
        ([[2, 3], [1, 4]], [1, 4]),  # of those worth something first
        ([[0, 1], [0, 5], [1, 5], [2]], [0, 1]),
    ],
)
def test_of_equal_hosts_the_features_say_which_stands_for_all(features: list[list[int]], stands: list[int]) -> None:
    bits = np.zeros((len(features) + 1, 6), dtype=np.bool_)  # one more that has nothing
    for row, columns in enumerate(features):
        bits[row, columns] = True
    found = asked((bits, np.ones(len(bits), np.int64), np.array([1, 1, 0, 1, 0, 1])))
    if len(features) == 2:
        assert [sorted(columns) for _, columns in groups(*found)] == [[], stands]
    else:
        assert sorted(groups(*found)[-1][1]) == stands


@settings(max_examples=200)
@given(questions(), st.integers(0, 1000))
def test_another_order_of_the_rows_changes_no_point_and_no_group(question: Question, seed: int) -> None:
    bits, weights, values = question
    order = np.random.default_rng(seed).permutation(len(bits))
    here, there = groups(*asked(question)), groups(*asked((bits[order], weights[order], values)))
    assert [(frozenset(order[list(rows)].tolist()), columns) for rows, columns in there] == here


@settings(max_examples=100)
@given(questions())
def test_a_row_many_times_over_is_the_row_with_their_weight(question: Question) -> None:
    bits, weights, values = question
    repeated = np.repeat(np.arange(len(bits)), 1 + weights)
    heavier = (bits[repeated], np.ones(len(repeated), np.int64), values)
    once = (bits, 1 + weights, values)
    assert points(heavier, groups(*asked(heavier))) == points(once, groups(*asked(once)))


@settings(max_examples=200)
@given(questions(), st.integers(1, 12))
def test_a_search_that_is_stopped_gives_all_points_from_a_cover_on_and_says_which(
    question: Question, budget: int
) -> None:
    table, found = asked(question, budget=budget)
    _, whole = asked(question)
    assert points(question, groups(table, found)) == [
        p for p in points(question, groups(table, whole)) if p[0] >= found.complete_from
    ]
    assert whole.complete_from == 0


def test_what_a_table_of_noise_leaves_out_are_small_covers() -> None:
    rng = np.random.default_rng(5)
    question = rng.random((40, 30)) < 0.8, rng.integers(1, 9, 40), rng.integers(0, 9, 30)
    table, whole = asked(question)
    stopped = asked(question, budget=2000)[1]
    assert 0 < stopped.complete_from <= question[1].sum()
    expected = [p for p in points(question, groups(table, whole)) if p[0] >= stopped.complete_from]
    assert points(question, groups(table, stopped)) == expected
    assert 1 < len(expected) < len(whole.weights)


def test_nothing_that_tells_hosts_apart_is_one_point() -> None:
    question = np.ones((3, 2), np.bool_), np.array([1, 2, 3]), np.array([1, 1])
    found = asked(question)[1]
    assert (found.weights.tolist(), found.values.tolist()) == ([6], [0])


@st.composite
def rising(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Points with falling covers and rising values."""
    n = draw(st.integers(1, 12))
    steps = st.lists(st.integers(1, 4), min_size=n, max_size=n)
    covers, kept = np.cumsum(draw(steps))[::-1].tolist(), np.cumsum(draw(steps)).tolist()
    return list(zip(covers, kept, strict=True))


@settings(max_examples=300)
@given(rising())
def test_corners_are_the_points_above_every_line_between_two_others(given_points: list[tuple[int, int]]) -> None:
    covers, kept = (np.array(x, dtype=np.int64) for x in zip(*given_points, strict=True))
    none = np.zeros((len(covers), 1), np.uint64)
    corners = room._corners(Front(covers, kept, none, none, 0))
    expected = [
        (w, v)
        for w, v in given_points
        if not any(
            w1 > w > w2 and v * (w1 - w2) <= v1 * (w - w2) + v2 * (w1 - w)
            for (w1, v1), (w2, v2) in combinations(given_points, 2)
        )
    ]
    assert list(zip(corners.weights.tolist(), corners.values.tolist(), strict=True)) == expected


def rows(frame: pd.DataFrame) -> set[tuple[Any, ...]]:
    """Whatever does not depend on the order of the hosts."""
    return {
        (vendor, n, value, frozenset(hosts), frozenset(features))
        for vendor, n, value, hosts, features in frame[["vendor", "n_hosts", "value", "hosts", "features"]].to_numpy()
    }


@pytest.mark.parametrize("capacity", [None, "cores", "memory"])
@pytest.mark.parametrize("n", [60, 1000])
def test_on_a_generated_fleet_it_is_the_best_of_all_maximal_baselines(n: int, capacity: str | None) -> None:
    fleet = instance(n, seed=2).fleet()
    found = vc.frontier(fleet, capacity=capacity).frame
    every = vc.maximal_baselines(fleet, capacity=capacity or "cores").frame
    column = "n_hosts" if capacity is None else "capacity"
    assert list(found.columns) == list(FRONTIER)
    for vendor in ("Intel", "AMD"):
        here, there = (f.loc[f["vendor"] == vendor, [column, "value"]] for f in (found, every))
        assert list(here.itertuples(index=False, name=None)) == best(there.itertuples(index=False, name=None))
    assert rows(found) <= rows(every)


def test_another_order_of_the_hosts_changes_no_point(mixed: vc.Fleet) -> None:
    names = np.random.default_rng(3).permutation(list(mixed.names)).tolist()
    for options in ({}, {"capacity": "cores"}, {"within": "rack"}, {"hull": True}, {"value": {"aes": 0.1, "avx": 0.3}}):
        here, there = (vc.frontier(fleet, **options) for fleet in (mixed, mixed[names]))
        assert rows(here.frame) == rows(there.frame)
        assert len(here) == len(rows(here.frame))


def test_a_point_has_all_hosts_with_its_features_and_all_features_of_its_hosts(mixed: vc.Fleet) -> None:
    found = vc.frontier(mixed)
    offered = mixed.features.drop(columns=list(mixed.cpu_map.non_migratable))
    for vendor, hosts, features in found.frame[["vendor", "hosts", "features"]].to_numpy():
        part = offered[mixed.hosts["vendor"] == vendor]
        assert list(features) == list(part.columns[part.loc[list(hosts)].all()])
        assert list(hosts) == list(part.index[part[list(features)].all(axis=1)])


def test_the_hull_is_some_of_the_points_with_both_ends_of_each_part(mixed: vc.Fleet) -> None:
    whole, hull = vc.frontier(mixed), vc.frontier(mixed, hull=True)
    assert hull.hull
    assert rows(hull.frame) < rows(whole.frame)
    for vendor, part in whole.frame.groupby("vendor"):
        corners = hull.frame[hull.frame["vendor"] == vendor]
        for end in (0, -1):
            assert corners[["n_hosts", "value"]].iloc[end].tolist() == part[["n_hosts", "value"]].iloc[end].tolist()
    assert repr(hull) == "<Frontier: 7 corners, hosts against value; 4 of x86_64 Intel, 3 of x86_64 AMD>"


def test_capacity_is_what_is_covered_where_asked_for_and_cores_beside_it_otherwise(mixed: vc.Fleet) -> None:
    cores = mixed.hosts["cores"]
    for capacity in (None, "cores", "memory"):
        found = vc.frontier(mixed, capacity=capacity)
        assert found.capacity == capacity
        column = mixed.hosts[capacity] if capacity else cores
        assert found.frame["capacity"].tolist() == [column[list(h)].sum() for h in found.frame["hosts"]]
        covered = found.frame["capacity" if capacity else "n_hosts"]
        for vendor in ("Intel", "AMD"):
            assert (covered[found.frame["vendor"] == vendor].diff().dropna() < 0).all()


@pytest.fixture
def small() -> vc.Fleet:
    """Three hosts with avx, two of these with avx2, and a large one with vmx only."""
    documents = {"h1": host("avx"), "h2": host("avx", "avx2"), "h3": host("avx", "avx2"), "h4": host("vmx", cores=20)}
    return vc.read_fleet(dict(documents))


def test_a_sentence_says_who_leaves_who_comes_back_and_what_that_wins(small: vc.Fleet) -> None:
    found = vc.frontier(small, value={"avx": 2, "avx2": 3, "vmx": 1}, capacity="cores")
    n = found.frame["n_features"]
    assert found.explain() == [
        f"4 hosts with 32 cores (h1, h2, h3 and 1 more): {n[0]} features, x86-64-v2, value 0; 1 more without 3 hosts "
        "(h1, h2, h3): vmx",
        f"1 host with 20 cores (h4): {n[1]} features, x86-64-v2, value 1; 1 more without 1 host (h4), but with 3 hosts "
        "(h1, h2, h3): avx, but not vmx",
        f"3 hosts with 12 cores (h1, h2, h3): {n[2]} features, x86-64-v2, value 2; 3 more without 1 host (h1): avx2",
        f"2 hosts with 8 cores (h2, h3): {n[3]} features, x86-64-v2, value 5; no group keeps more",
    ]
    assert found.explain([3, 0]) == [found.explain()[3], found.explain()[0]]
    assert repr(found) == "<Frontier: 4 points, cores against value; 4 of x86_64 Intel>"
    assert found._repr_html_().startswith("<p>Frontier: 4 points")


def test_hosts_without_capacity_join_a_point_that_they_cost_nothing(small: vc.Fleet) -> None:
    found = vc.frontier(_with(small, {"h1": 0, "h2": 1, "h3": 1, "h4": 0}), value={"avx": 2}, capacity="weight")
    assert found.frame["hosts"].map(tuple).tolist() == [("h1", "h2", "h3")]
    assert found.frame["capacity"].tolist() == [2]


def _with(fleet: vc.Fleet, weights: dict[str, float]) -> vc.Fleet:
    fleet.hosts["weight"] = pd.Series(weights, dtype="Float64")
    return fleet


@pytest.mark.parametrize(("weight", "message"), [(None, "not known"), (-1.0, "negative")])
def test_a_capacity_that_is_not_known_or_negative_is_refused_by_name(
    small: vc.Fleet, weight: float | None, message: str
) -> None:
    fleet = _with(small, {"h1": 1, "h2": weight, "h3": 1, "h4": 1})  # type: ignore[dict-item]
    with pytest.raises(FrameError, match=f"weight is {message} of h2: fill in the column, or drop"):
        vc.frontier(fleet, capacity="weight")


def test_cores_that_are_not_known_matter_only_where_they_are_covered() -> None:
    fleet = vc.read_fleet({"h1": host("avx", cores=None), "h2": host("avx", "avx2")})
    assert vc.frontier(fleet).frame["capacity"].tolist() == [pd.NA, 4]
    with pytest.raises(FrameError, match="cores is not known of h1"):
        vc.frontier(fleet, capacity="cores")


def test_unknown_hosts_are_named_or_left_out_on_request(small: vc.Fleet) -> None:
    documents: dict[str | Path, str] = {"h1": host("avx"), "h2": "<capabilities><host/></capabilities>"}
    fleet = vc.read_fleet(documents, errors="collect")
    with pytest.raises(NoBaselineError, match=r"1 of 2 hosts is not known: h2 \(no_"):
        vc.frontier(fleet)
    found = vc.frontier(fleet, allow_missing=True, capacity="cores")
    assert found.frame["hosts"].map(tuple).tolist() == [("h1",)]
    assert [name.split()[0] for name in found.missing] == ["h2"]
    assert found.warnings[0].startswith("without h2")
    nobody = vc.frontier(fleet.drop("h1"), allow_missing=True)
    assert (list(nobody.frame.columns), len(nobody), nobody.explain()) == (list(FRONTIER), 0, [])
    assert repr(nobody) == "<Frontier: 0 points, hosts against value>"


def test_a_stopped_search_is_told(mixed: vc.Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = vc.frontier(mixed, capacity="cores")
    monkeypatch.setattr(room, "_BUDGET", 35)
    found = vc.frontier(mixed, capacity="cores")
    assert found.truncated
    assert not whole.truncated
    assert rows(found.frame) < rows(whole.frame)
    (note,) = found.warnings[len(whole.warnings) :]
    intel = found.frame[found.frame["vendor"] == "Intel"]
    told = re.fullmatch(
        r"x86_64 Intel: the search was stopped; all points that cover at least ([\d.]+) cores are here, (\d+) of them, "
        "and the others are left out",
        note,
    )
    assert told is not None
    floor, n = float(told[1]), int(told[2])
    assert n == len(intel) > 1
    assert rows(intel) == rows(whole.frame[(whole.frame["vendor"] == "Intel") & (whole.frame["capacity"] >= floor)])
    assert found.explain()[len(intel) - 1].endswith("smaller covers are left out")
    assert found.explain()[-1].endswith("no group keeps more")
    assert " points and more, " in repr(found)


def test_vendors_meet_on_request_with_a_warning_and_without_a_baseline(mixed: vc.Fleet) -> None:
    with pytest.warns(UserWarning, match="libvirt has no baseline"):
        found = vc.frontier(mixed, across_vendors=True)
    assert found.frame["n_hosts"][0] == 43
    with pytest.raises(NoBaselineError, match="vendors do not match"):
        found.baseline(0)


def test_a_row_gives_libvirts_baseline_of_its_hosts(mixed: vc.Fleet) -> None:
    found = vc.frontier(mixed)
    assert found.baseline(3).hosts == tuple(found.frame["hosts"][3])
    with pytest.raises(FrameError, match=f"no row {len(found)}: there are {len(found)} points"):
        found.baseline(len(found))


def test_within_a_cluster_each_has_points_of_its_own(mixed: vc.Fleet) -> None:
    found = vc.frontier(mixed, within="rack").frame
    alone = vc.frontier(mixed.select("rack == 'ams-r2'")).frame
    assert rows(found[found["within"] == "ams-r2"]) == rows(alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": "core"}, "no column 'core' to add up"),
        ({"within": "racks"}, "no column 'racks' to stay within"),
        ({"value": {"avx": -1}}, "weighs avx -1.0"),
    ],
)
def test_a_question_without_sense_is_refused(small: vc.Fleet, options: dict[str, Any], message: str) -> None:
    with pytest.raises(FrameError, match=message):
        vc.frontier(small, **options)
