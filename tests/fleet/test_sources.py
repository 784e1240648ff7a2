"""Where documents come from and whose they are: no host is lost, none is merged with another."""

import os
import traceback
from pathlib import Path

import pandas as pd
import pytest

import vmcompat as vc
from tests.fleet.documents import capabilities, cpu, domcapabilities
from vmcompat.errors import ConnectError, DocumentError, FrameError

U1, U2 = "a25c794c-34ad-11b2-a85c-b030533115b8", "35383339-3134-5553-4531-30314e394a50"
CAPS = capabilities(cpu())


def folder(path: Path, **files: str | bytes) -> Path:
    """Files by name; two underscores stand for the dot, one for the hyphen of names."""
    for name, text in files.items():
        target = path / name.replace("__", ".")
        target.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def codes(fleet: vc.Fleet) -> list[tuple[str, str]]:
    return list(fleet.findings[["host", "code"]].itertuples(index=False, name=None))


def test_a_folder_is_read_in_natural_order_of_its_hosts_without_subfolders(tmp_path: Path) -> None:
    for name in ("h10.xml", "h2.capabilities.xml", "h2.domcapabilities.xml", "h1.example.com.xml", "h.xml", "h02.xml"):
        (tmp_path / name).write_text(domcapabilities() if ".dom" in name else CAPS)
    (tmp_path / "notes.txt").write_text("no document")
    (tmp_path / "old.xml").mkdir()
    (tmp_path / "old.xml" / "h3.xml").write_text(CAPS)
    fleet = vc.read_fleet(tmp_path, view="host")
    assert fleet.names == ("h", "h1.example.com", "h02", "h2", "h10")
    assert list(fleet.documents["kind"][fleet.documents["host"] == "h2"]) == ["capabilities", "domcapabilities"]
    assert list(fleet.hosts["source"])[-1] == str(tmp_path / "h10.xml")


