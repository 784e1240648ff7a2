"""The first part of the report as HTML: the verdict, what changed, the documents, and the findings by their kind."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any, Final

import pandas as pd

from vmcompat.audit.case import Case
from vmcompat.audit.mitigations import AS_ITS_HOST, MITIGATIONS, STATES, Mitigation, state, states
from vmcompat.audit.points import KINDS, SEVERITIES
from vmcompat.audit.verdict import Sentence
from vmcompat.baseline.answer import some
from vmcompat.markup import Cell, count, details, note, number, table, text

_CITED: Final = 3
_GLYPHS: Final = {"red": "✗", "amber": "▲", "unknown": "?", "note": "·", "green": "✓"}
_WORDS: Final = {"red": "red", "amber": "amber", "unknown": "not known", "note": "note", "green": "good"}


@dataclass(frozen=True, eq=False)
class Documents:
    """Everything that was read, numbered, so that a sentence can cite it.

    Attributes
    ----------
    case : Case
    """

    case: Case

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a document: number, of (a host or a guest), kind, source, sha256, used, when."""
        hosts, rows = self.case.fleet.hosts, []
        used = set(zip(self.case.guest_view.hosts["source"], self.case.guest_view.hosts["sha256"], strict=True))
        used |= set(zip(self.case.host_view.hosts["source"], self.case.host_view.hosts["sha256"], strict=True))
        for d in self.case.fleet.documents.to_dict("records"):
            when = next((hosts[c][d["host"]] for c in ("collected", "fetched") if c in hosts), None)
            rows.append((d["host"], d["kind"], d["source"], d["sha256"], (d["source"], d["sha256"]) in used, when))
        if self.case.domains is not None:
            for name, g in self.case.domains.frame.iterrows():
                for kind, source, sha256 in (
                    ("live" if g["live"] else "definition", g["source"], g["sha256"]),
                    ("definition", g["source_stored"], g["sha256_stored"]),
                ):
                    if isinstance(source, str) and (not rows or rows[-1][2] != source):
                        rows.append((f"guest {name}", kind, source, sha256, True, None))
        columns = ["of", "kind", "source", "sha256", "used", "when"]
        numbers = pd.RangeIndex(1, len(rows) + 1, name="document")
        return pd.DataFrame(rows, columns=columns, index=numbers).astype({"of": "str", "source": "str"})

    @cached_property
    def _numbers(self) -> Mapping[tuple[str, str], int]:
        pairs = zip(self.frame["source"], self.frame["sha256"], strict=True)
        return {pair: number for number, pair in zip(self.frame.index, pairs, strict=True)}

    def cite(self, sources: Iterable[tuple[str, str]], most: int = _CITED) -> str:
        """Links to documents: their numbers and the beginning of their hashes."""
        numbered = [(self._numbers[pair], *pair) for pair in dict.fromkeys(sources) if pair in self._numbers]
        links = [
            f"<a class='doc' href='#d{n}' title='{escape(f'{source}, SHA-256 {sha256}')}'>D{n} {sha256[:8]}</a>"
            for n, source, sha256 in numbered[:most]
        ]
        more = f" <span class='faint'>and {len(numbered) - most} more</span>" if len(numbered) > most else ""
        return " ".join(links) + more


def sources_of(findings: pd.DataFrame, ids: Iterable[str]) -> list[tuple[str, str]]:
    """The documents of findings, those that most of them rest on first."""
    seen: dict[tuple[str, str], int] = {}
    for row in findings.loc[list(ids)].to_dict("records"):
        for pair in zip(row["sources"], row["sha256"], strict=True):
            seen[pair] = seen.get(pair, 0) + 1
    return sorted(seen, key=lambda pair: -seen[pair])


def mark(colour: str, words: str = "") -> str:
    """How bad it is, as a glyph and a word beside the colour, so that a print without colours tells it too."""
    return f"<span class='mark {colour}'>{_GLYPHS[colour]} {escape(words) or _WORDS[colour]}</span>"


def verdict(sentences: Sequence[Sentence], findings: pd.DataFrame, documents: Documents) -> str:
    """The five sentences, each with what it cites."""
    items = "".join(
        f"<li>{mark(s.colour)} {escape(s.told)} "
        f"<span class='cite'>{documents.cite(sources_of(findings, s.ids)) or _all_of(documents)}</span></li>"
        for s in sentences
    )
    return f"<ol class='verdict'>{items}</ol>"


def _all_of(documents: Documents) -> str:
    last = documents.frame.index[-1] if len(documents.frame) else 0
    return f"<a class='doc' href='#documents'>D1 to D{last}</a>" if last else ""


