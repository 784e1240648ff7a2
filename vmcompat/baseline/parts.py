"""A fleet as planners compare it: the hosts that may meet in one group, each kind of them once, weighed."""

from __future__ import annotations

import html
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.baseline.common import Baseline
from vmcompat.baseline.lattice import Ints, Table, Words, pack, summed, weigh
from vmcompat.baseline.meanings import LEVELS
from vmcompat.baseline.sets import Names, SetArray
from vmcompat.baseline.unreported import Silence
from vmcompat.baseline.worth import Exact, Value, feature_values, host_amounts
from vmcompat.errors import FrameError, NoBaselineError
from vmcompat.fleet.frames import Fleet

_MEASURES: Final = ("first", "n_hosts", "capacity", "capacity_unknown", "n_features", "value", "level")
ACROSS: Final = "hosts of several vendors meet in these groups, and libvirt has no baseline for such a group"


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    """Hosts that may all meet.

    Attributes
    ----------
    positions : int array, one a host
        In the fleet.
    table : Table
        Of these hosts and the features that can be migrated.
    value : Exact, one a bundle
        What the features of a bundle are worth together.
    common_value : int
        Of the features that all have, in the same unit.
    capacity : Exact, one a class
    capacity_unknown : int array, one a class
        Of how many hosts it is not known.
    silence : Silence
        Of these hosts.
    index : mapping of str to int
        Column of each feature.
    """

    positions: Ints
    table: Table
    value: Exact
    common_value: int
    capacity: Exact
    capacity_unknown: Ints
    silence: Silence
    index: Mapping[str, int]

    def measures(self, extents: Words, intents: Words) -> dict[str, npt.NDArray[Any]]:
        """What there is to say in numbers of groups of classes with the bundles that these share.

        Parameters
        ----------
        extents, intents : uint64 arrays, groups by words

        Returns
        -------
        dict of str to array
            ``first`` (position of the first host), ``n_hosts``, ``capacity``, ``capacity_unknown`` (bool),
            ``n_features``, ``value`` and ``level`` (None below the lowest).
        """
        table = self.table
        first = np.empty(len(table.classes), dtype=np.int64)
        first[table.class_of_row[::-1]] = self.positions[::-1]
        counts, n_common = summed(table.bundle_of_column, np.ones_like(table.bundle_of_column), table.n_bundles)
        return {
            "first": first[_lowest(extents)],
            "n_hosts": weigh(extents, table.weights),
            "capacity": weigh(extents, self.capacity.multiples) / self.capacity.per_one,
            "capacity_unknown": weigh(extents, self.capacity_unknown) > 0,
            "n_features": weigh(intents, counts) + n_common,
            "value": (weigh(intents, self.value.multiples) + self.common_value) / self.value.per_one,
            "level": self._levels(intents),
        }

    def _levels(self, intents: Words) -> npt.NDArray[np.object_]:
        """The highest whole ABI level of each set of bundles; the levels lie one in the other."""
        levels = np.full(len(intents), None, dtype=object)
        for name, needed in LEVELS.items():
            asked = self.bundles(needed)
            if asked is None:
                break
            levels[~(asked & ~intents).any(axis=1)] = name
        return levels

    def bundles(self, features: Iterable[str]) -> Words | None:
        """The bundles that hold these features beside what all have, packed in one row; None where nobody has one."""
        table = self.table
        held = {int(table.bundle_of_column[self.index[f]]) if f in self.index else -2 for f in features}
        asked = np.zeros((1, table.n_bundles), dtype=np.bool_)
        asked[0, [b for b in held if b >= 0]] = True
        return None if -2 in held else pack(asked)


