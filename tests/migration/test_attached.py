"""What the guest's devices lean on, and a target that has it, lacks it, or does not say."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import vmcompat as vc
from tests.migration.scene import WESTMERE, capabilities, domain, domain_xml, end, found, seen
from vmcompat.fleet.records import read_documents
from vmcompat.migration.attached import plain
from vmcompat.migration.domains import read_domains
from vmcompat.migration.inventory import Inventory, Pool, Ties
from vmcompat.migration.observe import End, Observation, has_sgx, shares_of
from vmcompat.migration.preflight import CHECKS, preflight
from vmcompat.migration.transfer import Transfer

PROVED_ON: dict[str, tuple[str, str]] = {
    "DISKS": ("rig (TCG)", "libvirt agreed"),
    "CACHE": ("recorded documents", "libvirt does not look"),
    "TRANSIENT": ("rig (TCG)", "libvirt agreed"),
    "SNAPSHOTS": ("rig (TCG)", "libvirt agreed"),
    "BLOCKJOB": ("rig (TCG)", "libvirt agreed"),
    "FILESYSTEM": ("rig (TCG)", "libvirt agreed"),
    "TPM": ("recorded documents", "libvirt agreed"),
    "NETWORK": ("rig (TCG)", "libvirt agreed"),
    "GRAPHICS": ("rig (TCG)", "libvirt agreed"),
    "PATHS": ("rig (TCG)", "libvirt agreed"),
    "FIRMWARE": ("rig (TCG)", "libvirt does not look"),
    "SECLABEL": ("rig (TCG)", "libvirt agreed"),
    "MEMORY_DEVICES": ("recorded documents", "not asked"),
    "TOPOLOGY": ("recorded documents", "libvirt agreed"),
}
"""By check: where it was seen to fire, and what a libvirt 9.0 did with such a guest in tests/rig/test_devices.py."""

HOST_2 = "00000000-0000-4000-8000-000000000002"
DIR = Pool(name="images", type="dir", active=True, path="/images", origin=("dir",))
NFS = Pool(name="nfs", type="netfs", active=True, path="/nfs", origin=("netfs", "host filer", "dir /vol1"))
OTHER_NFS = replace(NFS, origin=("netfs", "host filer", "dir /vol2"))
LOCAL = "/images/a.qcow2"


def has(**parts: Any) -> Inventory:
    """An inventory of a host that tells everything; what is not named it does not have."""
    nothing: dict[str, Any] = {"networks": {}, "interfaces": (), "pools": (), "secrets": ()}
    return Inventory(**(nothing | parts))


def to(
    there: Inventory | None = None, *, from_: Inventory | None = None, devices: str = "", ties: Ties | None = None,
    target: End | None = None, qemu: str | None = "7.2.0", transfer: Transfer | None = None, stored: str | None = None,
    libvirt: str = "9.0.0", **details: str,
) -> Observation:  # fmt: skip
    """A guest with these devices on its way to a host with that inventory."""
    here = replace(end("h1", WESTMERE, libvirt=libvirt), inventory=from_ or has(), qemu=qemu)
    found = replace(target or end("h2", WESTMERE), inventory=has() if there is None else there)
    was = None if stored is None else domain(devices=stored, **details)
    looked = seen(domain(devices=devices, **details), stored=was, source=here, target=found)
    return replace(looked, ties=ties or Ties(), transfer=transfer or looked.transfer)


def takes(**facts: Any) -> End:
    """h2 with domain capabilities that say so."""
    host = end("h2", WESTMERE)
    assert host.hypervisor is not None
    return replace(host, hypervisor=replace(host.hypervisor, facts=facts))


def labelled(models: str) -> End:
    document = capabilities(uuid=HOST_2)
    return end(
        "h2", WESTMERE, host=replace(document, facts=dict(document.facts) | {"security_models": tuple(models.split())})
    )


def disk(path: str = LOCAL, *, of: str = "disk", how: str = "cache='none'", policy: str = "", more: str = "") -> str:
    return (
        f"<disk type='file' device='{of}'><driver name='qemu' {how}/><source file='{path}'{policy}/>{more}"
        "<target dev='vda'/></disk>"
    )


def nic(kind: str, source: str = "", more: str = "") -> str:
    return f"<interface type='{kind}'>{f'<source {source}/>' if source else ''}{more}</interface>"


def port(kind: str, source: str, device: str = "serial") -> str:
    return f"<{device} type='{kind}'><source {source}/></{device}>"


VOLUME = "<disk type='volume'><source pool='images' volume='a'/><target dev='vda'/></disk>"
RBD = "<disk type='network'><source protocol='rbd' name='p/i'/><target dev='vda'/></disk>"
CEPH = RBD.replace("name='p/i'/>", "name='p/i'><auth username='u'><secret type='ceph' {}/></auth></source>")
BACKED = disk(
    "/nfs/a.qcow2",
    more="<backingStore type='file'><source file='/images/base.qcow2'/><backingStore/></backingStore>",
)
TPM = "<tpm model='tpm-crb'><backend type='{}'>{}</backend></tpm>"
SEALED = TPM.format("emulator", "<encryption secret='5ec2e7'/>")
VIRTIOFS = "<filesystem type='mount'><driver type='virtiofs'/><source dir='/srv/x'/><target dir='data'/></filesystem>"
NINE_P = "<filesystem type='mount'><source dir='/srv/x'/><target dir='data'/></filesystem>"
VNC = "<graphics type='vnc' listen='{0}'><listen type='address' address='{0}'/></graphics>"
LOADER = "<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><loader>/fw/code.fd</loader>{}</os><other>"
SLOTS = "<maxMemory slots='4' unit='KiB'>8388608</maxMemory>"
SLOT = "<address type='dimm' slot='0' base='0x100000000'/>"
DIMM = "<memory model='dimm'>{}<target><size>1024</size><node>0</node></target>" + SLOT + "</memory>"
SGX = "<memory model='sgx-epc'><target><size unit='KiB'>65536</size></target></memory>"
PMEM = "<memory model='virtio-pmem'><source><path>/srv/pm</path></source><target><size>1024</size></target></memory>"
NVRAM = LOADER.format("<nvram>/srv/nv/web1.fd</nvram>")
OFF = Transfer(offline=True)
LABEL = "<seclabel type='dynamic' model='selinux' relabel='yes'/>"

CASES: dict[str, tuple[str, str, str, Observation]] = {
    # name: check, severity, what the evidence says, what was seen
    "a disk over the network": ("DISKS", "ok", "rbd:p/i) is reached over the network", to(devices=RBD)),
    "a disk and its secret": ("DISKS", "ok", "is reached over the network", to(
        has(secrets=("5ec2e7",)), devices=CEPH.format("uuid='5ec2e7'"))),
    "a disk without its secret": ("DISKS", "block", "the secret 5ec2e7, which h2 lacks", to(
        devices=CEPH.format("uuid='5ec2e7'"))),
    "a disk and secrets not told": ("DISKS", "unknown", "does not say whether it has that", to(
        has(secrets=None), devices=CEPH.format("uuid='5ec2e7'"))),
    "a disk and a secret by its use": ("DISKS", "unknown", "the secret usage ceph_u", to(
        has(secrets=("5ec2e7",)), devices=CEPH.format("usage='ceph_u'"))),
    "one NFS share at both ends": ("DISKS", "ok", "the same storage at both ends", to(
        has(pools=(NFS,)), from_=has(pools=(NFS,)), devices=disk("/nfs/a.qcow2"))),
    "two shares at one place": ("DISKS", "risk", "other storage than nfs (netfs)", to(
        has(pools=(OTHER_NFS,)), from_=has(pools=(NFS,)), devices=disk("/nfs/a.qcow2"))),
    "a share that the source has otherwise": ("DISKS", "risk", "one and the same storage", to(
        has(pools=(NFS,)), devices=disk("/nfs/a.qcow2"))),
    "a local pool": ("DISKS", "risk", "(dir) of h2: libvirt does not tell whether", to(
        has(pools=(DIR,), volumes={LOCAL: "images"}), from_=has(pools=(DIR,), volumes={LOCAL: "images"}),
        devices=disk())),
    "a share there and a folder here": ("DISKS", "risk", "other storage than images (dir)", to(
        has(pools=(NFS,), volumes={"/nfs/a": "nfs"}), from_=has(pools=(replace(DIR, path="/nfs"),),
        volumes={"/nfs/a": "images"}), devices=disk("/nfs/a"))),
    "a disk that no pool lists": ("DISKS", "unknown", "no storage pool of h2 lists it (images)", to(
        has(pools=(DIR,)), devices=disk())),
    "a backing file that stays behind": ("DISKS", "unknown", "vda (/images/base.qcow2): no storage pool", to(
        has(pools=(NFS,)), from_=has(pools=(NFS,)), devices=BACKED)),
    "a path that only looks alike": ("DISKS", "unknown", "no storage pool", to(
        has(pools=(NFS,)), from_=has(pools=(NFS,)), devices=disk("/nfs2/a.qcow2"))),
    "storage not told": ("DISKS", "unknown", "does not list its storage: no driver", to(
        has(pools=None, silent={"storage pools": "no driver"}), devices=disk())),
    "an image to read": ("DISKS", "warn", "whether it is the same image", to(
        has(pools=(DIR,), volumes={LOCAL: "images"}), devices=disk(of="cdrom"))),
    "an image to read that is not there": ("DISKS", "unknown", "no storage pool", to(devices=disk(of="cdrom"))),
    "an image that may be missing": ("DISKS", "ok", "the drive is empty at h2", to(
        devices=disk(of="cdrom", policy=" startupPolicy='requisite'"))),
    "a volume of a pool that is not there": ("DISKS", "block", "no storage pool images", to(devices=VOLUME)),
    "a volume of a pool that is off": ("DISKS", "block", "is not active", to(
        has(pools=(replace(DIR, active=False),)), devices=VOLUME)),
    "a volume that the pool does not list": ("DISKS", "unknown", "lists it", to(has(pools=(DIR,)), devices=VOLUME)),
    "a volume of a local pool": ("DISKS", "risk", "one and the same", to(
        has(pools=(DIR,), volumes={"images/a": "images"}), devices=VOLUME)),
    "a disk of the host's own": ("DISKS", "block", "a device of h1", to(
        devices="<disk type='nvme'><source type='pci'/><target dev='vda'/></disk>")),
    "a disk of tomorrow": ("DISKS", "unknown", "libvirt does not tell", to(
        devices="<disk type='vhostuser'><source type='unix' path='/x'/><target dev='vda'/></disk>")),
    "a disk to copy into a pool": ("DISKS", "ok", "is copied, and h2 has a pool", to(
        has(pools=(DIR,)), devices=disk(), transfer=Transfer(copy_disks="all"))),
    "a disk to copy nowhere": ("DISKS", "unknown", "makes no image there", to(
        devices=disk(), transfer=Transfer(copy_disks="all"))),
    "a volume of a guest that is off": ("DISKS", "risk", "no storage pool images", to(devices=VOLUME, transfer=OFF)),
    "an uncached disk": ("CACHE", "ok", "no host caches", to(devices=disk())),
    "a cached disk of a QEMU that drops it": ("CACHE", "ok", "writes that out and drops it", to(
        devices=disk(how="cache='writeback'"))),
    "a cached disk of an old QEMU": ("CACHE", "block", "vda (writeback): writes may be lost", to(
        devices=disk(how="cache='writeback'"), qemu="2.12.0")),
    "the default of an old QEMU": ("CACHE", "block", "vda (default)", to(devices=disk(how=""), qemu="3.1.0")),
    "a cached disk with consent": ("CACHE", "warn", "error 81", to(
        devices=disk(how=""), qemu="3.1.0", transfer=Transfer(unsafe=True))),
    "a cached disk of who knows what": ("CACHE", "unknown", "its QEMU is not known", to(
        devices=disk(how=""), qemu=None)),
    "a shareable disk": ("CACHE", "ok", "no host caches", to(devices=disk(how="", more="<shareable/>"), qemu="2.0")),
    "a transient disk": ("TRANSIENT", "block", "transient disks: vda", to(devices=disk(more="<transient/>"))),
    "snapshots": ("SNAPSHOTS", "block", "2 snapshots: a, 'b\\nc'", to(ties=Ties(snapshots=("a", "b\nc")))),
    "no snapshots": ("SNAPSHOTS", "ok", "no snapshots", to(ties=Ties(snapshots=()))),
    "a block job": ("BLOCKJOB", "block", "block jobs on vda", to(ties=Ties(block_jobs=("vda",)))),
    "no block job": ("BLOCKJOB", "ok", "no block job", to(ties=Ties(block_jobs=()))),
    "virtiofs of an old QEMU": ("FILESYSTEM", "block", "the QEMU 7.2.0 of h1 refuses", to(devices=VIRTIOFS)),
    "virtiofs of an old libvirt": ("FILESYSTEM", "block", "the libvirt 9.0.0 of h1 refuses", to(
        devices=VIRTIOFS, qemu="9.0.0")),
    "virtiofs of a new libvirt": ("FILESYSTEM", "unknown", "virtiofsd of both hosts", to(
        devices=VIRTIOFS, qemu="9.0.0", libvirt="10.9.0")),
    "virtiofs of who knows what": ("FILESYSTEM", "unknown", "virtiofsd", to(
        devices=VIRTIOFS, qemu=None, libvirt="10.9.0")),
    "a folder by 9p": ("FILESYSTEM", "unknown", "while the guest has that mounted", to(devices=NINE_P)),
    "a TPM that is a chip": ("TPM", "block", "the chip /dev/tpm0 of h1", to(
        devices=TPM.format("passthrough", "<device path='/dev/tpm0'/>"))),
    "an emulated TPM": ("TPM", "ok", "takes its state along", to(
        devices=TPM.format("emulator", ""), target=takes(tpm_backends=("passthrough", "emulator")))),
    "an emulated TPM that h2 cannot have": ("TPM", "block", "h2 cannot emulate a TPM", to(
        devices=TPM.format("emulator", ""), target=takes(tpm_backends=("passthrough",)))),
    "an emulated TPM, not told": ("TPM", "unknown", "does not say", to(devices=TPM.format("emulator", ""))),
    "a TPM of another program": ("TPM", "unknown", "another program's", to(
        devices=TPM.format("external", "<source type='unix' mode='connect' path='/run/tpm'/>"))),
    "a sealed TPM": ("TPM", "ok", "has the secret", to(
        has(secrets=("5ec2e7",)), devices=SEALED, target=takes(tpm_backends=("emulator",)))),
    "a sealed TPM without its secret": ("TPM", "block", "the secret 5ec2e7, which h2 lacks", to(
        devices=SEALED, target=takes(tpm_backends=("emulator",)))),
    "a sealed TPM, secrets not told": ("TPM", "unknown", "does not say whether it has that", to(
        has(secrets=None), devices=SEALED, target=takes(tpm_backends=("emulator",)))),
    "a TPM of a guest that is off": ("TPM", "risk", "stays on h1", to(
        devices=TPM.format("emulator", ""), transfer=OFF)),
    "a network of a guest that is off": ("NETWORK", "risk", "no network lan", to(
        devices=nic("network", "network='lan'"), transfer=OFF)),
    "a network": ("NETWORK", "ok", "has the network lan", to(
        has(networks={"lan": True}), devices=nic("network", "network='lan'"))),
    "a network that is off": ("NETWORK", "block", "lan of h2 is not active", to(
        has(networks={"lan": False}), devices=nic("network", "network='lan'"))),
    "a network that is not there": ("NETWORK", "block", "no network lan", to(
        has(networks={"LAN": True}), devices=nic("network", "network='lan'"))),
    "a network whose bridge is gone": ("NETWORK", "block", "its bridge br0 is not there", to(
        has(networks={"lan": True}, bridges={"lan": "br0"}), devices=nic("network", "network='lan'"))),
    "a network and its bridge": ("NETWORK", "ok", "it is active", to(
        has(networks={"lan": True}, bridges={"lan": "br0"}, interfaces=("br0",)),
        devices=nic("network", "network='lan'"))),
    "networks not told": ("NETWORK", "unknown", "does not list its networks: no", to(
        has(networks=None, silent={"networks": "no"}), devices=nic("network", "network='lan'"))),
    "a bridge": ("NETWORK", "ok", "has a bridge br0", to(
        has(interfaces=("br0",)), devices=nic("bridge", "bridge='br0'"))),
    "a bridge that is not there": ("NETWORK", "block", "no bridge br0", to(devices=nic("bridge", "bridge='br0'"))),
    "interfaces not told": ("NETWORK", "unknown", "does not list its interfaces", to(
        has(interfaces=None), devices=nic("bridge", "bridge='br0'"))),
    "a device beneath macvtap": ("NETWORK", "block", "no network device eno1", to(devices=nic("direct", "dev='eno1'"))),
    "QEMU's own network": ("NETWORK", "warn", "breaks off", to(devices=nic("user"))),
    "a network of passt": ("NETWORK", "unknown", "passt", to(devices=nic("user", more="<backend type='passt'/>"))),
    "a tap that somebody connects": ("NETWORK", "warn", "somebody else connects", to(devices=nic("ethernet"))),
    "a tap that somebody makes": ("NETWORK", "unknown", "tap7", to(
        devices=nic("ethernet", more="<target dev='tap7' managed='no'/>"))),
    "a socket of a switch": ("NETWORK", "unknown", "/run/ovs", to(
        devices=nic("vhostuser", "type='unix' path='/run/ovs' mode='server'"))),
    "a vDPA device": ("NETWORK", "block", "/dev/vhost-vdpa-0: libvirt 9.0.0 with QEMU 7.2.0", to(
        devices=nic("vdpa", "dev='/dev/vhost-vdpa-0'"))),
    "a vDPA device of a libvirt that asks nobody": ("NETWORK", "block", "libvirt 8.5.0 with QEMU 8.2.0", to(
        devices=nic("vdpa", "dev='/dev/vhost-vdpa-0'"), libvirt="8.5.0", qemu="8.2.0")),
    "a vDPA device that may go along": ("NETWORK", "unknown", "only QEMU knows", to(
        devices=nic("vdpa", "dev='/dev/vhost-vdpa-0'"), qemu="8.2.0")),
    "a vDPA device of who knows what": ("NETWORK", "unknown", "only QEMU knows", to(
        devices=nic("vdpa", "dev='/dev/vhost-vdpa-0'"), qemu=None)),
    "an interface behind a filter": ("NETWORK", "warn", "the filter clean-traffic: h2 refuses", to(
        has(interfaces=("br0",)), devices=nic("bridge", "bridge='br0'", "<filterref filter='clean-traffic'/>"))),
    "one good and one bad interface": ("NETWORK", "block", "no bridge br1", to(
        has(interfaces=("br0",)), devices=nic("bridge", "bridge='br0'") + nic("bridge", "bridge='br1'"))),
    "a screen on loopback": ("GRAPHICS", "ok", "127.0.0.1", to(devices=VNC.format("127.0.0.1"))),
    "a screen on all addresses": ("GRAPHICS", "ok", "::", to(devices=VNC.format("::"))),
    "a screen on a host's address": ("GRAPHICS", "unknown", "10.0.0.5, which is one host's own", to(
        devices=VNC.format("10.0.0.5"))),
    "a screen on an address of every libvirt": ("GRAPHICS", "ok", "which h2 has too", to(
        has(addresses=("192.168.122.1",)), devices=VNC.format("192.168.122.1"))),
    "a screen by name": ("GRAPHICS", "unknown", "whether that is a name", to(devices=VNC.format("console.example"))),
    "a screen where qemu.conf says": ("GRAPHICS", "ok", "h2 chooses", to(
        devices=VNC.format("10.0.0.5"), stored="<graphics type='vnc'><listen type='address'/></graphics>")),
    "a screen of no address": ("GRAPHICS", "ok", "no address", to(devices="<graphics type='vnc'/>")),
    "a socket of libvirt's": ("PATHS", "ok", "libvirt makes", to(
        devices=port("unix", "mode='bind' path='/var/lib/libvirt/qemu/channel/target/d-1/a'", "channel"))),
    "a log": ("PATHS", "warn", "its serial ends in /srv/log/web1: h2 refuses the guest where it lacks the folder", to(
        devices=port("file", "path='/srv/log/web1'"))),
    "a path out of libvirt's folder": ("PATHS", "warn", "lacks the folder", to(
        devices=port("file", "path='/var/log/libvirt/../../srv/x'"))),
    "somebody's socket": ("PATHS", "warn", "somebody must listen on h2", to(
        devices=port("unix", "mode='connect' path='/srv/s'"))),
    "a device as serial port": ("PATHS", "risk", "a device of h1", to(devices=port("dev", "path='/dev/ttyS1'"))),
    "a port on a host's address": ("PATHS", "unknown", "its serial listens on 10.0.0.5", to(
        devices=port("tcp", "mode='bind' host='10.0.0.5' service='9'"))),
    "a port that calls out": ("PATHS", "warn", "somebody must listen", to(
        devices=port("tcp", "mode='connect' host='10.0.0.5' service='9'"))),
    "a device of the client's": ("PATHS", "warn", "its redirdev ends in 10.0.0.5, to which QEMU connects", to(
        devices=port("tcp", "mode='connect' host='10.0.0.5' service='9'", "redirdev"))),
    "random numbers of a device": ("PATHS", "warn", "its rng ends in /dev/hwrng", to(
        devices="<rng model='virtio'><backend model='random'>/dev/hwrng</backend></rng>")),
    "a vsock": ("PATHS", "warn", "needs /dev/vhost-vsock on h2", to(
        devices="<vsock model='virtio'><cid auto='yes' address='3'/></vsock>")),
    "a vsock of a fixed number": ("PATHS", "warn", "/dev/vhost-vsock on h2, and its number 3 free", to(
        devices="<vsock model='virtio'><cid auto='no' address='3'/></vsock>")),
    "NVRAM elsewhere": ("PATHS", "warn", "its NVRAM is /srv/nv/web1.fd", to(before=NVRAM, inside="</other>")),
    "firmware": ("FIRMWARE", "ok", "has the firmware /fw/code.fd", to(
        before=LOADER.format(""), inside="</other>", target=takes(loaders=("/fw/code.fd",)))),
    "firmware that is not listed": ("FIRMWARE", "unknown", "does not list the firmware", to(
        before=LOADER.format(""), inside="</other>", target=takes(loaders=()))),
    "firmware not told": ("FIRMWARE", "unknown", "does not say", to(before=LOADER.format(""), inside="</other>")),
    "NVRAM of a guest that is off": ("FIRMWARE", "risk", "stays on h1", to(
        before=NVRAM, inside="</other>", transfer=OFF)),
    "a label of a guest that is off": ("SECLABEL", "risk", "labelled by selinux", to(
        inside=LABEL, target=labelled("dac"), transfer=OFF)),
    "a label": ("SECLABEL", "ok", "h2 has selinux", to(inside=LABEL, target=labelled("selinux dac"))),
    "a label of another system": ("SECLABEL", "block", "labelled by selinux, and h2 has apparmor, dac", to(
        inside=LABEL, target=labelled("apparmor dac"))),
    "labels not told": ("SECLABEL", "unknown", "does not say which security models", to(inside=LABEL)),
    "slots for memory": ("MEMORY_DEVICES", "ok", "1 of 4 memory slots", to(
        before=SLOTS, devices=DIMM.format(""))),
    "memory of a node that is not there": ("MEMORY_DEVICES", "block", "nodes that h2 lacks: 3", to(
        before=SLOTS, devices=DIMM.format("<source><nodemask>0,3</nodemask></source>"))),
    "memory of nodes not told": ("MEMORY_DEVICES", "unknown", "NUMA nodes", to(
        before=SLOTS, devices=DIMM.format("<source><nodemask>3</nodemask></source>"),
        target=end("h2", WESTMERE, host=capabilities(uuid=HOST_2, topology=False)))),
    "memory that is a file": ("MEMORY_DEVICES", "warn", "the file /srv/nv", to(
        before=SLOTS, devices=DIMM.format("<source><path>/srv/nv</path></source>").replace("'dimm'", "'nvdimm'"))),
    "memory for enclaves": ("MEMORY_DEVICES", "risk", "in its enclaves is lost", to(
        devices=SGX, target=takes(sgx=True))),
    "memory for enclaves, not told": ("MEMORY_DEVICES", "risk", "in its enclaves is lost", to(devices=SGX)),
    "memory for enclaves that h2 has not": ("MEMORY_DEVICES", "block", "h2 has none to give", to(
        devices=SGX, target=takes(sgx=False))),
    "memory that is a file of virtio": ("MEMORY_DEVICES", "unknown", "virtio-pmem /srv/pm", to(devices=PMEM)),
    "memory that has no slot": ("MEMORY_DEVICES", "block", "a dimm has no slot", to(
        before=SLOTS, devices=DIMM.format("").replace(SLOT, ""))),
    "memory that shall have a slot": ("MEMORY_DEVICES", "ok", "1 of 4 memory slots", to(
        before=SLOTS, devices=DIMM.format("").replace(SLOT, ""), transfer=OFF)),
    "virtual CPUs": ("TOPOLOGY", "ok", "2 of the 288", to(target=takes(vcpu_max=288))),
    "more virtual CPUs than a machine has": ("TOPOLOGY", "block", "has 288 at most", to(
        vcpu="<vcpu>512</vcpu>", target=takes(vcpu_max=288))),
}  # fmt: skip


def test_a_serial_port_and_its_console_are_one_end() -> None:
    both = "".join(f"<{kind} type='file'><source path='/logs/web1'/></{kind}>" for kind in ("serial", "console"))
    finding = found(to(devices=both), "PATHS")
    assert finding is not None
    assert finding.evidence.count("/logs/web1") == 1


def test_each_check_has_its_row_of_where_it_was_proved() -> None:
    assert set(PROVED_ON) == {check for check, *_ in CASES.values()}
    assert set(PROVED_ON) <= set(CHECKS)


ALL = (
    disk() + VOLUME + nic("bridge", "bridge='br0'") + VNC.format("10.0.0.5") + port("file", "path='/srv/log'") + SEALED
)


@pytest.mark.parametrize("check", ["DISKS", "NETWORK", "GRAPHICS", "PATHS"])
def test_what_only_a_live_look_tells_is_not_judged_from_documents(check: str) -> None:
    looked = to(devices=ALL)
    assert found(looked, check) is not None
    assert found(replace(looked, target=replace(looked.target, inventory=None)), check) is None


def test_reachability_judges_what_documents_tell_and_neither_storage_nor_networks() -> None:
    xml = domain_xml(devices=ALL + VIRTIOFS, inside=LABEL).replace("<domain ", "<domain id='1' ")
    (record,) = read_domains({"web1": xml}).records
    guests = replace(read_domains({"web1": xml}), records=(replace(record, host="h1", state="running"),))
    fleet = vc.read_fleet({"h1": _host("selinux", 1), "h2": _host("apparmor", 2), "h3": _host("selinux", 3)})
    table = vc.reachability(guests, fleet).frame["reasons"]
    assert {"SECLABEL"} <= set(table["web1", "h2"])
    assert "SECLABEL" not in table["web1", "h3"]
    assert not {i for reasons in table for i in reasons} & {"DISKS", "CACHE", "NETWORK", "GRAPHICS", "PATHS"}


def _host(model: str, number: int) -> str:
    return f"""<capabilities><host><uuid>00000000-0000-4000-8000-00000000000{number}</uuid><cpu><arch>x86_64</arch>
