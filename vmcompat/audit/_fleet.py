"""The second part of the report as HTML: hosts, twins, conformance, baselines of groups, vetoes, spreads."""

from __future__ import annotations

from html import escape
from typing import Any, Final

import pandas as pd

from vmcompat.audit._findings import Documents, filtered, mark, names
from vmcompat.audit.case import Case
from vmcompat.baseline.answer import some
from vmcompat.baseline.meanings import level
from vmcompat.fleet.sources import natural
from vmcompat.markup import Cell, count, details, note, number, table, text
from vmcompat.schema import CPU_STATUS

_MOST_SENTENCES: Final = 6
_SPREAD: Final = ("microcode", "libvirt", "qemu", "kernel", "bios_date", "os")


def host_frame(case: Case) -> pd.DataFrame:
    """One row a host, as the report's table shows it and the workbook holds it; index ``host``."""
    fleet, hosts = case.fleet, case.fleet.hosts
    found = hosts[["cpu_status", "arch", "vendor", "model", "microcode", "maxphysaddr", "tsc_frequency"]].copy()
    found["level"] = pd.Series(
        [level(fleet.cpu_map.names(x.offered)) if x.status == "ok" else None for x in fleet.readings],
        index=hosts.index, dtype="str",
    )  # fmt: skip
    found["n_features"] = pd.Series(
        [x.offered.bit_count() if x.status == "ok" else None for x in fleet.readings], index=hosts.index, dtype="Int64"
    )
    found["group"] = pd.Series([case.group_of.get(h) for h in fleet.names], index=hosts.index, dtype="str")
    found["running_guests"] = case.running if case.domains is not None else pd.NA
    for column in ("libvirt", "qemu", "kernel", "bios_date", "source", "sha256"):
        if column in hosts:
            found[column] = hosts[column]
    return found


def hosts(case: Case, documents: Documents) -> str:
    """The table of hosts, to search."""
    frame = host_frame(case)
    shown = [c for c in ("libvirt", "qemu", "kernel", "bios_date") if c in frame]
    head = ["host", "group", "CPU", "model", "level", "features", "microcode", "bits", "TSC [MHz]", *shown, "guests",
            "document"]  # fmt: skip
    rows = []
    for host, row in frame.iterrows():
        status = row["cpu_status"]
        cpu = text(_or(row["vendor"], _or(row["arch"], "")))
        if status != "ok":
            cpu = Cell(f"{mark('unknown')} {escape(CPU_STATUS[status])}", "wide")
        rows.append(
            [text(host), text(_or(row["group"], "")), cpu, text(_or(row["model"], "")), text(_or(row["level"], "")),
             _cell(row["n_features"]), Cell(f"{int(row['microcode']):#x}" if pd.notna(row["microcode"]) else "?", "n"),
             _cell(row["maxphysaddr"]),
             Cell(f"{row['tsc_frequency'] / 1e6:,.3f}" if pd.notna(row["tsc_frequency"]) else "?", "n"),
             *(text(_or(row[c], "?")) for c in shown), _cell(row["running_guests"]),
             Cell(documents.cite([(row["source"], row["sha256"])] if isinstance(row["source"], str) else []), "cite")]
        )  # fmt: skip
    return filtered("hosts", table(head, rows, name="hosts"), len(rows))


def _or(value: Any, other: str) -> str:
    return other if pd.isna(value) else str(value)


def _cell(value: Any) -> Cell:
    return Cell("?", "n", "not known") if pd.isna(value) else Cell(f"{int(value):,}", "n")


def twins(case: Case) -> str:
    """Hosts that should be identical and are not, in sentences."""
    if not case.twins.n_groups:
        return note(f"No two known hosts are alike by {' and '.join(case.twins.by)}: there is nothing to compare.")
    told = f"<p>{count(case.twins.n_groups, 'group')} of hosts that are alike by {escape(' and '.join(case.twins.by))}"
    sentences = case.twins.explain()
    if not sentences:
        return f"{told}: all are identical in what can be compared.</p>"
    return f"{told}.</p><ul>{''.join(f'<li>{escape(s)}</li>' for s in sentences)}</ul>"


def conformance(case: Case) -> str:
    """Whether hosts satisfy what is deployed."""
    if case.conformance is None:
        return note("What is deployed was not given (baseline=...), so that no host could be held against it.")
    sentences = case.conformance.explain()
    return f"<ul>{''.join(f'<li>{escape(s)}</li>' for s in sentences)}</ul>"


