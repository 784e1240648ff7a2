"""Nothing is cut off, nothing overlaps, nothing global changes, nothing stays open."""

import gc
import html
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox, BboxBase

import vmcompat as vc
from tests import gallery
from vmcompat import plot

Plot: TypeAlias = Callable[..., Axes]
Draw: TypeAlias = Callable[[str], vc.Fleet]


def plotted(name: str) -> Plot:
    """That plot of whatever it is given of a fleet; of several panels the first."""

    def draw(fleet: vc.Fleet, ax: Axes | None = None) -> Axes:
        answer = gallery.ANSWERS[name](fleet)
        if name != "spreads":
            return getattr(plot, name)(answer, ax=ax)  # type: ignore[no-any-return]
        return plot.spreads(answer, ax=None if ax is None else {"tsc": ax})["tsc"]

    draw.__name__ = name
    return draw


ANY_FLEET = tuple(plotted(name) for name in ("features", "migration", "upset", "adoption", "spreads"))
KNOWN_HOSTS = tuple(plotted(name) for name in ("loss", "twins", "lattice", "dendrogram", "frontier", "pools"))
every_plot = pytest.mark.parametrize("draw", [*ANY_FLEET, *KNOWN_HOSTS], ids=lambda draw: draw.__name__)


def test_every_plot_is_among_those_that_are_checked_here_and_on_the_contact_sheet() -> None:
    assert sorted(draw.__name__ for draw in (*ANY_FLEET, *KNOWN_HOSTS)) == plot.__all__
    assert sorted(gallery.ANSWERS) == plot.__all__


@pytest.fixture
def drawn_fleet(mixed: vc.Fleet, pair: vc.Fleet, noisy: Callable[[int, float], vc.Fleet], samples: Path) -> Draw:
    def fleet(name: str) -> vc.Fleet:
        if name == "noisy":
            return noisy(96, 0.01)
        if name == "odd names":
            texts = [
                (samples / "virsh_pair" / f"{n}.capabilities.xml").read_text() for n in ("westmere", "sandybridge")
            ]
            return vc.read_fleet(
                {"$x^2$": texts[0], "a-host-with-a-name-that-nobody-would-like-to-type.example.com": texts[1]}
            )
        return {
            "mixed": mixed,
            "pair": pair,
            "rack": mixed.select("rack == 'ams-r1'"),
            "one host": pair["westmere"],
            "unknown": mixed[list(mixed.unknown)],
        }[name]

    return fleet


