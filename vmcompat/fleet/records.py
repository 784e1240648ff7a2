"""One XML document -> one frozen record: host capabilities, domain capabilities, QEMU's cached answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from lxml import etree

from vmcompat.errors import DocumentError
from vmcompat.fleet.cpu import Cpu, kib, parse_cpu, parse_xml, whole

HYPOTHETICAL: Final = "hypothetical: "  # in front of the source of a document that somebody changed in thought
MAX_DOCUMENT_BYTES: Final = 64 * 1024 * 1024
_MOST: Final = 2**63 - 1  # what a column of dtype Int64 holds

Kind: TypeAlias = Literal["capabilities", "domcapabilities", "qemucaps", "cpu"]


@dataclass(frozen=True, slots=True)
class HypervisorModel:
    """A CPU model that an emulator lists; ``blockers`` is None where the document does not say."""

    name: str
    usable: bool | None
    blockers: tuple[str, ...] | None
    deprecated: bool = False
    canonical: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Document:
    """One XML document that was read.

    Attributes
    ----------
    kind : {"capabilities", "domcapabilities", "qemucaps", "cpu"}
    source : str
        File or URI, after ``HYPOTHETICAL`` where it says something else than here.
    sha256 : str
        Of the bytes of the file (or the answer of the live host); empty where it says something else than here.
    arch : str or None
        Of the host CPU, or of the emulator that was asked.
    cpu : Cpu or None
        Host CPU (capabilities, plain ``<cpu>``) or host-model CPU (domcapabilities); None where the document has none.
    emulator, machine, virttype : str or None
        What was asked (domcapabilities and qemucaps).
    models : tuple of HypervisorModel
        Models that the emulator lists.
    properties : mapping of str to bool or None
        Names that QEMU's CPU expansion knows, in libvirt's spelling, and whether each may be migrated (qemucaps).
    facts : mapping
        Columns of ``fleet.hosts`` that this document gives, and ``deprecated_machines`` (capabilities); what the
        emulator takes of guests (domcapabilities): ``vcpu_max``, ``loaders`` (paths of firmware), ``tpm_backends``,
        ``hyperv`` (enlightenments), as far as it says.
    """

    kind: Kind
    source: str
    sha256: str
    arch: str | None
    cpu: Cpu | None = None
    emulator: str | None = None
    machine: str | None = None
    virttype: str | None = None
    models: tuple[HypervisorModel, ...] = ()
    properties: Mapping[str, bool | None] | None = None
    facts: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


def read_documents(data: bytes, *, source: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> list[Document]:
    """Every document of one file, as ``virsh cpu-baseline`` takes them: one, or several one after the other.

    Parameters
    ----------
    data : bytes
        The file's content.
    source : str
        Its name, for messages and provenance.
    max_bytes : int
        Larger files are refused [bytes].

    Returns
    -------
    list of Document
        In the order of the file.

    Raises
    ------
    DocumentError
        Anything in the file cannot be used: no half-read file counts as read.
    """
    if len(data) > max_bytes:
        raise DocumentError(f"larger than {max_bytes} bytes; no host document is", source=source)
    if not data.strip():
        raise DocumentError("the file is empty; fetch the document again", source=source)
    sha256 = hashlib.sha256(data).hexdigest()
    documents = [d for root in _roots(data, source=source) for d in _documents(root, source=source, sha256=sha256)]
    if not documents:  # else its host would be lost
        raise DocumentError("holds no document, or one that says nothing", source=source)
    return documents


def _roots(data: bytes, *, source: str) -> list[etree._Element]:
    try:
        return [parse_xml(data, source=source)]
    except DocumentError as e:
        cause = e.__cause__
        if not (isinstance(cause, etree.XMLSyntaxError) and cause.code == etree.ErrorTypes.ERR_DOCUMENT_END):
            raise
    # Several documents one after the other: wrapped on the same line, so that line numbers stay true.
    body = data
    if data.startswith(b"<?xml"):
        declaration, _, body = data.partition(b"?>")
        body = b"\n" * declaration.count(b"\n") + body
    return list(parse_xml(b"<container>" + body + b"</container>", source=source))


def _documents(root: etree._Element, *, source: str, sha256: str) -> list[Document]:
    match root.tag:
        case "capabilities":
            return [_capabilities(root, source, sha256)]
        case "domainCapabilities":
            return [_domcapabilities(root, source, sha256)]
        case "qemuCaps":
            return _qemucaps(root, source, sha256)
        case "cpu":
            return [_plain_cpu(root, source, sha256)]
        case "domain":
            hint = "a domain is no host: use vmcompat.compare or a migration plan"
        case _:
            hint = "expected the output of virsh capabilities or virsh domcapabilities, or a <cpu>"
    raise DocumentError(f"root element is <{root.tag!s}>; {hint}", source=source, line=root.sourceline)


def _plain_cpu(root: etree._Element, source: str, sha256: str) -> Document:
    cpu = parse_cpu(root, source=source, as_host=root.find("arch") is not None)
    return Document(kind="cpu", source=source, sha256=sha256, arch=cpu.arch, cpu=cpu)


def _capabilities(root: etree._Element, source: str, sha256: str) -> Document:
    host = root.find("host")
    if host is None:
        raise DocumentError("<capabilities> without <host>", source=source, line=root.sourceline)
    element = host.find("cpu")
    cpu = None if element is None else parse_cpu(element, source=source, as_host=True)
    return Document(
        kind="capabilities",
        source=source,
        sha256=sha256,
        arch=cpu.arch if cpu else None,
        cpu=cpu,
        facts=MappingProxyType(_host_facts(root, host, cpu)),
    )


def _host_facts(root: etree._Element, host: etree._Element, cpu: Cpu | None) -> dict[str, object]:
    facts: dict[str, object] = {
        "uuid": (host.findtext("uuid") or "").strip().lower() or None,
        "transports": _texts(host, "migration_features/uri_transports/uri_transport"),
        "security_models": _texts(host, "secmodel/model"),
        "virttypes": tuple(dict.fromkeys(d.get("type", "") for d in root.iterfind("guest/arch/domain"))),
        "emulators": tuple(
            dict.fromkeys((*_texts(root, "guest/arch/emulator"), *_texts(root, "guest/arch/domain/emulator")))
        ),
        "machines": tuple(
            dict.fromkeys(
                machine
                for arch in root.iterfind("guest/arch")
                if cpu is None or arch.get("name") == cpu.arch
                for machine in (*_texts(arch, "machine"), *_texts(arch, "domain/machine"))
            )
        ),
        "deprecated_machines": tuple(
            dict.fromkeys(
                machine
                for arch in root.iterfind("guest/arch")
                if cpu is None or arch.get("name") == cpu.arch
                for machine in (
                    *_texts(arch, "machine[@deprecated='yes']"),
                    *_texts(arch, "domain/machine[@deprecated='yes']"),
                )
            )
        ),
    }
    cells = host.findall("topology/cells/cell")
    if cells:
        memory = [size for c in cells for m in c.findall("memory")[:1] if (size := kib(m, m.text)) is not None]
        facts["numa_cells"] = len(cells)
        facts["memory"] = sum(memory) if len(memory) == len(cells) else None
        facts["node_ids"] = _ids(host, "topology/cells/cell")
        facts["cpu_ids"] = _ids(host, "topology/cells/cell/cpus/cpu")
    facts |= _cpu_counts(host, cpu)
    if cpu is not None:
        facts["microcode"] = cpu.microcode
        if cpu.signature:
            facts["family"], facts["model_number"], facts["stepping"] = cpu.signature
        facts["page_sizes"] = cpu.page_sizes
        if cpu.tsc:
            facts["tsc_frequency"], facts["tsc_scaling"] = cpu.tsc
        if cpu.maxphysaddr:
            facts["maxphysaddr"] = cpu.maxphysaddr.bits
    return {n: v for n, v in facts.items() if v is not None and not (isinstance(v, int) and v > _MOST)}


def _cpu_counts(host: etree._Element, cpu: Cpu | None) -> dict[str, object]:
    """Totals of the host; the cells are asked first, since <topology> of the CPU counts sockets per NUMA node."""
    cpus = [c for c in host.iterfind("topology/cells/cell/cpus/cpu") if c.get("socket_id") is not None]
    if cpus:
        die = [(c.get("socket_id"), c.get("die_id", "0")) for c in cpus]
        core = {(*d, c.get("cluster_id", "0"), c.get("core_id")) for d, c in zip(die, cpus, strict=True)}
        return {
            "sockets": len({s for s, _ in die}),
            "dies": len(set(die)),
            "cores": len(core),
            "threads": len(cpus),
        }
    if cpu is not None and cpu.topology:
        sockets, dies, cores, threads = cpu.topology
        return {
            "sockets": sockets,
            "dies": sockets * dies,
            "cores": sockets * dies * cores,
            "threads": sockets * dies * cores * threads,
        }
    return {}


def _domcapabilities(root: etree._Element, source: str, sha256: str) -> Document:
    cpu: Cpu | None = None
    for mode in root.iterfind("cpu/mode"):
        if mode.get("name") == "host-model" and mode.get("supported") == "yes":
            # libvirt turns the mode into a plain <cpu>, and drops its attributes, before it parses it
            cpu = parse_cpu(mode, source=source, as_host=False, attributes={})
    blockers = {
        b.get("model"): tuple(f.get("name", "") for f in b.iterfind("feature"))
        for b in root.iterfind("cpu/mode/blockers")
    }
    models = []
    for m in root.iterfind("cpu/mode/model"):
        if m.get("usable") is None:
            continue
        usable = {"yes": True, "no": False}.get(m.get("usable", ""))
        known: tuple[str, ...] | None = () if usable else blockers.get(m.text)
        models.append(HypervisorModel(m.text or "", usable, known, m.get("deprecated") == "yes", m.get("canonical")))
    return Document(
        kind="domcapabilities",
        source=source,
        sha256=sha256,
        arch=(root.findtext("arch") or "").strip() or None,
        cpu=cpu,
        emulator=root.findtext("path"),
        machine=root.findtext("machine"),
        virttype=root.findtext("domain"),
        models=tuple(models),
        facts=MappingProxyType(_taken_of_guests(root)),
    )


def _taken_of_guests(root: etree._Element) -> dict[str, object]:
    facts: dict[str, object] = {}
    vcpu, loader, tpm = root.find("vcpu"), root.find("os/loader"), root.find("devices/tpm")
    hyperv = root.find("features/hyperv")
    if vcpu is not None and (most := whole(vcpu.get("max"))) is not None:
        facts["vcpu_max"] = most
    if loader is not None:
        facts["loaders"] = _texts(loader, "value")
    if tpm is not None:
        facts["tpm_backends"] = _texts(tpm, "enum[@name='backendModel']/value")
    if hyperv is not None:
        facts["hyperv"] = _texts(hyperv, "enum[@name='features']/value") if hyperv.get("supported") == "yes" else ()
    return facts


# QEMU's spelling -> libvirt's, where they differ; everything else is spelled alike.
_FROM_QEMU: Final = {
    "cmp-legacy": "cmp_legacy", "ds-cpl": "ds_cpl", "fxsr-opt": "fxsr_opt", "kvm-pv-eoi": "kvm_pv_eoi",
    "kvm-pv-unhalt": "kvm_pv_unhalt", "lahf-lm": "lahf_lm", "nodeid-msr": "nodeid_msr", "pclmulqdq": "pclmuldq",
    "perfctr-core": "perfctr_core", "perfctr-nb": "perfctr_nb", "tsc-adjust": "tsc_adjust",
}  # fmt: skip


def _qemucaps(root: etree._Element, source: str, sha256: str) -> list[Document]:
    """Libvirt's cache of what it asked of a QEMU, one document for each of KVM and emulation that it probed."""
    return [_probed(root, expansion, source, sha256) for expansion in root.iterfind("hostCPU")]


