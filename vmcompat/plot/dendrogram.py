"""Kinds of hosts merged step by step, by the value that merging costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from vmcompat.baseline.answer import some
from vmcompat.baseline.lattice import pack
from vmcompat.baseline.meanings import meanings
from vmcompat.baseline.parts import Part, divide, labels_of
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.plot import _canvas as canvas
from vmcompat.plot import _chart as chart
from vmcompat.plot._fold import count
from vmcompat.plot._merges import Tree, cut, merge
from vmcompat.plot._style import ALARM, FAINT, INK, LEVELS

_PARTS: Final = ("title", "labels", "block_titles", "branches", "marks", "notes", "scale", "legend")
_TITLE: Final = "Which kinds of hosts are close: what merging them costs"
_SCALE: Final = "value lost by all hosts of a group together, once they share one baseline (square-root scale)"
_WIDTH: Final = 5.2  # [in]
_HEADER: Final = 1.3  # rows
_BLOCK_GAP: Final = 0.5
_MOST_LEAVES: Final = 80
_NOTE_FONT: Final = 6.0
_RED: Final = "thick: a mitigation control is lost by this merger"


def dendrogram(fleet: Fleet, *, ax: Axes | None = None, visuals: canvas.Visuals | None = None) -> Axes:
    """Kinds of hosts merged into ever larger groups, always where it costs least value.

    Each row is a kind of hosts that offer the same. Two groups meet as far to the right as all hosts of both together
    lose when they share one baseline; thick red where they lose a mitigation control by that. Hosts of different
    architectures or vendors never meet.

    Parameters
    ----------
    fleet : Fleet
    ax : Axes, optional
        Where to draw. Default: a figure of its own, as large as its content needs.
    visuals : mapping of str to mapping or False, optional
        Keywords for the artists of a part, or False to leave it out: title, labels, block_titles, branches, marks,
        notes, scale, legend.

    Returns
    -------
    Axes
        One unit down is one row, to the right one of value; ``get_label()`` says in words what is drawn. A notebook
        shows it where a cell ends with it; ``ax.figure.savefig(...)`` writes it.

    Raises
    ------
    FrameError
        The fleet has no host whose CPU is known, or ``visuals`` names a part that is not there.

    Notes
    -----
    Value is the default one of :func:`~vmcompat.baseline.meanings.meanings`; only what can be migrated counts. The
    order of merging is a good heuristic, not the best pools: these are ``vc.pools``. Where there are more than 80
    kinds, groups in which least is lost are one row. The square of the number of kinds.

    Examples
    --------
    >>> import vmcompat as vc
    >>> ax = vc.plot.dendrogram(vc.read_fleet("sample_caps/virsh_pair"))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['SandyBridge  sandybridge', 'Westmere  westmere']
    """
    part = canvas.parts(visuals, _PARTS)
    sheet = _sheet(fleet)
    cell = canvas.cell_on(ax, n_columns=1, n_rows=sheet.height, width=_WIDTH)
    small = min(_NOTE_FONT, cell.font)
    subtitle = _subtitle(fleet, sheet)
    left = canvas.widest(sheet.labels, size=cell.font) + 0.12
    right = canvas.widest((f"{j.short}{j.red}" for j in sheet.joints if j.is_root), size=small) + 0.12
    least = max(
        canvas.headline_width(_TITLE, subtitle),
        left + canvas.widest((title for _, title in sheet.headers), size=cell.font, bold=True),
    )
    keys = chart.level_keys(sheet.levels)
    if any(joint.red for joint in sheet.joints):
        keys.append(chart.Key(words=_RED, line="-", colour=ALARM, width=2.4))
    columns, rows = canvas.legend_shape([k.words for k in keys], width=max(least, left + cell.width + right))
    if ax is None:
        bottom = chart.AXIS + canvas.legend_height(rows)
        margins = canvas.Margins(left=left, right=right, top=canvas.HEADLINE + 0.06, bottom=bottom)
        ax = canvas.new_axes(cell.width, sheet.height * cell.height, margins, least_width=least)
    canvas.prepare(ax, cell, 1, sheet.height)
    ax.set_xscale("function", functions=(_root, np.square))
    ax.set_xlim(0, sheet.most * 1.02)
    if (style := part["scale"]) is not None:
        chart.scale_below(ax, _SCALE, font=cell.font, style=style)
        ticks = _ticks(sheet.most)
        ax.set_xticks(ticks, labels=[f"{tick:,.0f}" for tick in ticks])
    _draw(ax, sheet, part)
    if (style := part["labels"]) is not None:
        canvas.row_labels(ax, sheet.y, sheet.labels, style)
        ax.tick_params(axis="y", pad=6)
    if (style := part["notes"]) is not None:
        _notes(ax, cell.width, sheet, {"fontsize": small} | style)
    if (style := part["block_titles"]) is not None:
        for y, title in sheet.headers:
            look: dict[str, Any] = {"fontsize": cell.font, "fontweight": "bold", "color": INK, "parse_math": False}
            ax.text(0, y - 0.35, title, ha="left", va="bottom", **(look | style))
    if (style := part["title"]) is not None:
        canvas.headline(ax, _TITLE, subtitle, left=left, up=0.06, style=style)
    if (style := part["legend"]) is not None:
        chart.draw_keys(ax, keys, columns, left=left, down=chart.AXIS, style=style)
    ax.set_label(f"Tree of hosts by what merging costs. {subtitle}. {'. '.join(t for _, t in sheet.headers)}.")
    return ax


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joint:
    """Where two groups become one: at what loss, between which rows, and how far it is to the next merger."""

    x: float
    y: float
    ends: tuple[tuple[float, float], tuple[float, float]]
    until: float
    level: str
    long: str
    short: str
    red: str
    is_root: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """Where everything is: value lost to the right, rows down."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    leaf_levels: Sequence[str]
    labels: Sequence[str]
    headers: Sequence[tuple[float, str]]
    joints: Sequence[_Joint]
    n_kinds: int
    n_unknown: int
    most: float
    height: float

    @property
    def levels(self) -> list[str]:
        """All that are marked."""
        return [*self.leaf_levels, *(joint.level for joint in self.joints)]


