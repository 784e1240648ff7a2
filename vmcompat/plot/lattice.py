"""Maximal baselines in their order: fewer hosts below, more features to the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from vmcompat.baseline.answer import some
from vmcompat.baseline.maximal import MaximalBaselines
from vmcompat.errors import FrameError
from vmcompat.plot import _canvas as canvas
from vmcompat.plot import _chart as chart
from vmcompat.plot._fold import count
from vmcompat.plot._order import Choice, choose, covering
from vmcompat.plot._style import FAINT, INK, LEVELS, PAPER

_PARTS: Final = ("title", "labels", "notes", "block_titles", "edges", "steps", "marks", "scale", "legend")
_TITLE: Final = "Which hosts can share how much"
_SCALE: Final = "value that every host of the group keeps"
_WIDTH: Final = 4.6  # [in]
_HEADER: Final = 1.3  # rows
_BLOCK_GAP: Final = 0.4
_SHOWN: Final = 3
_EDGE: Final = "#b7bec7"
_BEATEN: Final = "hollow: another group is as large and keeps more, or the other way round"
_STEP: Final = "the next step: what it wins and whom it loses stands at the right"
_INSIDE: Final = "one group inside the other, with none that is shown between"


def lattice(found: MaximalBaselines, *, ax: Axes | None = None, visuals: canvas.Visuals | None = None) -> Axes:
    """Maximal baselines in their order: each row a group of hosts, as far to the right as what they share is worth.

    Larger groups stand above smaller ones. Lines go from a group down to those inside it that share more; strong ones
    are next steps, which cost fewest hosts. Filled marks are groups that no other beats in hosts and value at once.

    Parameters
    ----------
    found : MaximalBaselines
        From ``vc.maximal_baselines``.
    ax : Axes, optional
        Where to draw. Default: a figure of its own, as large as its content needs.
    visuals : mapping of str to mapping or False, optional
        Keywords for the artists of a part, or False to leave it out: title, labels, notes, block_titles, edges, steps,
        marks, scale, legend.

    Returns
    -------
    Axes
        One unit down is one row, to the right one of value; ``get_label()`` says in words what is drawn. A notebook
        shows it where a cell ends with it; ``ax.figure.savefig(...)`` writes it.

    Raises
    ------
    FrameError
        Nothing was found, or ``visuals`` names a part that is not there.

    Notes
    -----
    Of more than 40 baselines those are drawn that no other beats, at most 26 of them, and beside them the most robust
    ones: those whose next step would cost most hosts. The subtitle says how many are left out.

    Examples
    --------
    >>> import vmcompat as vc
    >>> found = vc.maximal_baselines(vc.read_fleet("sample_caps/virsh_pair"))
    >>> [label.get_text() for label in vc.plot.lattice(found).get_yticklabels()]
    ['2 hosts, v2: sandybridge, westmere', '1 host, v2: sandybridge']
    """
    part = canvas.parts(visuals, _PARTS)
    if not len(found):
        raise FrameError("no maximal baseline was found: there is nothing to draw")
    sheet = _sheet(found)
    cell = canvas.cell_on(ax, n_columns=1, n_rows=sheet.height, width=_WIDTH)
    subtitle = _subtitle(found, sheet.choice)
    left = canvas.widest(sheet.labels, size=cell.font) + 0.08
    right = canvas.widest(sheet.notes, size=cell.font) + 0.12
    least = max(
        canvas.headline_width(_TITLE, subtitle),
        left + canvas.widest((title for _, title in sheet.headers), size=cell.font, bold=True),
    )
    keys = _keys(sheet)
    columns, rows = canvas.legend_shape([k.words for k in keys], width=max(least, left + cell.width + right))
    if ax is None:
        bottom = chart.AXIS + canvas.legend_height(rows)
        margins = canvas.Margins(left=left, right=right, top=canvas.HEADLINE + 0.06, bottom=bottom)
        ax = canvas.new_axes(cell.width, sheet.height * cell.height, margins, least_width=least)
    canvas.prepare(ax, cell, 1, sheet.height)
    ax.set_xlim(*_limits(sheet.x))
    if (style := part["scale"]) is not None:
        ax.set_xticks(chart.round_ticks(*_limits(sheet.x)) if np.ptp(sheet.x) else [float(sheet.x[0])])
        chart.scale_below(ax, _SCALE, font=cell.font, style=style)
    _draw(ax, sheet, part)
    if (style := part["labels"]) is not None:
        canvas.row_labels(ax, sheet.y, sheet.labels, style)
    if (style := part["notes"]) is not None:
        canvas.row_notes(ax, cell, sheet.y, sheet.notes, style)
    if (style := part["block_titles"]) is not None:
        for y, title in sheet.headers:
            look: dict[str, Any] = {"fontsize": cell.font, "fontweight": "bold", "color": INK, "parse_math": False}
            ax.text(ax.get_xlim()[0], y - 0.3, title, ha="left", va="bottom", **(look | style))
    if (style := part["title"]) is not None:
        canvas.headline(ax, _TITLE, subtitle, left=left, up=0.06, style=style)
    if (style := part["legend"]) is not None:
        chart.draw_keys(ax, keys, columns, left=left, down=chart.AXIS, style=style)
    ax.set_label(_in_words(subtitle, sheet))
    return ax


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """Where everything is: values to the right, rows down."""

    choice: Choice
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    levels: Sequence[str]
    labels: Sequence[str]
    notes: Sequence[str]
    headers: Sequence[tuple[float, str]]
    edges: Sequence[tuple[int, int]]
    steps: Sequence[tuple[int, int]]
    height: float


def _sheet(found: MaximalBaselines) -> _Sheet:
    frame = found.frame
    keys = [c for c in ("arch", "vendor", "within") if c in frame]
    part = np.asarray(frame.groupby(keys, sort=False, dropna=False).ngroup(), dtype=np.int64)
    sizes = np.asarray(frame["n_hosts"], dtype=np.int64)
    robustness = frame["step_cost"].to_numpy(dtype=np.int64, na_value=-1)
    robustness = np.where(robustness < 0, sizes, robustness)
    choice = choose(sizes, frame["value"].to_numpy(dtype=np.float64), robustness, part)
    at = choice.rows[np.argsort(part[choice.rows], kind="stable")]
    best = choice.best[np.argsort(part[choice.rows], kind="stable")]
    rows = frame.iloc[at].to_dict("records")
    runs = [int((part[at] == p).sum()) for p in dict.fromkeys(part[at].tolist())]
    y = np.concatenate(canvas.starts(runs, gap=_BLOCK_GAP, before=_HEADER))
    begin = np.cumsum([0, *runs[:-1]]).tolist()
    hosts = [frozenset(row["hosts"]) for row in rows]
    edges = covering(hosts)
    left_by = [_after_step(row) for row in rows]
    steps = [(i, j) for i, j in edges if left_by[i] == hosts[j]]
    return _Sheet(
        choice=Choice(at, best, choice.n_best),
        x=np.array([row["value"] for row in rows], dtype=np.float64),
        y=y,
        levels=[chart.level_name(row["level"]) for row in rows],
        labels=[_label(row) for row in rows],
        notes=[_note(row) for row in rows],
        headers=[
            (float(y[b]), _header(rows[b], keys, n, int((part == part[at[b]]).sum())))
            for b, n in zip(begin, runs, strict=True)
        ],
        edges=[edge for edge in edges if edge not in steps],
        steps=steps,
        height=float(y[-1]) + 1,
    )


def _after_step(row: Mapping[Any, Any]) -> frozenset[str] | None:
    return None if row["step_hosts"] is None else frozenset(row["hosts"]) - frozenset(row["step_hosts"])


def _label(row: Mapping[Any, Any]) -> str:
    names = tuple(row["hosts"])
    told = f": {', '.join(names)}" if len(names) <= 2 else ""
    return f"{count(len(names), 'host')}, {chart.short_level(row['level'])}{told}"


def _note(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["step_cost"]):
        return "" if row["n_hosts"] == 1 else "alike: none of them has more"
    won, lost = some(tuple(row["step_features"]), _SHOWN), some(tuple(row["step_hosts"]), _SHOWN)
    return f"{won} would cost {count(row['step_cost'], 'host')}: {lost}"


def _header(row: Mapping[Any, Any], keys: Sequence[str], shown: int, n: int) -> str:
    who = ", ".join(str(row[k]) for k in keys if pd.notna(row[k]))
    return f"{who}: {count(n, 'baseline') if shown == n else f'{shown} of {n:,} baselines'}"


def _draw(ax: Axes, sheet: _Sheet, part: dict[str, canvas.Part]) -> None:
    points = np.column_stack([sheet.x, sheet.y + 0.5])
    for name, pairs, colour, width in (("edges", sheet.edges, _EDGE, 0.7), ("steps", sheet.steps, INK, 1.2)):
        if (style := part[name]) is not None and pairs:
            look: dict[str, Any] = {"colors": colour, "linewidths": width, "zorder": 2, "gid": name}
            ax.add_collection(LineCollection([points[[i, j]] for i, j in pairs], **(look | style)), autolim=False)
    if (style := part["marks"]) is None:
        return
    for level, kind in LEVELS.items():
        for best in (True, False):
            here = np.array([name == level for name in sheet.levels]) & (sheet.choice.best == best)
            if here.any():
                mark: dict[str, Any] = {
                    "marker": kind.glyph,
                    "s": 26,
                    "edgecolor": kind.glyph_colour,
                    "linewidth": 0.9,
                    "zorder": 3,
                }
                face = kind.glyph_colour if best else PAPER
                ax.scatter(*points[here].T, **(mark | {"facecolor": face, "gid": kind.words} | style))


def _keys(sheet: _Sheet) -> list[chart.Key]:
    keys = chart.level_keys(sheet.levels)
    if not sheet.choice.best.all():
        keys.append(chart.Key(words=_BEATEN, marker="s", colour=FAINT, hollow=True))
    if sheet.steps:
        keys.append(chart.Key(words=_STEP, line="-", width=1.2))
    if sheet.edges:
        keys.append(chart.Key(words=_INSIDE, line="-", colour=_EDGE))
    return keys


def _limits(x: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(x.min()), float(x.max())
    room = 0.04 * (high - low) or 1.0
    return low - room, high + room


def _subtitle(found: MaximalBaselines, choice: Choice) -> str:
    n, shown, best = len(found), len(choice.rows), int(choice.best.sum())
    more = " and more" if found.truncated else ""
    hosts = f"{count(int(found.split['n_hosts'].sum()), 'host')}"
    if shown == n:
        return (
            f"{hosts}; {count(n, 'maximal baseline')}{more}, {best} of which no other beats in hosts and value at once"
        )
    of = "" if best == choice.n_best else f" of the {choice.n_best}"
    return (
        f"{hosts}; {shown} of {n:,}{more} shown: {best}{of} that no other beats in hosts and value at once, and the "
        f"{shown - best} most robust of the others"
    )


def _in_words(subtitle: str, sheet: _Sheet) -> str:
    """The picture for those who cannot see it."""
    first = [f"{label} with value {x:g}" for label, x in zip(sheet.labels, sheet.x, strict=True)][:5]
    return f"Maximal baselines in their order. {subtitle}. {'; '.join(title for _, title in sheet.headers)}. The " + (
        f"largest: {'; '.join(first)}."
    )
