"""Are the guest's disks the same at both ends, and free to move? Checks of :mod:`vmcompat.migration.preflight`.

libvirt itself looks at the source only: a file there has to lie on a file system that it knows to be shared (else error
81), block devices it takes for shared, and network disks are. Whether the target sees the same bytes, it never asks.
"""

from __future__ import annotations

import os.path
import shlex
from collections.abc import Iterator
from typing import Final

from vmcompat.baseline.answer import some
from vmcompat.fleet.expand import version
from vmcompat.migration.attached import plain, worst
from vmcompat.migration.devices import Disk, Storage
from vmcompat.migration.fit import Verdict
from vmcompat.migration.inventory import Inventory
from vmcompat.migration.observe import End, Observation

_UNCACHED: Final = ("none", "directsync")
_DROPS_CACHES: Final = (4, 0)  # from this QEMU on libvirt leaves the cache mode to QEMU, which drops what it cached


def _virsh(end: End, *words: str) -> str:
    return " ".join(["virsh", "-c", shlex.quote(end.uri or "URI"), *map(shlex.quote, words)])


def disks(seen: Observation) -> Verdict | None:
    """Whether the target sees the same storage."""
    attached = () if seen.moved is None else tuple(d for d in seen.moved.devices.disks if d.source is not None)
    there = seen.target.inventory
    if not attached or there is None:
        return None
    found = [verdict for disk in attached for verdict in _opened(disk, seen.target, there)]
    for disk in attached:
        if seen.transfer.copy_disks and not disk.readonly and not disk.shareable:
            found.append(_copied(disk, seen.target, there))
        elif disk.may_be_missing and disk.device in ("cdrom", "floppy"):
            found.append(Verdict("ok", f"{_of(disk)}: the drive is empty at {seen.target.name} if that is not there"))
        elif disk.source is not None:
            found += [_seen_there(disk, image, seen) for image in (disk.source, *disk.backing)]
    return worst(found, seen)


def _opened(disk: Disk, end: End, there: Inventory) -> Iterator[Verdict]:
    """What stands in the way of reading it: libvirt there asks its own secrets for passwords and keys."""
    for secret in disk.secrets:
        what = f"{_of(disk)} is opened with the secret {plain(secret)}"
        if there.secrets is None or secret.startswith("usage "):
            yield Verdict("unknown", f"{what}, and {end.name} does not say whether it has that",
                _virsh(end, "secret-list"),
            )  # fmt: skip
        elif secret not in there.secrets:
            yield Verdict("block", f"{what}, which {end.name} lacks",
                "define it there: virsh secret-define, secret-set-value",
            )  # fmt: skip


def _of(disk: Disk, image: Storage | None = None) -> str:
    return f"{plain(disk.target)} ({plain(str(image or disk.source))})"


def _copied(disk: Disk, end: End, there: Inventory) -> Verdict:
    source = disk.source
    folder = os.path.dirname(source.path) if source else ""
    if source is not None and (there.holder(source) or any(p.active and p.path == folder for p in there.pools or ())):
        return Verdict("ok", f"{_of(disk)} is copied, and {end.name} has a pool for it")
    return Verdict("unknown", f"{_of(disk)} is copied, and no pool of {end.name} is known to take it: libvirt makes no "
        "image there", f"make one of the same size there, or a pool of its folder: {_virsh(end, 'pool-list', '--all')}",
    )  # fmt: skip


def _seen_there(disk: Disk, image: Storage, seen: Observation) -> Verdict:
    here, end, what = seen.source.inventory, seen.target, _of(disk, image)
    there = end.inventory
    assert there is not None
    if image.type == "network":
        return Verdict("ok", f"{what} is reached over the network")
    if image.type == "nvme":
        return Verdict("block", f"{what} is a device of {seen.source.name}, and of no other host",
            "copy what is on it to shared storage, and power the guest off and on",
        )  # fmt: skip
    if image.type not in ("file", "block", "dir", "volume"):
        return Verdict("unknown", f"{what}: whether {end.name} has the same, libvirt does not tell",
            f"look for it on {end.name}",
        )  # fmt: skip
    if there.pools is None:
        return Verdict("unknown", f"{what}: {end.name} does not list its storage: "
            f"{there.silent.get('storage pools', '')}",
            f"on {end.name}: ls -l -- {shlex.quote(image.path or str(image))}",
        )  # fmt: skip
    if image.type == "volume":
        pool = there.pool(image.pool)
        if pool is None:
            return Verdict("block", f"{what}: {end.name} has no storage pool {plain(image.pool)}",
                _virsh(end, "pool-define", "--file", "FILE"),
            )  # fmt: skip
        if not pool.active:
            return Verdict("block", f"{what}: the storage pool {plain(image.pool)} of {end.name} is not active",
                _virsh(end, "pool-start", "--pool", image.pool),
            )  # fmt: skip
    return _compared(disk, image, here, end)


