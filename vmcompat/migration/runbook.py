"""The steps of a plan for people who type them: a script of virsh lines, and a page for a change ticket.

What comes from outside (names, URIs, XML) stays what it is in both: one word to the shell, and text to Markdown.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from vmcompat.migration.domain import Domain, difference, typed
from vmcompat.migration.order import Order
from vmcompat.migration.preflight import Finding

_NAME_BYTES: Final = 200  # of a domain, in the name of a file, which may have 255
_MARKDOWN: Final = re.compile(r"([\\`*_\[\]<>&#|~!])")


class _Part(NamedTuple):
    title: str
    lines: tuple[str, ...]


def commands(order: Order) -> str:
    """See :meth:`vmcompat.migration.migrate.MigrationPlan.commands`."""
    script = "\n".join(["set -e", *(line for part in _parts(order) for line in part.lines)])
    if order.stops:
        stops = [f"blocked: {f.id} ({f.severity}): {f.evidence}" for f in order.stops]
        return commented("\n".join([*stops, script]))
    return f"{script}\n"


def diff(order: Order) -> str:
    """See :attr:`vmcompat.migration.migrate.MigrationPlan.diff`."""
    old, new = order.seen.stored, order.seen.new
    return difference(old.xml, new.xml, name=_name(order)) if old and new else ""


def virsh(uri: str, command: str, *options: str) -> str:
    """A line for a shell."""
    return " ".join(["virsh", "-c", shlex.quote(uri), command, *(shlex.quote(o) for o in options)])


# ---- the script


def commented(text: str) -> str:
    """Lines of which a shell does nothing."""
    return "".join(f"# {line}\n" for line in text.splitlines())


def _domain(order: Order) -> Domain | None:
    return order.seen.live or order.seen.stored


def _name(order: Order) -> str:
    of = _domain(order)
    return typed(order.domain, of.uuid if of else "")


def _file(order: Order, when: str) -> str:
    name, of = _name(order), _domain(order)
    return f"./{of.uuid if of and ('/' in name or len(name.encode()) > _NAME_BYTES) else name}.{when}.xml"


def _parts(order: Order) -> Iterator[_Part]:
    kept = "Keep the definition as it is"
    yield _Part(f"{kept}, and make the new one" if diff(order) else kept, tuple(_redefining(order)))
    if order.restart:
        yield _Part("Power the guest off and on", tuple(_power_cycling(order)))
    yield _Part("Move it", (_migrating(order),))
    there, of = order.seen.target.uri, ("--domain", _name(order))
    if order.transfer.hold:
        yield _Part("Let it run, now that the source has let go of it", (virsh(there, "resume", *of),))
    yield _Part("See where it is", (virsh(there, "domstate", *of),))
    if order.seen.stored and order.seen.source.autostart:
        yield _Part("Let the new host start it", (virsh(there, "autostart", *of),))


def _redefining(order: Order) -> Iterator[str]:
    before, after = _file(order, "before"), _file(order, "after")
    dump = virsh(order.seen.source.uri, "dumpxml", "--inactive", "--security-info", "--domain", _name(order))
    yield f"umask 077; {dump} > {shlex.quote(before)}"
    if change := diff(order):
        yield f"patch -o {shlex.quote(after)} {shlex.quote(before)} <<'END'"
        yield from change.removesuffix("\n").split("\n")
        yield "END"
        for end in (order.seen.source, order.seen.target):
            yield virsh(end.uri, "hypervisor-cpu-compare", "--error", *_hypervisor(order), after)


def _power_cycling(order: Order) -> Iterator[str]:
    here, of = order.seen.source.uri, ("--domain", _name(order))
    if diff(order):
        yield virsh(here, "define", _file(order, "after"))
    yield virsh(here, "destroy" if order.restart == "destroy" else "shutdown", *of)
    if order.restart != "destroy":
        yield f"until LC_ALL=C {virsh(here, 'domstate', *of)} | grep -qx 'shut off'; do sleep 1; done"
    yield virsh(here, "start", *of)


def _migrating(order: Order) -> str:
    seen, transfer = order.seen, order.transfer
    options = list(_transfer(order))
    options += ["--persistent", "--undefinesource"] if seen.stored else []
    options += ["--persistent-xml", _file(order, "after")] if diff(order) else []
    there = seen.target.uri if transfer.managed else seen.peer_uri or "PEER_URI"
    options += ["--domain", _name(order), "--desturi", there]
    options += ["--migrateuri", seen.migrate_uri] if seen.migrate_uri else []
    return virsh(seen.source.uri, "migrate", *options)


def _transfer(order: Order) -> Iterator[str]:
    """Virsh's options for how the guest travels."""
    transfer = order.transfer
    yield from () if transfer.managed else ("--p2p",)
    yield from ("--unsafe",) if transfer.unsafe else ()
    if transfer.offline:
        yield "--offline"
        return
    yield from ("--live", "--verbose")
    yield from ("--suspend",) if transfer.hold else ()
    yield from ("--tls",) if transfer.tls else ()
    yield from ("--compressed", "--comp-methods", transfer.compression) if transfer.compression else ()
    yield from ("--parallel", "--parallel-connections", str(transfer.parallel)) if transfer.parallel else ()
    yield from ("--bandwidth", str(transfer.bandwidth)) if transfer.bandwidth else ()
    yield from ("--auto-converge",) if transfer.auto_converge else ()
    copies = {"all": "--copy-storage-all", "incremental": "--copy-storage-inc"}
    yield from (copies[transfer.copy_disks],) if transfer.copy_disks else ()
    if transfer.post_copy:
        yield from ("--postcopy", "--timeout", str(_deadline(order)), "--timeout-postcopy")
    elif order.policy.at_deadline == "pause":
        yield from ("--timeout", str(_deadline(order)), "--timeout-suspend")