@pytest.mark.parametrize(
    ("file", "host"),
    [
        ("h1.xml", "h1"),
        ("h1.capabilities.xml", "h1"),
        ("h1.domcapabilities.pc-q35-7.2.xml", "h1"),
        ("h1.example.com.xml", "h1.example.com"),
        ("capabilities.xml", "capabilities"),
        ("h1.txt", "h1.txt"),
    ],
)
def test_a_host_is_named_after_its_file(file: str, host: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(CAPS)
    assert vc.read_fleet(tmp_path / file).names == (host,)
    assert vc.read_fleet(str(tmp_path / file)).names == (host,)


def test_plain_cpus_and_xml_text_by_name() -> None:
    fleet = vc.read_fleet({"h2": cpu("Haswell"), "h1": capabilities(cpu()).encode()})
    assert list(fleet.hosts["model"]) == ["Haswell", "Westmere"]
    guest = vc.read_fleet({"h1": "<cpu><model>Westmere</model></cpu>"})
    assert (guest.view, guest.hosts["arch"]["h1"]) == ("hypervisor", "x86_64")


def test_a_file_of_several_hosts_numbers_them_and_one_of_several_answers_is_one_host() -> None:
    several = vc.read_fleet({"all": CAPS + capabilities(cpu("Haswell"))})
    assert several.names == ("all#1", "all#2")
    one = vc.read_fleet({"h1": CAPS + domcapabilities() + domcapabilities(machine="pc-i440fx-7.2")})
    assert one.names == ("h1",)
    assert len(one.documents) == 3


TABLE = (
    "host,rack,cores_paid,watts,serial,kernel,note,libvirt,qemu,file\n"
    "h1,r1,16,12.5,007,5.10,,9.0.0,7.2.0,\n"
    'h2,r2,,300,008,6.1,"a, b",11.3.0,,second.xml\n'
    "h3,r1,32,1,009,6.1,,,,\n"
)


def test_hosts_csv_names_hosts_and_joins_its_columns_with_dtypes_that_lose_nothing(tmp_path: Path) -> None:
    fleet = vc.read_fleet(folder(tmp_path, h1__xml=CAPS, second__xml=CAPS, stray__xml=CAPS, hosts__csv=TABLE))
    hosts = fleet.hosts
    assert list(hosts.index) == ["h1", "h2", "stray", "h3"]
    assert list(hosts.columns[-6:]) == ["rack", "cores_paid", "watts", "serial", "kernel", "note"]
    dtypes = {c: str(hosts[c].dtype) for c in hosts.columns[-6:]}
    assert dtypes == {
        "rack": "str",
        "cores_paid": "Int64",
        "watts": "Float64",
        "serial": "str",
        "kernel": "str",
        "note": "str",
    }
    assert list(hosts.loc["h1", ["serial", "kernel", "libvirt", "qemu", "watts"]]) == [
        "007",
        "5.10",
        "9.0.0",
        "7.2.0",
        12.5,
    ]
    assert hosts["source"]["h2"].endswith("second.xml")
    assert hosts["note"]["h2"] == "a, b"
    assert pd.isna(hosts["cores_paid"]["h2"])
    assert pd.isna(hosts["rack"]["stray"])


def test_a_host_that_is_listed_and_has_no_document_stays_with_what_to_add(tmp_path: Path) -> None:
    fleet = vc.read_fleet(folder(tmp_path, h1__xml=domcapabilities(), hosts__csv="host,rack\nh1,r1\nh9,r2\n"))
    assert fleet.view == "hypervisor"
    assert list(fleet.hosts["cpu_status"]) == ["ok", "no_view"]
    assert fleet.hosts["rack"]["h9"] == "r2"
    (row,) = fleet.findings[fleet.findings["host"] == "h9"].to_dict("records")
    assert (row["code"], row["severity"]) == ("no_view", "error")
    assert "virsh domcapabilities" in row["remedy"]


def test_a_table_without_any_document_is_a_fleet_of_unknown_hosts(tmp_path: Path) -> None:
    fleet = vc.read_fleet(folder(tmp_path, hosts__csv="host\nh1\nh2\n"))
    assert list(fleet.unknown) == ["h1", "h2"]


@pytest.mark.parametrize("table", [b"\xef\xbb\xbfhost,rack\r\nh1,r1\r\n", b"host,rack\rh1,r1\r", b"host,rack\n\nh1,r1"])
def test_a_table_may_have_a_byte_order_mark_and_the_line_ends_of_any_system(table: bytes, tmp_path: Path) -> None:
    fleet = vc.read_fleet(folder(tmp_path, h1__xml=CAPS, hosts__csv=table))
    assert fleet.hosts["rack"]["h1"] == "r1"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("name,rack\nh1,r1\n", r"hosts\.csv:1: has no column 'host'"),
        ("host;rack\nh1;r1\n", r"hosts\.csv:1: has no column 'host'; it is a table of comma-separated"),
        ("", r"hosts\.csv:1: has no column 'host'"),
        ("host,rack\nh1\n", r"hosts\.csv:2: has more or fewer fields"),
        ("host,rack\nh1,r1,x\n", r"hosts\.csv:2: has more or fewer fields"),
        ("host,rack\nh1,r1\nh1,r2\n", r"hosts\.csv:3: host 'h1' is empty, or it or its file is named twice"),
        ("host,rack\n,r1\n", r"hosts\.csv:2: host '' is empty"),
        ("host,file\nh1,a.xml\nh2,a.xml\n", r"hosts\.csv:3: host 'h2' is empty, or it or its file is named twice"),
        ("host,rack,rack\nh1,r1,r2\n", r"hosts\.csv:1: has a column without name, or two of one name"),
        ("host,,rack\nh1,,r2\n", r"hosts\.csv:1: has a column without name"),
        ("host,model,memory\nh1,R640,256\n", r"hosts\.csv:1: has columns that documents fill: model, memory; rename"),
        ('host,rack\nh1,"r1\n', r"hosts\.csv: is no UTF-8 table"),
        ("host,rack\nh1,Süd\n".encode("latin-1"), r"hosts\.csv: is no UTF-8 table"),
        ("host,rack\nh1,r1\n".encode("utf-16"), r"hosts\.csv: is no UTF-8 table"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused_with_file_and_line(
    table: str | bytes, problem: str, tmp_path: Path
) -> None:
    folder(tmp_path, h1__xml=CAPS, a__xml=CAPS, hosts__csv=table)
    with pytest.raises(DocumentError, match=problem):
        vc.read_fleet(tmp_path, errors="collect")


def test_a_table_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, h1__xml=CAPS)
    (tmp_path / "hosts.csv").mkdir()
    with pytest.raises(DocumentError, match=r"hosts\.csv: cannot be read \(Is a directory\)"):
        vc.read_fleet(tmp_path)


def test_a_file_whose_name_the_table_gives_to_another_file_keeps_its_own(tmp_path: Path) -> None:
    table = "host,file\nh1,real.xml\n"
    fleet = vc.read_fleet(folder(tmp_path, h1__xml=capabilities(cpu("Haswell")), real__xml=CAPS, hosts__csv=table))
    assert dict(fleet.hosts["model"]) == {"h1": "Westmere", "h1.xml": "Haswell"}


def test_two_different_answers_under_one_name_are_an_error_and_never_merged(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    folder(one, h1__xml=capabilities(cpu(), uuid=U1), h2__xml=CAPS)
    folder(two, h1__xml=capabilities(cpu("Haswell"), uuid=U2))
    folder(two, **{"h1__domcapabilities__xml": domcapabilities()})
    for view in ("host", "hypervisor"):
        fleet = vc.read_fleet([one, two], view=view)
        assert fleet.names == ("h1", "h2")
        assert fleet.hosts["cpu_status"]["h1"] == "unreadable"
        (message,) = fleet.findings["message"][fleet.findings["code"] == "duplicate_name"]
        assert str(one / "h1.xml") in message
        assert str(two / "h1.xml") in message
    with pytest.raises(DocumentError, match="h1: different capabilities documents under one name"):
        vc.read_fleet([one, two], errors="raise")


def test_the_same_document_twice_is_one_and_documents_of_one_host_are_joined(tmp_path: Path) -> None:
    path = folder(tmp_path, h1__capabilities__xml=CAPS, h1__domcapabilities__xml=domcapabilities())
    fleet = vc.read_fleet([path, path / "h1.capabilities.xml"])
    assert fleet.complete
    assert list(fleet.documents["kind"]) == ["capabilities", "domcapabilities"]
    assert len(fleet.findings[fleet.findings["severity"] != "info"]) == 0


def test_one_uuid_under_two_names_is_an_error_of_both_until_one_is_dropped(tmp_path: Path) -> None:
    same, upper = capabilities(cpu(), uuid=U1), capabilities(cpu("Haswell"), uuid=U1.upper())
    folder(tmp_path, h1__xml=same, h2__xml=upper, h3__xml=capabilities(cpu(), uuid=U2))
    fleet = vc.read_fleet(tmp_path)
    assert [(h, c) for h, c in codes(fleet) if c == "duplicate_uuid"] == [
        ("h1", "duplicate_uuid"),
        ("h2", "duplicate_uuid"),
    ]
    assert "duplicate_uuid" not in set(fleet.drop("h1").findings["code"])
    assert "duplicate_uuid" in set((fleet["h1", "h3"] + fleet["h2"]).findings["code"])
    with pytest.raises(DocumentError, match=f"UUID {U1} is that of h1, h2; keep one name"):
        vc.read_fleet(tmp_path, errors="raise")


def test_a_uuid_that_the_table_contradicts_is_a_finding(tmp_path: Path) -> None:
    table = f"host,uuid\nh1,{U2}\nh2,{U2.upper()}\n"
    path = folder(
        tmp_path, h1__xml=capabilities(cpu(), uuid=U1), h2__xml=capabilities(cpu(), uuid=U2), hosts__csv=table
    )
    assert [h for h, c in codes(vc.read_fleet(path)) if c == "uuid_mismatch"] == ["h1"]


def test_domain_capabilities_of_another_architecture_are_not_joined() -> None:
    fleet = vc.read_fleet({"h1": CAPS + domcapabilities(arch="aarch64")}, view="hypervisor")
    assert codes(fleet)[0] == ("h1", "arch_mismatch")
    assert fleet.hosts["cpu_status"]["h1"] == "no_view"
    assert not (fleet.documents["arch"] == "aarch64").any()


def test_a_single_file_raises_and_folders_lists_and_mappings_collect(tmp_path: Path) -> None:
    bad = folder(tmp_path, bad__xml=CAPS[:-20], good__xml=CAPS) / "bad.xml"
    with pytest.raises(DocumentError, match=r"bad\.xml:2: not well-formed"):
        vc.read_fleet(bad)
    for source in (tmp_path, [bad, tmp_path / "good.xml"], {"bad": CAPS[:-20], "good": CAPS}):
        fleet = vc.read_fleet(source)
        assert fleet.names == ("bad", "good")
        assert dict(fleet.hosts["cpu_status"]) == {"bad": "unreadable", "good": "ok"}
        (row,) = fleet.findings[fleet.findings["code"] == "unreadable"].to_dict("records")
        assert (row["host"], row["severity"]) == ("bad", "error")
        assert ":2: not well-formed" in row["message"]
        assert row["remedy"]
        with pytest.raises(DocumentError, match="not well-formed"):
            vc.read_fleet(source, errors="raise")
    alone = vc.read_fleet(bad, errors="collect")
    assert list(alone.unknown) == ["bad"]


def test_one_bad_document_in_a_file_makes_the_whole_file_unreadable() -> None:
    fleet = vc.read_fleet({"h1": CAPS + "<domain/>"})
    assert fleet.hosts["cpu_status"]["h1"] == "unreadable"
    assert len(fleet.documents) == 0


@pytest.mark.parametrize("source", ["no/such/folder", "h1", "x" * 5000, CAPS, "nul\0byte", ""])
def test_what_does_not_exist_is_refused_and_says_how_to_give_text(source: str) -> None:
    with pytest.raises(
        FrameError, match=r"no file or folder, and no libvirt URI.*give XML text by host name"
    ) as refused:
        vc.read_fleet(source)
    assert len(str(refused.value)) < 500


def test_a_missing_path_in_a_list_is_refused_even_when_problems_are_collected(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=r"gone\.xml"):
        vc.read_fleet([folder(tmp_path, h1__xml=CAPS), tmp_path / "gone.xml"], errors="collect")


def test_a_folder_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=r"no \*\.xml in this folder \(subfolders are not read\)"):
        vc.read_fleet(tmp_path)


@pytest.mark.parametrize("source", [5, None, [5], {"h1": Path("h1.xml")}, {"h1": None}])
def test_a_source_of_no_known_kind_is_refused(source: object) -> None:
    with pytest.raises(FrameError, match=r"cannot read hosts from a|is no XML text"):
        vc.read_fleet(source)  # type: ignore[arg-type]


def test_what_cannot_be_opened_is_a_finding_and_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    folder(tmp_path, h1__xml=CAPS)
    (tmp_path / "h2.xml").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "h3.xml")
    fleet = vc.read_fleet(tmp_path)
    assert dict(fleet.hosts["cpu_status"]) == {"h1": "ok", "h2": "unreadable", "h3": "unreadable"}
    assert "No such file" in fleet.findings["message"][fleet.findings["host"] == "h2"].iloc[0]
    assert "no regular file" in fleet.findings["message"][fleet.findings["host"] == "h3"].iloc[0]


