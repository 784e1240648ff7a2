"""Every check says in every case what it saw, and what the table of checks claims is what the tests show."""

import numpy as np
import pytest

from tests.matrix import CASES, FIRES, HERE, marks, matrix, severities
from tests.migration.scene import found
from tests.migration.test_attached import PROVED_ON
from vmcompat.migration import checks
from vmcompat.migration.kinds import BIT, GROUPS
from vmcompat.migration.preflight import CHECKS
from vmcompat.migration.proofs import PROOFS
from vmcompat.migration.reach import bits_of, names_of

RIG, RECORDED = "rig (TCG)", "recorded documents"


@pytest.mark.parametrize("case", CASES)
def test_a_check_says_what_it_saw(case: str) -> None:
    check, severity, evidence, observation = CASES[case]
    finding = found(observation, check)
    assert finding is not None
    assert (finding.severity, evidence in finding.evidence) == (severity, True), finding
    assert finding.remedy or severity in ("ok", "warn"), "what stops a run has a remedy"


def test_every_check_has_its_row_in_the_order_of_the_findings() -> None:
    assert list(checks().index) == list(CHECKS)
    assert checks()["asks"].str.endswith("?").all()


def test_every_check_says_in_the_tests_what_the_table_says_that_it_can_say() -> None:
    shown = severities()
    claimed = {check: set(proof.severities.split()) for check, proof in PROOFS.items()}
    assert claimed == shown


def test_every_check_fires_somewhere_in_the_tests() -> None:
    assert (matrix()["fired"] > 0).all()
    assert [check for check, said in severities().items() if not said & set(FIRES)] == []


def test_what_is_proved_on_the_rig_or_from_documents_has_a_test_that_says_so() -> None:
    shown = marks()
    assert set(shown) <= set(CHECKS), "a mark names no check"
    for check, row in checks().iterrows():
        on = shown.get(str(check), {})
        best = RIG if RIG in on else RECORDED if RECORDED in on else "nobody"
        assert row["proved_on"] == best, check
        assert set(row["libvirt"].split(", ")) == (on[best] if on else {"not tried"}), check


def test_what_the_tests_of_devices_say_of_the_rig_is_tried_there() -> None:
    tried = (HERE / "rig" / "test_devices.py").read_text()
    assert [check for check, (on, _) in PROVED_ON.items() if on == RIG and f'"{check}"' not in tried] == []


def test_the_sets_of_checks_that_reachability_keeps_hold_all_of_them() -> None:
    assert len({*BIT.values()}) == len(CHECKS)
    assert np.uint64(bits_of(CHECKS)) == sum(1 << i for i in range(len(CHECKS)))
    assert names_of(int(np.uint64(bits_of(CHECKS)))) == tuple(CHECKS)
    assert {name for group in GROUPS for name in (*group.running, *group.off)} <= set(BIT)
