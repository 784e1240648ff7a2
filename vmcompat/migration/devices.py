"""A domain's devices, as far as they lean on the host: what its XML says of them, in small values.

Types and models are kept as they are written. A newer libvirt has more of them than anybody here knows, and what to
make of those is for the checks to say, not for the reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from lxml import etree

from vmcompat.errors import DocumentError
from vmcompat.fleet.cpu import kib, whole

_MOST_SLOTS: Final = 2**32 - 1
# Where the XML of a source names what is on the host, by the type of the source.
_PATHS: Final = {"file": "file", "block": "dev", "dir": "dir", "vhostuser": "path", "vhostvdpa": "dev"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What a disk, or an image beneath it, is read from.

    Attributes
    ----------
    type : str
        ``file``, ``block``, ``volume``, ``network``, ``nvme`` and so on.
    path : str
        On the host; empty where the type has none.
    pool, volume : str
        Of type ``volume``.
    protocol, name : str
        Of type ``network``.
    """

    type: str
    path: str = ""
    pool: str = ""
    volume: str = ""
    protocol: str = ""
    name: str = ""

    def __str__(self) -> str:
        if self.type == "network":
            return f"{self.protocol}:{self.name}"
        return f"{self.pool}/{self.volume}" if self.type == "volume" else self.path or self.type


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One ``<disk>``.

    Attributes
    ----------
    target : str
        What libvirt calls it in the guest: ``vda``.
    device : str
        ``disk``, ``cdrom``, ``floppy`` or ``lun``.
    source : Storage or None
        None for an empty drive.
    backing : tuple of Storage
        The images beneath it, from the top.
    cache : str
        Cache mode as written; empty where that is left to QEMU, which then caches in the host.
    secrets : tuple of str
        UUIDs of the libvirt secrets that open its images; ``usage NAME`` where they are named by their use.
    readonly, shareable, transient : bool
    may_be_missing : bool
        A migration drops the image where the target lacks it (``startupPolicy``).
    """

    target: str
    device: str
    source: Storage | None
    backing: tuple[Storage, ...] = ()
    cache: str = ""
    secrets: tuple[str, ...] = ()
    readonly: bool = False
    shareable: bool = False
    transient: bool = False
    may_be_missing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One ``<interface>``: ``source`` is the network, bridge, host device or socket that it hangs on.

    Attributes
    ----------
    type : str
        ``network`` too where live XML says what the network comes to on its host just now (``bridge``, ``direct``).
    backend : str
        Program that is behind it (``passt``); empty for libvirt's and QEMU's own.
    rules : str
        The network filter of libvirt's that its packets pass.
    managed : bool
        libvirt makes the host's side of it; False where an ``ethernet`` device must be there already.
    """

    type: str
    source: str = ""
    portgroup: str = ""
    model: str = ""
    backend: str = ""
    rules: str = ""
    managed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Graphics:
    """One ``<graphics>``: ``listen`` holds the addresses on which it listens, as far as the XML fixes them."""

    type: str
    listen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tpm:
    """One ``<tpm>``: ``secret`` is the UUID of the libvirt secret that seals its state."""

    model: str
    backend: str
    path: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filesystem:
    """One ``<filesystem>``: ``driver`` is empty where libvirt chooses (9p), ``source`` the host's folder or socket."""

    type: str
    driver: str
    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Character:
    """One port, console, channel or the like that ends in a path or an address of the host.

    Attributes
    ----------
    device : str
        ``serial``, ``parallel``, ``console``, ``channel``, ``redirdev``, ``smartcard``, ``rng`` or ``vsock``.
    type : str
        ``file``, ``unix``, ``dev``, ``pipe``, ``tcp`` and so on; ``log`` for a log beside any of them; ``random`` for
        a source of random numbers, ``vsock`` for a number among the guests of the host.
    path : str
        On the host; of ``tcp`` the address, of ``vsock`` the number, empty where libvirt chooses it.
    connects : bool
        Somebody else must listen there already.
    """

    device: str
    type: str
    path: str
    connects: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """What ``<os>`` says of the firmware: ``automatic`` is the ``firmware=`` by which libvirt chooses it."""

    automatic: str = ""
    loader: str = ""
    nvram: str = ""
    template: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDevice:
    """One ``<memory>`` device: ``nodes`` are the host's NUMA nodes that it is taken from, ``placed``: it has a slot.

    Attributes
    ----------
    size : int or None
        [KiB]; None where the definition gives no number.
    """

    model: str
    size: int | None
    path: str = ""
    nodes: frozenset[int] = frozenset()
    placed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One ``<seclabel>`` of the domain."""

    type: str
    model: str
    relabel: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """``<clock>``: ``timers`` are the names of those that are not switched off."""

    offset: str = "utc"
    timers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """The devices of one domain, in the order of its XML, and the rest that leans on the host.

    Attributes
    ----------
    disks, interfaces, graphics, tpms, filesystems, characters, memory : tuple
    labels : tuple of Label
    firmware : Firmware
    clock : Clock
    memory_slots : int
        For memory devices, used or free; 0 where memory cannot be plugged in.
    n_hotpluggable : int
        Virtual CPUs that may be plugged in and out one by one.
    """

    disks: tuple[Disk, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    graphics: tuple[Graphics, ...] = ()
    tpms: tuple[Tpm, ...] = ()
    filesystems: tuple[Filesystem, ...] = ()
    characters: tuple[Character, ...] = ()
    memory: tuple[MemoryDevice, ...] = ()
    labels: tuple[Label, ...] = ()
    firmware: Firmware = field(default_factory=Firmware)
    clock: Clock = field(default_factory=Clock)
    memory_slots: int = 0
    n_hotpluggable: int = 0


def devices_of(root: etree._Element, *, source: str) -> Devices:
    """The devices of a ``<domain>``.

    Raises
    ------
    DocumentError
        libvirt would refuse one: a disk without target, an interface without what its type hangs on, a TPM without
        backend, slots that are no number.
    """

    def refuse(problem: str, element: etree._Element) -> DocumentError:
        return DocumentError(problem, source=source, line=element.sourceline)

    disks = []
    for disk in root.iterfind("devices/disk"):
        if not _get(disk, "target", "dev"):
            raise refuse("a <disk> without <target dev>", disk)
        disks.append(_disk(disk))
    interfaces = [_interface(e) for e in root.iterfind("devices/interface")]
    for one, element in zip(interfaces, root.iterfind("devices/interface"), strict=True):
        if one.type in ("network", "bridge", "direct") and not one.source:
            raise refuse(f"an <interface type={one.type!r}> whose <source> does not say which", element)
    for tpm in root.iterfind("devices/tpm"):
        if not _get(tpm, "backend", "type"):
            raise refuse("a <tpm> without <backend type>", tpm)
    memory = []
    for element in root.iterfind("devices/memory"):
        nodes = number_set(_text(element, "source/nodemask") or "^0")
        if nodes is None:
            raise refuse("a <memory> device with a <nodemask> that is no set", element)
        memory.append(_memory(element, nodes))
    most = root.find("maxMemory")
    slots = 0 if most is None else whole(most.get("slots"))
    if most is not None and (slots is None or not 0 < slots <= _MOST_SLOTS):
        raise refuse(f"<maxMemory> with slots={most.get('slots')!r}", most)
    return Devices(
        disks=tuple(disks),
        interfaces=tuple(interfaces),
        graphics=tuple(_graphics(e) for e in root.iterfind("devices/graphics")),
        tpms=tuple(_tpm(e) for e in root.iterfind("devices/tpm")),
        filesystems=tuple(_filesystem(e) for e in root.iterfind("devices/filesystem")),
        characters=tuple(dict.fromkeys(_characters(root))),
        memory=tuple(memory),
        labels=tuple(
            Label(type=e.get("type", ""), model=e.get("model", ""), relabel=e.get("relabel", "yes") == "yes")
            for e in root.iterfind("seclabel")
        ),
        firmware=_firmware(root),
        clock=_clock(root),
        memory_slots=slots or 0,
        n_hotpluggable=len(root.findall("vcpus/vcpu[@hotpluggable='yes']")),
    )


def number_set(text: str) -> frozenset[int] | None:
    """A set in libvirt's notation, such as ``0-3,^2,8``; None where the text is none.

    Examples
    --------
    >>> sorted(number_set("0-3,^2,8") or ())
    [0, 1, 3, 8]
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\^?)([0-9]{1,5})(?:-([0-9]{1,5}))?\s*", part)
        if match is None:
            return None
        some = range(int(match[2]), int(match[3] or match[2]) + 1)
        numbers = numbers.difference(some) if match[1] else numbers.union(some)
    return frozenset(numbers)


