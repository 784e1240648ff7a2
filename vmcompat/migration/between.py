"""Checks of :mod:`vmcompat.migration.preflight` about the two hosts and the state of the guest, not its devices."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from typing import Final

from vmcompat.baseline.answer import some
from vmcompat.fleet.cpu import parse_xml
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import version
from vmcompat.migration.domain import Domain, cpu_text
from vmcompat.migration.fit import Verdict
from vmcompat.migration.observe import End, Observation, reading
from vmcompat.migration.skews import SKEWS, Skew

AT_A_TIME: Final = 2  # migrations on one host, beyond which they take each other's bandwidth
_SOUND_EMULATION: Final = "9.0.0"  # QEMU: "physmem: fix migration dirty bitmap coherency with TCG"
_NESTED_QEMU: Final = "4.1.0"  # the first that moves the state of guests within the guest, on Intel
# What libvirt cannot do at an arrival either. A dry run may stumble over much else: paths, devices, networks.
_FATAL: Final = re.compile(
    r"[Uu]nknown CPU (?:model|feature)|does not support (?:machine|virt) type|Cannot check QEMU binary|"
    r"hugetlbfs filesystem is not mounted|any usable hugetlbfs mount|"
    r"(?:not|n't) supported (?:by|with|in) this (?:QEMU|qemu)(?: binary)?"
)
_CPU_ANSWERED: Final = "incompatible with host CPU"  # LIVE_CPU and NEW_CPU ask for it by name
_PASSED: Final = ("host-passthrough", "maximum")


def versions(seen: Observation) -> Verdict | None:
    """Upgrades go forward; QEMU tests the way back with the same machine type, and promises less."""
    if seen.transfer.offline:
        return None
    here, there = seen.source, seen.target
    if here.asked and there.asked and (here.qemu is None) != (there.qemu is None):
        other = here if here.qemu is None else there
        return Verdict("block", f"{other.name} runs another hypervisor than QEMU", "choose a host that runs QEMU")
    pairs = [("libvirt", here.libvirt, there.libvirt), ("QEMU", here.qemu or "", there.qemu or "")]
    silent = [f"{end.name} of its {what}" for what, *told in pairs for end, v in zip((here, there), told, strict=True)
              if not version(v)]  # fmt: skip
    if silent:
        return Verdict("unknown", f"the version is not told: {some(silent)}", "ask there: virsh version")
    differ = [(what, a, b) for what, a, b in pairs if version(a) != version(b)]
    told = "; ".join(f"{what} {a} on {here.name}, {b} on {there.name}" for what, a, b in differ)
    if not differ:
        return Verdict("ok", f"both have libvirt {here.libvirt} and QEMU {here.qemu}")
    # a stable update (the third number) changes no device's state, in either direction
    if any(version(b)[:2] < version(a)[:2] for _, a, b in differ):
        return Verdict("risk", f"{told}: to an older one is a way that few test",
            f"upgrade {there.name} first, or try with a guest that nobody misses",
        )  # fmt: skip
    return Verdict("warn", f"{told}: the way back may be closed", f"does it have to come back? Upgrade {here.name} too")


def skew(seen: Observation) -> Verdict | None:
    """What the target's QEMU and libvirt are known to do to such a CPU by themselves."""
    cpu = seen.live.cpu if seen.live else None
    if seen.restart or cpu is None or seen.live_cpu.status != "ok" or cpu.mode in _PASSED:
        return None
    here, there = seen.source, seen.target
    found = [s for s in SKEWS if _crossed(s, here, there) and _concerned(s, seen)]
    if found:
        cures = [f"a libvirt from {s.mended} on {there.name} gets along with it" for s in found if s.mended]
        cures += [f"a CPU without {s.feature} does, after a power cycle" for s in found if s.concerns == "has"]
        cures += [f"a definition that lists {s.feature} does" for s in found if s.concerns == "unlisted"]
        return Verdict("risk", "; ".join(f"{s.feature} ({s.year}): {s.happens} [{s.source}]" for s in found),
            "; ".join(["try with a guest that nobody misses", "the same versions on both hosts cure it", *cures]),
        )  # fmt: skip
    if not all(map(version, (here.libvirt, there.libvirt, here.qemu or "", there.qemu or ""))):
        return None  # VERSION says so
    if (here.libvirt, here.qemu) != (there.libvirt, there.qemu):
        return Verdict("warn", "no skew is known between these versions for such a CPU, and not all skews are known")
    return Verdict("ok", "the same QEMU and libvirt on both hosts")


