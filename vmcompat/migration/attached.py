"""Does the target have what the guest's devices lean on? The checks of :mod:`vmcompat.migration.preflight` that ask it.

Those of disks are in :mod:`vmcompat.migration.disks`. What only a look at the live target tells is not judged from
documents: there such a check gives None.
"""

from __future__ import annotations

import ipaddress
import os.path
import shlex
from collections.abc import Sequence
from typing import Final

from vmcompat.baseline.answer import some
from vmcompat.fleet.expand import version
from vmcompat.migration.devices import Character, Interface
from vmcompat.migration.fit import Verdict, ask
from vmcompat.migration.observe import End, Observation

_ORDER: Final = ("ok", "warn", "unknown", "risk", "block")
# Folders in which libvirt makes what it needs.
_OWN: Final = ("/var/lib/libvirt/", "/run/libvirt/", "/var/run/libvirt/", "/var/log/libvirt/")
_MOVES_VIRTIOFS: Final = (8, 2)  # the first QEMU that takes a vhost-user-fs device along
_ALLOWS_VIRTIOFS: Final = (10, 5)  # libvirts before this one refuse it, whatever QEMU says
_ASKS_QEMU: Final = ((8, 6), (6, 0))  # the first libvirt that asks, and the first QEMU that answers, what blocks it
_MOVES_VDPA: Final = (8, 0)  # the first QEMU that does, where the device can


def worst(found: Sequence[Verdict], seen: Observation) -> Verdict:
    """One verdict of several: the gravest, and what all of that gravity say.

    The definition of a guest that is off libvirt moves all the same: what would block it live is a risk to its start.
    """
    gravest = max((f.severity for f in found), key=_ORDER.index)
    told = [f for f in found if f.severity == gravest]
    remedies = dict.fromkeys(f.remedy for f in told if f.remedy)
    return Verdict(
        "risk" if gravest == "block" and seen.transfer.offline else gravest,
        some(list(dict.fromkeys(f.evidence for f in told)), most=6),
        "; ".join([*remedies][:3]),
    )


def asks_qemu(end: End) -> bool | None:
    """Whether the libvirt of a host asks QEMU what it cannot move, and has no list of its own; None: not known."""
    libvirt, qemu = version(end.libvirt), version(end.qemu or "")
    return (libvirt >= _ASKS_QEMU[0] and qemu >= _ASKS_QEMU[1]) if libvirt and qemu else None


def plain(text: str) -> str:
    """A text out of a document for a sentence: what would break the line or pass for more is escaped."""
    return text if text.isprintable() and "'" not in text else repr(text)


def filesystem(seen: Observation) -> Verdict | None:
    """Folders of the host that the guest mounts."""
    if seen.moved is None or not seen.moved.devices.filesystems or seen.transfer.offline:
        return None
    here, there, found = seen.source, seen.target, []
    qemu = version(here.qemu or "")
    for one in seen.moved.devices.filesystems:
        what = f"{plain(one.source)}, which it mounts as {plain(one.target)}"
        if one.driver == "virtiofs" and qemu and qemu < _MOVES_VIRTIOFS:
            found.append(Verdict(
                "block", f"it has {what}, by virtiofs: the QEMU {here.qemu} of {here.name} refuses to move it",
                f"unmount it, then virsh detach-device --domain {seen.typed} --file FILE",
            ))  # fmt: skip
        elif one.driver == "virtiofs" and here.asked and () < version(here.libvirt) < _ALLOWS_VIRTIOFS:
            found.append(Verdict(
                "block", f"it has {what}, by virtiofs: the libvirt {here.libvirt} of {here.name} refuses to move it",
                f"unmount it, then virsh detach-device --domain {seen.typed} --file FILE",
            ))  # fmt: skip
        else:
            doubt = (
                "whether libvirt, QEMU and virtiofsd of both hosts take it along, they do not tell"
                if one.driver == "virtiofs"
                else "QEMU refuses to move it while the guest has that mounted, and whether it has, nobody tells"
            )
            found.append(Verdict(
                "unknown", f"it has {what}: {doubt}; {there.name} needs the very same folder",
                f"unmount it in the guest; on {there.name}: ls -ld -- {shlex.quote(one.source)}",
            ))  # fmt: skip
    return worst(found, seen)


