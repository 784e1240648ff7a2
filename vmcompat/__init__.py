"""CPU baselines of many virtualization hosts, in libvirt's own terms: which may swap guests, and at what price.

>>> import vmcompat as vc
>>> fleet = vc.read_fleet("sample_caps/virsh_pair")
>>> fleet.baseline()
<Baseline Westmere of 2 hosts: 53 features, x86-64-v2; host view, advisory, CPU map 12.8.0>
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vmcompat.errors import VmcompatError
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.frames import Fleet, read_fleet

if TYPE_CHECKING:
    from vmcompat import migration, plot
    from vmcompat.baseline.common import Baseline
    from vmcompat.baseline.compare import Comparison, compare, migration_matrix
    from vmcompat.baseline.maximal import maximal_baselines
    from vmcompat.baseline.twins import twins
    from vmcompat.migration.apply import apply_baseline
    from vmcompat.migration.migrate import plan_migration

__all__ = [
    "Baseline",
    "Comparison",
    "CpuMap",
    "Fleet",
    "VmcompatError",
    "apply_baseline",
    "compare",
    "maximal_baselines",
    "migration",
    "migration_matrix",
    "plan_migration",
    "plot",
    "read_fleet",
    "twins",
]

_LAZY = {
    "Baseline": "vmcompat.baseline.common",
    "Comparison": "vmcompat.baseline.compare",
    "apply_baseline": "vmcompat.migration.apply",
    "compare": "vmcompat.baseline.compare",
    "maximal_baselines": "vmcompat.baseline.maximal",
    "migration_matrix": "vmcompat.baseline.compare",
    "plan_migration": "vmcompat.migration.migrate",
    "twins": "vmcompat.baseline.twins",
}

_ROOMS = ("migration", "plot")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"vmcompat.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'vmcompat' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value
