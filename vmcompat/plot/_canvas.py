"""A picture on paper: sizes from its content, labels that are never cut off, cells, glyphs, hatches and a legend."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from vmcompat.errors import FrameError
from vmcompat.plot._fold import BLANK, States
from vmcompat.plot._style import FAINT, INK, PAPER, Look

Visuals: TypeAlias = Mapping[str, Mapping[str, Any] | bool]
Part: TypeAlias = dict[str, Any] | None

FONT: Final = 7.0  # [pt]
HEADLINE: Final = 0.42  # height of title and subtitle [in]
_TITLE_FONT: Final = 10.0
_SUBTITLE_FONT: Final = 7.5
_MARGIN: Final = 0.12  # [in]
_LINE: Final = 1.45  # of the font size
_HINTING: Final = 1.1  # what a text may be wider than its outlines, since glyphs are moved to whole pixels
_LARGEST_GLYPH: Final = 0.2  # [in]
_DPI: Final = 144  # of the image in a notebook, where an inch is 96 pixels


class PlotAxes(Axes):
    """Axes whose figure a notebook shows though pyplot does not know it."""

    def _repr_html_(self) -> str:
        return _image(cast(Figure, self.get_figure(root=True)), str(self.get_label()))


class Panels(dict[str, Axes]):
    """The axes of one figure by their role; a notebook shows the figure."""

    def _repr_html_(self) -> str:
        figure = cast(Figure, next(iter(self.values())).get_figure(root=True))
        return _image(figure, " ".join(str(ax.get_label()) for ax in self.values()))


def _image(figure: Figure, words: str) -> str:
    from PIL import Image  # matplotlib's own; only a notebook needs it

    drawn, png = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    # few colours are drawn: a palette makes the file a fifth as large
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(png, "PNG", optimize=True)
    data = base64.b64encode(png.getvalue()).decode("ascii")
    width = round(figure.get_figwidth() * 96)
    # fitted into the cell as long as it can be read; beyond that it scrolls
    style = f"width:min({width}px,100%);min-width:{round(width * 0.6)}px;max-width:none"
    return (
        f'<div class="vmcompat-plot" style="overflow-x:auto"><img alt="{html.escape(words)}" '
        f'style="{style}" src="data:image/png;base64,{data}"/></div>'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Size of a cell [in], and of the labels [pt]."""

    width: float
    height: float
    font: float = FONT


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """What labels need around the cells [in]."""

    left: float
    right: float
    top: float
    bottom: float


def parts(visuals: Visuals | None, names: Sequence[str]) -> dict[str, Part]:
    """For each part of a plot the keywords for its artists, or None where it is to be left out.

    Raises
    ------
    FrameError
        The plot has no such part.
    """
    given = visuals or {}
    if strange := [name for name in given if name not in names]:
        raise FrameError(f"visuals: no part {strange[0]!r}; this plot has {', '.join(names)}")
    return {name: _keywords(given.get(name, True)) for name in names}


def _keywords(value: Mapping[str, Any] | bool) -> Part:
    if value is False:
        return None
    return {} if value is True else dict(value)


def text_width(text: str, *, size: float = FONT, bold: bool = False) -> float:
    """Width of one line [in]."""
    if not text.strip():
        return 0.0
    outlines = TextPath(
        (0, 0), text.replace("$", "S"), size=size, prop=FontProperties(weight="bold" if bold else "normal")
    )
    return float(np.ptp(np.asarray(outlines.vertices)[:, 0])) / 72 * _HINTING


def widest(texts: Iterable[str], *, size: float = FONT, bold: bool = False) -> float:
    """Width of the longest of these lines [in]."""
    return max((text_width(text, size=size, bold=bold) for text in texts), default=0.0)


def text_height(lines: int, *, size: float = FONT) -> float:
    """Height of some lines [in]."""
    return lines * size * _LINE / 72


def starts(sizes: Iterable[int], *, gap: float, before: float = 0.0) -> list[NDArray[np.float64]]:
    """Where the cells of each run begin, in cells; runs are a gap apart and each has room before it."""
    at, found = 0.0, []
    for size in sizes:
        at += before
        found.append(at + np.arange(size, dtype=np.float64))
        at += size + gap
    return found


