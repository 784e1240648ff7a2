"""Certificates for hosts of the rig, and what listens with them; each function says how it is undone.

By themselves no host has any, and none listens. All keys are in the run's folder and go with it.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rig.rig import Rig
from tests.rig.supplies import PATH, program

_DAEMON_SETTINGS = "etc/libvirt/libvirtd.conf"
_CLOSED, _OPEN = "listen_tls = 0\n", 'listen_tls = 1\nlisten_addr = "{address}"\n'
# A host is server and client with one certificate. Both libvirt and QEMU refuse one that may not be used so.
_CONFIG = """\
[req]
prompt = no
distinguished_name = name
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[host]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = {names}
"""
# What a certificate, its key and that of the authority are called by those who look for them.
_PLACES = {
    "ca.pem": ("etc/pki/CA/cacert.pem", "etc/pki/qemu/ca-cert.pem"),
    "cert.pem": (
        *("etc/pki/libvirt/servercert.pem", "etc/pki/libvirt/clientcert.pem"),
        *("etc/pki/qemu/server-cert.pem", "etc/pki/qemu/client-cert.pem"),
    ),
    "key.pem": (
        *("etc/pki/libvirt/private/serverkey.pem", "etc/pki/libvirt/private/clientkey.pem"),
        *("etc/pki/qemu/server-key.pem", "etc/pki/qemu/client-key.pem"),
    ),
}
_CLIENTS = {"ca.pem": "cacert.pem", "cert.pem": "clientcert.pem", "key.pem": "clientkey.pem"}


def why_no_certificates() -> str:
    """Why none can be made here; empty where they can."""
    return "" if shutil.which("openssl", path=PATH) else "openssl is not installed (Debian package openssl)"


def make_authority(rig: Rig, name: str) -> Path:
    """The folder of a new certificate authority, in which its certificates are made."""
    folder = rig.dir / f"authority-{name}"
    folder.mkdir()
    _make(folder, "authority", name, "ca.pem", "ca-key.pem")
    return folder


def give_certificates(rig: Rig, host: str, authority: Path, *, name: str | None = None) -> None:
    """Give a host a certificate, for itself or for ``name``, and start its libvirtd anew, which listens by TLS.

    It listens on the host's own address, inside the rig's network, and takes who has a certificate of the same
    authority. The host's QEMUs find their certificate too. Undone by :func:`take_certificates`; may be repeated.
    """
    names = f"DNS:{name}" if name else f"DNS:{host}, IP:{rig.address(host)}"
    root = rig.dir / host
    _make(authority, "host", name or host, "cert.pem", "key.pem", names=names)
    for made, places in _PLACES.items():
        for place in places:
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(authority / made, root / place)
    _listen(rig, host, listen=True)


def take_certificates(rig: Rig, host: str) -> None:
    """Take what a host was given away again, and start its libvirtd anew, which listens no more."""
    shutil.rmtree(rig.dir / host / "etc/pki", ignore_errors=True)
    _listen(rig, host, listen=False)


def client_pki(rig: Rig, authority: Path) -> Path:
    """A folder for libvirt's parameter ``pkipath``: the certificate of a client that is no host."""
    folder = rig.dir / f"client-of-{authority.name}"
    folder.mkdir()
    _make(authority, "host", "client", "cert.pem", "key.pem", names="DNS:client")
    for made, place in _CLIENTS.items():
        shutil.copy2(authority / made, folder / place)
    return folder


@contextmanager
def inside_network(rig: Rig) -> Iterator[None]:
    """Let this thread, and those and the processes that it starts, be in the rig's network beside the hosts."""
    with open("/proc/thread-self/ns/net") as home, open(f"/proc/{rig.pids['network']}/ns/net") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(network: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns is there since Python 3.12 only
    if libc.setns(network, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _listen(rig: Rig, host: str, *, listen: bool) -> None:
    settings, opened = rig.dir / host / _DAEMON_SETTINGS, _OPEN.format(address=rig.address(host))
    text = settings.read_text().replace(opened, _CLOSED)
    settings.write_text(text.replace(_CLOSED, opened) if listen else text)
    rig.kill_libvirtd(host)
    rig.start_libvirtd(host, listen=listen)


def _make(folder: Path, kind: str, name: str, certificate: str, key: str, *, names: str = "DNS:unused") -> None:
    """A key and a certificate, signed by the folder's authority or, where it is that of the authority, by itself."""
    (folder / "config").write_text(_CONFIG.format(name=name, names=names))
    signer = [] if kind == "authority" else ["-CA", "ca.pem", "-CAkey", "ca-key.pem"]
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    request = [program("openssl"), "req", "-x509", "-config", "config", "-extensions", kind, *new, *signer]
    command = [*request, "-out", certificate, "-keyout", key]
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True)
