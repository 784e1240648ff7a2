"""Named models: what the documents say, what the map computes for them, and which name is safe for a group."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from lxml import etree

import vmcompat as vc
from vmcompat.baseline.meanings import meanings
from vmcompat.baseline.usable import kinds_of
from vmcompat.fleet.cpu import Cpu
from vmcompat.fleet.records import Document, read_documents

SKYLAKE = "Skylake-Server-noTSX-IBRS"


def capabilities(model: str, *features: str, vendor: str = "Intel") -> str:
    listed = "".join(f"<feature name='{name}'/>" for name in features)
    return (
        f"<capabilities><host><cpu><arch>x86_64</arch><model>{model}</model><vendor>{vendor}</vendor>{listed}"
        f"</cpu></host></capabilities>"
    )


def domcapabilities(models: str, *features: str, model: str = "Westmere") -> str:
    """A host-model CPU with features (``-x`` disables x), and <model> elements of mode custom."""
    listed = "".join(
        f"<feature policy='{'disable' if name[0] == '-' else 'require'}' name='{name.lstrip('-')}'/>"
        for name in features
    )
    return (
        f"<domainCapabilities><path>/qemu</path><domain>kvm</domain><machine>pc</machine><arch>x86_64</arch><cpu>"
        f"<mode name='host-model' supported='yes'><model fallback='forbid'>{model}</model><vendor>Intel</vendor>"
        f"{listed}</mode><mode name='custom' supported='yes'>{models}</mode></cpu></domainCapabilities>"
    )


def usable(name: str, says: str = "yes", **attributes: str) -> str:
    more = "".join(f" {key}='{value}'" for key, value in attributes.items())
    return f"<model usable='{says}' vendor='Intel'{more}>{name}</model>"


@pytest.fixture(scope="module")
def mixed(samples: Path) -> vc.Fleet:
    return vc.read_fleet(samples / "mixed")


def documents(shared: Path) -> Iterator[Document]:
    """Real domain capabilities of x86 hosts with KVM, as libvirt 9.0 wrote them."""
    for path in sorted((shared / "data/libvirt-9.0.0/domaincapsdata").glob("qemu_*.x86_64.xml")):
        yield from (d for d in read_documents(path.read_bytes(), source=path.name) if d.virttype == "kvm")


def test_the_hypervisor_view_is_what_the_document_says() -> None:
    models = (
        usable("Westmere", canonical="Westmere-v1")
        + usable("SandyBridge", "no", deprecated="yes")
        + "<blockers model='SandyBridge'><feature name='avx'/><feature name='xsave'/></blockers>"
        + usable("Nehalem", "unknown")
    )
    said = vc.models(vc.read_fleet({"h1": domcapabilities(models)})).frame.drop(columns="refused")
    assert said.droplevel("host").to_dict("index") == {
        "Nehalem": {
            "usable": "unknown", "blockers": (), "deprecated": False, "canonical": "Nehalem-v1", "told": "map",
        },
        "Westmere": {
            "usable": "yes", "blockers": (), "deprecated": False, "canonical": "Westmere-v1", "told": "document",
        },
        "SandyBridge": {
            "usable": "no", "blockers": ("avx", "xsave"), "deprecated": True, "canonical": "SandyBridge-v1",
            "told": "document",
        },
    }  # fmt: skip


def test_blockers_that_an_old_libvirt_does_not_write_are_computed_and_said_to_be() -> None:
    found = vc.models(vc.read_fleet({"h1": domcapabilities(usable("SandyBridge", "no") + usable("Westmere"))}))
    row, _ = found.frame.sort_index().to_dict("records")
    assert row["blockers"] == ("pclmuldq", "x2apic", "tsc-deadline", "xsave", "avx", "rdtscp")
    assert row["told"] == "map"


def test_the_map_says_of_real_documents_what_they_say_but_for_two_features(shared: Path) -> None:
    """What differs: the map counts svm and monitor in where QEMU adds or needs neither under KVM."""
    agree, differ = 0, Counter[tuple[str, tuple[str, ...]]]()
    for d in documents(shared):
        assert d.cpu is not None
        fleet = vc.read_fleet({"h": d.cpu.xml()}, view="hypervisor", cpu_map="9.0.0")
        (kind,), _ = kinds_of(fleet)
        for m in d.models:
            say = kind.says[m.name]
            if (say.usable == "yes") == m.usable:
                agree += 1
            else:
                assert say.usable == "no"
                assert m.usable
                differ[m.name, say.blockers] += 1
    assert agree == 1166
    assert differ == {
        ("qemu64", ("svm",)): 4,
        ("Opteron_G2", ("svm",)): 4,
        ("n270", ("monitor",)): 4,
        ("coreduo", ("monitor",)): 4,
        ("core2duo", ("monitor",)): 4,
    }


def test_blockers_computed_are_those_of_real_caches_but_for_what_qemu_defines_otherwise(shared: Path) -> None:
    cpu_map = vc.CpuMap.load("9.0.0")
    agree, differ = 0, Counter[str]()
    for path in sorted((shared / "data/libvirt-9.0.0/qemucapabilities").glob("*.xml")):
        (cache,) = (d for d in read_documents(path.read_bytes(), source=path.name) if d.virttype == "kvm")
        given = etree.parse(path).findall("hostCPU[@type='kvm']/property[@type='boolean'][@value='true']")
        spelt = {name.replace("_", "-"): name for name in cpu_map.features} | {"pclmulqdq": "pclmuldq"}
        names = [spelt.get(p.get("name", ""), p.get("name", "")) for p in given]
        listed = "".join(f"<feature policy='require' name='{name}'/>" for name in names if name in cpu_map.index)
        alone = f"<cpu><model>486</model><vendor>Intel</vendor>{listed}</cpu>"
        (kind,), _ = kinds_of(vc.read_fleet({"h": alone}, view="hypervisor", cpu_map=cpu_map))
        for m in cache.models:
            if m.name in cpu_map.models:
                blockers = {name for name in m.blockers or () if name in cpu_map.index}
                apart = blockers ^ set(kind.says[m.name].blockers)
                agree += not apart
                differ.update(apart)
    assert agree == 76
    assert differ == {"mpx": 24, "pku": 10, "monitor": 8, "ss": 6, "ibrs-all": 2}


def test_the_host_view_knows_three_answers(tmp_path: Path) -> None:
    hosts = {"new": capabilities("Westmere", "vmx-ept"), "old": capabilities("Westmere")}
    for name, text in hosts.items():
        (tmp_path / f"{name}.capabilities.xml").write_text(text)
    (tmp_path / "hosts.csv").write_text("host,libvirt\nnew,12.8.0\nold,10.1.0\n")
    frame = vc.models(vc.read_fleet(tmp_path)).frame
    told = {name: frame["usable"].xs(name, level="host").to_dict() for name in hosts}
    assert told["old"]["Westmere"] == "yes"
    assert told["old"]["SandyBridge"] == "no"
    assert told["old"]["Nehalem-v1"] == "unknown"  # whether a libvirt of that age knows the name
    assert told["old"]["Snowridge-v1"] == "no"  # whatever it is called
    assert told["new"]["Nehalem-v1"] == "yes"
    assert "unknown" not in told["new"].values()


def test_a_feature_that_the_libvirt_of_a_host_cannot_report_leaves_it_open(tmp_path: Path) -> None:
    (tmp_path / "h.capabilities.xml").write_text(capabilities("Skylake-Server-IBRS", "pku"))
    (tmp_path / "hosts.csv").write_text("host,libvirt\nh,10.1.0\n")
    (row,) = vc.models(vc.read_fleet(tmp_path)).frame.query("model == 'Skylake-Server-v4'").to_dict("records")
    assert row["usable"] == "unknown"
    assert "vmx-ept" in row["blockers"]
    assert all(name.startswith("vmx-") for name in row["blockers"])


def test_a_name_that_a_host_does_not_list_is_no_name_for_its_group() -> None:
    fleet = vc.read_fleet(
        {
            "h1": domcapabilities(usable("Nehalem") + usable("Westmere")),
            "h2": domcapabilities(usable("Nehalem")),
        }
    )
    found = vc.models(fleet)
    assert found.frame["usable"].tolist() == ["yes", "yes", "yes", "no"]
    assert found.frame["told"].iloc[3] == "not listed"
    (row,) = found.best.to_dict("records")
    assert (row["model"], row["closest"], row["blocking_hosts"], row["blocked_by"]) == (
        "Nehalem", "Westmere", ("h2",), "not listed",
    )  # fmt: skip
    assert found.explain()[0].endswith("; Westmere would give more, but h2 knows no such name")


def test_no_name_for_all_says_which_comes_closest_and_who_blocks_it_by_what() -> None:
    broken = usable("Nehalem", "no") + "<blockers model='Nehalem'><feature name='sse4.2'/></blockers>"
    fleet = vc.read_fleet({f"h{i}": domcapabilities(broken if i == 3 else usable("Nehalem")) for i in (1, 2, 3)})
    found = vc.models(fleet)
    assert found.best["model"].isna().all()
    (sentence,) = found.explain()
    assert sentence == (
        "x86_64 Intel: no named model can be used by all 3 hosts; Nehalem would give more, but not on h3: no sse4.2"
    )


def test_a_deprecated_name_gives_way_to_an_equal_one_and_is_flagged_where_there_is_none() -> None:
    equal = usable("Westmere", deprecated="yes") + usable("Westmere-v1")
    found = vc.models(vc.read_fleet({"h1": domcapabilities(equal)}))
    assert found.best[["model", "deprecated"]].to_numpy().tolist() == [["Westmere-v1", False]]
    alone = vc.models(vc.read_fleet({"h1": domcapabilities(usable("Westmere", deprecated="yes"))}))
    assert alone.best["deprecated"].tolist() == [True]
    assert "can use Westmere (x86-64-v2, deprecated)" in alone.explain()[0]


def test_of_names_worth_the_same_the_one_without_tsx_and_the_plain_one_is_recommended(mixed: vc.Fleet) -> None:
    (row,) = vc.models(mixed.select("rack == 'ams-r2'")).best.to_dict("records")
    assert (row["model"], row["runner_up"]) == (SKYLAKE, "Skylake-Server-IBRS")
    assert row["runner_up_value"] == row["value"]
    assert row["runner_up_adds"] == ("hle", "rtm")
    newer = vc.models(mixed.select("rack == 'ams-r2' and libvirt == '11.3.0'")).best
    assert newer["model"].tolist() == ["Skylake-Server-v4"]  # all of these hosts know versions, and this one gives pku


def test_another_value_changes_what_is_best(mixed: vc.Fleet) -> None:
    rack = mixed.select("rack == 'ams-r2'")
    (row,) = vc.models(rack, value={"rtm": 2, "avx": 1}).best.to_dict("records")
    assert (row["model"], row["value"], row["value_given_up"]) == ("Skylake-Server-IBRS", 3.0, 0.0)
    assert "features of no weight (" in vc.models(rack, value={"rtm": 2, "avx": 1}).explain()[0]


def test_what_the_best_name_gives_up_is_the_rest_of_the_exact_baseline(mixed: vc.Fleet) -> None:
    fleet = mixed.select("cpu_status == 'ok'")
    best = vc.models(fleet, by="rack").best
    exact = fleet.baselines("rack")
    assert best.index.equals(exact.index)
    assert best["baseline_features"].tolist() == exact["n_features"].tolist()
    assert best["baseline_level"].tolist() == exact["level"].tolist()
    assert best["baseline"].tolist() == exact["model"].tolist()
    assert (best["n_features"] + best["given_up"].map(len)).tolist() == exact["n_features"].tolist()


def test_no_other_name_that_all_hosts_can_use_is_worth_more(mixed: vc.Fleet) -> None:
    fleet = mixed.select("cpu_status == 'ok'")
    found = vc.models(fleet, by="rack")
    safe = (found.frame["usable"] == "yes") & (found.frame["refused"].map(len) == 0)
    names = safe.unstack("host")
    exact = fleet.baselines("rack")["hosts"]
    for row, hosts in zip(found.best.reset_index().to_dict("records"), exact, strict=True):
        base = fleet.baseline(hosts)
        weights = meanings(sorted(base.gives), vendor=row["vendor"])["value"]
        worth = {}
        for name in names.index[names[list(hosts)].all(axis=1)]:
            model = mixed.cpu_map.models[name]
            if model.vendor in (None, row["vendor"]):
                has = [f for f in weights.index if model.data >> mixed.cpu_map.index[f] & 1]
                worth[name] = weights[has].sum()
        assert row["value"] == worth[row["model"]] == max(worth.values())
        assert row["runner_up_value"] == worth[row["runner_up"]]
        assert set(row["given_up"]) == {f for f in base.gives if f not in
                                        mixed.cpu_map.names(mixed.cpu_map.models[row["model"]].data)}  # fmt: skip


def test_of_qemu_s_cached_answers_only_names_that_the_libvirt_accepts_count(shared: Path, tmp_path: Path) -> None:
    cache = (shared / "data/libvirt-9.0.0/qemucapabilities/caps_7.2.0.x86_64.xml").read_bytes()
    (tmp_path / "h.qemucaps.xml").write_bytes(cache)
    (tmp_path / "h.domcapabilities.xml").write_text(domcapabilities(usable("Westmere")))
    (tmp_path / "hosts.csv").write_text("host,libvirt\nh,9.0.0\n")
    frame = vc.models(vc.read_fleet(tmp_path)).frame.droplevel("host")
    assert "Skylake-Client-v1" not in frame.index
    assert set(frame["told"]) == {"document"}
    assert frame["usable"].to_dict()["Opteron_G5"] == "no"
    assert frame["blockers"].to_dict()["Opteron_G5"][:2] == ("xop", "fma4")


def test_libvirt_s_own_comparison_passes_every_recommended_name_on_every_host(mixed: vc.Fleet) -> None:
    fleet = mixed.select("cpu_status == 'ok'")
    best = vc.models(fleet, by="rack").best
    racks = fleet.baselines("rack")["hosts"]
    asked = 0
    for model, hosts in zip(best["model"], racks, strict=True):
        for record in fleet[hosts].records:
            bare = next(d.cpu for d in record.documents if d.kind == "capabilities")
            given = next(d.cpu for d in record.documents if d.kind == "domcapabilities")
            assert bare is not None
            assert given is not None
            assert given.model is not None
            writer = vc.CpuMap.load("11.3.0" if record.libvirt == "11.3.0" else "9.0.0")
            whole = Cpu(
                arch="x86_64",
                model=given.model if given.model in writer.models else bare.model,
                vendor=bare.vendor,
                features=tuple((n, "require") for n in writer.names(writer.full(bare) | writer.full(given))),
            )
            assert vc.compare(f"<cpu><model>{model}</model></cpu>", host=whole, cpu_map=writer).fits, (
                record.name,
                model,
            )
            asked += 1
    assert asked == 43


def test_a_usable_name_that_an_older_libvirt_refuses_is_not_recommended(mixed: vc.Fleet) -> None:
    rack = mixed.select("rack == 'ams-r4'")
    found = vc.models(rack)
    said = found.frame.xs("Icelake-Server-noTSX", level="model")
    assert said["usable"].tolist() == ["yes"] * 6
    assert said["refused"].tolist() == [("mpx",)] * 3 + [()] * 3
    host = next(d.cpu for d in rack.records[0].documents if d.kind == "capabilities")
    assert host is not None
    told = vc.compare("<cpu><model>Icelake-Server-noTSX</model></cpu>", host=host, cpu_map="9.0.0")
    assert told.features == ("mpx",)
    assert found.best["model"].tolist() == ["Broadwell-noTSX-IBRS"]
    assert found.explain()[0].endswith(
        "; Icelake-Server-noTSX would give more, but the libvirt of ams-r4-h01, ams-r4-h02, ams-r4-h03 refuses it "
        "unless the domain disables mpx"
    )
    newer = vc.models(rack.select("libvirt == '11.3.0'")).best
    assert newer["model"].str.startswith("Icelake-Server").all()


def test_the_closest_better_name_is_the_one_that_fails_on_the_fewest_hosts(mixed: vc.Fleet) -> None:
    found = vc.models(mixed.select("cpu_status == 'ok'"))
    for row in found.best.reset_index().to_dict("records"):
        said = found.frame.xs(row["closest"], level="model")
        failing = said[(said["usable"] != "yes") | (said["refused"].map(len) > 0)].index
        assert row["blocking_hosts"] == tuple(h for h in failing if mixed.hosts["vendor"][h] == row["vendor"])
    intel = found.best.iloc[0]
    assert (intel["closest"], intel["blocking_hosts"]) == ("Haswell-noTSX-IBRS", ("fra-old-h01",))


def test_controls_that_an_immunity_makes_needless_are_not_counted(mixed: vc.Fleet) -> None:
    (row,) = vc.models(mixed.select("rack == 'ams-r4'")).best.to_dict("records")
    assert "md-clear" in row["given_up"]
    assert row["controls_given_up"] == ("stibp", "ssbd")
    (row,) = vc.models(mixed.select("rack == 'ams-r1'")).best.to_dict("records")
    assert set(row["controls_given_up"]) == {"md-clear", "stibp", "ssbd"}


def test_hosts_whose_cpu_is_not_known_are_refused_or_counted(mixed: vc.Fleet) -> None:
    rack = mixed.select("rack == 'ams-r3'")
    with pytest.raises(vc.VmcompatError, match=r"the CPU of 1 of 8 hosts is not known: ams-r3-h08 \(unreadable\)"):
        vc.models(rack)
    found = vc.models(rack, allow_missing=True)
    assert found.missing == ("ams-r3-h08 (unreadable)",)
    assert found.best[["n_hosts", "n_unknown"]].to_numpy().tolist() == [[8, 1]]
    assert set(found.frame["usable"].xs("ams-r3-h08", level="host")) == {"unknown"}
    assert found.explain()[0].startswith("x86_64 Intel: all 7 hosts whose CPU is known (of 8) can use")


def test_another_architecture_shows_what_it_lists_and_is_not_weighed(mixed: vc.Fleet) -> None:
    found = vc.models(mixed[["ams-z15-h01", "ams-p9-h01"]], allow_missing=True)
    assert Counter(found.frame["usable"].xs("ams-z15-h01", level="host")) == {"yes": 43, "no": 3}
    assert found.best["model"].isna().all()
    assert found.explain()[0] == ("s390x vendor unknown: the CPU of none of the hosts is known (not an x86 CPU)")


def test_the_host_view_says_that_it_is_advisory_and_needs_no_document_of_the_hypervisor(mixed: vc.Fleet) -> None:
    found = vc.models(mixed.with_view("host").select("rack == 'ams-r2'"))
    assert found.best["model"].tolist() == [SKYLAKE]
    assert found.warnings[0].startswith("advisory")


def test_another_order_of_the_hosts_changes_no_verdict(mixed: vc.Fleet) -> None:
    turned = mixed[reversed(mixed.names)]
    columns = ["model", "value", "n_features", "runner_up", "closest", "given_up", "blocking_features"]
    ours, theirs = (vc.models(f, by="rack", allow_missing=True).best[columns].sort_index() for f in (mixed, turned))
    pd.testing.assert_frame_equal(ours, theirs)


def test_a_column_that_is_not_there_is_named_with_those_that_are(mixed: vc.Fleet) -> None:
    with pytest.raises(vc.VmcompatError, match="no column 'rak' to group by; columns: cpu_status"):
        vc.models(mixed, by="rak")