def tpm(seen: Observation) -> Verdict | None:
    """Where the keys in the guest's TPM are."""
    if seen.moved is None or not seen.moved.devices.tpms:
        return None
    end = seen.target
    backends = end.hypervisor.facts.get("tpm_backends") if end.hypervisor else None
    found = []
    for one in seen.moved.devices.tpms:
        if one.backend == "passthrough":
            found.append(Verdict(
                "block", f"its TPM is the chip {plain(one.path)} of {seen.source.name}: its keys stay there",
                "power it off, and give it an emulated one: <backend type='emulator'/>",
            ))  # fmt: skip
        elif seen.transfer.offline:
            found.append(Verdict(
                "risk", f"the state of its TPM stays on {seen.source.name}: it would start with another, without keys",
                "start it, and move it live",
            ))  # fmt: skip
        elif one.backend != "emulator":
            found.append(Verdict("unknown", f"its TPM is another program's ({plain(one.backend)} {plain(one.path)}), "
                f"which {end.name} needs too", f"does the same program run on {end.name}, with the same state?",
            ))  # fmt: skip
        elif not isinstance(backends, tuple):
            found.append(Verdict("unknown", f"{end.name} does not say whether it can emulate a TPM", ask(end)))
        elif one.backend not in backends:
            found.append(
                Verdict("block", f"{end.name} cannot emulate a TPM", f"install swtpm and swtpm-tools on {end.name}")
            )
        else:
            found.append(_sealed(one.secret, end))
    return worst(found, seen)


def _sealed(secret: str, end: End) -> Verdict:
    if not secret:
        return Verdict("ok", f"its TPM is emulated, and QEMU takes its state along to {end.name}")
    sealed = f"the state of its TPM is sealed with the secret {plain(secret)}"
    if end.inventory is None or end.inventory.secrets is None:
        return Verdict("unknown", f"{sealed}, and {end.name} does not say whether it has that",
            f"virsh -c {shlex.quote(end.uri or 'URI')} secret-list",
        )  # fmt: skip
    if secret not in end.inventory.secrets:
        return Verdict("block", f"{sealed}, which {end.name} lacks",
            "define it there: virsh secret-define, secret-set-value",
        )  # fmt: skip
    return Verdict("ok", f"its TPM is emulated, and {end.name} has the secret that seals its state")


def network(seen: Observation) -> Verdict | None:
    """Networks, bridges and devices that the guest's interfaces hang on."""
    interfaces = () if seen.moved is None else seen.moved.devices.interfaces
    interfaces = tuple(i for i in interfaces if i.type != "hostdev")  # of these speaks HOSTDEV
    if not interfaces or seen.target.inventory is None:
        return None
    found = [_vdpa(i, seen) if i.type == "vdpa" else _hangs_on(i, seen.target) for i in interfaces]
    found += [_filtered(rules, seen.target) for rules in dict.fromkeys(i.rules for i in interfaces if i.rules)]
    return worst(found, seen)


def _vdpa(one: Interface, seen: Observation) -> Verdict:
    here, there, what = seen.source, seen.target, f"its interface is the vDPA device {plain(one.source)}"
    asks, qemu = asks_qemu(here), version(here.qemu or "")
    if asks is False or () < qemu < _MOVES_VDPA:
        return Verdict("block", f"{what}: libvirt {here.libvirt} with QEMU {here.qemu} does not move it",
            f"virsh detach-interface --domain {seen.typed} --type vdpa",
        )  # fmt: skip
    return Verdict("unknown", f"{what}: whether that can be moved, only QEMU knows, and {there.name} needs one under "
        "the same name", f"on {there.name}: ls -l -- {shlex.quote(one.source)}",
    )  # fmt: skip


def _filtered(rules: str, end: End) -> Verdict:
    return Verdict("warn", f"its packets pass the filter {plain(rules)}: {end.name} refuses the guest where it lacks "
        "that", f"virsh -c {shlex.quote(end.uri or 'URI')} nwfilter-dumpxml --nwfilter {shlex.quote(rules)}",
    )  # fmt: skip