def _sheet(fleet: Fleet) -> _Sheet:
    division = divide(fleet, allow_missing=True)
    if not division.parts:
        raise FrameError("no host whose CPU is known: there is nothing to merge")
    trees = [merge(p.table.classes, p.table.weights, p.value.multiples / p.value.per_one) for p in division.parts]
    drawn = cut(trees, _MOST_LEAVES)
    rows = canvas.starts([len(leaves) for leaves in drawn], gap=_BLOCK_GAP, before=_HEADER)
    labels: list[str] = []
    x: list[float] = []
    levels: list[str] = []
    joints: list[_Joint] = []
    headers = []
    for p, tree, leaves, y, who in zip(division.parts, trees, drawn, rows, labels_of(division.keys), strict=True):
        facts = p.measures(pack(tree.members), pack(tree.shared))
        labels += [_label(fleet, p, tree, g) for g in leaves]
        x += [float(tree.lost[g]) for g in leaves]
        levels += [chart.level_name(facts["level"][g]) for g in leaves]
        joints += _joints(fleet, p, tree, dict(zip(leaves, (y + 0.5).tolist(), strict=True)), facts)
        root = tree.root
        kept = f"together they keep a value of {facts['value'][root]:,.0f}, {chart.short_level(facts['level'][root])}"
        kinds = f"{count(int(facts['n_hosts'][root]), 'host')} of {count(tree.n_kinds, 'kind')}"
        headers.append((float(y[0]), f"{who}: {kinds}; {kept}" if tree.n_kinds > 1 else f"{who}: {kinds}"))
    return _Sheet(
        x=np.array(x),
        y=np.concatenate(rows),
        leaf_levels=levels,
        labels=labels,
        headers=headers,
        joints=joints,
        n_kinds=sum(tree.n_kinds for tree in trees),
        n_unknown=len(division.missing),
        most=max([1.0, *(float(tree.lost[-1]) for tree in trees)]),
        height=float(rows[-1][-1]) + 1,
    )


def _label(fleet: Fleet, part: Part, tree: Tree, group: int) -> str:
    """The model, the first host and how many more there are."""
    here = part.positions[tree.members[group][part.table.class_of_row]]
    hosts = fleet.hosts.iloc[here]
    models = hosts["model"].fillna("no model").value_counts()
    model = f"{models.index[0]}" + (f" and {count(len(models) - 1, 'other')}" if len(models) > 1 else "")
    n_kinds = int(tree.members[group].sum())
    more = f" +{len(hosts) - 1}" if len(hosts) > 1 else ""
    return f"{model}  {hosts.index[0]}{more}" + (f" in {n_kinds} kinds" if n_kinds > 1 else "")


def _joints(
    fleet: Fleet, part: Part, tree: Tree, rows: dict[int, float], facts: Mapping[str, npt.NDArray[Any]]
) -> list[_Joint]:
    """All mergers above the drawn leaves, whose rows are known."""
    controls = _controls(fleet, part)
    above = {}
    for group in range(tree.n_kinds, len(tree.lost)):
        above.update(dict.fromkeys(tree.parts_of(group), group))
    found = []
    for group in range(tree.n_kinds, len(tree.lost)):
        ends = tree.parts_of(group)
        if not all(end in rows for end in ends):
            continue
        rows[group] = (rows[ends[0]] + rows[ends[1]]) / 2
        lost = (tree.shared[ends[0]] | tree.shared[ends[1]]) & ~tree.shared[group]
        names = [name for name, bundle in controls.items() if lost[bundle]]
        level, value = facts["level"][group], facts["value"][group]
        short = f"keep {value:,.0f}, {chart.short_level(level)}"
        found.append(
            _Joint(
                x=float(tree.lost[group]),
                y=rows[group],
                ends=((float(tree.lost[ends[0]]), rows[ends[0]]), (float(tree.lost[ends[1]]), rows[ends[1]])),
                until=float(tree.lost[above[group]]) if group in above else np.inf,
                level=chart.level_name(level),
                long=f"{count(int(facts['n_hosts'][group]), 'host')} {short}",
                short=short,
                red=f", not {some(names, 2)}" if names else "",
                is_root=group == tree.root,
            )
        )
    return found


