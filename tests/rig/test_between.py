"""What the two hosts and the guest's state are found to be, and whether libvirt agrees: every finding is tried."""

import re
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.rig import Rig
from tests.rig.domain import SHARED_DIR
from tests.rig.guests import Guests, evidence, severity
from tests.rig.test_migrate import MAXIMUM
from vmcompat.baseline.common import Baseline
from vmcompat.connect import open_host
from vmcompat.errors import MigrationError
from vmcompat.migration.domain import read_domain
from vmcompat.migration.observe import _dry_run
from vmcompat.migration.preflight import preflight
from vmcompat.migration.transfer import Transfer

pytestmark = pytest.mark.rig

DEVICES = """<controller type='usb' model='qemu-xhci'/><input type='tablet' bus='usb'/>
<interface type='user'/><graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/><video><model type='virtio'/>
</video><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng><watchdog model='i6300esb' action='reset'/>
<panic model='isa'/><sound model='ich9'/><serial type='pty'/>"""
NOVA = "<metadata><n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'/></metadata>"


@pytest.fixture
def movers(rig: Rig) -> Iterator[Guests]:
    yield Guests(rig)
    rig.clear()


@pytest.fixture(scope="module")
def base(rig: Rig) -> Baseline:
    import vmcompat as vc

    return vc.read_fleet([rig.uri("h1"), rig.uri("h2")], view="hypervisor", virttype="qemu").baseline()


def power_on(movers: Guests, name: str, *changes: tuple[str, str], cpu: str = "Westmere", boot: bool = True) -> str:
    """Define and start a guest whose XML was changed in those places; without a kernel it has its firmware only."""
    text = movers.rig.domain_xml(name, cpu=cpu)
    if not boot:
        lines = text.splitlines()
        text = "\n".join(line for line in lines if not line.strip().startswith(("<kernel", "<initrd", "<cmdline")))
    for old, new in changes:
        assert text.count(old) == 1, f"{old} is not once in the guest's XML"
        text = text.replace(old, new)
    path = movers.rig.dir / f"{name}.xml"
    path.write_text(text)
    movers.rig.virsh("h1", "define", str(path))
    movers.rig.virsh("h1", "start", name)
    return name