def _crossed(skew: Skew, here: End, there: End) -> bool:
    """Whether the two hosts lie on both sides of a change, or may."""
    old, new = (version((end.qemu or "") if skew.software == "QEMU" else end.libvirt) for end in (here, there))
    if not (old and new) or old == new:
        return False
    if skew.mended and version(there.libvirt) >= version(skew.mended):
        return False
    return _within(old, skew.leaves) and _within(new, skew.meets) and not (skew.only_down and new > old)


def _within(number: tuple[int, ...], versions: tuple[str, str]) -> bool:
    first, end = map(version, versions)
    return first <= number and (not end or number < end)


def _concerned(skew: Skew, seen: Observation) -> bool:
    assert seen.live is not None
    assert seen.live.cpu is not None
    cpu, has = seen.live.cpu, bool(seen.live_cpu.offered & CpuMap.load().set_of([skew.feature]))
    if skew.vendor and skew.vendor != (cpu.vendor or seen.live_cpu.model_vendor):
        return False
    if skew.models and not (cpu.model or "").startswith(skew.models):
        return False
    if skew.siblings and math.prod(cpu.topology[1:] if cpu.topology else (1,)) < 2:
        return False
    if skew.concerns == "unlisted":
        return all(name != skew.feature for name, _ in cpu.features)
    return has == (skew.concerns == "has")


def dry_run(seen: Observation) -> Verdict | None:
    """Whether the target's libvirt can make a QEMU's command line of the definition, as a start would."""
    words, end = seen.target.refusal, seen.target
    if seen.moved is None or (words and _CPU_ANSWERED in words):
        return None
    if words is None:
        return Verdict("unknown", f"{end.name} has not parsed the definition: {end.refused or end.cpu.reason}",
            f"plan with write access there, or: virsh -c {shlex.quote(end.uri)} domxml-to-native qemu-argv --xml FILE",
        )  # fmt: skip
    if not words:
        return Verdict("ok", f"{end.name} understands the whole definition, but for devices that it would have to open")
    if _FATAL.search(words):
        return Verdict("block", f"{end.name} cannot take the definition: {words}",
            "upgrade libvirt and QEMU there, or change the definition and power the guest off and on",
        )  # fmt: skip
    return Verdict("unknown", f"{end.name} refuses the definition in a dry run, which is stricter than a migration: "
        f"{words}", "look whether it concerns this guest there; if not: force=('DRY',)",
    )  # fmt: skip


def jobs(seen: Observation) -> Verdict | None:
    """Migrations that run already."""
    ends = (seen.source, seen.target)
    if seen.transfer.offline or not all(end.asked for end in ends):
        return None
    if silent := [end.name for end in ends if end.jobs is None]:
        return Verdict("unknown", f"{some(silent)} did not say which of its guests are on their way",
            "is its libvirtd well? virsh list, virsh domjobinfo",
        )  # fmt: skip
    many = [(end.name, end.jobs) for end in ends if end.jobs is not None and len(end.jobs) >= AT_A_TIME]
    if many:
        told = "; ".join(f"{name} has {len(names)} migrations under way: {some(names)}" for name, names in many)
        return Verdict("warn", f"{told}. One more takes bandwidth from them", "wait for them: virsh domjobinfo")
    count = sum(len(end.jobs or ()) for end in ends)
    return Verdict("ok", f"{count or 'no'} other migration{'' if count == 1 else 's'} under way on either host")