def changes(case: Case, findings: pd.DataFrame) -> str:
    """What is different from the earlier report, and which waivers have expired or waive nothing."""
    parts = []
    if case.before is None:
        parts.append(note("No earlier report was given, so that nothing can be said of changes (since=...)."))
    else:
        parts.append(f"<p>Compared with {escape(case.before.told)}.</p>")
        assert case.changes is not None
        sentences = case.changes.explain()
        parts.append(_sentences(sentences) if sentences else "<p>No host has changed.</p>")
        if case.before.has_findings:
            parts.append(_news(case, findings))
    parts.append(_waivers(case, findings))
    return "".join(parts)


def _sentences(sentences: Sequence[str], most: int = 25) -> str:
    shown = "".join(f"<li>{escape(s)}</li>" for s in sentences[:most])
    rest = "".join(f"<li>{escape(s)}</li>" for s in sentences[most:])
    return f"<ul>{shown}</ul>" + (details(f"and {len(sentences) - most} more", f"<ul>{rest}</ul>") if rest else "")


def _news(case: Case, findings: pd.DataFrame) -> str:
    assert case.before is not None
    new = findings[findings["is_new"] == True]  # noqa: E712, of three values
    gone = [i for i in case.before.findings if i not in findings.index]
    told = f"<p>{count(len(new), 'finding')} new, {len(gone)} gone, {len(findings) - len(new)} as before.</p>"
    if gone:
        items = "".join(f"<li><code>{escape(i)}</code></li>" for i in gone)
        told += details(f"{count(len(gone), 'finding')} of the earlier report gone", f"<ul>{items}</ul>")
    return told


def _waivers(case: Case, findings: pd.DataFrame) -> str:
    if case.waivers is None:
        return note("No waivers were given (waivers=...).")
    if not case.waivers:
        return "<p>The table of waivers is empty.</p>"
    rows = []
    for waiver in case.waivers:
        found, holds = waiver.finding in findings.index, waiver.holds(case.at)
        words, colour = ("holds", "note") if holds else ("expired", "red")
        if not found:
            words, colour = "waives nothing any more: remove it", "amber"
        rows.append(
            [Cell(f"<span class='mark {colour}'>{escape(words)}</span>"), Cell(_id_link(waiver.finding, found)),
             text(waiver.owner), text(waiver.expiry.isoformat()), Cell(escape(waiver.reason), "wide")]
        )  # fmt: skip
    return f"<h3>Waivers on {case.at.isoformat()}</h3>" + table(["state", "finding", "owner", "until", "reason"], rows)


def _id_link(finding: str, there: bool) -> str:
    code = f"<code>{escape(finding)}</code>"
    return f"<a href='#{anchor(finding)}'>{code}</a>" if there else code


def anchor(finding: str) -> str:
    """The place of a finding on the page; ids from strangers become plain letters."""
    return "f-" + "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}-" for c in finding)


def document_table(documents: Documents) -> str:
    """What was read, when, from where, with the whole hash of each."""
    frame, told = documents.frame, f"<p>{count(len(documents.frame), 'document')} in all. "
    dated = bool(frame["when"].notna().any())
    if not dated:
        told += "When they were fetched nobody recorded: a column <code>collected</code> in hosts.csv would say it. "
    rows = []
    for n, d in zip(frame.index, frame.to_dict("records"), strict=True):
        when = d["when"] if isinstance(d["when"], str) else "not recorded"
        rows.append(
            [Cell(f"<a id='d{n}'></a>D{n}"), text(d["of"]), text(d["kind"]), Cell(escape(d["source"]), "path"),
             Cell(f"<code>{escape(d['sha256'])}</code>"), text("yes" if d["used"] else "no"),
             *([text(when)] if dated else [])]
        )  # fmt: skip
    head = ["", "of", "document", "from", "SHA-256", "used", *(["fetched"] if dated else [])]
    told += "Used are those whose CPU an answer rests on.</p>"
    return told + filtered("documents", table(head, rows, name="documents"), len(rows))


def filtered(name: str, html: str, n: int) -> str:
    """A table with a field that leaves the rows which hold all words; without scripts all rows are shown."""
    field = (
        f"<label class='filter'>Search <input type='search' data-of='{name}' autocomplete='off'> "
        f"<output>{n:,} of {n:,}</output></label>"
    )
    return f"<div class='filtered' id='{name}'>{field}<div class='scroll'>{html}</div></div>"


def finding_list(findings: pd.DataFrame, documents: Documents, *, kinds: Sequence[str], told: str) -> str:
    """The findings of these kinds, red first; folded where the same is said of many."""
    found = findings[findings["kind"].isin(kinds)]
    if found.empty:
        return f"<p>{escape(told)}</p>"
    rows = [_row(str(i), row, documents) for i, row in zip(found.index, found.to_dict("records"), strict=True)]
    head = ["", "finding", "what to do", "documents", "state"]
    name = f"findings-{kinds[0]}"
    return filtered(name, table(head, rows, name="findings"), len(rows))


