"""Real libvirt hosts on one machine, each in namespaces of its own, for migrations that are not mocked."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Self, TypeVar
from urllib.parse import quote

from tests.rig import supplies
from tests.rig.console import Console, parse_console
from tests.rig.domain import domain_xml
from tests.rig.errors import RigError
from tests.rig.files import DAEMON_LOG, PROBES, write_run
from tests.rig.pretence import edit_probes, pretence_dir

_KEEPER = Path(__file__).with_name("keeper.py")
_TIMEOUT = 60.0
_DAEMON_PID = "run/libvirt/libvirtd.pid"
# At the end of a connection the virt-ssh-helper of libvirt 9.0 loses what it has not passed on yet: of refused
# peer-to-peer migrations every second came back as "End of file" in place of the reason. netcat loses nothing.
_PROXY = "proxy=netcat"
_Seen = TypeVar("_Seen")


class Rig:
    """Libvirt hosts under TCG, each pretending to have another CPU, that can migrate guests to each other.

    Nothing of it is in the machine's own network, and nothing of it survives the owner's process, however
    that ends. Its sockets lie in a folder that only root may enter.

    Parameters
    ----------
    cpus : mapping of str to str
        The CPU that each host pretends to have (a QEMU model name) by host name, such as
        ``{"h1": "SandyBridge", "h2": "Westmere"}``.

    Attributes
    ----------
    cpus : dict of str to str
        As given.
    dir : Path
        The run's folder, while it runs.
    pids : dict of str to int
        The first process of each host, and under ``network`` that of the network around them: a host loses
        its power when its own is killed.

    Raises
    ------
    RigUnavailable
        On start, where this machine lacks something; the message says what.
    RigError
        On start, where a host did not come up; with what its log says.

    Examples
    --------
    A guest moves from one host to the other::

        with Rig({"h1": "SandyBridge", "h2": "Westmere"}) as rig:
            source = libvirt.open(rig.uri("h1"))
            guest = source.createXML(rig.domain_xml("g1", cpu="Westmere"))
            rig.wait_for_tick("g1")
            flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
            guest.migrateToURI3(rig.peer_uri("h2"), {"migrate_uri": rig.migrate_uri("h2")}, flags)
            assert rig.console("g1").holes == ()
    """

    domain_xml = staticmethod(domain_xml)

    def __init__(self, cpus: Mapping[str, str]) -> None:
        for name in cpus:
            if not (name.isascii() and name.isalnum() and name[0].isalpha() and len(name) <= 10):
                raise RigError(f"host name {name!r}: at most ten letters and digits, a letter first")
        self.cpus = dict(cpus)
        self.dir = Path()
        self._addresses: dict[str, str] = {}
        self.pids: dict[str, int] = {}
        self._running: ExitStack | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Rig {self.cpus} {f'in {self.dir}' if self._running else 'not running'}>"

    # ---- life

    def start(self) -> None:
        """Start all hosts and return when their libvirtd answers."""
        if self._running:
            raise RigError("the rig is running already")
        supplies.require_machine()
        cache = supplies.cache_dir()
        pretences = {name: pretence_dir(cpu, cache) for name, cpu in self.cpus.items()}
        guest = supplies.guest_dir(cache)
        sshd = supplies.sshd(cache)
        with ExitStack() as started:
            complaints = started.enter_context(tempfile.TemporaryFile("w+"))
            keeper = self._start_keeper(complaints)
            started.callback(self._end_keeper, keeper, complaints)
            self._addresses = write_run(self.dir, pretences, guest, sshd)
            self._start_namespaces(keeper, complaints)
            self._running = started.pop_all()
        try:
            for name in self.cpus:
                self.start_libvirtd(name)
                # Where libvirtd had to probe QEMU anew, it saw the real CPU.
                if edit_probes(pretences[name], self.dir / name / PROBES):
                    self.kill_libvirtd(name, signal.SIGTERM)
                    self.start_libvirtd(name)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of the rig and remove its files; without effect where it does not run."""
        if self._running:
            running, self._running = self._running, None
            running.close()

    def start_libvirtd(self, host: str, *, environment: Mapping[str, str] | None = None, listen: bool = False) -> None:
        """Start a host's libvirtd, with more in its environment where wanted, and return when it answers.

        With ``listen`` it listens on what its settings name, which by themselves name nothing.
        """
        daemon = [supplies.program("libvirtd"), "-d", "-p", f"/{_DAEMON_PID}", *(("-l",) if listen else ())]
        variables = {"PATH": supplies.PATH, "HOME": "/run/root", "LC_ALL": "C", **(environment or {})}
        started = self.run(host, "env", "-i", *(f"{name}={value}" for name, value in variables.items()), *daemon)
        # The daemon detaches before its drivers are up, and asking for domain capabilities waits for QEMU's
        # probe too.
        answer = self.virsh(host, "domcapabilities", "--virttype", "qemu", check=False)
        if started.returncode != 0 or answer.returncode != 0:
            log = self.dir / host / DAEMON_LOG
            last = log.read_text(errors="replace").splitlines()[-10:] if log.exists() else []
            said = "\n".join([started.stderr, answer.stderr, *last])
            raise RigError(f"libvirtd of {host} does not serve:\n{said}")

    def kill_libvirtd(self, host: str, signum: signal.Signals = signal.SIGKILL) -> None:
        """Send a host's libvirtd a signal that ends it, and return when it is gone; its guests run on."""
        pid = (self.dir / host / _DAEMON_PID).read_text().strip()
        self.run(host, "sh", "-c", f"kill -{signum.value} {pid}", check=True)
        self._wait(
            lambda: self.run(host, "test", "-e", f"/proc/{pid}").returncode != 0,
            f"libvirtd of {host} did not end by {signum.name}",
            _TIMEOUT,
        )

    # ---- where things are

    def uri(self, host: str) -> str:
        """The host for a client on this machine, by its unix socket."""
        return f"qemu+unix:///system?socket={self._folder(host) / 'run/libvirt/libvirt-sock'}"

    def ssh_uri(self, host: str) -> str:
        """The host for a client on this machine, by an ssh that enters the rig's network first."""
        self._folder(host)
        return f"qemu+ssh://{host}/system?command={quote(str(self.dir / 'ssh'))}&{_PROXY}"

    def peer_uri(self, host: str) -> str:
        """The host for the libvirtd of another host, as peer-to-peer migration needs it."""
        self._folder(host)
        return f"qemu+ssh://{host}/system?{_PROXY}"

    def migrate_uri(self, host: str) -> str:
        """Where the QEMU of another host sends a guest's memory."""
        self._folder(host)
        return f"tcp://{host}"

    def address(self, host: str) -> str:
        """The host's address in the rig's own network."""
        self._folder(host)
        return self._addresses[host]

    @property
    def shared_dir(self) -> Path:
        """A folder that every host sees as ``/run/rig/shared``; the guests' console logs are in it."""
        return self.dir / "shared"

    # ---- use

    def run(
        self, host: str, *command: str, check: bool = False, timeout: float = _TIMEOUT
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on a host, as root."""
        self._folder(host)
        enter = ["nsenter", f"--target={self.pids[host]}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        # --root: where the rig itself runs in a chroot, the mount namespace has another root than the host.
        return self._call(host, [*enter, "--root", "--wd", *command], check=check, timeout=timeout)

    def virsh(
        self, host: str, *command: str, check: bool = True, timeout: float = _TIMEOUT
    ) -> "subprocess.CompletedProcess[str]":
        """Run virsh on this machine, connected to a host by its unix socket."""
        connected = ["virsh", "-q", "-c", self.uri(host)]
        return self._call(host, [*connected, *command], check=check, timeout=timeout)

    def console(self, name: str) -> Console:
        """What the guest of this name has said so far, on whichever host."""
        log = self.shared_dir / f"{name}.log"
        return parse_console(log.read_text(errors="replace") if log.exists() else "")

    def wait_for_tick(
        self, name: str, number: int = 0, *, boot: int | None = None, timeout: float = _TIMEOUT
    ) -> Console:
        """Wait until a guest has given the sign of life of that number, and return its console.

        Parameters
        ----------
        name : str
            Of the domain.
        number : int
            Of the tick, or any later one.
        boot : int, optional
            In which boot, counted from 0; by default in the newest.
        timeout : float
            After which it is an error [s].
        """

        def look() -> Console | None:
            console = self.console(name)
            if console.failure:
                raise RigError(f"guest {name} cannot go on: {console.failure}")
            boots = console.boot_ids[-1:] if boot is None else console.boot_ids[boot : boot + 1]
            ticks = [tick for one in boots for tick in console.ticks_of(one)]
            return console if any(tick.number >= number for tick in ticks) else None

        return self._wait(look, f"guest {name} gave no tick {number}", timeout)

    def clear(self) -> None:
        """Take every guest away, from every host."""
        for host in self.cpus:
            for name in self.virsh(host, "list", "--all", "--name").stdout.splitlines():
                if name:
                    self.virsh(host, "destroy", "--domain", name, check=False)
                    self.virsh(host, "undefine", "--snapshots-metadata", "--domain", name, check=False)

    # ---- how it is done

    def _folder(self, host: str) -> Path:
        if host not in self.cpus:
            raise RigError(f"the rig has no host {host!r}, only {', '.join(self.cpus)}")
        if not self._running:
            raise RigError("the rig is not running")
        return self.dir / host

    def _start_keeper(self, complaints: IO[str]) -> "subprocess.Popen[str]":
        keeper = subprocess.Popen(
            [sys.executable, "-IS", str(_KEEPER), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            start_new_session=True,
            cwd="/",
            env={"PATH": supplies.PATH, "LC_ALL": "C.UTF-8"},
        )
        assert keeper.stdout is not None
        with keeper.stdout:
            made = keeper.stdout.readline().strip()
        if not made:
            keeper.communicate()
            raise RigError(f"the rig's keeper did not start: {_read(complaints)}")
        self.dir = Path(made)
        return keeper

    def _end_keeper(self, keeper: "subprocess.Popen[str]", complaints: IO[str]) -> None:
        assert keeper.stdin is not None
        keeper.stdin.close()
        status = keeper.wait(_TIMEOUT)
        if status != 0:
            raise RigError(f"{self.dir} was not removed, its keeper ended with {status}: {_read(complaints)}")

    def _start_namespaces(self, keeper: "subprocess.Popen[str]", complaints: IO[str]) -> None:
        assert keeper.stdin is not None
        self.pids = {}
        with socket.socket(socket.AF_UNIX) as ready:
            ready.bind(str(self.dir / "ready"))
            ready.listen()
            ready.settimeout(_TIMEOUT)
            keeper.stdin.write("start\n")
            keeper.stdin.flush()
            while self.pids.keys() != {"network", *self.cpus}:
                try:
                    connection, _ = ready.accept()
                except TimeoutError:
                    raise RigError(f"the hosts did not come up: {_read(complaints)}") from None
                with connection, connection.makefile() as stream:
                    # The kernel gives the peer's PID as this process sees it.
                    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
                    report = json.load(stream)
                if report["error"]:
                    raise RigError(f"{report['name']} did not come up: {report['error']}")
                self.pids[report["name"]] = struct.unpack("3i", peer)[0]
        client = self.dir / "ssh"
        network = f"/proc/{self.pids['network']}/ns/net"
        client.write_text(f'#!/bin/sh\nexec nsenter --net={network} ssh -F {self.dir}/ssh_config "$@"\n')
        client.chmod(0o700)

    def _call(
        self, host: str, command: list[str], *, check: bool, timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        said = f"{host}: {' '.join(command)}"
        try:
            done = subprocess.run(
                [supplies.program(command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                env={**os.environ, "PATH": supplies.PATH, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            raise RigError(f"{said}: no end after {timeout:g} s") from None
        if check and done.returncode != 0:
            raise RigError(f"{said}: {done.stderr.strip()}")
        return done

    @staticmethod
    def _wait(look: Callable[[], _Seen | None], otherwise: str, timeout: float) -> _Seen:
        deadline = time.monotonic() + timeout
        while not (seen := look()):
            if time.monotonic() > deadline:
                raise RigError(f"{otherwise} within {timeout:g} s")
            time.sleep(0.05)
        return seen


def _read(complaints: IO[str]) -> str:
    complaints.seek(0)
    return complaints.read().strip()
