"""Many groups of one fleet at once: a row each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cache, partial
from typing import Any, TypeAlias

import pandas as pd

from vmcompat.baseline.answer import Answer, answers, lost_for_sure
from vmcompat.baseline.choice import QEMU_DRIVER_HIDES, cpu_text
from vmcompat.baseline.hypervisor import models_document
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
    # Hosts alike in all that decides an answer never matter twice, and fleets are full of them: one question a mix.
    kinds = _kinds(fleet)
    mixes = [tuple(dict.fromkeys([kinds[i] for i in positions])) for positions in groups]
    ask = partial(
        answers,
        fleet,
        migratable=migratable,
        driver="qemu",
        cpu_map=fleet.cpu_map,
        asked_of=None,
        allow_missing=allow_missing,
    )
    asked = dict(zip(mixes, groups, strict=True))
    facts = {mix: _facts(answer, fleet.cpu_map) for mix, answer in zip(asked, ask(list(asked.values())), strict=True)}
    unknown = [x.status != "ok" for x in fleet.readings]
    rows = []
    for mix, positions in zip(mixes, groups, strict=True):
        found = facts[mix]
        if "model" not in found and asked[mix] is not positions:  # a refusal names the hosts of its own group
            found = _facts(ask([positions])[0], fleet.cpu_map)
        counts = {"n_hosts": len(positions), "n_unknown": sum([unknown[i] for i in positions])}
        rows.append(found | counts | {"hosts": tuple([fleet.names[i] for i in positions])})
    names = ["arch", "vendor", *([] if by is None else [by if isinstance(by, str) else "group"])]
    index = (
        pd.MultiIndex.from_tuples(labels, names=names)
        if labels
        else pd.MultiIndex.from_arrays([[]] * len(names), names=names)
    )
    return frame(BASELINES, rows, index=index)


def _kinds(fleet: Fleet) -> list[int]:
    """A number for each host, the same for hosts alike; one whose CPU is not known is like no other."""
    numbers: dict[Hashable, int] = {}
    kinds = []
    for record, x in zip(fleet.records, fleet.readings, strict=True):
        kind: Hashable = record.name
        if x.status == "ok" and x.cpu is not None:
            models = models_document(record, fleet.virttype) if fleet.view == "hypervisor" else None
            said = models and (models.models, models.properties and tuple(models.properties.items()))
            kind = (x.cpu.model, x.cpu.vendor, x.model_vendor, x.cpu.maxphysaddr, x.offered, x.reported, said)
        kinds.append(numbers.setdefault(kind, len(numbers)))
    return kinds


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


def _facts(answer: Answer | NoBaselineError, cpu_map: CpuMap) -> dict[str, Any]:
    """What a row says of its answer."""
    if isinstance(answer, NoBaselineError):
        return {"reason": str(answer)}
    model, vendor = answer.model.name, answer.vendor
    gives = answer.shared & ~held_back(cpu_map)
    facts: dict[str, Any] = {
        "model": model,
        "xml": cpu_text(model, answer.features, vendor=vendor, fallback=answer.fallback, limit=answer.limit),
        "n_features": gives.bit_count(),
        "level": _level(gives, cpu_map),
    }
    if answer.missing:
        facts["reason"] = f"without {', '.join(answer.missing)}"
    lost = lost_for_sure(answer.members) & ~gives
    for column, features in _by_polarity(vendor, cpu_map):
        facts[column] = (lost & features).bit_count()
    return facts


@cache
def held_back(cpu_map: CpuMap) -> int:
    """What is never written into a domain, shared or not."""
    return cpu_map.blocked | cpu_map.set_of(QEMU_DRIVER_HIDES)


@cache
def _level(gives: int, cpu_map: CpuMap) -> str | None:
    return level(frozenset(cpu_map.names(gives)))


@cache
def _by_polarity(vendor: str | None, cpu_map: CpuMap) -> list[tuple[str, int]]:
    """The features that each column counts; one that belongs to another vendor tells nothing of these hosts."""
    other = {"Intel": "AMD", "AMD": "Intel", "Hygon": "Intel"}.get(vendor or "")
    known = [meaning(name) for name in cpu_map.features]
    return [
        (column, cpu_map.set_of(m.feature for m in known if m.polarity == polarity and m.vendor != other))
        for polarity, column in _LOST_COLUMNS.items()
    ]
