"""A host is emptied, for real, onto two others: everything arrives, or the run stops and knows where every guest is."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import vmcompat as vc
from tests.migration.scene import at
from tests.rig import Rig, RigUnavailable
from vmcompat.migration.convoy import EvacuationStoppedError
from vmcompat.migration.evacuate import Evacuation
from vmcompat.migration.itinerary import available

pytestmark = pytest.mark.rig

# TCG emulates neither, so that no SandyBridge starts on the rig with them.
SANDYBRIDGE = """<cpu mode='custom' match='exact' check='partial'><model fallback='forbid'>SandyBridge</model>
<feature policy='disable' name='x2apic'/><feature policy='disable' name='tsc-deadline'/></cpu>"""
CPUS = {"west1": "Westmere", "west2": "Westmere", "neha": "Nehalem", "sandy": SANDYBRIDGE,
        "anycpu": "<cpu mode='maximum'/>"}  # fmt: skip
MOVING = ("west1", "west2", "neha", "sandy")
SMALL: dict[str, Any] = {"memory": 96, "buffer": 16}  # with less the kernel does not come up


class Scene:
    """Three hosts, the guests of the first, and what a planner reads of them."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.uris = {host: rig.uri(host) for host in rig.cpus}
        self.roads: dict[str, Any] = {
            "peer_uris": {host: rig.peer_uri(host) for host in rig.cpus},
            "migrate_uris": {host: rig.migrate_uri(host) for host in rig.cpus},
        }
        self.fleet = vc.read_fleet(list(self.uris.values()), view="hypervisor", virttype="qemu")

    def define(self, name: str, *, on: str = "h1", **details: Any) -> None:
        path = self.rig.dir / f"{name}.xml"
        path.write_text(self.rig.domain_xml(name, **SMALL, **details))
        self.rig.virsh(on, "define", str(path))

    def states(self) -> dict[str, dict[str, str]]:
        """Of every guest by host."""
        found: dict[str, dict[str, str]] = {}
        for host in self.rig.cpus:
            for name in self.rig.virsh(host, "list", "--all", "--name").stdout.split():
                found.setdefault(name, {})[host] = self.rig.virsh(host, "domstate", name).stdout.strip()
        return found

    def plan(self, **options: Any) -> Evacuation:
        """From what the hosts say now."""
        return vc.plan_evacuation("h1", self.fleet, vc.read_domains(list(self.uris.values())), **options)

    def go_home(self) -> None:
        """Every guest back to h1, by virsh, and whatever else there is away."""

        def home(name: str, host: str) -> None:
            self.rig.virsh(
                host, "migrate", name, "--live", "--p2p", "--persistent", "--undefinesource",
                self.rig.peer_uri("h1"), self.rig.migrate_uri("h1"),
            )  # fmt: skip

        away = []
        for name, where in self.states().items():
            for host, state in where.items():
                if state == "shut off":
                    self.rig.virsh(host, "undefine", name)
                elif host != "h1":
                    away.append((name, host))
        with ThreadPoolExecutor() as pool:
            list(pool.map(home, *zip(*away, strict=True)) if away else [])
        self.slow(0)

    def slow(self, mib: int) -> None:
        """The guests that are on h1 move at so many MiB/s; 0 for no limit."""
        for name in MOVING:
            self.rig.virsh("h1", "migrate-setspeed", name, str(mib), check=False)

    def all_live(self) -> None:
        """Every guest still gives signs of life, and has never lost one, nor started again."""
        for name in CPUS:
            console = self.rig.wait_for_tick(name, self.rig.console(name).ticks[-1].number + 2)
            assert (name, len(console.boot_ids), console.holes, console.bad) == (name, 1, (), 0)
            assert console.checked > 0


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    rig = Rig({"h1": "SandyBridge", "h2": "Westmere", "h3": "SandyBridge"})
    try:
        rig.start()
    except RigUnavailable as e:
        pytest.skip(f"no rig: {e}")
    try:
        made = Scene(rig)
        for name, cpu in CPUS.items():
            made.define(name, cpu=cpu)
            rig.virsh("h1", "start", name)
        for name in CPUS:
            rig.wait_for_tick(name)
        yield made
    finally:
        rig.stop()


