"""Classes of mitigation, and for each what hosts have, what their guests are offered, and what running guests have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from vmcompat.baseline.meanings import CONTROLS_OF, MEANINGS, NEEDLESS
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import Reading

AS_ITS_HOST: Final = ("host-passthrough", "maximum")  # modes that give a guest what its host has
STATES: Final = ("has", "needless", "lacks", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mitigation:
    """One way to attack a CPU, and the switches that a guest's kernel uses against it.

    Attributes
    ----------
    name : str
        As kernels and the press call it.
    controls : mapping of str to tuple of str
        By vendor: one of them is enough. Vendors whose hosts have none are not open to it, or need no switch.
    """

    name: str
    controls: Mapping[str, tuple[str, ...]]


MITIGATIONS: Final = (
    Mitigation(
        name="Spectre v2: branch prediction barrier and restriction",
        controls={"Intel": ("spec-ctrl",), "AMD": ("ibpb",)},
    ),
    Mitigation(name="Spectre v2 between hyperthreads (STIBP)", controls={"Intel": ("stibp",), "AMD": ("amd-stibp",)}),
    Mitigation(
        name="Spectre v4: speculative store bypass",
        controls={"Intel": ("ssbd",), "AMD": ("amd-ssbd", "virt-ssbd")},
    ),
    Mitigation(name="L1TF, for guests that run guests", controls={"Intel": ("flush-l1d",)}),
    Mitigation(name="MDS and TAA (ZombieLoad, RIDL)", controls={"Intel": ("md-clear",)}),
    Mitigation(name="MMIO stale data", controls={"Intel": ("fb-clear",)}),
    Mitigation(name="SRSO (Inception)", controls={"AMD": ("ibpb-brtype",)}),
    Mitigation(name="TSA", controls={"AMD": ("verw-clear",)}),
)
"""The classes for which a guest needs a switch of its CPU; RFDS, of Atom-derived cores only, is not among them."""


def state(mitigation: Mitigation, vendor: str | None, has: frozenset[str], reported: frozenset[str] | None) -> str:
    """What one CPU has against one attack.

    Parameters
    ----------
    mitigation : Mitigation
    vendor : str or None
        libvirt's vendor of the CPU.
    has : frozenset of str
        The features it has.
    reported : frozenset of str or None
        The features that its document could have named; None where it could name all.

    Returns
    -------
    {"has", "needless", "lacks", "unknown", ""}
        "needless" where it has every immunity that makes the switch so; "" where it concerns no such CPU.
    """
    owner = CONTROLS_OF.get(vendor or "")
    if owner is None:
        return "unknown"
    controls = mitigation.controls.get(owner)
    if controls is None:
        return ""
    if any(control in has for control in controls):
        return "has"
    if any(control in NEEDLESS and has >= NEEDLESS[control] for control in controls):
        return "needless"
    if reported is not None and not any(control in reported for control in controls):
        return "unknown"
    return "lacks"


def states(mitigation: Mitigation, readings: Iterable[Reading], cpu_map: CpuMap) -> list[str]:
    """What each host has against one attack, in one view; "unknown" where its CPU is."""
    wanted = frozenset(
        feature
        for controls in mitigation.controls.values()
        for control in controls
        for feature in (control, *NEEDLESS.get(control, ()))
    )
    mask = cpu_map.set_of(wanted & cpu_map.index.keys())
    return [_reading_state(mitigation, x, mask, cpu_map) for x in readings]


def _reading_state(mitigation: Mitigation, x: Reading, mask: int, cpu_map: CpuMap) -> str:
    if x.status != "ok" or x.cpu is None:
        return "unknown"
    has, reported = (frozenset(cpu_map.names(bits & mask)) for bits in (x.offered, x.reported))
    return state(mitigation, x.cpu.vendor or x.model_vendor, has, reported)


def needless(control: str, has: Iterable[str]) -> bool:
    """Whether a CPU with these features needs no such switch."""
    return control in NEEDLESS and frozenset(has) >= NEEDLESS[control]


def controls_of(vendor: str | None) -> tuple[str, ...]:
    """Every mitigation control that means something on CPUs of this vendor."""
    owner = CONTROLS_OF.get(vendor or "")
    return tuple(name for name, m in MEANINGS.items() if m.polarity == "control" and m.vendor == owner)
