"""The best pools of a fleet, from nothing or from today's, with the proof that there are no better ones."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np
import pandas as pd

from vmcompat.baseline import outcome
from vmcompat.baseline.answer import some
from vmcompat.baseline.common import Baseline
from vmcompat.baseline.conflict import conflict, possible
from vmcompat.baseline.demands import Demands, Keep, kept
from vmcompat.baseline.ground import Clients, Ground, PerHost, per_host, pools_today
from vmcompat.baseline.meanings import meaning
from vmcompat.baseline.outcome import Made
from vmcompat.baseline.partition import Partition, solve
from vmcompat.baseline.parts import divide
from vmcompat.baseline.worth import Value, host_amounts
from vmcompat.errors import FrameError, NoBaselineError
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import POOL_CURVE, frame

_SAMPLED: Final = "a part of the fleet has too many maximal baselines: pools were sought among the most robust of them"
_SHOWN: Final = 3


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Pools:
    """The best pools found.

    Attributes
    ----------
    frame : DataFrame
        One row a pool: columns of ``schema.POOLS``; most hosts first.
    placement : DataFrame
        One row a host: columns of ``schema.PLACEMENT``.
    moves : DataFrame
        Hosts that change their pool, the one that wins most first: columns of ``schema.MOVES``.
    value : float
        What all hosts keep: the sum of capacity times value of the pool, less the costs of moves and restarts.
    bound : float
        No pools have more, whatever they are.
    cost : float
        Of moves and restarts.
    floor : float
        What they would keep where all hosts that may meet are in one pool.
    today : float or None
        What hosts that are in a pool today keep there; None without ``current``.
    capacity : str or None
        The column that weighs hosts; None where each counts 1.
    missing, warnings : tuples of str
        Hosts left out since their CPU is not known, with their status; what else to know before using this answer.
    fleet : Fleet
    """

    frame: pd.DataFrame
    placement: pd.DataFrame
    moves: pd.DataFrame
    value: float
    bound: float
    cost: float
    floor: float
    today: float | None
    capacity: str | None
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    fleet: Fleet

    @property
    def gap(self) -> float:
        """How much better other pools might at most be, as a share of what better pools than one can win."""
        if self.optimal:
            return 0.0
        return (self.bound - self.value) / max(self.bound - self.floor, 1e-300)

    @property
    def optimal(self) -> bool:
        """Whether it is proven that no pools are better."""
        return self.bound <= self.value

    def baseline(self, pool: str) -> Baseline:
        """The baseline of one pool in libvirt's words.

        Raises
        ------
        FrameError
            There is no such pool.
        """
        if pool not in self.frame.index:
            raise FrameError(f"no pool {pool!r}: there are {', '.join(self.frame.index)}")
        return self.fleet.baseline(self.frame["hosts"][pool])

    @property
    def won(self) -> float | None:
        """What today's hosts keep beyond what they keep today; None without ``current``."""
        if self.today is None:
            return None
        return (float(self.moves["value_after"].iloc[-1]) if len(self.moves) else self.today) - self.today

    def explain(self) -> list[str]:
        """One sentence on the whole, then one for each pool."""
        return [self._whole(), *(_sentence(str(name), row) for name, row in self.frame.iterrows())]

    def _whole(self) -> str:
        n, unit = len(self.frame), f" ({self.capacity})" if self.capacity else ""
        proof = "none that were asked for are better"
        if not self.optimal:
            proof = f"others might be better by at most {self.gap:.1%} of that"
        told = f"{n} {'pool keeps' if n == 1 else 'pools keep'} a value{unit} of {self.value:,.0f}"
        told += f" after {self.cost:,.0f} for moves and restarts" if self.cost else ""
        told += f", {self.value - self.floor:,.0f} more than if all that may meet were in one; {proof}"
        if self.won is None:
            return told
        moves, won = len(self.moves), self.won
        if not moves:
            return f"{told}; no host moves"
        restarts = int(self.placement["restarts"].sum())
        return (
            f"{told}; {moves} {'host moves' if moves == 1 else 'hosts move'} and win {won:,.0f}, {won / moves:,.0f} a "
            f"move; guests on {restarts} {'host' if restarts == 1 else 'hosts'} have to restart"
        )

    def __repr__(self) -> str:
        proof = "proven" if self.optimal else f"gap {self.gap:.1%}"
        moved = "" if self.today is None else f", {len(self.moves)} moves"
        return f"<Pools: {len(self.frame)} of {len(self.placement)} hosts, value {self.value:,.0f} ({proof}){moved}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self._whole())}</p>" + self.frame.to_html(border=0, max_rows=20, na_rep="")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PoolCurve:
    """What more pools win.

    Attributes
    ----------
    frame : DataFrame
        Columns of ``schema.POOL_CURVE``, index ``k``.
    pools : mapping of int to Pools
        The pools of each row.
    """

    frame: pd.DataFrame
    pools: Mapping[int, Pools]

    def explain(self) -> list[str]:
        """One sentence a row."""
        return [f"k={k}: {found.explain()[0]}" for k, found in self.pools.items()]

    def __repr__(self) -> str:
        return f"<PoolCurve: k = {', '.join(str(k) for k in self.pools)}>"

    def _repr_html_(self) -> str:
        return self.frame.to_html(border=0)


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What was asked, but for k."""

    fleet: Fleet
    ground: Ground
    demands: Demands
    capacity: str | None
    time_limit: float
    asked_today: bool

    def answer(self, k: int) -> Pools:
        demands = replace(self.demands, k=k)
        ground = self.ground
        clients = ground.clients(demands) if possible(ground, demands) else None
        if clients is None:
            reasons = "; ".join(conflict(ground, demands))
            raise NoBaselineError(f"no pools meet all demands; these cannot be met together: {reasons}")
        return self._answered(clients, solve(ground.problem(demands, clients), time_limit=self.time_limit))

    def _answered(self, clients: Clients, found: Partition) -> Pools:
        ground, fleet = self.ground, self.fleet
        pools = outcome.made(ground, clients, found)
        names = outcome.named(pools, ground.today_names)
        placed = outcome.placement(ground, pools, names)
        restarting = fleet.positions(placed.index[placed["restarts"]])
        cost = ground.move_cost * int(placed["moved"].sum()) + math.fsum(ground.restart[restarting])
        value = float(sum((p.kept for p in pools), Fraction())) - cost
        bound = value if found.proven else found.bound
        if not ground.baselines[2]:  # then pools that were not sought may be better: no host can keep more than its own
            amounts = [float(ground.amount(i)) for i in fleet.positions(placed.index)]
            bound = math.fsum(a * v for a, v in zip(amounts, placed["own_value"], strict=True))
        together = [Made(ground, -1, tuple(p.positions.tolist())) for p in ground.division.parts]
        return Pools(
            frame=outcome.pool_rows(ground, pools, names, placed, self._capacities(pools)),
            placement=placed,
            moves=outcome.moves(ground, pools, names, placed),
            value=value,
            bound=max(value, bound),
            cost=cost,
            floor=float(sum((p.kept for p in together), Fraction())),
            today=float(sum((p.kept for p in outcome.today(ground)), Fraction())) if self.asked_today else None,
            capacity=self.capacity,
            missing=ground.division.missing,
            warnings=(*ground.division.warnings, *([] if ground.baselines[2] else [_SAMPLED])),
            fleet=fleet,
        )

    def _capacities(self, pools: Sequence[Made]) -> list[float | None]:
        """In the column asked for, or in cores."""
        amounts, unknown = host_amounts(self.fleet.hosts, self.capacity or "cores")
        numbers = amounts.multiples / amounts.per_one
        return [None if unknown[list(p.members)].any() else math.fsum(numbers[list(p.members)]) for p in pools]


def pools(
    fleet: Fleet,
    k: int,
    *,
    value: Value = None,
    capacity: str | None = None,
    min_hosts: int | None = None,
    min_capacity: float | None = None,
    n_plus: int = 0,
    together: Iterable[Iterable[str]] = (),
    apart: Iterable[Iterable[str]] = (),
    must_keep: Keep = (),
    current: str | None = None,
    move_cost: float = 0,
    max_moves: int | None = None,
    restart_cost: PerHost = None,
    time_limit: float = 30,
    allow_missing: bool = False,
) -> Pools:
    """Splits a fleet into at most so many pools that keep the most value, with the proof.

    Every host has its place, and counts by its capacity times the value of the features that all hosts of its pool
    offer. Hosts of different architectures or vendors are never in one pool.

    Parameters
    ----------
    fleet : Fleet
    k : int
        Most pools, over all architectures and vendors together.
    value : mapping, Series or callable, optional
        As for :func:`~vmcompat.baseline.maximal.maximal_baselines`.
    capacity : str, optional
        A numeric column of ``fleet.hosts`` that weighs them, such as "cores". Default: every host counts 1.
    min_hosts, min_capacity : number, optional
        Smallest pool, in hosts and in ``capacity``.
    n_plus : int
        The sizes hold after losing so many hosts, the largest ones. With 1, a pool without other demand has two hosts.
    together, apart : iterable of iterables of str
        Sets of hosts that are in one pool, and sets of hosts no two of which are.
    must_keep : iterable of str, or mapping of str to iterable of str
        Features that every pool keeps, or by host those that its pool keeps.
    current : str, optional
        A column of ``fleet.hosts`` that says today's pools. The answer is then a change from these. A host without a
        value is in none and moves for nothing. Hosts of several architectures or vendors under one name are several
        pools today.
    move_cost : float
        What moving a host to another pool costs, in the unit of ``Pools.value``. Of answers of the same value the one
        of the fewest moves is given if that is found within the time.
    max_moves : int, optional
        0 judges today's pools as they are.
    restart_cost : str, mapping or Series, optional
        By host (a column of ``fleet.hosts``, or values by name) what it costs if its guests have to restart: those
        whose new pool lacks a feature of today's. The number of guests makes each cost 1.
    time_limit : float
        For the proof [s]. Without it the best pools found are given, and ``gap``.
    allow_missing : bool
        Answer although the CPU of some hosts is not known; they are named in ``missing``.

    Returns
    -------
    Pools

    Raises
    ------
    NoBaselineError
        The CPU of a host is not known, or the demands cannot be met: the message names a smallest set of them that
        cannot be met together.
    FrameError
        An unknown host, feature or column, a capacity that is not known of a host, or a number that makes no sense.

    Notes
    -----
    Hosts that are alike may come into different pools, where a size or a number of moves asks for it. Proven answers
    do not depend on the order of the hosts; of those that the time limit cut short two runs may differ. Where a part
    of the fleet has more than 300,000 maximal baselines the pools are sought among the most robust of them and the
    bound, still valid, is a loose one.

    References
    ----------
    See :mod:`vmcompat.baseline.partition`.

    Examples
    --------
    >>> import vmcompat as vc
    >>> rack = vc.read_fleet("sample_caps/mixed").select("rack == 'ams-r2'")
    >>> found = vc.pools(rack, 2)
    >>> found.frame["n_hosts"].tolist(), found.optimal
    ([8, 2], True)
    """
    question = _question(
        fleet, value=value, capacity=capacity, min_hosts=min_hosts, min_capacity=min_capacity, n_plus=n_plus,
        together=together, apart=apart, must_keep=must_keep, current=current, move_cost=move_cost,
        max_moves=max_moves, restart_cost=restart_cost, time_limit=time_limit, allow_missing=allow_missing,
    )  # fmt: skip
    if k < 1:
        raise FrameError(f"k={k}: give 1 or more pools")
    return question.answer(k)


def pool_curve(fleet: Fleet, ks: Iterable[int], **demands: Any) -> PoolCurve:
    """The best pools for several numbers of them.

    Parameters
    ----------
    fleet : Fleet
    ks : iterable of int
        Numbers of pools. Those for which the demands cannot be met are left out, unless all are.
    **demands
        As for :func:`pools`; the time limit is for each.

    Returns
    -------
    PoolCurve

    Raises
    ------
    NoBaselineError, FrameError
        As for :func:`pools`.

    Examples
    --------
    >>> import vmcompat as vc
    >>> rack = vc.read_fleet("sample_caps/mixed").select("rack == 'ams-r2'")
    >>> vc.pool_curve(rack, range(1, 4)).frame["n_pools"].tolist()
    [1, 2, 3]
    """
    question = _question(fleet, **((pools.__kwdefaults__ or {}) | demands))
    wanted = sorted(set(ks))
    if not wanted or wanted[0] < 1:
        raise FrameError("ks: give numbers of pools, 1 or more")
    found: dict[int, Pools] = {}
    refusal: NoBaselineError | None = None
    for k in wanted:
        try:
            found[k] = question.answer(k)
        except NoBaselineError as e:
            refusal = e
    if refusal is not None and not found:
        raise refusal
    rows = [
        {
            "n_pools": len(p.frame),
            "value": p.value,
            "bound": p.bound,
            "gap": p.gap,
            "optimal": p.optimal,
            "n_moved": len(p.moves),
        }
        for p in found.values()
    ]
    return PoolCurve(frame=frame(POOL_CURVE, rows, index=pd.Index(list(found), dtype="int64", name="k")), pools=found)


def _question(
    fleet: Fleet,
    *,
    value: Value,
    capacity: str | None,
    min_hosts: int | None,
    min_capacity: float | None,
    n_plus: int,
    together: Iterable[Iterable[str]],
    apart: Iterable[Iterable[str]],
    must_keep: Keep,
    current: str | None,
    move_cost: float,
    max_moves: int | None,
    restart_cost: PerHost,
    time_limit: float,
    allow_missing: bool,
) -> _Question:
    """Every name as a position, every number checked."""
    numbers = {"min_hosts": min_hosts, "min_capacity": min_capacity, "n_plus": n_plus, "move_cost": move_cost,
               "max_moves": max_moves, "time_limit": time_limit}  # fmt: skip
    for name, number in numbers.items():
        if number is not None and not 0 <= number < np.inf:
            raise FrameError(f"{name}={number}: give 0 or more")
    if max_moves is not None and current is None:
        raise FrameError("max_moves= counts moves from today's pools: give their column as current=")
    division = divide(fleet, value=value, capacity=capacity, allow_missing=allow_missing)
    if not division.parts:
        raise NoBaselineError("no host with a known CPU to make pools of")
    amounts, unknown = host_amounts(fleet.hosts, capacity)
    known = np.concatenate([p.positions for p in division.parts])
    if unknown[known].any():
        names = [fleet.names[i] for i in sorted(known[unknown[known] > 0].tolist())]
        raise FrameError(f"{capacity} is not known of {some(names)}: fill in the column, or drop these hosts")
    today, names = pools_today(fleet, current, division.keys, [p.positions for p in division.parts])
    ground = Ground(
        division=division,
        capacity=amounts,
        today=today,
        today_names=names,
        restart=per_host(fleet, restart_cost) if current is not None else np.zeros(len(fleet)),
        move_cost=float(move_cost) if current is not None else 0.0,
    )
    demands = Demands(
        k=1,
        min_hosts=max(1, min_hosts or 1),
        min_capacity=min_capacity or 0,
        n_plus=n_plus,
        together=tuple(tuple(fleet.positions(hosts)) for hosts in together),
        apart=tuple(tuple(fleet.positions(dict.fromkeys(hosts))) for hosts in apart),
        must_keep=kept(fleet, must_keep),
        max_moves=max_moves,
    )
    return _Question(
        fleet=fleet,
        ground=ground,
        demands=demands,
        capacity=capacity,
        time_limit=time_limit,
        asked_today=current is not None,
    )


def _sentence(name: str, row: pd.Series) -> str:
    n = row["n_hosts"]
    told = (
        f"{name}: {n} {'host keeps' if n == 1 else 'hosts keep'} {row['n_features']} features, "
        f"{row['level'] or 'below x86-64-v1'}, value {row['value']:g} each ({some(row['hosts'], _SHOWN)})"
    )
    if not row["given_up"]:
        return f"{told}; nothing is given up"
    controls = [f for f in row["given_up"] if meaning(f).polarity == "control" and meaning(f).vendor == row["vendor"]]
    safety = f", mitigation controls {some(controls, _SHOWN)} among them" if controls else ""
    return f"{told}; {len(row['given_up'])} features are given up{safety}"
