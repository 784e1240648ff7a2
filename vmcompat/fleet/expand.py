"""One host's documents -> the CPU of one view, its features by name, and how much of that can be known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, TypeAlias

from vmcompat.errors import CpuMapError
from vmcompat.fleet.cpu import X86, Cpu
from vmcompat.fleet.cpu_map import CpuMap, CpuModel, brought_along
from vmcompat.fleet.records import Document
from vmcompat.fleet.sources import Finding, HostRecord

View: TypeAlias = Literal["hypervisor", "host"]
VIEW_COMMAND: Final = {"hypervisor": "virsh domcapabilities", "host": "virsh capabilities"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The CPU of one host in one view.

    Attributes
    ----------
    status, reason : str
        A key of ``schema.CPU_STATUS``, and in words why the CPU is not known.
    document : Document or None
        Where it comes from.
    cpu : Cpu or None
    model_vendor : str or None
        Vendor of the named model, which is not always the CPU's.
    offered : int
        Set of the features that the host offers, over the features of the fleet's map.
    reported : int
        Set of those features about which the document says something: the libvirt that wrote it knows their names.
    beyond : frozenset of str
        Features that the document lists and the fleet's map does not know.
    findings : tuple of Finding
    """

    status: str
    reason: str = ""
    document: Document | None = None
    cpu: Cpu | None = None
    model_vendor: str | None = None
    offered: int = 0
    reported: int = 0
    beyond: frozenset[str] = frozenset()
    findings: tuple[Finding, ...] = ()


def view_documents(record: HostRecord, view: View, virttype: str) -> list[Document]:
    """The documents that can answer for the view, best first."""
    if view == "host":
        return [d for d in record.documents if d.kind == "capabilities" or (d.kind == "cpu" and d.arch is not None)]
    return [
        d
        for d in record.documents
        if (d.kind == "domcapabilities" and d.virttype == virttype) or (d.kind == "cpu" and d.arch is None)
    ]


def read_cpu(record: HostRecord, *, view: View, virttype: str, cpu_map: CpuMap, strict: bool) -> Reading:
    """What the host's documents say of its CPU in one view.

    Parameters
    ----------
    record : HostRecord
    view : {"hypervisor", "host"}
    virttype : str
        Which domain capabilities count: "kvm", or "qemu" for emulation.
    cpu_map : CpuMap
        Whose features the sets are over.
    strict : bool
        Expand with ``cpu_map`` alone, as one libvirt would, rather than with the map of the libvirt that wrote the
        document.

    Returns
    -------
    Reading
    """
    documents = view_documents(record, view, virttype)
    if not documents:
        return _no_document(record, view, virttype)
    document = documents[0]
    cpu = document.cpu
    arch = document.arch or record.arch or "x86_64"
    if arch not in X86:
        return Reading(status="other_arch", reason=f"{arch}: not an x86 CPU", document=document, cpu=cpu)
    if cpu is None or cpu.model is None:
        what = "libvirt recognised no CPU model" if view == "host" else "libvirt offers no host-model CPU"
        return Reading(status="no_model", reason=what, document=document, cpu=cpu)
    findings = _other_answers(record, documents)
    if strict:
        try:
            offered = cpu_map.full(cpu)
        except CpuMapError as e:
            return Reading(status="unknown_model", reason=str(e), document=document, cpu=cpu, findings=findings)
        return Reading(
            status="ok",
            document=document,
            cpu=cpu,
            model_vendor=cpu_map.model(cpu.model).vendor,
            offered=offered,
            reported=cpu_map.everything,
            findings=findings,
        )
    return _expanded(record, document, cpu, cpu_map, findings)


def _no_document(record: HostRecord, view: View, virttype: str) -> Reading:
    if view == "hypervisor" and any(d.kind == "domcapabilities" for d in record.documents):
        have = sorted({str(d.virttype) for d in record.documents if d.kind == "domcapabilities"})
        if virttype == "kvm":
            reason = f"its domain capabilities are of {', '.join(have)}, emulation: no KVM, or it is off in the BIOS"
            return Reading(status="tcg_only", reason=reason)
        return Reading(status="no_view", reason=f"has domain capabilities of {', '.join(have)}, not of {virttype}")
    if record.unreadable:
        return Reading(status="unreadable", reason=f"{record.unreadable[0]} could not be used")
    return Reading(status="no_view", reason=f"no output of {VIEW_COMMAND[view]}")


