"""What ``plot.features`` shows, before anything is drawn: equal hosts and equal features folded, with their counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, auto
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from vmcompat.baseline.meanings import GROUPS, meanings
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.plot._fold import BLANK, Kind, States, capped, count, kinds_of, largest, unknown_kinds

_LABEL: Final = 24
_POLARITIES: Final = {
    "capabilities": "capability",
    "controls": "control",
    "immunities": "immunity",
    "hazards": "hazard",
}


class Offer(IntEnum):
    """A feature on a host, or in the baseline of its block: what the baseline makes of it."""

    ABSENT = 0
    KEPT = auto()
    CAPABILITY_LOST = auto()
    CONTROL_LOST = auto()
    IMMUNITY_LOST = auto()
    HAZARD_LOST = auto()
    NOISE_LOST = auto()
    LEFT_OUT = auto()
    OFFERED = auto()
    NOT_REPORTED = auto()
    UNKNOWN = auto()


RED: Final = (Offer.CONTROL_LOST, Offer.HAZARD_LOST)
"""What a planner must not overlook."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Features of one group of meaning that are alike on every host, drawn as one column.

    Attributes
    ----------
    group : str
        One of ``meanings.GROUPS``.
    features : tuple of str
        In map order.
    on_all : bool
        Every known host offers them and every baseline keeps them.
    folded : int
        How many columns this one stands for; more than one where there are too many to draw.
    """

    group: str
    features: tuple[str, ...]
    on_all: bool = False
    folded: int = 1

    @property
    def label(self) -> str:
        """The names that there is room for, and how many more there are."""
        if self.folded > 1:
            return f"and {len(self.features)} more"
        if self.on_all and len(self.features) > 1:
            return f"{len(self.features)} on all"
        shown = 1
        while shown < len(self.features) and len(", ".join(self.features[: shown + 1])) <= _LABEL:
            shown += 1
        rest = len(self.features) - shown
        return ", ".join(self.features[:shown]) + (f" +{rest}" if rest else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The hosts of one architecture and vendor.

    Attributes
    ----------
    title : str
        Who they are and what their baseline keeps and loses.
    kinds : tuple of Kind
    states : int8 array, kind by column
        Members of :class:`Offer`.
    band : int8 array, column
        What the baseline makes of each column; all UNKNOWN where there is none.
    """

    title: str
    kinds: tuple[Kind, ...]
    states: States = field(repr=False)
    band: States = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTable:
    """What ``plot.features`` draws.

    Attributes
    ----------
    columns : tuple of Column
        In the order of ``meanings.GROUPS``; in each group first what is on all, then map order.
    blocks : tuple of Block
        As ``fleet.baselines()`` orders them.
    unknown : tuple of Kind
        Hosts whose CPU is not known, by reason.
    absent : int
        Features that no known host offers: not drawn.
    """

    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    unknown: tuple[Kind, ...]
    absent: int


class Band(NamedTuple):
    """Hosts that share a baseline, and what it makes of each feature."""

    title: str
    hosts: tuple[str, ...]
    states: States


def fold_features(fleet: Fleet, *, most_kinds: int = 80, most_columns: int = 160) -> FeatureTable:
    """Hosts by features under the baselines of their vendors, with equal hosts and equal columns folded.

    Parameters
    ----------
    fleet : Fleet
    most_kinds, most_columns : int
        As for :func:`fold_bands`.

    Returns
    -------
    FeatureTable

    Raises
    ------
    FrameError
        The fleet has no host.
    """
    if not len(fleet):
        raise FrameError("a fleet without hosts: there is nothing to draw")
    return fold_bands(fleet, _bands(fleet), most_kinds=most_kinds, most_columns=most_columns)


def fold_bands(
    fleet: Fleet,
    bands: Iterable[Band],
    *,
    marks: Mapping[str, int] | None = None,
    most_kinds: int = 80,
    most_columns: int = 160,
) -> FeatureTable:
    """Hosts by features with equal hosts and equal columns folded.

    Parameters
    ----------
    fleet : Fleet
    bands : iterable of Band
    marks : mapping of str to int, optional
        What else hosts must have in common to be alike, from 0 to 127; those of more than 0 are drawn first of all.
    most_kinds : int
        The kinds of most hosts are kept; each block ends with a row for the others.
    most_columns : int
        Long groups are cut first; lost controls and hazards are drawn in any case, even if there are more of them.

    Returns
    -------
    FeatureTable
    """
    bands = list(bands)
    names = fleet.features.columns
    offered, reported = fleet.features.to_numpy(), fleet.reported.to_numpy()
    position = {host: i for i, host in enumerate(fleet.features.index)}
    states, kinds = [], []
    for band in bands:
        here = [position[h] for h in band.hosts]
        has = np.where(band.states == Offer.UNKNOWN, np.int8(Offer.OFFERED), band.states)
        lacks = np.where(reported[here], np.int8(Offer.ABSENT), np.int8(Offer.NOT_REPORTED))
        table = np.where(offered[here], has, lacks)
        mark = np.array([(marks or {}).get(h, 0) for h in band.hosts], dtype=np.int8)
        states.append(table)
        kinds.append(kinds_of(fleet, band.hosts, np.column_stack([mark, table])))
    columns, chosen = _columns(names, states, [band.states for band in bands], most_columns)
    kept = largest([kind for part in kinds for kind, _ in part], most_kinds, first=marks or {})
    blocks = []
    for band, table, part in zip(bands, states, kinds, strict=True):
        drawn, first = capped(part, kept)
        blocks.append(
            Block(
                title=band.title,
                kinds=drawn,
                states=_pick(table[first], chosen, len(drawn)),
                band=_pick(band.states[np.newaxis], chosen, 1)[0],
            )
        )
    absent = len(names) - sum(len(c.features) for c in columns)
    return FeatureTable(columns=columns, blocks=tuple(blocks), unknown=unknown_kinds(fleet), absent=absent)


