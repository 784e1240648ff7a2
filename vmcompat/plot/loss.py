"""Hosts by what they give up for a baseline: safety first, then speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vmcompat.baseline.answer import some
from vmcompat.baseline.common import Baseline
from vmcompat.plot import _canvas as canvas
from vmcompat.plot._fold import count
from vmcompat.plot._losses import KINDS_OF_LOSS, LossTable, fold_losses
from vmcompat.plot._matrix import draw_group_headers, group_headers, group_starts
from vmcompat.plot._offers import RED, Offer
from vmcompat.plot._style import ALARM, INK, OFFERS

_PARTS: Final = (
    "title",
    "groups",
    "meaning_labels",
    "host_labels",
    "notes",
    "block_titles",
    "cells",
    "bars",
    "glyphs",
    "numbers",
    "legend",
)
_TITLE: Final = "What this baseline costs, and whom"
_CELL: Final = 0.5  # [in]
_TRACK: Final = 0.93  # of a cell, so that no number touches the next bar
_BAR: Final = 0.54  # of a cell; the number stands right of it
_HEADER: Final = 1.15  # cells
_SHOWN: Final = 6


def loss(baseline: Baseline, *, ax: Axes | None = None, visuals: canvas.Visuals | None = None) -> Axes:
    """Hosts by what they give up for a baseline, counted by group of meaning, with the polarities apart.

    Red is safety: controls that guests can not switch on any more, hazards of which they are not warned. The rest costs
    speed. Hosts of one model that lose the same are one row; those that lose most controls come first. Bars are as long
    as the share that a host loses of what any host loses in that column; the number is that of the features. Below
    stands what is left out although no host is known to lack it, and why.

    Parameters
    ----------
    baseline : Baseline
    ax : Axes, optional
        Where to draw. Default: a figure of its own, as large as its content needs.
    visuals : mapping of str to mapping or False, optional
        Keywords for the artists of a part, or False to leave it out: title, groups, meaning_labels, host_labels, notes,
        block_titles, cells, bars, glyphs, numbers, legend.

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
    At most 40 kinds of hosts are drawn, those of most hosts; the last row says how much any of the others loses at
    most. What is bound to another vendor (``meanings``) is of no use to these guests.

    Examples
    --------
    >>> import vmcompat as vc
    >>> ax = vc.plot.loss(vc.read_fleet("sample_caps/virsh_pair").baseline())
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['any of 2 hosts', 'sandybridge', 'westmere', 'all hosts']
    """
    part = canvas.parts(visuals, _PARTS)
    table = fold_losses(baseline)
    sheet = _sheet(table, len(baseline.hosts))
    cell = canvas.cell_on(ax, n_columns=sheet.width, n_rows=sheet.height, width=_CELL)
    subtitle = _subtitle(baseline, table)
    names = [column.group for column in table.columns]
    groups = group_headers([KINDS_OF_LOSS[column.state] for column in table.columns], cell)
    above = canvas.widest(names, size=cell.font, bold=True) + 0.08
    strip = max((g.height for g in groups), default=0.0) + 0.12
    left = canvas.widest(sheet.labels, size=cell.font, bold=True) + 0.08
    right = canvas.widest(sheet.notes, size=cell.font) + 0.12
    least = max(
        canvas.headline_width(_TITLE, subtitle),
        left + canvas.widest((title for _, title in sheet.headers), size=cell.font, bold=True),
    )
    states = np.unique(sheet.states[sheet.counts > 0]).tolist()
    shown, columns, rows = canvas.legend_rows(states, OFFERS, width=max(least, left + sheet.width * cell.width + right))
    if ax is None:
        top = above + strip + canvas.HEADLINE
        margins = canvas.Margins(left=left, right=right, top=top, bottom=canvas.legend_height(rows))
        ax = canvas.new_axes(sheet.width * cell.width, sheet.height * cell.height, margins, least_width=least)
    canvas.prepare(ax, cell, sheet.width, sheet.height)
    _draw_cells(ax, cell, table, sheet, part)
    _labels(ax, cell, table, sheet, part)
    if (style := part["groups"]) is not None:
        draw_group_headers(ax, groups, up=above, style=style)
    if (style := part["title"]) is not None:
        canvas.headline(ax, _TITLE, subtitle, left=left, up=above + strip, style=style)
    if (style := part["legend"]) is not None and shown:
        canvas.draw_legend(ax, shown, columns, left=left, style=style)
    ax.set_label(_in_words(subtitle, table))
    return ax


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """Where everything is, in cells from the top left; the first row is what any host loses."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    counts: NDArray[np.int64]
    states: NDArray[np.int64]
    labels: Sequence[str]
    notes: Sequence[str]
    red: Sequence[bool]
    headers: Sequence[tuple[float, str]]
    at_most: int | None
    width: float
    height: float


def _sheet(table: LossTable, n_hosts: int) -> _Sheet:
    x = group_starts([KINDS_OF_LOSS[column.state] for column in table.columns])
    n = len(table.kinds)
    y = np.concatenate([[0.0], 1.25 + np.arange(n), n + 1.25 + _HEADER + np.arange(len(table.left_out))])
    of_column = np.array([int(column.state) for column in table.columns], dtype=np.int64)
    states = np.tile(of_column, (len(y), 1))
    states[n + 1 :] = Offer.LEFT_OUT
    notes = [_note(k.note if k.folded == 1 else "at most", r) for k, r in zip(table.kinds, table.red, strict=True)]
    title = "left out although no host is known to lack it"
    return _Sheet(
        x=x,
        y=y,
        counts=np.vstack([table.totals, table.counts, table.left_out_counts]),
        states=states,
        labels=[
            f"any of {count(n_hosts, 'host')}",
            *(kind.label for kind in table.kinds),
            *["all hosts"] * len(table.left_out),
        ],
        notes=["", *notes, *(kind.note for kind in table.left_out)],
        red=[False, *(bool(r) for r in table.red), *[False] * len(table.left_out)],
        headers=[(n + 1.25 + _HEADER, title)] if table.left_out else [],
        at_most=n if table.kinds[-1].folded > 1 else None,
        width=float(x[-1]) + 1,
        height=float(y[-1]) + 1,
    )


