"""Waivers: read whole or refused with the line, and never for more than one finding."""

from datetime import date
from pathlib import Path

import pytest

import vmcompat as vc
from vmcompat.audit.waivers import read_waivers

HEAD = "finding,owner,expiry,reason\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "waivers.csv"
    path.write_text(text)
    return path


def test_a_waiver_holds_through_its_last_day(tmp_path: Path) -> None:
    row = "CONTROL_LACKING:h3:md-clear,ops@example.org,2026-12-31,board is replaced in January\n"
    (waiver,) = read_waivers(written(tmp_path, HEAD + row))
    assert (waiver.finding, waiver.owner) == ("CONTROL_LACKING:h3:md-clear", "ops@example.org")
    assert waiver.holds(date(2026, 12, 31))
    assert not waiver.holds(date(2027, 1, 1))


def test_other_columns_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    (waiver,) = read_waivers(
        written(tmp_path, "\ufeffticket,finding,owner,expiry,reason\nT-1,STUCK:a,me,2027-01-01,so\n")
    )
    assert waiver.reason == "so"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("finding,owner\nX,me\n", r"waivers.csv:1: .*no column expiry, reason"),
        (HEAD + "X,me,soon,because\n", r"waivers.csv:2: .*'soon' is no date"),
        (HEAD + "X,,2027-01-01,because\n", r"waivers.csv:2: .*without owner"),
        (HEAD + "X,me,2027-01-01,\n", r"waivers.csv:2: .*without reason"),
        (HEAD + "X,me,2027-01-01,a\nX,you,2027-02-01,b\n", r"waivers.csv:3: .*waived in line 2"),
        (HEAD + 'X,me,2027-01-01,"open\n', r"no CSV"),
    ],
    ids=["columns", "date", "owner", "reason", "twice", "quote"],
)
def test_a_table_that_silences_without_an_owner_a_date_and_a_reason_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(vc.errors.DocumentError, match=message):
        read_waivers(written(tmp_path, text))


def test_a_table_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(vc.errors.DocumentError, match="cannot read the waivers"):
        read_waivers(tmp_path / "none.csv")
