"""Where documents come from: files, folders, XML text, live libvirt; and which document belongs to which host."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from vmcompat.errors import ConnectError, DocumentError, FrameError
from vmcompat.fleet.records import MAX_DOCUMENT_BYTES, Document, read_documents
from vmcompat.schema import HOSTS

Source: TypeAlias = str | Path | Mapping[str, str | bytes] | Iterable["str | Path"]

HOSTS_CSV: Final = "hosts.csv"
CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # in a table only to deceive a terminal
_OWN_COLUMNS: Final = set(HOSTS) - {"libvirt", "qemu", "uuid"}
_URI: Final = re.compile(r"\s*[a-z][a-z0-9+.-]*://([^/?#]*@)?(?P<host>\[[^]]*\]|[^/?#:@]*)", re.IGNORECASE)
_FILE_NAME: Final = re.compile(r"(?P<host>.+?)(\.(capabilities|domcapabilities|qemucaps|cpu)(\..+)?)?\.xml")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something noticed while reading: which host, what, and what to do about it."""

    host: str
    code: str
    severity: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRecord:
    """All that was read of one host.

    Attributes
    ----------
    documents : tuple of Document
        In input order.
    unreadable : tuple of str
        Documents that could not be used.
    columns : mapping of str to str
        The host's row of ``hosts.csv``.
    libvirt, qemu : str or None
        Versions, where known.
    findings : tuple of Finding
    """

    name: str
    documents: tuple[Document, ...] = ()
    unreadable: tuple[str, ...] = ()
    columns: Mapping[str, str]
    libvirt: str | None = None
    qemu: str | None = None
    findings: tuple[Finding, ...] = ()

    def fact(self, column: str) -> Any:
        """What the first document that knows it says of a column of ``fleet.hosts``."""
        return next((d.facts[column] for d in self.documents if column in d.facts), None)

    @property
    def address_bits(self) -> int | None:
        """Physical address bits of the host, or the limit its hypervisor passes on, whichever a document says."""
        for d in self.documents:
            if d.cpu is not None and (given := d.cpu.maxphysaddr) is not None and (given.bits or given.limit):
                return given.bits or given.limit
        return None

    @property
    def arch(self) -> str | None:
        """Architecture of the host; what an emulator was asked for is a guess at it."""
        own = [d.arch for d in self.documents if d.kind in ("capabilities", "cpu")]
        return next((arch for arch in (*own, *(d.arch for d in self.documents)) if arch), None)


@dataclass(frozen=True, slots=True)
class _Piece:
    """One document, or the error in its place, and the host it belongs to; None: the host is listed, no more."""

    host: str
    content: Document | _Failure | None
    libvirt: str | None = None
    qemu: str | None = None
    columns: Mapping[str, str] | None = None


_Failure: TypeAlias = DocumentError | ConnectError


def read_hosts(source: Source, *, hypervisor: bool, virttype: str | None, collect: bool | None) -> list[HostRecord]:
    """Reads a source into one record a host.

    Parameters
    ----------
    source : path, URI, mapping or list
        As in :func:`vmcompat.read_fleet`.
    hypervisor : bool
        Ask live hosts for domain capabilities too, over a connection that may write.
    virttype : str or None
        Which domain capabilities to ask live hosts for.
    collect : bool or None
        Keep what cannot be read as a finding; None: unless the source is a single file or host.

    Returns
    -------
    list of HostRecord
        In input order, folders in natural order.

    Raises
    ------
    DocumentError, ConnectError
        A document cannot be used, and problems are not collected; or a ``hosts.csv`` cannot.
    FrameError
        The source does not exist or is of no known kind.
    """
    if collect is None:
        collect = not isinstance(source, (str, Path)) or os.path.isdir(source)
    hosts: dict[str, list[_Piece]] = {}
    for piece in _pieces(source, hypervisor=hypervisor, virttype=virttype):
        if not collect and isinstance(piece.content, Exception):
            raise piece.content
        hosts.setdefault(piece.host, []).append(piece)
    records = [_join(name, pieces) for name, pieces in hosts.items()]
    if not collect:
        findings = [f for r in records for f in r.findings] + list(shared_uuids(records).values())
        for finding in (f for f in findings if f.severity == "error"):
            raise DocumentError(f"{finding.message}; {finding.remedy}", source=finding.host)
    return records


