"""The findings of an audit: each with an id that stays, how bad it is, what to do, and the documents it rests on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pandas as pd

from vmcompat.audit.case import Case, Group
from vmcompat.audit.mitigations import AS_ITS_HOST, MITIGATIONS, controls_of, needless, state
from vmcompat.baseline.answer import some
from vmcompat.baseline.meanings import CONTROLS_OF, LEVELS, level, meaning
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import AUDIT, frame

_ALARMING: Final = 50.0  # the weight of a control that closes a hole rather than making its closing cheaper
_IN_ID: Final = 3  # names
KINDS: Final = ("security", "coverage", "operation", "performance")
SEVERITIES: Final = ("red", "amber", "unknown", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One finding.

    Attributes
    ----------
    id : str
        The same as long as the finding is: its code, what it is about, and the feature if it is about one.
    kind : {"coverage", "security", "performance", "operation"}
    severity : {"red", "amber", "unknown", "note"}
    subject : str
        A host, a group or a domain.
    told, remedy : str
        In words, and what to do about it.
    sources : tuple of (str, str)
        The documents that it rests on, with their SHA-256.
    """

    id: str
    kind: str
    severity: str
    subject: str
    told: str
    remedy: str = ""
    sources: tuple[tuple[str, str], ...] = ()


def points(case: Case) -> tuple[Point, ...]:
    """All findings, in the order in which they were looked for; what has one id is one."""
    found: dict[str, Point] = {}
    for point in (point for look in _LOOKS for point in look(case)):
        if (first := found.get(point.id)) is not None:
            sources = tuple(dict.fromkeys((*first.sources, *point.sources)))
            point = replace(first, told=f"{first.told}; {point.told}", sources=sources)
        found[point.id] = point
    return tuple(found.values())


def judged(case: Case, found: Sequence[Point]) -> pd.DataFrame:
    """The findings with what waivers and the earlier report say of them, worst first, then security first.

    Columns of ``schema.AUDIT``, index ``id``.
    """
    waivers = {waiver.finding: waiver for waiver in case.waivers or ()}
    known_then = case.before is not None and case.before.has_findings
    earlier = frozenset(case.before.findings if case.before is not None else ())
    rows = []
    for point in found:
        waiver = waivers.get(point.id)
        status = "open" if waiver is None else "waived" if waiver.holds(case.at) else "waiver expired"
        rows.append(
            {
                "kind": point.kind,
                "severity": "red" if status == "waiver expired" else point.severity,
                "subject": point.subject,
                "finding": point.told,
                "remedy": point.remedy,
                "status": status,
                "owner": waiver and waiver.owner,
                "expiry": waiver and waiver.expiry.isoformat(),
                "waived_because": waiver and waiver.reason,
                "is_new": point.id not in earlier if known_then else None,
                "sources": tuple(source for source, _ in point.sources),
                "sha256": tuple(sha256 for _, sha256 in point.sources),
            }
        )  # fmt: skip
    table = frame(AUDIT, rows, index=pd.Index([point.id for point in found], dtype="str", name="id"))
    worst_first = sorted(
        range(len(rows)), key=lambda i: (SEVERITIES.index(rows[i]["severity"]), KINDS.index(rows[i]["kind"]))
    )
    return table.iloc[worst_first]


# ---- what could not be seen


def _coverage(case: Case) -> Iterator[Point]:
    unknown = frozenset(case.fleet.unknown)
    for f in case.fleet.findings.to_dict("records"):
        host, severity = f["host"], "unknown" if f["host"] in unknown else "amber"
        yield Point(
            id=f"{f['code'].upper()}:{host}", kind="coverage", severity="note" if f["severity"] == "info" else severity,
            subject=host, told=f"{host}: {f['message']}", remedy=f["remedy"], sources=_host_sources(case.fleet, [host]),
        )  # fmt: skip
    for f in [] if case.domains is None else case.domains.findings.to_dict("records"):
        yield Point(
            id=f"{f['code'].upper()}:{f['domain']}", kind="coverage",
            severity={"error": "unknown", "info": "note"}.get(f["severity"], "amber"),
            subject=f["domain"], told=f"guest {f['domain']}: {f['message']}", remedy=f["remedy"],
        )  # fmt: skip


