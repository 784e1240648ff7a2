"""Documents from strangers become records, or one clear error with file and line; nothing else ever happens."""

import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmcompat as vc
from tests.fleet.documents import capabilities, cpu, domcapabilities
from vmcompat.errors import DocumentError
from vmcompat.fleet.records import Document, read_documents

SECONDS = 3.0  # what is done in a tenth of that on an idle machine


def read(xml: str | bytes) -> list[Document]:
    return read_documents(xml.encode() if isinstance(xml, str) else xml, source="h1.xml")


def facts(xml: str) -> dict[str, object]:
    (document,) = read(xml)
    return dict(document.facts)


CELLS = """
<topology><cells num='2'>
<cell id='0'><memory unit='KiB'>1024</memory><cpus>
<cpu id='0' socket_id='0' die_id='0' core_id='0'/><cpu id='1' socket_id='0' die_id='0' core_id='0'/>
<cpu id='2' socket_id='0' die_id='1' core_id='0'/><cpu id='3'/></cpus></cell>
<cell id='2'><memory unit='MiB'>1</memory><cpus><cpu id='4' socket_id='1' core_id='0'/></cpus></cell>
</cells></topology>
"""


def test_totals_of_a_host_are_counted_over_its_cells() -> None:
    known = facts(capabilities(cpu(more="<topology sockets='1' dies='1' cores='9' threads='1'/>"), more=CELLS))
    assert {n: known[n] for n in ("sockets", "dies", "cores", "threads", "numa_cells", "memory")} == {
        "sockets": 2,
        "dies": 3,
        "cores": 3,
        "threads": 4,
        "numa_cells": 2,
        "memory": 2048,
    }
    assert (known["node_ids"], known["cpu_ids"]) == ((0, 2), (0, 1, 2, 3, 4))


def test_without_cells_the_topology_of_the_cpu_counts() -> None:
    known = facts(capabilities(cpu(more="<topology sockets='2' dies='2' cores='8' threads='2'/>")))
    assert [known[n] for n in ("sockets", "dies", "cores", "threads")] == [2, 4, 32, 64]


def test_what_a_host_says_of_migration_security_and_its_emulators_is_read() -> None:
    guest = (
        "<guest><arch name='x86_64'><emulator>/bin/q</emulator><machine>pc</machine><machine>q35</machine>"
        "<domain type='qemu'/><domain type='kvm'><machine>pc</machine><machine>microvm</machine></domain></arch>"
        "<arch name='i686'><machine>isapc</machine></arch></guest>"
    )
    more = (
        "<migration_features><live/><uri_transports><uri_transport>tcp</uri_transport><uri_transport>rdma"
        "</uri_transport></uri_transports></migration_features>"
        "<secmodel><model>apparmor</model></secmodel><secmodel><model>dac</model></secmodel>"
    )
    text = capabilities(cpu(), uuid="A25C794C-34AD-11B2-A85C-B030533115B8", more=more)
    known = facts(text.replace("</capabilities>", guest + "</capabilities>"))
    assert known["transports"] == ("tcp", "rdma")
    assert known["security_models"] == ("apparmor", "dac")
    assert known["machines"] == ("pc", "q35", "microvm")
    assert known["emulators"] == ("/bin/q",)
    assert known["virttypes"] == ("qemu", "kvm")
    assert known["uuid"] == "a25c794c-34ad-11b2-a85c-b030533115b8"


HOSTILE = ["", "x", "-5", "1e9", "0x10", "1.5", "٣", "9" * 18, "9" * 19, "9" * 30, "9" * 5000, "18446744073709551615"]


