"""The best pools: against every partition that there is, on ground and proof, and demands that cannot be met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmcompat as vc
from tests.generator import instance
from vmcompat.baseline import ground
from vmcompat.baseline.partition import pools_of
from vmcompat.baseline.pools import _question
from vmcompat.baseline.program import program

FEATURES = ("aes", "avx", "avx2", "pcid", "fma", "erms", "smep")
WORTH = {"aes": 10.0, "avx": 5.0, "avx2": 5.0, "pcid": 2.0, "fma": 1.0, "erms": 3.0, "smep": 0.5}


def fleet_of(
    rows: Sequence[Sequence[str]], *, vendors: Sequence[str] | None = None, **columns: Sequence[Any]
) -> vc.Fleet:
    """Hosts h0, h1, ... that offer just these features."""
    texts = {}
    for i, features in enumerate(rows):
        vendor = vendors[i] if vendors else "Intel"
        listed = "".join(f"<feature name='{f}'/>" for f in features)
        model = "Penryn" if vendor == "Intel" else "Opteron_G3"
        cpu = f"<cpu><arch>x86_64</arch><model>{model}</model><vendor>{vendor}</vendor>{listed}</cpu>"
        texts[f"h{i}"] = cpu
    fleet = vc.read_fleet(texts)
    for name, values in columns.items():
        fleet.hosts[name] = list(values)
    return fleet


def partitions(hosts: Sequence[int], k: int) -> Iterator[list[list[int]]]:
    """Every way of putting the hosts into at most k pools."""
    if not hosts:
        yield []
        return
    first, rest = hosts[0], hosts[1:]
    for smaller in partitions(rest, k):
        for i in range(len(smaller)):
            yield [*smaller[:i], [first, *smaller[i]], *smaller[i + 1 :]]
        if len(smaller) < k:
            yield [[first], *smaller]


def kept(rows: Sequence[Sequence[str]], pool: Sequence[int]) -> float:
    """The value of what all hosts of the pool offer."""
    return sum(WORTH[f] for f in shared(rows, pool))


def shared(rows: Sequence[Sequence[str]], pool: Sequence[int]) -> frozenset[str]:
    """What all hosts of the pool offer."""
    return reduce(frozenset.intersection, (frozenset(rows[i]) for i in pool))


rows_of_hosts = st.lists(st.lists(st.sampled_from(FEATURES), unique=True).map(sorted), min_size=2, max_size=8)


def least_moves(pools: list[list[int]], today: Sequence[str]) -> int:
    """Hosts that leave when every new pool goes on from at most one of today's, chosen so that fewest do."""
    from scipy.optimize import linear_sum_assignment

    names = sorted(set(today))
    stay = np.array([[sum(today[i] == name for i in pool) for name in names] for pool in pools])
    r, c = linear_sum_assignment(-stay)
    return len(today) - int(stay[r, c].sum())


questions = st.fixed_dictionaries(
    {
        "rows": rows_of_hosts,
        "k": st.integers(1, 4),
        "cores": st.lists(st.sampled_from([8, 16, 64]), min_size=8, max_size=8),
        "min_hosts": st.integers(1, 3),
        "min_capacity": st.sampled_from([0, 16, 40]),
        "n_plus": st.integers(0, 2),
        "together": st.booleans(),
        "apart": st.booleans(),
        "keep": st.sampled_from([(), ("aes",), {"h0": ["avx"]}, {"h0": ["avx"], "h1": ["aes", "erms"]}]),
        "today": st.lists(st.sampled_from(["a", "b", "c"]), min_size=8, max_size=8),
        "max_moves": st.sampled_from([None, 0, 1, 2]),
        "move_cost": st.sampled_from([0.0, 7.0]),
        "restart_cost": st.sampled_from([None, 30.0]),
    }
)


@given(questions)
@settings(max_examples=40)
def test_no_partition_is_better_and_none_is_possible_where_none_is_found(question: dict[str, Any]) -> None:
    check_against_every_partition(**question)


@pytest.mark.slow
@given(questions)
@settings(max_examples=2_000)
def test_no_partition_is_better_in_two_thousand_fleets(question: dict[str, Any]) -> None:
    check_against_every_partition(**question)


