"""Hosts by features on paper: blocks of hosts under their bands, columns under their groups of meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, blended_transform_factory
from numpy.typing import NDArray

from vmcompat.plot import _canvas as canvas
from vmcompat.plot._fold import States
from vmcompat.plot._offers import RED, FeatureTable, Offer
from vmcompat.plot._style import ALARM, FAINT, INK, Look

PARTS: Final = (
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
_GROUP_GAP: Final = 0.5  # cells
_BLOCK_GAP: Final = 0.5
_HEADER: Final = 1.45  # room for a block's title
_GROUP_FONT: Final = 7.5


def draw_matrix(
    ax: Axes | None,
    table: FeatureTable,
    looks: Mapping[int, Look],
    *,
    band: str,
    with_glyph: Sequence[int],
    title: str,
    subtitle: str,
    visuals: canvas.Visuals | None,
) -> Axes:
    """Draws it on those axes, or on new ones of the size that it needs.

    Parameters
    ----------
    ax : Axes or None
    table : FeatureTable
    looks : mapping of int to Look
        Of all states in the table.
    band : str
        What the first row of each block is.
    with_glyph : sequence of int
        States whose glyph is drawn in every row, not only on the bands.
    title, subtitle : str
    visuals : mapping, optional
        Of :data:`PARTS`.
    """
    part = canvas.parts(visuals, PARTS)
    sheet = _sheet(table, band, with_glyph)
    cell = canvas.cell_on(ax, n_columns=sheet.width, n_rows=sheet.height)
    groups = group_headers([c.group for c in table.columns], cell)
    above = max(
        (canvas.text_width(c.label, size=cell.font, bold=red) for c, red in zip(table.columns, sheet.red, strict=True)),
        default=0.0,
    )
    above += 0.08
    strip = max((g.height for g in groups), default=0.0) + 0.12
    left = canvas.widest(sheet.labels, size=cell.font) + 0.08
    right = canvas.widest(sheet.notes, size=cell.font) + 0.12
    least = max(
        left + canvas.widest((b.title for b in table.blocks), bold=True, size=cell.font),
        canvas.headline_width(title, subtitle),
    )
    shown, columns, rows = canvas.legend_rows(
        np.unique(sheet.states).tolist(), looks, width=max(least, left + sheet.width * cell.width + right)
    )
    if ax is None:
        top = above + strip + canvas.HEADLINE
        margins = canvas.Margins(left=left, right=right, top=top, bottom=canvas.legend_height(rows))
        ax = canvas.new_axes(sheet.width * cell.width, sheet.height * cell.height, margins, least_width=least)
    canvas.prepare(ax, cell, sheet.width, sheet.height)
    drawn = {name: part[name] for name in ("cells", "hatches", "glyphs")}
    canvas.draw_cells(ax, cell, sheet.x, sheet.y, sheet.states, looks, with_glyph=sheet.glyphs, **drawn)
    _labels(ax, cell, table, sheet, part)
    if (style := part["groups"]) is not None:
        draw_group_headers(ax, groups, up=above, style=style)
    if (style := part["title"]) is not None:
        canvas.headline(ax, title, subtitle, left=left, up=above + strip, style=style)
    if (style := part["legend"]) is not None:
        canvas.draw_legend(ax, shown, columns, left=left, style=style)
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
    bands: Sequence[int]
    red: Sequence[bool]
    width: float
    height: float


def _sheet(table: FeatureTable, band: str, with_glyph: Sequence[int]) -> _Sheet:
    x = group_starts([c.group for c in table.columns])
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
        glyphs=is_band[:, np.newaxis] | np.isin(cells, with_glyph),
        labels=[
            *(text for b in table.blocks for text in (band, *(k.label for k in b.kinds))),
            *(k.label for k in table.unknown),
        ],
        notes=[
            *(text for b in table.blocks for text in ("", *(k.note for k in b.kinds))),
            *(k.note for k in table.unknown),
        ],
        headers=[float(rows[0]) for rows in blocks],
        bands=np.flatnonzero(is_band).tolist(),
        red=[bool(column.any()) for column in np.isin(cells, RED).T] if table.columns else [],
        width=float(x[-1]) + 1,
        height=float(y[-1]) + 1,
    )


def _labels(ax: Axes, cell: canvas.Cell, table: FeatureTable, sheet: _Sheet, part: dict[str, canvas.Part]) -> None:
    if (style := part["feature_labels"]) is not None and table.columns:
        texts = canvas.column_labels(ax, sheet.x, [c.label for c in table.columns], style)
        for text, red in zip(texts, sheet.red, strict=True):
            if red:
                text.set(color=ALARM, fontweight="bold")
    if (style := part["host_labels"]) is not None:
        texts = canvas.row_labels(ax, sheet.y, sheet.labels, style)
        for i in sheet.bands:
            texts[i].set_fontweight("bold")
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
class GroupHeader:
    """A group's name above its columns, upright where these are too narrow for it."""

    begin: float
    end: float
    text: str
    upright: bool
    height: float


def group_starts(names: Sequence[str]) -> NDArray[np.float64]:
    """Where columns of these groups begin, in cells."""
    runs = [len(list(run)) for _, run in groupby(names)]
    return np.concatenate([*canvas.starts(runs, gap=_GROUP_GAP), np.empty(0)]) if runs else np.zeros(1)


def group_headers(names: Sequence[str], cell: canvas.Cell) -> list[GroupHeader]:
    """How the name of each run of columns fits above them."""
    groups, at = [], 0.0
    for name, run in groupby(names):
        n = len(list(run))
        room = (n + _GROUP_GAP) * cell.width
        line = canvas.text_height(1, size=_GROUP_FONT)
        lines = _wrapped(name, room)
        upright = any(_bold(text) > room for text in lines)
        if upright:
            lines = _in_lines(name, max(1, int(room / line)))
        height = max(_bold(text) for text in lines) if upright else len(lines) * line
        group = GroupHeader(begin=at, end=at + n, text="\n".join(lines), upright=upright, height=height)
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


def _in_lines(name: str, most: int) -> list[str]:
    """Words in no more lines than that, the longest as short as it can be."""
    words = name.split()
    spans = [" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
    return next(lines for room in sorted(map(_bold, spans)) if len(lines := _wrapped(name, room)) <= most)


def _bold(text: str) -> float:
    return canvas.text_width(text, size=_GROUP_FONT, bold=True)


def draw_group_headers(ax: Axes, groups: Sequence[GroupHeader], *, up: float, style: dict[str, Any]) -> None:
    """The names ``up`` inches above the cells, over a line."""
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
