"""Many guests: their domain XML, live and stored, and whose host they are on."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import pandas as pd

from vmcompat.errors import DocumentError, FrameError
from vmcompat.migration.domain import Domain
from vmcompat.migration.inventory import Ties
from vmcompat.migration.pieces import DOMAINS_CSV, DomainSource, Piece, pieces_of
from vmcompat.schema import DOMAIN_FINDINGS, DOMAINS, frame

_OFF: Final = ("shut off", "crashed")


@dataclass(frozen=True, slots=True)
class DomainFinding:
    """Something noticed while reading: which guest, what, and what to do about it."""

    domain: str
    code: str
    severity: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRecord:
    """All that was read of one guest.

    Attributes
    ----------
    name : str
        Unique among those that were read: a second guest of one name is ``name#2``.
    host, state, manager : str or None
        As ``domains.csv`` or its host says; the manager else by what it left in the XML.
    live, stored : Domain or None
        As it runs, and as it will start next.
    ties : Ties
        Its snapshots and active block jobs, where its host was asked.
    sources : mapping of str to tuple of (str, str)
        File and SHA-256 of the documents ``live`` and ``stored``.
    unreadable : tuple of str
        Why documents could not be used.
    findings : tuple of DomainFinding
    """

    name: str
    host: str | None = None
    state: str | None = None
    manager: str | None = None
    live: Domain | None = None
    stored: Domain | None = None
    ties: Ties = field(default_factory=Ties)
    sources: Mapping[str, tuple[str, str]]
    unreadable: tuple[str, ...] = ()
    findings: tuple[DomainFinding, ...] = ()

    @property
    def known(self) -> Domain | None:
        """What it runs with; of a guest without live XML its definition."""
        return self.live or self.stored

    @property
    def runs(self) -> bool | None:
        """Whether it runs, be it paused; None where that is not known. Its own live XML is the better witness."""
        if self.live is not None:
            return True
        return None if self.state is None else self.state not in _OFF


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Domains:
    """Guests as read from their XML. Made by :func:`read_domains`; every selection is a new one.

    Attributes
    ----------
    records : tuple of DomainRecord
    """

    records: tuple[DomainRecord, ...]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Every guest, readable or not: columns of ``schema.DOMAINS``, index ``domain``."""
        return frame(DOMAINS, map(_row, self.records), index=pd.Index(self.names, dtype="str", name="domain"))

    @cached_property
    def findings(self) -> pd.DataFrame:
        """What was noticed while reading: columns of ``schema.DOMAIN_FINDINGS``, in the order of the guests."""
        found = [f for record in self.records for f in record.findings]
        return frame(DOMAIN_FINDINGS, ({c: getattr(f, c) for c in DOMAIN_FINDINGS} for f in found))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all guests, in input order."""
        return tuple(r.name for r in self.records)

    @cached_property
    def _position(self) -> Mapping[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, domains: str | Iterable[str]) -> Domains:
        names = [domains] if isinstance(domains, str) else list(dict.fromkeys(domains))
        if strange := [n for n in names if n not in self._position]:
            raise FrameError(f"no guest {strange[0]!r} among the {len(self)}: domains.names has them")
        return replace(self, records=tuple(self.records[self._position[n]] for n in names))

    def select(self, query: str) -> Domains:
        """The guests for which a query over the columns of :attr:`frame` holds.

        Raises
        ------
        FrameError
            The query cannot be evaluated; the message lists the columns.

        Examples
        --------
        >>> domains = read_domains("sample_caps/mixed/domains")
        >>> domains.select("cpu_mode == 'maximum'").names
        ('any-01',)
        """
        try:
            chosen = self.frame.query(query).index
        except Exception as e:  # pandas lets through whatever its evaluation meets
            raise FrameError(f"cannot select by {query!r} ({e}); columns: {', '.join(self.frame.columns)}") from e
        return self[chosen]

    def __repr__(self) -> str:
        readable = sum(r.known is not None for r in self.records)
        states: dict[str, int] = {}
        for r in self.records:
            state = r.state or ("running" if r.live else "of unknown state")
            states[state] = states.get(state, 0) + 1
        told = "".join(f", {n} {state}" for state, n in states.items())
        return f"<Domains: {readable} of {len(self)} guests readable{';' if told else ''}{told[1:]}>"

    def _repr_html_(self) -> str:
        counts = self.frame.groupby(["host", "state", "manager", "cpu_mode"], dropna=False, sort=False).size()
        table = counts.rename("n_domains").reset_index()
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + table.to_html(index=False, na_rep="", border=0, max_rows=20)


def read_domains(source: DomainSource) -> Domains:
    """Reads the XML of many guests; a guest is never lost, what is wrong with it is in ``findings``.

    Parameters
    ----------
    source : path, URI, mapping, or list of paths and URIs
        A live libvirt by its URI (``qemu+ssh://h2/system``): all its guests, asked read-only. A file or folder of
        domain XML as ``virsh dumpxml`` prints it, or XML text by any name. A guest is called as its ``<name>`` says,
        and one whose XML cannot be read by its file. XML whose ``<domain>`` has an ``id`` is live, and
        other XML is the stored definition, which commonly is ``<domain>.inactive.xml``. A table ``domains.csv`` in
        the folder joins its columns ``host``, ``state`` (in the words of ``virsh list``) and ``manager`` by its
        column ``domain``; a guest that it lists stays without any document. Folders are read in natural order, without
        their subfolders.

    Returns
    -------
    Domains
        In the order of the table, then of the files; of a live host in natural order.

    Raises
    ------
    FrameError
        The source does not exist, or a folder has neither XML nor a table.
    DocumentError
        The table cannot be used.
    ConnectError
        A live host cannot be reached, or refuses.

    Examples
    --------
    >>> read_domains("sample_caps/mixed/domains")
    <Domains: 63 of 63 guests readable; 59 running, 3 shut off, 1 paused>
    """
    guests: dict[str, list[_Guest]] = {}
    for piece in pieces_of(source):
        same = guests.setdefault(piece.name, [])
        if not any(guest.takes(piece) for guest in same):
            same.append(_Guest(piece))
    records = [
        guest.record(name if number == 1 else f"{name}#{number}", namesakes=len(same) - 1)
        for name, same in guests.items()
        for number, guest in enumerate(same, 1)
    ]
    return Domains(records=tuple(_with_shared_uuids(records)))


class _Guest:
    """Pieces that are of one guest."""

    def __init__(self, piece: Piece) -> None:
        self._pieces: list[Piece] = [piece]

    def takes(self, piece: Piece) -> bool:
        """Whether the piece is of this guest, which then has it."""
        hosts = {h for p in (*self._pieces, piece) if (h := (p.row or {}).get("host"))}
        uuids = {p.content.uuid for p in (*self._pieces, piece) if isinstance(p.content, Domain) and p.content.uuid}
        documents = {p.sha256 for p in self._pieces if isinstance(p.content, Domain) and p.live == piece.live}
        if len(hosts) > 1 or len(uuids) > 1:
            return False
        if isinstance(piece.content, Domain) and documents and piece.sha256 not in documents:
            return False
        self._pieces.append(piece)
        return True

    def record(self, name: str, *, namesakes: int) -> DomainRecord:
        live, stored = (self._document(live=live) for live in (True, False))
        row = {k: v for piece in self._pieces for k, v in (piece.row or {}).items() if v}
        failed = {p.source: p.content for p in self._pieces if isinstance(p.content, DocumentError)}
        documents = {"live": live, "stored": stored}
        record = DomainRecord(
            name=name,
            host=row.get("host"),
            state=row.get("state"),
            manager=row.get("manager"),
            live=live and live.content,  # type: ignore[arg-type]
            stored=stored and stored.content,  # type: ignore[arg-type]
            ties=next((p.ties for p in self._pieces if p.ties != Ties()), Ties()),
            sources={k: (p.source, p.sha256) for k, p in documents.items() if p is not None},
            unreadable=tuple(str(e) for e in failed.values()),
        )
        listed = any(p.row for p in self._pieces) or all(p.row is None for p in self._pieces)
        found = tuple(_notice(record, namesakes=namesakes, listed=listed))
        return replace(record, manager=record.manager or _manager(record.known), findings=found)

    def _document(self, *, live: bool) -> Piece | None:
        return next((p for p in self._pieces if isinstance(p.content, Domain) and p.live == live), None)


def _manager(domain: Domain | None) -> str | None:
    """In the words of the table: nova rather than OpenStack Nova."""
    return domain.managers[0][0].split()[-1].lower() if domain is not None and domain.managers else None


def _notice(record: DomainRecord, *, namesakes: int, listed: bool) -> Iterator[DomainFinding]:
    name, dump = record.name, "fetch its XML: virsh dumpxml, and virsh dumpxml --inactive"

    def finding(code: str, severity: str, message: str, remedy: str) -> DomainFinding:
        return DomainFinding(name, code, severity, message, remedy)

    for reason in record.unreadable:
        yield finding("unreadable", "error", reason, dump)
    if record.known is None and not record.unreadable:
        yield finding("no_document", "error", f"{DOMAINS_CSV} lists it, and there is no XML of it", dump)
    if namesakes:
        yield finding(
            "duplicate_name", "warning", f"{namesakes + 1} guests, or states of one, have the name "
            f"{record.known.name if record.known else name}", "keep the folders of hosts apart, or remove what is old",
        )  # fmt: skip
    if not listed:
        yield finding(
            "not_listed", "warning", f"{DOMAINS_CSV} does not list it: its host and state are not known",
            "add a row for it, or remove the file",
        )  # fmt: skip
    if record.runs and record.live is None and record.stored is not None:
        yield finding(
            "no_live_xml", "warning", f"it is {record.state}, and there is only its definition: the CPU that it runs "
            "with is not known", "fetch its live XML: virsh dumpxml",
        )  # fmt: skip
    if record.live is not None and record.state in _OFF:
        yield finding(
            "state_mismatch", "warning", f"{DOMAINS_CSV} says that it is {record.state}, and its XML is that of a "
            "running guest, which is believed", "fetch both again",
        )  # fmt: skip
    if record.state == "paused":
        yield finding("paused", "warning", "it is paused, and would arrive paused", "virsh resume, or find out why")
    live, stored = (d.cpu if d is not None else None for d in (record.live, record.stored))
    if live is not None and stored is not None and stored.mode == "custom" and live.model != stored.model:
        yield finding(
            "other_cpu_stored", "info", f"it runs with {live.model or f'mode {live.mode}'} and starts next with "
            f"{stored.model}", "power it off and on when that is wanted; a reboot inside is not enough",
        )  # fmt: skip
    made_by = _manager(record.known)
    if made_by is not None and record.manager not in (None, made_by):
        yield finding(
            "manager_mismatch", "warning", f"{DOMAINS_CSV} says that it belongs to {record.manager}, its XML says "
            f"{made_by}", "correct the table, or find out who manages it",
        )  # fmt: skip


def _with_shared_uuids(records: list[DomainRecord]) -> Iterator[DomainRecord]:
    owners: dict[str, list[str]] = {}
    for record in records:
        if record.known is not None and record.known.uuid:
            owners.setdefault(record.known.uuid.lower(), []).append(record.name)
    for record in records:
        same = owners.get(record.known.uuid.lower(), []) if record.known is not None else []
        if len(same) < 2:
            yield record
            continue
        found = DomainFinding(
            record.name, "duplicate_uuid", "error", f"its UUID is that of {', '.join(n for n in same[:10])} too"
            if len(same) > 10 else f"one UUID: {', '.join(same)}",
            "virsh domuuid on each host: one guest seen twice, or a clone that no host takes beside the other",
        )  # fmt: skip
        yield replace(record, findings=(*record.findings, found))


def _row(record: DomainRecord) -> dict[str, Any]:
    row: dict[str, Any] = {"host": record.host, "state": record.state, "manager": record.manager}
    row |= {"live": record.live is not None, "stored": record.stored is not None}
    row["source"], row["sha256"] = record.sources.get("live") or record.sources.get("stored") or (None, None)
    row["source_stored"], row["sha256_stored"] = record.sources.get("stored", (None, None))
    domain = record.known
    if domain is None:
        return row
    cpu = domain.cpu
    own = {c: getattr(domain, c) for c in ("arch", "virttype", "machine", "emulator", "memory", "vcpus", "uuid")}
    return row | own | {"cpu_mode": cpu and cpu.mode, "model": cpu and cpu.model}
