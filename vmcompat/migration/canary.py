"""Whether guests still come and go once the first hosts are upgraded."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.errors import FrameError
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import Reading, read_cpu
from vmcompat.fleet.frames import Fleet
from vmcompat.fleet.sources import HostRecord
from vmcompat.migration.domains import DomainRecord, Domains
from vmcompat.migration.preflight import CHECKS
from vmcompat.migration.reach import Reachability, bits_of, reachability
from vmcompat.schema import CANARY, frame

_AS_THE_HOST: Final = ("host-model", "host-passthrough", "maximum")
# A manager's guest comes and goes as well, by other commands; and what a power cycle brings is looked at here in full.
_BESIDE: Final = ("OWNER", "HOST_MODEL")
_REMEDY: Final = "store a baseline of all hosts in its definition before it is started there: vc.apply_baseline"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Canary:
    """What the upgrade of some hosts means for guests. Made by :func:`canary`.

    Attributes
    ----------
    frame : DataFrame
        One row a guest: columns of ``schema.CANARY``, index ``domain``.
    upgraded : tuple of str
        Hosts whose documents changed.
    unread : tuple of str
        Those of them whose CPU is not known now.
    """

    frame: pd.DataFrame
    upgraded: tuple[str, ...]
    unread: tuple[str, ...]

    @property
    def go(self) -> bool | None:
        """Whether the other hosts may follow: False where a guest would be cut off, None where that cannot be told."""
        if (self.frame["verdict"] == "no").any():
            return False
        return None if self.unread or (self.frame["verdict"] == "unknown").any() else True

    def explain(self) -> list[str]:
        """Go or no-go in a sentence, and one for each reason with the guests that it concerns."""
        answer = {True: "go", False: "no-go", None: "cannot tell"}[self.go]
        counts = self.frame["verdict"].value_counts()
        numbers = ", ".join(f"{counts.get(v, 0)} {v}" for v in ("ok", "no", "unknown"))
        told = [f"{answer}: {some(self.upgraded) or 'no host'} upgraded, {len(self.frame)} guests: {numbers}"]
        if self.unread:
            told.append(f"the CPU of {some(self.unread)} is not known from the new documents: fetch them again")
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name, row in self.frame[self.frame["verdict"] != "ok"].iterrows():
            groups.setdefault((row["verdict"], row["evidence"], row["remedy"]), []).append(str(name))
        for (_, evidence, remedy), names in sorted(groups.items(), key=lambda item: item[0][0] != "no"):
            told.append(f"{some(names)}: {evidence}. To do: {remedy}")
        return told

    def __repr__(self) -> str:
        answer = {True: "go", False: "no-go", None: "cannot tell"}[self.go]
        n_one_way = int(self.frame["one_way"].sum())
        return f"<Canary {some(self.upgraded)}: {answer}; {n_one_way} of {len(self.frame)} guests one-way>"

    def _repr_html_(self) -> str:
        shown = self.frame[self.frame["verdict"] != "ok"]
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + shown.to_html(border=0, max_rows=20, na_rep="")


def canary(before: Fleet, after: Fleet, domains: Domains) -> Canary:
    """Compares a fleet with the documents of its first upgraded hosts: which guests would be cut off.

    Parameters
    ----------
    before : Fleet
        All hosts as they were.
    after : Fleet
        The upgraded hosts, or all; hosts whose documents did not change count as not upgraded.
    domains : Domains
        As they were; a guest that has moved since is on the host that it was on.

    Returns
    -------
    Canary
        A guest is *no* where it can no longer go to hosts that it could reach (its own or the target's documents
        changed), or where it could go to an upgraded host and a power cycle there would give it features that the
        hosts lack to which it would return, which the old documents did not: host-model and host-passthrough take
        what there is. *unknown* where either cannot be told, for one where a libvirt has no name for such a feature.
        A manager's guest is judged as any other.

    Raises
    ------
    FrameError
        ``after`` has a host that ``before`` has not.

    Examples
    --------
    >>> import vmcompat as vc
    >>> fleet = vc.read_fleet("sample_caps/mixed")
    >>> vc.canary(fleet, fleet["ams-r1-h01"], vc.read_domains("sample_caps/mixed/domains")).upgraded
    ()
    """
    now = _merged(before, after)
    changed = [i for i, (a, b) in enumerate(zip(before.records, now.records, strict=True)) if _differ(a, b)]
    views = _Views(reachability(domains, before), reachability(domains, now), changed)
    rows = [_row(g, record, views) for g, record in enumerate(domains.records)]
    unread = [i for i in changed if views.reading(now, i, "kvm").status != "ok"]
    return Canary(
        frame=frame(CANARY, rows, index=pd.Index(domains.names, dtype="str", name="domain")),
        upgraded=tuple(before.names[i] for i in changed),
        unread=tuple(before.names[i] for i in unread),
    )


def _merged(before: Fleet, after: Fleet) -> Fleet:
    if strange := [n for n in after.names if n not in before.names]:
        raise FrameError(f"{some(strange)}: not in the fleet as it was; upgraded hosts keep their names")
    records = dict(zip(after.names, after.records, strict=True))
    readings = dict(zip(after.names, after.readings, strict=True))
    return replace(
        before,
        records=tuple(records.get(r.name, r) for r in before.records),
        readings=tuple(readings.get(n, x) for n, x in zip(before.names, before.readings, strict=True)),
    )


def _differ(old: HostRecord, new: HostRecord) -> bool:
    told = [({(d.kind, d.sha256) for d in r.documents}, r.unreadable, r.libvirt, r.qemu) for r in (old, new)]
    return told[0] != told[1]


class _Views:
    """Both looks at the fleet, and what its hosts give, by type of guest."""

    def __init__(self, before: Reachability, after: Reachability, changed: Sequence[int]) -> None:
        self.before, self.after, self.changed = before, after, changed
        self._readings: dict[tuple[int, int, str], Reading] = {}

    def reading(self, fleet: Fleet, host: int, virttype: str) -> Reading:
        key = (id(fleet), host, virttype)
        if key not in self._readings:
            record = fleet.records[host]
            self._readings[key] = read_cpu(
                record, view="hypervisor", virttype=virttype, cpu_map=CpuMap.load(), strict=False
            )
        return self._readings[key]

    def verdicts(self, reach: Reachability, guest: int) -> np.ndarray[Any, np.dtype[np.int_]]:
        """0 yes, 1 unknown, 2 no for each host; -1 for the guest's own."""
        matters = np.uint64(bits_of(name for name in CHECKS if name not in _BESIDE))
        no, unknown = reach.no[guest] & matters, reach.unknown[guest] & matters
        found = np.where(no > 0, 2, np.where(unknown > 0, 1, 0))
        if reach.own[guest] >= 0:
            found[reach.own[guest]] = -1
        return found


