"""What a live host has of what guests lean on, and what its libvirt keeps about its guests; asked read-only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from lxml import etree

from vmcompat.errors import ConnectError
from vmcompat.fleet.cpu import parse_xml
from vmcompat.fleet.sources import natural
from vmcompat.migration.devices import Disk, Storage

if TYPE_CHECKING:
    from vmcompat.calls import ConnectionCalls, DomainCalls
    from vmcompat.connect import Host
    from vmcompat.migration.domain import Domain

T = TypeVar("T")

# In the words of virsh list, by libvirt's number.
_STATES: Final = ("no state", "running", "idle", "paused", "in shutdown", "shut off", "crashed", "pmsuspended")
_FOLDERS: Final = ("dir", "fs", "netfs", "vstorage")  # pools whose volumes are the files of their target folder
_SHARED: Final = ("netfs", "vstorage", "gluster", "rbd", "sheepdog", "iscsi", "iscsi-direct")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A storage pool: ``path`` is where it appears on the host, ``origin`` what it is made of, comparable by ``==``."""

    name: str
    type: str
    active: bool
    path: str = ""
    origin: tuple[str, ...] = ()

    @property
    def shared(self) -> bool:
        """Whether what it is made of lies elsewhere, so that other hosts may have the very same."""
        return self.type in _SHARED


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a host has, None where its libvirt does not tell.

    Attributes
    ----------
    networks : mapping of str to bool, or None
        Whether each is active.
    bridges : mapping of str to str
        By network the bridge that must be there, of networks for which libvirt makes none.
    interfaces : tuple of str, or None
        Names of network interfaces, bridges among them.
    addresses : tuple of str
        Those of its virtual networks, and of its interfaces where libvirt tells these.
    pools : tuple of Pool, or None
    volumes : mapping of str to str
        Of the images that were asked for (``str(Storage)``) those that a pool lists, and the name of the pool.
    secrets : tuple of str, or None
        UUIDs.
    silent : mapping of str to str
        Why a part is None.
    """

    networks: Mapping[str, bool] | None = None
    bridges: Mapping[str, str] = field(default_factory=dict)
    interfaces: tuple[str, ...] | None = None
    addresses: tuple[str, ...] = ()
    pools: tuple[Pool, ...] | None = None
    volumes: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] | None = None
    silent: Mapping[str, str] = field(default_factory=dict)

    def pool(self, name: str) -> Pool | None:
        """The pool of that name."""
        return next((p for p in self.pools or () if p.name == name), None)

    def holder(self, image: Storage) -> Pool | None:
        """The pool that lists an image, or one of shared storage in whose folder its path lies."""
        if (name := self.volumes.get(str(image))) is not None:
            return self.pool(name)
        around = [
            p for p in self.pools or ()
            if p.active and p.shared and p.type in _FOLDERS and image.path.startswith(f"{p.path.rstrip('/')}/")
        ]  # fmt: skip
        return max(around, key=lambda p: len(p.path), default=None)


def take_inventory(host: Host, domain: Domain) -> Inventory:
    """What a host has, and which images of a domain its pools list.

    Raises
    ------
    ConnectError
        The host does not answer any more. What its libvirt refuses or does not have is None.
    """
    silent: dict[str, str] = {}

    def ask(what: str, call: Callable[[ConnectionCalls], T]) -> T | None:
        try:
            return host.ask(what, call)
        except ConnectError as e:
            if e.code is None:  # no answer in time: the connection is of no use any more
                raise
            silent[what.removeprefix("its ")] = str(e.__cause__ or e)
            return None

    networks = ask("its networks", lambda c: [(n.name(), bool(n.isActive()), n.XMLDesc()) for n in c.listAllNetworks()])
    found = ask("its interfaces", lambda c: [(i.name(), i.XMLDesc()) for i in c.listAllInterfaces()])
    pools = ask("its storage pools", lambda c: [(bool(p.isActive()), p.XMLDesc()) for p in c.listAllStoragePools()])
    secrets = ask("its secrets", lambda c: [s.UUIDString() for s in c.listAllSecrets()])
    texts = [text for _, active, text in networks or () if active] + [text for _, text in found or ()]
    bridges = {name: b for name, _, xml in networks or () if (b := _bridge(xml, host))}
    wanted = {i.source for i in domain.devices.interfaces if i.type in ("bridge", "direct")} | set(bridges.values())
    interfaces = None if found is None else _interfaces(host, {name for name, _ in found}, wanted)
    return Inventory(
        networks=None if networks is None else {name: active for name, active, _ in sorted(networks)},
        bridges=dict(sorted(bridges.items())),
        interfaces=interfaces,
        addresses=tuple(sorted({a for text in texts for a in _addresses(text, host)})),
        pools=None if pools is None else tuple(sorted((_pool(x, on, host) for on, x in pools), key=lambda p: p.name)),
        volumes=dict(_volumes(host, domain)) if pools else {},
        secrets=None if secrets is None else tuple(sorted(secrets)),
        silent=silent,
    )


def _bridge(xml: str, host: Host) -> str:
    root = parse_xml(xml.encode(), source=host.uri)
    forward, bridge = root.find("forward"), root.find("bridge")
    return (
        bridge.get("name", "") if bridge is not None and forward is not None and forward.get("mode") == "bridge" else ""
    )


def _interfaces(host: Host, listed: set[str], wanted: set[str]) -> tuple[str, ...]:
    """The listed, and those of the wanted that only the list of devices has: some libvirts list configured ones."""
    if wanted := wanted - listed:
        flag = _constant("VIR_CONNECT_LIST_NODE_DEVICES_CAP_NET")
        try:
            devices = host.ask("its network devices", lambda c: [d.name() for d in c.listAllDevices(flag)])
        except ConnectError:
            devices = []
        for name in wanted:
            prefix = f"net_{re.sub('[^A-Za-z0-9]', '_', name)}_"
            listed = listed | {name} if any(d.startswith(prefix) for d in devices) else listed
    return tuple(sorted(listed))


def _constant(name: str) -> int:
    from vmcompat.connect import constant

    return int(constant(name))


def _addresses(xml: str, host: Host) -> Iterator[str]:
    root = parse_xml(xml.encode(), source=host.uri)
    if root.tag == "network":  # the bridge of the network on the host; its <host> and <dhcp> are guests
        yield from (e.get("address", "") for e in root.iterfind("ip[@address]"))
    else:
        yield from (e.get("address", "") for e in root.iterfind("protocol/ip[@address]"))


def _pool(xml: str, active: bool, host: Host) -> Pool:
    root = parse_xml(xml.encode(), source=host.uri)
    kind = root.get("type", "")
    return Pool(
        name=(root.findtext("name") or "").strip(),
        type=kind,
        active=active,
        path=(root.findtext("target/path") or "").strip(),
        origin=(kind, *_origin(root)),
    )


def _origin(root: etree._Element) -> Iterator[str]:
    for element in root.iterfind("source/*"):
        if element.tag not in ("auth", "format", "protocol"):
            named = "/".join(v for k in ("name", "path", "dir") if (v := element.get(k)))
            yield f"{element.tag!s} {named or (element.text or '').strip()}"


def images(disks: tuple[Disk, ...]) -> Iterator[Storage]:
    """Every image that disks are made of."""
    for disk in disks:
        yield from () if disk.source is None else (disk.source, *disk.backing)


def _volumes(host: Host, domain: Domain) -> Iterator[tuple[str, str]]:
    for image in dict.fromkeys(images(domain.devices.disks)):
        try:
            if image.type == "volume":
                pool, volume = image.pool, image.volume
                host.ask(
                    f"the volume {volume}",
                    lambda c, p=pool, v=volume: c.storagePoolLookupByName(p).storageVolLookupByName(v).name(),  # type: ignore[misc]
                )
                yield str(image), pool
            elif image.path:
                path = image.path
                yield (
                    str(image),
                    host.ask(
                        f"the volume {path}",
                        lambda c, p=path: c.storageVolLookupByPath(p).storagePoolLookupByVolume().name(),  # type: ignore[misc]
                    ),
                )
        except ConnectError as e:
            if e.code is None:
                raise


class Ties(NamedTuple):
    """What libvirt keeps about a guest beside its XML; None where it does not tell.

    Attributes
    ----------
    snapshots : tuple of str, or None
        Names.
    block_jobs : tuple of str, or None
        Targets of disks (``vda``) on which a block job is active.
    """

    snapshots: tuple[str, ...] | None = None
    block_jobs: tuple[str, ...] | None = None


def ties(host: Host, found: DomainCalls, live: Domain | None) -> Ties:
    """Snapshots, and active block jobs, of a domain (the handle of ``lookupByName``)."""

    def ask(what: str, call: Callable[[], T]) -> T | None:
        try:
            return host.ask(what, lambda _: call())
        except ConnectError as e:
            if e.code is None:
                raise
            return None

    snapshots = ask("its snapshots", lambda: tuple(sorted(s.getName() for s in found.listAllSnapshots())))
    targets = [d.target for d in live.devices.disks if d.source is not None] if live else []
    jobs = ask("its block jobs", lambda: tuple(t for t in targets if found.blockJobInfo(t)))
    return Ties(snapshots=snapshots, block_jobs=jobs)


class Guest(NamedTuple):
    """A domain as its host's libvirt tells it: ``live`` and ``stored`` are XML texts."""

    name: str
    state: str
    live: str | None
    stored: str | None
    handle: DomainCalls


def guests_of(host: Host) -> Iterator[Guest]:
    """Every domain of a host in natural order; one that is gone before it is asked about is left out."""
    gone, inactive = _constant("VIR_ERR_NO_DOMAIN"), _constant("VIR_DOMAIN_XML_INACTIVE")
    listed = host.ask("its domains", lambda c: [(d.name(), d) for d in c.listAllDomains()])
    for name, found in sorted(listed, key=lambda pair: natural(pair[0])):
        try:
            number, persistent = host.ask(
                f"the state of {name}",
                lambda c, d=found: (d.state()[0], d.isPersistent()),  # type: ignore[misc]
            )
            live = host.ask(f"the definition of {name}", lambda c, d=found: d.XMLDesc(0))  # type: ignore[misc]
            stored = (
                host.ask(f"the stored definition of {name}", lambda c, d=found: d.XMLDesc(inactive))  # type: ignore[misc]
                if persistent
                else None
            )
        except ConnectError as e:
            if e.code != gone:
                raise
            continue
        state = _STATES[number] if number < len(_STATES) else f"state {number}"
        yield Guest(name, state, live if re.match(r"<domain [^>]*\bid='", live) else None, stored, found)
