"""The checks of a migration plan, asked of documents, once for all guests and hosts that they cannot tell apart."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from vmcompat.fleet.cpu import Cpu
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import Reading, read_cpu
from vmcompat.fleet.frames import Fleet
from vmcompat.fleet.records import Document
from vmcompat.fleet.sources import HostRecord
from vmcompat.migration import fit
from vmcompat.migration.domain import Domain
from vmcompat.migration.domains import DomainRecord
from vmcompat.migration.fit import Verdict
from vmcompat.migration.observe import End, Observation, reading
from vmcompat.migration.preflight import CHECKS

Check: TypeAlias = Callable[[Observation], Verdict | None]
Codes: TypeAlias = npt.NDArray[np.intp]

HERE, THERE, GUEST = "\0here\0", "\0there\0", "\0guest\0"
_NOTHING: Final = Document(kind="capabilities", source="", sha256="", arch=None)


class Answer(NamedTuple):
    """What a group of checks says of kinds of guests and hosts."""

    found: tuple[tuple[str, Verdict], ...] = ()
    missing: tuple[str, ...] = ()


class Group(NamedTuple):
    """Checks that look at the same parts of a guest (with ``start`` of its definition too), its host and target."""

    running: tuple[str, ...]
    off: tuple[str, ...]
    start: bool
    guest: Callable[[Domain], Hashable]
    here: Callable[[End], Hashable]
    there: Callable[[End], Hashable]


def _nothing(_: End) -> Hashable:
    return None


def _cpu_of(end: End) -> Hashable:
    cpu, own, facts = end.cpu, end.capabilities.cpu, end.capabilities.facts
    models = tuple(m.name for m in end.hypervisor.models) if end.hypervisor else ()
    passed_on = tuple(facts.get(f) for f in ("family", "model_number", "stepping", "microcode", "maxphysaddr"))
    vendors = (cpu.cpu and cpu.cpu.vendor, own and own.vendor)
    bits = (cpu.cpu and cpu.cpu.maxphysaddr, own and own.maxphysaddr)
    known = (cpu.status, cpu.reason, cpu.offered, cpu.reported)
    return (*known, vendors, bits, passed_on, models, end.libvirt, end.qemu, end.refused)


def _facts(*names: str) -> Callable[[End], Hashable]:
    return lambda end: tuple(end.capabilities.facts.get(name) for name in names)


def _machines_of(end: End) -> Hashable:
    asked = (end.hypervisor.arch, end.hypervisor.machine, end.hypervisor.emulator) if end.hypervisor else None
    return (end.capabilities.arch, asked, end.refused, *_facts("machines", "emulators", "virttypes")(end))  # type: ignore[misc]


def _attached(domain: Domain) -> Hashable:
    d = domain.devices
    transient = tuple(disk.target for disk in d.disks if disk.transient)
    memory = (d.memory, d.memory_slots, domain.vcpus, domain.machine)
    return (transient, d.filesystems, d.tpms, d.firmware.loader, d.labels, *memory)


def _takes(end: End) -> Hashable:
    asked = end.hypervisor
    given = None if asked is None else (asked.machine, *map(asked.facts.get, ("vcpu_max", "loaders", "tpm_backends")))
    return (given, *_facts("security_models", "node_ids")(end))  # type: ignore[misc]


GROUPS: Final = (
    Group(
        ("LIVE_CPU", "CPU_NAMES", "VENDOR", "PASSTHROUGH", "HOST_MODEL", "NESTED", "ADDRESS_BITS"),
        ("NEW_CPU", "CPU_NAMES", "VENDOR", "ADDRESS_BITS"), True,
        lambda d: (d.cpu, d.virttype), _cpu_of, _cpu_of,
    ),
    Group(
        ("MACHINE",), ("MACHINE",), False, lambda d: (d.arch, d.virttype, d.machine, d.emulator), _nothing, _machines_of
    ),
    Group(
        ("VCPU", "CPUTUNE", "NUMATUNE"), ("VCPU", "CPUTUNE", "NUMATUNE"), False, lambda d: (d.vcpus, d.pins, d.nodes),
        _nothing, _facts("threads", "cpu_ids", "node_ids"),
    ),
    Group(
        ("MEMORY",), ("MEMORY",), False, lambda d: (d.memory, d.page_sizes), _nothing, _facts("memory", "page_sizes")
    ),
    Group(
        ("TSC",), ("TSC",), False,
        lambda d: (d.tsc_frequency, bool(d.cpu and any(n == "invtsc" for n, _ in d.cpu.features))),
        _nothing, _facts("tsc_frequency", "tsc_scaling"),
    ),
    Group(
        ("HYPERV",), (), False, lambda d: (d.hyperv, bool(d.tsc_frequency)), _nothing,
        lambda end: end.hypervisor and end.hypervisor.facts.get("hyperv"),
    ),
    Group(
        ("HOSTDEV", "LAUNCH_SECURITY", "OWNER"), ("HOSTDEV", "OWNER"), False,
        lambda d: (d.hostdevs, d.launch_security, d.managers, d.namespaces), _nothing, _nothing,
    ),
    Group(
        ("TRANSIENT", "FILESYSTEM", "TPM", "FIRMWARE", "SECLABEL", "MEMORY_DEVICES", "TOPOLOGY"),
        ("TPM", "FIRMWARE", "SECLABEL", "MEMORY_DEVICES", "TOPOLOGY"), False,
        _attached, lambda end: end.qemu, _takes,
    ),
)  # fmt: skip


def _vendor_asked_for(seen: Observation) -> Verdict | None:
    """A guest that starts does not mind who made the CPU that it had before."""
    asked = seen.new is not None and seen.new.cpu is not None and seen.new.cpu.vendor is not None
    return fit.vendor(replace(seen, source=seen.target)) if asked else None


_OFF: Final[Mapping[str, Check]] = {
    **CHECKS,
    "NEW_CPU": fit.next_start,
    "CPU_NAMES": lambda seen: fit.cpu_names(replace(seen, restart=False, live=seen.new)),
    "VENDOR": _vendor_asked_for,
    "TSC": lambda seen: fit.tsc(seen) if seen.new and seen.new.tsc_frequency else None,
}
BIT: Final = {name: 1 << i for i, name in enumerate(CHECKS)}


class Sides:
    """The hosts as ends of a migration, from their documents, by the type of guests that are asked about."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._ends: dict[str, list[End]] = {}

    def ends(self, virttype: str) -> list[End]:
        """One for each host, in the order of the fleet; what it gives is for guests of that type."""
        if virttype not in self._ends:
            self._ends[virttype] = [_end(record, virttype) for record in self.fleet.records]
        return self._ends[virttype]


