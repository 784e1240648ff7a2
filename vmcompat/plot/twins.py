"""Hosts that should be identical and are not: who differs, in what, and what else tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vmcompat.baseline.twins import Twins
from vmcompat.plot import _canvas as canvas
from vmcompat.plot._differences import EVIDENCE, RED, Group, Twin, fold_differences
from vmcompat.plot._fold import BLANK, States, count, fitting
from vmcompat.plot._matrix import draw_group_headers, group_headers
from vmcompat.plot._style import ALARM, FAINT, INK, TWINS

_PARTS: Final = (
    "title",
    "groups",
    "evidence_labels",
    "labels",
    "notes",
    "counts",
    "block_titles",
    "cells",
    "hatches",
    "glyphs",
    "legend",
)
_TITLE: Final = "Hosts that should be identical and are not"
_HEADER: Final = 1.2  # rows
_GAP: Final = 0.5  # cells
_CELL: Final = 0.24  # [in]


def twins(twins: Twins, *, ax: Axes | None = None, visuals: canvas.Visuals | None = None) -> Axes:
    """Groups of hosts that should be identical: one row for each way in which they are not.

    The cells at the right are the hosts of the group, those that are alike in all ways as one with their number above
    it, most hosts first; the same cell stands for the same hosts in every row of the group. Marks at the left say which
    columns tell the two sides apart without exception, such as the microcode. Red is safety.

    Parameters
    ----------
    twins : Twins
        From ``vc.twins``.
    ax : Axes, optional
        Where to draw. Default: a figure of its own, as large as its content needs.
    visuals : mapping of str to mapping or False, optional
        Keywords for the artists of a part, or False to leave it out: title, groups, evidence_labels, labels, notes,
        counts, block_titles, cells, hatches, glyphs, legend.

    Returns
    -------
    Axes
        One unit is one cell; ``get_label()`` says in words what is drawn. A notebook shows it where a cell ends with
        it; ``ax.figure.savefig(...)`` writes it.

    Raises
    ------
    FrameError
        ``visuals`` names a part that is not there.

    Notes
    -----
    At most 60 ways are drawn: those of controls and hazards first, then those that part a group most evenly. A group
    has at most 12 cells; the last then stands for all kinds of few hosts.

    Examples
    --------
    >>> import vmcompat as vc
    >>> rack = vc.read_fleet("sample_caps/mixed").select("rack == 'ams-r2'")
    >>> [label.get_text() for label in vc.plot.twins(vc.twins(rack, by="server")).get_yticklabels()]
    ['no md-clear', 'no flush-l1d']
    """
    part = canvas.parts(visuals, _PARTS)
    groups = fold_differences(twins)
    sheet = _sheet(groups)
    cell = canvas.cell_on(ax, n_columns=sheet.width, n_rows=sheet.height, width=_CELL)
    subtitle = _subtitle(twins, groups)
    headers = group_headers(["apart by"] * len(EVIDENCE) + ["hosts"] * (len(sheet.x) - len(EVIDENCE)), cell)
    above = canvas.widest(EVIDENCE, size=cell.font) + 0.08
    strip = max(h.height for h in headers) + 0.12
    left = canvas.widest(sheet.labels, size=cell.font, bold=any(sheet.red)) + 0.08
    right = canvas.widest(sheet.notes, size=cell.font) + 0.12
    least = max(
        canvas.headline_width(_TITLE, subtitle),
        left + canvas.widest((title for _, title in sheet.headers), size=cell.font, bold=True),
    )
    shown, columns, rows = canvas.legend_rows(
        np.unique(sheet.states).tolist(), TWINS, width=max(least, left + sheet.width * cell.width + right)
    )
    if ax is None:
        top = canvas.HEADLINE + (above + strip if groups else 0.0)
        margins = canvas.Margins(left=left, right=right, top=top, bottom=canvas.legend_height(rows))
        ax = canvas.new_axes(sheet.width * cell.width, sheet.height * cell.height, margins, least_width=least)
    canvas.prepare(ax, cell, sheet.width, sheet.height)
    if groups:
        _draw(ax, cell, sheet, part)
        if (style := part["groups"]) is not None:
            draw_group_headers(ax, headers, up=above, style=style)
    if (style := part["title"]) is not None:
        canvas.headline(ax, _TITLE, subtitle, left=left, up=above + strip if groups else 0.0, style=style)
    if (style := part["legend"]) is not None and groups:
        canvas.draw_legend(ax, shown, columns, left=left, style=style)
    ax.set_label(_in_words(subtitle, twins))
    return ax


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """Where everything is, in cells from the top left."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    states: States
    labels: Sequence[str]
    notes: Sequence[str]
    red: Sequence[bool]
    counts: Sequence[tuple[float, float, int]]
    headers: Sequence[tuple[float, str]]
    width: float
    height: float


