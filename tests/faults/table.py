"""The results: one line of JSON a trial, and the table of what they came to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import vmcompat
from tests.faults.trial import MISSED, Cell, cells

RESULTS: Final = Path("build/faults/results.jsonl")
_COLUMNS: Final = ("tried", "lost", "twice", "stuck", "untold", "loss said", "typed", "elsewhere")
_BARS: Final = ("lost", "twice", "stuck")

Row: TypeAlias = Mapping[str, Any]

RIG_FAILED: Final = "rig failed"


def code_version() -> str:
    """Of the modules that a migration runs through: a trial proves nothing of any other."""
    package = Path(vmcompat.__file__).parent
    files = [package / "connect.py", *sorted((package / "migration").glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:10]


def append(path: Path, row: Row) -> None:
    """Add a trial."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def read(path: Path) -> list[Row]:
    """All trials so far; a last line that an interrupted run left half written does not count."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def struck(rows: Iterable[Row]) -> list[Row]:
    """The trials in which the fault struck; of the others nothing is learnt."""
    return [row for row in rows if row["phase"] not in (MISSED, RIG_FAILED)]


def rig_failed(cell: Cell, why: str) -> dict[str, Any]:
    """The row of a trial that the rig did not live through: no result."""
    return {"fault": cell.fault.name, "moment": cell.moment, "way": cell.way, "phase": RIG_FAILED, "seconds": 0.0,
            "outcome": "", "typed": [], "problems": [why]}  # fmt: skip


def line(row: Row) -> str:
    """One trial for people who watch."""
    said = "; ".join(row["problems"]) or "ok"
    typed = f", typed {len(row['typed'])}" if row["typed"] else ""
    cell = f"{row['fault']}, {row['moment']}, {row['way']}"
    return f"{row['seconds']:5.1f} s  {cell} (struck in {row['phase']}): {row['outcome']}{typed}: {said}"


def set_bad_aside(path: Path) -> int:
    """Move the trials that ended badly to a file beside it, so that their cells are tried anew; how many."""
    rows = read(path)
    bad = [row for row in rows if row["problems"]]
    for row in bad:
        append(path.with_name("set-aside.jsonl"), row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if not row["problems"]))
    return len(bad)


def counts(rows: Iterable[Row]) -> dict[str, int]:
    """Of some trials: the columns of the table."""
    rows = list(rows)
    return {
        "tried": len(rows),
        "lost": sum(row["lost"] and not row["reported"] for row in rows),
        "twice": sum(row["twice"] for row in rows),
        "stuck": sum(row["stuck"] for row in rows),
        "untold": sum(not row["told"] for row in rows),
        "loss said": sum(row["reported"] for row in rows),
        "typed": sum(bool(row["typed"]) for row in rows),
        "elsewhere": sum(row["phase"] not in (row["moment"], "before") for row in rows),
    }


def table(rows: Sequence[Row], skipped: Mapping[str, str]) -> str:
    """Everything in a table for people: one line a cell, and the sum."""
    rig_failures = sum(row["phase"] == RIG_FAILED for row in rows)
    missed = sum(row["phase"] == MISSED for row in rows)
    rows = struck(rows)
    head = ("fault", "moment", "way", *_COLUMNS)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["fault"], row["moment"], row["way"]), []).append(row)
    order = [(cell.fault.name, cell.moment, cell.way) for cell in cells()]
    lines = [(*cell, *map(str, counts(groups[cell]).values())) for cell in order if cell in groups]
    lines.append(("all", "", "", *map(str, counts(rows).values())))
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    text = [
        "  ".join(
            cell.ljust(w) if n < 3 else cell.rjust(w) for n, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in (head, *lines)
    ]
    text.insert(1, "-" * len(text[0]))
    text.insert(-1, text[1])
    versions = len({row["code"] for row in rows})
    text += [
        "",
        "untold: not told where the guest is; loss said: it could not be saved, and that was said; typed: the person",
        "had to type what the message or recover() said; elsewhere: the fault struck in another phase than meant.",
        f"{len(rows)} trials of {versions} version{'s' if versions != 1 else ''} of vmcompat; not counted: {missed} in "
        f"which the fault came too late to strike, {rig_failures} in which the rig itself failed",
        *(f"not run here: {fault}: {why}" for fault, why in skipped.items()),
    ]
    return "\n".join(text)


def passed(rows: Sequence[Row]) -> bool:
    """Whether no guest was lost or ran twice, and nothing was left stuck."""
    total = counts(struck(rows))
    return not any(total[bar] for bar in _BARS)
