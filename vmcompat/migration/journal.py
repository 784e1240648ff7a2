"""The log of migrations: one line a run, appended when it ends, read back as a frame."""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import pandas as pd

from vmcompat.errors import DocumentError
from vmcompat.migration.order import MigrationResult
from vmcompat.schema import MIGRATION_LOG, frame

_NEWEST: Final = 100_000  # rows that are read
_LINE_BYTES: Final = 2**20
_PASSWORD: Final = re.compile(r"(?<=://)([^/@:?#\s]*):\S*@")  # in a URI, which libvirt's errors may repeat
_LOGGER: Final = logging.getLogger("vmcompat")


def append(result: MigrationResult, *, path: str | Path | None = None) -> None:
    """Adds one run to the log; where that fails, Python's logging says so, and nothing is raised.

    Parameters
    ----------
    result : MigrationResult
    path : str or Path, optional
        Default: ``vmcompat/migrations.jsonl`` in ``$XDG_STATE_HOME``, or in ``~/.local/state``. Made if it is not
        there, for its owner only.
    """
    row = json.dumps({name: _plain(getattr(result, name)) for name in MIGRATION_LOG}) + "\n"
    try:
        place = _place(path)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # read and write, to see whether the last writer was cut off within its line
        file = os.open(place, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(file).st_size
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
            line = ("\n" if torn else "").encode() + row.encode()
            if os.write(file, line) != len(line):  # one call, so that the lines of two writers do not mix
                raise OSError("the disk took only a part of the line")
        finally:
            os.close(file)
    except (OSError, RuntimeError) as e:  # the latter where there is no home
        _LOGGER.warning("the migration of %s is not in the log: %s", result.domain, e)


def log(path: str | Path | None = None) -> pd.DataFrame:
    """The runs so far, as :meth:`MigrationPlan.run` logged them, oldest first.

    Parameters
    ----------
    path : str or Path, optional
        Default: where runs log to, ``vmcompat/migrations.jsonl`` in ``$XDG_STATE_HOME``, or in ``~/.local/state``.

    Returns
    -------
    DataFrame
        Of ``schema.MIGRATION_LOG``, at most the newest 100,000 runs; empty before the first. What a row of an older
        vmcompat does not have is missing, and what one of a newer adds is left out.

    Warns
    -----
    UserWarning
        Lines that are no rows, by number. All others are read.

    Raises
    ------
    DocumentError
        The file cannot be read, or ``path`` names none.
    """
    try:
        place = _place(path)
        with place.open("rb") as file:
            rows, damaged = _rows(file)
    except FileNotFoundError as e:
        if path is None:
            return frame(MIGRATION_LOG, [])
        raise DocumentError("there is no such log", source=str(path)) from e
    except (OSError, RuntimeError) as e:
        raise DocumentError(f"the log of migrations cannot be read: {e}", source=str(path or "")) from e
    if damaged:
        shown = ", ".join(map(str, damaged[:10])) + (", ..." if len(damaged) > 10 else "")
        warnings.warn(
            f"{place}: {len(damaged)} lines are no rows of the log and were left out, by number: {shown}",
            UserWarning,
            stacklevel=2,
        )
    return frame(MIGRATION_LOG, rows)


def _place(path: str | Path | None) -> Path:
    if path is not None:
        return Path(path)
    state = os.environ.get("XDG_STATE_HOME", "")
    # by the XDG specification a relative one does not count
    folder = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return folder / "vmcompat" / "migrations.jsonl"


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _PASSWORD.sub(r"\1@", value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _rows(file: IO[bytes]) -> tuple[deque[dict[str, Any]], list[int]]:
    rows: deque[dict[str, Any]] = deque(maxlen=_NEWEST)
    damaged = []
    for number, line in enumerate(_lines(file), 1):
        try:
            if line.strip():
                rows.append(_row(line))
        except (ValueError, RecursionError):
            damaged.append(number)
    return rows, damaged


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file; of one that is too long to be a row only the beginning, which is none either."""
    while line := file.readline(_LINE_BYTES):
        rest = line
        while len(rest) == _LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(_LINE_BYTES)
        yield line


def _row(line: bytes) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict) or not isinstance(row.get("domain"), str):
        raise ValueError("no row")
    return {name: _value(row.get(name), dtype) for name, dtype in MIGRATION_LOG.items()}


def _value(value: Any, dtype: str) -> Any:
    """What stands in a row, as the frame takes it; ValueError where it is of another kind."""
    match dtype, value:
        case _, None:
            return None
        case "boolean", bool():
            return value
        case "Int64", int() if not isinstance(value, bool) and abs(value) < 2**63:
            return value
        case "float64", int() | float() if not isinstance(value, bool) and abs(value) < 2**63:
            return float(value)
        case "str", str():
            return _text(value)
        case "object", list() if all(isinstance(each, str) for each in value):
            return tuple(_text(each) for each in value)
        case "datetime64[us, UTC]", str():
            return pd.Timestamp(datetime.fromisoformat(value).astimezone(UTC)).as_unit("us")
    raise ValueError(f"{value!r} is no {dtype}")


def _text(value: str) -> str:
    """Without what no file can hold: halves of characters, which JSON can name."""
    return value.encode(errors="backslashreplace").decode()
