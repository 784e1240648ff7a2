"""What there is to read of guests, piece by piece: files, folders with their table, texts, and hosts that answer."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from vmcompat.errors import DocumentError, FrameError
from vmcompat.fleet.cpu import parse_xml
from vmcompat.fleet.sources import CONTROL, is_uri, natural
from vmcompat.migration.domain import Domain, domain_of
from vmcompat.migration.inventory import Ties, guests_of, ties

DomainSource: TypeAlias = str | Path | Mapping[str, str | bytes] | Iterable["str | Path"]

DOMAINS_CSV: Final = "domains.csv"
MAX_BYTES: Final = 8 * 1024 * 1024  # of a domain's XML, and of the table
_COLUMNS: Final = ("host", "state", "manager")
_HOST_DOCUMENTS: Final = ("capabilities", "domainCapabilities", "qemuCaps", "cpu")


@dataclass(frozen=True, slots=True)
class Piece:
    """One document, or the error in its place, or a row of the table alone; ``row`` is None without a table."""

    name: str
    content: Domain | DocumentError | None
    live: bool = False
    source: str = ""
    sha256: str = ""
    row: Mapping[str, str] | None = None
    ties: Ties = field(default_factory=Ties)


def pieces_of(source: DomainSource) -> Iterator[Piece]:
    """All that a source holds of guests, in its order; what cannot be read is a piece too.

    Raises
    ------
    FrameError
        The source does not exist, or is of no kind that can be read.
    DocumentError
        The table of a folder cannot be used.
    ConnectError
        A host does not answer.
    """
    if isinstance(source, Mapping):
        for name, text in source.items():
            if not isinstance(text, (str, bytes)):
                raise FrameError(f"{name}: a {type(text).__name__} is no XML text; give files as a list of paths")
            # half a surrogate pair becomes a byte that the parser refuses
            data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
            yield from _from_bytes(data, stem=str(name), source=str(name))
    elif is_uri(source):
        yield from _live(str(source))
    elif isinstance(source, (str, Path)):
        if os.path.isdir(source):
            yield from _folder(Path(source))
        elif os.path.isfile(source):  # unlike Path.is_file no error where the text is longer than a path may be
            yield from _file(Path(source))
        else:
            raise FrameError(
                f"{str(source)[:200]!r}: no file or folder, and no libvirt URI (such as qemu+ssh://host/system); give "
                f"XML text by name: {{'web1': text}}"
            )
    elif isinstance(source, Iterable):
        for one in source:
            yield from pieces_of(one)
    else:
        raise FrameError(f"cannot read guests from a {type(source).__name__}: give a path, a URI, a mapping or a list")


def _live(uri: str) -> Iterator[Piece]:
    """What a host says of its guests: a piece for each document, all with the guest's row and what ties it down."""
    from vmcompat.connect import open_host

    with open_host(uri) as host:
        for guest in guests_of(host):
            row = {"host": host.name, "state": guest.state}
            found = [
                piece
                for xml in (guest.live, guest.stored)
                if xml is not None
                for piece in _from_bytes(xml.encode(), stem=guest.name, source=f"{host.uri} {guest.name}")
            ]
            live = next((p.content for p in found if p.live and isinstance(p.content, Domain)), None)
            kept = ties(host, guest.handle, live)
            for piece in found:
                yield replace(piece, row=row, ties=kept)


def _folder(folder: Path) -> Iterator[Piece]:
    table = folder / DOMAINS_CSV
    rows = _table(table) if table.exists() else None
    paths = sorted((p for p in folder.glob("*.xml") if not p.is_dir()), key=lambda p: natural(p.name))
    if not paths and rows is None:
        raise FrameError(f"{folder}: no *.xml in this folder (subfolders are not read)")
    for name, row in (rows or {}).items():
        yield Piece(name, None, row=row)
    for path in paths:
        for piece in _file(path):
            yield piece if rows is None else replace(piece, row=rows.get(piece.name, {}))


def _table(path: Path) -> dict[str, dict[str, str]]:
    def wrong(problem: str, line: int | None = None) -> DocumentError:
        return DocumentError(problem, source=str(path), line=line)

    try:
        text = _bytes(path).decode("utf-8-sig")
        if found := CONTROL.search(text):
            raise wrong("holds a control character, which a terminal obeys", text.count("\n", 0, found.start()) + 1)
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = list(table.fieldnames or ())
        if "domain" not in columns or len(set(columns)) < len(columns):
            raise wrong("has no column 'domain', or two of one name; its first line has the names of its columns", 1)
        rows: dict[str, dict[str, str]] = {}
        for row in table:
            if None in row or None in row.values():
                raise wrong("has more or fewer fields than the header", table.line_num)
            name = row["domain"]
            if not name or name in rows:
                raise wrong(f"domain {name!r} is empty or there twice; give each host a folder", table.line_num)
            rows[name] = {c: row[c].strip() for c in _COLUMNS if c in columns}
        return rows
    except OSError as e:
        raise wrong(f"cannot be read ({e.strerror})") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise wrong(f"is no UTF-8 table of comma-separated values ({e})") from e


def _bytes(path: Path) -> bytes:
    if path.is_fifo():  # to open one would wait for somebody to write
        raise DocumentError("is no regular file", source=str(path))
    with path.open("rb") as f:
        data = f.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DocumentError(f"larger than {MAX_BYTES} bytes", source=str(path))
    return data


def _file(path: Path) -> Iterator[Piece]:
    stem = path.name.removesuffix(".xml").removesuffix(".inactive")
    try:
        data = _bytes(path)
    except OSError as e:
        yield Piece(stem, DocumentError(f"cannot be read ({e.strerror})", source=str(path)), source=str(path))
    except DocumentError as e:
        yield Piece(stem, e, source=str(path))
    else:
        yield from _from_bytes(data, stem=stem, source=str(path))


def _from_bytes(data: bytes, *, stem: str, source: str) -> Iterator[Piece]:
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        if len(data) > MAX_BYTES:
            raise DocumentError(f"larger than {MAX_BYTES} bytes", source=source)
        if not data.strip():
            raise DocumentError("the file is empty", source=source)
        root = parse_xml(data, source=source)
        if root.tag in _HOST_DOCUMENTS:  # of a host: no guest is lost with it
            return
        domain = domain_of(root, xml=_text(data, source), source=source)
    except DocumentError as e:
        yield Piece(stem, e, source=source, sha256=sha256)
        return
    yield Piece(domain.name or stem, domain, live=root.get("id") is not None, source=source, sha256=sha256)


def _text(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise DocumentError(f"is not UTF-8, in which libvirt writes ({e.reason})", source=source) from e
