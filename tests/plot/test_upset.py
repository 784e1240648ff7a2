"""The upset plot by its artists."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.container import BarContainer

import vmcompat as vc
from vmcompat.errors import FrameError
from vmcompat.plot import upset
from vmcompat.plot._bundles import OFFERED, Shared, fold_bundles
from vmcompat.plot._style import BUNDLES

WESTMERE = "<cpu><arch>x86_64</arch><model>Westmere</model></cpu>"


def bars(ax: Axes, gid: str) -> list[float]:
    """Lengths of the bars."""
    (found,) = (c for c in ax.containers if isinstance(c, BarContainer) and c.patches[0].get_gid() == gid)
    return [abs(p.get_height() if gid != "hosts" else p.get_width()) for p in found.patches]


def test_there_is_a_dot_for_every_group_and_bundle(mixed: vc.Fleet) -> None:
    ax, table = upset(mixed), fold_bundles(mixed, "model")
    rows = [t.get_text() for t in ax.get_yticklabels()]
    columns = [t.get_text() for t in ax.get_xticklabels()]
    assert columns == [b.label for b in table.bundles]
    assert rows[: len(table.groups)] == list(table.groups)
    tops = ax.get_yticks() - 0.5
    for state in (Shared.ALL, Shared.SOME, Shared.NONE):
        (dots,) = (c for c in ax.collections if isinstance(c, PathCollection) and c.get_gid() == BUNDLES[state].words)
        drawn = {(int(x), int(np.abs(tops + 0.5 - y).argmin())) for x, y in np.asarray(dots.get_offsets())}
        assert drawn == {(int(j), int(i)) for i, j in np.argwhere(table.states == state)}


def test_bars_are_as_long_as_the_counts_beside_them(mixed: vc.Fleet) -> None:
    ax, table = upset(mixed), fold_bundles(mixed, "model")
    features = [len(b.features) for b in table.bundles]
    assert np.allclose(np.array(bars(ax, "features")) / max(bars(ax, "features")), np.array(features) / max(features))
    hosts = [*table.sizes, *(len(kind.hosts) for kind in table.unknown)]
    assert np.allclose(np.array(bars(ax, "hosts")) / max(bars(ax, "hosts")), np.array(hosts) / max(hosts))
    told = [t.get_text() for t in ax.texts]
    assert [str(n) for n in features] == told[: 2 * len(features) : 2]
    assert [str(b.n_hosts) for b in table.bundles] == told[1 : 2 * len(features) : 2]


def test_the_red_part_of_a_bar_is_the_share_of_controls_and_hazards(mixed: vc.Fleet) -> None:
    ax, table = upset(mixed), fold_bundles(mixed, "model")
    whole = dict(zip(table.bundles, bars(ax, "features"), strict=True))
    red = [b for b in table.bundles if b.red]
    assert np.allclose(bars(ax, "controls and hazards"), [whole[b] * len(b.red) / len(b.features) for b in red])


def test_a_link_goes_from_the_first_group_that_offers_a_bundle_to_the_last(mixed: vc.Fleet) -> None:
    ax, table = upset(mixed), fold_bundles(mixed, "model")
    (links,) = (c for c in ax.collections if isinstance(c, LineCollection))
    offered = np.isin(table.states, OFFERED)
    drawn = [(int(line[0][0]), round(float(line[1][1] - line[0][1]))) for line in links.get_segments()]
    spans = [(j, np.flatnonzero(column)) for j, column in enumerate(offered.T)]
    assert drawn == [(j, int(rows[-1] - rows[0])) for j, rows in spans if len(rows) > 1]


def test_states_are_told_apart_without_colours() -> None:
    assert len({(look.glyph, look.hatch) for look in BUNDLES.values()}) == len(BUNDLES)


def test_hosts_can_be_grouped_by_any_column(mixed: vc.Fleet) -> None:
    ax = upset(mixed, by="rack")
    assert "ams-r1" in {t.get_text() for t in ax.get_yticklabels()}
    assert "by rack" in str(ax.get_label())


def test_a_dollar_in_the_name_of_a_group_is_no_formula() -> None:
    fleet = vc.read_fleet({"$x^2$": WESTMERE, "$y^2$": WESTMERE})
    labels = upset(fleet, by="source").get_yticklabels()
    assert any("$" in t.get_text() for t in labels)
    assert not any(t.get_parse_math() for t in labels)


def test_every_part_can_be_left_out(mixed: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="no part 'nothing'; this plot has title, ") as caught:
        upset(mixed, visuals={"nothing": False})
    names = str(caught.value).partition("this plot has ")[2].split(", ")
    ax = upset(mixed, visuals=dict.fromkeys(names, False))
    assert not [*ax.texts, *ax.patches, *ax.collections]
    assert not [t for t in (*ax.get_xticklabels(), *ax.get_yticklabels()) if t.get_text()]
    assert ax.get_legend() is None
