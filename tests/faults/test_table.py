"""What the table of faults counts."""

from pathlib import Path
from typing import Any

from tests.faults import table
from tests.faults.trial import MISSED, cells

GOOD = {
    "fault": "client killed", "moment": "setup", "way": "p2p", "phase": "setup", "code": "0", "lost": False,
    "reported": False, "twice": False, "stuck": False, "told": True, "typed": [], "problems": [],
}  # fmt: skip


def rows(*changes: dict[str, Any]) -> list[table.Row]:
    return [{**GOOD, **change} for change in changes]


def test_a_loss_that_was_said_is_not_counted_as_lost() -> None:
    counted = table.counts(rows({"lost": True, "reported": True}, {"lost": True}))
    assert (counted["lost"], counted["loss said"]) == (1, 1)


def test_one_bad_trial_fails_the_bar_and_a_loss_that_was_said_does_not() -> None:
    assert table.passed(rows({}, {"lost": True, "reported": True}))
    for bad in ({"lost": True}, {"twice": True}, {"stuck": True}):
        assert not table.passed(rows({}, bad))


def test_a_trial_in_which_the_fault_did_not_strike_is_not_counted() -> None:
    tried = rows({}, {"phase": MISSED}, {"phase": table.RIG_FAILED})
    assert len(table.struck(tried)) == 1
    assert "not counted: 1 in which the fault came too late to strike, 1 in which the rig" in table.table(tried, {})


def test_a_fault_that_cannot_be_done_here_is_named_with_the_reason() -> None:
    assert "not run here: clocks step: no library" in table.table(rows({}), {"clocks step": "no library"})


def test_results_are_read_back_without_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    for row in rows({}, {"lost": True}):
        table.append(path, row)
    with path.open("a") as file:
        file.write('{"fault": "cli')
    assert table.read(path) == rows({}, {"lost": True})


def test_bad_trials_are_set_aside_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    for row in rows({}, {"problems": ["lost"]}):
        table.append(path, row)
    assert table.set_bad_aside(path) == 1
    assert table.read(path) == rows({})
    assert len(table.read(tmp_path / "set-aside.jsonl")) == 1


def test_every_fault_of_the_list_is_tried_at_all_its_moments_by_all_its_ways() -> None:
    names = [str(cell) for cell in cells()]
    assert len(names) == len(set(names))
    assert 10 * len(names) >= 300
    assert all((cell.way == "post-copy") == (cell.moment == "post-copy") for cell in cells())
