"""Two hosts of somebody's own, the throwaway guests that are tried on them, and the way back to how they were."""

from __future__ import annotations

import re
import secrets
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from lxml import etree

from vmcompat.calls import ConnectionCalls, DomainCalls
from vmcompat.connect import Host, LiveHost, constant, describe, open_host, shown
from vmcompat.errors import ConnectError
from vmcompat.fleet.records import Document, read_documents
from vmcompat.migration.domain import Domain, read_domain
from vmcompat.migration.migrate import MigrationPlan, plan_migration
from vmcompat.migration.observe import STATES
from vmcompat.migration.preflight import Finding
from vmcompat.migration.runbook import virsh

T = TypeVar("T")

PREFIX: Final = "vmcompat-proof-"
USAGE: Final = 'make rig-test HOSTS="qemu+ssh://h1/system qemu+ssh://h2/system"'
_REMOVAL_SECONDS: Final = 60.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class UnfitError(Exception):
    """The two hosts are none to try guests on; nothing was touched."""


@dataclass(kw_only=True)
class Place:
    """One of the two hosts.

    Attributes
    ----------
    label : str
        What it is called where its name is nobody's business.
    uri, peer_uri, migrate_uri
        Of its libvirt for this machine, of its libvirt for the other host, and where the other's QEMU sends guests;
        the latter two as for :func:`vmcompat.plan_migration`.
    live : LiveHost
        What it says about itself.
    facts : Document
        Its capabilities.
    offers : mapping of str to Document
        Its domain capabilities by virt type.
    """

    label: str
    uri: str
    peer_uri: str | None
    migrate_uri: str
    live: LiveHost
    facts: Document
    offers: dict[str, Document]
    _host: Host | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.live.name

    def ask(self, what: str, call: Callable[[ConnectionCalls], T]) -> T:
        return self.host().ask(what, call)

    def host(self) -> Host:
        """A connection; a new one where the old has ended: the ssh below it hears Ctrl-C too."""
        if self._host is None or not self._host.alive:
            self._host = open_host(self.uri, write=True)
        return self._host

    def modes(self, virttype: str) -> dict[str, bool]:
        """Whether it supports each mode of ``<cpu>``."""
        documents = (etree.fromstring(text.encode()) for text in self.live.domcapabilities)
        document = next(root for root in documents if root.findtext("domain") == virttype)
        return {mode.get("name", ""): mode.get("supported") == "yes" for mode in document.iterfind("cpu/mode")}

    def listed(self, fact: str) -> tuple[object, ...]:
        """What its capabilities list under a column of ``fleet.hosts``; empty where they list nothing."""
        found = self.facts.facts.get(fact)
        return found if isinstance(found, tuple) else ()


