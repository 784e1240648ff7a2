"""What the adoption plot shows is what the frames say, host by host."""

from collections.abc import Callable

import numpy as np
import pytest

import vmcompat as vc
from tests.generator import instance
from vmcompat.baseline.meanings import LEVELS, level, meaning
from vmcompat.errors import FrameError
from vmcompat.plot._shares import Share, fold_shares

OTHER = {"Intel": "AMD", "AMD": "Intel"}


def expected(fleet: vc.Fleet, host: str, feature: str) -> Share:
    status, vendor = fleet.hosts.loc[host, "cpu_status"], fleet.hosts.loc[host, "vendor"]
    bound = meaning(feature).vendor
    if status == "other_arch":
        return Share.ELSEWHERE
    if status == "ok" and fleet.features.loc[host, feature]:
        return Share.HAS
    if bound and vendor == OTHER[bound]:
        return Share.ELSEWHERE
    if status != "ok":
        return Share.UNKNOWN
    return Share.LACKS if fleet.reported.loc[host, feature] else Share.NOT_REPORTED


@pytest.mark.parametrize("capacity", [None, "memory"])
def test_every_piece_of_every_bar_is_the_sum_of_its_hosts(mixed: vc.Fleet, capacity: str | None) -> None:
    table = fold_shares(mixed, capacity, most_rows=1000)
    weights = mixed.hosts[capacity].fillna(0) if capacity else mixed.hosts["cores"].fillna(1) * 0 + 1
    total = float(weights.sum())
    assert table.total == total
    assert len(table.rows) > 40
    for row in table.rows:
        for feature in row.features:
            sums = dict.fromkeys(Share, 0.0)
            for host in mixed.names:
                sums[expected(mixed, host, feature)] += float(weights[host]) / total
            assert row.shares == pytest.approx({s: n for s, n in sums.items() if n})


def test_every_feature_is_drawn_or_counted(mixed: vc.Fleet) -> None:
    table = fold_shares(mixed, None)
    drawn = [f for row in table.rows for f in row.features]
    assert len(drawn) == len(set(drawn))
    assert len(drawn) + table.on_all + table.absent == len(mixed.features.columns)


def test_a_level_excludes_the_hosts_that_lack_a_feature_of_it_for_sure(mixed: vc.Fleet) -> None:
    for row in fold_shares(mixed, None).levels:
        (name,) = row.features
        needed = [f for f in mixed.features.columns if f in LEVELS[name]]
        lacking = (mixed.reported[needed] & ~mixed.features[needed]).any(axis=1)
        assert row.hosts == tuple(lacking.index[lacking])
        offered = {h: frozenset(mixed.features.columns[mixed.features.loc[h]]) for h in mixed.features.index}
        whole = [h for h in offered if (level(offered[h]) or "") >= name]
        assert row.shares[Share.HAS] == pytest.approx(len(whole) / len(mixed))
        assert sum(row.shares.values()) == pytest.approx(1)


def test_what_is_not_known_widens_the_answer_and_never_narrows_it(mixed: vc.Fleet) -> None:
    known = fold_shares(mixed[list(mixed.features.index)], None)
    for row, sure in zip(fold_shares(mixed, None).levels, known.levels, strict=True):
        least, most = row.between(Share.EXCLUDED)
        assert least <= sure.between(Share.EXCLUDED)[0] <= most


def test_shares_of_a_vendors_own_features_are_of_its_hosts(mixed: vc.Fleet) -> None:
    (row,) = (r for r in fold_shares(mixed, None).rows if "md-clear" in r.features)
    intel = mixed.features.index[mixed.hosts.loc[mixed.features.index, "vendor"] == "Intel"]
    assert row.vendor == "Intel"
    n = int(mixed.features.loc[intel, "md-clear"].sum())
    n_unknown = int((mixed.hosts["cpu_status"].ne("ok") & mixed.hosts["cpu_status"].ne("other_arch")).sum())
    assert row.between(Share.HAS)[0] == pytest.approx(n / (len(intel) + n_unknown))


def test_hosts_of_unknown_capacity_are_left_out_and_named(mixed: vc.Fleet) -> None:
    table = fold_shares(mixed, "maxphysaddr")
    assert table.uncounted == tuple(mixed.hosts.index[mixed.hosts["maxphysaddr"].isna()]) != ()


def test_long_groups_are_cut_and_controls_stay() -> None:
    fleet = instance(2000).fleet()
    whole, cut = fold_shares(fleet, None, most_rows=1000), fold_shares(fleet, None, most_rows=40)
    assert len(cut.rows) <= 40 < len(whole.rows)
    assert sorted(f for row in cut.rows for f in row.features) == sorted(f for row in whole.rows for f in row.features)
    assert [row.folded for row in whole.rows] == [1] * len(whole.rows)
    assert sum(row.folded for row in cut.rows) == len(whole.rows)


def test_rows_of_a_group_fall(noisy: Callable[[int, float], vc.Fleet]) -> None:
    rows = fold_shares(noisy(96, 0.01), None, most_rows=1000).rows
    for group in {row.group for row in rows}:
        least = [row.between(Share.HAS)[0] for row in rows if row.group == group]
        assert np.all(np.diff(least) <= 1e-9)


@pytest.mark.parametrize(("capacity", "message"), [("watts", "no column 'watts'"), ("model", "no column of numbers")])
def test_a_capacity_that_is_no_number_is_refused(pair: vc.Fleet, capacity: str, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        fold_shares(pair, capacity)


def test_a_capacity_that_no_host_tells_is_refused(mixed: vc.Fleet) -> None:
    silent = mixed[list(mixed.hosts.index[mixed.hosts["maxphysaddr"].isna()])]
    with pytest.raises(FrameError, match="above 0 on some host"):
        fold_shares(silent, "maxphysaddr")
