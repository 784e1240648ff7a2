"""What libvirt and QEMU do not move, whatever the target is: checks of :mod:`vmcompat.migration.preflight`.

QEMU calls such reasons migration blockers. A libvirt from 8.6 on asks a QEMU from 6.0 on for them and refuses with its
words; an older one has a list of its own, and QEMU refuses what that does not name once the transfer is to begin. No
call of libvirt tells them beforehand.
"""

from __future__ import annotations

import shlex
from typing import Final

from vmcompat.baseline.answer import some
from vmcompat.fleet.expand import version
from vmcompat.migration.attached import asks_qemu, plain, worst
from vmcompat.migration.fit import Verdict
from vmcompat.migration.immovable import HostDevice, SharedMemory
from vmcompat.migration.observe import Observation

_MOVES_VFIO: Final = (8, 1)  # the first QEMU that moves a host device by itself, where its driver can
_NEVER: Final = ("vfio-ap", "vfio-ccw")  # QEMU has no state of these
# What of QEMU is without a state to send, and up to which QEMU that is known: from there on it may have learned it.
_STATELESS: Final = {
    "crypto": ("a crypto device", (11, 0)),
    "usb sound": ("a sound card on USB", (11, 0)),
    "virtio sound": ("a sound card of model virtio", (11, 0)),
    "3D acceleration": ("a video card with 3D acceleration (virgl)", (11, 0)),
    "input passthrough": ("an input device of the host (type='passthrough')", (11, 0)),
    "mtp filesystem": ("a folder by MTP", (11, 0)),
    "nvme controller": ("an emulated NVMe controller", (10, 2)),
    "amd iommu": ("an IOMMU of model amd", (10, 1)),
}
_INSTEAD: Final = {"3D acceleration": "accel3d='no'", "virtio sound": "model='ich9'", "usb sound": "model='ich9'"}


def hostdev(seen: Observation) -> Verdict | None:
    """Devices of the host that the guest was given."""
    moved = seen.moved
    if moved is None or not moved.hostdevs:
        return None
    if seen.transfer.offline or not seen.source.asked:
        return Verdict("risk", f"it has devices of its host: {', '.join(moved.hostdevs)}. libvirt refuses most of "
            "them, and elsewhere the address is another device's", _without(seen),
        )  # fmt: skip
    return worst([_lent(one, seen) for one in moved.immovable.hostdevs], seen)


def _without(seen: Observation) -> str:
    return f"virsh detach-device --domain {seen.typed} first, and attach one there"


def _lent(one: HostDevice, seen: Observation) -> Verdict:
    here, there, what, remedy = seen.source, seen.target, f"{plain(str(one))} of {seen.source.name}", _without(seen)
    if one.type == "pci" and one.teamed:
        told = f"{what} is teamed: QEMU unplugs it for the move, and plugs one in at {there.name}"
        if one.network:
            return Verdict("warn", f"{told}, out of the network {plain(one.network)}")
        return Verdict("risk", f"{told}, at the same address: it may be another one's device, or none",
            f"is it the same kind on {there.name}? virsh nodedev-list --cap pci there",
        )  # fmt: skip
    if one.type == "scsi_host" or one.model in _NEVER:
        return Verdict("block", f"{what}: QEMU has no state of it to send", remedy)
    if one.type in ("pci", "mdev", "scsi"):
        asks = asks_qemu(here)
        if asks is None:
            return Verdict("unknown", f"{what}: whether libvirt and QEMU there move it, their versions would tell",
                "ask there: virsh version",
            )  # fmt: skip
        if not asks:
            return Verdict("block", f"{what}: libvirt {here.libvirt} with QEMU {here.qemu} moves no such thing", remedy)
        if one.type == "scsi":
            return Verdict("risk", f"{what} stays there: on {there.name} the address is another device's, or none's",
                remedy,
            )  # fmt: skip
        if version(here.qemu or "") < _MOVES_VFIO:
            return Verdict("block", f"{what}: QEMU {here.qemu} moves no such device", remedy)
        return Verdict("unknown", f"{what}: whether its driver can hand it over, only QEMU knows, and {there.name} "
            "needs its like at the same address", f"try with a guest that nobody misses, or {remedy}",
        )  # fmt: skip
    if one.type in ("usb", "input", "smartcard"):
        return Verdict("risk", f"{what} stays there: {there.name} needs one of the same name, and that is another one",
            remedy,
        )  # fmt: skip
    return Verdict("unknown", f"{what}: whether it can be moved is not known", remedy)


def non_migratable(seen: Observation) -> Verdict | None:
    """Devices of the guest's own, of which QEMU sends no state, and what it shares with others on its host."""
    held = seen.moved.immovable if seen.moved is not None else None
    if held is None or seen.transfer.offline:
        return None
    found = [_stateless(kind, seen) for kind in held.stateless]
    found += [_shares(one, seen) for one in held.shared]
    if held.images:
        named = some([f"{plain(target)} ({kind})" for target, kind in held.images])
        found.append(Verdict(
            "block", f"images of a format that QEMU does not hand over: {named}",
            "copy them into qcow2 or raw images: virsh blockcopy",
        ))  # fmt: skip
    if held.handed:
        found.append(Verdict(
            "unknown", f"another program has opened the image of {some([plain(t) for t in held.handed])} and handed it "
            f"to libvirt (fdgroup): {seen.target.name} refuses the guest unless one does the same there",
            f"is that so on {seen.target.name}?",
        ))  # fmt: skip
    return worst(found, seen) if found else None


def _stateless(kind: str, seen: Observation) -> Verdict:
    what, known = _STATELESS[kind]
    here, qemu = seen.source, version(seen.source.qemu or "")
    instead = f"another ({_INSTEAD[kind]})" if kind in _INSTEAD else "none"
    remedy = f"give it {instead} and power it off and on, or virsh detach-device --domain {seen.typed} --file FILE"
    if qemu and qemu < known:
        return Verdict("block", f"{what}: QEMU {here.qemu} of {here.name} does not move it", remedy)
    return Verdict("unknown", f"{what}: QEMU before {'.'.join(map(str, known))} does not move it, and of "
        f"{here.qemu or 'the one'} of {here.name} that is not known", remedy,
    )  # fmt: skip


def _shares(one: SharedMemory, seen: Observation) -> Verdict:
    there, what = seen.target, f"memory shared with other guests ({plain(one.name)})"
    if one.role != "master" or one.model == "ivshmem":
        role = f"its role is {plain(one.role)}" if one.role else "it has no role"
        why = "it is of the old model ivshmem" if one.model == "ivshmem" else role
        return Verdict("block", f"{what}: {why}, and libvirt moves a master only",
            f"virsh detach-device --domain {seen.typed} --file FILE, and attach it there",
        )  # fmt: skip
    server = f", and needs its server there: {plain(one.server)}" if one.server else ""
    return Verdict("warn", f"{what} goes along, over what {there.name} has under that name{server}; the others on "
        f"{seen.source.name} keep theirs",
        f"on {there.name}: ls -l -- {shlex.quote(one.server or f'/dev/shm/{one.name}')}",
    )  # fmt: skip


def launch_security(seen: Observation) -> Verdict | None:
    """Memory that the host itself cannot read."""
    sealed = None if seen.moved is None else seen.moved.launch_security
    if sealed is None or seen.transfer.offline:
        return None
    return Verdict("block", f"its memory is sealed from the host ({sealed}): QEMU refuses to move it",
        "shut it down, and start it there",
    )  # fmt: skip