def _sheet(groups: Sequence[Group]) -> _Sheet:
    n_cells = max((len(g.counts) for g in groups), default=0)
    x = np.concatenate([np.arange(len(EVIDENCE)), len(EVIDENCE) + _GAP + np.arange(n_cells)])
    # above the rows of a group its title, and the numbers of its hosts
    rows = canvas.starts([len(g.ways) for g in groups], gap=_GAP, before=_HEADER + 0.75)
    ways = [way for g in groups for way in g.ways]
    evidence = [[Twin.EVIDENCE if c in way.explained_by else Twin.NO_EVIDENCE for c in EVIDENCE] for way in ways]
    cells = np.full((len(ways), n_cells), BLANK, dtype=np.int8)
    at = 0
    for g in groups:
        cells[at : at + len(g.ways), : len(g.counts)] = g.states
        at += len(g.ways)
    counts = [
        (float(x[len(EVIDENCE) + i]), float(y[0]), n)
        for g, y in zip(groups, rows, strict=True)
        for i, n in enumerate(g.counts)
    ]
    n_hosts = [g.n_hosts for g in groups for _ in g.ways]
    return _Sheet(
        x=x,
        y=np.concatenate([*rows, np.empty(0)]),
        states=np.hstack([np.array(evidence, dtype=np.int8).reshape(len(ways), len(EVIDENCE)), cells]),
        labels=[way.text for way in ways],
        notes=[f"{len(way.hosts)} of {n}: {fitting(way.hosts)}" for way, n in zip(ways, n_hosts, strict=True)],
        red=[way.state in RED for way in ways],
        counts=counts,
        headers=[(float(y[0]) - 0.75, _header(g)) for g, y in zip(groups, rows, strict=True)],
        width=float(x[-1]) + 1,
        height=float(rows[-1][-1]) + 1 if groups else 0.5,
    )


def _header(group: Group) -> str:
    ways = count(group.n_ways, "way")
    shown = "" if len(group.ways) == group.n_ways else f", {len(group.ways)} of them shown"
    return f"{group.name}: {count(group.n_hosts, 'host')} differ in {ways}{shown}"


def _draw(ax: Axes, cell: canvas.Cell, sheet: _Sheet, part: dict[str, canvas.Part]) -> None:
    drawn = {name: part[name] for name in ("cells", "hatches", "glyphs")}
    everywhere = np.ones(sheet.states.shape, dtype=bool)
    canvas.draw_cells(ax, cell, sheet.x, sheet.y, sheet.states, TWINS, with_glyph=everywhere, **drawn)
    if (style := part["evidence_labels"]) is not None:
        canvas.column_labels(ax, sheet.x[: len(EVIDENCE)], EVIDENCE, style)
    if (style := part["labels"]) is not None:
        for text, red in zip(canvas.row_labels(ax, sheet.y, sheet.labels, style), sheet.red, strict=True):
            if red:
                text.set(color=ALARM, fontweight="bold")
    if (style := part["notes"]) is not None:
        canvas.row_notes(ax, cell, sheet.y, sheet.notes, style)
    if (style := part["counts"]) is not None:
        look: dict[str, Any] = {"fontsize": cell.font, "color": FAINT, "ha": "center", "va": "bottom"}
        for x, y, n in sheet.counts:
            ax.text(x + 0.5, y - 0.08, str(n), **(look | style))
    if (style := part["block_titles"]) is not None:
        for y, title in sheet.headers:
            look = {"fontsize": cell.font, "fontweight": "bold", "color": INK, "ha": "left", "va": "bottom"}
            ax.text(0, y - 0.25, title, **({"parse_math": False} | look | style))


def _subtitle(twins: Twins, groups: Sequence[Group]) -> str:
    n, ways = twins.frame["group"].nunique(), sum(len(g.ways) for g in groups)
    told = f"alike in {', '.join(twins.by)}: {n or 'none'} of {count(twins.n_groups, 'group')}"
    if not n:
        return f"{told} differs"
    rest = "" if ways == len(twins.frame) else f", {ways} shown: controls and hazards first, then the most even splits"
    return f"{told} {'differs' if n == 1 else 'differ'} in {count(len(twins.frame), 'way')}{rest}"


def _in_words(subtitle: str, twins: Twins) -> str:
    """The picture for those who cannot see it."""
    told = twins.explain()
    more = f"; and {len(told) - 5} more" if len(told) > 5 else ""
    return f"Hosts that should be identical. {subtitle}." + (f" {'; '.join(told[:5])}{more}." if told else "")