def boxes(ax: Axes, dpi: float) -> tuple[BboxBase, list[tuple[str, Bbox]]]:
    """The figure's box and those of all its texts, as drawn [pixels]."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    figure.dpi = dpi
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if isinstance(t, Text) and t.get_visible() and t.get_text().strip()]
    return figure.bbox, [(t.get_text(), t.get_window_extent()) for t in texts]


def overlaps(texts: list[tuple[str, Bbox]], *, least: float) -> list[tuple[str, str]]:
    """Pairs of texts that lie on each other by more than that in both directions [pixels]."""
    corners = np.array([b.extents for _, b in texts])
    low = np.maximum(corners[:, np.newaxis, :2], corners[:, :2])
    high = np.minimum(corners[:, np.newaxis, 2:], corners[:, 2:])
    found = np.argwhere(np.triu(((high - low) > least).all(axis=2), k=1))
    return [(texts[i][0], texts[j][0]) for i, j in found]


def test_texts_on_each_other_are_seen() -> None:
    ax = Figure().add_subplot()
    ax.text(0.5, 0.5, "one")
    ax.text(0.51, 0.5, "two")
    ax.text(0.5, 0.9, "three")
    _, texts = boxes(ax, 100)
    assert ("one", "two") in overlaps(texts, least=2)
    assert not any("three" in pair for pair in overlaps(texts, least=2))


FLEETS = ("mixed", "pair", "rack", "one host", "odd names", "noisy")


@pytest.mark.parametrize(
    ("draw", "name"),
    [*((d, n) for d in ANY_FLEET for n in (*FLEETS, "unknown")), *((d, n) for d in KNOWN_HOSTS for n in FLEETS)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_no_text_is_cut_off_and_none_lies_on_another(draw: Plot, name: str, drawn_fleet: Draw) -> None:
    ax = draw(drawn_fleet(name))
    for dpi in (72, 144):
        page, texts = boxes(ax, dpi)
        assert len(texts) >= 2
        outside = [t for t, b in texts if b.x0 < 0 or b.y0 < 0 or b.x1 > page.x1 or b.y1 > page.y1]
        assert outside == []
        assert overlaps(texts, least=0.02 * dpi) == []


@pytest.mark.parametrize(
    "draw", [draw for draw in (*ANY_FLEET, *KNOWN_HOSTS) if draw.__name__ not in ("upset", "spreads")]
)
def test_a_dollar_in_a_name_is_no_formula(draw: Plot, drawn_fleet: Draw) -> None:
    figure = draw(drawn_fleet("odd names")).get_figure(root=True)
    assert figure is not None
    named = [t for t in figure.findobj(Text) if isinstance(t, Text) and "$x^2$" in t.get_text()]
    assert named
    assert not any(t.get_parse_math() for t in named)


@every_plot
def test_a_notebook_gets_an_image_with_the_words_for_those_who_cannot_see_it(draw: Plot, pair: vc.Fleet) -> None:
    ax = draw(pair)
    page = ax._repr_html_()  # type: ignore[attr-defined]
    found = re.search(r'<img alt="([^"]*)".*src="data:image/png;base64,iVBORw0KGgo', page)
    assert found is not None
    assert html.unescape(found[1]) == ax.get_label()
    assert "2 hosts" in found[1]


@every_plot
def test_a_figure_is_gone_when_nobody_holds_it(draw: Plot, pair: vc.Fleet) -> None:
    ax = draw(pair)
    figure = weakref.ref(ax.figure)
    del ax
    gc.collect()
    assert figure() is None


@every_plot
def test_given_axes_are_drawn_on_and_their_figure_keeps_its_size(draw: Plot, pair: vc.Fleet) -> None:
    figure = Figure(figsize=(6, 4))
    ax = figure.add_subplot()
    assert draw(pair, ax=ax) is ax
    assert figure.axes == [ax]
    assert tuple(figure.get_size_inches()) == (6, 4)
    assert ax.get_label()


@every_plot
def test_settings_of_matplotlib_do_not_change(draw: Plot, pair: vc.Fleet) -> None:
    before = dict(mpl.rcParams)
    draw(pair)
    assert dict(mpl.rcParams) == before


@every_plot
def test_a_dark_style_of_the_user_does_not_make_labels_unreadable(draw: Plot, pair: vc.Fleet) -> None:
    with mpl.rc_context({"figure.facecolor": "black", "axes.facecolor": "black", "text.color": "white",
                         "xtick.color": "white", "ytick.color": "white", "axes.labelcolor": "white"}):  # fmt: skip
        ax = draw(pair)
    figure = ax.get_figure(root=True)
    assert figure is not None
    assert figure.get_facecolor() == (1, 1, 1, 1)
    texts = [t for t in figure.findobj(Text) if isinstance(t, Text) and t.get_text()]
    assert texts
    assert not {t.get_text() for t in texts if to_hex(t.get_color()) == "#ffffff"}


def test_drawing_needs_no_pyplot_and_a_notebooks_image_neither() -> None:
    program = (
        "import sys, vmcompat as vc\n"
        "assert 'matplotlib' not in sys.modules\n"
        "fleet = vc.read_fleet('sample_caps/virsh_pair')\n"
        "for plot in (vc.plot.features, vc.plot.migration, vc.plot.dendrogram):\n"
        "    assert 'base64' in plot(fleet)._repr_html_()\n"
        "print('matplotlib.pyplot' in sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
