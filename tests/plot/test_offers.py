"""What the feature matrix shows is what the frames say, however it is folded."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import vmcompat as vc
from vmcompat.baseline.meanings import GROUPS, MEANINGS, meaning
from vmcompat.errors import FrameError
from vmcompat.plot._fold import BLANK
from vmcompat.plot._offers import RED, Column, FeatureTable, Offer, fold_features

LACKS = (Offer.ABSENT, Offer.NOT_REPORTED)


def unfolded(table: FeatureTable, fleet: vc.Fleet) -> pd.DataFrame:
    """The state of every known host and feature, read back from the folded table."""
    states = np.full(fleet.features.shape, BLANK, dtype=np.int8)
    for block in table.blocks:
        for kind, row in zip(block.kinds, block.states, strict=True):
            hosts = fleet.features.index.get_indexer(pd.Index(kind.hosts))
            for column, state in zip(table.columns, row, strict=True):
                states[np.ix_(hosts, fleet.features.columns.get_indexer(pd.Index(column.features)))] = state
    return pd.DataFrame(states, index=fleet.features.index, columns=fleet.features.columns)


@pytest.mark.parametrize("name", ["mixed", "pair", "noisy"])
def test_unfolded_again_it_is_the_frame(name: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(name)
    fleet: vc.Fleet = source(96, 0.01) if name == "noisy" else source
    table = fold_features(fleet, most_kinds=1000, most_columns=1000)
    states = unfolded(table, fleet)
    drawn = [f for c in table.columns for f in c.features]
    left_out = fleet.features.columns.difference(drawn)
    assert not fleet.features[left_out].to_numpy().any()
    assert table.absent == len(left_out) > 0
    assert len(set(drawn)) == len(drawn)
    offered, reported = fleet.features[drawn], fleet.reported[drawn]
    assert (~states[drawn].isin(LACKS)).equals(offered)
    assert (states[drawn] == Offer.NOT_REPORTED).equals(~reported & ~offered)


def test_every_host_is_in_exactly_one_row(mixed: vc.Fleet) -> None:
    table = fold_features(mixed)
    hosts = [h for block in table.blocks for kind in block.kinds for h in kind.hosts]
    hosts += [h for kind in table.unknown for h in kind.hosts]
    assert Counter(hosts) == Counter(mixed.names)
    assert len(hosts) > sum(len(block.kinds) for block in table.blocks) + len(table.unknown)


def test_rows_of_a_block_and_columns_of_a_group_differ(mixed: vc.Fleet) -> None:
    table = fold_features(mixed)
    for block in table.blocks:
        models = [mixed.hosts.loc[kind.hosts[0], "model"] for kind in block.kinds]
        rows = [(model, row.tobytes()) for model, row in zip(models, block.states, strict=True)]
        assert len(set(rows)) == len(rows)
    stacked = np.vstack([part for b in table.blocks for part in (b.band[np.newaxis], b.states)]).T
    columns = [(c.group, cells.tobytes()) for c, cells in zip(table.columns, stacked, strict=True)]
    assert len(set(columns)) == len(columns)


def test_groups_stand_together_in_the_order_of_the_meanings(mixed: vc.Fleet) -> None:
    table = fold_features(mixed)
    groups = list(dict.fromkeys(c.group for c in table.columns))
    assert groups == [g for g in GROUPS if g in groups]
    assert [c.group for c in table.columns] == sorted((c.group for c in table.columns), key=GROUPS.index)
    assert all(meaning(f).group == c.group for c in table.columns for f in c.features)


def test_what_all_hosts_offer_and_all_baselines_keep_is_one_column_a_group(mixed: vc.Fleet) -> None:
    table = fold_features(mixed)
    on_all = [c for c in table.columns if c.on_all]
    assert len({c.group for c in on_all}) == len(on_all) > 5
    base = next(c for c in on_all if c.group == "base")
    assert base.label == f"{len(base.features)} on all"
    assert mixed.features[list(base.features)].to_numpy().all()


def test_the_band_counts_what_the_baselines_count(mixed: vc.Fleet) -> None:
    table = fold_features(mixed)
    rows = mixed.baselines(allow_missing=True).dropna(subset="model")
    assert len(table.blocks) == len(rows) == 2
    of = {
        "n_features": Offer.KEPT,
        "capabilities_lost": Offer.CAPABILITY_LOST,
        "controls_lost": Offer.CONTROL_LOST,
        "immunities_lost": Offer.IMMUNITY_LOST,
        "hazards_lost": Offer.HAZARD_LOST,
    }
    for block, (_, row) in zip(table.blocks, rows.iterrows(), strict=True):
        counts = {name: sum(len(c.features) for c, s in zip(table.columns, block.band, strict=True) if s == state)
                  for name, state in of.items()}  # fmt: skip
        assert counts == {name: row[name] for name in of}
        assert str(row["model"]) in block.title


def test_only_a_control_of_the_blocks_own_vendor_is_a_finding(mixed: vc.Fleet) -> None:
    table = fold_features(mixed)
    vendors = [block.title.split(",")[0] for block in table.blocks]
    assert vendors == ["Intel", "AMD"]
    for block, vendor in zip(table.blocks, vendors, strict=True):
        lost = [
            f for c, s in zip(table.columns, block.band, strict=True) if s == Offer.CONTROL_LOST for f in c.features
        ]
        assert lost
        assert {MEANINGS[f].vendor for f in lost} == {vendor}


def test_two_microcodes_of_one_model_are_two_rows_that_say_so(mixed: vc.Fleet) -> None:
    (block,) = fold_features(mixed.select("rack == 'ams-r2'")).blocks
    old = next(kind for kind in block.kinds if "ams-r2-h03" in kind.hosts)
    assert old.hosts == ("ams-r2-h03",)
    assert old.note == "Skylake-Server-IBRS, libvirt 9.0.0, microcode 0x200005d"


def test_a_model_of_one_row_needs_no_more_than_its_name(pair: vc.Fleet) -> None:
    (block,) = fold_features(pair).blocks
    assert [(kind.label, kind.note) for kind in block.kinds] == [
        ("sandybridge", "SandyBridge"),
        ("westmere", "Westmere"),
    ]


def test_unknown_hosts_are_folded_by_reason(mixed: vc.Fleet) -> None:
    unknown = fold_features(mixed).unknown
    assert {h for kind in unknown for h in kind.hosts} == set(mixed.unknown)
    assert next(k.label for k in unknown if k.note == "not an x86 CPU") == "ams-p9-h01 +1"


def test_a_fleet_of_which_nothing_is_known_has_no_columns(mixed: vc.Fleet) -> None:
    table = fold_features(mixed[list(mixed.unknown)])
    assert (table.columns, table.blocks) == ((), ())
    assert sum(len(kind.hosts) for kind in table.unknown) == len(mixed.unknown)


def test_a_fleet_without_hosts_is_refused(mixed: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="without hosts"):
        fold_features(mixed.drop(*mixed.names))


def test_without_a_baseline_a_feature_is_offered_and_no_more(samples: Path) -> None:
    documents = {}
    for host, only in (("ams-r4-h01", "Conroe"), ("ams-r4-h02", "Penryn")):
        text = (samples / "mixed" / f"{host}.domcapabilities.xml").read_text()
        documents[host] = re.sub(rf"\n *<model usable=[^\n]*>(?!{only}<)[^<]*</model>", "", text)
        assert documents[host].count("<model usable=") == 1
    (block,) = fold_features(vc.read_fleet(documents, view="hypervisor")).blocks
    assert "no baseline: no CPU model that every hypervisor lists" in block.title
    assert set(block.band) == {Offer.UNKNOWN}
    assert set(block.states.ravel()) <= {Offer.OFFERED, Offer.ABSENT}
    assert (block.states == Offer.OFFERED).any()


def test_too_many_kinds_end_in_a_row_that_counts_the_others(noisy: Callable[[int, float], vc.Fleet]) -> None:
    fleet = noisy(96, 0.01)
    whole, part = fold_features(fleet, most_kinds=1000), fold_features(fleet, most_kinds=10)
    for full, cut in zip(whole.blocks, part.blocks, strict=True):
        *drawn, rest = cut.kinds
        assert rest.folded == len(full.kinds) - len(drawn) > 1
        assert rest.label == f"and {rest.folded} more kinds, {len(rest.hosts)} hosts"
        assert Counter(h for k in cut.kinds for h in k.hosts) == Counter(h for k in full.kinds for h in k.hosts)
        assert set(cut.states[-1]) == {BLANK}
    smallest = min(len(k.hosts) for b in part.blocks for k in b.kinds if k.folded == 1)
    assert smallest >= max(
        len(k.hosts) for b in whole.blocks for k in b.kinds if all(k not in cut.kinds for cut in part.blocks)
    )


def test_too_many_columns_are_cut_where_the_groups_are_long_and_findings_stay(mixed: vc.Fleet) -> None:
    whole, part = fold_features(mixed), fold_features(mixed, most_columns=50)
    assert len(part.columns) < len(whole.columns)
    rest = [c for c in part.columns if c.folded > 1]
    assert rest
    assert all(c.label == f"and {len(c.features)} more" for c in rest)
    assert Counter(f for c in part.columns for f in c.features) == Counter(f for c in whole.columns for f in c.features)
    hidden = {f for c in rest for f in c.features}
    red = [
        f
        for block in whole.blocks
        for c, state in zip(whole.columns, block.band, strict=True)
        if state in RED
        for f in c.features
    ]
    assert len(red) > 10
    assert len(part.columns) <= 50 + len(set(red))
    assert not hidden & set(red)


def test_another_order_of_the_hosts_gives_the_same_kinds(mixed: vc.Fleet) -> None:
    turned = mixed[list(reversed(mixed.names))]
    kinds = [
        {frozenset(kind.hosts) for block in fold_features(fleet).blocks for kind in block.kinds}
        for fleet in (mixed, turned)
    ]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize(
    ("features", "label"),
    [
        (["aes"], "aes"),
        (["rdseed", "adx"], "rdseed, adx"),
        (["fma", "movbe", "avx", "f16c", "bmi1", "avx2"], "fma, movbe, avx, f16c +2"),
        (["vmx-invept-single-context-noglobals", "vmx"], "vmx-invept-single-context-noglobals +1"),
    ],
)
def test_a_columns_label_names_what_there_is_room_for_and_never_cuts_a_name(features: list[str], label: str) -> None:
    assert Column(group="simd", features=tuple(features)).label == label