def _host_sources(fleet: Fleet, hosts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The document of each host that the view rests on; all of a host whose CPU is not known."""
    found: dict[tuple[str, str], None] = {}
    for i in fleet.positions(hosts):
        document = fleet.readings[i].document
        used = [document] if document is not None else fleet.records[i].documents
        found |= dict.fromkeys((d.source, d.sha256) for d in used)
    return tuple(found)


# ---- security


def _lacking(case: Case) -> Iterator[Point]:
    """Controls that guests of a host are not offered though the same processor has them, here or elsewhere."""
    readings, bare = case.guest_view.readings, case.host_view.readings
    signatures = list(case.host_view.hosts[["family", "model_number", "stepping"]].itertuples(index=False, name=None))
    names = case.fleet.names
    alike: dict[tuple[Any, ...], list[int]] = {}
    for i, x in enumerate(readings):
        if x.status == "ok" and x.cpu is not None and not any(pd.isna(value) for value in signatures[i]):
            alike.setdefault((x.cpu.vendor or x.model_vendor, *signatures[i]), []).append(i)
    for (vendor, *_), same in alike.items():
        for control in controls_of(vendor):
            bit = case.fleet.cpu_map.set_of([control]) if control in case.fleet.cpu_map.index else 0
            for i in same:
                x = readings[i]
                if not bit & x.reported & ~x.offered or needless(control, case.fleet.cpu_map.names(x.offered)):
                    continue
                if bare[i].status == "ok" and bare[i].offered & bit:
                    yield _not_passed(case, names[i], control)
                elif having := [names[j] for j in same if readings[j].offered & bit]:
                    yield _behind(case, names[i], control, having, len(same))


def _not_passed(case: Case, host: str, control: str) -> Point:
    row = case.fleet.hosts.loc[host]
    return Point(
        id=f"CONTROL_NOT_PASSED_ON:{host}:{control}", kind="security", severity="amber", subject=host,
        told=f"{host} has {control} ({meaning(control).text}), and its hypervisor (QEMU {_given(row['qemu'])}, libvirt "
        f"{_given(row['libvirt'])}) does not offer it to guests",
        remedy="upgrade the kernel and QEMU of the host, then fetch its documents again",
        sources=_host_sources(case.host_view, [host]) + _host_sources(case.guest_view, [host]),
    )  # fmt: skip


def _behind(case: Case, host: str, control: str, having: list[str], n_same: int) -> Point:
    hosts = case.host_view.hosts
    evidence = [
        f"{what} {_shown(column, hosts[column][host])} here, {_shown(column, hosts[column][having[0]])} on {having[0]}"
        for column, what in (("microcode", "microcode"), ("qemu", "QEMU"), ("kernel", "kernel"))
        if column in hosts and _differs(hosts[column][host], hosts[column][having[0]])
    ]
    what = evidence[0].partition(" ")[0] if evidence else ""
    cure = {"microcode": "give it the newer microcode (BIOS or the microcode package) and reboot it"}.get(
        what, "upgrade it like the others"
    )
    told = f"{host} offers its guests no {control} ({meaning(control).text}); {len(having)} of {n_same} hosts with the "
    told += "same processor do"
    return Point(
        id=f"CONTROL_LACKING:{host}:{control}", kind="security", severity="red", subject=host,
        told=told + (f" ({'; '.join(evidence)})" if evidence else ""),
        remedy=f"{cure}, then fetch its documents again",
        sources=_host_sources(case.guest_view, [host, having[0]]),
    )  # fmt: skip


def _differs(here: Any, there: Any) -> bool:
    return bool(pd.notna(here) and pd.notna(there) and here != there)


def _shown(column: str, value: Any) -> str:
    return f"{int(value):#x}" if column == "microcode" else str(value)


def _given(value: object) -> str:
    return value if isinstance(value, str) else "not known"


def _baseline_controls(case: Case) -> Iterator[Point]:
    """Controls that no guest of a group can switch on though some of its hosts have them."""
    for group in case.groups:
        if group.base is None:
            continue
        lost = group.base.lost
        vendor = _vendor(group)
        for control in lost.loc[lost["polarity"] == "control", "feature"].unique():
            if control not in controls_of(vendor):
                continue
            lacking = _lacking_in(case, group, control)
            if lacking:
                yield Point(
                    id=f"CONTROL_LOST:{group.label}:{control}", kind="security",
                    severity="red" if meaning(control).value >= _ALARMING else "amber", subject=group.label,
                    told=f"guests with the baseline of {group.label} cannot use {control} "
                    f"({meaning(control).text}): {some(lacking)} {_verb(lacking)} it",
                    remedy=f"mend {some(lacking)}, or take {_them(lacking)} out of the group, and make the baseline "
                    "again",
                    sources=_host_sources(case.fleet, lacking),
                )  # fmt: skip
        for hazard in lost.loc[lost["polarity"] == "hazard", "feature"].unique():
            if meaning(hazard).value:
                having = tuple(lost.loc[lost["feature"] == hazard, "host"])
                yield Point(
                    id=f"HAZARD_HIDDEN:{group.label}:{hazard}", kind="security", severity="amber",
                    subject=group.label,
                    told=f"guests with the baseline of {group.label} are not told of {hazard} "
                    f"({meaning(hazard).text}), which {some(having)} {'has' if len(having) == 1 else 'have'}",
                    remedy="keep these hosts and the others in different groups",
                    sources=_host_sources(case.fleet, having),
                )  # fmt: skip


def _vendor(group: Group) -> str | None:
    assert group.base is not None
    member = group.base.members[0]
    return member.cpu.vendor or member.model_vendor


def _lacking_in(case: Case, group: Group, feature: str) -> list[str]:
    """Hosts of a group that are known to lack a feature and need it."""
    bit = case.fleet.cpu_map.set_of([feature])
    found = []
    for i in case.fleet.positions(group.hosts):
        x = case.fleet.readings[i]
        if x.status == "ok" and bit & x.reported & ~x.offered:
            found.append(case.fleet.names[i])
    return found


def _verb(hosts: list[str]) -> str:
    return "lacks" if len(hosts) == 1 else "lack"


def _them(hosts: list[str]) -> str:
    return "it" if len(hosts) == 1 else "them"


def _guests(case: Case) -> Iterator[Point]:
    """Running guests without a switch that their host would give them, or told to be immune where they are not.

    Guests of which the same is to be said are one finding: another set of them is another finding.
    """
    if case.domains is None or case.demand is None:
        return
    missed: dict[tuple[str, ...], list[str]] = {}
    stale: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    sources: dict[str, tuple[tuple[str, str], ...]] = {}
    cpu_map = case.guest_view.cpu_map
    at = {name: i for i, name in enumerate(case.guest_view.names)}
    needs = case.demand.to_dict("records")
    for name, row, need in zip(case.domains.names, case.domains.frame.to_dict("records"), needs, strict=True):
        x = case.guest_view.readings[at[row["host"]]] if row["live"] and row["host"] in at else None
        if x is None or x.cpu is None or need["mode"] in AS_ITS_HOST or "features" in need["unknown"]:
            continue
        has, vendor = frozenset(need["features"]), x.cpu.vendor or x.model_vendor
        offered = frozenset(cpu_map.names(x.offered))
        sources[name] = ((row["source"], row["sha256"]), *_host_sources(case.guest_view, [row["host"]]))
        if without := _without(vendor, has, offered):
            missed.setdefault(without, []).append(name)
        bits = cpu_map.set_of(has & cpu_map.index.keys()) & x.reported & ~x.offered
        if told := tuple(f for f in cpu_map.names(bits) if meaning(f).polarity == "immunity"):
            stale.setdefault((row["host"], told), []).append(name)
    for without, names in missed.items():
        yield Point(
            id=f"GUEST_WITHOUT_CONTROL:{_key(without)}:{_key(names)}", kind="security", severity="amber",
            subject=", ".join(names),
            told=f"{_run(names)} without {', '.join(without)}, which the host would give: {some(names, 8)}",
            remedy="write a baseline with it into the definition, and power the guest off and on: a reboot inside is "
            "not enough",
            sources=tuple(source for name in names for source in sources[name]),
        )  # fmt: skip
    for (host, told), names in stale.items():
        yield Point(
            id=f"IMMUNITY_STALE:{_key(told)}:{_key(names)}", kind="security", severity="red", subject=", ".join(names),
            told=f"{_run(names)} on {host} believing in {', '.join(told)}, which it does not have: {some(names, 8)}",
            remedy="power the guest off and on with a baseline that leaves it out",
            sources=tuple(source for name in names for source in sources[name]),
        )  # fmt: skip


def _without(vendor: str | None, has: frozenset[str], offered: frozenset[str]) -> tuple[str, ...]:
    """One switch of each class of mitigation that the host offers and the guest does without."""
    # what the processor is immune to, its guests are not open to either, whether they know it or not
    immune = frozenset(f for f in offered if meaning(f).polarity == "immunity")
    return tuple(
        next(c for c in mitigation.controls[CONTROLS_OF[str(vendor)]] if c in offered)
        for mitigation in MITIGATIONS
        if state(mitigation, vendor, offered, None) == "has"
        and state(mitigation, vendor, has | immune, None) == "lacks"
    )


def _run(names: Sequence[str]) -> str:
    return f"{len(names):,} guest{'s run' if len(names) > 1 else ' runs'}"


# ---- performance


def _levels(case: Case) -> Iterator[Point]:
    """Groups whose guests get a lower ABI level, or fewer capabilities, than some of their hosts have."""
    order = [None, *LEVELS]
    for group in case.groups:
        if group.base is None or not group.base.gives:
            continue
        best = max((level(case.fleet.cpu_map.names(m.offered)) for m in group.base.members), key=order.index)
        if order.index(best) > order.index(group.base.level):
            needed = LEVELS[str(best)]
            lacking = {h: n for h in group.base.hosts for n in [_missing(case, h, needed)] if n}
            yield Point(
                id=f"LEVEL_LOST:{group.label}", kind="performance", severity="amber", subject=group.label,
                told=f"guests with the baseline of {group.label} get {group.base.level or 'less than x86-64-v1'}, "
                f"where some of its hosts have {best}: "
                f"{some([f'{h} lacks {some(n, 3)}' for h, n in lacking.items()], 3)}",
                remedy="see who vetoes what, and the recommended moves",
                sources=_host_sources(case.fleet, lacking),
            )  # fmt: skip
        lost = group.base.lost
        names = list(lost.loc[lost["polarity"] == "capability", "feature"].unique())
        if names:
            yield Point(
                id=f"CAPABILITIES_LOST:{group.label}", kind="performance", severity="note", subject=group.label,
                told=f"guests with the baseline of {group.label} go without {some(names, 6)}, which some of its hosts "
                "have",
                remedy="see who vetoes what",
                sources=_host_sources(case.fleet, lost.loc[lost["polarity"] == "capability", "host"].unique()),
            )  # fmt: skip


def _missing(case: Case, host: str, needed: frozenset[str]) -> list[str]:
    x = case.fleet.readings[case.fleet.positions([host])[0]]
    return case.fleet.cpu_map.names(case.fleet.cpu_map.set_of(needed) & x.reported & ~x.offered)


# ---- operation


def _deployed(case: Case) -> Iterator[Point]:
    if case.conformance is None:
        return
    for host, row in case.conformance.frame.iterrows():
        if row["conforms"] == "yes":
            continue
        known = row["conforms"] == "no"
        missing = f"is known to lack {some(row['missing'])}" if len(row["missing"]) else row["reason"]
        of = f" {row['baseline']}" if isinstance(row["baseline"], str) else ""
        yield Point(
            id=f"{'NOT_CONFORMING' if known else 'CONFORMANCE_UNKNOWN'}:{host}", kind="operation",
            severity="red" if known else "unknown", subject=str(host),
            told=f"{host} {'does not satisfy' if known else 'may not satisfy'} the deployed baseline{of}: {missing}",
            remedy="move no guest there until it is mended; guests that run there already go on" if known
            else "mend what could not be read, and ask again",
            sources=_host_sources(case.fleet, [str(host)]),
        )  # fmt: skip


def _twins(case: Case) -> Iterator[Point]:
    for row, sentence in zip(case.twins.frame.to_dict("records"), case.twins.explain(), strict=True):
        what = row["what"] if row["what"] != "features" else _key(row["features"])
        yield Point(
            id=f"TWIN_DIFFERS:{_key(row['hosts'])}:{what}", kind="operation", severity="amber",
            subject=", ".join(row["hosts"]), told=sentence,
            remedy="bring them to the same microcode, BIOS settings and versions, or plan with the difference",
            sources=_host_sources(case.fleet, row["hosts"]),
        )  # fmt: skip


def _key(names: Sequence[str]) -> str:
    """Names in an id: another set of them is another finding, which no waiver of this one covers."""
    if len(names) <= _IN_ID:
        return "+".join(names)
    rest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    return f"{'+'.join(names[:_IN_ID])}+{len(names) - _IN_ID}~{rest}"


_MOBILITY: Final = {
    "STUCK": ("amber", "can go to no other host", "see the section on guests: what holds each, and what to do"),
    "PERHAPS_STUCK": ("unknown", "can go to no other host for sure", "see the section on guests"),
    "MANAGED": ("note", "can only be moved by the manager that they belong to", "move them there"),
}


def _stuck(case: Case) -> Iterator[Point]:
    """Guests that can go nowhere, together where the same holds them; the section on guests has each of them."""
    if case.reach is None or case.domains is None:
        return
    found = case.reach.domains
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, row in zip(found.index, found.to_dict("records"), strict=True):
        if row["verdict"] != "free":
            code = "STUCK" if row["verdict"] == "stuck" else "PERHAPS_STUCK"
            groups.setdefault(("MANAGED" if row["n_by_manager"] else code, row["held_by"]), []).append(name)
    guests = case.domains.frame
    for (code, held), names in groups.items():
        severity, told, remedy = _MOBILITY[code]
        yield Point(
            id=f"{code}:{_key(held)}:{_key(names)}", kind="operation", severity=severity, subject=", ".join(names),
            told=f"{len(names):,} guest{'s' if len(names) > 1 else ''} {told} ({', '.join(held)}): {some(names, 8)}",
            remedy=remedy, sources=tuple((guests["source"][name], guests["sha256"][name]) for name in names),
        )  # fmt: skip


_LOOKS: Final[tuple[Callable[[Case], Iterator[Point]], ...]] = (
    _coverage, _lacking, _baseline_controls, _guests, _levels, _deployed, _twins, _stuck,
)  # fmt: skip