def stored(seen: Observation) -> Verdict | None:
    """Whether the guest would start again as it runs now."""
    live, after = seen.live, seen.stored
    if live is None or after is None or seen.restart:
        return None
    differ = list(_differences(live, after, seen))
    if differ:
        return Verdict("warn", f"after its next power cycle it is not what it is now: {'; '.join(differ)}",
            "is that wanted? It moves along as it is stored",
        )  # fmt: skip
    return Verdict("ok", "it is stored as it runs, in CPU, machine type, memory and vCPUs")


def _differences(live: Domain, after: Domain, seen: Observation) -> Iterator[str]:
    for what, now, then in (
        ("machine type", live.machine, after.machine),
        ("memory in KiB", live.memory, after.memory),
        ("vCPUs", live.vcpus, after.vcpus),
    ):
        if now != then:
            yield f"{what} {now}, stored {then}"
    if seen.baseline or live.cpu is None or after.cpu is None:
        return
    if after.cpu.mode in _PASSED or live.cpu.mode in _PASSED:
        if after.cpu.mode != live.cpu.mode:
            yield f"CPU mode {live.cpu.mode}, stored {after.cpu.mode}"
        return
    if after.cpu.mode == "host-model":  # HOST_MODEL says what that will be
        return
    if live.cpu.model != after.cpu.model:
        yield f"CPU model {live.cpu.model}, stored {after.cpu.model}"
        return
    wanted = reading(after.cpu, host=seen.source.name, libvirt=seen.source.libvirt)
    if wanted.status == seen.live_cpu.status == "ok":
        feature_map = CpuMap.load()
        refused = feature_map.set_of(n for n, policy in after.cpu.features if policy in ("disable", "forbid"))
        if more := feature_map.names(wanted.offered & ~seen.live_cpu.offered):
            yield f"stored with {some(more, most=12)}, which it has not got"
        if less := feature_map.names(refused & seen.live_cpu.offered):
            yield f"stored without {some(less, most=12)}, which it has"


def autostart(seen: Observation) -> Verdict | None:
    """Which host starts the guest when it boots."""
    name = seen.typed
    if seen.target.autostart:
        return Verdict("risk", f"{seen.target.name} has a stale definition of it marked autostart: booted before the "
            "move, that host starts the guest a second time",
            f"there: virsh autostart --disable --domain {name}",
        )  # fmt: skip
    if seen.source.autostart:
        return Verdict("ok", f"it is marked autostart on {seen.source.name}; libvirt does not take that along, and the "
            f"run marks it on {seen.target.name} at last",
        )  # fmt: skip
    return Verdict("ok", "not marked autostart on either host") if seen.stored else None


def emulation(seen: Observation) -> Verdict | None:
    """A guest without KVM: QEMU before 9.0 forgets to watch pages of it once it has asked which were written."""
    moved, here = seen.moved, seen.source
    if moved is None or moved.virttype != "qemu" or seen.transfer.offline:
        return None
    if here.qemu is None:
        return Verdict("unknown", f"{here.name} does not tell the version of its QEMU", "ask there: virsh version")
    if version(here.qemu) >= version(_SOUND_EMULATION):
        return Verdict("ok", f"it is emulated, and QEMU {here.qemu} of {here.name} sends all that it writes")
    return Verdict("warn", f"it is emulated, and QEMU {here.qemu} of {here.name} loses what such a guest writes during "
        f"a slow transfer (mended in {_SOUND_EMULATION}): it may arrive damaged",
        "move it while it is idle and with no limit of bandwidth, or shut it down and start it there",
    )  # fmt: skip