def migrate(movers: Guests, name: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """What libvirt itself does, asked by virsh and by nobody before."""
    rig = movers.rig
    ways = ("--live", "--p2p", "--persistent", "--undefinesource", *options)
    return rig.virsh("h1", "migrate", name, *ways, rig.peer_uri("h2"), rig.migrate_uri("h2"), check=False)


def performs(movers: Guests, name: str, state: str = "running") -> None:
    done = migrate(movers, name)
    assert done.returncode == 0, done.stderr
    assert movers.where(name) == {"h2": state}


# ---- the guest's state


@pytest.mark.proves("STATE", libvirt="performs")
def test_a_paused_guest_is_a_risk_and_arrives_paused(movers: Guests) -> None:
    name = movers.start("paused")
    movers.rig.virsh("h1", "suspend", name)
    assert severity(movers.plan(name), "STATE") == "risk"
    performs(movers, name, state="paused")
    movers.rig.virsh("h2", "resume", name)
    movers.lives_on(name)


@pytest.mark.proves("STATE", libvirt="refuses")
def test_a_guest_that_is_off_does_not_move_live(movers: Guests) -> None:
    name = power_on(movers, "off", boot=False)
    movers.rig.virsh("h1", "destroy", name)
    assert severity(movers.plan(name), "STATE") == "block"
    assert "not running" in migrate(movers, name).stderr


@pytest.mark.proves("STATE", libvirt="refuses")
@pytest.mark.proves("JOBS", libvirt="performs")
def test_a_guest_on_its_way_does_not_move_twice_and_two_such_are_a_crowd(movers: Guests) -> None:
    slow = [movers.start(name, buffer=64) for name in ("slow1", "slow2")]
    third = movers.start("third")
    rig, moving = movers.rig, []
    try:
        for name in slow:
            rig.virsh("h1", "migrate-setspeed", name, "2")
            where = (rig.peer_uri("h2"), rig.migrate_uri("h2"))
            moving.append(subprocess.Popen(
                ["virsh", "-q", "-c", rig.uri("h1"), "migrate", "--live", "--p2p", name, *where],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            ))  # fmt: skip
        deadline = time.monotonic() + 20
        while any(movers.where(name).get("h2") != "paused" for name in slow):
            assert time.monotonic() < deadline, "the slow guests did not set out"
            time.sleep(0.1)
        plan = movers.plan(third)
        assert severity(plan, "JOBS") == "warn"
        assert "h1 has 2 migrations under way: slow1, slow2; h2 has 2" in evidence(plan, "JOBS")
        again = movers.plan(slow[0])
        assert severity(again, "STATE") == "block"
        assert severity(again, "JOBS") == "ok", "its own is not another one"
        refused = migrate(movers, slow[0])
        assert refused.returncode != 0
        assert "another migration job is already running" in refused.stderr
        performs(movers, third)
    finally:
        for name, process in zip(slow, moving, strict=False):
            rig.virsh("h1", "domjobabort", name, check=False)
            process.wait(20)
    for name in slow:
        movers.lives_on(name)


@pytest.mark.proves("STORED", libvirt="performs")
def test_what_is_stored_otherwise_is_named_and_moves_along_as_it_is(movers: Guests) -> None:
    name = power_on(movers, "stored", boot=False)
    movers.rig.virsh("h1", "setmaxmem", name, "65536", "--config")
    plan = movers.plan(name)
    assert severity(plan, "STORED") == "warn"
    assert "memory in KiB 131072, stored 65536" in evidence(plan, "STORED")
    performs(movers, name)
    assert "<memory unit='KiB'>65536</memory>" in movers.stored(name, "h2")


def marked(movers: Guests, name: str) -> str:
    return movers.rig.virsh("h2", "dominfo", name).stdout.partition("Autostart:")[2].split()[0]


@pytest.mark.proves("AUTOSTART", libvirt="performs")
def test_the_mark_of_autostart_stays_behind_with_virsh_and_comes_along_with_a_plan(movers: Guests) -> None:
    for way, word in (("virsh", "disable"), ("plan", "enable")):
        name = power_on(movers, f"marked-{way}", boot=False)
        movers.rig.virsh("h1", "autostart", name)
        plan = movers.plan(name)
        assert "does not take that along" in evidence(plan, "AUTOSTART")
        if way == "plan":
            plan.run(progress=False)
        else:
            performs(movers, name)
        assert marked(movers, name) == word


@pytest.mark.proves("AUTOSTART", libvirt="performs")
@pytest.mark.proves("NAME", libvirt="performs")
def test_a_stale_definition_that_is_started_at_boot_is_a_risk_and_libvirt_overwrites_it(movers: Guests) -> None:
    name = power_on(movers, "stale", boot=False)
    path = movers.rig.dir / "stale.there.xml"
    path.write_text(movers.stored(name, "h1"))
    movers.rig.virsh("h2", "define", str(path))
    movers.rig.virsh("h2", "autostart", name)
    plan = movers.plan(name)
    assert severity(plan, "AUTOSTART") == "risk"
    assert severity(plan, "NAME") == "warn"
    performs(movers, name)


@pytest.mark.proves("NAME", libvirt="refuses")
@pytest.mark.parametrize("same", ["name", "uuid"])
def test_a_name_or_a_uuid_that_is_taken_is_refused_by_libvirt_too(movers: Guests, same: str) -> None:
    name = power_on(movers, "taken", boot=False)
    text = movers.stored(name, "h1")
    uuid = movers.rig.virsh("h1", "domuuid", name).stdout.strip()
    other = text.replace(uuid, "11111111-2222-4333-8444-555555555555") if same == "name" else text.replace(
        f"<name>{name}</name>", "<name>other</name>")  # fmt: skip
    path = movers.rig.dir / "other.xml"
    path.write_text(other)
    movers.rig.virsh("h2", "define", str(path))
    assert severity(movers.plan(name), "NAME") == "block"
    refused = migrate(movers, name)
    assert refused.returncode != 0
    assert "already exists with uuid" in refused.stderr or "is already defined" in refused.stderr


@pytest.mark.proves("OWNER", libvirt="performs")
def test_libvirt_moves_another_managers_guest_without_a_word(movers: Guests) -> None:
    name = power_on(movers, "owned", ("<memory unit", f"{NOVA}<memory unit"), boot=False)
    plan = movers.plan(name)
    assert severity(plan, "OWNER") == "risk"
    assert "OpenStack Nova" in evidence(plan, "OWNER")
    performs(movers, name)


# ---- the two hosts


@pytest.mark.proves("SAME_HOST", libvirt="refuses")
def test_a_guest_does_not_move_to_where_it_is(movers: Guests) -> None:
    name, rig = power_on(movers, "homebody", boot=False), movers.rig
    from vmcompat.migration import plan_migration

    plan = plan_migration(name, rig.uri("h1"), rig.uri("h1"), peer_uri=rig.peer_uri("h1"))
    assert severity(plan, "SAME_HOST") == "block"
    refused = rig.virsh("h1", "migrate", name, "--live", "--p2p", rig.peer_uri("h1"), check=False)
    assert refused.returncode != 0
    assert "same host" in refused.stderr


@pytest.mark.proves("PEER", libvirt="refuses")
def test_an_address_for_this_client_only_is_of_no_use_to_the_source(movers: Guests) -> None:
    name, rig = power_on(movers, "lost", boot=False), movers.rig
    assert severity(movers.plan(name, peer_uri=None), "PEER") == "block"
    refused = rig.virsh("h1", "migrate", name, "--live", "--p2p", rig.uri("h2"), check=False)
    assert refused.returncode != 0
    assert movers.where(name) == {"h1": "running"}


def test_a_guest_with_many_devices_is_understood_and_moves(movers: Guests) -> None:
    changes = [("<controller type='usb' model='none'/>", ""), ("<audio id='1'", f"{DEVICES}<audio id='1'")]
    name = power_on(movers, "furnished", *changes, boot=False)
    plan = movers.plan(name)
    assert severity(plan, "DRY") == "ok"
    performs(movers, name)


@pytest.mark.proves("DRY", libvirt="refuses")
def test_an_emulator_that_only_the_source_has_is_refused_before_anything_moves(movers: Guests) -> None:
    rig, own = movers.rig, "/var/lib/libvirt/qemu-of-h1"
    rig.run("h1", "ln", "-s", "/usr/bin/qemu-system-x86_64", own, check=True)
    name = power_on(movers, "foreign", ("/usr/bin/qemu-system-x86_64", own), cpu="Nehalem", boot=False)
    plan = movers.plan(name)
    assert severity(plan, "DRY") == "block"
    assert "Cannot check QEMU binary" in evidence(plan, "DRY")
    assert severity(plan, "MACHINE") == "unknown"
    with pytest.raises(MigrationError, match="DRY"):
        plan.run()
    refused = migrate(movers, name)
    assert refused.returncode != 0
    assert own in refused.stderr
    assert movers.where(name) == {"h1": "running"}


@pytest.mark.proves("DEPRECATED", libvirt="performs")
def test_a_deprecated_machine_type_is_named_and_moves(movers: Guests) -> None:
    name = power_on(movers, "old", ("machine='q35'", "machine='pc-i440fx-1.7'"), boot=False)
    plan = movers.plan(name)
    assert severity(plan, "DEPRECATED") == "warn"
    performs(movers, name)


@pytest.mark.proves("HYPERV", libvirt="performs")
@pytest.mark.parametrize("features", ["<hyperv mode='custom'><relaxed state='on'/></hyperv>",
                                      "<hyperv mode='passthrough'/>"])  # fmt: skip
def test_enlightenments_that_the_target_does_not_list_are_a_risk_that_libvirt_takes(
    movers: Guests, features: str
) -> None:
    name = power_on(movers, "windows", ("<acpi/>", f"<acpi/>{features}"), boot=False)
    assert severity(movers.plan(name), "HYPERV") == "risk"
    performs(movers, name)


def test_enlightenments_that_the_target_lists_are_in_order(movers: Guests) -> None:
    spinlocks = "<hyperv mode='custom'><spinlocks state='on' retries='8191'/></hyperv>"
    name = power_on(movers, "listed", ("<acpi/>", f"<acpi/>{spinlocks}"), boot=False)
    assert severity(movers.plan(name), "HYPERV") == "ok"
    performs(movers, name)


@pytest.mark.proves("CPU_HOST_PARTS", libvirt="refuses")
def test_a_baseline_is_not_written_beside_a_passed_through_cache(movers: Guests, base: Baseline) -> None:
    name = power_on(movers, "cached", cpu=MAXIMUM.replace("/>", "><cache mode='passthrough'/></cpu>"), boot=False)
    plan = movers.plan(name, baseline=base, restart="destroy")
    assert severity(plan, "CPU_HOST_PARTS") == "block"
    assert plan.seen.new is not None
    path = movers.rig.dir / "cached.new.xml"
    path.write_text(plan.seen.new.xml)
    refused = movers.rig.virsh("h1", "define", str(path), check=False)
    assert refused.returncode != 0
    assert "CPU cache mode 'passthrough' can only be used with" in refused.stderr


# ---- what no target takes, and what this one does not


BEFORE_DEVICES = "<audio id='1' type='none'/>"
SHMEM = "<shmem name='pool' role='{}'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>"


def with_device(movers: Guests, name: str, device: str) -> str:
    return power_on(movers, name, (BEFORE_DEVICES, f"{BEFORE_DEVICES}{device}"), boot=False)


@pytest.mark.proves("NON_MIGRATABLE", libvirt="refuses")
def test_memory_shared_as_a_peer_does_not_move(movers: Guests) -> None:
    name = with_device(movers, "peer", SHMEM.format("peer"))
    plan = movers.plan(name)
    assert severity(plan, "NON_MIGRATABLE") == "block"
    assert "its role is peer" in evidence(plan, "NON_MIGRATABLE")
    assert "'peer mode' in device 'ivshmem'" in migrate(movers, name).stderr
    assert movers.where(name) == {"h1": "running"}


@pytest.mark.proves("NON_MIGRATABLE", libvirt="performs")
def test_memory_shared_as_the_master_goes_along(movers: Guests) -> None:
    name = with_device(movers, "master", SHMEM.format("master"))
    assert severity(movers.plan(name), "NON_MIGRATABLE") == "warn"
    performs(movers, name)


@pytest.mark.proves("NON_MIGRATABLE", libvirt="refuses")
def test_an_image_in_a_format_that_qemu_does_not_hand_over_keeps_its_guest(movers: Guests) -> None:
    header = struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 0, 0, 0, 1 << 20, 12, 9, 0, 0, 48)
    (movers.rig.shared_dir / "old.qcow").write_bytes(header + bytes(4096 - len(header)))
    name = with_device(
        movers, "old-image",
        f"<disk type='file'><driver name='qemu' type='qcow' cache='none'/><source file='{SHARED_DIR}/old.qcow'/>"
        "<target dev='vda' bus='virtio'/></disk>",
    )  # fmt: skip
    plan = movers.plan(name)
    assert severity(plan, "NON_MIGRATABLE") == "block"
    assert "vda (qcow)" in evidence(plan, "NON_MIGRATABLE")
    assert "does not support live migration" in migrate(movers, name, "--unsafe").stderr


