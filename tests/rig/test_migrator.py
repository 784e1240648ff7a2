"""The migration widget's own buttons, pressed on two real hosts: nothing moves that was not armed, and abort aborts."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.rig import Rig

pytest.importorskip("ipywidgets", reason="the extra 'notebook' is not installed")

import vmcompat as vc
from vmcompat.migration.order import MigrationFailedError
from vmcompat.widgets.migrator import Migrator

pytestmark = pytest.mark.rig


@pytest.fixture
def start(rig: Rig) -> Iterator[Callable[..., str]]:
    """Defines and starts a guest on h1, and waits for its first sign of life."""

    def do(name: str, **details: Any) -> str:
        path = rig.dir / f"{name}.xml"
        path.write_text(rig.domain_xml(name, **details))
        rig.virsh("h1", "define", str(path))
        rig.virsh("h1", "start", name)
        rig.wait_for_tick(name)
        return name

    yield do
    rig.clear()


def widget(rig: Rig, **options: Any) -> Migrator:
    there = {"peer_uri": rig.peer_uri("h2"), "migrate_uri": rig.migrate_uri("h2")}
    made = vc.widgets.migrate(rig.uri("h1"), rig.uri("h2"), **(there | options))
    assert isinstance(made, Migrator)
    return idle(made)


def until(seen: Callable[[], object], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def idle(made: Migrator) -> Migrator:
    until(lambda: not made.state.busy)
    return made


def running(rig: Rig, name: str) -> list[str]:
    return [host for host in rig.cpus if name in rig.virsh(host, "list", "--name").stdout.split()]


def test_a_guest_moves_by_two_buttons_and_only_after_its_name_was_typed(rig: Rig, start: Callable[..., str]) -> None:
    name = start("clicked")
    made = widget(rig, allow_run=True)
    assert name in made.state.domains
    made.domain.value = name
    made.run.click()
    assert "nothing was started: plan first" in made.message.value

    made.plan.click()
    idle(made)
    assert "may run" in made.status.value
    assert "CPU_NAMES" in made.findings.value
    assert "stays as it is" in made.diff.value
    assert f"--domain {name}" in made.commands.value
    for typed in ("", "click", name.upper(), f"{name} "):
        made.arm.value = typed
        assert made.run.disabled
        made.run.click()
        assert "nothing was started" in made.message.value
        assert not made.state.busy
    assert running(rig, name) == ["h1"]

    made.arm.value = name
    assert not made.run.disabled
    rig.virsh("h1", "migrate-setspeed", name, "16")
    made.run.click()
    assert made.state.busy
    assert made.domain.disabled
    assert made.plan.disabled
    idle(made)
    assert running(rig, name) == ["h2"]
    (result,) = made.state.results
    assert result.outcome == "migrated"
    assert result.downtime_ms is not None
    assert f"<td>{name}</td><td>h1</td><td>h2</td><td><b>migrated</b></td>" in made.results.value
    assert len(made.state.samples) > 2
    assert "<svg class='vmcompat-chart'" in made.progress.value
    left = [s.memory_remaining for s in made.state.samples]
    assert left[-1] < left[0]

    # it is disarmed, and the domain is no longer one of the source's
    assert made.state.plan is None
    assert made.arm.value == ""
    assert made.run.disabled
    assert name not in made.state.domains
    console = rig.wait_for_tick(name, rig.console(name).ticks[-1].number + 3)
    assert (len(console.boot_ids), console.bad) == (1, 0)


def test_abort_ends_a_migration_that_would_not_and_the_guest_runs_on(rig: Rig, start: Callable[..., str]) -> None:
    name = start("endless", memory=192, buffer=64, dirty=24)
    rig.virsh("h1", "migrate-setspeed", name, "4")
    made = widget(rig, domain=name, allow_run=True)
    made.plan.click()
    idle(made)
    made.arm.value = name
    assert made.abort.layout.display == "none"
    made.run.click()
    until(lambda: len(made.state.samples) >= 4)
    assert made.abort.layout.display == ""
    assert "MiB left" in made.progress.value
    other = widget(rig, domain=name, allow_run=True)
    other.plan.click()
    idle(other)
    assert "blocked by STATE" in other.status.value

    # a click too many is a message, and changes nothing of what goes on
    made.run.click()
    assert "one guest at a time" in made.message.value
    assert made.state.phase == "running"

    pressed = time.monotonic()
    made.abort.click()
    assert made.abort.disabled
    made.abort.click()
    idle(made)
    assert time.monotonic() - pressed < 15
    assert running(rig, name) == ["h1"]
    (result,) = made.state.results
    assert result.outcome == "stayed"
    assert f"aborted; {name} is running on h1 and gone on h2" in made.message.value
    assert "Changed: nothing" in made.message.value
    assert "plan again" in made.message.value
    assert made.state.plan is None
    rig.wait_for_tick(name, rig.console(name).ticks[-1].number + 3)
    assert rig.console(name).bad == 0

    # nothing stands in the way of the next try
    rig.virsh("h1", "migrate-setspeed", name, "0")
    made.plan.click()
    idle(made)
    assert "may run" in made.status.value


class AbortAtTheEnd:
    """Progress of somebody who wants to abort when all has been sent."""

    def __init__(self, abort: threading.Event) -> None:
        self.abort = abort

    def say(self, text: str) -> None:
        pass

    def update(self, stats: Mapping[str, Any]) -> None:
        pass

    def close(self, *, complete: bool) -> None:
        assert complete
        self.abort.set()


def test_an_abort_before_the_first_step_changes_nothing_and_one_too_late_is_said(
    rig: Rig, start: Callable[..., str]
) -> None:
    name, abort = start("hesitant"), threading.Event()
    plan = vc.plan_migration(
        name, rig.uri("h1"), rig.uri("h2"), peer_uri=rig.peer_uri("h2"), migrate_uri=rig.migrate_uri("h2")
    )
    abort.set()
    with pytest.raises(MigrationFailedError, match=r"aborted before its first step\. Changed: nothing") as failed:
        plan.run(progress=False, abort=abort)
    assert failed.value.result.outcome == "stayed"
    assert running(rig, name) == ["h1"]

    abort.clear()
    result = plan.run(progress=AbortAtTheEnd(abort), abort=abort)
    assert (result.outcome, result.message) == ("migrated", f"the abort came too late: {name} has moved to h2")
    assert running(rig, name) == ["h2"]


def test_two_widgets_of_a_kernel_move_one_guest_at_a_time(rig: Rig, start: Callable[..., str]) -> None:
    first, second = start("first", memory=192, buffer=64, dirty=24), start("second")
    rig.virsh("h1", "migrate-setspeed", first, "4")
    made = [widget(rig, domain=name, allow_run=True) for name in (first, second)]
    for each, name in zip(made, (first, second), strict=True):
        each.plan.click()
        idle(each)
        each.arm.value = name
    made[0].run.click()
    until(lambda: made[0].state.samples)
    made[1].run.click()
    idle(made[1])
    assert "another guest moves from this kernel" in made[1].message.value
    assert made[1].state.results == ()
    made[0].abort.click()
    idle(made[0])
    assert running(rig, second) == ["h1"]
    assert running(rig, first) == ["h1"]


def test_a_risk_is_passed_by_its_box_and_what_is_passed_has_to_be_armed_anew(
    rig: Rig, start: Callable[..., str]
) -> None:
    name = start("risky", cpu="<cpu mode='maximum'/>")
    made = widget(rig, domain=name, allow_run=True)
    made.plan.click()
    idle(made)
    assert "blocked by PASSTHROUGH" in made.status.value
    assert made.arm.disabled
    (box,) = made.force.children[1:]
    assert box.description == "▲ risk PASSTHROUGH"
    made.arm.value = name
    assert made.run.disabled

    box.value = True
    assert "passed at your word: PASSTHROUGH" in made.status.value
    assert made.arm.value == ""
    assert made.run.disabled
    made.arm.value = name
    assert not made.run.disabled
    made.force.children[1].value = False
    assert made.run.disabled
    made.force.children[1].value = True
    made.arm.value = name
    made.run.click()
    idle(made)
    assert running(rig, name) == ["h2"]
    assert made.state.results[0].forced == ("PASSTHROUGH",)


def test_a_power_cycle_that_is_aborted_leaves_the_guest_on_with_its_old_definition(
    rig: Rig, start: Callable[..., str]
) -> None:
    base = vc.read_fleet([rig.uri("h1"), rig.uri("h2")], view="hypervisor", virttype="qemu").baseline()
    name = start("deaf", cpu="Nehalem")
    before = rig.virsh("h1", "dumpxml", "--inactive", name).stdout
    made = widget(rig, domain=name, baseline=base, restart=True, allow_run=True)
    made.plan.click()
    idle(made)
    assert "Westmere" in made.diff.value
    made.arm.value = name
    made.run.click()
    until(lambda: "powering deaf off" in made.progress.value)
    made.abort.click()
    idle(made)
    assert "did not power off before the abort" in made.message.value
    assert "the old definition of deaf is stored again" in made.message.value
    assert rig.virsh("h1", "dumpxml", "--inactive", name).stdout == before
    assert running(rig, name) == ["h1"]


def test_without_allow_run_there_is_no_run_button(rig: Rig, start: Callable[..., str]) -> None:
    name = start("planned")
    made = widget(rig, domain=name)
    made.plan.click()
    idle(made)
    assert "may run" in made.status.value

    def every(box: Any) -> Iterator[Any]:
        yield box
        for child in getattr(box, "children", ()):
            yield from every(child)

    shown = list(every(made))
    assert made.plan in shown
    assert not any(part in shown for part in (made.run, made.abort, made.arm))
    made.arm.value = name
    made.run.click()
    assert not made.state.busy
    assert "this widget only plans" in made.message.value
    assert running(rig, name) == ["h1"]
