"""What stands in the way of one domain's move to one host: a pure function of what was observed.

Every check is a function in :data:`CHECKS` that gives a finding, or None where the question does not arise. A check
that cannot tell says ``unknown``, never ``ok``.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from vmcompat.fleet.cpu import X86
from vmcompat.migration import attached, between, blockers, disks, fit, travel
from vmcompat.migration.fit import Severity, Verdict
from vmcompat.migration.observe import End, Observation

STOPS: Final = ("block", "risk", "unknown")
FORCEABLE: Final = ("risk", "unknown")
WORST_FIRST: Final = ("block", "risk", "unknown", "warn", "ok")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes
    ----------
    id : str
        Name of the check: what ``force=`` takes.
    severity : {"ok", "warn", "risk", "block", "unknown"}
        *risk*: libvirt would do it, and the guest or its owner may be harmed. *block*: libvirt would refuse, or the
        guest would be lost. *unknown*: cannot tell.
    evidence, remedy : str
        What was seen, and what to do; ``remedy`` is empty where nothing is to do.
    """

    id: str
    severity: Severity
    evidence: str
    remedy: str = ""


def preflight(seen: Observation) -> tuple[Finding, ...]:
    """All findings at once, in the order of :data:`CHECKS`."""
    verdicts = {name: check(seen) for name, check in CHECKS.items()}
    return tuple(Finding(name, *verdict) for name, verdict in verdicts.items() if verdict is not None)


def _state(seen: Observation) -> Verdict:
    if seen.transfer.offline:
        return _state_offline(seen)
    if seen.live is None:
        return Verdict("block", f"{seen.domain} is {seen.state}",
            "only a running guest moves live: start it (virsh start), or move its definition: Transfer(offline=True)",
        )  # fmt: skip
    if seen.job:
        return Verdict("block", "another job holds the domain",
            "wait for it; what it is: "
            f"virsh -c {shlex.quote(seen.source.uri)} domjobinfo --domain {seen.typed}",
        )  # fmt: skip
    if seen.state == "paused":
        return Verdict("risk", "the guest is paused, and would arrive paused", "virsh resume, or find out why")
    if seen.state == "suspended":
        return Verdict("risk", "the guest sleeps (suspended to memory): libvirt 9.0 may wait for ever for the end of "
            "such a move, and QEMU before 9.0 may wake it on the way",
            f"wake it first: virsh dompmwakeup --domain {seen.typed}",
        )  # fmt: skip
    if seen.state == "crashed":
        return Verdict("risk", "the guest has crashed, and libvirt would move it and call it running there",
            "take what its crash can tell (virsh dump), then power it off and on",
        )  # fmt: skip
    if seen.state not in ("running", "blocked"):  # blocked: it waits for a device
        return Verdict("block", f"the guest is {seen.state}", "bring it to a running state first")
    return Verdict("ok", "running, no job")


def _state_offline(seen: Observation) -> Verdict:
    if seen.live is not None:
        return Verdict("block", f"{seen.domain} is {seen.state}, and offline=True is for guests that are off",
            "move it live: leave offline=True away",
        )  # fmt: skip
    return Verdict("ok", f"{seen.state}: its definition moves")


def _same_host(seen: Observation) -> Verdict:
    here, there = (end.capabilities.facts.get("uuid") for end in (seen.source, seen.target))
    if here is None or there is None:
        silent = seen.source.name if here is None else seen.target.name
        return Verdict("unknown", f"{silent} gives no host UUID", "give it a host_uuid in libvirtd.conf")
    if here == there:
        return Verdict("block", f"both ends have the host UUID {here}",
            "give another target; two machines of one UUID: set host_uuid in libvirtd.conf of one",
        )  # fmt: skip
    return Verdict("ok", f"{seen.source.name} and {seen.target.name} have different UUIDs")


def _machine(seen: Observation) -> Verdict | None:
    moved, end = seen.moved, seen.target
    if moved is None:
        return None
    asked, facts = end.hypervisor, end.capabilities.facts
    if asked is not None and (end.asked or (asked.machine, asked.emulator) == (moved.machine, moved.emulator)):
        return Verdict("ok", f"{end.name} has {moved.machine} with {asked.emulator}")
    arch = end.capabilities.arch or (asked.arch if asked else None)
    if arch is not None and moved.arch is not None and moved.arch != arch and not {moved.arch, arch} <= set(X86):
        return Verdict("block", f"the guest is {moved.arch}, {end.name} is {arch}", f"choose a host of {moved.arch}")
    machines, emulators, virttypes = (facts.get(k) or () for k in ("machines", "emulators", "virttypes"))
    assert isinstance(machines, tuple)
    assert isinstance(emulators, tuple)
    assert isinstance(virttypes, tuple)
    if virttypes and moved.virttype not in virttypes:
        return Verdict("block", f"{end.name} runs {', '.join(virttypes)}, the guest is {moved.virttype}",
            "switch virtualization on in the BIOS there, and load the kvm module" if moved.virttype == "kvm" else
            "give the guest another type at its next power cycle",
        )  # fmt: skip
    if machines and moved.machine not in machines:
        return Verdict("block", f"{end.name} has no machine type {moved.machine}",
            "upgrade QEMU there, or give the guest an older machine type at its next power cycle",
        )  # fmt: skip
    if moved.machine in machines and moved.emulator in emulators:
        return Verdict("ok", f"{end.name} lists {moved.machine} and {moved.emulator}")
    if moved.machine in machines:
        return Verdict("unknown", f"{end.name} lists {moved.machine}, and not the emulator {moved.emulator}",
            f"is it there? virsh domcapabilities --emulatorbin {shlex.quote(moved.emulator or '')}",
        )  # fmt: skip
    why = f": {end.refused}" if end.refused else " gives no list of machine types"
    return Verdict("unknown", f"{end.name}, asked for {moved.machine}{why}", fit.ask(end))


