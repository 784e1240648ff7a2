"""What ``plot.migration`` shows, before anything is drawn: hosts folded that are alike as source and as target."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum, auto

import numpy as np
from numpy.typing import NDArray

from vmcompat.baseline.compare import migration_matrix
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.plot._fold import BLANK, Kind, States, capped, fitting, kinds_of, largest, unknown_kinds


class Move(IntEnum):
    """A guest's way from one host to another."""

    NO = 0
    BOTH = auto()
    ONE_WAY = auto()
    SAME = auto()
    AMONG = auto()
    UNKNOWN = auto()
    STRANDED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Island:
    """Hosts that may all swap guests among themselves, and with no other host.

    Attributes
    ----------
    hosts : tuple of str
        In the fleet's order.
    doors : tuple of int
        The nearest islands to which its guests may go and not come back, in the order of the islands: those that are
        not reached through another one.
    maybe : tuple of str
        Where its guests can go nowhere: the hosts that might take them, were it known what they offer. They are known
        to lack nothing; their libvirt has no name for it.
    """

    hosts: tuple[str, ...]
    doors: tuple[int, ...] = ()
    maybe: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The first host and how many more there are."""
        return Kind(hosts=self.hosts, note="").label

    @property
    def stranded(self) -> bool:
        """One host, from which guests can go to no known host."""
        return len(self.hosts) == 1 and not self.doors and not self.maybe


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveTable:
    """What ``plot.migration`` draws.

    Attributes
    ----------
    kinds : tuple of Kind
        Known kinds, by architecture, vendor and model, those of one island together; then the unknown ones.
    sizes : tuple of int
        How many of the kinds are in each block; the last are the unknown ones, if there are any.
    states : int8 array, kind by kind
        Members of :class:`Move`, from row to column.
    ways : int, int
        Pairs of different known hosts that may move both ways, and one way only.
    islands : tuple of Island
        Of all known hosts, in the order of their first hosts.
    outlines : tuple of (int, int)
        First and last kind of each drawn island of two hosts or more.
    """

    kinds: tuple[Kind, ...]
    sizes: tuple[int, ...]
    states: States = field(repr=False)
    ways: tuple[int, int]
    islands: tuple[Island, ...]
    outlines: tuple[tuple[int, int], ...]

    @property
    def doors(self) -> list[tuple[Island, Island]]:
        """From island, to island: one way only, and through no third one."""
        return [(island, self.islands[to]) for island in self.islands for to in island.doors]

    @property
    def stranded(self) -> list[str]:
        """Hosts whose guests can go to no known host, so that they cannot be drained."""
        return [island.hosts[0] for island in self.islands if island.stranded]


def fold_moves(fleet: Fleet, *, most_kinds: int = 80) -> MoveTable:
    """From host by to host, with hosts folded that are alike as source and as target.

    Parameters
    ----------
    fleet : Fleet
    most_kinds : int
        The kinds of most hosts are kept; the last row and column of a block stands for the others.

    Returns
    -------
    MoveTable

    Raises
    ------
    FrameError
        The fleet has no host.
    """
    if not len(fleet):
        raise FrameError("a fleet without hosts: there is nothing to draw")
    matrix = migration_matrix(fleet)
    may = matrix.to_numpy(dtype=bool)
    two_way, one_way = may & may.T, may & ~may.T
    position = {host: i for i, host in enumerate(matrix.index)}
    number, islands = _islands(fleet, may)
    parts = []
    for hosts in _vendors(fleet):
        here = [position[h] for h in hosts]
        part = kinds_of(fleet, hosts, np.hstack([may[here], may.T[here]]).astype(np.int8))
        first = {number[here[row]]: i for i, (_, row) in reversed(list(enumerate(part)))}
        parts.append(sorted(part, key=lambda kind: first[number[here[kind[1]]]]))
    kept = largest([kind for part in parts for kind, _ in part], most_kinds)
    drawn = [capped(part, kept)[0] for part in parts]
    kinds = [kind for block in drawn for kind in block]
    at = [position[kind.hosts[0]] for kind in kinds]
    known = np.select([two_way, one_way], [np.int8(Move.BOTH), np.int8(Move.ONE_WAY)], np.int8(Move.NO))[at][:, at]
    alone = [Move.STRANDED if islands[number[i]].stranded else Move.SAME for i in at]
    np.fill_diagonal(known, [Move.AMONG if len(k.hosts) > 1 else m for k, m in zip(kinds, alone, strict=True)])
    many = np.array([kind.folded > 1 for kind in kinds], dtype=bool)
    known[many], known[:, many] = BLANK, BLANK
    unknown = unknown_kinds(fleet)
    states = np.full((len(kinds) + len(unknown),) * 2, Move.UNKNOWN, dtype=np.int8)
    states[: len(kinds), : len(kinds)] = known
    noted = [
        kind if kind.folded > 1 else _noted(kind, may[i], one_way[i], islands, int(number[i]))
        for kind, i in zip(kinds, at, strict=True)
    ]
    return MoveTable(
        kinds=(*noted, *unknown),
        sizes=tuple(len(block) for block in (*drawn, unknown) if block),
        states=states,
        ways=((int(two_way.sum()) - len(may)) // 2, int(one_way.sum())),
        islands=islands,
        outlines=_outlines([-1 if m else int(number[i]) for m, i in zip(many, at, strict=True)], islands),
    )


def _islands(fleet: Fleet, may: NDArray[np.bool_]) -> tuple[NDArray[np.intp], tuple[Island, ...]]:
    """The island of each known host, and all islands; where guests may go is transitive, so that they never overlap."""
    names = fleet.features.index
    if names.empty:
        return np.empty(0, dtype=np.intp), ()
    first, number = np.unique((may & may.T).argmax(axis=1), return_inverse=True)
    beyond = may[np.ix_(first, first)]
    np.fill_diagonal(beyond, val=False)
    steps = beyond.astype(np.float32)
    nearest = beyond & ~((steps @ steps) > 0)
    hosts: list[list[str]] = [[] for _ in first]
    for name, i in zip(names, number, strict=True):
        hosts[i].append(str(name))
    islands = tuple(
        Island(
            hosts=tuple(here),
            doors=tuple(np.flatnonzero(nearest[i]).tolist()),
            maybe=_maybe(fleet, int(first[i])) if len(here) == 1 and not beyond[i].any() else (),
        )
        for i, here in enumerate(hosts)
    )
    return number, islands


def _maybe(fleet: Fleet, source: int) -> tuple[str, ...]:
    """Known hosts of the same maker that are not known to lack anything that this one's guests may have."""
    vendors = fleet.hosts.loc[fleet.features.index, "vendor"].fillna("")
    needs = fleet.features.to_numpy()[source] & ~fleet.cpu_map.rows([fleet.cpu_map.blocked])[0]
    lacks = (needs & fleet.reported.to_numpy() & ~fleet.features.to_numpy()).any(axis=1)
    might = (vendors == vendors.iloc[source]).to_numpy() & ~lacks
    might[source] = False
    return tuple(vendors.index[might])


