"""Does the guest's CPU fit the target? The checks of :mod:`vmcompat.migration.preflight` that ask for it."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

from vmcompat.baseline.answer import some
from vmcompat.fleet.cpu_map import CpuMap, brought_along
from vmcompat.fleet.expand import Reading, version
from vmcompat.migration.apply import CpuAnswer
from vmcompat.migration.observe import End, Observation, reading

Severity: TypeAlias = Literal["ok", "warn", "risk", "block", "unknown"]

_PPM: Final = 250  # libvirt's tolerance between a guest's fixed TSC frequency and the host's
_WHATEVER_THE_HOST_HAS: Final = ("host-passthrough", "maximum")


class Verdict(NamedTuple):
    """What one check says; with the check's name it is a finding."""

    severity: Severity
    evidence: str
    remedy: str = ""


def live_cpu(seen: Observation) -> Verdict | None:
    """The CPU that the guest has now, where it takes that along."""
    if seen.restart or seen.live is None or (seen.live.cpu and seen.live.cpu.mode in _WHATEVER_THE_HOST_HAS):
        return None
    remedy = (
        "it has to be powered off and on with a CPU that fits: restart=True"
        if seen.baseline
        else "plan with baseline= of both hosts and restart=True"
    )
    return _fits(seen.target, "moved", seen.live_cpu, remedy)


def new_cpu(seen: Observation) -> Verdict | None:
    """The CPU of the next start, where this plan writes it or starts from it."""
    if not (seen.baseline or seen.restart) or seen.new is None:
        return None
    if seen.new.cpu is not None and seen.new.cpu.mode in _WHATEVER_THE_HOST_HAS:
        return None
    remedy = "compute the baseline from these hosts as they are now"
    asked = seen.live_cpu if seen.restart else None
    if seen.new.cpu is not None and seen.new.cpu.mode == "host-model":
        return _fits(seen.target, "", seen.source.cpu, remedy)
    found = [_fits(end, "stored", asked, remedy) for end in (seen.source, seen.target)]
    worst = max(found, key=lambda f: ("ok", "warn", "risk", "unknown", "block").index(f.severity))
    evidence = "; ".join(dict.fromkeys(f.evidence for f in found))
    named = not any(a.unknown_name for end in (seen.source, seen.target) for a in end.answers.values())
    if worst.severity == "block" and seen.host_view and named:
        return Verdict("risk", f"{evidence}; the baseline is of the host view: its guests may start with less than it "
            "says, or not at all", "use a baseline of the hypervisor view: read_fleet(..., view='hypervisor')",
        )  # fmt: skip
    if worst.severity == "block" and seen.new.cpu is not None and seen.new.cpu.check == "none" and named:
        return Verdict("risk", f"{evidence}; the definition says check='none': libvirt starts the guest with less and "
            "says nothing", "store a baseline of both hosts: baseline=",
        )  # fmt: skip
    return Verdict(worst.severity, evidence, worst.remedy)


def _fits(end: End, question: str, asked: Reading | None, remedy: str) -> Verdict:
    """Libvirt's own answer, and beside it what the domain capabilities say, by name."""
    answer = end.answers.get(question) or CpuAnswer(host=end.name, result="unknown", reason=end.refused)
    known = asked is not None and asked.status == "ok" and end.cpu.status == "ok"
    lacks = _names(lacking(asked, end)) if known and asked else []
    silent = _names(asked.offered & ~end.cpu.offered & ~end.cpu.reported) if known and asked else []
    silent += sorted(asked.beyond - end.cpu.beyond) if known and asked else []
    more = _names(end.cpu.offered & ~asked.offered) if known and asked else []
    if answer.result == "incompatible":
        named = ", ".join(dict.fromkeys([*lacks, *answer.features]))
        evidence = f"{end.name} lacks {named} (libvirt says so)" if answer.features else f"{end.name}: {answer.reason}"
        return Verdict("block", evidence, remedy)
    if answer.fits and not lacks:
        gains = f"; it could give {len(more)} more: {', '.join(more)}" if more else ""
        return Verdict("ok", f"{end.name} can run it (libvirt: {answer.result}){gains}")
    if answer.fits:
        return Verdict("risk", f"{end.name} says it can run it, but does not list {', '.join(lacks)}", remedy)
    if lacks:
        return Verdict("block", f"{end.name} lacks {', '.join(lacks)}", remedy)
    if known and asked and not (question and end.asked):
        return _by_documents(end, asked, silent, more, remedy)
    why = answer.reason or (asked.reason if asked else "") or end.cpu.reason
    remedy = f"{ask(end)}, or name a CPU in the definition" if end.asked else ask(end)
    return Verdict("unknown", f"{end.name}: {why}", remedy)


