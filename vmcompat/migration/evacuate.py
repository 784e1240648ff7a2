"""Empty a host: which of its guests goes where, in which order, and why the others have no place."""

from __future__ import annotations

import html
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.migration import convoy
from vmcompat.migration.assignment import Assignment, assign, doubts_of
from vmcompat.migration.convoy import EvacuationRun
from vmcompat.migration.domains import Domains
from vmcompat.migration.itinerary import Itinerary, Move, Roads, Stays, findings_frame
from vmcompat.migration.placing import NOWHERE
from vmcompat.migration.progress import Shown
from vmcompat.migration.reach import reachability
from vmcompat.migration.room import UNKNOWN, Named, Room, rules_of
from vmcompat.migration.runbook import commented
from vmcompat.schema import EVACUATION, EVACUATION_TARGETS, frame

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline

_RULE: Final = "those with the fewest places first; of these the one that frees most memory, then by name"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Evacuation:
    """Where the guests of a host go. Made by :func:`plan_evacuation`.

    Attributes
    ----------
    host : str
    frame : DataFrame
        One row a guest of the host: columns of ``schema.EVACUATION``, index ``domain``.
    targets : DataFrame
        One row a host that gets some: columns of ``schema.EVACUATION_TARGETS``, index ``host``.
    complete : bool or None
        Whether all guests that run have a place. False: they have not, whatever else there is to know. None: that
        depends on what is not known, or on another manager, which has to move its own guests.
    doubts : tuple of str
        What is not known of hosts and guests, and what was taken for granted therefore.
    moves : tuple of Move
        What a run does, in the order of the waves.
    """

    host: str
    frame: pd.DataFrame
    targets: pd.DataFrame
    complete: bool | None
    doubts: tuple[str, ...]
    moves: tuple[Move, ...]
    _host_uuids: Mapping[str, str] = field(repr=False)

    def explain(self) -> list[str]:
        """In sentences: who goes in which order, why others do not and what to do, and what is in doubt."""
        table = self.frame
        moves, n = table["verdict"] == "moves", int((table["verdict"] != "off").sum())
        answer = {True: "can be emptied", False: "cannot be emptied", None: "may perhaps be emptied"}[self.complete]
        told = [f"{self.host} {answer}: {int(moves.sum())} of {n} guests that run have a place"]
        if moves.any():
            first = self.targets["memory_share"].idxmax()
            n_waves = int(table["wave"].max())
            told.append(f"{n_waves} wave{'' if n_waves == 1 else 's'}, {_RULE}")
            told.append(
                f"the fullest target is {first}, then at {self.targets['memory_share'].max():.1%} of its memory"
            )
        groups: dict[tuple[str, str, str], list[str]] = {}
        for name, row in table[~moves].iterrows():
            groups.setdefault((row["verdict"], row["evidence"], row["remedy"]), []).append(str(name))
        for (verdict, evidence, remedy), names in groups.items():
            told.append(f"{some(names)} ({verdict}): {evidence}. To do: {remedy}")
        return told + list(self.doubts)

    def preflight(
        self,
        uris: Mapping[str, str],
        *,
        peer_uris: Mapping[str, str] | None = None,
        migrate_uris: Mapping[str, str] | None = None,
        force: Iterable[str] = (),
        baseline: Baseline | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """Asks the hosts what stands in the way of every move that is left to do; touches nothing.

        Parameters
        ----------
        uris, peer_uris, migrate_uris, force, baseline, **options
            As of :meth:`run`.

        Returns
        -------
        DataFrame
            Every finding of every move: columns of ``schema.PREFLIGHTS``.

        Raises
        ------
        FrameError, ConnectError, MigrationError
            As of :meth:`run`.
        """
        trip = self._trip(uris, peer_uris, migrate_uris, force, baseline, options)
        _, findings, plans = trip.preflight()
        return findings_frame(self.moves, findings, {domain: plan.order.forced for domain, plan in plans.items()})

    def commands(
        self,
        uris: Mapping[str, str],
        *,
        peer_uris: Mapping[str, str] | None = None,
        migrate_uris: Mapping[str, str] | None = None,
        force: Iterable[str] = (),
        baseline: Baseline | None = None,
        **options: Any,
    ) -> str:
        """The moves that are left to do as a script for a shell, one after another; blocked ones commented out.

        Parameters
        ----------
        uris, peer_uris, migrate_uris, force, baseline, **options
            As of :meth:`run`; the hosts are asked, since it is theirs to say which definitions there are.
        """
        todo, findings, plans = self._trip(uris, peer_uris, migrate_uris, force, baseline, options).preflight()
        script = ["set -e\n"]
        for move in todo:
            script.append(commented(f"wave {move.wave}: {move.domain} -> {move.target}"))
            if (plan := plans.get(move.domain)) is None:
                script += [commented(f"blocked: {f.id} ({f.severity}): {f.evidence}") for f in findings[move.domain]]
            else:
                script.append(plan.commands().removeprefix("set -e\n"))
        return "".join(script)

    def run(
        self,
        uris: Mapping[str, str],
        *,
        peer_uris: Mapping[str, str] | None = None,
        migrate_uris: Mapping[str, str] | None = None,
        force: Iterable[str] = (),
        baseline: Baseline | None = None,
        progress: Shown = True,
        abort: threading.Event | None = None,
        **options: Any,
    ) -> EvacuationRun:
        """Does it: wave by wave, the guests of one wave at a time.

        Every move is preflighted first, and anything that stops one of them stops all, before anything has moved.
        Before each wave its moves are planned anew, and its targets' free memory is looked at. The first failure is
        the last: nothing new begins. The other moves of that wave are let finish, since aborting a healthy one gains
        nothing and costs its guest another transfer. Run again, it goes on where it stopped: guests that are on their
        target already count as arrived. It is the hosts that say so, nothing is kept here.

        Parameters
        ----------
        uris : mapping of str to str
            By name in the fleet, of the host and of all hosts that get guests, as for virsh on this machine.
        peer_uris, migrate_uris : mapping of str to str, optional
            By target; as ``peer_uri`` and ``migrate_uri`` of :func:`vmcompat.plan_migration`, which has the defaults.
        force : iterable of str
            Ids of findings that every move may pass; MEMORY stands for too little free memory of a target, too.
        baseline : Baseline, optional
            CPU for the stored definitions.
        progress : bool, callable or Progress
            Lines; or a function that is given about twice a second ``wave``, ``n_waves``, ``n_moved``, ``n_moves``,
            ``guests`` (libvirt's job statistics of each that is under way) and the sums of ``memory_total``,
            ``memory_remaining`` and ``memory_bps`` over them.
        abort : threading.Event, optional
            Once it is set, all moves under way are aborted, as after Ctrl-C.
        **options
            Whatever else :func:`vmcompat.plan_migration` takes.

        Returns
        -------
        EvacuationRun
            Every guest that the plan moves is on its target, and both ends of each move were looked at.

        Raises
        ------
        EvacuationStoppedError
            A finding stopped it, a move failed, or it was aborted: with what became of every guest, what to type next,
            and the table in ``run``.
        KeyboardInterrupt
            After Ctrl-C, when all aborts are answered; the text says where every guest is.
        FrameError
            A URI is missing.
        ConnectError, MigrationError
            Before anything has moved: a host cannot be reached, a URI leads to another machine than the plan is for,
            or ``force`` names no check.

        Notes
        -----
        On the rig, or on hosts of one's own::

            plan = vc.plan_evacuation("h1", fleet, domains)
            uris = {host: f"qemu+ssh://{host}/system" for host in fleet.names}
            plan.preflight(uris)
            plan.run(uris)
        """
        return convoy.run(
            self._trip(uris, peer_uris, migrate_uris, force, baseline, options), progress=progress, abort=abort
        )

    def _trip(
        self,
        uris: Mapping[str, str],
        peer_uris: Mapping[str, str] | None,
        migrate_uris: Mapping[str, str] | None,
        force: Iterable[str],
        baseline: Baseline | None,
        options: Mapping[str, Any],
    ) -> Itinerary:
        staying = self.frame[self.frame["verdict"] != "moves"]
        return Itinerary(
            self.host,
            moves=self.moves,
            staying=[
                Stays(domain=str(domain), evidence=f"{row['verdict']}: {row['evidence']}", remedy=row["remedy"])
                for domain, row in staying.iterrows()
            ],
            host_uuids=self._host_uuids,
            roads=Roads(
                uris=uris,
                peer_uris=peer_uris or {},
                migrate_uris=migrate_uris or {},
                force=(force,) if isinstance(force, str) else tuple(force),
                baseline=baseline,
                options=options,
            ),
        )

    def __repr__(self) -> str:
        counts = self.frame["verdict"].value_counts(sort=False)
        told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) or "no guests"
        return f"<Evacuation of {self.host}: {told}; complete: {self.complete}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + self.frame.to_html(border=0, max_rows=40, na_rep="")