def _end(record: HostRecord, virttype: str) -> End:
    read = read_cpu(record, view="hypervisor", virttype=virttype, cpu_map=CpuMap.load(), strict=False)
    own = next((d for d in record.documents if d.kind == "capabilities"), None)
    asked = [d for d in record.documents if d.kind == "domcapabilities" and d.virttype == virttype]
    return End(
        name=record.name,
        uri="",
        libvirt=record.libvirt or "",
        qemu=record.qemu,
        capabilities=own or replace(_NOTHING, arch=record.arch),
        hypervisor=read.document or next(iter(asked), None),
        cpu=read,
        refused="" if own else "its capabilities are not among the documents",
        asked=False,
    )


_UNKNOWN_HOST: Final = End(
    name=HERE, uri="", libvirt="", qemu=None, capabilities=_NOTHING, asked=False,
    cpu=Reading(status="no_view", reason="which host it is on, or what that can give, is not known"),
)  # fmt: skip


def looked_up(group: Group, guests: Sequence[DomainRecord], own: Codes, sides: Sides) -> tuple[Codes, Sequence[Answer]]:
    """One group's answers, and which of them is that of each guest and host."""
    answers: dict[Answer, int] = {}
    codes = np.zeros((len(guests), len(sides.fleet)), dtype=np.intp)
    for virttype in dict.fromkeys(g.known.virttype if g.known else "kvm" for g in guests):
        ends = sides.ends(virttype)
        here, there = _kinds([group.here(e) for e in ends]), _kinds([group.there(e) for e in ends])
        rows: dict[Hashable, Codes] = {}
        for g, record in enumerate(guests):
            if (record.known.virttype if record.known else "kvm") != virttype:
                continue
            at = int(own[g])
            parts = (record.known, record.stored if group.start else None)
            told = tuple(None if d is None else group.guest(d) for d in parts)
            key = (told, record.runs, record.live is None, -1 if at < 0 else here.of[at])
            if key not in rows:
                source = _UNKNOWN_HOST if at < 0 else replace(ends[at], name=HERE)
                found = [_asked(group, record, source, replace(ends[i], name=THERE)) for i in there.first]
                rows[key] = np.array([answers.setdefault(a, len(answers)) for a in found], dtype=np.intp)[there.of]
            codes[g] = rows[key]
    return codes, tuple(answers)


