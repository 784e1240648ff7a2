"""Groups of hosts by the bundles of features that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from vmcompat.fleet.frames import Fleet
from vmcompat.plot import _canvas as canvas
from vmcompat.plot._bundles import OFFERED, BundleTable, Shared, fold_bundles
from vmcompat.plot._fold import States, count
from vmcompat.plot._style import ALARM, BUNDLES, FAINT, INK

_PARTS: Final = (
    "title",
    "feature_labels",
    "group_labels",
    "bars",
    "numbers",
    "stripes",
    "links",
    "hatches",
    "glyphs",
    "legend",
)
_TITLE: Final = "Which groups of hosts share which bundles of features"
_TOP: Final = 5.0  # height of the bars of the bundles, in cells
_SIDE: Final = 5.0  # length of the bars of the groups
_GAP: Final = 0.5
_BAR: Final = "#6d8fae"
_STRIPE: Final = "#f3f5f7"
_TOLD: Final = 5


def upset(fleet: Fleet, *, by: str = "model", ax: Axes | None = None, visuals: canvas.Visuals | None = None) -> Axes:
    """Groups of hosts (rows) by bundles of features (columns) that the same groups offer.

    A bundle is all features that are offered alike: in each group by all of its hosts, by some, or by none. Bundles of
    most features come first; their bars are the number of features, red where mitigation controls or hazards are among
    them, and below each stands how many hosts offer all of it. The bars at the right are the hosts of each group,
    largest first. Features that every host offers, and those that none offers, are counted in the subtitle.

    Parameters
    ----------
    fleet : Fleet
    by : str
        A column of ``fleet.hosts`` that says which hosts are a group.
    ax : Axes, optional
        Where to draw. Default: a figure of its own, as large as its content needs.
    visuals : mapping of str to mapping or False, optional
        Keywords for the artists of a part, or False to leave it out: title, feature_labels, group_labels, bars,
        numbers, stripes, links, hatches, glyphs, legend.

    Returns
    -------
    Axes
        One unit is one cell; ``get_label()`` says in words what is drawn. A notebook shows it where a cell ends with
        it; ``ax.figure.savefig(...)`` writes it.

    Raises
    ------
    FrameError
        The fleet has no host, there is no such column, or ``visuals`` names a part that is not there.

    Notes
    -----
    At most 40 groups and 48 bundles are drawn; the last one stands for all smaller ones.

    Examples
    --------
    >>> import vmcompat as vc
    >>> ax = vc.plot.upset(vc.read_fleet("sample_caps/virsh_pair"))
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['x2apic, tsc-deadline +4']
    """
    part = canvas.parts(visuals, _PARTS)
    table = fold_bundles(fleet, by)
    sheet = _sheet(table)
    cell = canvas.cell_on(ax, n_columns=sheet.width, n_rows=sheet.height)
    subtitle = _subtitle(fleet, table, by)
    labels = [bundle.label for bundle in table.bundles]
    above = canvas.widest(labels, size=cell.font, bold=True) + 0.12
    left = max(canvas.widest(sheet.labels, size=cell.font), canvas.widest(_sides(table), size=cell.font)) + 0.1
    right = canvas.widest(sheet.notes, size=cell.font) + 0.12
    least = canvas.headline_width(_TITLE, subtitle)
    shown, columns, rows = canvas.legend_rows(
        np.unique(sheet.states).tolist(), BUNDLES, width=max(least, left + sheet.width * cell.width + right)
    )
    if ax is None:
        top = above + canvas.headline_height(subtitle)
        margins = canvas.Margins(left=left, right=right, top=top, bottom=canvas.legend_height(rows))
        ax = canvas.new_axes(sheet.width * cell.width, sheet.height * cell.height, margins, least_width=least)
    canvas.prepare(ax, cell, sheet.width, sheet.height)
    _draw_matrix(ax, cell, sheet, part)
    _draw_bars(ax, cell, table, sheet, part)
    _labels(ax, cell, table, sheet, part)
    if (style := part["title"]) is not None:
        canvas.headline(ax, _TITLE, subtitle, left=left, up=above, style=style)
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
    labels: Sequence[str]
    notes: Sequence[str]
    counts: Sequence[int]
    bars_at: float
    width: float
    height: float


def _sheet(table: BundleTable) -> _Sheet:
    n = len(table.bundles)
    unknown = np.full((len(table.unknown), n), Shared.UNKNOWN, dtype=np.int8)
    known = np.arange(len(table.groups), dtype=np.float64)
    below = len(known) + (_GAP if len(known) else 0.0) + np.arange(len(table.unknown))
    y = _TOP + _GAP + np.concatenate([known, below])
    counts = [*table.sizes, *(len(kind.hosts) for kind in table.unknown)]
    return _Sheet(
        x=np.arange(n, dtype=np.float64),
        y=y,
        states=np.vstack([table.states, unknown]),
        labels=[*table.groups, *(kind.note for kind in table.unknown)],
        notes=[count(k, "host") for k in counts],
        counts=counts,
        bars_at=n + (_GAP if n else 0.0),
        width=n + _GAP + _SIDE,
        height=float(y[-1]) + 1 + 1.8,
    )


def _sides(table: BundleTable) -> tuple[str, str]:
    """What the bars above and the numbers below are."""
    return ("features", "hosts that offer all") if table.bundles else ("", "")


def _draw_matrix(ax: Axes, cell: canvas.Cell, sheet: _Sheet, part: dict[str, canvas.Part]) -> None:
    """A dot for each group and bundle; the groups that offer one are linked."""
    n_columns = len(sheet.x)
    if (style := part["stripes"]) is not None and n_columns:
        look: dict[str, Any] = {"color": _STRIPE, "height": 1.0, "linewidth": 0.0, "zorder": 0} | style
        ax.barh(sheet.y[::2] + 0.5, n_columns, **look)
    if (style := part["links"]) is not None:
        lines = []
        for j, x in enumerate(sheet.x):
            here = np.flatnonzero(np.isin(sheet.states[:, j], OFFERED))
            if len(here) > 1:
                lines.append([(x + 0.5, sheet.y[here[0]] + 0.5), (x + 0.5, sheet.y[here[-1]] + 0.5)])
        look = {"colors": BUNDLES[Shared.ALL].glyph_colour, "linewidths": 1.0, "alpha": 0.55, "zorder": 1}
        ax.add_collection(LineCollection(lines, **(look | {"gid": "links"} | style)), autolim=False)
    everywhere = np.ones(sheet.states.shape, dtype=bool)
    drawn = {"cells": None, "hatches": part["hatches"], "glyphs": part["glyphs"]}
    canvas.draw_cells(ax, cell, sheet.x, sheet.y, sheet.states, BUNDLES, with_glyph=everywhere, **drawn)


def _draw_bars(ax: Axes, cell: canvas.Cell, table: BundleTable, sheet: _Sheet, part: dict[str, canvas.Part]) -> None:
    sizes = np.array([len(bundle.features) for bundle in table.bundles], dtype=np.float64)
    red = np.array([len(bundle.red) for bundle in table.bundles], dtype=np.float64)
    heights = sizes / max(sizes.max(initial=1.0), 1.0) * (_TOP - 1.0)
    counts = np.array(sheet.counts, dtype=np.float64)
    if (style := part["bars"]) is not None:
        look: dict[str, Any] = {"width": 0.7, "linewidth": 0.0, "color": _BAR, "gid": "features"} | style
        ax.bar(sheet.x + 0.5, -heights, bottom=_TOP, **look)
        marked = np.flatnonzero(red)
        share = heights[marked] * red[marked] / sizes[marked]
        alarm: dict[str, Any] = {"color": ALARM, "gid": "controls and hazards", "hatch": "////", "edgecolor": "#ffffff"}
        ax.bar(sheet.x[marked] + 0.5, -share, bottom=_TOP, **(look | alarm))
        look = {"height": 0.62, "linewidth": 0.0, "color": _BAR, "gid": "hosts", **style}
        ax.barh(sheet.y + 0.5, counts / counts.max() * _SIDE, left=sheet.bars_at, **look)
    if (style := part["numbers"]) is not None:
        words: dict[str, Any] = {"fontsize": cell.font, "color": INK} | style
        narrow = max((bundle.n_hosts for bundle in table.bundles), default=0) >= 100
        for x, height, bundle in zip(sheet.x, heights, table.bundles, strict=True):
            ax.text(x + 0.5, _TOP - height - 0.08, str(len(bundle.features)), ha="center", va="bottom", **words)
            end = sheet.height - 1.6
            ax.text(
                x + 0.5,
                end,
                str(bundle.n_hosts) if bundle.folded == 1 else "",
                ha="center",
                va="top",
                rotation=90 * narrow,
                **words,
            )
        for y, k, note in zip(sheet.y, counts, sheet.notes, strict=True):
            at = (sheet.bars_at + k / counts.max() * _SIDE, y + 0.5)
            ax.annotate(note, at, xytext=(3, 0), textcoords="offset points", va="center", **words)


def _labels(ax: Axes, cell: canvas.Cell, table: BundleTable, sheet: _Sheet, part: dict[str, canvas.Part]) -> None:
    if (style := part["feature_labels"]) is not None:
        for text, bundle in zip(
            canvas.column_labels(ax, sheet.x, [bundle.label for bundle in table.bundles], style),
            table.bundles,
            strict=True,
        ):
            if bundle.red and bundle.folded == 1:
                text.set(color=ALARM, fontweight="bold")
    if (style := part["group_labels"]) is not None:
        canvas.row_labels(ax, sheet.y, sheet.labels, style)
        look: dict[str, Any] = {"fontsize": cell.font, "color": FAINT, "ha": "right", "annotation_clip": False} | style
        for words, y, va in zip(_sides(table), (_TOP, sheet.height - 1.6), ("bottom", "top"), strict=True):
            if words:
                ax.annotate(words, (0, y), xytext=(-3, 0), textcoords="offset points", va=va, **look)


def _subtitle(fleet: Fleet, table: BundleTable, by: str) -> str:
    known = len(fleet) - len(fleet.unknown)
    view = f"{fleet.view} view" + (f" ({fleet.virttype})" if fleet.view == "hypervisor" else "")
    n_bundles = sum(bundle.folded for bundle in table.bundles)
    n = sum(len(bundle.features) for bundle in table.bundles)
    differ = f"{count(n, 'feature')} in {count(n_bundles, 'bundle')}" if n else "hosts differ in no feature"
    return (
        f"{count(len(fleet), 'host')}, {known} known, by {by}; {view}, CPU map {fleet.cpu_map.version}\n"
        f"{differ}; not drawn: {len(table.on_all)} that every known host offers, {table.absent} that none does"
    )


def _in_words(subtitle: str, table: BundleTable) -> str:
    """The picture for those who cannot see it."""
    told = []
    for bundle, column in zip(table.bundles[:_TOLD], table.states.T, strict=False):
        if bundle.folded > 1:
            continue
        every = [g for g, s in zip(table.groups, column, strict=True) if s in (Shared.ALL, Shared.ALL_TOLD)]
        some_do = [g for g, s in zip(table.groups, column, strict=True) if s == Shared.SOME]
        whose = [f"all of {', '.join(every)}"] if every else []
        whose += [f"some of {', '.join(some_do)}"] if some_do else []
        told.append(f"{count(len(bundle.features), 'feature')} ({bundle.label}): {'; '.join(whose)}")
    unknown = [f"{kind.label}: {kind.note}" for kind in table.unknown]
    sentences = ["Groups of hosts by bundles of features", *subtitle.split("\n"), *told]
    sentences += [f"Not known: {'; '.join(unknown)}"] if unknown else []
    return ". ".join(sentences) + "."