class Pair:
    """The two hosts, what guests both of them can run, and the guests of this run.

    Attributes
    ----------
    places : tuple of Place
    virttype, arch, machine, emulator : str
        Of the guests, as the hosts' own documents have them.
    names : list of str
        Of every guest so far.
    """

    def __init__(self, places: tuple[Place, Place]) -> None:
        self.places = places
        self.virttype, self.arch, self.machine, self.emulator = _in_common(*places)
        self.names: list[str] = []
        self._guests: dict[str, str] = {}  # UUID by name, of those that are not known to be gone

    @property
    def roads(self) -> tuple[Road, Road]:
        first, second = self.places
        return Road(first, second), Road(second, first)

    @property
    def proved_on(self) -> str:
        return {"kvm": "KVM", "qemu": "TCG"}[self.virttype]

    def announcement(self) -> Iterator[str]:
        """What will be done, in lines."""
        for place in self.places:
            yield f"{place.label} is {place.name}, at {place.live.uri}"
        yield (
            f"What will be done: guests named {PREFIX}xxxxxx are defined one at a time, started, migrated between the "
            "two and removed from both. Each has 32 MiB, one CPU and its firmware, no disk and no network; "
            f"{self.proved_on}, {self.machine}, {self.emulator}. There are about ten migrations in about a minute, and "
            "one guest keeps a CPU busy for some seconds."
        )
        yield "Nothing else is changed on either host. Ctrl-C ends it early, and removes the guest too."

    # ---- guests

    def define(self, on: Place, cpu: str, *, restless: bool = False) -> str:
        """A guest of nothing but firmware, shut off; a restless one reboots for ever, and rewrites its memory so."""
        name, identity = f"{PREFIX}{secrets.token_hex(3)}", str(uuid.uuid4())
        firmware = "<bios rebootTimeout='0'/>" if restless else ""
        xml = f"""<domain type='{self.virttype}'><name>{name}</name><uuid>{identity}</uuid>
<memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='{self.arch}' machine='{self.machine}'>hvm</type>{firmware}</os><features><acpi/></features>
{cpu}
<devices><emulator>{self.emulator}</emulator><controller type='usb' model='none'/><memballoon model='none'/></devices>
</domain>"""
        self.names.append(name)
        self._guests[name] = identity  # before it exists: an interrupt finds it
        on.ask(f"to define {name}", lambda c: c.defineXML(xml))
        return name

    def start(self, on: Place, cpu: str, *, restless: bool = False) -> str:
        name = self.define(on, cpu, restless=restless)
        on.ask(f"to start {name}", lambda c: c.lookupByName(name).create())
        return name

    def live(self, name: str, on: Place) -> Domain:
        return read_domain(on.ask(f"the definition of {name}", lambda c: c.lookupByName(name).XMLDesc()), source=name)

    def where(self, name: str) -> dict[str, str]:
        """The state of a guest on each host that knows it, by the host's label."""
        found = ((place.label, self._look(place, name, lambda d: STATES[d.state()[0]])) for place in self.places)
        return {label: state for label, state in found if state}

    def remove(self) -> None:
        """Removes the guests that there are, and looks until both hosts have said twice that they are gone.

        Raises
        ------
        UnfitError
            One may be left; with the lines that remove it.
        """
        deadline = time.monotonic() + _REMOVAL_SECONDS
        with _undisturbed():
            for name in list(self._guests):
                gone, trouble = 0, "it comes again"
                while gone < 2:
                    try:
                        # from both, also where the first had it: it may be on its way
                        had = [self._take_away(name, place) for place in self.places]
                        gone = 0 if any(had) else gone + 1
                    except ConnectError as e:
                        gone, trouble = 0, str(e)
                        time.sleep(0.5)
                    if gone < 2 and time.monotonic() > deadline:
                        lines = [line for place in self.places for line in _removal(place, name, active=True)]
                        raise UnfitError("\n".join([f"{name} may be left ({trouble}). What removes it:", *lines]))
                del self._guests[name]

    def _take_away(self, name: str, place: Place) -> bool:
        """Whether the host had it."""
        acts: tuple[Callable[[DomainCalls], int], ...] = (
            lambda d: d.abortJob(),
            lambda d: d.destroy(),
            lambda d: d.undefineFlags(),
        )
        if self._look(place, name, lambda d: d.name()) is None:
            return False
        for act in acts:
            try:
                self._look(place, name, act)
            except ConnectError:  # there was no job, or it was off: the next look tells
                continue
        return True

    def _look(self, place: Place, name: str, call: Callable[[DomainCalls], T]) -> T | None:
        """The answer of a guest of this run, found by its UUID; None where the host does not have it."""
        try:
            return place.ask(f"{name}", lambda c: call(c.lookupByUUIDString(self._guests[name])))
        except ConnectError as e:
            if e.code == constant("VIR_ERR_NO_DOMAIN"):
                return None
            raise

    # ---- what others may read

    def anonymous(self, text: str) -> str:
        """A text without the names of the hosts and of their guests, for a report that anybody can read."""
        for place in self.places:
            addresses = [uri for uri in (place.uri, place.live.uri, place.peer_uri, place.migrate_uri) if uri]
            hosts = [name for uri in addresses if (name := urlsplit(uri).hostname)]
            for name in sorted({*addresses, *hosts, place.name, place.name.partition(".")[0]}, key=len, reverse=True):
                text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", place.label, text)
        for name in self.names:
            text = text.replace(name, "the guest")
        return text


class Road(NamedTuple):
    """From one host to the other."""

    here: Place
    there: Place

    def __str__(self) -> str:
        return f"{self.here.label} to {self.there.label}"

    def plan(self, name: str, **options: Any) -> MigrationPlan:
        where: dict[str, Any] = {"peer_uri": self.there.peer_uri, "migrate_uri": self.there.migrate_uri}
        return plan_migration(name, self.here.uri, self.there.uri, **where, **options)

    def libvirt_moves(self, name: str) -> None:
        """Libvirt's own migration, asked for without a plan; ConnectError where it refuses."""
        parameters = {constant("VIR_MIGRATE_PARAM_URI"): self.there.migrate_uri} if self.there.migrate_uri else {}
        flags = constant("VIR_MIGRATE_LIVE")
        self.here.host().begin_with(
            self.there.host(), f"to migrate {name}", lambda c, d: c.lookupByName(name).migrate3(d, parameters, flags)
        ).answer(_REMOVAL_SECONDS)