def _row(finding: str, row: Mapping[Hashable, Any], documents: Documents) -> list[Cell]:
    status = escape(str(row["status"]))
    if isinstance(row["owner"], str):
        status += f"<br>{escape(row['owner'])}, until {escape(row['expiry'])}: {escape(row['waived_because'])}"
    if row["is_new"] is True:
        status = f"<b>new</b>, {status}"
    muted = " waived" if row["status"] == "waived" else ""
    pairs = list(zip(row["sources"], row["sha256"], strict=True))
    return [
        Cell(mark(str(row["severity"])), f"severity{muted}"),
        Cell(
            f"<a id='{anchor(finding)}'></a>{escape(row['finding'])}<br><code>{escape(finding)}</code>", "wide" + muted
        ),
        Cell(escape(row["remedy"]) if isinstance(row["remedy"], str) else "", "wide" + muted),
        Cell(documents.cite(pairs, 2), "cite"),
        Cell(status, "wide" if isinstance(row["owner"], str) else ""),
    ]


def mitigations(case: Case) -> str:
    """For each class of mitigation what hosts have, what their guests are offered, and what running guests have."""
    rows = []
    for mitigation in MITIGATIONS:
        hosts = states(mitigation, case.host_view.readings, case.host_view.cpu_map)
        offered = states(mitigation, case.guest_view.readings, case.guest_view.cpu_map)
        guests = _guest_states(case, mitigation)
        if not any(hosts) and not any(offered):
            continue
        concerned = "; ".join(f"{v}: {' or '.join(c)}" for v, c in mitigation.controls.items())
        rows.append(
            [Cell(f"<b>{escape(mitigation.name)}</b><br><span class='faint'>{escape(concerned)}</span>", "wide"),
             _tally(hosts), _tally(offered),
             Cell("<span class='faint'>no guests were given</span>") if guests is None else _tally(guests)]
        )  # fmt: skip
    head = ["mitigation", "hosts have", "guests are offered", "running guests have"]
    told = (
        "<p>Three questions, each with its own documents: <code>virsh capabilities</code>, "
        "<code>virsh domcapabilities</code>, and the live XML of each running guest. A guest without a switch is not a "
        "vulnerable host, and a host that has one protects no guest that it is not passed on to. <i>Needless</i>: the "
        "CPU says that it is not open to this attack. What is not known is counted as neither.</p>"
    )
    return told + table(head, rows, name="mitigations")


def _tally(found: Sequence[str]) -> Cell:
    counted = {s: sum(x == s for x in found) for s in STATES}
    words = {"has": "have it", "needless": "needless", "lacks": "lack it", "unknown": "not known"}
    shown = [f"<span class='tally {s}'>{counted[s]:,} {words[s]}</span>" for s in STATES if counted[s]]
    return Cell(" ".join(shown) or "<span class='faint'>concerns none</span>")


def _guest_states(case: Case, mitigation: Mitigation) -> list[str] | None:
    """What each running guest has by its live XML; one that is given all of its host's CPU has what the host offers."""
    if case.domains is None or case.demand is None:
        return None
    view = case.guest_view
    at = {name: i for i, name in enumerate(view.names)}
    offered = states(mitigation, view.readings, view.cpu_map)
    guests, found = case.domains.frame, list[str]()
    for name, row in zip(guests.index, guests.to_dict("records"), strict=True):
        if row["state"] == "shut off" or (pd.isna(row["state"]) and not row["live"]):
            continue
        needs = case.demand.loc[name]
        here = at.get(row["host"])
        if not row["live"]:
            found.append("unknown")
        elif needs["mode"] in AS_ITS_HOST:
            found.append("unknown" if here is None else offered[here])
        elif "features" in needs["unknown"]:
            found.append("unknown")
        else:
            x = None if here is None else view.readings[here]
            vendor = None if x is None or x.cpu is None else x.cpu.vendor or x.model_vendor
            vendor = vendor or (needs["vendor"] if isinstance(needs["vendor"], str) else None)
            found.append(state(mitigation, vendor, frozenset(needs["features"]), None))
    return found


def open_counts(findings: pd.DataFrame) -> str:
    """How many findings of each kind and severity are open, as a small table."""
    still = findings[findings["status"] != "waived"]
    rows = []
    for kind in KINDS:
        open_here = still.loc[still["kind"] == kind, "severity"].value_counts()
        waived = int(((findings["kind"] == kind) & (findings["status"] == "waived")).sum())
        numbers = [number(int(open_here.get(s, 0)), kind="red" if s == "red" else "") for s in SEVERITIES]
        rows.append([text(kind), *numbers, number(waived)])
    return table(["", *SEVERITIES, "waived"], rows, numbers=5, name="counts")


def names(hosts: Sequence[str], most: int = 6) -> str:
    """Hosts in a cell; all of them where the mouse rests."""
    shown = escape(some(hosts, most))
    return f"<span title='{escape(', '.join(hosts))}'>{shown}</span>" if len(hosts) > most else shown