def _compared(disk: Disk, image: Storage, here: Inventory | None, end: End) -> Verdict:
    """By the pools that hold the image at both ends."""
    there, what = end.inventory, _of(disk, image)
    assert there is not None
    holds, held = there.holder(image), None if here is None else here.holder(image)
    if holds is None:
        known = some([p.name for p in there.pools or () if p.active]) or "none active"
        refresh = image.pool if image.type == "volume" else "POOL"
        return Verdict("unknown", f"{what}: no storage pool of {end.name} lists it ({plain(known)})",
            f"on {end.name}: ls -l -- {shlex.quote(image.path or str(image))}; is it one storage? With a pool over it "
            f"at both ends this is seen: {_virsh(end, 'pool-refresh', '--pool', refresh)}",
        )  # fmt: skip
    pool = f"the pool {plain(holds.name)} ({holds.type}) of {end.name}"
    if holds.shared and held is not None and holds.origin == held.origin:
        return Verdict("ok", f"{what} is in {pool}, and that is the same storage at both ends")
    if held is not None and (holds.shared or held.shared) and holds.origin != held.origin:
        return Verdict("risk", f"{what} is in {pool}, which is other storage than {plain(held.name)} ({held.type}) at "
            "the source", "the guest would run on another disk's bytes: mount the same storage there",
        )  # fmt: skip
    if disk.readonly:
        return Verdict("warn", f"{what} is in {pool}; whether it is the same image, libvirt does not tell")
    return Verdict("risk", f"{what} is in {pool}: libvirt does not tell whether that is one and the same storage",
        "compare what is in it at both ends; if it is one: force=('DISKS',). If not: copy_disks, or move the disk to "
        "shared storage first",
    )  # fmt: skip


def cache(seen: Observation) -> Verdict | None:
    """Whether the source may hold back what the guest has written."""
    attached = () if seen.moved is None else seen.moved.devices.disks
    looked_at = [
        d for d in attached
        if d.source is not None and not d.readonly and d.source.type != "network" and not seen.transfer.copy_disks
    ]  # fmt: skip
    if not looked_at or seen.transfer.offline or not seen.source.asked:  # of storage documents tell nothing
        return None
    cached = [d for d in looked_at if d.cache not in _UNCACHED and not d.shareable]
    here, qemu = seen.source, version(seen.source.qemu or "")
    names = some([f"{plain(d.target)} ({plain(d.cache or 'default')})" for d in cached])
    if not cached:
        return Verdict("ok", f"no host caches what the guest writes to {some([plain(d.target) for d in looked_at])}")
    if not qemu:
        return Verdict("unknown", f"{here.name} caches {names}, and its QEMU is not known", "virsh version there")
    if qemu >= _DROPS_CACHES:
        return Verdict("ok", f"{here.name} caches {names}, and its QEMU {here.qemu} writes that out and drops it")
    return Verdict(
        "warn" if seen.transfer.unsafe else "block",
        f"{here.name} caches {names}: writes may be lost, and with its QEMU {here.qemu} libvirt refuses (error 81)",
        "power the guest off and on with cache='none', or upgrade QEMU there",
    )  # fmt: skip


def transient(seen: Observation) -> Verdict | None:
    """Disks whose writes are forgotten when the guest stops."""
    names = [plain(d.target) for d in (seen.moved.devices.disks if seen.moved else ()) if d.transient]
    if not names or seen.transfer.offline:
        return None
    return Verdict("block", f"transient disks: {some(names)}; libvirt refuses to move what is written to them",
        f"take it out first: virsh detach-disk --domain {seen.typed} --target TARGET; or shut the guest "
        "down, and start it there",
    )  # fmt: skip


def snapshots(seen: Observation) -> Verdict | None:
    """What the source's libvirt knows of snapshots, which does not travel."""
    names = seen.ties.snapshots
    if names is None:
        return None
    if not names:
        return Verdict("ok", "no snapshots")
    first = ["--domain", seen.domain, "--snapshotname", names[0]]
    save, forget = _virsh(seen.source, "snapshot-dumpxml", *first), _virsh(seen.source, "snapshot-delete", "--metadata")
    return Verdict("block", f"{len(names)} snapshots: {some([plain(n) for n in names])}; libvirt refuses to move the "
        "guest", f"delete them, or only what libvirt knows of them, once that is kept: {save} > FILE; {forget} "
        f"{' '.join(map(shlex.quote, first))}",
    )  # fmt: skip


def block_job(seen: Observation) -> Verdict | None:
    """Copies and commits of disks that are under way."""
    targets = seen.ties.block_jobs
    if targets is None or seen.live is None:
        return None
    if not targets:
        return Verdict("ok", "no block job")
    return Verdict("block", f"block jobs on {some([plain(t) for t in targets])}: libvirt refuses to move the guest",
        f"wait for it, or end it: {_virsh(seen.source, 'blockjob', '--domain', seen.domain, '--path', targets[0])}",
    )  # fmt: skip
