"""Guests that are bound to what a host has: its CPUs, nodes, pages, machine types; and states of which few think.

The target is made poorer the way its CPU is: what its libvirtd reads of the machine is covered by files of ours, and
the kernel answers its guests accordingly (one CPU, by a cpuset).
"""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.rig import Rig, breakage
from tests.rig.files import PROBES
from tests.rig.guests import Guests, evidence, severity
from tests.rig.test_between import migrate, performs, power_on
from vmcompat.migration.migrate import plan_migration

pytestmark = pytest.mark.rig

CPUSETS = Path("/sys/fs/cgroup/cpuset")
HUGE_PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
OLD_MACHINE = "pc-i440fx-1.7"
VCPU = "<vcpu>1</vcpu>"
MEMORY = "<memory unit='MiB'>128</memory>"
BALLOON = "<memballoon model='none'/>"
CPU = "<cpu mode='custom' match='exact' check='partial'><model fallback='forbid'>Westmere</model>{}</cpu>"
CELL = CPU.format("<numa><cell id='0' cpus='0' memory='32' unit='MiB'/></numa>")


def why_no_poorer_target() -> str:
    """Why no host can have fewer CPUs and pages than the other; empty where it can."""
    if (os.cpu_count() or 1) < 2:
        return "this machine has one CPU"
    if not os.access(CPUSETS / "cpuset.cpus", os.R_OK) or not os.access(CPUSETS, os.W_OK):
        return f"there is no cpuset cgroup (version 1) to write to at {CPUSETS}"
    return "" if os.access(HUGE_PAGES, os.W_OK) else "this kernel has no huge pages of 2048 KiB to set aside"


@pytest.fixture
def movers(rig: Rig) -> Iterator[Guests]:
    yield Guests(rig)
    rig.clear()


def refuses(movers: Guests, name: str, check: str, seen: str, libvirt: str) -> None:
    """The plan blocks by that check, libvirt refuses in these words, and the guest stays."""
    plan = movers.plan(name)
    assert (severity(plan, check), seen in evidence(plan, check)) == ("block", True), evidence(plan, check)
    refused = migrate(movers, name)
    assert refused.returncode != 0
    assert libvirt in refused.stderr
    assert movers.where(name) == {"h1": "running"}


def takes(movers: Guests, name: str, **says: tuple[str, str]) -> None:
    """The plan says so by those checks and blocks by none, and libvirt moves the guest."""
    plan = movers.plan(name)
    for check, (found, seen) in says.items():
        assert (severity(plan, check), seen in evidence(plan, check)) == (found, True), evidence(plan, check)
    assert "block" not in set(plan.findings["severity"])
    performs(movers, name)


# ---- states


@pytest.mark.proves("STATE", libvirt="performs")
def test_a_crashed_guest_is_a_risk_and_libvirt_calls_it_running_there(movers: Guests) -> None:
    kept = [("<on_crash>destroy", "<on_crash>preserve"), (BALLOON, f"{BALLOON}<panic model='isa'/>")]
    name = power_on(movers, "crashed", *kept, boot=False)
    movers.rig.virsh("h1", "qemu-monitor-command", name, "--hmp", "o/b 0x505 1")
    assert movers.where(name) == {"h1": "crashed"}
    takes(movers, name, STATE=("risk", "call it running there"))


# ---- between the hosts as they are


@pytest.mark.proves("HOST_MODEL", libvirt="performs")
def test_a_host_model_that_goes_to_the_richer_host_does_not_come_back_after_a_power_cycle(movers: Guests) -> None:
    rig, name = movers.rig, "model"
    path = rig.dir / f"{name}.xml"
    lines = rig.domain_xml(name, cpu="<cpu mode='host-model'/>").splitlines()
    path.write_text(
        "\n".join(line for line in lines if not line.strip().startswith(("<kernel", "<initrd", "<cmdline")))
    )
    rig.virsh("h2", "define", str(path))
    rig.virsh("h2", "start", name)
    there = (rig.peer_uri("h1"), rig.migrate_uri("h1"))
    plan = plan_migration(name, rig.uri("h2"), rig.uri("h1"), peer_uri=there[0], migrate_uri=there[1])
    assert severity(plan, "HOST_MODEL") == "warn"
    assert "it has xsave, avx, xsaveopt, rdtscp and cannot come back" in evidence(plan, "HOST_MODEL")
    rig.virsh("h2", "migrate", name, "--live", "--p2p", "--persistent", "--undefinesource", *there)
    rig.virsh("h1", "destroy", name)
    rig.virsh("h1", "start", name)
    assert "missing features: xsave,avx,xsaveopt,rdtscp" in migrate(movers, name).stderr


