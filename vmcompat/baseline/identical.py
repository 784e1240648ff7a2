"""Hosts that are strictly identical, which are not, and of which that cannot be known."""

from __future__ import annotations

import html
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any, Final, NamedTuple

import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.errors import FrameError
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import Reading
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import CPU_STATUS, IDENTICAL, ONE_APART, frame

_DEFAULT: Final = ("features", "address bits", "tsc", "qemu")
_COLUMNS: Final = {"address bits": "maxphysaddr"}
TSC_TOLERANCE: Final = 250  # parts per million that libvirt and QEMU allow a fixed TSC frequency to be off
_EVIDENCE: Final = ("microcode", "maxphysaddr", "qemu", "libvirt", "kernel", "bios_date")
_SHOWN: Final = 4


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Identical:
    """Which hosts of a fleet are identical.

    Attributes
    ----------
    frame : DataFrame
        One row for hosts alike in all that is known: columns of ``schema.IDENTICAL``; index ``class``, the name of the
        first of them. Most hosts first.
    apart : DataFrame
        Classes that would be one but for a single setting: columns of ``schema.ONE_APART``.
    label : Series
        Index ``host``, in the order of the fleet: the class of each host. Hosts with the same label are known to be
        identical; one of which something is not known has a label of its own.
    by : tuple of str
        What was compared.
    view : str
        Of the fleet.
    """

    frame: pd.DataFrame
    apart: pd.DataFrame
    label: pd.Series
    by: tuple[str, ...]
    view: str

    def explain(self) -> list[str]:
        """One sentence a row of :attr:`frame`."""
        nearest = {row["class"]: row for row in reversed(self.apart.to_dict("records"))}
        members: dict[str, tuple[str, ...]] = dict(zip(self.frame.index, self.frame["hosts"], strict=True))
        rows = zip(self.frame.index, self.frame.to_dict("records"), strict=True)
        return [_sentence(row, self._claim(), nearest.get(label), members) for label, row in rows]

    def _claim(self) -> str:
        """What follows for hosts of one class."""
        left_out = [what for what in _DEFAULT if what not in self.by]
        if left_out:
            return f"are alike in {', '.join(self.by)}; {', '.join(left_out)} not compared"
        if self.view == "host":
            return "are identical hosts; what their hypervisors give a guest was not compared"
        return "are identical: host-model is safe across power cycles among them"

    def __repr__(self) -> str:
        classes = self.frame.loc[self.frame["is_known"] & (self.frame["n_hosts"] > 1), "n_hosts"]
        unknown = self.frame.loc[~self.frame["is_known"], "n_hosts"].sum()
        return (
            f"<Identical by {', '.join(self.by)}: {classes.sum()} of {len(self.label)} hosts in {len(classes)} classes"
            f"{f', {unknown} hosts not known' if unknown else ''}; {self.view} view>"
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + self.frame.to_html(border=0, na_rep="")


class _Cpu(NamedTuple):
    """What a guest with host-model is given of a host, and how much of it its document can say."""

    kind: tuple[Hashable, ...]
    offered: int
    beyond: frozenset[str]
    reported: int


class _Class(NamedTuple):
    """Hosts alike in all that is known of them; ``clock`` are the lowest and the highest TSC frequency."""

    hosts: list[int]
    facts: tuple[Hashable, ...]
    clock: tuple[int, int] | None


def identical(fleet: Fleet, *, by: str | Sequence[str] = _DEFAULT) -> Identical:
    """Finds the classes of strictly identical hosts.

    Only among such hosts is host-model safe across power cycles: a guest that starts on any of them gets the same CPU,
    and can go to all others.

    Parameters
    ----------
    fleet : Fleet
        In the hypervisor view, where features are what a guest with host-model gets.
    by : str or sequence of str
        What has to be the same: "features" (architecture, vendor, model and every feature, those that cannot be
        migrated or that the CPU map does not know among them), "address bits", "tsc", "qemu", and any column of
        ``fleet.hosts``, such as "libvirt" or "machines".

    Returns
    -------
    Identical
        What is not known is never the same: hosts whose libvirts can report different features, hosts without address
        bits, a TSC frequency or a QEMU version are in no class with others; ``frame`` says which would be identical but
        for that. Microcode is evidence and no identity: it is shown and not compared.

    Raises
    ------
    FrameError
        ``by`` names nothing, or something that is no column.

    Notes
    -----
    TSC frequencies are measured at each boot and differ by some parts per million between two boots of one host, so
    that equality to the Hz would tell a host from itself. Here they are the same where *every two* hosts of a class are
    within the 250 ppm that libvirt and QEMU allow, and scale alike. Being within it is not transitive: of hosts alike
    in all else the largest such set is a class, the lowest frequencies where several are as large, and so on with those
    left. Two hosts of different classes can thus be within 250 ppm of one another; two of one class always are.

    A document whose libvirt is not known is taken to say all that the fleet's CPU map knows; name the versions in the
    column libvirt of ``hosts.csv``.

    Linear in the hosts but for those of which something is not known: the square of the number of their kinds.

    Examples
    --------
    >>> import vmcompat as vc
    >>> fleet = vc.read_fleet("sample_caps/mixed").select("rack == 'ams-r4' and libvirt == '11.3.0'")
    >>> for sentence in vc.identical(fleet).explain():
    ...     print(sentence)
    ams-r4-h04, ams-r4-h06 (Icelake-Server) are identical: host-model is safe across power cycles among them
    ams-r4-h05 (Icelake-Server) would join ams-r4-h04, ams-r4-h06 but for address bits 46 instead of 52
    """
    asked = (by,) if isinstance(by, str) else tuple(dict.fromkeys(by))
    strange = [what for what in asked if what not in _DEFAULT and what not in fleet.hosts.columns]
    if strange or not asked:
        raise FrameError(
            f"by={by!r} names {f'no column {strange[0]!r}' if strange else 'nothing to compare'}; give some of "
            f"{', '.join(_DEFAULT)} or columns: {', '.join(fleet.hosts.columns)}"
        )
    classes = _classes(fleet, asked)
    names = [fleet.names[c.hosts[0]] for c in classes]
    label = pd.Series(fleet.names, index=fleet.hosts.index, dtype="str", name="identical")
    for c, name in zip(classes, names, strict=True):
        if None not in c.facts:
            label.iloc[c.hosts] = name
    known = [i for i, c in enumerate(classes) if None not in c.facts]
    return Identical(
        frame=frame(IDENTICAL, _rows(fleet, classes, names, asked), index=pd.Index(names, dtype="str", name="class")),
        apart=frame(ONE_APART, _apart([classes[i] for i in known], [names[i] for i in known], asked, fleet.cpu_map)),
        label=label,
        by=asked,
        view=fleet.view,
    )


def _classes(fleet: Fleet, by: Sequence[str]) -> list[_Class]:
    """Hosts alike in all that is known, most first."""
    columns = [_facts(fleet, what) for what in by]
    alike: dict[tuple[tuple[Hashable, ...], int | None], list[int]] = {}
    for i, facts in enumerate(zip(*columns, strict=True)):
        unknown_cpu = "features" in by and facts[by.index("features")] is None
        alike.setdefault((facts, i if unknown_cpu else None), []).append(i)
    clocks = fleet.hosts["tsc_frequency"].tolist()
    classes = []
    for (facts, _), hosts in alike.items():
        if "tsc" in by and facts[by.index("tsc")] is not None:
            for part in _same_clock(hosts, clocks):
                frequencies = [clocks[i] for i in part]
                classes.append(_Class(part, facts, (min(frequencies), max(frequencies))))
        else:
            classes.append(_Class(hosts, facts, None))
    return sorted(classes, key=lambda c: (-len(c.hosts), c.hosts[0]))


def _facts(fleet: Fleet, what: str) -> list[Hashable]:
    """What is known of each host, None where it is not."""
    if what == "features":
        archs = fleet.hosts["arch"].tolist()
        return [_cpu(x, arch) if x.status == "ok" else None for x, arch in zip(fleet.readings, archs, strict=True)]
    if what == "tsc":
        known = fleet.hosts["tsc_frequency"].notna()
        scaling = fleet.hosts["tsc_scaling"].where(known)
        return [None if pd.isna(v) else bool(v) for v in scaling]
    values = fleet.hosts[_COLUMNS.get(what, what)]
    return [v or None if isinstance(v, tuple) else None if pd.isna(v) else v for v in values.tolist()]


def _cpu(x: Reading, arch: str) -> _Cpu:
    assert x.cpu is not None
    return _Cpu((arch, x.cpu.vendor or x.model_vendor, x.cpu.model), x.offered, x.beyond, x.reported)


def _within(lowest: int, highest: int) -> bool:
    return highest - lowest <= lowest * TSC_TOLERANCE // 1_000_000


def _same_clock(hosts: Iterable[int], clocks: Sequence[int]) -> Iterator[list[int]]:
    """The hosts in sets of which every two have frequencies within the tolerance: the largest first."""
    left = sorted(hosts, key=lambda i: clocks[i])
    while left:
        start = best = end = 0
        for at, i in enumerate(left):
            while not _within(clocks[left[start]], clocks[i]):
                start += 1
            if at + 1 - start > end - best:
                best, end = start, at + 1
        yield sorted(left[best:end])
        left = left[:best] + left[end:]


def _rows(fleet: Fleet, classes: Sequence[_Class], names: Sequence[str], by: Sequence[str]) -> Iterator[dict[str, Any]]:
    """See ``schema.IDENTICAL``."""
    columns = {c: fleet.hosts[c].tolist() for c in ("arch", "vendor", "model", *_EVIDENCE) if c in fleet.hosts}
    for c, others in zip(classes, _perhaps(classes, by), strict=True):
        unknown = tuple(what for what, fact in zip(by, c.facts, strict=True) if fact is None)
        silent = {f for j in others for f in _unreported(c, classes[j], by, fleet.cpu_map)}
        seen = {column: {v for i in c.hosts if not pd.isna(v := values[i])} for column, values in columns.items()}
        yield {
            "n_hosts": len(c.hosts),
            "is_known": not unknown,
            "hosts": tuple(fleet.names[i] for i in c.hosts),
            "cpu_status": fleet.readings[c.hosts[0]].status,
            **{what: next(iter(seen[what])) for what in ("arch", "vendor", "model") if len(seen[what]) == 1},
            "unknown": unknown,
            "perhaps": tuple(names[j] for j in others),
            "unreported": tuple(n for n in fleet.cpu_map.features if n in silent),
            **{what: tuple(sorted(seen[what])) for what in _EVIDENCE if what in seen},
        }


def _perhaps(classes: Sequence[_Class], by: Sequence[str]) -> list[list[int]]:
    """For each class the others that nothing known tells it from, though something is not known."""
    found: list[list[int]] = [[] for _ in classes]
    buckets: dict[Hashable, list[int]] = {}
    at = by.index("features") if "features" in by else None
    for i, c in enumerate(classes):
        cpu = None if at is None else c.facts[at]
        if at is None or cpu is not None:
            buckets.setdefault(cpu.kind if isinstance(cpu, _Cpu) else None, []).append(i)
    for bucket in buckets.values():
        for i, j in combinations(bucket, 2):
            if _may_be_one(classes[i], classes[j]):
                found[i].append(j)
                found[j].append(i)
    return [sorted(others) for others in found]


def _may_be_one(a: _Class, b: _Class) -> bool:
    """Whether nothing known tells them apart; two classes of which all is known and reported alike are told apart."""
    for mine, theirs in zip(a.facts, b.facts, strict=True):
        if mine is None or theirs is None or mine == theirs:
            continue
        if not (isinstance(mine, _Cpu) and isinstance(theirs, _Cpu)):
            return False
        differ = (mine.offered ^ theirs.offered) & mine.reported & theirs.reported
        if mine.reported == theirs.reported or mine.kind != theirs.kind or differ:
            return False
    return _clocks_agree(a, b)


def _clocks_agree(a: _Class, b: _Class) -> bool:
    if a.clock is None or b.clock is None:
        return True
    return _within(min(a.clock[0], b.clock[0]), max(a.clock[1], b.clock[1]))


def _unreported(a: _Class, b: _Class, by: Sequence[str], cpu_map: CpuMap) -> list[str]:
    """Features that one of them offers and the libvirt of the other has no name for; without any, those not offered."""
    if "features" not in by:
        return []
    mine, theirs = (c.facts[by.index("features")] for c in (a, b))
    assert isinstance(mine, _Cpu)
    assert isinstance(theirs, _Cpu)
    silent = mine.reported ^ theirs.reported
    return cpu_map.names(silent & (mine.offered | theirs.offered) or silent)


def _apart(
    classes: Sequence[_Class], names: Sequence[str], by: Sequence[str], cpu_map: CpuMap
) -> Iterator[dict[str, Any]]:
    """See ``schema.ONE_APART``: each class beside the largest that it would join."""
    pairs: list[tuple[int, int, int]] = []
    for k, what in enumerate(by):
        buckets: dict[Hashable, list[int]] = {}
        for i, c in enumerate(classes):
            fact = c.facts[k]
            kept = (fact.kind, fact.reported) if isinstance(fact, _Cpu) else None
            buckets.setdefault((*c.facts[:k], kept, *c.facts[k + 1 :]), []).append(i)
        for bucket in buckets.values():
            for place, i in enumerate(bucket):
                larger = (j for j in bucket[:place] if what == "tsc" or _clocks_agree(classes[i], classes[j]))
                pairs += ((i, j, k) for j in islice(larger, 1))
    for i, j, k in sorted(pairs):
        yield {"class": names[i], "other": names[j], "what": by[k]} | _difference(classes[i], classes[j], k, cpu_map)


def _difference(a: _Class, b: _Class, k: int, cpu_map: CpuMap) -> dict[str, Any]:
    """In words what is here and there; for features those that only one of them offers."""
    mine, theirs = a.facts[k], b.facts[k]
    if isinstance(mine, _Cpu) and isinstance(theirs, _Cpu):
        return {
            "adds": (*cpu_map.names(mine.offered & ~theirs.offered), *sorted(mine.beyond - theirs.beyond)),
            "lacks": (*cpu_map.names(theirs.offered & ~mine.offered), *sorted(theirs.beyond - mine.beyond)),
        }
    return {"here": _text(mine, a.clock), "there": _text(theirs, b.clock)}


def _text(fact: Hashable, clock: tuple[int, int] | None) -> str:
    if isinstance(fact, bool) and clock is not None:
        lowest, highest = clock
        span = f"{lowest}" if lowest == highest else f"{lowest} to {highest}"
        return f"{span} Hz ({'scaling' if fact else 'not scaling'})"
    return ", ".join(map(str, fact)) if isinstance(fact, tuple) else str(fact)


def _sentence(
    row: Mapping[Hashable, Any],
    claim: str,
    nearest: Mapping[Hashable, Any] | None,
    members: Mapping[str, Sequence[str]],
) -> str:
    hosts, several = row["hosts"], len(row["hosts"]) > 1
    who = _named(hosts, row["model"])
    if "features" in row["unknown"]:
        return f"{who} is not known to be identical to any other host: {CPU_STATUS[row['cpu_status']]}"
    if row["unknown"]:
        what = f"{', '.join(row['unknown'])} not known"
        text = f"{who} {'are' if several else 'is'} not known to be identical to any other host: {what}"
        if several:
            text = f"{who} are alike, but not known to be identical: {what}"
    elif several:
        text = f"{who} {claim}"
        differing = [(what, row[what]) for what in _EVIDENCE if len(row[what]) > 1]
        if differing:
            text += f"; they differ in {', '.join(f'{what} ({_values(what, values)})' for what, values in differing)}"
    else:
        text = f"{who} is {'not known to be identical to any' if row['perhaps'] else 'identical to no'} other host"
    if nearest is not None:
        there = f"join {_named(members[nearest['other']])} but for {_but_for(nearest)}"
        text = f"{text}; they would {there}" if several else f"{who} would {there}"
    if row["perhaps"]:
        others = [h for label in row["perhaps"] for h in members[label]]
        text += f"; nothing known tells {'them' if several else 'it'} from {_named(others)}"
        if row["unreported"]:
            text += f", though not all of their libvirts can report {some(row['unreported'], 3)}"
    return text


def _named(hosts: Sequence[str], model: object = None) -> str:
    known = isinstance(model, str)
    if len(hosts) <= _SHOWN:
        return ", ".join(hosts) + (f" ({model})" if known else "")
    return f"{len(hosts)} {f'{model} ' if known else ''}hosts ({some(hosts, _SHOWN - 1)})"


def _values(what: str, values: Sequence[Any]) -> str:
    return some([f"{v:#x}" if what == "microcode" else str(v) for v in values])


def _but_for(apart: Mapping[Hashable, Any]) -> str:
    if apart["what"] != "features":
        return f"{apart['what']} {apart['here']} instead of {apart['there']}"
    parts = (("having", apart["adds"]), ("lacking", apart["lacks"]))
    return " and ".join(f"{verb} {some(names)}" for verb, names in parts if names)
