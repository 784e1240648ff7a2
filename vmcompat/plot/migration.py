"""From host, to host: where guests may move, and from where they could not come back."""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from vmcompat.baseline.answer import some
from vmcompat.fleet.frames import Fleet
from vmcompat.plot import _canvas as canvas
from vmcompat.plot._fold import count
from vmcompat.plot._moves import Move, MoveTable, fold_moves
from vmcompat.plot._style import ALARM, INK, MOVES

_PARTS: Final = ("title", "axis_labels", "host_labels", "notes", "cells", "hatches", "glyphs", "islands", "legend")
_TITLE: Final = "Where a guest may move that got all its host can give"
_FROM: Final = "from host \N{DOWNWARDS ARROW}"
_TO: Final = "to host \N{RIGHTWARDS ARROW}"
_BLOCK_GAP: Final = 0.5  # cells
_LABEL_FONT: Final = 8.0
_NAMES: Final = 3
_TOLD: Final = 12  # one-way doors in the words for those who cannot see them


def migration(fleet: Fleet, *, ax: Axes | None = None, visuals: canvas.Visuals | None = None) -> Axes:
    """From host (row) to host (column), by ``vc.migration_matrix``: both ways, one way only, or not at all.

    Hosts of one model that are alike as source and as target are one row and one column, named after the first with the
    number of the others; among themselves they may move. Rows and columns run by architecture and vendor, then by
    model. An island, whose hosts may all swap guests and with no other host, is outlined; the note of a row names the
    nearest islands from which its guests could not come back. A host whose guests can go to no known host cannot be
    drained and is marked. Hosts whose CPU is not known are hatched rows and columns at the end, with the reason.

    Parameters
    ----------
    fleet : Fleet
        In the view that answers: hypervisor for guests started with host-model.
    ax : Axes, optional
        Where to draw. Default: a figure of its own, as large as its content needs.
    visuals : mapping of str to mapping or False, optional
        Keywords for the artists of a part, or False to leave it out: title, axis_labels, host_labels, notes, cells,
        hatches, glyphs, islands, legend.

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
    At most 80 different kinds of host are drawn, those of most hosts; the others are counted in a row and column of
    their own.

    Examples
    --------
    >>> import vmcompat as vc
    >>> ax = vc.plot.migration(vc.read_fleet("sample_caps/virsh_pair"))
    >>> ax.get_label().split(". ")[3:]
    ['1 host cannot be drained: sandybridge', 'One way only: westmere to sandybridge.']
    """
    part = canvas.parts(visuals, _PARTS)
    table = fold_moves(fleet)
    starts = canvas.starts(table.sizes, gap=_BLOCK_GAP)
    at = np.concatenate(starts)
    size = float(at[-1]) + 1
    cell = canvas.cell_on(ax, n_columns=size, n_rows=size)
    labels = [kind.label for kind in table.kinds]
    subtitle = _subtitle(fleet, table)
    label = canvas.widest(labels, size=cell.font, bold=bool(table.stranded)) + 0.08
    left = max(label, canvas.text_width(_FROM, size=_LABEL_FONT, bold=True) + 0.08)
    above = label + canvas.text_height(1, size=_LABEL_FONT) + 0.1
    right = max(canvas.text_width(kind.note, size=cell.font) for kind in table.kinds) + 0.12
    least = canvas.headline_width(_TITLE, subtitle)
    shown, columns, rows = canvas.legend_rows(
        np.unique(table.states).tolist(), MOVES, width=max(least, left + size * cell.width + right)
    )
    if ax is None:
        top = above + canvas.headline_height(subtitle)
        margins = canvas.Margins(left=left, right=right, top=top, bottom=canvas.legend_height(rows))
        ax = canvas.new_axes(size * cell.width, size * cell.height, margins, least_width=least)
    canvas.prepare(ax, cell, size, size)
    drawn = {name: part[name] for name in ("cells", "hatches", "glyphs")}
    everywhere = np.ones(table.states.shape, dtype=bool)
    canvas.draw_cells(ax, cell, at, at, table.states, MOVES, with_glyph=everywhere, **drawn)
    if (style := part["islands"]) is not None:
        _outline(ax, table, at, style)
    if (style := part["host_labels"]) is not None:
        stranded = np.diag(table.states) == Move.STRANDED
        for texts in (canvas.row_labels(ax, at, labels, style), canvas.column_labels(ax, at, labels, style)):
            for i in np.flatnonzero(stranded):
                texts[i].set(color=ALARM, fontweight="bold")
    if (style := part["axis_labels"]) is not None:
        _axis_labels(ax, style)
    if (style := part["notes"]) is not None:
        canvas.row_notes(ax, cell, at, [kind.note for kind in table.kinds], style)
    if (style := part["title"]) is not None:
        canvas.headline(ax, _TITLE, subtitle, left=left, up=above, style=style)
    if (style := part["legend"]) is not None:
        canvas.draw_legend(ax, shown, columns, left=left, style=style)
    ax.set_label(_in_words(subtitle, table))
    return ax


