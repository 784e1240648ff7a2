"""A plan is a value: what it says, what it hands out for a change ticket, and that nothing from outside gets loose."""

import re
import shlex
import threading
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from tests.migration.scene import SANDYBRIDGE, WESTMERE, domain, end, seen
from vmcompat.errors import MigrationError
from vmcompat.migration import MigrationFailedError, MigrationPlan, plan_migration
from vmcompat.migration.account import Account
from vmcompat.migration.observe import Observation
from vmcompat.migration.order import Order
from vmcompat.migration.preflight import preflight
from vmcompat.migration.progress import show
from vmcompat.migration.transfer import Transfer
from vmcompat.schema import MIGRATION_RESULT

PASSTHROUGH = "<cpu mode='host-passthrough'/>"


def plan(observation: Observation, **details: Any) -> MigrationPlan:
    given: dict[str, Any] = {"source": "qemu+ssh://h1/system", "target": "qemu+ssh://h2/system"}
    given |= {"peer_uri": observation.peer_uri, "migrate_uri": observation.migrate_uri}
    found = preflight(observation)
    return MigrationPlan(order=Order(domain=observation.domain, seen=observation, findings=found, **(given | details)))


def rebased(**details: Any) -> Observation:
    """A SandyBridge guest that is to become a Westmere."""
    old = domain(cpu=f"<cpu mode='custom' check='full'>{SANDYBRIDGE}</cpu>")
    new = domain(cpu=f"<cpu mode='custom' check='full'>{WESTMERE}</cpu>")
    here = end("h1", SANDYBRIDGE)
    return seen(old, stored=old, new=new, baseline="Westmere", source=here, **details)


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        plan(seen(domain())).order = None  # type: ignore[misc, assignment]


def test_findings_are_a_frame_of_fixed_columns() -> None:
    findings = plan(seen(domain())).findings
    assert list(findings.columns) == ["id", "severity", "evidence", "remedy", "forced"]
    assert findings["forced"].dtype == bool
    assert findings["id"].is_unique


def test_a_run_stops_on_a_block_a_risk_and_an_unknown_and_says_on_which() -> None:
    for observation, check in (
        (seen(domain(), job=True), "STATE"),
        (seen(domain(), state="paused"), "STATE"),
        (seen(domain(), target=end("h2", None)), "LIVE_CPU"),
    ):
        blocked = plan(observation)
        assert blocked.blocked
        with pytest.raises(MigrationFailedError, match=rf"blocked by .*{check}.*Changed: nothing\. Next: ") as failed:
            blocked.run(progress=False)
        assert failed.value.result.outcome == "stayed"
        row = failed.value.result.frame
        assert {name: str(dtype) for name, dtype in row.dtypes.items()} == MIGRATION_RESULT
        assert row["message"].str.contains(check).all()


def test_what_is_to_be_done_about_a_certificate_stands_before_another_plan() -> None:
    account = Account(plan(seen(domain())).order, show(False), threading.Event())
    missing = account.failed("Unable to access credentials /etc/pki/qemu/ca-cert.pem: No such file", next="plan again")
    assert re.fullmatch(r"what QEMU sends takes ca-cert\.pem.*; then plan again", missing.next)
    broken = account.failed("Cannot write to TLS channel: Input/output error", next="plan again")
    assert f"/var/log/libvirt/qemu/{account.order.domain}.log of both hosts" in broken.next
    assert account.failed("End of file while reading data", next="plan again").next == "plan again"


def test_force_passes_named_risks_and_unknowns_and_is_recorded() -> None:
    observation = seen(domain(cpu=PASSTHROUGH), source=end("h1", SANDYBRIDGE))
    assert plan(observation).blocked
    assert plan(observation, force=("STATE",)).blocked
    forced = plan(observation, force=("PASSTHROUGH",))
    assert not forced.blocked
    assert forced.order.forced == ("PASSTHROUGH",)
    assert forced.findings.set_index("id").loc["PASSTHROUGH", "forced"]
    assert "forced: PASSTHROUGH" in repr(forced)


def test_nothing_passes_a_block() -> None:
    assert plan(seen(domain(), job=True), force=("STATE",)).blocked


