"""What ``plot.spreads`` shows, before anything is drawn: TSC frequencies and address bits, group by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, auto
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vmcompat.baseline.identical import TSC_TOLERANCE
from vmcompat.fleet.frames import Fleet
from vmcompat.plot._fold import groups_of

_MILLION: Final = 1_000_000


class Scaling(IntEnum):
    """Whether a host says that it can give a guest another TSC frequency than its own."""

    NO = 0
    NOT_TOLD = auto()
    YES = auto()


class Width(IntEnum):
    """How many hosts of a group have so many address bits."""

    USUAL = 0
    LOWEST = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Hosts of one group whose TSC frequencies follow one another at no more than the tolerance.

    Attributes
    ----------
    group : str
    hosts : tuple of str
        By frequency.
    frequencies : int array, one a host
        Ascending [Hz]; empty where they are not known.
    scaling : int array, one a host
        Members of :class:`Scaling`.
    barred : tuple of str
        Hosts that do not scale and are too far from some other host in here to take a guest with its fixed frequency,
        those first that are too far from most.
    n_barred, n_unsure : int
        Ways from one host to another that are barred so, and those that are because the target does not say whether it
        scales.
    folded : int
        How many rows this one stands for.
    """

    group: str
    hosts: tuple[str, ...]
    frequencies: NDArray[np.int64]
    scaling: NDArray[np.int64]
    barred: tuple[str, ...] = ()
    n_barred: int = 0
    n_unsure: int = 0
    folded: int = 1

    @property
    def middle(self) -> float:
        """Halfway between the lowest and the highest [Hz]."""
        return float(self.frequencies[0] + self.frequencies[-1]) / 2

    @property
    def off(self) -> NDArray[np.float64]:
        """How far from the middle each host is [ppm]."""
        return np.asarray((self.frequencies - self.middle) / self.middle * _MILLION, dtype=np.float64)

    @property
    def spread(self) -> float:
        """From the lowest to the highest [ppm]."""
        return float(self.off[-1] - self.off[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bits:
    """How many hosts of one group have how many physical address bits.

    Attributes
    ----------
    group : str
    counts : dict of int to int
        Hosts of each number of bits.
    n_unknown : int
    lowest : tuple of str
        Where the numbers differ: the hosts with the smallest one.
    folded : int
        How many groups this one stands for.
    """

    group: str
    counts: dict[int, int]
    n_unknown: int
    lowest: tuple[str, ...]
    folded: int = 1


def fold_clocks(fleet: Fleet, by: str, *, most_rows: int = 40) -> tuple[Clocks, ...]:
    """TSC frequencies by group, each group cut where neighbours are further apart than the tolerance.

    Parameters
    ----------
    fleet : Fleet
    by : str
        A column of ``fleet.hosts``.
    most_rows : int
        Rows with barred ways are kept, then those of most hosts; the last one stands for the others.

    Returns
    -------
    tuple of Clocks
        Groups of most hosts first; in each the lowest frequency first, then the hosts that tell none.

    Raises
    ------
    FrameError
        The fleet has no host, or no such column.
    """
    clocks = fleet.hosts["tsc_frequency"]
    claims = fleet.hosts["tsc_scaling"]
    rows = []
    for group, hosts in groups_of(fleet, by):
        known = clocks[list(hosts)].dropna().astype("int64").sort_values(kind="stable")
        apart = np.flatnonzero([not _takes(b, a) and not _takes(a, b) for a, b in pairwise(known)])
        for part in np.split(np.arange(len(known)), apart + 1):
            if len(part):
                rows.append(_clocks(group, known.iloc[part], claims))
        if silent := tuple(h for h in hosts if h not in known.index):
            none = np.empty(0, dtype=np.int64)
            rows.append(Clocks(group=group, hosts=silent, frequencies=none, scaling=none))
    if len(rows) <= most_rows:
        return tuple(rows)
    order = sorted(range(len(rows)), key=lambda i: (not rows[i].n_barred, -len(rows[i].hosts), i))
    kept, rest = sorted(order[: most_rows - 1]), sorted(order[most_rows - 1 :])
    hosts = tuple(h for i in rest for h in rows[i].hosts)
    none = np.empty(0, dtype=np.int64)
    return (*(rows[i] for i in kept), Clocks(group="", hosts=hosts, frequencies=none, scaling=none, folded=len(rest)))


def fold_bits(fleet: Fleet, by: str, *, most_rows: int = 40) -> tuple[Bits, ...]:
    """Physical address bits by group.

    Parameters
    ----------
    fleet : Fleet
    by : str
        A column of ``fleet.hosts``.
    most_rows : int
        Groups that differ are kept, then those of most hosts; the last row stands for the others.

    Returns
    -------
    tuple of Bits
        Groups of most hosts first.

    Raises
    ------
    FrameError
        The fleet has no host, or no such column.
    """
    rows = [_bits(fleet, group, hosts) for group, hosts in groups_of(fleet, by)]
    if len(rows) <= most_rows:
        return tuple(rows)
    sizes = [sum(row.counts.values()) + row.n_unknown for row in rows]
    order = sorted(range(len(rows)), key=lambda i: (not rows[i].lowest, -sizes[i], i))
    kept, rest = sorted(order[: most_rows - 1]), order[most_rows - 1 :]
    counts: dict[int, int] = {}
    for i in rest:
        for bits, n in rows[i].counts.items():
            counts[bits] = counts.get(bits, 0) + n
    n_unknown = sum(rows[i].n_unknown for i in rest)
    others = Bits(group="", counts=dict(sorted(counts.items())), n_unknown=n_unknown, lowest=(), folded=len(rest))
    return (*(rows[i] for i in kept), others)


def n_too_far(frequencies: Sequence[int]) -> NDArray[np.int64]:
    """For each host how many others have a frequency that it cannot give a guest unless it scales.

    Parameters
    ----------
    frequencies : sequence of int
        Ascending [Hz].
    """
    given = np.asarray(frequencies, dtype=np.int64)
    most = given * TSC_TOLERANCE // _MILLION
    near = np.searchsorted(given, given + most, side="right") - np.searchsorted(given, given - most, side="left")
    return np.asarray(len(given) - near, dtype=np.int64)


def _takes(target: int, wanted: int) -> bool:
    return abs(target - wanted) <= target * TSC_TOLERANCE // _MILLION


def _clocks(group: str, known: pd.Series, claims: pd.Series) -> Clocks:
    told = claims[known.index]
    scaling = np.where(told.isna(), Scaling.NOT_TOLD, np.where(told.fillna(value=False), Scaling.YES, Scaling.NO))
    frequencies = known.to_numpy(dtype=np.int64)
    too_far = n_too_far(frequencies.tolist())
    barred = np.where(scaling == Scaling.NO, too_far, 0)
    order = np.lexsort((np.arange(len(barred)), -barred))
    return Clocks(
        group=group,
        hosts=tuple(known.index),
        frequencies=frequencies,
        scaling=scaling.astype(np.int64),
        barred=tuple(known.index[i] for i in order if barred[i]),
        n_barred=int(barred.sum()),
        n_unsure=int(too_far[scaling == Scaling.NOT_TOLD].sum()),
    )


def _bits(fleet: Fleet, group: str, hosts: Sequence[str]) -> Bits:
    bits = fleet.hosts.loc[list(hosts), "maxphysaddr"]
    known = bits.dropna().astype("int64")
    counts = {bits: known.tolist().count(bits) for bits in sorted(known.unique().tolist())}
    lowest = tuple(known.index[known == min(counts)]) if len(counts) > 1 else ()
    return Bits(group=group, counts=counts, n_unknown=len(bits) - len(known), lowest=lowest)
