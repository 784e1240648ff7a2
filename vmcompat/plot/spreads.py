"""TSC frequencies and physical address bits: which hosts differ inside a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from vmcompat.baseline.identical import TSC_TOLERANCE
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.plot import _canvas as canvas
from vmcompat.plot import _chart as chart
from vmcompat.plot._clocks import Bits, Clocks, Scaling, Width, fold_bits, fold_clocks
from vmcompat.plot._fold import BLANK, count, fitting
from vmcompat.plot._style import ALARM, INK, PAPER, SCALING, WIDTHS, Look

_PARTS: Final = (
    "title",
    "labels",
    "notes",
    "band",
    "marks",
    "cells",
    "hatches",
    "glyphs",
    "numbers",
    "scale",
    "legend",
)
_TOLD: Final = 12  # rows in the words for those who cannot see them
PANELS: Final = ("tsc", "maxphysaddr")
_CLOCK_TITLE: Final = "Between which hosts a guest with a fixed TSC frequency can move"
_BITS_TITLE: Final = "How many physical address bits the hosts of a group have"
_WIDTH: Final = 4.2  # of the scale of frequencies [in]
_ROW: Final = 0.22
_CELL: Final = 0.62
_BAND: Final = "#dfeaf4"
_LEAST: Final = 200.0  # half the width of the scale [ppm]
_BINS: Final = 110  # marks nearer than this part of the scale are one


def spreads(
    fleet: Fleet, *, by: str = "model", ax: Mapping[str, Axes] | None = None, visuals: canvas.Visuals | None = None
) -> dict[str, Axes]:
    """TSC frequencies and physical address bits of the hosts of each group.

    Of the frequencies a row is hosts of one group that follow one another at no more than 250 ppm, the tolerance of
    libvirt and QEMU: marks say how far each is from the middle of the row, larger ones stand for several hosts. Inside
    the band every host takes a guest with the fixed frequency of every other; beyond it only hosts that scale do. From
    one row to another a guest goes only to hosts that scale. Of the address bits a cell is the hosts of a group with so
    many. Hosts that tell nothing are hatched.

    Parameters
    ----------
    fleet : Fleet
    by : str
        A column of ``fleet.hosts`` that says which hosts are a group.
    ax : mapping of str to Axes, optional
        Where to draw ``tsc``, ``maxphysaddr`` or both; what is not named is not drawn. Default: both in a figure of
        their own, as large as its content needs.
    visuals : mapping of str to mapping or False, optional
        Keywords for the artists of a part, or False to leave it out: title, labels, notes, band, marks, cells, hatches,
        glyphs, numbers, scale, legend.

    Returns
    -------
    dict of str to Axes
        ``tsc`` [ppm to the right, one row down] and ``maxphysaddr``, of which ``get_label()`` says in words what is
        drawn. A notebook shows the figure where a cell ends with it.

    Raises
    ------
    FrameError
        The fleet has no host, there is no such column, or ``ax`` or ``visuals`` names what is not there.

    Notes
    -----
    At most 40 rows a panel are drawn, those with a difference that matters first, then those of most hosts. That a host
    scales is its own claim.

    Examples
    --------
    >>> import vmcompat as vc
    >>> panels = vc.plot.spreads(vc.read_fleet("sample_caps/mixed").select("rack == 'ams-r4'"), by="server")
    >>> [text.get_text() for text in panels["maxphysaddr"].texts if "bits on" in text.get_text()]
    ['6 hosts; 46 bits on ams-r4-h05']
    """
    part = canvas.parts(visuals, _PARTS)
    if ax is not None and (strange := [name for name in ax if name not in PANELS]):
        raise FrameError(f"ax: no panel {strange[0]!r}; this plot has {', '.join(PANELS)}")
    clocks, bits = fold_clocks(fleet, by), fold_bits(fleet, by)
    sheets = {"tsc": _clock_sheet(fleet, by, clocks), "maxphysaddr": _bit_sheet(fleet, by, bits)}
    left = max(canvas.widest(sheet.labels) for sheet in sheets.values()) + 0.1
    rights = [canvas.widest(sheet.notes, bold=True) + 0.12 for sheet in sheets.values()]
    least = max(
        left + sheet.width + max(right, canvas.headline_width(sheet.title, sheet.subtitle) - left - sheet.width)
        for sheet, right in zip(sheets.values(), rights, strict=True)
    )
    if ax is None:
        sizes = [(sheet.width, sheet.height) for sheet in sheets.values()]
        margins = [_margins(sheet, left, right, least) for sheet, right in zip(sheets.values(), rights, strict=True)]
        ax = dict(zip(PANELS, canvas.new_panels(sizes, margins, least_width=least), strict=True))
        fonts = dict.fromkeys(PANELS, canvas.FONT)
    else:
        fonts = {name: _font(ax[name], sheets[name]) for name in PANELS if name in ax}
    for name, font in fonts.items():
        sheet = sheets[name]
        cell = canvas.Cell(width=_CELL, height=_ROW * font / canvas.FONT, font=font)
        canvas.prepare(ax[name], cell, 1, sheet.n_rows)
        if name == "tsc":
            _draw_clocks(ax[name], cell, clocks, part)
        else:
            _draw_bits(ax[name], cell, bits, part)
        _frame(ax[name], cell, sheet, left, least, part)
    return canvas.Panels({name: ax[name] for name in fonts})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """What stands around the rows of a panel.

    Attributes
    ----------
    labels, notes : sequence of str, one a row
        Left and right of it.
    alarm : sequence of bool, one a row
        There a guest cannot go everywhere.
    shown : sequence of Look
        What the legend explains.
    width : float
        Of the axes [in].
    above, below : float
        Room for the labels over the columns, and for a scale [in].
    """

    title: str
    subtitle: str
    labels: Sequence[str]
    notes: Sequence[str]
    alarm: Sequence[bool]
    shown: Sequence[Look]
    width: float
    above: float
    below: float

    @property
    def n_rows(self) -> int:
        return len(self.labels)

    @property
    def height(self) -> float:
        return len(self.labels) * _ROW


def _clock_sheet(fleet: Fleet, by: str, clocks: Sequence[Clocks]) -> _Sheet:
    known = [row for row in clocks if len(row.frequencies)]
    states = sorted({int(s) for row in known for s in row.scaling}, reverse=True)
    silent = int(fleet.hosts["tsc_frequency"].isna().sum())
    n_scale = int(fleet.hosts["tsc_scaling"].fillna(value=False).sum())
    told = f"{count(len(fleet), 'host')} by {by}: {n_scale} say that they scale"
    told += f", {silent} tell no frequency" if silent else ""
    barred = sum(row.n_barred for row in clocks)
    told += f"; band: {TSC_TOLERANCE} ppm; ways barred inside a row: {f'{barred:,}' if barred else 'none'}"
    return _Sheet(
        title=_CLOCK_TITLE,
        subtitle=told,
        labels=[_clock_label(row) for row in clocks],
        notes=[_clock_note(row) for row in clocks],
        alarm=[row.n_barred > 0 for row in clocks],
        shown=[*(SCALING[s] for s in states), *([WIDTHS[Width.UNKNOWN]] if len(known) < len(clocks) else [])],
        width=_WIDTH,
        above=0.06,
        below=chart.AXIS,
    )


def _clock_label(row: Clocks) -> str:
    if row.folded > 1:
        return f"{row.folded} more rows"
    return f"{row.group}, {row.middle / 1e6:,.1f} MHz" if len(row.frequencies) else row.group


def _clock_note(row: Clocks) -> str:
    n = count(len(row.hosts), "host")
    if row.folded > 1:
        return f"{n}, not drawn"
    if not len(row.frequencies):
        return f"{n}: no frequency told"
    scale = int((row.scaling == Scaling.YES).sum())
    told = f"{n}, {scale or 'none'} scale{'s' if scale == 1 else ''}"
    if len(row.hosts) == 1:
        return f"1 host, {'scales' if scale else 'does not scale' if row.scaling[0] == Scaling.NO else 'does not say'}"
    told += f"; {row.spread:,.0f} ppm apart"
    if row.n_barred:
        n_ways = len(row.hosts) * (len(row.hosts) - 1)
        return f"{told}: {row.n_barred:,} of {n_ways:,} ways barred, into {fitting(row.barred)}"
    return f"{told}: {row.n_unsure:,} ways not known" if row.n_unsure else f"{told}: any to any"


def _bit_sheet(fleet: Fleet, by: str, bits: Sequence[Bits]) -> _Sheet:
    values = _values(bits)
    silent = int(fleet.hosts["maxphysaddr"].isna().sum())
    differ = sum(bool(row.lowest) for row in bits)
    n = sum(row.folded for row in bits)
    told = f"{count(len(fleet), 'host')} by {by}: {differ or 'none'} of {count(n, 'group')} differ"
    told += "s" if differ <= 1 else ""
    states = [Width.USUAL] if values else []
    states += [Width.LOWEST] if differ else []
    states += [Width.UNKNOWN] if silent else []
    return _Sheet(
        title=_BITS_TITLE,
        subtitle=told + (f"; {silent} tell nothing" if silent else ""),
        labels=[row.group if row.folded == 1 else f"{row.folded} more groups" for row in bits],
        notes=[_bit_note(row) for row in bits],
        alarm=[bool(row.lowest) for row in bits],
        shown=[WIDTHS[s] for s in states],
        width=_CELL * (len(values) + bool(silent)),
        above=canvas.text_height(1) + 0.08,
        below=0.0,
    )


def _values(bits: Sequence[Bits]) -> list[int]:
    return sorted({n for row in bits for n in row.counts})


def _bit_note(row: Bits) -> str:
    n = count(sum(row.counts.values()) + row.n_unknown, "host")
    return f"{n}; {min(row.counts)} bits on {fitting(row.lowest)}" if row.lowest else n


def _margins(sheet: _Sheet, left: float, right: float, least: float) -> canvas.Margins:
    _, rows = canvas.legend_shape([look.words for look in sheet.shown], width=least)
    return canvas.Margins(
        left=left,
        right=right,
        top=sheet.above + canvas.headline_height(sheet.subtitle),
        bottom=sheet.below + canvas.legend_height(rows) + 0.1,
    )


def _font(ax: Axes, sheet: _Sheet) -> float:
    return max(2.0, min(canvas.FONT, canvas.size_of(ax)[1] / sheet.n_rows * 72 / 1.45))


def _draw_clocks(ax: Axes, cell: canvas.Cell, clocks: Sequence[Clocks], part: dict[str, canvas.Part]) -> None:
    off = [float(abs(row.off).max()) for row in clocks if len(row.frequencies)]
    reach = max(_LEAST, 1.12 * max(off, default=0.0))
    ax.set_xlim(-reach, reach)
    if (style := part["scale"]) is not None:
        step = TSC_TOLERANCE / 2 * np.ceil(reach / (2 * TSC_TOLERANCE))  # so that the band has its numbers
        ax.set_xticks(np.arange(-(reach // step), reach // step + 1) * step)
        chart.scale_below(ax, "from the middle of the row [ppm]", font=cell.font, style=style)
    if (style := part["band"]) is not None:
        look: dict[str, Any] = {"color": _BAND, "height": 0.86, "linewidth": 0.0, "zorder": 0, "gid": "band"} | style
        y = [i + 0.5 for i, row in enumerate(clocks) if len(row.frequencies)]
        ax.barh(y, TSC_TOLERANCE, left=-TSC_TOLERANCE / 2, **look)
    silent = [i + 0.5 for i, row in enumerate(clocks) if not len(row.frequencies) and row.folded == 1]
    if silent and (style := part["hatches"]) is not None:
        unknown = WIDTHS[Width.UNKNOWN]
        look = {"facecolor": unknown.colour, "edgecolor": unknown.hatch_colour, "hatch": unknown.hatch, "height": 0.86}
        look |= {"linewidth": 0.0, "hatch_linewidth": 0.6, "gid": unknown.words} | style
        ax.barh(silent, 2 * reach, left=-reach, **look)
    if (style := part["marks"]) is not None:
        for state, kind in SCALING.items():
            x, y, sizes = _marks(clocks, state, reach)
            hollow = kind.glyph == "o"
            mark: dict[str, Any] = {"marker": kind.glyph, "s": sizes, "zorder": 3, "gid": kind.words, "linewidth": 1.0}
            mark |= {"facecolor": "none", "edgecolor": kind.glyph_colour} if hollow else {"color": kind.glyph_colour}
            if x:
                ax.scatter(x, y, **(mark | style))


def _marks(clocks: Sequence[Clocks], state: int, reach: float) -> tuple[list[float], list[float], list[float]]:
    """Where the hosts of one state are, those that would lie on each other as one larger mark."""
    x, y, sizes = [], [], []
    for i, row in enumerate(clocks):
        if not len(row.frequencies):
            continue
        lane = 0.5 if len(set(row.scaling.tolist())) == 1 else 0.3 if state == Scaling.YES else 0.7
        bins = np.rint(row.off[row.scaling == state] / (2 * reach / _BINS))
        places, n = np.unique(bins, return_counts=True)
        x += (places * 2 * reach / _BINS).tolist()
        y += [i + lane] * len(places)
        sizes += (9.0 * np.minimum(1 + np.log2(n) / 2, 4.0)).tolist()
    return x, y, sizes


def _draw_bits(ax: Axes, cell: canvas.Cell, bits: Sequence[Bits], part: dict[str, canvas.Part]) -> None:
    values = _values(bits)
    silent = any(row.n_unknown for row in bits)
    counts = np.array([[*(row.counts.get(v, 0) for v in values), *[row.n_unknown] * silent] for row in bits])
    states = np.where(counts > 0, Width.USUAL, BLANK).astype(np.int8)
    for i, row in enumerate(bits):
        if row.lowest:
            states[i, values.index(min(row.counts))] = Width.LOWEST
    if silent:
        states[:, -1] = np.where(counts[:, -1] > 0, Width.UNKNOWN, BLANK)
    x, y = np.arange(counts.shape[1], dtype=np.float64), np.arange(len(bits), dtype=np.float64)
    ax.set_xlim(0, max(1, len(x)))
    drawn = {"cells": part["cells"], "hatches": part["hatches"], "glyphs": None}
    canvas.draw_cells(ax, cell, x, y, states, WIDTHS, with_glyph=np.zeros(states.shape, dtype=bool), **drawn)
    if (style := part["glyphs"]) is not None:
        rows, columns = np.nonzero(states == Width.LOWEST)
        look: dict[str, Any] = {"marker": WIDTHS[Width.LOWEST].glyph, "color": INK, "s": 12, "linewidth": 0.0}
        ax.scatter(x[columns] + 0.2, y[rows] + 0.5, **(look | {"zorder": 3, "gid": "fewer"} | style))
    if (style := part["numbers"]) is not None:
        for i, j in np.argwhere(counts > 0):
            lowest = states[i, j] == Width.LOWEST
            look = {"fontsize": cell.font, "color": INK, "fontweight": "bold" if lowest else "normal"}
            if states[i, j] == Width.UNKNOWN:
                look |= {"bbox": {"facecolor": PAPER, "linewidth": 0.0, "pad": 1.0}}
            ax.text(x[j] + 0.5, y[i] + 0.5, str(counts[i, j]), ha="center", va="center", **(look | style))
    if (style := part["scale"]) is not None:
        words = [*(f"{v} bits" for v in values), *(["not known"] if silent else [])]
        canvas.column_labels(ax, x, words, {"rotation": 0} | style)


def _frame(ax: Axes, cell: canvas.Cell, sheet: _Sheet, left: float, least: float, part: dict[str, canvas.Part]) -> None:
    """Labels, notes, title and legend around the rows."""
    y = np.arange(sheet.n_rows, dtype=np.float64)
    if (style := part["labels"]) is not None:
        canvas.row_labels(ax, y, sheet.labels, style)
    if (style := part["notes"]) is not None:
        for alarm in (False, True):
            told = [note if a == alarm else "" for note, a in zip(sheet.notes, sheet.alarm, strict=True)]
            canvas.row_notes(ax, cell, y, told, ({"color": ALARM, "fontweight": "bold"} if alarm else {}) | style)
    if (style := part["title"]) is not None:
        canvas.headline(ax, sheet.title, sheet.subtitle, left=left, up=sheet.above, style=style)
    if (style := part["legend"]) is not None:
        columns, _ = canvas.legend_shape([look.words for look in sheet.shown], width=least)
        canvas.draw_legend(ax, sheet.shown, columns, left=left, style=style, down=sheet.below)
    rows = [f"{label}: {note}" for label, note in zip(sheet.labels, sheet.notes, strict=True)]
    more = f"; and {len(rows) - _TOLD} more" if len(rows) > _TOLD else ""
    ax.set_label(f"{sheet.title}. {sheet.subtitle}. {'; '.join(rows[:_TOLD])}{more}.")