@pytest.mark.parametrize("number", HOSTILE)
@pytest.mark.parametrize(
    "place",
    [
        "<topology><cells><cell id='{}'><memory unit='KiB'>1</memory></cell></cells></topology>",
        "<topology><cells><cell id='0'><memory unit='GiB'>{}</memory></cell></cells></topology>",
        "<topology><cells><cell id='0'><memory unit='{}'>5</memory></cell></cells></topology>",
        "<topology><cells><cell><cpus><cpu id='{0}' socket_id='{0}' core_id='{0}'/></cpus></cell></cells></topology>",
        "<cpu><pages unit='MiB' size='{}'/>",
        "<cpu><microcode version='{}'/>",
        "<cpu><counter name='tsc' frequency='{}'/>",
        "<cpu><signature family='{0}' model='{0}' stepping='{0}'/>",
        "<cpu><topology sockets='{0}' dies='{0}' cores='{0}' threads='{0}'/>",
        "<cpu><maxphysaddr mode='emulate' bits='{}'/>",
        "<cpu><maxphysaddr mode='passthrough' limit='{}'/>",
    ],
)
def test_no_number_of_a_document_breaks_a_frame(place: str, number: str) -> None:
    more = place.format(number)
    inside = more.startswith("<cpu>")
    text = capabilities(cpu(more=more[5:])) if inside else capabilities(cpu(), more=more)
    fleet = vc.read_fleet({"h1": text})
    assert fleet.hosts["cpu_status"]["h1"] in ("ok", "unreadable")
    numbers = fleet.hosts.select_dtypes("Int64").loc["h1"].dropna()
    assert (numbers >= 0).all()


def test_a_memory_that_cannot_be_read_is_missing_and_not_too_small() -> None:
    broken = CELLS.replace("<memory unit='MiB'>1<", "<memory unit='parsec'>1<")
    assert "memory" not in facts(capabilities(cpu(), more=broken))
    assert facts(capabilities(cpu(), more=broken))["numa_cells"] == 2


def test_domain_capabilities_give_the_host_model_and_what_the_emulator_lists() -> None:
    text = domcapabilities("Haswell", "vmx", disabled=("hle",)).replace(
        "<model usable='yes'>Westmere</model>",
        "<model usable='yes' canonical='x'>Westmere</model><model usable='no' deprecated='yes'>EPYC</model>"
        "<blockers model='EPYC'><feature name='sse4a'/></blockers>"
        "<model usable='unknown'>486</model><model>old</model>",
    )
    (document,) = read(text)
    assert (document.kind, document.arch, document.virttype, document.machine, document.emulator) == (
        "domcapabilities",
        "x86_64",
        "kvm",
        "pc-q35-7.2",
        "/usr/bin/qemu-system-x86_64",
    )
    assert document.cpu is not None
    assert (document.cpu.arch, document.cpu.model, document.cpu.mode) == (None, "Haswell", "custom")
    assert document.cpu.features == (("vmx", "require"), ("hle", "disable"))
    listed = [(m.name, m.usable, m.blockers, m.deprecated, m.canonical) for m in document.models]
    assert listed == [
        ("Westmere", True, (), False, "x"),
        ("EPYC", False, ("sse4a",), True, None),
        ("486", None, None, False, None),
    ]


def test_a_host_model_that_is_not_supported_is_no_cpu() -> None:
    (document,) = read(domcapabilities(None))
    assert document.cpu is None


def test_several_documents_in_one_file_are_read_as_virsh_takes_them() -> None:
    text = "<?xml version='1.0'\n?>" + capabilities(cpu()) + "\n<!-- and -->\n" + domcapabilities() + cpu()
    assert [d.kind for d in read(text)] == ["capabilities", "domcapabilities", "cpu"]
    with pytest.raises(DocumentError, match=r"^h1\.xml:4: "):
        read(capabilities(cpu()) + "<?xml version='1.0'?>" + capabilities(cpu()))
    with pytest.raises(DocumentError, match=r"^h1\.xml:5: .*tag mismatch"):
        read("<?xml version='1.0'\n?>" + capabilities(cpu()) + "<cpu></cup>")


