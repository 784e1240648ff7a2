"""Many moves as one run: none begins before all may, a failure is the last, and what is done is read off the hosts.

The hosts here are dictionaries, whose plans move a guest from one to another. What is tested is who is moved when, and
what is told; real hosts are in tests/rig.
"""

import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.migration.scene import at
from vmcompat.errors import ConnectError, FrameError, MigrationError
from vmcompat.migration import convoy, itinerary
from vmcompat.migration.convoy import EvacuationRun, EvacuationStoppedError
from vmcompat.migration.itinerary import Itinerary, Move, Roads, Seen, Sightings, Stays
from vmcompat.migration.order import MigrationFailedError
from vmcompat.migration.preflight import Finding
from vmcompat.schema import EVACUATION_RUN, PREFLIGHTS

GIB = 1 << 20  # [KiB]


@dataclass
class World:
    """Which guest is in which state on which host, what stands in its way, and what goes wrong with it."""

    hosts: dict[str, dict[str, str]]
    stops: dict[str, tuple[Finding, ...]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    free: int | None = None
    during: Callable[[str, threading.Event], object] = lambda name, abort: None
    begun: list[str] = field(default_factory=list)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)  # UUIDs that are not the usual ones

    def look(self, uris: Mapping[str, str]) -> Sightings:
        return {
            host: ConnectError(f"{host} is silent")
            if host in self.silent
            else tuple(Seen(name, self.others.get(name, f"uuid-{name}"), s) for name, s in self.hosts[host].items())
            for host in uris
        }

    def plan(self, name: str, source: str, target: str, *, force: tuple[str, ...] = (), **details: Any) -> Any:
        self.details[name] = details
        findings = self.stops.get(name, ())
        ends = [SimpleNamespace(name=u, uri=u, capabilities=SimpleNamespace(facts={"uuid": f"host-{u}"}))
                for u in (source, target)]  # fmt: skip
        order = SimpleNamespace(
            findings=findings,
            stops=tuple(f for f in findings if f.id not in force or f.severity == "block"),
            forced=tuple(f.id for f in findings if f.id in force and f.severity != "block"),
        )
        seen = SimpleNamespace(source=ends[0], target=ends[1])
        return SimpleNamespace(order=order, seen=seen, run=lambda **how: self.move(name, source, target, **how))

    def move(self, name: str, source: str, target: str, *, progress: Any, abort: threading.Event) -> Any:
        self.begun.append(name)
        progress.say(f"migrating {name}")
        progress.update({"memory_total": 4 << 20, "memory_remaining": 1 << 20, "memory_iteration": 2})
        self.during(name, abort)
        if name in self.failing or abort.is_set():
            self.fail(name, f"{name} broke", phase="transfer")
        self.hosts[target][name] = self.hosts[source].pop(name)
        progress.close(complete=True)
        return SimpleNamespace(outcome="migrated", seconds=1.0, downtime_ms=7, message="")

    def fail(self, name: str, problem: str, *, phase: str) -> NoReturn:
        row: Any = SimpleNamespace(outcome="stayed", phase=phase, seconds=1.0, downtime_ms=None)
        raise MigrationFailedError(problem, changed=(), undone=(), next=f"mend {name}", result=row)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(hosts={"h1": dict.fromkeys(["a", "b", "c", "d"], "running"), "h2": {}, "h3": {}})
    inhabit(monkeypatch, made)
    return made