def _deadline(order: Order) -> int:
    return math.ceil(order.policy.deadline(order.memory))


def _hypervisor(order: Order) -> Iterator[str]:
    """Options that name the hypervisor; without them virsh takes the host's default, which may be another."""
    of = order.seen.stored or order.seen.live
    for option in ("emulator", "arch", "machine", "virttype"):
        if value := getattr(of, option):
            yield from (f"--{option}", value)


# ---- the page


def runbook(order: Order) -> str:
    """See :meth:`vmcompat.migration.migrate.MigrationPlan.runbook`."""
    seen = order.seen
    sections = [
        [f"# Move {_code(order.domain)} from {_text(seen.source.name)} to {_text(seen.target.name)}"],
        _what(order),
        _findings(order),
        _owners(order),
        _steps(order),
        [] if order.transfer.offline or order.stops else _meanwhile(order),
        _arrived(order),
        _failure(order),
    ]
    return "\n\n".join(block for section in sections for block in section) + "\n"


def _what(order: Order) -> list[str]:
    seen, of = order.seen, _domain(order)
    facts = [f"Guest: {_code(order.domain)}, {_text(seen.state)}"]
    if of:
        size = f", {of.memory / 2**20:g} GiB" if of.memory else ""
        facts[0] += f", UUID {_code(of.uuid)}, {of.vcpus} virtual CPUs{size}"
    for role, end in (("From", seen.source), ("To", seen.target)):
        qemu = f", QEMU {_text(end.qemu)}" if end.qemu else ""
        facts.append(f"{role}: {_text(end.name)} at {_code(end.uri)}, libvirt {_text(end.libvirt)}{qemu}")
    facts.append(f"How: {order.way}, policy {_text(order.policy.name)}")
    if seen.baseline:
        when = "before it moves" if order.restart else "at its next start; until then it keeps the CPU it runs with"
        facts.append(f"CPU: the {_text(seen.baseline)} baseline, {when}")
    facts.append("Why: (to be filled in by whoever asks for the change; the plan cannot know)")
    return [_list(facts)]


def _findings(order: Order) -> list[str]:
    if order.stops:
        stops = ", ".join(_code(f.id) for f in order.stops)
        verdict = f"**Blocked** by {stops}: the commands below are comments until that is settled and planned again."
    else:
        verdict = "Nothing stops it."
    if order.forced:
        verdict += f" Passed on somebody's word (force): {', '.join(_code(name) for name in order.forced)}."
    lines = [_finding(f, order) for f in order.findings if f.severity != "ok"]
    if fine := [_code(f.id) for f in order.findings if f.severity == "ok"]:
        lines.append(f"ok: {', '.join(fine)}")
    return ["## What was found", verdict, _list(lines)]


def _finding(finding: Finding, order: Order) -> str:
    forced = ", forced" if finding.id in order.forced else ""
    remedy = f" *What to do:* {_text(finding.remedy)}" if finding.remedy else ""
    return f"**{finding.severity}{forced}** {_code(finding.id)}: {_text(finding.evidence)}.{remedy}"


def _owners(order: Order) -> list[str]:
    of = _domain(order)
    blocks = []
    for manager, says, command in of.managers if of else ():
        blocks += [
            f"{_text(manager)} manages this guest ({_text(says)}), and would not know of a move by virsh. Its own way:",
            _fence(_visible(command), kind="text"),
        ]
    return ["## Whose guest it is", *blocks] if blocks else []


def _steps(order: Order) -> list[str]:
    blocks = ["## Steps", "In a shell, in one folder, one after the other; stop at the first line that fails."]
    of = _domain(order)
    why = f"blocked by {', '.join(f.id for f in order.stops)}"
    if of and of.managers and "OWNER" not in order.forced:
        why = f"not to be typed: {', '.join(manager for manager, _, _ in of.managers)} manages this guest; {why}"
    for number, part in enumerate(_parts(order), 1):
        script = "\n".join(part.lines)
        shown = commented(f"{_visible(why)}\n{script}").rstrip("\n") if order.stops else script
        blocks += [f"### {number}. {part.title}", _fence(shown, kind="sh")]
    return blocks