@pytest.mark.proves("MEMORY_DEVICES", libvirt="performs")
def test_a_file_behind_a_memory_device_is_a_warning_and_the_target_makes_one(movers: Guests) -> None:
    own = "/var/lib/libvirt/nvdimm.img"
    device = f"""{BALLOON}<memory model='nvdimm'><source><path>{own}</path></source><target><size unit='MiB'>16</size>
        <node>0</node><label><size unit='KiB'>128</size></label></target></memory>"""
    slots = f"<maxMemory slots='2' unit='GiB'>1</maxMemory>{MEMORY}"
    name = power_on(movers, "nvdimm", (MEMORY, slots), (BALLOON, device), cpu=CELL, boot=False)
    assert movers.rig.run("h2", "test", "-e", own).returncode != 0
    takes(movers, name, MEMORY_DEVICES=("warn", own))
    assert movers.rig.run("h2", "test", "-s", own).returncode == 0


# ---- a target that has less


def write_nodes(rig: Rig, host: str, nodes: Mapping[int, tuple[int, int]]) -> str:
    """What a host's kernel says of its NUMA nodes, as files: the one CPU and the memory [MiB] of each."""
    top = rig.shared_dir / f"nodes-of-{host}"
    for number, (cpu, memory) in nodes.items():
        folder = top / f"node{number}"
        folder.mkdir(parents=True)
        (folder / "cpumap").write_text(f"{1 << cpu:x}\n")
        (folder / "cpulist").write_text(f"{cpu}\n")
        (folder / "meminfo").write_text(
            f"Node {number} MemTotal: {memory << 10} kB\nNode {number} MemFree: {memory << 9} kB\n"
        )
        (folder / "distance").write_text(" ".join("10" if n == number else "20" for n in nodes) + "\n")
    return f"/run/rig/shared/{top.name}"


@pytest.fixture(scope="module")
def poorer(rig: Rig) -> Iterator[None]:
    """h1 says that it has two nodes of a CPU each and has huge pages; h2 has one node, CPU 0, 64 MiB, no huge pages
    and no old machine type."""
    if why := why_no_poorer_target():
        pytest.skip(why)
    covers = {
        "h1": [(write_nodes(rig, "h1", {0: (0, 8192), 1: (1, 8192)}), "/sys/devices/system/node")],
        "h2": [(write_nodes(rig, "h2", {0: (0, 64)}), "/sys/devices/system/node"),
               ("/run/rig/shared/online", "/sys/devices/system/cpu/online"),
               ("/run/rig/shared/no-pages", "/sys/kernel/mm/hugepages")],
    }  # fmt: skip
    (rig.shared_dir / "online").write_text("0\n")
    (rig.shared_dir / "no-pages").mkdir()
    probes = {path: path.read_text() for path in (rig.dir / "h2" / PROBES).glob("*.xml")}
    set_aside, group = HUGE_PAGES.read_text(), CPUSETS / rig.dir.name
    mounted: list[tuple[str, str]] = []
    try:
        HUGE_PAGES.write_text(str(int(set_aside) + 20))
        group.mkdir()
        for file, value in (("cpuset.mems", "0"), ("cpuset.cpus", "0")):
            (group / file).write_text(value)
        for host, pairs in covers.items():
            rig.kill_libvirtd(host)
            for source, target in pairs:
                rig.run(host, "mount", "--bind", source, target, check=True)
                mounted.append((host, target))
        rig.run("h1", "mkdir", "-p", "/dev/hugepages", check=True)
        rig.run("h1", "mount", "-t", "hugetlbfs", "hugetlbfs", "/dev/hugepages", check=True)
        mounted.append(("h1", "/dev/hugepages"))
        for path, text in probes.items():
            path.write_text("".join(line for line in text.splitlines(True) if f'name="{OLD_MACHINE}"' not in line))
        for host in covers:
            rig.start_libvirtd(host)
        (group / "cgroup.procs").write_text(str(breakage.daemon_pid(rig, "h2")))
        yield
    finally:
        for host in covers:
            rig.kill_libvirtd(host)
        for host, target in reversed(mounted):
            rig.run(host, "umount", target)
        for path, text in probes.items():
            path.write_text(text)
        HUGE_PAGES.write_text(set_aside)
        for host in covers:
            rig.start_libvirtd(host)
        deadline = time.monotonic() + 10
        while group.exists() and time.monotonic() < deadline:
            try:
                group.rmdir()
            except OSError:  # a killed process is still on its way out
                time.sleep(0.05)
        assert not group.exists(), f"{group} still holds processes"


