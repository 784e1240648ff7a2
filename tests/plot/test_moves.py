"""What the migration matrix shows is what vc.migration_matrix says, however it is folded."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import vmcompat as vc
from tests.generator import instance
from vmcompat.errors import FrameError
from vmcompat.plot._fold import BLANK
from vmcompat.plot._moves import Move, MoveTable, fold_moves
from vmcompat.plot._offers import fold_features

MAY = (Move.BOTH, Move.ONE_WAY, Move.SAME, Move.AMONG, Move.STRANDED)


def unfolded(table: MoveTable, fleet: vc.Fleet) -> pd.DataFrame:
    states = np.full((len(fleet), len(fleet)), BLANK, dtype=np.int8)
    for source, row in zip(table.kinds, table.states, strict=True):
        for target, state in zip(table.kinds, row, strict=True):
            states[np.ix_(fleet.positions(source.hosts), fleet.positions(target.hosts))] = state
    return pd.DataFrame(states, index=fleet.names, columns=fleet.names)


@pytest.mark.parametrize("name", ["mixed", "pair", "noisy"])
def test_unfolded_again_it_is_the_matrix(name: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(name)
    fleet: vc.Fleet = source(96, 0.01) if name == "noisy" else source
    states = unfolded(fold_moves(fleet, most_kinds=1000), fleet)
    matrix = vc.migration_matrix(fleet).to_numpy()
    known = states.loc[list(fleet.features.index), list(fleet.features.index)]
    assert (known.isin(MAY).to_numpy() == matrix).all()
    assert ((known == Move.ONE_WAY).to_numpy() == (matrix & ~matrix.T)).all()
    assert (states.loc[list(fleet.unknown)] == Move.UNKNOWN).to_numpy().all()
    assert (states[list(fleet.unknown)] == Move.UNKNOWN).to_numpy().all()


def test_every_host_is_in_exactly_one_kind(mixed: vc.Fleet) -> None:
    table = fold_moves(mixed)
    assert Counter(h for kind in table.kinds for h in kind.hosts) == Counter(mixed.names)
    assert sum(table.sizes) == len(table.kinds) < len(mixed)


def test_the_diagonal_tells_a_host_from_hosts_that_are_alike(mixed: vc.Fleet) -> None:
    table = fold_moves(mixed)
    known = [kind for kind in table.kinds if not kind.unknown]
    diagonal = np.diag(table.states)[: len(known)]
    assert [s == Move.AMONG for s in diagonal] == [len(kind.hosts) > 1 for kind in known]
    assert set(diagonal) == {Move.SAME, Move.AMONG, Move.STRANDED}


def test_pairs_are_counted_over_hosts_not_over_kinds(mixed: vc.Fleet) -> None:
    matrix = vc.migration_matrix(mixed)
    both = one_way = 0
    for i, a in enumerate(matrix.index):
        for b in matrix.index[i + 1 :]:
            both += bool(matrix.loc[a, b] and matrix.loc[b, a])
            one_way += bool(matrix.loc[a, b] != matrix.loc[b, a])
    assert fold_moves(mixed).ways == (both, one_way)


def test_a_row_says_how_many_hosts_a_guest_may_reach(pair: vc.Fleet, mixed: vc.Fleet) -> None:
    assert [kind.note for kind in fold_moves(pair).kinds] == [
        "SandyBridge: to no others: cannot be drained",
        "Westmere: to 1 other, 1 of them one way, first to sandybridge",
    ]
    matrix = vc.migration_matrix(mixed)
    kind = fold_moves(mixed).kinds[0]
    assert f": to {matrix.loc[kind.hosts[0]].sum() - 1} others" in kind.note


def test_both_plots_have_their_hosts_in_the_same_order(mixed: vc.Fleet) -> None:
    rows = [h for block in fold_features(mixed).blocks for kind in block.kinds for h in kind.hosts]
    table = fold_moves(mixed)
    assert [kind.hosts[0] for kind in table.kinds if kind.hosts[0] in rows] == sorted(
        (kind.hosts[0] for kind in table.kinds if not kind.unknown), key=rows.index
    )


@pytest.fixture(params=["mixed", "noisy", "generated"])
def any_fleet(request: pytest.FixtureRequest, mixed: vc.Fleet, noisy: Callable[[int, float], vc.Fleet]) -> vc.Fleet:
    return {"mixed": mixed, "noisy": noisy(96, 0.01), "generated": instance(60).fleet()}[request.param]


def test_hosts_are_of_one_island_where_each_may_move_to_the_other(any_fleet: vc.Fleet) -> None:
    may = vc.migration_matrix(any_fleet)
    islands = fold_moves(any_fleet).islands
    assert sorted(h for island in islands for h in island.hosts) == sorted(may.index)
    number = {h: i for i, island in enumerate(islands) for h in island.hosts}
    for a in may.index:
        for b in may.index:
            assert (number[a] == number[b]) == bool(may.loc[a, b] and may.loc[b, a])


def test_a_door_leads_to_an_island_that_is_not_reached_through_another(any_fleet: vc.Fleet) -> None:
    may = vc.migration_matrix(any_fleet)
    table = fold_moves(any_fleet)
    first = [island.hosts[0] for island in table.islands]
    doors = {
        (a, b)
        for a in first
        for b in first
        if a != b and may.loc[a, b] and not any(may.loc[a, c] and may.loc[c, b] for c in first if c not in (a, b))
    }
    assert {(a.hosts[0], b.hosts[0]) for a, b in table.doors} == doors
    assert len(table.doors) == len(doors) > 0


def test_a_host_cannot_be_drained_where_every_other_is_known_to_lack_something(any_fleet: vc.Fleet) -> None:
    may, offered, reported = vc.migration_matrix(any_fleet), any_fleet.features, any_fleet.reported
    blocked = set(any_fleet.cpu_map.names(any_fleet.cpu_map.blocked))
    vendors = any_fleet.hosts["vendor"]
    stuck = []
    for host in may.index[may.sum(axis=1) == 1]:
        needs = [f for f in offered.columns[offered.loc[host]] if f not in blocked]
        others = [h for h in may.index if h != host and vendors[h] == vendors[host]]
        if all((reported.loc[h, needs] & ~offered.loc[h, needs]).any() for h in others):
            stuck.append(host)
    assert fold_moves(any_fleet).stranded == stuck


def test_a_host_is_not_called_stranded_where_an_old_libvirt_only_has_no_name_for_what_it_needs(samples: Path) -> None:
    rack = vc.read_fleet(samples / "mixed").select("rack == 'ams-r2'")
    hosts = list(rack.features.index)
    found = [
        (source, target)
        for source in hosts
        for target in hosts
        if source != target and fold_moves(rack[[source, target]]).islands[0].maybe == (target,)
    ]
    assert found
    table = fold_moves(rack[list(found[0])])
    assert found[0][0] not in table.stranded
    assert table.kinds[0].note.endswith(f"to no others: perhaps to {found[0][1]}, which cannot tell")
    assert table.states[0, 0] == Move.SAME


def test_an_outline_holds_the_kinds_of_one_island_of_several_hosts(any_fleet: vc.Fleet) -> None:
    table = fold_moves(any_fleet)
    outlined = [tuple(h for k in table.kinds[a : b + 1] for h in k.hosts) for a, b in table.outlines]
    assert Counter(frozenset(hosts) for hosts in outlined) == Counter(
        frozenset(island.hosts) for island in table.islands if len(island.hosts) > 1
    )


def test_too_many_kinds_end_in_a_row_and_column_that_count_the_others(
    noisy: Callable[[int, float], vc.Fleet],
) -> None:
    fleet = noisy(96, 0.01)
    table = fold_moves(fleet, most_kinds=10)
    rest = [i for i, kind in enumerate(table.kinds) if kind.folded > 1]
    assert len(rest) == 2
    assert Counter(h for kind in table.kinds for h in kind.hosts) == Counter(fleet.names)
    known = sum(not kind.unknown for kind in table.kinds)
    for i in rest:
        assert set(table.states[i, :known]) == set(table.states[:known, i]) == {BLANK}


def test_a_fleet_of_which_nothing_is_known_is_all_unknown(mixed: vc.Fleet) -> None:
    table = fold_moves(mixed[list(mixed.unknown)])
    assert set(table.states.ravel()) == {Move.UNKNOWN}
    assert table.ways == (0, 0)


def test_a_fleet_without_hosts_is_refused(mixed: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="without hosts"):
        fold_moves(mixed.drop(*mixed.names))