class _Door(NamedTuple):
    """What a power cycle on an upgraded host would give beyond where the guest returns to."""

    gained: int
    silent: int
    known: bool


def _row(guest: int, record: DomainRecord, views: _Views) -> dict[str, Any]:
    old, new = views.verdicts(views.before, guest), views.verdicts(views.after, guest)
    hosts = views.before.fleet.names
    lost = np.flatnonzero(((old == 0) | (old == 1)) & (new == 2)).tolist()
    unsure = np.flatnonzero((old == 0) & (new == 1)).tolist()
    row: dict[str, Any] = {"host": record.host, "n_before": int((old == 0).sum()), "n_after": int((new == 0).sum())}
    own = int(views.before.own[guest])
    concerned = [i for i in views.changed if i == own or new[i] in (0, 1) or old[i] in (0, 1)]
    entered = [i for i in views.changed if i == own or new[i] == 0]
    doors = _doors(record, entered, own, old, views)
    one_way = [i for i, (was, now) in doors.items() if now.gained and not was.gained]
    silent = [i for i, (was, now) in doors.items() if i not in one_way and not now.gained and (
        not now.known or now.silent & ~was.silent)]  # fmt: skip
    gained = _union(doors[i][1].gained for i in one_way)
    row |= {
        "verdict": "no" if lost or one_way else "unknown" if unsure or silent else "ok",
        "one_way": bool(one_way),
        "upgraded": tuple(hosts[i] for i in concerned),
        "missing": tuple(CpuMap.load().names(gained)),
        "lost": tuple(hosts[i] for i in lost),
    }
    told, todo = [], []
    if lost:
        why, remedies = _why(views.after, guest, lost[0])
        told.append(f"it can no longer go to {some([hosts[i] for i in lost])} ({why})")
        todo.append(f"move it before the upgrade, or: {remedies}")
    if one_way:
        back = _back(own, one_way, old, hosts)
        told.append(f"after a power cycle on {some([hosts[i] for i in one_way])} it has "
                    f"{some(CpuMap.load().names(gained), most=8)} and cannot go back to {back}")  # fmt: skip
        todo.append(_REMEDY)
    if not (lost or one_way) and (unsure or silent):
        names = CpuMap.load().names(_union(doors[i][1].silent for i in silent))
        if unsure:
            why, remedies = _why(views.after, guest, unsure[0])
            told.append(f"whether it can still go to {some([hosts[i] for i in unsure])} cannot be told ({why})")
            todo.append(remedies)
        if silent:
            what = f"the libvirt there has no name for {some(names)}" if names else "a CPU is not known"
            told.append(f"whether it comes back to {_back(own, silent, old, hosts)} after a power cycle on "
                        f"{some([hosts[i] for i in silent])} cannot be told: {what}")  # fmt: skip
            todo.append(_REMEDY)
    return row | {"evidence": "; ".join(told), "remedy": "; ".join(todo)}