@pytest.mark.usefixtures("poorer")
class TestPoorer:
    """Ordered last in the file: from here on the target has less."""

    @pytest.mark.proves("VCPU", libvirt="refuses")
    @pytest.mark.proves("CPUTUNE", libvirt="refuses")
    @pytest.mark.parametrize(("check", "bound"), [
        ("VCPU", "<vcpu cpuset='1'>1</vcpu>"),
        ("CPUTUNE", f"{VCPU}<cputune><vcpupin vcpu='0' cpuset='1'/></cputune>"),
    ])  # fmt: skip
    def test_a_guest_on_a_cpu_that_the_target_lacks_is_refused(self, movers: Guests, check: str, bound: str) -> None:
        name = power_on(movers, "pinned", (VCPU, bound), boot=False)
        refuses(movers, name, check, "h2 has no such CPUs", "cannot set CPU affinity on process")

    @pytest.mark.proves("VCPU", libvirt="performs")
    @pytest.mark.proves("CPUTUNE", libvirt="performs")
    def test_a_guest_that_keeps_some_of_its_cpus_is_a_risk_that_libvirt_takes(self, movers: Guests) -> None:
        bound = "<vcpu cpuset='0-1'>1</vcpu><cputune><vcpupin vcpu='0' cpuset='0-1'/></cputune>"
        name = power_on(movers, "loose", (VCPU, bound), boot=False)
        takes(movers, name, VCPU=("risk", "<vcpu cpuset> names 1"), CPUTUNE=("risk", "<vcpupin vcpu='0'> names 1"))

    @pytest.mark.proves("VCPU", libvirt="performs")
    @pytest.mark.proves("MEMORY", libvirt="performs")
    def test_a_guest_larger_than_the_target_is_named_and_moved(self, movers: Guests) -> None:
        name = power_on(movers, "large", (VCPU, "<vcpu>2</vcpu>"), boot=False)
        said = ("risk", "0.125 GiB, h2 has 0.0625 GiB in all")
        takes(movers, name, VCPU=("warn", "2 virtual CPUs on the 1 of h2"), MEMORY=said)

    @pytest.mark.proves("NUMATUNE", libvirt="refuses")
    def test_a_guest_on_a_node_that_the_target_lacks_is_refused(self, movers: Guests) -> None:
        tuned = f"{VCPU}<numatune><memory mode='strict' nodeset='0-1'/></numatune>"
        name = power_on(movers, "tuned", (VCPU, tuned), boot=False)
        refuses(movers, name, "NUMATUNE", "<memory> names 1", "NUMA node 1 is unavailable")

    @pytest.mark.proves("MEMORY_DEVICES", libvirt="refuses")
    def test_a_memory_device_of_a_node_that_the_target_lacks_is_refused(self, movers: Guests) -> None:
        dimm = f"""{BALLOON}<memory model='dimm'><source><nodemask>0-1</nodemask></source><target>
            <size unit='MiB'>128</size><node>0</node></target></memory>"""
        slots = f"<maxMemory slots='2' unit='GiB'>1</maxMemory>{MEMORY}"
        name = power_on(movers, "dimm", (MEMORY, slots), (BALLOON, dimm), cpu=CELL, boot=False)
        refuses(movers, name, "MEMORY_DEVICES", "NUMA nodes that h2 lacks: 1", "NUMA node 1 is unavailable")

    @pytest.mark.proves("MEMORY", libvirt="refuses")
    def test_huge_pages_that_the_target_lacks_are_refused(self, movers: Guests) -> None:
        pages = "<memoryBacking><hugepages><page size='2048' unit='KiB'/></hugepages></memoryBacking>"
        name = power_on(movers, "paged", (MEMORY, f"<memory unit='MiB'>32</memory>{pages}"), boot=False)
        refuses(movers, name, "MEMORY", "h2 has no huge pages of 2048 KiB", "hugetlbfs filesystem is not mounted")

    @pytest.mark.proves("MACHINE", libvirt="refuses")
    def test_a_machine_type_that_the_target_lacks_is_refused(self, movers: Guests) -> None:
        name = power_on(movers, "machine", ("machine='q35'", f"machine='{OLD_MACHINE}'"), boot=False)
        refuses(movers, name, "MACHINE", f"no machine type {OLD_MACHINE}", "does not support machine type")
