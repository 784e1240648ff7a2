"""Writes a baseline into the stored definitions of many guests, and takes it out of each again on request."""

from __future__ import annotations

import html
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.errors import ConnectError, FrameError, MigrationError
from vmcompat.migration.apply import AppliedBaseline, apply_baseline
from vmcompat.migration.domain import typed
from vmcompat.schema import ROLLOUT, ROLLOUT_UNDONE, frame

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline


class Candidate(NamedTuple):
    """A guest and what is known of it.

    Attributes
    ----------
    domain, name, uuid : str
        As the ledger calls it, and as its own XML does; without XML there is no UUID.
    host : str
    written, on_it : bool or None
        Whether the baseline is stored, and whether it runs with it; None where that is not known, or it is off.
    runs : bool or None
    excuse, remedy : str
        Why nothing is to be written, and what to do; empty where something is.
    """

    domain: str
    name: str
    uuid: str
    host: str
    written: bool | None
    on_it: bool | None
    runs: bool | None
    excuse: str
    remedy: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Rollout:
    """A baseline in the stored definitions of many guests. Made by :meth:`vmcompat.migration.ledger.Ledger.apply`.

    Attributes
    ----------
    model : str
        Of the baseline.
    frame : DataFrame
        One row a guest: columns of ``schema.ROLLOUT``, index ``domain``.
    applied : mapping of str to AppliedBaseline
        Those that were written, by domain, each with its own ``undo()``.
    """

    model: str
    frame: pd.DataFrame
    applied: Mapping[str, AppliedBaseline] = field(repr=False)

    def undo(self) -> pd.DataFrame:
        """Stores the old definitions again; one that somebody changed since stays, and stops no other.

        Returns
        -------
        DataFrame
            One row a definition that was written: columns of ``schema.ROLLOUT_UNDONE``, index ``domain``.
        """
        rows = []
        for one in self.applied.values():
            row = {"host": one.host, "outcome": "undone", "message": ""}
            try:
                one.undo()
            except MigrationError as e:
                row |= {"outcome": "refused", "message": str(e)}
            except ConnectError as e:
                row |= {"outcome": "failed", "message": str(e)}
            rows.append(row)
        return frame(ROLLOUT_UNDONE, rows, index=pd.Index(list(self.applied), dtype="str", name="domain"))

    def explain(self) -> list[str]:
        """In sentences: how many have it now, why others have not and what to do, and who has to be power-cycled."""
        counts = self.frame["outcome"].value_counts(sort=False)
        told = [f"{self.model}: of {len(self.frame)} guests " + ", ".join(f"{n} {o}" for o, n in counts.items())]
        for domain, row in self.frame[~self.frame["outcome"].isin(["applied", "already there"])].iterrows():
            todo = f". To do: {row['next']}" if row["next"] else ""
            told.append(f"{domain} ({row['outcome']}): {row['message']}{todo}")
        cycle = self.frame["power_cycle"]
        if waiting := list(self.frame.index[cycle.fillna(False)]):
            told.append(
                f"{some(waiting)} run on with the CPU that they have until they are powered off and on: a reboot "
                "inside is not enough"
            )
        if doubtful := list(self.frame.index[cycle.isna()]):
            told.append(f"whether {some(doubtful)} run with it is not known")
        return told

    def __repr__(self) -> str:
        counts = self.frame["outcome"].value_counts(sort=False)
        told = ", ".join(f"{n} {outcome}" for outcome, n in counts.items()) or "no guests"
        return f"<Rollout of {self.model}: {told}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + self.frame.to_html(border=0, max_rows=40, na_rep="")


class RolloutStoppedError(MigrationError):
    """A rollout that Ctrl-C stopped between two guests; ``rollout`` has those that were written, and their undo."""

    def __init__(self, problem: str, *, rollout: Rollout) -> None:
        self.rollout = rollout
        super().__init__(problem)


def roll_out(
    candidates: Sequence[Candidate], base: Baseline, *, uris: Mapping[str, str], allow_host_view: bool
) -> Rollout:
    """See :meth:`vmcompat.migration.ledger.Ledger.apply`."""
    to_write = [one for one in candidates if not one.excuse and one.written is False]
    hosts = dict.fromkeys([*base.hosts, *(one.host for one in to_write)])
    if to_write and (lacking := [host for host in hosts if host not in uris]):
        raise FrameError(
            f"uris: {some(lacking)} missing; every host of the baseline is asked whether it can run the CPU"
        )
    rows = {one.domain: _unwritten(one) for one in candidates}
    applied: dict[str, AppliedBaseline] = {}
    interrupted = False
    with ThreadPoolExecutor(1) as worker:  # a definition that is being written is written to the end, and known
        for one in to_write:
            if interrupted:
                rows[one.domain] |= {"outcome": "not begun", "message": "", "power_cycle": False}
                continue
            targets = [uris[host] for host in base.hosts if host != one.host]
            call = worker.submit(
                apply_baseline,
                one.name,
                base,
                source=uris[one.host],
                targets=targets,
                allow_host_view=allow_host_view,
            )
            interrupted = _waited_for(call)
            rows[one.domain] |= _written(one, call, uris[one.host], applied)
    index = pd.Index(list(rows), dtype="str", name="domain")
    done = Rollout(model=base.model, frame=frame(ROLLOUT, rows.values(), index=index), applied=applied)
    if interrupted:
        stopped = RolloutStoppedError(
            f"interrupted: {some(list(applied)) or 'no guest'} of {len(to_write)} written. Undo: "
            "import sys; sys.last_value.__cause__.rollout.undo()",
            rollout=done,
        )
        raise KeyboardInterrupt(str(stopped)) from stopped
    return done


def _waited_for(call: Future[AppliedBaseline]) -> bool:
    """Whether Ctrl-C came meanwhile."""
    interrupted = False
    while not call.done():
        try:
            call.exception()
        except KeyboardInterrupt:
            interrupted = True
    return interrupted


def _unwritten(one: Candidate) -> dict[str, Any]:
    row: dict[str, Any] = {"host": one.host or None, "message": one.excuse, "next": one.remedy, "power_cycle": None}
    if one.excuse:
        return row | {"outcome": "left alone", "power_cycle": False}
    row |= {"outcome": "already there", "power_cycle": _to_cycle(one, runs=one.runs)}
    return row


def _to_cycle(one: Candidate, *, runs: bool | None) -> bool | None:
    """Whether a guest that has the baseline stored has yet to be powered off and on."""
    if runs is False or one.on_it:
        return False
    return True if runs and one.on_it is False else None


def _written(
    one: Candidate, call: Future[AppliedBaseline], uri: str, applied: dict[str, AppliedBaseline]
) -> dict[str, Any]:
    from vmcompat.connect import shown

    error, quoted = call.exception(), shlex.quote(typed(one.name, one.uuid))
    if error is None:
        result = call.result()
        cycle = _to_cycle(one, runs=result.running)
        todo = f"virsh shutdown --domain {quoted}; virsh start --domain {quoted} (a reboot inside is not enough)"
        row = {"power_cycle": cycle, "message": "", "next": todo if cycle else ""}
        if not result.diff:
            return row | {"outcome": "already there"}
        applied[one.domain] = result
        return row | {"outcome": "applied"}
    if isinstance(error, MigrationError):
        return {"outcome": "refused", "message": str(error), "next": "", "power_cycle": False}
    if isinstance(error, ConnectError):
        look = f"virsh -c {shlex.quote(shown(uri))} dumpxml --inactive --domain {quoted}"
        return {"outcome": "failed", "message": str(error), "next": f"see what is stored: {look}", "power_cycle": None}
    raise error
