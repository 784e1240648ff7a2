"""Rebuild every document of sample_caps from the tables in facts/, byte for byte.

``python -m sample_caps.generate`` writes the files, ``--check`` only says which differ from the tables.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

from sample_caps.writer import facts
from sample_caps.writer.capabilities import capabilities
from sample_caps.writer.domain import domain, has_stored_definition
from sample_caps.writer.domcapabilities import domcapabilities
from sample_caps.writer.guest_cpu import guests
from sample_caps.writer.markup import document

HERE = Path(__file__).resolve().parent

# Columns of hosts.csv that a planner has; the other columns of the table are the generator's own.
HOST_COLUMNS = (
    "host", "rack", "site", "os", "libvirt", "qemu", "kernel", "server", "bios_date", "purchased",
)  # fmt: skip
DOMAIN_COLUMNS = ("domain", "host", "state", "manager")
TRUNCATED = "ams-r3-h08.domcapabilities.xml"


def documents() -> dict[str, bytes]:
    """Every generated file: path below sample_caps to its bytes."""
    files: dict[str, bytes] = {}
    for host in facts.hosts("pair.csv").values():
        files[f"virsh_pair/{host.name}.capabilities.xml"] = document(capabilities(host), spaced=True)
    for host in facts.hosts().values():
        files[f"mixed/{host.name}.capabilities.xml"] = document(capabilities(host), spaced=True)
        files[f"mixed/{host.name}.domcapabilities.xml"] = document(domcapabilities(host))
    whole = files[f"mixed/{TRUNCATED}"]
    files[f"mixed/{TRUNCATED}"] = whole[: len(whole) // 2]
    hosts = [{name: host.row[name] for name in HOST_COLUMNS} for host in facts.hosts().values()]
    files["mixed/hosts.csv"] = table(hosts)
    for guest in guests():
        path = f"mixed/domains/{guest.name}"
        files[f"{path}.xml"] = document(domain(guest, live=guest.runs))
        if guest.runs and has_stored_definition(guest):
            files[f"{path}.inactive.xml"] = document(domain(guest, live=False))
    files["mixed/domains/domains.csv"] = table([{c: guest.row[c] for c in DOMAIN_COLUMNS} for guest in guests()])
    return files


def committed() -> dict[str, bytes]:
    """The files that are there now, but for the READMEs: what `documents` is compared with."""
    paths = [path for fleet in ("virsh_pair", "mixed") for path in (HERE / fleet).rglob("*") if path.is_file()]
    return {str(path.relative_to(HERE)): path.read_bytes() for path in paths if path.name != "README.md"}


def table(rows: list[dict[str, str]]) -> bytes:
    """Rows as the bytes of a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def main() -> int:
    """Write what differs, or with ``--check`` only name it; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file differs")
    check = parser.parse_args().check
    files = documents()
    present = committed()
    stray = sorted(set(present) - set(files))
    changed = [name for name, data in files.items() if present.get(name) != data]
    for name in stray:
        print(f"not from the tables: {name}")
    for name in changed:
        print(f"{'differs' if check else 'written'}: {name}")
        if not check:
            (HERE / name).parent.mkdir(parents=True, exist_ok=True)
            (HERE / name).write_bytes(files[name])
    print(f"{len(files)} files, {len(changed)} {'differ' if check else 'written'}, {len(stray)} stray")
    return 1 if stray or (check and changed) else 0


if __name__ == "__main__":
    sys.exit(main())