def plan_evacuation(
    host: str,
    fleet: Fleet,
    domains: Domains,
    *,
    memory_share: float = 0.9,
    vcpus_per_thread: float = 4.0,
    together: Named = (),
    apart: Named = (),
    at_once: int = 2,
) -> Evacuation:
    """Plans which guests of a host go where, all of them live; the plan is only a plan, and moves nothing.

    Parameters
    ----------
    host : str
        The host to empty.
    fleet : Fleet
        The host, and all hosts that may take its guests.
    domains : Domains
        All guests of these hosts: what is not among them counts as not there.
    memory_share : float
        Of the memory of each target that its guests may have: the rest is for the host itself and for QEMU.
    vcpus_per_thread : float
        Most virtual CPUs of all guests of a target for each of its threads; ``math.inf`` for no limit.
    together, apart : iterable of iterable of str
        Groups of guests that must be on one host, or each on another; also with guests of other hosts, which stay.
    at_once : int
        Most guests that move at a time.

    Returns
    -------
    Evacuation
        As many guests as possible are placed, and of all ways to do so one whose fullest target (memory taken, of all
        that it has) is emptiest; both are proven. A place is a host to which :func:`vmcompat.reachability` says yes
        and that has no domain of the guest's name or UUID.

    Raises
    ------
    FrameError
        The fleet has no such host, a group names a guest that is not there, or a number is out of range.

    Notes
    -----
    Memory and vCPUs are the most that guests may have by their live XML, else by their definition. Guests that are off
    take nothing, and stay: their definitions are no matter of a live migration. A target of which anything is not
    known takes nobody, and a guest that may run counts as running. Free huge pages, storage and networks are in no
    document: :func:`vmcompat.plan_migration` looks at what it can of each guest before it moves.
    The order is by number of hosts that would have had room for a guest alone, the fewest first; of those the one
    that frees most memory, then by name. Guests that stay together move next to each other.

    Solved by scipy's HiGHS as a mixed integer program, every answer counted again in whole numbers.

    Examples
    --------
    >>> import vmcompat as vc
    >>> fleet = vc.read_fleet("sample_caps/mixed")
    >>> plan_evacuation("ams-r1-h01", fleet, vc.read_domains("sample_caps/mixed/domains"))
    <Evacuation of ams-r1-h01: 2 moves; complete: True>
    """
    if host not in fleet.names:
        raise FrameError(f"no host {host!r} in the fleet of {len(fleet)}: fleet.hosts.index has the names")
    if at_once < 1:
        raise FrameError(f"at_once={at_once}: at least one guest moves at a time")
    rules = rules_of(
        domains, memory_share=memory_share, vcpus_per_thread=vcpus_per_thread, together=together, apart=apart
    )
    room = Room(reach=reachability(domains, fleet), records=domains.records, rules=rules)
    lost = fleet.names.index(host)
    found = assign(room, [lost], balance=True)
    guests = room.everyone_on(lost)
    rows = _rows(room, guests, found, at_once)
    return Evacuation(
        host=host,
        frame=frame(EVACUATION, rows, index=pd.Index([domains.names[g] for g in guests], dtype="str", name="domain")),
        targets=_targets(room, found),
        complete=found.complete,
        doubts=tuple(doubts_of(room, found.task.targets)),
        moves=tuple(_moves(room, found, at_once)),
        _host_uuids={r.name: uuid for r in fleet.records if isinstance(uuid := r.fact("uuid"), str)},
    )


