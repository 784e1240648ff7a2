"""What a migration may leave behind: every pair of ends that libvirt can report, and what must never be done to it."""

import shlex
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

import vmcompat as vc
from vmcompat.errors import MigrationError
from vmcompat.migration.aftermath import FOUND, PAUSED_REASONS, RUNNING_REASONS, SHUTOFF_REASONS, Side, judge
from vmcompat.migration.recover import Recovery, _steps

UUID = "6f7fe6a5-8a52-4b5c-9c0c-2f1d6f4c4b11"


def side(name: str, state: str = "", reason: str = "", **details: Any) -> Side:
    """An end that has the domain in a state; one that does not, without a state."""
    there: dict[str, Any] = {
        "domain": "web1", "uuid": UUID, "state": state, "reason": reason, "active": state != "shut off",
        "persistent": True,
    }  # fmt: skip
    return Side(name=name, uri=f"qemu+ssh://{name}/system", **((there if state else {}) | details))


def here(state: str = "", reason: str = "", **details: Any) -> Side:
    return side("h1", state, reason, **details)


def there(state: str = "", reason: str = "", **details: Any) -> Side:
    return side("h2", state, reason, **details)


def every(name: str) -> Iterator[Side]:
    """All that an end can say of itself."""
    yield side(name, trouble="no answer within 15 s")
    yield side(name)
    states = {
        "running": RUNNING_REASONS, "paused": PAUSED_REASONS, "shut off": SHUTOFF_REASONS, "crashed": ("unknown",),
        "no state": ("unknown",), "shutting down": ("unknown",), "suspended": ("unknown",), "state 9": ("reason 1",),
    }  # fmt: skip
    for state, reasons in states.items():
        for reason, flag in product(reasons, (True, False)):
            if state == "shut off":
                yield side(name, state, reason, autostart=flag)
                continue
            one = side(name, state, reason, persistent=flag)
            for moved in (True, False):
                yield replace(one, job="migration", moved=moved)
            for job in ("", "incoming", "other"):
                yield replace(one, job=job)


PAIRS = list(product(every("h1"), every("h2")))


def may_run(end: Side) -> bool:
    """It runs, or somebody may have stopped a guest that ran there."""
    return end.active and not (end.state == "paused" and end.reason == "migration")


def test_every_state_is_found_and_every_state_is_explained() -> None:
    found = {judge(source, target).found for source, target in PAIRS}
    assert found | {"name taken"} == set(FOUND)


def test_a_guest_that_arrived_and_stands_still_is_told_to_be_resumed() -> None:
    for left in (here(), here("shut off", "migrated")):
        assert "virsh resume on h2" in judge(left, there("paused", "user")).remedy
    assert judge(here(), there("running", "migrated")).remedy == ""


def test_without_both_answers_nothing_is_known_and_nothing_is_done() -> None:
    silent = [(s, t) for s, t in PAIRS if s.trouble or t.trouble]
    assert len(silent) > 100
    for source, target in silent:
        verdict = judge(source, target)
        assert (verdict.found, verdict.safe, verdict.acts) == ("unknown", None, ())
        assert "can be asked again" in verdict.remedy


def test_nothing_is_done_that_is_not_known_to_be_safe_and_whoever_must_decide_is_told_what_to_look_at() -> None:
    for source, target in PAIRS:
        verdict = judge(source, target)
        assert verdict.safe is True or verdict.acts == ()
        assert verdict.safe is True or verdict.remedy


def test_only_what_never_ran_or_was_handed_over_is_destroyed() -> None:
    for source, target in PAIRS:
        for at, call in judge(source, target).acts:
            if call == "destroy":
                end, other = (source, target) if at == "source" else (target, source)
                assert (end.state, end.reason) == ("paused", "migration")
                assert other.active
                assert not (end.reason + other.reason).startswith("post-copy")
                # the latter two are how one stands that moved held, before it is let run and after
                arrived = (("running", "migrated"), ("paused", "user"), ("running", "unpaused"))
                assert at == "target" or (other.state, other.reason) in arrived


def test_nothing_is_resumed_while_the_other_end_may_run() -> None:
    resumed = 0
    for source, target in PAIRS:
        acts = judge(source, target).acts
        for number, (at, call) in enumerate(acts):
            if call == "resume":
                resumed += 1
                end, other = (source, target) if at == "source" else (target, source)
                assert (end.state, end.reason) in (("paused", "migration"), ("paused", "user"))
                assert (end.reason == "migration") == (at == "source" or not other.active)
                assert not may_run(other)
                destroyed_before = ("target" if at == "source" else "source", "destroy") in acts[:number]
                assert destroyed_before or not other.active
    assert resumed


def test_what_a_job_holds_is_left_alone_but_for_one_that_is_stuck_and_a_qemu_that_waits() -> None:
    for source, target in PAIRS:
        verdict = judge(source, target)
        for at, call in verdict.acts:
            if call == "abort":
                assert (at, source.job, source.moved) == ("source", "migration", False)
                assert source.active
                assert (source.state, source.reason) != ("paused", "migration")
                assert verdict.acts == (("source", "abort"),)
            elif call in ("destroy", "resume"):
                assert not source.job
                # its client may be gone for good; until it has finished, the QEMU there is worth nothing
                assert not target.job or (target.job == "incoming" and target.reason == "migration")


