"""Who keeps the others from what: for each feature outside the baseline, for each host, and for pairs of hosts."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.baseline.groups import held_back
from vmcompat.baseline.lattice import Bools, Ints, pack
from vmcompat.baseline.meanings import in_words, level, meanings
from vmcompat.baseline.parts import divide, labels_of
from vmcompat.baseline.sets import Names, SetArray
from vmcompat.baseline.worth import Exact, Value, feature_values
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import LEAVERS, LEAVING_PAIRS, VETO, frame


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Veto:
    """Who keeps the others from what.

    Attributes
    ----------
    frame : DataFrame
        One row a feature that some hosts of an architecture and vendor offer and their baseline lacks: columns of
        ``schema.VETO``.
    hosts : DataFrame
        What the others would gain without one host: columns of ``schema.LEAVERS``, index ``host``.
    pairs : DataFrame
        What they would gain only without both of two hosts: columns of ``schema.LEAVING_PAIRS``.
    missing : tuple of str
        Hosts left out since their CPU is not known, with their status.
    """

    frame: pd.DataFrame
    hosts: pd.DataFrame
    pairs: pd.DataFrame
    missing: tuple[str, ...]
    _parts: tuple[_Part, ...]

    def explain(self) -> list[str]:
        """One sentence for features that the same hosts keep from the others, the most valuable first."""
        told = [found for part in self._parts for found in part.sentences()]
        return [sentence for _, sentence in sorted(told, key=lambda found: -found[0])]

    def __repr__(self) -> str:
        kept = ", ".join(f"{len(p.contested)} of {p.label}" for p in self._parts)
        alone = int((self.hosts["features"].map(len) > 0).sum())
        return f"<Veto: features outside the baselines: {kept or 'none'}; {alone} hosts in the way alone>"

    def _repr_html_(self) -> str:
        shown = self.frame.sort_values("value", ascending=False, kind="stable")
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + shown.to_html(border=0, max_rows=20, na_rep="", index=False)


def veto(fleet: Fleet, *, value: Value = None, allow_missing: bool = False) -> Veto:
    """Finds who keeps which features out of the baseline of an architecture and vendor.

    Parameters
    ----------
    fleet : Fleet
    value : mapping, Series or callable, optional
        As for :func:`~vmcompat.baseline.maximal.maximal_baselines`.
    allow_missing : bool
        Answer although the CPU of some hosts is not known; they are named in ``missing``.

    Returns
    -------
    Veto

    Raises
    ------
    NoBaselineError
        The CPU of a host is not known.
    FrameError
        A weight that is negative or no number.

    Notes
    -----
    Features that cannot be migrated, and facts of the host that are never given to a guest, are in nobody's way. A host
    whose libvirt has no name for a feature keeps it out of the baseline all the same, but vetoes nothing: a newer
    libvirt may report it. What is not reported counts as absent in ``hosts`` and ``pairs``, where it is named.

    Examples
    --------
    >>> import vmcompat as vc
    >>> found = vc.veto(vc.read_fleet("sample_caps/mixed").select("rack == 'ams-r1'"))
    >>> found.hosts.loc["ams-r1-h06", "features"]
    ('vmx',)
    >>> print(found.explain()[-1])
    x86_64 Intel: hle, rtm (value 0), offered by 2 of 8 hosts: lacking on ams-r1-h01, ams-r1-h02, ams-r1-h03 and 3 more
    """
    division = divide(fleet, allow_missing=allow_missing)
    keys = [{"arch": k.arch, "vendor": k.vendor} for k in division.keys.itertuples(index=False)]
    labels = labels_of(division.keys)
    parts = tuple(
        _Part.of(fleet, p.positions, key, label, value)
        for p, key, label in zip(division.parts, keys, labels, strict=True)
    )
    tables = [p.table() for p in parts if p.contested.size]
    rows = {int(i): row for p in parts for i, row in zip(p.positions, p.leavers(), strict=True)}
    known = pd.Index([fleet.names[i] for i in sorted(rows)], dtype="str", name="host")
    pairs = sorted((row for p in parts for row in p.pairs()), key=lambda row: (-row["value"], row["hosts"]))
    return Veto(
        frame=pd.concat(tables, ignore_index=True) if tables else _empty(),
        hosts=frame(LEAVERS, (rows[i] for i in sorted(rows)), index=known),
        pairs=frame(LEAVING_PAIRS, pairs),
        missing=division.missing,
        _parts=parts,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Part:
    """Hosts of one architecture and vendor, each kind of them once.

    Attributes
    ----------
    positions : int array, one a host
        In the fleet.
    kind : int array, one a host
    counts : int array, one a kind
        How many hosts are of it.
    offers, lacks : bool arrays, kinds by features of the map
        What a host of the kind offers, and what it is known to lack; what its libvirt cannot report is neither.
    contested : int array
        Columns of the features that some kinds offer and others do not.
    """

    fleet: Fleet
    key: Mapping[str, Any]
    label: str
    positions: Ints
    kind: Ints
    counts: Ints
    offers: Bools
    lacks: Bools
    contested: Ints
    weights: Exact

    @staticmethod
    def of(fleet: Fleet, positions: Ints, key: Mapping[str, Any], label: str, value: Value) -> _Part:
        """Those of the fleet at these positions."""
        free = fleet.cpu_map.everything & ~held_back(fleet.cpu_map)
        numbers: dict[tuple[int, int], int] = {}
        readings = [fleet.readings[i] for i in positions]
        kind = np.array(
            [numbers.setdefault((x.offered & free, x.reported & free), len(numbers)) for x in readings], dtype=np.int64
        )
        offers = fleet.cpu_map.rows(offered for offered, _ in numbers)
        lacks = fleet.cpu_map.rows(reported & ~offered for offered, reported in numbers)
        vendor = None if pd.isna(key["vendor"]) else str(key["vendor"])
        return _Part(
            fleet=fleet,
            key=key,
            label=label,
            positions=positions,
            kind=kind,
            counts=np.bincount(kind, minlength=len(numbers)),
            offers=offers,
            lacks=lacks,
            contested=np.flatnonzero(offers.any(axis=0) & ~offers.all(axis=0)),
            weights=feature_values(fleet.cpu_map.features, vendor, value),
        )

    def table(self) -> pd.DataFrame:
        """See ``schema.VETO``."""
        at = self.contested
        features = [self.fleet.cpu_map.features[f] for f in at]
        what = meanings(features)
        vetoing = self.counts @ self.lacks[:, at]
        names = [Names(self._names, self.kind)]
        which = np.zeros(len(at), dtype=np.int64)
        columns = {
            **{c: pd.Series([v] * len(at), dtype="str") for c, v in self.key.items()},
            "feature": pd.Series(features, dtype="str"),
            "group": what["group"].array,
            "polarity": what["polarity"].array,
            "value": self.weights.multiples[at] / self.weights.per_one,
            "n_hosts": np.full(len(at), len(self.kind)),
            "n_offering": self._n_offering[at],
            "n_vetoing": vetoing,
            "n_unreported": len(self.kind) - self._n_offering[at] - vetoing,
            "vetoed_by": SetArray(pack(self.lacks[:, at].T), names, which),
            "unreported_by": SetArray(pack(self._silent[:, at].T), names, which),
        }
        return pd.DataFrame(columns, copy=False)

    def leavers(self) -> list[dict[str, Any]]:
        """For each host what the others would gain without it: rows of ``schema.LEAVERS``."""
        bundles = self._only_lacking_at(1)
        of_kind = [
            self._row(bundles.get((k,), [])) | {"level": self._level(bundles.get((k,), []))}
            for k in range(len(self.counts))
        ]
        if len(self.kind) == 1:
            of_kind[0]["level"] = None
        return [of_kind[k] for k in self.kind]

    def pairs(self) -> Iterator[dict[str, Any]]:
        """For two hosts what the others would gain only without both: rows of ``schema.LEAVING_PAIRS``."""
        alone = self._only_lacking_at(1)
        for kinds, features in self._only_lacking_at(2).items():
            hosts = tuple(self._names[np.isin(self.kind, kinds)])
            without = [*features, *(f for k in kinds for f in alone.get((k,), []))]
            yield self._row(features) | {"hosts": hosts, "level": self._level(without)}

    def sentences(self) -> Iterator[tuple[float, str]]:
        """For each bundle of features that the same hosts keep from the others its value, and a sentence."""
        bundles: dict[tuple[bytes, bytes], list[int]] = {}
        for f in self.contested:
            bundles.setdefault((self.lacks[:, f].tobytes(), self._silent[:, f].tobytes()), []).append(int(f))
        for features in bundles.values():
            first = features[0]
            row = self._row(features)
            lacking, silent = (self._names[m[self.kind, first]].tolist() for m in (self.lacks, self._silent))
            it = "it" if len(features) == 1 else "them"
            found = [f"lacking on {some(lacking, 3)}" if lacking else f"nobody is known to lack {it}"]
            if silent:
                found.append(f"the libvirt of {some(silent, 3)} has no name for {it}")
            gained = np.flatnonzero(_shared(self.offers[self.offers[:, first]]))
            if (higher := self._level(gained)) != self._level(np.setdiff1d(gained, features)):
                found.append(f"without {'it' if len(lacking) + len(silent) == 1 else 'these'} {higher}")
            told = in_words(row["features"], weights=self._weight_of(features))
            yield (
                row["value"],
                f"{self.label}: {told} (value {row['value']:g}), offered by {self._n_offering[first]} of "
                f"{len(self.kind)} hosts: {'; '.join(found)}",
            )

    def _row(self, features: Sequence[int]) -> dict[str, Any]:
        """What to say of features that some hosts keep from the others."""
        known = np.asarray(self.lacks.any(axis=0))
        names = self.fleet.cpu_map.features
        return {
            **self.key,
            "features": tuple(names[f] for f in features),
            "unreported": tuple(names[f] for f in features if not known[f]),
            "value": int(self.weights.multiples[features].sum()) / self.weights.per_one,
        }

    def _only_lacking_at(self, n: int) -> dict[tuple[int, ...], list[int]]:
        """Features that all but so many hosts offer, by the kinds of these."""
        found: dict[tuple[int, ...], list[int]] = {}
        for f in self.contested[self._n_offering[self.contested] == len(self.kind) - n]:
            found.setdefault(tuple(np.flatnonzero(~self.offers[:, f]).tolist()), []).append(int(f))
        return found

    def _level(self, gained: Sequence[int] | Ints) -> str | None:
        """The level of what all offer and these."""
        has = _shared(self.offers)
        has[gained] = True
        return level([self.fleet.cpu_map.features[f] for f in np.flatnonzero(has)])

    def _weight_of(self, features: Sequence[int]) -> dict[str, float]:
        return {self.fleet.cpu_map.features[f]: float(self.weights.multiples[f]) for f in features}

    @cached_property
    def _silent(self) -> Bools:
        return ~self.offers & ~self.lacks

    @cached_property
    def _n_offering(self) -> Ints:
        return np.asarray(self.counts @ self.offers)

    @cached_property
    def _names(self) -> pd.Index:
        return self.fleet.hosts.index[self.positions]


def _empty() -> pd.DataFrame:
    nothing = SetArray(np.zeros((0, 1), dtype=np.uint64), [], np.zeros(0, dtype=np.int64))
    sets = {c: nothing for c, dtype in VETO.items() if dtype == "set"}
    return frame({c: dtype for c, dtype in VETO.items() if dtype != "set"}, []).assign(**sets)


def _shared(offers: Bools) -> Bools:
    return np.asarray(offers.all(axis=0))
