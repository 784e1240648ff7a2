"""Everything that is written into a run's folder before its namespaces start.

A host has nothing of the machine's own ``/etc``, so no name service and no ssh setting of the machine's can
change what the rig does.
"""

import json
import os
import secrets
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.rig import emulator, supplies
from tests.rig.domain import GUEST_DIR, SHARED_DIR
from tests.rig.pretence import restore_probes

# In a host's folder, as in the host itself.
PROBES = "var/cache/libvirt/qemu/capabilities"
DAEMON_LOG = "var/log/libvirt/libvirtd.log"


def write_run(folder: Path, pretences: Mapping[str, Path], guest: Path, sshd: Sequence[str]) -> dict[str, str]:
    """Write the keys, the settings of all namespaces and the folders of all hosts.

    Parameters
    ----------
    folder : Path
        Of the run.
    pretences : mapping of str to Path
        The folder of the pretended CPU by host.
    guest : Path
        The folder with the guest's kernel and initrd.
    sshd : sequence of str
        The command that starts an sshd.

    Returns
    -------
    dict of str to str
        The address of each host.
    """
    # A subnet of the range that is set aside for test networks (RFC 2544), another one in every run.
    subnet = f"198.{secrets.choice((18, 19))}.{secrets.randbelow(256)}"
    addresses = {name: f"{subnet}.{number}" for number, name in enumerate(pretences, 11)}
    shared = folder / "shared"
    shared.mkdir()
    _write_keys(folder)
    names = "".join(f"Host {host}\n  HostName {address}\n" for host, address in addresses.items())
    (folder / "ssh_config").write_text(names + _SSH.format(folder=folder))
    qemu = os.path.realpath(supplies.program(supplies.EMULATOR))
    hosts = {}
    for name, pretence in pretences.items():
        _write_host(folder / name, name, addresses, folder)
        restore_probes(pretence, folder / name / PROBES)
        mounts = {
            str(guest): GUEST_DIR,
            str(shared): SHARED_DIR,
            str(pretence): os.path.dirname(emulator.PRETENCE),
            qemu: emulator.REAL,
            str(pretence / "emulator"): qemu,
        }
        daemon = [*sshd, "-f", "/etc/ssh/sshd_config", "-E", "/var/log/libvirt/sshd.log"]
        hosts[name] = {"address": f"{addresses[name]}/24", "mounts": mounts, "sshd": daemon}
    (folder / "settings.json").write_text(json.dumps({"bridge": f"{subnet}.1/24", "hosts": hosts}))
    return addresses


def _write_keys(folder: Path) -> None:
    for key in ("client_key", "host_key"):
        generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vmcompat-rig", "-f", key]
        subprocess.run(generate, cwd=folder, check=True, stdin=subprocess.DEVNULL)
    (folder / "known_hosts").write_text(f"* {(folder / 'host_key.pub').read_text()}")


def _write_host(root: Path, name: str, addresses: Mapping[str, str], keys: Path) -> None:
    """Write a host's whole /etc, and the folders that it expects in /run and /var."""
    hosts = "".join(f"{address} {host}\n" for host, address in addresses.items())
    texts = {
        "passwd": _PASSWD,
        "shadow": _SHADOW,
        "group": _GROUP,
        "hosts": f"127.0.0.1 localhost\n{hosts}",
        "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
        "libvirt/libvirt.conf": "",
        "libvirt/libvirtd.conf": _LIBVIRTD.format(uuid=uuid.uuid4()) + _KEEPALIVE,
        "libvirt/qemu.conf": _QEMU.format(address=addresses[name]) + _KEEPALIVE,
        "ssh/sshd_config": _SSHD.format(address=addresses[name]),
        "ssh/ssh_config": _SSH.format(folder="/etc/ssh"),
    }
    for folder in ("etc/libvirt", "etc/ssh", *_FOLDERS):
        (root / folder).mkdir(parents=True)
    for path, text in texts.items():
        (root / "etc" / path).write_text(text)
    (root / "etc/shadow").chmod(0o600)
    for key in ("client_key", "host_key", "known_hosts"):
        shutil.copy2(keys / key, root / "etc/ssh")
    shutil.copy2(keys / "client_key.pub", root / "etc/ssh/authorized_keys")
    # No settings: these say where the machine's libraries and programs are.
    shutil.copy2("/etc/ld.so.cache", root / "etc")
    if os.path.isdir("/etc/alternatives"):
        shutil.copytree("/etc/alternatives", root / "etc/alternatives", symlinks=True)
    # QEMU looks for its modules and firmware from where its own file is: ../lib and ../share.
    (root / emulator.REAL.lstrip("/")).touch()
    for folder in ("lib", "share"):
        (root / "run/rig" / folder).symlink_to(f"/usr/{folder}")
    (root / "var/run").symlink_to("/run")


_FOLDERS = (
    *("run/libvirt", "run/lock", "run/root", "run/sshd"),
    *("run/rig/bin", "run/rig/guest", "run/rig/shared", "run/rig/pretence"),
    *("var/lib/libvirt", "var/cache/libvirt", "var/log/libvirt", "var/tmp"),
)

# libvirtd looks up the user and groups that it was built to run QEMU as, whatever qemu.conf says.
_PASSWD = """\
root:x:0:0:root:/run/root:/bin/sh
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
libvirt-qemu:x:102:102::/nonexistent:/usr/sbin/nologin
nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin
"""
_GROUP = """\
root:x:0:
tty:x:5:
libvirt-qemu:x:102:
kvm:x:103:
nogroup:x:65534:
"""

# No password, but not locked either: sshd refuses even keys to a locked account.
_SHADOW = "root:*:1::::::\nsshd:!:1::::::\n"

# listen_tcp: unauthenticated TCP would make whoever reaches the port root of that host. The tcp://h2 of a
# migration is QEMU's own channel and needs none.
_LIBVIRTD = """\
host_uuid = "{uuid}"
listen_tls = 0
listen_tcp = 0
unix_sock_group = "root"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
unix_sock_admin_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_level = 3
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""

# A host is a set of namespaces already: no further user, label, device namespace or cgroup for its guests.
_QEMU = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
migration_host = "{address}"
migration_address = "{address}"
"""

# Of libvirtd and of peer-to-peer migration [s, times]: a peer that is gone is noticed within three seconds.
_KEEPALIVE = "keepalive_interval = 1\nkeepalive_count = 3\n"

_SSHD = """\
ListenAddress {address}
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PidFile /run/sshd.pid
UsePAM no
UseDNS no
AllowUsers root
PermitRootLogin prohibit-password
AuthenticationMethods publickey
AllowTcpForwarding no
MaxStartups 100:30:200
"""

# GlobalKnownHostsFile, and no file of the user's: the keys live as long as the run.
_SSH = """\
Host *
  User root
  IdentityFile {folder}/client_key
  IdentitiesOnly yes
  IdentityAgent none
  GlobalKnownHostsFile {folder}/known_hosts
  UserKnownHostsFile none
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 5
  ServerAliveInterval 2
  ServerAliveCountMax 3
"""
