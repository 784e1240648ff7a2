"""What is found before anything is touched: each check where it fires, where it does not, and where it cannot tell."""

from dataclasses import replace
from typing import Any

from tests.migration.scene import SANDYBRIDGE, UUID, WESTMERE, capabilities, domain, end, found, seen
from vmcompat.migration.apply import CpuAnswer
from vmcompat.migration.observe import Observation
from vmcompat.migration.preflight import preflight
from vmcompat.migration.transfer import PLAIN, Transfer


def custom(inside: str) -> str:
    return f"<cpu mode='custom' match='exact' check='full'>{inside}</cpu>"


def cpu(inside: str) -> dict[str, str]:
    return {"cpu": custom(inside)}


MORE = "pclmuldq, x2apic, tsc-deadline, xsave, avx, rdtscp"  # what SandyBridge has and Westmere has not
HOST_1 = "00000000-0000-4000-8000-000000000001"
HOST_2 = "00000000-0000-4000-8000-000000000002"
INVTSC = f"{WESTMERE}<feature policy='require' name='invtsc'/>"
FIXED = "<clock offset='utc'><timer name='tsc' frequency='2000000000'/></clock>"
SHARES = "<cputune><cachetune vcpus='0'><cache id='0' level='3' type='both' size='3' unit='MiB'/></cachetune></cputune>"
HUGE = "<memoryBacking><hugepages><page size='1' unit='GiB'/></hugepages></memoryBacking>"
DEVICE = """<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x3b' slot='0x00'
function='0x1'/></source></hostdev>"""


FIXED_ADDRESS = "<address type='pci' domain='0x0000' bus='0x3b' slot='0x00' function='0x1'/>"
TEAMED = f"""<interface type='hostdev'><source{{}}>{FIXED_ADDRESS}</source>
<teaming type='transient' persistent='ua-1'/></interface>"""
MDEV = """<hostdev mode='subsystem' type='mdev' model='{}'><source>
<address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>"""
SCSI = """<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/>
<address bus='0' target='0' unit='0'/></source></hostdev>"""
VHOST_SCSI = """<hostdev mode='subsystem' type='scsi_host'><source protocol='vhost' wwpn='naa.5123456789abcde0'/>
</hostdev>"""
USB = "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>"
SHMEM = "<shmem name='pool'{}><model type='{}'/><size unit='M'>4</size>{}</shmem>"
VIRGL = "<video><model type='virtio'><acceleration accel3d='{}'/></model></video>"
IMAGE = """<disk type='file'><driver name='qemu' type='{}'/><source file='/a'{}/><backingStore type='file'>
<format type='{}'/><source file='/b'/></backingStore><target dev='vda'/></disk>"""
OFF = Transfer(offline=True)


def lent(device: str, libvirt: str = "9.0.0", qemu: str | None = "7.2.0", transfer: Transfer = PLAIN) -> Observation:
    """A guest with that device, of a source with these versions."""
    here = replace(end("h1", WESTMERE, libvirt=libvirt), qemu=qemu)
    return seen(domain(devices=device), source=here, transfer=transfer)


def kept(observation: Observation) -> Observation:
    """The same, out of documents that somebody kept."""
    return replace(observation, source=replace(observation.source, asked=False))


def refused(words: str) -> Observation:
    """A guest whose definition the target refuses in a dry run, in these words."""
    looked = seen(domain())
    return replace(looked, target=replace(looked.target, refusal=words))


def called(name: str, observation: Observation) -> Observation:
    """The same, with a target that calls itself so."""
    return replace(observation, target=replace(observation.target, name=name))


def sets_apart(*shares: str) -> Any:
    document = capabilities(uuid=HOST_2)
    return end("h2", WESTMERE, host=replace(document, facts=dict(document.facts) | {"shares": shares}))


def bits(mode: str, number: int) -> str:
    return f"<maxphysaddr mode='{mode}' {'bits' if mode == 'emulate' else 'limit'}='{number}'/>"


def tsc(frequency: int, scaling: str = "") -> str:
    says = f" scaling='{scaling}'" if scaling else ""
    return f"<counter name='tsc' frequency='{frequency}'{says}/>"


def promised(observation: Observation, question: str) -> Observation:
    """The same, but the target's libvirt says that it can give the CPU, whatever it lists."""
    answer = CpuAnswer(host="h2", result="superset")
    return replace(observation, target=replace(observation.target, answers={question: answer}))


