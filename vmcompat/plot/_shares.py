"""What ``plot.adoption`` shows, before anything is drawn: the share of a fleet that has each feature and each level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vmcompat.baseline.meanings import GROUPS, LEVELS, meaning, meanings
from vmcompat.baseline.worth import host_amounts
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet

_LABEL: Final = 40
_ASKED: Final = ("x86-64-v2", "x86-64-v3", "x86-64-v4")


class Share(IntEnum):
    """What part of a fleet a piece of a bar stands for, in the order in which the pieces follow one another."""

    HAS = 0
    NOT_REPORTED = auto()
    UNKNOWN = auto()
    LACKS = auto()
    EXCLUDED = auto()
    ELSEWHERE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A bar: features that are alike on every host, or a level.

    Attributes
    ----------
    group : str
        One of ``meanings.GROUPS``; "" for a level.
    features : tuple of str
        In map order; for a level its name.
    shares : mapping of Share to float
        Of the whole: they sum up to 1. Empty for a row that stands for rows that are not drawn.
    hosts : tuple of str
        For a level the known hosts that it excludes.
    folded : int
        How many rows this one stands for.
    """

    group: str
    features: tuple[str, ...]
    shares: Mapping[Share, float]
    hosts: tuple[str, ...] = ()
    folded: int = 1

    @property
    def label(self) -> str:
        """The names that there is room for, and how many more there are."""
        if self.folded > 1:
            return f"{len(self.features)} more in {self.folded} rows"
        shown = 1
        while shown < len(self.features) and len(", ".join(self.features[: shown + 1])) <= _LABEL:
            shown += 1
        rest = len(self.features) - shown
        return ", ".join(self.features[:shown]) + (f" +{rest}" if rest else "")

    @property
    def red(self) -> bool:
        """A mitigation control or a hazard is among them."""
        return any(meaning(f).polarity in ("control", "hazard") for f in self.features)

    @property
    def vendor(self) -> str:
        """On whose hosts alone the features mean anything, where others are in the fleet; else ""."""
        return meaning(self.features[0]).vendor if self.group and Share.ELSEWHERE in self.shares else ""

    def between(self, share: Share) -> tuple[float, float]:
        """The least and the most that this piece may be, of the share on which it means anything."""
        of = (1.0 - self.shares.get(Share.ELSEWHERE, 0.0)) or 1.0
        least = self.shares.get(share, 0.0)
        unsure = self.shares.get(Share.NOT_REPORTED, 0.0) + self.shares.get(Share.UNKNOWN, 0.0)
        return least / of, (least + unsure) / of


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareTable:
    """What ``plot.adoption`` draws.

    Attributes
    ----------
    levels : tuple of Row
        The x86-64 levels above the first, lowest first.
    rows : tuple of Row
        Features in which known hosts differ or may differ, in the order of ``meanings.GROUPS``; in each group by
        falling share, then in map order.
    on_all, absent : int
        Features that every known host offers, and that none is known to offer: not drawn.
    total : float
        Hosts, or the sum of the capacity.
    uncounted : tuple of str
        Hosts left out since their capacity is not known.
    n_unknown : int
        Hosts whose CPU is not known, of those that count.
    """

    levels: tuple[Row, ...]
    rows: tuple[Row, ...]
    on_all: int
    absent: int
    total: float
    uncounted: tuple[str, ...]
    n_unknown: int


