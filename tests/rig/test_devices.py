"""Guests with devices, between two real libvirt hosts: what libvirt refuses the plan refuses first, and says why."""

import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from xml.sax.saxutils import escape

import pytest

import vmcompat as vc
from tests.migration.test_devices import REFUSED
from tests.rig import Rig
from vmcompat.migration.domain import read_domain
from vmcompat.migration.migrate import MigrationPlan, plan_migration
from vmcompat.migration.preflight import Finding, preflight
from vmcompat.migration.transfer import Transfer

pytestmark = pytest.mark.rig

POOL = "/run/rig/shared/pool"
WESTMERE = "<cpu mode='custom' match='exact' check='partial'><model fallback='forbid'>Westmere</model>{}</cpu>"


def xml(name: str, devices: str, *, os: str = "", before: str = "", vcpu: str = "1", cells: str = "") -> str:
    """A guest of nothing but firmware and these devices: where only states matter."""
    memory = "" if before.startswith("<maxMemory") else "<memory unit='MiB'>32</memory>"
    return f"""<domain type='qemu'><name>{escape(name)}</name>{memory}{before}<vcpu>{vcpu}</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type>{os}</os><features><acpi/></features>{WESTMERE.format(cells)}
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/>{devices}
<audio id='1' type='none'/><memballoon model='none'/></devices></domain>"""


class Hosts:
    """Guests with devices on the rig, judged by a plan and moved by plain virsh."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def start(self, name: str, devices: str, **details: str) -> str:
        path = self.rig.dir / "guest.xml"
        path.write_text(xml(name, devices, **details))
        self.rig.virsh("h1", "define", "--file", str(path))
        self.rig.virsh("h1", "start", "--domain", name)
        return name

    def plan(self, name: str, **options: Any) -> MigrationPlan:
        where = {"peer_uri": self.rig.peer_uri("h2"), "migrate_uri": self.rig.migrate_uri("h2")}
        return plan_migration(name, self.rig.uri("h1"), self.rig.uri("h2"), **(where | options))

    def finding(self, name: str, check: str) -> Finding:
        return next(f for f in self.plan(name).order.findings if f.id == check)

    def moves(self, name: str, *options: str) -> str:
        """What plain libvirt says to the migration; empty where it moves the guest."""
        peer = ("--desturi", self.rig.peer_uri("h2"), "--migrateuri", self.rig.migrate_uri("h2"))
        done = self.rig.virsh("h1", "migrate", "--live", "--p2p", *options, "--domain", name, *peer, check=False)
        assert (done.returncode == 0) == (done.stderr == "")
        return done.stderr

    def define(self, kind: str, text: str, *, on: str = "h1 h2", start: str = "h1 h2") -> None:
        """A network or a pool on hosts; ``kind`` is virsh's prefix for its commands."""
        path = self.rig.dir / f"{kind}.xml"
        path.write_text(text)
        for host in on.split():
            name = text.partition("<name>")[2].partition("<")[0]
            self.rig.virsh(host, f"{kind}-define", str(path))
            if host in start.split():
                self.rig.virsh(host, f"{kind}-start", name)

    def image(self, name: str) -> str:
        folder = self.rig.shared_dir / "pool"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(bytes(1 << 20))
        return f"{POOL}/{name}"

    def bridge(self, name: str, *, on: str) -> None:
        for host in on.split():
            self.rig.run(host, "ip", "link", "add", name, "type", "bridge", check=True)
            self.rig.run(host, "ip", "link", "set", name, "up", check=True)


@pytest.fixture
def hosts(rig: Rig) -> Iterator[Hosts]:
    yield Hosts(rig)
    rig.clear()
    for host in rig.cpus:
        for kind in ("net", "pool"):
            for name in rig.virsh(host, f"{kind}-list", "--all", "--name").stdout.split():
                rig.virsh(host, f"{kind}-destroy", name, check=False)
                rig.virsh(host, f"{kind}-undefine", name, check=False)
        for name in ("br0", "br1"):
            rig.run(host, "ip", "link", "delete", name)


@pytest.fixture
def tun(rig: Rig) -> None:
    """The hosts' own /dev has no tun device, which every tap needs."""
    for host in rig.cpus:
        make = "test -e /dev/net/tun || { mkdir -p /dev/net && mknod /dev/net/tun c 10 200; }"
        rig.run(host, "sh", "-c", make, check=True)
        opened = rig.run(host, "ip", "tuntap", "add", "try0", "mode", "tap")
        if opened.returncode:
            pytest.skip(f"this kernel has no tun device for taps: {opened.stderr.strip()}")
        rig.run(host, "ip", "link", "delete", "try0", check=True)


