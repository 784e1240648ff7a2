"""What ``plot.pools`` shows, before anything is drawn: the features of hosts, their pools, and their way from today."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import IntEnum
from typing import Final

import numpy as np
import pandas as pd

from vmcompat.baseline.pools import Pools
from vmcompat.plot._fold import BLANK, Kind, States, count
from vmcompat.plot._offers import Band, Block, Column, FeatureTable, Offer, fold_bands, losses_of

CHANGES: Final = "from today"
_LOSSES: Final = {
    Offer.CONTROL_LOST: "control",
    Offer.HAZARD_LOST: "hazard",
    Offer.CAPABILITY_LOST: "capability",
    Offer.IMMUNITY_LOST: "immunity",
}
_MANY: Final = {"capability": "capabilities", "immunity": "immunities"}


class Change(IntEnum):
    """What becomes of a host of today; not a state of :class:`Offer`."""

    STAYS = 32
    MOVES = 33
    RESTARTS = 34


def fold_places(pools: Pools, *, most_kinds: int = 80) -> FeatureTable:
    """Hosts by features under their pools, with hosts folded that are alike and go the same way.

    Parameters
    ----------
    pools : Pools
        Where there are pools of today, columns of their own stand before the features.
    most_kinds : int
        Hosts that change come first, then the kinds of most hosts.

    Returns
    -------
    FeatureTable
    """
    placed = pools.placement
    with_today = bool(placed["today"].notna().any())
    changed = placed["moved"] | placed["restarts"]
    ways = placed.loc[changed, ["today", "moved", "restarts"]].apply(tuple, axis=1)
    codes = {way: 1 + i % 127 for i, way in enumerate(dict.fromkeys(ways))}
    marks = {str(host): codes[way] for host, way in ways.items()}
    table = fold_bands(pools.fleet, _bands(pools), marks=marks, most_kinds=most_kinds)
    if not with_today:
        return table
    columns = (Column(group=CHANGES, features=("moves",)), Column(group=CHANGES, features=("restarts",)))
    return replace(
        table, columns=(*columns, *table.columns), blocks=tuple(_with_changes(b, placed) for b in table.blocks)
    )


def _bands(pools: Pools) -> Iterator[Band]:
    names = pools.fleet.features.columns
    for pool, row in pools.frame.iterrows():
        losses = losses_of(names, None if pd.isna(row["vendor"]) else row["vendor"])
        kept, given_up = frozenset(row["features"]), frozenset(row["given_up"])
        offered = np.any(pools.fleet.features.loc[list(row["hosts"])].to_numpy(), axis=0).tolist()
        states = [
            Offer.KEPT if name in kept else loss if name in given_up else Offer.LEFT_OUT if some else Offer.ABSENT
            for name, loss, some in zip(names, losses, offered, strict=True)
        ]
        yield Band(_title(str(pool), row, states, pools.capacity), row["hosts"], np.array(states, dtype=np.int8))


def _title(pool: str, row: pd.Series, states: list[Offer], capacity: str | None) -> str:
    n = {word: states.count(state) for state, word in _LOSSES.items()}
    up = ", ".join(count(k, word, _MANY.get(word)) for word, k in n.items() if k) or "nothing"
    size = count(row["n_hosts"], "host")
    if capacity is not None and pd.notna(row["capacity"]):
        size += f", {row['capacity']:,.0f} {capacity}"
    vendor = "vendor not known" if pd.isna(row["vendor"]) else row["vendor"]
    level = "below x86-64-v1" if pd.isna(row["level"]) else row["level"]
    moved = f"; {row['n_moved']} moved in" if row["n_moved"] else ""
    return (
        f"{pool}: {size} of {vendor}, {row['arch']}: keeps {row['n_features']} features, {level}, value "
        f"{row['value']:,.0f}; gives up {up}{moved}"
    )


def _with_changes(block: Block, placed: pd.DataFrame) -> Block:
    """The same with two columns before the features, and with the way of each kind in its note."""
    states = np.full((len(block.kinds), 2), BLANK, dtype=np.int8)
    kinds = []
    for i, kind in enumerate(block.kinds):
        if kind.folded > 1:
            kinds.append(kind)
            continue
        row = placed.loc[[kind.hosts[0]]].iloc[0]
        states[i] = (
            Change.MOVES if row["moved"] else Change.STAYS,
            Change.RESTARTS if row["restarts"] else Change.STAYS,
        )
        kinds.append(_noted(kind, row))
    band: States = np.concatenate([np.full(2, BLANK, dtype=np.int8), block.band])
    return replace(block, kinds=tuple(kinds), states=np.hstack([states, block.states]), band=band)


def _noted(kind: Kind, row: pd.Series) -> Kind:
    whence = f"from {row['today']}" if row["moved"] and pd.notna(row["today"]) else "new" if row["moved"] else ""
    told = [*([whence] if whence else []), *(["guests restart"] if row["restarts"] else [])]
    return replace(kind, note=f"{kind.note}; {', '.join(told)}" if told else kind.note)