@dataclass(frozen=True, eq=False, kw_only=True)
class Division:
    """A fleet in parts.

    Attributes
    ----------
    parts : tuple of Part
        In the order of their first hosts.
    keys : DataFrame
        One row a part: ``arch``, ``vendor`` (missing where several meet), and ``within`` where asked for.
    missing : tuple of str
        Hosts left out since their CPU is not known, with their status.
    warnings : tuple of str
    """

    fleet: Fleet
    parts: tuple[Part, ...]
    keys: pd.DataFrame
    missing: tuple[str, ...]
    warnings: tuple[str, ...]

    def groups(self, extents: Sequence[Words], intents: Sequence[Words]) -> Groups:
        """Groups of classes with the bundles that these share, from every part.

        Parameters
        ----------
        extents, intents : sequences of uint64 arrays, one a part, groups by words
        """
        measures = [p.measures(e, i) for p, e, i in zip(self.parts, extents, intents, strict=True)]
        return Groups(
            division=self,
            extents=extents,
            intents=intents,
            part=np.repeat(np.arange(len(self.parts)), [len(e) for e in extents]),
            numbers={name: joined([m[name] for m in measures]) for name in _MEASURES},
        )

    @property
    def host_names(self) -> list[Names]:
        """What the classes of each part stand for."""
        return [Names(self.fleet.hosts.index[p.positions], p.table.class_of_row) for p in self.parts]

    @property
    def feature_names(self) -> list[Names]:
        """What the bundles of each part stand for."""
        return [Names(self.fleet.features.columns, p.table.bundle_of_column) for p in self.parts]


@dataclass(frozen=True, eq=False, kw_only=True)
class Groups:
    """Groups of hosts from every part, on their way into a frame.

    Attributes
    ----------
    division : Division
    extents, intents : sequences of uint64 arrays, one a part
    part : int array, one a group
        Groups of one part after those of the other, here and in ``numbers``.
    numbers : mapping of str to array
        See :meth:`Part.measures`.
    """

    division: Division
    extents: Sequence[Words]
    intents: Sequence[Words]
    part: Ints
    numbers: Mapping[str, npt.NDArray[Any]]

    def columns(self, order: Ints) -> dict[str, Any]:
        """The columns of ``schema.FRONTIER``, with the groups in that order."""
        numbers = {name: array[order] for name, array in self.numbers.items()}
        capacity = pd.array(numbers["capacity"], dtype="Float64")
        capacity[numbers["capacity_unknown"].astype(np.bool_)] = pd.NA
        keys = self.division.keys
        return {
            **{str(c): keys[c].take(self.part[order]).array for c in keys},
            "n_hosts": numbers["n_hosts"],
            "capacity": capacity,
            "n_features": numbers["n_features"],
            "value": numbers["value"].astype(np.float64),
            "level": pd.Series(numbers["level"], dtype="str").array,
            "hosts": self.sets(self.extents, self.division.host_names, order),
            "features": self.sets(self.intents, self.division.feature_names, order),
        }

    def sets(self, packed: Sequence[Words], names: Sequence[Names], order: Ints) -> SetArray:
        """One packed set for each group as a column, with the groups in that order, as wide as the widest."""
        words = np.zeros((len(order), max((w.shape[1] for w in packed), default=1)), dtype=np.uint64)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        start = 0
        for w in packed:
            words[place[start : start + len(w)], : w.shape[1]] = w
            start += len(w)
        return SetArray(words, names, self.part[order])


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GroupsAnswer:
    """An answer whose frame has a group of hosts in each row.

    Attributes
    ----------
    frame : DataFrame
    missing : tuple of str
        Hosts left out since their CPU is not known, with their status.
    warnings : tuple of str
        What a planner must know before using this answer.
    fleet : Fleet
        The one that was asked about.
    """

    rows_are: ClassVar[str] = "groups"

    frame: pd.DataFrame
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    fleet: Fleet

    def baseline(self, row: int) -> Baseline:
        """The baseline of one row in libvirt's words.

        Parameters
        ----------
        row : int
            Of the index of :attr:`frame`.

        Raises
        ------
        FrameError
            There is no such row.
        NoBaselineError
            The hosts share no feature, or (``across_vendors``) their vendors differ: libvirt has no answer then.
        """
        if row not in self.frame.index:
            raise FrameError(f"no row {row!r}: there are {len(self)} {self.rows_are}, counted from 0")
        return self.fleet.baseline(tuple(self.frame["hosts"].array[self.frame.index.get_loc(row)]))

    def __len__(self) -> int:
        return len(self.frame)

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + self.frame.to_html(border=0, max_rows=20, na_rep="")


