"""The log of migrations: what is written is read back, by its owner only, and no damage costs more than its line."""

import json
import logging
import os
import stat
import threading
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pytest

from vmcompat import migration
from vmcompat.errors import DocumentError
from vmcompat.migration import MigrationResult, journal
from vmcompat.migration.journal import append, log
from vmcompat.schema import MIGRATION_LOG, MIGRATION_RESULT

RESULT = MigrationResult(
    domain="web1", source="h1", target="h2", outcome="migrated", phase="end", way="peer to peer", policy="balanced",
    policy_steps=("slowed the guest down", "let it stop for 1 s"), started=datetime(2026, 11, 24, 12, tzinfo=UTC),
    seconds=2.5, downtime_ms=40, transferred=2**33, iterations=3, not_given=("avx",), forced=("PASSTHROUGH", "CLOCK"),
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a state folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return tmp_path


def test_before_the_first_run_the_log_is_an_empty_frame(home: Path) -> None:
    empty = log()
    assert {name: str(dtype) for name, dtype in empty.dtypes.items()} == dict(MIGRATION_LOG)
    assert len(empty) == 0
    assert list(home.iterdir()) == []


def test_what_a_run_logs_is_what_is_read(home: Path) -> None:
    failed = replace(
        RESULT, outcome="stayed", downtime_ms=None, message="no \"route\"\nto 'h2' \u2028 \u00fc", seconds=1.0
    )
    append(RESULT)
    append(failed)
    read = migration.log()
    expected = pd.concat([RESULT.frame, failed.frame], ignore_index=True)
    pd.testing.assert_frame_equal(read.astype(dict(MIGRATION_RESULT)), expected)
    assert read["transferred"].tolist() == [2**33, 2**33]
    assert read["forced"].tolist() == [("PASSTHROUGH", "CLOCK")] * 2


def test_only_its_owner_may_read_it_whatever_the_umask(home: Path) -> None:
    before = os.umask(0)
    try:
        append(RESULT)
    finally:
        os.umask(before)
    file = home / ".local" / "state" / "vmcompat" / "migrations.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_it_lies_in_the_state_folder_that_xdg_names_unless_that_is_relative(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    append(RESULT)
    assert len((tmp_path / "state" / "vmcompat" / "migrations.jsonl").read_text().splitlines()) == 1
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert len(log()) == 0


def test_times_of_other_zones_are_the_same_moments(tmp_path: Path) -> None:
    file = tmp_path / "log"
    append(replace(RESULT, started=RESULT.started.astimezone(timezone(timedelta(hours=5)))), path=file)
    assert log(file)["started"].tolist() == [pd.Timestamp(RESULT.started)]


def test_no_password_of_a_uri_is_written(tmp_path: Path) -> None:
    file = tmp_path / "log"
    told = "h1: unable to connect to 'qemu+tls://root:ge:h@eim@h2/system': refused; see https://example.org/a:b"
    append(replace(RESULT, message=told, policy_steps=(told,)), path=file)
    assert "eim" not in file.read_text()
    clean = "h1: unable to connect to 'qemu+tls://root@h2/system': refused; see https://example.org/a:b"
    assert log(file)["message"].tolist() == [clean]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"nonsense",
        b"\xff\xfe\x00",
        b"[]",
        b"{}",
        b'"domain"',
        b"[" * 100_000,
        b'{"domain": "web1", "seconds": "long"}',
        b'{"domain": "web1", "restarted": 1}',
        b'{"domain": "web1", "transferred": 1e3}',
        b'{"domain": "web1", "iterations": 99999999999999999999}',
        b'{"domain": "web1", "forced": "CLOCK"}',
        b'{"domain": "web1", "forced": [1]}',
        b'{"domain": "web1", "started": "yesterday"}',
        b'{"domain": "' + b"x" * 3 * 2**20 + b'"}',
    ],
    ids=lambda line: line[:40].decode(errors="replace"),
)
def test_a_damaged_line_is_named_by_its_number_and_costs_nothing_else(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "log"
    append(RESULT, path=file)
    with file.open("ab") as opened:
        opened.write(line + b"\n")
    append(replace(RESULT, domain="web2"), path=file)
    with pytest.warns(UserWarning, match=r"1 lines are no rows .* by number: 2$"):
        read = log(file)
    assert read["domain"].tolist() == ["web1", "web2"]


def test_a_writer_that_was_cut_off_costs_its_own_line_only(tmp_path: Path) -> None:
    file = tmp_path / "log"
    append(RESULT, path=file)
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:40])
    append(replace(RESULT, domain="web2"), path=file)
    with pytest.warns(UserWarning, match=r"by number: 2$"):
        assert log(file)["domain"].tolist() == ["web1", "web2"]


def test_columns_of_another_version_are_missing_or_left_out(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(json.dumps({"domain": "web1", "outcome": "migrated", "mood": "good"}) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (row,) = log(file).to_dict("records")
    assert row["outcome"] == "migrated"
    assert row["forced"] == ()
    assert all(pd.isna(row[name]) for name in ("restarted", "seconds", "started", "policy", "iterations"))
    assert "mood" not in row


def test_half_a_character_is_shown_by_its_number(tmp_path: Path) -> None:
    file = tmp_path / "log"
    append(replace(RESULT, domain="web\ud800"), path=file)
    assert log(file)["domain"].tolist() == ["web\\ud800"]


def test_two_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "log"

    def write(row: MigrationResult) -> None:
        for _ in range(25):
            append(row, path=file)

    rows = [replace(RESULT, domain=f"web{n}", message="x" * 10_000) for n in range(4)]
    threads = [threading.Thread(target=write, args=(row,)) for row in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log(file)["domain"].value_counts().to_dict() == {f"web{n}": 25 for n in range(4)}


def test_only_the_newest_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_NEWEST", 3)
    for n in range(5):
        append(replace(RESULT, domain=f"web{n}"), path=tmp_path / "log")
    assert log(tmp_path / "log")["domain"].tolist() == ["web2", "web3", "web4"]


def test_a_log_that_cannot_be_written_is_told_and_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, logger="vmcompat"):
        append(RESULT, path=tmp_path / "file" / "log")
    assert "the migration of web1 is not in the log" in caplog.text
    caplog.clear()
    monkeypatch.setattr(os, "write", lambda file, line: len(line) - 1)
    append(RESULT, path=tmp_path / "log")
    assert "a part of the line" in caplog.text


def test_a_log_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="there is no such log"):
        log(tmp_path / "none")
    with pytest.raises(DocumentError, match="cannot be read"):
        log(tmp_path)
