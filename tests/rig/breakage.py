"""What goes wrong with real hosts, done to those of the rig on purpose; each function says how it is mended."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.rig.errors import RigError
from tests.rig.rig import Rig
from tests.rig.supplies import PATH, program

_MEMORY_CGROUPS = Path("/sys/fs/cgroup/memory")
# Where a libvirtd keeps its domains: definitions, running state, and what QEMU needs beside it.
_DOMAIN_FOLDERS = ("/etc/libvirt/qemu", "/run/libvirt/qemu", "/var/lib/libvirt/qemu")
_CLOCK = "run/rig/clock"
_DISK = "/run/rig/disk"
_BALLAST = f"{_DISK}/ballast"


# ---- processes


def emulators(rig: Rig, host: str, name: str) -> list[int]:
    """PIDs, as this process sees them, of the QEMUs that a host has for a guest."""
    home = os.readlink(f"/proc/{rig.pids[host]}/ns/pid")
    wanted = f"guest={name},".encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            command = Path(entry.path, "cmdline").read_bytes()
            if wanted in command and os.readlink(f"{entry.path}/ns/pid") == home:
                found.append(int(entry.name))
        except OSError:  # it has ended meanwhile
            continue
    return sorted(found)


def kill_emulators(rig: Rig, host: str, name: str) -> int:
    """Kill a guest's QEMUs on a host; how many there were."""
    pids = emulators(rig, host, name)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)


# ---- links


def cut_link(rig: Rig, host: str) -> None:
    """Pull a host's cable: the port of the rig's bridge that it hangs on goes down. Mended by :func:`mend_link`."""
    _port(rig, host, "down")


def mend_link(rig: Rig, host: str) -> None:
    """Plug a host's cable in again."""
    _port(rig, host, "up")


def _port(rig: Rig, host: str, state: str) -> None:
    network = f"--net=/proc/{rig.pids['network']}/ns/net"
    command = [program("nsenter"), network, program("ip"), "link", "set", f"v-{host}", state]
    subprocess.run(command, check=True, capture_output=True)


