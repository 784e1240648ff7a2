"""The share of a fleet that has each feature, and that a baseline of each level would exclude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from vmcompat.fleet.frames import Fleet
from vmcompat.plot import _canvas as canvas
from vmcompat.plot import _chart as chart
from vmcompat.plot._fold import count, fitting
from vmcompat.plot._shares import Row, Share, ShareTable, fold_shares
from vmcompat.plot._style import ALARM, INK, PAPER, SHARES

_PARTS: Final = ("title", "labels", "notes", "block_titles", "bars", "hatches", "scale", "legend")
_TITLE: Final = "How much of the fleet has what, and what a level would exclude"
_LEVELS: Final = "a baseline of this level"
_WIDTH: Final = 4.4  # [in]
_HEADER: Final = 1.1  # rows
_GAP: Final = 0.4
_BAR: Final = 0.74  # of a row
_UP: Final = 0.08  # [in]


def adoption(
    fleet: Fleet, *, capacity: str | None = None, ax: Axes | None = None, visuals: canvas.Visuals | None = None
) -> Axes:
    """Features by the share of the fleet that has them, grouped by meaning; above them what the x86-64 levels exclude.

    A bar is the whole fleet: who has the feature, of whom it is not reported, whose CPU is not known, who lacks it. The
    figure beside it is the share that has it, with the most that it may be where something is not known. Features
    that mean something on the hosts of one vendor only are counted on these. Only features are drawn in which hosts
    differ, those that are alike on every host as one row, the most widespread first; the rest is counted.

    Parameters
    ----------
    fleet : Fleet
    capacity : str, optional
        A numeric column of ``fleet.hosts`` to add up, such as ``"cores"``. Default: every host counts 1.
    ax : Axes, optional
        Where to draw. Default: a figure of its own, as large as its content needs.
    visuals : mapping of str to mapping or False, optional
        Keywords for the artists of a part, or False to leave it out: title, labels, notes, block_titles, bars, hatches,
        scale, legend.

    Returns
    -------
    Axes
        The share from 0 to 1 to the right, one unit down is one row; ``get_label()`` says in words what is drawn. A
        notebook shows it where a cell ends with it; ``ax.figure.savefig(...)`` writes it.

    Raises
    ------
    FrameError
        The fleet has no host, ``capacity`` is no column of numbers or adds up to nothing, or ``visuals`` names a part
        that is not there.

    Notes
    -----
    At most 60 rows of features are drawn: of long groups those of controls and hazards, then those nearest to one half.
    A level asks for all its features: a host that lacks one for sure is excluded.

    Examples
    --------
    >>> import vmcompat as vc
    >>> ax = vc.plot.adoption(vc.read_fleet("sample_caps/virsh_pair"))
    >>> [text.get_text() for text in ax.texts if "excludes" in text.get_text()]
    ['excludes none', 'excludes 100%: sandybridge, westmere', 'excludes 100%: sandybridge, westmere']
    """
    part = canvas.parts(visuals, _PARTS)
    table = fold_shares(fleet, capacity)
    sheet = _sheet(table)
    size = (_WIDTH, sheet.height * 0.17) if ax is None else canvas.size_of(ax)
    height = size[1] / sheet.height
    font = canvas.FONT if ax is None else max(2.0, min(canvas.FONT, height * 72 / 1.45))
    cell = canvas.Cell(width=size[0], height=height, font=font)
    subtitle = _subtitle(fleet, table, capacity)
    left = canvas.widest([row.label for row in sheet.rows], size=font, bold=True) + 0.08
    right = canvas.widest(sheet.notes, size=font) + 0.12
    least = canvas.headline_width(_TITLE, subtitle)
    states = {share for row in sheet.rows for share in row.shares}
    shown, columns, rows = canvas.legend_rows(states, SHARES, width=max(least, left + size[0] + right))
    if ax is None:
        bottom = chart.AXIS + canvas.legend_height(rows)
        margins = canvas.Margins(left=left, right=right, top=canvas.headline_height(subtitle) + _UP, bottom=bottom)
        ax = canvas.new_axes(*size, margins, least_width=least)
    canvas.prepare(ax, cell, 1, sheet.height)
    if (style := part["scale"]) is not None:
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "25%", "50%", "75%", "100%"])
        chart.scale_below(ax, f"share of the {capacity or 'hosts'}", font=font, style=style)
    _draw_bars(ax, sheet, part)
    _labels(ax, cell, sheet, part)
    if (style := part["title"]) is not None:
        canvas.headline(ax, _TITLE, subtitle, left=left, up=_UP, style=style)
    if (style := part["legend"]) is not None:
        canvas.draw_legend(ax, shown, columns, left=left, style=style, down=chart.AXIS)
    ax.set_label(_in_words(subtitle, table, sheet))
    return ax


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """Where everything is, in rows from the top."""

    rows: Sequence[Row]
    y: Sequence[float]
    notes: Sequence[str]
    headers: Sequence[tuple[float, str]]
    height: float


def _sheet(table: ShareTable) -> _Sheet:
    rows, y, headers = [], [], []
    at = 0.0
    for name, run in groupby((*table.levels, *table.rows), key=lambda row: row.group):
        at += _HEADER
        headers.append((at, name or _LEVELS))
        for row in run:
            rows.append(row)
            y.append(at)
            at += 1
        at += _GAP
    notes = [_excludes(row) if not row.group else "" if row.folded > 1 else _having(row) for row in rows]
    return _Sheet(rows=rows, y=y, notes=notes, headers=headers, height=at)


def _having(row: Row) -> str:
    return _range(*row.between(Share.HAS)) + (f" of {row.vendor}" if row.vendor else "")


def _excludes(row: Row) -> str:
    least, most = row.between(Share.EXCLUDED)
    who = f": {fitting(row.hosts)}" if row.hosts else ""
    return f"excludes {_range(least, most)}{who}" if most else "excludes none"


def _range(least: float, most: float) -> str:
    """A share, or the least and the most that it may be."""
    low, high = _percent(least), _percent(most)
    return low if low == high else f"{low.removesuffix('%')} to {high}"


def _percent(share: float) -> str:
    """Not rounded to nothing and not to everything."""
    percent = 100 * share
    if 0 < percent < 1:
        return "below 1%"
    return f"{min(round(percent), 99) if share < 1 - 1e-9 else 100}%"


def _draw_bars(ax: Axes, sheet: _Sheet, part: dict[str, canvas.Part]) -> None:
    """Pieces one after the other, in the order of :class:`Share`."""
    pieces: dict[Share, list[tuple[float, float, float]]] = {}
    for y, row in zip(sheet.y, sheet.rows, strict=True):
        at = 0.0
        for share in Share:
            if share in row.shares:
                pieces.setdefault(share, []).append((y + 0.5, at, row.shares[share]))
                at += row.shares[share]
    for share, found in pieces.items():
        rows, start, length = np.array(found).T
        look = SHARES[share]
        if (style := part["bars"]) is not None:
            bar: dict[str, Any] = {"color": look.colour, "height": _BAR, "linewidth": 0.0, "gid": look.words}
            ax.barh(rows, length, left=start, **(bar | style))
        if share == Share.ELSEWHERE and part["bars"] is not None:
            ax.hlines(rows, start + 0.005, start + length, color=look.glyph_colour, linewidth=0.7, gid="elsewhere")
        if look.hatch and (style := part["hatches"]) is not None:
            bar = {"hatch": look.hatch, "edgecolor": look.hatch_colour, "facecolor": "none", "linewidth": 0.0}
            bar |= {"hatch_linewidth": 0.6, "height": _BAR, "gid": f"hatch: {look.words}"} | style
            ax.barh(rows, length, left=start, **bar)


def _labels(ax: Axes, cell: canvas.Cell, sheet: _Sheet, part: dict[str, canvas.Part]) -> None:
    red = [row.red and bool({Share.LACKS, Share.NOT_REPORTED} & set(row.shares)) for row in sheet.rows]
    if (style := part["labels"]) is not None:
        texts = canvas.row_labels(ax, np.array(sheet.y), [row.label for row in sheet.rows], style)
        for text, marked in zip(texts, red, strict=True):
            if marked:
                text.set(color=ALARM, fontweight="bold")
    if (style := part["notes"]) is not None:
        canvas.row_notes(ax, cell, sheet.y, sheet.notes, style)
    if (style := part["block_titles"]) is not None:
        for y, title in sheet.headers:
            look: dict[str, Any] = {"fontsize": cell.font, "fontweight": "bold", "color": INK, "backgroundcolor": PAPER}
            ax.text(0, y - 0.12, title, ha="left", va="bottom", **(look | {"bbox": {"pad": 0, "color": PAPER}} | style))


def _subtitle(fleet: Fleet, table: ShareTable, capacity: str | None) -> str:
    n = len(fleet) - len(table.uncounted)
    of = f"{table.total:,.0f} {capacity} of {count(n, 'host')}" if capacity else count(n, "host")
    unknown = f", {table.n_unknown} of them not known" if table.n_unknown else ""
    left_out = f"; without {count(len(table.uncounted), 'host')} of unknown {capacity}" if table.uncounted else ""
    view = f"{fleet.view} view" + (f" ({fleet.virttype})" if fleet.view == "hypervisor" else "")
    n_features = sum(len(row.features) for row in table.rows)
    return (
        f"{of}{unknown}{left_out}; {view}, CPU map {fleet.cpu_map.version}\n"
        f"{count(n_features, 'feature')} in which hosts differ; not drawn: {table.on_all} where they mean "
        f"anything on every known host, {table.absent} on none"
    )


def _in_words(subtitle: str, table: ShareTable, sheet: _Sheet) -> str:
    """The picture for those who cannot see it."""
    notes: Mapping[int, str] = {id(row): note for row, note in zip(sheet.rows, sheet.notes, strict=True)}
    levels = [f"{row.label} {notes[id(row)]}" for row in table.levels]
    red = [f"{row.label} {notes[id(row)]}" for row in table.rows if row.red and row.folded == 1]
    sentences = ["Bars of the share that has each feature", *subtitle.split("\n"), "; ".join(levels)]
    sentences += [f"Controls and hazards: {'; '.join(red)}"] if red else []
    return ". ".join(sentences) + "."
