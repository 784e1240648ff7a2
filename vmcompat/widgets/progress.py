"""How far a migration is: in words and as a chart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final, NamedTuple

from vmcompat.migration.progress import Sample

_STALLED: Final = 10.0  # without a new low of the remaining data, before it is said [s]
_WIDTH: Final = 700  # of the chart [px]
_HIGH: Final = 150  # of each of its four panels, with title and axis [px]
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 24, 30
_MOST: Final = 150  # stretches of time a line is drawn for
_BLUE: Final = "#1f6fb2"
_ORANGE: Final = "#c26a00"
_MIB: Final = 2**20


def in_words(samples: Sequence[Sample]) -> str:
    """The newest sample, and for how long nothing was won; empty without samples."""
    if not samples:
        return ""
    now = samples[-1]
    told = [] if now.memory_iteration is None else [f"pass {now.memory_iteration}"]
    told.append(f"{_mib(now.memory_remaining)} of {_mib(now.memory_total)} MiB left")
    if now.memory_bps is not None:
        told.append(f"{_mib(now.memory_bps)} MiB/s sent")
    if now.dirtied is not None:
        told.append(f"{_mib(now.dirtied)} MiB/s dirtied by the guest")
    low = min(samples, key=lambda s: s.memory_remaining)
    if (waited := now.seconds - low.seconds) >= _STALLED:
        told.append(f"no new low of the remaining data for {waited:.0f} s")
    return ", ".join(told)


class _Line(NamedTuple):
    """What one line of a panel shows; a second one is dashed, so that no colour has to be told apart."""

    words: str
    value: Callable[[Sample], float | None]


class _Panel(NamedTuple):
    title: str
    unit: str
    lines: tuple[_Line, ...]
    silent: str  # what it means where libvirt tells nothing
    top: float | None = None


def _of_mib(value: float | None) -> float | None:
    return None if value is None else value / _MIB


_PANELS: Final = (
    _Panel("Data remaining", "MiB", (_Line("", lambda s: s.memory_remaining / _MIB),), "not told by libvirt"),
    _Panel(
        "Dirtied",
        "MiB/s",
        (_Line("", lambda s: _of_mib(s.dirtied)), _Line("sent", lambda s: _of_mib(s.memory_bps))),
        "not measured yet",
    ),
    _Panel(
        "Throttle",
        "%",
        (_Line("", lambda s: s.auto_converge_throttle),),
        "none told: auto-converge is off or idle",
        100,
    ),
    _Panel("Downtime expected", "ms", (_Line("", lambda s: s.downtime),), "not told yet"),
)


def chart(samples: Sequence[Sample], *, title: str) -> str:
    """Four panels over time, as one SVG of 700 px; lines of long migrations keep their extremes.

    Parameters
    ----------
    samples : sequence of Sample
        In the order of time; without any there is no chart.
    title : str
        Escaped here.
    """
    if not samples:
        return ""
    wide, height = _WIDTH / 2, 2 * _HIGH + 6
    end = max(samples[-1].seconds, 10.0)
    shapes = [
        f"<g transform='translate({wide * (n % 2):.0f},{_HIGH * (n // 2)})'>{_panel(panel, samples, wide, end)}</g>"
        for n, panel in enumerate(_PANELS)
    ]
    spoken = f"{title} after {samples[-1].seconds:.0f} s: {in_words(samples)}"
    return (
        f"<h4>{escape(title)}</h4>"
        f"<svg class='vmcompat-chart' role='img' aria-label='{escape(spoken)}' width='{_WIDTH}' height='{height}' "
        f"viewBox='0 0 {_WIDTH} {height}' style='display:block;max-width:100%;font-size:12px;fill:currentColor'>"
        f"{''.join(shapes)}</svg>"
    )


def _panel(panel: _Panel, samples: Sequence[Sample], wide: float, end: float) -> str:
    right, bottom = wide - _RIGHT, _HIGH - _BOTTOM
    series = [[(s.seconds, v) for s in samples if (v := line.value(s)) is not None] for line in panel.lines]
    known = [value for points in series for _, value in points]
    top = panel.top or _round_up(max(known, default=0.0))

    def x(seconds: float) -> float:
        return _LEFT + seconds / end * (right - _LEFT)

    def y(value: float) -> float:
        return bottom - value / top * (bottom - _TOP)

    shapes = [_title(panel, series)]
    for value in (0.0, top / 2, top):
        shapes.append(
            f"<line x1='{_LEFT}' x2='{right}' y1='{y(value):.1f}' y2='{y(value):.1f}' stroke='currentColor' "
            f"stroke-opacity='{0.6 if value == 0 else 0.15}'/>"
            f"<text x='{_LEFT - 5}' y='{y(value) + 4:.1f}' text-anchor='end'>"
            f"{f'{value:,.4g}' if known or panel.top else ''}</text>"
        )
    per, unit = (60.0, "min") if end > 300 else (1.0, "s")
    step = _round_up(end / per / 4)
    for n in range(int(end / per / step) + 1):
        told = f" {unit}" if n == 0 else ""
        shapes.append(f"<text x='{x(n * step * per):.1f}' y='{bottom + 15}' text-anchor='middle'>"
                      f"{n * step:,.4g}{told}</text>")  # fmt: skip
    for points, colour, dash in zip(series, (_BLUE, _ORANGE), ("", "5 3"), strict=False):
        drawn = _thinned(points)
        path = " ".join(f"{x(seconds):.1f},{y(min(value, top)):.1f}" for seconds, value in drawn)
        shapes.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2' "
                      f"stroke-dasharray='{dash}'/>")  # fmt: skip
        if drawn:
            at = drawn[-1]
            shapes.append(f"<circle cx='{x(at[0]):.1f}' cy='{y(min(at[1], top)):.1f}' r='3' fill='{colour}'/>")
    if not known:
        shapes.append(f"<text x='{(_LEFT + right) / 2:.0f}' y='{(_TOP + bottom) / 2 - 7:.0f}' text-anchor='middle' "
                      f"class='faint'>{panel.silent}</text>")  # fmt: skip
    return "".join(shapes)


def _title(panel: _Panel, series: Sequence[Sequence[tuple[float, float]]]) -> str:
    """What is shown, its unit and its newest value; a second line is explained by its dash."""
    told = []
    for line, points, colour in zip(panel.lines, series, (_BLUE, _ORANGE), strict=False):
        newest = f" <tspan font-weight='600'>{points[-1][1]:,.{_digits(points[-1][1])}f}</tspan>" if points else ""
        words = (
            f"{panel.title} [{panel.unit}]" if not line.words else f"<tspan fill='{colour}'>- -</tspan> {line.words}"
        )
        told.append(f"{words}{newest}")
    return f"<text x='{_LEFT - 30}' y='14'>{' &#160; '.join(told)}</text>"


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most two points a stretch of time, its lowest and its highest, and the newest of all."""
    size = math.ceil(len(points) / _MOST)
    if size <= 2:
        return list(points)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        extremes = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(extremes)
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _round_up(value: float) -> float:
    """The next number of one digit whose half reads well too."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 2, 3, 4, 6, 8, 10) if value <= n * power * (1 + 1e-9))


def _mib(size: float) -> str:
    mib = size / _MIB
    return f"{mib:,.{_digits(mib)}f}"


def _digits(value: float) -> int:
    return 0 if value >= 10 or value == 0 else 1
