"""The command ``vmcompat``: each subcommand is one call of the front door."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import vmcompat as vc
from vmcompat.connect import shown
from vmcompat.errors import DocumentError, VmcompatError

_MAX_BYTES = 1024 * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the command line.

    Returns
    -------
    int
        0, or 1 after an error that was told in one line.
    """
    parser = _parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    asked = parser.parse_args(given)
    day = asked.at or datetime.now(UTC).date().isoformat()
    try:
        fleet = vc.read_fleet(
            asked.fleet[0] if len(asked.fleet) == 1 else asked.fleet, view=asked.view, errors="collect"
        )
        path = vc.report(
            fleet,
            asked.output,
            title=asked.title,
            domains=asked.domains,
            baseline=_baseline(asked.baseline),
            since=asked.since,
            waivers=asked.waivers,
            pdf=asked.pdf,
            at=day,
            by=asked.by,
            alike=asked.alike,
            notebook=asked.notebook,
            progress=not asked.quiet,
            command=shlex.join(["vmcompat", *map(shown, given), *([] if asked.at else ["--at", day])]),
        )
    except (VmcompatError, OSError) as e:
        # a terminal would obey what a file's name or a table of strangers tells it
        print("vmcompat:", "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in str(e)), file=sys.stderr)
        return 1
    print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vmcompat", description=vc.__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    report = commands.add_parser(
        "report",
        help="write the audit of a fleet as one HTML file",
        description="Writes the audit of a fleet as one HTML file that opens offline, and its tables beside it.",
    )
    add = report.add_argument
    add("fleet", nargs="+", help="folder or files of virsh capabilities and domcapabilities, or libvirt URIs")
    add("-o", "--output", required=True, metavar="FILE", help="the HTML file to write, such as audit.html")
    add("--title")
    add("--domains", metavar="PATH", help="folder of the guests' XML; without it guests are not judged")
    of = "<cpu> XML that is deployed: on all hosts, or on those whose --by column has the value; may be repeated"
    add("--baseline", action="append", default=[], metavar="[VALUE=]FILE", help=of)
    add("--since", metavar="PATH", help="an earlier report, or a folder of earlier documents, to compare with")
    add("--waivers", metavar="FILE", help="CSV of finding, owner, expiry, reason")
    add("--at", metavar="DAY", help="the day of the audit, as 2026-11-24 (default: today)")
    add("--by", metavar="COLUMN", help="column of hosts.csv that says which hosts swap guests (default: rack)")
    add("--alike", action="append", metavar="COLUMN", help="column that identical hosts share; may be repeated")
    add("--view", choices=["hypervisor", "host"], help="what is audited (default: hypervisor where it is known)")
    add("--notebook", metavar="FILE", help="a changed copy of fleet_audit.ipynb to execute")
    add("--pdf", action="store_true", help="print it with Chromium too")
    add("-q", "--quiet", action="store_true", help="do not tell the sections as they are made")
    return parser


def _baseline(given: Sequence[str]) -> str | Mapping[str, str] | None:
    """The text of one file, or of one for each value."""
    pairs = [word.partition("=") if "=" in word and not Path(word).is_file() else ("", "", word) for word in given]
    if not pairs:
        return None
    named = {value: _text(Path(file)) for value, _, file in pairs}
    if len(named) < len(pairs) or ("" in named and len(named) > 1):
        raise VmcompatError("--baseline: give one file for all hosts, or VALUE=FILE once for each value")
    return named.get("") or named


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_MAX_BYTES)
    except (OSError, UnicodeDecodeError) as e:
        raise DocumentError(f"cannot read the deployed baseline: {e}", source=str(path)) from e


if __name__ == "__main__":
    sys.exit(main())
