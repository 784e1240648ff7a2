"""What ``plot.loss`` shows, before anything is drawn: what hosts give up for a baseline, counted by meaning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vmcompat.baseline.common import Baseline
from vmcompat.baseline.meanings import GROUPS, meaning
from vmcompat.plot._fold import Kind, capped, largest
from vmcompat.plot._offers import RED, Offer, losses_of

KINDS_OF_LOSS: Final[Mapping[int, str]] = {
    Offer.CONTROL_LOST: "controls",
    Offer.HAZARD_LOST: "hazards",
    Offer.IMMUNITY_LOST: "immunities",
    Offer.CAPABILITY_LOST: "capabilities",
    Offer.NOISE_LOST: "no use",
}
"""What a planner must not overlook first; safety before speed before what is of no use to these guests."""

_REASONS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class LossColumn:
    """Lost features of one polarity and one group of meaning."""

    state: Offer
    group: str
    features: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTable:
    """What ``plot.loss`` draws.

    Attributes
    ----------
    columns : tuple of LossColumn
    kinds : tuple of Kind
        Hosts of one model that lose the same, those first that lose most controls, then hazards and so on.
    counts : int array, kind by column
        How many features they lose; of a kind that stands for many the most that any of them loses.
    red : tuple of tuple of str, one a kind
        The controls and hazards among them.
    totals : int array, one a column
        How many different features any host loses.
    losers : mapping of Offer to int
        How many hosts lose any.
    left_out : tuple of Kind
        All hosts, once for each reason for which a feature is left out that no host is known to lack: the reason.
    left_out_counts : int array, reason by column
    """

    columns: tuple[LossColumn, ...]
    kinds: tuple[Kind, ...]
    counts: NDArray[np.int64] = field(repr=False)
    red: tuple[tuple[str, ...], ...]
    totals: NDArray[np.int64] = field(repr=False)
    losers: Mapping[Offer, int]
    left_out: tuple[Kind, ...]
    left_out_counts: NDArray[np.int64] = field(repr=False)


def fold_losses(baseline: Baseline, *, most_kinds: int = 40) -> LossTable:
    """Hosts by meaning of what they lose, with hosts folded that are of one model and lose the same.

    Parameters
    ----------
    baseline : Baseline
    most_kinds : int
        The kinds of most hosts are kept; the last row stands for the others.

    Returns
    -------
    LossTable
    """
    lost = baseline.lost
    named = [str(f) for f in lost["feature"].drop_duplicates()]
    dropped = dict(zip(baseline.dropped["feature"], baseline.dropped["reason"], strict=True))
    vendor = baseline.vendor or baseline.members[0].cpu.vendor or baseline.members[0].model_vendor
    every = [*named, *dropped]
    states = dict(zip(every, losses_of(every, vendor), strict=True))
    columns = _columns(named, every, states)
    of_host: dict[str, list[str]] = {h: [] for h in baseline.hosts}
    for host, feature in zip(lost["host"], lost["feature"], strict=True):
        of_host[host].append(feature)
    alike: dict[tuple[str | None, tuple[str, ...]], list[str]] = {}
    for m in baseline.members:
        alike.setdefault((m.cpu.model, tuple(of_host[m.host])), []).append(m.host)
    counts = np.array([_counts(features, columns) for _, features in alike], dtype=np.int64).reshape(
        len(alike), len(columns)
    )
    by_state = np.array([[_of(row, columns, s) for s in KINDS_OF_LOSS] for row in counts])
    order = np.lexsort((np.arange(len(alike)), *-by_state.T[::-1])).tolist()
    patterns = list(alike.items())
    part = [(_kind(patterns[i][0][0], patterns[i][1]), i) for i in order]
    kinds, drawn = capped(part, largest([kind for kind, _ in part], most_kinds))
    kept, red = counts[drawn], [_red(patterns[i][0][1], states) for i in drawn]
    if len(kinds) > len(drawn):
        rest = sorted(set(range(len(alike))) - set(drawn))
        kept = np.vstack([kept, counts[rest].max(axis=0)])
        red.append(())
    losers = {s: sum(any(states[f] == s for f in features) for features in of_host.values()) for s in KINDS_OF_LOSS}
    left_out, left_out_counts = _left_out(baseline.hosts, dropped, columns)
    return LossTable(
        columns=columns,
        kinds=kinds,
        counts=kept,
        red=tuple(red),
        totals=np.array(_counts(named, columns), dtype=np.int64),
        losers={Offer(s): n for s, n in losers.items() if n},
        left_out=left_out,
        left_out_counts=left_out_counts,
    )


def _columns(lost: Sequence[str], every: Sequence[str], states: Mapping[str, Offer]) -> tuple[LossColumn, ...]:
    """What is lost in the order of `KINDS_OF_LOSS`; after it the columns of what is only left out."""
    groups: dict[tuple[Offer, str], set[str]] = {}
    for name in every:
        groups.setdefault((states[name], meaning(name).group), set()).add(name)
    order = list(KINDS_OF_LOSS)
    keys = sorted(groups, key=lambda key: (order.index(key[0]), GROUPS.index(key[1])))
    return tuple(LossColumn(state=s, group=g, features=frozenset(groups[s, g])) for s, g in keys)


def _counts(features: Sequence[str], columns: Sequence[LossColumn]) -> list[int]:
    names = frozenset(features)
    return [len(names & column.features) for column in columns]


def _of(row: NDArray[np.int64], columns: Sequence[LossColumn], state: int) -> int:
    return int(sum(n for n, column in zip(row, columns, strict=True) if column.state == state))


def _kind(model: str | None, hosts: Sequence[str]) -> Kind:
    return Kind(hosts=tuple(hosts), note=model or "no model")


def _red(features: Sequence[str], states: Mapping[str, Offer]) -> tuple[str, ...]:
    return tuple(f for f in features if states[f] in RED)


def _left_out(
    hosts: tuple[str, ...], dropped: Mapping[str, str], columns: Sequence[LossColumn]
) -> tuple[tuple[Kind, ...], NDArray[np.int64]]:
    """The reasons of most features, and one row for all others."""
    of_reason: dict[str, list[str]] = {}
    for feature, reason in dropped.items():
        of_reason.setdefault(reason, []).append(feature)
    common = [reason for reason, _ in Counter(dropped.values()).most_common()]
    shown = common if len(common) <= _REASONS else common[: _REASONS - 1]
    rows = [(reason, of_reason[reason], 1) for reason in shown]
    if rest := common[len(shown) :]:
        rows.append((f"{len(rest)} other reasons", [f for reason in rest for f in of_reason[reason]], len(rest)))
    kinds = tuple(Kind(hosts=hosts, note=reason, folded=n) for reason, _, n in rows)
    counts = np.array([_counts(features, columns) for _, features, _ in rows], dtype=np.int64)
    return kinds, counts.reshape(len(rows), len(columns))
