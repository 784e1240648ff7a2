"""Hosts in their pools, by the artists."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh

import vmcompat as vc
from vmcompat.baseline.pools import Pools
from vmcompat.errors import FrameError
from vmcompat.plot import pools
from vmcompat.plot._fold import BLANK
from vmcompat.plot._offers import Offer
from vmcompat.plot._places import CHANGES, Change, fold_places
from vmcompat.plot._style import PLACES


def labels(ax: Axes) -> list[str]:
    return [t.get_text() for t in ax.get_yticklabels()]


def glyphs(ax: Axes, state: int) -> int:
    return sum(
        np.shape(c.get_offsets())[0]
        for c in ax.collections
        if isinstance(c, PathCollection) and c.get_gid() == PLACES[state].words
    )


@pytest.fixture(scope="module")
def changed(mixed: vc.Fleet) -> Pools:
    return vc.pools(mixed, 7, current="rack", max_moves=4, allow_missing=True, capacity="cores")


@pytest.fixture(scope="module")
def ax(changed: Pools) -> Axes:
    return pools(changed)


def test_each_pool_is_a_block_of_its_hosts(changed: Pools, ax: Axes) -> None:
    table = fold_places(changed)
    assert len(table.blocks) == len(changed.frame) == labels(ax).count("pool") == 7
    for block, (name, row) in zip(table.blocks, changed.frame.iterrows(), strict=True):
        assert sorted(h for kind in block.kinds for h in kind.hosts) == sorted(row["hosts"])
        assert block.title.startswith(f"{name}: {row['n_hosts']} host")
        assert f"value {row['value']:,.0f}" in block.title
        assert block.title in {t.get_text() for t in ax.texts}


def test_cells_say_what_the_pool_keeps_and_what_each_host_gives_up(changed: Pools) -> None:
    table = fold_places(changed)
    kept_states, lost = {Offer.KEPT}, {s for s in Offer if s.name.endswith("_LOST")}
    for block, (_, row) in zip(table.blocks, changed.frame.iterrows(), strict=True):
        for kind, states in zip(block.kinds, block.states, strict=True):
            for column, state in zip(table.columns, states, strict=True):
                if column.group == CHANGES:
                    continue
                names = set(column.features)
                assert (state in kept_states) == (names <= set(row["features"]))
                gives_up = set(changed.placement["gives_up"].to_dict()[kind.hosts[0]]) & set(row["given_up"])
                assert (state in lost) == (names <= gives_up)


def test_moves_are_marked_and_say_from_where(changed: Pools, ax: Axes) -> None:
    assert len(changed.moves) == 4
    table = fold_places(changed)
    moving = [(kind, s[0]) for b in table.blocks for kind, s in zip(b.kinds, b.states, strict=True)]
    assert {h for kind, s in moving if s == Change.MOVES for h in kind.hosts} == set(changed.moves.index)
    assert glyphs(ax, Change.MOVES) == sum(s == Change.MOVES for _, s in moving)
    notes = {t.get_text() for t in ax.texts}
    for today in set(changed.moves["today"]):
        assert any(f"; from {today}" in note for note in notes)


def test_hosts_whose_guests_restart_are_marked(changed: Pools, ax: Axes) -> None:
    restarting = changed.placement.index[changed.placement["restarts"]]
    assert len(restarting) > 0
    table = fold_places(changed)
    drawn = {
        h
        for b in table.blocks
        for k, s in zip(b.kinds, b.states, strict=True)
        if s[1] == Change.RESTARTS
        for h in k.hosts
    }
    assert drawn == set(restarting)
    assert glyphs(ax, Change.RESTARTS) > 0
    assert any(t.get_text().endswith("guests restart") for t in ax.texts)


def test_the_headline_has_value_and_proof(changed: Pools, ax: Axes) -> None:
    assert changed.optimal
    assert f"value kept {changed.value:,.0f} (cores x value), proven to be the best" in str(ax.get_label())
    assert f"from today 4 moves and {changed.won:+,.0f}" in str(ax.get_label())
    assert "without 5 hosts not known" in str(ax.get_label())


def test_an_answer_without_proof_says_its_gap(noisy: Callable[[int, float], vc.Fleet]) -> None:
    found = vc.pools(noisy(96, 0.01), 4, time_limit=0.01, allow_missing=True)
    told = "proven to be the best" if found.optimal else f"not proven: at most {found.bound:,.0f}, gap {found.gap:.1%}"
    assert told in str(pools(found).get_label())
    assert not found.optimal


def test_without_pools_of_today_nothing_moves(mixed: vc.Fleet) -> None:
    ax = pools(vc.pools(mixed.select("rack == 'ams-r2'"), 2))
    assert labels(ax) == ["pool", "ams-r2-h01 +4", "ams-r2-h08 +2", "pool", "ams-r2-h03", "ams-r2-h07"]
    assert "moves" not in [t.get_text() for t in ax.get_xticklabels()]
    assert "from today" not in str(ax.get_label())
    assert [t.get_text() for t in ax.get_xticklabels() if t.get_text() == "flush-l1d"]


def test_moves_and_losses_differ_without_colours() -> None:
    marked = [s for s in PLACES if PLACES[s].glyph]
    assert len({PLACES[s].glyph for s in marked}) == len(marked)
    assert {Change.MOVES, Change.RESTARTS, Offer.CONTROL_LOST, Offer.CAPABILITY_LOST} <= set(marked)


def test_of_many_kinds_those_that_move_are_drawn_first_and_none_is_lost(mixed: vc.Fleet) -> None:
    fleet = mixed.select("vendor == 'Intel' and cpu_status == 'ok'")
    moved = vc.pools(fleet, 2, current="arch", max_moves=3)
    assert len(moved.moves) > 0
    table = fold_places(moved, most_kinds=4)
    assert sum(len(k.hosts) for b in table.blocks for k in b.kinds) == len(moved.placement)
    own = {h for b in table.blocks for k in b.kinds if k.folded == 1 for h in k.hosts}
    assert set(moved.moves.index) <= own
    folded = [s for b in table.blocks for k, s in zip(b.kinds, b.states, strict=True) if k.folded > 1]
    assert folded
    assert all((s == BLANK).all() for s in folded)


@pytest.mark.slow
def test_five_hundred_hosts_stay_within_a_page(noisy: Callable[[int, float], vc.Fleet]) -> None:
    fleet = noisy(500, 0.02)
    ax = pools(vc.pools(fleet, 5, time_limit=1, allow_missing=True))
    figure = ax.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    assert width < 34
    assert height < 24
    assert len([c for c in ax.collections if isinstance(c, QuadMesh)]) == 1


def test_every_part_can_be_left_out(changed: Pools) -> None:
    with pytest.raises(FrameError, match="no part 'nothing'; this plot has title, ") as caught:
        pools(changed, visuals={"nothing": False})
    ax = pools(changed, visuals=dict.fromkeys(str(caught.value).partition("this plot has ")[2].split(", "), False))
    assert not ax.texts
    assert not ax.collections
    assert ax.get_legend() is None
    assert not any(labels(ax))
