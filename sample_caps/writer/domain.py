"""A domain, as ``virsh dumpxml`` prints it: live, or ``--inactive``."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from sample_caps.writer.capabilities import Numa
from sample_caps.writer.devices import devices
from sample_caps.writer.guest_cpu import Guest, cells_used, live_cpu, stored_cpu
from sample_caps.writer.markup import Element, el
from sample_caps.writer.tables import toml

# <sysinfo> by which other managers sign: manufacturer, product, version.
SIGNATURES = {
    "nova": ("OpenStack Foundation", "OpenStack Nova", "27.5.1"),
    "ovirt": ("oVirt", "oVirt Node", "9-1.el9"),
    "kubevirt": ("KubeVirt", "None", None),
    "cloudstack": ("Apache Software Foundation", "CloudStack KVM Hypervisor", None),
}
TRANSIENT = ("ovirt", "kubevirt")


def has_stored_definition(guest: Guest) -> bool:
    """Whether libvirt keeps a definition: the domains of oVirt and KubeVirt are transient."""
    return guest.row["manager"] not in TRANSIENT


def domain(guest: Guest, *, live: bool) -> Element:
    """The whole document; ``live`` adds what libvirt fills in at the start."""
    return el(
        "domain",
        el("name", guest.name),
        el("uuid", identity(guest)),
        _metadata(guest),
        el("memory", str(guest.memory_kib), unit="KiB"),
        el("currentMemory", str(guest.memory_kib), unit="KiB"),
        _memory_backing(guest),
        el(
            "vcpu",
            str(guest.vcpus),
            placement="static",
            cpuset=Numa(guest.host).cpuset(0) if "cpuset" in guest.extras else None,
        ),
        _cputune(guest),
        _numatune(guest),
        el("resource", el("partition", "/machine")) if live else None,
        _sysinfo(guest),
        _os(guest),
        _features(guest),
        live_cpu(guest) if live else stored_cpu(guest),
        _clock(guest),
        *(el(f"on_{event}", action) for event, action in _ACTIONS),
        el("pm", el("suspend-to-mem", enabled="no"), el("suspend-to-disk", enabled="no"))
        if guest.host.arch == "x86_64"
        else None,
        devices(guest, identity(guest), live=live),
        *(_labels(guest) if live else ()),
        type="kvm" if guest.host.has_kvm else "qemu",
        id=_number(guest) if live else None,
    )


_ACTIONS = (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy"))


def identity(guest: Guest) -> str:
    """The domain's UUID: made from its name, the same in every run."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{guest.name}.guest.example.net"))


def _number(guest: Guest) -> int:
    return 1 + uuid.uuid5(uuid.NAMESPACE_DNS, guest.name).int % 97


def _metadata(guest: Guest) -> Element:
    writers: dict[str, Callable[[Guest], Element]] = {
        "nova": _nova,
        "ovirt": _ovirt,
        "kubevirt": _kubevirt,
    }
    return el("metadata", writers.get(guest.row["manager"], _libosinfo)(guest).foreign)


def _libosinfo(guest: Guest) -> Element:
    system = "http://debian.org/debian/12"
    if guest.row["system"].startswith("windows"):
        system = "http://microsoft.com/win/2k22"
    space = {"xmlns:libosinfo": "http://libosinfo.org/xmlns/libvirt/domain/1.0"}
    return el("libosinfo:libosinfo", el("libosinfo:os", id=system), **space)


