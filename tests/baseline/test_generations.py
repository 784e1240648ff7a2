"""New generations join, old ones leave: verdicts, what they cost or pay, and what only documents can tell."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

import vmcompat as vc
from tests.fleet.documents import capabilities, cpu
from vmcompat.baseline.groups import held_back
from vmcompat.baseline.meanings import meanings
from vmcompat.errors import FrameError, NoBaselineError
from vmcompat.schema import ADMISSION, CANDIDATES, COMING_BACK, PAYOFF, RETIREMENT


@pytest.fixture(scope="module")
def everyone(samples: Path) -> vc.Fleet:
    return vc.read_fleet(samples / "mixed")


@pytest.fixture(scope="module")
def mixed(everyone: vc.Fleet) -> vc.Fleet:
    return everyone.drop(*everyone.unknown)


def rack(fleet: vc.Fleet, name: str) -> vc.Fleet:
    return fleet.select(f"rack == '{name}'")


def union(sets: Iterable[tuple[str, ...]]) -> set[str]:
    return {f for names in sets for f in names}


def test_a_verdict_is_what_the_joint_baseline_says(mixed: vc.Fleet) -> None:
    racks = ("ams-r1", "ams-r2", "ams-r3", "ams-r4", "ams-r5")
    verdicts = set()
    for there in racks:
        pool = rack(mixed, there)
        for new in (n for n in racks if n != there):
            found = vc.admit(mixed, new_hosts=rack(mixed, new), pool=f"rack == '{there}'")
            assert list(found.frame.columns) == list(ADMISSION)
            assert sorted(union(found.frame["hosts"])) == sorted(rack(mixed, new).names)
            assert found.frame["n_hosts"].sum() == len(rack(mixed, new))
            for row in found.frame.to_dict("records"):
                joint = (pool + mixed[row["hosts"]]).baseline()
                lost = pool.baseline().gives - joint.gives
                assert set(row["lost"]) | set(row["unreported"]) == lost
                assert mixed.reported.loc[row["hosts"][0], list(row["lost"])].all()
                assert not mixed.reported.loc[row["hosts"][0], list(row["unreported"])].any()
                assert row["verdict"] == ("lowers" if row["lost"] else "unknown" if lost else "joins")
                assert (row["model_after"], row["level_after"]) == (joint.model, joint.level)
                assert row["value_lost"] == meanings(sorted(lost), vendor="Intel")["value"].sum()
                # what the answer promises of the pool's baseline
                assert vc.conforms(pool + mixed[row["hosts"]], baseline=joint).ok
                verdicts.add(row["verdict"])
    assert verdicts == {"joins", "lowers"}


def test_guests_come_back_where_all_is_offered_that_they_got(mixed: vc.Fleet) -> None:
    pool, new = rack(mixed, "ams-r2"), rack(mixed, "ams-r3")
    found = vc.admit(mixed, new_hosts=new, pool=pool.names)
    assert list(found.back.columns) == list(COMING_BACK)
    free = mixed.features.drop(columns=mixed.cpu_map.names(held_back(mixed.cpu_map)))
    counts = dict.fromkeys(new.names, 0)
    for row in found.back.to_dict("records"):
        for source in row["new_hosts"]:
            got = free.columns[free.loc[source]]
            for target in row["pool_hosts"]:
                lacking = got[~mixed.features.loc[target, got]]
                known = mixed.reported.loc[target, lacking]
                assert list(row["missing"]) == lacking[known].tolist()
                assert list(row["unreported"]) == lacking[~known].tolist()
                assert row["back"] == ("no" if row["missing"] else "unknown" if row["unreported"] else "yes")
                counts[source] += row["back"] == "yes"
    for row in found.frame.to_dict("records"):
        assert {counts[h] for h in row["hosts"]} == {row["n_back"]}


def test_a_generation_that_fits_joins_and_its_guests_may_be_stuck(mixed: vc.Fleet) -> None:
    found = vc.admit(mixed, new_hosts=rack(mixed, "ams-r5"), pool="rack == 'ams-r4'")
    assert (
        found.explain()[2] == "ams-r5-h02, ams-r5-h03, ams-r5-h04 (SapphireRapids): joins without loss; x86-64-v4 stays"
    )
    assert found.explain()[3].startswith(
        "ams-r5-h02, ams-r5-h03, ams-r5-h04: guests started there with host-model can come back to 0 of 6; kept by"
    )
    assert repr(found) == "<Admission to 6 hosts of Icelake-Server: 1 lowers, 3 joins>"


def test_who_cannot_meet_and_who_is_not_known_are_said_apart(everyone: vc.Fleet) -> None:
    new = everyone["fra-h01", "ams-lab-h02", "ams-p9-h01"]
    found = vc.admit(everyone, new_hosts=new, pool="rack == 'ams-r1'")
    assert found.frame["verdict"].tolist() == ["cannot meet", "unknown", "cannot meet"]
    assert found.frame["reason"].tolist() == [
        "the pool is x86_64 Intel, this is x86_64 AMD",
        "libvirt offers no host-model CPU",
        "the pool is x86_64 Intel, this is ppc64le",
    ]
    assert found.back.empty
    assert found.frame["n_back"].isna().all()
    assert found.explain()[1] == "ams-lab-h02 (model not known): cannot be judged: libvirt offers no host-model CPU"


def test_what_only_the_newcomers_libvirt_hides_is_no_verdict(mixed: vc.Fleet) -> None:
    pool, new = ("ams-r2-h08", "ams-r2-h09"), mixed["ams-r2-h01",]
    (row,) = vc.admit(mixed, new_hosts=new, pool=pool).frame.to_dict("records")
    assert (row["verdict"], row["lost"]) == ("unknown", ())
    assert {"flush-l1d"} < set(row["unreported"])
    (told, back) = vc.admit(mixed, new_hosts=new, pool=pool).explain()
    assert told.startswith("ams-r2-h01 (Skylake-Server-IBRS): its libvirt has no name for control flush-l1d")
    assert "can come back to 2 of 2" in back


def test_a_pool_that_cannot_be_judged_is_refused(everyone: vc.Fleet, mixed: vc.Fleet) -> None:
    new = mixed["ams-r5-h02",]
    with pytest.raises(NoBaselineError, match=r"1 of 8 hosts is not known: ams-r3-h08"):
        vc.admit(everyone, new_hosts=new, pool="rack == 'ams-r3'")
    found = vc.admit(everyone, new_hosts=new, pool="rack == 'ams-r3'", allow_missing=True)
    assert found.missing == ("ams-r3-h08 (unreadable)",)
    with pytest.raises(NoBaselineError, match="vendors do not match"):
        vc.admit(mixed, new_hosts=new, pool="rack == 'fra'")
    with pytest.raises(NoBaselineError, match="no host of the pool is x86"):
        vc.admit(everyone.with_view("host"), new_hosts=new.with_view("host"), pool=["ams-p9-h01"])
    with pytest.raises(FrameError, match="no hosts in the pool"):
        vc.admit(mixed, new_hosts=new, pool="rack == 'nowhere'")
    with pytest.raises(FrameError, match="no new hosts"):
        vc.admit(mixed, new_hosts=mixed.select("rack == 'nowhere'"), pool="rack == 'ams-r4'")
    with pytest.raises(FrameError, match="in both fleets: ams-r5-h02"):
        vc.admit(mixed, new_hosts=new, pool="rack == 'ams-r5'")


def test_what_rises_is_what_is_left_without_them(mixed: vc.Fleet) -> None:
    for query in ("purchased < 2012", "purchased < 2018", "rack == 'fra'", "libvirt == '6.0.0'"):
        found = vc.retire(mixed, hosts=query)
        left = mixed.drop(*mixed.select(query).names)
        assert list(found.frame.columns) == list(RETIREMENT)
        assert list(found.bundles.columns) == list(PAYOFF)
        whole = vc.what_if(mixed, remove=mixed.select(query).names).frame.set_index("vendor")
        for row in found.frame.to_dict("records"):
            assert row["gained"] == whole.loc[row["vendor"], "gained"]
            base = left.select(f"vendor == '{row['vendor']}'")
            assert row["n_hosts_after"] == len(base)
            if len(base):
                assert row["level_after"] == base.baseline().level
        assert union(found.bundles["features"]) == union(found.frame["gained"])
        assert found.bundles["value"].sum() == found.frame["value_gained"].sum()


def test_a_bundle_pays_only_when_all_leave_that_hold_it_back(mixed: vc.Fleet) -> None:
    found = vc.retire(mixed, hosts="purchased < 2018")
    assert found.bundles["value"].is_monotonic_decreasing
    for row in found.bundles.to_dict("records"):
        part = mixed.select(f"vendor == '{row['vendor']}'")
        for one in row["held_back_by"]:
            others = [h for h in row["held_back_by"] if h != one]
            assert not set(part.drop(*others).baseline().gives) & set(row["features"])
        assert set(row["features"]) <= part.drop(*row["held_back_by"]).baseline().gives
    assert found.explain()[0] == (
        "x86_64 Intel, 36 -> 27 hosts: x86-64-v2 -> x86-64-v4, Westmere-IBRS -> Cascadelake-Server, value +132"
    )
    assert found.explain()[1] == (
        "x86_64 Intel: rdrand, smep, invpcid, fma and 11 more (value 74): held back by fra-old-h01"
    )


def test_each_rack_rises_for_itself(mixed: vc.Fleet) -> None:
    found = vc.retire(mixed, hosts="libvirt == '6.0.0'", by="rack")
    assert found.frame[["by", "n_hosts_before", "n_hosts_after"]].to_numpy().tolist() == [
        ["ams-r1", 8, 6],
        ["ams-r5", 4, 3],
        ["fra", 1, 0],
    ]
    assert set(found.bundles["by"]) == {"ams-r1", "ams-r5"}
    (r5,) = found.bundles.query("by == 'ams-r5'").to_dict("records")
    assert r5["held_back_by"] == ("ams-r5-h01",)
    lacks = mixed.reported.loc["ams-r5-h01"] & ~mixed.features.loc["ams-r5-h01"]
    assert set(r5["unreported"]) == {f for f in r5["features"] if not lacks[f]}
    assert "x86_64 Intel fra, 1 -> 0 hosts: none is left" in found.explain()


def test_a_retirement_of_nobody_or_of_the_unknown_is_refused(everyone: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="no host leaves"):
        vc.retire(everyone, hosts=[])
    with pytest.raises(FrameError, match="no host 'h9'"):
        vc.retire(everyone, hosts=["h9"])
    with pytest.raises(NoBaselineError, match="5 of 48 hosts is not known"):
        vc.retire(everyone, hosts="purchased < 2012")
    assert len(vc.retire(everyone, hosts="purchased < 2012", allow_missing=True).missing) == 5


def test_each_named_model_of_the_vendor_is_judged_by_what_its_name_stands_for(mixed: vc.Fleet) -> None:
    for query, vendor in (("rack == 'ams-r4'", "Intel"), ("vendor == 'AMD'", "AMD")):
        base = mixed.select(query).baseline()
        found = vc.candidates(mixed, base=base)
        models = {m.name: m for m in mixed.cpu_map.models.values() if m.vendor == vendor}
        assert list(found.frame.columns) == list(CANDIDATES)
        assert list(found.frame.index) == list(models)
        stands = {name: set(mixed.cpu_map.names(m.data)) for name, m in models.items()}
        named = set().union(*stands.values())
        assert set(found.unnamed) == base.gives - named
        for name, row in found.frame.iterrows():
            lacking = (base.gives & named) - stands[str(name)]
            told = [row[c] for c in ("capabilities", "controls", "immunities", "hazards", "host_facts")]
            assert union(told) == lacking
            assert sum(map(len, told)) == len(lacking)
            assert row["value_lacking"] == meanings(sorted(lacking), vendor=vendor)["value"].sum()
            sure = union(told[:-1])
            assert row["verdict"] == ("lacks" if sure else "cannot tell" if lacking | set(found.unnamed) else "joins")


def test_a_model_that_stands_for_all_joins() -> None:
    fleet = vc.read_fleet({"h1": capabilities(cpu("Westmere"))})
    found = vc.candidates(fleet, base=fleet.baseline())
    assert found.frame.loc[["Nehalem", "Westmere", "Westmere-IBRS"], "verdict"].tolist() == ["lacks", "joins", "joins"]
    assert found.frame.loc["Nehalem", "capabilities"] == ("aes",)
    assert found.unnamed == ()
    assert found.frame["deprecated"].isna().all()
    assert "joins without loss" in found.explain()[0]


def test_what_the_emulators_call_deprecated_is_known_where_one_says_so(mixed: vc.Fleet) -> None:
    found = vc.candidates(mixed, base=mixed.select("rack == 'ams-r4'").baseline())
    assert found.frame.loc[["Icelake-Client", "Icelake-Server"], "deprecated"].tolist() == [True, False]
    assert found.frame["deprecated"].isna()["DiamondRapids"]  # younger than all these emulators
    old = vc.candidates(mixed, base=mixed["ams-r1-h01",].baseline()).frame["deprecated"]
    assert old.equals(found.frame["deprecated"])
    alone = mixed["ams-r1-h01",]  # its libvirt 6.0 lists models and cannot say it
    assert vc.candidates(alone, base=alone.baseline()).frame["deprecated"].isna().all()


def test_a_baseline_of_other_hosts_or_another_map_is_refused(mixed: vc.Fleet, samples: Path) -> None:
    base = rack(mixed, "ams-r4").baseline()
    with pytest.raises(FrameError, match="no host 'ams-r4-h01'"):
        vc.candidates(rack(mixed, "ams-r5"), base=base)
    old = vc.read_fleet(samples / "mixed", cpu_map="11.3.0")
    with pytest.raises(FrameError, match="made with another CPU map"):
        vc.candidates(old, base=base)
