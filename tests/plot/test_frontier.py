"""Cover against value, by the artists."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.lines import Line2D

import vmcompat as vc
from tests.generator import instance
from vmcompat.baseline.frontier import Frontier
from vmcompat.errors import FrameError
from vmcompat.plot import frontier
from vmcompat.plot._style import LINES


def line(ax: Axes, name: str) -> Line2D:
    (found,) = (artist for artist in ax.lines if artist.get_gid() == name)
    return found


def texts(ax: Axes) -> list[str]:
    return [t.get_text() for t in ax.texts]


@pytest.fixture(scope="module")
def of_mixed(mixed: vc.Fleet) -> Frontier:
    return vc.frontier(mixed, allow_missing=True)


@pytest.fixture(scope="module")
def ax(of_mixed: Frontier) -> Axes:
    return frontier(of_mixed)


@pytest.mark.parametrize("vendor", ["Intel", "AMD"])
def test_at_every_cover_the_line_is_at_the_most_that_so_many_hosts_keep(
    of_mixed: Frontier, ax: Axes, vendor: str
) -> None:
    points = of_mixed.frame[of_mixed.frame["vendor"] == vendor]
    drawn = line(ax, f"x86_64 {vendor}")
    assert drawn.get_drawstyle() == "steps-pre"
    x, y = np.asarray(drawn.get_xdata()), np.asarray(drawn.get_ydata())
    assert x[0] == 0
    for cover in range(1, int(points["n_hosts"].max()) + 1):
        at = y[np.searchsorted(x, cover)]  # before a step the line is already where the step ends
        assert at == points.loc[points["n_hosts"] >= cover, "value"].max()


def test_each_line_has_its_name_at_its_end_and_its_own_dashes(ax: Axes) -> None:
    assert {"x86_64 Intel", "x86_64 AMD"} <= set(texts(ax))
    assert len({str(dashes) for _, dashes in LINES}) == len(LINES)
    intel, amd = (line(ax, f"x86_64 {v}") for v in ("Intel", "AMD"))
    assert (intel.is_dashed(), amd.is_dashed()) == (False, True)
    assert intel.get_color() != amd.get_color()


def test_where_a_level_begins_is_marked(of_mixed: Frontier, ax: Axes) -> None:
    marked = {
        (str(c.get_gid()), *np.asarray(c.get_offsets())[0].tolist())
        for c in ax.collections
        if isinstance(c, PathCollection)
    }
    expected = set()
    for _, part in of_mixed.frame.groupby("vendor"):
        new = part[part["level"] != part["level"].shift()]
        expected |= set(zip(new["level"], new["n_hosts"].astype(float), new["value"], strict=True))
    assert marked == expected
    assert len(marked) == 5


def test_the_knees_are_the_steps_that_win_most_and_say_who_leaves(of_mixed: Frontier, ax: Axes) -> None:
    told = [t for t in texts(ax) if " less: +" in t]
    wins = sorted((int(re.search(r"\+(\d+)", t)[1]) for t in told), reverse=True)  # type: ignore[index]
    steps = of_mixed.frame.groupby("vendor")["value"].diff().dropna().sort_values(ascending=False)
    assert wins == [int(step) for step in steps.iloc[:12]]
    assert "1 host less: +74 to 449, v3: without fra-old-h01" in told
    numbers = sorted(int(t) for t in texts(ax) if t.isdigit())
    assert numbers == sorted([*range(1, 13)] * 2), "each once at the line and once before its words"


def test_whom_a_knee_lets_in_again_is_said(ax: Axes) -> None:
    assert "1 host less: +46 to 499, v3: without ams-r2-h03, ams-r2-h07, but with ams-r1-h06" in texts(ax)


def test_capacity_is_the_cover_where_it_was_asked_for(mixed: vc.Fleet) -> None:
    asked = vc.frontier(mixed, capacity="cores", allow_missing=True)
    ax = frontier(asked)
    assert ax.get_xlabel() == "cores covered"
    assert np.asarray(line(ax, "x86_64 Intel").get_xdata())[-1] == 1588
    assert any(re.fullmatch(r"12 cores less: \+74 to 449, v3: without fra-old-h01", t) for t in texts(ax))


def test_groups_of_unknown_capacity_are_left_out_and_counted(mixed: vc.Fleet) -> None:
    asked = vc.frontier(mixed, capacity="cores", allow_missing=True)
    frame = asked.frame.copy()
    frame.loc[frame.index[0], "capacity"] = pd.NA
    ax = frontier(replace(asked, frame=frame))
    assert "not drawn: 1 of which the cores are not known" in str(ax.get_label())
    with pytest.raises(FrameError, match="no capacity is known"):
        frontier(replace(asked, frame=frame.iloc[:1]))


def test_it_is_said_in_words(ax: Axes) -> None:
    words = str(ax.get_label())
    assert words.startswith(
        "Step curve of cover against value. 43 hosts; 23 groups that no other beats in cover and value"
    )
    assert "x86_64 Intel: 1 host less: +74 to 449" in words


def test_more_lines_than_can_be_told_apart_are_counted(of_mixed: Frontier) -> None:
    frame = of_mixed.frame[of_mixed.frame["vendor"] == "AMD"]
    many = pd.concat([frame.assign(vendor=f"vendor {i}") for i in range(8)])
    ax = frontier(replace(of_mixed, frame=many))
    assert len([artist for artist in ax.lines if str(artist.get_gid()).startswith("x86_64")]) == len(LINES) == 6
    assert "not drawn: 2 lines that cover less" in str(ax.get_label())


def test_a_thousand_hosts_fit_the_same_picture(ax: Axes) -> None:
    large = frontier(vc.frontier(instance(1000).fleet()))
    figures = large.get_figure(root=True), ax.get_figure(root=True)
    sizes = [figure.get_size_inches() for figure in figures if figure is not None]
    assert sizes[0] == pytest.approx(sizes[1], abs=2)
    assert len([t for t in texts(large) if " less: +" in t]) == 12


def test_every_part_can_be_left_out(of_mixed: Frontier) -> None:
    with pytest.raises(FrameError, match="no part 'nothing'; this plot has title, ") as caught:
        frontier(of_mixed, visuals={"nothing": False})
    ax = frontier(of_mixed, visuals=dict.fromkeys(str(caught.value).partition("this plot has ")[2].split(", "), False))
    assert not ax.texts
    assert not ax.lines
    assert not ax.collections
    assert ax.get_legend() is None
