"""How a guest travels: the options of a migration, what they need, and their flags and parameters in libvirt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from vmcompat.errors import MigrationError

Compression: TypeAlias = Literal["", "xbzrle", "mt", "zlib", "zstd"]
CopyDisks: TypeAlias = Literal["", "all", "incremental"]

COMPRESSIONS: Final = ("", "xbzrle", "mt", "zlib", "zstd")
_WITH_PARALLEL: Final = ("zlib", "zstd")  # methods of QEMU's multifd channels, and of nothing else
_MOST_CONNECTIONS: Final = 255  # QEMU's own limit
_MOST_BANDWIDTH: Final = 2**43 // 2**20  # what libvirt takes for QEMU [MiB/s]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How a guest travels. What is left out is as the policy says, else as libvirt does by default.

    Attributes
    ----------
    managed : bool
        This client talks to both hosts and hands the guest over: for hosts whose libvirts cannot reach each other. By
        default the source's libvirt calls the target's (peer to peer), which goes on without the client.
    offline : bool
        Move the definition of a guest that is off; its disks stay where they are.
    tls : bool
        Encrypt what QEMU sends. Both hosts need certificates for QEMU's migration.
    compression : {"", "xbzrle", "mt", "zlib", "zstd"}
        Compress what QEMU sends; ``zlib`` and ``zstd`` only with ``parallel``, the others only without.
    parallel : int, optional
        Number of connections that QEMU sends over; 0 is one without the parallel protocol.
    bandwidth : int, optional
        Most that QEMU sends [MiB/s]; 0 is as much as it can.
    auto_converge : bool, optional
        Slow the guest's CPUs down where it rewrites memory faster than it is sent.
    post_copy : bool
        Consent to finish by post-copy: the guest runs on at the target before all of its memory is there, and is lost
        if a host or the link between them fails until then.
    hold : bool, optional
        Let it arrive paused, and let it run once the source has let go of it. libvirt lets it run at the target before
        the source knows: if the link fails in that moment, the source lets its own run again, and there are two, unless
        a lock manager (virtlockd, sanlock) guards the disks. Held, it never runs twice. It stands still for as long as
        the source takes to end its QEMU, 0.2 s, and more for hundreds of GiB; and where the target cannot let it run
        after all (a disk that somebody locks), it waits there instead of going on at the source. By default it is held,
        but in post-copy, in which it has to run at the target first. Should this client die, a second process lets it
        run (:mod:`vmcompat.migration.standby`); if that is gone too, it stays paused until somebody resumes it.
    copy_disks : {"", "all", "incremental"}
        Copy the disks too, for hosts without shared storage; "incremental" copies what is not in their backing files,
        which the target has. The target needs images of the same names and sizes.
    unsafe : bool
        Consent to what libvirt refuses as unsafe (its error 81): a disk whose cache mode may lose writes on storage
        that libvirt does not know to be shared.
    """

    managed: bool = False
    offline: bool = False
    tls: bool = False
    compression: Compression = ""
    parallel: int | None = None
    bandwidth: int | None = None
    auto_converge: bool | None = None
    post_copy: bool = False
    hold: bool | None = None
    copy_disks: CopyDisks = ""
    unsafe: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("compression", self.compression, COMPRESSIONS),
            ("copy_disks", self.copy_disks, ("", "all", "incremental")),
        ):
            if value not in known:
                raise MigrationError(f"{name}={value!r}: choose one of {', '.join(map(repr, known))}")
        for name, number, most in (
            ("parallel", self.parallel, _MOST_CONNECTIONS),
            ("bandwidth", self.bandwidth, _MOST_BANDWIDTH),
        ):
            if number is not None and not 0 <= number <= most:
                raise MigrationError(f"{name}={number}: from 0 to {most}")

    def for_guest(self, state: str) -> Transfer:
        """With ``hold`` settled for a guest in that state: one that does not run has nothing to be let do."""
        if self.hold is not None:
            return self
        return replace(self, hold=state == "running" and not self.offline and not self.post_copy)

    def conflicts(self) -> Iterator[str]:
        """Options that QEMU or libvirt take on no version together, in words."""
        if self.offline:
            live = {
                "tls": self.tls, "compression": self.compression, "parallel": self.parallel,
                "bandwidth": self.bandwidth, "auto_converge": self.auto_converge, "post_copy": self.post_copy,
                "hold": self.hold,
            }  # fmt: skip
            if given := [name for name, value in live.items() if value]:
                yield f"offline=True sends no memory, to which {', '.join(given)} would apply"
            if self.copy_disks:
                yield "offline=True and copy_disks: libvirt copies disks of running guests only"
        if self.compression in _WITH_PARALLEL and not self.parallel:
            yield f"compression={self.compression!r} needs parallel="
        if self.compression and self.compression not in _WITH_PARALLEL and self.parallel:
            yield f"compression={self.compression!r} and parallel={self.parallel}: QEMU has either"
        if self.hold and self.post_copy:
            yield "hold=True and post_copy=True: in post-copy it has to run at the target"
        if self.compression == "mt" and self.post_copy:
            yield "compression='mt' and post_copy=True: QEMU has either"

    def needs(self) -> Iterator[tuple[str, str, str, str]]:
        """What the hosts must have: option, flag of libvirt, and the versions of libvirt and QEMU that brought it."""
        for option, given in self._given().items():
            if given:
                yield (option, *_SINCE[option])

    def _given(self) -> dict[str, bool]:
        return {
            "offline": self.offline,
            "tls": self.tls,
            "compression": self.compression in ("xbzrle", "mt"),
            "compression of connections": self.compression in _WITH_PARALLEL,
            "parallel": bool(self.parallel),
            "auto_converge": bool(self.auto_converge),
            "post_copy": self.post_copy,
            "hold": bool(self.hold),
            "copy_disks": self.copy_disks == "all",
            "copy_disks='incremental'": self.copy_disks == "incremental",
            "unsafe": self.unsafe,
        }

    def flags(self, *, persistent: bool) -> int:
        """Of ``virDomainMigrateToURI3`` and ``virDomainMigrate3``; ``persistent``: its definition moves too.

        Raises
        ------
        ConnectError
            The libvirt-python here does not know one of them.
        """
        from vmcompat.connect import constant

        names = [flag for _, flag, _, _ in self.needs()]
        names += [] if self.offline else ["VIR_MIGRATE_LIVE"]
        names += [] if self.managed else ["VIR_MIGRATE_PEER2PEER"]
        names += ["VIR_MIGRATE_PERSIST_DEST", "VIR_MIGRATE_UNDEFINE_SOURCE"] if persistent else []
        flags = 0
        for name in names:
            flags |= int(constant(name))
        return flags

    def parameters(self) -> dict[str, Any]:
        """Of the same calls, by libvirt's names."""
        from vmcompat.connect import constant

        given: dict[str, Any] = {
            "VIR_MIGRATE_PARAM_BANDWIDTH": self.bandwidth,
            "VIR_MIGRATE_PARAM_COMPRESSION": self.compression,
            "VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS": self.parallel,
        }
        return {constant(name): value for name, value in given.items() if value}