def is_uri(source: object) -> bool:
    """Whether a source names a live libvirt rather than a file."""
    return isinstance(source, str) and _URI.match(source) is not None


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts h2 before h10."""
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"([0-9]+)", name) if p]


def _pieces(source: Source, *, hypervisor: bool, virttype: str | None) -> Iterator[_Piece]:
    if isinstance(source, Mapping):
        for name, text in source.items():
            if not isinstance(text, (str, bytes)):
                raise FrameError(f"{name}: a {type(text).__name__} is no XML text; give files as a list of paths")
            # half a surrogate pair becomes a byte that the parser refuses
            data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
            yield from _from_bytes(data, host=name, source=name)
    elif is_uri(source):
        yield from _live(str(source), hypervisor=hypervisor, virttype=virttype)
    elif isinstance(source, (str, Path)):
        path = Path(source)
        if os.path.isdir(source):
            yield from _folder(path)
        elif os.path.isfile(source):  # unlike Path.is_file no error where the text is longer than a path may be
            yield from _file(path, host=_host_of(path.name))
        else:
            raise FrameError(
                f"{str(source)[:200]!r}: no file or folder, and no libvirt URI (such as qemu+ssh://host/system); give "
                f"XML text by host name: {{'h1': text}}"
            )
    elif isinstance(source, Iterable):
        for one in source:
            yield from _pieces(one, hypervisor=hypervisor, virttype=virttype)
    else:
        raise FrameError(f"cannot read hosts from a {type(source).__name__}: give a path, a URI, a mapping or a list")


def _host_of(file_name: str) -> str:
    match = _FILE_NAME.fullmatch(file_name)
    return match["host"] if match else file_name


def _folder(folder: Path) -> Iterator[_Piece]:
    """The XML files of a folder itself; the rows of its hosts.csv name the hosts and join their columns."""
    rows = _hosts_csv(folder / HOSTS_CSV)
    by_file = {row.get("file") or host: host for host, row in rows.items()}
    named = []
    for path in sorted(folder.glob("*.xml")):
        if not path.is_dir():
            stem = _host_of(path.name)
            unlisted = path.name if stem in rows else stem  # the table gives that name to another file
            named.append((by_file.get(path.name) or by_file.get(stem) or unlisted, path))
    if not named and not rows:
        raise FrameError(f"{folder}: no *.xml in this folder (subfolders are not read)")
    for host, path in sorted(named, key=lambda n: natural(n[0])):
        row = rows.get(host, {})
        for piece in _file(path, host=host):
            yield replace(piece, columns=row, libvirt=row.get("libvirt") or None, qemu=row.get("qemu") or None)
    read = {host for host, _ in named}
    for host, row in rows.items():
        if host not in read:
            yield _Piece(host, None, row.get("libvirt") or None, row.get("qemu") or None, row)


def _hosts_csv(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a table of hosts by name."""
    if not path.exists():
        return {}

    def wrong(problem: str, line: int | None = None) -> DocumentError:
        return DocumentError(problem, source=str(path), line=line)

    try:
        if path.is_fifo():  # to open a pipe would wait for somebody to write
            raise wrong("is no regular file")
        with path.open("rb") as f:
            data = f.read(MAX_DOCUMENT_BYTES + 1)
        if len(data) > MAX_DOCUMENT_BYTES:
            raise wrong(f"larger than {MAX_DOCUMENT_BYTES} bytes")
        text = data.decode("utf-8-sig")
        if found := CONTROL.search(text):
            raise wrong("holds a control character, which a terminal obeys", text.count("\n", 0, found.start()) + 1)
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = list(table.fieldnames or ())
        if "host" not in columns:
            raise wrong("has no column 'host'; it is a table of comma-separated values with a line of column names", 1)
        if "" in columns or len(set(columns)) < len(columns):
            raise wrong("has a column without name, or two of one name", 1)
        if taken := [c for c in columns if c in _OWN_COLUMNS]:
            raise wrong(f"has columns that documents fill: {', '.join(taken)}; rename or remove them", 1)
        rows: dict[str, dict[str, str]] = {}
        files: set[str] = set()
        for row in table:
            if None in row or None in row.values():
                raise wrong("has more or fewer fields than the header", table.line_num)
            host = row.pop("host")
            file = row.get("file") or host
            if not host or host in rows or file in files:
                raise wrong(f"host {host!r} is empty, or it or its file is named twice", table.line_num)
            rows[host] = row
            files.add(file)
        return rows
    except OSError as e:
        raise wrong(f"cannot be read ({e.strerror})") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise wrong(f"is no UTF-8 table of comma-separated values ({e})") from e


def _file(path: Path, *, host: str) -> Iterator[_Piece]:
    try:
        if path.is_fifo():  # to open one would wait for somebody to write
            raise OSError(errno.EINVAL, "no regular file")
        with path.open("rb") as f:
            data = f.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as e:
        yield _Piece(host, DocumentError(f"cannot be read ({e.strerror})", source=str(path)))
        return
    yield from _from_bytes(data, host=host, source=str(path))


