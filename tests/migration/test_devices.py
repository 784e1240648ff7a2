"""What a domain's XML says of its devices: read as libvirt writes it, refused where libvirt would refuse."""

import subprocess
import sys
from pathlib import Path

import pytest

import vmcompat as vc
from tests.migration.scene import domain, domain_xml
from vmcompat.connect import open_host
from vmcompat.errors import ConnectError, DocumentError, FrameError
from vmcompat.migration.devices import (
    Character,
    Clock,
    Devices,
    Disk,
    Filesystem,
    Firmware,
    Graphics,
    Interface,
    Label,
    MemoryDevice,
    Storage,
    Tpm,
)
from vmcompat.migration.domain import read_domain
from vmcompat.migration.domains import read_domains
from vmcompat.migration.inventory import Pool, take_inventory

AT = ("10.0.0.5",)
FILE = Storage(type="file", path="/images/a.qcow2")


def devices(devices: str, **details: str) -> Devices:
    return domain(devices=devices, **details).devices


DISKS = {
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='/images/a.qcow2'/>"
    "<target dev='vda' bus='virtio'/></disk>": Disk(target="vda", device="disk", source=FILE, cache="none"),
    "<disk type='file'><driver cache='default'/><source file='/images/a.qcow2'/><target dev='vda'/><shareable/>"
    "<transient/></disk>": Disk(target="vda", device="disk", source=FILE, shareable=True, transient=True),
    "<disk type='file' device='cdrom'><target dev='sda'/></disk>":
        Disk(target="sda", device="cdrom", source=None, readonly=True),
    "<disk type='file' device='cdrom'><source file=''/><target dev='sda'/></disk>":
        Disk(target="sda", device="cdrom", source=None, readonly=True),
    "<disk type='file' device='floppy'><source file='/images/a.qcow2' startupPolicy='optional'/><target dev='fda'/>"
    "<readonly/></disk>": Disk(target="fda", device="floppy", source=FILE, readonly=True, may_be_missing=True),
    "<disk type='block' device='lun'><source dev='/dev/mapper/x'/><target dev='sda'/></disk>":
        Disk(target="sda", device="lun", source=Storage(type="block", path="/dev/mapper/x")),
    "<disk type='volume'><source pool='p' volume='v' index='1'/><target dev='vda'/></disk>":
        Disk(target="vda", device="disk", source=Storage(type="volume", pool="p", volume="v")),
    "<disk type='network'><source protocol='rbd' name='p/i'><host name='c1'/></source><target dev='vda'/></disk>":
        Disk(target="vda", device="disk", source=Storage(type="network", protocol="rbd", name="p/i")),
    "<disk type='file'><source file='/images/a.qcow2'><encryption format='luks'><secret type='passphrase' uuid='5'/>"
    "</encryption></source><backingStore type='file'><source file='/b'><encryption format='luks'><secret usage='x'/>"
    "</encryption></source></backingStore><target dev='vda'/></disk>":
        Disk(target="vda", device="disk", source=FILE, backing=(Storage(type="file", path="/b"),),
             secrets=("5", "usage x")),
    "<disk type='nvme'><source type='pci' namespace='1'><address domain='0'/></source><target dev='vda'/></disk>":
        Disk(target="vda", device="disk", source=Storage(type="nvme")),
    "<disk type='tomorrow'><source what='x'/><target dev='vda'/></disk>":
        Disk(target="vda", device="disk", source=Storage(type="tomorrow")),
    "<disk type='file'><source file='/images/a.qcow2'/><backingStore type='file' index='2'><source file='/b'/>"
    "<backingStore type='block'><source dev='/dev/c'/><backingStore/></backingStore></backingStore>"
    "<mirror type='file'><source file='/m'/></mirror><target dev='vda'/></disk>":
        Disk(target="vda", device="disk", source=FILE,
             backing=(Storage(type="file", path="/b"), Storage(type="block", path="/dev/c"))),
}  # fmt: skip