def _hangs_on(one: Interface, end: End) -> Verdict:
    there, name, at = end.inventory, plain(one.source), f"virsh -c {shlex.quote(end.uri or 'URI')}"
    assert there is not None
    if one.type == "network":
        if there.networks is None:
            return Verdict("unknown", f"{end.name} does not list its networks: {there.silent.get('networks', '')}",
                f"{at} net-list --all",
            )  # fmt: skip
        if one.source not in there.networks:
            return Verdict("block", f"{end.name} has no network {name}", f"{at} net-define --file FILE")
        if not there.networks[one.source]:
            return Verdict(
                "block",
                f"the network {name} of {end.name} is not active",
                f"{at} net-start --network {shlex.quote(one.source)}",
            )
        bridge = there.bridges.get(one.source)
        if bridge is not None and there.interfaces is not None and bridge not in there.interfaces:
            return Verdict(
                "block", f"the network {name} of {end.name} is active, and its bridge {plain(bridge)} is not there",
                "make that bridge there, or choose another host",
            )  # fmt: skip
        return Verdict("ok", f"{end.name} has the network {name}, and it is active")
    if one.type in ("bridge", "direct"):
        what = "bridge" if one.type == "bridge" else "network device"
        if there.interfaces is None:
            return Verdict("unknown", f"{end.name} does not list its interfaces: {there.silent.get('interfaces', '')}",
                f"on {end.name}: ip link show dev {shlex.quote(one.source)}",
            )  # fmt: skip
        if one.source not in there.interfaces:
            return Verdict("block", f"{end.name} has no {what} {name}",
                "make one there that leads into the same network, or choose another host",
            )  # fmt: skip
        return Verdict("ok", f"{end.name} has a {what} {name}")
    if one.type == "user" and one.backend in ("", "default"):
        return Verdict("warn", "its network is QEMU's own (type='user'): what is connected then breaks off")
    if one.type == "ethernet" and one.managed:
        return Verdict("warn", f"its interface {name} is one that libvirt makes and somebody else connects: on "
            f"{end.name} too?")  # fmt: skip
    what = " ".join(w for w in (f"type={one.type!r}", one.backend, name) if w)
    return Verdict("unknown", f"whether {end.name} has what its interface of {what} needs, libvirt does not tell",
        f"look for it on {end.name}",
    )  # fmt: skip


def graphics(seen: Observation) -> Verdict | None:
    """Addresses on which its screen is offered, where these are one host's own."""
    if seen.moved is None or not seen.moved.devices.graphics or seen.target.inventory is None:
        return None
    shown = seen.moved.devices.graphics
    stored = seen.stored.devices.graphics if seen.stored else ()
    end, found = seen.target, []
    for i, one in enumerate(shown):
        # libvirt writes the address of qemu.conf into live XML, and leaves it out of what it sends to the target
        if one.listen and len(stored) == len(shown) and not stored[i].listen:
            found.append(Verdict("ok", f"{end.name} chooses where its {one.type} listens"))
            continue
        found += [_listens(one.type, address, seen) for address in one.listen] or [
            Verdict("ok", f"its {one.type} listens on no address of the host's own")
        ]
    return worst(found, seen)


def _listens(what: str, address: str, seen: Observation) -> Verdict:
    end, inventory = seen.target, seen.target.inventory
    change = "give it listen='0.0.0.0', or <listen type='network'/>, in its definition, and power it off and on"
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return Verdict("unknown", f"its {what} listens on {plain(address)}: whether that is a name of {end.name} "
            "too, is not known here", f"on {end.name}: getent hosts -- {shlex.quote(address)}; or {change}",
        )  # fmt: skip
    if number.is_unspecified or number.is_loopback or (inventory is not None and address in inventory.addresses):
        return Verdict("ok", f"its {what} listens on {address}, which {end.name} has too")
    return Verdict("unknown", f"its {what} listens on {address}, which is one host's own; {end.name} refuses the guest "
        "without it, and libvirt does not tell whether it has it", f"on {end.name}: ip addr; or {change}",
    )  # fmt: skip