def _moves(room: Room, found: Assignment, at_once: int) -> Iterator[Move]:
    going = {g: room.reach.fleet.names[t] for block, t in found.placed for g in block}
    for g, wave in _waves(room, found, at_once).items():
        known = room.records[g].known
        assert known is not None  # only a guest whose XML was read is placed
        yield Move(
            domain=room.reach.guests.names[g],
            name=known.name,
            uuid=known.uuid,
            target=going[g],
            wave=wave,
            memory=None if known.page_sizes else int(room.needs[g]),
        )


def _rows(room: Room, guests: Sequence[int], found: Assignment, at_once: int) -> Iterator[dict[str, Any]]:
    names, waves = room.reach.fleet.names, _waves(room, found, at_once)
    going = {g: t for block, t in found.placed for g in block}
    places = dict(zip(found.task.items, found.task.problem.fits.sum(axis=1).tolist(), strict=True))
    n_places = {g: n for block, n in places.items() for g in block}
    for g in guests:
        record = room.records[g]
        sizes = {"memory": room.needs[g], "vcpus": room.needs_vcpus[g]}
        row: dict[str, Any] = {k: None if v == UNKNOWN else int(v) for k, v in sizes.items()}
        row |= {"source": record.host, "n_places": n_places.get(g)}
        if g in going:
            row |= {"target": names[going[g]], "wave": waves[g], "verdict": "moves", "evidence": "", "remedy": ""}
            if record.state == "paused":
                row |= {"evidence": "it is paused, and would arrive paused", "remedy": "virsh resume, or find out why"}
        elif g in found.staying:
            row |= found.staying[g]._asdict()
        else:
            row |= {"verdict": "off", "evidence": f"it is {record.state}, and stays where it is"}
            row["remedy"] = "start it first, or take its definition over by hand, if it is needed meanwhile"
        yield row


