"""Maximal baselines of a fleet: who is in which, what the next step costs, and what is said of the rest."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import vmcompat as vc
from tests.generator import instance
from vmcompat.baseline.meanings import level
from vmcompat.errors import FrameError, NoBaselineError
from vmcompat.schema import MAXIMAL, SPLIT


def host(*features: str, model: str = "Westmere", vendor: str = "Intel", cores: int | None = 4) -> str:
    listed = "".join(f"<feature name='{name}'/>" for name in features)
    cpus = "".join(f"<cpu id='{i}' socket_id='0' die_id='0' core_id='{i}' siblings='{i}'/>" for i in range(cores or 0))
    cells = f"<topology><cells num='1'><cell id='0'><cpus num='{cores}'>{cpus}</cpus></cell></cells></topology>"
    return (
        f"<capabilities><host><cpu><arch>x86_64</arch><model>{model}</model><vendor>{vendor}</vendor>"
        f"{listed}</cpu>{cells if cores else ''}</host></capabilities>"
    )


@pytest.fixture
def small() -> vc.Fleet:
    """Three hosts with avx, two of these with avx2, and one with neither."""
    return vc.read_fleet(
        {"h1": host("avx"), "h2": host("avx", "avx2"), "h3": host("avx", "avx2", "invtsc"), "h4": host("vmx")}
    )


@pytest.fixture(scope="module")
def mixed() -> vc.Fleet:
    fleet = vc.read_fleet(Path(__file__).parents[2] / "sample_caps/mixed")
    return fleet.drop(*fleet.unknown)


def facts(found: Any) -> set[tuple[Any, ...]]:
    """The rows as plain values, whatever their order; capacity and cost missing as None."""
    frame = found.frame.assign(**{c: found.frame[c].map(frozenset) for c, t in MAXIMAL.items() if t == "set"})
    return set(frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None))


def test_each_row_is_a_group_with_all_that_it_shares_and_the_next_step(small: vc.Fleet) -> None:
    found = vc.maximal_baselines(small)
    rows = found.frame
    assert rows["hosts"].map(tuple).tolist() == [("h1", "h2", "h3", "h4"), ("h1", "h2", "h3"), ("h2", "h3"), ("h4",)]
    assert rows["n_hosts"].tolist() == [4, 3, 2, 1]
    assert rows["step_cost"].tolist() == [1, 1, pd.NA, pd.NA]
    assert rows["step_hosts"].map(tuple).tolist() == [("h4",), ("h1",), (), ()]
    assert rows["step_features"].map(tuple).tolist() == [("avx",), ("avx2",), (), ()]
    assert rows["step_unreported"].tolist() == [0, 0, pd.NA, pd.NA]
    assert rows["features"].map(len).tolist() == rows["n_features"].tolist()
    assert rows["capacity"].tolist() == [16, 12, 8, 4]
    assert not found.truncated
    assert repr(found) == "<MaximalBaselines: 4 of 4 hosts; 4 of x86_64 Intel>"


def test_a_sentence_says_who_shares_how_much_and_what_more_would_cost(small: vc.Fleet) -> None:
    found = vc.maximal_baselines(small, value={"avx": 2.5, "avx2": 4})
    n = found.frame["n_features"]
    assert found.explain() == [
        f"4 hosts (h1, h2, h3 and 1 more): {n[0]} features, x86-64-v2, value 0; avx would cost 1 of them: h4",
        f"3 hosts (h1, h2, h3): {n[1]} features, x86-64-v2, value 2.5; avx2 would cost 1 of them: h1",
        f"2 hosts (h2, h3): {n[2]} features, x86-64-v2, value 6.5; none of them has more",
        f"1 host (h4): {n[3]} features, x86-64-v2, value 0; it has no more",
    ]
    assert found.explain([3]) == found.explain()[3:]


def test_features_that_cannot_be_migrated_tell_no_hosts_apart(small: vc.Fleet) -> None:
    assert "invtsc" in small.cpu_map.non_migratable
    assert small.features.loc["h3", "invtsc"]
    assert not any("invtsc" in features for features in vc.maximal_baselines(small).frame["features"])


def test_every_row_of_a_real_looking_fleet_is_maximal_and_none_is_missing(mixed: vc.Fleet) -> None:
    found = vc.maximal_baselines(mixed)
    offered = mixed.features.drop(columns=list(mixed.cpu_map.non_migratable))
    vendors = mixed.hosts["vendor"]
    seen = set()
    for hosts, features in zip(found.frame["hosts"], found.frame["features"], strict=True):
        part = offered[vendors == vendors[next(iter(hosts))]]
        assert list(features) == list(part.columns[part.loc[list(hosts)].all()])
        assert list(hosts) == list(part.index[part[list(features)].all(axis=1)])
        seen.add((frozenset(hosts), frozenset(features)))
    assert len(seen) == len(found)
    # whatever two baselines of a vendor share is a baseline, and every host's own set is one
    shared = {features for _, features in seen}
    for vendor in ("Intel", "AMD"):
        part = offered[vendors == vendor]
        assert {frozenset(part.columns[row]) for row in part.to_numpy()} <= shared
        own = [features for hosts, features in seen if vendors[min(hosts)] == vendor]
        assert {a & b for a in own for b in own} <= shared


def test_a_row_gives_libvirts_baseline_of_its_hosts(mixed: vc.Fleet) -> None:
    found = vc.maximal_baselines(mixed)
    for row in range(0, len(found), 5):
        base = found.baseline(row)
        assert base.hosts == tuple(found.frame["hosts"][row])
        assert base.gives <= set(found.frame["features"][row])
        told = found.frame["level"][row]
        assert (None if pd.isna(told) else told) == level(set(found.frame["features"][row])) == base.level


def test_a_row_that_is_not_there_is_refused(small: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="no row 4: there are 4"):
        vc.maximal_baselines(small).baseline(4)


def test_the_largest_come_first_then_those_with_earlier_hosts(mixed: vc.Fleet) -> None:
    frame = vc.maximal_baselines(mixed).frame
    position = {name: i for i, name in enumerate(mixed.names)}
    keys = [(-n, position[next(iter(h))], -f) for n, h, f in frame[["n_hosts", "hosts", "n_features"]].to_numpy()]
    assert keys == sorted(keys)


def test_another_order_of_the_hosts_changes_no_fact(mixed: vc.Fleet) -> None:
    names = np.random.default_rng(3).permutation(list(mixed.names)).tolist()
    for options in (
        {},
        {"delta": 0.1},
        {"within": "rack"},
        {"limit": 20},
        {"value": {"aes": 0.1, "avx": 0.2, "fma": 0.3}},
    ):
        here, there = (vc.maximal_baselines(fleet, **options) for fleet in (mixed, mixed[names]))
        assert facts(here) == facts(there)
        assert len(facts(here)) == len(here)


def test_the_same_host_many_times_changes_numbers_only(small: vc.Fleet) -> None:
    once = vc.maximal_baselines(small)
    doubled = vc.read_fleet({f"{n}{i}": r for i in range(3) for n, r in _documents().items()})
    thrice = vc.maximal_baselines(doubled)
    assert (thrice.frame["n_hosts"] == 3 * once.frame["n_hosts"]).all()
    assert thrice.frame["features"].map(frozenset).tolist() == once.frame["features"].map(frozenset).tolist()
    assert thrice.split["n_classes"].tolist() == once.split["n_classes"].tolist() == [3]


def _documents() -> dict[str | Path, str]:
    return {"h1": host("avx"), "h2": host("avx", "avx2"), "h3": host("avx", "avx2", "invtsc"), "h4": host("vmx")}


def test_vendors_never_meet_and_the_split_says_so(mixed: vc.Fleet) -> None:
    found = vc.maximal_baselines(mixed)
    for hosts in found.frame["hosts"]:
        assert mixed.hosts.loc[list(hosts), "vendor"].nunique() == 1
    assert list(found.split.columns) == list(SPLIT)
    assert found.split[["vendor", "n_hosts"]].to_numpy().tolist() == [["Intel", 36], ["AMD", 7]]
    assert found.split["n_baselines"].sum() == len(found)


def test_vendors_meet_on_request_with_a_warning_and_without_a_baseline(mixed: vc.Fleet) -> None:
    with pytest.warns(UserWarning, match="libvirt has no baseline"):
        found = vc.maximal_baselines(mixed, across_vendors=True)
    assert found.frame["n_hosts"][0] == 43
    assert found.frame["vendor"].isna().all()
    assert "several vendors" in found.warnings[0]
    with pytest.raises(NoBaselineError, match="vendors do not match"):
        found.baseline(0)


def test_hosts_meet_only_within_a_cluster(mixed: vc.Fleet) -> None:
    found = vc.maximal_baselines(mixed, within="rack")
    assert list(found.frame.columns)[:3] == ["arch", "vendor", "within"]
    for rack, hosts in zip(found.frame["within"], found.frame["hosts"], strict=True):
        assert set(mixed.hosts.loc[list(hosts), "rack"]) == {rack}
    assert set(found.split["within"]) == set(mixed.hosts["rack"])
    alone = vc.maximal_baselines(mixed.select("rack == 'ams-r2'"))
    assert found.frame.query("within == 'ams-r2'")["n_features"].tolist() == alone.frame["n_features"].tolist()


def test_unknown_hosts_are_named_or_left_out_on_request(small: vc.Fleet) -> None:
    fleet = vc.read_fleet({**_documents(), "h5": "<capabilities><host/></capabilities>"}, errors="collect")
    with pytest.raises(NoBaselineError, match=r"1 of 5 hosts is not known: h5 \(no_"):
        vc.maximal_baselines(fleet)
    found = vc.maximal_baselines(fleet, allow_missing=True)
    assert facts(found) == facts(vc.maximal_baselines(small))
    assert [name.split()[0] for name in found.missing] == ["h5"]
    assert found.warnings[0].startswith("without h5")


def test_no_known_host_is_an_empty_answer() -> None:
    fleet = vc.read_fleet({"h1": "<capabilities><host/></capabilities>"}, errors="collect")
    found = vc.maximal_baselines(fleet, allow_missing=True)
    assert list(found.frame.columns) == list(MAXIMAL)
    assert (len(found), found.explain(), len(found.split)) == (0, [], 0)


def test_what_a_libvirt_cannot_report_counts_as_absent_and_is_told(mixed: vc.Fleet) -> None:
    rack = mixed.select("rack == 'ams-r2'")
    found = vc.maximal_baselines(rack)
    for hosts, features in zip(found.frame["hosts"], found.frame["features"], strict=True):
        assert rack.reported.loc[list(hosts), list(features)].all(axis=None)
    (note,) = found.warnings
    assert note.startswith("counted as absent: ")
    assert "ams-r2-h01" in note
    assert "ams-r2-h08" not in note  # the youngest libvirt of the rack
    (row,) = found.frame[found.frame["n_hosts"] == 8].to_dict("records")
    assert (row["step_cost"], row["step_unreported"]) == (5, 5)
    assert not rack.reported.loc[list(row["step_hosts"]), list(row["step_features"])].any(axis=1).all()


def test_of_the_robust_ones_every_further_feature_costs_as_much_as_asked(mixed: vc.Fleet) -> None:
    everything = vc.maximal_baselines(mixed.select("vendor == 'Intel'"))
    cost = everything.frame["step_cost"].fillna(everything.frame["n_hosts"])
    for delta, n in ((3, 3), (0.05, 2), (0.25, 9), (1, 1)):
        robust = vc.maximal_baselines(mixed.select("vendor == 'Intel'"), delta=delta)
        assert facts(robust) == {row for row, c in zip(_in_order(everything), cost, strict=True) if c >= n}
    assert len(vc.maximal_baselines(mixed, delta=0.25, min_hosts=20)) < len(vc.maximal_baselines(mixed, delta=0.25))


def _in_order(found: Any) -> list[tuple[Any, ...]]:
    return [next(iter(facts(_Only(found.frame.iloc[[i]])))) for i in range(len(found.frame))]


class _Only:
    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame


def test_a_share_means_what_is_written() -> None:
    fleet = vc.read_fleet({f"h{i:03}": host("avx") if i < 93 else host() for i in range(100)})
    assert vc.maximal_baselines(fleet, delta=0.07).frame["n_hosts"].tolist() == [100, 93]
    assert vc.maximal_baselines(fleet, delta=0.08).frame["n_hosts"].tolist() == [93]


def test_past_the_limit_the_largest_are_here_and_the_rest_is_told(mixed: vc.Fleet) -> None:
    everything, few = (vc.maximal_baselines(mixed, **o) for o in ({}, {"limit": 20}))  # type: ignore[arg-type]
    assert few.truncated
    assert not everything.truncated
    floor = int(few.split["complete_from"][0])
    wanted = everything.frame[(everything.frame["vendor"] == "AMD") | (everything.frame["n_hosts"] >= floor)]
    assert facts(few) == facts(_Only(wanted))
    assert few.split["truncated"].tolist() == [True, False]
    assert f"all of {floor} hosts or more; the smaller ones are left out" in few.warnings[-1]
    assert "and more" in repr(few)


@pytest.mark.parametrize("kind", [dict, pd.Series, lambda weights: lambda name: weights.get(name, 0)])
def test_the_value_is_the_planners_own(small: vc.Fleet, kind: Any) -> None:
    found = vc.maximal_baselines(small, value=kind({"avx": 2.5, "avx2": 4.0}))
    assert found.frame["value"].tolist() == [0, 2.5, 6.5, 0]


def test_the_default_value_is_that_of_the_meanings(mixed: vc.Fleet) -> None:
    from vmcompat.baseline.meanings import meanings

    frame = vc.maximal_baselines(mixed).frame
    for vendor, features, value in zip(frame["vendor"], frame["features"], frame["value"], strict=True):
        assert value == meanings(features, vendor=vendor)["value"].sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": {"axv": 1}}, "weighs axv, which the fleet's CPU map does not know"),
        ({"value": {"avx": -1}}, "weighs avx -1.0: give finite numbers"),
        ({"value": {"avx": float("nan")}}, "weighs avx nan: give finite numbers"),
        ({"value": {"avx": "much"}}, "a weight that is no number"),
        ({"capacity": "core"}, "no column 'core' to add up; columns: "),
        ({"capacity": "model"}, "capacity='model' is no column of numbers"),
        ({"within": "rack"}, "no column 'rack' to stay within; columns: "),
        ({"limit": 0}, "limit=0"),
        ({"min_hosts": 0}, "min_hosts=0"),
        ({"delta": -1}, "delta=-1"),
        ({"delta": float("nan")}, "delta=nan"),
    ],
)
def test_a_question_without_sense_is_refused(small: vc.Fleet, options: dict[str, Any], message: str) -> None:
    with pytest.raises(FrameError, match=message):
        vc.maximal_baselines(small, **options)


def test_the_capacity_of_a_group_with_an_unknown_host_is_unknown() -> None:
    fleet = vc.read_fleet({"h1": host("avx", cores=None), "h2": host("avx", "avx2")})
    assert vc.maximal_baselines(fleet).frame["capacity"].tolist() == [pd.NA, 4]


def test_sets_are_sets_and_live_in_frames_like_other_values(mixed: vc.Fleet) -> None:
    frame = vc.maximal_baselines(mixed).frame
    first, second = frame["features"][0], frame["features"][1]
    assert (len(first), "sse2" in first, "amx-tile" in first, "nonsense" in first) == (51, True, False, False)
    assert first < second == frozenset(second)
    assert first & {"sse2", "avx"} == {"sse2"}
    assert hash(first) == hash(frozenset(first))
    assert repr(frame["step_hosts"][0]) == "{fra-old-h01}"
    assert repr(first) == "{pni, pclmuldq, ssse3, ... 48 more}"
    column = frame["hosts"]
    assert column.iloc[[5, 0]].map(len).tolist() == [33, 36]
    assert column[frame["vendor"] == "AMD"].map(len).max() == 7
    assert column.reindex([0, -1]).isna().tolist() == [False, True]
    assert pd.concat([column[:2], frame["features"][:1]]).map(len).tolist() == [36, 35, 51]
    assert pickle.loads(pickle.dumps(frame))["hosts"].map(frozenset).tolist() == column.map(frozenset).tolist()
    assert column.memory_usage(index=False) == len(frame) * 16


def test_a_thousand_generated_hosts_are_answered_like_their_table() -> None:
    made = instance(1000, seed=4)
    fleet = made.fleet()
    assert (fleet.features.to_numpy() == made.features.to_numpy()).all()
    for column in made.hosts:
        assert fleet.hosts[column].tolist() == made.hosts[column].tolist()
    found = vc.maximal_baselines(fleet)
    offered = made.features.to_numpy()
    for row in found.frame.iloc[::50].to_dict("records"):
        features = made.features.columns.isin(list(row["features"]))
        members = offered[:, features].all(axis=1) & (made.hosts["vendor"] == row["vendor"]).to_numpy()
        assert list(made.index[members]) == list(row["hosts"])
        assert row["capacity"] == made.hosts["cores"][members].sum()
        assert (offered[members].all(axis=0) == features).all()


def test_a_generated_fleet_is_the_same_again_and_another_with_another_seed() -> None:
    once, again, other = (instance(500, seed=seed).features for seed in (1, 1, 2))
    assert once.equals(again)
    assert not once.equals(other)
