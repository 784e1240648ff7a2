"""CPU maps: the facts brought along are libvirt's, and a folder that breaks a rule of its maps is refused by file."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import vmcompat as vc
from vmcompat.fleet import cpu_map as module
from vmcompat.fleet.cpu_map import BROUGHT_ALONG, SYSTEM_FOLDER
from vmcompat.fleet.expand import differing_features

COMMITTED = Path(module.__file__).parent / "maps"

# version: vendors, features, models, non-migratable, features with aliases, candidates, candidates by vendor,
# models for hosts only, for neither, with an ancestor, -vN, compared by the map, with removed, with added, with xsaves
COUNTS = {
    "9.0.0": (3, 212, 58, 2, 22, 51, {None: 9, "Intel": 30, "AMD": 11, "Hygon": 1}, 5, 2, 0, 0, 0, 8, 0, 1),
    "11.3.0": (3, 364, 150, 2, 23, 57, {None: 9, "Intel": 35, "AMD": 12, "Hygon": 1}, 91, 2, 59, 86, 62, 16, 35, 29),
}


@pytest.mark.parametrize("version", COUNTS)
def test_the_maps_brought_along_have_the_counts_of_libvirts(version: str) -> None:
    cpu_map = vc.CpuMap.load(version)
    models = list(cpu_map.models.values())
    candidates = [m for m in models if m.guest]
    assert COUNTS[version] == (
        len(cpu_map.vendors),
        len(cpu_map.features),
        len(models),
        len(cpu_map.non_migratable),
        len(cpu_map.aliases),
        len(candidates),
        dict(Counter(m.vendor for m in candidates)),
        sum(m.host and not m.guest for m in models),
        sum(not m.host and not m.guest for m in models),
        sum(m.base is not None for m in models),
        sum(re.search(r"-v[0-9]+$", m.name) is not None for m in models),
        sum(m.compat for m in models),
        sum(bool(m.removed) for m in models),
        sum(bool(m.added) for m in models),
        sum("xsaves" in cpu_map.names(m.data) for m in models),
    )


def test_facts_of_single_models() -> None:
    old, new = vc.CpuMap.load("9.0.0"), vc.CpuMap.load("11.3.0")
    assert sum(len(m.added) for m in new.models.values()) == 2145
    assert (old.features[0], new.features[0]) == ("fpu", "pni")
    assert old.non_migratable == new.non_migratable == {"xsaves", "invtsc"}
    assert {m.name for m in old.models.values() if m.host and not m.guest} == {
        "Skylake-Client-noTSX-IBRS",
        "Skylake-Server-noTSX-IBRS",
        "Cascadelake-Server-noTSX",
        "Icelake-Client-noTSX",
        "Icelake-Server-noTSX",
    }
    v1 = new.models["Haswell-v1"]
    assert (v1.base, v1.group, v1.host, v1.guest) == ("Haswell", "Intel CPU models", True, False)
    assert v1.data == new.models["Haswell"].data
    assert (len(old.ppc64), len(new.ppc64)) == (7, 7)
    assert old.ppc64["POWER9"] == "IBM"


def test_the_newest_is_the_default_and_holds_all_names_of_the_older() -> None:
    newest = vc.CpuMap.load()
    assert newest is vc.CpuMap.load("12.8.0")
    assert (newest.version, len(newest.features), len(newest.models)) == ("12.8.0", 400, 176)
    for version in ("9.0.0", "11.3.0"):
        older = vc.CpuMap.load(version)
        assert set(older.features) < set(newest.features)
        assert set(older.models) < set(newest.models)


def test_today_the_maps_differ_in_mpx_for_ten_models() -> None:
    differing = {name: differing_features(name) for name in vc.CpuMap.load().models}
    changed = {name: names for name, names in differing.items() if names}
    assert len(changed) == 10
    assert set(changed.values()) == {("mpx",)}


@pytest.mark.parametrize("version", BROUGHT_ALONG)
def test_the_command_rebuilds_the_committed_facts_byte_for_byte(version: str, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/cpu_map" / version
    command = [sys.executable, "-m", "vmcompat.fleet.cpu_map", str(folder), version, str(tmp_path)]
    written = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert Path(written).read_bytes() == (COMMITTED / f"{version}.json").read_bytes()


def test_a_folder_that_holds_a_map_brought_along_is_that_map(shared: Path) -> None:
    assert vc.CpuMap.load(shared / "data/cpu_map/11.3.0") is vc.CpuMap.load("11.3.0")


def test_the_map_of_this_machine_is_read_as_system() -> None:
    if not (SYSTEM_FOLDER / "index.xml").is_file():
        pytest.skip(f"no libvirt here: {SYSTEM_FOLDER} is missing")
    system = vc.CpuMap.load("system")
    assert "Westmere" in system.models
    assert system.models["Westmere"].vendor == "Intel"


@pytest.mark.parametrize("name", ["9.0.1", "no/such/folder", "x" * 5000, ""])
def test_a_map_that_is_not_there_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(vc.VmcompatError, match=r"no CPU map .*9\.0\.0, 11\.3\.0, 12\.8\.0, 'system'.*folder"):
        vc.CpuMap.load(name)


FEATURES = (
    "<feature name='a'><cpuid eax_in='1' edx='0x1'/></feature><feature name='b'><cpuid eax_in='1' edx='2'/></feature>"
)
MODEL = "<model name='m'><decode host='on' guest='on'/><feature name='a'/></model>"
INDEX = "<cpus><arch name='x86'><include filename='f.xml'/></arch></cpus>"


def folder(path: Path, body: str, *, index: str = INDEX) -> Path:
    """A map folder with one included file."""
    (path / "index.xml").write_text(index)
    (path / "f.xml").write_text(f"<cpus>\n{body}\n</cpus>")
    return path


def test_a_folder_gives_a_map_named_after_it_in_its_own_order(tmp_path: Path) -> None:
    grouped = INDEX.replace("<include", "<group name='Old'><include").replace("/></arch>", "/></group></arch><arch/>")
    child = (
        "<model name='m-v2'><decode host='on' guest='off'/><model name='m'/><vendor name='V'/><feature name='b'/>"
        "<feature name='a' removed='yes'/><check partial='compat'/></model>"
    )
    vendor = "<vendor name='V' string='VVVVVVVVVVVV'/>"
    # libvirt reads a file's vendors first, then its features, then its models
    cpu_map = vc.CpuMap.load(folder(tmp_path, MODEL + child + FEATURES + vendor, index=grouped))
    assert (cpu_map.version, cpu_map.features, cpu_map.vendors) == (str(tmp_path), ("a", "b"), ("V",))
    model = cpu_map.model("m-v2")
    assert (model.base, model.vendor, model.group, model.removed, model.compat) == ("m", "V", "Old", ("a",), True)
    assert cpu_map.names(model.data) == ["a", "b"]
    assert (cpu_map.models["m"].vendor, cpu_map.models["m"].guest, model.guest) == (None, True, False)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (FEATURES + FEATURES + MODEL, "'a' .*twice"),
        (FEATURES + MODEL + MODEL, "'m' .*twice"),
        ("<vendor name='V'/><vendor name='V'/>" + FEATURES + MODEL, "'V' .*twice"),
        ("<feature/>" + MODEL, "no name"),
        (FEATURES + "<model name='m'><decode/><feature name='c'/></model>", "refers to 'c'"),
        (FEATURES + "<model name='m'><decode/><feature name='c' removed='yes'/></model>", "refers to 'c'"),
        (FEATURES + "<model name='m'><decode/><model name='later'/></model>", "refers to 'later'"),
        (FEATURES + "<model name='m'><decode/><model name='m'/></model>", "refers to 'm'"),
        (FEATURES + "<model name='m'><decode/><vendor name='V'/></model>", "refers to 'V'"),
        (FEATURES + "<model name='m'/>", "no <decode>"),
        (FEATURES + "<feature name='c'><cpuid eax_in='0x01' edx='0x01'/></feature>" + MODEL, "'c' .*bit of its own"),
        (FEATURES + "<feature name='c'><cpuid eax_in='1' edx='0x30'/></feature>" + MODEL, "'c' .*bit of its own"),
        (FEATURES + "<feature name='c'/>" + MODEL, "'c' .*bit of its own"),
        (FEATURES + "<feature name='c'><cpuid eax_in='1' edx='z'/></feature>" + MODEL, "'c' .*number"),
        (FEATURES + "<feature name='c'><cpuid eax_in='1' edx='-4'/></feature>" + MODEL, "'c' .*number"),
        (FEATURES + "<feature name='c'><msr index='1' edx='0x100000000'/></feature>" + MODEL, "'c' .*number"),
        (MODEL.replace("</model>", ""), "well-formed"),
    ],
)
def test_a_map_that_breaks_a_rule_is_refused_with_file_and_line(body: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(vc.VmcompatError, match=rf"f\.xml:[23]: .*{problem}"):
        vc.CpuMap.load(folder(tmp_path, body))


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (INDEX.replace("f.xml", "../f.xml"), r"index\.xml: includes '\.\./f\.xml'; only files beside it"),
        (INDEX.replace("f.xml", "/etc/passwd"), r"index\.xml: includes '/etc/passwd'; only files beside it"),
        (INDEX.replace("f.xml", ".."), r"index\.xml: includes '\.\.'; only files beside it"),
        (INDEX.replace(" filename='f.xml'", ""), r"index\.xml: includes ''"),
        (INDEX.replace("f.xml", "gone.xml"), r"gone\.xml: cannot be read \(No such file"),
        ("<!DOCTYPE cpus [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>" + INDEX, r"index\.xml:1: has a DTD"),
        ("", r"index\.xml:1: not well-formed"),
        ("<cpus/>", r"index\.xml: names no x86 models"),
        (INDEX.replace("x86", "ppc64"), r"index\.xml: names no x86 models"),
    ],
)
def test_an_index_that_leads_astray_is_refused_with_the_file(index: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(vc.VmcompatError, match=problem):
        vc.CpuMap.load(folder(tmp_path, FEATURES + MODEL, index=index))


def test_sets_are_names_in_map_order_and_rows_of_real_bool() -> None:
    cpu_map = vc.CpuMap.load("9.0.0")
    bits = cpu_map.set_of(["invtsc", "fpu", "not-a-feature"])
    assert cpu_map.names(bits) == ["fpu", "invtsc"]
    rows = cpu_map.rows([bits, 0, cpu_map.everything])
    assert rows.dtype == np.bool_
    assert rows.shape == (3, 212)
    assert list(rows.sum(axis=1)) == [2, 0, 212]
    assert cpu_map.rows([]).shape == (0, 212)


def test_committed_facts_hold_only_what_a_map_says() -> None:
    for version in BROUGHT_ALONG:
        facts = json.loads((COMMITTED / f"{version}.json").read_text())
        assert list(facts) == ["vendors", "features", "non_migratable", "aliases", "ppc64", "models"]
        everything = (1 << len(facts["features"])) - 1
        assert all(int(m["data"], 16) <= everything for m in facts["models"].values())
