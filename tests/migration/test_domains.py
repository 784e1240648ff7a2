"""Reading many guests: none is lost, whatever is wrong with its files, and each says what it is."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vmcompat as vc
from tests.migration.scene import UUID, at, domain_xml
from vmcompat.errors import DocumentError, FrameError
from vmcompat.migration.domain import read_domain
from vmcompat.migration.domains import Domains, read_domains
from vmcompat.migration.pieces import MAX_BYTES
from vmcompat.schema import DEMAND, DOMAIN_FINDINGS, DOMAINS

OTHER_UUID = "00000000-0000-4000-8000-00000000beef"


def live(**details: str) -> str:
    return domain_xml(**details).replace("<domain ", "<domain id='7' ", 1)


def codes(domains: Domains, name: str) -> list[str]:
    found = domains.findings
    return [str(code) for code in found["code"][found["domain"] == name]]


def folder(path: Path, table: str | None = None, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        (path / f"{name}.xml").write_text(text)
    if table is not None:
        (path / "domains.csv").write_text(table)
    return path


def in_state(state: str, xml: str) -> Domains:
    (record,) = read_domains({"x": xml}).records
    return Domains(records=(replace(record, state=state),))


@pytest.fixture(scope="module")
def mixed(samples: Path) -> Domains:
    return read_domains(samples / "mixed" / "domains")


def test_every_guest_of_the_sample_is_there_in_the_order_of_its_table(mixed: Domains, samples: Path) -> None:
    lines = (samples / "mixed" / "domains" / "domains.csv").read_text().splitlines()[1:]
    table = mixed.frame.reset_index()[["domain", "host", "state", "manager"]]
    assert [",".join(row) for row in table.itertuples(index=False)] == lines
    assert list(mixed.frame.columns) == list(DOMAINS)
    assert list(mixed.findings.columns) == list(DOMAIN_FINDINGS)


def test_running_guests_have_live_xml_and_only_managers_keep_the_definition_elsewhere(mixed: Domains) -> None:
    table = mixed.frame
    assert (table["live"] == (table["state"] != "shut off")).all()
    assert set(at(table, (~table["stored"], "manager"))) == {"ovirt", "kubevirt"}


def test_the_odd_guests_of_the_sample_are_said_to_be_odd(mixed: Domains) -> None:
    assert codes(mixed, "app-08") == ["other_cpu_stored"]
    assert codes(mixed, "pg-03") == ["paused"]
    assert mixed.select("cpu_mode == 'maximum'").names == ("any-01",)
    assert set(mixed.findings["domain"]) == {"app-08", "pg-03"}


def test_the_sample_tells_the_hashes_of_both_documents(mixed: Domains) -> None:
    row = at(mixed.frame, "app-08")
    assert row["source"].endswith("app-08.xml")
    assert row["source_stored"].endswith("app-08.inactive.xml")
    assert row["sha256"] != row["sha256_stored"]
    assert at(mixed.frame, ("build-01", "sha256")) == at(mixed.frame, ("build-01", "sha256_stored"))


def test_live_and_stored_xml_are_told_apart_by_the_id_and_not_by_the_file(tmp_path: Path) -> None:
    guests = read_domains(folder(tmp_path, **{"a": domain_xml(), "b.inactive": live()}))
    assert guests.names == ("web1",)
    assert at(guests.frame, ("web1", ["live", "stored"])).tolist() == [True, True]
    assert at(guests.frame, ("web1", "source")).endswith("b.inactive.xml")


def test_a_truncated_file_is_a_finding_and_its_guest_stays(tmp_path: Path) -> None:
    table = "domain,host,state\nweb1,h1,running\nweb2,h2,running\n"
    guests = read_domains(folder(tmp_path, table, web1=live(), web2=live(name="web2")[:300]))
    assert guests.names == ("web1", "web2")
    assert codes(guests, "web2") == ["unreadable"]
    assert "web2.xml" in guests.findings["message"].iloc[0]
    assert at(guests.frame, ("web2", "host")) == "h2"
    assert repr(guests) == "<Domains: 1 of 2 guests readable; 2 running>"


def test_a_guest_whose_definition_alone_is_broken_keeps_its_live_xml(tmp_path: Path) -> None:
    guests = read_domains(folder(tmp_path, **{"web1": live(), "web1.inactive": "<domain>"}))
    assert at(guests.frame, ("web1", ["live", "stored"])).tolist() == [True, False]
    assert codes(guests, "web1") == ["unreadable"]


@pytest.mark.parametrize(
    ("table", "xml", "found"),
    [
        ("domain,state\nweb1,running\n", domain_xml(), ["no_live_xml"]),
        ("domain,state\nweb1,shut off\n", live(), ["state_mismatch"]),
        ("domain,state\nother,running\n", live(), ["not_listed"]),
        ("domain,manager\nweb1,libvirt\n",
         live(before="<metadata><n:i xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'/></metadata>"),
         ["manager_mismatch"]),
        ("domain,state\nweb1,shut off\n", domain_xml(), []),
    ],
)  # fmt: skip
def test_what_table_and_file_say_differently_is_found(tmp_path: Path, table: str, xml: str, found: list[str]) -> None:
    assert codes(read_domains(folder(tmp_path, table, web1=xml)), "web1") == found


def test_a_guest_in_the_table_without_any_file_stays(tmp_path: Path) -> None:
    guests = read_domains(folder(tmp_path, "domain,host\nweb1,h1\nlost,h2\n", web1=live()))
    assert guests.names == ("web1", "lost")
    assert codes(guests, "lost") == ["no_document"]


def test_two_guests_of_one_name_stay_two(tmp_path: Path) -> None:
    one = folder(tmp_path / "h1", "domain,host\nweb1,h1\n", web1=live())
    two = folder(tmp_path / "h2", "domain,host\nweb1,h2\n", web1=live().replace(UUID, OTHER_UUID))
    guests = read_domains([one, two])
    assert guests.frame["host"].to_dict() == {"web1": "h1", "web1#2": "h2"}
    assert codes(guests, "web1") == ["duplicate_name"]
    assert codes(guests, "web1#2") == ["duplicate_name"]


def test_a_uuid_that_two_names_share_is_an_error_of_both() -> None:
    guests = read_domains({"a": live(name="a"), "b": live(name="b")})
    assert guests.findings["code"].tolist() == ["duplicate_uuid"] * 2
    assert guests.findings["severity"].tolist() == ["error"] * 2


def test_the_same_document_twice_is_one_guest() -> None:
    guests = read_domains({"a": live(), "b": live()})
    assert guests.names == ("web1",)
    assert guests.findings.empty


def test_documents_of_hosts_in_the_folder_are_no_guests(samples: Path, tmp_path: Path) -> None:
    shutil.copy(samples / "mixed" / "ams-r1-h01.capabilities.xml", tmp_path)
    assert read_domains(folder(tmp_path, web1=live())).names == ("web1",)


@pytest.mark.parametrize("name", ["../../etc/passwd", "<b>web</b>&amp;", "web 1; rm -rf /", "=HYPERLINK(1)"])
def test_a_name_is_only_text(name: str) -> None:
    escaped = name.replace("&", "&amp;").replace("<", "&lt;")
    guests = read_domains({"x": live(name=escaped)})
    assert guests.names == (name,)
    assert guests[name].names == (name,)
    assert "<b>web" not in guests._repr_html_()


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        ("<!DOCTYPE d [<!ENTITY x 'y'>]><domain><name>&x;</name></domain>", "DTD"),
        ("", "empty"),
        ("<domainsnapshot/>", "not <domain>"),
        (" " * (MAX_BYTES + 1), "larger than"),
        (domain_xml(vcpu="<vcpu>many</vcpu>"), "not a number"),
    ],
)
def test_hostile_or_broken_xml_is_a_finding(xml: str, says: str) -> None:
    guests = read_domains({"x": xml})
    assert guests.names == ("x",)
    assert says in guests.findings["message"].iloc[0]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("name,host\n", "no column 'domain'"),
        ("domain,host\na\n", "fields"),
        ("domain\na\na\n", "twice"),
        ("domain,host\n,h1\n", "empty"),
        (b"domain\n\xff\n", "UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, table: str | bytes, says: str) -> None:
    folder(tmp_path, web1=live())
    (tmp_path / "domains.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(DocumentError, match=says):
        read_domains(tmp_path)


@pytest.mark.parametrize("source", ["no/such/folder", 7, {"web1": 7}])
def test_a_source_that_is_none_is_refused(source: object) -> None:
    with pytest.raises(FrameError):
        read_domains(source)  # type: ignore[arg-type]


def test_an_unknown_guest_or_column_is_refused(mixed: Domains) -> None:
    with pytest.raises(FrameError, match="no guest 'nobody'"):
        mixed["nobody"]
    with pytest.raises(FrameError, match="columns: host, state"):
        mixed.select("colour == 'red'")


_NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=12)


@given(st.lists(st.tuples(_NAMES, st.booleans(), st.booleans(), st.uuids()), unique_by=lambda g: g[0], max_size=8))
def test_as_many_guests_come_out_as_go_in(guests: list[tuple[str, bool, bool, object]]) -> None:
    texts = {}
    for i, (name, runs, whole, uuid) in enumerate(guests):
        escaped = name.replace("&", "&amp;").replace("<", "&lt;")
        text = (live if runs else domain_xml)(name=escaped).replace(UUID, str(uuid))
        texts[f"file {i}"] = text if whole else text[:-4]
    read = read_domains(texts)
    assert len(read) == len(guests)
    assert [record.known is not None for record in read.records] == [whole for _, _, whole, _ in guests]


@pytest.mark.parametrize(
    ("memory", "kib"),
    [
        ("<memory>1024</memory>", 1024), ("<memory unit='GiB'>2</memory>", 2097152),
        ("<memory unit='b'>1025</memory>", 2), ("<memory unit='MB'>1</memory>", 977),
        ("<memory unit='parsec'>1</memory>", None), ("", None),
    ],
)  # fmt: skip
def test_memory_is_read_in_libvirts_units(memory: str, kib: int | None) -> None:
    assert read_domain(domain_xml(memory=memory), source="x").memory == kib


@pytest.mark.parametrize(
    ("device", "named"),
    [
        ("<hostdev type='pci'><source><address domain='0x0000' bus='0x3b' slot='0x1f' function='0x0'/></source>"
         "</hostdev>", "pci 0000:3b:1f.0"),
        ("<hostdev type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>", "usb 1234:beef"),
        ("<hostdev type='mdev'><source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>",
         "mdev c2177883-f1bb-47f0-914d-32a22e3a8804"),
        ("<interface type='hostdev'><source><address type='pci' domain='0x0000' bus='0x00' slot='0x07' function='0x0'/>"
         "</source></interface>", "pci 0000:00:07.0"),
    ],
)  # fmt: skip
def test_devices_of_the_host_are_named_as_the_host_names_them(device: str, named: str) -> None:
    assert read_domain(domain_xml(devices=device), source="x").hostdevs == (named,)


# ---- what they demand


def test_the_demand_of_a_running_guest_is_that_of_its_live_xml(mixed: Domains, samples: Path) -> None:
    needs = vc.demand(mixed, fleet=vc.read_fleet(samples / "mixed"))
    assert list(needs.columns) == list(DEMAND)
    assert list(needs.index) == list(mixed.names)
    app = at(needs, "app-08")
    assert app["model"] == "Skylake-Server-IBRS"
    assert "avx512f" in app["features"]
    assert app["unknown"] == ()
    clock = at(needs, "rt-clock-01")
    assert (clock["tsc_frequency"], "invtsc" in clock["features"]) == (2095455000, True)
    assert at(needs, ("sap-01", "nodes")) == (0, 1, 2, 3)
    assert at(needs, ("sap-01", "page_sizes")) == (1048576,)
    assert at(needs, ("big-01", "maxphysaddr")) == 46
    assert at(needs, ("instance-000000a4", "pins"))
    assert "reenlightenment" in at(needs, ("win-ts-01", "hyperv"))


def test_what_a_running_guest_was_given_of_its_host_is_not_known_from_its_xml(mixed: Domains) -> None:
    needs = vc.demand(mixed)
    assert at(needs, ("any-01", ["mode", "features", "unknown"])).tolist() == ["maximum", (), ("features",)]
    assert "maxphysaddr" in at(needs, ("ml-02", "unknown"))


def test_without_the_libvirt_that_wrote_the_xml_a_feature_may_be_in_doubt(mixed: Domains) -> None:
    doubtful = vc.demand(mixed)["unknown"].map(lambda u: "feature mpx" in u)
    assert doubtful.any()
    assert not any("mpx" in features for features in at(vc.demand(mixed), (doubtful, "features")))


def test_a_guest_that_is_off_demands_what_its_definition_asks_for() -> None:
    needs = vc.demand(read_domains({"x": domain_xml(cpu="<cpu mode='host-model'/>")}))
    assert "features" in at(needs, ("web1", "unknown")), "whether it runs is not known"
    off = in_state("shut off", domain_xml(cpu="<cpu mode='host-model'/>"))
    assert at(vc.demand(off), ("web1", ["features", "unknown"])).tolist() == [(), ()]


def test_a_running_guest_with_only_a_definition_demands_a_cpu_that_nobody_knows() -> None:
    needs = vc.demand(in_state("running", domain_xml()))
    assert at(needs, ("web1", "features")) == ()
    assert "features" in at(needs, ("web1", "unknown"))
    assert at(needs, ("web1", "machine")) == "pc-q35-7.2"


def test_nothing_is_known_of_what_cannot_be_read() -> None:
    needs = vc.demand(read_domains({"x": "<domain>"}))
    assert set(at(needs, ("x", "unknown"))) == set(DEMAND) - {"unknown"}
