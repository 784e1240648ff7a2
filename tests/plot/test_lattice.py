"""The order of maximal baselines, by the artists."""

import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex

import vmcompat as vc
from tests.generator import instance
from vmcompat.baseline.maximal import MaximalBaselines
from vmcompat.errors import FrameError
from vmcompat.plot import lattice
from vmcompat.plot._style import LEVELS, PAPER


def labels(ax: Axes) -> list[str]:
    return [t.get_text() for t in ax.get_yticklabels()]


def marks(ax: Axes) -> list[tuple[float, float, str, bool]]:
    """Value, row, level and whether it is filled, the first row first."""
    found = []
    for c in ax.collections:
        if isinstance(c, PathCollection):
            filled = to_hex(np.asarray(c.get_facecolor())[0]) != PAPER
            found += [(float(x), float(y), str(c.get_gid()), filled) for x, y in np.asarray(c.get_offsets())]
    return sorted(found, key=lambda mark: mark[1])


def lines(ax: Axes, gid: str) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    return [
        (tuple(a), tuple(b))
        for c in ax.collections
        if isinstance(c, LineCollection) and c.get_gid() == gid
        for a, b in (np.asarray(s).tolist() for s in c.get_segments())
    ]


@pytest.fixture(scope="module")
def rack(mixed: vc.Fleet) -> MaximalBaselines:
    return vc.maximal_baselines(mixed.select("rack == 'ams-r2'"))


@pytest.fixture(scope="module")
def ax(rack: MaximalBaselines) -> Axes:
    return lattice(rack)


@pytest.fixture(scope="module")
def large() -> MaximalBaselines:
    return vc.maximal_baselines(instance(1000).fleet())


def test_every_baseline_is_a_mark_at_its_value_with_its_hosts_and_level(rack: MaximalBaselines, ax: Axes) -> None:
    drawn = marks(ax)
    assert [x for x, *_ in drawn] == rack.frame["value"].tolist()
    assert [level for _, _, level, _ in drawn] == rack.frame["level"].tolist()
    counts = [int(re.match(r"(\d+) hosts?, v4", text)[1]) for text in labels(ax)]  # type: ignore[index]
    assert counts == rack.frame["n_hosts"].tolist() == sorted(counts, reverse=True)


def test_lines_go_from_a_group_to_the_next_groups_inside_it(rack: MaximalBaselines, ax: Axes) -> None:
    hosts = [frozenset(h) for h in rack.frame["hosts"]]
    rows = {y: i for i, (_, y, *_) in enumerate(marks(ax))}
    drawn = {(rows[a[1]], rows[b[1]]) for gid in ("edges", "steps") for a, b in lines(ax, gid)}
    inside = {(i, j) for i, a in enumerate(hosts) for j, b in enumerate(hosts) if b < a}
    covering = {(i, j) for i, j in inside if not any((i, k) in inside and (k, j) in inside for k in range(len(hosts)))}
    assert drawn == covering
    assert len(drawn) > 2


def test_a_strong_line_is_the_next_step_and_the_note_says_what_it_costs(rack: MaximalBaselines, ax: Axes) -> None:
    first = rack.frame.iloc[0]
    rows = {y: i for i, (_, y, *_) in enumerate(marks(ax))}
    (target,) = (rows[b[1]] for a, b in lines(ax, "steps") if rows[a[1]] == 0)
    assert frozenset(rack.frame["hosts"].iloc[target]) == frozenset(first["hosts"]) - frozenset(first["step_hosts"])
    (note,) = (t.get_text() for t in ax.texts if "would cost 2 hosts: ams-r2-h03, ams-r2-h07" in t.get_text())
    assert note.startswith("md-clear")


def test_filled_marks_are_those_that_no_other_beats(mixed: vc.Fleet) -> None:
    found = vc.maximal_baselines(mixed.select("rack == 'fra'"))
    drawn = marks(lattice(found))
    amd = found.frame[found.frame["vendor"] == "AMD"]
    for (x, _, _, filled), (_, row) in zip(drawn, amd.iterrows(), strict=False):
        as_large = amd[amd["n_hosts"] >= row["n_hosts"]]
        beaten = (as_large["value"] > x) | ((as_large["value"] == x) & (as_large["n_hosts"] > row["n_hosts"]))
        assert filled == (not beaten.any())
    assert {filled for *_, filled in drawn} == {True, False}


def test_vendors_never_meet(mixed: vc.Fleet) -> None:
    ax = lattice(vc.maximal_baselines(mixed, allow_missing=True))
    assert [t.get_text() for t in ax.texts if t.get_text().startswith("x86_64")] == [
        "x86_64, Intel: 35 of 64 baselines",
        "x86_64, AMD: 5 of 8 baselines",
    ]


def test_of_more_than_forty_the_best_and_the_robust_are_shown_and_it_is_said(large: MaximalBaselines) -> None:
    ax = lattice(large)
    n = len(large)
    assert n > 500
    assert len(marks(ax)) == len(labels(ax)) == 40
    subtitle = next(t.get_text() for t in ax.texts if " shown: " in t.get_text())
    found = re.match(
        rf"1000 hosts; 40 of {n:,} shown: (\d+)( of the \d+)? that no other beats .* the (\d+) most robust", subtitle
    )
    assert found is not None
    assert int(found[1]) + int(found[3]) == 40
    assert subtitle in str(ax.get_label())


def test_levels_differ_by_shape_and_not_only_by_colour() -> None:
    assert len({look.glyph for look in LEVELS.values()}) == len(LEVELS)


def test_a_truncated_answer_says_that_there_are_more(mixed: vc.Fleet) -> None:
    ax = lattice(vc.maximal_baselines(mixed.select("rack == 'ams-r1'"), limit=3))
    assert "and more" in str(ax.get_label())


def test_nothing_found_is_refused(pair: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="no maximal baseline was found"):
        lattice(vc.maximal_baselines(pair, min_hosts=3))


def test_every_part_can_be_left_out(rack: MaximalBaselines) -> None:
    with pytest.raises(FrameError, match="no part 'nothing'; this plot has title, ") as caught:
        lattice(rack, visuals={"nothing": False})
    ax = lattice(rack, visuals=dict.fromkeys(str(caught.value).partition("this plot has ")[2].split(", "), False))
    assert not ax.texts
    assert not ax.collections
    assert ax.get_legend() is None
    assert not any(t.get_text() for t in (*ax.get_xticklabels(), *ax.get_yticklabels()))
