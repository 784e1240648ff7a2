"""Many groups of one fleet at once: a row each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import pandas as pd

from vmcompat.baseline.answer import Answer, answers, lost_for_sure
from vmcompat.baseline.choice import cpu_text, given
from vmcompat.baseline.meanings import level, meaning
from vmcompat.errors import FrameError, NoBaselineError
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import BASELINES, frame

By: TypeAlias = "str | Callable[[pd.Series], Hashable] | Mapping[Hashable, Iterable[str]] | None"

_LOST_COLUMNS = {
    "capability": "capabilities_lost",
    "control": "controls_lost",
    "immunity": "immunities_lost",
    "hazard": "hazards_lost",
}


def baselines_of(fleet: Fleet, by: By, *, migratable: bool, allow_missing: bool) -> pd.DataFrame:
    """See :meth:`Fleet.baselines`."""
    labels, groups = _groups(fleet, by)
    found = answers(
        fleet,
        groups,
        migratable=migratable,
        driver="qemu",
        cpu_map=fleet.cpu_map,
        asked_of=None,
        allow_missing=allow_missing,
    )
    rows = [_row(fleet, positions, answer) for positions, answer in zip(groups, found, strict=True)]
    names = ["arch", "vendor", *([] if by is None else [by if isinstance(by, str) else "group"])]
    index = (
        pd.MultiIndex.from_tuples(labels, names=names)
        if labels
        else pd.MultiIndex.from_arrays([[]] * len(names), names=names)
    )
    return frame(BASELINES, rows, index=index)


def _groups(fleet: Fleet, by: By) -> tuple[list[tuple[Hashable, ...]], list[list[int]]]:
    """Labels and positions of the groups, largest first, then in the order of their first hosts."""
    hosts = fleet.hosts
    kind = [tuple(None if pd.isna(v) else v for v in pair) for pair in zip(hosts["arch"], hosts["vendor"], strict=True)]
    groups: dict[tuple[Hashable, ...], list[int]] = {}
    if isinstance(by, Mapping):
        for label, names in by.items():
            positions = fleet.positions(names)
            for i in positions:
                groups.setdefault((*kind[i], label), []).append(i)
    else:
        for i, label in enumerate(_labels(hosts, by)):
            groups.setdefault((*kind[i], *label), []).append(i)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[1][0]))
    return [label for label, _ in ordered], [positions for _, positions in ordered]


def _labels(hosts: pd.DataFrame, by: str | Callable[[pd.Series], Hashable] | None) -> list[tuple[Hashable, ...]]:
    if by is None:
        return [()] * len(hosts)
    if callable(by):
        return [(by(row),) for _, row in hosts.iterrows()]
    if by not in hosts.columns:
        raise FrameError(f"no column {by!r} to group by; columns: {', '.join(hosts.columns)}")
    return [(None if pd.isna(v) else v,) for v in hosts[by]]


def _row(fleet: Fleet, positions: Sequence[int], answer: Answer | NoBaselineError) -> dict[str, Any]:
    row: dict[str, Any] = {
        "n_hosts": len(positions),
        "n_unknown": sum(fleet.readings[i].status != "ok" for i in positions),
        "hosts": tuple(fleet.names[i] for i in positions),
    }
    if isinstance(answer, NoBaselineError):
        return row | {"reason": str(answer)}
    model = answer.model
    text = cpu_text(model.name, answer.features, vendor=answer.vendor, fallback=answer.fallback, limit=answer.limit)
    row |= {"model": model.name, "xml": text}
    if answer.missing:
        row["reason"] = f"without {', '.join(answer.missing)}"
    gives = given(answer.features, model, cpu_map=fleet.cpu_map) & ~fleet.cpu_map.blocked
    lost = lost_for_sure(answer.members) & ~gives
    row |= {"n_features": gives.bit_count(), "level": _level(gives, fleet.cpu_map)}
    return row | {c: (lost & _polarity(p, answer.vendor, fleet.cpu_map)).bit_count() for p, c in _LOST_COLUMNS.items()}


@cache
def _level(gives: int, cpu_map: CpuMap) -> str | None:
    return level(frozenset(cpu_map.names(gives)))


@cache
def _polarity(polarity: str, vendor: str | None, cpu_map: CpuMap) -> int:
    """Features of that polarity; one that belongs to another vendor tells nothing of these hosts."""
    other = {"Intel": "AMD", "AMD": "Intel", "Hygon": "Intel"}.get(vendor or "")
    meanings = (meaning(name) for name in cpu_map.features)
    return cpu_map.set_of(m.feature for m in meanings if m.polarity == polarity and m.vendor != other)
