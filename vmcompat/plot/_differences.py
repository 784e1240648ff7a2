"""What ``plot.twins`` shows, before anything is drawn: in each group the hosts folded that differ in the same ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, auto
from typing import Any, Final

import numpy as np

from vmcompat.baseline.answer import some
from vmcompat.baseline.meanings import meaning
from vmcompat.baseline.twins import Twins
from vmcompat.plot._fold import BLANK, States

EVIDENCE: Final = ("microcode", "bios_date", "libvirt", "qemu", "kernel")
"""Columns that may explain a difference, in the order in which they are drawn."""

_NAMES: Final = 3


class Twin(IntEnum):
    """Hosts of a group in one way in which it splits, or a column as evidence for it."""

    HAS = 0
    NO_CAPABILITY = auto()
    NO_CONTROL = auto()
    NO_IMMUNITY = auto()
    NO_HAZARD = auto()
    NO_NOISE = auto()
    USUAL = auto()
    OTHERWISE = auto()
    SOME = auto()
    EVIDENCE = auto()
    NO_EVIDENCE = auto()


RED: Final = (Twin.NO_CONTROL, Twin.NO_HAZARD)
"""What a planner must not overlook."""

_WORST_FIRST: Final = {
    "control": Twin.NO_CONTROL,
    "hazard": Twin.NO_HAZARD,
    "capability": Twin.NO_CAPABILITY,
    "immunity": Twin.NO_IMMUNITY,
    "noise": Twin.NO_NOISE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way in which a group splits.

    Attributes
    ----------
    text : str
        In what.
    state : Twin
        Of the hosts that differ.
    usual : Twin
        Of the others.
    hosts : tuple of str
        That differ.
    explained_by : tuple of str
    """

    text: str
    state: Twin
    usual: Twin
    hosts: tuple[str, ...]
    explained_by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Hosts that should be identical.

    Attributes
    ----------
    name : str
    n_hosts : int
    n_ways : int
        In how many ways they differ, drawn or not.
    ways : tuple of Way
        Those drawn.
    counts : tuple of int
        Of the hosts that are alike in all ways drawn, most hosts first.
    states : int8 array, way by hosts alike
        Members of :class:`Twin`.
    """

    name: str
    n_hosts: int
    n_ways: int
    ways: tuple[Way, ...]
    counts: tuple[int, ...]
    states: States = field(repr=False)


def fold_differences(twins: Twins, *, most_ways: int = 60, most_kinds: int = 12) -> list[Group]:
    """Groups in the order of the frame, with the hosts folded that differ in the same ways.

    Parameters
    ----------
    twins : Twins
    most_ways : int
        Where there are more, those of controls and hazards are kept, then those in which most hosts differ from a
        majority.
    most_kinds : int
        The smallest kinds of a group beyond it are one.
    """
    rows = twins.frame.to_dict("records")
    ways = [_way(row) for row in rows]
    minority = [min(len(way.hosts), int(row["n_hosts"]) - len(way.hosts)) for way, row in zip(ways, rows, strict=True)]
    order = sorted(range(len(ways)), key=lambda i: (ways[i].state not in RED, -minority[i]))
    kept = frozenset(order[:most_ways])
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row["group"], []).append(i)
    return [
        _group(name, int(rows[here[0]]["n_hosts"]), len(here), [ways[i] for i in here if i in kept], most_kinds)
        for name, here in groups.items()
        if kept.intersection(here)
    ]


def _way(row: Mapping[Any, Any]) -> Way:
    state, usual = Twin.OTHERWISE, Twin.USUAL
    if row["what"] == "features":
        state, usual = next(state for p, state in _WORST_FIRST.items() if p in row["polarities"]), Twin.HAS
        alarming = {"control", "hazard"}.intersection(row["polarities"])
        worst_first = sorted(row["features"], key=lambda f: meaning(f).polarity not in alarming)
        text = f"no {some(worst_first, _NAMES)}"
    elif row["what"] == "tsc_frequency":
        text = f"TSC {int(row['value']) / 1e6:,.3f} to {int(row['others']) / 1e6:,.3f} MHz"
    elif row["what"] == "maxphysaddr":
        text = f"{row['value']} address bits, the others {row['others']}"
    else:
        text = f"{row['what']} {row['value']}, the others {row['others']}"
    return Way(text=text, state=state, usual=usual, hosts=row["hosts"], explained_by=row["explained_by"])


def _group(name: str, n_hosts: int, n_ways: int, ways: Sequence[Way], most: int) -> Group:
    differing = [frozenset(way.hosts) for way in ways]
    named = list(dict.fromkeys(h for way in ways for h in way.hosts))
    signs = [tuple(h in hosts for hosts in differing) for h in named]
    alike: dict[tuple[bool, ...], int] = {tuple(False for _ in ways): n_hosts - len(named)}
    for sign in signs:
        alike[sign] = alike.get(sign, 0) + 1
    kinds = sorted(((n, sign) for sign, n in alike.items() if n), key=lambda kind: -kind[0])
    drawn, rest = (kinds, []) if len(kinds) <= most else (kinds[: most - 1], kinds[most - 1 :])
    states = np.full((len(ways), len(drawn) + bool(rest)), BLANK, dtype=np.int8)
    for i, way in enumerate(ways):
        states[i, : len(drawn)] = [way.state if sign[i] else way.usual for _, sign in drawn]
        if rest:
            here = {sign[i] for _, sign in rest}
            states[i, -1] = Twin.SOME if len(here) > 1 else way.state if here == {True} else way.usual
    counts = [n for n, _ in drawn] + ([sum(n for n, _ in rest)] if rest else [])
    return Group(name=name, n_hosts=n_hosts, n_ways=n_ways, ways=tuple(ways), counts=tuple(counts), states=states)
