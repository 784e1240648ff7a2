"""The migration widget's state, page and chart; `tests/rig/test_migrator.py` presses its buttons on real hosts."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.migration.scene import SANDYBRIDGE, WESTMERE, domain, end, seen
from vmcompat.errors import ConnectError, MigrationError
from vmcompat.migration.migrate import MigrationPlan
from vmcompat.migration.observe import Observation
from vmcompat.migration.order import MigrationFailedError, MigrationResult, Order
from vmcompat.migration.preflight import preflight
from vmcompat.migration.progress import Sample, course
from vmcompat.schema import MIGRATION_PROGRESS

pytest.importorskip("ipywidgets", reason="the extra 'notebook' is not installed")

import vmcompat as vc
from vmcompat.widgets._migrate_html import render
from vmcompat.widgets._migrate_state import MigrateState
from vmcompat.widgets.migrator import Migrator
from vmcompat.widgets.progress import chart, in_words

HERE, THERE = "qemu+tls://root:geheim@h1/system", "qemu+tls://root:geheim@h2/system"
PASSTHROUGH = "<cpu mode='host-passthrough'/>"
HOSTILE = "<img src=x onerror=alert(1)>"
MIB = 2**20


def plan(observation: Observation, **details: Any) -> MigrationPlan:
    findings = preflight(observation)
    order = Order(domain=observation.domain, source=HERE, target=THERE, seen=observation, findings=findings, **details)
    return MigrationPlan(order=order)


def state(*, allow_run: bool = True, **options: Any) -> MigrateState:
    """With web1 chosen, as the source's answer leaves it."""
    made = MigrateState.of(HERE, [THERE, "qemu+ssh://h3/system"], domain="web1", allow_run=allow_run, **options)
    return made.listing().listed(["web10", "web1", "web2"])


def planned(observation: Observation | None = None, **options: Any) -> MigrateState:
    return state(**options).planning().planned(plan(observation or seen(domain())))


def running() -> MigrateState:
    return planned().typing("web1").started()


def result(**details: Any) -> MigrationResult:
    row: dict[str, Any] = {"domain": "web1", "source": "h1", "target": "h2", "outcome": "migrated", "seconds": 2.34}
    return MigrationResult(**(row | {"started": datetime(2026, 11, 24, 18, 30, tzinfo=UTC)} | details))


def risky() -> Observation:
    return seen(domain(cpu=PASSTHROUGH), source=end("h1", SANDYBRIDGE))


# ---- what arms a plan


@pytest.mark.parametrize("typed", ["", "web", "WEB1", "web1 ", " web1", "web10"])
def test_only_the_very_name_arms_a_plan(typed: str) -> None:
    ready = planned()
    assert ready.unarmed
    with pytest.raises(MigrationError, match="nothing was started"):
        ready.typing(typed).started()
    assert ready.typing("web1").unarmed == ""
    assert ready.typing("web1").started().phase == "running"


def test_without_a_plan_nothing_is_armed() -> None:
    with pytest.raises(MigrationError, match="plan first"):
        state().typing("web1").started()


def test_without_allow_run_nothing_is_armed() -> None:
    with pytest.raises(MigrationError, match="allow_run=True"):
        planned(allow_run=False).typing("web1").started()


@pytest.mark.parametrize("stop", ["block", "risk", "unknown"])
def test_a_plan_that_stops_cannot_be_armed(stop: str) -> None:
    observation = {
        "block": seen(domain(), job=True),
        "risk": risky(),
        "unknown": seen(domain(), target=end("h2", None)),
    }[stop]
    blocked = planned(observation).typing("web1")
    assert "blocked by" in blocked.unarmed
    with pytest.raises(MigrationError, match="blocked by"):
        blocked.started()


@pytest.mark.parametrize("choice", [{"domain": "web2"}, {"target": "qemu+ssh://h3/system"}, {"restart": True}])
def test_another_choice_voids_the_plan_and_what_was_typed(choice: dict[str, Any]) -> None:
    other = planned().typing("web1").choosing(**choice)
    assert other.plan is None
    assert other.typed == ""
    assert other.unarmed == "plan first"


def test_a_new_plan_and_a_new_list_have_to_be_armed_anew() -> None:
    armed = planned().typing("web1")
    assert armed.planning().planned(plan(seen(domain()))).unarmed.startswith("type ")
    assert armed.listing().listed(["web1"]).unarmed == "plan first"


def test_what_is_passed_is_in_the_plan_and_has_to_be_armed_anew() -> None:
    blocked = planned(risky())
    assert [f.id for f in blocked.forceable] == ["PASSTHROUGH"]
    passed = blocked.forcing("PASSTHROUGH", on=True)
    assert passed.plan is not None
    assert passed.plan.order.forced == ("PASSTHROUGH",)
    assert passed.unarmed.startswith("type ")
    armed = passed.typing("web1")
    assert armed.unarmed == ""
    assert "blocked" in armed.forcing("PASSTHROUGH", on=False).unarmed
    assert passed.forcing("PASSTHROUGH", on=True).plan.order.force == ("PASSTHROUGH",)  # type: ignore[union-attr]