def paths(seen: Observation) -> Verdict | None:
    """Files, sockets and devices of the host that its ports, its NVRAM and the like end in."""
    if seen.moved is None or seen.target.inventory is None:
        return None
    devices, end = seen.moved.devices, seen.target
    ends: dict[tuple[str, str], Character] = {}
    for one in devices.characters:  # the first console is the first serial port once more
        ends.setdefault((one.type, one.path), one)
    found = [_ends_in(one, seen) for one in ends.values()]
    if (nvram := devices.firmware.nvram) and not _own(nvram):
        found.append(_needs_folder(f"its NVRAM is {plain(nvram)}", nvram, end))
    return worst(found, seen) if found else None


def _ends_in(one: Character, seen: Observation) -> Verdict:
    end, what = seen.target, f"its {one.device} ends in {plain(one.path)}"
    if one.type == "tcp":
        if one.connects:
            return Verdict("warn", f"{what}, to which QEMU connects from {end.name}: somebody must listen")
        return _listens(one.device, one.path, seen)
    if one.type == "dev":
        return Verdict("risk", f"{what}, a device of {seen.source.name}: on {end.name} it is another one",
            f"virsh detach-device --domain {seen.typed} --file FILE",
        )  # fmt: skip
    if one.type == "vsock":
        number = f", and its number {plain(one.path)} free" if one.path else ""
        return Verdict("warn", f"its vsock needs /dev/vhost-vsock on {end.name}{number}",
            f"on {end.name}: ls -l /dev/vhost-vsock; modprobe vhost_vsock",
        )  # fmt: skip
    if one.type == "random":
        return Verdict("warn", f"{what}, from which it has random numbers: {end.name} needs it too",
            f"on {end.name}: ls -l -- {shlex.quote(one.path)}",
        )  # fmt: skip
    if _own(one.path):
        return Verdict("ok", f"{what}, where libvirt makes what it needs")
    if one.connects:
        return Verdict("warn", f"{what}, to which QEMU connects: somebody must listen on {end.name}",
            f"on {end.name}: ls -l -- {shlex.quote(one.path)}",
        )  # fmt: skip
    return _needs_folder(what, one.path, end)


def _needs_folder(what: str, path: str, end: End) -> Verdict:
    return Verdict("warn", f"{what}: {end.name} refuses the guest where it lacks the folder",
        f"on {end.name}: ls -ld -- {shlex.quote(os.path.dirname(path) or '.')}",
    )  # fmt: skip


def _own(path: str) -> bool:
    return path.startswith(_OWN) and ".." not in path.split("/")


def firmware(seen: Observation) -> Verdict | None:
    """The file that the guest boots from at the target's side."""
    loader, nvram = (seen.moved.devices.firmware.loader, seen.moved.devices.firmware.nvram) if seen.moved else ("", "")
    if nvram and seen.transfer.offline:
        return Verdict("risk", f"its NVRAM stays on {seen.source.name}: it would start with an empty one",
            "start it, and move it live; or copy it by hand",
        )  # fmt: skip
    if not loader:
        return None
    end = seen.target
    listed = end.hypervisor.facts.get("loaders") if end.hypervisor else None
    if not isinstance(listed, tuple):
        return Verdict("unknown", f"{end.name} does not say which firmware it has", ask(end))
    if loader in listed:
        return Verdict("ok", f"{end.name} has the firmware {plain(loader)}")
    return Verdict("unknown", f"{end.name} does not list the firmware {plain(loader)}",
        f"on {end.name}: ls -l -- {shlex.quote(loader)}; of the same version? The firmware that runs travels, at the "
        "next power cycle it is the target's",
    )  # fmt: skip


def seclabel(seen: Observation) -> Verdict | None:
    """Whether the target's libvirt has the security drivers that the guest is labelled for."""
    labels = seen.moved.devices.labels if seen.moved is not None else ()
    wanted = tuple(dict.fromkeys(label.model for label in labels if label.type != "none" and label.model))
    wanted = tuple(model for model in wanted if model not in ("none", "dac"))  # every libvirt of the system has these
    if not wanted:
        return None
    end = seen.target
    there = end.capabilities.facts.get("security_models")
    if not isinstance(there, tuple) or not there:
        return Verdict("unknown", f"{end.name} does not say which security models it has", "virsh capabilities there")
    if lacking := [plain(model) for model in wanted if model not in there]:
        return worst([Verdict("block", f"it is labelled by {', '.join(lacking)}, and {end.name} has {', '.join(there)}",
            f"switch it on there (security_driver in qemu.conf), or give the guest <seclabel type='none' "
            f"model={lacking[0]!r}/> and power it off and on",
        )], seen)  # fmt: skip
    return Verdict("ok", f"{end.name} has {', '.join(wanted)}")


