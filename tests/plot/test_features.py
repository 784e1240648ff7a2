"""The feature matrix by its artists."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from PIL import Image

import vmcompat as vc
from vmcompat.errors import FrameError
from vmcompat.plot import features
from vmcompat.plot._offers import Offer, fold_features
from vmcompat.plot._style import ALARM, OFFERS

PICTURE = "README-features.png"
COMMAND = (
    "import vmcompat as vc; ax = vc.plot.features(vc.read_fleet('sample_caps/mixed')); "
    f"ax.figure.savefig('{PICTURE}', dpi=110, metadata={{'Description': ax.get_label()}})"
)


def mesh(ax: Axes) -> QuadMesh:
    (found,) = (c for c in ax.collections if isinstance(c, QuadMesh))
    return found


def glyphs(ax: Axes, state: Offer) -> int:
    return sum(
        np.shape(c.get_offsets())[0]
        for c in ax.collections
        if isinstance(c, PathCollection) and c.get_gid() == OFFERS[state].words
    )


@pytest.fixture(scope="module")
def of_mixed(mixed: vc.Fleet) -> Axes:
    return features(mixed)


def test_each_cell_has_the_colour_of_its_state(mixed: vc.Fleet, of_mixed: Axes) -> None:
    table = fold_features(mixed)
    drawn = mesh(of_mixed)
    states: list[int] = np.ma.compressed(np.ma.asarray(drawn.get_array())).tolist()
    expected = np.concatenate(
        [np.concatenate([b.band[np.newaxis], b.states]) for b in table.blocks]
        + [np.full((len(table.unknown), len(table.columns)), Offer.UNKNOWN)]
    )
    assert states == expected.ravel().tolist()
    for state in set(states):
        assert to_hex(drawn.to_rgba(np.array([float(state)]))[0]) == OFFERS[state].colour


def test_a_row_is_labelled_with_its_first_host_and_the_number_of_the_others(mixed: vc.Fleet) -> None:
    labels = [t.get_text() for t in features(mixed.select("rack == 'ams-r2'")).get_yticklabels()]
    assert labels == ["baseline", "ams-r2-h01 +4", "ams-r2-h03", "ams-r2-h07", "ams-r2-h08 +2"]


def test_the_name_of_a_lost_control_is_red_and_others_are_not(mixed: vc.Fleet) -> None:
    colours = {t.get_text(): t.get_color() for t in features(mixed.select("rack == 'ams-r2'")).get_xticklabels()}
    assert colours["md-clear"] == ALARM
    assert colours["xsaves"] != ALARM


def test_each_kind_of_loss_has_its_own_glyph_on_the_band(mixed: vc.Fleet, of_mixed: Axes) -> None:
    bands = np.concatenate([block.band for block in fold_features(mixed).blocks])
    for state in (Offer.CAPABILITY_LOST, Offer.IMMUNITY_LOST, Offer.NOISE_LOST):
        assert glyphs(of_mixed, state) == int((bands == state).sum()) > 0
    for state in (Offer.CONTROL_LOST, Offer.HAZARD_LOST, Offer.LEFT_OUT):
        assert glyphs(of_mixed, state) > int((bands == state).sum()) > 0
    looks = [look for state, look in OFFERS.items() if "lost" in look.words or state == Offer.LEFT_OUT]
    assert len({look.glyph for look in looks}) == len(looks)


def test_not_reported_and_not_known_are_hatched_differently(of_mixed: Axes) -> None:
    hatches = {p.get_gid(): p.get_hatch() for p in of_mixed.patches if isinstance(p, PathPatch)}
    assert set(hatches) == {OFFERS[Offer.NOT_REPORTED].words, OFFERS[Offer.UNKNOWN].words}
    assert len(set(hatches.values())) == 2


def test_hatches_cover_just_the_cells_of_their_state(mixed: vc.Fleet, of_mixed: Axes) -> None:
    (patch,) = (
        p for p in of_mixed.patches if isinstance(p, PathPatch) and p.get_gid() == OFFERS[Offer.NOT_REPORTED].words
    )
    corners = np.asarray(patch.get_path().vertices).reshape(-1, 5, 2)
    area = float((np.ptp(corners[:, :, 0], axis=1) * np.ptp(corners[:, :, 1], axis=1)).sum())
    cells = sum(int((b.states == Offer.NOT_REPORTED).sum()) for b in fold_features(mixed).blocks)
    assert area == pytest.approx(cells)
    assert cells > 100


def test_the_reason_stands_beside_an_unknown_host(of_mixed: Axes) -> None:
    texts = {t.get_text() for t in of_mixed.texts}
    assert {"not an x86 CPU", "libvirt did not recognise the CPU", "the document could not be read"} <= texts


def test_groups_and_baselines_are_named(of_mixed: Axes) -> None:
    texts = [t.get_text().replace("\n", " ") for t in of_mixed.texts]
    assert {"nested virtualization", "mitigation controls", "host facts"} <= set(texts)
    assert any(t.startswith("AMD, x86_64, 7 hosts: baseline EPYC-IBPB, x86-64-v3") for t in texts)


def test_the_legend_explains_every_state_that_is_drawn_and_no_other(pair: vc.Fleet) -> None:
    ax = features(pair)
    states: set[int] = set(np.ma.compressed(np.ma.asarray(mesh(ax).get_array())).tolist())
    legend = ax.get_legend()
    assert legend is not None
    assert {t.get_text() for t in legend.get_texts()} == {OFFERS[s].words for s in states}


def test_it_is_said_in_words(of_mixed: Axes) -> None:
    words = str(of_mixed.get_label())
    assert words.startswith("Matrix of hosts by features. 48 hosts, 43 known; hypervisor view (kvm)")
    assert "6 controls" in words
    assert "ams-p9-h01 +1: not an x86 CPU" in words


def test_a_part_takes_keywords_or_is_left_out(pair: vc.Fleet) -> None:
    ax = features(pair, visuals={"legend": False, "glyphs": False, "host_labels": {"color": "green"}})
    assert ax.get_legend() is None
    assert not any(isinstance(c, PathCollection) for c in ax.collections)
    assert {t.get_color() for t in ax.get_yticklabels()} == {"green"}


def test_every_part_can_be_left_out(mixed: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="no part 'nothing'; this plot has title, ") as caught:
        features(mixed, visuals={"nothing": False})
    names = str(caught.value).partition("this plot has ")[2].split(", ")
    ax = features(mixed, visuals=dict.fromkeys(names, False))
    assert not ax.texts
    assert not ax.patches
    assert not ax.collections
    assert not [t for t in (*ax.get_xticklabels(), *ax.get_yticklabels()) if t.get_text()]


def test_given_axes_are_drawn_on_and_returned(pair: vc.Fleet) -> None:
    figure = Figure(figsize=(4, 3))
    ax = figure.add_subplot()
    assert features(pair, ax=ax) is ax
    assert figure.axes == [ax]
    assert tuple(figure.get_size_inches()) == (4, 3)


def test_a_fleet_of_which_nothing_is_known_is_still_drawn(mixed: vc.Fleet) -> None:
    ax = features(mixed[list(mixed.unknown)])
    assert len(ax.get_yticklabels()) == 4
    assert set(np.ma.compressed(np.ma.asarray(mesh(ax).get_array())).tolist()) == {Offer.UNKNOWN}


def test_five_hundred_hosts_stay_within_a_page_and_lose_none(noisy: Callable[[int, float], vc.Fleet]) -> None:
    fleet = noisy(500, 0.02)
    ax = features(fleet)
    figure = ax.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    assert width < 32
    assert height < 22
    labels = [t.get_text() for t in ax.get_yticklabels() if t.get_text() != "baseline"]
    counts = [
        int(t.split(", ")[1].split()[0]) if t.startswith("and ") else 1 + int(t.partition(" +")[2] or 0) for t in labels
    ]
    assert sum(counts) == 500
    assert any(t.startswith("and ") for t in labels)


def test_the_readmes_picture_is_of_the_sample_fleet_as_it_is_now(of_mixed: Axes, samples: Path) -> None:
    picture = samples.parent / PICTURE
    assert picture.is_file(), f'run: python -c "{COMMAND}"'
    with Image.open(picture) as image:
        assert image.info["Description"] == of_mixed.get_label(), f'run: python -c "{COMMAND}"'
