"""Hosts covered against value kept: what every further host costs the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vmcompat.errors import FrameError
from vmcompat.plot import _canvas as canvas
from vmcompat.plot import _chart as chart
from vmcompat.plot._fold import count, fitting
from vmcompat.plot._style import INK, LEVELS, LINES, PAPER

if TYPE_CHECKING:
    from vmcompat.baseline.frontier import Frontier

_PARTS: Final = ("title", "lines", "line_labels", "levels", "knees", "notes", "scale", "legend")
_TITLE: Final = "How many hosts can keep how much"
_VALUE: Final = "value that every covered host keeps"
_WIDTH: Final = 5.4  # [in]
_HEIGHT: Final = 3.6
_SCALE_LEFT: Final = 0.55
_LINE_FONT: Final = 8.0
_MOST_LINES: Final = len(LINES)
_KNEES: Final = 12  # at most, on all lines together


def frontier(frontier: Frontier, *, ax: Axes | None = None, visuals: canvas.Visuals | None = None) -> Axes:
    """Hosts covered against the value that each of them keeps, one line for each architecture and vendor.

    From right to left hosts leave and the others win. Marks say where a line reaches an ABI level. The knees, where
    most is won, have numbers; beside the picture stands whose leaving wins it.

    Parameters
    ----------
    frontier : Frontier
        From ``vc.frontier``.
    ax : Axes, optional
        Where to draw. Default: a figure of its own, with room for what stands beside the picture.
    visuals : mapping of str to mapping or False, optional
        Keywords for the artists of a part, or False to leave it out: title, lines, line_labels, levels, knees, notes,
        scale, legend.

    Returns
    -------
    Axes
        Hosts (or the unit of ``capacity``) to the right, value up; ``get_label()`` says in words what is drawn. A
        notebook shows it where a cell ends with it; ``ax.figure.savefig(...)`` writes it.

    Raises
    ------
    FrameError
        The frontier is empty, no capacity on it is known, or ``visuals`` names a part that is not there.

    Notes
    -----
    At most six lines are drawn, those that cover most, and a dozen knees on all of them together.

    Examples
    --------
    >>> import vmcompat as vc
    >>> ax = vc.plot.frontier(vc.frontier(vc.read_fleet("sample_caps/virsh_pair")))
    >>> [text.get_text() for text in ax.texts if text.get_text().startswith("1 host less")]
    ['1 host less: +22 to 228, v2: without westmere']
    """
    part = canvas.parts(visuals, _PARTS)
    lines = _lines(frontier.frame, frontier.capacity)
    drawn = lines[:_MOST_LINES]
    subtitle = _subtitle(frontier, lines)
    notes = [(line.name, [_note(knee, frontier.capacity) for knee in line.knees]) for line in drawn]
    size = (_WIDTH, _HEIGHT) if ax is None else canvas.size_of(ax)
    font = canvas.FONT if ax is None else max(2.0, min(canvas.FONT, size[1] * 72 / 24))
    row = canvas.text_height(1, size=font)
    n_rows = sum(1.6 + len(texts) for _, texts in notes)
    keys = chart.level_keys([level for line in drawn for level in line.levels])
    right = 0.2 + max(
        canvas.widest([f"{name}: one group" for name, _ in notes], size=font, bold=True), _notes_width(notes, font)
    )
    least = canvas.headline_width(_TITLE, subtitle)
    columns, rows = canvas.legend_shape([k.words for k in keys], width=max(least, _SCALE_LEFT + size[0] + right))
    if ax is None:
        size = (_WIDTH, max(_HEIGHT, n_rows * row))
        bottom = chart.AXIS + canvas.legend_height(rows)
        margins = canvas.Margins(left=_SCALE_LEFT, right=right, top=canvas.HEADLINE + 0.1, bottom=bottom)
        ax = canvas.new_axes(*size, margins, least_width=least)
    canvas.prepare(ax, canvas.Cell(width=size[0], height=size[1], font=font), 1, 1)
    top, low, high = _limits(drawn)
    ax.set(xlim=(0, top), ylim=(low, high))
    if (style := part["scale"]) is not None:
        ax.set_xticks(chart.round_ticks(0, top))
        ax.set_yticks(chart.round_ticks(low, high))
        covered = f"{frontier.capacity} covered" if frontier.capacity else "hosts covered"
        chart.scale_below(ax, covered, font=font, style=style)
        chart.scale_left(ax, _VALUE, font=font, style=style)
    _draw_lines(ax, drawn, font, part)
    _draw_knees(ax, drawn, font, part)
    if (style := part["notes"]) is not None:
        _draw_notes(ax, notes, row=row / size[1], style={"fontsize": font} | style)
    if (style := part["title"]) is not None:
        canvas.headline(ax, _TITLE, subtitle, left=_SCALE_LEFT, up=0.1, style=style)
    if (style := part["legend"]) is not None:
        chart.draw_keys(ax, keys, columns, left=_SCALE_LEFT, down=chart.AXIS, style=style)
    told = [f"{name}: {'; '.join(texts) or 'one group only'}" for name, texts in notes]
    ax.set_label(f"Step curve of cover against value. {subtitle}. {'. '.join(told)}.")
    return ax


@dataclass(frozen=True, slots=True, kw_only=True)
class _Knee:
    """A step of a line: where it is, who leaves, whom that lets in again, and what the others win."""

    number: int
    x: float
    y: float
    fewer: float
    leaving: tuple[str, ...]
    joining: tuple[str, ...]
    won: float
    value: float
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """The frontier of one architecture and vendor, the largest cover first."""

    name: str
    n_hosts: int
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    levels: tuple[str, ...]
    knees: tuple[_Knee, ...]


def _lines(frame: pd.DataFrame, capacity: str | None) -> list[_Line]:
    """Those that cover most first."""
    known = frame if capacity is None else frame[frame["capacity"].notna()]
    if known.empty:
        raise FrameError(
            "there is no point on the frontier to draw" + ("" if frame.empty else ": no capacity is known")
        )
    keys = [c for c in ("arch", "vendor", "within") if c in frame]
    parts = [part for _, part in known.groupby(keys, sort=False, dropna=False)]
    cover = "n_hosts" if capacity is None else "capacity"
    parts.sort(key=lambda part: -float(part[cover].iloc[0]))
    wins = sorted(
        (
            (float(part["value"].iloc[i] - part["value"].iloc[i - 1]), -p, -i)
            for p, part in enumerate(parts[:_MOST_LINES])
            for i in range(1, len(part))
        ),
        reverse=True,
    )
    chosen = sorted((-p, -i) for _, p, i in wins[:_KNEES])
    numbers = {at: number for number, at in enumerate(chosen, start=1)}
    return [_line(part, keys, cover, {i: numbers[q, i] for q, i in chosen if q == p}) for p, part in enumerate(parts)]


def _line(part: pd.DataFrame, keys: Sequence[str], cover: str, numbers: dict[int, int]) -> _Line:
    x = part[cover].to_numpy(dtype=np.float64)
    y = part["value"].to_numpy(dtype=np.float64)
    levels = tuple(chart.level_name(level) for level in part["level"])
    hosts = part["hosts"].tolist()
    return _Line(
        name=" ".join(str(part[k].iloc[0]) for k in keys if pd.notna(part[k].iloc[0])),
        n_hosts=int(part["n_hosts"].iloc[0]),
        x=x,
        y=y,
        levels=levels,
        knees=tuple(
            _Knee(
                number=number,
                x=float(x[i]),
                y=float(y[i - 1] + y[i]) / 2,
                fewer=float(x[i - 1] - x[i]),
                leaving=tuple(h for h in hosts[i - 1] if h not in hosts[i]),
                joining=tuple(h for h in hosts[i] if h not in hosts[i - 1]),
                won=float(y[i] - y[i - 1]),
                value=float(y[i]),
                level=levels[i],
            )
            for i, number in numbers.items()
        ),
    )


def _note(knee: _Knee, capacity: str | None) -> str:
    fewer = f"{knee.fewer:,.0f} {capacity}" if capacity else count(int(knee.fewer), "host")
    level = chart.short_level(knee.level)
    back = f", but with {fitting(knee.joining)}" if knee.joining else ""
    return f"{fewer} less: {knee.won:+,.0f} to {knee.value:,.0f}, {level}: without {fitting(knee.leaving)}{back}"


def _notes_width(notes: Sequence[tuple[str, Sequence[str]]], font: float) -> float:
    return 0.2 + canvas.widest([text for _, texts in notes for text in texts], size=font)


def _limits(lines: Sequence[_Line]) -> tuple[float, float, float]:
    y = np.concatenate([line.y for line in lines])
    room = 0.09 * float(np.ptp(y)) or 1.0
    return max(float(line.x[0]) for line in lines) * 1.03, float(y.min()) - room, float(y.max()) + room


def _draw_lines(ax: Axes, lines: Sequence[_Line], font: float, part: dict[str, canvas.Part]) -> None:
    top = ax.get_xlim()[1]
    for line, (colour, dashes) in zip(lines, LINES, strict=False):
        if (style := part["lines"]) is not None:
            look: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.6, "zorder": 2}
            # a group of so many hosts keeps what the next larger one on the line keeps
            x, y = np.append(line.x, 0.0)[::-1], np.append(line.y, line.y[-1])[::-1]
            ax.step(x, y, where="pre", **(look | {"gid": line.name} | style))
        if (style := part["line_labels"]) is not None:
            ends_right = line.x[0] > 0.6 * top
            look = {
                "fontsize": min(_LINE_FONT, font * 1.15),
                "fontweight": "bold",
                "color": colour,
                "parse_math": False,
            }
            ax.annotate(
                line.name,
                (line.x[0], line.y[0]),
                xytext=(0 if ends_right else 5, -5 if ends_right else 0),
                textcoords="offset points",
                ha="right" if ends_right else "left",
                va="top" if ends_right else "center",
                annotation_clip=False,
                **(look | style),
            )
        if (style := part["levels"]) is not None:
            for i in _new_levels(line.levels):
                kind = LEVELS[line.levels[i]]
                mark: dict[str, Any] = {"marker": kind.glyph, "s": 34, "color": kind.glyph_colour, "linewidth": 0.8}
                mark |= {"edgecolor": PAPER, "zorder": 4, "clip_on": False, "gid": kind.words}
                ax.scatter(line.x[i : i + 1], line.y[i : i + 1], **(mark | style))


def _new_levels(levels: Sequence[str]) -> list[int]:
    return [i for i, level in enumerate(levels) if i == 0 or level != levels[i - 1]]


def _draw_knees(ax: Axes, lines: Sequence[_Line], font: float, part: dict[str, canvas.Part]) -> None:
    if (style := part["knees"]) is None:
        return
    for line, (colour, _) in zip(lines, LINES, strict=False):
        for knee in line.knees:
            look: dict[str, Any] = {"fontsize": font * 0.9, "color": colour, "fontweight": "bold"}
            ax.annotate(
                str(knee.number),
                (knee.x, knee.y),
                xytext=(5, 0),
                textcoords="offset points",
                ha="left",
                va="center",
                **(look | style),
            )


def _draw_notes(ax: Axes, notes: Sequence[tuple[str, Sequence[str]]], *, row: float, style: dict[str, Any]) -> None:
    """Right of the picture, from the top; ``row`` is the height of one as a share of that of the axes."""
    y, number = 1.0, 0
    for (name, texts), (colour, _) in zip(notes, LINES, strict=False):
        _beside(ax, name if texts else f"{name}: one group", y, 10, {"color": colour, "fontweight": "bold"} | style)
        for text in texts:
            y, number = y - row, number + 1
            _beside(ax, str(number), y, 22, {"color": colour, "fontweight": "bold", "ha": "right"} | style)
            _beside(ax, text, y, 26, {"color": INK} | style)
        y -= 1.6 * row


def _beside(ax: Axes, text: str, y: float, right: float, style: dict[str, Any]) -> None:
    look: dict[str, Any] = {"va": "top", "parse_math": False, "annotation_clip": False}
    ax.annotate(text, (1, y), xycoords="axes fraction", xytext=(right, 0), textcoords="offset points", **(look | style))


def _subtitle(frontier: Frontier, lines: Sequence[_Line]) -> str:
    n = sum(len(line.x) for line in lines)
    hosts = count(sum(line.n_hosts for line in lines), "host")
    told = f"{hosts}; {count(n, 'group')} that no other beats in cover and value"
    if (unknown := len(frontier.frame) - n) > 0:
        told += f"; not drawn: {unknown} of which the {frontier.capacity} are not known"
    if (more := len(lines) - _MOST_LINES) > 0:
        told += f"; not drawn: {count(more, 'line')} that cover less"
    return told + ("; numbers: where most is won" if any(line.knees for line in lines) else "")