def memory_devices(seen: Observation) -> Verdict | None:
    """Memory that was plugged in, and where on the host it is taken from."""
    devices = seen.moved.devices if seen.moved is not None else None
    if devices is None or not (devices.memory or devices.memory_slots):
        return None
    end, found = seen.target, []
    there = end.capabilities.facts.get("node_ids")
    # slots are given at the start, and documents may be of a definition that has not started
    runs = seen.source.asked and not seen.restart and not seen.transfer.offline
    detach = f"virsh detach-device --domain {seen.typed} --file FILE"
    for one in devices.memory:
        if one.nodes and not isinstance(there, tuple):
            found.append(Verdict("unknown", f"{end.name} does not list its NUMA nodes", "virsh capabilities there"))
        elif isinstance(there, tuple) and (absent := sorted(one.nodes - set(there))):
            found.append(Verdict(
                "block", f"a {one.model} is taken from NUMA nodes that {end.name} lacks: {', '.join(map(str, absent))}",
                "change its <nodemask>, and power the guest off and on",
            ))  # fmt: skip
        if one.model == "sgx-epc":
            found.append(_enclaves(end, moves=seen.live is not None))
        elif one.model == "virtio-pmem" and seen.live is not None:
            found.append(Verdict("unknown", f"its {one.model} {plain(one.path)}: whether QEMU sends the state of that "
                "device, is not known here", f"try with a guest that nobody misses, or take it out: {detach}",
            ))  # fmt: skip
        elif one.model == "dimm" and not one.placed and runs:
            found.append(Verdict("block", "a dimm has no slot in the live definition: libvirt refuses to move it",
                f"{detach}, or power the guest off and on with a newer QEMU",
            ))  # fmt: skip
        if one.path:
            found.append(Verdict("warn", f"a {one.model} is the file {plain(one.path)}: {end.name} needs it too",
                f"on {end.name}: ls -l -- {shlex.quote(one.path)}",
            ))  # fmt: skip
    n, slots = len(devices.memory), devices.memory_slots
    return worst(
        found or [Verdict("ok", f"{n} of {slots} memory slots are taken, all by memory that travels along")], seen
    )


def _enclaves(end: End, *, moves: bool) -> Verdict:
    if end.hypervisor is not None and end.hypervisor.facts.get("sgx") is False:
        return Verdict("block", f"it has memory for SGX enclaves, and {end.name} has none to give",
            "switch SGX on in the BIOS there, or choose another host",
        )  # fmt: skip
    if not moves:
        return Verdict("ok", f"nothing tells that {end.name} has no memory for SGX enclaves")
    return Verdict("risk", "it has memory for SGX enclaves: QEMU moves the guest, and what is in its enclaves is lost, "
        f"what they have sealed included; {end.name} needs as much of it free",
        "end what runs in enclaves first; can it begin anew with other keys?",
    )  # fmt: skip


def topology(seen: Observation) -> Verdict | None:
    """More virtual CPUs than the machine type has at the target."""
    asked = seen.target.hypervisor
    if seen.moved is None or asked is None or not (seen.target.asked or asked.machine == seen.moved.machine):
        return None
    most = asked.facts.get("vcpu_max")
    if not isinstance(most, int):
        return None
    if seen.moved.vcpus > most:
        return Verdict("block", f"{seen.moved.vcpus} virtual CPUs, and a {seen.moved.machine} of {seen.target.name} "
            f"has {most} at most", "upgrade QEMU there, or give the guest fewer (and another <topology>)",
        )  # fmt: skip
    return Verdict("ok", f"{seen.moved.vcpus} of the {most} virtual CPUs that {seen.target.name} gives at most")
