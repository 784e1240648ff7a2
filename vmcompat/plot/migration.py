"""From host, to host: where guests may move, and from where they could not come back."""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from vmcompat.fleet.frames import Fleet
from vmcompat.plot import _canvas as canvas
from vmcompat.plot._fold import count
from vmcompat.plot._moves import MoveTable, fold_moves
from vmcompat.plot._style import INK, MOVES

_PARTS: Final = ("title", "axis_labels", "host_labels", "notes", "cells", "hatches", "glyphs", "legend")
_TITLE: Final = "Where a guest may move that got all its host can give"
_FROM: Final = "from host \N{DOWNWARDS ARROW}"
_TO: Final = "to host \N{RIGHTWARDS ARROW}"
_BLOCK_GAP: Final = 0.5  # cells
_LABEL_FONT: Final = 8.0


def migration(fleet: Fleet, *, ax: Axes | None = None, visuals: canvas.Visuals | None = None) -> Axes:
    """From host (row) to host (column), by ``vc.migration_matrix``: both ways, one way only, or not at all.

    Hosts of one model that are alike as source and as target are one row and one column, named after the first with the
    number of the others; among themselves they may move. Rows and columns run by architecture and vendor, then by
    model. Hosts whose CPU is not known are hatched rows and columns at the end, with the reason.

    Parameters
    ----------
    fleet : Fleet
        In the view that answers: hypervisor for guests started with host-model.
    ax : Axes, optional
        Where to draw. Default: a figure of its own, as large as its content needs.
    visuals : mapping of str to mapping or False, optional
        Keywords for the artists of a part, or False to leave it out: title, axis_labels, host_labels, notes, cells,
        hatches, glyphs, legend.

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
    >>> vc.plot.migration(vc.read_fleet("sample_caps/virsh_pair")).get_label()
    'Matrix from host to host. 2 hosts, 2 known; host view, CPU map 12.8.0; 0 pairs may move both ways, 1 one way only.'
    """
    part = canvas.parts(visuals, _PARTS)
    table = fold_moves(fleet)
    starts = canvas.starts(table.sizes, gap=_BLOCK_GAP)
    at = np.concatenate(starts)
    size = float(at[-1]) + 1
    cell = canvas.cell_on(ax, n_columns=size, n_rows=size)
    labels = [kind.label for kind in table.kinds]
    subtitle = _subtitle(fleet, table)
    label = max(canvas.text_width(text, size=cell.font) for text in labels) + 0.08
    left = max(label, canvas.text_width(_FROM, size=_LABEL_FONT, bold=True) + 0.08)
    above = label + canvas.text_height(1, size=_LABEL_FONT) + 0.1
    right = max(canvas.text_width(kind.note, size=cell.font) for kind in table.kinds) + 0.12
    least = canvas.headline_width(_TITLE, subtitle)
    shown, columns, rows = canvas.legend_rows(
        np.unique(table.states).tolist(), MOVES, width=max(least, left + size * cell.width + right)
    )
    if ax is None:
        margins = canvas.Margins(left=left, right=right, top=above + canvas.HEADLINE, bottom=canvas.legend_height(rows))
        ax = canvas.new_axes(cell, size, size, margins, least_width=least)
    canvas.prepare(ax, cell, size, size)
    drawn = {name: part[name] for name in ("cells", "hatches", "glyphs")}
    everywhere = np.ones(table.states.shape, dtype=bool)
    canvas.draw_cells(ax, cell, at, at, table.states, MOVES, with_glyph=everywhere, **drawn)
    if (style := part["host_labels"]) is not None:
        canvas.row_labels(ax, at, labels, style)
        canvas.column_labels(ax, at, labels, style)
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
    return f"{count(len(fleet), 'host')}, {known} known; {view}, CPU map {fleet.cpu_map.version}; {pairs}"


def _in_words(subtitle: str, table: MoveTable) -> str:
    """The picture for those who cannot see it."""
    unknown = [f"{kind.label}: {kind.note}" for kind in table.kinds if kind.unknown]
    return f"Matrix from host to host. {subtitle}." + (f" Not known: {'; '.join(unknown)}." if unknown else "")
