"""The migration matrix by its artists."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch

import vmcompat as vc
from vmcompat.errors import FrameError
from vmcompat.plot import migration
from vmcompat.plot._moves import Move, fold_moves
from vmcompat.plot._style import MOVES


def mesh(ax: Axes) -> QuadMesh:
    (found,) = (c for c in ax.collections if isinstance(c, QuadMesh))
    return found


def test_each_cell_has_the_colour_of_its_state(mixed: vc.Fleet) -> None:
    drawn = mesh(migration(mixed))
    states: list[int] = np.ma.compressed(np.ma.asarray(drawn.get_array())).tolist()
    assert states == fold_moves(mixed).states.ravel().tolist()
    for state in set(states):
        assert to_hex(drawn.to_rgba(np.array([float(state)]))[0]) == MOVES[state].colour


def test_rows_are_from_and_columns_are_to(pair: vc.Fleet) -> None:
    ax = migration(pair)
    assert ax.get_xlabel() == "to host →"
    assert ax.get_ylabel() == "from host ↓"
    names = ["sandybridge", "westmere"]
    assert [t.get_text() for t in ax.get_xticklabels()] == [t.get_text() for t in ax.get_yticklabels()] == names
    one_way = next(c for c in ax.collections if c.get_gid() == MOVES[Move.ONE_WAY].words)
    ((x, y),) = np.asarray(one_way.get_offsets())
    assert (names[int(y)], names[int(x)]) == ("westmere", "sandybridge")
    top, bottom = ax.transData.transform([(0, 0), (0, 1)])[:, 1]
    assert top > bottom


def test_one_way_is_told_from_both_ways_without_colours() -> None:
    assert MOVES[Move.ONE_WAY].glyph != MOVES[Move.BOTH].glyph
    assert len({(look.glyph, look.hatch) for look in MOVES.values()}) >= 4


def test_a_host_that_cannot_be_drained_is_marked_and_named(pair: vc.Fleet) -> None:
    ax = migration(pair)
    (marks,) = (c for c in ax.collections if c.get_gid() == MOVES[Move.STRANDED].words)
    assert np.asarray(marks.get_offsets()).tolist() == [[0.5, 0.5]]
    assert ax.get_yticklabels()[0].get_fontweight() == ax.get_xticklabels()[0].get_fontweight() == "bold"
    assert any("1 host cannot be drained: sandybridge" in t.get_text() for t in ax.texts)
    assert "1 host cannot be drained: sandybridge" in str(ax.get_label())


def test_islands_of_several_hosts_are_framed(mixed: vc.Fleet) -> None:
    ax = migration(mixed)
    frames = [p for p in ax.patches if p.get_gid() == "island"]
    table = fold_moves(mixed)
    assert len(frames) == len(table.outlines) == sum(len(island.hosts) > 1 for island in table.islands) > 3
    assert f"{len(table.doors)} one-way doors" in str(ax.get_label())


def test_unknown_hosts_are_hatched_rows_and_columns_with_their_reason(mixed: vc.Fleet) -> None:
    ax = migration(mixed)
    (patch,) = (p for p in ax.patches if isinstance(p, PathPatch))
    corners = np.asarray(patch.get_path().vertices).reshape(-1, 5, 2)
    area = float((np.ptp(corners[:, :, 0], axis=1) * np.ptp(corners[:, :, 1], axis=1)).sum())
    assert area == pytest.approx(int((fold_moves(mixed).states == Move.UNKNOWN).sum()))
    assert "not an x86 CPU" in {t.get_text() for t in ax.texts}


def test_the_legend_explains_every_state_that_is_drawn_and_no_other(mixed: vc.Fleet) -> None:
    ax = migration(mixed)
    legend = ax.get_legend()
    assert legend is not None
    states = set(fold_moves(mixed).states.ravel().tolist())
    assert {t.get_text() for t in legend.get_texts()} == {MOVES[s].words for s in states}


def test_every_part_can_be_left_out(mixed: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="no part 'nothing'; this plot has title, ") as caught:
        migration(mixed, visuals={"nothing": False})
    names = str(caught.value).partition("this plot has ")[2].split(", ")
    ax = migration(mixed, visuals=dict.fromkeys(names, False))
    assert not [*ax.texts, *ax.patches, *ax.collections]
    assert not [t for t in (*ax.get_xticklabels(), *ax.get_yticklabels()) if t.get_text()]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_legend()) == ("", "", None)


def test_keywords_go_to_the_artists_of_their_part(pair: vc.Fleet) -> None:
    ax = migration(pair, visuals={"glyphs": {"marker": "s"}, "title": {"color": "navy"}})
    squares = [c for c in ax.collections if isinstance(c, PathCollection)]
    assert squares
    assert all(np.shape(c.get_paths()[0].vertices) == (5, 2) for c in squares)
    assert "navy" in {t.get_color() for t in ax.texts}


def test_given_axes_are_drawn_on_and_returned(pair: vc.Fleet) -> None:
    ax = Figure(figsize=(4, 3)).add_subplot()
    assert migration(pair, ax=ax) is ax


def test_five_hundred_hosts_stay_within_a_page(noisy: Callable[[int, float], vc.Fleet]) -> None:
    ax = migration(noisy(500, 0.02))
    figure = ax.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    assert width < 22
    assert height < 22
