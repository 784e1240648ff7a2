"""Index, columns and dtypes of every public frame, in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pandas as pd

CPU_STATUS: Final[Mapping[str, str]] = {
    "ok": "the CPU is known",
    "no_model": "libvirt did not recognise the CPU",
    "unknown_model": "the CPU map does not know the model or a feature",
    "no_view": "there is no document of the fleet's view",
    "tcg_only": "the domain capabilities are those of emulation, not of KVM",
    "other_arch": "not an x86 CPU",
    "unreadable": "the document could not be read",
}
"""What ``fleet.hosts["cpu_status"]`` may say; only ``ok`` hosts have a row in ``fleet.features``."""

HOSTS: Final[Mapping[str, str]] = {
    "cpu_status": "str",
    "arch": "str",
    "model": "str",
    "vendor": "str",
    "microcode": "Int64",
    "family": "Int64",
    "model_number": "Int64",
    "stepping": "Int64",
    "sockets": "Int64",
    "dies": "Int64",
    "cores": "Int64",
    "threads": "Int64",
    "numa_cells": "Int64",
    "memory": "Int64",
    "page_sizes": "object",
    "tsc_frequency": "Int64",
    "tsc_scaling": "boolean",
    "maxphysaddr": "Int64",
    "transports": "object",
    "emulators": "object",
    "machines": "object",
    "security_models": "object",
    "uuid": "str",
    "libvirt": "str",
    "qemu": "str",
    "source": "str",
    "sha256": "str",
}
"""``fleet.hosts``, index ``host``. Counts are totals of the host; memory and page sizes [KiB], ``tsc_frequency`` [Hz],
``maxphysaddr`` [bits]. ``model`` and ``vendor`` are those of the fleet's view, ``source`` and ``sha256`` the document
they come from. Columns of dtype object hold tuples. The other columns of ``hosts.csv`` follow."""

DOCUMENTS: Final[Mapping[str, str]] = {
    "host": "str",
    "kind": "str",
    "source": "str",
    "sha256": "str",
    "arch": "str",
    "emulator": "str",
    "machine": "str",
    "virttype": "str",
    "used": "bool",
}
"""``fleet.documents``: one row a document that was read; ``used`` where the view's CPU comes from it."""

FINDINGS: Final[Mapping[str, str]] = {
    "host": "str",
    "code": "str",
    "severity": "str",
    "message": "str",
    "remedy": "str",
}
"""``fleet.findings``: what was noticed while reading, in input order; severity is error, warning or info."""

COMPARISON: Final[Mapping[str, str]] = {"result": "str", "reason": "str", "features": "object"}
"""``fleet.compare``, index ``host``: incompatible, identical, superset or unknown; the features are a tuple."""

BASELINES: Final[Mapping[str, str]] = {
    "n_hosts": "int64",
    "n_unknown": "int64",
    "model": "str",
    "level": "str",
    "n_features": "Int64",
    "capabilities_lost": "Int64",
    "controls_lost": "Int64",
    "immunities_lost": "Int64",
    "hazards_lost": "Int64",
    "reason": "str",
    "xml": "str",
    "hosts": "object",
}
"""``fleet.baselines``, one row a group: the baseline that all its hosts share, and how many distinct features of each
polarity some host of the group has and the baseline lacks, since another host is known to lack them; controls and
immunities only those of the group's vendor. Without an answer ``reason`` says why and ``model``,
``level`` and ``xml`` are missing. ``level`` is missing too where the baseline has not even x86-64-v1."""

MAXIMAL: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "n_hosts": "int64",
    "capacity": "Float64",
    "n_features": "int64",
    "value": "float64",
    "level": "str",
    "hosts": "set",
    "features": "set",
    "step_cost": "Int64",
    "step_unreported": "Int64",
    "step_hosts": "set",
    "step_features": "set",
}
"""``maximal_baselines().frame``: ``hosts`` and all features that they share and that can be migrated, of which
libvirt's baseline may leave some out (``.baseline(row).dropped``); ``capacity`` is missing where that of a
host is not known, ``level`` where the features are not even x86-64-v1. The next step up would win ``step_features``
and lose ``step_hosts``, ``step_cost`` of them, ``step_unreported`` of these only because their libvirt has no name for
what is won; numbers missing and sets empty where no host of the group has more than all of them. With ``within`` that
column's value follows ``vendor``, as column ``within``. Columns of dtype set hold sets of names that are unpacked when
they are looked at."""

SPLIT: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "n_hosts": "int64",
    "n_classes": "int64",
    "n_baselines": "int64",
    "complete_from": "int64",
    "truncated": "bool",
}
"""``maximal_baselines().split``, a row for the hosts that were compared with one another: how many different hosts
(``n_classes``) and maximal baselines there are among them. All of at least ``complete_from`` hosts are in the answer;
with ``delta`` all of which every further feature would cost at least so many."""

DROPPED: Final[Mapping[str, str]] = {"feature": "str", "group": "str", "polarity": "str", "reason": "str"}
"""``base.dropped``: features that the hosts share and the baseline leaves out, and why."""

LOST: Final[Mapping[str, str]] = {"host": "str", "feature": "str", "group": "str", "polarity": "str"}
"""``base.lost``: what each host offers, another lacks, and a guest with this baseline does not get."""

TWINS: Final[Mapping[str, str]] = {
    "group": "str",
    "n_hosts": "int64",
    "what": "str",
    "features": "object",
    "polarities": "object",
    "hosts": "object",
    "value": "str",
    "others": "str",
    "explained_by": "object",
}
"""``twins().frame``: ``hosts`` (tuple) of the group differ from its others in ``what``: features, maxphysaddr [bits] or
tsc_frequency [Hz]; ``explained_by`` are the columns that tell the two apart without exception."""

PREFLIGHT: Final[Mapping[str, str]] = {
    "id": "str",
    "severity": "str",
    "evidence": "str",
    "remedy": "str",
    "forced": "bool",
}
"""``plan.findings``: severity is ok, warn, risk, block or unknown; ``forced`` where ``force=`` lets it pass."""

MIGRATION_RESULT: Final[Mapping[str, str]] = {
    "domain": "str",
    "source": "str",
    "target": "str",
    "outcome": "str",
    "started": "datetime64[us, UTC]",
    "seconds": "float64",
    "downtime_ms": "Int64",
    "transferred": "Int64",
    "iterations": "Int64",
    "restarted": "bool",
    "baseline": "str",
    "not_given": "object",
    "forced": "object",
    "message": "str",
}
"""``plan.run().frame``, one row: ``outcome`` is migrated, restored, stayed or unknown; ``seconds`` [s],
``transferred`` [bytes]; ``baseline`` its model; ``not_given`` features asked for at the start and not given."""


def frame(
    columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]], *, index: pd.Index | None = None
) -> pd.DataFrame:
    """A frame of exactly those columns and dtypes, also where there are no rows.

    Parameters
    ----------
    columns : mapping of str to str
        Name and dtype of each column.
    rows : iterable of mapping
        Values a row; what a row does not have is missing, an empty tuple in a column of dtype object.
    index : Index, optional
        As long as there are rows.

    Returns
    -------
    DataFrame
    """
    rows = list(rows)
    data = {}
    for name, dtype in columns.items():
        values = [row.get(name) for row in rows]
        if dtype == "object":
            values = [() if v is None else v for v in values]
        data[name] = pd.Series(values, dtype=dtype, index=index)
    return pd.DataFrame(data, columns=list(columns), index=index)