def test_a_block_is_not_offered_to_be_passed() -> None:
    both = planned(seen(domain(cpu=PASSTHROUGH), source=end("h1", SANDYBRIDGE), job=True))
    assert [f.severity for f in both.findings][:2] == ["block", "risk"]
    assert [f.id for f in both.forceable] == ["PASSTHROUGH"]
    assert both.forcing("STATE", on=True).forcing("PASSTHROUGH", on=True).plan.blocked  # type: ignore[union-attr]


# ---- while something goes on, and after it


def test_while_a_guest_moves_nothing_else_can_be_chosen_or_started() -> None:
    moving = running()
    assert moving.choosing(domain="web2") is moving
    assert moving.typing("x") is moving
    assert moving.listing() is moving
    assert moving.forcing("PASSTHROUGH", on=True) is moving
    for begin in (moving.planning, moving.started):
        with pytest.raises(MigrationError):
            begin()
    refused = moving.refused(MigrationError("no"))
    assert (refused.phase, refused.plan, refused.message) == ("running", moving.plan, "no")


def test_abort_is_asked_for_once() -> None:
    aborting = running().aborting()
    assert aborting.phase == "aborting"
    assert aborting.aborting() is aborting
    assert planned().aborting().phase == "idle"


def test_a_run_that_has_ended_leaves_its_row_and_nothing_armed() -> None:
    after = running().measured(stats()).ended(result())
    assert (after.phase, after.plan, after.typed, after.unarmed) == ("idle", None, "", "plan first")
    assert [r.outcome for r in after.results] == ["migrated"]
    assert after.domain is None
    assert after.domains == ("web2", "web10")
    assert len(after.samples) == 1


def test_a_run_that_failed_says_what_it_changed_and_what_to_type() -> None:
    row = result(outcome="restored", message="it did not start")
    did = {"changed": ("web1 was powered off",), "undone": ("it runs again",)}
    error = MigrationFailedError("it did not start", **did, next="virsh start web1", result=row)
    after = running().failed(error)
    assert after.plan is None
    assert after.domain == "web1"
    assert after.results == (row,)
    assert after.message == "it did not start. Changed: web1 was powered off. Undone: it runs again."
    assert after.next == "virsh start web1"
    assert "<pre class='vmcompat-next'>virsh start web1</pre>" in render(after)["message"]
    assert "restored" in render(after)["results"]


def test_a_host_that_does_not_answer_is_a_message_and_no_plan() -> None:
    after = state().planning().failed(ConnectError("h2: no answer"))
    assert (after.phase, after.plan, after.message) == ("idle", None, "h2: no answer")
    assert after.choosing(target="qemu+ssh://h3/system").message == ""


def test_domains_are_listed_in_natural_order_and_one_that_does_not_run_is_said() -> None:
    assert state().domains == ("web1", "web2", "web10")
    absent = MigrateState.of(HERE, THERE, domain="db1").listing().listed(["web1"])
    assert absent.domain is None
    assert "no domain 'db1' runs on the source; there run web1" in absent.message
    assert absent.listing().listed(["web1"]).message == ""


def test_no_target_and_one_address_for_several_are_refused() -> None:
    with pytest.raises(MigrationError, match="no target"):
        MigrateState.of(HERE, [])
    with pytest.raises(MigrationError, match=r"peer_uri: the address of one target, and there are 2"):
        MigrateState.of(HERE, [THERE, "qemu+ssh://h3/system"], peer_uri="qemu+ssh://h2/system")


# ---- what is shown


def test_findings_are_shown_worst_first_with_what_to_do() -> None:
    shown = render(planned(seen(domain(cpu=PASSTHROUGH), source=end("h1", SANDYBRIDGE), job=True)))
    places = [shown["findings"].index(f"{glyph} {severity}") for glyph, severity in (
        ("✗", "block"), ("▲", "risk"), ("✓", "ok"))]  # fmt: skip
    assert places == sorted(places)
    assert "domjobinfo --domain web1" in shown["findings"]
    assert "✗ blocked by STATE, PASSTHROUGH" in shown["status"]
    assert "commands are comments" in shown["commands"]


def test_the_diff_and_the_commands_can_be_taken_away() -> None:
    old = domain(cpu=f"<cpu mode='custom' check='full'>{SANDYBRIDGE}</cpu>")
    new = domain(cpu=f"<cpu mode='custom' check='full'>{WESTMERE}</cpu>")
    shown = render(planned(seen(old, stored=old, new=new, baseline="Westmere", source=end("h1", SANDYBRIDGE))))
    assert "download='web1.patch'" in shown["diff"]
    assert "+  &lt;cpu mode=" in shown["diff"].replace("&#x27;", "'")
    assert "keeps its CPU until it is powered off" in shown["findings"]
    assert "download='web1.migrate.sh'" in shown["commands"]