def inhabit(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr(itinerary, "plan_migration", world.plan)
    for module in (itinerary, convoy):
        monkeypatch.setattr(module, "look", world.look)
    monkeypatch.setattr(convoy, "available", lambda uri: world.free)


MOVES = {"a": ("h2", 1), "b": ("h3", 1), "c": ("h2", 2), "d": ("h3", 2)}


def trip(
    moves: Mapping[str, tuple[str, int]] = MOVES, *, uris: tuple[str, ...] = ("h1", "h2", "h3"), **roads: Any
) -> Itinerary:
    return Itinerary(
        "h1",
        moves=[
            Move(domain=name, name=name, uuid=f"uuid-{name}", target=target, wave=wave, memory=GIB)
            for name, (target, wave) in moves.items()
        ],
        staying=[Stays(domain="s", evidence="stuck: it has a device", remedy="detach it")],
        host_uuids={host: f"HOST-{host}" for host in uris},
        roads=Roads(uris={host: host for host in uris}, **roads),
    )


def run(on: Itinerary, **how: Any) -> EvacuationRun:
    return convoy.run(on, **({"progress": False} | how))


def stopped(on: Itinerary, **how: Any) -> EvacuationStoppedError:
    with pytest.raises(EvacuationStoppedError) as error:
        run(on, **how)
    return error.value


def outcomes(of: EvacuationRun) -> dict[str, str]:
    return {str(domain): str(outcome) for domain, outcome in of.frame["outcome"].items()}


def test_waves_go_one_after_another_and_the_guests_of_one_at_a_time(world: World) -> None:
    both = threading.Barrier(2, timeout=10)  # breaks unless two are there at a time
    world.during = lambda name, abort: both.wait()
    done = run(trip())
    assert (sorted(world.begun[:2]), sorted(world.begun[2:])) == (["a", "b"], ["c", "d"])
    assert outcomes(done) == {**dict.fromkeys("abcd", "moved"), "s": "stays"}
    assert done.frame["where"].to_dict() == {
        "a": "running on h2", "b": "running on h3", "c": "running on h2", "d": "running on h3", "s": "h1",
    }  # fmt: skip
    assert (done.complete, done.left) == (True, ())
    assert {c: str(t) for c, t in done.frame.dtypes.items()} == EVACUATION_RUN
    assert {c: str(t) for c, t in done.findings.dtypes.items()} == PREFLIGHTS
    assert done.explain()[0] == "h1: of 5 guests 4 moved"
    assert "s (stays; h1): stuck: it has a device. To do: detach it" in done.explain()


def test_what_stops_one_move_stops_all_and_every_one_of_them_is_named(world: World) -> None:
    world.stops = {
        "b": (Finding("NAME", "block", "h3 has a b", "rename it"),),
        "d": (Finding("OWNER", "risk", "nova's", "ask nova"), Finding("TSC", "unknown", "who knows", "look")),
    }
    error = stopped(trip(force=("TSC", "NAME")))
    assert world.begun == []
    for told in ("b -> h3: NAME (block): h3 has a b", "d -> h3: OWNER (risk): nova's", "nothing was moved"):
        assert told in str(error)
    assert "TSC" not in str(error)
    assert error.next.startswith("b: rename it / d: ask nova; then run the evacuation again")
    assert set(error.run.frame["outcome"]) == {"not begun", "stays"}
    findings = error.run.findings.set_index("id")
    assert findings["forced"].to_dict() == {"NAME": False, "OWNER": False, "TSC": True}
    assert findings["domain"].to_dict() == {"NAME": "b", "OWNER": "d", "TSC": "d"}
    assert run(trip({"a": ("h2", 1)})).complete


def test_a_stop_that_shows_before_the_second_wave_leaves_that_wave_alone(world: World) -> None:
    def meanwhile(name: str, abort: threading.Event) -> None:
        world.stops = {"d": (Finding("NAME", "block", "taken now", "rename it"),)}

    world.during = meanwhile
    error = stopped(trip())
    assert outcomes(error.run) == {"a": "moved", "b": "moved", "c": "not begun", "d": "not begun", "s": "stays"}
    assert at(error.run.frame, "d")["message"] == "NAME (block): taken now"
    assert at(error.run.frame, "c")["message"] == ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    moves=st.dictionaries(
        st.sampled_from("abcdefgh"), st.tuples(st.sampled_from(["h2", "h3"]), st.integers(1, 3)), min_size=1
    ),
    data=st.data(),
)
def test_after_the_first_failure_its_wave_ends_nothing_begins_and_the_next_run_does_the_rest(
    moves: dict[str, tuple[str, int]], data: st.DataObject
) -> None:
    moves = dict(sorted(moves.items(), key=lambda item: item[1][1]))
    failing = data.draw(st.sets(st.sampled_from(sorted(moves))))
    with pytest.MonkeyPatch.context() as patch:
        world = World(hosts={"h1": dict.fromkeys(moves, "running"), "h2": {}, "h3": {}}, failing=failing)
        inhabit(patch, world)
        last = min((moves[name][1] for name in failing), default=9)
        expected = {
            name: "not begun" if wave > last else "failed" if name in failing else "moved"
            for name, (_, wave) in moves.items()
        }
        if failing:
            error = stopped(trip(moves))
            assert outcomes(error.run) == expected | {"s": "stays"}
            assert all(f"failed: {name} (running on h1)" in str(error) for name, o in expected.items() if o == "failed")
        else:
            assert outcomes(run(trip(moves))) == expected | {"s": "stays"}
        where = [name for host in world.hosts.values() for name in host]
        assert sorted(where) == sorted(moves), "a guest is on one host, always"

        world.failing, world.begun = set(), []
        done = run(trip(moves))  # made anew: nothing is remembered but by the hosts
        assert sorted(world.begun) == sorted(name for name, o in expected.items() if o != "moved")
        assert {name: target for name, (target, _) in moves.items()} == {
            name: host for host in ("h2", "h3") for name in world.hosts[host]
        }
        assert set(outcomes(done).values()) <= {"moved", "arrived before", "stays"}


