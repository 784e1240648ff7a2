"""Every maximal baseline of a fleet: groups of hosts that no other can join unless a feature is given up."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from vmcompat.baseline import lattice
from vmcompat.baseline.answer import some
from vmcompat.baseline.common import Baseline
from vmcompat.baseline.lattice import Concepts, Ints, Steps, Table, Words, pack, summed, weigh
from vmcompat.baseline.meanings import LEVELS
from vmcompat.baseline.sets import Names, SetArray
from vmcompat.baseline.unreported import Silence
from vmcompat.baseline.worth import Exact, Value, feature_values, host_amounts
from vmcompat.errors import FrameError, NoBaselineError
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import SPLIT

_ACROSS: Final = "hosts of several vendors meet in these groups, and libvirt has no baseline for such a group"
_SHOWN: Final = 3
_NUMBERS: Final = (
    "first", "n_hosts", "capacity", "capacity_unknown", "n_features", "value", "level", "step", "step_cost",
    "step_unreported",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MaximalBaselines:
    """What came of looking for every maximal baseline.

    Attributes
    ----------
    frame : DataFrame
        One row a baseline: columns of ``schema.MAXIMAL``. Largest group first; of equal ones that whose first host
        comes first in the fleet, then that with more features.
    split : DataFrame
        How the fleet was split before: columns of ``schema.SPLIT``.
    truncated : bool
        Some may be left out, since there are more than the limit; ``warnings`` says which are surely here.
    missing : tuple of str
        Hosts left out since their CPU is not known, with their status.
    warnings : tuple of str
        What a planner must know before using this answer.
    fleet : Fleet
        The one that was asked about.
    """

    frame: pd.DataFrame
    split: pd.DataFrame
    truncated: bool
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    fleet: Fleet

    def explain(self, rows: Iterable[int] | None = None) -> list[str]:
        """One sentence a row.

        Parameters
        ----------
        rows : iterable of int, optional
            Of the index of :attr:`frame`. Default: all, at some 0.1 ms each.
        """
        chosen = self.frame if rows is None else self.frame.loc[list(rows)]
        return [_sentence(row) for row in chosen.to_dict("records")]

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
            raise FrameError(f"no row {row!r}: there are {len(self.frame)} maximal baselines, counted from 0")
        return self.fleet.baseline(tuple(self.frame["hosts"].array[self.frame.index.get_loc(row)]))

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        counts = zip(self.split["n_baselines"], _labels(self.split), strict=True)
        return (
            f"<MaximalBaselines: {len(self)}{' and more' if self.truncated else ''} of "
            f"{self.split['n_hosts'].sum()} hosts; {', '.join(f'{n} of {label}' for n, label in counts)}>"
        )

    def _repr_html_(self) -> str:
        return f"<p>{repr(self)[1:-1]}</p>" + self.frame.to_html(border=0, max_rows=20, na_rep="")


class _Part(NamedTuple):
    """Hosts that are compared with one another, by position in the fleet, and what was found among them."""

    positions: Ints
    table: Table
    concepts: Concepts
    steps: Steps
    numbers: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Question:
    """What was asked."""

    fleet: Fleet
    min_hosts: int
    delta: float
    value: Value
    capacity: Exact
    capacity_unknown: Ints
    limit: int

    def part(self, positions: Ints, rows: Words, silence: Silence) -> _Part:
        """The answer for hosts that may all meet."""
        features = self.fleet.cpu_map.features
        table = Table.of(rows, len(features))
        concepts = self._concepts(table)
        vendors = self.fleet.hosts["vendor"].iloc[positions].unique()
        value = feature_values(features, vendors[0] if len(vendors) == 1 else None, self.value)
        bundle = table.bundle_of_column
        values, common_value = summed(bundle, value.multiples, table.n_bundles)
        counts, n_common = summed(bundle, np.ones_like(bundle), table.n_bundles)
        amounts, _ = summed(table.class_of_row, self.capacity.multiples[positions], len(table.classes))
        unknown, _ = summed(table.class_of_row, self.capacity_unknown[positions], len(table.classes))
        first = np.empty(len(table.classes), dtype=np.int64)
        first[table.class_of_row[::-1]] = positions[::-1]
        steps = lattice.next_steps(table, concepts, values)
        numbers = {
            "first": first[_lowest(concepts.extents)],
            "n_hosts": concepts.weights,
            "capacity": weigh(concepts.extents, amounts) / self.capacity.per_one,
            "capacity_unknown": weigh(concepts.extents, unknown) > 0,
            "n_features": weigh(concepts.intents, counts) + n_common,
            "value": (weigh(concepts.intents, values) + common_value) / value.per_one,
            "level": _levels(table, concepts, self.fleet.cpu_map.index),
            "step": steps.bundle,
            "step_cost": steps.cost,
            "step_unreported": silence.excused(table, steps),
        }
        return _Part(positions, table, concepts, steps, numbers)

    def _concepts(self, table: Table) -> Concepts:
        if not self.delta:
            return lattice.all_concepts(table, min_weight=self.min_hosts, limit=self.limit)
        # as it is written: 0.07 of 100 hosts are 7 and not a little more
        share = Fraction(str(float(self.delta)))
        delta = math.ceil(share if share >= 1 else share * int(table.weights.sum()))
        return lattice.robust_concepts(table, delta=delta, min_weight=self.min_hosts, limit=self.limit)


def maximal_baselines(
    fleet: Fleet,
    *,
    min_hosts: int = 1,
    delta: float = 0,
    within: str | None = None,
    value: Value = None,
    capacity: str = "cores",
    limit: int = 1_000_000,
    across_vendors: bool = False,
    allow_missing: bool = False,
) -> MaximalBaselines:
    """Finds every group of hosts that no other host can join unless a feature is given up.

    Parameters
    ----------
    fleet : Fleet
    min_hosts : int
        Smallest group.
    delta : int or float
        Only the robust ones: those of which every further feature would cost at least so many hosts, or below 1 that
        share of the hosts compared. There are few of them in any fleet.
    within : str, optional
        A column of ``fleet.hosts``: hosts meet only where they are alike in it. Hosts without a value meet each other.
    value : mapping, Series or callable, optional
        Weight of a feature by its name, at least 0; features that a mapping does not name weigh 0. Default: that of
        :func:`~vmcompat.baseline.meanings.meanings` for the vendor.
    capacity : str
        A numeric column of ``fleet.hosts`` to add up.
    limit : int
        Most baselines for each row of ``split``. Where there are more, the largest (with ``delta`` the most robust) are
        given, and ``truncated`` is true.
    across_vendors : bool
        Let hosts of different vendors meet, with a warning: libvirt has no baseline for such a group.
    allow_missing : bool
        Answer although the CPU of some hosts is not known; they are named in ``missing``.

    Returns
    -------
    MaximalBaselines
        Hosts of different architectures or vendors never meet in a group.

    Raises
    ------
    NoBaselineError
        The CPU of a host is not known.
    FrameError
        No such column, a capacity that is no number, a weight that is none or negative, or a limit below 1.

    Warns
    -----
    UserWarning
        With ``across_vendors``, where there are several.

    Notes
    -----
    Features that cannot be migrated are no part of what is compared. A feature that a host's libvirt has no name for is
    not known to be there and counts as absent, so that no baseline promises what a host may lack; ``warnings`` names
    such hosts, and ``step_unreported`` counts those for which it decides. Linear in the number of hosts and in that of
    the baselines, which can be exponential in the number of different hosts.

    References
    ----------
    The formal concepts of the table of hosts and features: see :mod:`vmcompat.baseline.lattice`.

    Examples
    --------
    >>> import vmcompat as vc
    >>> found = vc.maximal_baselines(vc.read_fleet("sample_caps/virsh_pair"))
    >>> found.frame[["n_hosts", "n_features", "level"]].to_dict("split")["data"]
    [[2, 53, 'x86-64-v2'], [1, 59, 'x86-64-v2']]
    """
    if limit < 1 or min_hosts < 1 or not 0 <= delta < math.inf:
        raise FrameError(f"limit={limit}, min_hosts={min_hosts}, delta={delta}: give 1 or more, 1 or more, 0 or more")
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
        warnings.warn(_ACROSS, UserWarning, stacklevel=2)
    question = _Question(
        fleet=fleet,
        min_hosts=min_hosts,
        delta=delta,
        value=value,
        capacity=amounts,
        capacity_unknown=unknown,
        limit=limit,
    )
    keys = dict.fromkeys(["arch", *([] if several else ["vendor"]), *([within] if within else [])])
    number = hosts.iloc[known].groupby(list(keys), sort=False, dropna=False).ngroup().to_numpy()
    members = [np.flatnonzero(number == i) for i in range(number.max(initial=-1) + 1)]
    rows = pack(fleet.features.to_numpy()) & ~pack(fleet.cpu_map.rows([fleet.cpu_map.blocked]))
    silence = Silence.of(fleet)
    parts = [question.part(known[m], rows[m], silence.among(m)) for m in members]
    split = _split(parts, hosts, within, several=several)
    notes = [*([_ACROSS] if several else []), *([f"without {some(missing)}, whose CPU is not known"] * bool(missing))]
    for m, p in zip(members, parts, strict=True):
        notes += silence.among(m).told(p.table, fleet.features.columns, hosts.index[p.positions])
    return MaximalBaselines(
        frame=_frame(fleet, parts, split),
        split=split,
        truncated=bool(split["truncated"].any()),
        missing=missing,
        warnings=(*notes, *_left_out(split, robust=delta > 0)),
        fleet=fleet,
    )


def _lowest(sets: Words) -> Ints:
    """The first element of each set; none is empty."""
    word = (sets != 0).argmax(axis=1)
    low = sets[np.arange(len(sets)), word]
    answer: Ints = 64 * word + np.bitwise_count((low & -low) - np.uint64(1))
    return answer


def _levels(table: Table, concepts: Concepts, index: Mapping[str, int]) -> npt.NDArray[np.object_]:
    """The highest whole ABI level of each baseline; the levels lie one in the other."""
    levels = np.full(len(concepts.intents), None, dtype=object)
    for name, needed in LEVELS.items():
        bundles = {int(table.bundle_of_column[index[f]]) if f in index else -2 for f in needed}
        if -2 in bundles:
            break
        asked = np.zeros((1, table.n_bundles), dtype=np.bool_)
        asked[0, [b for b in bundles if b >= 0]] = True
        levels[~(pack(asked) & ~concepts.intents).any(axis=1)] = name
    return levels


def _split(parts: Sequence[_Part], hosts: pd.DataFrame, within: str | None, *, several: bool) -> pd.DataFrame:
    """See ``schema.SPLIT``."""
    first = hosts.iloc[[p.positions[0] for p in parts]].reset_index(drop=True)
    columns: dict[str, Any] = {
        "arch": first["arch"],
        "vendor": pd.Series([None] * len(parts), dtype="str") if several else first["vendor"],
        **({} if within is None else {"within": first[within]}),
        "n_hosts": [len(p.positions) for p in parts],
        "n_classes": [len(p.table.classes) for p in parts],
        "n_baselines": [len(p.concepts.weights) for p in parts],
        "complete_from": [p.concepts.complete_from for p in parts],
        "truncated": [p.concepts.truncated for p in parts],
    }
    return pd.DataFrame(columns).astype(dict(SPLIT))


def _frame(fleet: Fleet, parts: Sequence[_Part], split: pd.DataFrame) -> pd.DataFrame:
    """See ``schema.MAXIMAL``."""
    n = {c: _joined([p.numbers[c] for p in parts]) for c in _NUMBERS}
    order = np.lexsort((-n["n_features"], n["first"], -n["n_hosts"]))
    n = {c: numbers[order] for c, numbers in n.items()}
    which = np.repeat(np.arange(len(parts)), split["n_baselines"])[order]
    hosts = [Names(fleet.hosts.index[p.positions], p.table.class_of_row) for p in parts]
    features = [Names(fleet.features.columns, p.table.bundle_of_column) for p in parts]
    won = [Names(f.names, np.where(f.bits < 0, -2, f.bits)) for f in features]
    no_step = n["step"] < 0
    capacity = pd.array(n["capacity"], dtype="Float64")
    capacity[n["capacity_unknown"].astype(np.bool_)] = pd.NA
    columns = {
        **{c: split[c].take(which).array for c in ("arch", "vendor", "within") if c in split},
        "n_hosts": n["n_hosts"],
        "capacity": capacity,
        "n_features": n["n_features"],
        "value": n["value"].astype(np.float64),
        "level": pd.Series(n["level"], dtype="str").array,
        "hosts": _sets([p.concepts.extents for p in parts], hosts, which, order),
        "features": _sets([p.concepts.intents for p in parts], features, which, order),
        "step_cost": pd.arrays.IntegerArray(n["step_cost"], no_step),
        "step_unreported": pd.arrays.IntegerArray(n["step_unreported"], no_step),
        "step_hosts": _sets([p.steps.leaving for p in parts], hosts, which, order),
        "step_features": _sets([p.steps.gained for p in parts], won, which, order),
    }
    return pd.DataFrame(columns, copy=False)


def _joined(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)


def _sets(words: Sequence[Words], names: Sequence[Names], which: Ints, order: npt.NDArray[np.intp]) -> SetArray:
    """The rows of all parts in that order, as wide as the widest."""
    sets = np.zeros((len(order), max((w.shape[1] for w in words), default=1)), dtype=np.uint64)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    start = 0
    for w in words:
        sets[place[start : start + len(w)], : w.shape[1]] = w
        start += len(w)
    return SetArray(sets, names, which)


def _labels(split: pd.DataFrame) -> list[str]:
    """Which hosts each row is about."""
    kinds = split[[c for c in ("arch", "vendor", "within") if c in split]]
    return [" ".join(str(v) for v in row if not pd.isna(v)) for row in kinds.itertuples(index=False)]


def _left_out(split: pd.DataFrame, *, robust: bool) -> Iterator[str]:
    """What is sure of the parts with more baselines than the limit."""
    for label, n, floor, truncated in zip(
        _labels(split), split["n_baselines"], split["complete_from"], split["truncated"], strict=True
    ):
        if truncated:
            kind = "of which every further feature would cost" if robust else "of"
            rest = "the less robust" if robust else "the smaller ones"
            yield f"{label}: {n} maximal baselines, all {kind} {floor} hosts or more; {rest} are left out"


def _sentence(row: Mapping[Any, Any]) -> str:
    n, value = row["n_hosts"], row["value"]
    told = (
        f"{n} {'host' if n == 1 else 'hosts'} ({some(tuple(row['hosts']), _SHOWN)}): {row['n_features']} features, "
        f"{row['level'] or 'below x86-64-v1'}, value {value:g}; "
    )
    if pd.isna(row["step_cost"]):
        return told + ("it has no more" if n == 1 else "none of them has more")
    cost, excused = row["step_cost"], row["step_unreported"]
    why = f" ({excused} only because libvirt has no name for it there)" if excused else ""
    won, lost = (some(tuple(row[c]), _SHOWN) for c in ("step_features", "step_hosts"))
    return f"{told}{won} would cost {cost} of them{why}: {lost}"
