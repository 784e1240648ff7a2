"""The rig is real, is two different hosts, is closed to everybody else, and leaves nothing behind."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import Rig, RigError

pytestmark = pytest.mark.rig

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
NOT_IN_WESTMERE = {"xsave", "avx", "xsaveopt", "rdtscp"}
# TCG emulates neither, so SandyBridge starts on no host of the rig with them.
NOT_IN_TCG = ("x2apic", "tsc-deadline")


def create(rig: Rig, host: str, xml: str) -> str:
    """Start a transient guest and return its name."""
    name = ET.fromstring(xml).findtext("name")
    assert name is not None
    path = rig.dir / f"{name}.xml"
    path.write_text(xml)
    rig.virsh(host, "create", str(path))
    return name


def running(rig: Rig, host: str) -> list[str]:
    return rig.virsh(host, "list", "--name").stdout.split()


# ---- two different hosts


def host_model_features(rig: Rig, host: str) -> set[str]:
    """What a guest gets at most on this host, as libvirt expands its host-model."""
    capabilities = ET.fromstring(rig.virsh(host, "domcapabilities", "--virttype", "qemu").stdout)
    model = capabilities.find("cpu/mode[@name='host-model']")
    assert model is not None
    model.tag, model.attrib = "cpu", {"mode": "custom", "match": "exact"}
    path = rig.dir / f"{host}-host-model.xml"
    path.write_text(ET.tostring(model, encoding="unicode"))
    expanded = rig.virsh(host, "hypervisor-cpu-baseline", "--virttype", "qemu", "--features", str(path))
    return {feature.attrib["name"] for feature in ET.fromstring(expanded.stdout).iterfind("feature[@policy='require']")}


def test_the_hosts_pretend_to_be_different_cpus(rig: Rig) -> None:
    models = {}
    for host in rig.cpus:
        capabilities = ET.fromstring(rig.virsh(host, "domcapabilities", "--virttype", "qemu").stdout)
        models[host] = capabilities.findtext("cpu/mode[@name='host-model']/model")
    assert models == {"h1": "SandyBridge", "h2": "Westmere"}
    richer, poorer = host_model_features(rig, "h1"), host_model_features(rig, "h2")
    assert richer - poorer == NOT_IN_WESTMERE
    assert poorer < richer


def test_models_that_a_host_cannot_give_are_not_usable_on_it(rig: Rig) -> None:
    usable = {}
    for host in rig.cpus:
        capabilities = ET.fromstring(rig.virsh(host, "domcapabilities", "--virttype", "qemu").stdout)
        listed = capabilities.iterfind("cpu/mode[@name='custom']/model")
        usable[host] = {model.text for model in listed if model.get("usable") == "yes"}
    assert {"Westmere", "Nehalem"} <= usable["h1"] & usable["h2"]
    assert "Opteron_G4" not in usable["h2"]
    assert not {"Haswell", "Broadwell", "Skylake-Client"} & (usable["h1"] | usable["h2"])


def test_even_a_guest_that_nobody_checks_gets_only_what_the_pretended_cpu_has(rig: Rig) -> None:
    flags = {}
    for host in rig.cpus:
        name = create(rig, host, rig.domain_xml(f"maximum-{host}", cpu="<cpu mode='maximum'/>"))
        flags[host] = rig.wait_for_tick(name).flags
        rig.virsh(host, "destroy", name)
    assert flags["h1"] >= NOT_IN_WESTMERE
    assert not flags["h2"] & NOT_IN_WESTMERE
    assert "sse4_2" in flags["h2"]


def test_a_cpu_that_qemu_does_not_know_is_refused_by_name(rig: Rig) -> None:
    with pytest.raises(RigError, match="Pentium9"):
        Rig({"h1": "Pentium9"}).start()


# ---- guests that move


def test_a_guest_survives_its_live_migration(rig: Rig) -> None:
    name = create(rig, "h1", rig.domain_xml("survivor", cpu="Westmere", dirty=4))
    before = rig.wait_for_tick(name, 4)
    rig.virsh("h1", "migrate", name, "--live", "--p2p", rig.peer_uri("h2"), rig.migrate_uri("h2"))
    assert running(rig, "h1").count(name) == 0
    assert running(rig, "h2").count(name) == 1
    moved = rig.console(name).ticks[-1].number
    # Long enough for the guest to read all of its memory once more, where it now is.
    after = rig.wait_for_tick(name, moved + 10)
    rig.virsh("h2", "destroy", name)
    assert after.boot_ids == before.boot_ids
    assert len(after.boot_ids) == 1
    assert after.holes == ()
    assert after.bad == 0
    assert after.checked > before.checked > 0
    assert after.ticks[-1].dirtied > before.ticks[-1].dirtied > 0
    assert "avx" not in after.flags
    assert "aes" in after.flags


def test_a_guest_of_the_richer_cpu_is_refused_by_name_and_stays(rig: Rig) -> None:
    name = create(rig, "h1", rig.domain_xml("too-rich", cpu="SandyBridge", disable=NOT_IN_TCG))
    before = rig.wait_for_tick(name)
    assert before.flags >= NOT_IN_WESTMERE
    for way in (["--p2p", rig.peer_uri("h2")], [rig.ssh_uri("h2")], [rig.uri("h2")]):
        refused = rig.virsh("h1", "migrate", name, "--live", *way, rig.migrate_uri("h2"), check=False)
        assert refused.returncode != 0
        _, _, missing = refused.stderr.partition("missing features: ")
        assert set(missing.strip().split(",")) == NOT_IN_WESTMERE, refused.stderr
    after = rig.wait_for_tick(name, rig.console(name).ticks[-1].number + 2)
    assert name in running(rig, "h1")
    assert name not in running(rig, "h2")
    assert (after.boot_ids, after.holes, after.bad) == (before.boot_ids, (), 0)
    rig.virsh("h1", "destroy", name)


def test_a_guest_outlives_its_libvirtd(rig: Rig) -> None:
    name = create(rig, "h2", rig.domain_xml("orphan"))
    before = rig.wait_for_tick(name)
    rig.kill_libvirtd("h2")
    assert rig.virsh("h2", "list", check=False).returncode != 0
    rig.start_libvirtd("h2")
    assert name in running(rig, "h2")
    after = rig.wait_for_tick(name, before.ticks[-1].number + 4)
    assert (after.boot_ids, after.holes) == (before.boot_ids, ())
    rig.virsh("h2", "destroy", name)


def test_a_client_of_this_machine_reaches_the_hosts_by_ssh(rig: Rig) -> None:
    for host in rig.cpus:
        by_ssh = subprocess.run(["virsh", "-q", "-c", rig.ssh_uri(host), "hostname"], capture_output=True, text=True)
        assert (by_ssh.stdout.strip(), by_ssh.stderr) == (host, "")


# ---- closed to everybody else


def parents() -> dict[int, int]:
    """The parent of every process of this machine."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                found[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def family(pid: int) -> set[int]:
    """A process and all below it."""
    members, parent_of = {pid}, parents()
    while new := {child for child, parent in parent_of.items() if parent in members} - members:
        members |= new
    return members


