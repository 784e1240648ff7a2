"""One trial: a guest that moves from host to host, a fault at a moment of it, a verdict."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final

from tests.faults.client import Client, Task, Told
from tests.faults.faults import FAULTS, Fault, Way, ways
from tests.faults.judge import Judge, Verdict
from tests.faults.moments import Moment, Side, Watch, phase, wait_for
from tests.rig import Rig, RigError, breakage
from vmcompat.migration.policy import Policy
from vmcompat.migration.transfer import Transfer

MISSED: Final = "missed"  # in place of a phase: the fault did not strike

# The switch-over takes as long as what is left of the memory then: the downtime that is allowed, over any link.
_LINK_MBIT: Final[dict[Moment, int]] = {"setup": 80, "pre-copy": 80, "switch-over": 160}
_SWITCH_MBIT: Final = 8
_BUSY_LINK_MBIT: Final = 32  # a small part of what a busy guest rewrites
_DIRTY: Final[dict[str, int]] = {"calm": 4, "busy": 64}  # what a kind of guest rewrites of its memory [MiB/s]
_JITTER: Final[dict[Moment, float]] = {"setup": 0.3, "pre-copy": 0.8, "switch-over": 0.08, "post-copy": 0.8}
_PLAN_SECONDS: Final = 60.0
_MOMENT_SECONDS: Final = 30.0
_END_SECONDS: Final = 110.0  # more than what vmcompat itself waits for a lost target and for an abort
_SLOW_SECONDS: Final = 2.0  # that the link stays slow after the fault


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is tried: a fault, when, and how the guest travels."""

    fault: Fault
    moment: Moment
    way: Way

    def __str__(self) -> str:
        return f"{self.fault.name}, {self.moment}, {self.way}"


def cells() -> list[Cell]:
    """All of them, in the order in which they are tried."""
    return [
        Cell(fault=fault, moment=moment, way=way) for fault in FAULTS for moment in fault.moments
        for way in ways(fault, moment)
    ]  # fmt: skip