PLAIN: Final = Transfer()
"""Live, peer to peer, and nothing special."""

_SINCE: Final = {
    "offline": ("VIR_MIGRATE_OFFLINE", "1.0.1", ""),
    "tls": ("VIR_MIGRATE_TLS", "3.2.0", "2.7.0"),
    "compression": ("VIR_MIGRATE_COMPRESSED", "1.3.4", "2.4.0"),
    "compression of connections": ("VIR_MIGRATE_COMPRESSED", "9.4.0", "5.0.0"),
    "parallel": ("VIR_MIGRATE_PARALLEL", "5.2.0", "4.0.0"),
    "auto_converge": ("VIR_MIGRATE_AUTO_CONVERGE", "1.2.3", "1.6.0"),
    "post_copy": ("VIR_MIGRATE_POSTCOPY", "1.3.3", "2.6.0"),
    "hold": ("VIR_MIGRATE_PAUSED", "0.7.3", ""),
    "copy_disks": ("VIR_MIGRATE_NON_SHARED_DISK", "0.8.2", ""),
    "copy_disks='incremental'": ("VIR_MIGRATE_NON_SHARED_INC", "0.8.2", ""),
    "unsafe": ("VIR_MIGRATE_UNSAFE", "0.9.11", ""),
}
"""Flag, and since which libvirt and QEMU; by libvirt's own release notes and QEMU's change logs."""
