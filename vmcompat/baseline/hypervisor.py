"""What the emulators of a group of hosts allow: models, their blockers, and the properties QEMU has heard of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.records import Document
from vmcompat.fleet.sources import HostRecord


class Endpoint(NamedTuple):
    """Which hypervisor was asked for what; the UUID of its host is None where no capabilities say it."""

    emulator: str | None
    arch: str
    machine: str | None
    virttype: str
    uuid: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HypervisorLimits:
    """What restricts a hypervisor's baseline.

    Attributes
    ----------
    allowed : mapping of str to int, or None
        Models that every host lists, with the union of their blockers; None where nothing lists models.
    properties : mapping of str to bool or None, or None
        Feature names that every QEMU asked knows, and whether each may be migrated; None where not known.
    knows_migratable : bool
        Whether every QEMU asked says which properties may be migrated; libvirt then drops just the others.
    inexact : tuple of str
        What the documents do not say and libvirt would have asked.
    endpoint : Endpoint or None
        Where one host was asked and its domain capabilities say it.
    """

    allowed: Mapping[str, int] | None = None
    properties: Mapping[str, bool | None] | None = None
    knows_migratable: bool = False
    inexact: tuple[str, ...] = ()
    endpoint: Endpoint | None = None


def limits_of(records: Sequence[HostRecord], *, virttype: str, cpu_map: CpuMap) -> HypervisorLimits:
    """What all these hosts' emulators allow together.

    Parameters
    ----------
    records : sequence of HostRecord
    virttype : str
    cpu_map : CpuMap
        Whose features the blockers are sets of.

    Returns
    -------
    HypervisorLimits

    References
    ----------
    ``qemuConnectBaselineHypervisorCPU`` and ``virQEMUCapsGetCPUFeatures`` of libvirt.
    """
    inexact = []
    lists, expansions = [], []
    for record in records:
        document = models_document(record, virttype)
        if document is not None:
            lists.append(_blockers(document, cpu_map))
        expansions.append(document.properties if document is not None else None)
    if len(lists) < len(records):
        inexact.append(
            "not every host's document lists the models of its emulator: all models of the map were candidates"
        )
    elif any(not complete for _, complete in lists):
        inexact.append("domain capabilities of libvirt before 10 do not say what blocks a model")
    properties = None
    if any(e is None for e in expansions):
        inexact.append("domain capabilities do not say which features QEMU has heard of")
    else:
        known = [e for e in expansions if e is not None]
        common = set(known[0]).intersection(*known[1:])
        properties = {
            n: None if any(e[n] is None for e in known) else all(e[n] for e in known) for n in known[0] if n in common
        }
    allowed = None
    if lists and len(lists) == len(records):
        names = set(lists[0][0]).intersection(*(models for models, _ in lists[1:]))
        allowed = {n: _union(models[n] for models, _ in lists) for n in lists[0][0] if n in names}
    return HypervisorLimits(
        allowed=allowed,
        properties=properties,
        knows_migratable=properties is not None and None not in properties.values(),
        inexact=tuple(inexact),
        endpoint=_endpoint(records[0], virttype) if len(records) == 1 else None,
    )


def models_document(record: HostRecord, virttype: str) -> Document | None:
    """The document that lists the models of the host's emulator; QEMU's cached answers say most."""
    lists = [d for d in record.documents if d.models and d.virttype == virttype]
    return next((d for d in lists if d.kind == "qemucaps"), lists[0] if lists else None)


def _endpoint(record: HostRecord, virttype: str) -> Endpoint | None:
    for d in record.documents:
        if d.kind == "domcapabilities" and d.virttype == virttype and d.arch:
            return Endpoint(d.emulator, d.arch, d.machine, virttype, record.fact("uuid"))
    return None


@cache
def _blockers(document: Document, cpu_map: CpuMap) -> tuple[dict[str, int], bool]:
    """Each listed model with the set of its blockers, and whether the document names them all."""
    models = {m.name: cpu_map.set_of(m.blockers or ()) for m in document.models}
    return models, all(m.blockers is not None for m in document.models)


def _union(sets: Iterable[int]) -> int:
    bits = 0
    for s in sets:
        bits |= s
    return bits
