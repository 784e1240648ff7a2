"""What is known of each CPU: the writer's map expands it, and what a document cannot say is never called missing."""

from pathlib import Path

import pandas as pd
import pytest

import vmcompat as vc
from tests.fleet.documents import capabilities, cpu, domcapabilities
from vmcompat import schema
from vmcompat.errors import FrameError
from vmcompat.fleet.expand import version

CAPS, DOM, TCG = capabilities(cpu()), domcapabilities(), domcapabilities("EPYC", virttype="qemu")


def written_by(libvirt: str | None, document: str, tmp_path: Path, **options: object) -> vc.Fleet:
    """One host h1 whose row in hosts.csv names the libvirt that wrote its document."""
    (tmp_path / "h1.xml").write_text(document)
    (tmp_path / "hosts.csv").write_text(f"host,libvirt\nh1,{libvirt or ''}\n")
    return vc.read_fleet(tmp_path, **options)  # type: ignore[arg-type]


def status(fleet: vc.Fleet, host: str = "h1") -> str:
    return str(fleet.hosts["cpu_status"][host])


def test_every_status_arises_from_a_document_and_only_known_hosts_have_features() -> None:
    fleet = vc.read_fleet(
        {
            "ok": DOM,
            "no_model": domcapabilities(None),
            "unknown_model": domcapabilities("NoSuchLake"),
            "no_view": CAPS,
            "tcg_only": TCG,
            "other_arch": domcapabilities("POWER9", arch="ppc64le"),
            "unreadable": DOM[:-20],
        },
        view="hypervisor",
    )
    assert {host: status(fleet, host) for host in fleet.names} == {name: name for name in schema.CPU_STATUS}
    assert list(fleet.features.index) == ["ok"]
    assert list(fleet.unknown) == [name for name in schema.CPU_STATUS if name != "ok"]
    assert not fleet.complete
    assert repr(fleet) == (
        "<Fleet: 1 of 7 hosts usable: 1 no_model, 1 unknown_model, 1 no_view, 1 tcg_only, 1 other_arch, 1 unreadable; "
        "hypervisor view (kvm), CPU map 12.8.0>"
    )
    for host in fleet.unknown:
        row = fleet.findings[fleet.findings["host"] == host].iloc[-1]
        assert row["code"] == host
        assert row["message"]
        assert row["remedy"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CAPS, "ok"),
        (capabilities(cpu(arch="i686")), "ok"),
        (capabilities(cpu(None)), "no_model"),
        (capabilities(""), "no_model"),
        (capabilities(cpu("NoSuchLake")), "unknown_model"),
        (capabilities(cpu(" Westmere ")), "unknown_model"),
        (capabilities(cpu("POWER9", arch="ppc64le")), "other_arch"),
        (capabilities(cpu(None, arch="s390x")), "other_arch"),
        (DOM, "no_view"),
    ],
)
def test_the_status_of_a_host_in_the_host_view(text: str, expected: str) -> None:
    assert status(vc.read_fleet({"h1": text}, view="host")) == expected


def test_an_emulated_host_among_kvm_hosts_is_unknown_and_never_a_poor_cpu() -> None:
    fleet = vc.read_fleet({"h1": DOM, "h2": TCG})
    assert (fleet.view, fleet.virttype) == ("hypervisor", "kvm")
    assert list(fleet.features.index) == ["h1"]
    (row,) = fleet.findings.query("host == 'h2'").to_dict("records")
    assert (row["code"], row["severity"]) == ("tcg_only", "error")
    assert "BIOS" in row["remedy"]


def test_a_fleet_of_emulated_hosts_is_compared_as_such() -> None:
    fleet = vc.read_fleet({"h1": TCG, "h2": TCG})
    assert (fleet.view, fleet.virttype, fleet.complete) == ("hypervisor", "qemu", True)
    assert repr(fleet).endswith("hypervisor view (qemu), CPU map 12.8.0>")
    asked = vc.read_fleet({"h1": TCG}, virttype="kvm")
    assert status(asked) == "tcg_only"