class Stage:
    """The rig, and the guests that go to and fro on it: a guest that comes through a trial takes part in the next."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.watch = rig, Watch(rig)
        self.hosts = tuple(rig.cpus)[:2]
        self._guests: dict[str, str] = {}
        self._number = 0

    def guest(self, kind: str) -> tuple[str, str]:
        """A healthy guest and its host: that of the last trial, or a new one."""
        name = self._guests.get(kind)
        if name is not None:
            states = {host: self.watch.look(host, name).state for host in self.hosts}
            if sorted(states.values()) == ["gone", "running"]:
                return name, next(host for host, state in states.items() if state == "running")
        self._number += 1
        name = self._guests[kind] = f"{kind}{self._number}"
        path = self.rig.dir / f"{name}.xml"
        path.write_text(self.rig.domain_xml(name, memory=96, buffer=16, dirty=_DIRTY[kind]))
        host = self.hosts[0]
        self.rig.virsh(host, "define", str(path))
        self.rig.virsh(host, "start", name)
        self.rig.wait_for_tick(name, 2)
        return name, host

    def discard(self, kind: str) -> None:
        """Remove a guest, in whatever state it is."""
        name = self._guests.pop(kind)
        for host in self.hosts:
            self.rig.virsh(host, "destroy", name, check=False)
            self.rig.virsh(host, "undefine", name, check=False)


class Trial:
    """One migration that is broken. What a fault may do to it is its public part.

    Parameters
    ----------
    stage : Stage
    cell : Cell
    attempt : int
        Which time, from 0: it settles how long after the beginning of its phase the fault strikes.
    """

    def __init__(self, stage: Stage, cell: Cell, attempt: int) -> None:
        self.rig, self.cell, self._stage = stage.rig, cell, stage
        self._kind = "busy" if cell.fault.busy or cell.way == "post-copy" else "calm"
        self.name, self.source = stage.guest(self._kind)
        self.target = next(host for host in stage.hosts if host != self.source)
        # A switch-over is over in a tenth of a second: every second one is made longer, so that more of it is hit.
        self._lengthen = cell.moment == "switch-over" and attempt % 2 == 0
        self._delay = random.Random(f"{cell} {attempt}").uniform(0.0, 0.6 if self._lengthen else _JITTER[cell.moment])
        self._mending = ExitStack()
        self._client: Client | None = None
        self._second: Client | None = None
        self._edit = ""
        self._others: list[Told] = []

    # ---- for faults

    def afterwards(self, mend: Callable[[], object]) -> None:
        self._mending.callback(mend)

    def abort(self) -> None:
        self._at_work.abort()

    def interrupt(self) -> None:
        self._at_work.interrupt()

    def kill_client(self) -> None:
        self._at_work.kill()

    def edit_definition(self) -> None:
        dumped = self.rig.virsh(self.source, "dumpxml", "--inactive", "--security-info", self.name, check=False)
        if dumped.returncode != 0:
            return  # it has moved
        edit = f"edited at {time.time_ns()}"
        plain = re.sub(r"<description>.*</description>", "", dumped.stdout)
        path = self.rig.dir / "edited.xml"
        path.write_text(plain.replace("<memory", f"<description>{edit}</description><memory", 1))
        defined = self.rig.virsh(self.source, "define", str(path), check=False)
        if defined.returncode == 0 and not self._at_work.ended:  # later it is no edit of this guest any more
            self._edit = edit

    def plan_second(self) -> None:
        second = self._second = Client(self._task())
        told = second.planned(_PLAN_SECONDS)
        if told is not None:
            raise RigError(f"the second client could not plan: {told.message}")
        self.afterwards(second.kill)

    def run_second(self) -> None:
        second = self._second
        assert second is not None
        second.go()
        self.afterwards(lambda: self._others.append(second.result(_END_SECONDS)))

    # ---- what is done

    def run(self) -> dict[str, Any]:
        """Do it; the row of the results."""
        begin = time.monotonic()
        struck = MISSED
        with self._mending:
            told = self._begin()
            if told is None:
                struck = self._strike()
                told = self._end()
        verdict = self._judge(told, struck)
        if verdict.lost or verdict.twice or verdict.stuck or (self._kind == "busy" and len(verdict.problems)):
            self._stage.discard(self._kind)
        return {
            "fault": self.cell.fault.name, "moment": self.cell.moment, "way": self.cell.way, "phase": struck,
            "delay": round(self._delay, 3), "seconds": round(time.monotonic() - begin, 1), "guest": self.name,
            "from": self.source, "outcome": told.outcome, "message": told.message, "next": told.next,
            "steps": list(told.steps), "second": [f"{t.outcome}: {t.message}" for t in self._others],
            **asdict(verdict),
        }  # fmt: skip

    @property
    def _at_work(self) -> Client:
        assert self._client is not None
        return self._client

    @property
    def _uris(self) -> tuple[str, str]:
        uri = self.rig.ssh_uri if self.cell.fault.remote else self.rig.uri
        return uri(self.source), uri(self.target)

    def _task(self) -> Task:
        source, target = self._uris
        if self.cell.way == "post-copy":
            policy = Policy(name="faults", downtimes=(50,), stall=60.0, per_gib=0.0, least=4.0)
        elif self.cell.fault.busy:
            policy = Policy(name="faults", downtimes=(50,), stall=60.0, per_gib=0.0, least=3.0)
        else:
            policy = Policy(name="faults", downtimes=(2000,), stall=30.0, per_gib=0.0, least=60.0)
        return Task(
            domain=self.name, source=source, target=target, peer_uri=self.rig.peer_uri(self.target),
            migrate_uri=self.rig.migrate_uri(self.target), policy=policy,
            transfer=Transfer(managed=self.cell.way == "managed", post_copy=self.cell.way == "post-copy"),
        )  # fmt: skip

    def _look(self) -> tuple[Side, Side]:
        watch = self._stage.watch
        return watch.look(self.source, self.name), watch.look(self.target, self.name)

    def _begin(self) -> Told | None:
        """Everything up to the plan; what came instead of one."""
        self.cell.fault.prepare(self)
        mbit = _BUSY_LINK_MBIT if self._kind == "busy" else _LINK_MBIT[self.cell.moment]
        breakage.slow_link(self.rig, self.source, mbit)
        self.afterwards(lambda: breakage.free_link(self.rig, self.source))
        self._client = Client(self._task())
        return self._client.planned(_PLAN_SECONDS)

    def _strike(self) -> str:
        """Run the plan, and let the fault strike at its moment; the phase that it found."""
        client, fault = self._at_work, self.cell.fault
        if fault.before and self.cell.moment == "setup":
            fault.act(self)
            client.go()
            return "before"
        client.go()
        wait_for(self.cell.moment, self._look, over=lambda: client.ended, seconds=_MOMENT_SECONDS)
        if self._lengthen:
            breakage.slow_link(self.rig, self.source, _SWITCH_MBIT)
        time.sleep(self._delay)
        struck = phase(*self._look())
        if client.ended or struck == "end":  # what breaks after the guest has moved breaks no migration
            return MISSED
        fault.act(self)
        return struck

    def _end(self) -> Told:
        client = self._at_work
        deadline = time.monotonic() + _SLOW_SECONDS
        while not client.ended and (self.cell.fault.busy or time.monotonic() < deadline):
            time.sleep(0.05)
        breakage.free_link(self.rig, self.source)
        return client.result(_END_SECONDS)

    def _judge(self, told: Told, struck: str) -> Verdict:
        judge = Judge(
            self.rig, self._stage.watch, name=self.name, source=self.source, target=self.target, uris=self._uris
        )
        verdict = judge.judge(told, may_be_lost=struck in self.cell.fault.loses)
        moved = [one for one in (told, *self._others) if one.outcome == "migrated"]
        if len(moved) > 1:
            verdict.problems.append("both clients were told that they moved it")
        if self._edit and told.outcome == "migrated" and not self._edit_is_known(told):
            verdict.told = False
            verdict.problems.append("an edit of the definition was lost, and nobody was told")
        return verdict

    def _edit_is_known(self, told: Told) -> bool:
        stored = self.rig.virsh(self.target, "dumpxml", "--inactive", self.name).stdout
        return self._edit in stored or "definition" in told.message


def run_trial(stage: Stage, cell: Cell, attempt: int) -> dict[str, Any]:
    """Run one trial; a rig that fails is an error, not a result."""
    try:
        return Trial(stage, cell, attempt).run()
    except (RigError, OSError) as e:
        raise RigError(f"{cell}: {e}") from e