def nested(seen: Observation) -> Verdict | None:
    """A guest that may run guests of its own."""
    moved = seen.moved
    if moved is None or moved.cpu is None or moved.virttype == "qemu" or seen.restart or seen.transfer.offline:
        return None
    has = seen.source.cpu.offered if moved.cpu.mode in _PASSED else seen.live_cpu.offered
    extensions = CpuMap.load().names(has & CpuMap.load().set_of(["vmx", "svm"]))
    if not extensions:
        return None
    told = f"its CPU has {' and '.join(extensions)}: if it runs guests of its own, their state has to move too"
    old = [f"QEMU {e.qemu} of {e.name}" for e in (seen.source, seen.target) if () < version(e.qemu or "") < (4, 1)]
    if old:
        return Verdict("risk", f"{told}, which {' and '.join(old)} cannot do (since {_NESTED_QEMU})",
            "end its own guests first, or power it off and on without it",
        )  # fmt: skip
    return Verdict("warn", f"{told}; kernels can since 4.20 (Intel) or 5.8 (AMD), and libvirt tells of no kernel",
        "end its own guests first, or compare uname -r of both hosts",
    )  # fmt: skip


def deprecated(seen: Observation) -> Verdict | None:
    """Machine types that the next QEMU may no longer have."""
    moved, facts = seen.moved, seen.target.capabilities.facts
    listed, old = facts.get("machines"), facts.get("deprecated_machines") or ()
    assert isinstance(old, tuple)
    if moved is None or not listed:
        return None
    if moved.machine in old:
        return Verdict("warn", f"{moved.machine} is deprecated on {seen.target.name}: a later QEMU does not have it",
            "give the guest a newer machine type at its next power cycle",
        )  # fmt: skip
    return Verdict("ok", f"{moved.machine} is not called deprecated on {seen.target.name}")


def hyperv(seen: Observation) -> Verdict | None:
    """Enlightenments that the target does not list, and re-enlightenment: QEMU wants to know which TSC that was."""
    moved, end = seen.moved, seen.target
    if moved is None or not moved.hyperv:
        return None
    if "passthrough" in moved.hyperv:
        return Verdict("risk", "<hyperv mode='passthrough'>: which enlightenments it has depends on its host",
            "list them in <hyperv> and power the guest off and on",
        )  # fmt: skip
    if "reenlightenment" in moved.hyperv and not moved.tsc_frequency and not seen.transfer.offline:
        return Verdict("block", "re-enlightenment without a fixed TSC frequency: QEMU refuses to move it",
            "add <timer name='tsc' frequency='...'/> to <clock>, or take reenlightenment out, and power the guest off "
            "and on",
        )  # fmt: skip
    told = f"{len(moved.hyperv)} Hyper-V enlightenments, none that ties it to its host"
    listed = end.hypervisor.facts.get("hyperv") if end.hypervisor else None
    if not isinstance(listed, tuple):
        return Verdict("warn", f"{told}; {end.name} does not list its own",
            f"compare with the QEMU there: {', '.join(moved.hyperv)}",
        )  # fmt: skip
    if absent := [name for name in moved.hyperv if name not in listed]:
        return Verdict("risk", f"{end.name} does not list {', '.join(absent)} among its Hyper-V enlightenments",
            "take them out of <hyperv> and power the guest off and on, or choose another host",
        )  # fmt: skip
    return Verdict("ok", f"{told}, all on the list of {end.name}")


def cpu_parts(seen: Observation) -> Verdict | None:
    """Parts of ``<cpu>`` that libvirt takes with a passed-through CPU only, left over beside a baseline."""
    new = seen.new
    text = cpu_text(new.xml) if new is not None and seen.baseline else None
    if text is None:
        return None
    cache = parse_xml(text.encode(), source=seen.domain).find("cache")
    if cache is not None and cache.get("mode") == "passthrough":
        return Verdict("block", "the stored definition has <cache mode='passthrough'/>, which libvirt stores with no "
            "CPU but a passed-through one",
            f"take it out: virsh edit --domain {seen.typed}",
        )  # fmt: skip
    return Verdict("ok", "nothing is left in <cpu> that a baseline does not go with")
