"""Hosts that are alike, folded into kinds with their count; the rest is what each plot makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vmcompat.baseline.answer import some
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import CPU_STATUS

States: TypeAlias = NDArray[np.int8]

BLANK: Final = -1
"""State of a cell in a row or column that stands for many that are not drawn."""

_ROOM: Final = 36  # letters for names in the note of a row
_EVIDENCE: Final = ("libvirt", "microcode", "qemu", "bios_date", "kernel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Hosts that are alike, drawn as one row.

    Attributes
    ----------
    hosts : tuple of str
        In the fleet's order.
    note : str
        What kind they are: their model, or why their CPU is not known.
    folded : int
        How many kinds this row stands for; more than one where there are too many to draw.
    unknown : bool
        Their CPU is not known.
    """

    hosts: tuple[str, ...]
    note: str
    folded: int = 1
    unknown: bool = False

    @property
    def label(self) -> str:
        """The first host and how many more there are."""
        if self.folded > 1:
            return f"and {self.folded} more kinds, {len(self.hosts)} hosts"
        return self.hosts[0] + (f" +{len(self.hosts) - 1}" if len(self.hosts) > 1 else "")


def kinds_of(fleet: Fleet, hosts: Sequence[str], table: States) -> list[tuple[Kind, int]]:
    """Hosts of one model whose rows are equal, with the row of the first; models in the order of their first hosts."""
    models = fleet.hosts.loc[list(hosts), "model"].tolist()
    alike: dict[str, dict[bytes, list[int]]] = {}
    for i, model in enumerate(models):
        alike.setdefault(model, {}).setdefault(table[i].tobytes(), []).append(i)
    kinds = []
    for model, rows in alike.items():
        members = [tuple(hosts[i] for i in same) for same in rows.values()]
        facts = _apart(fleet, members) if len(members) > 1 else [""]
        for same, names, fact in zip(rows.values(), members, facts, strict=True):
            kinds.append((Kind(hosts=names, note=f"{model}{fact}"), same[0]))
    return kinds


def _apart(fleet: Fleet, members: Sequence[tuple[str, ...]]) -> list[str]:
    """By which columns of ``fleet.hosts`` kinds of one model differ: the first that tell them apart, at most two."""
    facts = [""] * len(members)
    keys: list[tuple[str, ...]] = [()] * len(members)
    used = 0
    for column in (c for c in _EVIDENCE if c in fleet.hosts.columns):
        known = fleet.hosts[column].dropna().to_dict()
        values = [_in_short(column, [known[name] for name in names if name in known]) for names in members]
        finer = [(*key, value) for key, value in zip(keys, values, strict=True)]
        if len(set(finer)) > len(set(keys)) and used < 2:
            facts = [f"{fact}, {column} {v}" if v else fact for fact, v in zip(facts, values, strict=True)]
            keys, used = finer, used + 1
    return facts


def _in_short(column: str, values: Sequence[object]) -> str:
    texts = [f"{v:#x}" if column == "microcode" else str(v) for v in dict.fromkeys(values)]
    return "/".join(texts) if len(texts) <= 2 else f"{texts[0]} and {len(texts) - 1} others"


def groups_of(fleet: Fleet, by: str) -> list[tuple[str, tuple[str, ...]]]:
    """All hosts by their value in a column, those without one as a group of their own; most hosts first.

    Raises
    ------
    FrameError
        The fleet has no host, or no such column.
    """
    if not len(fleet):
        raise FrameError("a fleet without hosts: there is nothing to draw")
    if by not in fleet.hosts.columns:
        raise FrameError(f"no column {by!r} to group by; columns: {', '.join(fleet.hosts.columns)}")
    column = fleet.hosts[by]
    parts: dict[str, list[str]] = {}
    for host, value, missing in zip(fleet.names, column, column.isna(), strict=True):
        parts.setdefault(f"no {by}" if missing else str(value), []).append(host)
    return sorted(((name, tuple(hosts)) for name, hosts in parts.items()), key=lambda part: -len(part[1]))


def largest(kinds: Sequence[Kind], most: int, *, first: Mapping[str, int] | None = None) -> frozenset[Kind]:
    """The kinds of most hosts; before these the ones whose hosts are marked ``first``; of equal ones the first."""
    marks = first or {}
    order = sorted(kinds, key=lambda kind: (not marks.get(kind.hosts[0], 0), -len(kind.hosts)))
    return frozenset(order[:most])


def capped(part: Sequence[tuple[Kind, int]], kept: frozenset[Kind]) -> tuple[tuple[Kind, ...], list[int]]:
    """The kinds of a block that are drawn, then one for the others; rows of the former."""
    others = [kind for kind, _ in part if kind not in kept]
    if len(others) < 2:
        return tuple(kind for kind, _ in part), [i for _, i in part]
    hosts = tuple(h for kind in others for h in kind.hosts)
    drawn = [(kind, i) for kind, i in part if kind in kept]
    return (*(kind for kind, _ in drawn), Kind(hosts=hosts, note="", folded=len(others))), [i for _, i in drawn]


def unknown_kinds(fleet: Fleet) -> tuple[Kind, ...]:
    """Hosts whose CPU is not known, one kind a reason."""
    status = fleet.hosts["cpu_status"]
    return tuple(
        Kind(hosts=tuple(part.index), note=CPU_STATUS[str(reason)], unknown=True)
        for reason, part in status[status != "ok"].groupby(status, sort=False)
    )


def fitting(names: Sequence[str]) -> str:
    """The first names that a note has room for, at least one, and how many more there are."""
    most = max(1, sum(length <= _ROOM for length in accumulate(len(name) + 2 for name in names)))
    return some(names, most)


def count(n: int, one: str, many: str | None = None) -> str:
    """A number with its noun."""
    return f"{n} {one if n == 1 else many or one + 's'}"
