"""What is left after a trial: waits until it has settled, does what the person was told to do, and looks."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.faults.client import Told
from tests.faults.moments import Side, Watch
from tests.rig import Rig, RigError, breakage
from vmcompat.migration.recover import Recovery, recover

_SETTLING_SECONDS: Final = 2.0  # nobody reads and types faster
_PATIENCE_SECONDS: Final = 45.0  # with what recover says goes on by itself
_ROUNDS: Final = 4
_NEW_TICKS: Final = 2
_CHANGING: Final = r"virsh -c (?:'[^']*'|\S+) (?:domjobabort|resume|start|destroy|undefine)\b[^;]*"
_LOSS_WORDS: Final = ("lost", "is shut off on", "is gone on")
_LOSSES: Final = ("post-copy lost", "post-copy failed", "off", "gone")


@dataclass(kw_only=True)
class Verdict:
    """What a trial came to.

    Attributes
    ----------
    where : dict of str to str
        What each host says in the end.
    lost, reported : bool
        The guest does not live on as it was; and that was to be, and was said.
    twice : bool
        It ran on both hosts.
    stuck : bool
        A job, a waiting QEMU or a definition on the wrong host is left, after all that was to be typed.
    told : bool
        The person was told where the guest is, and what to type next where something is to be done.
    typed : list of str
        What the person had to type.
    found : str
        What ``recover`` said, where it was asked.
    problems : list of str
        In words; empty where all is well.
    """

    where: dict[str, str]
    lost: bool = False
    reported: bool = False
    twice: bool = False
    stuck: bool = False
    told: bool = True
    typed: list[str] = field(default_factory=list)
    found: str = ""
    problems: list[str] = field(default_factory=list)


class Judge:
    """Judges one trial.

    Parameters
    ----------
    rig, watch
    name, source, target : str
        The guest, and where it was to go.
    uris : tuple of str
        Of source and target, as the client had them.
    """

    def __init__(self, rig: Rig, watch: Watch, *, name: str, source: str, target: str, uris: tuple[str, str]) -> None:
        self.rig, self.watch, self.name, self.source, self.target = rig, watch, name, source, target
        self._uris = uris
        self._recovery: Recovery | None = None

    def judge(self, told: Told, *, may_be_lost: bool) -> Verdict:
        """The verdict, once everything that was broken is whole again."""
        typed = self._settle(told)
        sides = self._sides()
        verdict = Verdict(where={host: str(side) for host, side in sides.items()}, typed=typed)
        verdict.found = self._recovery.found if self._recovery else ""
        alive = self._judge_life(verdict, sides)
        verdict.told = self._was_told(told, sides, alive=alive, verdict=verdict)
        verdict.reported = verdict.lost and may_be_lost and verdict.told
        if verdict.lost and not verdict.reported:
            verdict.problems.append("the guest is lost" if not may_be_lost else "the loss was not said")
        if not verdict.lost:
            self._judge_remains(verdict, sides)
        if not verdict.told:
            verdict.problems.append("not told where the guest is")
        return verdict

    # ---- settling

    def _sides(self) -> dict[str, Side]:
        return {host: self.watch.look(host, self.name) for host in (self.source, self.target)}

    def _clean(self) -> bool:
        """Whether the guest runs on one host, with nothing of it on the other."""
        sides = self._sides()
        running = [host for host, side in sides.items() if side.state == "running"]
        if len(running) != 1 or sides[running[0]].job:
            return False
        other = self.source if running[0] == self.target else self.target
        return sides[other].state == "gone" and not breakage.emulators(self.rig, other, self.name)

    def _settle(self, told: Told) -> list[str]:
        """Wait, then type what was said, then what ``recover`` says, until nothing is left to do."""
        typed: list[str] = []
        if _until(self._clean, _SETTLING_SECONDS):
            return typed
        for line in re.findall(_CHANGING, told.next):
            typed.append(self._type(line.strip()))
        patience = time.monotonic() + _PATIENCE_SECONDS
        for _ in range(_ROUNDS):
            if _until(self._clean, _SETTLING_SECONDS if typed else 0.0):
                break
            left = self._recovery = recover(self.name, *self._uris)
            while _goes_on(left) and time.monotonic() < patience:
                if _until(self._clean, 1.0):
                    return typed
                left = self._recovery = recover(self.name, *self._uris)
            if not left.steps or not (left.safe or left.found == "post-copy failed"):
                break
            typed += [self._type(line) for line in left.steps]
        return typed

    def _type(self, line: str) -> str:
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
        return line if done.returncode == 0 else f"{line}  # {done.stderr.strip()}"

    # ---- looking

    def _judge_life(self, verdict: Verdict, sides: dict[str, Side]) -> str:
        """Whether the guest lives on as it was; the host where it does."""
        running = [host for host, side in sides.items() if side.state == "running"]
        console = self.rig.console(self.name)
        try:
            if running:
                last = console.ticks[-1].number
                console = self.rig.wait_for_tick(self.name, last + _NEW_TICKS, timeout=8.0)
            alive = bool(running)
        except RigError:
            alive = False
        if len(running) > 1 or any(after <= before for before, after in console.holes):
            verdict.twice = True
            verdict.problems.append(f"it ran twice: {verdict.where}, {console.holes}")
        if len(console.boot_ids) != 1 or console.bad or console.holes:
            alive = False
            verdict.problems.append(
                f"boots {len(console.boot_ids)}, bad words {console.bad}, holes in its ticks {console.holes}"
            )
        verdict.lost = not alive
        return running[0] if alive else ""

    def _judge_remains(self, verdict: Verdict, sides: dict[str, Side]) -> None:
        alive = next(host for host, side in sides.items() if side.state == "running")
        other = self.source if alive == self.target else self.target
        left = [f"a job on {alive}: {sides[alive].job}"] if sides[alive].job else []
        left += [f"{sides[other]} on {other}"] if sides[other].state != "gone" else []
        left += [f"a QEMU on {other}"] if breakage.emulators(self.rig, other, self.name) else []
        left += [f"no definition on {alive}"] if not sides[alive].persistent else []
        verdict.stuck = bool(left)
        verdict.problems += left

    def _was_told(self, told: Told, sides: dict[str, Side], *, alive: str, verdict: Verdict) -> bool:
        if told.outcome in ("error", "hung"):
            verdict.problems.append(f"the client: {told.message}")
            return False
        if told.outcome == "killed":  # what a person does then is to ask
            left = recover(self.name, *self._uris)
            verdict.found = left.found
            return left.found == self._expected(alive)
        if told.outcome == "migrated":
            return alive == self.target
        if not told.next and told.outcome != "refused":
            return False
        if not alive:
            asked = "recover(" in told.next and verdict.found in _LOSSES
            return asked or any(word in told.message for word in _LOSS_WORDS)
        said = (f"running on {alive}", f"runs on {alive}", f"runs again on {alive}", f"moved to {alive}")
        here = any(words in told.message for words in said)
        unmoved = alive == self.source and "Changed: nothing." in told.message
        return here or unmoved or (told.outcome == "unknown" and "recover(" in told.next)

    def _expected(self, alive: str) -> str:
        if not alive:
            return "gone" if self._recovery is None else self._recovery.found
        return "at source" if alive == self.source else "arrived"


def _goes_on(left: Recovery) -> bool:
    """Whether it is said to end by itself, or to be looked at again in a minute."""
    # one that moved held is let run by the process that stands by
    held = left.found in ("arrived", "definition left") and left.target.state == "paused"
    return held or left.found in ("migrating", "switching", "post-copy", "unknown")


def _until(seen: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not seen():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True