def _waves(room: Room, found: Assignment, at_once: int) -> dict[int, int]:
    """By the rule of the order; a block that does not fit into the wave any more begins the next one."""
    names, problem = room.reach.guests.names, found.task.problem
    n_places = problem.fits.sum(axis=1)
    order = sorted(
        np.flatnonzero(found.where != NOWHERE).tolist(),
        key=lambda i: (int(n_places[i]), -int(problem.memory[i]), names[found.task.items[i][0]]),
    )
    waves: dict[int, int] = {}
    wave, n_in_it = 1, 0
    for i in order:
        block = sorted(found.task.items[i], key=lambda g: (-int(room.needs[g]), names[g]))
        if n_in_it and n_in_it + len(block) > at_once:
            wave, n_in_it = wave + 1, 0
        for g in block:
            if n_in_it == at_once:
                wave, n_in_it = wave + 1, 0
            waves[g] = wave
            n_in_it += 1
    return waves


def _targets(room: Room, found: Assignment) -> pd.DataFrame:
    problem, names = found.task.problem, room.reach.fleet.names
    memory, vcpus = (problem.load(found.where, of) for of in (problem.memory, problem.vcpus))
    n_domains = problem.load(found.where, problem.sizes)
    chosen = [k for k in np.argsort(found.task.targets).tolist() if n_domains[k]]
    rows = [
        {
            "n_domains": int(n_domains[k]),
            "memory_before": int(problem.used[k]),
            "memory_after": int(problem.used[k] + memory[k]),
            "memory": int(problem.total[k]),
            "memory_share": float((problem.used[k] + memory[k]) / problem.total[k]),
            "vcpus_before": room.vcpus_on(found.task.targets[k]),
            "vcpus_after": room.vcpus_on(found.task.targets[k]) + int(vcpus[k]),
        }
        for k in chosen
    ]
    index = pd.Index([names[found.task.targets[k]] for k in chosen], dtype="str", name="host")
    return frame(EVACUATION_TARGETS, rows, index=index)
