"""Progress is shown as a bar, as lines, to a function of the caller's, or not at all."""

import sys
from typing import Any

import pytest

from vmcompat.migration.progress import show

HALF = {"memory_total": 200 * 2**20, "memory_remaining": 100 * 2**20, "memory_bps": 32 * 2**20, "memory_iteration": 3}


def test_without_tqdm_progress_is_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    progress = show(True)
    progress.say("migrating web1")
    progress.update({})
    progress.update(HALF)
    progress.update(HALF)  # not a line for every poll
    progress.close(complete=True)
    assert capsys.readouterr().out.splitlines() == ["migrating web1", "50 % pass 3, 100 MiB left, 32 MiB/s"]


def test_with_tqdm_it_is_one_bar(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    progress = show(True)
    progress.say("migrating web1")
    progress.update(HALF)
    progress.close(complete=True)
    out, err = capsys.readouterr()
    assert out == "migrating web1\n"
    assert "50%" in err
    assert "100%" in err
    assert "pass 3, 100 MiB left, 32 MiB/s" in err


def test_a_function_is_told_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[Any] = []
    progress = show(told.append)
    progress.say("migrating web1")
    progress.update(HALF)
    progress.close(complete=True)
    assert told == [HALF]
    assert capsys.readouterr() == ("", "")


def test_what_takes_every_step_is_told_every_step() -> None:
    class Listener:
        def __init__(self) -> None:
            self.told: list[Any] = []

        def say(self, text: str) -> None:
            self.told.append(text)

        def update(self, stats: Any) -> None:
            self.told.append(stats)

        def close(self, *, complete: bool) -> None:
            self.told.append(complete)

    listener = Listener()
    progress = show(listener)
    progress.say("migrating web1")
    progress.update(HALF)
    progress.close(complete=True)
    assert listener.told == ["migrating web1", HALF, True]


def test_none_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    progress = show(False)
    progress.say("migrating web1")
    progress.update(HALF)
    assert capsys.readouterr() == ("", "")