def baselines(case: Case, documents: Documents) -> str:
    """The baseline of each group and what it costs, polarities apart."""
    rows = []
    for group in case.groups:
        cells = [text(group.label), number(len(group.hosts)),
                 Cell(f"{mark('unknown')} {len(group.unknown)}", "", some(group.unknown, 20)) if group.unknown
                 else number(0)]  # fmt: skip
        if group.base is None:
            cells += [Cell(escape(group.reason), "wide"), *(text("") for _ in range(6))]
        else:
            lost = group.base.lost.drop_duplicates("feature")
            by = {p: tuple(lost.loc[lost["polarity"] == p, "feature"]) for p in ("capability", "control", "immunity")}
            cells += [
                Cell(f"<b>{escape(group.base.model)}</b>"), text(group.base.level or "below x86-64-v1"),
                number(len(group.base.gives)), _lost(by["capability"]), _lost(by["control"], "red"),
                _lost(by["immunity"]),
                Cell(documents.cite([(m.source, m.sha256) for m in group.base.members], 2), "cite"),
            ]  # fmt: skip
        rows.append(cells)
    head = ["group", "hosts", "CPU not known", "model", "level", "features", "capabilities lost", "controls lost",
            "immunities lost", "documents"]  # fmt: skip
    told = (
        "<p>Each is made of the hosts whose CPU is known; where others are counted, it may promise too much until they "
        "are read. <i>Lost</i> is what some hosts of the group offer and another is known to lack. The kinds are never "
        "added up.</p>"
    )
    return told + table(head, rows, name="baselines") + _warnings(case)


def _lost(features: tuple[str, ...], kind: str = "") -> Cell:
    return number(len(features), kind=kind, title=", ".join(features))


def _warnings(case: Case) -> str:
    told = [(group.label, w) for group in case.groups if group.base for w in group.base.warnings]
    items = "".join(f"<li>{escape(label)}: {escape(w)}</li>" for label, w in told)
    return details(f"{count(len(told), 'thing')} to know before using them", f"<ul>{items}</ul>") if told else ""


def vetoes(case: Case) -> str:
    """Who keeps what from whom, group by group."""
    parts = []
    for label, found in case.vetoes.items():
        sentences = found.explain()
        if not sentences:
            continue
        shown = "".join(f"<li>{escape(s)}</li>" for s in sentences[:_MOST_SENTENCES])
        rest = "".join(f"<li>{escape(s)}</li>" for s in sentences[_MOST_SENTENCES:])
        more = details(f"and {len(sentences) - _MOST_SENTENCES} more", f"<ul>{rest}</ul>") if rest else ""
        parts.append(f"<h3>{escape(label)}</h3><ul>{shown}</ul>{more}")
    quiet = len(case.vetoes) - len(parts)
    told = f"<p>In {count(quiet, 'group')} no host keeps anything from the others.</p>" if quiet else ""
    return "".join(parts) + told if case.vetoes else note("There is no group of two or more known hosts.")


def versions(case: Case) -> str:
    """Microcode (by model, which is what it is for), hypervisor and system versions: how many hosts have which."""
    parts = []
    for column in (c for c in _SPREAD if c in case.fleet.hosts):
        words = column.replace("_", " ")
        parts.append(f"<h3>{escape(words)}</h3>{_spread(case.fleet.hosts, column, words)}")
    return "".join(parts)


def _spread(hosts: pd.DataFrame, column: str, words: str) -> str:
    of_model = column == "microcode"
    same: dict[tuple[str, str], list[str]] = {}
    for host, model, value in zip(hosts.index, hosts["model"], hosts[column], strict=True):
        shown = "not known" if pd.isna(value) else f"{int(value):#x}" if of_model else str(value)
        same.setdefault((_or(model, "not known") if of_model else "", shown), []).append(host)
    rows = [
        [*([text(model)] if of_model else []), text(value), number(len(found)), Cell(names(found), "wide")]
        for (model, value), found in sorted(same.items(), key=lambda item: [natural(word) for word in item[0]])
    ]
    return table([*(["model"] if of_model else []), words, "hosts", "which"], rows, name="versions")


def machines(case: Case) -> str:
    """Machine types that guests use, and on which hosts they are missing."""
    if case.domains is None:
        return note("No guests were given, so that it is not known which machine types are needed.")
    hosts_frame, guests = case.fleet.hosts, case.domains.frame
    rows = []
    for machine, same in guests.dropna(subset="machine").groupby("machine", sort=True):
        listing = [h for h in case.fleet.names if machine in hosts_frame["machines"][h]]
        silent = [h for h in case.fleet.names if not hosts_frame["machines"][h]]
        without = [h for h in case.fleet.names if h not in listing and h not in silent]
        archs = set(same["arch"].dropna())
        without = [h for h in without if hosts_frame["arch"][h] in archs]
        rows.append(
            [text(machine), number(len(same)), number(len(listing)),
             Cell(names(without) if without else "–", "wide"), Cell(names(silent) if silent else "–", "wide")]
        )  # fmt: skip
    head = [
        "machine type",
        "guests",
        "hosts that list it",
        "hosts of its architecture without it",
        "hosts that do not say",
    ]
    return table(head, rows, name="machines")