def _controls(fleet: Fleet, part: Part) -> dict[str, int]:
    """The bundle of each mitigation control of the vendor of these hosts that not all of them have."""
    names = fleet.features.columns
    vendors = fleet.hosts["vendor"].iloc[part.positions].dropna().unique()
    what = meanings(names, vendor=str(vendors[0]) if len(vendors) else None)
    own = (what["polarity"] == "control") & (what["value"] > 0)
    bundles = pd.Series(part.table.bundle_of_column, index=names)[own.to_numpy()]
    return {str(name): int(bundle) for name, bundle in bundles[bundles >= 0].items()}


def _draw(ax: Axes, sheet: _Sheet, part: dict[str, canvas.Part]) -> None:
    if (style := part["branches"]) is not None:
        lines = [[(x, y), (j.x, y)] for j in sheet.joints for x, y in j.ends]
        look: dict[str, Any] = {"colors": FAINT, "linewidths": 0.9, "zorder": 2, "gid": "kept"}
        ax.add_collection(LineCollection(lines, **(look | style)), autolim=False)
        for red, colour, width in ((False, FAINT, 0.9), (True, ALARM, 2.4)):
            upright = [[(j.x, y) for _, y in j.ends] for j in sheet.joints if bool(j.red) == red]
            look = {"colors": colour, "linewidths": width, "zorder": 2, "gid": "red" if red else "joint"}
            if upright:
                ax.add_collection(LineCollection(upright, **(look | style)), autolim=False)
    if (style := part["marks"]) is None:
        return
    points = [
        *zip(sheet.x, sheet.y + 0.5, sheet.leaf_levels, strict=True),
        *((j.x, j.y, j.level) for j in sheet.joints),
    ]
    for level, kind in LEVELS.items():
        here = [(x, y) for x, y, name in points if name == level]
        if here:
            mark: dict[str, Any] = {"marker": kind.glyph, "s": 16, "color": kind.glyph_colour, "linewidth": 0}
            ax.scatter(*zip(*here, strict=True), **(mark | {"zorder": 3, "clip_on": False, "gid": kind.words} | style))


def _notes(ax: Axes, width: float, sheet: _Sheet, style: dict[str, Any]) -> None:
    """How many keep what, along the line to the next merger where that is long enough for it."""
    size = float(style["fontsize"])
    for joint in sheet.joints:
        end = np.inf if joint.is_root else (_root(joint.until) - _root(joint.x)) / _root(sheet.most * 1.02) * width
        texts = [f"{told}{red}" for told in (joint.long, joint.short) for red in dict.fromkeys((joint.red, ""))]
        if joint.is_root:
            texts = [f"{joint.short}{joint.red}"]
        fitting = [text for text in texts if canvas.text_width(text, size=size) + 0.1 < end]
        if fitting:
            keywords: dict[str, Any] = {"color": ALARM if joint.red and joint.red in fitting[0] else INK} | style
            ax.annotate(
                fitting[0],
                (joint.x, joint.y),
                xytext=(5, 0 if joint.is_root else 1),
                textcoords="offset points",
                va="center" if joint.is_root else "bottom",
                annotation_clip=False,
                parse_math=False,
                **keywords,
            )


def _root(x: Any) -> Any:
    return np.sqrt(np.maximum(x, 0.0))


def _ticks(most: float) -> list[float]:
    """Round numbers at even distances on the square-root scale."""
    ticks = {0.0}
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        number = most * share**2
        unit = 10.0 ** np.floor(np.log10(number))
        ticks.add(float(np.floor(number / unit) * unit))
    return sorted(ticks)


def _subtitle(fleet: Fleet, sheet: _Sheet) -> str:
    view = f"{fleet.view} view" + (f" ({fleet.virttype})" if fleet.view == "hypervisor" else "")
    drawn = f" in {len(sheet.labels)} rows" if len(sheet.labels) < sheet.n_kinds else ""
    unknown = f"; without {count(sheet.n_unknown, 'host')} not known" if sheet.n_unknown else ""
    n = len(fleet) - sheet.n_unknown
    return (
        f"{count(n, 'host')} of {count(sheet.n_kinds, 'kind')}{drawn}; {view}, CPU map {fleet.cpu_map.version}{unknown}"
    )
