"""Hosts that should be identical: what counts as a difference, what does not, and what is said of it."""

from pathlib import Path

import pytest

import vmcompat as vc


def host(
    *features: str, libvirt_model: str = "Westmere", microcode: int = 1, bits: int = 46, tsc: int | None = None
) -> str:
    counter = f"<counter name='tsc' frequency='{tsc}' scaling='no'/>" if tsc else ""
    listed = "".join(f"<feature name='{name}'/>" for name in features)
    return (
        f"<capabilities><host><cpu><arch>x86_64</arch><model>{libvirt_model}</model><vendor>Intel</vendor>"
        f"<microcode version='{microcode}'/>{counter}<maxphysaddr mode='emulate' bits='{bits}'/>{listed}"
        f"</cpu></host></capabilities>"
    )


def test_features_that_split_the_hosts_alike_are_one_row_with_what_tells_them_apart() -> None:
    fleet = vc.read_fleet({"h1": host("hle", "rtm"), "h2": host("hle", "rtm"), "h3": host(microcode=2)})
    twins = vc.twins(fleet)
    (row,) = twins.frame.to_dict("records")
    assert (row["features"], row["hosts"], row["n_hosts"]) == (("hle", "rtm"), ("h3",), 3)
    assert row["explained_by"] == ("microcode",)
    assert twins.explain() == ["Westmere: 1 of 3 hosts has no hle, rtm: h3 (apart by microcode)"]


def test_a_column_that_differs_inside_one_side_explains_nothing() -> None:
    fleet = vc.read_fleet({"h1": host("rtm"), "h2": host("rtm", microcode=2), "h3": host(microcode=2)})
    assert vc.twins(fleet).frame["explained_by"].tolist() == [()]


def test_identical_hosts_are_no_row_and_are_counted() -> None:
    fleet = vc.read_fleet({"h1": host(), "h2": host(), "h3": host(libvirt_model="Nehalem")})
    twins = vc.twins(fleet)
    assert twins.frame.empty
    assert twins.n_groups == 1
    assert repr(twins) == "<Twins by model: 0 of 1 groups differ in 0 ways>"


def test_what_an_old_libvirt_cannot_name_is_no_difference(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed").select("server == 'HPE ProLiant DL360 Gen10' and rack == 'ams-r2'")
    named = {name for row in vc.twins(fleet, by="server").frame["features"] for name in row}
    assert not {name for name in named if name.startswith("vmx-")}
    assert "md-clear" in named


def test_address_bits_and_clocks_beyond_tolerance_are_differences() -> None:
    clocks = {"h1": 2_000_000_000, "h2": 2_000_000_000 + 180_000, "h3": 2_000_000_000 + 520_000}
    fleet = vc.read_fleet({name: host("invtsc", tsc=tsc, bits=45 + (name == "h1")) for name, tsc in clocks.items()})
    rows = {row["what"]: row for row in vc.twins(fleet).frame.to_dict("records")}
    assert rows["maxphysaddr"]["hosts"] == ("h1",)
    # h2 and h3 are 170 ppm apart, h1 and h3 260
    assert rows["tsc_frequency"]["hosts"] == ("h1", "h3")


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(vc.VmcompatError, match="no column 'rak'; columns: cpu_status"):
        vc.twins(vc.read_fleet({"h1": host()}), by="rak")