@pytest.fixture
def home(scene: Scene) -> Iterator[Scene]:
    yield scene
    scene.all_live()
    scene.go_home()


def when(condition: Callable[[Mapping[str, Any]], object], act: Callable[[], object]) -> Callable[[Any], None]:
    """Progress that acts once, as soon as the condition holds."""
    done: list[object] = []

    def shown(stats: Mapping[str, Any]) -> None:
        if not done and condition(stats):
            done.append(act())

    return shown


def on_its_way(name: str) -> Callable[[Mapping[str, Any]], object]:
    return lambda stats: stats["guests"].get(name, {}).get("memory_remaining")


def test_every_guest_arrives_where_the_plan_said_and_the_one_without_a_place_stays_with_its_reason(
    home: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = home.plan()
    planned = plan.frame[plan.frame["verdict"] == "moves"]["target"].to_dict()
    assert set(planned) == set(MOVING)
    assert planned["sandy"] == "h3"
    assert at(plan.frame, "anycpu")["verdict"] != "moves"
    assert at(plan.frame, "anycpu")["reasons"] == ("PASSTHROUGH",)

    asked = plan.preflight(home.uris, **home.roads)
    assert set(asked["domain"]) == set(MOVING)
    assert not asked["severity"].isin(["block", "risk", "unknown"]).any()
    commands = plan.commands(home.uris, **home.roads)
    order = [line.split()[3] for line in commands.splitlines() if line.startswith("# wave")]
    assert order == [move.domain for move in plan.moves]
    assert commands.count("--persistent --undefinesource") == len(MOVING)
    assert {name: set(hosts) for name, hosts in home.states().items()} == {name: {"h1"} for name in CPUS}

    done = plan.run(home.uris, **home.roads)
    assert done.complete
    assert home.states() == {name: {planned.get(name, "h1"): "running"} for name in CPUS}
    assert done.frame["outcome"].to_dict() == {**dict.fromkeys(MOVING, "moved"), "anycpu": "stays"}
    assert (done.frame.loc[list(MOVING), "downtime_ms"] >= 0).all()
    assert done.left == ("anycpu",)
    assert at(plan.frame, "anycpu")["evidence"] in at(done.frame, "anycpu")["message"]
    assert at(done.frame, "anycpu")["next"] == at(plan.frame, "anycpu")["remedy"] != ""
    said = capsys.readouterr()
    assert "wave 2 of 2: 4 of 4 moved" in said.out + said.err

    again = plan.run(home.uris, **home.roads, progress=False)
    assert again.complete
    assert set(again.frame.loc[list(MOVING), "outcome"]) == {"arrived before"}


def test_after_a_failure_its_wave_is_let_finish_nothing_else_begins_and_a_second_run_goes_on(home: Scene) -> None:
    plan = home.plan()
    first = [move.domain for move in plan.moves if move.wave == 1]
    later = [move.domain for move in plan.moves if move.wave == 2]
    victim, mate = first
    home.slow(8)

    def sabotage() -> None:
        home.rig.virsh("h1", "domjobabort", victim)

    with pytest.raises(EvacuationStoppedError) as stopped:
        plan.run(home.uris, **home.roads, progress=when(on_its_way(victim), sabotage))
    run = stopped.value.run
    assert run.frame["outcome"].to_dict() == {
        victim: "failed", mate: "moved", **dict.fromkeys(later, "not begun"), "anycpu": "stays",
    }  # fmt: skip
    targets = plan.frame["target"]
    assert at(run.frame, victim)["where"] == "running on h1"
    assert at(run.frame, mate)["where"] == f"running on {targets[mate]}"
    assert f"failed: {victim} (running on h1)" in str(stopped.value)
    assert f"not begun: {', '.join(later)}" in str(stopped.value)
    assert "run the evacuation again" in stopped.value.next
    assert home.states() == {name: {targets[mate] if name == mate else "h1": "running"} for name in CPUS}

    # the name of one of the second wave is taken now: nothing at all moves
    home.define(later[0], on=targets[later[0]])
    before = home.states()
    with pytest.raises(EvacuationStoppedError, match=rf"{later[0]} -> h\d: NAME \(block\)") as blocked:
        plan.run(home.uris, **home.roads, progress=False)
    assert "nothing was moved by this run" in str(blocked.value)
    assert at(blocked.value.run.frame, mate)["outcome"] == "arrived before"
    assert at(blocked.value.run.frame, victim)["outcome"] == "not begun"
    assert home.states() == before

    home.rig.virsh(targets[later[0]], "undefine", later[0])
    home.slow(0)
    done = plan.run(home.uris, **home.roads, progress=False)
    assert done.complete
    assert at(done.frame, mate)["outcome"] == "arrived before"
    assert home.states() == {name: {targets.to_dict()[name] if name in MOVING else "h1": "running"} for name in CPUS}


def test_a_name_that_is_taken_meanwhile_stops_the_run_before_the_wave_of_that_guest(home: Scene) -> None:
    plan = home.plan()
    last = [move for move in plan.moves if move.wave == 2][-1]
    home.slow(32)
    taken = when(lambda stats: stats["wave"] == 1, lambda: home.define(last.domain, on=last.target))
    with pytest.raises(EvacuationStoppedError, match=r"NAME \(block\)") as stopped:
        plan.run(home.uris, **home.roads, progress=taken)
    outcomes = stopped.value.run.frame["outcome"].to_dict()
    assert outcomes == {m.domain: "moved" if m.wave == 1 else "not begun" for m in plan.moves} | {"anycpu": "stays"}
    # the other domain of that name is another one
    assert at(stopped.value.run.frame, last.domain)["where"] == "running on h1"
    assert at(stopped.value.run.frame, last.domain)["next"] == "rename or remove that one"


@pytest.mark.parametrize("by", ["event", "Ctrl-C"])
def test_an_abort_midway_aborts_all_that_is_under_way_and_tells_where_everybody_is(home: Scene, by: str) -> None:
    plan, abort = home.plan(at_once=4), threading.Event()
    home.slow(4)
    stop = abort.set if by == "event" else lambda: signal.raise_signal(signal.SIGINT)
    midway = when(lambda s: s["guests"] and all(g.get("memory_remaining") for g in s["guests"].values()), stop)
    with pytest.raises(EvacuationStoppedError if by == "event" else KeyboardInterrupt, match="aborted; ") as stopped:
        plan.run(home.uris, **home.roads, progress=midway, abort=abort)
    error = stopped.value if by == "event" else stopped.value.__cause__
    assert isinstance(error, EvacuationStoppedError)
    assert all(f"aborted: {name} (running on h1)" in str(stopped.value) for name in MOVING)
    assert set(error.run.frame.loc[list(MOVING), "outcome"]) == {"aborted"}
    assert set(error.run.frame.loc[list(MOVING), "where"]) == {"running on h1"}
    assert home.states() == {name: {"h1": "running"} for name in CPUS}
    # nothing stands in the way of the next try
    assert not plan.preflight(home.uris, **home.roads)["severity"].isin(["block", "risk", "unknown"]).any()


def test_uris_that_are_mixed_up_or_missing_move_nothing(home: Scene) -> None:
    plan = home.plan()
    mixed = {**home.uris, "h2": home.uris["h3"], "h3": home.uris["h2"]}
    with pytest.raises(vc.errors.MigrationError, match=r"leads to a host of UUID .* and the plan was made for one of"):
        plan.run(mixed, **home.roads, progress=False)
    with pytest.raises(vc.errors.FrameError, match="uris: h3 missing"):
        plan.run({host: home.uris[host] for host in ("h1", "h2")}, **home.roads, progress=False)
    assert home.states() == {name: {"h1": "running"} for name in CPUS}


def test_a_target_without_the_memory_for_a_wave_gets_none_of_it(home: Scene) -> None:
    plan = home.plan()
    machine = int(Path("/proc/meminfo").read_text().split()[1])  # MemTotal [KiB]
    assert 0 < (available(home.uris["h2"]) or 0) <= machine
    large = replace(plan, moves=tuple(replace(move, memory=machine) for move in plan.moves))
    with pytest.raises(EvacuationStoppedError, match=r"MEMORY \(risk\): h\d has .* GiB free"):
        large.run(home.uris, **home.roads, progress=False)
    assert home.states() == {name: {"h1": "running"} for name in CPUS}