def check_against_every_partition(
    rows: list[list[str]], k: int, cores: list[int], min_hosts: int, min_capacity: int, n_plus: int, together: bool,
    apart: bool, keep: tuple[str, ...] | dict[str, list[str]], today: list[str], max_moves: int | None,
    move_cost: float, restart_cost: float | None,
) -> None:  # fmt: skip
    """The value, the fewest moves, and whether there is an answer at all."""
    n = len(rows)
    cores, today = cores[:n], today[:n]
    fleet = fleet_of(rows, size=cores, pool=today)
    demands: dict[str, Any] = {
        "value": WORTH,
        "capacity": "size",
        "min_hosts": min_hosts,
        "min_capacity": min_capacity,
        "n_plus": n_plus,
        "together": [["h0", "h1"]] if together else (),
        "apart": [[f"h{n - 1}", "h0"]] if apart else (),
        "must_keep": keep,
        "current": "pool",
        "max_moves": max_moves,
        "move_cost": move_cost,
        "restart_cost": None if restart_cost is None else {f"h{i}": restart_cost + i for i in range(n)},
    }
    before = {name: shared(rows, [i for i in range(n) if today[i] == name]) for name in set(today)}
    needs = {f"h{i}": keep for i in range(n)} if isinstance(keep, tuple) else keep

    def fits(pool: list[int]) -> bool:
        largest = sorted((cores[i] for i in pool), reverse=True)
        left = sum(largest[n_plus:])
        return (
            len(pool) >= min_hosts + n_plus
            and left >= min_capacity
            and shared(rows, pool).issuperset(f for i in pool for f in needs.get(f"h{i}", ()))
            and (not together or (0 in pool) == (1 in pool))
            and not (apart and n - 1 in pool and 0 in pool)
        )

    def worth(pools: list[list[int]]) -> float:
        value = sum(kept(rows, pool) * sum(cores[i] for i in pool) for pool in pools)
        return (
            value
            - move_cost * least_moves(pools, today)
            - sum(
                restart_cost + i
                for pool in pools
                for i in pool
                if restart_cost is not None and before[today[i]] - shared(rows, pool)
            )
        )

    possible = [
        pools
        for pools in partitions(range(n), k)
        if all(map(fits, pools)) and (max_moves is None or least_moves(pools, today) <= max_moves)
    ]
    if not possible:
        with pytest.raises(vc.VmcompatError, match="cannot be met together"):
            vc.pools(fleet, k, **demands)
        return
    best = max(map(worth, possible))
    found = vc.pools(fleet, k, **demands)
    assert found.optimal
    assert found.value == pytest.approx(best)
    made = [[int(h[1:]) for h in hosts] for hosts in found.frame["hosts"]]
    assert sorted(i for pool in made for i in pool) == list(range(n))
    assert len(made) <= k
    assert all(map(fits, made))
    assert worth(made) == pytest.approx(best)
    fewest = min(least_moves(pools, today) for pools in possible if worth(pools) == pytest.approx(best))
    assert len(found.moves) == fewest


RACKS = "rack in ('ams-r1', 'ams-r2', 'ams-r3')"


@pytest.fixture(scope="module")
def racks(samples: Path) -> vc.Fleet:
    """25 hosts of three racks whose CPUs are known."""
    return vc.read_fleet(samples / "mixed").select(RACKS).drop("ams-r3-h08")


def test_hosts_that_are_alike_change_no_answer_when_there_are_more_of_them() -> None:
    rows = [["aes", "avx"], ["aes"], ["avx", "pcid"], ["aes", "avx", "pcid"]]
    once = vc.pools(fleet_of(rows), 2, value=WORTH)
    thrice = vc.pools(fleet_of(rows * 3), 2, value=WORTH)
    assert thrice.value == 3 * once.value
    assert sorted(thrice.frame["n_features"]) == sorted(once.frame["n_features"])


