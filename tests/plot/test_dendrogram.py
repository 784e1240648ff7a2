"""The tree of hosts, by the artists."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection

import vmcompat as vc
from tests.generator import instance
from vmcompat.errors import FrameError
from vmcompat.plot import dendrogram


def labels(ax: Axes) -> list[str]:
    return [t.get_text() for t in ax.get_yticklabels()]


def hosts_in(label: str) -> int:
    found = re.search(r" \+(\d+)( in \d+ kinds)?$", label)
    return 1 + int(found[1]) if found else 1


def upright(ax: Axes, gid: str) -> list[list[list[float]]]:
    return [
        np.asarray(s).tolist()
        for c in ax.collections
        if isinstance(c, LineCollection) and c.get_gid() == gid
        for s in c.get_segments()
    ]


@pytest.fixture(scope="module")
def ax(mixed: vc.Fleet) -> Axes:
    return dendrogram(mixed)


def test_every_known_host_is_in_one_row_and_equal_ones_are_folded(mixed: vc.Fleet, ax: Axes) -> None:
    assert sum(hosts_in(text) for text in labels(ax)) == len(mixed.features) == 43
    assert len(labels(ax)) < 30
    assert "Skylake-Server-IBRS  ams-r2-h01 +4" in labels(ax)


def test_two_hosts_meet_where_both_together_have_lost_what_they_do_not_share(pair: vc.Fleet) -> None:
    ax = dendrogram(pair)
    frame = vc.maximal_baselines(pair).frame
    together, alone = frame["value"].tolist()
    ((a, b),) = upright(ax, "joint")
    assert a[0] == b[0] == alone - together
    assert [y for _, y in (a, b)] == list(ax.get_yticks())


def test_the_last_merger_of_a_vendor_is_at_what_its_hosts_lose_by_the_best_common_baseline(mixed: vc.Fleet) -> None:
    fleet = mixed.select("rack == 'fra' and vendor == 'AMD'")
    one = vc.pools(fleet, 1)
    lost = float((one.placement["own_value"] - one.placement["value"]).sum())
    ax = dendrogram(fleet)
    assert max(line[0][0] for gid in ("joint", "red") for line in upright(ax, gid)) == lost > 0


def test_vendors_never_merge(ax: Axes) -> None:
    segments = [line for gid in ("joint", "red", "kept") for line in upright(ax, gid)]
    rows = {text: float(y) for text, y in zip(labels(ax), ax.get_yticks(), strict=True)}
    amd = [y for text, y in rows.items() if text.startswith("EPYC")]
    rest = [y for text, y in rows.items() if not text.startswith("EPYC")]
    between = (max(rest) + min(amd)) / 2
    assert min(amd) > max(rest)
    assert not [line for line in segments if min(y for _, y in line) < between < max(y for _, y in line)]
    mergers = [line for gid in ("joint", "red") for line in upright(ax, gid)]
    assert len(mergers) == len(rows) - 2


def test_a_merger_that_loses_a_control_is_thick_and_named(ax: Axes) -> None:
    assert upright(ax, "red")
    (red,) = (c for c in ax.collections if c.get_gid() == "red")
    (plain,) = (c for c in ax.collections if c.get_gid() == "joint")
    assert np.min(red.get_linewidth()) > 2 * np.max(plain.get_linewidth())
    assert any(re.search(r"keep 375, v2, not md-clear$", t.get_text()) for t in ax.texts)


def test_a_control_of_another_vendor_is_no_loss(mixed: vc.Fleet) -> None:
    ax = dendrogram(mixed.select("vendor == 'Intel'"))
    assert not [t for t in ax.texts if "amd-stibp" in t.get_text()]


def test_hosts_that_are_not_known_are_counted(ax: Axes) -> None:
    assert "43 hosts of 25 kinds" in str(ax.get_label())
    assert "without 5 hosts not known" in str(ax.get_label())


def test_each_row_is_marked_with_its_level(ax: Axes) -> None:
    at_zero = sum(
        int((np.asarray(c.get_offsets())[:, 0] == 0).sum()) for c in ax.collections if isinstance(c, PathCollection)
    )
    assert at_zero >= len(labels(ax))
    legend = ax.get_legend()
    assert legend is not None
    assert {"x86-64-v2", "x86-64-v3", "x86-64-v4"} < {t.get_text() for t in legend.get_texts()}


def test_many_kinds_are_folded_into_eighty_rows_and_none_is_lost(noisy: Callable[[int, float], vc.Fleet]) -> None:
    fleet = noisy(500, 0.02)
    ax = dendrogram(fleet)
    assert len(labels(ax)) == 80
    assert sum(hosts_in(text) for text in labels(ax)) == len(fleet.features) > 400
    assert any(re.search(r" in \d+ kinds$", text) for text in labels(ax))
    assert " in 80 rows" in str(ax.get_label())


def test_two_thousand_hosts_stay_within_a_page() -> None:
    ax = dendrogram(instance(2000).fleet())
    figure = ax.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    assert width < 14
    assert height < 18
    assert sum(hosts_in(text) for text in labels(ax)) == 2000


def test_a_fleet_of_which_nothing_is_known_is_refused(mixed: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="no host whose CPU is known"):
        dendrogram(mixed[list(mixed.unknown)])


def test_one_host_has_nothing_to_merge_with(pair: vc.Fleet) -> None:
    ax = dendrogram(pair["westmere"])
    assert labels(ax) == ["Westmere  westmere"]
    assert not upright(ax, "joint")


def test_every_part_can_be_left_out(pair: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="no part 'nothing'; this plot has title, ") as caught:
        dendrogram(pair, visuals={"nothing": False})
    ax = dendrogram(pair, visuals=dict.fromkeys(str(caught.value).partition("this plot has ")[2].split(", "), False))
    assert not ax.texts
    assert not ax.collections
    assert ax.get_legend() is None
    assert not any(labels(ax))
