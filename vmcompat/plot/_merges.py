"""Hosts merged step by step, always those two groups whose merger costs least value. Numbers and sets only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, kw_only=True)
class Tree:
    """Groups in the order of their making: first each kind alone, then the mergers.

    Attributes
    ----------
    members : bool array, groups by kinds
    shared : bool array, groups by features
        What all hosts of the group have.
    lost : float array, one a group
        What its hosts together have that the group does not share: never less than that of the groups it is made of.
    parts : int array, mergers by two
        Of which two groups each merger is made, first that with the first kind.
    """

    members: Bools
    shared: Bools
    lost: Floats
    parts: Ints

    @property
    def n_kinds(self) -> int:
        """So many groups are no mergers."""
        n: int = self.members.shape[1]
        return n

    @property
    def root(self) -> int:
        """The group of all."""
        return len(self.lost) - 1

    def parts_of(self, group: int) -> tuple[int, ...]:
        """The two groups it is made of; none for a kind alone."""
        if group < self.n_kinds:
            return ()
        first, second = self.parts[group - self.n_kinds].tolist()
        return first, second


def merge(kinds: Bools, counts: Ints, values: Floats) -> Tree:
    """Merges until all are one group.

    Parameters
    ----------
    kinds : bool array, kinds by features
        At least one, all different.
    counts : int array, one a kind
        How many hosts are of it.
    values : float array, one a feature

    Returns
    -------
    Tree

    Notes
    -----
    A merger costs the value that its hosts share less than before, times their number. Of mergers that cost the same
    the one of the features that come first is made: the order of the kinds changes nothing but their numbers. Some
    square of the number of kinds, times that of the features.
    """
    n = len(kinds)
    order = np.lexsort(kinds.T[::-1]) if kinds.shape[1] else np.arange(n)
    shared = kinds[order].astype(np.float64)
    size = counts[order].astype(np.float64)
    group = order.astype(np.int64)
    cost = np.array([_costs(i, shared, size, values) for i in range(n)]).reshape(n, n)
    np.fill_diagonal(cost, np.inf)
    nearest = cost.argmin(axis=1)
    members, all_shared = [np.eye(n, dtype=np.bool_)], [kinds]
    lost, parts = [0.0] * n, []
    member_rows = list(members[0])
    for step in range(n - 1):
        i = int(cost[np.arange(n), nearest].argmin())
        i, j = sorted((i, int(nearest[i])))
        a, b = int(group[i]), int(group[j])
        lost.append(lost[a] + lost[b] + float(cost[i, j]))
        joined = member_rows[a] | member_rows[b]
        parts.append((a, b) if member_rows[a].argmax() < member_rows[b].argmax() else (b, a))
        shared[i] *= shared[j]
        member_rows.append(joined)
        all_shared.append(shared[i : i + 1].astype(np.bool_))
        size[i], group[i] = size[i] + size[j], n + step
        cost[j], cost[:, j], size[j] = np.inf, np.inf, 0.0
        new = np.where(size > 0, _costs(i, shared, size, values), np.inf)
        new[i] = np.inf
        cost[i], cost[:, i] = new, new
        stale = np.isin(nearest, (i, j))
        stale[i] = True
        nearest[stale] = cost[stale].argmin(axis=1)
        closer = (new < cost[np.arange(n), nearest]) | ((new == cost[np.arange(n), nearest]) & (i < nearest))
        nearest[closer] = i
    return Tree(
        members=np.array(member_rows, dtype=np.bool_).reshape(-1, n),
        shared=np.vstack(all_shared),
        lost=np.array(lost),
        parts=np.array(parts, dtype=np.int64).reshape(-1, 2),
    )


def _costs(i: int, shared: Floats, size: Floats, values: Floats) -> Floats:
    """What merging group ``i`` with each other costs."""
    worth = shared @ values
    together = (shared * shared[i]) @ values
    answer: Floats = size[i] * (worth[i] - together) + size * (worth - together)
    return answer


def cut(trees: Sequence[Tree], most: int) -> list[list[int]]:
    """The groups that are drawn as one each, so that there are no more than ``most``: in which least is lost.

    Parameters
    ----------
    trees : sequence of Tree
    most : int
        One a tree is drawn in any case.

    Returns
    -------
    list of list of int
        For each tree its groups, in the order in which they hang on it.
    """
    leaves = [[tree.root] for tree in trees]
    for _ in range(most - len(trees)):
        mergers = [(float(tree.lost[g]), -t, g) for t, tree in enumerate(trees) for g in leaves[t] if g >= tree.n_kinds]
        if not mergers:
            break
        _, t, group = max(mergers)
        at = leaves[-t].index(group)
        leaves[-t][at : at + 1] = trees[-t].parts_of(group)
    return leaves
