"""Which hosts are identical, which would be but for one setting, and of which that cannot be known."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vmcompat as vc
from vmcompat.baseline.identical import TSC_TOLERANCE, Identical

GHZ = 2_000_000_000
Row = Mapping[str, object]


def host(
    *features: str,
    model: str = "Westmere",
    microcode: int = 1,
    bits: int | None = 46,
    tsc: int | None = GHZ,
    scaling: str | None = "yes",
) -> str:
    scales = f" scaling='{scaling}'" if scaling else ""
    counter = f"<counter name='tsc' frequency='{tsc}'{scales}/>" if tsc else ""
    address = f"<maxphysaddr mode='emulate' bits='{bits}'/>" if bits else ""
    listed = "".join(f"<feature name='{name}'/>" for name in features)
    return (
        f"<capabilities><host><cpu><arch>x86_64</arch><model>{model}</model><vendor>Intel</vendor>"
        f"<microcode version='{microcode}'/>{counter}{address}{listed}</cpu></host></capabilities>"
    )


def fleet_of(folder: Path, hosts: Mapping[str, str], **columns: Sequence[str]) -> vc.Fleet:
    """A fleet in a folder with a hosts.csv; all have the same QEMU and libvirt unless told otherwise."""
    columns = {"libvirt": ["9.0.0"] * len(hosts), "qemu": ["7.2.0"] * len(hosts)} | dict(columns)
    rows = [",".join(row) for row in zip(hosts, *columns.values(), strict=True)]
    (folder / "hosts.csv").write_text("\n".join([",".join(["host", *columns]), *rows]) + "\n")
    for name, text in hosts.items():
        (folder / f"{name}.capabilities.xml").write_text(text)
    return vc.read_fleet(folder)


def classes(found: Identical) -> set[tuple[str, ...]]:
    return set(found.frame["hosts"])


def test_microcode_is_shown_and_not_compared(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, {"h1": host(microcode=16), "h2": host(microcode=17), "h3": host("rtm")})
    found = vc.identical(fleet)
    assert found.frame["hosts"].tolist() == [("h1", "h2"), ("h3",)]
    assert found.frame["microcode"].tolist() == [(16, 17), (1,)]
    assert "they differ in microcode (0x10, 0x11)" in found.explain()[0]
    assert found.label.to_dict() == {"h1": "h1", "h2": "h1", "h3": "h3"}


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (host("invtsc"), "features"),  # cannot be migrated, and still is a difference
        (host(bits=52), "address bits"),
        (host(tsc=GHZ + 1_000_000), "tsc"),
        (host(scaling="no"), "tsc"),
    ],
)
def test_each_thing_compared_can_keep_two_hosts_apart_alone(tmp_path: Path, other: str, what: str) -> None:
    fleet = fleet_of(tmp_path, {"h1": host(), "h2": host(), "h3": other})
    found = vc.identical(fleet)
    assert classes(found) == {("h1", "h2"), ("h3",)}
    assert found.apart[["class", "other", "what"]].to_numpy().tolist() == [["h3", "h1", what]]
    left = [w for w in ("features", "address bits", "tsc", "qemu") if w != what]
    assert classes(vc.identical(fleet, by=left)) == {("h1", "h2", "h3")}


def test_another_qemu_and_any_column_asked_for_keep_hosts_apart(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, {"h1": host(), "h2": host()}, qemu=["7.2.0", "7.2.1"], rack=["a", "a"])
    assert classes(vc.identical(fleet)) == {("h1",), ("h2",)}
    assert classes(vc.identical(fleet, by=("features", "rack"))) == {("h1", "h2")}
    assert vc.identical(fleet).explain()[1] == "h2 (Westmere) would join h1 but for qemu 7.2.1 instead of 7.2.0"


def test_another_model_name_is_no_setting_that_could_be_mended(tmp_path: Path) -> None:
    found = vc.identical(fleet_of(tmp_path, {"h1": host(), "h2": host(model="Nehalem")}))
    assert found.apart.empty
    assert found.explain() == [
        "h1 (Westmere) is identical to no other host",
        "h2 (Nehalem) is identical to no other host",
    ]


@pytest.mark.parametrize(
    ("other", "qemu", "what"),
    [
        (host(bits=None), "7.2.0", "address bits"),
        (host(tsc=None), "7.2.0", "tsc"),
        (host(scaling=None), "7.2.0", "tsc"),
        (host(), "", "qemu"),
    ],
)
def test_what_is_not_known_is_never_the_same(tmp_path: Path, other: str, qemu: str, what: str) -> None:
    fleet = fleet_of(tmp_path, {"h1": host(), "h2": other, "h3": other}, qemu=["7.2.0", qemu, qemu])
    found = vc.identical(fleet)
    row = found.frame.loc["h2"]
    assert (row["hosts"], row["is_known"], row["unknown"]) == (("h2", "h3"), False, (what,))
    assert row["perhaps"] == ("h1",)
    assert found.label.nunique() == 3
    assert found.explain()[0] == (
        f"h2, h3 (Westmere) are alike, but not known to be identical: {what} not known; "
        "nothing known tells them from h1"
    )


def test_libvirts_that_can_report_different_features_leave_it_open(tmp_path: Path) -> None:
    hosts = {"a-old": host(), "b-new": host("vmx-ept"), "c-new": host("vmx-ept", "rtm")}
    found = vc.identical(fleet_of(tmp_path, hosts, libvirt=["9.0.0", "11.3.0", "11.3.0"]))
    assert found.label.nunique() == 3
    assert found.frame["perhaps"].tolist() == [("b-new",), ("a-old",), ()]
    assert found.frame["unreported"].tolist() == [("vmx-ept",), ("vmx-ept",), ()]
    assert found.explain()[0] == (
        "a-old (Westmere) is not known to be identical to any other host; nothing known tells it from b-new, "
        "though not all of their libvirts can report vmx-ept"
    )


def test_the_same_features_of_libvirts_of_different_vocabularies_are_not_known_to_be_the_same(tmp_path: Path) -> None:
    found = vc.identical(fleet_of(tmp_path, {"a": host(), "b": host()}, libvirt=["9.0.0", "11.3.0"]))
    assert found.label.nunique() == 2
    assert found.frame["perhaps"].tolist() == [("b",), ("a",)]
    assert "vmx-ept" in found.frame["unreported"].iloc[0]  # which the older one may well have


def test_features_beyond_every_map_count(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, {"h1": host("zzz"), "h2": host("zzz"), "h3": host()})
    found = vc.identical(fleet)
    assert classes(found) == {("h1", "h2"), ("h3",)}
    assert found.apart["lacks"].tolist() == [("zzz",)]


def test_a_host_whose_cpu_is_not_known_is_alone_unless_features_are_not_asked(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, {"h1": host(), "h2": "<capabilities><host/></capabilities>", "h3": "<truncated"})
    found = vc.identical(fleet)
    assert found.label.tolist() == ["h1", "h2", "h3"]
    assert found.explain()[1:] == [
        "h2 is not known to be identical to any other host: libvirt did not recognise the CPU",
        "h3 is not known to be identical to any other host: the document could not be read",
    ]
    assert classes(vc.identical(fleet, by="qemu")) == {("h1", "h2", "h3")}


def test_clocks_of_one_class_are_all_within_tolerance_of_one_another(tmp_path: Path) -> None:
    # 0, 180, 360 and 380 ppm: each within 250 of its neighbour, the first not of the last two
    clocks = {"h1": 0, "h2": 180, "h3": 360, "h4": 380}
    hosts = {name: host(tsc=GHZ + ppm * 2000) for name, ppm in clocks.items()}
    found = vc.identical(fleet_of(tmp_path, hosts))
    assert classes(found) == {("h2", "h3", "h4"), ("h1",)}
    assert found.explain()[1] == (
        "h1 (Westmere) would join h2, h3, h4 but for tsc 2000000000 Hz (scaling) "
        "instead of 2000360000 to 2000760000 Hz (scaling)"
    )


@given(st.lists(st.integers(GHZ, GHZ + 2_000_000), min_size=1, max_size=7))
def test_of_all_sets_of_clocks_within_tolerance_the_largest_is_a_class(clocks: list[int]) -> None:
    fleet = vc.read_fleet({f"h{i}": host(tsc=tsc) for i, tsc in enumerate(clocks)})
    found = vc.identical(fleet, by="tsc")
    tsc = fleet.hosts["tsc_frequency"].to_dict()

    def close(names: Sequence[str]) -> bool:
        return all(abs(tsc[a] - tsc[b]) * 1_000_000 <= TSC_TOLERANCE * min(tsc[a], tsc[b])
                   for a, b in combinations(names, 2))  # fmt: skip

    largest = max(n for n in range(1, len(clocks) + 1) if any(map(close, combinations(fleet.names, n))))
    assert found.frame["n_hosts"].iloc[0] == largest
    assert all(map(close, found.frame["hosts"]))
    assert sorted(h for hosts in found.frame["hosts"] for h in hosts) == list(fleet.names)


def test_the_sample_fleet_s_classes_are_those_of_comparing_every_two_hosts(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed")
    found = vc.identical(fleet)
    hosts = fleet.hosts
    facts = ["arch", "vendor", "model", "maxphysaddr", "tsc_frequency", "tsc_scaling", "qemu"]

    def same(a: str, b: str) -> bool:
        if hosts.loc[[a, b], facts].isna().to_numpy().any() or {a, b} & set(fleet.unknown):
            return False
        slower, faster = sorted(hosts["tsc_frequency"].loc[[a, b]].tolist())
        others = [c for c in facts if c != "tsc_frequency"]
        return bool(
            (hosts.loc[a, others] == hosts.loc[b, others]).all()
            and (faster - slower) * 1_000_000 <= TSC_TOLERANCE * slower
            and (fleet.features.loc[a] == fleet.features.loc[b]).all()
            and (fleet.reported.loc[a] == fleet.reported.loc[b]).all()
        )

    for a, b in combinations(fleet.names, 2):
        assert (found.label[a] == found.label[b]) == same(a, b), (a, b)


def test_what_keeps_hosts_of_the_sample_fleet_apart_is_said(samples: Path) -> None:
    told = vc.identical(vc.read_fleet(samples / "mixed")).explain()
    assert "ams-r4-h05 (Icelake-Server) would join ams-r4-h04, ams-r4-h06 but for address bits 46 instead of 52" in told
    assert (
        "ams-r2-h07 (Skylake-Server-IBRS) would join ams-r2-h08, ams-r2-h09, ams-r2-h10 but for lacking md-clear, "
        "flush-l1d" in told
    )


def test_a_narrower_question_or_the_host_view_promises_nothing_of_host_model(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed").select("rack == 'ams-r5' and libvirt == '11.3.0'")
    (narrow,) = vc.identical(fleet, by=("features", "qemu")).explain()
    (bare,) = vc.identical(fleet.with_view("host")).explain()
    assert "are alike in features, qemu; address bits, tsc not compared" in narrow
    assert "what their hypervisors give a guest was not compared" in bare


def test_another_order_of_the_hosts_changes_names_and_no_class(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed")
    turned = fleet[reversed(fleet.names)]
    ours, theirs = ({frozenset(c) for c in classes(vc.identical(f))} for f in (fleet, turned))
    assert ours == theirs


def test_the_label_groups_a_fleet(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed").select("rack == 'ams-r4'")
    fleet.hosts["identical"] = vc.identical(fleet).label
    assert fleet.baselines("identical")["n_hosts"].tolist() == [3, 2, 1]


@pytest.mark.parametrize("by", ["microcod", [], ["features", "rak"]])
def test_what_cannot_be_compared_is_refused_with_what_can(by: list[str]) -> None:
    with pytest.raises(
        vc.VmcompatError, match=r"give some of features, address bits, tsc, qemu or columns: cpu_status"
    ):
        vc.identical(vc.read_fleet({"h1": host()}), by=by)


def test_an_empty_fleet_has_no_classes(samples: Path) -> None:
    found = vc.identical(vc.read_fleet(samples / "virsh_pair").select("arch == 'none'"))
    assert found.frame.empty
    assert found.explain() == []
    assert len(found.label) == 0