def at_h2(**details: Any) -> Any:
    return end("h2", WESTMERE, host=capabilities(**({"uuid": HOST_2} | details)))


CASES: dict[str, tuple[str, str, str, Observation]] = {
    # name: check, severity, what the evidence says, what was seen
    "a running guest": ("STATE", "ok", "running", seen(domain())),
    "a guest that is off": ("STATE", "block", "shut off", seen(None, stored=domain(), state="shut off")),
    "a paused guest": ("STATE", "risk", "paused", seen(domain(), state="paused")),
    "a crashed guest": ("STATE", "risk", "call it running there", seen(domain(), state="crashed")),
    "a guest that sleeps": ("STATE", "risk", "may wait for ever", seen(domain(), state="suspended")),
    "a guest that is shutting down": ("STATE", "block", "shutting down", seen(domain(), state="shutting down")),
    "a guest with a job": ("STATE", "block", "job", seen(domain(), job=True)),
    "two hosts": ("SAME_HOST", "ok", "different", seen(domain())),
    "one host twice": ("SAME_HOST", "block", HOST_1, seen(domain(), target=at_h2(uuid=HOST_1))),
    "a host without UUID": ("SAME_HOST", "unknown", "h2 gives no", seen(domain(), target=at_h2(uuid=""))),
    "a peer": ("PEER", "ok", "qemu+ssh://h2/system", seen(domain())),
    "no peer": ("PEER", "block", "this client only", seen(domain(), peer_uri=None)),
    "a transport that is not there": ("PEER", "block", "not by rdma", seen(
        domain(), migrate_uri="rdma://h2", target=at_h2(transports=("tcp",)))),
    "transports not told": ("PEER", "unknown", "does not say", seen(domain(), target=at_h2(transports=()))),
    "a host without a name": ("PEER", "unknown", "calls itself localhost", called("localhost.local", seen(domain()))),
    "a host without a name, and an address": ("PEER", "ok", "travels by tcp", called("localhost", seen(
        domain(), migrate_uri="tcp://10.0.0.2"))),
    "by rdma, without a limit": ("PEER", "block", "a limit of its memory", seen(domain(), migrate_uri="rdma://h2")),
    "by rdma, with no limit at all": ("PEER", "block", "a limit of its memory", seen(domain(
        before="<memtune><hard_limit unit='KiB'>9007199254740991</hard_limit></memtune>"), migrate_uri="rdma://h2")),
    "by rdma": ("PEER", "ok", "travels by rdma", seen(domain(
        before="<memtune><hard_limit unit='GiB'>2</hard_limit></memtune>"), migrate_uri="rdma://h2")),
    "no peer, and none needed": ("PEER", "ok", "this client calls both", seen(
        domain(), peer_uri=None, transfer=Transfer(managed=True))),
    "options that both hosts have": ("TRANSFER", "ok", "parallel", seen(domain(), transfer=Transfer(parallel=4))),
    "an option that a host lacks": ("TRANSFER", "block", "libvirt 5.0.0 of h2 is too old for parallel", seen(
        domain(), target=end("h2", WESTMERE, libvirt="5.0.0"), transfer=Transfer(parallel=4))),
    "options that exclude each other": ("TRANSFER", "block", "7.2.0 of h1 has post_copy or parallel", seen(
        domain(), transfer=Transfer(parallel=4, post_copy=True))),
    "a guest that cannot be both": ("TRANSFER", "block", "needs parallel=", seen(
        domain(), transfer=Transfer(compression="zstd"))),
    "a consent to post-copy": ("TRANSFER", "warn", "the guest is lost", seen(
        domain(), transfer=Transfer(post_copy=True))),
    "an option of unknown age": ("TRANSFER", "unknown", "h2 does not tell the version of its QEMU", seen(
        domain(), target=replace(end("h2", WESTMERE), qemu=None), transfer=Transfer(post_copy=True))),
    "memory in clear": ("TRANSPORT", "warn", "unencrypted", seen(domain())),
    "memory in clear to itself": ("TRANSPORT", "ok", "nothing crosses", seen(
        domain(), migrate_uri="tcp://127.0.0.1")),
    "a peer without password": ("TRANSPORT", "warn", "qemu+tcp://h2/system: what goes over it is readable", seen(
        domain(), peer_uri="qemu+tcp://h2/system", transfer=Transfer(tls=True))),
    "an encrypted transfer": ("TRANSPORT", "ok", "nothing crosses", seen(domain(), transfer=Transfer(tls=True))),
    "a definition that is to move": ("STATE", "ok", "its definition moves", seen(
        None, stored=domain(), state="shut off", transfer=Transfer(offline=True))),
    "a running guest as a definition": ("STATE", "block", "guests that are off", seen(
        domain(), transfer=Transfer(offline=True))),
    "a CPU that fits": ("LIVE_CPU", "ok", "identical", seen(domain())),
    "a richer target": ("LIVE_CPU", "ok", f"could give 6 more: {MORE}", seen(
        domain(), target=end("h2", SANDYBRIDGE))),
    "a poorer target": ("LIVE_CPU", "block", f"lacks {MORE}", seen(
        domain(**cpu(SANDYBRIDGE)))),
    "a target that promises more than it lists": ("LIVE_CPU", "risk", f"does not list {MORE}", promised(
        seen(domain(**cpu(SANDYBRIDGE))), "moved")),
    "a target that was not asked": ("LIVE_CPU", "unknown", "write access", seen(domain(), target=end("h2", None))),
    "a definition without CPU": ("LIVE_CPU", "unknown", "names no CPU", seen(domain(cpu=""))),
    "a new CPU that fits": ("NEW_CPU", "ok", "h1 can run it", seen(domain(), baseline="Westmere")),
    "a new CPU that does not": ("NEW_CPU", "block", f"h2 lacks {MORE}", seen(
        domain(), new=domain(**cpu(SANDYBRIDGE)), baseline="SandyBridge", source=end("h1", SANDYBRIDGE))),
    "a new CPU too much for the source": ("NEW_CPU", "block", f"h1 lacks {MORE}", seen(
        domain(), new=domain(**cpu(SANDYBRIDGE)), baseline="SandyBridge", target=end("h2", SANDYBRIDGE), restart=True)),
    "a new CPU of the host view": ("NEW_CPU", "risk", "host view", seen(
        domain(), new=domain(**cpu(SANDYBRIDGE)), baseline="SandyBridge", host_view=True)),
    "an unchecked CPU": ("NEW_CPU", "risk", "check='none'", seen(
        domain(), stored=domain(cpu=custom(SANDYBRIDGE).replace("full", "none")), restart=True)),
    "a new CPU nobody was asked about": ("NEW_CPU", "unknown", "h2: cannot tell", seen(
        domain(), baseline="Westmere", target=end("h2", None))),
    "a restart into host-model": ("NEW_CPU", "block", f"lacks {MORE}", seen(
        domain(), stored=domain(cpu="<cpu mode='host-model'/>"), restart=True, source=end("h1", SANDYBRIDGE))),
    "a model that the target knows": ("CPU_NAMES", "ok", "Westmere and its features are known to h2", seen(domain())),
    "a model of tomorrow": ("CPU_NAMES", "block", "Unknown CPU model", seen(
        domain(), new=domain(**cpu("<model>SapphireRapids</model>")), baseline="SapphireRapids")),
    "a model that QEMU lacks": ("CPU_NAMES", "block", "no model Westmere", seen(
        domain(), target=end("h2", WESTMERE, models=("Nehalem",)))),
    "names nobody was asked about": ("CPU_NAMES", "unknown", "write access", seen(domain(), target=end("h2", None))),
    "one vendor": ("VENDOR", "ok", "Intel", seen(domain())),
    "another vendor": ("VENDOR", "block", "AMD", seen(
        domain(), target=end("h2", "<model>EPYC</model><vendor>AMD</vendor>"))),
    "another vendor, not asked for": ("VENDOR", "risk", "h2 is AMD", seen(
        domain(**cpu("<model>Westmere</model>")), target=at_h2(vendor="AMD"))),
    "a vendor not told": ("VENDOR", "unknown", "h2 does not say", seen(
        domain(**cpu("<model>Westmere</model>")), target=at_h2(vendor=""))),
    "an emulated CPU": ("VENDOR", "ok", "emulated", seen(domain(virttype="qemu"), target=at_h2(vendor="AMD"))),
    "maximum to a poorer host": ("PASSTHROUGH", "risk", f"lose {MORE}", seen(
        domain(cpu="<cpu mode='maximum'/>"), source=end("h1", SANDYBRIDGE))),
    "passthrough to a poorer host": ("PASSTHROUGH", "risk", f"lose {MORE}", seen(
        domain(cpu="<cpu mode='host-passthrough' migratable='on'/>"), source=end("h1", SANDYBRIDGE))),
    "passthrough to another stepping": ("PASSTHROUGH", "risk", "differ in stepping", seen(
        domain(cpu="<cpu mode='host-passthrough'/>"),
        source=end("h1", WESTMERE, host=capabilities(
            uuid=HOST_1, signature="<signature family='6' model='44' stepping='1'/>")),
        target=at_h2(signature="<signature family='6' model='44' stepping='2'/>"))),
    "passthrough to another QEMU": ("PASSTHROUGH", "risk", "differ in QEMU", seen(
        domain(cpu="<cpu mode='host-passthrough'/>"), target=end("h2", WESTMERE, qemu="8.0.0"))),
    "passthrough between equals": ("PASSTHROUGH", "unknown", "kernels", seen(
        domain(cpu="<cpu mode='host-passthrough'/>"))),
    "passthrough, not asked": ("PASSTHROUGH", "unknown", "write access", seen(
        domain(cpu="<cpu mode='host-passthrough'/>"), target=end("h2", None))),
    "host-model on its way up": ("HOST_MODEL", "warn", f"{MORE} and cannot come back to h1",
        seen(domain(), stored=domain(cpu="<cpu mode='host-model'/>"), target=end("h2", SANDYBRIDGE))),
    "host-model between equals": ("HOST_MODEL", "ok", "h1 has too", seen(
        domain(), stored=domain(cpu="<cpu mode='host-model'/>"))),
    "host-model, not asked": ("HOST_MODEL", "unknown", "write access", seen(
        domain(), stored=domain(cpu="<cpu mode='host-model'/>"), source=end("h1", None))),
    "a machine type": ("MACHINE", "ok", "pc-q35-7.2", seen(domain())),
    "a machine type that is not there": ("MACHINE", "block", "no machine type pc-q35-9.2", seen(
        domain(machine="pc-q35-9.2"), target=end("h2", None))),
    "an emulator that the target does not list": ("MACHINE", "unknown", "not the emulator /opt/qemu", seen(
        domain(emulator="/opt/qemu"), target=end("h2", None))),
    "a machine type from capabilities alone": ("MACHINE", "ok", "lists pc-q35-7.2", seen(
        domain(), target=end("h2", None))),
    "unbound vCPUs": ("VCPU", "ok", "bound to no host CPU", seen(domain())),
    "more vCPUs than CPUs": ("VCPU", "warn", "2 virtual CPUs on the 1", seen(domain(), target=at_h2(cpus=1))),
    "a cpuset that is there": ("VCPU", "ok", "exists", seen(domain(vcpu="<vcpu cpuset='0-3,^1'>2</vcpu>"))),
    "half a cpuset": ("VCPU", "risk", "names 2, 3", seen(
        domain(vcpu="<vcpu cpuset='0-3'>2</vcpu>"), target=at_h2(cpus=2))),
    "no CPU of a cpuset": ("VCPU", "block", "names 8, 9", seen(domain(vcpu="<vcpu cpuset='8-9'>2</vcpu>"))),
    "a topology not told": ("VCPU", "unknown", "does not list", seen(
        domain(vcpu="<vcpu cpuset='0'>2</vcpu>"), target=at_h2(topology=False))),
    "a pin that is not there": ("CPUTUNE", "block", "<vcpupin vcpu='1'> names 9", seen(domain(
        before="<cputune><vcpupin vcpu='0' cpuset='0'/><vcpupin vcpu='1' cpuset='9'/></cputune>"))),
    "pins that are there": ("CPUTUNE", "ok", "exists", seen(domain(
        before="<cputune><vcpupin vcpu='0' cpuset='0'/><emulatorpin cpuset='1-2'/></cputune>"))),
    "a pin of which half is there": ("CPUTUNE", "risk", "names 4", seen(domain(
        before="<cputune><emulatorpin cpuset='3-4'/></cputune>"))),
    "pins on a topology not told": ("CPUTUNE", "unknown", "does not list its CPUs", seen(domain(
        before="<cputune><emulatorpin cpuset='3'/></cputune>"), target=at_h2(topology=False))),
    "a share of a cache": ("CPUTUNE", "ok", "sets caches", seen(domain(before=SHARES), target=sets_apart("cachetune"))),
    "a share of a cache that is not there": ("CPUTUNE", "block", "<cachetune>", seen(
        domain(before=SHARES), target=sets_apart("memorytune"))),
    "a share of a cache, not told": ("CPUTUNE", "unknown", "does not say", seen(domain(before=SHARES))),
    "nodes of a topology not told": ("NUMATUNE", "unknown", "does not list its NUMA nodes", seen(domain(
        before="<numatune><memory mode='strict' nodeset='0'/></numatune>"), target=at_h2(topology=False))),
    "a NUMA node that is not there": ("NUMATUNE", "block", "<numatune><memory> names 1", seen(domain(
        before="<numatune><memory mode='strict' nodeset='0-1'/></numatune>"))),
    "a NUMA node that is not there, of a definition": ("NUMATUNE", "risk", "<numatune><memory> names 1", seen(domain(
        before="<numatune><memory mode='strict' nodeset='0-1'/></numatune>"), transfer=OFF)),
    "NUMA nodes that are there": ("NUMATUNE", "ok", "exists", seen(domain(
        before="<numatune><memory mode='strict' nodeset='0-1'/><memnode cellid='0' nodeset='1'/></numatune>"),
        target=at_h2(nodes=2))),
    "invtsc without a frequency": ("TSC", "block", "fixes no TSC frequency", seen(domain(**cpu(INVTSC)))),
    "a TSC within tolerance": ("TSC", "ok", "within 250 ppm", seen(
        domain(**cpu(INVTSC), inside=FIXED), target=at_h2(tsc=tsc(2_000_499_000)))),
    "a TSC just beyond tolerance": ("TSC", "block", "cannot scale", seen(
        domain(**cpu(INVTSC), inside=FIXED), target=at_h2(tsc=tsc(2_000_501_000, "no")))),
    "a TSC beyond tolerance, of a definition": ("TSC", "risk", "cannot scale", seen(
        domain(**cpu(INVTSC), inside=FIXED), target=at_h2(tsc=tsc(2_000_501_000, "no")), transfer=OFF)),
    "a TSC that claims to scale": ("TSC", "warn", "claim", seen(
        domain(**cpu(INVTSC), inside=FIXED), target=at_h2(tsc=tsc(2_400_000_000, "yes")))),
    "a TSC that may scale": ("TSC", "warn", "whether it scales", seen(
        domain(**cpu(INVTSC), inside=FIXED), target=at_h2(tsc=tsc(2_400_000_000)))),
    "a TSC not told": ("TSC", "unknown", "gives no TSC frequency", seen(domain(inside=FIXED))),
    "nobody's guest": ("OWNER", "ok", "no manager", seen(domain())),
    "Nova's guest": ("OWNER", "risk", "OpenStack Nova", seen(domain(
        before="<metadata><n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'/></metadata>"))),
    "CloudStack's guest": ("OWNER", "risk", "CloudStack", seen(domain(
        before="<sysinfo type='smbios'><system><entry name='manufacturer'>Apache Software Foundation</entry></system>"
        "</sysinfo>"))),
    "enough memory": ("MEMORY", "ok", "1 GiB of the 16 GiB of h2", seen(domain())),
    "more memory than the target has": ("MEMORY", "risk", "17 GiB, h2 has 16 GiB", seen(
        domain(memory="<memory unit='GiB'>17</memory>"))),
    "memory not told": ("MEMORY", "unknown", "h2 does not say", seen(domain(), target=at_h2(topology=False))),
    "huge pages that the target has": ("MEMORY", "warn", "how many are free", seen(
        domain(before=HUGE), target=at_h2(tsc="<pages unit='KiB' size='1048576'/>"))),
    "huge pages that it lacks": ("MEMORY", "block", "no huge pages of 1048576 KiB", seen(
        domain(before=HUGE), target=at_h2(tsc="<pages unit='KiB' size='2048'/>"))),
    "huge pages that it lacks, and more memory than it has": ("MEMORY", "block", "no huge pages of 1048576 KiB", seen(
        domain(before=HUGE, memory="<memory unit='GiB'>17</memory>"),
        target=at_h2(tsc="<pages unit='KiB' size='2048'/>"))),
    "huge pages not told": ("MEMORY", "unknown", "which huge pages", seen(domain(before=HUGE))),
    "address bits that are there": ("ADDRESS_BITS", "ok", "42 physical address bits, h2 has 46", seen(
        domain(**cpu(f"{WESTMERE}{bits('emulate', 42)}")), target=at_h2(tsc=bits("passthrough", 46)))),
    "more address bits than the target has": ("ADDRESS_BITS", "risk", "52 physical address bits, h2 has 46", seen(
        domain(**cpu(f"{WESTMERE}{bits('emulate', 52)}")), target=at_h2(tsc=bits("passthrough", 46)))),
    "address bits of a larger host": ("ADDRESS_BITS", "risk", "those of h1, 52", seen(
        domain(**cpu(f"{WESTMERE}<maxphysaddr mode='passthrough'/>")), target=at_h2(tsc=bits("passthrough", 46)),
        source=end("h1", WESTMERE, host=capabilities(uuid=HOST_1, tsc=bits("passthrough", 52))))),
    "address bits not told": ("ADDRESS_BITS", "unknown", "h2 does not say", seen(
        domain(**cpu(f"{WESTMERE}{bits('emulate', 42)}")))),
    "a device of the host": ("HOSTDEV", "block", "pci 0000:3b:00.1 of h1: QEMU 7.2.0 moves no such", lent(DEVICE)),
    "a device of the host of a libvirt that asks nobody": (
        "HOSTDEV", "block", "libvirt 8.5.0 with QEMU 9.0.0", lent(DEVICE, "8.5.0", "9.0.0")),
    "a device of the host with a QEMU that does not tell": (
        "HOSTDEV", "block", "with QEMU 5.2.0", lent(DEVICE, "9.0.0", "5.2.0")),
    "a device of the host that may go along": ("HOSTDEV", "unknown", "only QEMU knows", lent(DEVICE, "9.0.0", "8.1.0")),
    "a device of the host of who knows what": ("HOSTDEV", "unknown", "versions", lent(DEVICE, qemu=None)),
    "a device of the host, out of documents": ("HOSTDEV", "risk", "libvirt refuses most of", kept(lent(DEVICE))),
    "a device of the host, off": ("HOSTDEV", "risk", "another device's", lent(DEVICE, transfer=OFF)),
    "a device that the target's QEMU lacks": ("DRY", "block", "not supported by this QEMU", refused(
        "unsupported configuration: virtio-mem isn't available: not supported by this QEMU binary")),
    "huge pages that the target has not mounted": ("DRY", "block", "hugetlbfs", refused(
        "internal error: hugetlbfs filesystem is not mounted or disabled by administrator config")),
    "a teamed device": ("HOSTDEV", "risk", "at the same address", lent(TEAMED.format(""), "8.5.0", "5.2.0")),
    "a teamed device of a network": ("HOSTDEV", "warn", "out of the network vfs", lent(
        TEAMED.format(" network='vfs'"))),
    "a mediated device": ("HOSTDEV", "block", "mdev c2177883", lent(MDEV.format("vfio-pci"))),
    "a mediated device that may go along": ("HOSTDEV", "unknown", "mdev", lent(MDEV.format("vfio-pci"), qemu="8.2.0")),
    "a mediated device of a mainframe": ("HOSTDEV", "block", "no state", lent(MDEV.format("vfio-ap"), qemu="9.0.0")),
    "a SCSI device": ("HOSTDEV", "risk", "scsi scsi_host0", lent(SCSI)),
    "a SCSI device of an old libvirt": ("HOSTDEV", "block", "libvirt 8.5.0", lent(SCSI, "8.5.0")),
    "a SCSI target in the kernel": ("HOSTDEV", "block", "naa.5123456789abcde0", lent(VHOST_SCSI, "10.0.0", "9.0.0")),
    "a USB device": ("HOSTDEV", "risk", "usb 1:2 of h1 stays there", lent(USB, "8.5.0")),
    "an event device": ("HOSTDEV", "risk", "input /dev/input/event3", lent(
        "<input type='evdev'><source dev='/dev/input/event3'/></input>")),
    "a card in the host's reader": ("HOSTDEV", "risk", "smartcard host", lent("<smartcard mode='host'/>")),
    "a device of tomorrow": ("HOSTDEV", "unknown", "is not known", lent("<hostdev mode='subsystem' type='vdpa'/>")),
    "memory of a peer": ("NON_MIGRATABLE", "block", "(pool): its role is peer", lent(
        SHMEM.format(" role='peer'", "ivshmem-plain", ""))),
    "shared memory without a role": ("NON_MIGRATABLE", "block", "it has no role", lent(
        SHMEM.format("", "ivshmem-doorbell", "<server path='/tmp/s'/>"), "11.0.0", "9.2.0")),
    "shared memory of the old model": ("NON_MIGRATABLE", "block", "old model", lent(
        SHMEM.format(" role='master'", "ivshmem", ""))),
    "memory of a master": ("NON_MIGRATABLE", "warn", "over what h2 has under that name", lent(
        SHMEM.format(" role='master'", "ivshmem-plain", ""))),
    "memory of a master with a server": ("NON_MIGRATABLE", "warn", "needs its server there: /tmp/s", lent(
        SHMEM.format(" role='master'", "ivshmem-doorbell", "<server path='/tmp/s'/>"))),
    "a crypto device": ("NON_MIGRATABLE", "block", "a crypto device: QEMU 8.0.0", lent(
        "<crypto model='virtio' type='qemu'><backend model='builtin'/></crypto>", "9.1.0", "8.0.0")),
    "sound on USB": ("NON_MIGRATABLE", "block", "sound card on USB", lent("<sound model='usb'/>")),
    "virtio sound": ("NON_MIGRATABLE", "block", "model virtio", lent("<sound model='virtio'/>", "10.4.0", "8.2.0")),
    "a screen with 3D acceleration": ("NON_MIGRATABLE", "block", "virgl", lent(VIRGL.format("yes"))),
    "an input device of the host": ("NON_MIGRATABLE", "block", "type='passthrough'", lent(
        "<input type='passthrough' bus='virtio'><source evdev='/dev/input/event3'/></input>")),
    "a folder by MTP": ("NON_MIGRATABLE", "block", "MTP", lent(
        "<filesystem><driver type='mtp'/><source dir='/a'/><target dir='b'/></filesystem>")),
    "an NVMe controller": ("NON_MIGRATABLE", "block", "NVMe", lent(
        "<disk type='file'><source file='/a'/><target dev='nvme0n1' bus='nvme'/></disk>", "11.5.0", "10.0.0")),
    "an NVMe controller of a new QEMU": ("NON_MIGRATABLE", "unknown", "before 10.2 does not move it", lent(
        "<controller type='nvme'/>", "11.9.0", "10.2.0")),
    "an NVMe controller of who knows what": ("NON_MIGRATABLE", "unknown", "of the one of h1", lent(
        "<controller type='nvme'/>", qemu=None)),
    "an IOMMU": ("NON_MIGRATABLE", "block", "model amd", lent("<iommu model='amd'/>", "11.5.0", "10.0.0")),
    "an image of another program's format": ("NON_MIGRATABLE", "block", "vda (vmdk)", lent(
        IMAGE.format("vmdk", "", "raw"))),
    "an image beneath in an old format": ("NON_MIGRATABLE", "block", "vda (vpc)", lent(
        IMAGE.format("qcow2", "", "vpc"))),
    "an image that somebody opened": ("NON_MIGRATABLE", "unknown", "image of vda", lent(
        IMAGE.format("qcow2", " fdgroup='x'", "raw"))),
    "sealed memory": ("LAUNCH_SECURITY", "block", "(sev)", seen(domain(inside="<launchSecurity type='sev'/>"))),
    "somebody's note": ("OWNER", "warn", "urn:somebody", seen(domain(
        before="<metadata><x:y xmlns:x='urn:somebody'/></metadata>"))),
    "a free name": ("NAME", "ok", "neither", seen(domain())),
    "a name taken": ("NAME", "block", "the name", seen(
        domain(), target=end("h2", WESTMERE, taken=(("web1", HOST_1, False),)))),
    "a UUID taken": ("NAME", "block", "the UUID", seen(
        domain(), target=end("h2", WESTMERE, taken=(("other", UUID, False),)))),
    "running there already": ("NAME", "block", "running", seen(
        domain(), target=end("h2", WESTMERE, taken=(("web1", UUID, True),)))),
    "a stale definition": ("NAME", "warn", "stale", seen(
        domain(), target=end("h2", WESTMERE, taken=(("web1", UUID, False),)))),
}  # fmt: skip


