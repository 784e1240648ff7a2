"""The sample fleets are what their tables say, and what libvirt itself would take for its own documents."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from lxml import etree

import vmcompat as vc
from sample_caps.generate import TRUNCATED, committed, documents
from sample_caps.writer import cpu, facts, models
from sample_caps.writer.guest_cpu import guests, live_features

ROOT = Path(__file__).resolve().parent.parent
MIXED = ROOT / "sample_caps" / "mixed"
PAIR = ROOT / "sample_caps" / "virsh_pair"
SCHEMAS = Path("/usr/share/libvirt/schemas")
SCHEMA_OF = {"capabilities": "capability.rng", "domcapabilities": "domaincaps.rng", "domain": "domain.rng"}
WITHOUT_MODEL = {"ams-lab-h02", "ams-z15-h01"}
# What `virsh cpu-baseline` of the pair requires beside Westmere.
PAIR_REQUIRED = """
invtsc rdtscp pdpe1gb dca pcid pdcm xtpr tm2 est smx vmx ds_cpl monitor dtes64 pclmuldq pbe tm ht ss acpi ds vme
""".split()

HOSTS = facts.hosts()
X86 = [host for host in HOSTS.values() if host.arch == "x86_64"]


def host_cpu(path: Path) -> etree._Element:
    found = etree.parse(path).find("host/cpu")
    assert found is not None
    return found


def text_of(element: etree._Element) -> str:
    return etree.tostring(element, with_tail=False).decode()


def host_model(host: facts.Host) -> etree._Element:
    found = etree.parse(MIXED / f"{host.name}.domcapabilities.xml").find("cpu/mode[@name='host-model']")
    assert found is not None
    return found


def expanded(element: etree._Element, libvirt: tuple[int, ...]) -> set[str]:
    """The features of a <cpu> or of a host-model mode, those of its model included."""
    listed = [(feature.get("name", ""), feature.get("policy", "require")) for feature in element.findall("feature")]
    model = element.findtext("model")
    assert model is not None
    off = {name for name, policy in listed if policy == "disable"}
    return (set(models.model_features(model, libvirt)) | {name for name, _ in listed}) - off


def listed(element: etree._Element) -> set[str]:
    return {feature.get("name", "") for feature in element.findall("feature")}


def documents_of(libvirt: tuple[int, ...]) -> Iterator[tuple[str, Path, facts.Host]]:
    """(kind, path, host) of every whole document of mixed that a libvirt no newer than this one wrote."""
    for host in HOSTS.values():
        if host.libvirt <= libvirt:
            for kind in ("capabilities", "domcapabilities"):
                path = MIXED / f"{host.name}.{kind}.xml"
                if path.name != TRUNCATED:
                    yield kind, path, host
    for guest in guests():
        if guest.host.libvirt <= libvirt:
            for path in sorted((MIXED / "domains").glob(f"{guest.name}.*xml")):
                yield "domain", path, guest.host


def test_every_file_is_rebuilt_from_the_tables_byte_for_byte() -> None:
    built, present = documents(), committed()
    assert sorted(built) == sorted(present)
    assert [name for name, data in built.items() if data != present[name]] == []


def test_two_runs_write_the_same_bytes() -> None:
    assert documents() == documents()


@pytest.fixture(scope="module")
def libvirt_version() -> tuple[int, ...]:
    libvirt = pytest.importorskip("libvirt", reason="no libvirt-python: which libvirt's documents to check is unknown")
    number: int = libvirt.getVersion()
    return number // 1_000_000, number // 1000 % 1000, number % 1000


def fit_for_the_schema(root: etree._Element, host: facts.Host) -> etree._Element:
    """Add what today's schema demands and the libvirt of the document did not print yet.

    The schema of 9.0 demands the vendor of every model that can be chosen (printed since 8.9), mode maximum (7.1)
    and the die of every processor (6.1).
    """
    passthrough = root.find("cpu/mode[@name='host-passthrough']")
    if host.libvirt < (7, 1) and passthrough is not None:
        passthrough.addnext(etree.Element("mode", name="maximum", supported="no"))
    if host.libvirt < (8, 9):
        for model in root.iterfind("cpu/mode[@name='custom']/model"):
            model.set("vendor", "unknown")
    if host.libvirt < (6, 1):
        for processor in root.iterfind("host/topology/cells/cell/cpus/cpu"):
            processor.set("die_id", "0")
    return root


def test_documents_of_libvirts_up_to_the_installed_one_satisfy_its_schemas(
    libvirt_version: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    missing = [name for name in SCHEMA_OF.values() if not (SCHEMAS / name).exists()]
    if missing:
        pytest.skip(f"no {', '.join(missing)} in {SCHEMAS}: the package with libvirt's schemas is not installed")
    schema = {kind: etree.RelaxNG(file=str(SCHEMAS / name)) for kind, name in SCHEMA_OF.items()}
    checked: Counter[str] = Counter()
    wrong = []
    for kind, path, host in documents_of(libvirt_version):
        root = fit_for_the_schema(etree.parse(path).getroot(), host)
        checked[kind] += 1
        if not schema[kind].validate(root):
            wrong.append(f"{path.name}: {schema[kind].error_log.last_error}")
    total = sum(1 for _ in documents_of((99,)))
    with capsys.disabled():
        print(
            f"\nsample_caps/mixed: {sum(checked.values())} documents satisfy the schemas of libvirt "
            f"{'.'.join(map(str, libvirt_version))} ({dict(checked)}), {total - sum(checked.values())} are of a newer "
            "libvirt and not checkable here, 1 is truncated"
        )
    assert wrong == []
    assert min(checked[kind] for kind in SCHEMA_OF) > 0


def test_libvirt_takes_the_host_cpus_and_refuses_those_without_a_model(
    libvirt_version: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    import libvirt

    connection = libvirt.open("test:///default")
    classes: dict[str, list[str]] = {"accepted": [], "refused": [], "newer": []}
    for host in HOSTS.values():
        if host.libvirt > libvirt_version:
            classes["newer"].append(host.name)
            continue
        document = text_of(host_cpu(MIXED / f"{host.name}.capabilities.xml"))
        if host.name in WITHOUT_MODEL:
            with pytest.raises(libvirt.libvirtError, match="Missing CPU model name"):
                connection.baselineCPU([document], 0)
            classes["refused"].append(host.name)
        else:
            assert etree.fromstring(connection.baselineCPU([document], 0)).findtext("model"), host.name
            classes["accepted"].append(host.name)
    with capsys.disabled():
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in classes.items())
        print(f"\nsample_caps/mixed: host CPUs: {counts} (refused: no <model>; newer: not checkable by this libvirt)")
    assert len(classes["accepted"]) >= 25


def test_libvirt_answers_the_pair_with_westmere_and_the_features_of_the_example(
    libvirt_version: tuple[int, ...],
) -> None:
    import libvirt

    cpus = [text_of(host_cpu(path)) for path in sorted(PAIR.glob("*.capabilities.xml"))]
    answer = etree.fromstring(libvirt.open("test:///default").baselineCPU(cpus, 0))
    model = answer.find("model")
    assert model is not None
    assert (model.text, model.get("fallback"), answer.findtext("vendor")) == ("Westmere", "allow", "Intel")
    assert {feature.get("policy") for feature in answer.findall("feature")} == {"require"}
    assert sorted(listed(answer)) == sorted(PAIR_REQUIRED)


def test_running_guests_have_no_feature_that_their_host_could_not_give() -> None:
    compared = 0
    for guest in guests():
        live = etree.parse(MIXED / "domains" / f"{guest.name}.xml").find("cpu")
        assert live is not None
        if not guest.runs or live.get("mode") != "custom" or guest.host.arch != "x86_64":
            continue
        running = expanded(live, guest.host.libvirt)
        assert running == live_features(guest)
        offered = (
            set(cpu.guest_features(guest.host))
            if TRUNCATED.startswith(guest.host.name)
            else expanded(host_model(guest.host), guest.host.libvirt)
        )
        assert running <= offered, (guest.name, running - offered)
        compared += 1
    assert compared >= 40


def test_running_custom_guests_are_fully_checked_and_stored_ones_are_not() -> None:
    for guest in guests():
        if guest.host.arch != "x86_64" or guest.row["cpu"] in ("host-passthrough", "maximum"):
            continue
        shown = etree.parse(MIXED / "domains" / f"{guest.name}.xml").find("cpu")
        assert shown is not None
        if guest.runs:
            assert (shown.get("mode"), shown.get("check")) == ("custom", "full"), guest.name
        else:
            assert shown.get("check") == "partial", guest.name


def test_twins_that_differ_are_in_the_documents() -> None:
    def given(name: str) -> set[str]:
        return expanded(host_model(HOSTS[name]), HOSTS[name].libvirt)

    def rack(name: str) -> list[facts.Host]:
        return [host for host in X86 if host.row["rack"] == name and not TRUNCATED.startswith(host.name)]

    assert [h.name for h in rack("ams-r1") if {"hle", "rtm"} <= given(h.name)] == ["ams-r1-h04", "ams-r1-h07"]
    assert [h.name for h in rack("ams-r1") if "vmx" not in given(h.name)] == ["ams-r1-h06"]
    assert "vmx" in listed(host_cpu(MIXED / "ams-r1-h06.capabilities.xml"))
    assert [h.name for h in rack("ams-r2") if "md-clear" not in given(h.name)] == ["ams-r2-h03", "ams-r2-h07"]
    assert {h.name for h in rack("ams-r2") if "mpx" in listed(host_model(h))} == {
        h.name for h in rack("ams-r2") if h.libvirt >= (11,)
    }
    assert host_model(HOSTS["ams-r5-h01"]).findtext("model") == "Icelake-Server"
    assert {host_model(h).findtext("model") for h in rack("ams-r5")[1:]} == {"SapphireRapids"}


def test_one_pair_of_clocks_is_further_apart_than_250_ppm() -> None:
    rack = [host for host in X86 if host.row["rack"] == "ams-r3"]
    counters = {host.name: host_cpu(MIXED / f"{host.name}.capabilities.xml").find("counter") for host in rack}
    hz = {name: int(counter.get("frequency", "0")) for name, counter in counters.items() if counter is not None}
    apart = [(a, b) for a in hz for b in hz if a < b and abs(hz[a] - hz[b]) > hz[a] * 250 // 1_000_000]
    assert apart == [("ams-r3-h02", "ams-r3-h07")]


def test_one_ice_lake_has_fewer_address_bits() -> None:
    rack = [host for host in X86 if host.row["rack"] == "ams-r4"]
    sizes = {host.name: host_cpu(MIXED / f"{host.name}.capabilities.xml").find("maxphysaddr") for host in rack}
    bits = {name: size.get("bits") for name, size in sizes.items() if size is not None}
    assert {name for name, number in bits.items() if number != "52"} == {"ams-r4-h05"}


def test_a_host_without_virtualization_has_the_domain_capabilities_of_tcg() -> None:
    capabilities = etree.parse(MIXED / "ams-lab-h01.capabilities.xml")
    assert {domain.get("type") for domain in capabilities.iterfind("guest/arch/domain")} == {"qemu"}
    assert "vmx" not in listed(host_cpu(MIXED / "ams-lab-h01.capabilities.xml"))
    assert etree.parse(MIXED / "ams-lab-h01.domcapabilities.xml").findtext("domain") == "qemu"


def test_one_document_is_truncated_and_all_others_are_well_formed() -> None:
    broken = []
    for path in sorted((ROOT / "sample_caps").rglob("*.xml")):
        try:
            etree.parse(path)
        except etree.XMLSyntaxError:
            broken.append(path.name)
    assert broken == [TRUNCATED]


def test_the_lists_name_every_host_and_every_domain_once() -> None:
    with (MIXED / "hosts.csv").open(newline="") as table:
        hosts = [row["host"] for row in csv.DictReader(table)]
    with (MIXED / "domains" / "domains.csv").open(newline="") as table:
        domains = list(csv.DictReader(table))
    assert len(hosts) == len(set(hosts)) == 48
    assert {path.name.split(".")[0] for path in MIXED.glob("*.xml")} == set(hosts)
    assert {path.name.removesuffix(".xml").removesuffix(".inactive") for path in (MIXED / "domains").glob("*.xml")} == {
        row["domain"] for row in domains
    }
    assert {row["host"] for row in domains} <= set(hosts)


def test_guests_show_each_kind_of_tie_to_a_host() -> None:
    def having(path: str) -> set[str]:
        files = (MIXED / "domains" / f"{guest.name}.xml" for guest in guests())
        return {file.stem for file in files if etree.parse(file).find(path) is not None}

    assert having("features/hyperv/reenlightenment") == {"win-sql-01", "win-ts-01"}
    assert having("cputune/vcpupin") == {"pg-01", "pg-02", "rt-clock-01"}
    assert having("memoryBacking/hugepages") == {"pg-01", "pg-02", "sap-01"}
    assert having("clock/timer[@name='tsc']") == {"rt-clock-01", "win-sql-01"}
    assert having("cpu/feature[@name='invtsc']") == {"rt-clock-01"}
    assert having("cpu[@mode='maximum']") == {"any-01"}
    assert len(having("cpu[@mode='host-passthrough']")) >= 6


@pytest.mark.parametrize(("age", "libvirt"), [("9.0.0", (9, 0)), ("11.3.0", (11, 3))])
def test_the_table_of_models_says_what_libvirts_map_says(shared: Path, age: str, libvirt: tuple[int, ...]) -> None:
    folder = shared / "data" / "cpu_map" / age
    table = {name: model for name, model in models.models(libvirt >= (11,)).items() if model.libvirt <= libvirt}
    order: list[str] = []
    features: list[str] = []
    data: dict[str, set[str]] = {}
    arch = etree.parse(folder / "index.xml").find("arch[@name='x86']")
    assert arch is not None
    for include in arch.iterfind(".//include"):
        root = etree.parse(folder / include.get("filename", "")).getroot()
        features += [feature.get("name", "") for feature in root.findall("feature")]
        for model in root.findall("model"):
            name, ancestor = model.get("name", ""), model.find("model")
            own = {entry.get("name", "") for entry in model.findall("feature") if len(entry.attrib) == 1}
            data[name] = own | (data[ancestor.get("name", "")] if ancestor is not None else set())
            order.append(name)
    assert list(table) == order
    assert {name: set(model.features) for name, model in table.items()} == data
    assert list(models.map_order(libvirt)) == features


def test_real_hosts_are_described_as_libvirt_described_them(shared: Path) -> None:
    described = 0
    for path in sorted((shared / "data" / "libvirt-9.0.0" / "cputestdata").glob("x86_64-cpuid-*-host.xml")):
        real = etree.parse(path).getroot()
        signature = real.find("signature")
        assert signature is not None
        family, model, stepping = (int(signature.get(part, "")) for part in ("family", "model", "stepping"))
        features = expanded(real, (9, 0))
        vendor = real.findtext("vendor") or ""
        processor = facts.Processor(path.name, vendor, (family, model, stepping), frozenset(), 0, 1, 1, 0, 0, 0, False)
        ours = cpu.describe(features, processor=processor, libvirt=(9, 0), view="host")
        theirs = [feature.get("name") for feature in real.findall("feature")]
        assert (ours.model, [name for name, _ in ours.features]) == (real.findtext("model"), theirs), path.name
        described += 1
    assert described == 61


def test_every_host_is_read_and_only_the_odd_ones_are_unknown() -> None:
    fleet = vc.read_fleet(MIXED)
    status = fleet.hosts["cpu_status"]
    odd = {"ams-lab-h01": "tcg_only", "ams-lab-h02": "no_model", "ams-p9-h01": "other_arch"}
    odd |= {"ams-z15-h01": "other_arch", "ams-r3-h08": "unreadable"}
    assert fleet.view == "hypervisor"
    assert status[status != "ok"].to_dict() == odd
    assert set(fleet.hosts.index) == set(HOSTS)
    assert set(fleet.findings["host"]) == set(odd)


def offered(fleet: vc.Fleet, host: str) -> set[str]:
    (row,) = fleet.features.to_numpy()[fleet.features.index == host]
    return set(fleet.features.columns[row])


def test_documents_of_newer_libvirts_are_read_with_the_map_that_wrote_them() -> None:
    host_view, hypervisor_view = (vc.read_fleet(MIXED, view=view) for view in ("host", "hypervisor"))
    newer = [host.name for host in X86 if host.libvirt > (9, 0, 0)]
    for fleet in (host_view, hypervisor_view):
        assert set(fleet.hosts.loc[newer, "cpu_status"]) == {"ok"}
        assert not fleet.findings["host"].isin(newer).any()
    for host in newer:
        assert offered(host_view, host) == expanded(host_cpu(MIXED / f"{host}.capabilities.xml"), (11, 3))
        assert offered(hypervisor_view, host) == expanded(host_model(HOSTS[host]), (11, 3))
    print(f"\n{MIXED.relative_to(ROOT)}: {2 * len(newer)} CPUs of newer libvirts agree with our reader and map")


@pytest.mark.parametrize("cpu_map", ["9.0.0", "11.3.0", "12.8.0"])
def test_the_pair_has_the_well_known_baseline_in_every_map(cpu_map: str) -> None:
    fleet = vc.read_fleet(PAIR, cpu_map=cpu_map)
    plain, migratable = fleet.baseline(migratable=False), fleet.baseline()
    assert (plain.model, plain.vendor, plain.fallback) == ("Westmere", "Intel", "allow")
    assert {policy for _, policy in plain.features} == {"require"}
    assert {name for name, _ in plain.features} == set(PAIR_REQUIRED)
    assert {name for name, _ in migratable.features} == set(PAIR_REQUIRED) - {"invtsc"}
    reasons = dict(zip(migratable.dropped["feature"], migratable.dropped["reason"], strict=True))
    assert reasons["invtsc"] == "cannot be migrated"
