"""What can be said of each named CPU model on one host: by its domain capabilities, or by the CPU map."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from vmcompat.baseline.hypervisor import models_document
from vmcompat.fleet.cpu import X86
from vmcompat.fleet.cpu_map import CpuMap, brought_along
from vmcompat.fleet.expand import Reading, version
from vmcompat.fleet.frames import Fleet
from vmcompat.fleet.records import HypervisorModel
from vmcompat.fleet.sources import HostRecord

_BELIEVES_QEMU: Final = (11, 3)  # the first libvirt that is known to start whatever its emulator calls usable


class Say(NamedTuple):
    """What can be said of one model on one host: columns of ``schema.MODELS``."""

    usable: str
    blockers: tuple[str, ...] = ()
    deprecated: bool | None = None
    canonical: str | None = None
    told: str | None = None
    refused: tuple[str, ...] = ()


class Kind(NamedTuple):
    """Hosts alike in all that decides which models they can use."""

    says: Mapping[str, Say]
    writer: CpuMap
    x86: bool


UNKNOWN: Final = Say("unknown")
NOT_LISTED: Final = Say("no", told="not listed")


def _writer(record: HostRecord, fleet: Fleet) -> CpuMap:
    """The newest map that is not newer than the host's libvirt; the fleet's own where that is not known."""
    age = version(record.libvirt or "")
    brought = list(brought_along())
    own = fleet.cpu_map not in brought and age > version(brought[-1].version)
    if fleet.strict or not age or own:
        return fleet.cpu_map
    return [*brought[:1], *(m for m in brought if version(m.version) <= age)][-1]


@lru_cache(maxsize=4096)
def stands_for(name: str, writer: CpuMap, cpu_map: CpuMap) -> tuple[int, frozenset[str]] | None:
    """What a name stands for, over the fleet's map, and the features that this does not know; None: nobody knows."""
    for known in (writer, *brought_along(), cpu_map):
        newer = known is cpu_map or version(known.version) >= version(writer.version)
        if newer and name in known.models:
            names = known.names(known.models[name].data)
            return cpu_map.set_of(names), frozenset(n for n in names if n not in cpu_map.index)
    return None


@lru_cache(maxsize=16)
def _canonical(cpu_map: CpuMap) -> Mapping[str, str]:
    """The versioned name of each plain one."""
    return {m.base: m.name for m in cpu_map.models.values() if m.base is not None}


@dataclass(frozen=True, slots=True)
class _Host:
    """One kind of host: what can be said of models on it."""

    cpu_map: CpuMap
    writer: CpuMap
    libvirt: str | None
    reading: Reading
    bare: int

    def told(self, listed: Sequence[HypervisorModel]) -> dict[str, Say]:
        """What the document says, with the blockers computed where it names none."""
        canonical = _canonical(self.cpu_map)
        said = {}
        for m in listed:
            usable = {True: "yes", False: "no", None: "unknown"}[m.usable]
            blockers, told = m.blockers or (), "document"
            if m.usable is not True and m.blockers is None and self.reading.status == "ok":
                lacking, silent = self._lacking(m.name)
                blockers, told = lacking or silent, "map"
            name = m.canonical or canonical.get(m.name)
            refused = self._refused(m.name) if m.usable else ()
            said[m.name] = Say(usable, blockers, m.deprecated, name, told, refused)
        return said

    def _refused(self, name: str) -> tuple[str, ...]:
        """Why an older libvirt does not start a guest with a name that its emulator calls usable.

        It compares the model of its own map with all that the CPU has and the emulator gives.
        """
        age = version(self.libvirt or "")
        if not age or age >= _BELIEVES_QEMU or self.reading.status != "ok":
            return ()
        return tuple(n for n in self._lacking(name)[0] if not self.bare & self.cpu_map.set_of([n]))

    def computed(self) -> dict[str, Say]:
        """What the map says, for want of a document that does."""
        canonical = _canonical(self.cpu_map)
        said = {}
        for m in self.cpu_map.models.values():
            lacking, silent = self._lacking(m.name)
            usable = "no" if lacking else "unknown" if silent else "yes"
            told = "map"
            if m.name not in self.writer.models:  # a name that its libvirt refuses, if it was no younger than its map
                if version(self.libvirt or "") == version(self.writer.version):
                    usable, lacking, silent, told = "no", (), (), "not listed"
                elif usable == "yes":
                    usable = "unknown"
            said[m.name] = Say(usable, lacking or silent, None, canonical.get(m.name), told)
        return said

    def _lacking(self, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Features of the model that the host is known to lack, and those that its libvirt has no name for."""
        found = stands_for(name, self.writer, self.cpu_map)
        if found is None:
            return (), ()
        bits, beyond = found
        missing = bits & ~self.reading.offered
        lacking = self.cpu_map.names(missing & self.reading.reported)
        silent = self.cpu_map.names(missing & ~self.reading.reported) + sorted(beyond - self.reading.beyond)
        return tuple(lacking), tuple(silent)


def names_of(kinds: Iterable[Kind], cpu_map: CpuMap) -> list[str]:
    """Every x86 model that is spoken of: those of the map in its order, then the others."""
    spoken = dict.fromkeys(name for k in kinds if k.x86 for name in k.says)
    return [*(name for name in cpu_map.models if name in spoken), *(n for n in spoken if n not in cpu_map.models)]


def kinds_of(fleet: Fleet) -> tuple[list[Kind], list[int]]:
    """The different kinds of hosts, and which each host is of."""
    numbers: dict[Hashable, int] = {}
    kinds = []
    kind_of_host = []
    own = fleet.with_view("host").readings if fleet.view == "hypervisor" else fleet.readings
    for record, x, bare in zip(fleet.records, fleet.readings, own, strict=True):
        document = models_document(record, fleet.virttype) if fleet.view == "hypervisor" else None
        writer = _writer(record, fleet)
        listed = document.models if document is not None else ()
        if document is not None and document.kind == "qemucaps":  # QEMU has names that its libvirt does not accept
            listed = tuple(m for m in listed if m.name in writer.models)
        x86 = record.arch is None or record.arch in X86
        key = (listed, x.status, x.offered, x.reported, x.beyond, bare.offered, record.libvirt, x86)
        if key not in numbers:
            numbers[key] = len(numbers)
            host = _Host(fleet.cpu_map, writer, record.libvirt, x, bare.offered)
            says = host.told(listed) if listed else host.computed() if x.status == "ok" else {}
            kinds.append(Kind(says, writer, x86))
        kind_of_host.append(numbers[key])
    return kinds, kind_of_host
