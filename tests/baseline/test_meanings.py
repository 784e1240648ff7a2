"""The table of meanings: complete, consistent, and true to libvirt's CPU maps and the psABI."""

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from vmcompat.baseline import meanings as room
from vmcompat.baseline.meanings import (
    GROUPS,
    LEVELS,
    MEANINGS,
    NEEDLESS,
    POLARITIES,
    SWITCHES,
    level,
    meaning,
)

MAPS = Path(__file__).parents[3] / "shared" / "data" / "cpu_map"

CONTROLS = [
    "spec-ctrl",
    "stibp",
    "ssbd",
    "ibpb",
    "ibrs",
    "amd-stibp",
    "amd-ssbd",
    "virt-ssbd",
    "md-clear",
    "flush-l1d",
    "stibp-always-on",
    "auto-ibrs",
    "sbpb",
    "ibpb-brtype",
    "rfds-clear",
    "fb-clear",
    "bhi-ctrl",
    "intel-psfd",
    "amd-psfd",
]
IMMUNITIES = [
    "rdctl-no",
    "ibrs-all",
    "skip-l1dfl-vmentry",
    "ssb-no",
    "amd-no-ssb",
    "mds-no",
    "taa-no",
    "pschange-mc-no",
    "sbdr-ssdp-no",
    "fbsdp-no",
    "psdp-no",
    "pbrsb-no",
    "gds-no",
    "rfds-no",
    "mcdt-no",
    "srso-no",
]
HAZARDS = ["rsba", "rrsba-ctrl", "zero-fcs-fds", "fdp-excptn-only"]
NOISE = ["cmt", "mbm_total", "mbm_local", "osxsave", "ospke", "monitor", "ds", "tm", "est", "acpi", "dtes64"]
GROUP_MEMBERS = {
    "crypto": "aes pclmuldq vaes vpclmulqdq sha-ni gfni rdrand rdseed adx sha512 sm3 sm4",
    "simd": "pni ssse3 sse4.1 sse4.2 popcnt avx avx2 bmi1 bmi2 f16c fma abm movbe",
    "wide simd": "avx512f avx512bw avx512-bf16 avx512-vp2intersect avx-vnni avx-ifma avx10 amx-tile amx-fp16",
    "memory and OS": "pdpe1gb pcid invpcid smep smap umip pku la57 erms fsgsbase xsave xsaves clwb rdpid",
    "tsx and mpx": "hle rtm tsx-ctrl tsx-ldtrk mpx",
    "nested virtualization": "vmx svm npt nrip-save vgif v-vmsave-vmload tsc-scale avic vnmi vmx-ept",
    "timing": "invtsc tsc-deadline tsc_adjust rdtscp x2apic",
    "confidential and enclave": "sgx sgx1 sgx2 sgxlc",
}


def features_of(version: str) -> list[str]:
    path = MAPS / version / "x86_features.xml"
    if not path.exists():
        pytest.skip(f"libvirt's CPU map {version} is not beside this checkout ({MAPS})")
    return [feature.attrib["name"] for feature in ElementTree.parse(path).getroot().iter("feature")]


@pytest.fixture
def rows() -> Iterator[list[dict[str, str]]]:
    path = Path(room.__file__).with_name("meanings.csv")
    with path.open(encoding="utf-8", newline="") as table:
        yield list(csv.DictReader(table))


@pytest.mark.parametrize("version", ["9.0.0", "11.3.0", "12.8.0"])
def test_every_feature_of_the_map_has_a_row(version: str) -> None:
    missing = [name for name in features_of(version) if name not in MEANINGS]
    assert not missing, f"features of libvirt {version} without a row: {' '.join(missing)}"


def test_no_row_names_a_feature_that_no_map_has() -> None:
    known = {name for version in ("9.0.0", "11.3.0", "12.8.0") for name in features_of(version)}
    assert set(MEANINGS) <= known


def test_rows_are_in_the_order_of_the_groups_and_name_each_feature_once(rows: list[dict[str, str]]) -> None:
    ranks = [GROUPS.index(row["group"]) for row in rows]
    assert ranks == sorted(ranks)
    assert len({row["feature"] for row in rows}) == len(rows)


def test_inside_a_group_rows_are_in_the_order_of_the_newest_map(rows: list[dict[str, str]]) -> None:
    newest = features_of("12.8.0")
    for group in GROUPS:
        positions = [newest.index(row["feature"]) for row in rows if row["group"] == group]
        assert positions == sorted(positions), group


