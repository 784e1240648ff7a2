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
    from vmcompat import migration, plot, widgets
    from vmcompat.audit.audit import Audit as Audit
    from vmcompat.audit.report import report
    from vmcompat.baseline.candidates import candidates as candidates
    from vmcompat.baseline.common import Baseline
    from vmcompat.baseline.compare import Comparison as Comparison
    from vmcompat.baseline.compare import compare, migration_matrix
    from vmcompat.baseline.conforms import conforms
    from vmcompat.baseline.drift import drift as drift
    from vmcompat.baseline.frontier import frontier
    from vmcompat.baseline.generations import admit as admit
    from vmcompat.baseline.generations import retire as retire
    from vmcompat.baseline.identical import identical as identical
    from vmcompat.baseline.maximal import maximal_baselines
    from vmcompat.baseline.named import models as models
    from vmcompat.baseline.pools import pool_curve as pool_curve
    from vmcompat.baseline.pools import pools
    from vmcompat.baseline.twins import twins
    from vmcompat.baseline.veto import veto
    from vmcompat.baseline.what_if import what_if
    from vmcompat.migration.apply import apply_baseline
    from vmcompat.migration.canary import canary as canary
    from vmcompat.migration.demand import demand as demand
    from vmcompat.migration.domains import Domains as Domains
    from vmcompat.migration.domains import read_domains as read_domains
    from vmcompat.migration.evacuate import Evacuation as Evacuation
    from vmcompat.migration.evacuate import plan_evacuation as plan_evacuation
    from vmcompat.migration.explain import explain_error as explain_error
    from vmcompat.migration.ledger import restart_ledger as restart_ledger
    from vmcompat.migration.losses import Losses as Losses
    from vmcompat.migration.losses import survives_loss as survives_loss
    from vmcompat.migration.migrate import plan_migration
    from vmcompat.migration.reach import reachability as reachability
    from vmcompat.migration.recover import Recovery as Recovery
    from vmcompat.migration.recover import recover as recover
    from vmcompat.migration.survey import preflight as preflight

__all__ = [
    "Baseline",
    "CpuMap",
    "Fleet",
    "VmcompatError",
    "apply_baseline",
    "compare",
    "conforms",
    "frontier",
    "maximal_baselines",
    "migration",
    "migration_matrix",
    "plan_migration",
    "plot",
    "pools",
    "read_fleet",
    "report",
    "twins",
    "veto",
    "what_if",
    "widgets",
]

# What is asked daily is in __all__; the rest of the questions to a fleet answer to their names here too.
_LAZY = {
    "Audit": "vmcompat.audit.audit",
    "Baseline": "vmcompat.baseline.common",
    "Comparison": "vmcompat.baseline.compare",
    "Domains": "vmcompat.migration.domains",
    "Evacuation": "vmcompat.migration.evacuate",
    "Losses": "vmcompat.migration.losses",
    "Recovery": "vmcompat.migration.recover",
    "admit": "vmcompat.baseline.generations",
    "apply_baseline": "vmcompat.migration.apply",
    "canary": "vmcompat.migration.canary",
    "candidates": "vmcompat.baseline.candidates",
    "compare": "vmcompat.baseline.compare",
    "conforms": "vmcompat.baseline.conforms",
    "demand": "vmcompat.migration.demand",
    "drift": "vmcompat.baseline.drift",
    "explain_error": "vmcompat.migration.explain",
    "frontier": "vmcompat.baseline.frontier",
    "identical": "vmcompat.baseline.identical",
    "maximal_baselines": "vmcompat.baseline.maximal",
    "migration_matrix": "vmcompat.baseline.compare",
    "models": "vmcompat.baseline.named",
    "plan_evacuation": "vmcompat.migration.evacuate",
    "plan_migration": "vmcompat.migration.migrate",
    "preflight": "vmcompat.migration.survey",
    "pool_curve": "vmcompat.baseline.pools",
    "pools": "vmcompat.baseline.pools",
    "reachability": "vmcompat.migration.reach",
    "read_domains": "vmcompat.migration.domains",
    "recover": "vmcompat.migration.recover",
    "report": "vmcompat.audit.report",
    "restart_ledger": "vmcompat.migration.ledger",
    "retire": "vmcompat.baseline.generations",
    "survives_loss": "vmcompat.migration.losses",
    "twins": "vmcompat.baseline.twins",
    "veto": "vmcompat.baseline.veto",
    "what_if": "vmcompat.baseline.what_if",
}

_ROOMS = ("migration", "plot", "widgets")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"vmcompat.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'vmcompat' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_ROOMS})
