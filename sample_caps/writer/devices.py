"""``<devices>`` of a domain: a disk, a card, a console, and what libvirt adds by itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from sample_caps.writer.capabilities import EMULATORS
from sample_caps.writer.guest_cpu import Guest
from sample_caps.writer.markup import Element, el


class Addresses:
    """Gives each device its place: a root port on q35, a slot on i440fx and pseries, a channel on s390."""

    def __init__(self, guest: Guest) -> None:
        self.machine = guest.row["machine"]
        self.ccw = guest.host.arch == "s390x"
        self.ports = self.machine.startswith("pc-q35")
        self.used = 0

    def next(self) -> Element:
        """The address of the next virtio device."""
        self.used += 1
        if self.ccw:
            return el("address", type="ccw", cssid="0xfe", ssid="0x0", devno=f"0x{self.used - 1:04x}")
        if self.ports:
            return _pci(bus=self.used, slot=0)
        return _pci(bus=0, slot=2 + self.used)

    def controllers(self, live: bool) -> Iterator[Element]:
        """The buses that the addresses given so far are on."""
        if self.ccw:
            return
        if not self.ports:
            alias = _alias("pci.0", live)
            yield el("controller", alias, type="pci", index=0, model="pci-root")
            return
        yield el("controller", _alias("pcie.0", live), type="pci", index=0, model="pcie-root")
        for index in range(1, self.used + 1):
            function = (index - 1) % 8
            yield el(
                "controller",
                el("model", name="pcie-root-port"),
                el("target", chassis=index, port=f"0x{0x10 + index - 1:x}"),
                _alias(f"pci.{index}", live),
                _pci(bus=0, slot=2 + (index - 1) // 8, function=function, several=function == 0),
                type="pci",
                index=index,
                model="pcie-root-port",
            )


def _pci(*, bus: int, slot: int, function: int = 0, several: bool = False) -> Element:
    return el(
        "address",
        type="pci",
        domain="0x0000",
        bus=f"0x{bus:02x}",
        slot=f"0x{slot:02x}",
        function=f"0x{function:x}",
        multifunction="on" if several else None,
    )


def _alias(name: str, live: bool) -> Element | None:
    return el("alias", name=name) if live else None


def devices(guest: Guest, identity: str, *, live: bool) -> Element:
    """Every device of the guest; ``live`` adds aliases, open ports and the host's side of the network card."""
    places = Addresses(guest)
    arch = guest.host.arch
    disk, card = _disk(guest, places.next(), live), _interface(guest, places.next(), live)
    serial = el("controller", _alias("virtio-serial0", live), places.next(), type="virtio-serial", index=0)
    balloon = el("memballoon", _alias("balloon0", live), places.next(), model="virtio")
    source = el("backend", "/dev/urandom", model="random")
    rng = el("rng", source, _alias("rng0", live), places.next(), model="virtio")
    return el(
        "devices",
        el("emulator", f"/usr/bin/{EMULATORS[arch][0]}"),
        disk,
        *places.controllers(live),
        serial,
        card,
        *_console(guest, live),
        _agent(identity, guest, live),
        *_input(arch, live),
        *_screen(guest, live),
        el("audio", id=1, type="none") if guest.host.libvirt >= (7,) and arch == "x86_64" else None,
        _video(places, live) if arch == "x86_64" else None,
        balloon,
        rng,
    )


def _disk(guest: Guest, place: Element, live: bool) -> Element:
    pool = f"shared-{guest.host.row['site']}"
    return el(
        "disk",
        el("driver", name="qemu", type="raw", cache="none", io="native", discard="unmap"),
        el("source", dev=f"/dev/{pool}/{guest.name}", index=1 if live else None),
        el("backingStore") if live else None,
        el("target", dev="vda", bus="virtio"),
        _alias("virtio-disk0", live),
        place,
        type="block",
        device="disk",
    )


def _interface(guest: Guest, place: Element, live: bool) -> Element:
    tail = uuid.uuid5(uuid.NAMESPACE_DNS, guest.name).hex[:6]
    mac = f"52:54:00:{tail[:2]}:{tail[2:4]}:{tail[4:]}"
    return el(
        "interface",
        el("mac", address=mac),
        el("source", bridge="br0"),
        el("target", dev=f"vnet{int(tail, 16) % 60}") if live else None,
        el("model", type="virtio"),
        _alias("net0", live),
        place,
        type="bridge",
    )


def _console(guest: Guest, live: bool) -> Iterator[Element]:
    alias = _alias("serial0", live)
    path = el("source", path="/dev/pts/3") if live else None
    kinds = {
        "x86_64": ("isa-serial", "isa-serial", {"port": 0}),
        "ppc64le": ("spapr-vio-serial", "spapr-vty", {"port": 0}),
    }
    if guest.host.arch == "s390x":
        yield el("console", path, el("target", type="sclp", port=0), _alias("console0", live), type="pty")
        return
    target, model, port = kinds[guest.host.arch]
    place = el("address", type="spapr-vio", reg="0x30000000") if guest.host.arch == "ppc64le" else None
    yield el("serial", path, el("target", el("model", name=model), type=target, **port), alias, place, type="pty")
    tty = "/dev/pts/3" if live else None
    yield el("console", path, el("target", type="serial", port=0), alias, place, type="pty", tty=tty)


def _agent(identity: str, guest: Guest, live: bool) -> Element:
    socket = f"/run/libvirt/qemu/channel/domain-{guest.name[:20]}/org.qemu.guest_agent.0"
    return el(
        "channel",
        el("source", mode="bind", path=socket) if live else None,
        el(
            "target",
            type="virtio",
            name="org.qemu.guest_agent.0",
            state="connected" if live and guest.row["state"] == "running" else None,
        ),
        _alias("channel0", live),
        el("address", type="virtio-serial", controller=0, bus=0, port=1),
        type="unix",
    )


def _input(arch: str, live: bool) -> Iterator[Element]:
    if arch == "x86_64":
        yield el("input", _alias("input0", live), type="mouse", bus="ps2")
        yield el("input", _alias("input1", live), type="keyboard", bus="ps2")


def _screen(guest: Guest, live: bool) -> Iterator[Element]:
    if guest.host.arch != "x86_64":
        return
    port = 5900 + uuid.uuid5(uuid.NAMESPACE_DNS, guest.name).int % 60 if live else -1
    address = el("listen", type="address", address="127.0.0.1")
    yield el("graphics", address, type="vnc", port=port, autoport="yes", listen="127.0.0.1")


def _video(places: Addresses, live: bool) -> Element:
    model = el("model", type="vga", vram=16384, heads=1, primary="yes")
    place = _pci(bus=0, slot=1) if places.ports else _pci(bus=0, slot=2)
    return el("video", model, _alias("video0", live), place)
