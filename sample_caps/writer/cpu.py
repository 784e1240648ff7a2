"""How libvirt describes a set of features: which model, which features beside it, in which order."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from sample_caps.writer import facts
from sample_caps.writer.facts import Host, Processor
from sample_caps.writer.models import Model, map_order, models
from sample_caps.writer.tables import Version, toml, version

View = Literal["host", "guest"]


@dataclass(frozen=True)
class Description:
    """A CPU in libvirt's words; ``features`` are (name, policy) in the order of the map."""

    model: str
    vendor: str
    features: tuple[tuple[str, str], ...]


def describe(
    features: Collection[str],
    *,
    processor: Processor,
    libvirt: Version,
    view: View,
    allowed: Collection[str] | None = None,
) -> Description:
    """The model that this libvirt picks for the features, and what it lists beside it.

    A host's model must not have a feature that the host lacks; a guest's may, and lists it as disabled.
    """
    known = map_order(libvirt)
    present = {name for name in known if name in features}
    best: tuple[Model, tuple[int, int]] | None = None
    # From the newest: of two that fit equally well libvirt keeps the later one of its map.
    for model in reversed(list(models(libvirt >= (11,)).values())):
        if model.libvirt > libvirt or not model.decode[view == "guest"]:
            continue
        if model.vendor not in ("", processor.vendor) or (allowed is not None and model.name not in allowed):
            continue
        extra, missing = present - model.features, model.features - present
        if view == "host" and missing:
            continue
        score = (len(extra), 0) if view == "host" else _guest_score(model, extra, missing, present)
        if best is not None and model.matches(processor.signature) != best[0].matches(processor.signature):
            better = model.matches(processor.signature)
        else:
            better = best is None or score < best[1]
        if better:
            best = model, score
    assert best is not None, f"no model fits {processor.name}"
    model = best[0]
    listed = [(name, "require") for name in known if name in present - model.features]
    if view == "guest":
        listed += [(name, "disable") for name in known if name in model.features - present]
        listed += [(name, "disable") for name in model.removed if name not in present]
    return Description(model.name, processor.vendor, tuple(listed))


def _guest_score(model: Model, extra: set[str], missing: Collection[str], present: set[str]) -> tuple[int, int]:
    """The weight that libvirt gives a guest model: half of what must be disabled counts ever more heavily."""
    disabled = len(missing) + len(set(model.removed) - present - set(missing))
    half = (disabled + 1) // 2
    penalty = half * (half + 3) // 2
    return len(extra) + disabled // 2 + penalty, penalty


def host_features(host: Host) -> frozenset[str]:
    """What ``virsh capabilities`` is made from: the host view."""
    return facts.processor(host.row["cpu"]).features


def guest_features(host: Host) -> frozenset[str]:
    """What KVM and QEMU on this host can give a guest: the hypervisor view."""
    if not host.has_kvm:
        return facts.processor("tcg").features
    table = toml("features.toml")
    kvm, since = table["kvm"], table["since"]
    processor = facts.processor(host.row["cpu"])
    given = set(processor.features) - set(kvm["hidden"].split())
    given.update(kvm["all"].split(), kvm.get(processor.vendor, "").split())
    for control in ("spec-ctrl", "stibp", "ssbd", "amd-ssbd", "amd-stibp"):
        if control in processor.features:
            given.update(kvm[control].split())
    if not host.nested:
        given = {name for name in given if name not in ("vmx", "svm") and not name.startswith("vmx-")}
    for running, what in ((host.qemu, "qemu"), (host.kernel, "kernel")):
        for first, names in since[what].items():
            if version(first) > running:
                given.difference_update(names.split())
    return frozenset(given)


def custom_models(host: Host) -> tuple[Model, ...]:
    """The models of ``<mode name='custom'>``: known to this QEMU and to this libvirt, in its order."""
    both = [
        model
        for model in models(host.libvirt >= (11,)).values()
        if model.libvirt <= host.libvirt and model.qemu is not None and model.qemu[0] <= host.qemu[:2] <= model.qemu[1]
    ]
    return tuple(sorted(both, key=lambda model: model.name, reverse=host.libvirt < (11,)))


def blockers(model: Model, given: Collection[str]) -> tuple[str, ...]:
    """What QEMU would have to leave out of the model here; it never asks for mpx in models that lost it."""
    not_asked = set(toml("features.toml")["qemu"]["not_asked"].split()) | set(model.removed)
    if "mpx" in models(True)[model.name].removed:
        not_asked.add("mpx")
    return tuple(sorted(name for name in model.features - not_asked - set(given) if not name.startswith("vmx-")))


def host_description(host: Host) -> Description | None:
    """The CPU of ``virsh capabilities``, or ``None`` where libvirt does not recognise it."""
    processor = facts.processor(host.row["cpu"])
    if processor.signature is None:
        return None
    return describe(host_features(host), processor=processor, libvirt=host.libvirt, view="host")


def guest_description(host: Host) -> Description | None:
    """The host-model CPU of ``virsh domcapabilities``, or ``None`` where there is none."""
    processor = facts.processor(host.row["cpu"] if host.has_kvm else "tcg")
    if host.has_kvm and processor.signature is None:
        return None
    return describe(
        guest_features(host),
        processor=processor,
        libvirt=host.libvirt,
        view="guest",
        allowed={model.name for model in custom_models(host)},
    )