def test_every_row_has_a_known_group_polarity_and_vendor_and_one_short_line() -> None:
    assert {row.group for row in MEANINGS.values()} == set(GROUPS)
    assert {row.polarity for row in MEANINGS.values()} == set(POLARITIES)
    for row in MEANINGS.values():
        assert row.vendor in ("", "Intel", "AMD"), row
        assert row.value >= 0, row
        assert 10 <= len(row.text) <= 110, row
        assert row.text == row.text.strip(), row
        assert "\n" not in row.text, row


def test_no_two_features_have_the_same_words() -> None:
    texts = [row.text for row in MEANINGS.values()]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("names", "polarity"),
    [(CONTROLS, "control"), (IMMUNITIES, "immunity"), (HAZARDS, "hazard"), (NOISE, "noise")],
)
def test_a_feature_with_a_known_polarity_has_it(names: list[str], polarity: str) -> None:
    assert {name: MEANINGS[name].polarity for name in names} == dict.fromkeys(names, polarity)


@pytest.mark.parametrize("group", GROUP_MEMBERS)
def test_well_known_members_are_in_their_group(group: str) -> None:
    assert {MEANINGS[name].group for name in GROUP_MEMBERS[group].split()} == {group}


def test_polarity_and_group_say_the_same() -> None:
    only_in = {
        "control": "mitigation controls",
        "immunity": "immunities",
        "hazard": "hazards",
        "noise": "host facts",
    }
    for row in MEANINGS.values():
        if row.polarity in only_in:
            assert row.group == only_in[row.polarity], row
        else:
            assert row.group not in ("immunities", "hazards", "host facts"), row
    controls = [row for row in MEANINGS.values() if row.group == "mitigation controls"]
    gates = [row.feature for row in controls if row.polarity != "control"]
    assert gates == ["arch-capabilities"]


def test_every_control_and_immunity_belongs_to_a_vendor_and_no_capability_does() -> None:
    for row in MEANINGS.values():
        if row.polarity in ("control", "immunity"):
            assert row.vendor, row
        if row.polarity in ("capability", "noise"):
            assert not row.vendor, row


def test_amd_leaves_are_amds_and_the_capabilities_register_is_intels() -> None:
    path = MAPS / "12.8.0" / "x86_features.xml"
    features_of("12.8.0")
    for feature in ElementTree.parse(path).getroot().iter("feature"):
        row = MEANINGS[feature.attrib["name"]]
        if not row.vendor:
            continue
        extended = any(int(bits.attrib["eax_in"], 16) >= 0x80000000 for bits in feature.iter("cpuid"))
        assert row.vendor == ("AMD" if extended else "Intel"), row


def test_levels_are_those_of_the_psabi_without_osxsave() -> None:
    v1 = {"cmov", "cx8", "fpu", "fxsr", "mmx", "sse", "sse2", "syscall", "lm"}
    v2 = v1 | {"cx16", "lahf_lm", "popcnt", "pni", "sse4.1", "sse4.2", "ssse3"}
    v3 = v2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
    v4 = v3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
    assert dict(LEVELS) == {"x86-64-v1": v1, "x86-64-v2": v2, "x86-64-v3": v3, "x86-64-v4": v4}
    assert list(LEVELS) == sorted(LEVELS)
    assert v4 <= set(MEANINGS)


@pytest.mark.parametrize("name", LEVELS)
def test_a_level_is_met_only_with_all_its_features(name: str) -> None:
    names = list(LEVELS)
    below = names[names.index(name) - 1] if name != names[0] else None
    own = LEVELS[name] - (LEVELS[below] if below else frozenset())
    assert level(LEVELS[name]) == name
    assert level([*LEVELS[name], "osxsave", "hypervisor"]) == name
    for feature in own:
        assert level(LEVELS[name] - {feature}) == below


def test_a_level_with_a_hole_below_it_is_not_met() -> None:
    assert level(LEVELS["x86-64-v4"] - {"sse4.2"}) == "x86-64-v1"
    assert level(set()) is None


def test_switches_hold_known_features_and_what_a_planner_expects() -> None:
    assert set(SWITCHES) == {"tsx", "mpx", "nested", "avx512", "amx", "sgx"}
    for name, features in SWITCHES.items():
        assert features, name
        assert features <= set(MEANINGS), name
    assert SWITCHES["tsx"] == {"hle", "rtm", "tsx-ctrl", "tsx-ldtrk"}
    assert SWITCHES["mpx"] == {"mpx", "vmx-entry-load-bndcfgs", "vmx-exit-clear-bndcfgs"}
    assert SWITCHES["nested"] == {row.feature for row in MEANINGS.values() if row.group == "nested virtualization"}
    assert {name for name in MEANINGS if name.startswith("avx512")} <= SWITCHES["avx512"]
    assert {name for name in MEANINGS if name.startswith("amx-")} <= SWITCHES["amx"]
    assert {name for name in MEANINGS if name.startswith("sgx")} <= SWITCHES["sgx"]