def test_virttype_chooses_between_the_answers_of_one_host() -> None:
    both = {"h1": DOM + TCG}
    assert vc.read_fleet(both).hosts["model"]["h1"] == "Westmere"
    emulated = vc.read_fleet(both, virttype="qemu")
    assert emulated.hosts["model"]["h1"] == "EPYC"
    assert list(emulated.documents["used"]) == [False, True]
    assert status(vc.read_fleet(both, virttype="xen")) == "no_view"
    assert status(vc.read_fleet({"h1": domcapabilities(virttype="xen")})) == "no_view"


def test_several_different_answers_of_a_host_are_a_finding() -> None:
    other = domcapabilities("Nehalem", machine="pc-i440fx-7.2")
    fleet = vc.read_fleet({"h1": DOM + other, "h2": DOM + domcapabilities(machine="pc-i440fx-7.2")})
    (row,) = fleet.findings.query("code == 'several_answers'").to_dict("records")
    assert (row["host"], row["severity"]) == ("h1", "warning")
    assert "pc-i440fx-7.2" in row["message"]
    assert fleet.hosts["model"]["h1"] == "Westmere"


def test_the_emulator_of_the_hosts_own_architecture_answers_first() -> None:
    small = domcapabilities("Nehalem", arch="i686", emulator="/usr/bin/qemu-system-i386")
    fleet = vc.read_fleet({"h1": small + CAPS + DOM}, view="hypervisor")
    assert fleet.hosts["model"]["h1"] == "Westmere"


@pytest.mark.parametrize(
    ("documents", "view"),
    [
        ({"h1": CAPS, "h2": CAPS}, "host"),
        ({"h1": DOM, "h2": CAPS + DOM}, "hypervisor"),
        ({"h1": DOM, "h2": "<bad"}, "hypervisor"),
        ({"h1": "<bad"}, "host"),
        ({}, "host"),
    ],
)
def test_the_default_view_is_the_one_that_all_readable_hosts_have(documents: dict[str, str], view: str) -> None:
    assert vc.read_fleet(documents).view == view


def test_a_mixture_of_views_is_refused_naming_the_hosts_and_both_remedies() -> None:
    documents = {"h1": DOM} | {f"c{i}": CAPS for i in range(12)}
    with pytest.raises(FrameError) as refused:
        vc.read_fleet(documents)
    message = str(refused.value)
    assert message.startswith("1 hosts have domain capabilities and 12 do not: c0, c1, c2, ")
    assert "c9 ..." in message
    assert "c10" not in message
    assert "virsh domcapabilities" in message
    assert "view='host'" in message


