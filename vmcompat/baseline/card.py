"""A baseline as a planner likes to see it in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from vmcompat.baseline.meanings import GROUPS

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline

_RED: Final = "color:#b00020"
_GREY: Final = "color:#666"
_ORDER: Final = {"control": 0, "hazard": 1, "immunity": 2, "capability": 3, "noise": 4}
_SHOWN: Final = 10


def html_of(base: Baseline) -> str:
    """The card: what it is, what it costs, what to know, the XML to take away, where it came from."""
    parts = [_heading(base)]
    for warning in base.warnings:
        style = _RED if warning.startswith("advisory") or "does not have" in warning else ""
        parts.append(f"<div style='{style}'>&#9888; {escape(warning)}</div>")
    parts += [_costs(base), _dropped(base)]
    for summary, text in (("XML of a guest (guest_xml)", base.guest_xml), ("libvirt's answer (xml)", base.xml)):
        parts.append(_details(summary, f"<pre>{escape(text)}</pre>"))
    parts.append(_details("Provenance", _provenance(base)))
    return f"<div class='vmcompat-baseline'>{''.join(parts)}</div>"


def _heading(base: Baseline) -> str:
    facts = (
        f"{len(base.members)} hosts",
        *([base.level or "below x86-64-v1"] if base.gives else []),
        f"{len(base.gives)} features",
        f"needs libvirt {base.needs_libvirt}" if base.needs_libvirt else "not known to any libvirt at hand",
    )
    return f"<div><b style='font-size:1.2em'>{escape(base.model)}</b> {' · '.join(escape(f) for f in facts)}</div>"


def _costs(base: Baseline) -> str:
    """How many hosts lose how much, by group of meaning; polarities apart, since they never add up."""
    parts = list(base.lost.groupby(["polarity", "group"], sort=False))
    parts.sort(key=lambda part: (_ORDER[str(part[0][0])], GROUPS.index(str(part[0][1]))))
    rows = []
    for (polarity, group), part in parts:
        counts = part["feature"].value_counts(sort=False)
        shown = _folded([f"{name} ({n})" for name, n in counts.items()])
        hosts = f"{part['host'].nunique()} of {len(base.members)}"
        style = _RED if polarity in ("control", "hazard") else _GREY if polarity == "noise" else ""
        rows.append((style, [escape(str(polarity)), escape(str(group)), hosts, shown]))
    if not rows:
        return "<div>No host gives up anything that another lacks.</div>"
    return _table("What it costs", ("polarity", "group", "hosts that lose", "features (by how many hosts)"), rows)


def _dropped(base: Baseline) -> str:
    rows = [
        ("", [escape(str(reason)), _folded(part["feature"])])
        for reason, part in base.dropped.groupby("reason", sort=False)
    ]
    return _table("Left out although no host is known to lack it", ("reason", "features"), rows) if rows else ""


def _provenance(base: Baseline) -> str:
    options = ("view", "cpu_map", "migratable", "expand", "driver", "asked_of")
    asked = ", ".join(f"{name}={getattr(base, name)}" for name in options)
    rows = [
        ("", [escape(cell) for cell in (m.host, m.libvirt or "not known", m.source, m.sha256[:12])])
        for m in base.members
    ]
    return _table(asked, ("host", "libvirt", "document", "SHA-256"), rows)


def _folded(names: Iterable[str]) -> str:
    names = list(names)
    shown, rest = (escape(", ".join(part)) for part in (names[:_SHOWN], names[_SHOWN:]))
    return shown + (_details(f"and {len(names) - _SHOWN} more", rest) if rest else "")


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def _table(title: str, head: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> str:
    """Rows are (style, cells); cells are HTML."""
    left = "text-align:left;vertical-align:top"
    cells = "".join(f"<th style='{left}'>{escape(h)}</th>" for h in head)
    body = "".join(
        f"<tr style='{style}'>" + "".join(f"<td style='{left}'>{cell}</td>" for cell in row) + "</tr>"
        for style, row in rows
    )
    return f"<div><b>{escape(title)}</b></div><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