def test_nothing_from_a_host_is_run_by_the_browser_and_no_password_is_shown() -> None:
    hostile = domain(name=HOSTILE.replace("<", "&lt;"))
    observation = replace(seen(hostile), domain=HOSTILE)
    made = MigrateState.of(HERE, THERE, domain=HOSTILE, allow_run=True).listing()
    every = [made, made.listed([HOSTILE]), made.listed([HOSTILE]).planning()]
    every.append(every[-1].planned(plan(observation)))
    every.append(every[-1].typing(HOSTILE + "x"))
    every.append(every[-2].typing(HOSTILE).started().told(HOSTILE).measured(stats()))
    every.append(every[-1].failed(MigrationError(HOSTILE)))
    every.append(every[-2].ended(result(domain=HOSTILE, message=HOSTILE, not_given=(HOSTILE,))))
    for each in every:
        page = "".join(render(each).values())
        assert HOSTILE not in page
        assert "geheim" not in page + repr(each)
    assert "&lt;img" in render(every[-1])["results"]


def test_the_result_row_has_units_and_a_dash_for_what_is_not_known() -> None:
    row = result(downtime_ms=43, transferred=112 * MIB, iterations=4)
    shown = render(running().ended(row))["results"]
    assert "downtime [ms]" in shown
    assert "sent [MiB]" in shown
    assert "<td class='n'>2.3</td><td class='n'>43</td><td class='n'>112</td><td class='n'>4</td>" in shown
    assert "<td class='n none'>–</td>" in render(running().ended(result()))["results"]


# ---- samples


def stats(**details: Any) -> dict[str, Any]:
    """As virDomainGetJobStats gives them in the second pass."""
    usual = {
        "type": 2, "operation": 5, "time_elapsed": 6000, "downtime": 300, "memory_total": 200 * MIB,
        "memory_remaining": 100 * MIB, "memory_bps": 4 * MIB, "memory_dirty_rate": 2048, "memory_page_size": 4096,
        "memory_iteration": 2, "memory_processed": 90 * MIB,
    }  # fmt: skip
    return usual | details


def sample(**details: Any) -> Sample:
    found = Sample.of(stats(**details))
    assert found is not None
    return found


@pytest.mark.parametrize("early", [{}, {"type": 0}, {"operation": 5, "time_elapsed": 501, "type": 2}])
def test_before_memory_is_on_its_way_there_is_no_sample(early: dict[str, Any]) -> None:
    assert Sample.of(early) is None
    assert running().measured(early).samples == ()


def test_samples_become_a_frame_of_fixed_columns_in_which_the_unknown_is_missing() -> None:
    found = course([sample(), sample(auto_converge_throttle=20)])
    assert {name: str(dtype) for name, dtype in found.dtypes.items()} == MIGRATION_PROGRESS
    assert found["auto_converge_throttle"].isna().tolist() == [True, False]
    assert list(course([]).columns) == list(MIGRATION_PROGRESS)


def test_a_sample_in_words_names_what_is_left_sent_and_dirtied() -> None:
    assert in_words([sample()]) == "pass 2, 100 of 200 MiB left, 4.0 MiB/s sent, 8.0 MiB/s dirtied by the guest"
    assert in_words([]) == ""


def test_what_libvirt_has_not_measured_yet_is_not_called_zero() -> None:
    first = sample(memory_iteration=1, memory_dirty_rate=0)
    assert first.dirtied is None
    assert "dirtied" not in in_words([first])
    assert "not measured yet" not in chart([first], title="t")  # what is sent is known
    assert sample(memory_dirty_rate=0).dirtied == 0


def test_a_transfer_that_wins_nothing_is_told_from_its_low() -> None:
    low = sample(time_elapsed=5_000, memory_remaining=40 * MIB)
    later = [sample(time_elapsed=n * 1000, memory_remaining=60 * MIB) for n in (6, 20, 30)]
    assert in_words([low, *later]).endswith("no new low of the remaining data for 25 s")
    assert "no new low" not in in_words([low, later[0]])


def drawn(samples: list[Sample], title: str = "Migration of web1") -> ElementTree.Element:
    html = chart(samples, title=title)
    return ElementTree.fromstring(html[html.index("<svg") :])


