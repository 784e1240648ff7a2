"""The process that stands by while a guest moves held: it comes with the first, is one, and goes with its owner."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmcompat.errors import MigrationError
from vmcompat.migration import standby
from vmcompat.migration.standby import standing_by

HOSTS = ("qemu+ssh://h1/system", "qemu+ssh://h2/system")


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Iterator[standby._Owner]:
    """One that has started nothing yet."""
    owner = standby._Owner()
    monkeypatch.setattr(standby, "_owner", owner)
    yield owner
    if owner._process is not None:
        owner._end(owner._process)


def pid(owner: standby._Owner) -> int:
    assert owner._process is not None
    return owner._process.pid


def test_one_process_stands_by_for_all_guests_and_all_moves(owner: standby._Owner) -> None:
    with standing_by("web1", *HOSTS):
        first = pid(owner)
        with standing_by("web2", *HOSTS):
            assert pid(owner) == first
    with standing_by("web1", *HOSTS):
        assert pid(owner) == first
    assert owner._guests == []


def test_it_runs_in_a_session_of_its_own_which_no_end_of_a_kernel_reaches(owner: standby._Owner) -> None:
    with standing_by("web1", *HOSTS):
        assert os.getsid(pid(owner)) != os.getsid(0)
        assert os.getpgid(pid(owner)) != os.getpgid(0)


def test_no_uri_is_on_its_command_line_where_every_user_could_read_a_password(owner: standby._Owner) -> None:
    with standing_by("web1", "qemu+ssh://me:secret@h1/system", HOSTS[1]):
        process = Path(f"/proc/{pid(owner)}")
        deadline = time.monotonic() + 10
        while "vmcompat.migration.standby" not in (line := (process / "cmdline").read_text()):  # until it has begun
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert "secret" not in line + (process / "environ").read_text()


def test_one_that_has_died_is_started_anew_and_is_told_of_the_guests_of_before(owner: standby._Owner) -> None:
    with standing_by("web1", *HOSTS):
        first = owner._process
        assert first is not None
        first.kill()
        first.wait()
        with standing_by("web2", *HOSTS):
            assert owner._process is not first
            assert [guest.name for guest in owner._guests] == ["web1", "web2"]
        owner._end(first)


def test_without_a_second_process_nothing_begins_and_the_error_says_what_to_do(
    owner: standby._Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(MigrationError, match=r"let web1 run.*nowhere.*hold=False"), standing_by("web1", *HOSTS):
        pytest.fail("it began")
    assert owner._guests == []


def test_it_ends_with_the_program_that_started_it() -> None:
    program = (
        "from vmcompat.migration import standby\n"
        f"with standby.standing_by('web1', *{HOSTS}):\n"
        "    print(standby._owner._process.pid)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{done.stdout.strip()}"):
        assert time.monotonic() < deadline, "it has outlived its owner"
        time.sleep(0.05)
    assert done.stderr == ""