def _from_bytes(data: bytes, *, host: str, source: str) -> Iterator[_Piece]:
    try:
        documents = read_documents(data, source=source)
    except DocumentError as e:
        yield _Piece(host, e)
        return
    kinds = [d.kind for d in documents]
    several = kinds.count("capabilities") + kinds.count("cpu") > 1 or (
        kinds.count("domcapabilities") > 1 and len({_asked(d) for d in documents}) < len(documents)
    )
    for i, document in enumerate(documents, 1):
        yield _Piece(f"{host}#{i}" if several else host, document)


def _asked(document: Document) -> tuple[str | None, ...]:
    return document.kind, document.arch, document.emulator, document.machine, document.virttype


def _live(uri: str, *, hypervisor: bool, virttype: str | None) -> Iterator[_Piece]:
    from vmcompat import connect

    try:
        host = connect.read_host(uri, hypervisor=hypervisor, virttype=virttype)
    except ConnectError as e:
        match = _URI.match(uri)
        yield _Piece(match["host"] if match and match["host"] else connect.shown(uri), e)
        return
    for text in (host.capabilities, *host.domcapabilities):
        for piece in _from_bytes(text.encode(), host=host.name, source=connect.shown(uri)):
            yield replace(piece, host=host.name, libvirt=host.libvirt, qemu=host.qemu)


def _join(name: str, pieces: list[_Piece]) -> HostRecord:
    documents: list[Document] = []
    unreadable: list[str] = []
    findings: list[Finding] = []
    for piece in pieces:
        content = piece.content
        if content is None:
            continue
        if isinstance(content, Document):
            documents.append(content)
            continue
        source = content.source if isinstance(content, DocumentError) else name
        unreadable.append(source)
        remedy = "fetch the document again" if isinstance(content, DocumentError) else "check the URI and the rights"
        findings.append(Finding(name, "unreadable", "error", str(content).removesuffix(f"; {remedy}"), remedy))
    documents, clashes = _without_clashes(name, documents)
    uuids = {str(d.facts["uuid"]) for d in documents if "uuid" in d.facts}
    columns: dict[str, str] = {}
    for piece in pieces:
        columns = {**(piece.columns or {}), **columns}
    listed = columns.get("uuid", "").lower()
    if listed and uuids and listed not in uuids:
        message = f"hosts.csv says UUID {listed}, the capabilities say {', '.join(sorted(uuids))}"
        clashes.append(Finding(name, "uuid_mismatch", "warning", message, "check whose capabilities these are"))
    return HostRecord(
        name=name,
        documents=tuple(documents),
        unreadable=tuple(unreadable) + tuple(f.message for f in clashes if f.severity == "error"),
        columns={k: v for k, v in columns.items() if k not in ("file", "uuid", "libvirt", "qemu")},
        libvirt=next((p.libvirt for p in pieces if p.libvirt), None),
        qemu=next((p.qemu for p in pieces if p.qemu), None),
        findings=(*findings, *clashes),
    )


def _without_clashes(name: str, documents: list[Document]) -> tuple[list[Document], list[Finding]]:
    """Two answers to one question under one name are two hosts: whose the other documents are is not known either."""
    kept: list[Document] = []
    findings: list[Finding] = []
    for key in dict.fromkeys(_asked(d) for d in documents):
        same = list({d.sha256: d for d in documents if _asked(d) == key}.values())
        kept.append(same[0])
        if len(same) > 1:
            message = f"different {key[0]} documents under one name: {' and '.join(d.source for d in same)}"
            findings.append(Finding(name, "duplicate_name", "error", message, "rename or remove one of them"))
    if findings:
        return [], findings
    host_arch = next((d.arch for d in kept if d.kind in ("capabilities", "cpu") and d.arch), None)
    for d in [d for d in kept if d.kind in ("domcapabilities", "qemucaps")]:
        if host_arch is not None and d.arch not in (host_arch, None) and {d.arch, host_arch} != {"i686", "x86_64"}:
            kept.remove(d)
            message = f"{d.source} answers for {d.arch}, the host is {host_arch}: not used"
            remedy = "ask for the host's own architecture"
            findings.append(Finding(name, "arch_mismatch", "warning", message, remedy))
    return kept, findings


def shared_uuids(records: Iterable[HostRecord]) -> dict[str, Finding]:
    """An error for each host whose UUID another one has too, by name."""
    owners: dict[str, list[str]] = {}
    for record in records:
        if (uuid := record.fact("uuid")) is not None:
            owners.setdefault(str(uuid), []).append(record.name)
    remedy = "keep one name for a host, or give cloned hosts a host_uuid of their own in libvirtd.conf"
    return {
        name: Finding(name, "duplicate_uuid", "error", f"UUID {uuid} is that of {', '.join(names)}", remedy)
        for uuid, names in owners.items()
        if len(names) > 1
        for name in names
    }