@pytest.mark.parametrize("xml", DISKS)
def test_a_disk_is_read_with_its_images_and_how_it_is_used(xml: str) -> None:
    assert devices(xml).disks == (DISKS[xml],)


INTERFACES = {
    "<interface type='network'><source network='lan' portgroup='web' portid='1' bridge='virbr0'/><model type='virtio'/>"
    "</interface>": Interface(type="network", source="lan", portgroup="web", model="virtio"),
    "<interface type='bridge'><source network='lan' portid='1' bridge='br0'/></interface>":
        Interface(type="network", source="lan"),
    "<interface type='direct'><source network='lan' dev='eno1' mode='bridge'/></interface>":
        Interface(type="network", source="lan"),
    "<interface type='bridge'><source bridge='br0'/></interface>": Interface(type="bridge", source="br0"),
    "<interface type='direct'><source dev='eno1' mode='vepa'/></interface>": Interface(type="direct", source="eno1"),
    "<interface type='vhostuser'><source type='unix' path='/run/s' mode='server'/></interface>":
        Interface(type="vhostuser", source="/run/s"),
    "<interface type='user'><backend type='passt'/></interface>": Interface(type="user", backend="passt"),
    "<interface type='bridge'><source bridge='br0'/><filterref filter='clean-traffic'/></interface>":
        Interface(type="bridge", source="br0", rules="clean-traffic"),
    "<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>":
        Interface(type="vdpa", source="/dev/vhost-vdpa-0"),
    "<interface type='ethernet'><target dev='tap7' managed='no'/></interface>":
        Interface(type="ethernet", source="tap7", managed=False),
}  # fmt: skip


@pytest.mark.parametrize("xml", INTERFACES)
def test_an_interface_is_read_with_what_it_hangs_on(xml: str) -> None:
    assert devices(xml).interfaces == (INTERFACES[xml],)


@pytest.mark.parametrize(
    ("xml", "listen"),
    [
        ("<graphics type='vnc' port='-1'/>", ()),
        ("<graphics type='vnc' listen='10.0.0.5'/>", AT),
        ("<graphics type='vnc' listen='10.0.0.5'><listen type='address' address='10.0.0.5'/></graphics>", AT),
        ("<graphics type='spice'><listen type='address'/></graphics>", ()),
        ("<graphics type='vnc' listen='10.1.1.1'><listen type='network' address='10.1.1.1'/></graphics>", ()),
        ("<graphics type='vnc'><listen type='socket' socket='/x'/></graphics>", ()),
    ],
)
def test_of_a_screen_only_a_fixed_address_is_kept(xml: str, listen: tuple[str, ...]) -> None:
    (screen,) = devices(xml).graphics
    assert screen == Graphics(type=screen.type, listen=listen)


def test_what_else_leans_on_the_host_is_read() -> None:
    found = devices(
        "<tpm model='tpm-crb'><backend type='emulator' version='2.0'><encryption secret='s'/></backend></tpm>"
        "<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>"
        "<filesystem type='mount'><driver type='virtiofs'/><source dir='/srv'/><target dir='data'/></filesystem>"
        "<memory model='dimm'><source><nodemask>0-1</nodemask></source><target><size unit='MiB'>512</size></target>"
        "</memory>"
        "<memory model='nvdimm'><source><path>/dev/dax0.0</path></source><target><size>1</size></target></memory>",
        inside="<clock offset='localtime'><timer name='rtc'/><timer name='hpet' present='no'/></clock>"
        "<seclabel type='static' model='selinux' relabel='no'><label>x</label></seclabel>",
        before="<maxMemory slots='16' unit='KiB'>33554432</maxMemory>"
        "<vcpus><vcpu id='0' hotpluggable='no'/><vcpu id='1' hotpluggable='yes'/></vcpus>",
    )
    assert found.tpms == (
        Tpm(model="tpm-crb", backend="emulator", secret="s"),
        Tpm(model="tpm-tis", backend="passthrough", path="/dev/tpm0"),
    )
    assert found.filesystems == (Filesystem(type="mount", driver="virtiofs", source="/srv", target="data"),)
    assert found.memory == (
        MemoryDevice(model="dimm", size=512 * 1024, nodes=frozenset({0, 1})),
        MemoryDevice(model="nvdimm", size=1, path="/dev/dax0.0"),
    )
    assert (found.memory_slots, found.n_hotpluggable) == (16, 1)
    assert found.labels == (Label(type="static", model="selinux", relabel=False),)
    assert found.clock == Clock(offset="localtime", timers=("rtc",))