@given(order=st.permutations(range(25)), sized=st.booleans())
@settings(max_examples=4)
def test_the_order_of_the_hosts_changes_no_answer(order: list[int], sized: bool, racks: vc.Fleet) -> None:
    demands: dict[str, Any] = {"current": "rack", "max_moves": 3, "min_hosts": 3} if sized else {"capacity": "cores"}
    here, there = (vc.pools(f, 3, **demands) for f in (racks, racks[[racks.names[i] for i in order]]))
    assert (there.value, there.bound, there.gap, there.today) == (here.value, here.bound, here.gap, here.today)
    answers: list[Any] = [
        sorted(zip(p.frame["n_hosts"], p.frame["value"], p.frame["features"], strict=True)) for p in (here, there)
    ]
    assert answers[0] == answers[1]


def test_the_same_question_has_the_same_answer_to_the_byte(racks: vc.Fleet) -> None:
    first, second = (vc.pools(racks, 3, current="rack", max_moves=4) for _ in range(2))
    for part in ("frame", "placement", "moves"):
        assert getattr(first, part).to_json() == getattr(second, part).to_json()


def test_without_moves_todays_pools_are_judged(racks: vc.Fleet) -> None:
    found = vc.pools(racks, 3, current="rack", max_moves=0)
    assert found.placement["pool"].tolist() == racks.hosts["rack"].tolist()
    assert (found.won, len(found.moves)) == (0, 0)
    assert found.value == found.today
    assert found.baseline("ams-r2").xml == racks.select("rack == 'ams-r2'").baseline().xml


def test_each_move_says_what_hosts_keep_after_it(racks: vc.Fleet) -> None:
    found = vc.pools(racks, 4, current="rack", max_moves=4)
    pool = racks.hosts["rack"].copy()
    for host, row in found.moves.iterrows():
        pool[str(host)] = row["pool"]
        judged = vc.Fleet(
            **{n: getattr(racks, n) for n in ("view", "cpu_map", "virttype", "strict", "records", "readings")}
        )
        judged.hosts["now"] = pool
        assert vc.pools(judged, 9, current="now", max_moves=0).value == pytest.approx(row["value_after"])
    assert len(found.moves) > 1
    assert (found.today or 0) + (found.won or 0) == pytest.approx(found.value)


def test_a_host_restarts_where_its_new_pool_lacks_what_its_guests_were_started_with() -> None:
    rows = [["aes", "avx"], ["aes", "avx"], ["aes"], ["aes"], ["aes"]]
    fleet = fleet_of(rows, pool=["a", "a", "b", "b", "a"])
    found = vc.pools(fleet, 1, value=WORTH, current="pool")
    assert not found.placement["restarts"].any()  # pool a shares aes only, because of h4
    fleet = fleet_of(rows, pool=["a", "a", "b", "b", "b"])
    found = vc.pools(fleet, 1, value=WORTH, current="pool")
    assert found.placement.index[found.placement["restarts"]].tolist() == ["h0", "h1"]


def test_what_restarts_cost_can_outweigh_what_a_move_wins() -> None:
    rows = [["aes", "avx"], ["aes"], ["aes"]]
    fleet = fleet_of(rows, pool=["a", "b", "b"])
    free = vc.pools(fleet, 1, value=WORTH, current="pool")
    dear = vc.pools(fleet, 1, value=WORTH, current="pool", restart_cost={"h0": 12})
    assert dear.value == free.value - 12
    two = vc.pools(fleet, 2, value=WORTH, current="pool", restart_cost={"h0": 12})
    assert two.value == 15 + 10 + 10


def test_hosts_of_several_vendors_never_share_a_pool_and_today_counts_them_as_several() -> None:
    fleet = fleet_of([["aes"]] * 4, vendors=["Intel", "AMD", "Intel", "AMD"], pool=["x"] * 4)
    found = vc.pools(fleet, 2, current="pool", max_moves=0)
    assert found.frame.index.tolist() == ["x (Intel)", "x (AMD)"]
    assert [set(h) for h in found.frame["hosts"]] == [{"h0", "h2"}, {"h1", "h3"}]
    with pytest.raises(
        vc.VmcompatError, match=r"at most 1 pool, and hosts of 2 kinds that never meet \(x86_64 Intel, "
    ):
        vc.pools(fleet, 1)


