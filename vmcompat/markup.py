"""Pieces of a page: everything that comes from documents is escaped here, nothing asks a network for anything."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final, NamedTuple

import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.schema import CPU_STATUS

_SHOWN: Final = 6  # names of hosts in one sentence
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # with what a formula begins, to a spreadsheet

STYLE: Final = """<style>
.vmcompat-page { font: 13px/1.45 var(--jp-ui-font-family, sans-serif); color: var(--jp-ui-font-color1, #1f2328); }
.vmcompat-page h3 { font-size: 15px; margin: 12px 0 4px; }
.vmcompat-page h4 { font-size: 13px; margin: 10px 0 2px; }
.vmcompat-page table { border-collapse: collapse; margin: 2px 0 6px; }
.vmcompat-page th, .vmcompat-page td { padding: 1px 5px; text-align: left; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--jp-border-color2, #d8dee4); }
.vmcompat-page th { font-weight: 600; white-space: normal; vertical-align: bottom; position: sticky; top: 0;
  background: var(--jp-layout-color1, #fff); }
.vmcompat-page td.n, .vmcompat-page th.n { text-align: right; }
.vmcompat-page td.wide { white-space: normal; min-width: 240px; }
.vmcompat-page .none { color: var(--jp-ui-font-color3, #8a939e); }
.vmcompat-page .alarm { color: #b3121d; font-weight: 600; }
.vmcompat-page .faint { color: var(--jp-ui-font-color2, #5b6470); }
.vmcompat-page .scroll { overflow: auto; max-height: 460px; }
.vmcompat-page .wider { overflow-x: auto; }
.vmcompat-page .cards { display: flex; flex-wrap: wrap; gap: 10px; margin: 4px 0; }
.vmcompat-page .card { flex: 1 1 300px; border: 1px solid var(--jp-border-color2, #d8dee4); border-radius: 4px;
  padding: 6px 10px; }
.vmcompat-page .card b.model { font-size: 17px; }
.vmcompat-page .refusal { border-left: 4px solid #b3121d; padding: 4px 10px; margin: 4px 0; }
.vmcompat-page .note { border-left: 4px solid #d9920a; padding: 2px 10px; margin: 4px 0; }
.vmcompat-page pre { user-select: all; background: var(--jp-layout-color2, #f4f6f8); padding: 6px 10px; margin: 2px 0;
  max-height: 340px; overflow: auto; font: 12px/1.4 var(--jp-code-font-family, monospace); }
.vmcompat-kinds .widget-checkbox, .vmcompat-kinds .widget-label-basic { height: auto; }
.vmcompat-kinds .widget-label-basic { line-height: 1.35; display: flex; align-items: flex-start; gap: 6px; }
.vmcompat-kinds .widget-label-basic span { white-space: normal; overflow-wrap: anywhere; }
.vmcompat-page a.vmcompat-download { color: var(--jp-content-link-color, #0b57d0); text-decoration: underline; }
.vmcompat-explore .widget-html-content, .vmcompat-pools .widget-html-content { min-width: 0; }
.vmcompat-page .file { display: flex; flex-wrap: wrap; gap: 0 12px; align-items: baseline; }
.vmcompat-page .file details[open] { flex-basis: 100%; }
.vmcompat-page ul { margin: 2px 0 6px; padding-left: 20px; }
</style>"""


class Cell(NamedTuple):
    """One cell of a table.

    Attributes
    ----------
    html : str
        Escaped already.
    kind : str
        CSS classes.
    title : str
        What is shown where the mouse rests; not escaped yet.
    """

    html: str
    kind: str = ""
    title: str = ""


def text(value: object) -> Cell:
    """Words in a cell."""
    return Cell(escape(str(value)))


def number(value: float | None, *, kind: str = "", title: str = "", form: str = ",.0f") -> Cell:
    """A number in a cell, a dash for 0 and for none."""
    if not value:
        return Cell("–", "n none", title)
    return Cell(format(value, form), f"n {kind}".strip(), title)


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], *, numbers: int = 0, name: str = "") -> str:
    """A table whose last ``numbers`` columns are right-aligned; headings are escaped here."""
    first = len(head) - numbers
    heads = "".join(f"<th{' class=n' if i >= first else ''}>{escape(h)}</th>" for i, h in enumerate(head))
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f"<table class='{name}'><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _cell(cell: Cell) -> str:
    kind = f" class='{cell.kind}'" if cell.kind else ""
    title = f" title='{escape(cell.title)}'" if cell.title else ""
    return f"<td{kind}{title}>{cell.html}</td>"


def page(*parts: str) -> str:
    """Parts under the style of the explorers."""
    return f"<div class='vmcompat-page'>{''.join(parts)}</div>"


def refusal(message: str) -> str:
    """Why there is no answer."""
    return f"<div class='refusal' role='alert'>{escape(message)}</div>"


def note(message: str) -> str:
    """What to know before using an answer."""
    return f"<div class='note'>{escape(message)}</div>"


def unknown(statuses: Mapping[str, str]) -> str:
    """Hosts whose CPU is not known, by the reason; given with their ``cpu_status``, and not escaped yet."""
    reasons: dict[str, list[str]] = {}
    for host, status in statuses.items():
        reasons.setdefault(CPU_STATUS[status], []).append(host)
    return "; ".join(f"{some(hosts, _SHOWN)} ({reason})" for reason, hosts in reasons.items())


def details(summary: str, body: str) -> str:
    """What is shown on a click; the summary is escaped here."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def download(content: str, *, name: str, kind: str, words: str) -> str:
    """A link that holds the whole file, so that a browser asks nobody for it."""
    data = base64.b64encode(content.encode()).decode("ascii")
    file = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "vmcompat"
    return f"<a class='vmcompat-download' download='{file}' href='data:{kind};base64,{data}'>{escape(words)}</a>"


def inert(table: pd.DataFrame) -> pd.DataFrame:
    """A table for a CSV file, whose index is a column and of which no spreadsheet takes a text for a formula."""
    plain = table.reset_index() if table.index.names != [None] else table.copy()
    for column in plain.columns[(plain.dtypes == "object") | (plain.dtypes == "str")]:
        plain[column] = plain[column].map(_as_text, na_action="ignore")
    return plain.rename(columns=_as_text)


def _as_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    # a carriage return, which csv does not quote, would begin a row
    return ("'" if value[:1] in _FORMULA else "") + value.replace("\r", "\n")


def count(n: int, one: str, many: str | None = None) -> str:
    """A number with its noun."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
