"""A picture with a scale: axes that can be read under any style, names of levels, and keys of markers and lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vmcompat.plot import _canvas as canvas
from vmcompat.plot._style import FAINT, INK, LEVELS, PAPER

AXIS: Final = 0.4  # height of the numbers and the words of a horizontal scale [in]
_LINE: Final = "#d5dae0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One entry of a legend: a marker or a line."""

    words: str
    marker: str = "none"
    colour: str = INK
    hollow: bool = False
    line: Any = "none"
    width: float = 1.0

    def handle(self) -> Line2D:
        """The artist for the legend."""
        return Line2D(
            [],
            [],
            linestyle=self.line,
            linewidth=self.width,
            color=self.colour,
            marker=self.marker,
            markersize=5.0,
            markeredgewidth=0.9,
            markerfacecolor=PAPER if self.hollow else self.colour,
        )


def level_name(level: object) -> str:
    """The key in ``_style.LEVELS`` of a value of a column ``level``."""
    return level if isinstance(level, str) else ""


def short_level(level: object) -> str:
    """A level in as few letters as can be."""
    name = level_name(level)
    return name.removeprefix("x86-64-") if name else "below v1"


def level_keys(levels: Sequence[str]) -> list[Key]:
    """Entries for those levels, the highest first."""
    return [
        Key(words=look.words, marker=look.glyph, colour=look.glyph_colour)
        for name, look in LEVELS.items()
        if name in levels
    ]


def round_ticks(low: float, high: float) -> list[float]:
    """Round numbers between these two."""
    return [float(t) for t in MaxNLocator(nbins=6, integer=True).tick_values(low, high) if low <= t <= high]


def scale_below(ax: Axes, words: str, *, font: float, style: dict[str, Any]) -> None:
    """Numbers and words under the axes, with faint lines up from the numbers."""
    ax.xaxis.set_ticks_position("bottom")
    ax.tick_params(axis="x", length=2, pad=2, labelsize=font, labelcolor=FAINT, color=FAINT)
    ax.spines["bottom"].set(visible=True, color=FAINT, linewidth=0.8)
    ax.grid(visible=True, axis="x", color=_LINE, linewidth=0.6, linestyle="-")
    ax.set_axisbelow(True)
    ax.xaxis.set_label_position("bottom")
    keywords: dict[str, Any] = {"fontsize": font, "color": INK, "labelpad": 3} | style
    ax.set_xlabel(words, **keywords)


def scale_left(ax: Axes, words: str, *, font: float, style: dict[str, Any]) -> None:
    """Numbers left of the axes, and the words above them, lying."""
    ax.yaxis.set_ticks_position("left")
    ax.tick_params(axis="y", length=2, pad=2, labelsize=font, labelcolor=FAINT, color=FAINT)
    ax.spines["left"].set(visible=True, color=FAINT, linewidth=0.8)
    ax.grid(visible=True, axis="y", color=_LINE, linewidth=0.6, linestyle="-")
    ax.set_axisbelow(True)
    keywords: dict[str, Any] = {"fontsize": font, "color": INK, "labelpad": 3} | style
    ax.set_ylabel(words, **keywords)


def draw_keys(ax: Axes, keys: Sequence[Key], columns: int, *, left: float, down: float, style: dict[str, Any]) -> None:
    """The legend, below the scale."""
    handles, words = [key.handle() for key in keys], [key.words for key in keys]
    canvas.place_legend(ax, handles, words, columns, left=left, down=down, style={"handlelength": 2.0} | style)
