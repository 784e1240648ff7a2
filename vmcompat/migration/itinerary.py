"""Many moves from one host: how they get there, where their guests are now, and what stands in their way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.errors import ConnectError, FrameError, MigrationError
from vmcompat.migration.migrate import MigrationPlan, plan_migration
from vmcompat.migration.observe import STATES
from vmcompat.migration.preflight import Finding
from vmcompat.schema import PREFLIGHT, PREFLIGHTS, frame

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline

ON: Final = ("running", "blocked", "paused")
_ATONCE: Final = 8  # plans that are made at a time
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A guest that goes to another host.

    Attributes
    ----------
    domain : str
        As the plan calls it.
    name, uuid : str
        As its own XML says.
    target : str
    wave : int
        From 1; those of one wave move at a time.
    memory : int or None
        Of the target's common memory that it needs [KiB]; None where it has huge pages of its own.
    """

    domain: str
    name: str
    uuid: str
    target: str
    wave: int
    memory: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stays:
    """A guest of the host that is not moved, and why."""

    domain: str
    evidence: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Roads:
    """How the hosts are reached, and how each guest is to travel.

    Attributes
    ----------
    uris, peer_uris, migrate_uris : mapping of str to str
        By host: where it is for this client, for the libvirtd of the source, and for the source's QEMU.
    force, baseline, options
        For :func:`vmcompat.plan_migration`.
    """

    uris: Mapping[str, str] = field(repr=False)
    peer_uris: Mapping[str, str] = field(repr=False, default_factory=dict)
    migrate_uris: Mapping[str, str] = field(repr=False, default_factory=dict)
    force: tuple[str, ...] = ()
    baseline: Baseline | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def plan(self, move: Move, source: str) -> MigrationPlan:
        """The plan of one move, made now."""
        return plan_migration(
            move.name,
            self.uris[source],
            self.uris[move.target],
            peer_uri=self.peer_uris.get(move.target),
            migrate_uri=self.migrate_uris.get(move.target, ""),
            force=self.force,
            baseline=self.baseline,
            **self.options,
        )


class Seen(NamedTuple):
    """A domain that a host has."""

    name: str
    uuid: str
    state: str


Sightings: TypeAlias = "Mapping[str, tuple[Seen, ...] | ConnectError]"


def look(uris: Mapping[str, str]) -> Sightings:
    """What domains each host has, or the error in their place."""
    from vmcompat.connect import open_host

    def ask(uri: str) -> tuple[Seen, ...] | ConnectError:
        try:
            with open_host(uri) as host:
                found = host.ask(
                    "its domains", lambda c: [(d.name(), d.UUIDString(), d.state()[0]) for d in c.listAllDomains()]
                )
        except ConnectError as e:
            return e
        return tuple(Seen(name, uuid, STATES[n] if n < len(STATES) else f"state {n}") for name, uuid, n in found)

    return dict(zip(uris, each(ask, uris.values()), strict=True))


def available(uri: str) -> int | None:
    """Memory that new guests may find on a host, caches counted as free [KiB]; None where it does not tell."""
    from vmcompat.connect import constant, open_host

    every_node = constant("VIR_NODE_MEMORY_STATS_ALL_CELLS")
    try:
        with open_host(uri) as host:
            stats = host.ask("its free memory", lambda c: c.getMemoryStats(every_node))
    except ConnectError:
        return None
    return None if "free" not in stats else sum(stats.get(key, 0) for key in ("free", "buffers", "cached"))


