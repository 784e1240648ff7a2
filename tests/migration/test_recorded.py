"""Checks that no emulated host can show, held against what real hosts once said of themselves."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.migration.scene import domain, end, found, seen
from vmcompat.fleet.records import Document, read_documents
from vmcompat.migration.domain import Domain
from vmcompat.migration.observe import End
from vmcompat.migration.preflight import Finding

SKYLAKE, ROME = "Xeon-Gold-6148", "EPYC-7502-32-Core"


@pytest.fixture(scope="module")
def recorded(shared: Path) -> Path:
    return shared / "data" / "libvirt-9.0.0"


def cpu_of(recorded: Path, name: str) -> str:
    """The inside of the CPU that the hypervisor of a real host gave guests."""
    text = (recorded / "cputestdata" / f"x86_64-cpuid-{name}-guest.xml").read_text()
    return text.partition(">")[2].rpartition("</cpu>")[0]


def gives(recorded: Path, host: str, name: str, *, libvirt: str = "9.0.0") -> End:
    """A host with that hypervisor CPU."""
    return end(host, cpu_of(recorded, name), libvirt=libvirt, models=("Skylake-Server", "EPYC-Rome", "Westmere"))


@pytest.fixture(scope="module")
def workstation(recorded: Path) -> Document:
    """Capabilities of a real host of 16 CPUs in two nodes, 31 GiB and 39 address bits, whose TSC does not scale."""
    return read_documents((recorded / "capabilities" / "caps-qemu-kvm.xml").read_bytes(), source="caps-qemu-kvm.xml")[0]


def custom(inside: str) -> str:
    return f"<cpu mode='custom' match='exact' check='full'>{inside}</cpu>"


def asked(check: str, guest: Domain, *, source: End | None = None, target: End) -> Finding:
    finding = found(seen(guest, source=source, target=target), check)
    assert finding is not None
    return finding


@pytest.mark.proves("VENDOR")
def test_a_guest_of_intel_does_not_go_to_amd(recorded: Path) -> None:
    guest = domain(cpu=custom(cpu_of(recorded, SKYLAKE)))
    finding = asked("VENDOR", guest, source=gives(recorded, "h1", SKYLAKE), target=gives(recorded, "h2", ROME))
    assert (finding.severity, finding.evidence) == ("block", "the guest has a CPU of Intel, h2 gives AMD")


@pytest.mark.proves("NESTED")
def test_a_guest_with_the_whole_cpu_of_an_epyc_may_run_guests_of_its_own(recorded: Path) -> None:
    hosts = {name: gives(recorded, name, ROME) for name in ("h1", "h2")}
    finding = asked("NESTED", domain(cpu=custom(cpu_of(recorded, ROME))), source=hosts["h1"], target=hosts["h2"])
    assert finding.severity == "warn"
    assert finding.evidence.startswith("its CPU has svm")


@pytest.mark.proves("SKEW")
def test_a_skylake_guest_of_a_newer_libvirt_meets_mpx_on_an_older_one(recorded: Path) -> None:
    guest = domain(cpu=custom("<model fallback='forbid'>Skylake-Server</model><vendor>Intel</vendor>"))
    newer, older = gives(recorded, "h1", SKYLAKE, libvirt="11.3.0"), gives(recorded, "h2", SKYLAKE)
    finding = asked("SKEW", guest, source=newer, target=older)
    assert finding.severity == "risk"
    assert finding.evidence.startswith("mpx (2025)")
    assert asked("SKEW", guest, source=older, target=newer).severity == "warn"


@pytest.mark.proves("HOST_MODEL")
def test_host_model_of_a_haswell_gains_on_a_skylake_and_does_not_come_back(recorded: Path) -> None:
    haswell = gives(recorded, "h1", "Xeon-E5-2609-v3")
    guest = domain(cpu=custom(cpu_of(recorded, "Xeon-E5-2609-v3")))
    looked = seen(guest, stored=domain(cpu="<cpu mode='host-model'/>"), source=haswell,
                  target=gives(recorded, "h2", SKYLAKE))  # fmt: skip
    finding = found(looked, "HOST_MODEL")
    assert finding is not None
    assert finding.severity == "warn"
    assert "avx512f" in finding.evidence


@pytest.mark.proves("VCPU")
@pytest.mark.proves("CPUTUNE")
@pytest.mark.proves("NUMATUNE")
@pytest.mark.proves("MEMORY")
@pytest.mark.proves("TSC")
@pytest.mark.proves("ADDRESS_BITS")
@pytest.mark.proves("MACHINE")
@pytest.mark.parametrize(
    ("check", "severity", "evidence", "guest"),
    [
        ("VCPU", "block", "names 16, 17", {"vcpu": "<vcpu cpuset='16-17'>2</vcpu>"}),
        ("CPUTUNE", "block", "names 40", {"before": "<cputune><vcpupin vcpu='0' cpuset='40'/></cputune>"}),
        ("NUMATUNE", "block", "names 2", {"before": "<numatune><memory mode='strict' nodeset='2'/></numatune>"}),
        ("MEMORY", "risk", "h2 has 31.17 GiB", {"memory": "<memory unit='GiB'>32</memory>"}),
        ("TSC", "block", "2596991000 Hz, the guest 2400000000 Hz, and it cannot scale",
         {"inside": "<clock><timer name='tsc' frequency='2400000000'/></clock>"}),
        ("TSC", "ok", "within 250 ppm", {"inside": "<clock><timer name='tsc' frequency='2597000000'/></clock>"}),
        ("ADDRESS_BITS", "risk", "46 physical address bits, h2 has 39",
         {"cpu": custom("<model>Westmere</model><maxphysaddr mode='emulate' bits='46'/>")}),
        ("MACHINE", "block", "no machine type pc-q35-9.2", {"machine": "pc-q35-9.2"}),
    ],
)  # fmt: skip
def test_what_a_real_host_lacks_is_found(
    workstation: Document, check: str, severity: str, evidence: str, guest: dict[str, str]
) -> None:
    kept = replace(end("h2", None, host=workstation), asked=False)
    finding = asked(check, domain(**guest), target=kept)
    assert (finding.severity, evidence in finding.evidence) == (severity, True), finding