<model>Westmere</model><vendor>Intel</vendor></cpu><secmodel><model>{model}</model></secmodel>
<secmodel><model>dac</model></secmodel></host></capabilities>"""


def test_domain_capabilities_tell_what_the_emulator_takes_and_stay_silent_on_the_rest() -> None:
    text = """<domainCapabilities><path>/q</path><domain>kvm</domain><arch>x86_64</arch><vcpu max='288'/><os>
<loader supported='yes'><value>/fw/a</value><enum name='type'><value>rom</value></enum></loader></os><devices>
<tpm supported='yes'><enum name='model'><value>tpm-tis</value></enum><enum name='backendModel'><value>emulator</value>
</enum></tpm></devices></domainCapabilities>"""
    (document,) = read_documents(text.encode(), source="x")
    assert dict(document.facts) == {"vcpu_max": 288, "loaders": ("/fw/a",), "tpm_backends": ("emulator",)}
    (silent,) = read_documents(b"<domainCapabilities><vcpu max='many'/></domainCapabilities>", source="x")
    assert dict(silent.facts) == {}


@pytest.mark.parametrize(("memory", "live"), [(SGX, "risk"), (PMEM.replace("<path>/srv/pm</path>", ""), "unknown")])
def test_what_a_move_would_lose_of_memory_devices_a_guest_that_is_off_has_not(memory: str, live: str) -> None:
    looked = to(devices=memory)
    off = replace(looked, live=None, state="shut off", transfer=OFF)
    told = [found(one, "MEMORY_DEVICES") for one in (looked, off)]
    assert [f and f.severity for f in told] == [live, "ok"]


@pytest.mark.parametrize(("name", "sgx"), [
    ("qemu_7.0.0.x86_64.xml", True), ("qemu_6.1.0.x86_64.xml", False),
])  # fmt: skip
def test_whether_a_host_has_memory_for_enclaves_is_in_its_domain_capabilities(
    shared: Path, name: str, sgx: bool
) -> None:
    text = (shared / "data/libvirt-9.0.0/domaincapsdata" / name).read_text()
    assert has_sgx(text, source=name) is sgx
    assert has_sgx(text.replace("sgx", "tomorrow"), source=name) is None


@pytest.mark.parametrize(("name", "shares"), [
    ("vircaps-x86_64-resctrl.xml", ("cachetune", "memorytune")), ("vircaps-x86_64-resctrl-skx.xml", ("cachetune",)),
    ("vircaps-x86_64-caches.xml", ()), ("caps-qemu-kvm.xml", ()),
])  # fmt: skip
def test_what_a_host_can_set_apart_is_in_its_capabilities(shared: Path, name: str, shares: tuple[str, ...]) -> None:
    text = (shared / "data/libvirt-9.0.0/capabilities" / name).read_text()
    assert shares_of(text, source=name) == shares


# ---- names and paths come from strangers

HOSTILE = ["--config", "../../x", "a\nb", "it's; reboot", "$(reboot)", "`reboot`", 'a"b', "a|b>c"]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_to_be_typed_holds_a_strangers_text_as_one_word(text: str) -> None:
    escaped = text.replace("&", "&amp;").replace("'", "&apos;").replace(">", "&gt;").replace("\n", "&#10;")
    guest = ALL.replace(VOLUME, "").replace("/srv/log", f"/srv/{escaped}/log").replace(LOCAL, f"/srv/{escaped}")
    guest += NINE_P.replace("/srv/x", f"/srv/{escaped}") + nic("network", f"network='{escaped}'")
    looked = to(
        has(networks={text: False}, pools=(replace(DIR, name=text),), interfaces=("br0",)),
        devices=guest, ties=Ties(snapshots=(text,), block_jobs=("vda",)),
    )  # fmt: skip
    findings = {f.id: f for f in preflight(replace(looked, domain=text)) if f.id in PROVED_ON}
    for check, word in (
        ("SNAPSHOTS", f"--domain {shlex.quote(text)} --snapshotname {shlex.quote(text)}"),
        ("BLOCKJOB", f"--domain {shlex.quote(text)}"),
        ("NETWORK", f"net-start --network {shlex.quote(text)}"),
        ("FILESYSTEM", f"ls -ld -- {shlex.quote(f'/srv/{text}')}"),
        ("DISKS", f"ls -l -- {shlex.quote(f'/srv/{text}')}"),
    ):
        assert word in findings[check].remedy
    assert [f for f in findings.values() if "\n" in f.evidence] == []


def test_text_that_breaks_a_sentence_is_escaped() -> None:
    assert (plain("web 1"), plain("a\nb"), plain("\x1b[31m"), plain("\u202ex")) == (
        "web 1", repr("a\nb"), repr("\x1b[31m"), repr("\u202ex"),
    )  # fmt: skip