def test_the_chart_has_four_panels_with_units_that_fit_into_700_px_and_an_alternative_text() -> None:
    found = drawn([sample(), sample(time_elapsed=9000, memory_remaining=50 * MIB, auto_converge_throttle=20)])
    assert found.get("width") == "700"
    assert found.get("role") == "img"
    alt = found.get("aria-label")
    assert alt is not None
    assert alt.startswith("Migration of web1 after 9 s: pass 2, 50 of 200 MiB left")
    text = ["".join(t.itertext()) for t in found.iter("text")]
    for title in ("Data remaining [MiB] 50", "Dirtied [MiB/s] 8.0", "Throttle [%] 20", "Downtime expected [ms] 300"):
        assert any(t.startswith(title) for t in text), title
    assert "300" in text
    points = [p for line in found.iter("polyline") for p in (line.get("points") or "").split()]
    xs, ys = zip(*((float(x), float(y)) for x, y in (p.split(",") for p in points)), strict=True)
    assert min(xs) >= 0
    assert max(xs) <= 350
    assert min(ys) >= 0
    assert max(ys) <= 150


def test_a_panel_without_values_says_why() -> None:
    text = ["".join(t.itertext()) for t in drawn([sample()]).iter("text")]
    assert "none told: auto-converge is off or idle" in text
    text = ["".join(t.itertext()) for t in drawn([sample(auto_converge_throttle=30)]).iter("text")]
    assert "none told: auto-converge is off or idle" not in text


def test_a_chart_of_hours_stays_small_and_keeps_its_extremes_and_its_end() -> None:
    many = [sample(time_elapsed=500 * n, memory_remaining=(50 + n % 7) * MIB) for n in range(1, 20_000)]
    many[5_003] = sample(time_elapsed=500 * 5_004, memory_remaining=199 * MIB)
    many[-1] = sample(time_elapsed=500 * 20_000, memory_remaining=13 * MIB)
    begin = time.perf_counter()
    found = drawn(many)
    assert time.perf_counter() - begin < 2
    line = next(found.iter("polyline")).get("points") or ""
    ys = [float(p.split(",")[1]) for p in line.split()]
    assert len(ys) < 400
    assert min(ys) == pytest.approx(drawn_y(199, found))
    assert ys[-1] == pytest.approx(drawn_y(13, found))


def drawn_y(mib: float, found: ElementTree.Element) -> float:
    """Where a value lies in the first panel, by its lowest and highest grid lines."""
    panel = next(found.iter("g"))
    grid = [float(line.get("y1") or "nan") for line in panel.iter("line")]
    top = max(float((t.text or "").replace(",", "")) for t in panel.iter("text") if t.get("text-anchor") == "end")
    return round(grid[0] - mib / top * (grid[0] - grid[-1]), 1)


def test_a_title_from_a_host_is_escaped() -> None:
    html = chart([sample()], title=HOSTILE)
    assert HOSTILE not in html
    assert drawn([sample()], title=f"{HOSTILE}'\"") is not None


# ---- the widget, on libvirt's own test driver


def shown(**options: Any) -> Migrator:
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    made = vc.widgets.migrate("test:///default", "test:///default", **options)
    assert isinstance(made, Migrator)
    return idle(made)


def idle(made: Migrator) -> Migrator:
    deadline = time.monotonic() + 30
    while made.state.busy:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return made


def test_the_source_is_asked_what_runs_there() -> None:
    made = shown()
    assert list(made.domain.options) == [("(choose)", ""), ("test", "test")]
    assert made.domain.value == ""
    assert made.state.domain is None
    assert made.plan.disabled
    assert "1 domain runs" in made.status.value
    made.domain.value = "test"
    assert made.state.domain == "test"
    assert not made.plan.disabled


def test_what_a_host_refuses_is_a_message_that_the_next_choice_takes_away() -> None:
    made = shown(domain="test", allow_run=True)
    made.plan.click()
    idle(made)
    assert "not supported by the connection driver" in made.message.value
    assert made.state.plan is None
    made.arm.value = "test"
    made.run.click()
    assert "nothing was started: plan first" in made.message.value
    made.restart.value = "destroy"
    assert made.state.restart == "destroy"
    assert made.message.value == "<div class='vmcompat-page'></div>"


def test_a_source_that_cannot_be_reached_is_a_message() -> None:
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    made = vc.widgets.migrate("qemu+unix:///system?socket=/nonexistent/socket", THERE)
    assert isinstance(made, Migrator)
    idle(made)
    assert "socket" in made.message.value
    assert made.plan.disabled
    assert not made.reload.disabled


def test_the_buttons_of_a_plan_follow_its_state() -> None:
    made = shown(domain="test", allow_run=True)
    made.state = replace(planned(risky()), target="test:///default")
    made._show()
    (box,) = made.force.children[1:]
    assert made.arm.disabled
    box.value = True
    assert not made.arm.disabled
    made.arm.value = "web"
    assert made.run.disabled
    made.arm.value = "web1"
    assert not made.run.disabled
    assert "armed" in made.arming.value
    made.force.children[1].value = False
    assert made.run.disabled
    assert made.arm.value == ""