def disk(source: str, *, kind: str = "file", more: str = "", driver: str = "cache='none'") -> str:
    return (
        f"<disk type='{kind}' device='disk'><driver name='qemu' type='raw' {driver}/><source {source}/>"
        f"<target dev='vda' bus='virtio'/>{more}</disk>"
    )


def refuses(hosts: Hosts, name: str, check: str, evidence: str, libvirt: str, *options: str) -> None:
    """The plan blocks by that check, and libvirt refuses in these words."""
    found = hosts.finding(name, check)
    assert (found.severity, evidence in found.evidence) == ("block", True), found
    assert libvirt in hosts.moves(name, *options)


def says(hosts: Hosts, name: str, check: str, severity: str, evidence: str) -> None:
    found = hosts.finding(name, check)
    assert (found.severity, evidence in found.evidence) == (severity, True), found


# ---- disks


def test_a_disk_in_a_folder_of_each_host_is_a_risk_and_libvirt_calls_it_unsafe(hosts: Hosts) -> None:
    name = hosts.start("folder", disk(f"file='{hosts.image('folder')}'"))
    says(hosts, name, "DISKS", "unknown", "no storage pool of h2 lists it")
    hosts.define("pool", f"<pool type='dir'><name>images</name><target><path>{POOL}</path></target></pool>")
    says(hosts, name, "DISKS", "risk", "one and the same storage")
    assert "Migration without shared storage is unsafe" in hosts.moves(name)
    assert hosts.plan(name).blocked
    assert hosts.moves(name, "--unsafe") == ""


def test_a_volume_needs_its_pool_at_the_target_and_needs_it_active(hosts: Hosts) -> None:
    hosts.image("v1")
    pool = f"<pool type='dir'><name>images</name><target><path>{POOL}</path></target></pool>"
    hosts.define("pool", pool, on="h1")
    name = hosts.start("volume", disk("pool='images' volume='v1'", kind="volume"))
    refuses(hosts, name, "DISKS", "no storage pool images", "no storage pool with matching name", "--unsafe")
    hosts.define("pool", pool, on="h2", start="")
    refuses(hosts, name, "DISKS", "is not active", "is not active", "--unsafe")
    hosts.rig.virsh("h2", "pool-start", "images")
    says(hosts, name, "DISKS", "risk", "one and the same storage")
    assert hosts.moves(name, "--unsafe") == ""


def test_a_disk_behind_a_cache_moves_with_this_qemu(hosts: Hosts) -> None:
    name = hosts.start("cached", disk(f"file='{hosts.image('cached')}'", driver="cache='writeback'"))
    says(hosts, name, "CACHE", "ok", "writes that out and drops it")
    assert hosts.moves(name, "--unsafe") == ""


def test_a_transient_disk_is_refused(hosts: Hosts) -> None:
    name = hosts.start("transient", disk(f"file='{hosts.image('transient')}'", more="<transient/>"))
    refuses(hosts, name, "TRANSIENT", "vda", "transient disk is not supported", "--unsafe")


def test_snapshots_are_refused_until_libvirt_forgets_them_as_the_remedy_says(hosts: Hosts) -> None:
    name = hosts.start("snapped", disk(f"file='{hosts.image('snapped')}'"))
    says(hosts, name, "SNAPSHOTS", "ok", "no snapshots")
    spec = f"vda,file={POOL}/snapped.2"
    hosts.rig.virsh("h1", "snapshot-create-as", name, "before it's late", "--disk-only", "--diskspec", spec)
    refuses(hosts, name, "SNAPSHOTS", "before it's late", "cannot migrate domain with 1 snapshots", "--unsafe")
    says(hosts, name, "DISKS", "unknown", f"vda ({POOL}/snapped)")
    typed = hosts.finding(name, "SNAPSHOTS").remedy.partition("is kept: ")[2].replace("FILE", "/dev/null")
    subprocess.run(["sh", "-ec", typed], check=True, capture_output=True, timeout=30)
    assert hosts.moves(name, "--unsafe") == ""


def test_a_block_job_is_refused_until_it_ends(hosts: Hosts) -> None:
    name = hosts.start("copied", disk(f"file='{hosts.image('copied')}'"))
    copy = ("--path", "vda", "--dest", f"{POOL}/copied.2", "--format", "raw", "--transient-job")
    hosts.rig.virsh("h1", "blockcopy", "--domain", name, *copy)
    refuses(hosts, name, "BLOCKJOB", "vda", "domain has active block job", "--unsafe")
    hosts.rig.virsh("h1", "blockjob", "--domain", name, "--path", "vda", "--abort")
    says(hosts, name, "BLOCKJOB", "ok", "no block job")
    assert hosts.moves(name, "--unsafe") == ""