def test_a_force_that_names_no_finding_is_refused() -> None:
    with pytest.raises(MigrationError, match="force=PASSTROUGH: no such finding"):
        plan_migration("web1", "test:///default", "test:///default", force="PASSTROUGH")


def test_the_steps_say_when_the_guest_gets_its_new_cpu() -> None:
    at_once = plan(rebased(restart=True), restart=True)
    assert any("shut down" in step for step in at_once.steps)
    later = plan(rebased())
    assert not any("shut down" in step for step in later.steps)
    assert "keeps its CPU until it is powered off and on" in repr(later)


def test_the_diff_shows_the_cpu_and_nothing_else() -> None:
    lines = plan(rebased()).diff.splitlines()
    assert lines[:2] == ["--- web1.before.xml", "+++ web1.after.xml"]
    changed = [line for line in lines[2:] if line[0] in "+-"]
    assert len(changed) == 2
    assert all("<cpu" in line for line in changed)
    assert plan(seen(domain())).diff == ""


def test_the_commands_of_a_blocked_plan_are_comments() -> None:
    commands = plan(seen(domain(), job=True)).commands()
    assert commands.startswith("# blocked: STATE (block)")
    assert all(line.startswith("#") for line in commands.splitlines())


def test_the_commands_apply_the_diff_ask_both_hosts_and_migrate() -> None:
    commands = plan(rebased(restart=True), restart=True).commands()
    asked = [line for line in commands.splitlines() if "hypervisor-cpu-compare" in line]
    assert [shlex.split(line)[2] for line in asked] == ["qemu+ssh://h1/system", "qemu+ssh://h2/system"]
    order = ["dumpxml", "patch", "hypervisor-cpu-compare", "define", "shutdown", "start", " migrate ", "domstate"]
    places = [commands.index(word) for word in order[:-1]] + [commands.rindex(order[-1])]
    assert places == sorted(places)


HOSTILE = "a b'; touch /tmp/owned; echo $(id) `id` <script>"


def test_a_hostile_name_stays_one_word_in_the_commands() -> None:
    observation = replace(seen(domain()), domain=HOSTILE)
    for line in plan(observation).commands().splitlines():
        words = shlex.split(line)
        assert "touch" not in words
        assert not any(";" in word and HOSTILE not in word for word in words if word != "077;")
    migrate = next(line for line in plan(observation).commands().splitlines() if " migrate " in line)
    words = shlex.split(migrate)
    assert words[words.index("--domain") + 1] == HOSTILE


def test_a_name_like_an_option_is_no_option() -> None:
    commands = plan(replace(seen(domain()), domain="--help")).commands()
    assert "./--help.before.xml" in commands
    assert all("--domain --help" in line for line in commands.splitlines() if line.startswith("virsh"))


def test_html_from_outside_is_shown_and_not_run() -> None:
    shown = plan(replace(seen(domain()), domain=HOSTILE))._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_no_password_of_a_uri_is_in_what_a_plan_shows() -> None:
    secret = "geheim"
    shown = plan(
        seen(domain()), source=f"qemu+tls://root:{secret}@h1/system", peer_uri=f"qemu+tls://root:{secret}@h2/system"
    )
    assert secret not in repr(shown) + shown._repr_html_() + shown.commands() + repr(shown.order)


def test_a_guest_that_is_held_is_resumed_by_the_steps_and_by_the_commands_after_the_source_has_let_go() -> None:
    held = plan(seen(domain(), transfer=Transfer(hold=True)), transfer=Transfer(hold=True))
    told = [step for step in held.steps if "arrives paused" in step]
    assert told == ["it arrives paused; resume it on h2 once it is gone from h1, about 0.2 s later"]
    lines = [shlex.split(line) for line in held.commands().splitlines() if line.startswith("virsh")]
    (moving,) = (n for n, words in enumerate(lines) if "migrate" in words)
    assert "--suspend" in lines[moving]
    assert lines[moving + 1] == ["virsh", "-c", "qemu+ssh://h2/system", "resume", "--domain", "web1"]


def test_what_is_held_cannot_finish_by_post_copy() -> None:
    both = Transfer(hold=True, post_copy=True)
    found = plan(seen(domain(), transfer=both), transfer=both).findings.set_index("id")
    assert found.loc["TRANSFER", "severity"] == "block"
