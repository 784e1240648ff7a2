"""What the next audit compares with: the hosts and findings of one report, carried inside its HTML file."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from vmcompat.connect import shown
from vmcompat.errors import DocumentError, FrameError
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.frames import Fleet, read_fleet
from vmcompat.fleet.sources import Source
from vmcompat.schema import CPU_STATUS, HOSTS

_FORMAT: Final = 1
_MAX_BYTES: Final = 64 * 1024 * 1024
_PLACE: Final = re.compile(r'<script\b[^>]*\bid="vmcompat-record"[^>]*>(.*?)</script>', re.DOTALL)
# What a host is compared in, beside its features: columns of fleet.hosts.
FACTS: Final = (
    "cpu_status", "arch", "vendor", "model", "microcode", "family", "model_number", "stepping", "threads", "memory",
    "maxphysaddr", "tsc_frequency", "machines", "uuid", "libvirt", "qemu", "kernel", "bios_date",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Record:
    """Hosts as an audit saw them.

    Attributes
    ----------
    told : str
        Where it comes from, in words.
    view : {"hypervisor", "host"}
    read_as : tuple of str
        Version of the CPU map, virttype, and whether strictly: how the documents were read.
    hosts : DataFrame
        Columns of `FACTS` that were known of some host; index ``host``.
    features, reported : DataFrame
        As those of :class:`~vmcompat.fleet.frames.Fleet`.
    findings : tuple of str
        Ids of what was found.
    has_findings : bool
        False where this is of documents only.
    """

    told: str
    view: str
    read_as: tuple[str, ...]
    hosts: pd.DataFrame
    features: pd.DataFrame
    reported: pd.DataFrame
    findings: tuple[str, ...] = ()
    has_findings: bool = False

    @staticmethod
    def of(fleet: Fleet, *, told: str = "these documents") -> Record:
        """The hosts of a fleet."""
        hosts = fleet.hosts[[column for column in FACTS if column in fleet.hosts]]
        return Record(told=told, view=fleet.view, read_as=_read_as(fleet), hosts=hosts, features=fleet.features,
                      reported=fleet.reported)  # fmt: skip

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all hosts."""
        return tuple(self.hosts.index)

    def script(self, findings: Iterable[str], *, at: str) -> str:
        """The element that carries it inside a report, packed, so that what hosts say cannot end it."""
        kinds: dict[tuple[str, str], int] = {}
        of = {
            host: kinds.setdefault((_hex(self.features.loc[host]), _hex(self.reported.loc[host])), len(kinds))
            for host in self.features.index
        }
        facts = json.loads(self.hosts.to_json(orient="split", double_precision=0))
        data = {"format": _FORMAT, "at": at, "view": self.view, "read_as": self.read_as, "kinds": list(kinds), "of": of,
                "features": list(self.features.columns), "hosts": facts, "findings": list(findings)}  # fmt: skip
        packed = zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 9)
        return f'<script type="text/plain" id="vmcompat-record">{base64.b64encode(packed).decode("ascii")}</script>'


def _read_as(fleet: Fleet) -> tuple[str, ...]:
    return (fleet.cpu_map.version, fleet.virttype, "strict" if fleet.strict else "each with its own map")


def _hex(row: pd.Series) -> str:
    return f"{int(''.join('1' if value else '0' for value in row) or '0', 2):x}"


def read_record(since: Source | Fleet, *, like: Fleet) -> Record:
    """What was before: an earlier report, or earlier documents.

    Parameters
    ----------
    since : path of a report, Fleet, or what :func:`vmcompat.read_fleet` reads
    like : Fleet
        How documents are read: in its view, with its map.

    Raises
    ------
    DocumentError
        An HTML file that is no report of vmcompat's.
    FrameError
        A report made of documents that were read with another CPU map, or otherwise.
    """
    if isinstance(since, Fleet):
        return Record.of(since if since.view == like.view else since.with_view(like.view), told="the earlier documents")
    if isinstance(since, (str, Path)) and str(since).lower().endswith((".html", ".htm")):
        record = _from_report(Path(since), like.cpu_map)
        if record.read_as != _read_as(like):
            ways = [", ".join(way) for way in (record.read_as, _read_as(like))]
            raise FrameError(
                f"{since} was made of documents read otherwise ({ways[0]}) than these ({ways[1]}), so that a change "
                f"cannot be told from another reading; read the fleet as then, or give the earlier documents"
            )
        return record
    fleet = read_fleet(
        since, view=like.view, cpu_map=like.cpu_map, virttype=like.virttype, strict=like.strict, errors="collect"
    )
    told = f"the documents of {shown(str(since))}" if isinstance(since, (str, Path)) else "earlier documents"
    return Record.of(fleet, told=told)


def _from_report(path: Path, cpu_map: CpuMap) -> Record:
    source = str(path)
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as e:
        raise DocumentError(f"cannot read the earlier report: {e}", source=source) from e
    found = _PLACE.search(data.decode("utf-8", errors="replace")) if len(data) <= _MAX_BYTES else None
    if found is None:
        raise DocumentError("not a report that vc.report wrote: there is no record of the hosts in it", source=source)
    try:
        packed = zlib.decompressobj()
        text = packed.decompress(base64.b64decode(found[1], validate=True), _MAX_BYTES)
        if packed.unconsumed_tail:
            raise ValueError(f"larger than {_MAX_BYTES // 2**20} MiB")
        return _from_json(json.loads(text), cpu_map)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, zlib.error) as e:
        raise DocumentError(f"the record in this report is damaged ({e})", source=source) from e


def _from_json(data: dict[str, Any], cpu_map: CpuMap) -> Record:
    if data["format"] != _FORMAT:
        raise ValueError(f"format {data['format']!r}, this version of vmcompat reads {_FORMAT}")
    facts = data["hosts"]
    hosts = pd.DataFrame(facts["data"], index=pd.Index(facts["index"], dtype="str", name="host"),
                         columns=facts["columns"])  # fmt: skip
    hosts["machines"] = hosts["machines"].map(tuple)
    hosts = hosts.astype({column: HOSTS.get(column, "str") for column in hosts.columns})
    if strange := set(hosts["cpu_status"]) - set(CPU_STATUS):
        raise ValueError(f"a host is said to be {min(strange)!r}")
    names, of = [str(f) for f in data["features"]], {str(h): int(k) for h, k in data["of"].items()}
    kinds = [(_row(offered, len(names)), _row(reported, len(names))) for offered, reported in data["kinds"]]
    tables = []
    for which in (0, 1):
        table = pd.DataFrame([kinds[k][which] for k in of.values()], index=pd.Index(of, dtype="str", name="host"),
                             columns=pd.Index(names, dtype="str", name="feature"), dtype="bool")  # fmt: skip
        tables.append(table.reindex(columns=cpu_map.features, fill_value=False))
    return Record(
        told=f"the report of {data['at']}", view=str(data["view"]), read_as=tuple(map(str, data["read_as"])),
        hosts=hosts, features=tables[0], reported=tables[1], findings=tuple(map(str, data["findings"])),
        has_findings=True,
    )  # fmt: skip


def _row(text: str, n: int) -> list[bool]:
    bits = f"{int(text, 16):0{n}b}"
    if len(bits) != n:
        raise ValueError("a host has more features than there are names")
    return [bit == "1" for bit in bits]
