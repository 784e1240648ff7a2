"""A baseline as a planner likes to see it in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from vmcompat.baseline.meanings import GROUPS

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline

_RED, _GREY = "color:#b00020", "color:#666"


def html_of(base: Baseline) -> str:
    """The card: what it is, what it costs, what to know, the XML to take away, where it came from."""
    parts = [_heading(base)]
    for warning in base.warnings:
        style = _RED if warning.startswith("advisory") or "does not have" in warning else ""
        parts.append(f"<div style='{style}'>&#9888; {escape(warning)}</div>")
    parts += [_costs(base), _dropped(base), _details("XML of a guest (guest_xml)", _pre(base.guest_xml))]
    parts.append(_details("libvirt's answer (xml)", _pre(base.xml)))
    parts.append(_details("Provenance", _provenance(base)))
    return f"<div class='vmcompat-baseline'>{''.join(parts)}</div>"


def _heading(base: Baseline) -> str:
    facts = [
        f"{len(base.members)} hosts",
        base.level or "below x86-64-v1",
        f"{len(base.gives)} features",
        f"needs libvirt {base.needs_libvirt}" if base.needs_libvirt else "not known to any libvirt at hand",
    ]
    return f"<div><b style='font-size:1.2em'>{escape(base.model)}</b> {' · '.join(escape(f) for f in facts)}</div>"


def _costs(base: Baseline) -> str:
    """How many hosts lose how much, by group of meaning; polarities apart, since they never add up."""
    if base.lost.empty:
        return "<div>No host loses anything.</div>"
    rows = []
    for (polarity, group), part in base.lost.groupby(["polarity", "group"], sort=False):
        features = part["feature"].value_counts(sort=False)
        shown = ", ".join(f"{name} ({n})" for name, n in features.items())
        rows.append((str(polarity), str(group), f"{part['host'].nunique()} of {len(base.members)}", shown))
    order = {"control": 0, "hazard": 1, "immunity": 2, "capability": 3, "noise": 4}
    rows.sort(key=lambda r: (order[r[0]], GROUPS.index(r[1])))
    noise = [r for r in rows if r[0] == "noise"]
    head = ("polarity", "group", "hosts that lose", "features (by how many hosts)")
    table = _table(head, [r for r in rows if r[0] != "noise"])
    facts = escape("; ".join(r[3] for r in noise))
    aside = f"<div style='{_GREY}'>and facts of the host that no guest needs: {facts}</div>"
    return f"<div><b>What it costs</b></div>{table}{aside if noise else ''}"


def _dropped(base: Baseline) -> str:
    if base.dropped.empty:
        return ""
    rows = [(str(reason), ", ".join(part["feature"])) for reason, part in base.dropped.groupby("reason", sort=False)]
    return "<div><b>Shared, and still left out</b></div>" + _table(("reason", "features"), rows)


def _provenance(base: Baseline) -> str:
    options = ("view", "cpu_map", "migratable", "expand", "driver", "asked_of")
    asked = ", ".join(f"{name}={getattr(base, name)}" for name in options)
    rows = [(m.host, m.libvirt or "not known", m.source, m.sha256[:12]) for m in base.members]
    return f"<div>{escape(asked)}</div>" + _table(("host", "libvirt", "document", "SHA-256"), rows)


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def _pre(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    cells = "".join(f"<th style='text-align:left'>{escape(h)}</th>" for h in head)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(c)}</td>" for c in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