def test_a_host_in_no_pool_today_moves_for_nothing() -> None:
    fleet = fleet_of([["aes"], ["aes", "avx"], ["aes", "avx"]], pool=["a", "b", None])
    found = vc.pools(fleet, 2, value=WORTH, current="pool", max_moves=0)
    assert found.placement.at["h2", "pool"] == "b"
    assert found.placement["today"].isna().tolist() == [False, False, True]
    assert found.won == 0


def test_features_that_guests_of_a_host_need_are_kept_in_its_pool() -> None:
    rows = [["aes", "avx"], ["aes"], ["avx"], ["aes", "avx"]]
    free = vc.pools(fleet_of(rows), 1, value=WORTH)
    assert free.frame["value"].tolist() == [0]
    found = vc.pools(fleet_of(rows), 2, value=WORTH, must_keep={"h0": ["avx"]})
    pool = str(found.placement.at["h0", "pool"])
    assert "avx" in found.frame["features"][pool]


@pytest.mark.parametrize(
    ("demands", "reasons"),
    [
        ({"min_hosts": 5}, ["min_hosts=5"]),
        ({"min_hosts": 4, "n_plus": 1}, ["min_hosts=4", "n_plus=1"]),
        ({"capacity": "size", "min_capacity": 100}, ["min_capacity=100"]),
        ({"must_keep": ["pcid"]}, ["must_keep: pcid, which h0, h1, h2 lack"]),
        ({"must_keep": {"h1": ["aes", "avx"]}}, ["must_keep: avx, which h1 lacks"]),
        ({"together": [["h0", "h1"], ["h1", "h2"]], "apart": [["h2", "h0"], ["h1", "h3"]]},
         ["together: h0, h1", "together: h1, h2", "apart: h2, h0"]),
        ({"apart": [["h0", "h1", "h2"]]}, ["at most 2 pools", "apart: h0, h1, h2"]),
        ({"apart": [["h0", "h1"], ["h1", "h2"], ["h2", "h0"]]},
         ["at most 2 pools", "apart: h0, h1", "apart: h1, h2", "apart: h2, h0"]),
        ({"current": "pool", "max_moves": 1}, ["at most 2 pools", "max_moves=1 from 4 pools of today"]),
    ],
)  # fmt: skip
def test_what_cannot_be_met_together_is_named_and_nothing_that_can_be_spared(
    demands: dict[str, Any], reasons: list[str]
) -> None:
    rows = [["aes", "avx"], ["aes"], ["aes", "avx"], ["aes", "pcid"]]
    fleet = fleet_of(rows, size=[8, 8, 16, 16], pool=["a", "b", "c", "d"])
    with pytest.raises(vc.VmcompatError) as refused:
        vc.pools(fleet, 2, **demands)
    assert str(refused.value) == (f"no pools meet all demands; these cannot be met together: {'; '.join(reasons)}")