def _why(reach: Reachability, guest: int, host: int) -> tuple[str, str]:
    found = [(name, verdict) for name, verdict in reach.obstacles(guest, host) if name not in _BESIDE]
    evidence = "; ".join(f"{name}: {verdict.evidence}" for name, verdict in found)
    return evidence, "; ".join(dict.fromkeys(verdict.remedy for _, verdict in found))


def _doors(
    record: DomainRecord, entered: Sequence[int], own: int, old: np.ndarray[Any, np.dtype[np.int_]], views: _Views
) -> Mapping[int, tuple[_Door, _Door]]:
    """For each upgraded host that the guest may be started on: what came of it before, and what comes of it now."""
    cpu = record.stored.cpu if record.stored is not None else None
    if cpu is None or cpu.mode not in _AS_THE_HOST or record.stored is None:
        return {}
    virttype, doors = record.stored.virttype, {}
    for there in entered:
        home = [own] if own >= 0 and own != there else [i for i in np.flatnonzero(old == 0).tolist() if i != there]
        if not home:
            continue
        doors[there] = tuple(
            _door(views.reading(fleet, there, virttype), [views.reading(fleet, i, virttype) for i in home])
            for fleet in (views.before.fleet, views.after.fleet)
        )
    return doors  # type: ignore[return-value]


def _door(there: Reading, home: Sequence[Reading]) -> _Door:
    """Of several hosts to return to the one that lacks least decides: one is enough."""
    known = [x for x in home if x.status == "ok"]
    if there.status != "ok" or not known:
        return _Door(0, 0, known=False)
    return min(
        (_Door(there.offered & ~x.offered & x.reported, there.offered & ~x.offered & ~x.reported, True) for x in known),
        key=lambda door: (door.gained.bit_count(), door.silent.bit_count()),
    )


def _back(own: int, there: Sequence[int], old: np.ndarray[Any, np.dtype[np.int_]], hosts: Sequence[str]) -> str:
    if own >= 0 and own not in there:
        return hosts[own]
    return some([hosts[i] for i in np.flatnonzero(old == 0).tolist() if i not in there])


def _union(sets: Any) -> int:
    found = 0
    for each in sets:
        found |= each
    return found
