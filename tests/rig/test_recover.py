"""What crashed clients, daemons and links leave behind on two real hosts, and that it is cleared without harm."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vmcompat as vc
from tests.rig import Rig
from vmcompat.errors import MigrationError
from vmcompat.migration.recover import Recovery
from vmcompat.migration.transfer import Transfer

pytestmark = pytest.mark.rig


class Guests:
    """Starts guests on h1, moves them slowly by a client that can be killed, and says where they are."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.clients: list[subprocess.Popen[bytes]] = []

    def define(self, name: str, *, on: str = "h1", uuid: str = "") -> str:
        path = self.rig.dir / f"{name}.{on}.xml"
        xml = self.rig.domain_xml(name, memory=120, buffer=16)
        path.write_text(xml.replace("<memory", f"<uuid>{uuid}</uuid>\n  <memory", 1) if uuid else xml)
        self.rig.virsh(on, "define", str(path))
        return self.rig.virsh(on, "domuuid", name).stdout.strip()

    def start(self, name: str) -> str:
        self.define(name)
        self.rig.virsh("h1", "start", name)
        self.rig.wait_for_tick(name, 1)
        return name

    def move(self, name: str, *options: str, speed: int = 4) -> subprocess.Popen[bytes]:
        """Let a client begin to move a guest, and wait until memory is on its way, or all of it has arrived."""
        self.rig.virsh("h1", "migrate-setspeed", name, str(speed))
        there = self.rig.peer_uri("h2") if "--p2p" in options else self.rig.ssh_uri("h2")
        line = ["virsh", "-q", "-c", self.rig.uri("h1"), "migrate", "--live", *options]
        client = subprocess.Popen(
            [*line, "--domain", name, "--desturi", there, "--migrateuri", self.rig.migrate_uri("h2")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.clients.append(client)
        # a fast one may have ended between two looks
        until(
            lambda: (
                client.poll() is not None
                or "Memory processed" in self.rig.virsh("h1", "domjobinfo", name, check=False).stdout
            )
        )
        return client

    def recover(self, name: str, **options: Any) -> Recovery:
        return vc.recover(name, self.rig.uri("h1"), self.rig.uri("h2"), **options)

    def where(self, name: str) -> dict[str, str]:
        return {
            host: state.stdout.strip()
            for host in self.rig.cpus
            if (state := self.rig.virsh(host, "domstate", name, check=False)).returncode == 0
        }

    def lives_on(self, name: str) -> None:
        """Wait for signs of life that it has not given yet; all in one boot, and none missing."""
        after = self.rig.wait_for_tick(name, self.rig.console(name).ticks[-1].number + 3)
        assert len(after.boot_ids) == 1
        assert after.holes == ()
        assert after.bad == 0


def until(seen: Callable[[], object], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.2)


@pytest.fixture
def guests(rig: Rig) -> Iterator[Guests]:
    made = Guests(rig)
    yield made
    for client in made.clients:
        client.kill()
        client.wait()
    rig.clear()


def test_a_client_killed_peer_to_peer_loses_nothing_and_its_move_goes_on(guests: Guests) -> None:
    name = guests.start("p2p-killed")
    guests.move(name, "--p2p", "--persistent", "--undefinesource").kill()
    under_way = guests.recover(name)
    assert (under_way.found, under_way.safe, under_way.steps) == ("migrating", True, ())
    assert under_way.source.job == "migration"
    assert (under_way.target.state, under_way.target.reason) == ("paused", "migration")
    assert under_way.target.job == "incoming"

    guests.rig.virsh("h1", "migrate-setspeed", name, "1000")
    until(lambda: guests.where(name) == {"h2": "running"})
    arrived = guests.recover(name)
    assert (arrived.found, arrived.safe, arrived.steps) == ("arrived", True, ())
    assert arrived.target.reason == "migrated"
    guests.lives_on(name)


def test_a_client_killed_in_a_managed_move_leaves_the_guest_at_the_source(guests: Guests) -> None:
    name = guests.start("managed-killed")
    guests.move(name).kill()
    until(lambda: guests.recover(name).found != "migrating")
    left = guests.recover(name)
    assert (left.found, left.safe, left.steps) == ("at source", True, ())
    guests.lives_on(name)
    assert guests.where(name) == {"h1": "running"}


def test_while_the_target_does_not_answer_nothing_is_done_and_then_the_stuck_client_is_freed(guests: Guests) -> None:
    rig, name = guests.rig, guests.start("daemon-killed")
    client = guests.move(name, "--persistent", "--undefinesource")
    rig.kill_libvirtd("h2")
    try:
        blind = guests.recover(name)
        assert (blind.found, blind.safe, blind.steps) == ("unknown", None, ())
        assert "does not answer" in blind.evidence[1]
        with pytest.raises(MigrationError, match=r"not known to be safe: .*Nothing was done"):
            blind.act(confirm=name)
        assert client.poll() is None
    finally:
        rig.start_libvirtd("h2")
    left = guests.recover(name)
    while left.steps:
        left = left.act(confirm=name)
    assert (left.found, left.safe) == ("at source", True)
    guests.lives_on(name)
    assert guests.where(name) == {"h1": "running"}


@pytest.mark.slow
def test_a_job_that_lost_its_link_is_cleared_and_the_guest_can_move_again(guests: Guests) -> None:
    rig, name = guests.rig, guests.start("unlinked")
    client = guests.move(name, "--persistent", "--undefinesource")
    rig.run("h2", "ip", "link", "set", "eth0", "down", check=True)
    try:
        time.sleep(5)  # in which the hosts could notice; the source's does not
        left = guests.recover(name)
        assert (left.found, left.safe) == ("stuck", True)
        assert len(left.steps) == 1
        assert left.steps[0].endswith(f" domjobabort --domain {name}")
        with pytest.raises(MigrationError, match=r"is not 'unlinked'\. Nothing was done"):
            left.act(confirm="another")
        left = left.act(confirm=name)
        while left.steps:
            left = left.act(confirm=name)
        assert (left.found, left.safe) == ("at source", True)
    finally:
        rig.run("h2", "ip", "link", "set", "eth0", "up", check=True)
    assert client.wait(30) != 0
    guests.lives_on(name)
    assert guests.where(name) == {"h1": "running"}
    again = guests.move(name, "--p2p", "--persistent", "--undefinesource", speed=1000)
    assert again.wait(60) == 0
    guests.lives_on(name)
    assert guests.where(name) == {"h2": "running"}


@pytest.fixture
def patient_target(rig: Rig) -> Iterator[None]:
    """The second host does not notice that a client has stopped to answer."""
    conf = rig.dir / "h2" / "etc" / "libvirt" / "libvirtd.conf"
    before = conf.read_text()

    def restart(text: str) -> None:
        conf.write_text(text)
        rig.kill_libvirtd("h2", signal.SIGTERM)
        rig.start_libvirtd("h2")

    restart(before.replace("keepalive_interval = 1", "keepalive_interval = -1"))
    yield
    restart(before)


def test_a_qemu_that_waits_at_the_target_for_nobody_is_ended(guests: Guests, patient_target: None) -> None:
    rig, name = guests.rig, guests.start("awaited")
    guests.move(name, "--persistent", "--undefinesource")
    rig.run("h2", "ip", "link", "set", "eth0", "down", check=True)
    try:
        left = guests.recover(name)
        while left.found == "migrating":  # what the network still holds
            left = guests.recover(name)
        assert left.found == "stuck"
        left = left.act(confirm=name)
        # without a link no QEMU at the target hears that the job has ended
        assert guests.where(name) == {"h1": "running", "h2": "paused"}
        assert (left.found, left.safe) == ("incoming left", True)
        with pytest.raises(MigrationError, match="write=False"):
            guests.recover(name, write=False).act(confirm=name)
        assert guests.where(name) == {"h1": "running", "h2": "paused"}
        left = left.act(confirm=name)
        assert (left.found, left.safe, left.steps) == ("at source", True, ())
    finally:
        rig.run("h2", "ip", "link", "set", "eth0", "up", check=True)
    guests.lives_on(name)
    assert guests.where(name) == {"h1": "running"}


def stopped_at_the_switch_over(guests: Guests, name: str) -> int:
    """Stop a client for good while the last of the memory is on its way; its process id."""
    client = guests.move(name, "--persistent", "--undefinesource", speed=10)
    os.kill(client.pid, signal.SIGSTOP)
    until(lambda: guests.where(name) == {"h1": "paused", "h2": "paused"})
    return client.pid


def test_a_guest_that_is_paused_at_both_ends_runs_again_at_the_source(guests: Guests, patient_target: None) -> None:
    name = guests.start("switched")
    client = stopped_at_the_switch_over(guests, name)
    left = guests.recover(name)
    assert (left.found, left.safe) == ("paused at both", True)
    assert [step.split(" ", 3)[3] for step in left.steps] == [f"destroy --domain {name}", f"resume --domain {name}"]
    left = left.act(confirm=name)
    assert (left.found, left.safe, left.steps) == ("at source", True, ())
    guests.lives_on(name)
    os.kill(client, signal.SIGCONT)  # too late to do harm
    assert guests.clients[-1].wait(30) != 0
    guests.lives_on(name)
    assert guests.where(name) == {"h1": "running"}


@pytest.mark.slow
def test_a_guest_that_is_paused_at_the_source_alone_waits_for_somebody_who_knows(
    guests: Guests, patient_target: None
) -> None:
    name = guests.start("alone")
    os.kill(stopped_at_the_switch_over(guests, name), signal.SIGKILL)
    until(lambda: guests.where(name) == {"h1": "paused"})
    left = guests.recover(name)
    assert (left.found, left.safe, left.steps) == ("paused at source", None, ())
    assert "virsh with --persistent, it never ran at h2" in left.remedy
    with pytest.raises(MigrationError, match="Nothing was done"):
        left.act(confirm=name)
    guests.rig.virsh("h1", "resume", name)
    assert guests.recover(name).found == "at source"
    guests.lives_on(name)


@pytest.mark.slow
def test_post_copy_that_lost_its_link_is_left_alone_and_cleared_up_after_once_it_has_arrived(guests: Guests) -> None:
    rig, name = guests.rig, guests.start("halved")
    options = ("--postcopy", "--postcopy-bandwidth", "4", "--persistent", "--undefinesource")
    guests.move(name, "--p2p", *options, speed=2)
    rig.virsh("h1", "migrate-postcopy", name)
    under_way = guests.recover(name)
    assert (under_way.found, under_way.safe, under_way.steps) == ("post-copy", False, ())
    rig.run("h2", "ip", "link", "set", "eth0", "down", check=True)
    try:
        until(lambda: guests.recover(name).found == "post-copy failed")
        broken = guests.recover(name)
        with pytest.raises(MigrationError, match=r"post-copy failed: not known to be safe.*Nothing was done"):
            broken.act(confirm=name)
        assert (broken.source.state, broken.target.state) == ("paused", "running")
    finally:
        rig.run("h2", "ip", "link", "set", "eth0", "up", check=True)
    # QEMU goes on by itself, and libvirt then forgets that the source was to be undefined
    until(lambda: guests.where(name) == {"h1": "shut off", "h2": "running"})
    left = guests.recover(name)
    assert (left.found, left.safe) == ("definition left", True)
    assert left.act(confirm=name).found == "arrived"
    guests.lives_on(name)


def test_a_definition_that_would_start_the_guest_twice_is_taken_from_the_source(guests: Guests) -> None:
    rig, name = guests.rig, guests.start("left-behind")
    rig.virsh("h1", "autostart", name)
    assert guests.move(name, "--p2p", "--persistent", speed=1000).wait(60) == 0
    left = guests.recover(name)
    assert (left.found, left.safe) == ("definition left", True)
    assert (left.source.state, left.source.reason) == ("shut off", "migrated")
    assert [step.split(" ", 3)[3] for step in left.steps] == [
        f"autostart --disable --domain {name}",
        f"undefine --keep-nvram --domain {name}",
    ]
    assert "virsh autostart on h2" in left.remedy
    assert left.act(confirm=name).found == "arrived"
    assert guests.where(name) == {"h2": "running"}
    guests.lives_on(name)


def test_the_only_definition_is_never_taken_away(guests: Guests) -> None:
    name = guests.start("transient-there")
    assert guests.move(name, "--p2p", speed=1000).wait(60) == 0
    left = guests.recover(name)
    assert (left.found, left.safe, left.steps) == ("definition left", True, ())
    assert "is the only one" in left.remedy


def test_a_stale_definition_at_the_target_is_taken_away_while_the_guest_runs_on(guests: Guests) -> None:
    rig, name = guests.rig, guests.start("stale")
    uuid = rig.virsh("h1", "domuuid", name).stdout.strip()
    guests.define(name, on="h2", uuid=uuid)
    rig.virsh("h2", "autostart", name)
    left = guests.recover(name)
    assert (left.found, left.safe) == ("definition at target", True)
    left = left.act(confirm=name)
    assert (left.found, left.safe) == ("at source", True)
    assert guests.where(name) == {"h1": "running"}
    guests.lives_on(name)


def test_a_guest_that_runs_twice_is_touched_on_neither_host(guests: Guests) -> None:
    rig, name = guests.rig, "twice"
    uuid = guests.define(name)
    guests.define(name, on="h2", uuid=uuid)
    for host in rig.cpus:
        rig.virsh(host, "start", name)
    left = guests.recover(name)
    assert (left.found, left.safe, left.steps) == ("two copies", False, ())
    with pytest.raises(MigrationError, match="Nothing was done"):
        left.act(confirm=name)
    assert guests.where(name) == {"h1": "running", "h2": "running"}


def test_another_domain_of_that_name_is_not_taken_for_the_guest(guests: Guests) -> None:
    name = "namesake"
    guests.define(name)
    guests.define(name, on="h2")
    left = guests.recover(name)
    assert (left.found, left.safe, left.steps) == ("name taken", None, ())


def test_what_has_changed_since_the_look_is_not_acted_upon(guests: Guests) -> None:
    rig, name = guests.rig, guests.start("changed")
    uuid = rig.virsh("h1", "domuuid", name).stdout.strip()
    guests.define(name, on="h2", uuid=uuid)
    left = guests.recover(name)
    rig.virsh("h1", "destroy", name)
    rig.virsh("h2", "start", name)
    with pytest.raises(
        MigrationError, match=r"it was definition at target and is definition left now\. Nothing was done"
    ):
        left.act(confirm=name)
    assert guests.where(name) == {"h1": "shut off", "h2": "running"}


# ---- what is handed out for a change ticket


def test_what_the_page_hands_out_for_a_move_that_gets_nowhere_brings_the_guest_home(
    guests: Guests, tmp_path: Path
) -> None:
    rig, name = guests.rig, guests.start("too-slow")
    rig.virsh("h1", "migrate-setspeed", name, "2")
    plan = vc.plan_migration(
        name, rig.uri("h1"), rig.ssh_uri("h2"), peer_uri=rig.peer_uri("h2"), migrate_uri=rig.migrate_uri("h2")
    )
    assert not plan.blocked
    moving = subprocess.Popen(["sh", "-c", plan.commands()], cwd=tmp_path, stdout=subprocess.DEVNULL)
    guests.clients.append(moving)
    until(lambda: guests.recover(name).found == "migrating")
    page = plan.runbook()
    by_hand = re.search(r"## While it moves.*?```sh\n(.*?)\n```", page, re.DOTALL)
    ask = re.search(r"```python\n(.*?)\n```", page, re.DOTALL)
    assert by_hand is not None
    assert ask is not None
    for line in by_hand[1].splitlines():  # what raises the downtime, what looks, and at last what aborts
        subprocess.run(["sh", "-c", line], check=True, capture_output=True, timeout=30)
    assert moving.wait(30) != 0
    told = subprocess.run([sys.executable, "-c", ask[1]], capture_output=True, text=True, timeout=60, check=True).stdout
    assert told.startswith(f"<Recovery {name}: at source, safe")
    guests.lives_on(name)


def test_the_commands_of_a_managed_move_do_it(guests: Guests, tmp_path: Path) -> None:
    rig, name = guests.rig, guests.start("by-hand-managed")
    plan = vc.plan_migration(
        name, rig.uri("h1"), rig.ssh_uri("h2"), migrate_uri=rig.migrate_uri("h2"),
        transfer=Transfer(managed=True, auto_converge=True),
    )  # fmt: skip
    subprocess.run(["sh", "-c", plan.commands()], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert guests.recover(name).found == "arrived"
    guests.lives_on(name)