def cell_on(ax: Axes | None, *, n_columns: float, n_rows: float, width: float | None = None) -> Cell:
    """The cell of a figure of its own, roomier where there are few; on given axes as large as these have room for."""
    if ax is None:
        return Cell(width=width or (0.22 if n_columns <= 45 else 0.15), height=0.17)
    room = size_of(ax)
    width, height = room[0] / n_columns, room[1] / n_rows
    return Cell(width=width, height=height, font=max(2.0, min(FONT, width * 72 / _LINE, height * 72 / _LINE)))


def size_of(ax: Axes) -> tuple[float, float]:
    """Width and height of given axes [in]."""
    box, dpi = ax.get_window_extent(), cast(Figure, ax.get_figure(root=True)).dpi
    return box.width / dpi, box.height / dpi


def new_axes(width: float, height: float, margins: Margins, *, least_width: float) -> Axes:
    """Axes of that size [in], in a figure of its own that has room for the labels."""
    page = max(margins.left + width + margins.right, least_width) + 2 * _MARGIN
    tall = margins.top + height + margins.bottom + 2 * _MARGIN
    figure = Figure(figsize=(page, tall), facecolor=PAPER)
    left, bottom = (margins.left + _MARGIN) / page, (margins.bottom + _MARGIN) / tall
    return figure.add_axes((left, bottom, width / page, height / tall), axes_class=PlotAxes)


def new_panels(sizes: Sequence[tuple[float, float]], margins: Sequence[Margins], *, least_width: float) -> list[Axes]:
    """Axes of those sizes [in] one below the other, in a figure of their own that has room for the labels."""
    left = max(m.left for m in margins)
    page = max(*(left + w + m.right for (w, _), m in zip(sizes, margins, strict=True)), least_width) + 2 * _MARGIN
    tall = sum(m.top + h + m.bottom for (_, h), m in zip(sizes, margins, strict=True)) + 2 * _MARGIN
    figure = Figure(figsize=(page, tall), facecolor=PAPER)
    panels, y = [], tall - _MARGIN
    for (width, height), m in zip(sizes, margins, strict=True):
        y -= m.top + height
        box = ((left + _MARGIN) / page, y / tall, width / page, height / tall)
        panels.append(figure.add_axes(box, axes_class=PlotAxes))
        y -= m.bottom
    return panels


def prepare(ax: Axes, cell: Cell, n_columns: float, n_rows: float) -> None:
    """Cells as units, the first row on top, no frame and no grid."""
    ax.set(xlim=(0, n_columns), ylim=(n_rows, 0), facecolor=PAPER, xticks=[], yticks=[])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(which="both", length=0, pad=3, labelsize=cell.font, labelcolor=INK)


def draw_cells(
    ax: Axes,
    cell: Cell,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    states: States,
    looks: Mapping[int, Look],
    *,
    cells: Part,
    hatches: Part,
    glyphs: Part,
    with_glyph: NDArray[np.bool_],
) -> None:
    """Colours for all cells, hatches where a state has one, glyphs where they are asked for.

    Parameters
    ----------
    ax : Axes
    cell : Cell
    x, y : float arrays
        Where the columns and rows begin.
    states : int8 array, row by column
        Keys of ``looks``; BLANK is not drawn.
    looks : mapping of int to Look
    cells, hatches, glyphs : dict or None
        Keywords for their artists; None to leave them out.
    with_glyph : bool array, row by column
        Where a state's glyph is drawn.
    """
    if cells is not None and states.size:
        x_edges, y_edges = _edges(x), _edges(y)
        table = np.full((len(y_edges) - 1, len(x_edges) - 1), BLANK, dtype=np.int8)
        table[np.ix_(np.searchsorted(y_edges, y), np.searchsorted(x_edges, x))] = states
        most = max(looks)
        colours = ListedColormap([looks[i].colour if i in looks else PAPER for i in range(most + 1)])
        style: dict[str, Any] = {"edgecolors": PAPER, "linewidth": 0.5} | cells
        masked = np.ma.masked_equal(table, BLANK)
        ax.pcolormesh(x_edges, y_edges, masked, cmap=colours, vmin=-0.5, vmax=most + 0.5, **style)
    for state, look in looks.items():
        here = states == state
        if look.hatch and hatches is not None and here.any():
            _hatch(ax, x, y, here, look, hatches)
        if look.glyph and glyphs is not None and (here & with_glyph).any():
            size = min(cell.width, cell.height, _LARGEST_GLYPH) * 72
            rows, columns = np.nonzero(here & with_glyph)
            ax.scatter(x[columns] + 0.5, y[rows] + 0.5, **(_glyph_style(look, size=size) | glyphs))