@pytest.mark.parametrize(("policy", "severity"), [("", "unknown"), (" startupPolicy='requisite'", "ok")])
def test_an_image_that_the_target_lacks_stops_the_guest_unless_it_may_be_missing(
    hosts: Hosts, policy: str, severity: str
) -> None:
    name = f"cd-{severity}"
    hosts.rig.run("h1", "sh", "-c", f"head -c 65536 /dev/zero > /var/tmp/{name}.iso", check=True)
    guest = hosts.start(
        name,
        f"<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='/var/tmp/{name}.iso'{policy}/>"
        "<target dev='sda' bus='sata'/><readonly/></disk>",
    )
    says(hosts, guest, "DISKS", severity, "sda")
    assert ("Cannot access storage file" in hosts.moves(guest)) == (severity == "unknown")


# ---- folders, networks, screens


def test_virtiofs_is_refused_and_9p_is_not_known(hosts: Hosts) -> None:
    folder = "<source dir='/run/rig/shared'/><target dir='data'/></filesystem>"
    plain = hosts.start("nine-p", f"<filesystem type='mount' accessmode='mapped'>{folder}")
    says(hosts, plain, "FILESYSTEM", "unknown", "/run/rig/shared")
    assert hosts.moves(plain) == "", "nobody has mounted it"
    virtiofs = hosts.start(
        "virtiofs", f"<filesystem type='mount'><driver type='virtiofs'/>{folder}",
        before="<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>",
    )  # fmt: skip
    refuses(hosts, virtiofs, "FILESYSTEM", "virtiofs", "vhost-user-fs")


NETWORK = "<network><name>lan</name><forward mode='bridge'/><bridge name='br0'/></network>"


@pytest.mark.usefixtures("tun")
def test_a_network_must_be_there_and_be_active(hosts: Hosts) -> None:
    hosts.bridge("br0", on="h1")
    hosts.define("net", NETWORK, on="h1")
    name = hosts.start("netted", "<interface type='network'><source network='lan'/><model type='virtio'/></interface>")
    refuses(hosts, name, "NETWORK", "h2 has no network lan", "no network with matching name")
    hosts.define("net", NETWORK, on="h2", start="")
    refuses(hosts, name, "NETWORK", "lan of h2 is not active", "is not active")
    hosts.rig.virsh("h2", "net-start", "lan")
    refuses(hosts, name, "NETWORK", "its bridge br0 is not there", "'br0'")
    hosts.bridge("br0", on="h2")
    says(hosts, name, "NETWORK", "ok", "it is active")
    assert hosts.moves(name) == ""


def test_a_definition_moves_to_where_its_network_is_not_and_that_is_a_risk(hosts: Hosts) -> None:
    path = hosts.rig.dir / "guest.xml"
    path.write_text(xml("asleep", "<interface type='network'><source network='lan'/></interface>"))
    hosts.rig.virsh("h1", "define", str(path))
    plan = hosts.plan("asleep", transfer=Transfer(offline=True))
    (found,) = [f for f in plan.order.findings if f.id == "NETWORK"]
    assert (found.severity, found.evidence) == ("risk", "h2 has no network lan")
    moved = hosts.rig.virsh("h1", "migrate", "--offline", "--persistent", "--p2p", "asleep", hosts.rig.peer_uri("h2"))
    assert moved.returncode == 0


@pytest.mark.usefixtures("tun")
def test_a_bridge_must_be_there(hosts: Hosts) -> None:
    hosts.bridge("br1", on="h1")
    name = hosts.start("bridged", "<interface type='bridge'><source bridge='br1'/><model type='virtio'/></interface>")
    refuses(hosts, name, "NETWORK", "h2 has no bridge br1", "'br1'")
    hosts.bridge("br1", on="h2")
    says(hosts, name, "NETWORK", "ok", "has a bridge br1")
    assert hosts.moves(name) == ""


SCREEN = "<graphics type='vnc' port='-1'{}/><video><model type='vga'/></video>"


def test_a_screen_on_the_sources_own_address_is_stopped_and_libvirt_refuses_it(hosts: Hosts) -> None:
    own = hosts.rig.address("h1")
    name = hosts.start("screen", SCREEN.format(f" listen='{own}'"))
    says(hosts, name, "GRAPHICS", "unknown", own)
    assert hosts.plan(name).blocked
    assert "Cannot assign requested address" in hosts.moves(name)


