"""Hosts that should be identical and are not: in what, which of them, and what else tells them apart."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from vmcompat.baseline.identical import TSC_TOLERANCE
from vmcompat.baseline.meanings import polarity_on
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import TWINS, frame

_EVIDENCE: Final = ("microcode", "bios_date", "libvirt", "qemu", "kernel")
_SHOWN: Final = 8


@dataclass(frozen=True, kw_only=True, repr=False)
class Twins:
    """What came of comparing hosts that should be identical.

    Attributes
    ----------
    frame : DataFrame
        One row for each way in which a group splits: columns of ``schema.TWINS``.
    n_groups : int
        Groups of two or more known hosts that were compared.
    by : tuple of str
        Columns of ``fleet.hosts`` that say which hosts should be identical.
    """

    frame: pd.DataFrame
    n_groups: int
    by: tuple[str, ...]

    def explain(self) -> list[str]:
        """One sentence a row."""
        return [_sentence(row) for row in self.frame.to_dict("records")]

    def __repr__(self) -> str:
        n = self.frame["group"].nunique()
        return f"<Twins by {', '.join(self.by)}: {n} of {self.n_groups} groups differ in {len(self.frame)} ways>"

    def _repr_html_(self) -> str:
        return self.frame.to_html(border=0)


def twins(fleet: Fleet, *, by: str | Sequence[str] = "model") -> Twins:
    """Finds hosts that should be identical and are not.

    Parameters
    ----------
    fleet : Fleet
    by : str or sequence of str
        Columns of ``fleet.hosts``: hosts alike in these should be identical, such as ``["server", "purchased"]``.

    Returns
    -------
    Twins
        Features are only compared where both documents can speak of them: what an old libvirt has no name for is no
        difference. Address bits and TSC frequencies are compared too.

    Raises
    ------
    FrameError
        No such column.

    Examples
    --------
    >>> import vmcompat as vc
    >>> fleet = vc.read_fleet("sample_caps/mixed")
    >>> print(vc.twins(fleet.select("rack == 'ams-r4'"), by="server").explain()[0])
    Dell PowerEdge R650: 1 of 6 hosts has maxphysaddr 46, the others 52: ams-r4-h05
    """
    columns = (by,) if isinstance(by, str) else tuple(by)
    absent = [c for c in columns if c not in fleet.hosts.columns]
    if absent:
        raise FrameError(f"no column {absent[0]!r}; columns: {', '.join(fleet.hosts.columns)}")
    hosts = fleet.hosts.loc[fleet.features.index]
    rows: list[dict[str, Any]] = []
    n_groups = 0
    for key, part in hosts.groupby(list(columns), sort=False, dropna=False):
        if len(part) < 2:
            continue
        n_groups += 1
        label = ", ".join(str(k) for k in (key if isinstance(key, tuple) else (key,)))
        found = [*_feature_splits(fleet, part), *_numbers(part)]
        rows += [{"group": label, "n_hosts": len(part)} | row | _evidence(part, row["hosts"]) for row in found]
    return Twins(frame=frame(TWINS, rows), n_groups=n_groups, by=columns)


def _feature_splits(fleet: Fleet, part: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Features that split the hosts in the same way, together."""
    hosts, vendors = part.index, part["vendor"].unique()
    vendor = str(vendors[0]) if len(vendors) == 1 else None
    offered, reported = fleet.features.loc[hosts], fleet.reported.loc[hosts]
    lacking = reported & ~offered
    differing = offered.columns[offered.any() & lacking.any()]
    splits: dict[tuple[bool, ...], list[str]] = {}
    for feature in differing:
        splits.setdefault(tuple(lacking[feature]), []).append(str(feature))
    for lacks, features in splits.items():
        without = tuple(str(h) for h, lack in zip(hosts, lacks, strict=True) if lack)
        yield {
            "what": "features",
            "features": tuple(features),
            "polarities": tuple(dict.fromkeys(polarity_on(f, vendor) for f in features)),
            "hosts": without,
            "value": "absent",
            "others": "present",
        }


def _numbers(part: pd.DataFrame) -> Iterator[dict[str, Any]]:
    bits = part["maxphysaddr"].dropna()
    usual = bits.mode()
    for value in sorted(set(bits) - set(usual[:1])):
        yield _number("maxphysaddr", value, usual.iloc[0], bits.index[bits == value])
    if (tsc := _apart(part)) is not None:
        yield _number("tsc_frequency", tsc.min(), tsc.max(), tsc.index)


def _apart(part: pd.DataFrame) -> pd.Series | None:
    """TSC frequencies of hosts that a guest with a fixed one could not move between, unless all of them scale."""
    tsc = part["tsc_frequency"].dropna()
    if len(tsc) < 2 or part.loc[tsc.index, "tsc_scaling"].fillna(False).all():
        return None
    furthest = pd.concat([tsc - tsc.min(), tsc.max() - tsc], axis=1).max(axis=1)
    off = tsc[furthest * 1_000_000 > TSC_TOLERANCE * tsc]
    return None if off.empty else off


def _number(what: str, value: Hashable, usual: Hashable, hosts: Iterable[str]) -> dict[str, Any]:
    return {"what": what, "hosts": tuple(hosts), "value": str(value), "others": str(usual)}


def _evidence(part: pd.DataFrame, hosts: tuple[str, ...]) -> dict[str, Any]:
    """Columns whose values tell these hosts from the others without exception: evidence, no proof."""
    here, there = part.loc[list(hosts)], part.drop(index=list(hosts))
    explains = []
    for column in (c for c in _EVIDENCE if c in part.columns):
        mine, theirs = set(here[column].dropna()), set(there[column].dropna())
        complete = here[column].notna().all() and there[column].notna().all()
        if complete and theirs and not mine & theirs:
            explains.append(column)
    return {"explained_by": tuple(explains)}


def _sentence(row: dict[Hashable, Any]) -> str:
    n, some = len(row["hosts"]), ", ".join(row["hosts"][:_SHOWN]) + (", ..." if len(row["hosts"]) > _SHOWN else "")
    verb = "has" if n == 1 else "have"
    if row["what"] == "features":
        names = ", ".join(row["features"][:_SHOWN])
        more = len(row["features"]) - _SHOWN
        what = f"{verb} no {names}{f' and {more} more' if more > 0 else ''}"
    elif row["what"] == "tsc_frequency":
        what = f"are more than {TSC_TOLERANCE} ppm apart in TSC frequency ({row['value']} to {row['others']} Hz)"
    else:
        what = f"{verb} {row['what']} {row['value']}, the others {row['others']}"
    why = f" (apart by {', '.join(row['explained_by'])})" if row["explained_by"] else ""
    return f"{row['group']}: {n} of {row['n_hosts']} hosts {what}: {some}{why}"