def each(ask: Callable[[_Item], _Answer], items: Iterable[_Item]) -> list[_Answer]:
    """The answers for all items, some at a time; after the first error, or Ctrl-C, no more are begun."""
    pool = ThreadPoolExecutor(_ATONCE)
    try:
        return list(pool.map(ask, items))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class Itinerary:
    """Moves from one host, and the ways that they take.

    Parameters
    ----------
    host : str
        Where all of them come from.
    moves : sequence of Move
        In the order of their waves.
    staying : sequence of Stays
    host_uuids : mapping of str to str
        By host, what its documents say; a URI that leads to another machine is refused.
    roads : Roads
    """

    def __init__(
        self,
        host: str,
        *,
        moves: Sequence[Move],
        staying: Sequence[Stays],
        host_uuids: Mapping[str, str],
        roads: Roads,
    ) -> None:
        hosts = [host, *dict.fromkeys(move.target for move in moves)]
        if lacking := [name for name in hosts if name not in roads.uris]:
            raise FrameError(f"uris: {some(lacking)} missing; give the URI of {host} and of each host that gets guests")
        self.host, self.moves, self.staying, self.host_uuids, self.roads = host, moves, staying, host_uuids, roads
        self.uris = {name: roads.uris[name] for name in hosts}

    def preflight(self) -> tuple[tuple[Move, ...], dict[str, tuple[Finding, ...]], dict[str, MigrationPlan]]:
        """Looks at every move; touches nothing.

        Returns
        -------
        todo : tuple of Move
            Those whose guest is not on its target yet.
        findings : dict of str to tuple of Finding
            By domain.
        plans : dict of str to MigrationPlan
            By domain; a guest that is not at the source has none.

        Raises
        ------
        ConnectError
            A host cannot be reached.
        MigrationError
            A URI leads to another machine than the plan was made for.
        """
        seen = look(self.uris)
        for answer in seen.values():
            if isinstance(answer, ConnectError):
                raise answer
        todo = tuple(move for move in self.moves if not self.arrived(move, seen))
        there = {move.domain: self._is_at_source(move, seen) for move in todo}
        plans = self.plans([move for move in todo if there[move.domain] == ""])
        findings = {
            move.domain: plans[move.domain].order.findings
            if move.domain in plans
            else (Finding("STATE", "block", there[move.domain], "read the guests and plan the evacuation again"),)
            for move in todo
        }
        return todo, findings, plans

    def plans(self, moves: Sequence[Move]) -> dict[str, MigrationPlan]:
        """Plans by domain, each made now, of hosts that are the right ones."""
        made = each(lambda move: self.roads.plan(move, self.host), moves)
        for move, plan in zip(moves, made, strict=True):
            for host, end in ((self.host, plan.seen.source), (move.target, plan.seen.target)):
                is_now, was = end.capabilities.facts.get("uuid"), self.host_uuids.get(host)
                if was and is_now and str(is_now).lower() != was.lower():
                    raise MigrationError(
                        f"the URI of {host}, {end.uri}, leads to a host of UUID {is_now} that calls itself {end.name}, "
                        f"and the plan was made for one of {was}: nothing was moved there. Mend uris="
                    )
        return {move.domain: plan for move, plan in zip(moves, made, strict=True)}

    def where(self, move: Move, seen: Sightings) -> dict[str, str]:
        """The hosts that have a guest, and its state there."""
        found = {}
        for host, domains in seen.items():
            for one in () if isinstance(domains, ConnectError) else domains:
                if one.name == move.name and (not move.uuid or one.uuid.lower() == move.uuid.lower()):
                    found[host] = one.state
        return found

    def arrived(self, move: Move, seen: Sightings) -> bool:
        """Whether a guest is on its target, and does not run where it comes from."""
        at = self.where(move, seen)
        return at.get(move.target) in ON and at.get(self.host) not in ON

    def _is_at_source(self, move: Move, seen: Sightings) -> str:
        """Where a guest is if not at the source; empty where it is there."""
        at = self.where(move, seen)
        if self.host in at:
            return ""
        elsewhere = " and ".join(f"{state} on {host}" for host, state in at.items())
        return f"{move.domain} is not on {self.host}, but {elsewhere or f'on none of {some(list(self.uris))}'}"


def findings_frame(
    moves: Sequence[Move], findings: Mapping[str, Sequence[Finding]], forced: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Findings of many moves: columns of ``schema.PREFLIGHTS``."""
    rows = [
        {"domain": move.domain, "target": move.target, "forced": f.id in forced.get(move.domain, ())}
        | {column: getattr(f, column) for column in PREFLIGHT if column != "forced"}
        for move in moves
        for f in findings.get(move.domain, ())
    ]
    return frame(PREFLIGHTS, rows)
