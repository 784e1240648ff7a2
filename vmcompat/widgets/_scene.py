"""A fleet in one view, with all that no click changes: who is alike, what can be searched, what each feature is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import pandas as pd

from vmcompat.baseline.hypervisor import models_document
from vmcompat.baseline.meanings import GROUPS, meaning
from vmcompat.errors import FrameError
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.frames import Fleet
from vmcompat.fleet.sources import natural
from vmcompat.plot._fold import Kind, kinds_of, unknown_kinds
from vmcompat.schema import HOSTS

Loss: TypeAlias = tuple[str, str]  # polarity, group

_ORDER: Final = ("control", "hazard", "immunity", "capability", "noise")
_OTHER: Final = {"Intel": "AMD", "AMD": "Intel", "Hygon": "Intel"}
_MOST_VALUES: Final = 200  # of a column that hosts are chosen by


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A fleet in one view.

    Attributes
    ----------
    fleet : Fleet
    kinds : tuple of Kind
        Hosts that are alike in all that an answer depends on; those whose CPU is not known by the reason, at the end.
    kind_of : tuple of int, one a host
    part_of : tuple of (arch, vendor), one a host
        Hosts of different ones never have a baseline together; None where it is not known.
    """

    fleet: Fleet
    kinds: tuple[Kind, ...]
    kind_of: tuple[int, ...]
    part_of: tuple[tuple[str | None, str | None], ...]

    @staticmethod
    def of(fleet: Fleet) -> Scene:
        """Every kind of host once."""
        known = fleet.features.index.tolist()
        numbers = np.array(_alike(fleet), dtype=np.int64)[:, None].view(np.int8)
        kinds = [kind for kind, _ in kinds_of(fleet, known, numbers)] if known else []
        kinds += unknown_kinds(fleet)
        number = {host: i for i, kind in enumerate(kinds) for host in kind.hosts}
        pairs = fleet.hosts[["arch", "vendor"]].astype(object).to_numpy()
        return Scene(
            fleet=fleet,
            kinds=tuple(kinds),
            kind_of=tuple([number[host] for host in fleet.names]),
            part_of=tuple([(_given(arch), _given(vendor)) for arch, vendor in pairs]),
        )

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Of each host what a search looks through: its name, CPU, and columns of ``hosts.csv``."""
        hosts = self.fleet.hosts
        shown = [c for c in hosts.columns if c not in HOSTS or c in ("model", "vendor", "arch", "libvirt", "qemu")]
        columns = [hosts[c].astype(object).where(hosts[c].notna(), "").tolist() for c in shown]
        rows = zip(self.fleet.names, *columns, strict=True)
        return tuple([" ".join(map(str, row)).casefold() for row in rows])

    @cached_property
    def columns(self) -> Mapping[str, tuple[str, ...]]:
        """The columns that hosts can be chosen by, those of ``hosts.csv`` first; a text a host, "" for missing."""
        hosts = self.fleet.hosts
        names = [c for c in hosts.columns if c not in HOSTS] + [c for c in HOSTS if HOSTS[c] != "object"]
        texts = {
            str(c): tuple(["" if pd.isna(v) else str(v) for v in hosts[c].tolist()])
            for c in names
            if c not in ("source", "sha256", "uuid")
        }
        most = min(_MOST_VALUES, max(2, len(hosts) // 2))
        return {c: values for c, values in texts.items() if 2 <= len(set(values)) <= most}

    def processor(self, host: int) -> tuple[Hashable, ...]:
        """What says whether two hosts have the same processor: its numbers, or the model where these are not known."""
        return self._processors[host]

    @cached_property
    def _processors(self) -> list[tuple[Hashable, ...]]:
        hosts = self.fleet.hosts
        rows = hosts[["vendor", "family", "model_number", "stepping", "model"]].astype(object).to_numpy().tolist()
        return [tuple(row[:4]) if not any(pd.isna(v) for v in row[:4]) else (row[0], row[4]) for row in rows]

    def controls_elsewhere(self, host: str) -> list[str]:
        """Mitigation controls that the host is known to lack and another of its processor offers.

        Raises
        ------
        FrameError
            The CPU of the host is not known, or nothing is found.
        """
        (at,) = self.fleet.positions([host])
        own = self.fleet.readings[at]
        if own.status != "ok":
            raise FrameError(f"{host}: its CPU is not known ({own.status}), so that no patch can be thought of")
        others = [
            x.offered
            for i, x in enumerate(self.fleet.readings)
            if x.status == "ok" and i != at and self.processor(i) == self.processor(at)
        ]
        elsewhere = 0
        for offered in set(others):
            elsewhere |= offered
        controls = masks(self.fleet.cpu_map, self.part_of[at][1]).get(("control", "mitigation controls"), 0)
        if found := self.fleet.cpu_map.names(elsewhere & controls & own.reported & ~own.offered):
            return found
        raise FrameError(
            f"{host}: none of the {len(others)} other hosts of its processor offers a mitigation control that it "
            f"is known to lack, so that nothing says what a patch would bring"
        )


def masks(cpu_map: CpuMap, vendor: str | None) -> dict[Loss, int]:
    """The features of each polarity and group, as sets; what belongs to another vendor tells nothing of these hosts."""
    found: dict[Loss, list[str]] = {}
    for name in cpu_map.features:
        what = meaning(name)
        if not what.vendor or what.vendor != _OTHER.get(vendor or ""):
            found.setdefault((what.polarity, what.group), []).append(name)
    return {loss: cpu_map.set_of(found[loss]) for loss in sorted(found, key=severity)}


def severity(loss: Loss) -> tuple[int, int]:
    """Sort key that puts findings of security first."""
    return _ORDER.index(loss[0]), GROUPS.index(loss[1])


def parts_of(scene: Scene, positions: Iterable[int]) -> list[tuple[tuple[str | None, str | None], list[int]]]:
    """Hosts by architecture and vendor, most hosts first."""
    found: dict[tuple[str | None, str | None], list[int]] = {}
    for i in positions:
        found.setdefault(scene.part_of[i], []).append(i)
    return sorted(found.items(), key=lambda part: (-len(part[1]), part[1][0]))


def part_label(part: tuple[str | None, str | None]) -> str:
    """Architecture and vendor in words."""
    arch, vendor = part
    return f"{arch or 'architecture not known'} {vendor or 'vendor not known'}"


def counted(values: Iterable[str]) -> list[tuple[str, int]]:
    """Values with how often each is there, in natural order, the missing one last."""
    counts = Counter(values)
    return sorted(counts.items(), key=lambda item: (item[0] == "", natural(item[0])))


def _alike(fleet: Fleet) -> list[int]:
    """A number for each known host, the same for those alike in all that an answer depends on."""
    numbers: dict[Hashable, int] = {}
    bare = fleet.with_view("host").readings if fleet.view == "hypervisor" else fleet.readings
    found = []
    for record, x, own in zip(fleet.records, fleet.readings, bare, strict=True):
        if x.status != "ok" or x.cpu is None:
            continue
        document = models_document(record, fleet.virttype) if fleet.view == "hypervisor" else None
        said = document and (document.models, document.properties and tuple(document.properties.items()))
        cpu = (x.cpu.model, x.cpu.vendor, x.model_vendor, x.cpu.maxphysaddr, record.address_bits, record.libvirt)
        key = (cpu, x.offered, x.reported, x.beyond, own.offered, said)
        found.append(numbers.setdefault(key, len(numbers)))
    return found


def _given(value: object) -> str | None:
    return value if isinstance(value, str) else None
