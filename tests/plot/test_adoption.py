"""The adoption plot by its artists."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer

import vmcompat as vc
from tests.generator import instance
from vmcompat.errors import FrameError
from vmcompat.plot import adoption
from vmcompat.plot._shares import Share, fold_shares
from vmcompat.plot._style import SHARES


def bars(ax: Axes, gid: str) -> dict[int, tuple[float, float]]:
    """Start and length of the bars with that name, by row."""
    rows = {round(tick, 6): i for i, tick in enumerate(ax.get_yticks())}
    found = [c for c in ax.containers if isinstance(c, BarContainer) and c.patches[0].get_gid() == gid]
    return {
        rows[round(p.get_y() + p.get_height() / 2, 6)]: (p.get_x(), p.get_width()) for c in found for p in c.patches
    }


def test_the_pieces_of_a_bar_follow_one_another_and_fill_the_scale(mixed: vc.Fleet) -> None:
    ax, table = adoption(mixed), fold_shares(mixed, None)
    pieces = {share: bars(ax, SHARES[share].words) for share in Share}
    for i, row in enumerate((*table.levels, *table.rows)):
        at = 0.0
        for share in Share:
            if share in row.shares:
                start, length = pieces[share][i]
                assert (start, length) == pytest.approx((at, row.shares[share]))
                at += length
            else:
                assert i not in pieces[share]
        assert at == pytest.approx(0 if row.folded > 1 else 1)


def test_what_is_not_known_is_hatched(mixed: vc.Fleet) -> None:
    ax = adoption(mixed)
    for share in (Share.NOT_REPORTED, Share.UNKNOWN, Share.EXCLUDED):
        words = SHARES[share].words
        assert bars(ax, f"hatch: {words}") == bars(ax, words) != {}
    hatches = {p.get_hatch() for p in ax.patches if str(p.get_gid()).startswith("hatch")}
    assert hatches == {SHARES[s].hatch for s in (Share.NOT_REPORTED, Share.UNKNOWN, Share.EXCLUDED)}


def test_the_first_rows_say_what_each_level_would_exclude(mixed: vc.Fleet) -> None:
    ax = adoption(mixed)
    assert [t.get_text() for t in ax.get_yticklabels()][:3] == ["x86-64-v2", "x86-64-v3", "x86-64-v4"]
    notes = [t.get_text() for t in ax.texts if t.get_text().startswith("excludes ")]
    assert len(notes) == 3
    assert notes[1].endswith(": fra-old-h01")
    assert f"x86-64-v3 {notes[1]}" in str(ax.get_label())


def test_rows_stand_under_their_group_of_meaning(mixed: vc.Fleet) -> None:
    ax, table = adoption(mixed), fold_shares(mixed, None)
    titles = {t.get_text(): float(t.get_position()[1]) for t in ax.texts if t.get_fontweight() == "bold"}
    tops = dict(zip((t.get_text() for t in ax.get_yticklabels()), ax.get_yticks(), strict=True))
    for group in {row.group for row in table.rows}:
        nearest = max((y, name) for name, y in titles.items() if y < min(tops[r.label] for r in table.rows
                                                                       if r.group == group))[1]  # fmt: skip
        assert nearest == group


def test_a_share_is_never_rounded_to_nothing_or_to_all() -> None:
    fleet = instance(2000).fleet()
    ax = adoption(fleet)
    n = {row.label: row.between(Share.HAS)[0] for row in fold_shares(fleet, None).rows if row.folded == 1}
    notes = [t.get_text() for t in ax.texts]
    assert notes.count("0%") == 0
    assert notes.count("100%") == 0
    assert min(n.values()) > 0
    assert max(n.values()) < 1


def test_capacity_is_named_on_the_scale_and_in_the_words(mixed: vc.Fleet) -> None:
    ax = adoption(mixed, capacity="cores")
    assert ax.get_xlabel() == "share of the cores"
    assert f"{int(mixed.hosts['cores'].sum()):,} cores" in str(ax.get_label())
    n = int(mixed.hosts["maxphysaddr"].isna().sum())
    assert f"without {n} hosts of unknown maxphysaddr" in str(adoption(mixed, capacity="maxphysaddr").get_label())


def test_states_are_told_apart_without_colours() -> None:
    light = {s: np.dot([int(look.colour[i : i + 2], 16) for i in (1, 3, 5)], (0.3, 0.6, 0.1)) / 255
             for s, look in SHARES.items() if not look.hatch and not look.glyph}  # fmt: skip
    assert abs(light[Share.HAS] - light[Share.LACKS]) > 0.4
    assert len({(look.glyph, look.hatch) for look in SHARES.values()}) == len(SHARES) - 1


def test_every_part_can_be_left_out(mixed: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="no part 'nothing'; this plot has title, ") as caught:
        adoption(mixed, visuals={"nothing": False})
    names = str(caught.value).partition("this plot has ")[2].split(", ")
    ax = adoption(mixed, visuals=dict.fromkeys(names, False))
    assert not [*ax.texts, *ax.patches, *ax.collections]
    assert not [t for t in (*ax.get_xticklabels(), *ax.get_yticklabels()) if t.get_text()]
    assert (ax.get_xlabel(), ax.get_legend()) == ("", None)
