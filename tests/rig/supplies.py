"""What the rig needs from outside: programs of the machine, a guest to boot, an sshd.

Nothing is installed. A kernel and, where the machine has no sshd of its own, that of Debian's package are
fetched with ``apt-get download``, which checks their signatures, and unpacked into a cache folder of the user.
"""

import hashlib
import lzma
import os
import platform
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from tests.rig.errors import RigError, RigUnavailable

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
EMULATOR = "qemu-system-x86_64"

_PACKAGE_OF = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "virsh": "libvirt-clients",
    "libvirtd": "libvirt-daemon",
    "nc": "netcat-openbsd",
    EMULATOR: "qemu-system-x86",
}
_INIT = Path(__file__).parent / "guest" / "init.c"
# A distribution's newest kernel is what its meta package depends on: Debian's name first, then Ubuntu's.
_XZ_MAGIC = b"\xfd7zXZ\x00"
_KERNEL_PACKAGES = ("linux-image-amd64", "linux-image-generic")


def program(name: str) -> str:
    """Where a program is, also for a root whose PATH lacks the sbin folders."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise RigUnavailable(f"{name} is not installed (Debian package {_PACKAGE_OF.get(name, name)})")
    return found


def require_machine() -> None:
    """Raise RigUnavailable, with the reason, where hosts cannot be started."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise RigUnavailable(f"needs Linux on x86_64, this is {platform.system()} on {platform.machine()}")
    if os.geteuid() != 0:
        raise RigUnavailable("needs root, to make namespaces and device nodes")
    for name in _PACKAGE_OF:
        program(name)
    namespaces = ["--net", "--uts", "--mount", "--ipc", "--pid", "--fork", "--mount-proc"]
    trial = subprocess.run(
        [program("unshare"), *namespaces, program("mount"), "-t", "sysfs", "sysfs", "/sys"],
        capture_output=True,
        text=True,
    )
    if trial.returncode != 0:
        raise RigUnavailable(f"namespaces cannot be made here: {trial.stderr.strip()}")


def cache_dir() -> Path:
    """The rig's folder in the user's cache; root runs what is in it, so nobody else may own it."""
    # Not $HOME: under sudo that can be the folder of another user.
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "vmcompat" / "rig"
    cache.mkdir(parents=True, exist_ok=True)
    for folder in (cache, cache.parent):
        status = folder.stat()
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
            raise RigError(f"{folder} must belong to uid {os.geteuid()} and be writable for nobody else")
    return cache


def publish(made: Path, final: Path) -> None:
    """Move a finished folder into the cache; another run may have been faster, with the same contents."""
    try:
        made.rename(final)
    except OSError:
        if not final.is_dir():
            raise


def guest_dir(cache: Path) -> Path:
    """The folder with the guest's ``vmlinux`` and ``initrd.gz``, made where it is not there yet."""
    kernel = cache / "vmlinux"
    if not kernel.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _fetch_kernel(Path(scratch)).replace(kernel)
    guest = cache / f"guest-{hashlib.sha256(_INIT.read_bytes()).hexdigest()[:12]}"
    if not guest.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch) / "guest"
            made.mkdir()
            _build_initrd(Path(scratch), made / "initrd.gz")
            os.link(kernel, made / "vmlinux")
            publish(made, guest)
    return guest


def sshd(cache: Path) -> list[str]:
    """The command that starts an sshd: the machine's own program, or Debian's unpacked in the cache."""
    installed = shutil.which("sshd", path=PATH)
    if installed:
        return [installed]
    unpacked = cache / "openssh-server"
    if not unpacked.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch) / "root"
            for package in ("openssh-server", "libwrap0"):
                _unpack(_download(package, Path(scratch)), made)
            publish(made, unpacked)
    libraries = unpacked / "usr/lib/x86_64-linux-gnu"
    return ["env", f"LD_LIBRARY_PATH={libraries}", str(unpacked / "usr/sbin/sshd")]


def _fetch_kernel(scratch: Path) -> Path:
    package = _kernel_package()
    root = scratch / "kernel"
    _unpack(_download(package, scratch), root)
    image = next((root / "boot").glob("vmlinuz-*"))
    packed = image.read_bytes()
    # Under emulation a bzImage spends seconds on unpacking itself, so hand QEMU the bare ELF (PVH boot).
    # Debian packs with xz; what another distribution packs otherwise boots too, only later.
    at = packed.find(_XZ_MAGIC)
    if at >= 0:
        image.write_bytes(lzma.LZMADecompressor().decompress(packed[at:]))
    return image


def _kernel_package() -> str:
    for meta in _KERNEL_PACKAGES:
        listed = _run("apt-cache", "depends", meta, purpose="find a kernel for the guest")
        for line in listed.splitlines():
            relation, _, package = line.strip().partition(": ")
            if relation == "Depends" and package.startswith("linux-image-"):
                return package
    known = " nor ".join(_KERNEL_PACKAGES)
    raise RigUnavailable(f"no kernel for the guest: apt-cache knows neither {known} (apt-get update?)")


def _download(package: str, folder: Path) -> Path:
    _run("apt-get", "download", package, purpose=f"fetch {package} for the rig", cwd=folder)
    return next(folder.glob(f"{package}_*.deb"))


def _unpack(package: Path, folder: Path) -> None:
    _run("dpkg-deb", "-x", str(package), str(folder), purpose=f"unpack {package.name}")


def _build_initrd(scratch: Path, initrd: Path) -> None:
    root = scratch / "root"
    for mount_point in ("dev", "proc"):
        (root / mount_point).mkdir(parents=True)
    compile_init = ["gcc", "-O2", "-static", "-Wall", "-Wextra", "-o", str(root / "init"), str(_INIT)]
    _run(*compile_init, purpose="build the guest's init (Debian packages gcc, libc6-dev)")
    pack = f"find . | cpio -o -H newc --quiet | gzip >'{initrd}'"
    _run("sh", "-e", "-c", pack, purpose="pack the guest's initrd (Debian package cpio)", cwd=root)


def _run(*command: str, purpose: str, cwd: Path | None = None) -> str:
    if shutil.which(command[0]) is None:
        raise RigUnavailable(f"cannot {purpose}: {command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "LC_ALL": "C"})
    if done.returncode != 0:
        raise RigUnavailable(f"cannot {purpose}: {command[0]} said: {done.stderr.strip()}")
    return done.stdout
