"""Which model libvirt names: its odd arithmetic by example, each answer seen from libvirt 9.0.0 itself."""

from __future__ import annotations

import pytest

import vmcompat as vc

MAP = vc.CpuMap.load("9.0.0")
MILAN = frozenset(MAP.names(MAP.models["EPYC-Milan"].data))


def host(model: str, *features: str, vendor: str = "") -> str:
    listed = "".join(f"<feature name='{name}'/>" for name in features)
    named = f"<vendor>{vendor}</vendor>" if vendor else ""
    return f"<cpu><arch>x86_64</arch><model>{model}</model>{named}{listed}</cpu>"


def baseline(*cpus: str, expand: bool = False) -> vc.Baseline:
    named = {f"h{i}": text for i, text in enumerate(cpus)}
    return vc.read_fleet(named, strict=True, cpu_map=MAP).baseline(driver="test", migratable=False, expand=expand)


def test_a_single_model_is_kept_and_no_other_may_stand_in() -> None:
    base = baseline(host("Westmere", "vmx", "avx2"), host("Westmere", "avx2", "vmx", "rtm"))
    assert (base.model, base.fallback) == ("Westmere", "forbid")
    assert base.features == (("vmx", "require"), ("avx2", "require"))  # in the order of the map


def test_a_model_that_no_guest_may_be_given_is_described_by_another() -> None:
    base = baseline(host("Cascadelake-Server-noTSX", vendor="Intel"))
    assert (base.model, base.fallback) == ("Cascadelake-Server", "allow")
    assert base.features == (("hle", "disable"), ("rtm", "disable"))


def test_what_a_map_took_out_of_a_model_is_disabled_last_unless_it_is_there() -> None:
    assert baseline(host("Opteron_G3")).features == (("monitor", "disable"),)
    assert baseline(host("Opteron_G3", "monitor", "vmx")).features == (("monitor", "require"), ("vmx", "require"))
    expanded = baseline(host("Opteron_G3"), expand=True).features
    assert ("monitor", "disable") in expanded
    assert list(expanded) == sorted(expanded)


@pytest.mark.parametrize(("named", "chosen"), [("EPYC-IBPB", "EPYC-Milan"), ("EPYC-Rome", "EPYC-Rome")])
def test_a_model_that_a_host_names_may_win_although_another_needs_fewer_features(named: str, chosen: str) -> None:
    shared = MILAN - {"amd-ssbd"}
    extra = shared - set(MAP.names(MAP.models[named].data))
    base = baseline(host(named, *sorted(extra), vendor="AMD"), host("EPYC-Milan", vendor="AMD"))
    assert base.model == chosen
    assert base.gives == shared - MAP.non_migratable


def test_the_vendor_is_written_if_every_host_names_it_and_restricts_the_models_once_one_does() -> None:
    named, silent = host("Westmere", vendor="Intel"), host("Nehalem")
    assert baseline(named, host("Nehalem", vendor="Intel")).vendor == "Intel"
    assert baseline(named, silent).vendor is None
    assert MAP.models[baseline(named, silent).model].vendor == "Intel"


def test_the_first_host_may_contradict_its_model_and_a_later_one_may_not() -> None:
    assert baseline(host("EPYC", vendor="Intel")).model == "Skylake-Client"
    assert baseline(host("Haswell"), host("EPYC", vendor="AMD")).model == "kvm64"
    with pytest.raises(vc.VmcompatError, match="h1 says vendor Intel, its model EPYC is AMD's"):
        baseline(host("Haswell", vendor="Intel"), host("EPYC", vendor="Intel"))


def test_a_group_without_a_known_cpu_has_no_baseline() -> None:
    fleet = vc.read_fleet({"h1": host("pentium"), "h2": host("POWER9").replace("x86_64", "ppc64")}, strict=True)
    with pytest.raises(vc.VmcompatError, match=r"h2 \(other_arch\)"):
        fleet.baseline()
    assert fleet.baseline(["h2"]).model == "POWER9"
    with pytest.raises(vc.VmcompatError, match="no host with a known CPU"):
        fleet.baseline([])