def _edges(at: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.union1d(at, at + 1)


def _hatch(
    ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], here: NDArray[np.bool_], look: Look, style: dict[str, Any]
) -> None:
    """One patch for all cells of a state, so that hatch lines run on from cell to cell."""
    rows, columns = np.nonzero(here)
    first = np.r_[True, (np.diff(rows) != 0) | (np.diff(columns) != 1) | (np.diff(x[columns]) != 1)]
    begin = np.flatnonzero(first)
    end = np.r_[begin[1:], len(rows)] - 1
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], dtype=np.float64)
    widths = x[columns[end]] + 1 - x[columns[begin]]
    boxes = [corners * (width, 1) + (x[columns[b]], y[rows[b]]) for b, width in zip(begin, widths, strict=True)]
    codes = np.array([Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY], dtype=np.uint8)
    path = Path(np.concatenate(boxes), np.tile(codes, len(boxes)))
    keywords: dict[str, Any] = {"hatch": look.hatch, "edgecolor": look.hatch_colour, "linewidth": 0}
    patch = PathPatch(path, **(keywords | {"facecolor": "none"} | style))
    patch.set_hatch_linewidth(0.6)
    patch.set_gid(look.words)
    ax.add_patch(patch)


def _glyph_style(look: Look, *, size: float) -> dict[str, Any]:
    filled = look.glyph in (">", "^", "v", ".", "D", "8", "$!$")
    scale = {"$!$": 0.62, "D": 0.3, ".": 0.45, "8": 0.55}.get(look.glyph, 0.42)
    colour = {"color": look.glyph_colour, "linewidth": 0.0 if filled else 0.9}
    if look.glyph == "o":
        colour = {"facecolor": "none", "edgecolor": look.glyph_colour, "linewidth": 0.9}
    return {"marker": look.glyph, "gid": look.words, "s": (size * scale) ** 2, "zorder": 3, **colour}


def row_labels(ax: Axes, y: NDArray[np.float64], labels: Sequence[str], style: dict[str, Any]) -> list[Text]:
    """Labels left of the rows."""
    ax.set_yticks(y + 0.5, labels=list(labels), parse_math=False, **style)
    return ax.get_yticklabels()


def column_labels(ax: Axes, x: NDArray[np.float64], labels: Sequence[str], style: dict[str, Any]) -> list[Text]:
    """Labels above the columns, upright."""
    ax.xaxis.set_ticks_position("top")
    ax.tick_params(axis="x", length=0)
    ax.set_xticks(x + 0.5, labels=list(labels), parse_math=False, **({"rotation": 90} | style))
    return ax.get_xticklabels()


def row_notes(ax: Axes, cell: Cell, y: Iterable[float], texts: Iterable[str], style: dict[str, Any]) -> None:
    """What there is to say of each row, right of it."""
    right = ax.get_xlim()[1]
    keywords: dict[str, Any] = {"fontsize": cell.font, "color": FAINT, "va": "center", "parse_math": False} | style
    for at, text in zip(y, texts, strict=True):
        if text:
            ax.annotate(
                text, (right, at + 0.5), xytext=(5, 0), textcoords="offset points", annotation_clip=False, **keywords
            )


def headline_width(title: str, subtitle: str) -> float:
    """Width that the lines of :func:`headline` need [in]."""
    widths = text_width(title, size=_TITLE_FONT, bold=True), widest(subtitle.split("\n"), size=_SUBTITLE_FONT)
    return max(widths) + 0.05


def headline_height(subtitle: str) -> float:
    """Height of title and subtitle, which may have several lines [in]."""
    return HEADLINE + text_height(subtitle.count("\n"), size=_SUBTITLE_FONT)