def test_ports_are_kept_where_they_end_on_the_host_and_a_console_beside_its_serial_port_too() -> None:
    serial = "<source path='/log/web1'/><log file='/log/copy'/>"
    found = devices(
        f"<serial type='file'>{serial}</serial><serial type='pty'><source path='/dev/pts/4'/></serial>"
        "<channel type='unix'><source mode='bind'/></channel><channel type='spicevmc'/>"
        "<serial type='tcp'><source mode='connect' host='10.0.0.1' service='99'/></serial>"
    )
    assert found.characters == (
        Character(device="serial", type="file", path="/log/web1"),
        Character(device="serial", type="log", path="/log/copy"),
        Character(device="serial", type="tcp", path="10.0.0.1", connects=True),
    )


def test_what_else_ends_on_the_host_is_kept_unless_every_host_has_it() -> None:
    random = "<rng model='virtio'><backend model='random'>{}</backend></rng>"
    found = devices(
        "<redirdev bus='usb' type='tcp'><source mode='connect' host='10.0.0.1' service='9'/></redirdev>"
        "<redirdev bus='usb' type='spicevmc'/>" + random.format("/dev/urandom") + random.format("/dev/hwrng")
        + "<vsock model='virtio'><cid auto='yes' address='4'/></vsock>",
    )  # fmt: skip
    assert found.characters == (
        Character(device="redirdev", type="tcp", path="10.0.0.1", connects=True),
        Character(device="rng", type="random", path="/dev/hwrng"),
        Character(device="vsock", type="vsock", path=""),
    )
    (fixed,) = devices("<vsock model='virtio'><cid auto='no' address='4'/></vsock>").characters
    assert fixed.path == "4"


def test_a_memory_device_that_runs_has_its_slot() -> None:
    dimm = "<memory model='dimm'><target><size>1</size></target>{}</memory>"
    read = [devices(dimm.format(x)).memory[0].placed for x in ("", "<address type='dimm' slot='0' base='0x0'/>")]
    assert read == [False, True]


def test_firmware_is_read_in_both_spellings_of_nvram() -> None:
    system = "<os{}><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><loader>/fw/code.fd</loader>{}</os>"
    plain = domain_xml().replace("<os>", "<was>").replace("</os>", "</was>")
    old = system.format("", "<nvram template='/fw/vars.fd'>/nv/web1.fd</nvram>")
    new = system.format(" firmware='efi'", "<nvram type='file'><source file='/nv/web1.fd'/></nvram>")
    read = [read_domain(plain.replace("<was>", f"{x}<was>"), source="x").devices.firmware for x in (old, new)]
    assert read[0] == Firmware(loader="/fw/code.fd", nvram="/nv/web1.fd", template="/fw/vars.fd")
    assert read[1] == Firmware(automatic="efi", loader="/fw/code.fd", nvram="/nv/web1.fd")


# What libvirt 9.0 says to each is asked in tests/rig/test_devices.py.
REFUSED = {
    "<disk type='file'><source file='/a'/></disk>": "a <disk> without <target dev>",
    "<interface type='network'><model type='virtio'/></interface>": "an <interface type='network'>",
    "<interface type='bridge'/>": "an <interface type='bridge'>",
    "<interface type='direct'><source mode='bridge'/></interface>": "an <interface type='direct'>",
    "<tpm model='tpm-tis'/>": "a <tpm> without <backend type>",
    "<memory model='dimm'><source><nodemask>x</nodemask></source><target><size>1</size></target></memory>":
        "a <nodemask> that is no set",
}  # fmt: skip