def test_what_holds_a_guest_does_not_hold_its_definition() -> None:
    sealed = {"inside": "<launchSecurity type='sev'/>"}
    for held, check in (
        (domain(**sealed), "LAUNCH_SECURITY"),
        (domain(devices=SHMEM.format("", "ivshmem-plain", "")), "NON_MIGRATABLE"),
        (domain(**cpu(INVTSC)), "TSC"),
    ):
        live = found(seen(held), check)
        assert live is not None
        assert live.severity == "block"
        assert found(seen(held, transfer=OFF), check) is None


def test_what_a_definition_could_not_start_with_is_a_risk_where_only_the_definition_moves() -> None:
    slow = capabilities(uuid=HOST_2, tsc=tsc(2_400_000_000, "no"))
    amd = end("h2", "<model>EPYC</model><vendor>AMD</vendor>")
    for guest, target, check in (
        (domain(vcpu="<vcpu cpuset='8-9'>2</vcpu>"), None, "VCPU"),
        (domain(before="<cputune><emulatorpin cpuset='8'/></cputune>"), None, "CPUTUNE"),
        (domain(before="<numatune><memory mode='strict' nodeset='3'/></numatune>"), None, "NUMATUNE"),
        (domain(before=HUGE), at_h2(tsc="<pages unit='KiB' size='2048'/>"), "MEMORY"),
        (domain(**cpu(INVTSC), inside=FIXED), end("h2", WESTMERE, host=slow), "TSC"),
        (domain(), amd, "VENDOR"),
    ):
        told = [found(seen(guest, target=target, transfer=how), check) for how in (PLAIN, OFF)]
        assert [f and f.severity for f in told] == ["block", "risk"], check