def test_nested_takes_every_vmx_and_svm_feature_of_the_map() -> None:
    path = MAPS / "12.8.0" / "x86_features.xml"
    features_of("12.8.0")
    svm_leaf = {
        feature.attrib["name"]
        for feature in ElementTree.parse(path).getroot().iter("feature")
        for bits in feature.iter("cpuid")
        if bits.attrib["eax_in"] == "0x8000000a"
    }
    vmx = {name for name in MEANINGS if name.startswith("vmx-")}
    assert SWITCHES["nested"] == svm_leaf | vmx | {"vmx", "svm"}


@pytest.mark.parametrize("name", ["tsx", "nested", "mpx", "amx", "avx512", "sgx"])
def test_no_switch_takes_a_control_or_an_immunity_away(name: str) -> None:
    assert {MEANINGS[feature].polarity for feature in SWITCHES[name]} == {"capability"}


def test_what_makes_a_control_needless_are_immunities_of_its_vendor() -> None:
    for control, immunities in NEEDLESS.items():
        assert MEANINGS[control].polarity == "control", control
        assert {(MEANINGS[name].polarity, MEANINGS[name].vendor) for name in immunities} == {
            ("immunity", MEANINGS[control].vendor)
        }, control


def test_noise_and_what_cannot_migrate_weigh_nothing() -> None:
    assert {row.value for row in MEANINGS.values() if row.polarity == "noise"} == {0.0}
    assert meaning("xsaves").value == 0
    assert meaning("invtsc").value == 0


def test_the_features_that_the_map_calls_non_migratable_weigh_nothing() -> None:
    features_of("12.8.0")
    root = ElementTree.parse(MAPS / "12.8.0" / "x86_features.xml").getroot()
    fixed = [feature.attrib["name"] for feature in root.iter("feature") if feature.get("migratable") == "no"]
    assert fixed
    assert {name: MEANINGS[name].value for name in fixed} == dict.fromkeys(fixed, 0.0)


def test_a_control_outweighs_any_one_step_between_levels() -> None:
    met: frozenset[str] = frozenset()
    for name, needed in LEVELS.items():
        step = sum(MEANINGS[feature].value for feature in needed - met)
        assert 0 < step < MEANINGS["spec-ctrl"].value, name
        met = needed


def test_a_capability_weighs_less_than_a_control_and_an_immunity_less_too() -> None:
    control = MEANINGS["md-clear"].value
    assert all(row.value < control for row in MEANINGS.values() if row.polarity != "control")


def test_a_frame_of_meanings_keeps_order_and_unknown_features() -> None:
    frame = room.meanings(["zzz", "aes", "md-clear"])
    assert list(frame.index) == ["zzz", "aes", "md-clear"]
    assert frame.index.name == "feature"
    assert list(frame.columns) == ["group", "polarity", "vendor", "value", "text"]
    assert frame[["group", "polarity", "value"]].iloc[0].tolist() == ["other", "capability", 1.0]
    assert frame["value"].dtype == "float64"


def test_an_empty_frame_has_the_same_columns_and_types() -> None:
    full, empty = room.meanings(["aes"]), room.meanings([])
    assert len(empty) == 0
    pd.testing.assert_series_equal(empty.dtypes, full.dtypes)
    assert empty.index.dtype == full.index.dtype
    assert empty.index.name == "feature"


@pytest.mark.parametrize(
    ("vendor", "intel", "amd"),
    [(None, 50, 50), ("Intel", 50, 0), ("AMD", 0, 50), ("Hygon", 0, 50), ("Zhaoxin", 50, 50)],
)
def test_a_control_counts_only_on_hosts_of_its_vendor(vendor: str | None, intel: float, amd: float) -> None:
    frame = room.meanings(["ssbd", "amd-ssbd", "avx2"], vendor=vendor)
    assert frame["value"].tolist() == [intel, amd, MEANINGS["avx2"].value]
    assert frame["vendor"].tolist() == ["Intel", "AMD", ""]


def test_the_table_is_not_read_before_it_is_asked_for() -> None:
    code = (
        "from vmcompat.baseline import meanings as room\n"
        "assert room._rows.cache_info().misses == 0\n"
        "print(len(room.MEANINGS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(MEANINGS)
