"""What becomes of the baselines when hosts come, go or change."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, Final, NamedTuple

import pandas as pd

from vmcompat.baseline.answer import answers
from vmcompat.baseline.groups import held_back
from vmcompat.baseline.meanings import GROUPS, POLARITIES, in_words, level, meaning
from vmcompat.baseline.parts import Division, divide
from vmcompat.baseline.supposed import SIGN, Changes, suppose
from vmcompat.baseline.worth import Exact, Value, feature_values
from vmcompat.errors import NoBaselineError
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import CHANGE_SUMS, CHANGES, WHAT_IF, frame


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class WhatIf:
    """What becomes of the baselines.

    Attributes
    ----------
    frame : DataFrame
        One row an architecture and vendor: columns of ``schema.WHAT_IF``.
    features : DataFrame
        One row a feature that changes: columns of ``schema.CHANGES``.
    fleet : Fleet
        Afterwards.
    missing : tuple of str
        Hosts left out, before or after, since their CPU is not known, with their status.
    """

    frame: pd.DataFrame
    features: pd.DataFrame
    fleet: Fleet
    missing: tuple[str, ...]
    _weights: Mapping[str | None, Mapping[str, float]]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """The changes by polarity and group: columns of ``schema.CHANGE_SUMS``."""
        table = self.features
        sums = table[["arch", "vendor", "polarity", "group"]].copy()
        for change in ("gained", "lost"):
            sums[f"n_{change}"] = table["change"] == change
            sums[f"value_{change}"] = table["value"].where(table["change"] == change, 0.0)
        found = sums.groupby(["arch", "vendor", "polarity", "group"], sort=False, dropna=False).sum().reset_index()
        found = found.assign(
            part=found.groupby(["arch", "vendor"], sort=False, dropna=False).ngroup(),
            sign=found["polarity"].map(POLARITIES.index),
            kind=found["group"].map(GROUPS.index),
        ).sort_values(["part", "sign", "kind"], ignore_index=True)
        return found[list(CHANGE_SUMS)].astype(dict(CHANGE_SUMS))

    def explain(self) -> list[str]:
        """One sentence a row, and one for each host that was changed in thought only."""
        found = self.fleet.findings
        told = [_sentence(row, self._weights) for row in self.frame.to_dict("records")]
        supposed = found[found["code"] == SIGN]
        return told + [f"{h}: {m}" for h, m in zip(supposed["host"], supposed["message"], strict=True)]

    def __repr__(self) -> str:
        n_before, n_after = (int(self.frame[f"n_hosts_{when}"].sum()) for when in ("before", "after"))
        counts = self.features["change"].value_counts()
        return (
            f"<WhatIf: {n_before} -> {n_after} hosts; {counts.get('gained', 0)} features gained, "
            f"{counts.get('lost', 0)} lost>"
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + self.frame.to_html(border=0, na_rep="", index=False)


def what_if(
    fleet: Fleet,
    *,
    add: Fleet | None = None,
    remove: str | Iterable[str] = (),
    replace: Fleet | None = None,
    without: Changes | None = None,
    with_: Changes | None = None,
    value: Value = None,
    allow_missing: bool = False,
) -> WhatIf:
    """Compares the baselines of a fleet with those of what it may become.

    Parameters
    ----------
    fleet : Fleet
    add : Fleet, optional
        Hosts that come, read with the same map and view.
    remove : str or iterable of str
        Hosts that go.
    replace : Fleet, optional
        Hosts of the same names with other documents, such as those after an upgrade. Columns of ``hosts.csv`` that they
        do not have stay.
    without, with_ : mapping of str to iterable of str, optional
        By host what it would no longer, or newly, offer: features, or bundles of ``meanings.SWITCHES`` such as "tsx".
        Applied last, so that hosts that come can be named.
    value : mapping, Series or callable, optional
        As for :func:`~vmcompat.baseline.maximal.maximal_baselines`.
    allow_missing : bool
        Answer although the CPU of some hosts is not known; they are named in ``missing``.

    Returns
    -------
    WhatIf

    Raises
    ------
    NoBaselineError
        The CPU of a host is not known, before or after.
    FrameError
        A host that is not there or is there twice, fleets of different view or map, a name that is neither a bundle nor
        a feature of the map, the same feature with and without, or a CPU that libvirt would not recognise any more.

    Notes
    -----
    No document says what ``without`` and ``with_`` make of a host: it is a guess, and marked as one in
    ``fleet.hosts["source"]``, ``fleet.findings`` and the warnings of every baseline that rests on it. All documents of
    the host are changed alike, and the models that its emulator lists. A host definition whose model no longer fits
    gets the name of the closest model inside it, which need not be libvirt's choice.

    Examples
    --------
    >>> import vmcompat as vc
    >>> rack = vc.read_fleet("sample_caps/mixed").select("rack == 'ams-r2'")
    >>> found = vc.what_if(rack, without={"ams-r2-h09": ["tsx"]})
    >>> found.frame.loc[0, "lost"]
    ('hle', 'rtm')
    >>> print(found.explain()[1])
    ams-r2-h09: without tsx in thought only: no document says so
    """
    gone = [remove] if isinstance(remove, str) else list(remove)
    after = fleet if replace is None else _replaced(fleet, replace)
    after = after.drop(*gone)
    after = after if add is None else after + add
    after = suppose(after, without or {}, with_ or {})
    divisions = [divide(f, allow_missing=allow_missing) for f in (fleet, after)]
    before_of, after_of = (_sides(division) for division in divisions)
    rows: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    weights_of = {}
    for key in dict.fromkeys([*before_of, *after_of]):
        weights = feature_values(fleet.cpu_map.features, key[1], value)
        weights_of[key[1]] = by_name(weights, fleet.cpu_map)
        pair = before_of.get(key, NOBODY), after_of.get(key, NOBODY)
        rows.append({"arch": key[0], "vendor": key[1]} | row_of(*pair, weights, fleet.cpu_map))
        changes += _changes(rows[-1], weights, fleet.cpu_map)
    missing = tuple(dict.fromkeys(name for d in divisions for name in d.missing))
    return WhatIf(
        frame=frame(WHAT_IF, rows),
        features=frame(CHANGES, changes),
        fleet=after,
        missing=missing,
        _weights=weights_of,
    )


class Side(NamedTuple):
    """The baseline of one group, before or after.

    Attributes
    ----------
    model, level, reason : str or None
        ``reason`` says why there is none.
    gives : int
        Set of the features that a guest is given.
    lacking : int
        Set of those that some host is known to lack.
    """

    n_hosts: int
    model: str | None = None
    level: str | None = None
    gives: int = 0
    lacking: int = 0
    reason: str | None = None


NOBODY: Final = Side(0)


def sides(fleet: Fleet, groups: Sequence[Sequence[int]]) -> list[Side]:
    """The baseline of each group of hosts, by their positions; the CPUs of all are known."""
    asked = [g for g in groups if len(g)]
    found = iter(
        answers(
            fleet,
            asked,
            migratable=True,
            driver="qemu",
            cpu_map=fleet.cpu_map,
            asked_of=None,
            allow_missing=False,
        )
    )
    told = []
    for positions in groups:
        answer = next(found) if len(positions) else None
        if answer is None:
            told.append(NOBODY)
        elif isinstance(answer, NoBaselineError):
            told.append(Side(len(positions), reason=str(answer)))
        else:
            gives = answer.shared & ~held_back(fleet.cpu_map)
            lacking = reduce(int.__or__, (m.reported & ~m.offered for m in answer.members))
            name = level(frozenset(fleet.cpu_map.names(gives)))
            told.append(Side(len(positions), answer.model.name, name, gives, lacking))
    return told


def _sides(division: Division) -> dict[tuple[str | None, str | None], Side]:
    arch, vendor = (division.keys[c].astype(object).where(division.keys[c].notna(), None) for c in ("arch", "vendor"))
    keys = zip(arch.tolist(), vendor.tolist(), strict=True)
    return dict(zip(keys, sides(division.fleet, [p.positions.tolist() for p in division.parts]), strict=True))


def row_of(before: Side, after: Side, weights: Exact, cpu_map: CpuMap) -> dict[str, Any]:
    """What to say of one group before and after: columns of ``schema.WHAT_IF`` but the first two."""
    row: dict[str, Any] = {"reason": before.reason or after.reason}
    for when, side in (("before", before), ("after", after)):
        row |= {f"n_hosts_{when}": side.n_hosts, f"model_{when}": side.model, f"level_{when}": side.level}
        if side.model is not None:
            row |= {f"n_features_{when}": side.gives.bit_count(), f"value_{when}": worth(side.gives, weights, cpu_map)}
    if before.model is not None and after.model is not None:
        gained, lost = after.gives & ~before.gives, before.gives & ~after.gives
        unreported = (gained & ~before.lacking) | (lost & ~after.lacking)
        row |= {"gained": gained, "lost": lost, "unreported": unreported}
        row |= {c: tuple(cpu_map.names(row[c])) for c in ("gained", "lost", "unreported")}
    return row


def worth(features: int, weights: Exact, cpu_map: CpuMap) -> float:
    """What a set of features is worth."""
    return int(weights.multiples[cpu_map.rows([features])[0]].sum()) / weights.per_one


def by_name(weights: Exact, cpu_map: CpuMap) -> dict[str, float]:
    """What each feature of the map is worth."""
    return dict(zip(cpu_map.features, (weights.multiples / weights.per_one).tolist(), strict=True))


def _changes(row: Mapping[str, Any], weights: Exact, cpu_map: CpuMap) -> Iterator[dict[str, Any]]:
    change_of = {f: change for change in ("gained", "lost") for f in row.get(change, ())}
    for feature in sorted(change_of, key=cpu_map.index.__getitem__):
        what = meaning(feature)
        yield {
            "arch": row["arch"],
            "vendor": row["vendor"],
            "feature": feature,
            "group": what.group,
            "polarity": what.polarity,
            "value": int(weights.multiples[cpu_map.index[feature]]) / weights.per_one,
            "change": change_of[feature],
            "unreported": feature in row["unreported"],
        }


def _sentence(row: Mapping[Any, Any], weights_of: Mapping[str | None, Mapping[str, float]]) -> str:
    n_before, n_after = row["n_hosts_before"], row["n_hosts_after"]
    label = " ".join(str(row[c]) for c in ("arch", "vendor") if pd.notna(row[c]))
    hosts = f"{label}, {n_before} -> {n_after} hosts" if n_before != n_after else f"{label}, {n_after} hosts"
    if pd.notna(row["reason"]):
        return f"{hosts}: no baseline to compare: {row['reason']}"
    if not n_before or not n_after:
        when = "after" if n_after else "before"
        what = "comes new" if n_after else "is gone"
        return f"{hosts}: {row[f'model_{when}']}, {row[f'level_{when}'] or 'below x86-64-v1'}, {what}"
    weights = weights_of[None if pd.isna(row["vendor"]) else row["vendor"]]
    changes = {"gains": row["gained"], "loses": row["lost"]}
    told = [f"{verb} {in_words(features, weights=weights)}" for verb, features in changes.items() if features]
    if not told:
        return f"{hosts}: no feature changes ({row['model_after']}, {row['level_after'] or 'below x86-64-v1'})"
    for what in ("level", "model"):
        was, is_ = (row[f"{what}_{when}"] for when in ("before", "after"))
        if was != is_ and pd.notna(was) and pd.notna(is_):
            told.append(f"{was} -> {is_}")
    if row["unreported"]:
        told.append(f"{len(row['unreported'])} of these are only not reported by a host's libvirt")
    return f"{hosts}: {'; '.join(told)}; value {row['value_before']:g} -> {row['value_after']:g}"


def _replaced(fleet: Fleet, others: Fleet) -> Fleet:
    """The fleet with other documents for some hosts, in its own order."""
    old = {r.name: r for r in fleet[others.names].records}
    records = tuple(
        dataclasses.replace(r, columns={**old[r.name].columns, **{k: v for k, v in r.columns.items() if v}})
        for r in others.records
    )
    return (fleet.drop(*others.names) + dataclasses.replace(others, records=records))[fleet.names]