@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0"])
def test_a_screen_on_an_address_of_every_host_moves(hosts: Hosts, listen: str) -> None:
    name = hosts.start(f"screen-{listen}", SCREEN.format(f" listen='{listen}'"))
    says(hosts, name, "GRAPHICS", "ok", listen)
    assert hosts.moves(name) == ""


def test_an_address_out_of_qemu_conf_is_not_the_guests_own(hosts: Hosts) -> None:
    rig, conf = hosts.rig, hosts.rig.dir / "h1/etc/libvirt/qemu.conf"
    before = conf.read_text()

    def restart(text: str) -> None:
        conf.write_text(text)
        rig.kill_libvirtd("h1", signal.SIGTERM)
        rig.start_libvirtd("h1")

    restart(f'{before}vnc_listen = "{rig.address("h1")}"\n')
    try:
        name = hosts.start("configured", SCREEN.format(""))
        assert f"listen='{rig.address('h1')}'" in rig.virsh("h1", "dumpxml", name).stdout
        says(hosts, name, "GRAPHICS", "ok", "h2 chooses")
        assert hosts.moves(name) == ""
    finally:
        restart(before)


# ---- paths, firmware, labels, counts


def test_a_path_whose_folder_the_target_lacks_is_named_and_libvirt_refuses_there(hosts: Hosts) -> None:
    hosts.rig.run("h1", "mkdir", "-p", "/var/tmp/logs", check=True)
    name = hosts.start("logged", "<serial type='file'><source path='/var/tmp/logs/x' append='on'/></serial>")
    says(hosts, name, "PATHS", "warn", "/var/tmp/logs/x: h2 refuses the guest where it lacks the folder")
    assert "/var/tmp/logs" in hosts.finding(name, "PATHS").remedy
    assert "Failed to create file '/var/tmp/logs/x'" in hosts.moves(name)
    hosts.rig.run("h2", "mkdir", "-p", "/var/tmp/logs", check=True)
    assert hosts.moves(name) == ""


def test_libvirts_own_sockets_are_made_at_the_target(hosts: Hosts) -> None:
    agent = "<target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    name = hosts.start("agent", f"<channel type='unix'><source mode='bind'/>{agent}")
    says(hosts, name, "PATHS", "ok", "/var/lib/libvirt/qemu/channel/target/")
    assert hosts.moves(name) == ""


def test_firmware_that_the_target_does_not_list_is_not_known_and_libvirt_does_not_look(hosts: Hosts) -> None:
    loader = "<loader readonly='yes' type='rom'>/usr/share/seabios/bios-256k.bin</loader>"
    name = hosts.start("firmware", "", os=loader)
    says(hosts, name, "FIRMWARE", "unknown", "/usr/share/seabios/bios-256k.bin")
    assert hosts.moves(name) == ""


def test_a_label_that_the_target_has_no_driver_for_is_refused_there(hosts: Hosts) -> None:
    """No host of the rig has a security driver, so the label comes with the XML that is sent to the target."""
    name = hosts.start("labelled", "")
    text = hosts.rig.virsh("h1", "dumpxml", "--migratable", name).stdout
    label = "<seclabel type='dynamic' model='selinux' relabel='yes'/>"
    sent = hosts.rig.dir / "sent.xml"
    sent.write_text(text.replace("</domain>", f"{label}</domain>"))
    plan = hosts.plan(name)
    assert plan.seen.live is not None
    labelled = replace(plan.seen, live=read_domain(sent.read_text(), source="sent"))
    (found,) = [f for f in preflight(labelled) if f.id == "SECLABEL"]
    assert (found.severity, "labelled by selinux, and h2 has none, dac" in found.evidence) == ("block", True), found
    assert "Security driver model 'selinux' is not available" in hosts.moves(name, "--xml", str(sent))


def test_more_virtual_cpus_than_the_machine_type_takes_no_libvirt_defines(hosts: Hosts) -> None:
    name = hosts.start("counted", "")
    found = hosts.finding(name, "TOPOLOGY")
    assert (found.severity, "1 of the 288" in found.evidence) == ("ok", True), found
    path = hosts.rig.dir / "many.xml"
    path.write_text(xml("many", "", vcpu="289"))
    refused = hosts.rig.virsh("h2", "define", str(path), check=False)
    assert "specified machine type limit 288" in refused.stderr