def _get(element: etree._Element, path: str, attribute: str) -> str:
    found = element.find(path)
    return "" if found is None else found.get(attribute, "")


def _text(element: etree._Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _disk(disk: etree._Element) -> Disk:
    device = disk.get("device", "disk")
    backing, below = [], disk.find("backingStore")
    while below is not None and below.get("type"):
        if (image := _storage(below)) is not None:
            backing.append(image)
        below = below.find("backingStore")
    return Disk(
        target=_get(disk, "target", "dev"),
        device=device,
        source=_storage(disk),
        backing=tuple(backing),
        cache=_get(disk, "driver", "cache").replace("default", ""),
        secrets=tuple(
            dict.fromkeys(e.get("uuid") or f"usage {e.get('usage', '')}" for e in disk.iterfind(".//secret"))
        ),
        readonly=device == "cdrom" or disk.find("readonly") is not None,
        shareable=disk.find("shareable") is not None,
        transient=disk.find("transient") is not None,
        may_be_missing=_get(disk, "source", "startupPolicy") in ("optional", "requisite"),
    )


def _storage(element: etree._Element) -> Storage | None:
    """What the ``<source>`` of a disk or of an image beneath it names; None where there is nothing in the drive."""
    source, kind = element.find("source"), element.get("type", "file")
    if source is None:
        return None
    found = Storage(
        type=kind,
        path=source.get(_PATHS[kind], "") if kind in _PATHS else "",
        pool=source.get("pool", "") if kind == "volume" else "",
        volume=source.get("volume", "") if kind == "volume" else "",
        protocol=source.get("protocol", "") if kind == "network" else "",
        name=source.get("name", "") if kind == "network" else "",
    )
    return None if kind in _PATHS and not found.path else found


def _interface(element: etree._Element) -> Interface:
    kind = "network" if _get(element, "source", "network") else element.get("type", "")
    named = {"network": "network", "bridge": "bridge", "direct": "dev", "vhostuser": "path", "vdpa": "dev"}.get(kind)
    hangs_on = _get(element, "source", named) if named else ""
    return Interface(
        type=kind,
        source=_get(element, "target", "dev") if kind == "ethernet" else hangs_on,
        portgroup=_get(element, "source", "portgroup"),
        model=_get(element, "model", "type"),
        backend=_get(element, "backend", "type"),
        rules=_get(element, "filterref", "filter"),
        managed=_get(element, "target", "managed") != "no",
    )


def _graphics(element: etree._Element) -> Graphics:
    listens = element.findall("listen")
    # of type 'network' libvirt looks the address up anew at the target
    fixed = [e.get("address", "") for e in listens if e.get("type") == "address"]
    fixed += [] if listens else [element.get("listen", "")]
    return Graphics(type=element.get("type", ""), listen=tuple(dict.fromkeys(a for a in fixed if a)))


def _tpm(element: etree._Element) -> Tpm:
    return Tpm(
        model=element.get("model", ""),
        backend=_get(element, "backend", "type"),
        path=_get(element, "backend/device", "path") or _get(element, "backend/source", "path"),
        secret=_get(element, "backend/encryption", "secret"),
    )


def _filesystem(element: etree._Element) -> Filesystem:
    source = element.find("source")
    named = "" if source is None else next((v for k in ("dir", "file", "dev", "socket") if (v := source.get(k))), "")
    return Filesystem(
        type=element.get("type", "mount"),
        driver=_get(element, "driver", "type"),
        source=named,
        target=_get(element, "target", "dir"),
    )


def _characters(root: etree._Element) -> Iterator[Character]:
    for kind in ("serial", "parallel", "console", "channel", "redirdev", "smartcard"):
        for element in root.iterfind(f"devices/{kind}"):
            type_ = element.get("type", "")
            for source in element.findall("source")[:1]:
                # a pty has the name of its terminal of now, and gets another one
                path = source.get("host", "") if type_ in ("tcp", "udp") else source.get("path", "")
                if path and type_ not in ("pty", "udp"):
                    yield Character(device=kind, type=type_, path=path, connects=source.get("mode") == "connect")
            if log := _get(element, "log", "file"):
                yield Character(device=kind, type="log", path=log)
    for backend in root.iterfind("devices/rng/backend[@model='random']"):
        if (path := (backend.text or "").strip()) not in ("", "/dev/random", "/dev/urandom"):  # every host has these
            yield Character(device="rng", type="random", path=path)
    for cid in root.iterfind("devices/vsock/cid"):
        yield Character(device="vsock", type="vsock", path=cid.get("address", "") if cid.get("auto") != "yes" else "")


def _firmware(root: etree._Element) -> Firmware:
    system = root.find("os")
    if system is None:
        return Firmware()
    return Firmware(
        automatic=system.get("firmware", ""),
        loader=_text(system, "loader"),
        nvram=_text(system, "nvram") or _get(system, "nvram/source", "file"),
        template=_get(system, "nvram", "template"),
    )


def _memory(element: etree._Element, nodes: frozenset[int]) -> MemoryDevice:
    size = element.find("target/size")
    return MemoryDevice(
        model=element.get("model", ""),
        size=None if size is None else kib(size, size.text),
        path=_text(element, "source/path"),
        nodes=nodes,
        placed=element.find("address[@type='dimm']") is not None,
    )


def _clock(root: etree._Element) -> Clock:
    timers = (e.get("name", "") for e in root.iterfind("clock/timer") if e.get("present") != "no")
    return Clock(offset=_get(root, "clock", "offset") or "utc", timers=tuple(timers))