def test_a_guest_that_is_nowhere_or_is_another_one_moves_nothing(world: World) -> None:
    del world.hosts["h1"]["a"]
    world.others = {"b": "another"}
    error = stopped(trip())
    assert "a is not on h1, but on none of h1, h2, h3" in str(error)
    assert "b is not on h1, but on none of h1, h2, h3" in str(error)
    assert world.begun == []
    world.hosts["h3"]["a"] = "shut off"
    assert "a is not on h1, but shut off on h3" in str(stopped(trip()))


@pytest.mark.parametrize(
    ("here", "there", "arrived"),
    [("", "running", True), ("shut off", "running", True), ("", "paused", True), ("running", "paused", False)],
)
def test_arrived_is_who_runs_there_and_no_longer_here(world: World, here: str, there: str, arrived: bool) -> None:
    world.hosts["h1"] = {"a": here} if here else {}
    world.hosts["h2"] = {"a": there}
    world.stops = {"a": (Finding("NAME", "block", "it is there already", "wait"),)}
    moves = {"a": ("h2", 1)}
    if arrived:
        done = run(trip(moves))
        assert outcomes(done)["a"] == "arrived before"
        assert ("virsh undefine --domain a on h1" in at(done.frame, "a")["next"]) is (here == "shut off")
    else:
        assert at(stopped(trip(moves)).run.frame, "a")["where"] == "running on h1; paused on h2"


@pytest.mark.parametrize(("free", "begins"), [(2 * GIB, True), (2 * GIB - 1, False), (None, True)])
def test_a_wave_does_not_begin_where_its_guests_together_find_too_little_memory(
    world: World, free: int | None, begins: bool
) -> None:
    world.free = free
    moves = {"a": ("h2", 1), "b": ("h2", 1)}
    if begins:
        assert run(trip(moves)).complete
        return
    error = stopped(trip(moves))
    assert "MEMORY (risk): h2 has 2 GiB free" in str(error)
    assert world.begun == []
    assert "force=('MEMORY',)" in at(error.run.frame, "b")["next"]
    assert run(trip(moves, force=("MEMORY",))).complete


def test_an_abort_ends_what_is_under_way_and_what_has_moved_stays_there(world: World) -> None:
    abort = threading.Event()

    def during(name: str, told: threading.Event) -> None:
        if name == "c":
            abort.set()
        if name == "d":
            assert told.wait(10)

    world.during = during
    error = stopped(trip(), abort=abort)
    assert outcomes(error.run) == {"a": "moved", "b": "moved", "c": "aborted", "d": "aborted", "s": "stays"}
    assert error.run.left == ("c", "d")
    before = stopped(trip(), abort=abort)  # still set
    assert "aborted before the next move began" in str(before)
    assert outcomes(before.run)["a"] == "arrived before"


