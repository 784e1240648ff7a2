"""What guests need of a host, as a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import differing_features
from vmcompat.migration.domains import DomainRecord, Domains
from vmcompat.migration.observe import reading
from vmcompat.schema import DEMAND, frame

if TYPE_CHECKING:
    from vmcompat.fleet.frames import Fleet

_NO_MODEL = ("host-passthrough", "maximum", "host-model")
_AS_GIVEN = ("arch", "virttype", "machine", "emulator", "tsc_frequency", "vcpus", "memory", "hyperv", "kvm", "hostdevs")


def demand(domains: Domains, *, fleet: Fleet | None = None) -> pd.DataFrame:
    """What each guest needs of a host that it is to run on.

    Parameters
    ----------
    domains : Domains
    fleet : Fleet, optional
        Its hosts' libvirts say what a model's name stands for in the XML that they wrote. Without it names are read as
        the newest CPU map has them, and features that other maps see otherwise are ``unknown``.

    Returns
    -------
    DataFrame
        Columns of ``schema.DEMAND``, index ``domain``. A guest that runs needs the CPU of its live XML; one that is off
        what its definition asks for, which with host-model or host-passthrough is next to nothing.

    Examples
    --------
    >>> from vmcompat import read_domains
    >>> needs = demand(read_domains("sample_caps/mixed/domains"))
    >>> needs.loc["rt-clock-01", ["model", "machine", "pins"]].tolist()
    ['Cascadelake-Server-noTSX', 'pc-q35-7.2', (0, 1, 2, 3, 4, 5)]
    """
    libvirts = {} if fleet is None else {r.name: r.libvirt for r in fleet.records}
    rows = [_needs(record, libvirts.get(record.host or "")) for record in domains.records]
    return frame(DEMAND, rows, index=pd.Index(domains.names, dtype="str", name="domain"))


def _needs(record: DomainRecord, libvirt: str | None) -> dict[str, Any]:
    domain = record.known
    if domain is None:
        return {"unknown": tuple(c for c in DEMAND if c != "unknown")}
    unknown: list[str] = []
    row: dict[str, Any] = {c: getattr(domain, c) for c in _AS_GIVEN}
    row["page_sizes"] = tuple(size or 0 for size in domain.page_sizes)
    row["pins"], row["nodes"] = (
        tuple(sorted(frozenset[int]().union(*(numbers for _, numbers in named))))
        for named in (domain.pins, domain.nodes)
    )
    row["launch_security"] = domain.launch_security
    if domain.memory is None:
        unknown.append("memory")
    if record.runs is not False and record.live is None:  # its definition says nothing of the CPU that it has now
        unknown += ["mode", "model", "vendor", "features", "maxphysaddr"]
    else:
        row |= _cpu(record, libvirt, unknown)
    return row | {"unknown": tuple(unknown)}


def _cpu(record: DomainRecord, libvirt: str | None, unknown: list[str]) -> dict[str, Any]:
    domain = record.known
    cpu = domain.cpu if domain is not None else None
    if cpu is None:
        unknown += ["features"] if record.runs else []
        return {}
    row: dict[str, Any] = {"mode": cpu.mode, "model": cpu.model, "vendor": cpu.vendor}
    if cpu.maxphysaddr is not None:
        row["maxphysaddr"] = cpu.maxphysaddr.bits
        unknown += ["maxphysaddr"] if record.runs and cpu.maxphysaddr.bits is None else []
    if cpu.mode in _NO_MODEL and cpu.model is None:
        required = [name for name, policy in cpu.features if policy in ("require", "force")]
        unknown += ["features"] if record.runs else []
        return row | {"features": _in_order(required)}
    read = reading(cpu, host=record.host or "", libvirt=libvirt or "")
    if read.status != "ok":
        unknown.append("features")
        return row
    doubtful: set[str] = set()
    if not libvirt and cpu.model is not None:
        doubtful = set(differing_features(cpu.model)) - {name for name, policy in cpu.features if policy != "optional"}
    unknown += [f"feature {name}" for name in _in_order(doubtful)]
    return row | {"features": _in_order({*CpuMap.load().names(read.offered), *read.beyond} - doubtful)}


def _in_order(names: list[str] | set[str]) -> tuple[str, ...]:
    """In map order, those that the map does not know last."""
    order = CpuMap.load().index
    return tuple(sorted(names, key=lambda name: (order.get(name, len(order)), name)))
