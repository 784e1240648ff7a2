"""Guests of the sample fleet's second rack, as many and as large as a test wants them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import vmcompat as vc
from vmcompat.migration.domains import Domains

GIB = 1 << 20  # [KiB]
RACK = ["ams-r2-h01", "ams-r2-h02", "ams-r2-h04", "ams-r2-h05"]  # alike, so that only room decides


@dataclass(frozen=True, kw_only=True)
class Person:
    """A guest: where, how large [GiB] (None: its XML does not say), and in which state (None: no table says).

    Without a name or UUID it has its own; ``live`` is whether its XML is that of a running guest.
    """

    host: str | None = RACK[0]
    gib: int | None = 4
    vcpus: int = 1
    state: str | None = "running"
    live: bool = True
    name: str = ""
    uuid: str = ""
    huge_pages: bool = False


def crowd(samples: Path, people: Mapping[str, Person]) -> Domains:
    text = (samples / "mixed" / "domains" / "app-01.xml").read_text()
    records = []
    for number, (key, one) in enumerate(people.items(), 1):
        memory = "" if one.gib is None else f"<memory unit='GiB'>{one.gib}</memory>"
        memory += "<memoryBacking><hugepages/></memoryBacking>" if one.huge_pages else ""
        xml = re.sub(r"<memory unit.*\n.*</currentMemory>", memory, text)
        xml = xml.replace("<name>app-01<", f"<name>{one.name or key}<")
        xml = re.sub(r"<uuid>[^<]*", f"<uuid>{one.uuid or f'{number:08x}-2341-59eb-b5c5-164e04de2c2f'}", xml)
        xml = re.sub(r"(<vcpu[^>]*>)8<", rf"\g<1>{one.vcpus}<", xml)
        xml = re.sub(r"\s*<topology[^>]*>", "", xml)
        xml = xml if one.live else xml.replace(" id='42'", "")
        (record,) = vc.read_domains({key: xml}).records
        records.append(replace(record, name=key, host=one.host, state=one.state))
    return Domains(records=tuple(records))
