"""What ``plot.upset`` shows, before anything is drawn: groups of hosts by the bundles of features that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, auto
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vmcompat.baseline.meanings import meaning
from vmcompat.fleet.frames import Fleet
from vmcompat.plot._fold import BLANK, Kind, States, count, groups_of, unknown_kinds

_LABEL: Final = 24


class Shared(IntEnum):
    """Who of a group offers a feature; TOLD where the libvirt of some of them has no name for it."""

    NONE = 0
    ALL = auto()
    SOME = auto()
    ALL_TOLD = auto()
    NONE_TOLD = auto()
    NOT_REPORTED = auto()
    UNKNOWN = auto()


OFFERED: Final = (Shared.ALL, Shared.SOME, Shared.ALL_TOLD)
"""At least one host of the group offers it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Features that are offered alike: in each group by all, by some or by none of its hosts.

    Attributes
    ----------
    features : tuple of str
        In map order.
    n_hosts : int
        How many known hosts offer them all.
    folded : int
        How many bundles this one stands for; more than one where there are too many to draw.
    """

    features: tuple[str, ...]
    n_hosts: int
    folded: int = 1

    @property
    def red(self) -> tuple[str, ...]:
        """The mitigation controls and hazards among them."""
        return tuple(f for f in self.features if meaning(f).polarity in ("control", "hazard"))

    @property
    def label(self) -> str:
        """The names that there is room for, controls and hazards first, and how many more there are."""
        if self.folded > 1:
            return f"{self.folded} more bundles"
        names = [*self.red, *(f for f in self.features if f not in self.red)]
        shown = 1
        while shown < len(names) and len(", ".join(names[: shown + 1])) <= _LABEL:
            shown += 1
        return ", ".join(names[:shown]) + (f" +{len(names) - shown}" if len(names) > shown else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleTable:
    """What ``plot.upset`` draws.

    Attributes
    ----------
    groups : tuple of str
        Of known hosts, those of one vendor together, those of most hosts first; the last may stand for the smallest.
    sizes : tuple of int
        Known hosts of each group.
    unknown : tuple of Kind
        Hosts whose CPU is not known, by reason.
    bundles : tuple of Bundle
        Those of most features first; the last may stand for the smallest.
    states : int8 array, group by bundle
        Members of :class:`Shared`.
    on_all : tuple of str
        Features that every known host offers: no bundle of their own.
    absent : int
        Features that no known host offers.
    """

    groups: tuple[str, ...]
    sizes: tuple[int, ...]
    unknown: tuple[Kind, ...]
    bundles: tuple[Bundle, ...]
    states: States = field(repr=False)
    on_all: tuple[str, ...]
    absent: int


def fold_bundles(fleet: Fleet, by: str, *, most_groups: int = 40, most_bundles: int = 48) -> BundleTable:
    """Groups by bundles, with features folded that are offered alike in every group.

    Parameters
    ----------
    fleet : Fleet
    by : str
        A column of ``fleet.hosts``; hosts without a value in it are a group of their own.
    most_groups, most_bundles : int
        The smallest beyond them are one.

    Returns
    -------
    BundleTable

    Raises
    ------
    FrameError
        The fleet has no host, or no such column.
    """
    groups, members = _groups(fleet, by, most_groups)
    offered, reported = fleet.features.to_numpy(), fleet.reported.to_numpy()
    table = np.array([_states(offered[m], reported[m]) for m in members], dtype=np.int8).reshape(
        len(members), offered.shape[1]
    )
    everywhere = offered.all(axis=0) if len(offered) else np.zeros(offered.shape[1], dtype=bool)
    somewhere = offered.any(axis=0)
    alike: dict[bytes, list[int]] = {}
    for i in np.flatnonzero(somewhere & ~everywhere):
        alike.setdefault(table[:, i].tobytes(), []).append(int(i))
    n_hosts = offered.sum(axis=0).tolist()
    found = sorted(alike.values(), key=lambda features: (-len(features), -n_hosts[features[0]], features[0]))
    drawn, rest = (found, []) if len(found) <= most_bundles else (found[: most_bundles - 1], found[most_bundles - 1 :])
    names = fleet.features.columns
    bundles = [_bundle(names, features, offered) for features in drawn]
    states = table[:, [features[0] for features in drawn]]
    if rest:
        others = sorted(i for features in rest for i in features)
        bundles.append(_bundle(names, others, offered, folded=len(rest)))
        states = np.column_stack([states, np.full(len(members), BLANK, dtype=np.int8)])
    return BundleTable(
        groups=tuple(groups),
        sizes=tuple(len(m) for m in members),
        unknown=unknown_kinds(fleet),
        bundles=tuple(bundles),
        states=states,
        on_all=tuple(names[np.flatnonzero(everywhere)]),
        absent=int((~somewhere).sum()),
    )


def _groups(fleet: Fleet, by: str, most: int) -> tuple[list[str], list[NDArray[np.intp]]]:
    """Names and positions of the known hosts of each group."""
    position = {host: i for i, host in enumerate(fleet.features.index)}
    parts = [(name, [position[h] for h in hosts if h in position]) for name, hosts in groups_of(fleet, by)]
    found = sorted((part for part in parts if part[1]), key=lambda part: -len(part[1]))
    drawn, rest = (found, []) if len(found) <= most else (found[: most - 1], found[most - 1 :])
    vendors = fleet.hosts.loc[fleet.features.index, "vendor"].fillna("").to_numpy()
    makers = [tuple(sorted(set(vendors[here]))) for _, here in drawn]
    n_hosts = {maker: sum(len(d[1]) for d, m in zip(drawn, makers, strict=True) if m == maker) for maker in makers}
    order = sorted(range(len(drawn)), key=lambda i: (-n_hosts[makers[i]], makers[i]))
    drawn = [drawn[i] for i in order]
    if rest:
        drawn.append((f"and {count(len(rest), 'more group')}", sorted(i for _, here in rest for i in here)))
    return [name for name, _ in drawn], [np.array(here, dtype=np.intp) for _, here in drawn]


def _states(offered: NDArray[np.bool_], reported: NDArray[np.bool_]) -> States:
    """Of the hosts of one group, one state a feature."""
    has, lacks, silent = offered.any(axis=0), (reported & ~offered).any(axis=0), (~reported & ~offered).any(axis=0)
    cases = [has & lacks, has & silent, has, lacks & silent, lacks]
    states = (Shared.SOME, Shared.ALL_TOLD, Shared.ALL, Shared.NONE_TOLD, Shared.NONE)
    return np.select(cases, [np.int8(s) for s in states], np.int8(Shared.NOT_REPORTED))


def _bundle(names: pd.Index, features: Sequence[int], offered: NDArray[np.bool_], *, folded: int = 1) -> Bundle:
    n = int(offered[:, list(features)].all(axis=1).sum())
    return Bundle(features=tuple(names[list(features)]), n_hosts=n, folded=folded)