@pytest.mark.parametrize("name", ["view", "errors"])
def test_an_option_that_is_none_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(FrameError, match=f"{name}='bogus': give '"):
        vc.read_fleet({"h1": CAPS}, **{name: "bogus"})  # type: ignore[arg-type]


NOWHERE = "qemu+unix:///system?socket=/nonexistent/libvirt-sock"


@pytest.fixture
def with_libvirt() -> None:
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")


@pytest.mark.usefixtures("with_libvirt")
def test_a_live_host_gives_the_host_view_with_its_versions() -> None:
    fleet = vc.read_fleet("test:///default")
    assert fleet.view == "host"
    (row,) = fleet.hosts.to_dict("records")
    assert row["source"] == "test:///default"
    assert row["libvirt"].count(".") == 2
    # the test driver describes no real CPU: its host is known and its CPU is not
    assert row["cpu_status"] == "no_model"
    assert vc.read_fleet(["test:///default", "test:///default"]).names == fleet.names


@pytest.mark.usefixtures("with_libvirt")
def test_a_host_that_does_not_answer_is_an_error_alone_and_a_finding_in_a_list(tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="a read-only connection"):
        vc.read_fleet(NOWHERE)
    path = folder(tmp_path, h1__xml=CAPS) / "h1.xml"
    fleet = vc.read_fleet([path, NOWHERE, "qemu+tcp://127.0.0.1:1/system"])
    assert fleet.names == ("h1", NOWHERE, "127.0.0.1")
    assert list(fleet.hosts["cpu_status"]) == ["ok", "unreadable", "unreadable"]
    refused = fleet.findings[fleet.findings["host"] == "127.0.0.1"]
    assert list(refused["code"]) == ["unreadable"]
    assert "Connection refused" in refused["message"].iloc[0]
    assert "check the URI" in refused["remedy"].iloc[0]


