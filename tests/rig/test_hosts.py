"""`make rig-test` as a user runs it, on two hosts of the rig: what it proves, refuses, and leaves behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rig import Rig

pytestmark = pytest.mark.rig

ROOT = Path(__file__).resolve().parents[2]
LEFT = """<domain type='qemu'><name>vmcompat-proof-abcdef</name><memory unit='MiB'>32</memory>
<os><type arch='x86_64'>hvm</type></os></domain>"""


@pytest.fixture
def hosts(rig: Rig) -> Iterator[Rig]:
    yield rig
    rig.clear()


def own() -> dict[str, str]:
    """The environment, without what the run of this test has put into it."""
    outer = ("MAKE", "MFLAGS", "PYTEST", "VMCOMPAT_HOSTS")
    return {name: value for name, value in os.environ.items() if not name.startswith(outer)}


def rig_test(*hosts: str) -> "subprocess.Popen[str]":
    # -o: the environment that runs this test is set up already
    line = ["make", "-o", "setup", f"BIN={Path(sys.executable).parent}", "rig-test", f"HOSTS={' '.join(hosts)}"]
    return subprocess.Popen(
        line,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=own(),
        start_new_session=True,
    )


def entry(rig: Rig, host: str) -> str:
    return f"{rig.ssh_uri(host)},{rig.peer_uri(host)},{rig.migrate_uri(host)}"


def guests_of(rig: Rig) -> list[list[str]]:
    """Names of the guests of each host."""
    return [rig.virsh(host, "list", "--all", "--name").stdout.split() for host in rig.cpus]


def refused(*hosts: str) -> str:
    run = rig_test(*hosts)
    said, _ = run.communicate(timeout=60)
    assert run.returncode != 0
    assert said.startswith("ERROR: ")
    assert "Nothing was touched." in said
    return said


def test_two_hosts_are_proved_and_nothing_is_left_on_them(hosts: Rig) -> None:
    run = rig_test(entry(hosts, "h1"), entry(hosts, "h2"))
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    assert guests_of(hosts) == [[], []]
    before, _, after = said.partition("test session starts")
    assert "What will be done: guests named vmcompat-proof-xxxxxx" in before
    table = after.partition("proved on these hosts")[2]
    rows = [line for line in table.splitlines() if line.endswith("| TCG |")]
    assert len(rows) == 12
    assert [row for row in rows if "| as it should be |" not in row] == []
    assert "| what guests get at most | SandyBridge | Westmere |" in table
    assert "host 2 lacks xsave, avx, xsaveopt, rdtscp (libvirt says so); HOST_MODEL ok; libvirt refuses" in table
    assert re.findall(r"\bh[12]\b|vmcompat-proof-[0-9a-f]", table) == [], "names are nobody's business"


def test_twice_the_same_host_is_refused(hosts: Rig) -> None:
    assert "are the same host, h1" in refused(hosts.uri("h1"), hosts.ssh_uri("h1"))


def test_a_guest_left_from_an_earlier_run_is_refused_with_the_lines_that_remove_it(hosts: Rig) -> None:
    (hosts.dir / "left.xml").write_text(LEFT)
    hosts.virsh("h2", "define", str(hosts.dir / "left.xml"))
    hosts.virsh("h2", "start", "vmcompat-proof-abcdef")
    said = refused(hosts.ssh_uri("h1"), hosts.ssh_uri("h2"))
    assert guests_of(hosts) == [[], ["vmcompat-proof-abcdef"]]
    lines = [line for line in said.splitlines() if line.startswith("virsh ")]
    subprocess.run(["sh", "-ec", "\n".join(lines)], check=True, capture_output=True, timeout=60)
    assert guests_of(hosts) == [[], []]


@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGINT, all), (signal.SIGTERM, any)],
    ids=["Ctrl-C in a migration", "killed before one"],
)
def test_an_interrupt_leaves_nothing_behind(hosts: Rig, number: int, moment: Callable[[list[list[str]]], bool]) -> None:
    run = rig_test(entry(hosts, "h1"), entry(hosts, "h2"))
    deadline = time.monotonic() + 120
    while not moment(guests_of(hosts)):
        assert run.poll() is None
        assert time.monotonic() < deadline
    os.killpg(run.pid, number)
    said, _ = run.communicate(timeout=90)
    assert run.returncode != 0
    assert guests_of(hosts) == [[], []]
    assert "KeyboardInterrupt" in said
    assert "may be left" not in said


def test_without_hosts_they_are_not_collected_and_by_name_skipped_with_the_reason() -> None:
    def pytest_says(*arguments: str) -> str:
        line = [sys.executable, "-m", "pytest", "-q", *arguments]
        return subprocess.run(line, cwd=ROOT, env=own(), capture_output=True, text=True, timeout=120).stdout

    # of the folder of all tests nothing but tests/hosts, for the others take their time
    assert "no tests ran" in pytest_says(f"--ignore-glob={ROOT}/tests/[!h]*", "tests")
    named = pytest_says("tests/hosts")
    assert 'no two hosts are given: make rig-test HOSTS="' in named
    assert "12 skipped" in named