def test_a_definition_is_taken_away_only_where_it_does_not_run_and_another_is_kept() -> None:
    undefined = 0
    for source, target in PAIRS:
        for at, call in judge(source, target).acts:
            if call in ("undefine", "no autostart"):
                end, other = (source, target) if at == "source" else (target, source)
                assert not end.active
                assert other.active
                assert end.autostart or call == "undefine"
                undefined += call == "undefine"
                assert other.persistent or call == "no autostart"
    assert undefined


@pytest.mark.parametrize(
    ("source", "target", "found", "safe", "calls"),
    [
        (here("running", "booted"), there(), "at source", True, []),
        (here("paused", "user"), there(), "at source", True, []),
        (here("running", "booted", job="other"), there(), "at source", True, []),
        (here("running", "booted", job="migration", moved=True), there("paused", "migration", job="incoming"),
         "migrating", True, []),
        (here("running", "booted", job="migration", moved=None), there(), "migrating", True, []),
        (here("running", "booted", job="migration", moved=False), there(), "stuck", True, ["source abort"]),
        (here("running", "migration canceled"), there("paused", "migration", job="incoming"), "incoming left", True,
         ["target destroy"]),
        (here("paused", "I/O error"), there("paused", "migration"), "incoming left", True, ["target destroy"]),
        (here(), there("running", "migrated"), "arrived", True, []),
        (here(), there("paused", "user"), "arrived", True, []),
        (here("shut off", "migrated", autostart=True), there("running", "migrated"), "definition left", True,
         ["source no autostart", "source undefine"]),
        (here("shut off", "migrated", autostart=True), there("running", "migrated", persistent=False),
         "definition left", True, ["source no autostart"]),
        (here("running", "booted"), there("shut off", "unknown"), "definition at target", True, ["target undefine"]),
        (here("running", "booted", persistent=False), there("shut off", "unknown"), "definition at target", True, []),
        (here("paused", "migration", job="migration"), there("paused", "migration"), "switching", None, []),
        (here("paused", "migration", job="migration"), there("running", "migrated"), "switching", None, []),
        (here("paused", "migration"), there("running", "migrated"), "source left", True, ["source destroy"]),
        (here("paused", "migration"), there("running", "migrated", job="incoming"), "switching", None, []),
        (here("paused", "migration"), there("running", "unpaused"), "source left", True, ["source destroy"]),
        (here("paused", "migration"), there("running", "booted"), "source left", None, []),
        (here("paused", "migration"), there("paused", "user"), "source left", True,
         ["source destroy", "target resume"]),
        (here("paused", "migration"), there("paused", "migration"), "paused at both", True,
         ["target destroy", "source resume"]),
        (here("paused", "migration"), there("paused", "migration", job="incoming"), "paused at both", True,
         ["target destroy", "source resume"]),
        (here("paused", "migration"), there(), "paused at source", None, []),
        (here("paused", "migration"), there("shut off", "crashed"), "paused at source", None, []),
        (here("shut off", "migrated"), there("paused", "migration"), "paused at target", True, ["target resume"]),
        (here("shut off", "crashed"), there("paused", "migration"), "paused at target", None, []),
        (here(), there("paused", "migration"), "paused at target", None, []),
        (here("paused", "post-copy"), there("running", "post-copy"), "post-copy", False, []),
        (here("paused", "post-copy failed"), there("paused", "post-copy failed"), "post-copy failed", False, []),
        (here(), there("running", "post-copy"), "post-copy lost", False, []),
        (here("paused", "post-copy"), there(), "post-copy lost", False, []),
        (here("running", "booted"), there("running", "migrated"), "two copies", False, []),
        (here("running", "booted"), there("paused", "user"), "two copies", False, []),
        (here("shut off", "shutdown"), there(), "off", None, []),
        (here(), there("shut off", "destroyed"), "off", None, []),
        (here(), there(), "gone", None, []),
        (here("paused", "unknown"), there(), "unknown", None, []),
        (here("running", "booted"), there("paused", "starting up"), "unknown", None, []),
        (here("crashed", "unknown"), there(), "unknown", None, []),
        (here("paused", "migration", job="incoming"), there("paused", "migration"), "unknown", None, []),
        (here("running", "migrated"), there("paused", "migration", job="migration"), "unknown", None, []),
        (here("running", "booted"), there("running", "booted", uuid=UUID[::-1]), "name taken", None, []),
    ],
)  # fmt: skip
def test_known_states_are_named(source: Side, target: Side, found: str, safe: bool | None, calls: list[str]) -> None:
    verdict = judge(source, target)
    assert (verdict.found, verdict.safe, [" ".join(act) for act in verdict.acts]) == (found, safe, calls)