@pytest.mark.parametrize(
    ("demands", "message"),
    [
        ({"k": 0}, "k=0: give 1 or more pools"),
        ({"min_hosts": -1}, "min_hosts=-1: give 0 or more"),
        ({"max_moves": 1}, "give their column as current="),
        ({"current": "rag"}, "no column 'rag' of today's pools"),
        ({"capacity": "size"}, "size is not known of h1: fill in the column"),
        ({"must_keep": ["aess"]}, "the fleet's CPU map knows no aess"),
        ({"must_keep": ["invtsc"]}, "invtsc cannot be migrated"),
        ({"together": [["h0", "h9"]]}, "no host 'h9'"),
        ({"current": "pool", "restart_cost": {"h9": 1}}, "no host 'h9'"),
        ({"current": "pool", "restart_cost": {"h0": -1}}, "give finite numbers of at least 0"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(demands: dict[str, Any], message: str) -> None:
    fleet = fleet_of([["aes"], ["avx"]], size=[1.0, None], pool=["a", "b"])
    with pytest.raises(vc.VmcompatError, match=message):
        vc.pools(fleet, **({"k": 2} | demands))


def test_hosts_that_are_not_known_are_refused_or_named(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed")
    with pytest.raises(vc.VmcompatError, match=r"the CPU of 5 of 48 hosts is not known"):
        vc.pools(fleet, 4)
    found = vc.pools(fleet, 4, allow_missing=True)
    assert len(found.missing) == 5
    assert len(found.placement) == 43
    assert any("without" in warning for warning in found.warnings)


def test_more_pools_never_keep_less_and_proven_answers_lie_below_every_bound(racks: vc.Fleet) -> None:
    curve = vc.pool_curve(racks, range(1, 7), min_hosts=2)
    assert curve.frame["optimal"].all()
    assert all(a <= b for a, b in pairwise(curve.frame["value"]))
    assert curve.frame.at[1, "value"] == curve.pools[1].floor
    for k, found in curve.pools.items():
        assert vc.pools(racks, k, min_hosts=2).value == found.value


def test_an_answer_that_time_cut_short_has_a_bound_above_the_proven_one() -> None:
    fleet = instance(1000).fleet()
    short = vc.pools(fleet, 6, time_limit=0)
    proven = vc.pools(fleet, 6, time_limit=60)
    assert proven.optimal
    assert proven.gap == 0
    assert not short.optimal
    assert 0 < short.gap <= 1
    assert short.floor <= short.value <= proven.value <= short.bound


def test_with_too_many_baselines_to_look_at_nothing_is_called_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = instance(300).fleet()
    proven = vc.pools(fleet, 4)
    monkeypatch.setattr(ground, "_ENUMERATED", 20)
    monkeypatch.setattr(ground, "_ROBUST", 10)
    found = vc.pools(fleet, 4)
    assert proven.optimal
    assert not found.optimal
    assert found.value <= proven.value <= found.bound
    assert any("too many maximal baselines" in warning for warning in found.warnings)


def test_names_that_strangers_gave_are_text_in_a_notebook() -> None:
    rack = "<img src=x onerror=alert(1)>"
    fleet = fleet_of([["aes"], ["avx"]])
    fleet.hosts[rack] = [f"{rack}{i}" for i in range(2)]
    answers: list[Any] = [
        vc.pools(fleet, 2, current=rack),
        vc.pool_curve(fleet, [1, 2], current=rack),
        vc.maximal_baselines(fleet, within=rack),
        vc.frontier(fleet, within=rack),
    ]
    fleet.hosts[rack] = [1, 2]
    answers += [vc.pools(fleet, 2, capacity=rack), vc.frontier(fleet, capacity=rack)]
    for answer in answers:
        assert "<img" not in answer._repr_html_()


def test_the_answer_is_told_in_words(racks: vc.Fleet) -> None:
    found = vc.pools(racks, 4, current="rack", max_moves=4)
    whole, *each = found.explain()
    assert whole.startswith(f"4 pools keep a value of {found.value:,.0f}")
    assert f"none that were asked for are better; {len(found.moves)} hosts move and win {found.won:,.0f}" in whole
    assert [sentence.split(":")[0] for sentence in each] == list(found.frame.index)
    security = found.frame["given_up"].map(lambda names: "md-clear" in names)
    assert [("mitigation controls" in s and "md-clear" in s) for s in each] == security.tolist()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("demands", [{}, {"max_moves": 3}, {"min_hosts": 4}, {"min_hosts": 3, "max_moves": 5}])
def test_what_the_bound_shuts_out_is_in_no_better_answer(seed: int, demands: dict[str, Any]) -> None:
    fleet = instance(60, seed=seed).fleet()
    fleet.hosts["today"] = ["a", "b", "c", "d"] * 15
    question = _question(fleet, **((vc.pools.__kwdefaults__ or {}) | {"current": "today"} | demands))
    for k in (3, 5, 7):
        asked = replace(question.demands, k=k)
        clients = question.ground.clients(asked)
        assert clients is not None
        problem = question.ground.problem(asked, clients)
        everything = program(problem, pools_of(problem, np.arange(len(problem.value))))
        if everything is None:
            with pytest.raises(vc.VmcompatError, match="cannot be met together"):
                question.answer(k)
            continue
        found = question.answer(k)
        assert found.optimal
        assert found.value == pytest.approx(everything.value)