def _other_answers(record: HostRecord, documents: list[Document]) -> tuple[Finding, ...]:
    first = documents[0]
    others = [d for d in documents[1:] if d.cpu is not None and d.cpu != first.cpu]
    return tuple(
        Finding(
            record.name,
            "several_answers",
            "warning",
            f"{d.source} ({d.emulator}, {d.machine}) gives another CPU than {first.source}, which is used",
            "keep the document of the emulator and machine type that the guests use",
        )
        for d in others
    )


def _expanded(
    record: HostRecord, document: Document, cpu: Cpu, cpu_map: CpuMap, findings: tuple[Finding, ...]
) -> Reading:
    """Expands the model with the map of the libvirt that wrote the document, the listed features by name."""
    assert cpu.model is not None
    writer = _writer(record.libvirt, cpu.model, cpu_map)
    if writer is None:
        return Reading(
            status="unknown_model",
            reason=f"no CPU map knows the model {cpu.model!r}; load a newer map with cpu_map=",
            document=document,
            cpu=cpu,
            findings=findings,
        )
    offered, reported, beyond = _sets(writer, cpu_map, cpu.model, cpu.features)
    if record.libvirt is None:
        reported = cpu_map.everything
        findings += tuple(_age_matters(record.name, cpu.model, cpu_map))
    unknown = sorted(beyond - _all_known())
    if unknown:
        findings += (
            Finding(
                record.name,
                "unknown_feature",
                "warning",
                f"{document.source} lists {', '.join(unknown)}, which no CPU map knows: not counted",
                "load the map of a newer libvirt with cpu_map=, or correct the name",
            ),
        )
    return Reading(
        status="ok",
        document=document,
        cpu=cpu,
        model_vendor=writer.model(cpu.model).vendor,
        offered=offered,
        reported=reported,
        beyond=beyond,
        findings=findings,
    )


@cache
def _sets(
    writer: CpuMap, cpu_map: CpuMap, model: str, features: tuple[tuple[str, str], ...]
) -> tuple[int, int, frozenset[str]]:
    names = set(writer.names(writer.model(model).data))
    for name, policy in features:
        if policy in ("force", "require"):
            names.add(name)
        elif policy != "optional":
            names.discard(name)
    listed = {name for name, policy in features if policy != "optional"}
    reported = cpu_map.set_of({*writer.features, *listed})
    return cpu_map.set_of(names), reported, frozenset(n for n in names if n not in cpu_map.index)


def _writer(libvirt: str | None, model: str, cpu_map: CpuMap) -> CpuMap | None:
    """The map nearest to that of the writing libvirt, not newer where there is one, that knows the model."""
    known = [m for m in _maps_with(cpu_map) if model in m.models]
    if libvirt is None:
        return cpu_map if model in cpu_map.models else None
    age = version(libvirt)
    not_newer = [m for m in known if version(m.version) <= age]
    return not_newer[-1] if not_newer else known[0] if known else None


def _maps_with(cpu_map: CpuMap) -> Iterator[CpuMap]:
    """Oldest first, and last the fleet's own where it is none of those brought along."""
    yield from brought_along()
    if version(cpu_map.version) == ():
        yield cpu_map


@cache
def _all_known() -> frozenset[str]:
    return frozenset(name for m in brought_along() for name in m.features)


def version(text: str) -> tuple[int, ...]:
    """A version as numbers, ``(9, 0, 0)``; what follows them is left out, and () where there are none.

    Examples
    --------
    >>> version("10.0.0-2ubuntu8"), version("9.0")
    ((10, 0, 0), (9, 0))
    """
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(n) for n in match[0].split(".")) if match else ()


def _age_matters(host: str, model: str, cpu_map: CpuMap) -> Iterator[Finding]:
    differing = differing_features(model)
    if differing:
        yield Finding(
            host,
            "map_matters",
            "info",
            f"{model} stands for {', '.join(differing)} for some versions of libvirt and not for others; the one that "
            f"wrote this is not known, read as {cpu_map.version} would",
            "name the host's libvirt in the column libvirt of hosts.csv",
        )


@cache
def differing_features(model: str) -> tuple[str, ...]:
    """Features that the model's name stands for in some of the maps brought along and not in others."""
    maps = [m for m in brought_along() if model in m.models]
    counts = Counter(name for m in maps for name in m.names(m.models[model].data))
    return tuple(sorted(name for name, n in counts.items() if n < len(maps)))


def model_of(cpu_map: CpuMap, name: str | None) -> CpuModel | None:
    """The model of that name, if the map has it."""
    return cpu_map.models.get(name) if name else None