def _outlines(number: list[int], islands: tuple[Island, ...]) -> tuple[tuple[int, int], ...]:
    """Runs of kinds of one island; -1 stands for kinds of several."""
    runs: dict[int, tuple[int, int]] = {}
    for i, island in enumerate(number):
        if island >= 0 and len(islands[island].hosts) > 1:
            runs[island] = (runs.get(island, (i, i))[0], i)
    return tuple(runs.values())


def _noted(
    kind: Kind, to: NDArray[np.bool_], one_way: NDArray[np.bool_], islands: tuple[Island, ...], number: int
) -> Kind:
    """To how many other hosts a guest may move, from how many it could not come back, and which of these are next."""
    n, stuck = int(to.sum()) - 1, int(one_way.sum())
    island = islands[number]
    if not n:
        told = f"perhaps to {fitting(island.maybe)}, which cannot tell" if island.maybe else "cannot be drained"
        return replace(kind, note=f"{kind.note}: to no others: {told}")
    doors = [islands[door].name for door in island.doors]
    back = f", {stuck} of them one way, first to {fitting(doors)}" if stuck else ""
    return replace(kind, note=f"{kind.note}: to {n} other{'' if n == 1 else 's'}{back}")


def _vendors(fleet: Fleet) -> list[tuple[str, ...]]:
    """Known hosts by architecture and vendor, in the order of ``fleet.baselines()``."""
    known = frozenset(fleet.features.index)
    groups = fleet.hosts.groupby(["arch", "vendor"], dropna=False, sort=False)
    parts = sorted((tuple(part.index) for _, part in groups), key=lambda part: -len(part))
    return [here for part in parts if (here := tuple(h for h in part if h in known))]
