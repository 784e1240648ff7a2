"""A fleet as frames: every host in one, the known CPUs in the other, dtypes that hold even where nothing is left."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import vmcompat as vc
from tests.fleet.documents import capabilities, cpu, domcapabilities
from vmcompat import schema
from vmcompat.errors import FrameError

DOCUMENTS = {
    "h1": capabilities(cpu("Westmere", "vmx"), uuid="a25c794c-34ad-11b2-a85c-b030533115b8"),
    "h2": capabilities(cpu(None)),
    "h3": capabilities(cpu("Haswell", "vmx")),
    "h10": "<not xml",
}


@pytest.fixture
def fleet() -> vc.Fleet:
    return vc.read_fleet(DOCUMENTS)


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


def empty_fleets() -> list[vc.Fleet]:
    full = vc.read_fleet(DOCUMENTS)
    return [vc.read_fleet({}), vc.read_fleet([]), full[[]], full.select("cores < 0"), full.drop(*full.names)]


def test_hosts_have_exactly_the_documented_columns_and_dtypes(fleet: vc.Fleet) -> None:
    assert dtypes(fleet.hosts) == dict(schema.HOSTS)
    assert list(fleet.hosts.columns) == list(schema.HOSTS)
    assert fleet.hosts.index.name == "host"
    assert list(fleet.hosts.index) == ["h1", "h2", "h3", "h10"]
    assert dtypes(fleet.findings) == dict(schema.FINDINGS)
    assert dtypes(fleet.documents) == dict(schema.DOCUMENTS)


@pytest.mark.parametrize("which", range(5))
def test_an_empty_fleet_keeps_every_index_column_and_dtype(which: int, fleet: vc.Fleet) -> None:
    empty = empty_fleets()[which]
    assert len(empty) == 0
    assert empty.complete
    for name in ("hosts", "features", "reported", "findings", "documents"):
        mine, full = getattr(empty, name), getattr(fleet, name)
        assert len(mine) == 0
        assert dtypes(mine) == dtypes(full), name
        assert mine.index.name == full.index.name
        if name not in ("findings", "documents"):
            assert mine.index.dtype == full.index.dtype
    assert list(empty.unknown) == []
    assert repr(empty) == "<Fleet: 0 of 0 hosts usable; host view, CPU map 12.8.0>"
    assert empty._repr_html_().startswith("<p>Fleet: 0 of 0")


def test_a_selection_keeps_the_dtypes_of_the_tables_columns_where_it_has_any(samples: Path) -> None:
    mixed = vc.read_fleet(samples / "mixed")
    rack = mixed.select("rack == 'ams-r1'")
    assert dtypes(rack.hosts) == dtypes(mixed.hosts)
    assert list(dtypes(mixed.hosts)) == [
        *schema.HOSTS,
        "rack",
        "site",
        "os",
        "kernel",
        "server",
        "bios_date",
        "purchased",
    ]
    assert str(mixed.hosts["purchased"].dtype) == "Int64"


def test_features_are_real_bool_for_the_known_hosts_in_map_order(fleet: vc.Fleet) -> None:
    features = fleet.features
    assert set(features.dtypes) == {np.dtype(bool)}
    assert features.to_numpy().dtype == np.bool_
    assert list(features.columns) == list(vc.CpuMap.load().features)
    assert (features.index.name, features.columns.name) == ("host", "feature")
    assert list(features.index) == ["h1", "h3"]
    assert list(fleet.unknown) == ["h2", "h10"]
    assert list(features.loc["h3", ["avx2", "vmx", "avx512f"]]) == [True, True, False]
    assert fleet.reported.shape == features.shape


def test_what_no_document_says_is_missing_in_hosts(fleet: vc.Fleet) -> None:
    row = fleet.hosts.loc["h10"]
    tuples = [name for name, dtype in schema.HOSTS.items() if dtype == "object"]
    assert row["cpu_status"] == "unreadable"
    assert list(row[tuples]) == [()] * len(tuples)
    assert row.drop([*tuples, "cpu_status"]).isna().all()


def test_a_query_selects_hosts_in_order(fleet: vc.Fleet) -> None:
    assert fleet.select("cpu_status == 'ok'").names == ("h1", "h3")
    assert fleet.select("host == 'h3' or model == 'Westmere'").names == ("h1", "h3")
    assert fleet.select("memory > 5").names == ()


@pytest.mark.parametrize(
    "query", ["rack == 'r1'", "model ==", "", "@nobody", "model", "'h1'", "cores + 1", "import os", "1/0"]
)
def test_a_query_that_cannot_be_asked_is_refused(query: str, fleet: vc.Fleet) -> None:
    with pytest.raises(FrameError):
        fleet.select(query)


def test_a_refused_query_lists_the_columns(fleet: vc.Fleet) -> None:
    with pytest.raises(FrameError, match=r"cannot select by \"rack == 'r1'\" .*; columns: cpu_status, arch, model"):
        fleet.select("rack == 'r1'")


def test_hosts_are_taken_by_name_in_the_order_asked_and_once(fleet: vc.Fleet) -> None:
    assert fleet["h3"].names == ("h3",)
    assert fleet["h3", "h1"].names == ("h3", "h1")
    assert fleet[["h1", "h1"]].names == ("h1",)
    assert fleet[fleet.unknown].names == ("h2", "h10")
    assert fleet.drop("h1", "h10").names == ("h2", "h3")
    assert fleet.drop().names == fleet.names


def test_a_name_that_is_not_in_the_fleet_is_refused(fleet: vc.Fleet) -> None:
    for names in (["h9"], ["h1", "h9"]):
        with pytest.raises(FrameError, match="no host 'h9' in the fleet of 4"):
            fleet[names]
        with pytest.raises(FrameError, match="no host 'h9' in the fleet of 4"):
            fleet.drop(*names)


def test_a_selection_carries_its_own_findings_and_documents(fleet: vc.Fleet) -> None:
    assert list(fleet["h10"].findings["host"]) == ["h10"]
    assert list(fleet["h1"].documents["host"]) == ["h1"]
    assert fleet["h1"].complete


def test_fleets_add_up_to_what_reading_them_together_gives(fleet: vc.Fleet) -> None:
    together = fleet["h3", "h1"] + fleet["h10", "h2"]
    assert together.names == ("h3", "h1", "h10", "h2")
    again = together[fleet.names]
    for name in ("hosts", "features", "findings", "documents"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(fleet, name))


def test_fleets_that_ask_different_questions_do_not_add_up(fleet: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="in both fleets: h1"):
        fleet + fleet["h1"]
    other = {"x": capabilities(cpu()) + domcapabilities()}
    with pytest.raises(FrameError, match="view"):
        fleet + vc.read_fleet(other)
    with pytest.raises(FrameError, match="strict"):
        fleet + vc.read_fleet(other, view="host", strict=True)
    with pytest.raises(FrameError, match=r"different maps: 12\.8\.0, 9\.0\.0"):
        fleet + vc.read_fleet(other, view="host", cpu_map="9.0.0")


def test_two_readings_of_one_map_folder_are_one_map(shared: Path, tmp_path: Path) -> None:
    for path in (shared / "data/cpu_map/9.0.0").glob("*.xml"):
        text = path.read_text()
        (tmp_path / path.name).write_text(
            text.replace("<decode host='on' guest='on'/>", "<decode host='on' guest='off'/>")
        )
    one, two = (vc.read_fleet({name: DOCUMENTS["h1"]}, cpu_map=tmp_path) for name in ("a", "b"))
    assert one.cpu_map is not two.cpu_map
    assert (one + two).names == ("a", "b")


def test_deriving_a_fleet_changes_nothing_in_the_first(fleet: vc.Fleet) -> None:
    before = {name: getattr(fleet, name).copy() for name in ("hosts", "features", "findings", "documents")}
    _ = fleet["h1"], fleet.drop("h1"), fleet.select("model == 'Haswell'"), fleet.with_view("hypervisor")
    _ = fleet["h1"] + fleet["h3"]
    for name, frame in before.items():
        pd.testing.assert_frame_equal(getattr(fleet, name), frame)


def test_the_order_of_the_documents_decides_the_order_of_rows_and_nothing_else(fleet: vc.Fleet) -> None:
    backwards = vc.read_fleet(dict(reversed(DOCUMENTS.items())))
    assert backwards.names == tuple(reversed(fleet.names))
    pd.testing.assert_frame_equal(backwards.hosts.loc[list(fleet.names)], fleet.hosts)
    pd.testing.assert_frame_equal(backwards.features.loc[fleet.features.index], fleet.features)


def test_the_repr_counts_the_unknown_by_reason(fleet: vc.Fleet) -> None:
    assert repr(fleet) == "<Fleet: 2 of 4 hosts usable: 1 no_model, 1 unreadable; host view, CPU map 12.8.0>"


def test_the_html_of_a_fleet_holds_no_markup_from_its_documents() -> None:
    text = capabilities(cpu("&lt;script&gt;alert(1)&lt;/script&gt;"))
    shown = vc.read_fleet({"h1": text, "h2": DOCUMENTS["h1"]})._repr_html_()
    assert "<script>" not in shown
    assert "Westmere" in shown


def test_address_bits_come_from_whichever_document_says() -> None:
    with_bits = capabilities(cpu(more="<maxphysaddr mode='emulate' bits='46'/>"))
    with_limit = domcapabilities().replace("<vendor>", "<maxphysaddr mode='passthrough' limit='52'/><vendor>")
    fleet = vc.read_fleet({"a": with_bits + domcapabilities(), "b": with_limit, "c": domcapabilities()})
    assert fleet.hosts["maxphysaddr"].tolist()[:2] == [46, 52]
    assert pd.isna(fleet.hosts["maxphysaddr"]["c"])
