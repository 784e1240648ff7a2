"""Policies are data, said before the start; the driver does what they say, by new lows of what remains."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from vmcompat.errors import MigrationError
from vmcompat.migration.policy import BALANCED, HUGE_GUEST, MUST_FINISH, POLICIES, Driver, Policy, Step, policy_of
from vmcompat.migration.transfer import Transfer

GIB = 2**30
QUICK = Policy(name="quick", downtimes=(100, 200), stall=10.0, per_gib=0.0, least=100.0, pause_seconds=20.0)


def remaining(n: int, **more: int) -> dict[str, int]:
    return {"data_total": 1000, "data_remaining": n, **more}


def driven(policy: Policy, course: Sequence[tuple[float, Mapping[str, Any]]], *, post_copy: bool = False) -> list[Step]:
    driver = Driver(policy, memory=GIB, post_copy=post_copy, now=0.0)
    return [step for now, stats in course if (step := driver.look(stats, now=now)) is not None]


def test_the_first_downtime_is_set_once_data_flows_and_that_is_no_step_worth_telling() -> None:
    steps = driven(QUICK, [(0.5, {}), (1.0, {"data_total": 0, "data_remaining": 0}), (1.5, remaining(900))])
    assert steps == [Step("downtime", "", 100)]


def test_a_transfer_that_gets_on_is_left_alone_until_its_deadline() -> None:
    course = [(t, remaining(int(1000 - t))) for t in range(1, 100)]
    assert [step.act for step in driven(QUICK, course)] == ["downtime"]
    assert [step.act for step in driven(QUICK, [*course, (100.0, remaining(1))])] == ["downtime", "abort"]


def test_a_new_pass_that_begins_with_more_is_no_progress_and_no_new_low() -> None:
    saw = [(t, remaining(500 + int(7 * t) % 90)) for t in range(1, 12)]
    steps = driven(QUICK, saw)
    assert [(s.act, s.downtime) for s in steps] == [("downtime", 100), ("downtime", 200)]
    assert "no new low of what remains for 10 s" in steps[1].why


def test_processed_data_is_never_taken_for_progress() -> None:
    course = [(float(t), remaining(500, memory_processed=t * 10**9)) for t in range(1, 40)]
    assert [s.act for s in driven(QUICK, course)] == ["downtime", "downtime", "abort"]


def test_each_step_gets_its_own_time_to_work() -> None:
    flat = [(t / 2, remaining(500)) for t in range(1, 60)]
    driver = Driver(QUICK, memory=GIB, post_copy=False, now=0.0)
    taken = [(now, step.act) for now, stats in flat if (step := driver.look(stats, now=now))]
    assert taken == [(0.5, "downtime"), (10.5, "downtime"), (20.5, "abort")]


def test_where_nothing_is_sent_at_all_it_is_given_up() -> None:
    steps = driven(QUICK, [(float(t), {}) for t in range(1, 90)])
    assert [s.act for s in steps] == ["abort"]
    assert "nothing was sent within 60 s" in steps[0].why


def test_a_pause_is_bounded_and_an_abort_follows_it_once() -> None:
    policy = replace(QUICK, downtimes=(100,), at_deadline="pause")
    driver = Driver(policy, memory=GIB, post_copy=False, now=0.0)
    taken = [(t, s.act) for t in range(1, 80) if (s := driver.look(remaining(500), now=float(t)))]
    assert taken == [(1, "downtime"), (11, "pause"), (31, "abort")]


def test_consent_to_post_copy_comes_before_an_abort_and_nothing_after_it() -> None:
    flat = [(float(t), remaining(500)) for t in range(1, 500)]
    for policy in (QUICK, replace(QUICK, at_deadline="pause")):
        assert [s.act for s in driven(policy, flat, post_copy=True)] == ["downtime", "downtime", "post-copy"]


def test_a_deadline_grows_with_the_memory_and_has_a_least() -> None:
    policy = replace(QUICK, per_gib=150.0, least=300.0)
    assert policy.deadline(GIB) == 300.0
    assert policy.deadline(64 * GIB) == 9600.0


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_every_preset_says_its_steps_and_comes_to_an_end_of_a_guest_that_never_converges(policy: Policy) -> None:
    told = "; ".join(policy.steps(policy.settled(Transfer()), memory=4 * GIB))
    assert str(policy.downtimes[0]) in told
    assert "abort" in told
    end = policy.stall * len(policy.downtimes) + policy.pause_seconds + 5
    steps = driven(policy, [(t / 2, remaining(500)) for t in range(1, int(2 * end))])
    assert steps[-1].act == "abort"
    assert {s.downtime for s in steps if s.act == "downtime"} == set(policy.downtimes)
    assert policy_of(policy.name) is policy


def test_what_the_caller_chose_is_not_overruled_by_the_policy() -> None:
    assert BALANCED.settled(Transfer()).auto_converge is True
    assert BALANCED.settled(Transfer(auto_converge=False)).auto_converge is False
    assert HUGE_GUEST.settled(Transfer()).parallel == 4
    assert HUGE_GUEST.settled(Transfer(parallel=0)).parallel == 0
    assert HUGE_GUEST.settled(Transfer(post_copy=True)).parallel == 0, "no QEMU before 10.1 has both"
    assert MUST_FINISH.settled(Transfer(offline=True)) == Transfer(offline=True)


def test_a_policy_or_a_transfer_that_makes_no_sense_is_refused_by_name() -> None:
    with pytest.raises(MigrationError, match="policy='gentel': there are gentle, balanced"):
        policy_of("gentel")
    with pytest.raises(MigrationError, match=r"downtimes=\(300, 100\): rising"):
        replace(QUICK, downtimes=(300, 100))
    with pytest.raises(MigrationError, match="above 0"):
        replace(QUICK, stall=0.0)
    with pytest.raises(MigrationError, match="compression='lzma': choose one of"):
        Transfer(compression="lzma")  # type: ignore[arg-type]
    with pytest.raises(MigrationError, match="parallel=256: from 0 to 255"):
        Transfer(parallel=256)