def _probed(root: etree._Element, expansion: etree._Element, source: str, sha256: str) -> Document:
    kind = expansion.get("type", "")
    knows = expansion.get("migratability") == "yes"
    return Document(
        kind="qemucaps",
        source=source,
        sha256=sha256,
        arch=(root.findtext("arch") or "").strip() or None,
        emulator=root.findtext("emulator"),
        virttype={"tcg": "qemu"}.get(kind, kind),
        models=tuple(
            HypervisorModel(
                c.get("name", ""),
                {"yes": True, "no": False}.get(c.get("usable", "")),
                tuple(_from_qemu(b) for b in c.iterfind("blocker")),
                c.get("deprecated") == "yes",
            )
            for c in root.iterfind("cpu")
            if c.get("type") == kind
        ),
        properties={
            _from_qemu(p): (p.get("migratable") != "no") if knows else None for p in expansion.iterfind("property")
        },
    )


def _from_qemu(element: etree._Element) -> str:
    name = element.get("name", "")
    return _FROM_QEMU.get(name, name)


def _texts(element: etree._Element, path: str) -> tuple[str, ...]:
    return tuple(t for t in ((e.text or "").strip() for e in element.iterfind(path)) if t)


def _ids(element: etree._Element, path: str) -> tuple[int, ...]:
    return tuple(i for i in (whole(e.get("id")) for e in element.iterfind(path)) if i is not None)