def test_the_other_view_is_given_without_reading_again(tmp_path: Path) -> None:
    (tmp_path / "h1.capabilities.xml").write_text(capabilities(cpu("Haswell", "vmx")))
    (tmp_path / "h1.domcapabilities.xml").write_text(DOM)
    fleet = vc.read_fleet(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    seen = fleet.with_view("host")
    assert (fleet.view, fleet.hosts["model"]["h1"]) == ("hypervisor", "Westmere")
    assert (seen.view, seen.hosts["model"]["h1"], seen.features.loc["h1", "vmx"]) == ("host", "Haswell", True)
    assert seen.hosts["source"]["h1"].endswith("h1.capabilities.xml")
    assert list(seen.documents["used"]) == [True, False]


SKYLAKE = domcapabilities("Skylake-Client", "clflushopt")


@pytest.mark.parametrize(
    ("libvirt", "mpx"),
    [
        ("8.0.0", True),
        ("9.0.0", True),
        ("9.0.0-4+deb12u2", True),
        ("10.0.0-2ubuntu8.6", True),
        ("11.2.0", True),
        ("11.3.0", False),
        ("11.3.0-3+deb13u1", False),
        ("12.8.0", False),
        ("12.10.0-1.fc44", False),
        ("13.0.0", False),
    ],
)
def test_a_model_is_expanded_with_the_map_of_the_libvirt_that_wrote_it(libvirt: str, mpx: bool, tmp_path: Path) -> None:
    fleet = written_by(libvirt, SKYLAKE, tmp_path)
    assert fleet.hosts["libvirt"]["h1"] == libvirt
    assert fleet.features.loc["h1", "mpx"] == mpx
    assert fleet.reported.loc["h1", "mpx"]
    assert fleet.complete
    assert len(fleet.findings) == 0


@pytest.mark.parametrize("libvirt", [None, "unknown", "n/a"])
def test_without_a_known_writer_the_fleets_map_is_used_and_a_finding_says_what_it_matters(
    libvirt: str | None, tmp_path: Path
) -> None:
    fleet = written_by(libvirt, SKYLAKE, tmp_path)
    (row,) = fleet.findings.to_dict("records")
    assert (row["host"], row["code"], row["severity"]) == ("h1", "map_matters", "info")
    assert "Skylake-Client stands for mpx" in row["message"]
    assert "12.8.0" in row["message"]
    assert "hosts.csv" in row["remedy"]
    assert not fleet.features.loc["h1", "mpx"]
    assert fleet.reported.loc["h1"].all()
    assert vc.read_fleet({"h1": SKYLAKE}, cpu_map="9.0.0").features.loc["h1", "mpx"]


@pytest.mark.parametrize("document", [DOM, domcapabilities("Skylake-Client", disabled=("mpx",))])
def test_the_map_does_not_matter_where_the_maps_agree_or_the_document_says(document: str) -> None:
    assert len(vc.read_fleet({"h1": document}).findings) == 0


def test_a_feature_younger_than_the_writers_map_is_not_reported_rather_than_missing(tmp_path: Path) -> None:
    old, new = vc.CpuMap.load("9.0.0"), vc.CpuMap.load()
    fleet = written_by("9.0.0", domcapabilities("Skylake-Client", "vmx-ept"), tmp_path)
    reported = fleet.reported.T["h1"]
    assert set(reported.index[reported]) == {*old.features, "vmx-ept"}
    assert list(reported.index) == list(new.features)
    assert fleet.features.loc["h1", "vmx-ept"]
    assert not (fleet.features & ~fleet.reported).any(axis=None)


def test_a_versioned_model_is_known_although_its_writer_is_older_than_the_first_map_with_it(tmp_path: Path) -> None:
    fleet = written_by("10.7.0", domcapabilities("Haswell-v2"), tmp_path)
    assert fleet.complete
    # that libvirt still could not name what came with 11.3
    reported = fleet.reported.T["h1"]
    assert not reported["vmx-ept"]
    assert reported[fleet.features.T["h1"]].all()


def test_a_model_that_only_other_maps_know_says_so(tmp_path: Path) -> None:
    newer = vc.read_fleet({"h1": domcapabilities("Haswell-v2")}, cpu_map="9.0.0")
    assert status(newer) == "unknown_model"
    assert "'Haswell-v2' is not in the CPU map of libvirt 9.0.0" in newer.findings["message"].iloc[0]
    assert status(written_by("11.3.0", domcapabilities("Haswell-v2"), tmp_path, cpu_map="9.0.0")) == "ok"
    nowhere = written_by("11.3.0", domcapabilities("NoSuchLake"), tmp_path)
    assert nowhere.findings["message"].iloc[0] == "no CPU map knows the model 'NoSuchLake'"


def test_a_feature_that_no_map_knows_is_a_finding_and_does_not_count() -> None:
    fleet = vc.read_fleet(
        {"h1": domcapabilities("Westmere", "vmx", "no-such"), "h2": domcapabilities("Westmere", "vmx")}
    )
    (row,) = fleet.findings.to_dict("records")
    assert (row["host"], row["code"], row["severity"]) == ("h1", "unknown_feature", "warning")
    assert "no-such" in row["message"]
    assert fleet.complete
    assert (fleet.features.loc["h1"] == fleet.features.loc["h2"]).all()


def test_policies_decide_what_a_host_model_has() -> None:
    listed = "".join(
        f"<feature name='{n}' policy='{p}'/>"
        for n, p in [
            ("vmx", "require"),
            ("avx", "force"),
            ("aes", "disable"),
            ("sse4.2", "forbid"),
            ("xsave", "optional"),
        ]
    )
    fleet = vc.read_fleet({"h1": f"<cpu><model>Westmere</model>{listed}</cpu>"})
    has = fleet.features.T["h1"][["vmx", "avx", "aes", "sse4.2", "xsave", "popcnt"]]
    assert list(has) == [True, True, False, False, False, True]


def test_strict_reads_every_document_with_the_one_map_as_that_libvirt_would(tmp_path: Path) -> None:
    strict = written_by("9.0.0", SKYLAKE, tmp_path, strict=True)
    assert not strict.features.loc["h1", "mpx"]
    assert strict.reported.loc["h1"].all()
    assert len(strict.findings) == 0
    assert written_by("11.3.0", SKYLAKE, tmp_path, strict=True, cpu_map="9.0.0").features.loc["h1", "mpx"]
    for document, name in [
        (domcapabilities("Haswell-v2"), "Haswell-v2"),
        (domcapabilities("Westmere", "bogus"), "bogus"),
    ]:
        fleet = written_by("11.3.0", document, tmp_path, strict=True, cpu_map="9.0.0")
        assert status(fleet) == "unknown_model"
        assert f"'{name}' is not in the CPU map of libvirt 9.0.0" in fleet.findings["message"].iloc[0]


def own_map(path: Path) -> vc.CpuMap:
    """A map in a folder, with Westmere other than libvirt's and a model of its own."""
    path.mkdir()
    (path / "index.xml").write_text("<cpus><arch name='x86'><include filename='f.xml'/></arch></cpus>")
    (path / "f.xml").write_text(
        "<cpus><vendor name='Intel' string='GenuineIntel'/>"
        "<feature name='vmx'><cpuid eax_in='1' ecx='0x20'/></feature>"
        "<feature name='brandnew'><cpuid eax_in='9' ecx='0x20'/></feature>"
        "<model name='Westmere'><decode host='on' guest='on'/><feature name='brandnew'/></model>"
        "<model name='FutureLake'><decode host='on' guest='on'/><feature name='vmx'/><feature name='brandnew'/></model>"
        "</cpus>"
    )
    return vc.CpuMap.load(path)


@pytest.mark.parametrize(
    ("libvirt", "model", "has"),
    [
        ("9.0.0", "Westmere", []),
        ("13.1.0", "Westmere", ["brandnew"]),
        (None, "Westmere", ["brandnew"]),
        ("9.0.0", "FutureLake", ["vmx", "brandnew"]),
        ("13.1.0", "FutureLake", ["vmx", "brandnew"]),
    ],
)
def test_a_map_from_a_folder_answers_for_what_those_brought_along_are_too_old_for(
    libvirt: str | None, model: str, has: list[str], tmp_path: Path
) -> None:
    cpu_map = own_map(tmp_path / "9-map")
    fleet = written_by(libvirt, domcapabilities(model), tmp_path, cpu_map=cpu_map)
    assert list(fleet.features.columns) == ["vmx", "brandnew"]
    row = fleet.features.T["h1"]
    assert list(row.index[row]) == has


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("9.0.0", (9, 0, 0)), ("10.0.0-2ubuntu8", (10, 0, 0)), ("12", (12,)), ("", ()), ("unknown", ()), ("v9", ())],
)
def test_a_version_is_compared_by_its_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert version(text) == numbers


def test_the_vendor_of_a_host_whose_cpu_is_not_known_comes_from_its_other_document() -> None:
    fleet = vc.read_fleet({"h1": CAPS + TCG, "h2": DOM})
    assert fleet.hosts["vendor"]["h1"] == "Intel"
    assert pd.isna(fleet.hosts["model"]["h1"])
