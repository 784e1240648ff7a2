"""Can the guest travel as was asked, and who may listen? Checks of :mod:`vmcompat.migration.preflight`."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from vmcompat.fleet.expand import version
from vmcompat.migration.fit import Verdict
from vmcompat.migration.observe import Observation

_PEER_TRANSPORTS: Final = "what goes over it is readable, and where it asks for no password whoever reaches it is root"
_MT_GONE: Final = "9.1.0"  # QEMU, which had called it deprecated since 8.2
_POST_COPY_PARALLEL: Final = "10.1.0"  # QEMU, the first that does both in one migration


def peer(seen: Observation) -> Verdict:
    """Whether the two hosts, or this client for them, can hand the guest over."""
    if seen.peer_uri is None and not seen.transfer.managed:
        return Verdict(
            "block", f"cannot tell how the libvirt of {seen.source.name} reaches the one of {seen.target.name}: "
            f"{seen.target.uri} is an address for this client only",
            f"give peer_uri=, as one types it on {seen.source.name}: "
            f"{shlex.quote(f'qemu+ssh://{seen.target.name}/system')}; or let this client hand it over: "
            "transfer=Transfer(managed=True)",
        )  # fmt: skip
    caller = "this client calls both" if seen.transfer.managed else f"{seen.source.name} calls {seen.peer_uri}"
    if seen.transfer.offline:
        return Verdict("ok", f"{caller}; no memory travels")
    if not seen.migrate_uri and seen.target.name.startswith("localhost"):
        return Verdict("unknown", f"{caller}, which calls itself {seen.target.name}: no name at which QEMU finds it; "
            "libvirt refuses, unless migration_host in qemu.conf there says another",
            "give migrate_uri='tcp://' and a name of it, or give that host a name",
        )  # fmt: skip
    offered, scheme = seen.target.capabilities.facts.get("transports"), _scheme(seen)
    if not isinstance(offered, tuple) or not offered:
        return Verdict("unknown", f"{seen.target.name} does not say how guests may come", "look at virsh capabilities")
    if scheme not in offered and scheme != "unix":  # libvirt takes sockets since 6.8, and never says so
        return Verdict(
            "block",
            f"{seen.target.name} takes guests by {', '.join(offered)}, not by {scheme}",
            "choose migrate_uri= so",
        )
    if scheme == "rdma" and seen.moved is not None and not seen.moved.hard_limit:
        return Verdict("block", "by rdma libvirt moves no guest without a limit of its memory, all of which it locks",
            "virsh memtune --hard-limit, some GiB above the guest's memory; or migrate_uri='tcp://...'",
        )  # fmt: skip
    return Verdict("ok", f"{caller}; the guest travels by {scheme}")


def transfer(seen: Observation) -> Verdict | None:
    """Whether both hosts have what the options of the transfer need."""
    options = seen.transfer
    if conflicts := list(options.conflicts()):
        return Verdict("block", "; ".join(conflicts), "take one of them out of transfer=")
    lacking, silent, needed = [], [], list(options.needs())
    for end in (seen.source, seen.target):
        for option, _, libvirt, qemu in needed:
            for what, has, since in (("libvirt", end.libvirt, libvirt), ("QEMU", end.qemu, qemu)):
                if not since:
                    continue
                if has is None:
                    silent.append(f"{end.name} does not tell the version of its {what}, {option} needs {since}")
                elif version(has) < version(since):
                    lacking.append(f"the {what} {has} of {end.name} is too old for {option}, which came with {since}")
        lacking += [f"the QEMU {end.qemu} of {end.name} {why}" for why in _beyond(seen, end.qemu)]
    if lacking:
        return Verdict("block", "; ".join(dict.fromkeys(lacking)), "take it out of transfer=, or upgrade")
    if silent:
        return Verdict("unknown", "; ".join(dict.fromkeys(silent)), "ask there: virsh version")
    if options.post_copy:
        return Verdict("warn", "it may end in post-copy: if a host or the link fails then, the guest is lost")
    if options.tls:
        return Verdict("warn", "whether both hosts have certificates for QEMU's TLS, libvirt says at the start only")
    if options.unsafe:
        return Verdict("warn", "unsafe=True: libvirt does not look whether the caches of its disks may lose writes")
    if not needed:
        return None
    return Verdict("ok", f"both hosts have {', '.join(option for option, *_ in needed)}")


def _beyond(seen: Observation, qemu: str | None) -> Iterator[str]:
    """What a QEMU does not do, although it is new enough for each option."""
    if qemu is None:
        return
    options = seen.transfer
    if options.compression == "mt" and version(qemu) >= version(_MT_GONE):
        yield f"has no compression='mt' any more, since {_MT_GONE}"
    if options.post_copy and options.parallel and version(qemu) < version(_POST_COPY_PARALLEL):
        yield f"has post_copy or parallel, and both together since {_POST_COPY_PARALLEL}"


def transport(seen: Observation) -> Verdict:
    """Who else can read what goes over the network, or even answer in place of a host."""
    told = []
    for uri in dict.fromkeys([seen.source.uri, seen.target.uri, *([seen.peer_uri] if seen.peer_uri else [])]):
        # without a host libvirt's client calls its own
        if (at := urlsplit(uri)).scheme.partition("+")[2] == "tcp" and at.hostname and not _loopback(uri):
            told.append(f"{uri}: {_PEER_TRANSPORTS}")
    remedies = ["qemu+ssh:// or qemu+tls://"] if told else []
    readable = _scheme(seen) != "unix" and not _loopback(seen.migrate_uri)
    if readable and not seen.transfer.offline and not seen.transfer.tls:
        told.append(
            f"the guest's memory goes from {seen.source.name} to {seen.target.name} unencrypted: whoever is on that "
            "network can read it, passwords and keys included"
        )
        remedies.append("transfer=Transfer(tls=True), or a network of their own: migrate_uri=")
    if told:
        return Verdict("warn", "; ".join(told), "; ".join(remedies))
    return Verdict("ok", "nothing crosses a network unencrypted")


def _scheme(seen: Observation) -> str:
    return seen.migrate_uri.partition(":")[0] or "tcp"


def _loopback(uri: str) -> bool:
    """Whether an address is of this very machine; an empty one is what the target calls itself."""
    try:
        host = urlsplit(uri).hostname or ""
    except ValueError:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