def _outline(ax: Axes, table: MoveTable, at: NDArray[np.float64], style: dict[str, Any]) -> None:
    """A frame around the cells of each island of several hosts."""
    keywords: dict[str, Any] = {"facecolor": "none", "edgecolor": INK, "linewidth": 1.1, "zorder": 4, "gid": "island"}
    for first, last in table.outlines:
        size = float(at[last] - at[first]) + 1
        ax.add_patch(Rectangle((at[first], at[first]), size, size, **(keywords | style)))


def _axis_labels(ax: Axes, style: dict[str, Any]) -> None:
    """Both near the corner where rows and columns begin."""
    keywords: dict[str, Any] = {"fontsize": _LABEL_FONT, "fontweight": "bold", "color": INK} | style
    ax.xaxis.set_label_position("top")
    ax.set_xlabel(_TO, loc="left", **keywords)
    ax.set_ylabel(_FROM, rotation=0, ha="right", va="bottom", **keywords)
    figure = cast(Figure, ax.get_figure(root=True))
    corner = ax.transAxes + ScaledTranslation(-0.04, 0.04, figure.dpi_scale_trans)
    ax.yaxis.set_label_coords(0, 1, transform=corner)


def _subtitle(fleet: Fleet, table: MoveTable) -> str:
    known = len(fleet) - len(fleet.unknown)
    view = f"{fleet.view} view" + (f" ({fleet.virttype})" if fleet.view == "hypervisor" else "")
    both, one_way = table.ways
    pairs = f"{count(both, 'pair')} may move both ways, {one_way} one way only"
    told = [f"{count(len(fleet), 'host')}, {known} known; {view}, CPU map {fleet.cpu_map.version}; {pairs}"]
    if table.islands:
        several = sum(len(island.hosts) > 1 for island in table.islands) or "none"
        islands = f"{count(len(table.islands), 'island')} of hosts that swap guests, {several} of several hosts"
        told.append(f"{islands}; {count(len(table.doors), 'one-way door')}")
    if table.stranded:
        to = " to any known host" if known < len(fleet) else ""
        told.append(f"{count(len(table.stranded), 'host')} cannot be drained{to}: {some(table.stranded, _NAMES)}")
    return "\n".join(told)


def _in_words(subtitle: str, table: MoveTable) -> str:
    """The picture for those who cannot see it."""
    unknown = [f"{kind.label}: {kind.note}" for kind in table.kinds if kind.unknown]
    doors = [f"{here.name} to {there.name}" for here, there in table.doors]
    sentences = ["Matrix from host to host", *subtitle.split("\n")]
    sentences += [f"One way only: {some(doors, _TOLD)}"] if doors else []
    sentences += [f"Not known: {'; '.join(unknown)}"] if unknown else []
    return ". ".join(sentences) + "."
