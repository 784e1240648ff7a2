"""Does a guest CPU fit a host? libvirt's comparison, with the names of what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
import pandas as pd

from vmcompat.fleet.cpu import POLICIES, X86, Cpu, parse_cpu, parse_xml
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.schema import COMPARISON, frame

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline
    from vmcompat.fleet.frames import Fleet

Result: TypeAlias = Literal["incompatible", "identical", "superset", "unknown"]
MISSING: Final = "Host CPU does not provide required features"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of comparing a CPU with a host.

    Attributes
    ----------
    result : {"incompatible", "identical", "superset", "unknown"}
        Superset: the host offers more than the CPU asks.
    reason : str
        Empty where the CPU fits.
    features : tuple of str
        The features that the reason speaks of, in map order.
    unreported : tuple of str
        Those that the CPU asks and of which the host's document cannot speak.
    """

    result: Result
    reason: str = ""
    features: tuple[str, ...] = ()
    unreported: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether a guest with this CPU can run on the host."""
        return self.result in ("identical", "superset")


@dataclass(frozen=True, slots=True)
class _Demand:
    """What a CPU asks of a host, as sets."""

    require: int
    optional: int
    disable: int
    force: int
    forbid: int


def compare(cpu: str | Cpu | Baseline, *, host: str | Cpu, cpu_map: str | Path | CpuMap | None = None) -> Comparison:
    """Compares a CPU with a host's, as ``virConnectCompareCPU`` does.

    Parameters
    ----------
    cpu : str, Cpu or Baseline
        What the guest asks; XML text of a ``<cpu>``, or a baseline, judged by its ``guest_xml``.
    host : str or Cpu
        What there is: the host CPU of capabilities, or the host-model CPU of domain capabilities.
    cpu_map : str, Path or CpuMap, optional
        As for :meth:`CpuMap.load`.

    Returns
    -------
    Comparison

    Raises
    ------
    CpuMapError
        A model or feature that the map does not know; a difference of vendor or architecture is found before.
    DocumentError
        A text that is no ``<cpu>``.

    References
    ----------
    ``x86Compute`` and ``virCPUx86Compare`` of libvirt.

    Examples
    --------
    >>> westmere = "<cpu><arch>x86_64</arch><model>Westmere</model></cpu>"
    >>> compare("<cpu><model>SandyBridge</model></cpu>", host=westmere).features
    ('pclmuldq', 'x2apic', 'tsc-deadline', 'xsave', 'avx', 'rdtscp')
    """
    asked, there = as_cpu(cpu, what="the CPU"), as_cpu(host, what="the host")
    loaded = cpu_map if isinstance(cpu_map, CpuMap) else CpuMap.load(cpu_map)
    if there.model is None:
        return Comparison("incompatible", "the host CPU is not known")
    if (early := _arch_or_vendor(asked, there.vendor)) is not None:
        return early
    offered, demand = loaded.full(there), _demand(asked, loaded)
    return _compared(demand, offered, loaded.everything, loaded, strict=asked.match == "strict" and not asked.arch)


def compare_fleet(fleet: Fleet, cpu: str | Cpu | Baseline) -> pd.DataFrame:
    """See :meth:`Fleet.compare`."""
    rows = ({"result": c.result, "reason": c.reason, "features": c.features} for c in comparisons(fleet, cpu))
    return frame(COMPARISON, rows, index=pd.Index(fleet.names, dtype="str", name="host"))


def comparisons(fleet: Fleet, cpu: str | Cpu | Baseline) -> list[Comparison]:
    """Whether this CPU fits, for each host; hosts that are alike have the very same answer."""
    asked = as_cpu(cpu, what="the CPU")
    demand = _demand(asked, fleet.cpu_map)
    strict = asked.match == "strict" and not asked.arch
    answers: dict[tuple[object, ...], Comparison] = {}
    found = []
    for x in fleet.readings:
        there = x.cpu if x.status == "ok" else None
        kind = (x.reason,) if there is None else (there.vendor, x.offered, x.reported)
        if kind not in answers:
            if there is None:
                answers[kind] = Comparison("unknown", x.reason)
            else:
                answers[kind] = _arch_or_vendor(asked, there.vendor) or _compared(
                    demand, x.offered, x.reported, fleet.cpu_map, strict=strict
                )
        found.append(answers[kind])
    return found


def as_cpu(cpu: str | Cpu | Baseline, *, what: str) -> Cpu:
    """A CPU from its XML text or from a baseline."""
    if isinstance(cpu, Cpu):
        return cpu
    text = cpu if isinstance(cpu, str) else cpu.guest_xml
    return parse_cpu(parse_xml(text.encode(), source=what), source=what)


def migration_matrix(fleet: Fleet) -> pd.DataFrame:
    """Where a guest that got all that its host can give may move to.

    Parameters
    ----------
    fleet : Fleet
        In the view that answers: hypervisor for guests started with host-model.

    Returns
    -------
    DataFrame
        bool, from host by to host, only hosts whose CPU is known. True where the target offers every migratable feature
        of the source, and vendor and architecture are the same. A feature that the target's libvirt cannot report
        counts as not offered.

    Notes
    -----
    The square of the number of different CPUs, not of hosts.
    """
    known = [(n, x) for n, x in zip(fleet.names, fleet.readings, strict=True) if x.status == "ok"]
    index = pd.Index([n for n, _ in known], dtype="str", name="from_host")
    kinds = [
        (x.offered & ~fleet.cpu_map.blocked, x.offered, (x.cpu and x.cpu.vendor) or x.model_vendor) for _, x in known
    ]
    distinct = list(dict.fromkeys(kinds))
    number = {kind: i for i, kind in enumerate(distinct)}
    fits = np.array(
        [[not need & ~offers and vendor == other for _, offers, other in distinct] for need, _, vendor in distinct],
        dtype=np.bool_,
    ).reshape(len(distinct), len(distinct))
    rows = np.array([number[kind] for kind in kinds], dtype=np.intp)
    return pd.DataFrame(fits[np.ix_(rows, rows)], index=index, columns=index.rename("to_host"))


def _arch_or_vendor(asked: Cpu, vendor: str | None) -> Comparison | None:
    if asked.arch is not None and asked.arch not in X86:
        return Comparison("incompatible", f"CPU arch {asked.arch} does not match host arch")
    if asked.vendor is not None and asked.vendor != vendor:
        return Comparison("incompatible", f"host CPU vendor does not match required CPU vendor {asked.vendor}")
    return None


def _demand(asked: Cpu, cpu_map: CpuMap) -> _Demand:
    """The sets of each policy; on a host definition everything listed is required."""
    cpu_map.full(Cpu(arch=None, model=asked.model, features=tuple((n, "require") for n, _ in asked.features)))
    sets = {p: cpu_map.set_of(n for n, policy in asked.features if policy == p) for p in POLICIES}
    sets["require"] |= cpu_map.models[asked.model].data if asked.model else 0
    return _Demand(**sets)


def _compared(demand: _Demand, offered: int, reported: int, cpu_map: CpuMap, *, strict: bool) -> Comparison:
    if forbidden := demand.forbid & offered:
        return Comparison("incompatible", "Host CPU provides forbidden features", tuple(cpu_map.names(forbidden)))
    required = demand.require & ~(demand.force | demand.optional | demand.disable)
    if missing := required & ~offered:
        unreported = tuple(cpu_map.names(missing & ~reported))
        if not missing & reported:
            reason = "the host's libvirt is too old to know these features"
            return Comparison("unknown", reason, unreported, unreported)
        return Comparison("incompatible", MISSING, tuple(cpu_map.names(missing & reported)), unreported)
    extra = offered & ~(required | _union((demand.optional, demand.disable, demand.force)))
    if not extra:
        return Comparison("identical")
    if strict:
        return Comparison("incompatible", "Host CPU provides extra features", tuple(cpu_map.names(extra)))
    return Comparison("superset")


def _union(sets: Iterable[int]) -> int:
    return reduce(int.__or__, sets, 0)
