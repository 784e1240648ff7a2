"""Whether a fleet can lose hosts, and start all their guests on those that are left."""

from __future__ import annotations

import html
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from math import comb, prod
from typing import Any, Final

import numpy as np
import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.migration.assignment import Assignment, assign, doubts_of
from vmcompat.migration.domains import DomainRecord, Domains
from vmcompat.migration.placing import NOWHERE, borrowed
from vmcompat.migration.reach import reachability
from vmcompat.migration.room import UNKNOWN, Named, Room, rules_of
from vmcompat.schema import LOSSES, LOSSES_BORROW, LOSSES_DOMAINS, frame

MOST_SETS: Final = 20_000  # that differ; at some milliseconds each
_GIB: Final = 1 << 20
_RULE: Final = (
    "guests start anew elsewhere: what counts is the definition, and of a guest without one the XML that it runs with"
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Losses:
    """What comes of the loss of hosts. Made by :func:`survives_loss`.

    Attributes
    ----------
    n : int
        Hosts that are lost at once.
    frame : DataFrame
        One row a set of lost hosts that differs from the others: columns of ``schema.LOSSES``.
    domains : DataFrame
        One row for each of these sets and guest without a place: columns of ``schema.LOSSES_DOMAINS``.
    borrow : DataFrame
        Where memory or vCPUs are short: columns of ``schema.LOSSES_BORROW``.
    doubts : tuple of str
        What is not known of hosts and guests, and what was taken for granted therefore.
    """

    n: int
    frame: pd.DataFrame
    domains: pd.DataFrame
    borrow: pd.DataFrame
    doubts: tuple[str, ...]

    @property
    def ok(self) -> bool | None:
        """Whether every guest starts elsewhere whatever is lost; None where that depends on what is not known."""
        if (self.frame["verdict"] == "no").any():
            return False
        return None if (self.frame["verdict"] == "unknown").any() else True

    def explain(self) -> list[str]:
        """In sentences: the answer, each guest that would have no place, and what would have to be borrowed."""
        lost = "one host" if self.n == 1 else f"{self.n} hosts"
        answer = {
            True: f"whichever {lost} are lost" if self.n > 1 else "whichever host is lost",
            False: f"not whenever {lost} {'is' if self.n == 1 else 'are'} lost",
            None: f"it cannot be told whether, when {lost} {'is' if self.n == 1 else 'are'} lost",
        }[self.ok]
        counts = self.frame.groupby("verdict", sort=False)["n_like"].sum()
        numbers = ", ".join(f"{counts.get(v, 0)} {v}" for v in ("yes", "no", "unknown"))
        told = [f"{answer}, all guests have a place: {numbers}", _RULE]
        for _, rows in self.domains.groupby(["domain", "verdict"], sort=False):
            first = rows.iloc[0]
            more = f", and in {len(rows) - 1} more cases" if len(rows) > 1 else ""
            told.append(
                f"{first['domain']} ({first['verdict']}) without {' and '.join(first['hosts'])}{more}: "
                f"{first['evidence']}. To do: {first['remedy']}"
            )
        if len(self.borrow):
            worst = self.frame.iloc[self.frame["memory_borrowed"].argmax()]
            memory = f"{worst['memory_borrowed'] / _GIB:.4g} GiB and {worst['vcpus_borrowed']} vCPUs"
            rows = self.borrow[[hosts == worst["hosts"] for hosts in self.borrow["hosts"]]]
            like = [f"{row['like']} ({row['model']})" for _, row in rows.iterrows()]
            told.append(f"most is short without {' and '.join(worst['hosts'])}: {memory}, on hosts like {some(like)}")
        return told + list(self.doubts)

    def __repr__(self) -> str:
        counts = self.frame.groupby("verdict", sort=False)["n_like"].sum()
        told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
        return f"<Losses of {self.n} host{'s' if self.n > 1 else ''} at once: {told}; ok: {self.ok}>"

    def _repr_html_(self) -> str:
        shown = self.frame[self.frame["verdict"] != "yes"]
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + shown.to_html(border=0, max_rows=20, na_rep="")


def survives_loss(
    fleet: Fleet,
    domains: Domains,
    *,
    n: int = 1,
    memory_share: float = 0.9,
    vcpus_per_thread: float = 4.0,
    together: Named = (),
    apart: Named = (),
) -> Losses:
    """Asks for every host, or every ``n`` hosts, whether all that ran there has a place elsewhere when they fail.

    Parameters
    ----------
    fleet : Fleet
    domains : Domains
        All guests of these hosts: what is not among them counts as not there.
    n : int
        Hosts that fail at once.
    memory_share, vcpus_per_thread, together, apart
        As of :func:`vmcompat.plan_evacuation`.

    Returns
    -------
    Losses
        The guests of a lost host start anew elsewhere: by their definition for the next start, and where none was read
        (some managers keep it to themselves) by the XML that they run with. So a CPU of host-model or host-passthrough
        is given anew by the host where they start. The others stay where they are, and take what they take now. A
        guest of a manager is *managed*: which hosts are its manager's to choose is not known here.

    Raises
    ------
    FrameError
        ``n`` is not between 1 and the number of hosts less one, or there are more than 20,000 different sets of hosts;
        or as of :func:`vmcompat.plan_evacuation`.

    Notes
    -----
    The sets of ``n`` hosts, of which those are asked about once that are equal in what their guests need, in what they
    can take, and in all answers of the checks.

    Examples
    --------
    >>> import vmcompat as vc
    >>> fleet = vc.read_fleet("sample_caps/mixed").select("rack == 'ams-r1'")
    >>> domains = vc.read_domains("sample_caps/mixed/domains")
    >>> survives_loss(fleet, domains.select(f"host in {fleet.names}"))
    <Losses of 1 host at once: 6 yes, 2 no; ok: False>
    """
    if not 1 <= n < len(fleet):
        raise FrameError(f"n={n}: at least one host is lost, and one of the {len(fleet)} is left")
    rules = rules_of(
        domains, memory_share=memory_share, vcpus_per_thread=vcpus_per_thread, together=together, apart=apart
    )
    starting = Domains(records=tuple(_starting(record) for record in domains.records))
    room = Room(reach=reachability(starting, fleet), records=domains.records, rules=rules)
    sets = list(_sets(_alike(room), n))
    losses, stranded, short = [], [], []
    for lost, n_like in sets:
        hosts = tuple(fleet.names[t] for t in lost)
        found = assign(room, lost, balance=False)
        lacking = list(_borrow(room, found, hosts)) if any(s.verdict == "full" for s in found.staying.values()) else []
        short += lacking
        stranded += list(_stranded(room, found, hosts))
        n_domains = sum(len(block) for block in found.task.items)
        losses.append({
            "hosts": hosts,
            "n_like": n_like,
            "n_domains": n_domains,
            "n_placed": n_domains - len(found.staying),
            "verdict": {True: "yes", False: "no", None: "unknown"}[found.complete],
            "without_place": tuple(domains.names[g] for g in sorted(found.staying)),
            "memory_borrowed": sum(row["memory"] for row in lacking),
            "vcpus_borrowed": sum(row["vcpus"] for row in lacking),
        })  # fmt: skip
    return Losses(
        n=n,
        frame=frame(LOSSES, losses),
        domains=frame(LOSSES_DOMAINS, stranded),
        borrow=frame(LOSSES_BORROW, short),
        doubts=tuple(doubts_of(room, range(len(fleet)))),
    )


def _starting(record: DomainRecord) -> DomainRecord:
    """A guest as if it were off, to be started by its definition."""
    return replace(record, live=None, stored=record.stored or record.live, state="shut off")


def _alike(room: Room) -> list[list[int]]:
    """Hosts that may change places with one another, with all their guests, and no answer changes but by names."""
    reach, bound = room.reach, _bound(room)
    alike: dict[Hashable, list[int]] = {}
    for t in range(len(reach.fleet)):
        guests = room.everyone_on(t)
        key: Hashable = t
        if not bound.intersection(guests):
            kinds = sorted(
                (reach.no[g].tobytes(), reach.unknown[g].tobytes(), str(room.records[g].runs),
                 *(int(of[g]) for of in (room.memory, room.vcpus, room.needs, room.needs_vcpus)))
                for g in guests
            )  # fmt: skip
            limits = tuple(int(of[t]) for of in (room.total, room.limit, room.limit_vcpus))
            key = (limits, reach.no[:, t].tobytes(), reach.unknown[:, t].tobytes(), tuple(kinds))
        alike.setdefault(key, []).append(t)
    return list(alike.values())


def _bound(room: Room) -> set[int]:
    """Guests that a rule, a name or a UUID ties to others: their hosts are like no other."""
    bound = {g for group in (*room.rules.together, *room.rules.apart) for g in group}
    for attribute in ("name", "uuid"):
        same: dict[str, list[int]] = {}
        for g, record in enumerate(room.records):
            if record.known is not None:
                same.setdefault(str(getattr(record.known, attribute)).lower(), []).append(g)
        bound.update(g for group in same.values() if len(group) > 1 for g in group)
    return bound


def _sets(alike: Sequence[Sequence[int]], n: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Sets of hosts that differ, and how many are like each; a set is named by the first hosts of each kind."""
    kinds = list(range(len(alike)))
    if comb(len(kinds) + n - 1, n) > MOST_SETS:
        raise FrameError(
            f"n={n}: {comb(len(kinds) + n - 1, n)} different sets of {n} hosts, more than {MOST_SETS}: ask about a "
            "part of the fleet, fleet.select(...), at a time"
        )
    for chosen in combinations_with_replacement(kinds, n):
        counts = {kind: chosen.count(kind) for kind in dict.fromkeys(chosen)}
        if all(count <= len(alike[kind]) for kind, count in counts.items()):
            lost = tuple(t for kind, count in counts.items() for t in alike[kind][:count])
            yield lost, prod(comb(len(alike[kind]), count) for kind, count in counts.items())


def _stranded(room: Room, found: Assignment, hosts: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for g, why in sorted(found.staying.items()):
        sizes = {"memory": int(room.needs[g]), "vcpus": int(room.needs_vcpus[g])}
        row: dict[str, Any] = {k: None if v == UNKNOWN else v for k, v in sizes.items()}
        row |= {"hosts": hosts, "domain": room.reach.guests.names[g], "source": room.records[g].host} | why._asdict()
        if why.verdict == "managed":  # it is too late to move it live, as its checks say
            row["remedy"] = "its manager has to start it elsewhere: see there that it does, and where it has room"
        yield row


def _borrow(room: Room, found: Assignment, hosts: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Hosts that would have to be larger, so that all that may go anywhere for sure has a place."""
    task, names = found.task, room.reach.fleet.names
    known = np.array([not room.doubt(t) for t in task.targets])
    where, memory, vcpus = borrowed(replace(task.problem, may=task.problem.may & known))
    for k, t in enumerate(task.targets):
        if memory[k] or vcpus[k]:
            guests = [g for block, at in zip(task.items, where.tolist(), strict=True) if at == k != NOWHERE
                      for g in block]  # fmt: skip
            yield {
                "hosts": hosts,
                "like": names[t],
                "model": room.reach.fleet.hosts["model"].iloc[t],
                "memory": int(memory[k]),
                "vcpus": int(vcpus[k]),
                "domains": tuple(room.reach.guests.names[g] for g in sorted(guests)),
            }
