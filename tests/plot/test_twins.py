"""Hosts that should be identical, by the artists."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import to_hex

import vmcompat as vc
from tests.generator import instance
from vmcompat.baseline.twins import Twins
from vmcompat.errors import FrameError
from vmcompat.plot import twins
from vmcompat.plot._differences import EVIDENCE, RED, Twin, fold_differences
from vmcompat.plot._fold import BLANK
from vmcompat.plot._style import ALARM, TWINS


def labels(ax: Axes) -> list[str]:
    return [t.get_text() for t in ax.get_yticklabels()]


@pytest.fixture(scope="module")
def servers(mixed: vc.Fleet) -> Twins:
    return vc.twins(mixed, by="server")


@pytest.fixture(scope="module")
def ax(servers: Twins) -> Axes:
    return twins(servers)


@pytest.fixture(scope="module")
def split(noisy: Callable[[int, float], vc.Fleet]) -> Twins:
    return vc.twins(noisy(500, 0.02), by="model")


def test_every_way_is_a_row_with_who_differs(servers: Twins, ax: Axes) -> None:
    assert len(labels(ax)) == len(servers.frame) == 15
    texts = {t.get_text() for t in ax.texts}
    assert {"2 of 10: ams-r2-h03, ams-r2-h07", "1 of 6: ams-r4-h05"} <= texts
    assert "HPE ProLiant DL360 Gen10: 10 hosts differ in 2 ways" in texts
    assert {"46 address bits, the others 52", "TSC 2,094.700 to 2,095.455 MHz"} <= set(labels(ax))


def test_the_cells_of_a_row_hold_as_many_hosts_as_differ(servers: Twins) -> None:
    for group in fold_differences(servers):
        assert sum(group.counts) == group.n_hosts
        for way, states in zip(group.ways, group.states, strict=True):
            assert sum(n for n, s in zip(group.counts, states, strict=True) if s == way.state) == len(way.hosts)
            assert set(states.tolist()) <= {way.state, way.usual}


def test_what_tells_them_apart_is_marked(servers: Twins, ax: Axes) -> None:
    marked = sum(
        np.shape(c.get_offsets())[0]
        for c in ax.collections
        if isinstance(c, PathCollection) and c.get_gid() == TWINS[Twin.EVIDENCE].words
    )
    assert marked == sum(len(columns) for columns in servers.frame["explained_by"])
    assert [t.get_text() for t in ax.get_xticklabels()] == list(EVIDENCE)
    assert {c for columns in servers.frame["explained_by"] for c in columns} <= set(EVIDENCE)


def test_a_lacking_control_is_red_and_named_first(ax: Axes) -> None:
    colours = {t.get_text(): to_hex(str(t.get_color())) for t in ax.get_yticklabels()}
    assert colours["no md-clear"] == colours["no flush-l1d"] == ALARM
    assert colours["no vmx"] != ALARM
    assert colours["no pdcm, amd-stibp, pschange-mc-no"] != ALARM, "a control of AMD's, and these hosts are Intel's"


def test_without_colours_the_differences_differ_by_glyph() -> None:
    glyphs = [TWINS[s].glyph for s in (Twin.NO_CONTROL, Twin.NO_HAZARD, Twin.NO_CAPABILITY, Twin.NO_IMMUNITY)]
    assert len(set(glyphs)) == 4
    assert "" not in glyphs
    assert TWINS[Twin.HAS].glyph == TWINS[Twin.USUAL].glyph == ""
    assert TWINS[Twin.SOME].hatch


def test_it_is_said_in_words(ax: Axes) -> None:
    words = str(ax.get_label())
    assert words.startswith("Hosts that should be identical. alike in server: 7 of 7 groups differ in 15 ways.")
    assert "ams-r1-h06" in words


def test_where_nothing_differs_it_is_said(pair: vc.Fleet) -> None:
    ax = twins(vc.twins(pair))
    assert "none of 0 groups differs" in str(ax.get_label())
    assert labels(ax) == []


def test_kinds_of_few_hosts_are_one_cell_that_says_so(split: Twins) -> None:
    whole, folded = (fold_differences(split, most_kinds=n, most_ways=1000) for n in (1000, 3))
    assert max(len(g.counts) for g in whole) > 3
    for a, b in zip(whole, folded, strict=True):
        assert sum(b.counts) == sum(a.counts) == a.n_hosts
        assert len(b.counts) == min(3, len(a.counts))
        for way, all_states, states in zip(a.ways, a.states, b.states, strict=True):
            rest = set(all_states[2:].tolist()) if len(a.counts) > 3 else {int(states[-1])}
            assert int(states[-1]) == (Twin.SOME if len(rest) > 1 else rest.pop())
            assert way.state in all_states
            assert BLANK not in states


def test_of_many_ways_the_red_ones_are_shown_first_and_it_is_said(split: Twins) -> None:
    assert len(split.frame) > 60
    groups = fold_differences(split)
    ways = [way for g in groups for way in g.ways]
    assert len(ways) == 60
    every = [way for g in fold_differences(split, most_ways=1000) for way in g.ways]
    red = sum(way.state in RED for way in every)
    assert sum(way.state in RED for way in ways) == min(60, red)
    ax = twins(split)
    assert len(labels(ax)) == 60
    assert f"in {len(split.frame)} ways, 60 shown" in str(ax.get_label())


def test_two_thousand_hosts_stay_within_a_page() -> None:
    found = vc.twins(instance(2000).fleet())
    ax = twins(found)
    figure = ax.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    assert width < 14
    assert height < 20
    assert len([c for c in ax.collections if isinstance(c, QuadMesh)]) == 1


def test_every_part_can_be_left_out(servers: Twins) -> None:
    with pytest.raises(FrameError, match="no part 'nothing'; this plot has title, ") as caught:
        twins(servers, visuals={"nothing": False})
    ax = twins(servers, visuals=dict.fromkeys(str(caught.value).partition("this plot has ")[2].split(", "), False))
    assert not ax.texts
    assert not ax.collections
    assert ax.get_legend() is None
    assert not any(labels(ax))
