"""Old hosts leave and new ones come: who may join a pool, what rises when others go, which models would fit."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.baseline.common import Baseline
from vmcompat.baseline.groups import held_back
from vmcompat.baseline.meanings import in_words
from vmcompat.baseline.parts import divide
from vmcompat.baseline.what_if import Side, by_name, row_of, sides, worth
from vmcompat.baseline.worth import Exact, Value, feature_values
from vmcompat.errors import FrameError, NoBaselineError
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import Reading
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import ADMISSION, COMING_BACK, PAYOFF, RETIREMENT, frame

_SHOWN: Final = 4


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Admission:
    """Whether new hosts may join a pool.

    Attributes
    ----------
    frame : DataFrame
        One row a kind of new hosts, in their order: columns of ``schema.ADMISSION``.
    back : DataFrame
        Where guests of the newcomers can go back to: columns of ``schema.COMING_BACK``.
    pool : Baseline
        That of the pool as it is.
    missing : tuple of str
        Hosts of the pool that were left out since their CPU is not known, with their status.
    """

    frame: pd.DataFrame
    back: pd.DataFrame
    pool: Baseline
    missing: tuple[str, ...]
    _weights: Mapping[str, float]

    def explain(self) -> list[str]:
        """One sentence a kind of new hosts, and one on where its guests can go."""
        told = []
        for row in self.frame.to_dict("records"):
            told.append(_verdict(row, self.pool, self._weights))
            if pd.notna(row["n_back"]):
                back = self.back[[hosts == row["hosts"] for hosts in self.back["new_hosts"]]]
                told.append(_going_back(row, back, len(self.pool.hosts)))
        return told

    def __repr__(self) -> str:
        counts = self.frame.groupby("verdict", sort=False)["n_hosts"].sum()
        told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
        return f"<Admission to {len(self.pool.hosts)} hosts of {self.pool.model}: {told}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + self.frame.to_html(border=0, na_rep="", index=False)


def admit(
    fleet: Fleet,
    *,
    new_hosts: Fleet,
    pool: str | Iterable[str],
    value: Value = None,
    allow_missing: bool = False,
) -> Admission:
    """Judges whether new hosts may join a pool, and whether their guests can come back from them.

    Parameters
    ----------
    fleet : Fleet
    new_hosts : Fleet
        Read with the same map and view.
    pool : str or iterable of str
        Hosts of the fleet: a query over the columns of ``fleet.hosts``, or names.
    value : mapping, Series or callable, optional
        As for :func:`~vmcompat.baseline.maximal.maximal_baselines`.
    allow_missing : bool
        Answer although the CPU of some hosts of the pool is not known; they are named in ``missing``.

    Returns
    -------
    Admission
        Each kind of new hosts is judged as if it alone joined. A guest that gets the pool's baseline (what it would be
        after the newcomer joined) runs on every host of the pool; one that was started on the newcomer with host-model
        gets all that it offers and may be stuck there.

    Raises
    ------
    NoBaselineError
        The CPU of a host of the pool is not known, or its hosts have no baseline.
    FrameError
        No such hosts or query, no new hosts, fleets of different view or map, or a host is in both.

    Examples
    --------
    >>> import vmcompat as vc
    >>> fleet = vc.read_fleet("sample_caps/mixed")
    >>> found = vc.admit(fleet, new_hosts=fleet.select("rack == 'ams-r5'"), pool="rack == 'ams-r4'")
    >>> found.frame[["n_hosts", "verdict", "n_back"]].to_dict("split")["data"]
    [[1, 'lowers', 0], [3, 'joins', 0]]
    """
    members = _chosen(fleet, pool)
    if not len(members) or not len(new_hosts):
        raise FrameError(f"{'no hosts in the pool' if not len(members) else 'no new hosts'}: there is nothing to judge")
    base = members.baseline(allow_missing=allow_missing)
    everyone = members.drop(*members.unknown) + new_hosts
    n = len(everyone) - len(new_hosts)
    if not n:
        raise NoBaselineError("no host of the pool is x86: nothing is known of the features of the others")
    kinds = _alike(everyone, range(n, len(everyone)))
    old_kinds = _alike(everyone, range(n))
    facts = everyone.hosts
    here = facts.iloc[0]
    weights = feature_values(fleet.cpu_map.features, None if pd.isna(here["vendor"]) else here["vendor"], value)
    meets = [
        everyone.readings[k[0]].status == "ok" and _same_kind(here, facts.iloc[k[0]]) for k in kinds
    ]  # fmt: skip
    joint = iter(sides(everyone, [range(n), *([*range(n), k[0]] for k, m in zip(kinds, meets, strict=True) if m)]))
    before = next(joint)
    rows, back = [], []
    for kind, may_meet in zip(kinds, meets, strict=True):
        reading, newcomer = everyone.readings[kind[0]], facts.iloc[kind[0]]
        row = {c: None if pd.isna(newcomer[c]) else newcomer[c] for c in ("arch", "vendor", "model")}
        row |= {"hosts": _names(everyone, kind), "n_hosts": len(kind)}
        if reading.status != "ok" and (pd.isna(newcomer["arch"]) or newcomer["arch"] == here["arch"]):
            rows.append(row | {"verdict": "unknown", "reason": reading.reason})
        elif not may_meet:
            there, own = (" ".join(str(f[c]) for c in ("arch", "vendor") if pd.notna(f[c])) for f in (here, newcomer))
            rows.append(row | {"verdict": "cannot meet", "reason": f"the pool is {there}, this is {own}"})
        else:
            places = [_place(everyone, kind, old, reading) for old in old_kinds]
            back += places
            rows.append(row | _judged(before, next(joint), reading, weights, fleet.cpu_map) | _counted(places))
    return Admission(
        frame=frame(ADMISSION, rows),
        back=frame(COMING_BACK, back),
        pool=base,
        missing=base.missing,
        _weights=by_name(weights, fleet.cpu_map),
    )


def _chosen(fleet: Fleet, hosts: str | Iterable[str]) -> Fleet:
    """Hosts by names, or by a query."""
    return fleet.select(hosts) if isinstance(hosts, str) else fleet[hosts]


def _alike(fleet: Fleet, positions: Iterable[int]) -> list[list[int]]:
    """Hosts that are alike in all that matters here, in the order of the first ones."""
    kinds: dict[tuple[object, ...], list[int]] = {}
    for i in positions:
        x = fleet.readings[i]
        cpu = x.cpu if x.status == "ok" else None
        kind = (
            (x.offered, x.reported, cpu.model, cpu.vendor, x.model_vendor) if cpu else (fleet.records[i].arch, x.reason)
        )
        kinds.setdefault(kind, []).append(i)
    return list(kinds.values())


def _same_kind(pool: pd.Series, newcomer: pd.Series) -> bool:
    return all(pool[c] == newcomer[c] or (pd.isna(pool[c]) and pd.isna(newcomer[c])) for c in ("arch", "vendor"))


def _names(fleet: Fleet, positions: Iterable[int]) -> tuple[str, ...]:
    return tuple(fleet.names[i] for i in positions)


def _judged(before: Side, after: Side, newcomer: Reading, weights: Exact, cpu_map: CpuMap) -> dict[str, Any]:
    """What joining does to the pool."""
    if after.reason is not None:
        return {"verdict": "cannot meet", "reason": after.reason}
    lost = before.gives & ~after.gives
    doubtful = lost & ~newcomer.reported
    verdict = "lowers" if lost & ~doubtful else "unknown" if doubtful else "joins"
    return {
        "verdict": verdict,
        "reason": "its libvirt has no name for what it may lack" if verdict == "unknown" else None,
        "lost": tuple(cpu_map.names(lost & ~doubtful)),
        "unreported": tuple(cpu_map.names(doubtful)),
        "value_lost": worth(lost, weights, cpu_map),
        "level_after": after.level,
        "model_after": after.model,
    }


def _place(fleet: Fleet, new: Sequence[int], old: Sequence[int], newcomer: Reading) -> dict[str, Any]:
    """Whether a guest that got all of the newcomer can run on these hosts of the pool."""
    there = fleet.readings[old[0]]
    lacking = newcomer.offered & ~held_back(fleet.cpu_map) & ~there.offered
    known = lacking & there.reported
    return {
        "new_hosts": _names(fleet, new),
        "pool_hosts": _names(fleet, old),
        "back": "no" if known else "unknown" if lacking else "yes",
        "missing": tuple(fleet.cpu_map.names(known)),
        "unreported": tuple(fleet.cpu_map.names(lacking & ~known)),
    }


def _counted(places: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    counts = {"yes": 0, "unknown": 0, "no": 0}
    for place in places:
        counts[place["back"]] += len(place["pool_hosts"])
    return {"n_back": counts["yes"], "n_back_unknown": counts["unknown"]}


def _verdict(row: Mapping[Any, Any], pool: Baseline, weights: Mapping[str, float]) -> str:
    who = f"{some(row['hosts'], _SHOWN)} ({row['model'] if pd.notna(row['model']) else 'model not known'})"
    if row["verdict"] == "joins":
        return f"{who}: joins without loss; {row['level_after'] or 'below x86-64-v1'} stays"
    if not row["lost"] and not row["unreported"]:
        return (
            f"{who}: {'cannot be judged' if row['verdict'] == 'unknown' else 'cannot meet the pool'}: {row['reason']}"
        )
    was, is_ = (x if pd.notna(x) else "below x86-64-v1" for x in (pool.level, row["level_after"]))
    levels = f"{was} stays" if was == is_ else f"{was} -> {is_}"
    told = [f"costs the pool {in_words(row['lost'], weights=weights)}"] if row["lost"] else []
    if row["unreported"]:
        names = in_words(row["unreported"], weights=weights)
        told.append(f"its libvirt has no name for {names}, which the pool would lose by it")
    return f"{who}: {'; '.join(told)} (value {row['value_lost']:g}, {levels})"


def _going_back(row: Mapping[Any, Any], back: pd.DataFrame, n_pool: int) -> str:
    stuck = back[back["back"] == "no"]
    told = f"{row['n_back']} of {n_pool}"
    if row["n_back_unknown"]:
        told += f" ({row['n_back_unknown']} cannot be told)"
    kept = tuple(dict.fromkeys(f for names in stuck["missing"] for f in names))
    why = f"; kept by {in_words(kept)}" if kept else ""
    return (
        f"{some(row['hosts'], _SHOWN)}: guests started there with host-model can come back to {told}{why}; "
        f"with the pool's baseline to all"
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Retirement:
    """What rises when hosts leave.

    Attributes
    ----------
    frame : DataFrame
        One row a group that they leave: columns of ``schema.RETIREMENT``.
    bundles : DataFrame
        Which of them held back what: columns of ``schema.PAYOFF``.
    missing : tuple of str
        Hosts left out since their CPU is not known, with their status.
    """

    frame: pd.DataFrame
    bundles: pd.DataFrame
    missing: tuple[str, ...]
    _weights: Mapping[str | None, Mapping[str, float]]

    def explain(self) -> list[str]:
        """One sentence a group, then one for each gained bundle of features, the most valuable first."""
        groups = [_rise(row) for row in self.frame.to_dict("records")]
        return groups + [_payoff(row, self._weights) for row in self.bundles.to_dict("records")]

    def __repr__(self) -> str:
        n = int((self.frame["n_hosts_before"] - self.frame["n_hosts_after"]).sum())
        rising = int((self.frame["gained"].map(len) > 0).sum())
        return f"<Retirement of {n} hosts: {rising} of {len(self.frame)} groups gain features>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + self.frame.to_html(border=0, na_rep="", index=False)


def retire(
    fleet: Fleet,
    *,
    hosts: str | Iterable[str],
    by: str | None = None,
    value: Value = None,
    allow_missing: bool = False,
) -> Retirement:
    """Says what rises when hosts leave, and which of them held it back.

    Parameters
    ----------
    fleet : Fleet
    hosts : str or iterable of str
        Those that leave: a query over the columns of ``fleet.hosts``, or names.
    by : str, optional
        Column of ``fleet.hosts`` that splits architectures and vendors further, such as ``"rack"``.
    value, allow_missing
        As for :func:`admit`.

    Returns
    -------
    Retirement

    Raises
    ------
    NoBaselineError
        The CPU of a host is not known.
    FrameError
        No such hosts, query or column, or nobody leaves.

    Examples
    --------
    >>> import vmcompat as vc
    >>> fleet = vc.read_fleet("sample_caps/mixed")
    >>> found = vc.retire(fleet, hosts="purchased < 2012", allow_missing=True)
    >>> found.frame.loc[0, ["level_before", "level_after"]].tolist()
    ['x86-64-v2', 'x86-64-v3']
    """
    leaving = frozenset(_chosen(fleet, hosts).names)
    if not leaving:
        raise FrameError("no host leaves: there is nothing to judge")
    division = divide(fleet, within=by, allow_missing=allow_missing)
    touched = []
    for part, key in zip(division.parts, division.keys.to_dict("records"), strict=True):
        positions = part.positions.tolist()
        staying = [i for i in positions if fleet.names[i] not in leaving]
        if len(staying) < len(positions):
            touched.append((key, positions, staying))
    found = iter(sides(fleet, [group for _, *both in touched for group in both]))
    rows: list[dict[str, Any]] = []
    bundles: list[dict[str, Any]] = []
    weights_of: dict[str | None, dict[str, float]] = {}
    for key, positions, staying in touched:
        vendor = None if pd.isna(key["vendor"]) else key["vendor"]
        weights = feature_values(fleet.cpu_map.features, vendor, value)
        weights_of[vendor] = by_name(weights, fleet.cpu_map)
        label = {"by" if c == "within" else str(c): v for c, v in key.items()}
        row = label | row_of(next(found), next(found), weights, fleet.cpu_map)
        gained = fleet.cpu_map.set_of(row.get("gained", ()))
        rows.append(row | {"value_gained": worth(gained, weights, fleet.cpu_map)})
        kept = set(staying)
        bundles += _bundles(fleet, label, [i for i in positions if i not in kept], gained, weights)
    schemas = [dict(columns) for columns in (RETIREMENT, PAYOFF)]
    if by is not None:
        dtype = str(division.keys["within"].dtype)
        schemas = [{"arch": "str", "vendor": "str", "by": dtype, **columns} for columns in schemas]
    return Retirement(
        frame=frame(schemas[0], rows),
        bundles=frame(schemas[1], sorted(bundles, key=lambda b: -b["value"])),
        missing=division.missing,
        _weights=weights_of,
    )


def _bundles(
    fleet: Fleet, label: Mapping[str, Any], leaving: Sequence[int], gained: int, weights: Exact
) -> Iterator[dict[str, Any]]:
    """Gained features by those of the leaving hosts that do not offer them."""
    cpu_map = fleet.cpu_map
    held: dict[tuple[int, ...], int] = {}
    for name in cpu_map.names(gained):
        bit = 1 << cpu_map.index[name]
        blocking = tuple(i for i in leaving if not fleet.readings[i].offered & bit)
        held[blocking] = held.get(blocking, 0) | bit
    for blocking, features in held.items():
        lacking = 0
        for i in blocking:
            lacking |= fleet.readings[i].reported & ~fleet.readings[i].offered
        yield {
            **label,
            "features": tuple(cpu_map.names(features)),
            "unreported": tuple(cpu_map.names(features & ~lacking)),
            "value": worth(features, weights, cpu_map),
            "held_back_by": _names(fleet, blocking),
        }


def _label(row: Mapping[Any, Any]) -> str:
    return " ".join(str(row[c]) for c in ("arch", "vendor", "by") if c in row and pd.notna(row[c]))


def _rise(row: Mapping[Any, Any]) -> str:
    left = f"{_label(row)}, {row['n_hosts_before']} -> {row['n_hosts_after']} hosts"
    if not row["n_hosts_after"]:
        return f"{left}: none is left"
    if pd.notna(row["reason"]):
        return f"{left}: no baseline to compare: {row['reason']}"
    was, is_ = (row[f"level_{w}"] if pd.notna(row[f"level_{w}"]) else "below x86-64-v1" for w in ("before", "after"))
    levels = f"{was} stays" if was == is_ else f"{was} -> {is_}"
    if not row["gained"]:
        return f"{left}: nothing is gained; {levels}"
    return f"{left}: {levels}, {row['model_before']} -> {row['model_after']}, value +{row['value_gained']:g}"


def _payoff(row: Mapping[Any, Any], weights_of: Mapping[str | None, Mapping[str, float]]) -> str:
    who, weights = row["held_back_by"], weights_of[None if pd.isna(row["vendor"]) else row["vendor"]]
    told = f"{_label(row)}: {in_words(row['features'], weights=weights)} (value {row['value']:g})"
    if not who:
        return f"{told}: held back by the choice of the model, by no host"
    only = "" if len(who) == 1 else "all of "
    doubt = f"; {len(row['unreported'])} of these only not reported" if row["unreported"] else ""
    return f"{told}: held back by {only}{some(who, _SHOWN)}{doubt}"