def _by_documents(end: End, asked: Reading, silent: list[str], more: list[str], remedy: str) -> Verdict:
    """For a CPU of which the host is not known to lack anything, where libvirt itself has not answered."""
    listed = asked.cpu.features if asked.cpu else ()
    forbidden = CpuMap.load().set_of(name for name, policy in listed if policy == "forbid")
    if there := _names(forbidden & end.cpu.offered):
        return Verdict("block", f"{end.name} offers {', '.join(there)}, which the definition forbids", remedy)
    if silent:
        return _untold(end, silent)
    if asked.cpu is not None and asked.cpu.match == "strict" and more:
        return Verdict("unknown", f"match='strict', and {end.name} offers {some(more, most=12)} beyond it",
            "look at virsh hypervisor-cpu-compare there",
        )  # fmt: skip
    return Verdict("ok", f"{end.name} offers every feature of it")


def lacking(asked: Reading, end: End) -> int:
    """Set of the features of a CPU that a host is known not to give."""
    return asked.offered & ~end.cpu.offered & end.cpu.reported


def ask(end: End) -> str:
    """How to learn what a host did not say."""
    if end.asked:
        return "plan with write access there"
    return f"fetch virsh domcapabilities of {end.name}, with --virttype as the guest's type"


def _untold(end: End, silent: list[str]) -> Verdict:
    return Verdict(
        "unknown", f"the libvirt {end.libvirt} of {end.name} has no name for {some(silent, most=12)}",
        "upgrade it, or take these features out of the guest",
    )  # fmt: skip


def cpu_names(seen: Observation) -> Verdict | None:
    """Whether the libvirts know the names: an old one stores unknown ones, and only the start fails."""
    domain = seen.new if seen.baseline else seen.moved
    if domain is None or domain.cpu is None or domain.cpu.model is None:
        return None
    model, question = domain.cpu.model, "stored" if seen.baseline else "moved"
    ends = [seen.source, seen.target] if seen.baseline or seen.restart else [seen.target]
    silent = []
    for end in ends:
        answer = end.answers.get(question)
        listed = [m.name for m in end.hypervisor.models] if end.hypervisor else []
        if answer is not None and answer.unknown_name:
            return _unknown_name(end, f"{answer.reason} (libvirt {end.libvirt} of {end.name})")
        if listed and model not in listed:
            return _unknown_name(end, f"the hypervisor of {end.name} has no model {model}")
        if not end.asked and listed:
            continue
        if answer is None or answer.result == "unknown":
            silent.append(f"{end.name}: {answer.reason if answer else end.refused or end.cpu.reason}")
    if silent:
        return Verdict("unknown", "; ".join(silent), ask(ends[-1]))
    return Verdict(
        "ok",
        f"{model}{' and its features are' if ends[-1].asked else ' is'} known to {' and '.join(e.name for e in ends)}",
    )


def _unknown_name(end: End, evidence: str) -> Verdict:
    return Verdict("block", evidence,
        f"use a baseline that libvirt {end.libvirt} can write: fleet.baseline(..., cpu_map={_nearest_map(end)!r})",
    )  # fmt: skip


def _nearest_map(end: End) -> str:
    older = [m.version for m in brought_along() if version(m.version) <= version(end.libvirt)]
    return older[-1] if older else next(brought_along()).version