def _bands(fleet: Fleet) -> Iterator[Band]:
    """Of each architecture and vendor, with its known hosts."""
    names = fleet.features.columns
    known = frozenset(fleet.features.index)
    groups = fleet.baselines(allow_missing=True)
    for (arch, named), (_, row) in zip(groups.index, groups.iterrows(), strict=True):
        vendor = None if pd.isna(named) else str(named)
        hosts = tuple(h for h in row["hosts"] if h in known)
        if not hosts:
            continue
        who = f"{vendor or 'vendor not known'}, {arch}, {count(len(hosts), 'host')}"
        band = np.full(len(names), Offer.UNKNOWN, dtype=np.int8)
        if pd.isna(row["model"]):
            yield Band(f"{who}: no baseline: {row['reason']}", hosts, band)
            continue
        base = fleet.baseline(row["hosts"], allow_missing=True)
        loss = losses_of(names, vendor)
        lost, dropped = frozenset(base.lost["feature"]), frozenset(base.dropped["feature"])
        for i, name in enumerate(names):
            band[i] = (
                Offer.KEPT
                if name in base.gives
                else loss[i]
                if name in lost
                else Offer.LEFT_OUT
                if name in dropped
                else Offer.ABSENT
            )
        losses = [count(row[f"{many}_lost"], one, many) for many, one in _POLARITIES.items() if row[f"{many}_lost"]]
        kept = f"baseline {base.model}, {base.level or 'below x86-64-v1'}, keeps {row['n_features']} features"
        missing = f"; not counting {count(len(base.missing), 'host')} not known" if base.missing else ""
        yield Band(f"{who}: {kept}, loses {', '.join(losses) or 'nothing'}{missing}", hosts, band)


def losses_of(names: Iterable[str], vendor: str | None) -> list[Offer]:
    """What losing each feature is; what is bound to another vendor means nothing to these guests."""
    by_polarity = {
        "capability": Offer.CAPABILITY_LOST,
        "control": Offer.CONTROL_LOST,
        "immunity": Offer.IMMUNITY_LOST,
        "hazard": Offer.HAZARD_LOST,
        "noise": Offer.NOISE_LOST,
    }
    what = meanings(names, vendor=vendor)
    foreign = (what["vendor"] != "") & (what["value"] == 0)
    return [Offer.NOISE_LOST if f else by_polarity[p] for f, p in zip(foreign, what["polarity"], strict=True)]


def _columns(
    names: pd.Index, states: Sequence[States], bands: Sequence[States], most: int
) -> tuple[tuple[Column, ...], list[int]]:
    """The columns, and for each the feature whose states are its states; -1 for one that stands for many."""
    if not states:
        return (), []
    table = np.ascontiguousarray(np.vstack([*states, *bands]).T)
    groups = meanings(names)["group"].tolist()
    anywhere = ~np.isin(table, (Offer.ABSENT, Offer.NOT_REPORTED)).all(axis=1)
    on_all = [bool(row.all()) for row in np.isin(table, Offer.KEPT)]
    red = [bool(row.any()) for row in np.isin(table, RED)]
    alike: dict[str, dict[bytes, list[int]]] = {group: {} for group in GROUPS}
    for i in sorted(np.flatnonzero(anywhere).tolist(), key=lambda i: not on_all[i]):
        alike[groups[i]].setdefault(table[i].tobytes(), []).append(i)
    each = _most_of_each([len(patterns) for patterns in alike.values()], most)
    columns, chosen = [], []
    for group, patterns in alike.items():
        drawn, rest = list(patterns.values()), []
        if len(drawn) > each:
            by_need = sorted(drawn, key=lambda features: not red[features[0]])
            first = by_need[: max(each - 1, sum(red[features[0]] for features in drawn))]
            rest = sorted(i for features in drawn if features not in first for i in features)
            drawn = [features for features in drawn if features in first]
        for features in drawn:
            kept = tuple(names[features])
            columns.append(Column(group=group, features=kept, on_all=on_all[features[0]]))
            chosen.append(features[0])
        if rest:
            columns.append(Column(group=group, features=tuple(names[rest]), folded=len(patterns) - len(drawn)))
            chosen.append(-1)
    return tuple(columns), chosen


def _most_of_each(sizes: Sequence[int], most: int) -> int:
    """To how many columns the longest groups are cut, so that all together are no more than ``most``."""
    each = max(sizes)
    while each > 1 and sum(min(n, each) for n in sizes) > most:
        each -= 1
    return each


def _pick(table: States, chosen: Sequence[int], n_rows: int) -> States:
    """The chosen columns, blank where a row or a column stands for many."""
    picked = np.full((n_rows, len(chosen)), BLANK, dtype=np.int8)
    columns = np.array(chosen, dtype=np.intp)
    picked[: len(table), columns >= 0] = table[:, columns[columns >= 0]]
    return picked
