"""Cover against value: the groups of hosts that no other beats in both at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import pandas as pd

from vmcompat.baseline import lattice
from vmcompat.baseline.answer import some
from vmcompat.baseline.lattice import Front
from vmcompat.baseline.parts import Division, Groups, GroupsAnswer, divide, joined, labels_of
from vmcompat.baseline.sets import Names
from vmcompat.baseline.worth import Value, host_amounts
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet

_SHOWN: Final = 3
_BUDGET: Final = 2_000_000  # groups looked at in one search: seconds, and hundreds of times what fleets take


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Frontier(GroupsAnswer):
    """What can be had: cover against value.

    Attributes
    ----------
    frame : DataFrame
        One row a point: columns of ``schema.FRONTIER``. One architecture and vendor after the other, in the order of
        their first hosts; largest cover first.
    capacity : str or None
        The column that is covered; None where hosts are counted.
    hull : bool
        Only the corners of the convex hull are given.
    truncated : bool
        The search was stopped: small covers are left out, and ``warnings`` says from which cover on all is here.
    """

    rows_are: ClassVar[str] = "points"

    capacity: str | None
    hull: bool
    truncated: bool
    _steps: pd.DataFrame

    def explain(self, rows: Iterable[int] | None = None) -> list[str]:
        """One sentence a point: what it is, who leaves for the next one of its part, and what that wins.

        Parameters
        ----------
        rows : iterable of int, optional
            Of the index of :attr:`frame`. Default: all.
        """
        chosen = self.frame.index if rows is None else pd.Index(list(rows))
        points, steps = (f.loc[chosen].to_dict("records") for f in (self.frame, self._steps))
        return [self._sentence(point, step) for point, step in zip(points, steps, strict=True)]

    def _sentence(self, row: Mapping[Any, Any], step: Mapping[Any, Any]) -> str:
        n = row["n_hosts"]
        cover = f" with {row['capacity']:,.10g} {self.capacity}" if self.capacity else ""
        told = f"{_hosts(n)}{cover} ({some(tuple(row['hosts']), _SHOWN)}): {row['n_features']} features, "
        told += f"{row['level'] or 'below x86-64-v1'}, value {row['value']:g}; "
        if pd.isna(step["won"]):
            return told + ("no group keeps more" if step["complete"] else "smaller covers are left out")
        left, back, gained, lost = (tuple(step[c]) for c in ("left", "back", "gained", "lost"))
        told += f"{step['won']:g} more without {_hosts(len(left))} ({some(left, _SHOWN)})"
        told += f", but with {_hosts(len(back))} ({some(back, _SHOWN)})" if back else ""
        return f"{told}: {some(gained, _SHOWN)}" + (f", but not {some(lost, _SHOWN)}" if lost else "")

    def __repr__(self) -> str:
        keys = self.frame[[c for c in ("arch", "vendor", "within") if c in self.frame]]
        counts = pd.Series(labels_of(keys), dtype="str").value_counts(sort=False)
        what = f"{len(self)} {'corners' if self.hull else 'points'}{' and more' if self.truncated else ''}"
        parts = ", ".join(f"{n} of {label}" for label, n in counts.items())
        return f"<Frontier: {what}, {self.capacity or 'hosts'} against value{'; ' if parts else ''}{parts}>"


def frontier(
    fleet: Fleet,
    *,
    value: Value = None,
    capacity: str | None = None,
    within: str | None = None,
    hull: bool = False,
    across_vendors: bool = False,
    allow_missing: bool = False,
) -> Frontier:
    """Finds what can be had at best: how many hosts covered, and how much value their common features keep.

    A point is a group of which no other covers at least as much and keeps at least as much value, with one of them
    more.

    Parameters
    ----------
    fleet : Fleet
    value : mapping, Series or callable, optional
        As for :func:`~vmcompat.baseline.maximal.maximal_baselines`.
    capacity : str, optional
        A numeric column of ``fleet.hosts`` to cover, such as "cores". Default: every host counts 1.
    within : str, optional
        A column of ``fleet.hosts``: hosts meet only where they are alike in it. Hosts without a value meet each other.
    hull : bool
        Only the corners of the upper convex hull of the points, where the price of value changes: a short answer.
    across_vendors : bool
        Let hosts of different vendors meet, with a warning: libvirt has no baseline for such a group.
    allow_missing : bool
        Answer although the CPU of some hosts is not known; they are named in ``missing``.

    Returns
    -------
    Frontier
        Hosts of different architectures or vendors never meet in a group.

    Raises
    ------
    NoBaselineError
        The CPU of a host is not known.
    FrameError
        No such column, a capacity that is no number, not known of a host or negative, or a weight that is none or
        negative.

    Warns
    -----
    UserWarning
        With ``across_vendors``, where there are several.

    Notes
    -----
    Exact: covers and values are compared as whole numbers of a small unit. Of several groups with the same cover and
    value one is given, whatever the order of the hosts: that with the most hosts, then the most features, then the
    first feature that the other lacks (those of some value before those of none, then those that the fewest kinds of
    hosts have, then in map order). The search is that for all maximal baselines, less whatever cannot lead to a point;
    a fleet takes some thousands of steps, a table of noise can take exponentially many. After two million of them the
    least cover is raised until the search ends: what is left out then are just the points of smaller covers, and with
    ``hull`` the corners are those of the points that are here.

    Examples
    --------
    >>> import vmcompat as vc
    >>> found = vc.frontier(vc.read_fleet("sample_caps/virsh_pair"))
    >>> found.frame[["n_hosts", "n_features", "value"]].to_dict("split")["data"]
    [[2, 53, 206.0], [1, 59, 228.0]]
    >>> print(found.explain()[0].partition("; ")[2])
    22 more without 1 host (westmere): x2apic, tsc-deadline, xsave and 3 more
    """
    division = divide(
        fleet,
        value=value,
        capacity=capacity or "cores",
        within=within,
        across_vendors=across_vendors,
        allow_missing=allow_missing,
    )
    if capacity is not None:
        _check_known(fleet, division, capacity)
    fronts = []
    for part in division.parts:
        weights = part.table.weights if capacity is None else part.capacity.multiples
        fronts.append(lattice.front(part.table, weights, part.value.multiples, budget=_BUDGET))
    notes = list(_left_out(division, fronts, capacity))
    if hull:
        fronts = [_corners(front) for front in fronts]
    groups = division.groups([f.extents for f in fronts], [f.intents for f in fronts])
    order = np.arange(len(groups.part))
    return Frontier(
        frame=pd.DataFrame(groups.columns(order), copy=False),
        capacity=capacity,
        hull=hull,
        truncated=bool(notes),
        missing=division.missing,
        warnings=(*division.warnings, *notes),
        fleet=fleet,
        _steps=_steps(groups, fronts),
    )


def _check_known(fleet: Fleet, division: Division, capacity: str) -> None:
    amounts, unknown = host_amounts(fleet.hosts, capacity)
    compared = np.sort(np.concatenate([np.zeros(0, np.int64), *(p.positions for p in division.parts)]))
    for what, wrong in (("not known", unknown > 0), ("negative", amounts.multiples < 0)):
        names = [fleet.names[i] for i in compared[wrong[compared]].tolist()]
        if names:
            raise FrameError(f"{capacity} is {what} of {some(names)}: fill in the column, or drop these hosts")


def _left_out(division: Division, fronts: Sequence[Front], capacity: str | None) -> Iterator[str]:
    """What is sure of the parts whose search was stopped."""
    for label, part, front in zip(labels_of(division.keys), division.parts, fronts, strict=True):
        if front.complete_from:
            floor = front.complete_from / (1 if capacity is None else part.capacity.per_one)
            yield (
                f"{label}: the search was stopped; all points that cover at least {floor:g} {capacity or 'hosts'} are "
                f"here, {len(front.weights)} of them, and the others are left out"
            )


def _corners(front: Front) -> Front:
    """The points where the upper convex hull bends, and its ends."""
    points = list(zip(front.weights.tolist(), front.values.tolist(), strict=True))  # whole numbers of any size
    kept: list[int] = []
    for i, (weight, value) in enumerate(points):
        while len(kept) > 1:
            (w1, v1), (w2, v2) = points[kept[-2]], points[kept[-1]]
            if (v2 - v1) * (w1 - weight) > (value - v1) * (w1 - w2):
                break
            kept.pop()
        kept.append(i)
    return front.at(np.array(kept, dtype=np.int64))


def _steps(groups: Groups, fronts: Sequence[Front]) -> pd.DataFrame:
    """What changes from each point to the next of its part: what is won, and who and what goes and comes.

    Nothing and a missing number for the last point of a part.
    """
    order = np.arange(len(groups.part))
    won, sets, complete = [], [], []
    for front, part in zip(fronts, groups.division.parts, strict=True):
        n = len(front.weights)
        after = np.minimum(np.arange(1, n + 1), n - 1)
        won.append(np.append(np.diff(front.values) / part.value.per_one, np.nan)[:n])
        extents, intents = front.extents, front.intents
        complete.append(np.full(n, front.complete_from == 0))
        hosts_changed = extents & ~extents[after], extents[after] & ~extents
        sets.append((*hosts_changed, intents[after] & ~intents, intents & ~intents[after]))
    hosts = groups.division.host_names
    features = [Names(f.names, np.where(f.bits < 0, -2, f.bits)) for f in groups.division.feature_names]
    columns = {
        column: groups.sets([s[i] for s in sets], names, order)
        for i, (column, names) in enumerate(
            (("left", hosts), ("back", hosts), ("gained", features), ("lost", features))
        )
    }
    numbers = {"won": joined(won).astype(np.float64), "complete": joined(complete).astype(np.bool_)}
    return pd.DataFrame({**numbers, **columns}, copy=False)


def _hosts(n: int) -> str:
    return f"{n} {'host' if n == 1 else 'hosts'}"
