"""A few of the trials of ``make faults``, and that their judge sees what would be wrong."""

import time
from collections.abc import Iterator

import pytest

from tests.faults import client
from tests.faults.client import Told
from tests.faults.judge import Judge, Verdict
from tests.faults.moments import Moment, Watch
from tests.faults.trial import Cell, Stage, cells, run_trial
from tests.rig import Rig, breakage

pytestmark = pytest.mark.rig


@pytest.fixture(scope="module")
def stage(rig: Rig) -> Iterator[Stage]:
    client.prepare()
    stage = Stage(rig)
    yield stage
    rig.clear()
    stage.watch.close()


def cell(fault: str, moment: Moment, way: str) -> Cell:
    return next(one for one in cells() if (one.fault.name, one.moment, one.way) == (fault, moment, way))


@pytest.mark.parametrize(
    ("fault", "moment", "way"),
    [
        ("destination QEMU killed", "pre-copy", "managed"),
        ("destination QEMU killed", "switch-over", "p2p"),
        ("destination libvirtd killed", "pre-copy", "p2p"),
        ("source libvirtd killed", "setup", "p2p"),
        ("client killed", "switch-over", "p2p"),
        ("name taken in between", "setup", "p2p"),
        ("two migrations at once", "pre-copy", "p2p"),
        ("aborted", "pre-copy", "managed"),
    ],
)
def test_a_migration_that_is_broken_leaves_one_guest_alive_and_tells_where(
    stage: Stage, fault: str, moment: Moment, way: str
) -> None:
    row = run_trial(stage, cell(fault, moment, way), 0)
    assert row["problems"] == []
    assert (row["lost"], row["twice"], row["stuck"]) == (False, False, False)


def test_a_held_guest_whose_client_is_killed_arrives_and_is_let_run_without_anybody_typing(stage: Stage) -> None:
    row = run_trial(stage, cell("client killed", "pre-copy", "p2p"), 0)
    target = next(host for host in stage.hosts if host != row["from"])
    assert (row["where"], row["typed"]) == ({row["from"]: "gone", target: "running, persistent"}, [])


# ---- what the judge would say


def judged(stage: Stage, name: str, host: str, told: Told) -> Verdict:
    other = next(one for one in stage.hosts if one != host)
    uris = stage.rig.uri(host), stage.rig.uri(other)
    judge = Judge(stage.rig, stage.watch, name=name, source=host, target=other, uris=uris)
    return judge.judge(told, may_be_lost=False)


def stayed(name: str, host: str) -> Told:
    return Told(outcome="stayed", message=f"aborted; {name} is running on {host} and gone elsewhere", next="plan again")


def test_the_judge_passes_a_guest_that_was_left_alone(stage: Stage) -> None:
    name, host = stage.guest("calm")
    assert judged(stage, name, host, stayed(name, host)).problems == []


def test_the_judge_sees_that_the_message_names_the_wrong_host(stage: Stage) -> None:
    name, host = stage.guest("calm")
    other = next(one for one in stage.hosts if one != host)
    verdict = judged(stage, name, host, stayed(name, other))
    assert (verdict.told, verdict.lost, verdict.twice, verdict.stuck) == (False, False, False, False)


def test_the_judge_sees_a_definition_that_is_left_and_types_what_recover_says(stage: Stage) -> None:
    name, host = stage.guest("calm")
    other = next(one for one in stage.hosts if one != host)
    path = stage.rig.dir / "left.xml"
    path.write_text(stage.rig.virsh(host, "dumpxml", "--inactive", name).stdout)
    stage.rig.virsh(other, "define", str(path))
    verdict = judged(stage, name, host, stayed(name, host))
    assert not verdict.stuck
    assert len(verdict.typed) == 1
    assert "undefine" in verdict.typed[0]


def test_the_judge_sees_a_guest_that_runs_twice(stage: Stage) -> None:
    name, host = stage.guest("calm")
    other = next(one for one in stage.hosts if one != host)
    path = stage.rig.dir / "twice.xml"
    path.write_text(stage.rig.virsh(host, "dumpxml", "--inactive", name).stdout)
    stage.rig.virsh(other, "define", str(path))
    stage.rig.virsh(other, "start", name)
    time.sleep(1.0)
    try:
        verdict = judged(stage, name, host, stayed(name, host))
        assert verdict.twice
    finally:
        stage.discard("calm")


def test_the_judge_sees_a_guest_that_is_lost(stage: Stage) -> None:
    name, host = stage.guest("calm")
    assert breakage.kill_emulators(stage.rig, host, name) == 1
    try:
        verdict = judged(stage, name, host, stayed(name, host))
        assert (verdict.lost, verdict.reported) == (True, False)
    finally:
        stage.discard("calm")


def test_a_watch_says_silent_of_a_host_whose_libvirtd_is_gone_and_finds_it_again(stage: Stage) -> None:
    watch = Watch(stage.rig)
    assert watch.look("h2", "nobody").state == "gone"
    stage.rig.kill_libvirtd("h2")
    try:
        assert watch.look("h2", "nobody").state == "silent"
    finally:
        stage.rig.start_libvirtd("h2")
    assert watch.look("h2", "nobody").state == "gone"
    watch.close()