@pytest.mark.parametrize("xml", REFUSED)
def test_a_device_that_libvirt_would_refuse_is_an_error_with_its_line(xml: str) -> None:
    with pytest.raises(DocumentError, match=REFUSED[xml]) as refused:
        devices(xml)
    assert refused.value.line is not None


@pytest.mark.parametrize("slots", ["", " slots='0'", " slots='many'", " slots='99999999999'"])
def test_slots_for_memory_that_are_no_number_are_refused(slots: str) -> None:
    with pytest.raises(DocumentError, match="<maxMemory>"):
        domain(before=f"<maxMemory{slots} unit='KiB'>33554432</maxMemory>")


def test_a_guest_with_a_broken_device_stays_among_the_others() -> None:
    guests = read_domains({"a": domain_xml(), "b": domain_xml(name="b", devices="<disk><source file='/a'/></disk>")})
    assert guests.names == ("web1", "b")
    assert "without <target dev>" in guests.findings["message"].iloc[0]


def test_ten_thousand_images_beneath_a_disk_are_refused_and_not_followed() -> None:
    chain = "<backingStore type='file'><source file='/x'/>" * 10_000 + "</backingStore>" * 10_000
    with pytest.raises(DocumentError):
        devices(f"<disk type='file'><source file='/a'/>{chain}<target dev='vda'/></disk>")


def test_the_sample_guests_have_the_disk_the_network_and_the_screen_that_their_xml_names(samples: Path) -> None:
    guests = read_domains(samples / "mixed" / "domains")
    for record in guests.records:
        assert record.known is not None
        found, text = record.known.devices, record.known.xml
        assert len(found.disks) == text.count("<disk ")
        assert [i.source for i in found.interfaces] == ["br0"] * text.count("<interface ")
        assert [g.listen for g in found.graphics] == [("127.0.0.1",)] * text.count("<graphics ")


# ---- a connection in place of files


def test_a_uri_is_never_taken_for_a_file() -> None:
    with pytest.raises(ConnectError, match="socket"):
        read_domains("qemu+unix:///system?socket=/nowhere/libvirt-sock")
    with pytest.raises(ConnectError, match="socket"):
        read_domains(["sample_caps/mixed/domains", "qemu+unix:///system?socket=/nowhere/libvirt-sock"])
    with pytest.raises(FrameError, match=r"no file or folder, and no libvirt URI \(such as"):
        read_domains("qemu:/system")


def test_reading_files_loads_no_libvirt() -> None:
    program = (
        "import sys, vmcompat as vc; vc.read_domains('sample_caps/mixed/domains'); print('libvirt' in sys.modules)"
    )
    root = Path(vc.__file__).parent.parent
    python = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert python.stdout.split() == ["False"]


def test_libvirts_own_test_driver_gives_its_guests_live_and_stored() -> None:
    guests = read_domains("test:///default")
    assert guests.names == ("test",)
    (record,) = guests.records
    assert (record.state, record.live is not None, record.stored is not None) == ("running", True, True)
    assert record.ties.snapshots == ()
    assert record.sources["live"][0] == "test:///default test"


# ---- what a live host has


def test_an_inventory_lists_what_libvirt_lists_and_says_what_it_does_not() -> None:
    lun = domain(
        devices="<disk type='volume'><source pool='default-pool' volume='none'/><target dev='vda'/></disk>"
        "<interface type='bridge'><source bridge='nobody'/></interface>"
    )
    with open_host("test:///default") as host:
        found = take_inventory(host, lun)
    assert found.networks == {"default": True}
    assert found.interfaces == ("eth1",)
    assert found.pools == (Pool(name="default-pool", type="dir", active=True, path="/default-pool", origin=("dir",)),)
    assert found.volumes == {}
    assert found.addresses == ("192.168.0.5", "192.168.122.1")
    assert found.secrets is None
    assert "not supported" in found.silent["secrets"]
