"""TSC and address-bit spreads by their artists."""

import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

import vmcompat as vc
from vmcompat.errors import FrameError
from vmcompat.plot import spreads
from vmcompat.plot._clocks import Scaling, Width, fold_clocks
from vmcompat.plot._style import SCALING, WIDTHS


def bars(ax: Axes, gid: str) -> list[tuple[float, float]]:
    found = [c for c in ax.containers if isinstance(c, BarContainer) and c.patches[0].get_gid() == gid]
    return [(p.get_x(), p.get_width()) for c in found for p in c.patches]


def marks(ax: Axes, gid: str) -> np.ndarray:
    found = [c for c in ax.collections if isinstance(c, PathCollection) and c.get_gid() == gid]
    return np.concatenate([np.asarray(c.get_offsets()) for c in found])


def test_there_are_two_panels_in_one_figure(mixed: vc.Fleet) -> None:
    panels = spreads(mixed)
    assert list(panels) == ["tsc", "maxphysaddr"]
    assert panels["tsc"].figure is panels["maxphysaddr"].figure
    page = panels._repr_html_()  # type: ignore[attr-defined]
    assert "fixed TSC frequency" in page
    assert "physical address bits" in page
    assert len(re.findall("data:image/png;base64,", page)) == 1


def test_the_band_is_as_wide_as_the_tolerance(mixed: vc.Fleet) -> None:
    assert set(bars(spreads(mixed)["tsc"], "band")) == {(-125.0, 250.0)}


def test_marks_are_as_far_from_the_middle_as_their_hosts_and_nearer_ones_are_one(mixed: vc.Fleet) -> None:
    ax, rows = spreads(mixed)["tsc"], fold_clocks(mixed, "model")
    step = float(np.ptp(ax.get_xlim())) / 110
    for state in (Scaling.YES, Scaling.NO):
        drawn = marks(ax, SCALING[state].words)
        for i, row in enumerate(rows):
            off = row.off[row.scaling == state] if len(row.frequencies) else np.empty(0)
            here = drawn[np.floor(drawn[:, 1]) == i, 0]
            assert len(here) == len(set(np.rint(off / step).tolist()))
            assert all(np.abs(here - o).min() <= step / 2 + 1e-9 for o in off)


def test_hosts_outside_the_band_that_do_not_scale_are_named_in_red(mixed: vc.Fleet) -> None:
    ax = spreads(mixed)["tsc"]
    barred = [row for row in fold_clocks(mixed, "model") if row.n_barred]
    assert barred
    red = [t.get_text() for t in ax.texts if t.get_fontweight() == "bold" and "barred" in t.get_text()]
    assert len(red) == len(barred)
    assert all(host in text for row, text in zip(barred, red, strict=True) for host in row.barred)


def test_hosts_that_tell_nothing_are_hatched(mixed: vc.Fleet) -> None:
    panels = spreads(mixed)
    silent = [row for row in fold_clocks(mixed, "model") if not len(row.frequencies)]
    assert len(bars(panels["tsc"], WIDTHS[Width.UNKNOWN].words)) == len(silent) > 0
    assert any(p.get_hatch() for p in panels["maxphysaddr"].patches)
    assert "not known" in [t.get_text() for t in panels["maxphysaddr"].get_xticklabels()]


def test_numbers_are_the_hosts_of_a_group_with_so_many_bits(mixed: vc.Fleet) -> None:
    ax = spreads(mixed)["maxphysaddr"]
    rows = [t.get_text() for t in ax.get_yticklabels()]
    columns = [t.get_text() for t in ax.get_xticklabels()]
    numbers = [t for t in ax.texts if t.get_text().isdigit()]
    assert sum(int(t.get_text()) for t in numbers) == len(mixed)
    for t in numbers:
        x, y = (int(v) for v in t.get_position())
        group = mixed.hosts["model"].fillna("no model") == rows[y]
        bits = mixed.hosts.loc[group, "maxphysaddr"]
        n = bits.isna().sum() if columns[x] == "not known" else (bits == int(columns[x].removesuffix(" bits"))).sum()
        assert t.get_text() == str(n)


def test_the_fewest_bits_of_a_group_that_differs_are_marked(mixed: vc.Fleet) -> None:
    ax = spreads(mixed)["maxphysaddr"]
    (x, y), *others = marks(ax, "fewer")
    assert others == []
    assert ax.get_xticklabels()[int(x)].get_text() == "46 bits"
    assert ax.get_yticklabels()[int(y)].get_text() == "Icelake-Server"
    assert any("46 bits on ams-r4-h05" in t.get_text() for t in ax.texts)


def test_only_the_panels_that_are_given_axes_are_drawn(mixed: vc.Fleet) -> None:
    ax = Figure(figsize=(6, 4)).add_subplot()
    assert spreads(mixed, ax={"maxphysaddr": ax}) == {"maxphysaddr": ax}
    assert "address bits" in str(ax.get_label())
    with pytest.raises(FrameError, match="ax: no panel 'bits'; this plot has tsc, maxphysaddr"):
        spreads(mixed, ax={"bits": ax})


def test_states_are_told_apart_without_colours() -> None:
    assert len({look.glyph for look in SCALING.values()}) == len(SCALING)
    assert len({(look.glyph, look.hatch) for look in WIDTHS.values()}) == len(WIDTHS)


def test_every_part_can_be_left_out(mixed: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="no part 'nothing'; this plot has title, ") as caught:
        spreads(mixed, visuals={"nothing": False})
    names = str(caught.value).partition("this plot has ")[2].split(", ")
    for ax in spreads(mixed, visuals=dict.fromkeys(names, False)).values():
        assert not [*ax.texts, *ax.patches, *ax.collections]
        assert not [t for t in (*ax.get_xticklabels(), *ax.get_yticklabels()) if t.get_text()]
        assert (ax.get_xlabel(), ax.get_legend()) == ("", None)