def test_a_document_keeps_the_hash_of_its_file() -> None:
    both = read(capabilities(cpu()) + domcapabilities())
    assert len({d.sha256 for d in both}) == 1
    assert both[0].sha256 != read(capabilities(cpu()))[0].sha256


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", ": the file is empty"),
        (b" \n\t ", ": the file is empty"),
        (bytes(range(256)) * 20, ":1: not well-formed"),
        (b"\x7fELF\x02\x01\x01" + bytes(99), ":1: not well-formed"),
        (b"<cpu>\n\0</cpu>", ":2: not well-formed"),
        (b"error: failed to connect to the hypervisor", ":1: not well-formed"),
        (b"<capabilities>\n<host>", ":2: not well-formed"),
        (capabilities(cpu()).encode()[:-30], ":2: not well-formed"),
        (b"<qemuCaps/>", ": holds no document"),
        (b"<capabilities/>", ":1: <capabilities> without <host>"),
        (b"\n<domain type='kvm'/>", ":2: root element is <domain>; a domain is no host"),
        (b"<html><body/></html>", ":1: root element is <html>; expected the output of virsh capabilities"),
        (b"<capabilities xmlns='urn:x'><host/></capabilities>", ":1: root element is <{urn:x}capabilities>"),
        (b"<?xml version='1.0' encoding='UTF-16'?><cpu/>", ":1: not well-formed"),
        (b"<?xml version='1.0' encoding='no-such'?><cpu/>", ":1: not well-formed"),
        ("<cpu>\n<model>Grüße</model></cpu>".encode("latin-1"), ":2: not well-formed"),
        (capabilities(cpu()).encode("utf-16")[:-7], "not well-formed"),
        ("<foo/>".encode("cp037"), ":1: not well-formed"),
        (b"<cpu>&lol;</cpu>", ":1: not well-formed"),
        (b"<cpu a='1' a='2'/>", ":1: not well-formed"),
    ],
)
def test_a_document_that_is_none_is_one_error_with_file_and_line(data: bytes, problem: str) -> None:
    with pytest.raises(DocumentError) as refused:
        read(data)
    assert str(refused.value).startswith("h1.xml")
    assert problem in str(refused.value)
    assert refused.value.source == "h1.xml"
    assert len(str(refused.value)) < 600


def doctype(declarations: str, body: str = "&a;") -> str:
    return f"<?xml version='1.0'?>\n<!DOCTYPE cpu [{declarations}]>\n<cpu>{body}</cpu>"


LAUGHS = "<!ENTITY l0 'lol'>" + "".join(f"<!ENTITY l{i + 1} '{f'&l{i};' * 10}'>" for i in range(12))


@pytest.mark.parametrize(
    "text",
    [
        doctype("<!ENTITY a 'x'>"),
        doctype("<!ENTITY a SYSTEM 'file:///etc/passwd'>"),
        doctype("<!ENTITY a PUBLIC '-//x' 'file:///etc/passwd'>"),
        doctype("<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;", ""),
        doctype("<!ENTITY % p '<!ENTITY a SYSTEM \"file:///etc/passwd\">'> %p;"),
        doctype("<!ATTLIST cpu mode CDATA 'custom'>", ""),
        doctype(LAUGHS, "&l12;"),
        doctype(LAUGHS, "<feature name='&l12;'/>"),
        doctype(f"<!ENTITY a '{'x' * 50_000}'>", "&a;" * 50_000),
        "\n<!DOCTYPE cpu SYSTEM 'cpu.dtd'>\n<cpu/>",
        "<?xml version='1.0'?>\n<!DOCTYPE cpu>\n<cpu/>",
    ],
)
def test_entities_and_dtds_are_refused_at_once_and_nothing_is_expanded(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(DocumentError, match=r"^h1\.xml:2: has a DTD, which no libvirt document has; remove it$"):
        read(text)
    assert time.monotonic() - started < SECONDS


def test_a_dtd_that_an_encoding_hides_is_refused_too() -> None:
    text = "<!DOCTYPE cpu [<!ENTITY a 'x'>]><cpu>&a;</cpu>"
    with pytest.raises(DocumentError, match="has a DTD"):
        read(text.encode("utf-16"))
    with pytest.raises(DocumentError, match="has a DTD"):
        read("<!-- <cpu> -->" + text)


@pytest.fixture
def listener() -> Iterator[tuple[str, list[object]]]:
    """An address that writes down who calls."""
    calls: list[object] = []
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.2)
    done = threading.Event()

    def answer() -> None:
        while not done.is_set():
            try:
                connection, caller = server.accept()
            except TimeoutError:
                continue
            calls.append(caller)
            connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/x", calls
    done.set()
    thread.join()
    server.close()