def _nova(guest: Guest) -> Element:
    def owner(what: str) -> str:
        return uuid.uuid5(uuid.NAMESPACE_DNS, f"{what}.openstack.example.net").hex

    image = str(uuid.uuid5(uuid.NAMESPACE_DNS, "debian-12.images.example.net"))
    flavor = el(
        "nova:flavor",
        el("nova:memory", str(guest.memory_kib // 1024)),
        el("nova:disk", "40"),
        el("nova:swap", "0"),
        el("nova:ephemeral", "0"),
        el("nova:vcpus", str(guest.vcpus)),
        name=f"m1.c{guest.vcpus}",
    )
    return el(
        "nova:instance",
        el("nova:package", version="27.5.1"),
        el("nova:name", f"shop-{guest.name[-2:]}"),
        el("nova:creationTime", f"2026-05-{4 + int(guest.name[-1]):02} 08:1{guest.name[-1]}:42"),
        flavor,
        el(
            "nova:owner",
            el("nova:user", "deploy", uuid=owner("user")),
            el("nova:project", "shop", uuid=owner("project")),
        ),
        el("nova:root", type="image", uuid=image),
        **{"xmlns:nova": "http://openstack.org/xmlns/libvirt/nova/1.1"},
    )


def _ovirt(guest: Guest) -> Element:
    return el(
        "ovirt-vm:vm",
        el("ovirt-vm:clusterVersion", "4.7"),
        el("ovirt-vm:destroy_on_reboot", "False", type="bool"),
        el("ovirt-vm:launchPaused", "false"),
        el("ovirt-vm:minGuaranteedMemoryMb", str(guest.memory_kib // 1024), type="int"),
        el("ovirt-vm:resumeBehavior", "auto_resume"),
        el("ovirt-vm:startTime", "1780000000.0", type="float"),
        **{"xmlns:ovirt-vm": "http://ovirt.org/vm/1.0"},
    )


def _kubevirt(guest: Guest) -> Element:
    period = el("graceperiod", el("deletionGracePeriodSeconds", "180"))
    return el("kubevirt", el("uid", identity(guest)), period, xmlns="http://kubevirt.io")


def _sysinfo(guest: Guest) -> Element | None:
    if guest.row["manager"] not in SIGNATURES:
        return None
    manufacturer, product, version = SIGNATURES[guest.row["manager"]]
    entries = {
        "manufacturer": manufacturer,
        "product": product,
        "version": version,
        "serial": identity(guest),
        "uuid": identity(guest),
        "family": "Virtual Machine" if guest.row["manager"] == "nova" else None,
    }
    shown = (el("entry", value, name=name) for name, value in entries.items() if value is not None)
    return el("sysinfo", el("system", *shown), type="smbios")


def _os(guest: Guest) -> Element:
    signed = guest.row["manager"] in SIGNATURES
    return el(
        "os",
        el("type", "hvm", arch=guest.host.arch, machine=guest.row["machine"]),
        el("boot", dev="hd"),
        el("smbios", mode="sysinfo") if signed else None,
    )


def _features(guest: Guest) -> Element | None:
    if guest.host.arch != "x86_64":
        return None
    table = toml("guests.toml")["hyperv"]
    hyperv = None
    if guest.row["system"] in table:
        lights = []
        for word in table[guest.row["system"]].split():
            name, _, setting = word.partition(":")
            more = dict([setting.split("=")]) if setting else {}
            lights.append(el(name, state="on", **more))
        mode = "custom" if guest.host.libvirt >= (7, 7) else None
        hyperv = el("hyperv", *lights, mode=mode)
    vmport = el("vmport", state="off")
    return el("features", el("acpi"), el("apic"), hyperv, vmport)


def _clock(guest: Guest) -> Element:
    windows = guest.row["system"].startswith("windows")
    fixed = "tsc" in guest.extras or "invtsc" in guest.extras
    timers = [
        el("timer", name="rtc", tickpolicy="catchup"),
        el("timer", name="pit", tickpolicy="delay"),
        el("timer", name="hpet", present="no"),
        el("timer", name="hypervclock", present="yes") if windows else None,
        el("timer", name="tsc", frequency=guest.host.tsc_hz) if fixed else None,
    ]
    if guest.host.arch != "x86_64":
        timers = []
    return el("clock", *timers, offset="localtime" if windows else "utc")


def _memory_backing(guest: Guest) -> Element | None:
    if "hugepages" not in guest.extras:
        return None
    return el("memoryBacking", el("hugepages", el("page", size=1048576, unit="KiB")))


def _cputune(guest: Guest) -> Element | None:
    if "pin" not in guest.extras:
        return None
    cores = [number for number, _, _ in Numa(guest.host).cpus(0)][2:]
    pins = [el("vcpupin", vcpu=vcpu, cpuset=cores[vcpu]) for vcpu in range(guest.vcpus)]
    return el("cputune", *pins, el("emulatorpin", cpuset="0-1"))


def _numatune(guest: Guest) -> Element | None:
    if "numa" not in guest.extras:
        return None
    cells = cells_used(guest)
    nodes = "0" if cells == 1 else f"0-{cells - 1}"
    apart = (el("memnode", cellid=cell, mode="strict", nodeset=cell) for cell in range(cells) if cells > 1)
    return el("numatune", el("memory", mode="strict", nodeset=nodes), *apart)


def _labels(guest: Guest) -> list[Element]:
    label = f"libvirt-{identity(guest)}"
    owner = el("seclabel", el("label", "+64055:+108"), el("imagelabel", "+64055:+108"),
               type="dynamic", model="dac", relabel="yes")  # fmt: skip
    if guest.host.arch != "x86_64":
        return [owner]
    confined = el("seclabel", el("label", label), el("imagelabel", label),
                  type="dynamic", model="apparmor", relabel="yes")  # fmt: skip
    return [confined, owner]