def keeper_of(network_pid: int) -> int:
    """The process that keeps a rig: above unshare, above the first process of the rig's network."""
    parent_of = parents()
    return parent_of[parent_of[network_pid]]


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Let this process be an unprivileged one as far as the kernel's checks go."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except PermissionError:
            return False
        return True


def test_an_unprivileged_user_connects_to_no_socket(rig: Rig) -> None:
    name = create(rig, "h1", rig.domain_xml("monitored"))
    sockets = [
        os.path.join(folder, file)
        for folder, _, files in os.walk(rig.dir)
        for file in files
        if stat.S_ISSOCK(os.stat(os.path.join(folder, file)).st_mode)
    ]
    by_name = {os.path.basename(path) for path in sockets}
    assert {"libvirt-sock", "libvirt-sock-ro", "libvirt-admin-sock", "monitor.sock"} <= by_name
    sockets += [f"/proc/{rig.pids[host]}/root/run/libvirt/libvirt-sock" for host in rig.cpus]
    libvirt_sockets = [path for path in sockets if path.endswith("libvirt-sock")]
    assert all(connects(path) for path in libvirt_sockets)
    with as_nobody():
        reached = [path for path in sockets if connects(path)]
    assert reached == []
    rig.virsh("h1", "destroy", name)


def test_an_unprivileged_user_gets_no_answer_by_any_uri(rig: Rig) -> None:
    name = pwd.getpwuid(NOBODY).pw_name
    for host in rig.cpus:
        for uri in (rig.uri(host), rig.ssh_uri(host), f"qemu+tcp://{rig.address(host)}/system"):
            asked = subprocess.run(
                ["timeout", "5", "virsh", "-c", uri, "list"],
                user=name,
                group=NOBODY,
                extra_groups=[],
                cwd="/",
                env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
                capture_output=True,
                text=True,
            )
            assert asked.returncode != 0, f"{uri} answered: {asked.stdout}"


def banner(address: str) -> bytes:
    """What the ssh port of an address says first, from this process's network."""
    try:
        with socket.create_connection((address, 22), timeout=1) as client:
            return client.recv(4)
    except OSError:
        return b""


def test_nothing_of_the_rig_is_in_the_network_of_this_machine(rig: Rig) -> None:
    ours = os.readlink("/proc/self/ns/net")
    keeper = keeper_of(rig.pids["network"])
    networks = {}
    for pid in family(keeper):
        with contextlib.suppress(FileNotFoundError):  # a short-lived one that has ended
            networks[pid] = os.readlink(f"/proc/{pid}/ns/net")
    # libvirtd, sshd and the first process of each host, and the network around them.
    assert len(networks) >= 1 + 3 * len(rig.cpus)
    assert [pid for pid, network in networks.items() if network == ours] == [keeper]
    assert not [fd for fd in Path(f"/proc/{keeper}/fd").iterdir() if os.readlink(fd).startswith("socket:")]
    addresses = subprocess.run(["ip", "-o", "address"], capture_output=True, text=True, check=True).stdout
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    for host in rig.cpus:
        subnet = rig.address(host).rpartition(".")[0] + "."
        assert subnet not in addresses + routes
        assert banner(rig.address(host)) != b"SSH-"
        inside = ["nsenter", f"--net=/proc/{rig.pids['network']}/ns/net", "ssh-keyscan", rig.address(host)]
        assert "ssh-ed25519" in subprocess.run(inside, capture_output=True, text=True).stdout


