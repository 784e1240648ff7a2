"""Features that a host's libvirt has no name for: neither known to be there nor known to lack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.baseline.lattice import Bools, Ints, Steps, Table, summed, weigh
from vmcompat.fleet.frames import Fleet


@dataclass(frozen=True, eq=False)
class Silence:
    """What cannot be known of some hosts.

    Attributes
    ----------
    features : bool array, different answers by features of the map
        True where a libvirt has no name for the feature.
    of_host : int array, one a host
        Which of these is the host's.
    """

    features: Bools
    of_host: Ints

    @staticmethod
    def of(fleet: Fleet) -> Silence:
        """Of the known hosts of a fleet, in its order."""
        codes: dict[int, int] = {}
        silent = (
            fleet.cpu_map.everything & ~fleet.cpu_map.blocked & ~x.reported for x in fleet.readings if x.status == "ok"
        )
        of_host = np.array([codes.setdefault(bits, len(codes)) for bits in silent], dtype=np.int64)
        return Silence(fleet.cpu_map.rows(codes), of_host)

    def among(self, hosts: Ints) -> Silence:
        """The same of some of the hosts, by their positions."""
        return Silence(self.features, self.of_host[hosts])

    def excused(self, table: Table, steps: Steps) -> Ints:
        """How many of the hosts that each step leaves behind may well have the bundle that decides."""
        counts = np.zeros(len(steps.bundle), dtype=np.int64)
        pairs, n_hosts = np.unique(table.class_of_row * len(self.features) + self.of_host, return_counts=True)
        classes, answers = np.divmod(pairs, max(1, len(self.features)))
        for bundle in np.unique(steps.bundle[steps.bundle >= 0]):
            silent = np.asarray(self.features[:, table.bundle_of_column == bundle].all(axis=1))
            if silent.any():
                rows = steps.bundle == bundle
                per_class, _ = summed(classes, n_hosts * silent[answers], len(table.classes))
                counts[rows] = weigh(steps.leaving[rows], per_class)
        return counts

    def told(self, table: Table, features: pd.Index, hosts: pd.Index) -> Iterator[str]:
        """In words: features that others of these hosts offer, and those whose libvirt has no name for them."""
        unheard = self.features & (table.bundle_of_column >= 0)
        silent = np.flatnonzero(np.asarray(unheard.any(axis=1))[self.of_host])
        if len(silent):
            asked = np.flatnonzero(unheard[np.unique(self.of_host)].any(axis=0))
            names, where = some(features[asked].tolist()), some(hosts[silent].tolist())
            yield f"counted as absent: {names}, which others offer and the libvirt of {where} has no name for"
