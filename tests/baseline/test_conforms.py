"""Whether every host still satisfies what is deployed: the rules of the comparison, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vmcompat as vc
from tests.generator import instance
from tests.strategies import guest_cpu_near, host_cpu
from vmcompat.baseline.compare import comparisons
from vmcompat.errors import FrameError
from vmcompat.schema import BREACHES, CONFORMS

VERDICTS = {"identical": "yes", "superset": "yes", "incompatible": "no", "unknown": "unknown"}


@pytest.fixture(scope="module")
def mixed(samples: Path) -> vc.Fleet:
    return vc.read_fleet(samples / "mixed")


@given(st.integers(0, 10**9))
def test_a_host_is_judged_as_the_comparison_judges_it(seed: int) -> None:
    rnd = Random(seed)
    cpu_map = vc.CpuMap.load()
    hosts = [host_cpu(rnd, cpu_map, vendor="Intel", shared=[], spoilt=False) for _ in range(4)]
    fleet = vc.read_fleet({f"h{i}": rnd.choice(hosts) for i in range(6)}, errors="collect")
    asked = guest_cpu_near(rnd, cpu_map, offered=fleet.readings[0].offered)
    found, compared = vc.conforms(fleet, baseline=asked), fleet.compare(asked)
    assert found.frame["conforms"].tolist() == compared["result"].map(VERDICTS).tolist()
    lacking = compared["reason"] == "Host CPU does not provide required features"
    assert found.frame["missing"].tolist() == compared["features"].where(lacking, ()).tolist()
    assert found.ok == set(compared["result"]).issubset({"identical", "superset"})


def test_all_hosts_that_made_a_baseline_satisfy_it(mixed: vc.Fleet) -> None:
    for rack in ("ams-r1", "ams-r2", "ams-r4", "ams-r5"):
        hosts = mixed.select(f"rack == '{rack}'")
        found = vc.conforms(hosts, baseline=hosts.baseline())
        assert found.ok
        assert found.explain() == [f"all {len(hosts)} hosts satisfy what is deployed"]
        assert found.features.empty


def test_a_host_that_lost_a_feature_is_named_with_it(mixed: vc.Fleet) -> None:
    rack = mixed.select("rack == 'ams-r1'")
    found = vc.conforms(rack, baseline=rack.drop("ams-r1-h06").baseline())
    assert not found.ok
    assert list(found.frame.columns) == list(CONFORMS)
    assert found.frame["conforms"].tolist() == ["yes"] * 5 + ["no"] + ["yes"] * 2
    assert found.frame.loc["ams-r1-h06", "missing"] == ("vmx",)
    (row,) = found.features.to_dict("records")
    assert (row["feature"], row["group"], row["missing_on"]) == ("vmx", "nested virtualization", ("ams-r1-h06",))
    assert found.explain() == [
        "Haswell-noTSX-IBRS: ams-r1-h06 is known to lack vmx",
        "7 of 8 hosts satisfy what is deployed",
    ]
    assert repr(found) == "<Conformance of 8 hosts: 7 yes, 1 no, 0 unknown>"


def test_what_an_old_libvirt_cannot_name_is_unknown_and_no_breach(mixed: vc.Fleet) -> None:
    rack = mixed.select("rack == 'ams-r2'")
    found = vc.conforms(rack, baseline=rack["ams-r2-h08", "ams-r2-h09"].baseline())
    old = found.frame.loc["ams-r2-h01"]
    assert (old["conforms"], old["missing"]) == ("unknown", ())
    unheard = rack.cpu_map.names(rack.cpu_map.everything & ~rack.readings[0].reported)
    assert set(old["unreported"]) == rack["ams-r2-h08", "ams-r2-h09"].baseline().gives & set(unheard)
    both = found.frame.loc["ams-r2-h03"]  # its microcode is old and its libvirt is old
    assert (both["conforms"], both["missing"]) == ("no", ("md-clear",))
    assert both["unreported"] == old["unreported"]
    assert list(found.features.columns) == list(BREACHES)
    rows = found.features.set_index("feature")
    assert (rows.loc["md-clear", "n_missing"], rows.loc["md-clear", "n_unreported"]) == (2, 0)
    assert rows.loc["flush-l1d", "missing_on"] == ("ams-r2-h07",)
    assert len(rows.loc["flush-l1d", "unreported_on"]) == 6  # type: ignore[arg-type]
    assert found.explain()[0].startswith("Skylake-Server-IBRS: ams-r2-h03 is known to lack control md-clear (and")
    assert "cannot be judged: their libvirt has no name for control flush-l1d" in found.explain()[2]


def test_each_rack_is_judged_by_its_own_baseline(mixed: vc.Fleet) -> None:
    racks = {name: mixed.select(f"rack == '{name}'") for name in ("ams-r1", "ams-r2", "ams-r4")}
    deployed = {name: rack.baseline() for name, rack in racks.items()} | {
        "ams-r2": racks["ams-r4"].baseline().guest_xml
    }
    found = vc.conforms(mixed, baseline=deployed, by="rack")
    for name, rack in racks.items():
        alone = vc.conforms(rack, baseline=deployed[name]).frame
        mine = found.frame.loc[alone.index]
        assert mine.drop(columns="baseline").equals(alone.drop(columns="baseline"))
        assert set(mine["baseline"]) == {name}
    others = found.frame.drop([h for rack in racks.values() for h in rack.names])
    assert set(others["conforms"]) == {"unknown"}
    assert others["baseline"].isna().all()
    assert others.loc["fra-h01", "reason"] == "no baseline is given for rack fra"
    assert set(found.features["baseline"]) == {"ams-r2"}
    assert any(s.startswith("ams-r2: ") for s in found.explain())


def test_a_host_whose_cpu_is_not_known_is_unknown_with_the_reason(mixed: vc.Fleet) -> None:
    found = vc.conforms(mixed, baseline=mixed.select("rack == 'ams-r1'").baseline())
    assert set(found.frame.loc[mixed.unknown, "conforms"]) == {"unknown"}
    assert found.frame.loc["ams-p9-h01", "reason"] == "ppc64le: not an x86 CPU"
    assert any(s.endswith("ams-p9-h01 cannot be judged (ppc64le: not an x86 CPU)") for s in found.explain())


def test_another_vendor_and_forbidden_features_are_refusals_in_words(mixed: vc.Fleet) -> None:
    found = vc.conforms(mixed["fra-h01",], baseline=mixed.select("rack == 'ams-r1'").baseline())
    assert found.explain()[0].endswith("fra-h01 is refused (host CPU vendor does not match required CPU vendor Intel)")
    forbidding = "<cpu><model>Nehalem</model><feature policy='forbid' name='aes'/></cpu>"
    (row,) = vc.conforms(mixed["ams-r1-h01",], baseline=forbidding).frame.to_dict("records")
    assert (row["conforms"], row["reason"]) == ("no", "Host CPU provides forbidden features: aes")
    assert (row["missing"], row["unreported"]) == ((), ())


def test_questions_without_sense_are_refused(mixed: vc.Fleet) -> None:
    rack = mixed.select("rack == 'ams-r1'")
    base = rack.baseline()
    with pytest.raises(FrameError, match="an empty fleet satisfies nothing"):
        vc.conforms(mixed.select("rack == 'nowhere'"), baseline=base)
    with pytest.raises(FrameError, match="say with by="):
        vc.conforms(rack, baseline={"ams-r1": base})
    with pytest.raises(FrameError, match="give a mapping"):
        vc.conforms(rack, baseline=base, by="rack")
    with pytest.raises(FrameError, match="no column 'rak'; columns: cpu_status"):
        vc.conforms(rack, baseline={"ams-r1": base}, by="rak")
    with pytest.raises(FrameError, match="baselines for ams-r9, which no host has in its column 'rack'"):
        vc.conforms(rack, baseline={"ams-r1": base, "ams-r9": base}, by="rack")


def test_hosts_that_are_alike_are_compared_once() -> None:
    fleet = instance(5_000, seed=1).fleet()
    intel = fleet.hosts["vendor"] == "Intel"
    base = fleet[fleet.hosts.index[intel][:200]].baseline()
    assert len({id(c) for c in comparisons(fleet, base)}) <= len({id(x) for x in fleet.readings}) < 300
    found = vc.conforms(fleet, baseline=base)
    has_all = fleet.features[list(base.gives)].all(axis=1) & intel
    assert (found.frame["conforms"] == "yes").equals(has_all)
    assert 0 < has_all.sum() < len(fleet)
