"""The explorer's answer as HTML: the baseline, the best plain name beside it, what each host loses, the XML."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from vmcompat.baseline.answer import some
from vmcompat.baseline.common import Baseline
from vmcompat.baseline.meanings import in_words
from vmcompat.markup import Cell, count, details, download, note, number, page, refusal, table, text, unknown
from vmcompat.widgets._scene import Loss, severity
from vmcompat.widgets._state import ExplorerState, KindRow, LossRow, Part

_SHOWN = 6


def row_label(state: ExplorerState, row: KindRow) -> str:
    """Hosts that are alike in one line of plain text, for the list to click."""
    kind = state.scene.kinds[row.kind]
    first = row.hosts[0] + (f" +{len(row.hosts) - 1}" if len(row.hosts) > 1 else "")
    some_in = f", {row.n_in} of them in" if 0 < row.n_in < len(row.hosts) else ""
    missing = [h for h in row.hosts if h in state.gone]
    gone = f", {some(missing, 2) if len(row.hosts) > 1 else ''} gone in thought".replace("  ", " ") if missing else ""
    return f"{first}{some_in}{gone} · {'CPU not known: ' if kind.unknown else ''}{kind.note}"


def render(state: ExplorerState) -> dict[str, str]:
    """The page in its parts: ``chosen``, ``answer`` and ``xml``."""
    return {"chosen": _chosen(state), "answer": _answer(state), "xml": _xml(state)}


def _chosen(state: ExplorerState) -> str:
    n, known = len(state.chosen), sum(state.scene.fleet.readings[i].status == "ok" for i in state.chosen)
    told = f"<b>{n:,} of {count(len(state.fleet), 'host')} chosen</b>, the CPU of {known:,} known; {state.view} view"
    if state.view == "host":
        told += " (advisory: what the hosts are, not what their hypervisors can give)"
    parts = [f"<div class='vmcompat-chosen'>{told}</div>"]
    if state.unknown:
        are = "host is" if len(state.unknown) == 1 else "hosts are"
        parts.append(
            f"<div class='note vmcompat-unknown'><b>{len(state.unknown)} chosen {are} unknown and in no baseline</b>: "
            f"{escape(unknown(state.unknown))}</div>"
        )
    return page(*parts)


def _answer(state: ExplorerState) -> str:
    if not state.chosen:
        return page(refusal("No host is chosen: clear the search or the column, or click some hosts in."))
    parts = []
    if state.gone or state.patched:
        supposed = [f"{some(sorted(state.gone), _SHOWN)} gone"] if state.gone else []
        supposed += [f"{some(state.patched, _SHOWN)} patched"] if state.patched else []
        parts.append(note(f"In thought only: {'; '.join(supposed)}. No document says so."))
    if not state.migratable:
        told = "Libvirt's own answer, under XML, names what cannot be migrated too; a domain is never given that."
        parts.append(note(told))
    if len(state.parts) > 1:
        vendors = "; ".join(f"{p.label}: {count(len(p.hosts), 'host')}" for p in state.parts)
        parts.append(note(f"{len(state.parts)} baselines, for no guest moves between them live ({vendors})"))
    parts += [_part(state, part) for part in state.parts]
    return page(*parts or [refusal("The CPU of none of the chosen hosts is known, so that there is no baseline.")])


def _part(state: ExplorerState, part: Part) -> str:
    title = f"<h3>{escape(part.label)}: {count(len(part.hosts), 'host')}</h3>"
    if part.base is None:
        return f"<section class='vmcompat-part'>{title}{refusal(part.refusal)}</section>"
    cards = f"<div class='cards'>{_exact(part, part.base)}{_plain(part)}</div>"
    told = [_supposed(state, part), _losses(state, part), _left_out(part.base), _warnings(part.base)]
    return f"<section class='vmcompat-part'>{title}{cards}{''.join(told)}</section>"


def _exact(part: Part, base: Baseline) -> str:
    level = f"{base.level or 'below x86-64-v1'} · {count(len(base.gives), 'feature')}" if base.gives else "POWER model"
    needs = f"needs libvirt {base.needs_libvirt}" if base.needs_libvirt else "its names are known to no libvirt at hand"
    out = f"<br>taken out on request: {escape(some(base.taken_out, _SHOWN))}" if base.taken_out else ""
    return (
        f"<div class='card vmcompat-exact'>Baseline of {count(len(base.members), 'host')}<br>"
        f"<b class='model'>{escape(base.model)}</b><br>{escape(level)}<br>"
        f"<span class='faint'>{escape(_beside(base))}; {escape(needs)}</span>{out}</div>"
    )


def _beside(base: Baseline) -> str:
    policies = [policy for _, policy in base.guest_features]
    told = [f"{verb} {policies.count(p)}" for p, verb in (("require", "requires"), ("disable", "disables"))
            if p in policies]  # fmt: skip
    return f"its XML {' and '.join(told)} beside the name" if told else "its XML is the name alone"


def _plain(part: Part) -> str:
    title = "Best plain model name"
    row = part.named
    if row is None:
        why = "<span class='faint'>cannot be told of these hosts</span>"
        return f"<div class='card vmcompat-named'>{title}<br>{why}</div>"
    if not isinstance(row["model"], str):
        why = row["reason"] if isinstance(row["reason"], str) else "no named model can be used by all of them"
        return f"<div class='card vmcompat-named'>{title}<br>{escape(why)}{_closest(row)}</div>"
    lines = [f"{_level(row['level'])} · {count(int(row['n_features']), 'feature')}"]
    lost, controls = row["given_up"], row["controls_given_up"]
    lines.append(f"gives up {count(len(lost), 'feature')} of the exact one" if lost else "gives all of the exact one")
    shown = "<br>".join(map(escape, lines))
    if controls:
        shown += f"<br><span class='alarm'>{count(len(controls), 'mitigation control')} among them: "
        shown += f"{escape(some(controls, _SHOWN))}</span>"
    if part.brings:
        shown += f"<br><span class='alarm'>brings {escape(some(part.brings))}, which you take out</span>"
    deprecated = " (deprecated)" if row["deprecated"] is True else ""
    return (
        f"<div class='card vmcompat-named'>{title}<br><b class='model'>{escape(row['model'])}</b>{deprecated}<br>"
        f"{shown}{_closest(row)}</div>"
    )


def _closest(row: Mapping[str, Any]) -> str:
    if not isinstance(row["closest"], str):
        return ""
    features = some(row["blocking_features"], 4)
    why = {
        "lacking": f"lacking {features}",
        "refused": f"whose libvirt refuses it unless the domain disables {features}",
        "not listed": "which know no such name",
        "unknown": "of which it is not known",
    }.get(row["blocked_by"], row["blocked_by"])
    text = f"{row['closest']} would give more, but not on {some(row['blocking_hosts'], 3)}, {why}"
    return f"<br><span class='faint'>{escape(text)}</span>"


def _level(level: object) -> str:
    return level if isinstance(level, str) else "below x86-64-v1"


def _supposed(state: ExplorerState, part: Part) -> str:
    if not (state.gone or state.patched):
        return ""
    if not (part.gained or part.lost):
        return note("What is supposed changes nothing in this baseline.")
    words = [f"{verb} {in_words(f)}" for verb, f in (("gain", part.gained), ("lose", part.lost)) if f]
    return f"<div class='note vmcompat-supposed'>As supposed, guests {escape('; '.join(words))}</div>"


def _losses(state: ExplorerState, part: Part) -> str:
    """Polarities apart, since they never add up."""
    columns = sorted({loss for row in part.losses for loss in row.lost}, key=severity)
    if not columns:
        return "<div class='vmcompat-losses'>No host gives up anything that another lacks.</div>"
    features = {loss: dict.fromkeys(f for row in part.losses for f in row.lost.get(loss, ())) for loss in columns}
    head = ["hosts alike", "n", *(_heading(loss) for loss in columns)]
    rows = [[_label(state, row), number(row.n_hosts), *(_cell(loss, row.lost.get(loss, ())) for loss in columns)]
            for row in part.losses]  # fmt: skip
    rows.append(
        [Cell("<b>different features lost</b>"), number(sum(row.n_hosts for row in part.losses))]
        + [_cell(loss, tuple(features[loss])) for loss in columns]
    )
    return (
        "<h4>What each offers and a guest does not get, because another host lacks it</h4>"
        f"<div class='scroll'>{table(head, rows, numbers=len(head) - 1, name='vmcompat-losses')}</div>"
    )


def _heading(loss: Loss) -> str:
    polarity, group = loss
    return {"capability": group, "control": "mitigation controls"}.get(polarity, group)


def _label(state: ExplorerState, row: LossRow) -> Cell:
    more = f" +{row.n_hosts - 1}" if row.n_hosts > 1 else ""
    note = "patched in thought" if row.first in state.patched else state.scene.kinds[row.kind].note
    return Cell(f"{escape(row.first)}{more} <span class='faint'>{escape(note)}</span>", "wide")


def _cell(loss: Loss, features: tuple[str, ...]) -> Cell:
    kind = {"control": "alarm", "hazard": "alarm", "noise": "faint"}.get(loss[0], "")
    return number(len(features), kind=kind, title=", ".join(features))


def _left_out(base: Baseline) -> str:
    reasons = base.dropped.groupby("reason", sort=False)["feature"].agg(tuple)
    if reasons.empty:
        return ""
    rows = [[text(why), number(len(names)), Cell(escape(some(names, 12)), "wide")] for why, names in reasons.items()]
    shown = table(["reason", "n", "features"], rows, name="vmcompat-left-out")
    return details(f"{count(len(base.dropped), 'feature')} left out though no host is known to lack them", shown)


def _warnings(base: Baseline) -> str:
    if not base.warnings:
        return ""
    items = "".join(f"<li>{escape(w)}</li>" for w in base.warnings)
    return details(f"{count(len(base.warnings), 'thing')} to know before using it", f"<ul>{items}</ul>")


def _xml(state: ExplorerState) -> str:
    answered = [part for part in state.parts if part.base is not None]
    if not answered:
        return page(refusal("There is no baseline to write down."))
    return page(*(_texts(part, part.base) for part in answered if part.base is not None))


def _texts(part: Part, base: Baseline) -> str:
    shown = [f"<h3>{escape(part.label)}: {escape(base.model)}, {count(len(base.members), 'host')}</h3>"]
    if not base.features and not base.gives:
        shown.append(note("POWER hosts: the model is all that libvirt compares."))
    for words, what, xml in (
        ("For the domain, as virsh edit takes it (one click selects it all)", "guest", base.guest_xml),
        ("Libvirt's own answer", "libvirt", base.xml),
    ):
        link = download(xml, name=f"{part.label}-{base.model}-{what}.xml", kind="text/xml", words="download")
        shown.append(f"<h4>{words} · {link}</h4><pre class='vmcompat-xml-{what}'>{escape(xml)}</pre>")
    return "".join(shown)
