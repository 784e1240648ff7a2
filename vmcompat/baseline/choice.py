"""Which model libvirt names for a set of features, and how it then writes the CPU: its own odd arithmetic, exactly.

``x86Decode`` and ``x86DecodeUseCandidate`` of libvirt, for thousands of groups at once: one row a group, one column a
feature or a model of the map.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vmcompat.fleet.cpu_map import CpuMap, CpuModel

Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]
Description: TypeAlias = list[tuple[str, str]]

# Left out by baselineCPU of the QEMU driver, whatever the policy; the last three since libvirt 11.
QEMU_DRIVER_HIDES: Final = (
    "cmt", "mbm_total", "mbm_local", "osxsave", "ospke", "vmx-ept-uc", "vmx-ept-wb", "vmx-invvpid-single-context",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What decides the model for one group, beside the features that its hosts share.

    Attributes
    ----------
    vendor : str or None
        None leaves models of every vendor in.
    names : frozenset of str
        Models that the hosts name; libvirt prefers them.
    allowed : mapping of str to int, or None
        Models that the hypervisor lists, each with the set of its blockers; None: all.
    """

    vendor: str | None
    names: frozenset[str]
    allowed: Mapping[str, int] | None = None


@dataclass(frozen=True, eq=False)
class _Candidates:
    """The models that libvirt may choose for a guest, latest in the map first, as it tries them."""

    cpu_map: CpuMap

    @cached_property
    def models(self) -> list[CpuModel]:
        return [m for m in reversed(list(self.cpu_map.models.values())) if m.guest]

    @cached_property
    def data(self) -> Bools:
        return self.cpu_map.rows(m.data for m in self.models)

    @cached_property
    def removed(self) -> Bools:
        return self.cpu_map.rows(self.cpu_map.set_of(m.removed) for m in self.models)

    def eligible(self, questions: Sequence[Question]) -> Bools:
        @cache
        def row(vendor: str | None, allowed: frozenset[str] | None) -> list[bool]:
            return [
                (vendor is None or m.vendor is None or m.vendor == vendor) and (allowed is None or m.name in allowed)
                for m in self.models
            ]

        keys = ((q.vendor, None if q.allowed is None else frozenset(q.allowed)) for q in questions)
        return np.array([row(*k) for k in keys], dtype=np.bool_).reshape(len(questions), len(self.models))


@cache
def _candidates(cpu_map: CpuMap) -> _Candidates:
    return _Candidates(cpu_map)


def choose(shared: Bools, questions: Sequence[Question], *, cpu_map: CpuMap) -> list[CpuModel | None]:
    """The model that libvirt chooses for each group.

    Parameters
    ----------
    shared : bool array, groups by features of the map
        What all hosts of the group have.
    questions : sequence of Question
        One a group.
    cpu_map : CpuMap

    Returns
    -------
    list of CpuModel or None
        None where no model is left to choose from.

    Notes
    -----
    A left fold and no minimum: a preferred model may replace a better one, and be replaced again.
    """
    c = _candidates(cpu_map)
    n_require = _counts(shared, ~c.data)
    n_disable = _counts(~shared, c.data | c.removed)
    for i, q in enumerate(questions):
        if q.allowed is not None and any(q.allowed.values()):
            n_disable[i] = _disabled_with_blockers(shared[i], q.allowed, c)
    half = (n_disable + 1) // 2
    penalty = half * (half + 3) // 2
    total = n_require + n_disable // 2 + penalty
    eligible = c.eligible(questions)
    n_names = np.array([len(q.names) for q in questions])
    best = np.full(len(questions), -1)
    best_total, best_penalty = np.zeros_like(best), np.zeros_like(best)
    settled = np.zeros(len(questions), dtype=np.bool_)
    for j, model in enumerate(c.models):
        t, p = total[:, j], penalty[:, j]
        preferred = np.array([model.name in q.names for q in questions], dtype=np.bool_)
        better = (t < best_total) | ((t == best_total) & (p < best_penalty)) | (preferred & (p < best_penalty))
        alone = preferred & (n_names == 1)
        take = eligible[:, j] & ~settled & ((best < 0) | better | alone)
        best = np.where(take, j, best)
        best_total, best_penalty = np.where(take, t, best_total), np.where(take, p, best_penalty)
        settled |= eligible[:, j] & alone
    return [c.models[j] if j >= 0 else None for j in best]


def _counts(groups: Bools, models: Bools) -> Ints:
    """Size of the intersection of each group's set with each model's; exact, since sets are small."""
    return (groups.astype(np.float32) @ models.astype(np.float32).T).astype(np.int64)


def _disabled_with_blockers(shared: Bools, allowed: Mapping[str, int], c: _Candidates) -> Ints:
    blockers = c.cpu_map.rows(allowed.get(m.name, 0) for m in c.models)
    missing = (c.data & ~shared) | (blockers & ~(shared & ~c.data)) | (c.removed & ~shared)
    counts: Ints = missing.sum(axis=1, dtype=np.int64)
    return counts


def describe(shared: int, model: CpuModel, *, cpu_map: CpuMap, blockers: int = 0) -> Description:
    """The features that libvirt lists beside the model, with policies, before any of its filters."""
    extra = shared & ~model.data
    missing = (model.data & ~shared) | (blockers & ~extra)
    listed = cpu_map.names(extra | missing)
    tail = [name for name in model.removed if name not in listed]
    return [
        *((name, "require") for name in cpu_map.names(extra)),
        *((name, "disable") for name in cpu_map.names(missing)),
        *((name, "disable") for name in tail),
    ]


def expanded(features: Iterable[tuple[str, str]], model: CpuModel, *, cpu_map: CpuMap) -> Description:
    """With the features that the model's name implies, sorted by name as EXPAND_FEATURES does."""
    policies = dict.fromkeys(cpu_map.names(model.data), "require") | dict(features)
    for name in model.removed:
        policies.setdefault(name, "disable")
    return sorted(policies.items())


def given(features: Iterable[tuple[str, str]], model: CpuModel, *, cpu_map: CpuMap) -> int:
    """The set of features that a guest with this model and these listed features gets."""
    bits = model.data
    for name, policy in features:
        bit = cpu_map.set_of([name])
        bits = bits | bit if policy == "require" else bits & ~bit
    return bits


def cpu_text(
    model: str,
    features: Iterable[tuple[str, str]],
    *,
    vendor: str | None,
    fallback: str,
    check: str | None = None,
    limit: int | None = None,
) -> str:
    """A guest ``<cpu>`` as libvirt prints it.

    Parameters
    ----------
    model, vendor, fallback : str
    features : iterable of (name, policy)
    check : str, optional
    limit : int, optional
        Of the physical address bits [bits].
    """
    checked = f" check='{check}'" if check else ""
    lines = [f"<cpu mode='custom' match='exact'{checked}>", f"  <model fallback='{fallback}'>{model}</model>"]
    if vendor:
        lines.append(f"  <vendor>{vendor}</vendor>")
    if limit is not None:
        lines.append(f"  <maxphysaddr mode='passthrough' limit='{limit}'/>")
    lines += [f"  <feature policy='{policy}' name='{name}'/>" for name, policy in features]
    return "\n".join([*lines, "</cpu>\n"])
