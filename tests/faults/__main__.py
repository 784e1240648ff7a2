"""``python -m tests.faults [--repeat N] [--only WORDS] [--again]``, as root: break migrations, and judge."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from tests.faults import client, table
from tests.faults.trial import Cell, Stage, cells, run_trial
from tests.rig import Rig, RigError, RigUnavailable, breakage

_MOST_ATTEMPTS = 3  # for each trial wanted, where the fault comes too late to strike
_FRESH_RIG_AFTER = 60  # trials: what a rig has gone through must not become part of what is tried


def main() -> int:
    """Run what is missing of the wanted trials, and print the table of all."""
    options = _options()
    if options.again:
        print(f"set aside: {table.set_bad_aside(options.results)} trials that ended badly")
    wanted = [cell for cell in cells() if all(word in str(cell) for word in options.only)]
    skipped = {cell.fault.name: why for cell in wanted if (why := cell.fault.missing())}
    wanted = [cell for cell in wanted if cell.fault.name not in skipped]
    # the log of these migrations is not the user's
    os.environ["XDG_STATE_HOME"] = str(options.results.parent.resolve() / "state")
    client.prepare()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores the first
        signal.signal(number, signal.default_int_handler)
    try:
        while todo := _todo(wanted, table.read(options.results), options.repeat):
            print(f"{len(wanted)} cells, {len(todo)} trials to go", flush=True)
            _run(todo[:_FRESH_RIG_AFTER], options.results)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here")
    except RigUnavailable as e:
        print(f"no rig: {e}")
        return 2
    rows = table.read(options.results)
    print(table.table(rows, skipped))
    return 0 if table.passed(rows) else 1


def _todo(wanted: list[Cell], rows: list[table.Row], repeat: int) -> list[tuple[Cell, int]]:
    """What is missing, all cells once before any a second time; each with the number of the attempt."""
    struck = Counter(map(_key, table.struck(rows)))
    attempts = Counter(map(_key, rows))
    return [
        (cell, attempts[str(cell)] + again)
        for round in range(repeat)
        for cell in wanted
        if (again := round - struck[str(cell)]) >= 0 and attempts[str(cell)] + again < _MOST_ATTEMPTS * repeat
    ]


def _key(row: table.Row) -> str:
    return f"{row['fault']}, {row['moment']}, {row['way']}"


def _run(todo: list[tuple[Cell, int]], results: Path) -> None:
    """Run trials on one rig."""
    with Rig({"h1": "SandyBridge", "h2": "Westmere"}) as rig:
        for host in rig.cpus:
            breakage.give_small_disk(rig, host)
        stage = Stage(rig)
        for cell, attempt in todo:
            try:
                row = run_trial(stage, cell, attempt)
            except RigError as e:
                print(f"the rig failed, and is set up anew: {e}", flush=True)
                row = table.rig_failed(cell, str(e))
            at = datetime.now(UTC).isoformat(timespec="seconds")
            table.append(results, {"at": at, "attempt": attempt, "code": table.code_version(), **row})
            print(f"{time.strftime('%H:%M:%S')}  {table.line(row)}", flush=True)
            if row["phase"] == table.RIG_FAILED:
                return


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=main.__doc__)
    parser.add_argument("--repeat", type=int, default=10, metavar="N", help="trials of each cell (10)")
    parser.add_argument("--only", action="append", default=[], metavar="WORDS", help="cells whose name has these words")
    parser.add_argument("--again", action="store_true", help="try anew where trials ended badly")
    parser.add_argument("--results", type=Path, default=table.RESULTS, help=f"({table.RESULTS})")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