@pytest.mark.proves("PEER", libvirt="refuses")
def test_no_guest_without_a_limit_of_its_memory_goes_by_rdma(movers: Guests) -> None:
    name = power_on(movers, "rdma", boot=False)
    uri = movers.rig.migrate_uri("h2").replace("tcp", "rdma", 1)
    plan = movers.plan(name, migrate_uri=uri)
    assert severity(plan, "PEER") == "block"
    assert "a limit of its memory" in evidence(plan, "PEER")
    peer = movers.rig.peer_uri("h2")
    refused = movers.rig.virsh("h1", "migrate", name, "--live", "--p2p", peer, uri, check=False)
    assert "cannot start RDMA migration with no memory hard limit set" in refused.stderr


@pytest.mark.proves("DRY", libvirt="refuses")
def test_huge_pages_that_the_target_has_not_mounted_are_found_by_the_dry_run(movers: Guests) -> None:
    """No host of the rig has them mounted, so that they come with the XML that is sent to the target."""
    rig, name = movers.rig, power_on(movers, "huge", boot=False)
    huge = "<memoryBacking><hugepages/></memoryBacking>"
    sent = rig.dir / "sent.xml"
    sent.write_text(rig.virsh("h1", "dumpxml", "--migratable", name).stdout.replace("</vcpu>", f"</vcpu>{huge}", 1))
    asked = read_domain(sent.read_text(), source="sent")
    with open_host(rig.uri("h2"), write=True) as host:
        words = _dry_run(host, asked)
    seen = movers.plan(name).seen
    findings = preflight(replace(seen, live=asked, target=replace(seen.target, refusal=words)))
    (found,) = [f for f in findings if f.id == "DRY"]
    assert (found.severity, "hugetlbfs" in found.evidence) == ("block", True), found
    assert "hugetlbfs" in migrate(movers, name, "--xml", str(sent)).stderr
    assert movers.where(name) == {"h1": "running"}


