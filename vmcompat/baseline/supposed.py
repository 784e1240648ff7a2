"""Hosts as they would be if they offered more or less than their documents say, and marked as such."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from vmcompat.baseline.answer import some
from vmcompat.baseline.meanings import SWITCHES
from vmcompat.errors import FrameError
from vmcompat.fleet.cpu import X86, Cpu, Policy
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import Reading, View, read_cpu
from vmcompat.fleet.frames import Fleet
from vmcompat.fleet.records import HYPOTHETICAL, Document, HypervisorModel
from vmcompat.fleet.sources import Finding, HostRecord

Changes: TypeAlias = Mapping[str, Iterable[str]]
SIGN: Final = "hypothetical"  # code of the finding that says so


def suppose(fleet: Fleet, without: Changes, with_: Changes) -> Fleet:
    """The fleet as if some hosts offered less or more than their documents say."""
    records, readings = list(fleet.records), list(fleet.readings)
    for host in dict.fromkeys([*without, *with_]):
        (i,) = fleet.positions([host])
        less, more = (_named(asked.get(host, ()), fleet.cpu_map) for asked in (without, with_))
        gone, come = (fleet.cpu_map.set_of(n for names in x.values() for n in names) for x in (less, more))
        if gone & come:
            raise FrameError(f"{host}: both with and without {', '.join(fleet.cpu_map.names(gone & come))}")
        if readings[i].status != "ok":
            raise FrameError(
                f"{host}: its CPU is not known ({readings[i].status}), so that nothing can be changed in it"
            )
        told = " and ".join(f"{how} {some([*x])}" for how, x in (("without", less), ("with", more)) if x)
        message = f"{told} in thought only: no document says so"
        remedy = "when it is done, read the host's documents and give them with replace="
        guess = _Guess(fleet, gone, come)
        records[i] = dataclasses.replace(
            records[i],
            documents=tuple(guess.document(d, records[i]) for d in records[i].documents),
            findings=(*records[i].findings, Finding(host, SIGN, "warning", message, remedy)),
        )
        readings[i] = guess.reading(records[i], readings[i])
    return dataclasses.replace(fleet, records=tuple(records), readings=tuple(readings))


def _named(asked: str | Iterable[str], cpu_map: CpuMap) -> dict[str, frozenset[str]]:
    """What was named, with the features that each name stands for."""
    names = [asked] if isinstance(asked, str) else list(asked)
    for name in names:
        if name not in SWITCHES and name not in cpu_map.index:
            raise FrameError(f"{name!r} is neither a feature of this map nor one of {', '.join(sorted(SWITCHES))}")
    return {name: SWITCHES.get(name, frozenset([name])) for name in names}


@dataclass(frozen=True)
class _Guess:
    """Documents as they would be if the host offered less or more.

    Attributes
    ----------
    gone, come : int
        Sets over the fleet's map.
    """

    fleet: Fleet
    gone: int
    come: int

    def document(self, document: Document, record: HostRecord) -> Document:
        """What this document of a host would say."""
        cpu = document.cpu
        if cpu is not None and cpu.model is not None and (document.arch or X86[0]) in X86:
            cpu = self._host(document, record, cpu) if cpu.arch else self._guest(cpu)
        return dataclasses.replace(
            document,
            source=HYPOTHETICAL + document.source.removeprefix(HYPOTHETICAL),
            sha256="",
            cpu=cpu,
            models=tuple(self._model(m) for m in document.models),
        )

    def reading(self, record: HostRecord, was: Reading) -> Reading:
        """What is read from the changed record."""
        found = self._read(record, self.fleet.view)
        if found.offered != self._applied(was.offered):
            raise FrameError(
                f"{record.name}: no model of the CPU map is inside what would be left, so that libvirt would not "
                f"recognise such a CPU"
            )
        return dataclasses.replace(found, reported=found.reported | self.gone | self.come)

    def _read(self, record: HostRecord, view: View) -> Reading:
        f = self.fleet
        return read_cpu(record, view=view, virttype=f.virttype, cpu_map=f.cpu_map, strict=f.strict)

    def _applied(self, offered: int) -> int:
        return offered & ~self.gone | self.come

    def _guest(self, cpu: Cpu) -> Cpu:
        names = self.fleet.cpu_map.names
        features: dict[str, Policy] = dict(cpu.features)
        changes: tuple[tuple[Policy, int], ...] = (("require", self.come), ("disable", self.gone))
        for policy, changed in changes:
            features |= dict.fromkeys(names(changed), policy)
        return dataclasses.replace(cpu, features=tuple(features.items()))

    def _host(self, document: Document, record: HostRecord, cpu: Cpu) -> Cpu:
        """A host definition, which cannot disable what its model stands for: another model is named then, or none."""

        def read_as(cpu: Cpu) -> Reading:
            alone = dataclasses.replace(document, cpu=cpu)
            return self._read(dataclasses.replace(record, documents=(alone,)), "host")

        was = read_as(cpu)
        if was.status != "ok":
            return cpu
        wanted = self._applied(was.offered)
        strange = [n for n, _ in cpu.features if n not in self.fleet.cpu_map.index]
        for model, listed in self._namings(cpu, wanted):
            named = dataclasses.replace(cpu, model=model, features=tuple((n, "require") for n in [*listed, *strange]))
            if read_as(named).offered == wanted:
                return named
        return dataclasses.replace(cpu, model=None, features=())

    def _namings(self, cpu: Cpu, wanted: int) -> Iterator[tuple[str, list[str]]]:
        """Models inside a CPU with what to list beside each: its own, then those with least, later ones first."""
        cpu_map = self.fleet.cpu_map
        kept = [n for n, _ in cpu.features if n in cpu_map.index and wanted >> cpu_map.index[n] & 1]
        yield str(cpu.model), list(dict.fromkeys([*kept, *cpu_map.names(self.come)]))
        inside = [
            m
            for m in reversed(list(cpu_map.models.values()))
            if m.host and m.vendor in (None, cpu.vendor) and not m.data & ~wanted
        ]
        for m in sorted(inside, key=lambda m: (wanted & ~m.data).bit_count()):
            yield m.name, cpu_map.names(wanted & ~m.data)

    def _model(self, model: HypervisorModel) -> HypervisorModel:
        """A listed model, whose features may be gone or come."""
        known = self.fleet.cpu_map.models.get(model.name)
        broken = self.fleet.cpu_map.names(known.data & self.gone) if known else []
        if model.blockers is None:
            return dataclasses.replace(model, usable=False) if broken else model
        come = self.fleet.cpu_map.names(self.come)
        blockers = tuple(dict.fromkeys([*(b for b in model.blockers if b not in come), *broken]))
        return (
            model if blockers == model.blockers else dataclasses.replace(model, usable=not blockers, blockers=blockers)
        )
