"""One look at both ends of a migration, with the least rights that answer; what was seen is a value."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from lxml import etree

from vmcompat.errors import ConnectError, DocumentError, MigrationError
from vmcompat.fleet.cpu import Cpu, parse_xml
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import Reading, read_cpu
from vmcompat.fleet.records import Document, read_documents
from vmcompat.fleet.sources import HostRecord
from vmcompat.migration.apply import CpuAnswer, ask_cpu, stored_xml
from vmcompat.migration.domain import Domain, cpu_text, read_domain, typed, with_cpu
from vmcompat.migration.inventory import Inventory, Ties, take_inventory, ties
from vmcompat.migration.transfer import PLAIN, Transfer

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline
    from vmcompat.calls import ConnectionCalls
    from vmcompat.connect import Host

STATES: Final = ("no state", "running", "blocked", "paused", "shutting down", "shut off", "crashed", "suspended")
_JOBS_SECONDS: Final = 10.0
_READ_ONLY: Final = "not asked: write=False, and libvirt answers this on no read-only connection"
_NOT_NEEDED: Final = "not asked: nothing in this plan depends on what the source can give"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of a migration, as it was seen.

    Attributes
    ----------
    name, uri, libvirt, qemu
        As in :class:`vmcompat.connect.LiveHost`.
    capabilities : Document
        The host's own.
    hypervisor : Document or None
        Domain capabilities for the domain's emulator and machine type; None where they are not known.
    cpu : Reading
        What the hypervisor can give a guest, over the features of the newest CPU map.
    refused : str
        Why the questions that need write access have no answer; empty where they have.
    asked : bool
        The host was asked itself, about this domain's emulator and machine type. False where all that is known are
        documents that somebody kept.
    answers : mapping of str to CpuAnswer
        By question: ``"moved"``, the CPU with which the guest arrives; ``"stored"``, the one of its next start.
    taken : tuple of (str, str, bool)
        Name, UUID and whether it runs, of domains here that have the domain's name or UUID.
    autostart : bool
        One of those is started when the host boots.
    jobs : tuple of str or None
        Names of the other domains that are on their way from or to here; None where that was not asked or not told.
    refusal : str or None
        libvirt's words, asked for the QEMU command line of the definition with which the guest arrives; empty where
        it made one, None where it was not asked.
    inventory : Inventory or None
        Networks, storage and so on that the host has; None where it was not asked for them.
    """

    name: str
    uri: str
    libvirt: str
    qemu: str | None
    capabilities: Document = field(repr=False)
    hypervisor: Document | None = field(repr=False, default=None)
    cpu: Reading = field(repr=False, default=Reading(status="no_view", reason="domain capabilities are not known"))
    refused: str = ""
    asked: bool = True
    answers: Mapping[str, CpuAnswer] = field(default_factory=dict)
    taken: tuple[tuple[str, str, bool], ...] = ()
    autostart: bool = False
    jobs: tuple[str, ...] | None = None
    refusal: str | None = None
    inventory: Inventory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All that a migration plan is built from.

    Attributes
    ----------
    domain : str
        Name.
    state : str
        One of :data:`STATES`.
    job : bool
        Another job (a migration, a save, a backup) holds the domain.
    ties : Ties
        Its snapshots and block jobs, as far as they were asked for.
    live : Domain or None
        As it runs; None where it does not.
    stored : Domain or None
        As it will start next, before the plan; None for a transient domain.
    new : Domain or None
        As it will start next, after the plan.
    live_cpu : Reading
        The CPU that the guest arrives with: the live one, or after a power cycle the stored one.
    baseline : str
        Name of the baseline's model; empty without a baseline.
    host_view : bool
        The baseline is of the host view.
    restart : bool
        The plan powers the guest off and on before it moves.
    peer_uri : str or None
        Where the source's libvirtd finds the target's, without a password; None where that is not known.
    migrate_uri : str
        Where the source's QEMU sends the guest; empty where the target's libvirt chooses.
    transfer : Transfer
        How the guest travels.
    source, target : End
    """

    domain: str
    state: str
    job: bool
    ties: Ties = field(default_factory=Ties)
    live: Domain | None
    stored: Domain | None
    new: Domain | None
    live_cpu: Reading
    baseline: str = ""
    host_view: bool = False
    restart: bool = False
    peer_uri: str | None = None
    migrate_uri: str = ""
    transfer: Transfer = PLAIN
    source: End
    target: End

    @property
    def typed(self) -> str:
        """The domain, as one word for a shell."""
        known = self.live or self.stored
        # the XML may be that of another guest of its kind
        return shlex.quote(typed(self.domain, known.uuid if known and known.name == self.domain else ""))

    @property
    def moved(self) -> Domain | None:
        """The definition with which the guest arrives at the target."""
        return self.new if self.restart or self.transfer.offline else self.live


def reading(cpu: Cpu | None, *, host: str, libvirt: str) -> Reading:
    """A CPU over the features of the newest map, expanded with the map of the libvirt that wrote it."""
    if cpu is None:
        return Reading(status="no_model", reason="the definition names no CPU")
    document = Document(
        kind="cpu", source=host, sha256=hashlib.sha256(cpu.xml().encode()).hexdigest(), arch=None, cpu=cpu
    )
    return _reading(document, host=host, libvirt=libvirt)


def _reading(document: Document, *, host: str, libvirt: str) -> Reading:
    record = HostRecord(name=host, documents=(document,), columns={}, libvirt=libvirt)
    virttype = document.virttype or "kvm"
    return read_cpu(record, view="hypervisor", virttype=virttype, cpu_map=CpuMap.load(), strict=False)


def observe(
    domain: str,
    source: str,
    target: str,
    *,
    baseline: Baseline | None = None,
    restart: bool = False,
    peer_uri: str | None = None,
    migrate_uri: str = "",
    transfer: Transfer = PLAIN,
    write: bool = True,
) -> Observation:
    """Looks at a domain and both hosts; changes nothing.

    Parameters
    ----------
    domain : str
        Name.
    source, target : str
        URIs.
    baseline : Baseline, optional
        The CPU that the stored definition is to get.
    restart : bool
        The guest is to be powered off and on before it moves.
    peer_uri, migrate_uri : str
        Kept with what was seen.
    transfer : Transfer
        Kept too.
    write : bool
        Open a second, read-write connection where libvirt answers a question on no other: domain capabilities and
        ``compareHypervisorCPU``.

    Raises
    ------
    ConnectError
        A host cannot be reached, or the source has no such domain.
    MigrationError
        The domain has no stored definition, and the plan needs one.
    """
    from vmcompat.connect import open_host, shown

    with ExitStack() as stack:
        here, there = (stack.enter_context(open_host(uri)) for uri in (source, target))
        state, job, live, stored, kept = _look(here, domain)
        if stored is None and (baseline is not None or restart):
            raise MigrationError(
                f"{domain} is transient on {here.name}: it has no stored definition to start from or to write into"
            )
        new = stored
        if stored is not None and baseline is not None:
            new = read_domain(with_cpu(stored.xml, baseline.guest_xml), source=stored.name)
        moved = new if restart or transfer.offline else live
        some = live or stored
        if some is None:
            raise MigrationError(f"{domain} on {here.name} neither runs nor has a definition")
        questions = {"moved": moved, "stored": new}
        asks_source = baseline is not None or restart or _depends_on_host(live, new)
        silent = "" if write else _READ_ONLY
        ends = (
            _end(here, source, some, questions, silent=silent or ("" if asks_source else _NOT_NEEDED), arrives=False),
            _end(there, target, some, questions, silent=silent, arrives=True),
        )
        return Observation(
            domain=domain,
            state=state,
            job=job,
            ties=kept,
            live=live,
            stored=stored,
            new=new,
            live_cpu=reading(moved.cpu if moved else None, host=here.name, libvirt=ends[0].libvirt),
            baseline=baseline.model if baseline else "",
            host_view=baseline is not None and baseline.view == "host",
            restart=restart,
            peer_uri=peer_uri and shown(peer_uri),
            migrate_uri=shown(migrate_uri),
            transfer=transfer,
            source=ends[0],
            target=ends[1],
        )


def _depends_on_host(*domains: Domain | None) -> bool:
    """Whether a CPU is whatever the host has, so that the source must say what that is."""
    return any(d is not None and d.cpu is not None and d.cpu.mode != "custom" for d in domains)


def _look(host: Host, name: str) -> tuple[str, bool, Domain | None, Domain | None, Ties]:
    from vmcompat.connect import constant

    no_job = constant("VIR_DOMAIN_JOB_NONE")
    found = host.ask(f"the domain {name}", lambda c: c.lookupByName(name))
    where = f"{host.uri} {name}"
    number = host.ask(f"the state of {name}", lambda c: found.state()[0])
    active, persistent = host.ask(f"the state of {name}", lambda c: (found.isActive(), found.isPersistent()))
    job = bool(active) and host.ask(f"the jobs of {name}", lambda c: found.jobStats()["type"]) != no_job
    live = host.ask(f"the live definition of {name}", lambda c: found.XMLDesc(0)) if active else None
    stored = stored_xml(host, name) if persistent else None
    runs = None if live is None else read_domain(live, source=where)
    return (
        STATES[number] if number < len(STATES) else f"state {number}",
        job,
        runs,
        None if stored is None else read_domain(stored, source=where),
        ties(host, found, runs),
    )


def _end(
    host: Host, uri: str, domain: Domain, questions: Mapping[str, Domain | None], *, silent: str, arrives: bool
) -> End:
    """One end, where the domain may arrive; ``silent`` says why what takes write access is not asked, if it is not."""
    from vmcompat.connect import describe, open_host

    about = describe(host)
    (capabilities,) = read_documents(about.capabilities.encode(), source=host.uri)
    capabilities = replace(
        capabilities, facts={**capabilities.facts, "shares": shares_of(about.capabilities, source=host.uri)}
    )
    hypervisor, answers, refused, refusal = None, dict[str, CpuAnswer](), silent, None
    if not silent:
        try:
            with open_host(uri, write=True) as asked:
                hypervisor, refused = _domcapabilities(asked, domain)
                for question, answer_for in questions.items():
                    text = None if answer_for is None else cpu_text(answer_for.xml)
                    if answer_for is not None and text is not None:
                        answers[question] = ask_cpu(asked, text, answer_for)
                if arrives:
                    refusal = _dry_run(asked, questions["moved"])
        except ConnectError as e:
            refused = f"cannot tell without write access: {e}"
    return End(
        name=host.name,
        uri=host.uri,
        libvirt=about.libvirt,
        qemu=about.qemu,
        capabilities=capabilities,
        hypervisor=hypervisor,
        cpu=(
            _reading(hypervisor, host=host.name, libvirt=about.libvirt)
            if hypervisor
            else Reading(status="no_view", reason=refused)
        ),
        refused=refused,
        answers=answers,
        taken=_taken(host, domain),
        autostart=_autostart(host, domain),
        refusal=refusal,
        inventory=take_inventory(host, questions["moved"] or domain),
        jobs=_jobs(host, domain),
    )


def _domcapabilities(host: Host, domain: Domain) -> tuple[Document | None, str]:
    what = (domain.emulator, domain.arch, domain.machine, domain.virttype)
    try:
        text = host.ask(f"domain capabilities for {domain.machine}", lambda c: c.getDomainCapabilities(*what))
        (document,) = read_documents(text.encode(), source=host.uri)
    except (ConnectError, DocumentError) as e:
        return None, str(e)
    return replace(document, facts={**document.facts, "sgx": has_sgx(text, source=host.uri)}), ""


def has_sgx(domain_capabilities: str, *, source: str) -> bool | None:
    """Whether a host has memory for SGX enclaves; None where its libvirt does not tell."""
    sgx = parse_xml(domain_capabilities.encode(), source=source).find("features/sgx")
    return None if sgx is None else sgx.get("supported") == "yes"


def shares_of(capabilities: str, *, source: str) -> tuple[str, ...]:
    """What a host can set apart for a guest, by libvirt's elements for it: ``cachetune``, ``memorytune``."""
    root = parse_xml(capabilities.encode(), source=source)
    controls = (("cachetune", "host/cache/bank/control"), ("memorytune", "host/memory_bandwidth/node/control"))
    return tuple(kind for kind, path in controls if root.find(path) is not None)


