"""One host's documents -> the CPU of one view, its features by name, and how much of that can be known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, Literal, TypeAlias

from vmcompat.errors import CpuMapError, FrameError
from vmcompat.fleet.cpu import X86, Cpu
from vmcompat.fleet.cpu_map import CpuMap, brought_along
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
    """The documents that can answer for the view, those of the host's own architecture first."""
    if view == "host":
        return [d for d in record.documents if d.kind == "capabilities" or (d.kind == "cpu" and d.arch is not None)]
    answering = [
        d
        for d in record.documents
        if (d.kind == "domcapabilities" and d.virttype == virttype) or (d.kind == "cpu" and d.arch is None)
    ]
    return sorted(answering, key=lambda d: d.arch not in (None, record.arch))


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
        if virttype == "kvm" and have == ["qemu"]:
            reason = "its domain capabilities are those of emulation: no KVM, or it is off in the BIOS"
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
    age = version(record.libvirt or "")
    maps = _maps(age, cpu.model, cpu_map)
    if maps is None:
        reason = f"no CPU map knows the model {cpu.model[:100]!r}"
        if not age:
            reason = (
                f"{cpu.model[:100]!r} is not in the CPU map of libvirt {cpu_map.version}; which one wrote it is unknown"
            )
        return Reading(status="unknown_model", reason=reason, document=document, cpu=cpu, findings=findings)
    writer, vocabulary = maps
    offered, reported, beyond = _sets(writer, vocabulary, cpu_map, cpu.model, cpu.features)
    if not age:
        reported = cpu_map.everything
        findings += tuple(_age_matters(record.name, cpu, cpu_map))
    unknown = sorted(n[:100] for n in beyond - _all_known())
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


@lru_cache(maxsize=1024)
def _sets(
    writer: CpuMap, vocabulary: CpuMap, cpu_map: CpuMap, model: str, features: tuple[tuple[str, str], ...]
) -> tuple[int, int, frozenset[str]]:
    """What the CPU has and what its document can say anything about, and the names that are not in the fleet's map."""
    has = set(writer.names(writer.model(model).data))
    for name, policy in features:
        if policy in ("force", "require"):
            has.add(name)
        elif policy != "optional":
            has.discard(name)
    listed = (name for name, policy in features if policy != "optional")
    reported = cpu_map.set_of({*vocabulary.features, *has, *listed})
    return cpu_map.set_of(has), reported, frozenset(n for n in has if n not in cpu_map.index)


def _maps(age: tuple[int, ...], model: str, cpu_map: CpuMap) -> tuple[CpuMap, CpuMap] | None:
    """The map to expand a model with, and the one whose features a libvirt of that age can name.

    Both are the newest of those brought along that is not newer than the writer, but a model may need a younger one.
    The fleet's own map answers where the writer is not known, and, if it came from a folder, where those brought along
    are too old.
    """
    own = cpu_map if model in cpu_map.models else None
    if not age:
        return (own, own) if own else None
    brought = list(brought_along())
    not_newer = [m for m in brought if version(m.version) <= age] or brought[:1]
    knowing = [m for m in brought if model in m.models]
    if own is not None and own not in brought and (not knowing or age > version(brought[-1].version)):
        return own, own
    if not knowing:
        return None
    return next((m for m in reversed(not_newer) if m in knowing), knowing[0]), not_newer[-1]


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


def _age_matters(host: str, cpu: Cpu, cpu_map: CpuMap) -> Iterator[Finding]:
    assert cpu.model is not None
    listed = {name for name, policy in cpu.features if policy != "optional"}
    differing = [name for name in differing_features(cpu.model) if name not in listed]
    if differing:
        yield Finding(
            host,
            "map_matters",
            "info",
            f"{cpu.model} stands for {', '.join(differing)} for some versions of libvirt and not for others; the one "
            f"that wrote this is not known, read as {cpu_map.version} would",
            "name the host's libvirt in the column libvirt of hosts.csv",
        )


@cache
def differing_features(model: str) -> tuple[str, ...]:
    """Features that the model's name stands for in some of the maps brought along and not in others."""
    maps = [m for m in brought_along() if model in m.models]
    counts = Counter(name for m in maps for name in m.names(m.models[model].data))
    return tuple(sorted(name for name, n in counts.items() if n < len(maps)))


def default_view(records: Iterable[HostRecord]) -> View:
    """The view of a fleet that was read without saying which.

    Raises
    ------
    FrameError
        Some of the readable hosts have domain capabilities and others do not.
    """
    readable = [r for r in records if r.documents and not r.unreadable]
    having = [
        r
        for r in readable
        if any(d.kind == "domcapabilities" or (d.kind == "cpu" and d.arch is None) for d in r.documents)
    ]
    if not having:
        return "host"
    if len(having) == len(readable):
        return "hypervisor"
    without = [r.name for r in readable if r not in having]
    raise FrameError(
        f"{len(having)} hosts have domain capabilities and {len(without)} do not: {', '.join(without[:10])}"
        f"{' ...' if len(without) > 10 else ''}. What the hypervisor can give and what the host has are two questions: "
        f"add their output of {VIEW_COMMAND['hypervisor']}, or give view='host' (or view='hypervisor', which "
        f"leaves them unknown)"
    )


def status_finding(host: str, reading: Reading, view: View) -> Finding:
    """Why the CPU of a host is not known, and what to do about it."""
    remedies = {
        "no_model": "give the host a newer libvirt, or leave it out with fleet.drop",
        "unknown_model": "load the map of that libvirt with cpu_map=, or name it in the column libvirt of hosts.csv",
        "no_view": f"add the output of {VIEW_COMMAND[view]}",
        "tcg_only": "switch virtualization on in the BIOS, load the kvm module, and fetch the document again",
        "other_arch": "ask libvirt on such hosts; vmcompat compares x86 CPUs",
    }
    severity = "info" if reading.status == "other_arch" else "error"
    return Finding(host, reading.status, severity, reading.reason, remedies[reading.status])