def test_no_document_makes_a_call_to_the_network(listener: tuple[str, list[object]]) -> None:
    url, calls = listener
    texts = [
        f"<!DOCTYPE cpu SYSTEM '{url}'><cpu/>",
        doctype(f"<!ENTITY a SYSTEM '{url}'>"),
        doctype(f"<!ENTITY % p SYSTEM '{url}'> %p;", ""),
    ]
    for text in texts:
        with pytest.raises(DocumentError):
            read(text)
    include = f"<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='{url}'/>"
    schema = f"xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance' xsi:noNamespaceSchemaLocation='{url}'"
    read(f"<?xml-stylesheet href='{url}'?><cpu {schema}>{include}</cpu>")
    time.sleep(0.3)
    assert calls == []


MIB = 1 << 20


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"<cpu>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</cpu>", "well-formed"),
        (b"<cpu><model>" + b"x" * (20 * MIB) + b"</model></cpu>", "well-formed"),
        (b"<cpu>" + b" " * (65 * MIB) + b"</cpu>", "larger than 67108864 bytes"),
        (b"<cpu>" + b"<a/>" * (15 * MIB) + b"</cpu>", "more than 1000000 tags and attributes"),
        (("<cpu>" + "<a/>" * (7 * MIB) + "</cpu>").encode("utf-16"), "more than 1000000 tags and attributes"),
        (b"<cpu " + b" ".join(b"a%d='1'" % i for i in range(1_100_000)) + b"/>", "more than 1000000 tags"),
        (cpu("Westmere", *(f"f{i}" for i in range(100_000))).encode(), "<cpu> with 100000 features"),
        (b"<" + b"a" * (15 * MIB) + b"/>", "well-formed"),
    ],
    ids=["deep", "huge-text", "65-MiB", "tiny-tags", "tiny-tags-utf16", "attributes", "features", "long-name"],
)
def test_what_is_too_large_is_refused_in_bounded_time_and_memory(data: bytes, problem: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with pytest.raises(DocumentError, match=problem):
        read(data)
    assert time.monotonic() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024  # [KiB]


@pytest.mark.parametrize(
    "where", ["<cpu{}>", "<cpu><model{}>", "<cpu><maxphysaddr mode='emulate'{}/>", "<cpu><cache mode='disable'{}/>"]
)
def test_a_hundred_thousand_attributes_that_libvirt_ignores_cost_no_time(where: str) -> None:
    attributes = "".join(f" a{i}='1'" for i in range(100_000))
    opened = where.format(attributes)
    closed = "Westmere</model></cpu>" if "<model" in where else "<model>Westmere</model></cpu>"
    started = time.monotonic()
    (document,) = read(opened + closed)
    assert time.monotonic() - started < SECONDS
    assert document.cpu is not None
    assert document.cpu.model == "Westmere"


def test_all_real_documents_are_read_and_the_rest_refused_by_its_root(shared: Path) -> None:
    kinds: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    folder = shared / "data/libvirt-9.0.0"
    for path in sorted(folder.glob("*/*.xml")):
        try:
            kinds.update(f"{path.parent.name} {d.kind}" for d in read_documents(path.read_bytes(), source=path.name))
        except DocumentError as e:
            refused[e.problem.partition(";")[0]] += 1
    assert kinds == {
        "capabilities capabilities": 15,
        "domaincapsdata domcapabilities": 61,
        "cputestdata cpu": 284,
        "qemucapabilities qemucaps": 4,  # KVM and emulation apart
    }
    assert refused == {"root element is <cpudata>": 163, "root element is <cpuTest>": 11}


# sockets, dies, cores, threads, cells, memory [KiB], read off the documents
TOTALS = {
    "caps-qemu-kvm": (2, 2, 16, 16, 2, 32_685_600),
    "caps-test3": (1, 1, 6, 12, 2, 25_155_320),
    "vircaps-x86_64-basic": (4, 4, 16, 16, 4, 10_485_760),
    "vircaps-x86_64-basic-dies": (2, 6, 12, 12, 1, 1_048_576),
    "vircaps-x86_64-caches": (1, 1, 4, 8, 1, 1_048_576),
    "vircaps-aarch64-basic": (4, 4, 16, 16, 4, 10_485_760),
}


def test_real_capabilities_give_the_totals_of_their_hosts(shared: Path) -> None:
    fleet = vc.read_fleet(shared / "data/libvirt-9.0.0/capabilities")
    columns = ["sockets", "dies", "cores", "threads", "numa_cells", "memory"]
    found = {name: tuple(fleet.hosts.loc[name, columns]) for name in TOTALS}
    assert found == TOTALS
    assert fleet.hosts["cpu_status"].value_counts().to_dict() == {"no_model": 11, "ok": 3, "other_arch": 1}
    assert fleet.hosts["transports"]["caps-qemu-kvm"] == ("tcp", "rdma")
    assert fleet.hosts["page_sizes"]["caps-qemu-kvm"] == (4, 2048, 1048576)
    assert (fleet.hosts["threads"].dropna() >= fleet.hosts["cores"].dropna()).all()


def test_real_domain_capabilities_give_a_cpu_wherever_kvm_was_asked_on_x86(shared: Path) -> None:
    fleet = vc.read_fleet(shared / "data/libvirt-9.0.0/domaincapsdata")
    assert fleet.view == "hypervisor"
    status = fleet.hosts["cpu_status"]
    assert status.value_counts().to_dict() == {
        "ok": 22,
        "other_arch": 22,
        "tcg_only": 11,
        "no_view": 5,
        "no_model": 1,
    }
    assert all("tcg" in name for name in status.index[status == "tcg_only"])
    assert all(name.startswith(("bhyve", "libxl")) for name in status.index[status == "no_view"])
    assert list(fleet.features.loc["qemu_7.2.0.x86_64", ["avx2", "svm", "vmx"]]) == [True, True, False]


SEEDS = [
    capabilities(cpu("Westmere", "vmx", "ds"), uuid="a25c794c-34ad-11b2-a85c-b030533115b8", more=CELLS).encode(),
    domcapabilities("Haswell", "vmx", disabled=("hle",)).encode(),
    (capabilities(cpu(None)) + domcapabilities(virttype="qemu")).encode(),
]
SHARDS = [
    *[b"<", b">", b"/", b"'", b"&", b"=", b"\0", b"\xff", b"]]>", b"<!--", b"-->", b"<?x?>", b"&#0;", b"&amp;", b"-1"],
    *[b"<![CDATA[", b"<!DOCTYPE cpu [<!ENTITY a 'b'>]>", b"99999999999999999999", b"<cpu>", b"</cpu>", b"<feature/>"],
    *[b"<arch>", b"</host>", b"<model>", b"policy='force'", b"mode='custom'", b"\xc3\xa9", b"<topology sockets='0'/>"],
]


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A document with some bytes removed, doubled or put in."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 40))
        put = draw(st.sampled_from([b"", data[at : at + length] * 2, *SHARDS]))
        data = data[:at] + put + data[at + length :]
    return data


def never_anything_else(data: bytes) -> None:
    """Reads to the end, or is refused by an error of ours; in a moment."""
    started = time.monotonic()
    try:
        fleet = vc.read_fleet({"h1": data})
    except vc.VmcompatError:
        return
    assert fleet.hosts.index[0].startswith("h1")
    assert fleet.features.shape[0] + len(fleet.unknown) == len(fleet)
    for finding in fleet.findings["message"]:
        assert len(finding) < 2000
    assert time.monotonic() - started < SECONDS


@settings(max_examples=400)
@given(mutated(SEEDS))
def test_no_mutation_of_a_document_raises_anything_but_our_errors(data: bytes) -> None:
    never_anything_else(data)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_no_bytes_at_all_raise_anything_but_our_errors(data: bytes) -> None:
    never_anything_else(data)


@settings(max_examples=100)
@given(st.text(max_size=100))
def test_no_text_at_all_raises_anything_but_our_errors(text: str) -> None:
    assert len(vc.read_fleet({"h1": text})) >= 1


def test_no_mutation_of_a_real_document_raises_anything_but_our_errors(shared: Path) -> None:
    folder = shared / "data/libvirt-9.0.0"
    names = ("capabilities/caps-test3.xml", "domaincapsdata/qemu_7.2.0.x86_64.xml", "capabilities/caps-qemu-kvm.xml")
    seeds = [(folder / name).read_bytes() for name in names]

    @settings(max_examples=200)
    @given(mutated(seeds))
    def check(data: bytes) -> None:
        never_anything_else(data)

    check()