def _taken(host: Host, domain: Domain) -> tuple[tuple[str, str, bool], ...]:
    from vmcompat.connect import constant

    taken = []
    for runs, flag in (
        (True, constant("VIR_CONNECT_LIST_DOMAINS_ACTIVE")),
        (False, constant("VIR_CONNECT_LIST_DOMAINS_INACTIVE")),
    ):
        listed = host.ask("its domains", lambda c, f=flag: [(d.name(), d.UUIDString()) for d in c.listAllDomains(f)])  # type: ignore[misc]
        taken += [(name, uuid, runs) for name, uuid in listed if name == domain.name or uuid == domain.uuid]
    return tuple(sorted(taken))


def _autostart(host: Host, domain: Domain) -> bool:
    """Whether the host starts a definition of that name or UUID when it boots."""
    from vmcompat.connect import constant

    def marked(connection: ConnectionCalls) -> bool:
        found = connection.listAllDomains(constant("VIR_CONNECT_LIST_DOMAINS_AUTOSTART"))
        return any(d.name() == domain.name or d.UUIDString() == domain.uuid for d in found)

    return host.ask("which domains it starts when it boots", marked)


def _dry_run(host: Host, domain: Domain | None) -> str | None:
    if domain is None:
        return None
    text = _without_what_opens(domain)
    try:
        host.ask(f"to make a QEMU command line of {domain.name}", lambda c: c.domainXMLToNative("qemu-argv", text, 0))
    except ConnectError as e:
        return str(e.__cause__ or e)
    return ""