def _meanwhile(order: Order) -> list[str]:
    here, of = order.seen.source.uri, ("--domain", _name(order))
    first, *more = order.policy.downtimes
    lines = [
        virsh(here, "migrate-setmaxdowntime", *of, "--downtime", str(first)),
        virsh(here, "domjobinfo", *of),
        *(virsh(here, "migrate-setmaxdowntime", *of, "--downtime", str(downtime)) for downtime in more),
        virsh(here, "domjobabort", *of),
    ]
    steps = order.policy.steps(order.transfer, memory=order.memory)
    deadline = order.policy.deadline(order.memory)
    # interrupted without a terminal, virsh 9.0 does not abort; killed, it leaves a peer-to-peer migration running
    abort = (
        f"After {deadline:.0f} s the last one, since virsh itself does not give up: the guest goes on at the source."
    )
    if order.transfer.post_copy:
        abort = "The last line aborts, but not after the switch to post-copy, from which there is no way back."
    elif order.policy.at_deadline == "pause":
        abort = (
            f"After {deadline:.0f} s virsh pauses the guest so that it can finish; {order.policy.pause_seconds:.0f} s "
            "later the last line, and `virsh resume` if the guest is still paused then."
        )
    return [
        "## While it moves",
        f"What `plan.run()` does by itself under the policy {_text(order.policy.name)}:",
        _list(_text(step) for step in steps),
        f"By hand, in another shell, once it is under way; one of the middle lines after each stall. {abort}",
        _fence("\n".join(lines), kind="sh"),
    ]


def _arrived(order: Order) -> list[str]:
    seen, of = order.seen, ("--domain", _name(order))
    state = "shut off" if order.transfer.offline else "paused" if seen.state == "paused" else "running"
    where = f"On {_text(seen.target.name)} it is `{state}`"
    left = f"{_text(seen.source.name)} does not know it any more" if seen.stored else "on the source it is gone"
    lines = [
        virsh(seen.target.uri, "domstate", "--reason", *of),
        virsh(seen.source.uri, "domstate", "--reason", *of),
    ]
    if not order.transfer.offline:
        lines.append(virsh(seen.target.uri, "domjobinfo", "--completed", *of))
    return [
        "## How to see that it worked",
        f"{where}, and {left}: the second line ends with an error that says so.",
        _fence("\n".join(lines), kind="sh"),
    ]


def _failure(order: Order) -> list[str]:
    seen, of = order.seen, ("--domain", _name(order))
    look = [virsh(end.uri, "domstate", "--reason", *of) for end in (seen.source, seen.target)]
    ask = f"import vmcompat as vc\n\nprint(vc.recover({order.domain!r}, {seen.source.uri!r}, {seen.target.uri!r}))"
    blocks = [
        "## If it fails",
        "Start the guest nowhere, and resume it nowhere, before both hosts have said what they have:",
        _fence("\n".join([*look, virsh(seen.source.uri, "domjobinfo", *of)]), kind="sh"),
        "What that means, and what is safe now, says (in Python, with passwords put back into the URIs):",
        _fence(ask, kind="python"),
    ]
    if order.stops:
        return blocks
    if not order.transfer.offline:
        blocks += [
            "A transfer that gets nowhere while the guest is `running` on the source is ended by the line below; the "
            "guest goes on there.",
            _fence(virsh(seen.source.uri, "domjobabort", *of), kind="sh"),
        ]
    if order.transfer.post_copy:
        again = virsh(seen.source.uri, "migrate", "--postcopy-resume", "--postcopy", "--live",
            *(["--p2p"] if not order.transfer.managed else []), *of,
            "--desturi", seen.target.uri if order.transfer.managed else seen.peer_uri or "PEER_URI",
        )  # fmt: skip
        blocks += [
            "After the switch to post-copy the guest is in two halves: destroy neither. Once the link is back, with "
            "libvirt 8.5 and QEMU 3.0 or later on both hosts:",
            _fence(again, kind="sh"),
        ]
    return blocks + _back(order)


def _back(order: Order) -> list[str]:
    seen, before = order.seen, _file(order, "before")
    blocks = ["## Back", f"Once it has arrived, back is another move, from {_text(seen.target.name)}: plan it anew."]
    if diff(order):
        at = seen.source if order.restart else seen.target
        blocks += [
            f"The definition as it was is in {_code(before)}. It counts from the next start on:",
            _fence(virsh(at.uri, "define", before), kind="sh"),
        ]
    return blocks


# ---- Markdown


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _visible(text: str) -> str:
    """In one line, and without what does not show: such characters by their numbers."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _text(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", _visible(text))


def _longest_ticks(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _code(text: str) -> str:
    """Text in a line, as it is."""
    shown = _visible(text)
    ticks = "`" * (_longest_ticks(shown) + 1)
    # next to ticks it needs a blank, and Markdown takes one blank off either end
    pad = " " if shown[:1] in ("`", " ") or shown[-1:] in ("`", " ") else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def _fence(text: str, *, kind: str) -> str:
    """Lines of their own, as they are: the fence is longer than any in them."""
    fence = "`" * max(3, _longest_ticks(text) + 1)
    return f"{fence}{kind}\n{text}\n{fence}"