def _vcpu(seen: Observation) -> Verdict | None:
    moved = seen.moved
    if moved is None:
        return None
    of_vcpu = [(where, cpus) for where, cpus in moved.pins if where.startswith("<vcpu cpuset")]
    if of_vcpu:
        return attached.worst([_on_host(of_vcpu, seen.target, "cpu_ids", "CPUs", "<vcpu cpuset>")], seen)
    threads = seen.target.capabilities.facts.get("threads")
    if not isinstance(threads, int):
        return Verdict("unknown", f"{seen.target.name} does not say how many CPUs it has", "virsh nodeinfo there")
    if moved.vcpus > threads:
        return Verdict("warn", f"{moved.vcpus} virtual CPUs on the {threads} of {seen.target.name}")
    return Verdict("ok", f"{moved.vcpus} virtual CPUs, bound to no host CPU; {seen.target.name} has {threads}")


def _cputune(seen: Observation) -> Verdict | None:
    pins = [(where, cpus) for where, cpus in (seen.moved.pins if seen.moved else ()) if "<vcpu cpuset" not in where]
    found = [_on_host(pins, seen.target, "cpu_ids", "CPUs", "<cputune>")] if pins else []
    if seen.moved and seen.moved.shares and seen.target.asked:  # documents tell of no shares
        found.append(_shares(seen.moved.shares, seen.target))
    return attached.worst(found, seen) if found else None


def _shares(wanted: tuple[str, ...], end: End) -> Verdict:
    """Of caches and memory bandwidth, which the kernel sets apart through a file system that may not be mounted."""
    there = end.capabilities.facts.get("shares")
    if not isinstance(there, tuple):
        return Verdict("unknown", f"{end.name} does not say whether it sets caches or memory bandwidth apart",
            "look for <cache> and <memory_bandwidth> with a <control> in virsh capabilities there",
        )  # fmt: skip
    if lacking := [f"<{kind}>" for kind in wanted if kind not in there]:
        return Verdict("block", f"{end.name} cannot set apart what {', '.join(lacking)} asks for: its libvirt lists no "
            "such control", "mount resctrl there and restart its libvirt (see virsh capabilities), or take it out of "
            "<cputune> and power the guest off and on",
        )  # fmt: skip
    return Verdict("ok", f"{end.name} sets caches and memory bandwidth apart")


def _numatune(seen: Observation) -> Verdict | None:
    nodes = list(seen.moved.nodes) if seen.moved else []
    found = [_on_host(nodes, seen.target, "node_ids", "NUMA nodes", "<numatune>")] if nodes else []
    return attached.worst(found, seen) if found else None


def _on_host(named: list[tuple[str, frozenset[int]]], end: End, fact: str, what: str, where: str) -> Verdict:
    there = end.capabilities.facts.get(fact)
    if not isinstance(there, tuple):
        return Verdict("unknown", f"{end.name} does not list its {what}", "compare with virsh capabilities there")
    absent = [(place, sorted(numbers - set(there))) for place, numbers in named if numbers - set(there)]
    if not absent:
        return Verdict("ok", f"every one of the {what} named in the definition exists on {end.name}")
    gone = "; ".join(f"{place} names {', '.join(map(str, numbers))}" for place, numbers in absent)
    some_left = all(numbers & set(there) for _, numbers in named) and what == "CPUs"
    return Verdict(
        "risk" if some_left else "block", f"{end.name} has no such {what}: {gone}",
        f"change {where}: virsh vcpupin, emulatorpin, numatune, or virsh edit",
    )  # fmt: skip


