"""Where guests can go, from files alone: the checks of :mod:`vmcompat.migration.preflight`, for all guests and hosts.

A check is asked once for all guests and hosts that it cannot tell apart: its answers fill a table of kinds by kinds,
and the matrix of guests by hosts is looked up in it. In texts the hosts are placeholders that no document can hold.
"""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.migration.domain import typed
from vmcompat.migration.domains import Domains
from vmcompat.migration.fit import Verdict
from vmcompat.migration.kinds import BIT, GROUPS, GUEST, HERE, THERE, Answer, Codes, Sides, looked_up, named
from vmcompat.schema import REACH, REACH_DOMAINS, frame

Masks: TypeAlias = npt.NDArray[np.uint64]


_NO: Final = ("block", "risk")


def names_of(mask: int) -> tuple[str, ...]:
    """The ids of a set of checks, in the order of :data:`CHECKS`."""
    return tuple(name for name, bit in BIT.items() if mask & bit)


def bits_of(names: Iterable[str]) -> int:
    """The set of checks of those ids."""
    return sum(BIT[name] for name in names)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Reachability:
    """Which guest can go to which host. Made by :func:`reachability`.

    Attributes
    ----------
    guests : Domains
    fleet : Fleet
    no, unknown : ndarray of uint64
        Guests by hosts: sets of the checks that stand in the way, and of those that cannot tell.
    own : ndarray of int
        Position of each guest's host in the fleet; -1 where it is not there or not known.
    """

    guests: Domains
    fleet: Fleet
    no: Masks
    unknown: Masks
    own: Codes
    _codes: tuple[Codes, ...]
    _answers: tuple[Sequence[Answer], ...]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Every guest and every host but its own: columns of ``schema.REACH``, index ``domain`` and ``host``."""
        chosen = np.ones(self.no.shape, dtype=np.bool_)
        here = np.flatnonzero(self.own >= 0)
        chosen[here, self.own[here]] = False
        guest, host = np.nonzero(chosen)
        kind = np.zeros(len(guest), dtype=np.int64)
        for codes, answers in zip(self._codes, self._answers, strict=True):
            # numbered anew each time: the product of all groups' answers is more than 64 bits hold
            _, first, kind = np.unique(kind * len(answers) + codes[guest, host], return_index=True, return_inverse=True)
        told = [self._row(int(guest[i]), int(host[i])) for i in first]
        found = [(self._found(int(guest[i]), int(host[i]))) for i in first]
        columns = {c: _objects([row[c] for row in told])[kind] for c in ("verdict", "reasons", "missing")}
        texts = ["; ".join(dict.fromkeys(v.evidence for _, v in each)) for each in found]
        names = [self._names_at(g) for g in range(len(self.guests))]
        there = [{THERE: name} for name in self.fleet.names]
        pairs = zip(kind.tolist(), guest.tolist(), host.tolist(), strict=True)
        columns["evidence"] = _objects([named(named(texts[k], there[h]), names[g]) for k, g, h in pairs])
        levels: Any = [pd.Index(self.guests.names, dtype="str"), pd.Index(self.fleet.names, dtype="str")]
        at: Any = [guest, host]
        index = pd.MultiIndex(levels=levels, codes=at, names=["domain", "host"])
        return pd.DataFrame({c: pd.Series(columns[c], index=index, dtype=REACH[c]) for c in REACH}, index=index)

    @cached_property
    def domains(self) -> pd.DataFrame:
        """What it comes to, a row a guest: columns of ``schema.REACH_DOMAINS``, index ``domain``."""
        alike: dict[bytes, dict[str, Any]] = {}
        rows = [self._summary(g, alike) for g in range(len(self.guests))]
        return frame(REACH_DOMAINS, rows, index=pd.Index(self.guests.names, dtype="str", name="domain"))

    def explain(self) -> list[str]:
        """In sentences: how many can go elsewhere, and for each reason which cannot and what to do."""
        table = self.domains
        counts = table["verdict"].value_counts()
        n_free, n_stuck, n_unknown = (int(counts.get(v, 0)) for v in ("free", "stuck", "unknown"))
        told = [f"{n_free} of {len(table)} guests can go to another host, {n_stuck} to none; {n_unknown} are in doubt"]
        groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for name, row in table[table["verdict"] != "free"].iterrows():
            groups.setdefault((row["verdict"], row["held_by"]), []).append(str(name))
        for (verdict, ids), names in groups.items():
            row = table.iloc[self.guests.names.index(names[0])]
            how = "cannot leave" if verdict == "stuck" else "may have nowhere to go"
            by = " or ".join(ids) or "no other host"
            of = "" if len(names) == 1 else f" {names[0]}:"
            told.append(f"{some(names)} {how} ({by}):{of} {row['evidence']}. To do: {row['remedy']}")
        return told

    def __repr__(self) -> str:
        counts = self.domains["verdict"].value_counts()
        told = ", ".join(f"{counts.get(v, 0)} {v}" for v in ("free", "stuck", "unknown"))
        return f"<Reachability of {len(self.guests)} guests among {len(self.fleet)} hosts: {told}>"

    def _repr_html_(self) -> str:
        shown = self.domains[self.domains["verdict"] != "free"]
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + shown.to_html(border=0, max_rows=20, na_rep="")

    def obstacles(self, guest: int, host: int) -> list[tuple[str, Verdict]]:
        """What stands in the way of a guest to a host, by their positions; where nothing does, what cannot be told."""
        there = self.fleet.names[host]
        told = self._names_at(guest) | {THERE: there}
        to_type = self._names_at(guest, quoted=True) | {THERE: shlex.quote(there)}
        found = self._found(guest, host)
        return [(i, Verdict(v.severity, named(v.evidence, told), named(v.remedy, to_type))) for i, v in found]

    def _candidates(self, guest: int) -> Codes:
        return np.flatnonzero(np.arange(len(self.fleet)) != self.own[guest])

    def _told(self, guest: int, host: int) -> Iterator[Answer]:
        return (of[codes[guest, host]] for of, codes in zip(self._answers, self._codes, strict=True))

    def _row(self, guest: int, host: int) -> dict[str, Any]:
        no, unknown = int(self.no[guest, host]), int(self.unknown[guest, host])
        missing = tuple(name for answer in self._told(guest, host) for name in answer.missing)
        verdict = "no" if no else "unknown" if unknown else "yes"
        return {"verdict": verdict, "reasons": names_of(no or unknown), "missing": missing}

    def _found(self, guest: int, host: int) -> list[tuple[str, Verdict]]:
        """What stands in the way, else what cannot be told, in the order of the checks; hosts are placeholders."""
        mask = int(self.no[guest, host]) or int(self.unknown[guest, host])
        found = [item for answer in self._told(guest, host) for item in answer.found if BIT[item[0]] & mask]
        return sorted(found, key=lambda item: BIT[item[0]])

    def _names_at(self, guest: int, *, quoted: bool = False) -> dict[str, str]:
        """What stands for the placeholders; quoted in what is meant to be typed into a shell."""
        record = self.guests.records[guest]
        name, host = record.known.name if record.known is not None else record.name, record.host or ""
        if quoted:
            name, host = shlex.quote(typed(name, record.known.uuid if record.known else "")), host and shlex.quote(host)
        return {HERE: host or "its host", shlex.quote(GUEST): name, GUEST: name}

    def _summary(self, guest: int, alike: dict[bytes, dict[str, Any]]) -> dict[str, Any]:
        record = self.guests.records[guest]
        key = b"".join(codes[guest].tobytes() for codes in self._codes) + self.own[guest].tobytes()
        if key not in alike:
            alike[key] = self._summed(guest)
        row = dict(alike[key])
        for column in ("evidence", "remedy"):
            row[column] = named(row.get(column, ""), self._names_at(guest, quoted=column == "remedy"))
        return row | {"host": record.host, "state": record.state}

    def _summed(self, guest: int) -> dict[str, Any]:
        """A guest's row, with placeholders for what is its own."""
        hosts = self._candidates(guest)
        no, unknown = self.no[guest, hosts], self.unknown[guest, hosts]
        n_no, n_yes = int((no > 0).sum()), int(((no | unknown) == 0).sum())
        row: dict[str, Any] = {"n_no": n_no, "n_yes": n_yes, "n_unknown": len(hosts) - n_no - n_yes}
        row["n_by_manager"] = int(((no == BIT["OWNER"]) & (unknown == 0)).sum())
        row["verdict"] = "free" if n_yes else "unknown" if row["n_unknown"] else "stuck"
        if n_yes:
            return row
        if not len(hosts):
            return row | {"evidence": "the fleet has no other host", "remedy": "read more hosts"}
        decisive = np.where(no > 0, no, unknown)
        row["held_by"] = _held_by(decisive.tolist())
        nearest = int(hosts[min(range(len(hosts)), key=lambda i: (*self._distance(guest, int(hosts[i])), i))])
        found = self._found(guest, nearest)
        found.sort(key=lambda item: item[0] not in row["held_by"])  # stable: else in the order of the checks
        evidence, remedies = (dict.fromkeys(t) for t in zip(*((v.evidence, v.remedy) for _, v in found), strict=True))
        told = "; ".join(evidence)
        if row["held_by"] == ("OWNER",):
            n = row["n_by_manager"]
            told += f"; nothing else keeps it from {n} hosts" if n else "; and to no host is that all"
        return row | {
            "nearest": self.fleet.names[nearest],
            "nearest_reasons": names_of(int(self.no[guest, nearest]) or int(self.unknown[guest, nearest])),
            "nearest_missing": self._row(guest, nearest)["missing"],
            "evidence": named(told, {THERE: self.fleet.names[nearest]}),
            "remedy": named("; ".join(r for r in remedies if r), {THERE: self.fleet.names[nearest]}),
        }

    def _distance(self, guest: int, host: int) -> tuple[int, int, int]:
        no, unknown = int(self.no[guest, host]), int(self.unknown[guest, host])
        if not no:
            return 0, 0, unknown.bit_count()
        return no.bit_count(), sum(len(a.missing) for a in self._told(guest, host)), unknown.bit_count()


