"""Spreads of TSC frequencies and address bits against the rule applied pair by pair."""

import random

import pytest

import vmcompat as vc
from vmcompat.errors import FrameError
from vmcompat.plot._clocks import Scaling, fold_bits, fold_clocks, n_too_far


def takes(given: int, wanted: int) -> bool:
    """libvirt's rule for a target of the first frequency and a guest of the second."""
    return abs(given - wanted) <= given * 250 // 1_000_000


def fleet(clocks: dict[str, tuple[int, str | None] | None]) -> vc.Fleet:
    """Hosts of one CPU with these TSC frequencies and claims to scale."""
    texts = {}
    for host, clock in clocks.items():
        counter = ""
        if clock is not None:
            scaling = "" if clock[1] is None else f" scaling='{clock[1]}'"
            counter = f"<counter name='tsc' frequency='{clock[0]}'{scaling}/>"
        texts[host] = (
            f"<capabilities><host><cpu><arch>x86_64</arch><model>Westmere</model><vendor>Intel</vendor>{counter}</cpu>"
            "</host></capabilities>"
        )
    return vc.read_fleet(texts)


@pytest.mark.parametrize("seed", range(20))
def test_hosts_too_far_from_another_are_counted_as_pair_by_pair(seed: int) -> None:
    chance = random.Random(seed)
    frequencies = sorted(2_400_000_000 + chance.randrange(900_000) for _ in range(chance.randrange(1, 40)))
    far = [sum(not takes(given, wanted) for wanted in frequencies) for given in frequencies]
    assert n_too_far(frequencies).tolist() == far


@pytest.mark.parametrize("seed", range(5))
def test_ways_are_barred_to_hosts_that_do_not_scale_and_unsure_to_those_that_do_not_say(seed: int) -> None:
    chance = random.Random(seed)
    claims = ("yes", "no", None)
    clocks = {f"h{i}": (2_400_000_000 + chance.randrange(900_000), chance.choice(claims)) for i in range(30)}
    rows = fold_clocks(fleet(dict(clocks)), "model")
    assert sorted(h for row in rows for h in row.hosts) == sorted(clocks)
    for row in rows:
        barred = [(a, b) for a in row.hosts for b in row.hosts if not takes(clocks[b][0], clocks[a][0])]
        assert row.n_barred == sum(clocks[b][1] == "no" for _, b in barred)
        assert row.n_unsure == sum(clocks[b][1] is None for _, b in barred)
        assert set(row.barred) == {b for _, b in barred if clocks[b][1] == "no"}


def test_neighbours_further_apart_than_the_tolerance_are_two_rows() -> None:
    step = 2_000_000_000 * 250 // 1_000_000
    rows = fold_clocks(fleet({"a": (2_000_000_000, "no"), "b": (2_000_000_000 + step, "no"),
                              "c": (2_000_000_000 + 3 * step, "no"), "d": None}), "model")  # fmt: skip
    assert [row.hosts for row in rows] == [("a", "b"), ("c",), ("d",)]
    assert rows[0].spread == pytest.approx(250, abs=0.1)
    assert rows[0].off.tolist() == pytest.approx([-125, 125], abs=0.1)
    assert len(rows[2].frequencies) == 0


def test_a_chain_is_one_row_whose_ends_are_barred() -> None:
    step = 2_000_000_000 * 200 // 1_000_000
    (row,) = fold_clocks(fleet({f"h{i}": (2_000_000_000 + i * step, "no") for i in range(3)}), "model")
    assert row.n_barred == 2
    assert row.barred == ("h0", "h2")
    assert set(row.scaling.tolist()) == {Scaling.NO}


def test_rows_beyond_the_most_are_one_and_barred_ones_stay(mixed: vc.Fleet) -> None:
    whole, cut = fold_clocks(mixed, "model"), fold_clocks(mixed, "model", most_rows=5)
    assert len(cut) == 5 < len(whole)
    assert cut[-1].folded == len(whole) - 4
    assert sorted(h for row in cut for h in row.hosts) == sorted(mixed.names)
    assert {row.hosts for row in whole if row.n_barred} <= {row.hosts for row in cut}


@pytest.mark.parametrize("by", ["model", "rack"])
def test_address_bits_are_counted_group_by_group(mixed: vc.Fleet, by: str) -> None:
    rows = fold_bits(mixed, by)
    assert len(rows) > 3
    for row in rows:
        missing = mixed.hosts[by].isna() if row.group == f"no {by}" else mixed.hosts[by] == row.group
        bits = mixed.hosts.loc[missing, "maxphysaddr"]
        known = [int(n) for n in bits.dropna()]
        assert row.counts == {n: known.count(n) for n in set(known)}
        assert row.n_unknown == len(bits) - len(known)
        lowest = [h for h, n in bits.dropna().items() if n == min(known)] if len(set(known)) > 1 else []
        assert list(row.lowest) == lowest
    assert any(row.lowest for row in rows)


def test_groups_beyond_the_most_are_one_and_those_that_differ_stay(mixed: vc.Fleet) -> None:
    whole, cut = fold_bits(mixed, "model"), fold_bits(mixed, "model", most_rows=4)
    assert len(cut) == 4
    assert cut[-1].folded == len(whole) - 3
    assert sum(sum(row.counts.values()) + row.n_unknown for row in cut) == len(mixed)
    assert {row.group for row in whole if row.lowest} <= {row.group for row in cut}


def test_a_column_that_is_not_there_is_refused(mixed: vc.Fleet) -> None:
    for fold in (fold_clocks, fold_bits):
        with pytest.raises(FrameError, match="no column 'racks'"):
            fold(mixed, "racks")