def divide(
    fleet: Fleet,
    *,
    value: Value = None,
    capacity: str | None = None,
    within: str | None = None,
    across_vendors: bool = False,
    allow_missing: bool = False,
) -> Division:
    """The parts of a fleet: hosts of one architecture and vendor, and alike in a column.

    Parameters
    ----------
    fleet : Fleet
    value, within, across_vendors, allow_missing
        As for :func:`~vmcompat.baseline.maximal.maximal_baselines`.
    capacity : str, optional
        A numeric column of ``fleet.hosts``. Default: every host counts 1.

    Raises
    ------
    NoBaselineError
        The CPU of a host is not known.
    FrameError
        No such column, a capacity that is no number, or a weight that is none or negative.

    Warns
    -----
    UserWarning
        Of the caller's caller, with ``across_vendors``, where there are several.
    """
    hosts = fleet.hosts
    if within is not None and within not in hosts.columns:
        raise FrameError(f"no column {within!r} to stay within; columns: {', '.join(hosts.columns)}")
    amounts, unknown = host_amounts(hosts, capacity)
    missing = tuple(f"{h} ({status})" for h, status in hosts["cpu_status"].loc[fleet.unknown].items())
    if missing and not allow_missing:
        raise NoBaselineError(
            f"the CPU of {len(missing)} of {len(fleet)} hosts is not known: {some(missing)}. See fleet.findings; mend "
            f"or drop them, or give allow_missing=True to answer without them"
        )
    known = np.flatnonzero(hosts["cpu_status"] == "ok")
    several = across_vendors and hosts["vendor"].iloc[known].nunique(dropna=False) > 1
    if several:
        warnings.warn(ACROSS, UserWarning, stacklevel=3)
    by = dict.fromkeys(["arch", *([] if several else ["vendor"]), *([within] if within else [])])
    number = hosts.iloc[known].groupby(list(by), sort=False, dropna=False).ngroup().to_numpy()
    members = [np.flatnonzero(number == i) for i in range(number.max(initial=-1) + 1)]
    rows = pack(fleet.features.to_numpy()) & ~pack(fleet.cpu_map.rows([fleet.cpu_map.blocked]))
    silence = Silence.of(fleet)
    parts = tuple(_part(fleet, known[m], rows[m], silence.among(m), value, amounts, unknown) for m in members)
    notes = [*([ACROSS] if several else []), *([f"without {some(missing)}, whose CPU is not known"] * bool(missing))]
    for p in parts:
        notes += p.silence.told(p.table, fleet.features.columns, hosts.index[p.positions])
    first = hosts.iloc[[p.positions[0] for p in parts]].reset_index(drop=True)
    keys: dict[str, Any] = {
        "arch": first["arch"].astype("str"),
        "vendor": pd.Series([None] * len(parts), dtype="str") if several else first["vendor"].astype("str"),
        **({} if within is None else {"within": first[within]}),
    }
    return Division(fleet=fleet, parts=parts, keys=pd.DataFrame(keys), missing=missing, warnings=tuple(notes))


def _part(
    fleet: Fleet, positions: Ints, rows: Words, silence: Silence, value: Value, capacity: Exact, unknown: Ints
) -> Part:
    features = fleet.cpu_map.features
    table = Table.of(rows, len(features))
    vendors = fleet.hosts["vendor"].iloc[positions].unique()
    values = feature_values(features, vendors[0] if len(vendors) == 1 else None, value)
    of_bundle, common = summed(table.bundle_of_column, values.multiples, table.n_bundles)
    amounts, _ = summed(table.class_of_row, capacity.multiples[positions], len(table.classes))
    unknown_of, _ = summed(table.class_of_row, unknown[positions], len(table.classes))
    return Part(
        positions=positions,
        table=table,
        value=Exact(of_bundle, values.per_one),
        common_value=common,
        capacity=Exact(amounts, capacity.per_one),
        capacity_unknown=unknown_of,
        silence=silence,
        index=fleet.cpu_map.index,
    )


def labels_of(keys: pd.DataFrame) -> list[str]:
    """What the hosts of each part have in common, in words."""
    kinds = keys[[c for c in ("arch", "vendor", "within") if c in keys]]
    return [" ".join(str(v) for v in row if pd.notna(v)) for row in kinds.itertuples(index=False)]


def joined(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The numbers of all parts, one part after the other."""
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)


def _lowest(extents: Words) -> Ints:
    """The first element of each set; none is empty."""
    word = (extents != 0).argmax(axis=1)
    low = extents[np.arange(len(extents)), word]
    answer: Ints = 64 * word + np.bitwise_count((low & -low) - np.uint64(1))
    return answer