class _Kinds(NamedTuple):
    of: Codes
    first: list[int]


def _kinds(keys: Sequence[Hashable]) -> _Kinds:
    """Numbers for equal keys, and where each is met first."""
    first: dict[Hashable, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    number = {key: n for n, key in enumerate(first)}
    return _Kinds(np.array([number[key] for key in keys], dtype=np.intp), list(first.values()))


@lru_cache(maxsize=4096)
def _read(cpu: Cpu | None, libvirt: str) -> Reading:
    return reading(cpu, host="", libvirt=libvirt)


def _asked(group: Group, record: DomainRecord, source: End, target: End) -> Answer:
    known = record.known
    if known is None:
        silent = Verdict("unknown", "its XML could not be read", "fetch its XML again: virsh dumpxml")
        return Answer((("LIVE_CPU", silent),)) if "LIVE_CPU" in group.running else Answer()
    off = record.runs is False
    moved = known if off or record.live is None else record.live
    seen = Observation(
        domain=GUEST,
        state="shut off" if off else "running",
        job=False,
        live=None if off else moved,
        stored=record.stored,
        new=record.stored,
        live_cpu=_read(moved.cpu, target.libvirt if off else source.libvirt),
        restart=off,
        source=source,
        target=target,
    )
    checks: Mapping[str, Check] = _OFF if off else CHECKS
    found = {name: checks[name](seen) for name in (group.off if off else group.running)}
    guessed = not off and record.live is None
    if guessed and "LIVE_CPU" in found:
        found = {"LIVE_CPU": Verdict(
            "unknown", f"it {'runs' if record.runs else 'may run'}, and of the CPU that it has then there is no XML",
            f"virsh dumpxml --domain {GUEST} on {HERE}, and read it too",
        )}  # fmt: skip
    missing: tuple[str, ...] = ()
    if "LIVE_CPU" in group.running and not guessed:
        missing = _missing(seen)
    return Answer(tuple((name, v) for name, v in found.items() if v is not None and v.severity != "ok"), missing)


def _missing(seen: Observation) -> tuple[str, ...]:
    cpu, there = seen.moved.cpu if seen.moved else None, seen.target
    passed = seen.live is not None and cpu is not None and cpu.mode in ("host-passthrough", "maximum")
    asked = seen.source.cpu if passed else seen.live_cpu
    if asked.status != "ok" or there.cpu.status != "ok":
        return ()
    return tuple(CpuMap.load().names(fit.lacking(asked, there)))


def named(text: str, names: Mapping[str, str]) -> str:
    """A text with names in place of the placeholders."""
    if "\0" not in text:
        return text
    for placeholder, name in names.items():
        text = text.replace(placeholder, name)
    return text
