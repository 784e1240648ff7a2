"""The machines: processors of ``cpus.toml``, hosts of ``hosts.csv``."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sample_caps.writer.models import model_features, model_vendor
from sample_caps.writer.tables import Version, rows, toml, version


@dataclass(frozen=True)
class Processor:
    """A physical x86 processor: ``features`` is everything that its CPUID and feature MSRs say."""

    name: str
    vendor: str
    signature: tuple[int, int, int] | None
    features: frozenset[str]
    microcode: int
    cores: int
    dies: int
    l3_mib: int
    tsc_khz: int
    physical_bits: int
    tsc_scaling: bool


@dataclass(frozen=True)
class Host:
    """A row of ``hosts.csv``."""

    name: str
    row: Mapping[str, str]

    @property
    def libvirt(self) -> Version:
        """The libvirt whose documents are imitated."""
        return version(self.row["libvirt"])

    @property
    def qemu(self) -> Version:
        """The QEMU that this libvirt asks."""
        return version(self.row["qemu"])

    @property
    def kernel(self) -> Version:
        """The kernel, and with it KVM."""
        return version(self.row["kernel"])

    @property
    def arch(self) -> str:
        """The architecture in libvirt's name for it."""
        return {"power9": "ppc64le", "z15": "s390x"}.get(self.row["cpu"], "x86_64")

    @property
    def has_kvm(self) -> bool:
        """False where virtualization is off in the BIOS."""
        return self.row["nested"] != "off"

    @property
    def nested(self) -> bool:
        """Whether KVM gives its guests vmx or svm."""
        return self.row["nested"] == "yes"

    @property
    def sockets(self) -> int:
        """Processors of the machine."""
        return int(self.row["sockets"])

    @property
    def hugepages_1g(self) -> int:
        """Pages of 1 GiB reserved in each NUMA cell."""
        return int(self.row["hugepages_1g"])

    @property
    def uuid(self) -> str:
        """Made from the name: the same in every run."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.example.net"))

    def noise(self, of: str, upto: int) -> int:
        """A number below ``upto`` that differs between hosts and never between runs."""
        return uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}/{of}").int % upto

    @property
    def tsc_hz(self) -> int:
        """The frequency that KVM measured, in Hz, rounded to kHz as KVM does."""
        nominal = processor(self.row["cpu"]).tsc_khz * 1000
        return nominal + nominal * int(self.row["tsc_offset_ppm"]) // 1_000_000 // 1000 * 1000

    @property
    def tsc_scaling(self) -> bool:
        """The two hosts whose TSC is far off cannot scale: else they would be no finding."""
        return processor(self.row["cpu"]).tsc_scaling and abs(int(self.row["tsc_offset_ppm"])) < 100


@cache
def hosts(name: str = "hosts.csv") -> Mapping[str, Host]:
    """The hosts of a table by their names, in its order."""
    return {row["host"]: Host(row["host"], row) for row in rows(name)}


@cache
def processor(key: str) -> Processor:
    """The processor of that key in ``cpus.toml``, everything that it inherits resolved."""
    table = toml("cpus.toml")
    chain = [table[key]]
    while "base" in chain[-1]:
        chain.append(table[chain[-1]["base"]])
    entry: dict[str, Any] = {}
    features: set[str] = set()
    like = ""
    for part in reversed(chain):
        if "like" in part:
            like = part["like"]
            features |= model_features(like, (6, 0))
        for name in part.get("sets", ()):
            features.update(table["sets"][name].split())
        features.update(part.get("plus", "").split())
        for name in part.get("minus_sets", ()):
            features.difference_update(table["sets"][name].split())
        features.difference_update(part.get("minus", "").split())
        entry.update(part)
    return Processor(
        name=entry["name"],
        vendor=entry.get("vendor") or model_vendor(like),
        signature=tuple(entry["signature"]) if "signature" in entry else None,
        features=frozenset(features),
        microcode=entry["microcode"],
        cores=entry["cores"],
        dies=entry.get("dies", 1),
        l3_mib=entry["l3_mib"],
        tsc_khz=entry["tsc_khz"],
        physical_bits=entry["physical_bits"],
        tsc_scaling=entry.get("tsc_scaling", False),
    )