# To make a command line libvirt opens a tap device, talks to a TPM and asks for security drivers: that is more than a
# look, and fails for reasons of its own.
_OPENS: Final = (*(f"devices/{each}" for each in ("interface", "hostdev", "tpm", "vsock", "filesystem")), "seclabel")


def _without_what_opens(domain: Domain) -> str:
    root = parse_xml(domain.xml.encode(), source=domain.name)
    for element in [e for path in _OPENS for e in root.findall(path)]:
        above = element.getparent()
        assert above is not None
        above.remove(element)
    return etree.tostring(root, encoding="unicode")


def _jobs(host: Host, domain: Domain) -> tuple[str, ...] | None:
    """Other domains on their way. Every one is asked, since libvirt has no list of jobs; for so long at most."""
    from vmcompat.connect import constant

    on_the_way = [constant(f"VIR_DOMAIN_JOB_OPERATION_MIGRATION_{way}") for way in ("OUT", "IN")]
    arriving = constant("VIR_ERR_OPERATION_UNSUPPORTED")  # "statistics are available only on the source host"
    gone = (constant("VIR_ERR_NO_DOMAIN"), constant("VIR_ERR_OPERATION_INVALID"))
    until, found = time.monotonic() + _JOBS_SECONDS, []
    active = constant("VIR_CONNECT_LIST_DOMAINS_ACTIVE")
    try:
        guests = host.ask("its guests", lambda c: [(d.name(), d.UUIDString(), d) for d in c.listAllDomains(active)])
        for name, uuid, guest in guests:
            left = until - time.monotonic()
            if left <= 0:
                return None
            try:
                stats = host.ask(f"the jobs of {name}", lambda c, d=guest: d.jobStats(), seconds=left)  # type: ignore[misc]
                moves = bool(stats["type"]) and stats.get("operation") in on_the_way
            except ConnectError as e:
                if e.code not in (arriving, *gone):
                    return None
                moves = e.code == arriving
            if moves and uuid != domain.uuid:
                found.append(name)
    except ConnectError:
        return None
    return tuple(sorted(found))
