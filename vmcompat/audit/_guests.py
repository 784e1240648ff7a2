"""The last part of the report as HTML: guests that cannot move, recommended moves, XML to copy, the appendix."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import pandas as pd

from vmcompat.audit._findings import Documents, filtered, mark
from vmcompat.audit.case import Case
from vmcompat.fleet.expand import VIEW_COMMAND
from vmcompat.markup import Cell, count, details, download, note, number, table, text

_PACKAGES: Final = ("vmcompat", "pandas", "numpy", "scipy", "lxml", "matplotlib", "numba", "nbclient", "nbconvert")


def stuck(case: Case, documents: Documents) -> str:
    """Guests that cannot move, and where each is stuck."""
    if case.reach is None or case.domains is None:
        return note("No guests were given (domains=...), so that it is not known which of them could not move.")
    found = case.reach.domains
    held = found[found["verdict"] != "free"].reset_index()
    held = held.sort_values("verdict", key=lambda v: v != "stuck", kind="stable")
    told = f"<p>{count(int((found['verdict'] == 'free').sum()), 'guest')} of {len(found)} can go to another host.</p>"
    held["how"] = held["verdict"].where(held["n_by_manager"] == 0, "by its manager")
    guests, rows = case.domains.frame, []
    for row in held.to_dict("records"):
        name = row["domain"]
        rows.append(
            [Cell(mark({"stuck": "amber", "unknown": "unknown"}.get(row["how"], "note"), row["how"])),
             text(name), text(_or(row["host"])), text(_or(row["state"])),
             text(", ".join(row["held_by"])), Cell(escape(_or(row["evidence"])), "wide"),
             Cell(escape(_or(row["nearest"])), "", ", ".join(row["nearest_reasons"])),
             Cell(escape(_or(row["remedy"])), "wide"),
             Cell(documents.cite([(guests["source"][name], guests["sha256"][name])]), "cite")]
        )  # fmt: skip
    head = ["", "guest", "on", "state", "held by", "why", "nearest", "what to do", "document"]
    return told + (filtered("guests", table(head, rows, name="guests"), len(rows)) if rows else "")


def _or(value: object) -> str:
    return "" if value is None or pd.isna(value) else str(value)  # type: ignore[call-overload]


def moves(case: Case) -> str:
    """The recommended pools, as moves from today."""
    if case.plan is None:
        return note(f"No moves are recommended: {case.no_plan}.")
    plan = case.plan
    told = f"<p>{escape(plan.explain()[0])}.</p>"
    odd = {host for hosts in case.twins.frame["hosts"] for host in hosts}
    if len(plan.moves):
        rows = [
            [text(host), text(_or(m["today"])), text(m["pool"]),
             text("yes: mend it, then ask again" if host in odd else "no"),
             Cell("yes" if m["restarts"] else "no"), number(int(case.running.get(str(host), 0))),
             Cell(f"{m['value_after']:,.0f}", "n")]
            for host, m in plan.moves.iterrows()
        ]  # fmt: skip
        head = ["host", "from", "to", "a twin that differs", "its guests restart", "running guests", "value after it"]
        told += table(head, rows, numbers=2, name="moves")
    items = "".join(f"<li>{escape(w)}</li>" for w in plan.warnings)
    return told + (f"<ul>{items}</ul>" if items else "")


def texts(case: Case) -> str:
    """Every baseline as XML: of today's groups, and of the recommended pools where they differ."""
    parts = []
    todays = {group.label: group.base for group in case.groups if group.base is not None}
    for label, base in todays.items():
        parts.append(_xml(label, base.guest_xml, f"{base.model}, {count(len(base.members), 'host')}"))
    if case.plan is not None and len(case.plan.moves):
        for pool in case.plan.frame.index:
            base = case.plan.baseline(pool)
            words = f"{base.model}, {count(len(base.members), 'host')}, after the moves"
            parts.append(_xml(f"pool {pool}", base.guest_xml, words))
    if not parts:
        return note("There is no baseline to write down.")
    return "<p>As <code>virsh edit</code> takes it in place of a guest's <code>&lt;cpu&gt;</code>.</p>" + "".join(parts)


def _xml(label: str, xml: str, words: str) -> str:
    link = download(xml, name=f"{label}.xml", kind="text/xml", words="download")
    return details(f"{label}: {words}", f"{link}<pre class='xml'>{escape(xml)}</pre>")


def appendix(case: Case, *, command: str, title: str) -> str:
    """Versions, what the answers rest on, and how to make this report again."""
    fleet = case.fleet
    read_with = "for all" if fleet.strict else "; each document is expanded with the map of the libvirt that wrote it"
    rows = [
        [text("view"), text(f"{fleet.view}: {VIEW_COMMAND[fleet.view]}")],
        [text("CPU map"), text(f"libvirt {fleet.cpu_map.version}{read_with}")],
        [text("hosts that swap guests today"), text(f"those alike in {case.by}" if case.by else "not known")],
        [text("hosts that should be identical"), text(f"those alike in {', '.join(case.alike)}")],
        [text("day of the audit"), text(case.at.isoformat())],
        [text("Python"), text(platform.python_version())],
        *([text(package), text(number_)] for package, number_ in _versions().items()),
    ]  # fmt: skip
    return (
        table(["", ""], rows, name="appendix")
        + "<p>This report again, from the same inputs, the same bytes:</p>"
        + f"<pre class='command'>{escape(command)}</pre>"
    )


def _versions() -> Mapping[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