def slow_link(rig: Rig, host: str, mbit: int, *, latency: int = 100) -> None:
    """Let a host send no more than that [Mbit/s], with a queue of so long [ms]. Mended by :func:`free_link`."""
    shape = ("rate", f"{mbit}mbit", "burst", "32kb", "latency", f"{latency}ms")
    rig.run(host, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", *shape, check=True)


def free_link(rig: Rig, host: str) -> None:
    """Let a host send as fast as it can."""
    rig.run(host, "tc", "qdisc", "delete", "dev", "eth0", "root")


def why_no_lossy_links() -> str:
    """Why no link can lose packets here; empty where it can."""
    return "" if shutil.which("iptables", path=PATH) else "iptables is not installed (Debian package iptables)"


def lossy_link(rig: Rig, host: str, percent: float) -> None:
    """Let a host lose so much of what is sent to it [%]. Mended by :func:`sound_link`.

    By iptables: tc's netem, which delays too, is in no kernel of a small virtual machine.
    """
    chance = ("-m", "statistic", "--mode", "random", "--probability", f"{percent / 100:.4f}")
    rig.run(host, "iptables", "-A", "INPUT", "-i", "eth0", *chance, "-j", "DROP", check=True)


def sound_link(rig: Rig, host: str) -> None:
    """Let a host lose nothing any more."""
    rig.run(host, "iptables", "-F", "INPUT", check=True)


# ---- disks


def give_small_disk(rig: Rig, host: str, *, mib: int = 4) -> None:
    """Move what a libvirtd keeps of its domains to a file system of its own, which can be filled; before any guest."""
    rig.kill_libvirtd(host)
    rig.run(host, "mkdir", "-p", _DISK, check=True)
    rig.run(host, "mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=755", "tmpfs", _DISK, check=True)
    for number, folder in enumerate(_DOMAIN_FOLDERS):
        copy = f"{_DISK}/{number}"
        rig.run(host, "mkdir", "-p", folder, check=True)
        rig.run(host, "cp", "-a", folder, copy, check=True)
        rig.run(host, "mount", "--bind", copy, folder, check=True)
    rig.start_libvirtd(host)


def fill_disk(rig: Rig, host: str) -> None:
    """Fill the disk of :func:`give_small_disk` to the last byte. Mended by :func:`empty_disk`."""
    filled = rig.run(host, "dd", "if=/dev/zero", f"of={_BALLAST}", "bs=4k")
    if "No space left" not in filled.stderr:
        raise RigError(f"{host}: the disk was not filled: {filled.stderr}")


def empty_disk(rig: Rig, host: str) -> None:
    """Make room on a filled disk."""
    rig.run(host, "rm", "-f", _BALLAST, check=True)


# ---- memory


def why_no_memory_limits() -> str:
    """Why no host can be short of memory here; empty where it can."""
    if os.access(_MEMORY_CGROUPS / "memory.limit_in_bytes", os.R_OK) and os.access(_MEMORY_CGROUPS, os.W_OK):
        return ""
    return f"there is no memory cgroup (version 1) to write to at {_MEMORY_CGROUPS}"


class MemoryLimit:
    """Grants processes no more than so much memory from now on: the kernel kills the largest of them beyond it.

    Parameters
    ----------
    rig : Rig
    mib : int
        What they may take in addition to what they have [MiB].
    """

    def __init__(self, rig: Rig, mib: int) -> None:
        self._group = _MEMORY_CGROUPS / rig.dir.name
        self._group.mkdir()
        (self._group / "memory.limit_in_bytes").write_text(str(mib * 2**20))

    def hold(self, pid: int) -> None:
        """Put a process under it, and what it will start."""
        (self._group / "cgroup.procs").write_text(str(pid))

    def lift(self) -> None:
        """Let the processes go where they came from: to the group of this process."""
        home = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line)
        back = Path(f"{_MEMORY_CGROUPS}{home.rpartition(':')[2]}/cgroup.procs")
        for pid in (self._group / "cgroup.procs").read_text().split():
            try:
                back.write_text(pid)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + 5.0
        while True:
            try:
                self._group.rmdir()
                return
            except OSError:  # a killed process is still on its way out
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def daemon_pid(rig: Rig, host: str) -> int:
    """The PID of a host's libvirtd, as this process sees it."""
    home = os.readlink(f"/proc/{rig.pids[host]}/ns/pid")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() == "libvirtd" and os.readlink(process / "ns/pid") == home:
                return int(process.name)
        except OSError:
            continue
    raise RigError(f"{host} has no libvirtd")


# ---- clocks


def why_no_own_clocks() -> str:
    """Why no host can have a clock of its own here; empty where it can."""
    return "" if _faketime() else "libfaketime is not installed (Debian package libfaketime)"


def _faketime() -> Path | None:
    return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def give_own_clock(rig: Rig, host: str) -> None:
    """Start a host's libvirtd anew with a wall clock of its own, which :func:`step_clock` steps.

    Its guests' QEMUs and its monotonic clock go by the machine's. Mended by :func:`take_own_clock`.
    """
    library = _faketime()
    if library is None:
        raise RigError(why_no_own_clocks())
    step_clock(rig, host, 0)
    rig.kill_libvirtd(host)
    rig.start_libvirtd(
        host,
        environment={
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": f"/{_CLOCK}",
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        },
    )


def step_clock(rig: Rig, host: str, seconds: int) -> None:
    """Let a host's own clock be wrong by so much [s]."""
    clock = rig.dir / host / _CLOCK
    new = clock.with_suffix(".new")
    new.write_text(f"{seconds:+d}\n")
    new.replace(clock)


def take_own_clock(rig: Rig, host: str) -> None:
    """Start a host's libvirtd anew with the machine's clock."""
    rig.kill_libvirtd(host)
    rig.start_libvirtd(host)