def _note(what: str, red: Sequence[str]) -> str:
    return f"{what}: no {some(red, _SHOWN)}" if red else what


def _draw_cells(ax: Axes, cell: canvas.Cell, table: LossTable, sheet: _Sheet, part: dict[str, canvas.Part]) -> None:
    """A track for every cell, in it a bar and the number of the features; glyphs on red ones and on the first row."""
    longest = sheet.counts.max(axis=0, initial=1)
    for j in range(len(table.columns)):
        x, n = sheet.x[j], sheet.counts[:, j]
        if (style := part["cells"]) is not None:
            track: dict[str, Any] = {"color": OFFERS[Offer.ABSENT].colour, "height": 0.86, "linewidth": 0.0} | style
            ax.barh(sheet.y + 0.5, _TRACK, left=x, **track)
        if (style := part["bars"]) is not None:
            for state in np.unique(sheet.states[:, j]):
                rows = np.flatnonzero((sheet.states[:, j] == state) & (n > 0))
                look = OFFERS[int(state)]
                bar: dict[str, Any] = {"color": look.colour, "height": 0.86, "linewidth": 0.0, "gid": look.words}
                ax.barh(sheet.y[rows] + 0.5, n[rows] / longest[j] * _BAR, left=x, **(bar | style))
        if (style := part["numbers"]) is not None:
            for i in np.flatnonzero(n):
                text = f"\N{LESS-THAN OR EQUAL TO}{n[i]}" if i == sheet.at_most else str(n[i])
                keywords: dict[str, Any] = {
                    "fontsize": cell.font,
                    "color": INK,
                    "fontweight": "bold" if sheet.states[i, j] in RED or i == 0 else "normal",
                } | style
                ax.text(x + _TRACK - 0.04, sheet.y[i] + 0.5, text, ha="right", va="center_baseline", **keywords)
    if (style := part["glyphs"]) is not None and table.columns:
        marked = np.isin(sheet.states, (*RED, Offer.LEFT_OUT))
        marked[0] = True
        size = min(cell.height, cell.width)
        narrow = canvas.Cell(width=size, height=size)
        x = sheet.x - 0.5 + 0.4 * size / cell.width
        drawn = np.where(sheet.counts > 0, sheet.states, -1).astype(np.int8)
        canvas.draw_cells(
            ax, narrow, x, sheet.y, drawn, OFFERS, cells=None, hatches=None, glyphs=style, with_glyph=marked
        )


def _labels(ax: Axes, cell: canvas.Cell, table: LossTable, sheet: _Sheet, part: dict[str, canvas.Part]) -> None:
    if (style := part["meaning_labels"]) is not None and table.columns:
        texts = canvas.column_labels(ax, sheet.x, [column.group for column in table.columns], style)
        for text, column, n in zip(texts, table.columns, table.totals, strict=True):
            if column.state in RED and n:
                text.set(color=ALARM, fontweight="bold")
    if (style := part["host_labels"]) is not None:
        canvas.row_labels(ax, sheet.y, sheet.labels, style)[0].set_fontweight("bold")
    if (style := part["notes"]) is not None:
        for red, colour in ((False, {}), (True, {"color": ALARM})):
            told = [note if r == red else "" for note, r in zip(sheet.notes, sheet.red, strict=True)]
            canvas.row_notes(ax, cell, sheet.y, told, colour | style)
    if (style := part["block_titles"]) is not None:
        for y, title in sheet.headers:
            keywords: dict[str, Any] = {"fontsize": cell.font, "fontweight": "bold", "color": INK} | style
            ax.text(0, y - 0.3, title, ha="left", va="bottom", **keywords)


def _subtitle(baseline: Baseline, table: LossTable) -> str:
    features = f", {baseline.level or 'below x86-64-v1'}, {len(baseline.gives)} features" if baseline.gives else ""
    losers = [f"{n} lose {KINDS_OF_LOSS[s]}" for s, n in table.losers.items() if s != Offer.NOISE_LOST]
    return (
        f"{baseline.model}{features}; of {count(len(baseline.hosts), 'host')} {', '.join(losers) or 'none loses any'}; "
        f"{baseline.view} view, CPU map {baseline.cpu_map}"
        + (f"; not counting {count(len(baseline.missing), 'host')} not known" if baseline.missing else "")
    )


def _in_words(subtitle: str, table: LossTable) -> str:
    """The picture for those who cannot see it."""
    by_state: dict[str, set[str]] = {}
    for column, n in zip(table.columns, table.totals, strict=True):
        if n:
            by_state.setdefault(KINDS_OF_LOSS[column.state], set()).add(f"{n} of {column.group}")
    lost = [f"{state}: {', '.join(sorted(groups))}" for state, groups in by_state.items()]
    return f"Hosts by what they lose. {subtitle}. {'; '.join(lost) or 'Nothing is lost'}."
