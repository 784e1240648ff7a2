"""Many guests move, wave by wave, as one run: nothing begins before all of it may, and a failure is the last thing.

What is done already is read off the hosts, never remembered: a run that was stopped goes on when it is run again, in
another kernel too.
"""

from __future__ import annotations

import html
import shlex
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.errors import ConnectError, MigrationError, VmcompatError
from vmcompat.migration.board import Board
from vmcompat.migration.domain import typed
from vmcompat.migration.itinerary import ON, Itinerary, Move, Sightings, available, findings_frame, look
from vmcompat.migration.migrate import MigrationPlan
from vmcompat.migration.order import MigrationFailedError, MigrationResult
from vmcompat.migration.preflight import Finding
from vmcompat.migration.progress import Shown
from vmcompat.schema import EVACUATION_RUN, frame

_POLL_SECONDS: Final = 0.5
_GIB: Final = 1 << 20
_AGAIN: Final = "run the evacuation again: it goes on where it stopped"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EvacuationRun:
    """How far an evacuation came. Made by :meth:`vmcompat.migration.evacuate.Evacuation.run`.

    Attributes
    ----------
    host : str
        That was to be emptied.
    frame : DataFrame
        One row a guest of the plan: columns of ``schema.EVACUATION_RUN``, index ``domain``.
    findings : DataFrame
        Of the preflight of all moves that were left to do: columns of ``schema.PREFLIGHTS``.
    results : tuple of MigrationResult
        Of the moves that were begun, in the order of the plan.
    left : tuple of str or None
        Guests that still run on the host, whether the plan knew of them or not; None where it did not answer.
    started : datetime
    seconds : float
        From the first look to the last [s].
    """

    host: str
    frame: pd.DataFrame
    findings: pd.DataFrame
    results: tuple[MigrationResult, ...]
    left: tuple[str, ...] | None
    started: datetime
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every guest that the plan moves is on its target."""
        return bool(self.frame["outcome"].isin(["moved", "arrived before", "stays"]).all())

    def explain(self) -> list[str]:
        """In sentences: how many moved, where those are that did not and what to type, and what is left behind."""
        n, moves = len(self.frame), self.frame[self.frame["outcome"] != "stays"]
        counts = moves["outcome"].value_counts()
        told = [f"{self.host}: of {n} guests " + (", ".join(f"{k} {o}" for o, k in counts.items()) or "none moves")]
        for domain, row in self.frame[~self.frame["outcome"].isin(["moved", "arrived before"])].iterrows():
            why = f": {row['message']}" if row["message"] else ""
            todo = f". To do: {row['next']}" if row["next"] else ""
            told.append(f"{domain} ({row['outcome']}; {row['where']}){why}{todo}")
        if self.left is None:
            told.append(f"{self.host} does not answer: what runs there is not known")
        elif self.left:
            told.append(f"on {self.host} there still run {some(self.left)}")
        else:
            told.append(f"nothing runs on {self.host} any more")
        return told

    def __repr__(self) -> str:
        counts = self.frame["outcome"].value_counts(sort=False)
        told = ", ".join(f"{n} {outcome}" for outcome, n in counts.items()) or "no guests"
        return f"<EvacuationRun of {self.host}: {told}; {self.seconds:.1f} s>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + self.frame.to_html(border=0, max_rows=40, na_rep="")


class EvacuationStoppedError(MigrationError):
    """An evacuation that stopped before its end; every guest is accounted for.

    Parameters
    ----------
    problem : str
        What stopped it.
    next : str
        What to type, or to do, next.
    run : EvacuationRun
        How far it came.
    """

    def __init__(self, problem: str, *, next: str, run: EvacuationRun) -> None:
        self.problem, self.next, self.run = problem, next, run
        rows = run.frame
        told = []
        for outcome in ("moved", "arrived before", "failed", "aborted", "not begun"):
            chosen = rows[rows["outcome"] == outcome]
            if outcome in ("failed", "aborted"):
                told += [f"{outcome}: {domain} ({where})" for domain, where in chosen["where"].items()]
            elif len(chosen):
                told.append(f"{outcome}: {some([str(domain) for domain in chosen.index])}")
        super().__init__(f"{problem}. {'; '.join(told)}. Next: {next}")


def run(trip: Itinerary, *, progress: Shown = True, abort: threading.Event | None = None) -> EvacuationRun:
    """See :meth:`vmcompat.migration.evacuate.Evacuation.run`."""
    return _Run(trip, progress, abort or threading.Event()).do()


class _Run:
    """One run: what has become of each move so far, so that every way out can tell."""

    def __init__(self, trip: Itinerary, progress: Shown, abort: threading.Event) -> None:
        self.trip, self.abort = trip, abort
        self.board = Board(progress, n_waves=max((m.wave for m in trip.moves), default=0), n_moves=len(trip.moves))
        self.interrupted = False  # by Ctrl-C, which sets ``abort`` too
        self.started, self.begin = datetime.now(UTC), time.monotonic()
        self.told: dict[str, dict[str, Any]] = {m.domain: {"outcome": "not begun"} for m in trip.moves}
        self.findings: dict[str, tuple[Finding, ...]] = {}
        self.forced: dict[str, tuple[str, ...]] = {}
        self.results: dict[str, MigrationResult] = {}

    def do(self) -> EvacuationRun:
        try:
            self._act()
        except EvacuationStoppedError as e:
            self.board.close(complete=False)
            if self.interrupted:
                raise KeyboardInterrupt(str(e)) from e
            raise
        except KeyboardInterrupt as e:
            raise KeyboardInterrupt(str(self._stopped("interrupted before the next move began"))) from e
        except VmcompatError as e:
            if not self.findings:
                raise  # not even the preflight was made: nothing was touched
            raise self._stopped(str(e)) from e
        self.board.close(complete=True)
        return self._result()

    def _act(self) -> None:
        todo, self.findings, plans = self.trip.preflight()
        for move in self.trip.moves:
            if move not in todo:
                self.told[move.domain]["outcome"] = "arrived before"
                self.board.n_moved += 1
        self.forced = {domain: plan.order.forced for domain, plan in plans.items()}
        self._stop_on(todo, plans, "nothing was moved by this run: ")
        for wave in sorted({move.wave for move in todo}):
            self.board.wave = wave
            self._wave([move for move in todo if move.wave == wave])

    def _wave(self, moves: Sequence[Move]) -> None:
        if self.abort.is_set():
            raise self._stopped("aborted before the next move began")
        plans = self.trip.plans(moves)
        self._stop_on(moves, plans, "")
        self._stop_without_room(moves)
        with ThreadPoolExecutor(len(moves)) as pool:
            under_way: dict[Future[MigrationResult], Move] = {}
            try:
                for move in moves:
                    shown, plan = self.board.of(move.domain, move.target), plans[move.domain]
                    under_way[pool.submit(plan.run, progress=shown, abort=self.abort)] = move
                    self.told[move.domain]["outcome"] = "under way"
            except KeyboardInterrupt:
                self.interrupted = True
                self.abort.set()
            self._watch(under_way)
        failed = [move for move in moves if self.told[move.domain]["outcome"] != "moved"]
        if failed:
            first = self.told[failed[0].domain]
            problem = "; ".join(f"{m.domain}: {self.told[m.domain]['message']}" for m in failed)
            raise self._stopped(problem, next=f"{failed[0].domain}: {first['next']}")
        if self.interrupted:
            raise self._stopped("the interrupt came too late for the moves under way")

    def _watch(self, under_way: dict[Future[MigrationResult], Move]) -> None:
        """Until all have ended: a failure of one is no reason to abort the others, Ctrl-C or the event is."""
        pending = set(under_way)
        while pending:
            try:
                done = wait(pending, timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED").done
                for future in sorted(done, key=lambda f: under_way[f].domain):
                    self._ended(under_way[future], future)
                    pending.discard(future)
                self.board.tell()
            except KeyboardInterrupt:
                self.interrupted = True
                self.abort.set()

    def _ended(self, move: Move, future: Future[MigrationResult]) -> None:
        error, told = future.exception(), self.told[move.domain]
        if error is None:
            result = future.result()
            self.results[move.domain] = result
            told |= {"outcome": "moved", "message": result.message}
        elif isinstance(error, MigrationFailedError):
            self.results[move.domain] = error.result
            aborted = self.abort.is_set() and error.result.outcome == "stayed"
            changed = f" (changed: {'; '.join(error.changed)})" if error.changed else ""
            undone = f" (undone: {'; '.join(error.undone)})" if error.undone else ""
            told |= {"outcome": "aborted" if aborted else "failed", "message": f"{error.problem}{changed}{undone}"}
            told["next"] = error.next
        else:
            told |= {"outcome": "failed", "message": str(error) or repr(error), "next": "look at both hosts first"}
        self.board.take_down(move.domain, moved=error is None)

    def _stop_on(self, moves: Sequence[Move], plans: Mapping[str, MigrationPlan], head: str) -> None:
        """Unless every move may begin."""
        told, todo = [], []
        for move in moves:
            plan = plans.get(move.domain)
            stops = self.findings[move.domain] if plan is None else plan.order.stops
            for f in stops:
                told.append(f"{move.domain} -> {move.target}: {f.id} ({f.severity}): {f.evidence}")
                todo += [f"{move.domain}: {f.remedy}"] if f.remedy else []
            if stops:
                message = "; ".join(f"{f.id} ({f.severity}): {f.evidence}" for f in stops)
                self.told[move.domain] |= {"message": message, "next": " / ".join(f.remedy for f in stops if f.remedy)}
        if told:
            raise self._stopped(head + "; ".join(told), next=" / ".join(dict.fromkeys(todo)))

    def _stop_without_room(self, moves: Sequence[Move]) -> None:
        """Unless each target has memory for all that come at a time; huge pages are not looked at."""
        if "MEMORY" in self.trip.roads.force:
            return
        for target in dict.fromkeys(move.target for move in moves):
            coming = [move for move in moves if move.target == target]
            need, there = sum(move.memory or 0 for move in coming), available(self.trip.uris[target])
            if there is not None and need > there:
                problem = (
                    f"MEMORY (risk): {target} has {there / _GIB:.4g} GiB free, caches counted in, for the "
                    f"{need / _GIB:.4g} GiB of {some([move.domain for move in coming])}"
                )
                todo = f"free memory on {target}, or pass it with force=('MEMORY',)"
                for move in coming:
                    self.told[move.domain] |= {"message": problem, "next": todo}
                raise self._stopped(problem, next=todo)

    # ---- telling

    def _stopped(self, problem: str, *, next: str = "") -> EvacuationStoppedError:
        todo = f"{next}; then {_AGAIN}" if next else _AGAIN
        return EvacuationStoppedError(problem, next=todo, run=self._result())

    def _result(self) -> EvacuationRun:
        trip, seen = self.trip, look(self.trip.uris)
        index = [*self.told, *(s.domain for s in trip.staying)]
        left = seen[trip.host]
        return EvacuationRun(
            host=trip.host,
            frame=frame(EVACUATION_RUN, self._rows(seen), index=pd.Index(index, dtype="str", name="domain")),
            findings=findings_frame(trip.moves, self.findings, self.forced),
            results=tuple(self.results[m.domain] for m in trip.moves if m.domain in self.results),
            left=None if isinstance(left, ConnectError) else tuple(sorted(d.name for d in left if d.state in ON)),
            started=self.started,
            seconds=time.monotonic() - self.begin,
        )

    def _rows(self, seen: Sightings) -> Iterator[dict[str, Any]]:
        silent = [f"{host} did not answer" for host, answer in seen.items() if isinstance(answer, ConnectError)]
        for move in self.trip.moves:
            at = self.trip.where(move, seen)
            row: dict[str, Any] = {"wave": move.wave, "target": move.target, "message": "", "next": ""}
            states = [f"{state} on {host}" for host, state in at.items()]
            row["where"] = "; ".join([*states, *silent] or [f"on none of {some(list(seen))}"])
            if self.told[move.domain]["outcome"] == "arrived before" and self.trip.host in at:
                row["message"] = f"its old definition is still on {self.trip.host}, and could start it twice"
                row["next"] = f"virsh undefine --domain {shlex.quote(typed(move.name, move.uuid))} on {self.trip.host}"
            if (result := self.results.get(move.domain)) is not None:
                row |= {"seconds": result.seconds, "downtime_ms": result.downtime_ms}
            yield row | self.told[move.domain]
        for one in self.trip.staying:
            yield {"outcome": "stays", "where": self.trip.host, "message": one.evidence, "next": one.remedy}
