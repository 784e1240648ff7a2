"""What changed between two looks at the same hosts: only what both could speak of, with the likely cause."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vmcompat as vc
from vmcompat.baseline.drift import Drift
from vmcompat.schema import DRIFT, DRIFT_GROUPS

Documents = dict[str, str]
HOSTS = ("ams-r2-h01", "ams-r2-h02", "ams-r3-h01")


@pytest.fixture(scope="module")
def rack(samples: Path) -> Documents:
    """Both documents of some hosts in one text a host."""
    return {host: documents(samples, host) for host in HOSTS}


def documents(samples: Path, host: str) -> str:
    kinds = ("capabilities", "domcapabilities")
    return "".join((samples / "mixed" / f"{host}.{kind}.xml").read_text() for kind in kinds)


def read(texts: Documents, view: str = "hypervisor") -> vc.Fleet:
    return vc.read_fleet(texts, view=view, errors="collect")  # type: ignore[arg-type]


def replaced(texts: Documents, host: str, pattern: str, new: str) -> Documents:
    """The documents with one host's changed in all places; there has to be one."""
    text, n = re.subn(pattern, new, texts[host])
    assert n, pattern
    return texts | {host: text}


def without(texts: Documents, host: str, *features: str) -> Documents:
    """The documents as if a host's guests got none of the features any more."""
    for feature in features:
        texts = replaced(texts, host, f"<feature policy='require' name='{feature}'/>", "")
    return texts


def in_folder(folder: Path, texts: Documents, hosts: str) -> vc.Fleet:
    """A fleet whose hosts.csv says more of it."""
    folder.mkdir()
    for host, text in texts.items():
        (folder / f"{host}.xml").write_text(text)
    (folder / "hosts.csv").write_text(hosts)
    return vc.read_fleet(folder, view="hypervisor")


def cell(found: Drift, what: str) -> dict[str, Any]:
    """The only row of that kind."""
    (row,) = found.frame[found.frame["what"] == what].to_dict("records")
    return {str(column): value for column, value in row.items()}


def test_nothing_has_changed_between_a_fleet_and_itself(rack: Documents) -> None:
    found = vc.drift(read(rack), read(rack))
    assert found.frame.empty
    assert found.groups.empty
    assert found.frame.dtypes.astype(str).to_dict() == dict(DRIFT)
    assert found.groups.dtypes.astype(str).to_dict() == dict(DRIFT_GROUPS)
    assert found.ok is True
    assert found.explain() == []


