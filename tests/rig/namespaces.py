"""The first process of each of the rig's namespaces: of the network around the hosts, and of every host.

The outer one holds a network with nothing but the rig's bridge, and the PID namespace whose end is the end of
all. A host is a network, UTS, mount, IPC and PID namespace inside it, with /etc, /run, /var, /dev, /sys and /tmp
of its own. Each tells the owner that it stands, by a socket whose peer credentials give its PID as the owner
sees it.

It runs with no path but the standard library's. All modules are imported before mounts hide files.
"""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

_BRIDGE = "br0"
_DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
_UNSHARE = ("unshare", "-n", "-u", "-m", "-i", "-p", "--fork", "--mount-proc", "--kill-child=KILL")


def _run(*command: str, fd: int | None = None) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=() if fd is None else (fd,),
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _report(to_owner: socket.socket, name: str, error: str = "") -> None:
    to_owner.sendall(json.dumps({"name": name, "error": error}).encode())
    to_owner.close()


def _connect(folder: Path) -> socket.socket:
    to_owner = socket.socket(socket.AF_UNIX)
    to_owner.connect(str(folder / "ready"))
    return to_owner


def _network(folder: Path, settings: dict[str, Any]) -> None:
    to_owner = _connect(folder)
    network = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", _BRIDGE, "type", "bridge")
        _run("ip", "address", "add", settings["bridge"], "dev", _BRIDGE)
        _run("ip", "link", "set", _BRIDGE, "up")
        for name in settings["hosts"]:
            host = [sys.executable, "-IS", __file__, "host", str(folder), name, str(network)]
            subprocess.Popen([*_UNSHARE, *host], stdin=subprocess.DEVNULL, pass_fds=(network,))
    except (OSError, RuntimeError) as e:
        _report(to_owner, "network", str(e))
        return
    _report(to_owner, "network")
    sys.stdin.buffer.read()  # until the keeper closes it: then this process ends, and all others with it


def _join_network(name: str, address: str, network: int) -> None:
    outside = ["nsenter", f"--net=/proc/self/fd/{network}", "ip", "link"]
    # "netns 1" is this process: PIDs are those of the caller's namespace.
    _run(*outside, "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", "1", fd=network)
    _run(*outside, "set", f"v-{name}", "master", _BRIDGE, "up", fd=network)
    os.close(network)
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", address, "dev", "eth0")
    _run("ip", "link", "set", "eth0", "up")


def _make_devices() -> None:
    # Without /dev/kvm: one that opens but does not work makes libvirt probe QEMU over and over.
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/dev")
    os.umask(0)
    for name, minor in _DEVICES.items():
        os.mknod(f"/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    os.mknod("/dev/tty", 0o666 | stat.S_IFCHR, os.makedev(5, 0))
    for line in Path("/proc/misc").read_text().splitlines():
        minor_number, misc_name = line.split()
        if misc_name == "userfaultfd":  # of post-copy migration
            os.mknod("/dev/userfaultfd", 0o600 | stat.S_IFCHR, os.makedev(10, int(minor_number)))
    os.umask(0o022)
    for name, target in {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}.items():
        os.symlink(target, f"/dev/{name}")
    os.mkdir("/dev/pts")
    _run("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=666", "devpts", "/dev/pts")
    os.symlink("pts/ptmx", "/dev/ptmx")
    os.mkdir("/dev/shm")
    _run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm")


def _make_file_system(root: Path, mounts: dict[str, str]) -> None:
    """Cover the machine's folders by those prepared in ``root``, and by ``mounts`` (target by source)."""
    # sysfs anew, with no cgroup mounts below it: libvirt then does without cgroups.
    while os.path.ismount("/sys"):
        _run("umount", "--recursive", "--lazy", "/sys")
    _run("mount", "-t", "sysfs", "sysfs", "/sys")
    # What lies below the machine's /run or /var is mounted first, while it can still be seen.
    for source, target in mounts.items():
        _run("mount", "--bind", source, f"{root}{target}" if target.startswith("/run/") else target)
    for name in ("etc", "run", "var"):
        _run("mount", "--rbind", str(root / name), f"/{name}")
    _run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/tmp")
    _make_devices()


def _host(folder: Path, settings: dict[str, Any], name: str, network: int) -> None:
    to_owner = _connect(folder)
    host = settings["hosts"][name]
    try:
        socket.sethostname(name)
        _make_file_system(folder / name, host["mounts"])
        _join_network(name, host["address"], network)
        _run(*host["sshd"])  # after its address exists, which it listens on
    except (OSError, RuntimeError) as e:
        _report(to_owner, name, str(e))
        return
    # From here on the kernel reaps what daemons leave behind. Not before: children would inherit it.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _report(to_owner, name)
    while True:
        signal.pause()


def main(role: str, folder: Path, *host: str) -> None:
    """Be the first process of the network around the hosts or of one host."""
    settings = json.loads((folder / "settings.json").read_text())
    if role == "network":
        _network(folder, settings)
    else:
        name, network = host
        _host(folder, settings, name, int(network))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