def fold_shares(fleet: Fleet, capacity: str | None, *, most_rows: int = 60) -> ShareTable:
    """The share that has each level and each feature.

    Parameters
    ----------
    fleet : Fleet
    capacity : str or None
        A numeric column of ``fleet.hosts`` to add up. None: every host counts 1.
    most_rows : int
        Long groups are cut first, to the rows of controls and hazards and then to those nearest to one half.

    Returns
    -------
    ShareTable

    Raises
    ------
    FrameError
        The fleet has no host, the column is none of numbers, or no host has more than 0 of it.
    """
    if not len(fleet):
        raise FrameError("a fleet without hosts: there is nothing to draw")
    amounts, unknown = host_amounts(fleet.hosts, capacity)
    weights = amounts.multiples / amounts.per_one
    if (weights < 0).any() or not weights.sum() > 0:
        raise FrameError(f"capacity={capacity!r} has to be a number above 0 on some host and below 0 on none")
    offered, names = fleet.features.to_numpy(), fleet.features.columns.tolist()
    somewhere = offered.any(axis=0)
    states = _states(fleet)
    patterns: dict[tuple[str, str, bytes], list[int]] = {}
    for i in np.flatnonzero(somewhere).tolist():
        what = meaning(names[i])
        patterns.setdefault((what.group, what.vendor, states[:, i].tobytes()), []).append(i)
    rows = [
        Row(group=group, features=tuple(names[i] for i in here), shares=_shares(states[:, here[0]], weights))
        for (group, _, _), here in patterns.items()
    ]
    uneven = [row for row in rows if {Share.LACKS, Share.NOT_REPORTED} & set(row.shares)]
    is_known = (fleet.hosts["cpu_status"] == "ok").to_numpy()
    return ShareTable(
        levels=tuple(_level(fleet, name, weights) for name in _ASKED),
        rows=_cut(uneven, most_rows),
        on_all=int(somewhere.sum()) - sum(len(row.features) for row in uneven),
        absent=int((~somewhere).sum()),
        total=float(weights.sum()),
        uncounted=tuple(fleet.hosts.index[unknown > 0]),
        n_unknown=int((~is_known & (unknown == 0)).sum()),
    )


def _states(fleet: Fleet) -> NDArray[np.int8]:
    """Of every host and feature; elsewhere is a host of another architecture, or of another vendor that lacks it."""
    names = fleet.features.columns
    value = meanings(names)["value"].to_numpy()
    offered, reported = fleet.features.to_numpy(), fleet.reported.to_numpy()
    known = np.where(offered, Share.HAS, np.where(reported, Share.LACKS, Share.NOT_REPORTED))
    states = np.full((len(fleet), len(names)), Share.UNKNOWN, dtype=np.int8)
    states[(fleet.hosts["cpu_status"] == "ok").to_numpy()] = known
    states[(fleet.hosts["cpu_status"] == "other_arch").to_numpy()] = Share.ELSEWHERE
    for vendor in fleet.hosts["vendor"].dropna().unique():
        foreign = (meanings(names, vendor=vendor)["value"].to_numpy() == 0) & (value > 0)
        here = (fleet.hosts["vendor"] == vendor).to_numpy()[:, np.newaxis] & foreign & (states != Share.HAS)
        states[here] = Share.ELSEWHERE
    return states


def _shares(states: NDArray[np.int8], weights: NDArray[np.float64]) -> dict[Share, float]:
    """The pieces of a bar."""
    amounts = np.bincount(states, weights=weights, minlength=len(Share)) / weights.sum()
    return {share: float(amounts[share]) for share in Share if amounts[share] > 0}


def _level(fleet: Fleet, name: str, weights: NDArray[np.float64]) -> Row:
    needed = [f for f in fleet.features.columns if f in LEVELS[name]]
    offered, reported = fleet.features[needed].to_numpy(), fleet.reported[needed].to_numpy()
    lacks = (reported & ~offered).any(axis=1)
    known = np.where(offered.all(axis=1), Share.HAS, np.where(lacks, Share.EXCLUDED, Share.NOT_REPORTED))
    states = np.full(len(fleet), Share.UNKNOWN, dtype=np.int8)
    states[(fleet.hosts["cpu_status"] == "ok").to_numpy()] = known
    states[(fleet.hosts["cpu_status"] == "other_arch").to_numpy()] = Share.ELSEWHERE
    excluded = tuple(fleet.features.index[lacks])
    return Row(group="", features=(name,), shares=_shares(states, weights), hosts=excluded)


def _cut(rows: Sequence[Row], most: int) -> tuple[Row, ...]:
    """In the order of the groups, those that there is room for and one for the others of each group."""
    groups = {group: [row for row in rows if row.group == group] for group in GROUPS}
    each = max((len(here) for here in groups.values()), default=0)
    while each > 1 and sum(min(len(here), each) for here in groups.values()) > most:
        each -= 1
    kept: list[Row] = []
    for group, here in groups.items():
        drawn = here
        if len(here) > each:
            by_need = sorted(here, key=lambda row: (not row.red, abs(sum(row.between(Share.HAS)) - 1)))
            drawn = by_need[: each - 1]
        kept += sorted(drawn, key=lambda row: (*(-s for s in row.between(Share.HAS)), here.index(row)))
        if rest := [row for row in here if row not in drawn]:
            features = tuple(f for row in rest for f in row.features)
            kept.append(Row(group=group, features=features, shares={}, folded=len(rest)))
    return tuple(kept)