def test_of_a_host_that_was_never_known_nothing_is_said_to_be_the_same(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed")
    found = vc.drift(fleet, fleet)
    assert found.frame.empty
    assert found.unknown == tuple(fleet.unknown)
    assert found.ok is None
    assert "CPU known neither before nor now" in found.explain()[0]


def test_a_lost_control_comes_first_and_is_told_with_the_microcode_that_came_with_it(rack: Documents) -> None:
    changed = without(rack, "ams-r2-h02", "md-clear")
    changed = replaced(changed, "ams-r2-h02", "<microcode version='33583110'/>", "<microcode version='33579101'/>")
    changed = replaced(changed, "ams-r3-h01", "<microcode version='83900165'/>", "<microcode version='83900166'/>")
    found = vc.drift(read(rack), read(changed))
    assert found.ok is False
    assert found.explain() == [
        "ams-r2-h02: lost control md-clear; microcode 0x2007006 -> 0x200605d; likely cause: older microcode 0x200605d",
        "ams-r3-h01: microcode 0x5003705 -> 0x5003706",
    ]
    assert cell(vc.drift(read(changed), read(rack)), "features")["cause"] == "new microcode 0x2007006"


def test_features_without_anything_else_that_changed_have_no_cause(rack: Documents) -> None:
    row = cell(vc.drift(read(rack), read(without(rack, "ams-r2-h02", "md-clear"))), "features")
    assert row["lost"] == ("md-clear",)
    assert pd.isna(row["cause"])


def test_a_control_that_an_immunity_makes_needless_is_not_missed(rack: Documents) -> None:
    immune = "".join(f"<feature policy='require' name='{f}'/>" for f in ("mds-no", "taa-no"))
    mark = "<feature policy='require' name='md-clear'/>"
    safe = replaced(rack, "ams-r2-h01", mark, mark + immune)
    found = vc.drift(read(safe), read(without(safe, "ams-r2-h01", "md-clear")))
    assert found.explain() == ["ams-r2-h01: lost md-clear, needless since it is immune"]
    assert found.ok is True


def test_what_another_vendors_cpus_call_a_control_is_a_fact_of_the_host(rack: Documents) -> None:
    mark = "<feature policy='require' name='md-clear'/>"
    strange = replaced(rack, "ams-r2-h01", mark, mark + "<feature policy='require' name='virt-ssbd'/>")
    found = vc.drift(read(strange), read(rack))
    assert found.explain() == ["ams-r2-h01: lost host fact virt-ssbd"]
    assert found.ok is True


@pytest.mark.parametrize(("gained", "ok"), [("rsba", False), ("tsa-sq-no", True)])
def test_a_gained_hazard_is_worse_and_a_gained_immunity_is_not(rack: Documents, gained: str, ok: bool) -> None:
    fleet = vc.read_fleet(rack, view="hypervisor", strict=True)
    found = vc.drift(fleet, vc.what_if(fleet, with_={"ams-r2-h01": [gained]}).fleet)
    assert cell(found, "features")["gained"] == (gained,)
    assert found.ok is ok


def test_the_worst_comes_first(rack: Documents) -> None:
    fleet = vc.read_fleet(rack | {f"{h}-b": t for h, t in rack.items()}, view="hypervisor", strict=True)
    immune = vc.what_if(fleet, with_={"ams-r3-h01": ["mds-no"]}).fleet
    lost = {"ams-r2-h01": ["aes"], "ams-r2-h02": ["md-clear"], "ams-r3-h01": ["mds-no"]}
    changed = vc.what_if(immune, without=lost, with_={"ams-r2-h01-b": ["rsba"], "ams-r2-h02-b": ["gfni"]}).fleet
    told = vc.drift(immune, changed.drop("ams-r3-h01-b")).explain()
    assert [sentence.split(";")[0] for sentence in told] == [
        "ams-r2-h02: lost control md-clear",
        "ams-r3-h01-b: not there any more",
        "ams-r3-h01: lost immunity mds-no",
        "ams-r2-h01-b: gained hazard rsba",
        "ams-r2-h01: lost aes",
        "ams-r2-h02-b: gained gfni",
    ]


def test_what_only_the_younger_libvirt_has_a_name_for_is_not_gained(samples: Path, tmp_path: Path) -> None:
    text = documents(samples, "ams-r4-h04")
    before, after = (
        in_folder(tmp_path / version, {"h": text}, f"host,libvirt\nh,{version}\n") for version in ("6.0.0", "11.3.0")
    )
    new = "sm3"
    assert not before.reported[new]["h"]
    assert after.reported[new]["h"]
    assert not after.features[new]["h"]
    mark = "<feature policy='require' name='md-clear'/>"
    assert mark in text
    more = text.replace(mark, f"{mark}<feature policy='require' name='{new}'/>")
    after = in_folder(tmp_path / "more", {"h": more}, "host,libvirt\nh,11.3.0\n")
    found = vc.drift(before, after)
    row = cell(found, "features")
    assert new in row["unreported"]
    assert new not in row["gained"]
    assert row["lost"] == ()
    back = vc.drift(after, before)
    assert new in cell(back, "features")["unreported"]
    assert cell(back, "features")["lost"] == ()
    assert back.ok is None
    assert "libvirt 6.0.0" in str(cell(back, "features")["cause"])


def test_a_host_that_cannot_be_read_any_more_has_lost_nothing_that_is_known(rack: Documents) -> None:
    cut = rack | {"ams-r2-h01": rack["ams-r2-h01"][:5000]}
    found = vc.drift(read(rack), read(cut))
    assert found.frame["what"].tolist() == ["cpu_status"]
    assert found.explain() == ["ams-r2-h01: cannot be judged any more: the document could not be read"]
    assert found.ok is None
    assert found.unknown == ("ams-r2-h01",)
    assert vc.drift(read(cut), read(rack)).explain() == [
        "ams-r2-h01: can be judged now, and could not before (the document could not be read)"
    ]


def test_a_host_that_lost_kvm_is_told_to_look_in_its_bios(rack: Documents) -> None:
    tcg = replaced(rack, "ams-r2-h01", "<domain>kvm</domain>", "<domain>qemu</domain>")
    row = cell(vc.drift(read(rack), read(tcg)), "cpu_status")
    assert row["after"] == "tcg_only"
    assert "BIOS" in str(row["cause"])


def test_hosts_that_came_and_went_are_told_apart(rack: Documents) -> None:
    new = {
        "more": replaced(rack, "ams-r3-h01", "<uuid>[^<]*", "<uuid>11111111-2222-3333-4444-555555555555")["ams-r3-h01"]
    }
    found = vc.drift(read(rack), read(new | {h: rack[h] for h in HOSTS[:2]}))
    assert found.explain() == ["ams-r3-h01: not there any more", "more: new"]
    assert found.frame["host"].tolist() == ["more", "ams-r3-h01"]
    assert (found.ok, found.n_hosts) == (None, 2)


def test_a_host_under_another_name_is_known_by_its_uuid_and_compared_with_what_it_was(rack: Documents) -> None:
    lost = without(rack, "ams-r2-h01", "md-clear")
    found = vc.drift(read(rack), read({"new-name": lost["ams-r2-h01"]} | {h: rack[h] for h in HOSTS[1:]}))
    assert found.explain() == ["new-name: was called ams-r2-h01 before; lost control md-clear"]
    assert found.frame[["before", "after"]].iloc[0].tolist() == ["ams-r2-h01", "new-name"]
    assert found.n_hosts == 3


def test_a_name_that_was_given_to_another_machine_is_both(rack: Documents) -> None:
    other = replaced(rack, "ams-r3-h01", "<uuid>[^<]*", "<uuid>11111111-2222-3333-4444-555555555555")["ams-r3-h01"]
    before = read({"a": rack["ams-r2-h01"]})
    found = vc.drift(before, read({"a": other, "b": rack["ams-r2-h01"]}))
    row = cell(found, "host")
    assert (row["host"], row["before"], row["after"]) == ("b", "a", "b")
    assert cell(found, "uuid")["host"] == "a"
    silent = replaced(rack, "ams-r2-h01", "<uuid>[^<]*</uuid>", "")["ams-r2-h01"]
    assert vc.drift(before, read({"a": silent, "b": rack["ams-r2-h01"]})).explain() == ["b: new"]


def test_a_uuid_that_two_hosts_share_names_nobody(rack: Documents) -> None:
    clone = rack | {"ams-r2-h02": rack["ams-r2-h01"]}
    found = vc.drift(read(clone), read({"new-name": rack["ams-r2-h01"], "ams-r3-h01": rack["ams-r3-h01"]}))
    assert sorted(found.explain()) == ["ams-r2-h01, ams-r2-h02: not there any more", "new-name: new"]


def test_two_hosts_that_swapped_names_are_seen_through(rack: Documents) -> None:
    swapped = rack | {"ams-r2-h01": rack["ams-r3-h01"], "ams-r3-h01": rack["ams-r2-h01"]}
    found = vc.drift(read(rack), read(swapped))
    rows = found.frame[found.frame["what"] == "uuid"].set_index("host")
    assert rows["cause"].to_dict() == {
        "ams-r2-h01": "this is the machine that was called ams-r3-h01",
        "ams-r3-h01": "this is the machine that was called ams-r2-h01",
    }


def test_another_processor_under_the_same_name_explains_all_else(rack: Documents) -> None:
    mark = "<microcode version='33583110'/>"
    before, after = (
        replaced(rack, "ams-r2-h02", mark, f"<signature family='6' model='85' stepping='{n}'/>{mark}") for n in (4, 7)
    )
    found = vc.drift(read(before), read(without(after, "ams-r2-h02", "md-clear")))
    assert found.frame.set_index("what")["cause"].to_dict() == dict.fromkeys(
        ("features", "processor"), "another machine under this name, or its board was replaced"
    )
    row = cell(found, "processor")
    assert (row["before"], row["after"]) == ("Intel 6/85/4", "Intel 6/85/7")


@pytest.mark.parametrize(
    ("microcode", "cause"),
    [
        ("", "TSX switched off by tsx=off of the kernel, since the microcode is the same"),
        ("33583111", "TSX switched off by new microcode 0x2007007, or tsx=off of the kernel"),
    ],
)
def test_lost_tsx_was_switched_off(rack: Documents, microcode: str, cause: str) -> None:
    fleet = read(rack)
    later = replaced(
        rack, "ams-r2-h02", "<microcode version='33583110'", f"<microcode version='{microcode or 33583110}'"
    )
    found = vc.drift(fleet, vc.what_if(read(later), without={"ams-r2-h02": ["hle", "rtm"]}).fleet)
    assert cell(found, "features")["cause"] == cause
    back = vc.drift(vc.what_if(fleet, without={"ams-r2-h02": ["hle", "rtm"]}).fleet, fleet)
    assert "TSX switched on" in str(cell(back, "features")["cause"])


def test_half_of_tsx_was_not_switched_off(rack: Documents) -> None:
    fleet = read(rack)
    assert fleet.features.loc["ams-r2-h02", ["hle", "rtm"]].all()
    found = vc.drift(fleet, vc.what_if(fleet, without={"ams-r2-h02": ["hle"]}).fleet)
    assert pd.isna(cell(found, "features")["cause"])


def test_lost_nesting_was_switched_off_and_one_of_its_parts_was_not(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed").select("rack == 'ams-r4'")
    host = "ams-r4-h05"
    part = next(f for f in fleet.features.columns if f.startswith("vmx-") and fleet.features[f][host])
    whole = vc.drift(fleet, vc.what_if(fleet, without={host: ["nested"]}).fleet)
    assert "kvm's option nested" in str(cell(whole, "features")["cause"])
    one = vc.drift(fleet, vc.what_if(fleet, without={host: [part]}).fleet)
    assert pd.isna(cell(one, "features")["cause"])


def test_a_whole_group_that_went_alone_is_a_setting(rack: Documents) -> None:
    fleet = read(rack)
    found = vc.drift(fleet, vc.what_if(fleet, without={"ams-r2-h02": ["avx512"]}).fleet)
    assert "AVX-512 switched off as a whole: a BIOS setting" in str(cell(found, "features")["cause"])


def test_fewer_address_bits_are_worse_and_more_are_not(rack: Documents) -> None:
    fewer = replaced(
        rack, "ams-r2-h01", "<maxphysaddr mode='emulate' bits='46'/>", "<maxphysaddr mode='emulate' bits='40'/>"
    )
    found = vc.drift(read(rack), read(fewer))
    assert found.ok is False
    assert "memory encryption" in str(cell(found, "maxphysaddr")["cause"])
    assert vc.drift(read(fewer), read(rack)).ok is True


def test_address_bits_that_only_one_document_says_are_no_change(rack: Documents) -> None:
    silent = replaced(rack, "ams-r2-h01", "<maxphysaddr [^>]*/>", "")
    assert vc.drift(read(rack), read(silent)).frame.empty


@pytest.mark.parametrize(("ppm", "changed"), [(200, False), (300, True)])
def test_a_clock_that_another_boot_measured_a_little_otherwise_is_the_same(
    rack: Documents, ppm: int, changed: bool
) -> None:
    clock = re.search(r"<counter name='tsc' frequency='(\d+)'", rack["ams-r2-h01"])
    assert clock is not None
    later = replaced(
        rack, "ams-r2-h01", clock[0], clock[0].replace(clock[1], str(int(clock[1]) * (10**6 + ppm) // 10**6))
    )
    assert (not vc.drift(read(rack), read(later)).frame.empty) is changed


def test_half_the_threads_are_hyperthreading_switched_off(samples: Path) -> None:
    text = documents(samples, "ams-r2-h01")
    cpus = re.findall(r"<cpu id='\d+'[^>]*/>", text)
    assert len(cpus) > 2
    less = text
    for cpu in cpus[::2]:
        less = less.replace(cpu, "")
    less = re.sub(r"<cpus num='(\d+)'", lambda m: f"<cpus num='{int(m[1]) // 2}'", less)
    before, after = read({"h": text}), read({"h": less})
    found = vc.drift(before, after)
    assert before.hosts["threads"]["h"] == 2 * after.hosts["threads"]["h"]
    assert "hyperthreading switched off" in str(cell(found, "threads")["cause"])
    assert found.ok is False


def test_lost_machine_types_are_worse_and_come_with_qemu(rack: Documents, tmp_path: Path) -> None:
    machine = re.findall(r"<machine [^>]*>(pc-q35-[^<]*)</machine>", rack["ams-r2-h01"])[0]
    fewer = replaced(rack, "ams-r2-h01", f"<machine [^>]*>{re.escape(machine)}</machine>", "")
    before = in_folder(tmp_path / "a", rack, "host,qemu\nams-r2-h01,4.2.1\n")
    after = in_folder(tmp_path / "b", fewer, "host,qemu\nams-r2-h01,9.1.0\n")
    found = vc.drift(before, after)
    row = cell(found, "machines")
    assert (row["before"], row["cause"]) == (machine, "QEMU 9.1.0")
    assert pd.isna(row["after"])
    assert found.ok is False


def test_a_kernel_is_compared_as_text_whatever_else_its_column_holds(rack: Documents, tmp_path: Path) -> None:
    before = in_folder(tmp_path / "a", rack, "host,kernel\nams-r2-h01,5.4\nams-r2-h02,6.1\n")
    after = in_folder(tmp_path / "b", rack, "host,kernel\nams-r2-h01,5.4\nams-r2-h02,6.12-lts\n")
    found = vc.drift(before, after)
    assert found.explain() == ["ams-r2-h02: kernel 6.1 -> 6.12-lts"]
    assert found.ok is True


def kept(fleet: vc.Fleet, **other: pd.DataFrame) -> SimpleNamespace:
    """What an earlier audit may have kept of a fleet."""
    frames = {name: getattr(fleet, name) for name in ("hosts", "features", "reported")}
    return SimpleNamespace(view=fleet.view, names=fleet.names, **(frames | other))


def test_what_was_kept_as_fractions_is_the_same_number_still(rack: Documents) -> None:
    fleet = read(rack)
    numbers = fleet.hosts.select_dtypes("Int64").columns
    before = kept(fleet, hosts=fleet.hosts.astype(dict.fromkeys(numbers, "float64")))
    assert vc.drift(before, fleet).frame.empty
    changed = replaced(rack, "ams-r2-h02", "<microcode version='33583110'/>", "<microcode version='33583111'/>")
    assert vc.drift(before, read(changed)).explain() == ["ams-r2-h02: microcode 0x2007006 -> 0x2007007"]


def test_a_hazard_that_had_no_name_before_may_be_new(rack: Documents) -> None:
    fleet = vc.read_fleet(rack, view="hypervisor", strict=True)
    after = vc.what_if(fleet, with_={"ams-r2-h01": ["rsba"]}).fleet
    found = vc.drift(kept(fleet, reported=fleet.reported.assign(rsba=False)), after)
    assert found.explain() == ["ams-r2-h01: rsba perhaps not new (no name in the earlier libvirt)"]
    assert found.ok is None


def test_hosts_with_just_the_same_changes_are_told_together(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed").select("rack == 'ams-r4'")
    less = {host: ["spec-ctrl"] for host in fleet.names} | {fleet.names[0]: ["aes"]}
    found = vc.drift(fleet, vc.what_if(fleet, without=less).fleet)
    assert found.explain()[0] == "ams-r4-h02, ams-r4-h03, ams-r4-h04, ams-r4-h05 and 1 more: lost control spec-ctrl"
    assert found.groups["n_hosts"].to_dict() == {"ams-r4-h02": 5, "ams-r4-h01": 1}
    assert found.groups["hosts"].iloc[0] == fleet.names[1:]


def test_two_views_are_two_questions(rack: Documents) -> None:
    with pytest.raises(
        vc.errors.FrameError, match=r"two questions: give both alike, such as before.with_view\('host'\)"
    ):
        vc.drift(read(rack), read(rack).with_view("host"))


def test_fleets_that_were_not_read_alike_are_refused(rack: Documents) -> None:
    with pytest.raises(vc.errors.FrameError, match="different strict"):
        vc.drift(read(rack), vc.read_fleet(rack, view="hypervisor", strict=True))
    with pytest.raises(vc.errors.FrameError, match=r"different maps \(9.0.0, "):
        vc.drift(vc.read_fleet(rack, view="hypervisor", cpu_map="9.0.0"), read(rack))


@given(
    order=st.permutations(HOSTS),
    changes=st.dictionaries(st.sampled_from(HOSTS), st.sets(st.sampled_from(["aes", "md-clear", "hle", "avx", "rtm"]))),
    gone=st.sets(st.sampled_from(HOSTS), max_size=2),
)
def test_looking_back_mirrors_and_the_order_of_hosts_changes_no_answer(
    rack: Documents, order: list[str], changes: dict[str, set[str]], gone: set[str]
) -> None:
    before = read(rack)
    less = {h: [f for f in taken if before.features[f][h]] for h, taken in changes.items()}
    after = vc.what_if(before, without={h: f for h, f in less.items() if f}).fleet.drop(*gone)
    there, back = vc.drift(before, after), vc.drift(after, before)
    columns = ["host", "what", "gained", "lost", "unreported"]
    mirrored = back.frame.rename(columns={"gained": "lost", "lost": "gained"})[columns]
    key = ["host", "what"]
    pd.testing.assert_frame_equal(
        there.frame[columns].sort_values(key, ignore_index=True), mirrored.sort_values(key, ignore_index=True)
    )
    lost = {h: set(f) for h, f in zip(there.frame["host"], there.frame["lost"], strict=True) if f}
    assert lost == {h: set(f) for h, f in less.items() if f and h not in gone}
    other = vc.drift(before[order], after[[h for h in order if h not in gone]])
    pd.testing.assert_frame_equal(
        there.frame.sort_values(key, ignore_index=True), other.frame.sort_values(key, ignore_index=True)
    )
    assert there.ok is other.ok
