"""Findings that somebody answers for: read from a table, shown as waived, and red again when their time is up."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from vmcompat.errors import DocumentError

COLUMNS: Final = ("finding", "owner", "expiry", "reason")
_MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """One finding that its owner knows of.

    Attributes
    ----------
    finding : str
        Its id in the report; one waiver is for one finding, so that it never covers what comes later.
    owner, reason : str
    expiry : date
        The last day on which it holds.
    """

    finding: str
    owner: str
    expiry: date
    reason: str

    def holds(self, at: date) -> bool:
        """Whether it has not expired on that day."""
        return at <= self.expiry


def read_waivers(path: str | Path) -> tuple[Waiver, ...]:
    """Reads a table of waivers.

    Parameters
    ----------
    path : str or Path
        CSV with the columns ``finding``, ``owner``, ``expiry`` (as 2027-03-31) and ``reason``; others are ignored.

    Returns
    -------
    tuple of Waiver
        In the order of the file.

    Raises
    ------
    DocumentError
        The file cannot be read, lacks a column, or a row has no finding, owner or reason, no such date, or the finding
        of another row: a waiver that nobody can be asked about silences nothing.
    """
    source = str(path)
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise DocumentError(f"larger than {_MAX_BYTES // 2**20} MiB", source=source)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise DocumentError(f"cannot read the waivers: {e}", source=source) from e
    rows = csv.DictReader(io.StringIO(text), strict=True)
    try:
        absent = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if absent:
            raise DocumentError(f"no column {', '.join(absent)}; it needs {', '.join(COLUMNS)}", source=source, line=1)
        return tuple(_unique(((rows.line_num, _waiver(row, source, rows.line_num)) for row in rows), source))
    except csv.Error as e:
        raise DocumentError(f"no CSV: {e}", source=source, line=rows.line_num) from e


def _waiver(row: dict[str, str | None], source: str, line: int) -> Waiver:
    finding, owner, expiry, reason = ((row[column] or "").strip() for column in COLUMNS)
    for column, value in zip(COLUMNS, (finding, owner, expiry, reason), strict=True):
        if not value:
            raise DocumentError(f"a waiver without {column}", source=source, line=line)
    try:
        return Waiver(finding=finding, owner=owner, expiry=date.fromisoformat(expiry), reason=reason)
    except ValueError:
        raise DocumentError(f"expiry {expiry!r} is no date such as 2027-03-31", source=source, line=line) from None


def _unique(waivers: Iterable[tuple[int, Waiver]], source: str) -> Iterable[Waiver]:
    first: dict[str, int] = {}
    for line, waiver in waivers:
        if waiver.finding in first:
            raise DocumentError(
                f"{waiver.finding} is waived in line {first[waiver.finding]} already", source=source, line=line
            )
        first[waiver.finding] = line
        yield waiver
