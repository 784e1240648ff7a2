"""Hosts by features: who offers what, and what a baseline keeps of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, blended_transform_factory
from numpy.typing import NDArray

from vmcompat.fleet.frames import Fleet
from vmcompat.plot import _canvas as canvas
from vmcompat.plot._fold import States, count
from vmcompat.plot._offers import RED, FeatureTable, Offer, fold_features
from vmcompat.plot._style import ALARM, FAINT, INK, OFFERS

_PARTS: Final = (
    "title",
    "groups",
    "feature_labels",
    "host_labels",
    "notes",
    "block_titles",
    "cells",
    "hatches",
    "glyphs",
    "legend",
)
_TITLE: Final = "What each host offers, and what the baseline of its vendor keeps"
_GROUP_GAP: Final = 0.5  # cells
_BLOCK_GAP: Final = 0.5
_HEADER: Final = 1.15  # room for a block's title
_GROUP_FONT: Final = 7.5
_BAND: Final = "baseline"


def features(fleet: Fleet, *, ax: Axes | None = None, visuals: canvas.Visuals | None = None) -> Axes:
    """Hosts by features, grouped by meaning, with what a baseline would keep and drop.

    One block of rows for each architecture and vendor, under the band of its baseline (``fleet.baselines()``; hosts
    whose CPU is not known are left out of it, as its title says). Hosts that are alike are one row, named after the
    first with the number of the others; features of one group that are alike on every host are one column. Features
    that no known host offers are not drawn, and counted. Hosts whose CPU is not known are rows of hatching at the end,
    with the reason.

    Parameters
    ----------
    fleet : Fleet
    ax : Axes, optional
        Where to draw. Default: a figure of its own, as large as its content needs.
    visuals : mapping of str to mapping or False, optional
        Keywords for the artists of a part, or False to leave it out: title, groups, feature_labels, host_labels, notes,
        block_titles, cells, hatches, glyphs, legend.

    Returns
    -------
    Axes
        One unit is one cell; ``get_label()`` says in words what is drawn. A notebook shows it where a cell ends with
        it; ``ax.figure.savefig(...)`` writes it.

    Raises
    ------
    FrameError
        The fleet has no host, or ``visuals`` names a part that is not there.

    Notes
    -----
    At most 80 different kinds of host are drawn, those of most hosts, and 160 columns; what is not drawn is counted
    in a row or column of its own.

    Examples
    --------
    >>> import vmcompat as vc
    >>> ax = vc.plot.features(vc.read_fleet("sample_caps/virsh_pair"))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['baseline', 'sandybridge', 'westmere']
    """
    part = canvas.parts(visuals, _PARTS)
    table = fold_features(fleet)
    sheet = _sheet(table)
    cell = canvas.cell_on(ax, n_columns=sheet.width, n_rows=sheet.height)
    groups = _groups(table, cell)
    subtitle = _subtitle(fleet, table)
    above = max(
        (canvas.text_width(c.label, size=cell.font, bold=red) for c, red in zip(table.columns, sheet.red, strict=True)),
        default=0.0,
    )
    above += 0.08
    strip = max((g.height for g in groups), default=0.0) + 0.12
    left = _widest(sheet.labels, size=cell.font) + 0.08
    right = _widest(sheet.notes, size=cell.font) + 0.12
    least = max(
        left + _widest((b.title for b in table.blocks), bold=True, size=cell.font),
        canvas.headline_width(_TITLE, subtitle),
    )
    shown, columns, rows = canvas.legend_rows(
        np.unique(sheet.states).tolist(), OFFERS, width=max(least, left + sheet.width * cell.width + right)
    )
    if ax is None:
        top = above + strip + canvas.HEADLINE
        margins = canvas.Margins(left=left, right=right, top=top, bottom=canvas.legend_height(rows))
        ax = canvas.new_axes(cell, sheet.width, sheet.height, margins, least_width=least)
    canvas.prepare(ax, cell, sheet.width, sheet.height)
    drawn = {name: part[name] for name in ("cells", "hatches", "glyphs")}
    canvas.draw_cells(ax, cell, sheet.x, sheet.y, sheet.states, OFFERS, with_glyph=sheet.glyphs, **drawn)
    _labels(ax, cell, table, sheet, part)
    if (style := part["groups"]) is not None:
        _draw_groups(ax, groups, up=above, style=style)
    if (style := part["title"]) is not None:
        canvas.headline(ax, _TITLE, subtitle, left=left, up=above + strip, style=style)
    if (style := part["legend"]) is not None:
        canvas.draw_legend(ax, shown, columns, left=left, style=style)
    ax.set_label(_in_words(subtitle, table))
    return ax


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """Where everything is, in cells from the top left."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    states: States
    glyphs: NDArray[np.bool_]
    labels: Sequence[str]
    notes: Sequence[str]
    headers: Sequence[float]
    red: Sequence[bool]
    width: float
    height: float


