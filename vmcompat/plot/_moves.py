"""What ``plot.migration`` shows, before anything is drawn: hosts folded that are alike as source and as target."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum, auto

import numpy as np
from numpy.typing import NDArray

from vmcompat.baseline.compare import migration_matrix
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.plot._fold import BLANK, Kind, States, capped, kinds_of, largest, unknown_kinds


class Move(IntEnum):
    """A guest's way from one host to another."""

    NO = 0
    BOTH = auto()
    ONE_WAY = auto()
    SAME = auto()
    AMONG = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveTable:
    """What ``plot.migration`` draws.

    Attributes
    ----------
    kinds : tuple of Kind
        Known kinds, by architecture, vendor and model, then the unknown ones.
    sizes : tuple of int
        How many of the kinds are in each block; the last are the unknown ones, if there are any.
    states : int8 array, kind by kind
        Members of :class:`Move`, from row to column.
    ways : int, int
        Pairs of different known hosts that may move both ways, and one way only.
    """

    kinds: tuple[Kind, ...]
    sizes: tuple[int, ...]
    states: States = field(repr=False)
    ways: tuple[int, int]


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
    parts = []
    for hosts in _vendors(fleet):
        here = [position[h] for h in hosts]
        parts.append(kinds_of(fleet, hosts, np.hstack([may[here], may.T[here]]).astype(np.int8)))
    kept = largest([kind for part in parts for kind, _ in part], most_kinds)
    drawn = [capped(part, kept)[0] for part in parts]
    kinds = [kind for block in drawn for kind in block]
    at = [position[kind.hosts[0]] for kind in kinds]
    known = np.select([two_way, one_way], [np.int8(Move.BOTH), np.int8(Move.ONE_WAY)], np.int8(Move.NO))[at][:, at]
    np.fill_diagonal(known, [Move.AMONG if len(kind.hosts) > 1 else Move.SAME for kind in kinds])
    many = np.array([kind.folded > 1 for kind in kinds], dtype=bool)
    known[many], known[:, many] = BLANK, BLANK
    unknown = unknown_kinds(fleet)
    states = np.full((len(kinds) + len(unknown),) * 2, Move.UNKNOWN, dtype=np.int8)
    states[: len(kinds), : len(kinds)] = known
    noted = [k if k.folded > 1 else _noted(k, may[i], one_way[i]) for k, i in zip(kinds, at, strict=True)]
    return MoveTable(
        kinds=(*noted, *unknown),
        sizes=tuple(len(block) for block in (*drawn, unknown) if block),
        states=states,
        ways=((int(two_way.sum()) - len(may)) // 2, int(one_way.sum())),
    )


def _noted(kind: Kind, to: NDArray[np.bool_], one_way: NDArray[np.bool_]) -> Kind:
    """With how many other hosts a guest may move to, and from how many of them it could not come back."""
    n, stuck = int(to.sum()) - 1, int(one_way.sum())
    back = f", {stuck} of them one way" if stuck else ""
    return replace(kind, note=f"{kind.note}: to {n or 'no'} other{'' if n == 1 else 's'}{back}")


def _vendors(fleet: Fleet) -> list[tuple[str, ...]]:
    """Known hosts by architecture and vendor, in the order of ``fleet.baselines()``."""
    known = frozenset(fleet.features.index)
    groups = fleet.hosts.groupby(["arch", "vendor"], dropna=False, sort=False)
    parts = sorted((tuple(part.index) for _, part in groups), key=lambda part: -len(part))
    return [here for part in parts if (here := tuple(h for h in part if h in known))]
