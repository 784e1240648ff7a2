"""Every maximal baseline of a fleet: groups of hosts that no other can join unless a feature is given up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Final

import numpy as np
import pandas as pd

from vmcompat.baseline import lattice
from vmcompat.baseline.answer import some
from vmcompat.baseline.lattice import Concepts, Table
from vmcompat.baseline.parts import Division, GroupsAnswer, divide, joined, labels_of
from vmcompat.baseline.sets import Names
from vmcompat.baseline.worth import Value
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import SPLIT

_SHOWN: Final = 3


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MaximalBaselines(GroupsAnswer):
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
    """

    rows_are: ClassVar[str] = "maximal baselines"

    split: pd.DataFrame
    truncated: bool

    def explain(self, rows: Iterable[int] | None = None) -> list[str]:
        """One sentence a row.

        Parameters
        ----------
        rows : iterable of int, optional
            Of the index of :attr:`frame`. Default: all, at some 0.1 ms each.
        """
        chosen = self.frame if rows is None else self.frame.loc[list(rows)]
        return [_sentence(row) for row in chosen.to_dict("records")]

    def __repr__(self) -> str:
        counts = zip(self.split["n_baselines"], labels_of(self.split), strict=True)
        return (
            f"<MaximalBaselines: {len(self)}{' and more' if self.truncated else ''} of "
            f"{self.split['n_hosts'].sum()} hosts; {', '.join(f'{n} of {label}' for n, label in counts)}>"
        )


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
    division = divide(
        fleet,
        value=value,
        capacity=capacity,
        within=within,
        across_vendors=across_vendors,
        allow_missing=allow_missing,
    )
    tables = [p.table for p in division.parts]
    found = [_concepts(table, delta=delta, min_hosts=min_hosts, limit=limit) for table in tables]
    split = division.keys.assign(
        n_hosts=[len(p.positions) for p in division.parts],
        n_classes=[len(table.classes) for table in tables],
        n_baselines=[len(concepts.weights) for concepts in found],
        complete_from=[concepts.complete_from for concepts in found],
        truncated=[concepts.truncated for concepts in found],
    ).astype(dict(SPLIT))
    return MaximalBaselines(
        frame=_frame(division, found),
        split=split,
        truncated=bool(split["truncated"].any()),
        missing=division.missing,
        warnings=(*division.warnings, *_left_out(split, robust=delta > 0)),
        fleet=fleet,
    )


def _concepts(table: Table, *, delta: float, min_hosts: int, limit: int) -> Concepts:
    if not delta:
        return lattice.all_concepts(table, min_weight=min_hosts, limit=limit)
    # as it is written: 0.07 of 100 hosts are 7 and not a little more
    share = Fraction(str(float(delta)))
    least = math.ceil(share if share >= 1 else share * int(table.weights.sum()))
    return lattice.robust_concepts(table, delta=least, min_weight=min_hosts, limit=limit)


def _frame(division: Division, found: Sequence[Concepts]) -> pd.DataFrame:
    """See ``schema.MAXIMAL``."""
    parts = division.parts
    steps = [lattice.next_steps(p.table, concepts, p.value.multiples) for p, concepts in zip(parts, found, strict=True)]
    groups = division.groups([concepts.extents for concepts in found], [concepts.intents for concepts in found])
    n = groups.numbers
    order = np.lexsort((-n["n_features"], n["first"], -n["n_hosts"]))
    no_step = joined([s.bundle for s in steps])[order] < 0
    cost = joined([s.cost for s in steps])[order]
    unreported = joined([p.silence.excused(p.table, s) for p, s in zip(parts, steps, strict=True)])[order]
    won = [Names(f.names, np.where(f.bits < 0, -2, f.bits)) for f in division.feature_names]
    columns = {
        **groups.columns(order),
        "step_cost": pd.arrays.IntegerArray(cost, no_step),
        "step_unreported": pd.arrays.IntegerArray(unreported, no_step),
        "step_hosts": groups.sets([s.leaving for s in steps], division.host_names, order),
        "step_features": groups.sets([s.gained for s in steps], won, order),
    }
    return pd.DataFrame(columns, copy=False)


def _left_out(split: pd.DataFrame, *, robust: bool) -> Iterator[str]:
    """What is sure of the parts with more baselines than the limit."""
    for label, n, floor, truncated in zip(
        labels_of(split), split["n_baselines"], split["complete_from"], split["truncated"], strict=True
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
