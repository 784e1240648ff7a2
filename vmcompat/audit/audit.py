"""The audit of a fleet as a value: its findings, its verdict, and every section of its report."""

from __future__ import annotations

import html
import pickle
import re
from collections.abc import Callable, Mapping
from copyreg import dispatch_table
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import pandas as pd

from vmcompat.audit import _findings, _fleet, _guests
from vmcompat.audit.case import Case, Promise, alike_columns, group_column
from vmcompat.audit.points import judged, points
from vmcompat.audit.record import read_record
from vmcompat.audit.verdict import Sentence, verdict
from vmcompat.audit.waivers import Waiver, read_waivers
from vmcompat.baseline.pools import Pools
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.fleet.sources import Source
from vmcompat.migration.domains import Domains, read_domains


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report; a notebook shows it where a cell ends with it."""

    html: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return html.unescape(re.sub(r"<[^>]+>", " ", self.html)).strip()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Audit:
    """What was found in a fleet on one day.

    Attributes
    ----------
    case : Case
        What was given, and the answers to it.
    title : str
    command : str
        What makes the report again.
    """

    case: Case
    title: str
    command: str

    @staticmethod
    def of(
        fleet: Fleet,
        *,
        title: str | None = None,
        domains: Domains | Any = None,
        baseline: Promise | None = None,
        pools: Pools | None = None,
        since: Source | Fleet | None = None,
        waivers: str | Path | tuple[Waiver, ...] | None = None,
        at: date | str | None = None,
        by: str | None = None,
        alike: tuple[str, ...] | list[str] | str | None = None,
        command: str | None = None,
    ) -> Audit:
        """Reads what was given; the parameters are those of :func:`vmcompat.report`.

        Raises
        ------
        FrameError, DocumentError
            As there.
        """
        if not len(fleet):
            raise FrameError("a fleet without hosts has nothing to audit")
        columns = (alike,) if isinstance(alike, str) else tuple(alike or alike_columns(fleet))
        if absent := [column for column in columns if column not in fleet.hosts]:
            raise FrameError(f"alike: no column {', '.join(absent)}; there are {', '.join(fleet.hosts.columns)}")
        case = Case(
            fleet=fleet,
            domains=domains if isinstance(domains, Domains | None) else read_domains(domains),
            deployed=baseline,
            given_plan=pools,
            before=None if since is None else read_record(since, like=fleet),
            waivers=waivers if isinstance(waivers, tuple | None) else read_waivers(waivers),
            at=_day(at),
            by=group_column(fleet, by),
            alike=columns,
        )
        return Audit(case=case, title=title or f"Audit of {len(fleet)} hosts", command=command or "")

    @cached_property
    def findings(self) -> pd.DataFrame:
        """What was found, worst first: columns of ``schema.AUDIT``, index ``id``."""
        return judged(self.case, points(self.case))

    @cached_property
    def verdict(self) -> tuple[Sentence, ...]:
        """Five sentences on coverage, security, conformance, mobility, and what to do first."""
        return verdict(self.case, self.findings)

    @cached_property
    def documents(self) -> _findings.Documents:
        """Everything that was read, numbered."""
        return _findings.Documents(self.case)

    def show(self, section: str) -> Section:
        """One section of the report.

        Raises
        ------
        FrameError
            There is no such section; the message lists them.
        """
        if section not in _SECTIONS:
            raise FrameError(f"no section {section!r}: there are {', '.join(_SECTIONS)}")
        return Section(f"<div class='vmcompat-audit'>{_SECTIONS[section](self)}</div>")

    @cached_property
    def frames(self) -> Mapping[str, pd.DataFrame]:
        """What the report shows, as tables for a workbook."""
        case = self.case
        unknown = pd.Index(case.fleet.unknown)
        features = case.fleet.features.astype("boolean").where(case.fleet.reported)
        found = {
            "verdict": pd.DataFrame(
                {"colour": [s.colour for s in self.verdict], "told": [s.told for s in self.verdict]}
            ),
            "findings": self.findings,
            "hosts": _fleet.host_frame(case),
            "features": features.reindex(features.index.append(unknown)).loc[list(case.fleet.names)],
            "documents": self.documents.frame,
            "baselines": case.fleet.baselines(by=case.by, allow_missing=True),
            "twins": case.twins.frame,
        }
        if case.conformance is not None:
            found["conformance"] = case.conformance.frame
        if case.domains is not None and case.reach is not None:
            found |= {"guests": case.domains.frame, "mobility": case.reach.domains}
        if case.plan is not None:
            found |= {"placement": case.plan.placement, "moves": case.plan.moves}
        if case.changes is not None:
            found["changes"] = case.changes.frame
        return found

    def hand_over(self, path: Path) -> None:
        """Writes the audit for another process of the same installation: see :meth:`handed_over`."""
        with open(path, "wb") as file:
            _Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump((self.case, self.title, self.command))

    @classmethod
    def handed_over(cls, path: str | Path) -> Self:
        """Reads what :meth:`hand_over` wrote; never anything that comes from elsewhere, since it is code."""
        with open(path, "rb") as file:
            case, title, command = pickle.load(file)
        return cls(case=case, title=title, command=command)

    def __repr__(self) -> str:
        still = self.findings[self.findings["status"] != "waived"]["severity"].value_counts()
        told = ", ".join(f"{still.get(s, 0)} {s}" for s in ("red", "amber", "unknown"))
        return f"<Audit of {len(self.case.fleet)} hosts on {self.case.at}: {told}>"


def _day(at: date | str | None) -> date:
    if at is None:
        return datetime.now(UTC).date()
    if isinstance(at, str):
        try:
            return date.fromisoformat(at)
        except ValueError:
            raise FrameError(f"at={at!r}: give a day such as 2026-11-24") from None
    return at.date() if isinstance(at, datetime) else at


def _proxy(items: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(items)


class _Pickler(pickle.Pickler):
    """Of records, whose facts are read-only mappings that pickle itself cannot write."""

    dispatch_table = dispatch_table | {MappingProxyType: lambda proxy: (_proxy, (dict(proxy),))}


def _style() -> str:
    """What all sections look like, on a page that has the title."""
    return f"<style>{(files('vmcompat.audit') / 'sections.css').read_text(encoding='utf-8')}</style>"


_PERFORMANCE: Final = "No performance findings: every group's guests get what its best hosts have."

_SECTIONS: Final[Mapping[str, Callable[[Audit], str]]] = {
    "title": lambda a: f"{_style()}<h1>{html.escape(a.title)}</h1><p class='day'>{a.case.at.isoformat()}</p>",
    "verdict": lambda a: _findings.verdict(a.verdict, a.findings, a.documents) + _findings.open_counts(a.findings),
    "changes": lambda a: _findings.changes(a.case, a.findings),
    "documents": lambda a: _findings.document_table(a.documents),
    "twins": lambda a: _fleet.twins(a.case),
    "conformance": lambda a: _fleet.conformance(a.case),
    "security": lambda a: _findings.finding_list(
        a.findings, a.documents, kinds=["security"], told="No security findings in what could be judged."
    ),
    "mitigations": lambda a: _findings.mitigations(a.case),
    "performance": lambda a: _findings.finding_list(a.findings, a.documents, kinds=["performance"], told=_PERFORMANCE),
    "other findings": lambda a: _findings.finding_list(
        a.findings, a.documents, kinds=["operation", "coverage"], told="Nothing else was found."
    ),
    "hosts": lambda a: _fleet.hosts(a.case, a.documents),
    "baselines": lambda a: _fleet.baselines(a.case, a.documents),
    "vetoes": lambda a: _fleet.vetoes(a.case),
    "versions": lambda a: _fleet.versions(a.case),
    "machines": lambda a: _fleet.machines(a.case),
    "guests": lambda a: _guests.stuck(a.case, a.documents),
    "moves": lambda a: _guests.moves(a.case),
    "xml": lambda a: _guests.texts(a.case),
    "appendix": lambda a: _guests.appendix(a.case, command=a.command, title=a.title),
    "record": lambda a: a.case.record.script(a.findings.index, at=a.case.at.isoformat()),
}