def _memory(seen: Observation) -> Verdict | None:
    moved, end = seen.moved, seen.target
    if moved is None or moved.memory is None:
        return None
    there, sizes = (end.capabilities.facts.get(k) for k in ("memory", "page_sizes"))
    known = sizes if isinstance(sizes, tuple) else ()
    # Before all that may be forced: nobody forces pages that do not exist.
    if known and (absent := [size for size in moved.page_sizes if size is not None and size not in known]):
        return attached.worst([Verdict("block", f"{end.name} has no huge pages of {', '.join(map(str, absent))} KiB",
            "choose another host, or other pages at the next power cycle: <hugepages>",
        )], seen)  # fmt: skip
    if not isinstance(there, int):
        return Verdict("unknown", f"{end.name} does not say how much memory it has", "virsh nodeinfo there")
    if moved.memory > there:
        return Verdict("risk", f"the guest may have {_gib(moved.memory)}, {end.name} has {_gib(there)} in all",
            "choose a larger host: QEMU is killed there when its memory runs out",
        )  # fmt: skip
    if moved.page_sizes and not known:
        return Verdict("unknown", f"{end.name} does not say which huge pages it has", "virsh freepages there")
    if moved.page_sizes:
        return Verdict("warn", f"{end.name} knows such huge pages; how many are free, its capabilities do not say",
            "virsh freepages --all there",
        )  # fmt: skip
    return Verdict("ok", f"{_gib(moved.memory)} of the {_gib(there)} of {end.name}, be they free or not")


def _gib(kib: int) -> str:
    return f"{kib / 2**20:.4g} GiB"


def _owner(seen: Observation) -> Verdict:
    domain = seen.live or seen.stored
    if domain is not None and domain.managers:
        owners = "; ".join(f"{manager} ({says})" for manager, says, _ in domain.managers)
        return Verdict("risk", f"it belongs to {owners}, which would not know where its guest is",
            f"move it there: {'; '.join(command for _, _, command in domain.managers)}",
        )  # fmt: skip
    if domain is not None and domain.namespaces:
        return Verdict("warn", f"<metadata> of {', '.join(domain.namespaces)}", "is that a manager of guests?")
    return Verdict("ok", "no manager has left its mark in the definition (Pacemaker never does)")


def _name(seen: Observation) -> Verdict:
    domain = seen.live or seen.stored
    uuid = domain.uuid if domain else ""
    there = seen.target.name
    for name, other, runs in seen.target.taken:
        state = "running" if runs else "shut off"
        if (name, other) != (seen.domain, uuid):
            same = "the name" if name == seen.domain else "the UUID"
            return Verdict("block", f"{there} has a domain with {same} already: {name} {other}, {state}",
                "rename or remove that one",
            )  # fmt: skip
        if runs:
            ends = ", ".join(repr(end.uri) for end in (seen.source, seen.target))
            return Verdict("block", f"{there} has the guest itself, {state}: a migration brings or has left it there",
                f"look which of the two it is, and destroy neither: vc.recover({seen.domain!r}, {ends})",
            )  # fmt: skip
        return Verdict("warn", f"{there} has a stale definition of this domain, which the move replaces",
            f"virsh undefine it there, if it is not wanted: {name}",
        )  # fmt: skip
    return Verdict("ok", f"{there} has neither the name nor the UUID")


CHECKS: Final[Mapping[str, Callable[[Observation], Verdict | None]]] = {
    "STATE": _state,
    "SAME_HOST": _same_host,
    "PEER": travel.peer,
    "TRANSFER": travel.transfer,
    "TRANSPORT": travel.transport,
    "VERSION": between.versions,
    "SKEW": between.skew,
    "DRY": between.dry_run,
    "JOBS": between.jobs,
    "LIVE_CPU": fit.live_cpu,
    "NEW_CPU": fit.new_cpu,
    "CPU_NAMES": fit.cpu_names,
    "VENDOR": fit.vendor,
    "PASSTHROUGH": fit.passthrough,
    "HOST_MODEL": fit.host_model,
    "NESTED": between.nested,
    "EMULATION": between.emulation,
    "CPU_HOST_PARTS": between.cpu_parts,
    "MACHINE": _machine,
    "DEPRECATED": between.deprecated,
    "VCPU": _vcpu,
    "CPUTUNE": _cputune,
    "NUMATUNE": _numatune,
    "MEMORY": _memory,
    "TSC": fit.tsc,
    "ADDRESS_BITS": fit.address_bits,
    "HYPERV": between.hyperv,
    "HOSTDEV": blockers.hostdev,
    "NON_MIGRATABLE": blockers.non_migratable,
    "DISKS": disks.disks,
    "CACHE": disks.cache,
    "TRANSIENT": disks.transient,
    "SNAPSHOTS": disks.snapshots,
    "BLOCKJOB": disks.block_job,
    "FILESYSTEM": attached.filesystem,
    "TPM": attached.tpm,
    "NETWORK": attached.network,
    "GRAPHICS": attached.graphics,
    "PATHS": attached.paths,
    "FIRMWARE": attached.firmware,
    "SECLABEL": attached.seclabel,
    "MEMORY_DEVICES": attached.memory_devices,
    "TOPOLOGY": attached.topology,
    "LAUNCH_SECURITY": blockers.launch_security,
    "OWNER": _owner,
    "NAME": _name,
    "AUTOSTART": between.autostart,
    "STORED": between.stored,
}
"""By the id of their finding, in the order in which they are shown."""
