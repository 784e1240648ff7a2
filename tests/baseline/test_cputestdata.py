"""The baselines that libvirt's own tests expect, from the data of libvirt 9.0.0."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

import vmcompat as vc

# Result of two guest-type CPUs each, as QEMU described the hosts (the names libvirt's test gives them).
PAIRS = {
    "Ryzen+Rome": ("Ryzen-7-1800X-Eight-Core", "Ryzen-9-3900X-12-Core"),
    "EPYC+Rome": ("EPYC-7601-32-Core", "EPYC-7502-32-Core"),
    "Haswell-noTSX-IBRS+Skylake": ("Xeon-E5-2609-v3", "Xeon-Gold-6148"),
    "Haswell-noTSX-IBRS+Skylake-IBRS": ("Xeon-E5-2609-v3", "Xeon-Gold-6130"),
    "Broadwell-IBRS+Cascadelake": ("Xeon-E5-2623-v4", "Xeon-Platinum-8268"),
    "Cascadelake+Skylake-IBRS": ("Xeon-Platinum-8268", "Xeon-Gold-6130"),
    "Cascadelake+Skylake": ("Xeon-Platinum-9242", "Xeon-Gold-6148"),
    "Cascadelake+Icelake": ("Xeon-Platinum-9242", "Ice-Lake-Server"),
    "Cooperlake+Icelake": ("Cooperlake", "Ice-Lake-Server"),
    "Cooperlake+Cascadelake": ("Cooperlake", "Xeon-Platinum-9242"),
    "Skylake-Client+Server": ("Core-i5-6600", "Xeon-Gold-6148"),
    "Haswell-noTSX-IBRS+Broadwell": ("Xeon-E5-2609-v3", "Xeon-E5-2650-v4"),
    "Haswell+Skylake": ("Xeon-E7-8890-v3", "Xeon-Gold-5115"),
}


@pytest.fixture(scope="module")
def data(shared: Path) -> Path:
    return shared / "data" / "libvirt-9.0.0" / "cputestdata"


def hosts_of(path: Path) -> dict[str, str]:
    """The CPUs of one test, as host definitions one after the other."""
    cpus = etree.parse(path).getroot().findall("cpu")
    return {f"h{i}": etree.tostring(cpu, encoding="unicode", with_tail=False) for i, cpu in enumerate(cpus)}


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("Westmere+Nehalem", "result", {"migratable": False}),
        ("Westmere+Nehalem", "migratable", {"migratable": True}),
        ("features", "result", {"migratable": False}),
        ("features", "expanded", {"migratable": False, "expand": True}),
        ("no-vendor", "result", {"migratable": False}),
        ("simple", "result", {"migratable": False}),
        ("simple", "expanded", {"migratable": False, "expand": True}),
        ("some-vendors", "result", {"migratable": False}),
    ],
)
def test_the_expected_text_and_every_host_offers_it(data: Path, name: str, kind: str, options: dict[str, bool]) -> None:
    texts = hosts_of(data / f"x86_64-baseline-{name}.xml")
    fleet = vc.read_fleet(texts, view="host", strict=True, cpu_map="9.0.0")
    base = fleet.baseline(driver="test", **options)  # type: ignore[arg-type]
    assert base.xml == (data / f"x86_64-baseline-{name}-{kind}.xml").read_text()
    for host in texts.values():
        assert vc.compare(base.xml, host=host, cpu_map="9.0.0").fits


def test_incompatible_vendors_have_no_baseline_and_are_named(data: Path) -> None:
    fleet = vc.read_fleet(hosts_of(data / "x86_64-baseline-incompatible-vendors.xml"), strict=True, cpu_map="9.0.0")
    with pytest.raises(vc.VmcompatError, match=r"vendors do not match: h0 is \w+, h1 is \w+"):
        fleet.baseline(driver="test", migratable=False)


@pytest.mark.parametrize("name", PAIRS)
def test_the_expected_text_of_two_cpus_that_qemu_described(data: Path, name: str) -> None:
    guests = {host: (data / f"x86_64-cpuid-{host}-json.xml").read_text() for host in PAIRS[name]}
    base = vc.read_fleet(guests, strict=True, cpu_map="9.0.0").baseline(migratable=False)
    expected = (data / f"x86_64-cpuid-baseline-{name}.xml").read_text()
    # libvirt's test asks the driver of the architecture, which lets another model stand in; a hypervisor never does
    assert base.fallback == "forbid"
    assert base.xml.replace("fallback='forbid'", "fallback='allow'") == expected.replace(
        "fallback='forbid'", "fallback='allow'"
    )


@pytest.mark.parametrize("name", ["no-vendor", "same-model"])
def test_power_hosts_of_one_model_have_just_that_model_in_common(data: Path, name: str) -> None:
    fleet = vc.read_fleet(hosts_of(data / f"ppc64-baseline-{name}.xml"), view="host", strict=True, cpu_map="9.0.0")
    base = fleet.baseline(migratable=False)
    assert base.xml == (data / f"ppc64-baseline-{name}-result.xml").read_text()
    assert base.needs_libvirt == "9.0.0"
    assert "x86" not in repr(base)


@pytest.mark.parametrize("name", ["incompatible-models", "incompatible-vendors", "legacy"])
def test_other_power_hosts_have_no_baseline(data: Path, name: str) -> None:
    fleet = vc.read_fleet(hosts_of(data / f"ppc64-baseline-{name}.xml"), view="host", strict=True, cpu_map="9.0.0")
    with pytest.raises(vc.VmcompatError, match=r"h[01]"):
        fleet.baseline(migratable=False)