@pytest.mark.proves("DISKS", libvirt="refuses")
def test_a_disk_whose_secret_the_target_lacks_is_refused_there(movers: Guests) -> None:
    """The secret comes with the XML that is sent to the target: to encrypt an image takes qemu-img."""
    rig = movers.rig
    (rig.shared_dir / "plain.raw").write_bytes(bytes(1 << 20))
    name = with_device(
        movers, "secretive",
        f"<disk type='file'><driver name='qemu' type='raw' cache='none'/><source file='{SHARED_DIR}/plain.raw'/>"
        "<target dev='vda' bus='virtio'/></disk>",
    )  # fmt: skip
    uuid = "11111111-2222-4333-8444-555555555555"
    text = rig.virsh("h1", "dumpxml", "--migratable", name).stdout
    lock = f"<encryption format='luks'><secret type='passphrase' uuid='{uuid}'/></encryption>"
    sent = rig.dir / "sent.xml"
    sent.write_text(re.sub(r"(<source file='[^']*plain.raw')([^/>]*)/>", rf"\1\2>{lock}</source>", text))
    seen = replace(movers.plan(name).seen, live=read_domain(sent.read_text(), source="sent"))
    (found,) = [f for f in preflight(seen) if f.id == "DISKS"]
    assert (found.severity, uuid in found.evidence) == ("block", True), found
    assert "no secret with matching uuid" in migrate(movers, name, "--unsafe", "--xml", str(sent)).stderr
    assert movers.where(name) == {"h1": "running"}


