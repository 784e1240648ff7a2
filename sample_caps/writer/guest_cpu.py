"""``<cpu>`` of a domain: as it is stored, and as it is while the guest runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from sample_caps.writer import facts
from sample_caps.writer.cpu import guest_description, guest_features
from sample_caps.writer.facts import Host
from sample_caps.writer.markup import Element, el
from sample_caps.writer.models import map_order, model_features, model_vendor
from sample_caps.writer.tables import rows, toml

KIB_PER_GIB = 1024 * 1024


@dataclass(frozen=True)
class Guest:
    """A row of ``domains.csv`` and the host it runs on."""

    name: str
    row: dict[str, str]

    @property
    def host(self) -> Host:
        """Where it runs, or ran last."""
        return facts.hosts()[self.row["host"]]

    @property
    def runs(self) -> bool:
        """Paused counts: there is a live XML."""
        return self.row["state"] != "shut off"

    @property
    def vcpus(self) -> int:
        """All of them online."""
        return int(self.row["vcpus"])

    @property
    def memory_kib(self) -> int:
        """The guest's memory."""
        return int(self.row["memory_gib"]) * KIB_PER_GIB

    @cached_property
    def extras(self) -> frozenset[str]:
        """What ties it to a host, one word each; see README."""
        return frozenset(self.row["extras"].split())


def guests() -> tuple[Guest, ...]:
    """The guests in the order of the table."""
    return tuple(Guest(row["domain"], row) for row in rows("domains.csv"))


def stored_cpu(guest: Guest) -> Element:
    """The CPU of the definition, as ``virsh dumpxml --inactive`` prints it."""
    mode, *words = (guest.row["stored_cpu"] or guest.row["cpu"]).split()
    inside = _inside(guest)
    if mode in ("host-passthrough", "maximum"):
        migratable = "on" if guest.host.libvirt >= (6, 6) and guest.host.arch == "x86_64" else None
        return el("cpu", *inside, mode=mode, check="none", migratable=migratable)
    check = "partial" if guest.host.has_kvm else "none"
    if mode == "host-model":
        return el("cpu", *inside, mode=mode, check=check)
    fallback = "allow" if guest.row["manager"] in ("ovirt", "cloudstack") else "forbid"
    asked = [el("feature", policy="require", name=word[1:]) for word in words[1:]]
    model = el("model", words[0], fallback=fallback)
    return el("cpu", model, *_ordered(inside, asked), mode="custom", match="exact", check=check)


def live_cpu(guest: Guest) -> Element:
    """The CPU of the running guest, as ``virsh dumpxml`` prints it: custom, with all that QEMU switched on."""
    mode, *words = guest.row["cpu"].split()
    host = guest.host
    if mode in ("host-passthrough", "maximum"):
        return stored_cpu(guest)
    if host.arch != "x86_64":
        check = "none" if host.arch == "ppc64le" else "full"
        return el("cpu", el("model", words[0], fallback="forbid"), mode="custom", match="exact", check=check)
    inside = _inside(guest)
    if mode == "host-model":
        described = guest_description(host)
        assert described is not None
        model, vendor = described.model, described.vendor
        listed = [(name, policy) for name, policy in described.features if name != "invtsc"]
        if host.libvirt >= (9, 3) and "addressbits" not in guest.extras:
            limit = facts.processor(host.row["cpu"]).physical_bits
            inside = [*inside, el("maxphysaddr", mode="passthrough", limit=limit)]
    else:
        model, vendor = words[0], model_vendor(words[0])
        listed = _switched(guest, words)
    features = [el("feature", policy=policy, name=name) for name, policy in listed]
    named = el("vendor", vendor) if vendor else None
    return el(
        "cpu",
        el("model", model, fallback="forbid"),
        named if mode == "host-model" else None,
        *_ordered(inside, features),
        mode="custom",
        match="exact",
        check="full",
    )


def live_features(guest: Guest) -> frozenset[str]:
    """Every feature that the running custom CPU of an x86 guest has."""
    cpu = live_cpu(guest)
    model = next(child.text for child in cpu.children if child.tag == "model")
    assert model is not None
    listed = [child.attributes for child in cpu.children if child.tag == "feature"]
    required = {entry["name"] for entry in listed if entry["policy"] == "require"}
    disabled = {entry["name"] for entry in listed if entry["policy"] == "disable"}
    return (model_features(model, guest.host.libvirt) | required) - disabled


def _switched(guest: Guest, words: list[str]) -> list[tuple[str, str]]:
    """What QEMU adds to, and leaves out of, the model that was asked for."""
    table = toml("guests.toml")["live" if guest.host.has_kvm else "tcg"]
    changes = [*table[words[0]].split(), *(word[1:] for word in words[1:])]
    on = {name for name in changes if not name.startswith("-")} - model_features(words[0], guest.host.libvirt)
    off = {name[1:] for name in changes if name.startswith("-")}
    if "svm" not in guest_features(guest.host) and "svm" in model_features(words[0], guest.host.libvirt):
        off.add("svm")
    order = map_order(guest.host.libvirt)
    return [(name, "require" if name in on else "disable") for name in order if name in on or name in off]


def _inside(guest: Guest) -> list[Element]:
    """Topology, address bits and guest NUMA: what a baseline leaves alone."""
    inside = []
    if guest.vcpus >= 8 and guest.host.arch == "x86_64":
        libvirt = guest.host.libvirt
        inside.append(
            el(
                "topology",
                sockets=1,
                dies=1 if libvirt >= (6, 1) else None,
                clusters=1 if libvirt >= (10, 1) else None,
                cores=guest.vcpus,
                threads=1,
            )
        )
    if "addressbits" in guest.extras:
        passed = guest.row["cpu"] == "host-passthrough"
        bits = {} if passed else {"bits": 46}
        inside.append(el("maxphysaddr", mode="passthrough" if passed else "emulate", **bits))
    if "numa" in guest.extras:
        inside.append(_guest_numa(guest))
    return inside


def cells_used(guest: Guest) -> int:
    """NUMA cells of the host that the guest is spread over."""
    cells = 4 if guest.host.row["cpu"] == "haswell-ex" else 2
    return cells if guest.memory_kib > 100 * KIB_PER_GIB else 1


def _guest_numa(guest: Guest) -> Element:
    cells = cells_used(guest)
    each = guest.vcpus // cells
    return el(
        "numa",
        *(
            el(
                "cell",
                id=cell,
                cpus=f"{cell * each}-{(cell + 1) * each - 1}",
                memory=guest.memory_kib // cells,
                unit="KiB",
            )
            for cell in range(cells)
        ),
    )


def _ordered(inside: Iterable[Element], features: Iterable[Element]) -> list[Element]:
    """The features stand between the address bits and guest NUMA."""
    inside = list(inside)
    before = [item for item in inside if item.tag != "numa"]
    return [*before, *features, *(item for item in inside if item.tag == "numa")]