def headline(ax: Axes, title: str, subtitle: str, *, left: float, up: float, style: dict[str, Any]) -> None:
    """Title and subtitle above everything else, ``up`` inches above the cells and ``left`` inches left of them."""
    lines: tuple[tuple[str, float, dict[str, Any]], ...] = (
        (subtitle, up, {"fontsize": _SUBTITLE_FONT, "color": FAINT, "linespacing": _LINE / 1.2}),
        (
            title,
            up + text_height(1 + subtitle.count("\n"), size=_SUBTITLE_FONT),
            {"fontsize": _TITLE_FONT, "color": INK, "fontweight": "bold"} | style,
        ),
    )
    for text, height, look in lines:
        ax.annotate(
            text,
            (0, 1),
            xycoords="axes fraction",
            xytext=(-left * 72, height * 72),
            textcoords="offset points",
            annotation_clip=False,
            ha="left",
            va="bottom",
            parse_math=False,
            **look,
        )


def legend_rows(states: Iterable[int], looks: Mapping[int, Look], *, width: float) -> tuple[list[Look], int, int]:
    """What the legend explains, in how many columns of how many rows it fits a width [in]."""
    present = set(states)
    shown = [look for state, look in looks.items() if state in present]
    return shown, *legend_shape([look.words for look in shown], width=width)


def legend_shape(words: Sequence[str], *, width: float) -> tuple[int, int]:
    """In how many columns of how many rows the words of a legend fit a width [in]."""
    rows = 1
    while rows < len(words) and _legend_width(words, rows) > width:
        rows += 1
    return -(-len(words) // rows), rows


def _legend_width(words: Sequence[str], rows: int) -> float:
    """Matplotlib gives the first columns one row more where the rows do not come out even."""
    columns = np.array_split(np.array([text_width(text) for text in words]), -(-len(words) // rows))
    return sum(float(column.max()) + 0.42 for column in columns)


def legend_height(rows: int) -> float:
    """Height of the legend [in]."""
    return text_height(rows, size=FONT * 1.25) + 0.15


def draw_legend(
    ax: Axes, shown: Sequence[Look], columns: int, *, left: float, style: dict[str, Any], down: float = 0.0
) -> None:
    """The legend below the cells, from ``left`` inches left of them; ``down`` leaves room for a scale [in]."""
    handles = []
    for look in shown:
        box = Patch(
            facecolor=look.colour, edgecolor=look.hatch_colour if look.hatch else PAPER, hatch=look.hatch, linewidth=0.0
        )
        if look.hatch:
            box.set_hatch_linewidth(0.6)
        glyph = _glyph_style(look, size=9.0) if look.glyph else {"s": 0.0}
        mark = Line2D(
            [],
            [],
            linestyle="none",
            marker=look.glyph or "none",
            markersize=float(np.sqrt(glyph["s"])),
            color=look.glyph_colour,
            markerfacecolor="none" if look.glyph == "o" else look.glyph_colour,
            markeredgewidth=glyph.get("linewidth", 0.0),
        )
        handles.append((box, mark))
    place_legend(ax, handles, [look.words for look in shown], columns, left=left, style=style, down=down)


def place_legend(
    ax: Axes,
    handles: Sequence[Any],
    words: Sequence[str],
    columns: int,
    *,
    left: float,
    style: dict[str, Any],
    down: float = 0.0,
) -> None:
    """A legend of any handles, ``down`` inches and a little more below the axes."""
    figure = cast(Figure, ax.get_figure(root=True))
    keywords: dict[str, Any] = {
        "bbox_to_anchor": (0, 0),
        "bbox_transform": ax.transAxes + ScaledTranslation(-left, -0.1 - down, figure.dpi_scale_trans),
        "ncols": columns,
        "fontsize": FONT,
        "labelcolor": INK,
        "frameon": False,
        "borderpad": 0.0,
        "borderaxespad": 0.0,
        "handlelength": 1.3,
        "handleheight": 1.0,
        "columnspacing": 1.6,
        "labelspacing": 0.55,
    }
    ax.legend(list(handles), list(words), loc="upper left", **(keywords | style))