def finding(plan: MigrationPlan, check: str) -> Finding:
    return next(f for f in plan.order.findings if f.id == check)


def look(given: str) -> Pair:
    """The two hosts that ``HOSTS`` names; touches nothing.

    Raises
    ------
    UnfitError
        They are not two, or no guest can be tried on both, or one is left from an earlier run; says what to do.
    ConnectError, DocumentError
        One does not answer, or with what cannot be read.
    """
    entries = [entry.split(",") for entry in given.split()]
    if len(entries) != 2 or any(len(entry) > 3 for entry in entries):
        raise UnfitError(f"name two hosts: {USAGE}; each as URI or URI,PEER_URI,MIGRATE_URI")
    first, second = (_place(f"host {number}", *entry) for number, entry in enumerate(entries, 1))
    if first.facts.facts.get("uuid") == second.facts.facts.get("uuid"):
        raise UnfitError(
            f"{first.live.uri} and {second.live.uri} are the same host, {first.name}: both have the host UUID "
            f"{first.facts.facts.get('uuid')}"
        )
    if left := [line for place in (first, second) for line in _left(place)]:
        raise UnfitError(
            f"guests named {PREFIX}... are there, left from an earlier run or of one that is under way. If nobody uses "
            "them:\n" + "\n".join(left)
        )
    return Pair((first, second))


def _place(label: str, uri: str, peer_uri: str = "", migrate_uri: str = "") -> Place:
    with open_host(uri, write=True) as host:
        if (kind := host.ask("what runs its guests", lambda c: c.getType())) != "QEMU":
            raise UnfitError(f"{host.name} ({host.uri}) has neither KVM nor QEMU: its guests are run by {kind}")
        try:
            live = describe(host, hypervisor=True)
        except ConnectError as e:
            if e.code != constant("VIR_ERR_INVALID_ARG"):
                raise
            raise UnfitError(f"{host.name} ({host.uri}) has neither KVM nor QEMU: {e}") from e
    (facts,) = read_documents(live.capabilities.encode(), source=live.uri)
    offers = [d for text in live.domcapabilities for d in read_documents(text.encode(), source=live.uri)]
    return Place(
        label=label, uri=uri, peer_uri=peer_uri or None, migrate_uri=migrate_uri, live=live, facts=facts,
        offers={d.virttype: d for d in offers if d.virttype},
    )  # fmt: skip


def _in_common(first: Place, second: Place) -> tuple[str, str, str, str]:
    """Virt type, architecture, machine type and emulator of guests that both hosts run."""
    both = (first, second)
    virttype = next((v for v in ("kvm", "qemu") if all(v in place.offers for place in both)), None)
    if virttype is None:
        each = ", ".join(f"{place.name} has {' and '.join(place.offers)}" for place in both)
        raise UnfitError(f"one host has KVM only and the other QEMU's emulation only: {each}")
    defaults = [place.offers[virttype] for place in both]

    def shared(what: str, known: Callable[[Place, object], bool]) -> str:
        mine = [getattr(default, what) for default in defaults]
        found = next((each for each in mine if all(known(place, each) for place in both)), None)
        if found is None:
            raise UnfitError(f"{first.name} and {second.name} have no {what} in common: {' and '.join(map(str, mine))}")
        return str(found)

    return (
        virttype,
        shared("arch", lambda place, arch: place.offers[virttype].arch == arch),
        shared("machine", lambda place, machine: machine in place.listed("machines")),
        shared("emulator", lambda place, emulator: emulator in place.listed("emulators")),
    )


def _left(place: Place) -> Iterator[str]:
    """The lines that remove guests of an earlier run."""
    with open_host(place.uri) as host:
        domains = host.ask("its domains", lambda c: [(d.name(), bool(d.isActive())) for d in c.listAllDomains()])
    for name, active in domains:
        if name.startswith(PREFIX):
            yield from _removal(place, name, active=active)


def _removal(place: Place, name: str, *, active: bool) -> Iterator[str]:
    if active:
        yield virsh(shown(place.uri), "destroy", "--domain", name)
    yield virsh(shown(place.uri), "undefine", "--domain", name)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No second Ctrl-C interrupts the removal."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