def test_memory_that_was_plugged_in_moves(hosts: Hosts) -> None:
    name = hosts.start(
        "plugged", "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>",
        before="<maxMemory slots='4' unit='MiB'>1024</maxMemory><memory unit='MiB'>256</memory>",
        cells="<numa><cell id='0' cpus='0' memory='128' unit='MiB'/></numa>",
    )  # fmt: skip
    says(hosts, name, "MEMORY_DEVICES", "ok", "1 of 4 memory slots")
    assert hosts.moves(name) == ""


def test_a_tpm_that_the_target_cannot_emulate_it_does_not_define(hosts: Hosts) -> None:
    plan = hosts.plan(hosts.start("untpmed", ""))
    assert plan.seen.target.hypervisor is not None
    backends = plan.seen.target.hypervisor.facts["tpm_backends"]
    assert isinstance(backends, tuple)
    path = hosts.rig.dir / "tpm.xml"
    path.write_text(xml("tpm", "<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>"))
    defined = hosts.rig.virsh("h2", "define", str(path), check=False)
    assert (defined.returncode == 0) == ("emulator" in backends), defined.stderr


@pytest.mark.parametrize("device", REFUSED)
def test_what_the_reader_of_devices_refuses_libvirt_refuses(hosts: Hosts, device: str) -> None:
    path = hosts.rig.dir / "refused.xml"
    path.write_text(xml("refused", device))
    assert hosts.rig.virsh("h1", "define", str(path), check=False).returncode != 0


def test_slots_that_are_no_number_libvirt_refuses(hosts: Hosts) -> None:
    path = hosts.rig.dir / "refused.xml"
    for slots in ("", " slots='0'", " slots='many'"):
        path.write_text(xml("refused", "", before=f"<maxMemory{slots} unit='MiB'>64</maxMemory><memory>32768</memory>"))
        assert hosts.rig.virsh("h1", "define", str(path), check=False).returncode != 0


# ---- reading guests from hosts


@pytest.mark.parametrize("way", ["unix", "ssh"])
def test_guests_are_read_from_live_hosts_and_files_together(hosts: Hosts, way: str, samples: Any) -> None:
    rig = hosts.rig
    name = hosts.start("read10", disk(f"file='{hosts.image('read')}'"))
    hosts.start("read2", "")
    rig.virsh("h1", "suspend", "read2")
    rig.virsh("h1", "snapshot-create-as", name, "s1", "--disk-only", "--diskspec", f"vda,file={POOL}/{way}.2")
    path = rig.dir / "off.xml"
    path.write_text(xml("off", ""))
    rig.virsh("h2", "define", str(path))
    uri = rig.ssh_uri if way == "ssh" else rig.uri

    guests = vc.read_domains([uri("h1"), samples / "mixed" / "domains" / "web-01.xml", uri("h2")])

    assert guests.names == ("read2", "read10", "web-01", "off")
    told: Mapping[str, Any] = {r.name: r for r in guests.records}
    assert [(r.host, r.state) for r in guests.records] == [
        ("h1", "paused"), ("h1", "running"), (None, None), ("h2", "shut off"),
    ]  # fmt: skip
    assert [r.live is not None for r in guests.records] == [True, True, True, False]
    assert [r.stored is not None for r in guests.records] == [True, True, False, True]
    assert told[name].ties.snapshots == ("s1",)
    assert told[name].ties.block_jobs == ()
    assert told["web-01"].ties.snapshots is None
    assert [str(d.source) for d in told[name].live.devices.disks] == [f"{POOL}/{way}.2"]
    assert told[name].live.xml.strip() == rig.virsh("h1", "dumpxml", name).stdout.strip()
    table = guests.frame
    assert table["sha256"].notna().all()
    assert set(guests.findings["code"]) == {"paused"}


def test_guests_of_strange_names_are_read_and_planned_without_harm(hosts: Hosts) -> None:
    names = ["--config", "a b'c", 'x"; reboot', "line\nbreak", "$(id)", "..", "ünï"]
    taken = []
    for name in names:
        path = hosts.rig.dir / "guest.xml"
        path.write_text(xml(name, "").replace("\n", "&#10;", name.count("\n")) if "\n" in name else xml(name, ""))
        if hosts.rig.virsh("h1", "define", "--file", str(path), check=False).returncode == 0:
            taken.append(name)
    assert {"--config", "a b'c", "$(id)"} <= set(taken)
    guests = vc.read_domains(hosts.rig.uri("h1"))
    assert set(guests.names) == set(taken)
    hosts.rig.virsh("h1", "start", "--domain", "--config")
    plan = hosts.plan("--config")
    assert not [f for f in plan.order.findings if f.severity in ("block", "risk", "unknown")]
    assert hosts.moves("--config") == ""