def vendor(seen: Observation) -> Verdict | None:
    """Whether the guest's CPU and the target's are of one maker."""
    moved = seen.moved
    if moved is None or moved.cpu is None:
        return None
    if moved.virttype == "qemu":
        return Verdict("ok", "the CPU is emulated: no vendor's own")
    asked, given = moved.cpu.vendor, seen.target.cpu.cpu.vendor if seen.target.cpu.cpu else None
    if asked is not None and given is not None:
        if asked == given:
            return Verdict("ok", f"{asked}, and {seen.target.name} gives {given}")
        # a definition moves anywhere, and does not start there
        return Verdict("risk" if seen.transfer.offline else "block",
            f"the guest has a CPU of {asked}, {seen.target.name} gives {given}",
            "no live migration crosses vendors: choose another target",
        )  # fmt: skip
    here, there = (e.capabilities.cpu.vendor if e.capabilities.cpu else None for e in (seen.source, seen.target))
    if here is None or there is None:
        silent = seen.source.name if here is None else seen.target.name
        return Verdict("unknown", f"{silent} does not say who made its CPU", "look at lscpu there")
    if here != there:
        return Verdict(
            "risk", f"{seen.source.name} is {here}, {seen.target.name} is {there}, and no vendor is asked for",
            "what differs between vendors is not in the list of features: power the guest off, and start it there",
        )  # fmt: skip
    return Verdict("ok", f"both hosts are {here}")


def passthrough(seen: Observation) -> Verdict | None:
    """A guest that has whatever its host has: libvirt compares nothing and moves it anywhere."""
    moved = seen.moved
    if moved is None or moved.cpu is None or moved.cpu.mode not in _WHATEVER_THE_HOST_HAS:
        return None
    here, there = seen.source, seen.target
    remedy = (
        "give it a baseline of both hosts and power it off and on: plan with baseline= and restart=True; "
        "or force=('PASSTHROUGH',) if you know better"
    )
    if here.cpu.status != "ok" or there.cpu.status != "ok":
        silent = here if here.cpu.status != "ok" else there
        return Verdict("unknown", f"{silent.name}: {silent.cpu.reason}", remedy)
    lost = _names(lacking(here.cpu, there))
    if lost:
        return Verdict("risk", f"mode={moved.cpu.mode!r}: libvirt would move it without a word, and on "
            f"{there.name} it would lose {some(lost, most=12)}", remedy,
        )  # fmt: skip
    facts = ("family", "model_number", "stepping", "microcode", "maxphysaddr")
    differ = [f for f in facts if here.capabilities.facts.get(f) != there.capabilities.facts.get(f)]
    differ += ["QEMU"] if here.qemu != there.qemu else []
    differ += _names(here.cpu.offered ^ there.cpu.offered)
    if differ:
        what = some(differ, most=12)
        return Verdict("risk", f"mode={moved.cpu.mode!r}, and {here.name} and {there.name} differ in {what}", remedy)
    return Verdict("unknown", f"mode={moved.cpu.mode!r}; the hosts are equal in all that libvirt tells, of their "
        "kernels it tells nothing", f"compare uname -r of {here.name} and {there.name}; equal: force=('PASSTHROUGH',)",
    )  # fmt: skip


def host_model(seen: Observation) -> Verdict | None:
    """Running it is a custom CPU, judged as such; what the next power cycle would make of it is another matter."""
    if seen.new is None or seen.new.cpu is None or seen.new.cpu.mode != "host-model":
        return None
    here, there = seen.source, seen.target
    if here.cpu.status != "ok" or there.cpu.status != "ok":
        unread = here if here.cpu.status != "ok" else there
        return Verdict("unknown", f"{unread.name}: {unread.cpu.reason}", ask(unread))
    gained = _names(there.cpu.offered & ~here.cpu.offered & here.cpu.reported)
    silent = _names(there.cpu.offered & ~here.cpu.offered & ~here.cpu.reported)
    if gained:
        return Verdict("warn", f"after its next power cycle on {there.name} it has {', '.join(gained)} and cannot "
            f"come back to {here.name}", "store a baseline of both hosts: baseline=",
        )  # fmt: skip
    if silent:
        return _untold(here, silent)
    return Verdict("ok", f"what {there.name} would give it at its next start, {here.name} has too")


