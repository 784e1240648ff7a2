"""What holds a guest where it is: devices of its host, memory shared with others, devices without a state to send."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lxml import etree

# Devices of libvirt whose QEMU device has no state that may be sent, by where they stand in the XML.
_STATELESS: Final = (
    ("crypto", "crypto"),
    ("sound[@model='usb']", "usb sound"),
    ("sound[@model='virtio']", "virtio sound"),
    ("video/model[@type='virtio']/acceleration[@accel3d='yes']", "3D acceleration"),
    ("input[@type='passthrough']", "input passthrough"),
    ("filesystem/driver[@type='mtp']", "mtp filesystem"),
    ("controller[@type='nvme']", "nvme controller"),
    ("disk/target[@bus='nvme']", "nvme controller"),
    ("iommu[@model='amd']", "amd iommu"),
)
# Image formats of which QEMU cannot drop what it has read, so that the other side would meet old metadata.
_HELD_FORMATS: Final = ("qcow", "vdi", "vhdx", "vmdk", "vpc", "ploop")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDevice:
    """One device of the host that the guest was given.

    Attributes
    ----------
    type : str
        ``pci``, ``usb``, ``scsi``, ``scsi_host``, ``mdev`` and so on; ``input`` for an event device and ``smartcard``
        for a card in the host's own reader.
    name : str
        Its address or identity as the host writes it.
    model : str
        Of a mediated device: ``vfio-pci``, ``vfio-ap``, ``vfio-ccw``.
    teamed : bool
        QEMU unplugs it for the move, and the guest goes on with the interface it is teamed with.
    network : str
        The libvirt network out of whose pool it was taken; empty where the definition fixes which one it is.
    """

    type: str
    name: str
    model: str = ""
    teamed: bool = False
    network: str = ""

    def __str__(self) -> str:
        return f"{self.type} {self.name}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMemory:
    """One ``<shmem>``: ``role`` is empty where the definition gives none, ``server`` is the socket of its server."""

    name: str
    model: str
    role: str = ""
    server: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Immovable:
    """All of it, in the order of the XML.

    Attributes
    ----------
    hostdevs : tuple of HostDevice
    shared : tuple of SharedMemory
    stateless : tuple of str
        Kinds of devices of which some QEMU, or all, has no state to send.
    images : tuple of (str, str)
        Target and format of disks with an image that QEMU may not hand over.
    handed : tuple of str
        Targets of disks whose image another program has opened and handed to libvirt.
    """

    hostdevs: tuple[HostDevice, ...] = ()
    shared: tuple[SharedMemory, ...] = ()
    stateless: tuple[str, ...] = ()
    images: tuple[tuple[str, str], ...] = ()
    handed: tuple[str, ...] = ()


def immovable_of(root: etree._Element) -> Immovable:
    """What of a ``<domain>`` may hold it."""
    disks = [(disk.find("target"), disk) for disk in root.iterfind("devices/disk")]
    named = [("" if target is None else target.get("dev", ""), disk) for target, disk in disks]
    return Immovable(
        hostdevs=tuple(_hostdevs(root)),
        shared=tuple(_shared(e) for e in root.iterfind("devices/shmem")),
        stateless=tuple(dict.fromkeys(kind for path, kind in _STATELESS if root.find(f"devices/{path}") is not None)),
        images=tuple(dict.fromkeys((name, f) for name, disk in named for f in _formats(disk) if f in _HELD_FORMATS)),
        handed=tuple(name for name, disk in named if disk.find("source[@fdgroup]") is not None),
    )


def _formats(disk: etree._Element) -> Iterator[str]:
    """Of a disk's image and of those beneath it."""
    for part in (*disk.iterfind("driver"), *disk.iterfind(".//backingStore/format")):
        yield part.get("type", "")


def _shared(element: etree._Element) -> SharedMemory:
    model, server = element.find("model"), element.find("server")
    return SharedMemory(
        name=element.get("name", ""),
        model="" if model is None else model.get("type", ""),
        role=element.get("role", ""),
        server="" if server is None else server.get("path", ""),
    )


def _hostdevs(root: etree._Element) -> Iterator[HostDevice]:
    for device in (*root.iterfind("devices/hostdev"), *root.iterfind("devices/interface[@type='hostdev']")):
        address, source = device.find("source/address"), device.find("source")
        numbers = {} if address is None else {n: address.get(n, "") for n in ("domain", "bus", "slot", "function")}
        if address is not None and address.get("uuid"):
            where = address.get("uuid", "")
        elif all(numbers.values()) and numbers:
            where = "{domain}:{bus}:{slot}.{function}".format_map({k: v.removeprefix("0x") for k, v in numbers.items()})
        else:
            names = ((e.get("id") or e.get("name") or "") for e in device.iterfind("source/*"))
            where = ":".join(name.removeprefix("0x") for name in names if name)
        if source is not None and not where:
            where = source.get("wwpn", "")
        yield HostDevice(
            type="pci" if device.tag == "interface" else device.get("type", ""),
            name=where,
            model=device.get("model", ""),
            teamed=device.find("teaming[@type='transient']") is not None,
            network="" if source is None else source.get("network", ""),
        )
    for event in root.iterfind("devices/input[@type='evdev']/source"):
        yield HostDevice(type="input", name=event.get("dev", ""))
    for card in root.iterfind("devices/smartcard"):
        if card.get("mode") in ("host", "host-certificates"):
            yield HostDevice(type="smartcard", name=card.get("mode", ""))
