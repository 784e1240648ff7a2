"""A baseline says what it is worth: what it gives, whom it costs what, what it leaves out and why."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vmcompat as vc
from vmcompat import connect
from vmcompat.baseline.meanings import SWITCHES
from vmcompat.fleet.cpu_map import BROUGHT_ALONG

MAP = vc.CpuMap.load()


def host(model: str, *features: str, vendor: str = "Intel", bits: int | None = 46) -> str:
    width = f"<maxphysaddr mode='emulate' bits='{bits}'/>" if bits else ""
    listed = "".join(f"<feature name='{name}'/>" for name in features)
    return f"<cpu><arch>x86_64</arch><model>{model}</model><vendor>{vendor}</vendor>{width}{listed}</cpu>"


def domcaps(model: str, *features: str, models: tuple[str, ...] = (), vendor: str = "Intel", limit: int = 46) -> str:
    listed = "".join(
        f"<feature policy='{'disable' if name.startswith('-') else 'require'}' name='{name.lstrip('-')}'/>"
        for name in features
    )
    custom = "".join(f"<model usable='yes'>{name}</model>" for name in (models or (model,)))
    return (
        "<domainCapabilities><path>/usr/bin/qemu</path><domain>kvm</domain><machine>q35</machine><arch>x86_64</arch>"
        f"<cpu><mode name='host-model' supported='yes'><model fallback='forbid'>{model}</model>"
        f"<vendor>{vendor}</vendor><maxphysaddr mode='passthrough' limit='{limit}'/>{listed}</mode>"
        f"<mode name='custom' supported='yes'>{custom}</mode></cpu></domainCapabilities>"
    )


def reasons(base: vc.Baseline) -> dict[str, str]:
    return dict(zip(base.dropped["feature"], base.dropped["reason"], strict=True))


def test_a_guest_gets_no_fallback_and_nothing_that_cannot_migrate() -> None:
    base = vc.read_fleet({"h1": domcaps("EPYC-Milan", "invtsc", vendor="AMD")}).baseline()
    assert "<model fallback='forbid'>EPYC-Milan</model>" in base.guest_xml
    assert "check='partial'" in base.guest_xml
    assert "<feature policy='disable' name='xsaves'/>" in base.guest_xml
    assert "invtsc" not in base.guest_xml
    assert {"xsaves", "invtsc"}.isdisjoint(base.gives)
    assert reasons(base)["invtsc"] == reasons(base)["xsaves"] == "cannot be migrated"


def test_the_plain_answer_keeps_what_a_guest_still_does_not_get() -> None:
    base = vc.read_fleet({"h1": host("Westmere", "invtsc")}).baseline(migratable=False)
    assert ("invtsc", "require") in base.features
    assert "invtsc" not in base.guest_xml


def test_libvirts_answer_that_re_enables_a_missing_feature_is_reproduced_and_warned_of() -> None:
    cpus = {"h1": domcaps("EPYC-Milan", vendor="AMD"), "h2": domcaps("EPYC-Milan", "-xsaves", vendor="AMD")}
    base = vc.read_fleet(cpus).baseline()
    assert "xsaves" not in base.xml
    assert any("gives xsaves, which h2 does not have; guest_xml disables it" in w for w in base.warnings)
    assert "<feature policy='disable' name='xsaves'/>" in base.guest_xml


def test_lost_names_host_feature_group_and_polarity_of_what_another_host_lacks() -> None:
    base = vc.read_fleet({"h1": host("Westmere", "md-clear", "vmx"), "h2": host("Westmere", "vmx")}).baseline()
    assert base.lost.to_dict("records") == [
        {"host": "h1", "feature": "md-clear", "group": "mitigation controls", "polarity": "control"}
    ]


def test_a_feature_that_an_old_libvirt_cannot_name_is_left_out_with_that_reason_and_not_lost(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed")["ams-r2-h01", "ams-r2-h08"]
    base = fleet.baseline()
    assert reasons(base)["vmx-ept"] == "not reported by ams-r2-h01: libvirt 9.0.0 has no name for it"
    assert not base.lost["feature"].str.startswith("vmx-").any()


def test_mpx_that_the_writers_model_implies_counts_whatever_a_newer_map_says(samples: Path) -> None:
    old, new = vc.read_fleet(samples / "mixed"), vc.read_fleet(samples / "mixed", strict=True)
    assert "mpx" not in MAP.names(MAP.models["Skylake-Server-IBRS"].data)
    assert old.features.loc["ams-r2-h01", "mpx"]
    assert not new.features.loc["ams-r2-h01", "mpx"]
    base = old["ams-r2-h01", "ams-r2-h02"].baseline()
    assert ("mpx", "require") in base.features


def test_another_map_restricts_features_and_models_and_says_so(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed")["ams-r2-h08", "ams-r2-h09"]
    base = fleet.baseline(cpu_map="9.0.0")
    assert base.cpu_map == "9.0.0"
    assert reasons(base)["vmx-ept"] == "the CPU map of libvirt 9.0.0 does not know it"
    assert base.needs_libvirt == "9.0.0"
    assert fleet.baseline().needs_libvirt == "11.3.0"


def test_without_takes_a_bundle_out_and_disables_what_the_model_implies() -> None:
    fleet = vc.read_fleet({"h1": domcaps("Skylake-Server", "vmx"), "h2": domcaps("Skylake-Server", "vmx")})
    base = fleet.baseline()
    less = base.without("tsx", "nested")
    assert {"hle", "rtm", "vmx"} <= base.gives
    assert base.gives - less.gives == {"hle", "rtm", "vmx"}
    assert less.taken_out == ("hle", "rtm", "vmx")
    for name in ("hle", "rtm"):
        assert f"<feature policy='disable' name='{name}'/>" in less.guest_xml
    assert "vmx" not in less.guest_xml
    assert reasons(less)["hle"] == "taken out on request"
    assert not less.exact
    assert fleet.compare(less)["result"].isin(["identical", "superset"]).all()


def test_without_refuses_a_name_that_is_nothing_and_lists_the_bundles() -> None:
    base = vc.read_fleet({"h1": host("Westmere")}).baseline()
    with pytest.raises(vc.VmcompatError, match=r"without\('tsk'\).*nested.*tsx"):
        base.without("tsk")


def test_diff_says_what_a_guest_would_gain_and_lose() -> None:
    narrow = vc.read_fleet({"h1": host("Westmere")}).baseline()
    wide = vc.read_fleet({"h1": host("Westmere", "md-clear")}).baseline()
    assert narrow.diff(wide)["change"].to_dict() == {"md-clear": "gained"}
    assert wide.diff(narrow)["change"].to_dict() == {"md-clear": "lost"}


@pytest.mark.parametrize("view", ["host", "hypervisor"])
def test_json_brings_back_the_same_baseline(samples: Path, view: str) -> None:
    fleet = vc.read_fleet(samples / "mixed", view=view).select("rack == 'ams-r1'")  # type: ignore[arg-type]
    base = fleet.baseline()
    back = vc.Baseline.from_json(base.to_json())
    assert back.to_json() == base.to_json()
    for name in ("xml", "guest_xml", "level", "warnings", "gives", "needs_libvirt", "maxphysaddr"):
        assert getattr(back, name) == getattr(base, name), name
    assert back.lost.equals(base.lost)
    assert back.dropped.equals(base.dropped)
    assert back.without("tsx").guest_xml == base.without("tsx").guest_xml


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"vmcompat_baseline": 99}', '{"vmcompat_baseline": 1}'])
def test_json_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(vc.VmcompatError, match="baseline"):
        vc.Baseline.from_json(text)


def test_a_host_view_is_advisory_in_words_and_in_red() -> None:
    base = vc.read_fleet({"h1": host("Westmere")}).baseline()
    assert base.warnings[0].startswith("advisory")
    assert "advisory" in repr(base)
    assert "color:#b00020'>&#9888; advisory" in base._repr_html_()


def test_address_bits_are_reported_with_their_spread_and_never_written_into_a_guest() -> None:
    base = vc.read_fleet({"h1": domcaps("Westmere", limit=46), "h2": domcaps("Westmere", limit=40)}).baseline()
    assert base.maxphysaddr == 40
    assert "<maxphysaddr mode='passthrough' limit='40'/>" in base.xml
    assert "maxphysaddr" not in base.guest_xml
    assert "physical address bits differ, 40 to 46; fewest on h2" in base.warnings
    unknown = vc.read_fleet({"h1": host("Westmere"), "h2": host("Westmere", bits=None)}).baseline()
    assert unknown.maxphysaddr is None
    assert "physical address bits not known of h2" in unknown.warnings


def test_models_are_those_that_every_hypervisor_lists_or_those_of_the_one_asked() -> None:
    cpus = {
        "h1": domcaps("Haswell", models=("Haswell", "Westmere")),
        "h2": domcaps("Haswell", models=("Westmere", "Nehalem")),
    }
    fleet = vc.read_fleet(cpus)
    assert fleet.baseline().model == "Westmere"
    assert fleet.baseline(asked_of="h1").model == "Haswell"
    assert not fleet.baseline().exact
    with pytest.raises(vc.VmcompatError, match="hypervisor"):
        vc.read_fleet({"h1": host("Westmere")}).baseline(asked_of="h1")


@pytest.mark.parametrize(("virttype", "model"), [("kvm", "Haswell"), ("qemu", "Westmere")])
def test_libvirts_cache_of_qemus_answers_makes_the_answer_exact_for_kvm_and_emulation_apart(
    virttype: str, model: str
) -> None:
    probed = {"kvm": ("avx erms vmx", "Haswell"), "tcg": ("vmx", "Westmere")}
    cache = "<qemuCaps><arch>x86_64</arch>"
    for kind, (more, listed) in probed.items():
        known = [*MAP.names(MAP.models["Haswell"].data & ~MAP.set_of(["avx", "erms"])), *more.split()]
        properties = "".join(f"<property name='{name}' type='boolean' value='true'/>" for name in known)
        cache += f"<hostCPU type='{kind}' model='base' migratability='yes'>{properties}"
        cache += "<property name='invtsc' type='boolean' value='false' migratable='no'/></hostCPU>"
        cache += f"<cpu type='{kind}' name='{listed}' usable='yes'/>"
    cpu = domcaps("Haswell", "vmx", "invtsc", "avx512f").replace("<domain>kvm", f"<domain>{virttype}")
    fleet = vc.read_fleet({"h1": f"{cpu}{cache}</qemuCaps>"})
    assert fleet.virttype == virttype
    base = fleet.baseline(asked_of="h1", cpu_map="9.0.0")
    assert (base.model, base.exact) == (model, True)
    assert ("avx" in base.gives) == (virttype == "kvm")
    assert ("vmx", "require") in base.features
    assert reasons(base)["avx512f"] == "the emulator asked has no such property"
    assert reasons(base)["invtsc"] == "cannot be migrated"
    plain = fleet.baseline(asked_of="h1", cpu_map="9.0.0", migratable=False)
    assert ("invtsc", "require") in plain.features


def test_unknown_hosts_refuse_the_answer_by_name_or_stand_in_its_warnings() -> None:
    fleet = vc.read_fleet({"h1": host("Westmere"), "h2": "<cpu><arch>x86_64</arch></cpu>"})
    with pytest.raises(vc.VmcompatError, match=r"1 of 2 hosts is not known: h2 \(no_model\)"):
        fleet.baseline()
    base = fleet.baseline(allow_missing=True)
    assert base.hosts == ("h1",)
    assert "without h2 (no_model), whose CPU is not known" in base.warnings


def test_mixed_vendors_are_named_and_another_way_is_shown() -> None:
    fleet = vc.read_fleet({"h1": host("Westmere"), "h2": host("EPYC", vendor="AMD")})
    with pytest.raises(vc.VmcompatError, match=r"h1 is Intel, h2 is AMD; fleet.baselines\(\)"):
        fleet.baseline()
    assert list(fleet.baselines().index) == [("x86_64", "Intel"), ("x86_64", "AMD")]


def test_baselines_of_overlapping_groups_are_those_of_each_group_alone(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed").select("vendor == 'Intel' and cpu_status == 'ok'")
    groups: dict[Hashable, list[str]] = {f"{a}+{b}": [a, b] for a, b in pairwise(fleet.names)}
    groups["all"] = list(fleet.names)
    table = fleet.baselines(groups).reset_index()
    assert len(table) == len(groups)
    for row in table.to_dict("records"):
        base = fleet.baseline(groups[row["group"]])
        assert (row["xml"], row["level"], row["n_features"]) == (base.xml, base.level, len(base.gives))
        assert row["hosts"] == base.hosts


@pytest.fixture(scope="module")
def test_driver() -> Iterator[connect.Host]:
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    with connect.open_host("test:///default") as host:
        yield host


@pytest.fixture(scope="module")
def linked(test_driver: connect.Host) -> str:
    """The version of the linked libvirt, whose map is at hand."""
    version = connect.describe(test_driver).libvirt
    if version not in BROUGHT_ALONG:
        pytest.skip(f"no map brought along is that of the linked libvirt {version}")
    return version


def verify(host: connect.Host, base: vc.Baseline) -> tuple[str, str]:
    answer = host.ask("a baseline", base.verify)
    return answer.result, answer.reason


def test_verify_is_identical_only_to_the_same_question(test_driver: connect.Host, linked: str) -> None:
    cpus = {"h1": host("Westmere", "vmx"), "h2": host("Nehalem", "vmx")}
    fleet = vc.read_fleet(cpus, strict=True, cpu_map=linked)
    same = fleet.baseline(driver="test", migratable=False)
    assert same.exact
    assert verify(test_driver, same) == ("identical", "")
    expanded = fleet.baseline(driver="test", migratable=False, expand=True)
    assert verify(test_driver, expanded) == ("identical", "")
    assert expanded.xml != same.xml


def test_verify_cannot_tell_of_another_driver_flag_map_call_or_of_what_libvirt_has_no_question_for(
    test_driver: connect.Host, linked: str
) -> None:
    cpus = {"h1": host("Westmere", "vmx"), "h2": host("Nehalem", "vmx")}
    fleet = vc.read_fleet(cpus, strict=True, cpu_map=linked)
    for base, reason in (
        (fleet.baseline(migratable=False), "the answer is that of libvirt's qemu driver, this is test"),
        (fleet.baseline(driver="test"), "libvirt did not answer"),  # this driver knows no flag for migratable
        (fleet.baseline(driver="test", migratable=False).without("vmx"), "features were taken out on request"),
        (fleet.baseline(driver="test", cpu_map=next(v for v in BROUGHT_ALONG if v != linked)), "in terms of the CPU"),
        (vc.read_fleet({"h1": domcaps("Westmere")}, cpu_map=linked).baseline(), "this is test"),
        (vc.read_fleet({"h1": "<cpu><model>Westmere</model></cpu>"}, cpu_map=linked).baseline(), "no domain capab"),
        (vc.read_fleet({n: domcaps("Westmere") for n in "ab"}, cpu_map=linked).baseline(), "ask with asked_of="),
    ):
        result, why = verify(test_driver, base)
        assert result == "cannot_tell"
        assert reason in why


def test_verify_shows_where_libvirt_reads_a_document_otherwise_than_the_libvirt_that_wrote_it(
    test_driver: connect.Host, linked: str, tmp_path: Path
) -> None:
    writer = "11.3.0" if linked == "9.0.0" else "9.0.0"  # mpx left these models in between
    (tmp_path / "h1.xml").write_text(host("Skylake-Server", "vmx"))
    (tmp_path / "hosts.csv").write_text(f"host,libvirt\nh1,{writer}\n")
    base = vc.read_fleet(tmp_path, cpu_map=linked).baseline(driver="test", migratable=False)
    assert not base.exact
    answer = test_driver.ask("a baseline", base.verify)
    assert answer.result == "different"
    assert "sees mpx otherwise than the libvirts that wrote them" in answer.reason
    changed = [line for line in answer.diff.splitlines() if line[0] in "+-" and "feature" in line]
    assert len(changed) == 1
    assert "name='mpx'" in changed[0]
    strict = vc.read_fleet(tmp_path, cpu_map=linked, strict=True).baseline(driver="test", migratable=False)
    assert strict.xml == answer.answer


def test_a_document_that_the_answers_libvirt_would_refuse_makes_the_answer_inexact_with_that_reason() -> None:
    fleet = vc.read_fleet({"h1": host("Haswell-v2"), "h2": host("Haswell-v2")})
    assert fleet.baseline().exact
    old = fleet.baseline(cpu_map="9.0.0")
    assert not old.exact
    assert "libvirt 9.0.0 would refuse h2: model 'Haswell-v2' is not in the CPU map of libvirt 9.0.0" in old.warnings


MODELS = sorted(m.name for m in MAP.models.values() if m.vendor == "Intel" and m.guest)
CPUS = st.lists(
    st.tuples(st.sampled_from(MODELS), st.lists(st.sampled_from(MAP.features), max_size=12, unique=True)),
    min_size=1,
    max_size=5,
)


@given(CPUS)
def test_a_baseline_gives_only_what_every_host_offers_and_more_hosts_never_give_more(
    cpus: list[tuple[str, list[str]]],
) -> None:
    fleet = vc.read_fleet({f"h{i}": host(model, *features) for i, (model, features) in enumerate(cpus)})
    previous: frozenset[str] | None = None
    for count in range(1, len(cpus) + 1):
        base = fleet.baseline(fleet.names[:count])
        for name in base.hosts:
            offered = fleet.features.columns[fleet.features.loc[name].to_numpy(dtype=bool)]
            assert base.gives <= set(offered)
        assert previous is None or base.gives <= previous
        previous = base.gives


@given(CPUS, st.randoms(use_true_random=False))
def test_neither_the_order_of_hosts_nor_a_twin_changes_the_answer(
    cpus: list[tuple[str, list[str]]], rnd: object
) -> None:
    named = {f"h{i}": host(model, *features) for i, (model, features) in enumerate(cpus)}
    base = vc.read_fleet(named).baseline()
    shuffled = list(named)
    rnd.shuffle(shuffled)  # type: ignore[attr-defined]
    again = vc.read_fleet({name: named[name] for name in shuffled} | {"twin": named["h0"]}).baseline()
    assert again.xml == base.xml


def test_every_switch_can_be_thrown_and_nothing_but_it_goes(samples: Path) -> None:
    base = vc.read_fleet(samples / "mixed")["ams-r5-h02", "ams-r5-h03"].baseline()
    for name, features in SWITCHES.items():
        assert base.gives - base.without(name).gives == features & base.gives