def _sheet(table: FeatureTable) -> _Sheet:
    runs = [len(list(run)) for _, run in groupby(table.columns, key=lambda c: c.group)]
    x = np.concatenate([*canvas.starts(runs, gap=_GROUP_GAP), np.empty(0)]) if runs else np.zeros(1)
    blocks = canvas.starts([len(b.kinds) + 1 for b in table.blocks], gap=_BLOCK_GAP, before=_HEADER)
    end = blocks[-1][-1] + 1 + _BLOCK_GAP if blocks else 0.0
    unknown = end + np.arange(len(table.unknown), dtype=np.float64)
    y = np.concatenate([*blocks, unknown])
    states = [row for b in table.blocks for row in (b.band[np.newaxis], b.states)]
    states.append(np.full((len(unknown), len(x)), Offer.UNKNOWN, dtype=np.int8))
    cells = np.concatenate(states)
    is_band = np.array([i == 0 for b in table.blocks for i in range(len(b.kinds) + 1)] + [False] * len(unknown))
    return _Sheet(
        x=x,
        y=y,
        states=cells,
        glyphs=is_band[:, np.newaxis] | np.isin(cells, (*RED, Offer.LEFT_OUT)),
        labels=[
            *(text for b in table.blocks for text in (_BAND, *(k.label for k in b.kinds))),
            *(k.label for k in table.unknown),
        ],
        notes=[
            *(text for b in table.blocks for text in ("", *(k.note for k in b.kinds))),
            *(k.note for k in table.unknown),
        ],
        headers=[float(rows[0]) for rows in blocks],
        red=[bool(column.any()) for column in np.isin(cells, RED).T] if table.columns else [],
        width=float(x[-1]) + 1,
        height=float(y[-1]) + 1,
    )


def _widest(texts: Iterable[str], *, size: float, bold: bool = False) -> float:
    return max((canvas.text_width(text, size=size, bold=bold) for text in texts), default=0.0)


def _labels(ax: Axes, cell: canvas.Cell, table: FeatureTable, sheet: _Sheet, part: dict[str, canvas.Part]) -> None:
    if (style := part["feature_labels"]) is not None and table.columns:
        texts = canvas.column_labels(ax, sheet.x, [c.label for c in table.columns], style)
        for text, red in zip(texts, sheet.red, strict=True):
            if red:
                text.set(color=ALARM, fontweight="bold")
    if (style := part["host_labels"]) is not None:
        for text in canvas.row_labels(ax, sheet.y, sheet.labels, style):
            if text.get_text() == _BAND:
                text.set_fontweight("bold")
    if (style := part["notes"]) is not None:
        canvas.row_notes(ax, cell, sheet.y, sheet.notes, style)
    if (style := part["block_titles"]) is not None:
        for y, block in zip(sheet.headers, table.blocks, strict=True):
            keywords: dict[str, Any] = {
                "fontsize": cell.font,
                "fontweight": "bold",
                "color": INK,
                "parse_math": False,
            } | style
            ax.text(0, y - 0.3, block.title, ha="left", va="bottom", **keywords)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """A group's name above its columns, upright where these are too narrow for it."""

    begin: float
    end: float
    text: str
    upright: bool
    height: float


def _groups(table: FeatureTable, cell: canvas.Cell) -> list[_Group]:
    """How each group's name fits above its columns, of a width in inches."""
    groups, at = [], 0.0
    for name, run in groupby(table.columns, key=lambda c: c.group):
        n = len(list(run))
        room = (n + _GROUP_GAP) * cell.width
        line = canvas.text_height(1, size=_GROUP_FONT)
        words, lines = name.split(), _wrapped(name, room)
        upright = any(_bold(text) > room for text in lines)
        if upright:
            lines = words if len(words) * line <= room else [name]
        height = max(_bold(text) for text in lines) if upright else len(lines) * line
        group = _Group(begin=at, end=at + n, text="\n".join(lines), upright=upright, height=height)
        groups.append(group)
        at += n + _GROUP_GAP
    return groups


def _wrapped(name: str, room: float) -> list[str]:
    """Words in as few lines as fit the room."""
    lines = [""]
    for word in name.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _bold(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _bold(text: str) -> float:
    return canvas.text_width(text, size=_GROUP_FONT, bold=True)


def _draw_groups(ax: Axes, groups: Sequence[_Group], *, up: float, style: dict[str, Any]) -> None:
    figure = cast(Figure, ax.get_figure(root=True))
    lifted = blended_transform_factory(ax.transData, ax.transAxes) + ScaledTranslation(0, up, figure.dpi_scale_trans)
    for group in groups:
        ax.plot([group.begin + 0.1, group.end - 0.1], [1, 1], transform=lifted, color=FAINT, linewidth=1, clip_on=False)
        keywords: dict[str, Any] = {
            "fontsize": _GROUP_FONT,
            "fontweight": "bold",
            "color": INK,
            "linespacing": 1.1,
        } | style
        if group.upright:
            keywords["rotation"] = 90
        ax.annotate(
            group.text,
            ((group.begin + group.end) / 2, 1),
            xycoords=ax.get_xaxis_transform(),
            xytext=(0, up * 72 + 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            annotation_clip=False,
            **keywords,
        )


def _subtitle(fleet: Fleet, table: FeatureTable) -> str:
    known = len(fleet) - len(fleet.unknown)
    view = f"{fleet.view} view" + (f" ({fleet.virttype})" if fleet.view == "hypervisor" else "")
    drawn = sum(len(c.features) for c in table.columns)
    columns = f"{count(drawn, 'feature')} in {count(len(table.columns), 'column')}"
    absent = f", {table.absent} more that no known host offers" if table.absent else ""
    return f"{count(len(fleet), 'host')}, {known} known; {view}, CPU map {fleet.cpu_map.version}; {columns}{absent}"


def _in_words(subtitle: str, table: FeatureTable) -> str:
    """The picture for those who cannot see it."""
    unknown = [f"{kind.label}: {kind.note}" for kind in table.unknown]
    sentences = [f"Matrix of hosts by features. {subtitle}", *(b.title for b in table.blocks)]
    return ". ".join(sentences) + (f". Not known: {'; '.join(unknown)}." if unknown else ".")
