"""Builds what a look at two hosts gives, from XML as libvirt prints it, cut down to what is asked."""

from dataclasses import replace
from typing import Any

import pandas as pd

import vmcompat as vc
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import Reading, read_cpu
from vmcompat.fleet.records import Document, read_documents
from vmcompat.fleet.sources import HostRecord
from vmcompat.migration.apply import CpuAnswer
from vmcompat.migration.domain import Domain, cpu_text, read_domain
from vmcompat.migration.observe import End, Observation, reading
from vmcompat.migration.preflight import Finding, preflight
from vmcompat.migration.transfer import PLAIN, Transfer

UUID = "6f7fe6a5-8a52-4b5c-9c0c-2f1d6f4c4b11"
WESTMERE = "<model fallback='forbid'>Westmere</model><vendor>Intel</vendor>"
SANDYBRIDGE = "<model fallback='forbid'>SandyBridge</model><vendor>Intel</vendor>"


def domain_xml(
    *, cpu: str = f"<cpu mode='custom' match='exact' check='full'>{WESTMERE}</cpu>", before: str = "", inside: str = "",
    virttype: str = "kvm", vcpu: str = "<vcpu placement='static'>2</vcpu>", name: str = "web1",
    machine: str = "pc-q35-7.2", memory: str = "<memory unit='KiB'>1048576</memory>", devices: str = "",
    emulator: str = "/usr/bin/qemu-system-x86_64",
) -> str:  # fmt: skip
    return f"""<domain type='{virttype}'>
  <name>{name}</name>
  <uuid>{UUID}</uuid>
  {before}
  {memory}
  {vcpu}
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
  </os>
  {cpu}
  {inside}
  <devices>
    <emulator>{emulator}</emulator>
    {devices}
  </devices>
</domain>
"""


def at(table: pd.DataFrame, key: Any) -> Any:
    """A row or a cell of a frame; what it holds no type checker can know."""
    return table.loc[key]


def domain(**details: str) -> Domain:
    return read_domain(domain_xml(**details), source="web1")


def capabilities(
    *, uuid: str, cpus: int = 4, nodes: int = 1, vendor: str = "Intel", signature: str = "", tsc: str = "",
    transports: tuple[str, ...] = ("tcp", "rdma"), topology: bool = True, machine: str = "pc-q35-7.2",
) -> Document:  # fmt: skip
    cells = "".join(
        f"<cell id='{node}'><memory unit='GiB'>16</memory><cpus>"
        + "".join(f"<cpu id='{n}' socket_id='{node}' core_id='{n}'/>" for n in range(node, cpus, nodes))
        + "</cpus></cell>"
        for node in range(nodes)
    )
    uris = "".join(f"<uri_transport>{t}</uri_transport>" for t in transports)
    text = f"""<capabilities><host>{f"<uuid>{uuid}</uuid>" if uuid else ""}
<cpu><arch>x86_64</arch><model>Westmere</model>{f"<vendor>{vendor}</vendor>" if vendor else ""}{signature}{tsc}</cpu>
<migration_features><live/><uri_transports>{uris}</uri_transports></migration_features>
{f"<topology><cells>{cells}</cells></topology>" if topology else ""}</host>
<guest><arch name='x86_64'><emulator>/usr/bin/qemu-system-x86_64</emulator><machine>{machine}</machine>
<domain type='kvm'/></arch></guest></capabilities>"""
    return read_documents(text.encode(), source="capabilities")[0]


def hypervisor(cpu: str, *, models: tuple[str, ...] = ("Westmere", "SandyBridge")) -> Document:
    listed = "".join(f"<model usable='yes'>{m}</model>" for m in models)
    text = f"""<domainCapabilities><path>/usr/bin/qemu-system-x86_64</path><domain>kvm</domain>
<machine>pc-q35-7.2</machine><arch>x86_64</arch><cpu><mode name='host-model' supported='yes'>{cpu}</mode>
<mode name='custom' supported='yes'>{listed}</mode></cpu></domainCapabilities>"""
    return read_documents(text.encode(), source="domcapabilities")[0]


def end(
    name: str, cpu: str | None, *, host: Document | None = None, libvirt: str = "9.0.0", qemu: str = "7.2.0",
    models: tuple[str, ...] = ("Westmere", "SandyBridge"), taken: tuple[tuple[str, str, bool], ...] = (),
    jobs: tuple[str, ...] | None = (), autostart: bool = False,
) -> End:  # fmt: skip
    """A host whose hypervisor gives that CPU; None where it was not asked."""
    document = None if cpu is None else hypervisor(cpu, models=models)
    not_asked = "" if cpu else "cannot tell without write access: denied"
    record = HostRecord(name=name, documents=(document,) if document else (), columns={}, libvirt=libvirt)
    read = read_cpu(record, view="hypervisor", virttype="kvm", cpu_map=CpuMap.load(), strict=False)
    return End(
        name=name,
        uri=f"qemu+ssh://{name}/system",
        libvirt=libvirt,
        qemu=qemu,
        capabilities=host or capabilities(uuid=f"00000000-0000-4000-8000-00000000000{name[-1]}"),
        hypervisor=document,
        cpu=read if document else Reading(status="no_view", reason=not_asked),
        refused=not_asked,
        taken=taken,
        autostart=autostart,
        jobs=jobs,
        refusal=None if document is None else "",
    )


def answered(at: End, **questions: Domain | None) -> End:
    """The end with what its libvirt would answer, by the comparison that the parity tests hold against libvirt."""
    answers = {}
    for question, asked in questions.items():
        text = cpu_text(asked.xml) if asked else None
        if text is None or at.hypervisor is None or at.hypervisor.cpu is None:
            continue
        try:
            compared = vc.compare(text, host=at.hypervisor.cpu, cpu_map="9.0.0")
        except vc.VmcompatError as e:
            answers[question] = CpuAnswer(host=at.name, result="incompatible", reason=f"Unknown CPU model {e}")
            continue
        answers[question] = CpuAnswer(
            host=at.name, result=compared.result, features=compared.features, reason=compared.reason
        )
    return replace(at, answers=answers)


def seen(
    live: Domain | None, *, stored: Domain | None = None, new: Domain | None = None, source: End | None = None,
    target: End | None = None, state: str = "running", job: bool = False, restart: bool = False, baseline: str = "",
    host_view: bool = False, peer_uri: str | None = "qemu+ssh://h2/system", migrate_uri: str = "",
    transfer: Transfer = PLAIN,
) -> Observation:  # fmt: skip
    """An observation; both hosts give Westmere unless told otherwise."""
    stored = stored or live
    new = new or stored
    moved = new if restart or transfer.offline else live
    here, there = source or end("h1", WESTMERE), target or end("h2", WESTMERE)
    return Observation(
        domain="web1",
        state=state,
        job=job,
        live=live,
        stored=stored,
        new=new,
        live_cpu=reading(moved.cpu if moved else None, host="h1", libvirt=here.libvirt),
        baseline=baseline,
        host_view=host_view,
        restart=restart,
        peer_uri=peer_uri,
        migrate_uri=migrate_uri,
        transfer=transfer,
        source=answered(here, moved=moved, stored=new),
        target=answered(there, moved=moved, stored=new),
    )


def found(observation: Observation, check: str) -> Finding | None:
    return next((f for f in preflight(observation) if f.id == check), None)