def test_ctrl_c_aborts_waits_and_stays_ctrl_c(world: World) -> None:
    world.during = lambda name, told: None if name == "a" else told.wait(10)
    fired: list[object] = []

    def interrupt(stats: Mapping[str, Any]) -> None:
        if stats["n_moved"] == 1 and not fired:
            fired.append(True)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"aborted: b \(running on h1\)") as error:
        run(trip(), progress=interrupt)
    assert isinstance(error.value.__cause__, EvacuationStoppedError)
    assert outcomes(error.value.__cause__.run) == {
        "a": "moved", "b": "aborted", "c": "not begun", "d": "not begun", "s": "stays",
    }  # fmt: skip


def test_a_host_that_does_not_answer_at_the_start_moves_nothing_and_one_at_the_end_is_said(world: World) -> None:
    world.silent = {"h3"}
    with pytest.raises(ConnectError, match="h3 is silent"):
        run(trip())
    world.silent = set()
    world.during = lambda name, abort: world.silent.add("h1") if name in "cd" else None
    done = run(trip())
    assert done.left is None
    assert at(done.frame, "c")["where"] == "running on h2; h1 did not answer"
    assert "h1 does not answer: what runs there is not known" in done.explain()


def test_who_else_runs_on_the_host_is_told(world: World) -> None:
    world.hosts["h1"] |= {"new": "running", "old": "shut off"}
    done = run(trip())
    assert done.left == ("new",)
    assert done.explain()[-1] == "on h1 there still run new"


def test_uris_are_held_against_the_hosts_of_the_plan(world: World) -> None:
    with pytest.raises(FrameError, match="uris: h3 missing"):
        trip(uris=("h1", "h2"))
    wrong = trip()
    wrong.host_uuids = {"h2": "another"}
    with pytest.raises(MigrationError, match="the URI of h2, h2, leads to a host of UUID host-h2"):
        run(wrong)
    assert world.begun == []


def test_each_plan_is_made_by_the_roads_to_its_target(world: World) -> None:
    run(trip(peer_uris={"h2": "peer-h2"}, migrate_uris={"h3": "tcp://h3"}, options={"policy": "gentle"}))
    same = {"baseline": None, "policy": "gentle"}
    assert world.details["a"] == {"peer_uri": "peer-h2", "migrate_uri": "", **same}
    assert world.details["b"] == {"peer_uri": None, "migrate_uri": "tcp://h3", **same}


def test_progress_is_lines_or_a_dictionary_of_all_that_is_under_way(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vmcompat.migration.board._LINE_SECONDS", 0.0)
    world.during = lambda name, abort: abort.wait(0.7)
    run(trip({"a": ("h2", 1), "b": ("h3", 1), "c": ("h2", 2)}), progress=True)
    printed = capsys.readouterr()
    said = (printed.out + printed.err).splitlines()
    assert "a: migrating a" in said
    assert "wave 1 of 2: 0 of 3 moved; a -> h2 pass 2, 1 MiB left; b -> h3 pass 2, 1 MiB left" in said
    assert "wave 2 of 2: 2 of 3 moved; c -> h2 pass 2, 1 MiB left" in said
    assert said[-1] == "wave 2 of 2: 3 of 3 moved"

    seen: list[Mapping[str, Any]] = []
    threads = set()

    def shown(stats: Mapping[str, Any]) -> None:
        seen.append(stats)
        threads.add(threading.current_thread())

    run(trip({"d": ("h3", 1)}), progress=shown)
    assert threads == {threading.current_thread()}
    assert seen[0]["guests"]["d"]["memory_iteration"] == 2
    assert (seen[0]["memory_remaining"], seen[0]["n_moves"]) == (1 << 20, 1)
    assert (seen[-1]["n_moved"], seen[-1]["guests"]) == (1, {})
