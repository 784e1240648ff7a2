"""Which model libvirt names for a set of features, and how it then writes the CPU: its own odd arithmetic, exactly.

``x86Decode`` and ``x86DecodeUseCandidate`` of libvirt, for thousands of groups at once: one row a group, one column a
feature or a model of the map.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final, NamedTuple, TypeAlias

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


class Question(NamedTuple):
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
        """Whether each model may be named for each group at all."""
        keys = [(q.vendor, None if q.allowed is None else frozenset(q.allowed)) for q in questions]
        number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        columns = np.array(
            [
                [m.vendor in (None, vendor or m.vendor) and (allowed is None or m.name in allowed) for m in self.models]
                for vendor, allowed in number
            ],
            dtype=np.bool_,
        ).reshape(len(number), len(self.models))
        return columns.T[:, [number[key] for key in keys]]

    @cached_property
    def position(self) -> dict[str, int]:
        return {m.name: j for j, m in enumerate(self.models)}

    def named(self, questions: Sequence[Question]) -> Bools:
        """Whether a host of each group names each model."""
        named = np.zeros((len(self.models), len(questions)), dtype=np.bool_)
        for i, q in enumerate(questions):
            for name in q.names:
                if (j := self.position.get(name)) is not None:
                    named[j, i] = True
        return named


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
    # models by groups from here on: the fold below goes through whole rows
    c = _candidates(cpu_map)
    n_require = _counts(~c.data, shared)
    n_disable = _counts(c.data | c.removed, ~shared)
    for i, q in enumerate(questions):
        if q.allowed is not None and any(q.allowed.values()):
            n_disable[:, i] = _disabled_with_blockers(shared[i], q.allowed, c)
    half = (n_disable + 1) // 2
    penalty = half * (half + 3) // 2
    total = n_require + n_disable // 2 + penalty
    eligible, named = c.eligible(questions), c.named(questions)
    single = np.array([len(q.names) == 1 for q in questions], dtype=np.bool_)
    best = np.full(len(questions), -1)
    best_total, best_penalty = np.zeros_like(best), np.zeros_like(best)
    settled = np.zeros(len(questions), dtype=np.bool_)
    for j, (t, p, preferred) in enumerate(zip(total, penalty, named, strict=True)):
        better = (t < best_total) | ((t == best_total) & (p < best_penalty)) | (preferred & (p < best_penalty))
        alone = preferred & single
        take = eligible[j] & ~settled & ((best < 0) | better | alone)
        best[take] = j
        best_total[take], best_penalty[take] = t[take], p[take]
        settled |= eligible[j] & alone
    return [c.models[j] if j >= 0 else None for j in best.tolist()]


def _counts(models: Bools, groups: Bools) -> Ints:
    """Size of the intersection of each model's set with each group's."""
    counts = np.zeros((len(models), len(groups)), dtype=np.int64)
    for of_models, of_groups in zip(_words(models), _words(groups), strict=True):
        counts += np.bitwise_count(of_models[:, None] & of_groups)
    return counts


def _words(sets: Bools) -> npt.NDArray[np.uint64]:
    """The sets packed: one row for each 64 features, one column a set."""
    octets = np.packbits(sets, axis=1)
    padded = np.zeros((len(sets), -(-octets.shape[1] // 8) * 8), dtype=np.uint8)
    padded[:, : octets.shape[1]] = octets
    return np.ascontiguousarray(padded.view(np.uint64).T)


def _disabled_with_blockers(shared: Bools, allowed: Mapping[str, int], c: _Candidates) -> Ints:
    blockers = c.cpu_map.rows(allowed.get(m.name, 0) for m in c.models)
    missing = (c.data & ~shared) | (blockers & ~(shared & ~c.data)) | (c.removed & ~shared)
    counts: Ints = missing.sum(axis=1, dtype=np.int64)
    return counts


def describe(
    shared: Bools, models: Sequence[CpuModel], *, cpu_map: CpuMap, blockers: Sequence[int] | None = None
) -> list[Description]:
    """The features that libvirt lists beside each group's model, with policies, before any of its filters.

    Parameters
    ----------
    shared : bool array, groups by features of the map
    models : sequence of CpuModel
        The one chosen for each group.
    cpu_map : CpuMap
    blockers : sequence of int, optional
        What keeps each group's hypervisors from giving the model, as sets.

    Returns
    -------
    list of list of (name, policy)
    """
    distinct = {m.name: i for i, m in enumerate(dict.fromkeys(models))}
    data = cpu_map.rows(cpu_map.models[name].data for name in distinct)[[distinct[m.name] for m in models]]
    extra, missing = shared & ~data, data & ~shared
    if blockers is not None and any(blockers):
        missing |= cpu_map.rows(blockers) & ~extra
    required, disabled = _listed(extra, "require", cpu_map), _listed(missing, "disable", cpu_map)
    descriptions = []
    for model, on, off in zip(models, required, disabled, strict=True):
        listed = dict(on + off) if model.removed else {}
        descriptions.append(on + off + [(name, "disable") for name in model.removed if name not in listed])
    return descriptions


def _listed(sets: Bools, policy: str, cpu_map: CpuMap) -> list[Description]:
    """The names in each row's set, in map order, each with the policy."""
    pairs = [(name, policy) for name in cpu_map.features]
    ends = np.cumsum(sets.sum(axis=1)).tolist()
    members = [pairs[i] for i in np.nonzero(sets)[1].tolist()]
    return [members[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def expanded(features: Iterable[tuple[str, str]], model: CpuModel, *, cpu_map: CpuMap) -> Description:
    """With the features that the model's name implies, sorted by name as EXPAND_FEATURES does."""
    policies = dict.fromkeys(cpu_map.names(model.data), "require") | dict(features)
    for name in model.removed:
        policies.setdefault(name, "disable")
    return sorted(policies.items())


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
