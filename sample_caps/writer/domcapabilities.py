"""The document of ``virsh domcapabilities``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sample_caps.writer import facts
from sample_caps.writer.capabilities import EMULATORS, default_machine, max_vcpus
from sample_caps.writer.cpu import blockers, custom_models, guest_description, guest_features
from sample_caps.writer.facts import Host
from sample_caps.writer.markup import Element, el, enum
from sample_caps.writer.tables import toml, version


def domcapabilities(host: Host) -> Element:
    """The whole document."""
    machine = default_machine(host)
    return el(
        "domainCapabilities",
        el("path", f"/usr/bin/{EMULATORS[host.arch][0]}"),
        el("domain", "kvm" if host.has_kvm else "qemu"),
        el("machine", machine),
        el("arch", host.arch),
        el("vcpu", max=max_vcpus(host, machine)),
        el("iothreads", supported="yes"),
        _os(host),
        _cpu(host),
        *_sections(host),
        _features(host),
    )


def _os(host: Host) -> Element:
    loaders = ["/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "/usr/share/OVMF/OVMF_CODE_4M.fd"]
    if host.libvirt < (8,):
        loaders = ["/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_CODE.secboot.fd"]
    x86 = host.arch == "x86_64"
    return el(
        "os",
        enum("firmware", "efi" if x86 else ""),
        el(
            "loader",
            *(el("value", path) for path in loaders if x86),
            enum("type", "rom pflash"),
            enum("readonly", "yes no"),
            enum("secure", "yes no" if x86 else "no"),
            supported="yes",
        ),
        supported="yes",
    )


def _cpu(host: Host) -> Element:
    migratable = enum("hostPassthroughMigratable", "on off" if host.arch == "x86_64" else "off")
    return el(
        "cpu",
        el(
            "mode",
            migratable if host.has_kvm and host.libvirt >= (6, 5) else None,
            name="host-passthrough",
            supported="yes" if host.has_kvm else "no",
        ),
        el("mode", enum("maximumMigratable", "on off"), name="maximum", supported="yes")
        if host.libvirt >= (7, 1)
        else None,
        _host_model(host),
        el("mode", *_custom(host), name="custom", supported="yes"),
    )


def _host_model(host: Host) -> Element:
    if host.arch == "ppc64le":
        return el("mode", el("model", "POWER9", fallback="allow"), name="host-model", supported="yes")
    if host.arch == "s390x":
        table = toml("devices.toml")["s390x"]
        return el(
            "mode",
            el("model", table["model"], fallback="forbid"),
            *(el("feature", policy="require", name=name) for name in table["features"].split()),
            name="host-model",
            supported="yes",
        )
    described = guest_description(host)
    if described is None:
        return el("mode", name="host-model", supported="no")
    bits = facts.processor(host.row["cpu"]).physical_bits
    limited = host.libvirt >= (9, 3) and host.has_kvm
    return el(
        "mode",
        el("model", described.model, fallback="forbid"),
        el("vendor", described.vendor),
        el("maxphysaddr", mode="passthrough", limit=bits) if limited else None,
        *(el("feature", policy=policy, name=name) for name, policy in described.features),
        name="host-model",
        supported="yes",
    )


def _custom(host: Host) -> list[Element]:
    if host.arch == "ppc64le":
        return [el("model", name, usable="unknown", vendor="IBM") for name in ("POWER10", "POWER9", "POWER8", "POWER7")]
    if host.arch == "s390x":
        table = toml("devices.toml")["s390x"]
        unusable = table["unusable"].split()
        return [
            el("model", name, usable="no" if name in unusable else "yes", vendor="unknown")
            for name in table["models"].split()
        ]
    given, models = guest_features(host), custom_models(host)
    canonical = {model.canonical_of: model.name for model in models if model.canonical_of}
    listed: list[Element] = []
    for model in models:
        blocking = blockers(model, given)
        old = (5, 2) <= host.qemu[:2] < (7, 1) and model.name.startswith("Icelake-Client")
        listed.append(
            el(
                "model",
                model.name,
                usable="no" if blocking else "yes",
                deprecated="yes" if old and host.libvirt >= (7, 1) else None,
                vendor=(model.vendor or "unknown") if host.libvirt >= (8, 9) else None,
                canonical=canonical.get(model.name),
            )
        )
        if blocking and host.libvirt >= (11,):
            listed.append(el("blockers", *(el("feature", name=name) for name in blocking), model=model.name))
    return listed


def _enums(table: Mapping[str, str], host: Host) -> list[Element]:
    names = [name for name in table if ":" not in name]
    return [enum(name, _values(table.get(f"{name}:{host.arch}", table[name]), host)) for name in names]


def _values(text: str, host: Host) -> str:
    """The values that this libvirt and this QEMU know, markers taken off."""
    known = []
    for value in text.split():
        name, _, since = value.partition("@")
        running, first = (host.qemu, since[4:]) if since.startswith("qemu") else (host.libvirt, since)
        if not first or version(first) <= running:
            known.append(name)
    return " ".join(known)


def _supported(name: str, table: Mapping[str, Any], host: Host) -> Element | None:
    if "since" in table and version(table["since"]) > host.libvirt:
        return None
    if table.get("no") == host.arch:
        return el(name, supported="no")
    return el(name, *_enums(table["enums"], host), supported="yes")


def _sections(host: Host) -> list[Element | None]:
    table = toml("devices.toml")
    devices = [_supported(name, device, host) for name, device in table["devices"].items()]
    return [_supported("memoryBacking", table["memoryBacking"], host), el("devices", *devices)]


def _features(host: Host) -> Element:
    x86, libvirt = host.arch == "x86_64", host.libvirt
    yes = "yes" if x86 else "no"
    sev = x86 and host.has_kvm and facts.processor(host.row["cpu"]).vendor == "AMD"
    return el(
        "features",
        el("gic", supported="no"),
        el("vmcoreinfo", supported=yes),
        el("genid", supported=yes),
        el("backingStoreInput", supported="yes"),
        el("backup", supported="yes" if host.qemu >= (5, 2) else "no") if libvirt >= (6, 6) else None,
        el("async-teardown", supported="yes" if host.qemu >= (8,) else "no") if libvirt >= (9, 6) else None,
        el("s390-pv", supported="no") if host.arch == "s390x" or libvirt >= (11,) else None,
        el("ps2", supported=yes) if libvirt >= (10, 7) else None,
        _sev(host) if sev else el("sev", supported="no"),
        _sgx(host) if libvirt >= (8, 10) else None,
        _hyperv(host) if libvirt >= (9, 2) else None,
        _launch_security(sev) if libvirt >= (10, 5) else None,
    )


def _sev(host: Host) -> Element:
    """AMD's memory encryption; the number of guests is in the newer documents only."""
    zen = toml("devices.toml")["sev"][host.row["cpu"]]
    counted = host.libvirt >= (7, 8)
    return el(
        "sev",
        el("cbitpos", str(zen["cbitpos"])),
        el("reducedPhysBits", str(zen["reduced_bits"])),
        el("maxGuests", str(zen["guests"])) if counted else None,
        el("maxESGuests", str(zen["encrypted_state_guests"])) if counted else None,
        supported="yes",
    )


def _sgx(host: Host) -> Element:
    if host.arch != "x86_64" or not host.has_kvm or "sgx" not in facts.processor(host.row["cpu"]).features:
        return el("sgx", supported="no")
    size = 65_536 * 1024 // host.sockets
    return el(
        "sgx",
        el("flc", "yes"),
        el("sgx1", "yes"),
        el("sgx2", "no"),
        el("section_size", str(size * host.sockets), unit="KiB"),
        el("sections", *(el("section", node=node, size=size, unit="KiB") for node in range(host.sockets))),
        supported="yes",
    )


def _hyperv(host: Host) -> Element:
    table = toml("devices.toml")["hyperv"]
    names = table["features"].split()
    if facts.processor(host.row["cpu"]).vendor != "Intel" or not host.nested:
        names = [name for name in names if name not in table["intel_only"].split()]
    return el("hyperv", enum("features", " ".join(names)), supported="yes")


def _launch_security(sev: bool) -> Element:
    return (
        el("launchSecurity", enum("sectype", "sev"), supported="yes") if sev else el("launchSecurity", supported="no")
    )
