"""Who keeps the others from what, against leaving hosts out one by one and two by two."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmcompat as vc
from tests.generator import instance
from vmcompat.baseline.groups import held_back
from vmcompat.baseline.meanings import level, meanings
from vmcompat.errors import FrameError, NoBaselineError
from vmcompat.schema import LEAVERS, LEAVING_PAIRS, VETO

NAMES = ("avx", "avx2", "fma", "aes", "md-clear", "rdctl-no", "hle", "rtm", "invtsc", "ospke", "vmx", "movbe")


def host(*features: str, vendor: str = "Intel") -> str:
    model = {"Intel": "Nehalem", "AMD": "Opteron_G1"}[vendor]
    listed = "".join(f"<feature name='{f}'/>" for f in features)
    return f"<cpu><arch>x86_64</arch><model>{model}</model><vendor>{vendor}</vendor>{listed}</cpu>"


def random_fleet(seed: int) -> vc.Fleet:
    """Up to eight hosts of two vendors, some of them alike, some of whose libvirts cannot report some features."""
    rnd = Random(seed)
    pool = [(rnd.sample(NAMES, rnd.randint(4, 12)), rnd.choice(["Intel", "Intel", "Intel", "AMD"])) for _ in range(5)]
    chosen = [rnd.choice(pool) for _ in range(rnd.randint(1, 8))]
    fleet = vc.read_fleet({f"h{i}": host(*features, vendor=vendor) for i, (features, vendor) in enumerate(chosen)})
    silent = fleet.cpu_map.set_of(rnd.sample(NAMES, 4))
    readings = [
        dataclasses.replace(x, reported=x.reported & ~silent | x.offered) if rnd.random() < 0.4 else x
        for x in fleet.readings
    ]
    return dataclasses.replace(fleet, readings=tuple(readings))


def shared(fleet: vc.Fleet) -> frozenset[str]:
    """What all hosts offer and a guest may be given."""
    usable = fleet.features.drop(columns=fleet.cpu_map.names(held_back(fleet.cpu_map)))
    return frozenset(usable.columns[usable.all()])


def parts(fleet: vc.Fleet) -> list[vc.Fleet]:
    return [fleet[list(part.index)] for _, part in fleet.hosts.groupby("vendor", sort=False)]


@given(st.integers(0, 10**9))
def test_each_feature_has_those_who_lack_it_and_those_who_cannot_tell(seed: int) -> None:
    fleet = random_fleet(seed)
    found = vc.veto(fleet).frame
    assert list(found.columns) == list(VETO)
    wanted = []
    for part in parts(fleet):
        usable = part.features.drop(columns=part.cpu_map.names(held_back(part.cpu_map)))
        for feature in usable.columns[usable.any() & ~usable.all()]:
            has, said = part.features[feature], part.reported[feature]
            vetoing, silent = part.features.index[~has & said], part.features.index[~has & ~said]
            wanted.append((feature, len(part), int(has.sum()), frozenset(vetoing), frozenset(silent)))
    columns = ["feature", "n_hosts", "n_offering", "vetoed_by", "unreported_by"]
    assert [(*row[:3], frozenset(row[3]), frozenset(row[4])) for row in found[columns].to_numpy()] == wanted
    assert found["n_vetoing"].tolist() == [len(w[3]) for w in wanted]
    assert found["n_unreported"].tolist() == [len(w[4]) for w in wanted]


@settings(max_examples=12)
@given(st.integers(0, 10**9))
def test_what_the_others_gain_without_a_host_or_two_is_what_they_then_share(seed: int) -> None:
    fleet = random_fleet(seed)
    found = vc.veto(fleet)
    assert list(found.hosts.index) == list(fleet.names)
    pairs = {hosts: set(features) for hosts, features in found.pairs[["hosts", "features"]].to_numpy()}
    wanted: dict[tuple[str, ...], set[str]] = {}
    for part in parts(fleet):
        base = shared(part)
        alone: dict[str, frozenset[str]] = {}
        for name in part.names:
            rest = part.drop(name)
            alone[name] = shared(rest) - base if len(rest) else frozenset()
            assert set(found.hosts.loc[name, "features"]) == alone[name]  # type: ignore[arg-type]
            told = found.hosts.loc[name, "level"]
            assert (None if pd.isna(told) else told) == (level(shared(rest)) if len(rest) else None)  # type: ignore[arg-type]
        for two in combinations(part.names, 2):
            rest = part.drop(*two)
            more = (shared(rest) if len(rest) else base) - base - alone[two[0]] - alone[two[1]]
            if more:
                wanted[two] = set(more)
    assert pairs == wanted


@given(st.integers(0, 10**9))
def test_gains_that_a_newer_libvirt_might_bring_too_are_told_apart(seed: int) -> None:
    fleet = random_fleet(seed)
    lacking = fleet.reported & ~fleet.features
    found = vc.veto(fleet)
    for name, features, unreported in found.hosts.reset_index()[["host", "features", "unreported"]].to_numpy():
        assert set(unreported) == {f for f in features if not lacking.loc[name, f]}
    for hosts, features, unreported in found.pairs[["hosts", "features", "unreported"]].to_numpy():
        assert set(unreported) == {f for f in features if not lacking.loc[list(hosts), f].any()}


@pytest.fixture(scope="module")
def mixed(samples: Path) -> vc.Fleet:
    fleet = vc.read_fleet(samples / "mixed")
    return fleet.drop(*fleet.unknown)


def test_the_host_that_should_have_been_retired_keeps_all_others_below_v3(mixed: vc.Fleet) -> None:
    found = vc.veto(mixed)
    row = found.hosts.loc["fra-old-h01"]
    assert (row["level"], row["unreported"]) == ("x86-64-v3", ())
    assert {"avx", "avx2", "fma"} <= set(row["features"])
    assert found.hosts["value"].idxmax() == "fra-old-h01"
    (told,) = [s for s in found.explain() if "offered by 35 of 36 hosts: lacking on fra-old-h01" in s]
    assert told.endswith("; without it x86-64-v3")


def test_hosts_of_different_vendors_keep_one_another_from_nothing(mixed: vc.Fleet) -> None:
    together = vc.veto(mixed)
    for vendor in ("Intel", "AMD"):
        alone = vc.veto(mixed.select(f"vendor == '{vendor}'"))
        mine = together.frame[together.frame["vendor"] == vendor].reset_index(drop=True)
        assert facts(mine) == facts(alone.frame)
        assert together.hosts.loc[alone.hosts.index].equals(alone.hosts)


def facts(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    plain = frame.assign(**{c: frame[c].map(frozenset) for c, t in VETO.items() if t == "set"})
    return list(plain.itertuples(index=False, name=None))


def test_what_only_an_old_libvirt_hides_is_vetoed_by_nobody_and_said_so(mixed: vc.Fleet) -> None:
    found = vc.veto(mixed.select("rack == 'ams-r5'"))
    row = found.frame.set_index("feature").loc["intel-psfd"]
    assert (row["n_vetoing"], tuple(row["unreported_by"])) == (0, ("ams-r5-h01",))
    assert found.explain()[0].endswith("nobody is known to lack them; the libvirt of ams-r5-h01 has no name for them")
    leaver = found.hosts.loc["ams-r5-h01"]
    assert {"intel-psfd"} <= set(leaver["unreported"]) < set(leaver["features"])


def test_two_hosts_with_old_microcode_matter_only_together(mixed: vc.Fleet) -> None:
    found = vc.veto(mixed.select("rack == 'ams-r2'"))
    (row,) = found.pairs.to_dict("records")
    assert (row["hosts"], row["features"], row["value"]) == (("ams-r2-h03", "ams-r2-h07"), ("md-clear",), 50)
    assert not found.hosts["features"].map(len).any()
    assert found.explain()[0] == (
        "x86_64 Intel: control md-clear (value 50), offered by 8 of 10 hosts: lacking on ams-r2-h03, ams-r2-h07"
    )


def test_twins_are_a_pair_and_neither_is_in_the_way_alone() -> None:
    found = vc.veto(vc.read_fleet({"h1": host("avx"), "h2": host(), "h3": host(), "h4": host("avx")}))
    assert found.pairs["hosts"].tolist() == [("h2", "h3")]
    assert found.pairs["features"].tolist() == [("avx",)]
    assert not found.hosts["features"].map(len).any()


def test_a_lone_host_gains_nobody_anything_and_has_no_others() -> None:
    found = vc.veto(vc.read_fleet({"h1": host("avx")}))
    assert found.hosts[["features", "value"]].to_numpy().tolist() == [[(), 0]]
    assert found.hosts["level"].isna().all()
    assert (len(found.frame), found.explain()) == (0, [])


def test_the_value_is_the_default_of_the_vendor_or_the_planners_own(mixed: vc.Fleet) -> None:
    found = vc.veto(mixed).frame
    for vendor in ("Intel", "AMD"):
        mine = found[found["vendor"] == vendor]
        assert mine["value"].tolist() == meanings(mine["feature"], vendor=vendor)["value"].tolist()
    own = vc.veto(mixed, value={"hle": 7})
    assert own.frame.groupby("feature")["value"].max().nlargest(1).to_dict() == {"hle": 7}
    assert own.explain()[0].startswith("x86_64 Intel: hle; 1 without value (value 7)")
    with pytest.raises(FrameError, match="value= weighs axv"):
        vc.veto(mixed, value={"axv": 1})


def test_facts_of_the_host_and_what_cannot_be_migrated_are_in_nobodys_way() -> None:
    found = vc.veto(vc.read_fleet({"h1": host("ospke", "invtsc", "avx"), "h2": host()}))
    assert found.frame["feature"].tolist() == ["avx"]


def test_unknown_hosts_are_refused_or_named(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed")
    with pytest.raises(NoBaselineError, match=r"CPU of 5 of 48 hosts is not known: ams-lab-h01 \(tcg_only\)"):
        vc.veto(fleet)
    found = vc.veto(fleet, allow_missing=True)
    assert len(found.missing) == 5
    assert set(found.hosts.index) == set(fleet.names) - set(fleet.unknown)


def test_no_known_host_is_an_empty_answer() -> None:
    fleet = vc.read_fleet({"h1": "<capabilities><host/></capabilities>"}, errors="collect")
    found = vc.veto(fleet, allow_missing=True)
    assert list(found.frame.columns) == list(VETO)
    assert list(found.hosts.columns) == list(LEAVERS)
    assert list(found.pairs.columns) == list(LEAVING_PAIRS)
    assert repr(found) == "<Veto: features outside the baselines: none; 0 hosts in the way alone>"


def test_a_thousand_hosts_are_answered_like_their_tables() -> None:
    fleet = instance(1000, seed=3).fleet()
    found = vc.veto(fleet)
    for _, row in found.frame.iterrows():
        members = fleet.hosts.index[fleet.hosts["vendor"] == row["vendor"]]
        lacking = members[~fleet.features.loc[members, row["feature"]]]
        assert list(row["vetoed_by"]) == list(lacking)
    assert "<p>Veto: features outside" in found._repr_html_()
