"""Fleets of any size that look like fleets: seeded, from the CPU map and the processors of the sample fleets.

A fleet is bought in batches of one processor each; a batch is set up alike and gets microcode and kernels in waves; a
hundredth of the hosts has drifted from its batch: one setting differs, or a wave was missed. The shares are
assumptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from sample_caps.writer.facts import hosts as sample_hosts
from sample_caps.writer.facts import processor
from sample_caps.writer.tables import toml
from vmcompat.baseline.lattice import Table, Words, pack
from vmcompat.fleet.cpu import Cpu
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import Reading
from vmcompat.fleet.frames import Fleet
from vmcompat.fleet.records import Document
from vmcompat.fleet.sources import HostRecord

Ints = npt.NDArray[np.int64]

DRIFT: Final = 0.01
BATCHES: Final = 0.8  # times the square root of the number of hosts

SKEW: Final = 1.5  # of the sizes of the batches, whose logarithms are normal

# Share of the batches; the versions of a model that the map names are its steppings.
GENERATIONS: Final = {
    "Westmere": (0.01, "intel vmx-westmere"),
    "SandyBridge": (0.01, "intel vmx-westmere"),
    "IvyBridge": (0.03, "intel vmx-westmere"),
    "Haswell": (0.06, "intel xeon-haswell vmx-westmere vmx-haswell"),
    "Broadwell": (0.10, "intel xeon-haswell vmx-westmere vmx-haswell vmx-broadwell"),
    "Skylake-Server": (0.16, "intel xeon-skylake vmx-westmere vmx-haswell vmx-broadwell vmx-skylake"),
    "Cascadelake-Server": (0.18, "intel xeon-skylake vmx-westmere vmx-haswell vmx-broadwell vmx-skylake"),
    "Cooperlake": (0.02, "intel xeon-skylake vmx-westmere vmx-haswell vmx-broadwell vmx-skylake"),
    "Icelake-Server": (0.14, "intel xeon-skylake vmx-westmere vmx-haswell vmx-broadwell vmx-skylake vmx-icelake"),
    "SapphireRapids": (0.08, "intel xeon-skylake vmx-westmere vmx-haswell vmx-broadwell vmx-skylake vmx-icelake"),
    "GraniteRapids": (0.03, "intel xeon-skylake vmx-westmere vmx-haswell vmx-broadwell vmx-skylake vmx-icelake"),
    "EPYC": (0.04, "naples"),
    "EPYC-Rome": (0.05, "naples rome"),
    "EPYC-Milan": (0.06, "naples rome milan"),
    "EPYC-Genoa": (0.03, "naples rome milan"),
}
RECENT: Final = ("Skylake-Server", "Cascadelake-Server", "Icelake-Server", "SapphireRapids", "GraniteRapids")

# What a setting takes away, and how many batches have it; "vmx" and "svm" stand for all of nesting.
SETTINGS: Final = (
    ("hle rtm", 0.09),
    ("vmx svm", 0.04),
    ("sgx sgxlc sgx1 sgx2 sgx-exinfo sgx-debug sgx-mode64 sgx-provisionkey sgx-tokenkey sgx-kss", 0.09),
    ("intel-pt vmx-entry-load-rtit-ctl vmx-exit-clear-rtit-ctl", 0.07),
    ("avx512f avx512dq avx512cd avx512bw avx512vl avx512vnni avx512vbmi avx512ifma avx512vbmi2", 0.03),
    ("x2apic vmx-apicv-x2apic", 0.04),
    ("pku ospke", 0.04),
    ("monitor", 0.06),
    ("la57", 0.04),
    ("pdcm dtes64 ds ds_cpl", 0.04),
    ("cmt mbm_total mbm_local", 0.04),
    ("rdpid", 0.03),
)
# What each wave brings, and how many batches have come how far: microcode, and the kernel with what its KVM gives.
MICROCODE: Final = ("spec-ctrl stibp ibpb", "ssbd amd-ssbd", "md-clear flush-l1d", "fb-clear", "bhi-ctrl rrsba-ctrl")
KERNELS: Final = ("umip", "arch-capabilities rdctl-no mds-no", "fsrm tsx-ctrl taa-no", "serialize", "fzrm fsrs fsrc")
WAVES: Final = ((MICROCODE, (0.03, 0.05, 0.12, 0.2, 0.25, 0.35)), (KERNELS, (0.03, 0.07, 0.2, 0.3, 0.25, 0.15)))


@dataclass(frozen=True, eq=False)
class Instance:
    """A generated fleet.

    Attributes
    ----------
    cpu_map : CpuMap
    kinds : list of (vendor, model, set of features)
        Each kind of host once.
    kind : int array, one a host
    batch : int array, one a host
    """

    cpu_map: CpuMap
    kinds: list[tuple[str, str, int]]
    kind: Ints
    batch: Ints

    @cached_property
    def vendors(self) -> npt.NDArray[np.object_]:
        """The vendor of each host."""
        return np.array([vendor for vendor, _, _ in self.kinds], dtype=object)[self.kind]

    def rows(self, vendor: str) -> Words:
        """Packed features of that vendor's hosts, one row a host, bits in map order."""
        of_kind = pack(self.cpu_map.rows(bits for _, _, bits in self.kinds))
        chosen: Words = of_kind[self.kind[self.vendors == vendor]]
        return chosen

    def table(self, vendor: str) -> Table:
        """That vendor's hosts without repetition."""
        return Table.of(self.rows(vendor), len(self.cpu_map.features))

    @cached_property
    def hosts(self) -> pd.DataFrame:
        """What ``fleet.hosts`` says of them, as far as baselines ask."""
        n = len(self.kind)
        cores = np.array([16, 20, 24, 32, 40, 48, 56, 64])[self.batch % 8]
        names = np.array([name for _, name, _ in self.kinds], dtype=object)
        return pd.DataFrame(
            {
                "arch": pd.Series(["x86_64"], dtype="str").repeat(n).array,
                "vendor": pd.Series(self.vendors, dtype="str").array,
                "model": pd.Series(names[self.kind], dtype="str").array,
                "cores": pd.array(cores, dtype="Int64"),
                "memory": pd.array(cores * 8 * 2**20, dtype="Int64"),
                "cpu_status": pd.Series(["ok"], dtype="str").repeat(n).array,
                "rack": pd.Series(self.batch // 2, dtype="Int64").array,
            },
            index=self.index,
        )

    @cached_property
    def features(self) -> pd.DataFrame:
        """What ``fleet.features`` says of them."""
        bits = self.cpu_map.rows(bits for _, _, bits in self.kinds)[self.kind]
        columns = pd.Index(self.cpu_map.features, dtype="str", name="feature")
        return pd.DataFrame(bits, index=self.index, columns=columns, copy=False)

    @cached_property
    def index(self) -> pd.Index:
        """Names of the hosts."""
        return pd.Index([f"h{i:07}" for i in range(len(self.kind))], dtype="str", name="host")

    def fleet(self) -> Fleet:
        """As if it had been read from the documents of these hosts."""
        readings = [_reading(self.cpu_map, *kind) for kind in self.kinds]
        cores = self.hosts["cores"].tolist()
        facts = {c: MappingProxyType({"cores": c, "memory": c * 8 * 2**20}) for c in set(cores)}
        records = []
        for name, kind, core, batch in zip(self.index, self.kind, cores, self.batch, strict=True):
            vendor, model, _ = self.kinds[kind]
            document = _document(vendor, model, facts[core])
            records.append(HostRecord(name=name, documents=(document,), columns={"rack": str(batch // 2)}))
        return Fleet(
            view="host",
            cpu_map=self.cpu_map,
            virttype="kvm",
            strict=False,
            records=tuple(records),
            readings=tuple(readings[kind] for kind in self.kind),
        )


def _document(vendor: str, model: str, facts: MappingProxyType[str, object]) -> Document:
    cpu = Cpu(arch="x86_64", model=model, vendor=vendor)
    return Document(kind="capabilities", source="generated", sha256="", arch="x86_64", cpu=cpu, facts=facts)


def _reading(cpu_map: CpuMap, vendor: str, model: str, bits: int) -> Reading:
    document = _document(vendor, model, MappingProxyType({}))
    cpu = document.cpu
    return Reading(
        status="ok", document=document, cpu=cpu, model_vendor=vendor, offered=bits, reported=cpu_map.everything
    )


def instance(n_hosts: int, *, seed: int = 0, generations: tuple[str, ...] = tuple(GENERATIONS)) -> Instance:
    """A fleet of that many hosts; the same for the same arguments.

    Parameters
    ----------
    n_hosts : int
    seed : int
    generations : tuple of str
        Which of `GENERATIONS` are bought.
    """
    rng = np.random.default_rng(seed)
    cpu_map = CpuMap.load()
    cpus, shares = _cpus(cpu_map, generations)
    n_batches = max(2, round(BATCHES * n_hosts**0.5))
    sizes = rng.lognormal(sigma=SKEW, size=n_batches)
    batch = np.sort(rng.choice(n_batches, n_hosts, p=sizes / sizes.sum()))
    cpu = rng.choice(len(cpus), n_batches, p=shares)[batch]
    switched = (rng.random((n_batches, len(SETTINGS))) < [share for _, share in SETTINGS])[batch]
    reached = [rng.choice(len(shares), n_batches, p=shares)[batch] for _, shares in WAVES]
    drifted = np.flatnonzero(rng.random(n_hosts) < DRIFT)
    how = rng.integers(0, len(WAVES) + 1, len(drifted))
    for i, (_, came) in enumerate(WAVES):
        reached[i][drifted[how == i]] = rng.choice(len(came), int((how == i).sum()), p=came)
    switch = drifted[how == len(WAVES)]
    switched[switch, rng.integers(0, len(SETTINGS), len(switch))] ^= True
    code = switched @ (1 << np.arange(len(SETTINGS)))
    for facts, n in zip((*reached, cpu), (*(len(came) for _, came in WAVES), len(cpus)), strict=True):
        code = code * n + facts
    _, first, kind = np.unique(code, return_index=True, return_inverse=True)
    kinds = [_kind(cpu_map, cpus[cpu[i]], [r[i] for r in reached], switched[i]) for i in first]
    return Instance(cpu_map, kinds, kind.astype(np.int64), batch.astype(np.int64))


def _kind(
    cpu_map: CpuMap, cpu: tuple[str, str, int], reached: list[int], switched: Iterable[int]
) -> tuple[str, str, int]:
    vendor, model, bits = cpu
    gone = [names for (names, _), off in zip(SETTINGS, switched, strict=True) if off]
    gone += [names for (waves, _), came in zip(WAVES, reached, strict=True) for names in waves[came:]]
    names = set(" ".join(gone).split())
    if "vmx" in names:
        names |= {name for name in cpu_map.features if name.startswith("vmx-")}
    return vendor, model, bits & ~cpu_map.set_of(names) & ~cpu_map.blocked


def _cpus(cpu_map: CpuMap, generations: tuple[str, ...]) -> tuple[list[tuple[str, str, int]], npt.NDArray[np.float64]]:
    """Processors as (vendor, model, set of features) with their shares: steppings of the map, and sample fleets'."""
    cpus, shares = [], []
    sampled = _sampled()
    for name in generations:
        share, sets = GENERATIONS[name]
        vendor = cpu_map.model(name).vendor or ""
        extra = cpu_map.set_of(f for s in sets.split() for f in toml("cpus.toml")["sets"][s].split())
        extra |= cpu_map.set_of(f for wave in MICROCODE for f in wave.split() if vendor == "Intel" or "amd" in f)
        steppings = [m.data for m in cpu_map.models.values() if name in (m.base, m.name)]
        found = {bits | extra for bits in steppings}
        found |= {cpu_map.set_of(features) for model, features in sampled if model == name}
        cpus += [(vendor, name, bits) for bits in sorted(found)]
        shares += [share / len(found)] * len(found)
    total = np.array(shares)
    return cpus, total / total.sum()


@cache
def _sampled() -> list[tuple[str, frozenset[str]]]:
    """The processors of the sample fleets by the generation that they belong to."""
    families = {"haswell": "Haswell", "broadwell": "Broadwell", "gold-61": "Skylake-Server"}
    families |= {"gold-62": "Cascadelake-Server", "gold-63": "Icelake-Server", "gold-64": "SapphireRapids"}
    families |= {"naples": "EPYC", "rome": "EPYC-Rome", "milan": "EPYC-Milan", "genoa": "EPYC-Genoa"}
    keys = dict.fromkeys(host.row["cpu"] for host in sample_hosts().values())
    return [
        (model, processor(key).features) for key in keys for start, model in families.items() if key.startswith(start)
    ]
