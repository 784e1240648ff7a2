"""What becomes of the baselines, against fleets that are read from the documents of afterwards."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmcompat as vc
from tests.fleet.documents import capabilities, cpu, domcapabilities
from vmcompat.baseline.common import Baseline
from vmcompat.baseline.meanings import POLARITIES, SWITCHES, meanings
from vmcompat.errors import FrameError, NoBaselineError
from vmcompat.schema import CHANGE_SUMS, CHANGES, WHAT_IF

NAMES = ("avx", "avx2", "fma", "md-clear", "rdctl-no", "hle", "rtm", "vmx", "movbe")


@pytest.fixture(scope="module")
def mixed(samples: Path) -> vc.Fleet:
    fleet = vc.read_fleet(samples / "mixed")
    return fleet.drop(*fleet.unknown)


def host_documents(offers: dict[str, list[str]]) -> dict[str | Path, str]:
    return {name: capabilities(cpu("Nehalem", *features)) for name, features in offers.items()}


def guest_documents(offers: dict[str, list[str]], gone: dict[str, list[str]] | None = None) -> dict[str | Path, str]:
    return {
        name: domcapabilities("Nehalem", *features, disabled=tuple((gone or {}).get(name, ())))
        for name, features in offers.items()
    }


@given(st.integers(0, 10**9), st.booleans())
@settings(max_examples=25)
def test_a_change_in_thought_answers_as_the_changed_documents_would(seed: int, host_view: bool) -> None:
    rnd = Random(seed)
    offers = {f"h{i}": rnd.sample(NAMES, rnd.randint(0, len(NAMES))) for i in range(4)}
    less = {h: rnd.sample(f, rnd.randint(0, len(f))) for h, f in offers.items() if rnd.random() < 0.5}
    more = {h: [n for n in rnd.sample(NAMES, 3) if n not in f] for h, f in offers.items() if rnd.random() < 0.5}
    documents = host_documents if host_view else guest_documents
    fleet = vc.read_fleet(documents(offers))
    changed = {h: [n for n in f if n not in less.get(h, ())] + more.get(h, []) for h, f in offers.items()}
    read = vc.read_fleet(documents(changed))
    found = vc.what_if(fleet, without=less, with_=more)
    assert found.fleet.features.equals(read.features)
    assert found.fleet.reported.equals(read.reported)
    assert found.fleet.baseline().xml == read.baseline().xml
    assert found.frame.loc[0, "n_features_after"] == len(read.baseline().gives)
    consistent(found.fleet)


def consistent(fleet: vc.Fleet) -> None:
    """The features of each host are those of its CPU definition, and of a second reading."""
    again = fleet.with_view(fleet.view)
    for mine, read in zip(fleet.readings, again.readings, strict=True):
        assert mine.cpu is not None
        assert mine.offered == read.offered
        assert mine.cpu is read.cpu
        assert mine.document is not None
        assert mine.document.cpu is mine.cpu
    rows = fleet.compare(fleet.baseline()) if fleet.hosts["vendor"].nunique() == 1 else None
    assert rows is None or set(rows["result"]) <= {"identical", "superset"}


@pytest.mark.parametrize("view", ["hypervisor", "host"])
def test_what_a_model_stands_for_can_be_taken_too(mixed: vc.Fleet, view: vc.fleet.expand.View) -> None:
    fleet = mixed.with_view(view)
    for name in ("ams-r1-h08", "ams-r2-h01", "ams-r2-h09", "ams-r5-h02", "fra-h07"):
        one = fleet[name,]
        for what in ("avx2", "aes", "tsx", "avx512", "nested", "xsave"):
            found = vc.what_if(one, without={name: [what]})
            taken = SWITCHES.get(what, frozenset([what]))
            before, after = (frozenset(f.features.columns[f.features.iloc[0]]) for f in (one, found.fleet))
            assert after == before - taken
            assert found.fleet.reported.loc[name, list(taken)].all()
            assert not found.fleet.baseline().gives & taken
            consistent(found.fleet)


def test_what_libvirt_would_not_recognise_any_more_is_refused() -> None:
    fleet = vc.read_fleet({"h1": capabilities(cpu("Nehalem"))})
    with pytest.raises(FrameError, match="h1: no model of the CPU map is inside what would be left"):
        vc.what_if(fleet, without={"h1": ["fpu"]})


def test_a_change_in_thought_is_marked_wherever_its_origin_is_shown(mixed: vc.Fleet) -> None:
    rack = mixed.select("rack == 'ams-r2'")
    after = vc.what_if(rack, without={"ams-r2-h09": ["tsx"]}).fleet
    row = after.hosts.loc["ams-r2-h09"]
    assert str(row["source"]).startswith("hypothetical: ")
    assert row["sha256"] == ""
    (noted,) = after.findings[after.findings["code"] == "hypothetical"].to_dict("records")
    assert (noted["host"], noted["severity"]) == ("ams-r2-h09", "warning")
    assert after.with_view("host").findings["code"].tolist().count("hypothetical") == 1
    base = after.baseline()
    assert base.warnings[-1] == "hypothetical: no document says what ams-r2-h09 would then offer"
    assert Baseline.from_json(base.to_json()).warnings == base.warnings
    assert not [w for w in after.drop("ams-r2-h09").baseline().warnings if "hypothetical" in w]
    assert not (rack.hosts["source"].str.startswith("hypothetical")).any()
    twice = vc.what_if(after, with_={"ams-r2-h09": ["amx"]}).fleet
    assert [m.split()[0] for m in twice.findings.query("code == 'hypothetical'")["message"]] == ["without", "with"]
    assert str(twice.hosts.loc["ams-r2-h09", "source"]).count("hypothetical") == 1


def test_the_other_view_is_changed_alike_and_so_are_the_listed_models(mixed: vc.Fleet) -> None:
    name = "ams-r4-h04"
    after = vc.what_if(mixed[name,], without={name: ["avx512"]}).fleet
    gone = sorted(SWITCHES["avx512"])
    assert not after.features.loc[name, gone].any()
    assert not after.with_view("host").features.loc[name, gone].any()
    models = {m.name: m for d in after.records[0].documents for m in d.models}
    was = {m.name: m for d in mixed[name,].records[0].documents for m in d.models}
    assert was["Icelake-Server-noTSX"].usable
    assert not models["Icelake-Server-noTSX"].usable
    assert "avx512f" in (models["Icelake-Server-noTSX"].blockers or ())
    assert models["Haswell-noTSX"] == was["Haswell-noTSX"]
    back = vc.what_if(after, with_={name: [n for n in gone if mixed.features.loc[name, n]]}).fleet
    assert {m.name: m.usable for d in back.records[0].documents for m in d.models} == {
        n: m.usable for n, m in was.items()
    }


def test_hosts_that_go_never_cost_a_feature(mixed: vc.Fleet) -> None:
    for name in mixed.names:
        found = vc.what_if(mixed, remove=name)
        assert not found.frame["lost"].map(len).any()
        assert found.frame["n_hosts_after"].sum() == len(mixed) - 1
        gained = {f for names in found.frame["gained"] for f in names}
        assert gained == set(vc.veto(mixed).hosts.loc[name, "features"])  # type: ignore[arg-type]


def test_a_row_says_what_the_baselines_say(mixed: vc.Fleet) -> None:
    found = vc.what_if(mixed, remove=["fra-old-h01", "fra-h01", "fra-h02"])
    assert list(found.frame.columns) == list(WHAT_IF)
    for row in found.frame.to_dict("records"):
        for when, fleet in (("before", mixed), ("after", found.fleet)):
            base = fleet.select(f"vendor == '{row['vendor']}'").baseline()
            assert (row[f"model_{when}"], row[f"level_{when}"]) == (base.model, base.level)
            assert row[f"n_features_{when}"] == len(base.gives)
            assert row[f"value_{when}"] == meanings(sorted(base.gives), vendor=row["vendor"])["value"].sum()
            assert row[f"n_hosts_{when}"] == len(base.hosts)
    assert found.explain()[0] == (
        "x86_64 Intel, 36 -> 35 hosts: gains rdrand, smep, invpcid, fma and 11 more; x86-64-v2 -> x86-64-v3; "
        "Westmere-IBRS -> Haswell-noTSX-IBRS; value 375 -> 449"
    )


def test_each_change_is_a_row_and_the_sums_keep_polarities_apart(mixed: vc.Fleet) -> None:
    found = vc.what_if(mixed, remove=["fra-old-h01", "fra-h01", "fra-h02"], without={"ams-r2-h09": ["spec-ctrl"]})
    assert list(found.features.columns) == list(CHANGES)
    told = [*zip(found.features["vendor"], found.features["feature"], found.features["change"], strict=True)]
    rows = found.frame.to_dict("records")
    wanted = {(r["vendor"], f, change) for r in rows for change in ("gained", "lost") for f in r[change]}
    assert set(told) == wanted
    assert len(told) == len(wanted)
    assert ("Intel", "spec-ctrl", "lost") in wanted
    sums = found.summary
    assert list(sums.columns) == list(CHANGE_SUMS)
    assert sums[["n_gained", "n_lost"]].to_numpy().sum() == len(told)
    (control,) = sums.query("vendor == 'Intel' and polarity == 'control'").to_dict("records")
    assert (control["n_lost"], control["value_lost"]) == (1, 50)
    for _, part in sums.groupby("vendor"):
        signs = part["polarity"].map(POLARITIES.index).tolist()
        assert signs == sorted(signs)


def test_an_architecture_or_vendor_may_come_or_go(mixed: vc.Fleet) -> None:
    intel, amd = (mixed.select(f"vendor == '{vendor}'") for vendor in ("Intel", "AMD"))
    coming, going = vc.what_if(intel, add=amd), vc.what_if(mixed, remove=amd.names)
    assert coming.frame["n_hosts_before"].tolist() == [36, 0]
    assert going.frame["n_hosts_after"].tolist() == [36, 0]
    for found in (coming, going):
        assert found.features.empty
        assert found.frame[["gained", "lost"]].iloc[1].tolist() == [(), ()]
    assert coming.frame["value_before"].isna().tolist() == [False, True]
    assert coming.explain()[1] == "x86_64 AMD, 0 -> 7 hosts: EPYC-IBPB, x86-64-v3, comes new"
    assert going.explain()[1] == "x86_64 AMD, 7 -> 0 hosts: EPYC-IBPB, x86-64-v3, is gone"


def test_hosts_that_come_lower_what_they_lack_and_an_old_libvirt_is_told_apart(mixed: vc.Fleet) -> None:
    young = mixed["ams-r5-h02", "ams-r5-h03", "ams-r5-h04"]
    found = vc.what_if(young, add=mixed["ams-r5-h01",])
    (row,) = found.frame.to_dict("records")
    assert set(row["lost"]) == young.baseline().gives - found.fleet.baseline().gives
    lacks = mixed.reported.loc["ams-r5-h01"] & ~mixed.features.loc["ams-r5-h01"]
    assert set(row["unreported"]) == {f for f in row["lost"] if not lacks[f]}
    assert set(found.features.loc[found.features["unreported"], "feature"]) == set(row["unreported"])
    assert f"{len(row['unreported'])} of these are only not reported by a host's libvirt" in found.explain()[0]


def test_other_documents_stand_in_for_a_host_and_its_columns_stay(mixed: vc.Fleet) -> None:
    upgraded = vc.read_fleet({"ams-r1-h06": domcapabilities("Haswell-noTSX-IBRS", "vmx")}, view="hypervisor")
    rack = mixed.select("rack == 'ams-r1'")
    found = vc.what_if(rack, replace=upgraded)
    assert found.fleet.names == rack.names
    assert found.fleet.hosts[["rack", "purchased"]].equals(rack.hosts[["rack", "purchased"]])
    assert str(found.fleet.hosts.loc["ams-r1-h06", "source"]) == str(upgraded.hosts.loc["ams-r1-h06", "source"])
    assert found.fleet["ams-r1-h06",].features.equals(upgraded.features)
    assert "vmx" in found.frame.loc[0, "gained"]  # type: ignore[operator]


def test_a_host_that_comes_can_be_changed_and_nothing_asked_changes_nothing(mixed: vc.Fleet) -> None:
    one, other = mixed["ams-r5-h02",], mixed["ams-r5-h03",]
    found = vc.what_if(one, add=other, without={"ams-r5-h03": ["amx"]})
    assert {"amx-tile", "amx-int8", "amx-bf16"} <= set(found.frame.loc[0, "lost"])  # type: ignore[arg-type]
    nothing = vc.what_if(mixed)
    assert nothing.features.empty
    assert repr(nothing) == "<WhatIf: 43 -> 43 hosts; 0 features gained, 0 lost>"
    assert nothing.explain()[0] == "x86_64 Intel, 36 hosts: no feature changes (Westmere-IBRS, x86-64-v2)"


def test_questions_without_sense_are_refused(mixed: vc.Fleet) -> None:
    name = "ams-r5-h02"
    one = mixed[name,]
    for options, message in (
        ({"without": {"h9": ["avx"]}}, "no host 'h9' in the fleet of 1"),
        ({"without": {name: ["axv"]}}, "'axv' is neither a feature of this map nor one of amx, avx512"),
        ({"without": {name: ["tsx"]}, "with_": {name: ["rtm"]}}, f"{name}: both with and without rtm"),
        ({"remove": "h9"}, "no host 'h9'"),
        ({"add": one}, f"in both fleets: {name}"),
        ({"add": mixed["fra-h01",].with_view("host")}, "two fleets of different view"),
        ({"replace": mixed["fra-h01",]}, "no host 'fra-h01'"),
    ):
        with pytest.raises(FrameError, match=message):
            vc.what_if(one, **options)


def test_unknown_hosts_are_refused_before_and_after_or_named(samples: Path, mixed: vc.Fleet) -> None:
    fleet = vc.read_fleet(samples / "mixed")
    with pytest.raises(NoBaselineError, match="CPU of 5 of 48 hosts is not known"):
        vc.what_if(fleet, remove=fleet.unknown)
    with pytest.raises(NoBaselineError, match="CPU of 1 of 44 hosts is not known"):
        vc.what_if(mixed, add=fleet["ams-lab-h02",])
    found = vc.what_if(fleet, remove="fra-old-h01", allow_missing=True)
    assert len(found.missing) == 5
    assert found.frame.equals(vc.what_if(mixed, remove="fra-old-h01").frame)
    with pytest.raises(FrameError, match=r"ams-lab-h02: its CPU is not known \(no_model\)"):
        vc.what_if(fleet, with_={"ams-lab-h02": ["avx"]}, allow_missing=True)