def test_what_ends_the_only_autostart_says_where_it_belongs() -> None:
    verdict = judge(here("shut off", "migrated", autostart=True), there("running", "migrated"))
    assert "virsh autostart on h2" in verdict.remedy


def test_a_missing_definition_proves_that_it_never_ran_there_only_where_one_was_to_be_stored() -> None:
    paused = here("paused", "migration")
    assert judge(paused, there()).remedy.startswith(
        "if vmcompat moved it, or virsh with --persistent, it never ran at h2"
    )
    for source, target in ((replace(paused, persistent=False), there()), (paused, there("shut off", "crashed"))):
        assert judge(source, target).remedy.startswith("it may have run at h2 and ended there")


# ---- what is shown and typed


def recovery(source: Side, target: Side, *, write: bool = True) -> Recovery:
    verdict = judge(source, target)
    return Recovery(
        domain=source.domain or target.domain, found=verdict.found, safe=verdict.safe, remedy=verdict.remedy,
        steps=tuple(_steps(verdict, source, target)), source=source, target=target, _acts=verdict.acts,
        _uris=("qemu+tls://root:geheim@h1/system", "qemu+tls://root:geheim@h2/system"), _write=write,
    )  # fmt: skip


def test_it_says_what_was_seen_what_is_safe_and_what_to_type() -> None:
    text = repr(recovery(here("running", "booted", job="migration", moved=False), there("paused", "migration")))
    assert "<Recovery web1: stuck, safe: a migration job at the source sends nothing" in text
    assert "h1 has it: running (booted), persistent, held by a migration away that has sent nothing" in text
    assert "h2 has it: paused (migration)" in text
    assert "1. virsh -c qemu+ssh://h1/system domjobabort --domain web1" in text
    assert "geheim" not in text


def test_post_copy_that_failed_comes_with_the_line_that_resumes_it() -> None:
    broken = recovery(here("paused", "post-copy failed"), there("paused", "post-copy failed"))
    assert broken.steps == (
        "virsh -c qemu+ssh://h1/system migrate --postcopy-resume --postcopy --live --domain web1 "
        "--desturi qemu+ssh://h2/system",
    )
    assert "8.5" in broken.remedy
    sending = recovery(here("paused", "post-copy failed", job="migration", moved=True), there("running", "post-copy"))
    assert (sending.found, sending.safe, sending.steps) == ("post-copy failed", False, ())
    assert "QEMU sends on" in sending.remedy


@pytest.mark.parametrize("name", ["a b'; $(id)", "--help", "`x`"])
def test_a_hostile_name_stays_one_word(name: str) -> None:
    left = recovery(here("shut off", "migrated", domain=name), there("running", "migrated", domain=name))
    words = shlex.split(left.steps[0])
    assert words[words.index("--domain") + 1 :] == [name]


@pytest.mark.parametrize("name", ["7", " 7", "+7", "b" * 36, "line\nbreak", "right\u202eleft"])
def test_what_virsh_or_a_reader_would_take_for_another_is_typed_by_its_uuid(name: str) -> None:
    left = recovery(here("shut off", "migrated", domain=name), there("running", "migrated", domain=name))
    assert left.steps[0].endswith(f"--domain {UUID}")


def test_act_refuses_another_name_what_is_not_safe_and_what_was_to_be_looked_at_only() -> None:
    stuck = (here("running", "booted", job="migration", moved=False), there())
    for left, confirm, why in (
        (recovery(*stuck), "web2", "confirm='web2' is not 'web1'"),
        (recovery(*stuck, write=False), "web1", "write=False"),
        (recovery(here("running", "booted"), there("running", "booted")), "web1", "two copies: not known to be safe"),
        (recovery(here("paused", "migration"), there()), "web1", "paused at source: not known to be safe"),
    ):
        with pytest.raises(MigrationError, match=rf"{why}.*Nothing was done"):
            left.act(confirm=confirm)


def test_hosts_that_cannot_be_reached_are_unknown_and_no_error() -> None:
    pytest.importorskip("libvirt", reason="the extra 'libvirt' is not installed")
    left = vc.recover("web1", "qemu+unix:///system?socket=/nonexistent", "test:///default")
    assert (left.found, left.safe, left.steps) == ("unknown", None, ())
    assert "does not answer" in left.evidence[0]
    assert "does not have it" in left.evidence[1]


def test_the_reasons_are_libvirts_own() -> None:
    libvirt = pytest.importorskip("libvirt", reason="the extra 'libvirt' is not installed")
    spelled = {
        "post-copy": "POSTCOPY",
        "post-copy failed": "POSTCOPY_FAILED",
        "I/O error": "IOERROR",
    }
    for state, reasons in (("RUNNING", RUNNING_REASONS), ("PAUSED", PAUSED_REASONS), ("SHUTOFF", SHUTOFF_REASONS)):
        for number, reason in enumerate(reasons):
            name = f"VIR_DOMAIN_{state}_{spelled.get(reason, reason.upper().replace(' ', '_'))}"
            # newer than the oldest libvirt-python that is supported
            newer = reason == "API error" and not hasattr(libvirt, name)
            assert newer or getattr(libvirt, name) == number