def reachability(domains: Domains, fleet: Fleet) -> Reachability:
    """Which guest can go to which other host, judged by the documents that were read.

    Parameters
    ----------
    domains : Domains
    fleet : Fleet
        What its hosts can give guests is taken from their domain capabilities, whatever its view. It holds the guests'
        own hosts too: of a guest whose host it does not know, the CPU checks cannot tell.

    Returns
    -------
    Reachability
        By the checks of a migration plan, as far as documents answer them. *yes*: none of them is in the way. *no*:
        libvirt would refuse (block), or would do it and guest or owner may be harmed (risk), which is "no" to a
        planner. *unknown*: a check cannot tell, and none says no; a host whose CPU is not known is unknown, and so is a
        running guest without live XML. A guest that is off is judged by its definition, for its next start. A
        paused one counts as running. Storage, networks and free memory are in no document and are not judged; nor are
        versions and their known skews, by which every way back after an upgrade would be a "no": a plan asks for them.

    Raises
    ------
    FrameError
        The fleet has no hosts.

    Notes
    -----
    The product of the kinds of guests and the kinds of hosts that a check can tell apart, and some 60 bytes for each
    pair of guest and host; ``frame`` has a row a pair and is made when it is first asked for.

    Examples
    --------
    >>> import vmcompat as vc
    >>> domains = vc.read_domains("sample_caps/mixed/domains")
    >>> vc.reachability(domains["win-ts-01", "web-01"], vc.read_fleet("sample_caps/mixed"))
    <Reachability of 2 guests among 48 hosts: 1 free, 1 stuck, 0 unknown>
    """
    if not len(fleet):
        raise FrameError("a fleet without hosts: no guest can go anywhere")
    own = np.array([fleet.names.index(r.host) if r.host in fleet.names else -1 for r in domains.records], dtype=np.intp)
    shape = (len(domains), len(fleet))
    no, unknown = (np.zeros(shape, dtype=np.uint64) for _ in range(2))
    sides = Sides(fleet)
    codes, answers = [], []
    for group in GROUPS:
        of_group, table = looked_up(group, domains.records, own, sides)
        masks = np.array([[_mask(a, _NO), _mask(a, ("unknown",))] for a in table], dtype=np.uint64).reshape(-1, 2)
        no |= masks[of_group, 0]
        unknown |= masks[of_group, 1]
        codes.append(of_group)
        answers.append(table)
    return Reachability(
        guests=domains, fleet=fleet, no=no, unknown=unknown, own=own, _codes=tuple(codes), _answers=tuple(answers)
    )


def _mask(answer: Answer, severities: Iterable[str]) -> int:
    mask = 0
    for name, verdict in answer.found:
        mask |= BIT[name] if verdict.severity in severities else 0
    return mask


def _objects(values: Sequence[object]) -> npt.NDArray[np.object_]:
    """An array that holds tuples as they are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _held_by(masks: Sequence[int]) -> tuple[str, ...]:
    """The fewest checks of which each set has one; of several such choices that which is met most often."""
    counts = {name: sum(bool(m & bit) for m in masks) for name, bit in BIT.items()}
    ids = sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])
    distinct = set(masks)
    for size in range(1, len(ids) + 1):
        hitting = [c for c in combinations(ids, size) if all(any(m & BIT[n] for n in c) for m in distinct)]
        if hitting:
            return max(hitting, key=lambda c: sum(counts[n] for n in c))
    return ()