@pytest.mark.proves("VCPU", libvirt="performs")
@pytest.mark.proves("MEMORY", libvirt="performs")
def test_a_definition_moves_to_where_it_could_not_start_and_that_is_a_risk(movers: Guests) -> None:
    name, rig = "nowhere", movers.rig
    text = rig.domain_xml(name).replace("<vcpu>", "<vcpu cpuset='4000'>")
    path = rig.dir / f"{name}.xml"
    path.write_text(text.replace("</vcpu>", "</vcpu><memoryBacking><hugepages><page size='3' unit='MiB'/></hugepages>"
                                 "</memoryBacking>"))  # fmt: skip
    rig.virsh("h1", "define", str(path))
    plan = movers.plan(name, transfer=Transfer(offline=True))
    assert [severity(plan, check) for check in ("VCPU", "MEMORY")] == ["risk", "risk"]
    rig.virsh("h1", "migrate", "--offline", "--persistent", "--undefinesource", "--p2p", name, rig.peer_uri("h2"))
    assert movers.where(name) == {"h2": "shut off"}


def test_a_plain_guest_between_equal_versions_passes_every_check_of_the_hosts(movers: Guests) -> None:
    name = movers.start("plain")
    plan = movers.plan(name)
    ours = ("STATE", "VERSION", "SKEW", "DRY", "JOBS", "STORED", "AUTOSTART", "DEPRECATED")
    assert {check: severity(plan, check) for check in ours} == dict.fromkeys(ours, "ok")
    assert not plan.blocked
