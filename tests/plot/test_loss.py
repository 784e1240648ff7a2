"""Who loses what, by the artists."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

import vmcompat as vc
from tests.generator import instance
from vmcompat.errors import FrameError
from vmcompat.plot import loss
from vmcompat.plot._losses import LossTable, fold_losses
from vmcompat.plot._offers import Offer
from vmcompat.plot._style import ALARM, OFFERS


def labels(ax: Axes) -> list[str]:
    return [t.get_text() for t in ax.get_yticklabels()]


def bars(ax: Axes, state: Offer) -> list[Rectangle]:
    return [p for p in ax.patches if isinstance(p, Rectangle) and p.get_gid() == OFFERS[state].words]


@pytest.fixture(scope="module")
def intel(mixed: vc.Fleet) -> vc.Baseline:
    return mixed.select("vendor == 'Intel'").baseline(allow_missing=True)


@pytest.fixture(scope="module")
def table(intel: vc.Baseline) -> LossTable:
    return fold_losses(intel)


@pytest.fixture(scope="module")
def ax(intel: vc.Baseline) -> Axes:
    return loss(intel)


def test_counts_are_those_of_the_frame(intel: vc.Baseline, table: LossTable) -> None:
    lost = intel.lost.groupby("host")["feature"].agg(set).to_dict()
    for kind, counts in zip(table.kinds, table.counts, strict=True):
        for host in kind.hosts:
            assert [len(lost.get(host, set()) & c.features) for c in table.columns] == counts.tolist()
    assert int(table.totals.sum()) == intel.lost["feature"].nunique()
    assert int(table.left_out_counts.sum()) == len(intel.dropped)


def test_every_host_is_in_one_row_and_equal_ones_are_folded(intel: vc.Baseline, table: LossTable) -> None:
    assert sorted(h for kind in table.kinds for h in kind.hosts) == sorted(intel.hosts)
    assert len(table.kinds) < len(intel.hosts)


def test_those_who_lose_most_controls_come_first(table: LossTable) -> None:
    control = [i for i, c in enumerate(table.columns) if c.state == Offer.CONTROL_LOST]
    assert control == [0]
    lost = table.counts[:, 0].tolist()
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > lost[-1] == 0


def test_polarities_stand_apart_and_safety_before_speed(table: LossTable) -> None:
    states = [c.state for c in table.columns]
    order = [Offer.CONTROL_LOST, Offer.HAZARD_LOST, Offer.IMMUNITY_LOST, Offer.CAPABILITY_LOST, Offer.NOISE_LOST]
    assert states == sorted(states, key=order.index)
    assert set(states) == set(order)


def test_a_control_of_another_vendor_is_of_no_use(table: LossTable) -> None:
    (noise,) = (c for c in table.columns if c.state == Offer.NOISE_LOST)
    assert "amd-stibp" in noise.features


def test_a_bar_is_as_long_as_the_share_that_is_lost(table: LossTable, ax: Axes) -> None:
    widths = np.array([b.get_width() for b in bars(ax, Offer.CONTROL_LOST)])
    lost = np.r_[table.totals[0], table.counts[:, 0]]
    expected = lost[lost > 0] / lost.max()
    assert widths / widths.max() == pytest.approx(expected)
    assert {to_hex(b.get_facecolor()) for b in bars(ax, Offer.CONTROL_LOST)} == {ALARM}


def test_without_colours_the_kinds_of_loss_differ_by_glyph_place_and_words(table: LossTable, ax: Axes) -> None:
    glyphs = {c.get_gid() for c in ax.collections if isinstance(c, PathCollection)}
    states = {c.state for c in table.columns}
    assert glyphs == {OFFERS[s].words for s in {*states, Offer.LEFT_OUT}}
    assert len({OFFERS[s].glyph for s in states}) == len(states)
    texts = [t.get_text() for t in ax.texts]
    assert {"controls", "hazards", "immunities", "capabilities"} <= set(texts)


def test_a_host_that_loses_a_control_is_told_in_red_which(ax: Axes) -> None:
    told = {t.get_text(): to_hex(str(t.get_color())) for t in ax.texts}
    assert told["Skylake-Server-IBRS: no fdp-excptn-only, md-clear, flush-l1d"] == ALARM
    assert told["Westmere-IBRS"] != ALARM
    red = [t for t in ax.get_xticklabels() if to_hex(str(t.get_color())) == ALARM]
    assert [t.get_text() for t in red] == ["mitigation controls", "hazards"]


def test_what_is_left_out_of_all_alike_stands_below_with_the_reason(ax: Axes) -> None:
    assert labels(ax)[-2:] == ["all hosts", "all hosts"]
    assert {"cannot be migrated", "left out although no host is known to lack it"} <= {t.get_text() for t in ax.texts}


def test_it_is_said_in_words(ax: Axes) -> None:
    words = str(ax.get_label())
    assert words.startswith(
        "Hosts by what they lose. Westmere-IBRS, x86-64-v2, 51 features; of 36 hosts 33 lose controls"
    )
    assert "controls: 6 of mitigation controls" in words


def test_a_group_that_loses_nothing_is_drawn(mixed: vc.Fleet) -> None:
    ax = loss(mixed.select("rack == 'ams-r3'")[["ams-r3-h01", "ams-r3-h02"]].baseline())
    assert labels(ax)[:2] == ["any of 2 hosts", "ams-r3-h01 +1"]
    assert "none loses any" in str(ax.get_label())
    assert ALARM not in {to_hex(str(t.get_color())) for t in (*ax.get_xticklabels(), *ax.texts)}
    legend = ax.get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == [OFFERS[Offer.LEFT_OUT].words]


def test_every_part_can_be_left_out(intel: vc.Baseline) -> None:
    with pytest.raises(FrameError, match="no part 'nothing'; this plot has title, ") as caught:
        loss(intel, visuals={"nothing": False})
    ax = loss(intel, visuals=dict.fromkeys(str(caught.value).partition("this plot has ")[2].split(", "), False))
    assert not ax.texts
    assert not ax.patches
    assert not ax.collections
    assert ax.get_legend() is None
    assert not any(labels(ax))


def test_many_kinds_fold_into_a_row_that_says_the_most_any_of_them_loses(
    noisy: Callable[[int, float], vc.Fleet],
) -> None:
    base = noisy(500, 0.02).select("vendor == 'Intel'").baseline()
    table, whole = fold_losses(base), fold_losses(base, most_kinds=1000)
    assert len(table.kinds) == 41 < len(whole.kinds)
    assert sum(len(kind.hosts) for kind in table.kinds) == len(base.hosts)
    shown = {kind.hosts for kind in table.kinds}
    others = [row for kind, row in zip(whole.kinds, whole.counts, strict=True) if kind.hosts not in shown]
    assert table.counts[-1].tolist() == np.max(others, axis=0).tolist()
    ax = loss(base)
    assert re.fullmatch(r"and \d+ more kinds, \d+ hosts", labels(ax)[41])
    assert any(t.get_text().startswith("\N{LESS-THAN OR EQUAL TO}") for t in ax.texts)


def test_a_thousand_hosts_stay_within_a_page() -> None:
    ax = loss(instance(1200).fleet().select("vendor == 'Intel'").baseline())
    figure = ax.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    assert width < 18
    assert height < 12