def test_libvirtd_listens_on_no_port(rig: Rig) -> None:
    for host in rig.cpus:
        listening = rig.run(host, "ss", "--no-header", "-lntup", check=True).stdout.splitlines()
        assert len(listening) == 1
        assert f"{rig.address(host)}:22" in listening[0]


# ---- nothing left behind

OWNER = """
import json, sys, time
from tests.rig import Rig

def report(rig):
    print(json.dumps({"dir": str(rig.dir), "network": rig.pids["network"]}), flush=True)

class Slow(Rig):
    def start_libvirtd(self, host):
        report(self)
        time.sleep(600)

how = sys.argv[1]
with (Slow if how == "starting" else Rig)({"h1": "Westmere", "h2": "Nehalem"}) as rig:
    (rig.dir / "guest.xml").write_text(rig.domain_xml("left"))
    rig.virsh("h1", "create", str(rig.dir / "guest.xml"))
    report(rig)
    if how == "error":
        raise ValueError("of the owner")
    if how != "return":
        time.sleep(600)
"""


def started(pid: int) -> str:
    """When a process started, which tells it from a later one of the same number; empty if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if state == "Z" else fields[18]


class Traces:
    """What there is of a running rig, to look for when it is gone."""

    def __init__(self, folder: str, network_pid: int) -> None:
        self.folder = folder
        self.keeper = keeper_of(network_pid)
        self.born = {pid: started(pid) for pid in family(self.keeper)}
        outside = {os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "pid")}
        self.namespaces = set(self._namespaces(self.born)) - outside

    @staticmethod
    def _namespaces(pids: "dict[int, str] | dict[int, int]") -> Iterator[str]:
        for pid in pids:
            for kind in ("net", "mnt", "pid"):
                with contextlib.suppress(OSError):
                    yield os.readlink(f"/proc/{pid}/ns/{kind}")

    def left(self, *expected: str) -> list[str]:
        """All that is still there, once everything but the expected had ten seconds to go."""
        deadline = time.monotonic() + 10
        while (left := self._look()) != [*expected] and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def _look(self) -> list[str]:
        left = [f"process {pid}" for pid, born in self.born.items() if born and started(pid) == born]
        left += [f"namespace {name}" for name in self.namespaces & set(self._namespaces(parents()))]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        left += [f"mount {line}" for line in mounts if self.folder in line]
        if os.path.exists(self.folder):
            left.append(f"folder {self.folder}")
        return left


@contextlib.contextmanager
def an_owner(how: str) -> Iterator[tuple["subprocess.Popen[str]", Traces]]:
    """Another process that owns a rig, once that stands."""
    command = [sys.executable, "-c", OWNER, how]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        try:
            assert owner.stdout is not None
            report = json.loads(owner.stdout.readline())
            yield owner, Traces(report["dir"], report["network"])
        finally:
            owner.kill()


@pytest.mark.usefixtures("rig")
@pytest.mark.parametrize(
    ("how", "signum", "status"),
    [
        ("return", None, 0),
        ("error", None, 1),
        ("signal", signal.SIGINT, -signal.SIGINT),
        ("signal", signal.SIGTERM, -signal.SIGTERM),
        ("signal", signal.SIGKILL, -signal.SIGKILL),
        ("starting", signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_nothing_is_left_however_the_owner_ends(how: str, signum: signal.Signals | None, status: int) -> None:
    with an_owner(how) as (owner, traces):
        if signum is not None:
            # libvirtd, sshd and the first process of two hosts, and what is around them.
            assert len(traces.born) >= (7 if how == "starting" else 12)
            assert len(traces.namespaces) == 9
            owner.send_signal(signum)
        assert owner.wait(20) == status
        assert traces.left() == []


@pytest.mark.usefixtures("rig")
def test_every_process_ends_when_the_keeper_itself_is_killed() -> None:
    with an_owner("signal") as (_, traces):
        os.kill(traces.keeper, signal.SIGKILL)
        # Nobody is left to remove the folder, and the owner's stop says so.
        folder = f"folder {traces.folder}"
        assert traces.left(folder) == [folder]
        shutil.rmtree(traces.folder)


def test_a_rig_can_be_started_again_and_beside_another(rig: Rig) -> None:
    second = Rig({"solo": "Westmere"})
    folders = []
    for _ in range(2):
        with second:
            assert second.virsh("solo", "hostname").stdout.strip() == "solo"
            folders.append(second.dir)
    assert len({rig.dir, *folders}) == 3
    assert not any(folder.exists() for folder in folders)
    with pytest.raises(RigError, match="not running"):
        second.uri("solo")
