"""The best pools of generated fleets, and what the usual ways of clustering lose on the same hosts.

Agglomerative merging joins the two pools whose joining loses least, again and again; average linkage joins what is
most alike by the Jaccard distance of features. Both know nothing of a smallest size, and have none here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

import vmcompat as vc
from tests.bench_timing import duration, head, row, timed
from tests.generator import Instance, instance
from vmcompat.baseline.worth import feature_values

SMALL: Final = 2_600  # hosts, of which the Intel ones are of 40 kinds
LARGE: Final = 10_800  # of 94
SMALLEST: Final = 0.05  # of the hosts in a pool

Bits = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def of_intel(made: Instance) -> vc.Fleet:
    """The Intel hosts of an instance, with their frames there already."""
    hosts = made.hosts[made.hosts["vendor"] == "Intel"]
    fleet = made.fleet()[hosts.index]
    vars(fleet).update(hosts=hosts, features=made.features.loc[hosts.index])
    return fleet


def main() -> None:
    """Prints the table."""
    head(
        "The best pools",
        "Of the Intel hosts of two fleets; in 30 s at most. What others lose is a share of what pools can win.",
        ("hosts, kinds", "k", "smallest pool", "time", "proof", "agglomerative loses", "Jaccard linkage loses"),
    )
    vc.pools(of_intel(instance(100)), 2, min_hosts=2)  # compiles
    for n_hosts, ks in ((SMALL, range(2, 9)), (LARGE, (3, 5, 8))):
        made = instance(n_hosts)
        fleet, worth = of_intel(made), Worth(made)
        for k in ks:
            for least in (None, round(SMALLEST * len(fleet))):
                row(*cells(fleet, k, least, worth))


def cells(fleet: vc.Fleet, k: int, least: int | None, worth: Worth) -> list[str]:
    """One line: the time, the gap that is left, and of what pools can win what the other ways lose."""
    seconds, found = timed(partial(vc.pools, fleet, k, min_hosts=least, time_limit=30), repeats=1)
    lost = ["", ""]
    if least is None:
        groups = (agglomerated(worth, k), linked(worth, k))
        lost = [f"{(found.value - worth.kept(g)) / (found.value - found.floor):.1%}" for g in groups]
    proof = "proven" if found.optimal else f"gap {found.gap:.2%}"
    size = "" if least is None else f"{least} hosts"
    return [f"{len(fleet):,}, {len(worth.classes)}", str(k), size, duration(seconds), proof, *lost]


class Worth:
    """The kinds of Intel hosts of an instance, and what groups of them keep."""

    def __init__(self, made: Instance) -> None:
        table = made.table("Intel")
        every = made.cpu_map.rows(bits for vendor, _, bits in made.kinds if vendor == "Intel")
        common = every.all(axis=0)
        values = feature_values(made.cpu_map.features, "Intel", None)
        of_feature = values.multiples / values.per_one
        bundle = table.bundle_of_column
        self.classes: Bits = table.classes
        self.weights = table.weights
        self.values: Floats = np.zeros(table.n_bundles)
        np.add.at(self.values, bundle[bundle >= 0], of_feature[bundle >= 0])
        self.common = float(of_feature[common].sum())

    def of(self, group: Sequence[int]) -> float:
        """What one group keeps."""
        shared = self.classes[list(group)].all(axis=0)
        return float((self.values[shared].sum() + self.common) * self.weights[list(group)].sum())

    def kept(self, groups: Sequence[Sequence[int]]) -> float:
        """What all groups keep."""
        return sum(self.of(g) for g in groups)


def agglomerated(worth: Worth, k: int) -> list[list[int]]:
    """Groups joined as long as there are too many, each time the two whose joining loses least."""
    groups = [[i] for i in range(len(worth.classes))]
    while len(groups) > k:
        loss = {
            (a, b): worth.of(groups[a]) + worth.of(groups[b]) - worth.of(groups[a] + groups[b])
            for a, b in combinations(range(len(groups)), 2)
        }
        a, b = min(loss, key=lambda pair: loss[pair])
        groups[a] += groups.pop(b)
    return groups


def linked(worth: Worth, k: int) -> list[list[int]]:
    """Groups by average linkage of Jaccard distances."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    label = fcluster(linkage(pdist(worth.classes, "jaccard"), "average"), k, criterion="maxclust")
    return [np.flatnonzero(label == i).tolist() for i in np.unique(label)]


if __name__ == "__main__":
    main()