def address_bits(seen: Observation) -> Verdict | None:
    """A guest whose physical address bits are written down, or are those of its host."""
    wanted = seen.moved.cpu.maxphysaddr if seen.moved is not None and seen.moved.cpu is not None else None
    if wanted is None:
        return None
    end, given = seen.target, _bits(seen.target)
    if wanted.mode == "emulate" or seen.live is None:
        needed, why = wanted.bits, "the guest has"
    else:
        here = _bits(seen.source)
        needed = min(here, wanted.limit or here) if here else None
        why = f"the guest has those of {seen.source.name},"
    if needed is None and seen.live is None:
        return Verdict("ok", "it gets the physical address bits of whatever host it starts on")
    if needed is None or given is None:
        silent = end if given is None else seen.source
        return Verdict("unknown", f"{silent.name} does not say how many physical address bits it has",
            "look at address sizes in /proc/cpuinfo there",
        )  # fmt: skip
    if needed > given:
        return Verdict("risk", f"{why} {needed} physical address bits, {end.name} has {given}: libvirt moves it all "
            "the same", "choose a host with as many, or pin fewer and power the guest off and on: <maxphysaddr>",
        )  # fmt: skip
    return Verdict("ok", f"{why} {needed} physical address bits, {end.name} has {given}")


def _bits(end: End) -> int | None:
    for cpu in (end.capabilities.cpu, end.cpu.cpu):
        if cpu is not None and cpu.maxphysaddr is not None and (cpu.maxphysaddr.bits or cpu.maxphysaddr.limit):
            return cpu.maxphysaddr.bits or cpu.maxphysaddr.limit
    return None


def next_start(seen: Observation) -> Verdict | None:
    """The CPU that a guest that is off would start with at the target."""
    cpu, end = seen.new.cpu if seen.new else None, seen.target
    if cpu is None:
        return Verdict("ok", "the definition leaves the CPU to the hypervisor")
    if cpu.mode in _WHATEVER_THE_HOST_HAS and not cpu.features:
        return Verdict("ok", f"mode={cpu.mode!r}: it starts with whatever {end.name} has")
    remedy = "store a baseline of the hosts where it shall start: vc.apply_baseline"
    if end.cpu.status != "ok":
        return Verdict("unknown", f"{end.name}: {end.cpu.reason}", ask(end))
    if cpu.model is None:  # host-model and the like: only what is listed beside the mode is asked for
        listed = CpuMap.load().set_of(n for n, policy in cpu.features if policy in ("force", "require"))
        asked = Reading(status="ok", cpu=cpu, offered=listed)
    else:
        asked = reading(cpu, host=end.name, libvirt=end.libvirt)
    found = _fits(end, "", asked, remedy)
    if found.severity == "block" and cpu.check == "none":
        return Verdict("risk", f"{found.evidence}; the definition says check='none': libvirt starts the guest with "
            "less and says nothing", remedy,
        )  # fmt: skip
    return found


def tsc(seen: Observation) -> Verdict | None:
    """A guest that counts on an unchanging TSC frequency."""
    moved = seen.moved
    has_invtsc = bool(seen.live_cpu.offered & CpuMap.load().set_of(["invtsc"]))
    if moved is None or not (has_invtsc or moved.tsc_frequency):
        return None
    wanted = moved.tsc_frequency
    if not wanted and seen.transfer.offline:  # what starts takes the frequency of its host
        return None
    if not wanted:
        return Verdict(
            "block", "the CPU has invtsc and the definition fixes no TSC frequency: libvirt refuses to move it",
            "add <timer name='tsc' frequency='...'/> to <clock>, or take invtsc out, and power the guest off and on",
        )  # fmt: skip
    facts, name = seen.target.capabilities.facts, seen.target.name
    given, scaling = facts.get("tsc_frequency"), facts.get("tsc_scaling")
    if not isinstance(given, int):
        return Verdict("unknown", f"{name} gives no TSC frequency; the guest has {wanted} Hz", "look at dmesg there")
    if abs(given - wanted) <= given * _PPM // 1_000_000:
        return Verdict("ok", f"{name} has {given} Hz, within {_PPM} ppm of the guest's {wanted} Hz")
    differ = f"{name} has {given} Hz, the guest {wanted} Hz"
    if scaling is False:
        return Verdict("risk" if seen.transfer.offline else "block", f"{differ}, and it cannot scale",
            "choose a host of the same frequency",
        )  # fmt: skip
    claim = "says that it scales, which is a claim and no proof" if scaling else "does not say whether it scales"
    return Verdict("warn", f"{differ}, and it {claim}", "try with a guest that nobody misses")


def _names(features: int) -> list[str]:
    return CpuMap.load().names(features)