def test_devices_that_travel_are_not_called_ones_that_do_not() -> None:
    travel = "".join([
        VIRGL.format("no"), "<sound model='ich9'/>", "<input type='tablet' bus='usb'/>", "<iommu model='intel'/>",
        IMAGE.format("qcow2", "", "raw"), "<filesystem><source dir='/a'/><target dir='b'/></filesystem>",
        "<smartcard mode='passthrough' type='spicevmc'/>", "<redirdev bus='usb' type='spicevmc'/>",
        "<watchdog model='i6300esb' action='dump'/>", "<panic model='hyperv'/>", "<vsock><cid auto='yes'/></vsock>",
    ])  # fmt: skip
    looked = lent(travel)
    assert [found(looked, check) for check in ("NON_MIGRATABLE", "HOSTDEV")] == [None, None]


def test_a_plain_guest_between_equal_hosts_has_nothing_in_its_way() -> None:
    told = {f.id: f.severity for f in preflight(seen(domain()))}
    assert told.pop("TRANSPORT") == "warn", "its memory crosses the network in clear, as it does by default"
    assert set(told.values()) == {"ok"}


def test_the_names_of_missing_features_stand_in_map_order_and_once() -> None:
    finding = found(seen(domain(**cpu(SANDYBRIDGE))), "LIVE_CPU")
    assert finding is not None
    assert finding.evidence.count("avx") == 1


def test_what_an_older_libvirt_has_no_name_for_is_not_called_missing() -> None:
    newer = f"{WESTMERE}<feature policy='require' name='amx-fp16'/>"
    stored = domain(cpu="<cpu mode='host-model'/>")
    observation = seen(
        domain(), stored=stored, restart=True,
        source=end("h1", newer, libvirt="12.8.0"), target=end("h2", WESTMERE, libvirt="9.0.0"),
    )  # fmt: skip
    finding = found(observation, "NEW_CPU")
    assert finding is not None
    assert finding.severity == "unknown"
    assert "no name for amx-fp16" in finding.evidence


def test_after_a_restart_the_live_cpu_is_of_no_interest() -> None:
    observation = seen(domain(**cpu(SANDYBRIDGE)), stored=domain(), restart=True)
    assert found(observation, "LIVE_CPU") is None
    new = found(observation, "NEW_CPU")
    assert new is not None
    assert new.severity == "ok"