@pytest.mark.usefixtures("with_libvirt")
@pytest.mark.parametrize(
    "uri",
    [
        "qemu+tcp://planner:hunter2@127.0.0.1:1/system",
        "QEMU+TCP://planner:hunter2@127.0.0.1:1/system",
        " qemu+tcp://planner:hunter2@127.0.0.1:1/system",
        "qemu+tcp://planner:hunter2@[::1/system",
        "nosuch+tcp://planner:hunter2@127.0.0.1:1/system",
    ],
)
def test_a_password_in_a_uri_is_never_shown(uri: str) -> None:
    fleet = vc.read_fleet([uri])
    assert len(fleet) == 1
    shown = [repr(fleet), *fleet.names, fleet.hosts.to_csv(), fleet.findings.to_csv(), fleet.documents.to_csv()]
    with pytest.raises(ConnectError) as refused:
        vc.read_fleet(uri)
    shown += traceback.format_exception(refused.value)
    assert [text for text in shown if "hunter2" in text] == []


def test_reading_changes_nothing_and_gives_the_same_frames_twice(tmp_path: Path) -> None:
    texts: dict[str, str | bytes] = {"h2": CAPS, "h1": CAPS[:-9], "h3": domcapabilities()}
    before = dict(texts)
    first, second = vc.read_fleet(texts, view="host"), vc.read_fleet(texts, view="host")
    assert texts == before
    for frame in ("hosts", "features", "reported", "findings", "documents"):
        pd.testing.assert_frame_equal(getattr(first, frame), getattr(second, frame))
