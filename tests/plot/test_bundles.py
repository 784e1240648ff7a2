"""What the upset plot shows is what the frames say, however it is folded."""

from collections.abc import Callable
from pathlib import Path

import pytest

import vmcompat as vc
from vmcompat.errors import FrameError
from vmcompat.plot._bundles import Shared, fold_bundles
from vmcompat.plot._fold import BLANK


def expected(fleet: vc.Fleet, hosts: list[str], feature: str) -> Shared:
    said = [
        "has" if fleet.features.loc[h, feature] else "lacks" if fleet.reported.loc[h, feature] else "silent"
        for h in hosts
    ]
    return {
        ("has",): Shared.ALL,
        ("has", "lacks"): Shared.SOME,
        ("has", "lacks", "silent"): Shared.SOME,
        ("has", "silent"): Shared.ALL_TOLD,
        ("lacks",): Shared.NONE,
        ("lacks", "silent"): Shared.NONE_TOLD,
        ("silent",): Shared.NOT_REPORTED,
    }[tuple(sorted(set(said)))]


@pytest.mark.parametrize("by", ["model", "rack"])
def test_every_feature_of_a_bundle_is_offered_in_every_group_as_its_dot_says(mixed: vc.Fleet, by: str) -> None:
    table = fold_bundles(mixed, by, most_bundles=1000)
    assert len(table.bundles) > 10
    assert len({column.tobytes() for column in table.states.T}) == len(table.bundles)
    for name, size, row in zip(table.groups, table.sizes, table.states, strict=True):
        hosts = [h for h in mixed.features.index if str(mixed.hosts.loc[h, by]) == name]
        assert len(hosts) == size
        for bundle, state in zip(table.bundles, row, strict=True):
            assert {expected(mixed, hosts, f) for f in bundle.features} == {state}


def test_every_feature_is_in_one_bundle_or_on_all_hosts_or_on_none(mixed: vc.Fleet) -> None:
    table = fold_bundles(mixed, "model")
    named = [f for bundle in table.bundles for f in bundle.features] + list(table.on_all)
    assert len(named) == len(set(named))
    assert set(named) == set(mixed.features.columns[mixed.features.any()])
    assert table.absent == len(mixed.features.columns) - len(named)
    assert set(table.on_all) == set(mixed.features.columns[mixed.features.all()])


def test_a_bundle_counts_the_hosts_that_offer_all_of_it(mixed: vc.Fleet) -> None:
    for bundle in fold_bundles(mixed, "model").bundles:
        assert bundle.n_hosts == int(mixed.features[list(bundle.features)].all(axis=1).sum())


def test_groups_of_one_vendor_are_together_and_the_largest_first(mixed: vc.Fleet) -> None:
    table = fold_bundles(mixed, "model")
    vendors = [mixed.hosts.loc[mixed.hosts["model"] == g, "vendor"].iloc[0] for g in table.groups]
    assert vendors == sorted(vendors, reverse=True)
    assert set(vendors) == {"Intel", "AMD"}
    intel = [n for n, v in zip(table.sizes, vendors, strict=True) if v == "Intel"]
    assert intel == sorted(intel, reverse=True)


def test_bundles_beyond_the_most_are_one_without_dots(mixed: vc.Fleet) -> None:
    whole, cut = fold_bundles(mixed, "model"), fold_bundles(mixed, "model", most_bundles=10)
    assert len(cut.bundles) == 10
    assert cut.bundles[:9] == whole.bundles[:9]
    assert cut.bundles[-1].folded == len(whole.bundles) - 9
    assert sorted(cut.bundles[-1].features) == sorted(f for b in whole.bundles[9:] for f in b.features)
    assert (cut.states[:, -1] == BLANK).all()


def test_groups_beyond_the_most_are_one_with_all_their_hosts(noisy: Callable[[int, float], vc.Fleet]) -> None:
    fleet = noisy(96, 0.01)
    table = fold_bundles(fleet, "model", most_groups=4)
    assert len(table.groups) == 4
    assert table.groups[-1] == f"and {fleet.hosts.loc[fleet.features.index, 'model'].nunique() - 3} more groups"
    assert sum(table.sizes) == len(fleet.features)


def test_hosts_that_are_alike_have_no_bundle(pair: vc.Fleet) -> None:
    table = fold_bundles(pair["westmere"], "model")
    assert table.bundles == ()
    assert len(table.on_all) == int(pair.features.loc["westmere"].to_numpy().sum())


def test_controls_and_hazards_come_first_in_a_label(samples: Path) -> None:
    bundles = fold_bundles(vc.read_fleet(samples / "mixed"), "model").bundles
    (found,) = (b for b in bundles if "md-clear" in b.features)
    assert found.label.startswith("md-clear")
    assert "md-clear" in found.red


def test_a_column_that_is_not_there_is_refused(pair: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="no column 'racks' to group by; columns: "):
        fold_bundles(pair, "racks")


def test_a_fleet_without_hosts_is_refused(pair: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="without hosts"):
        fold_bundles(pair.drop(*pair.names), "model")
