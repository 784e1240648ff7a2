"""Every figure of the README in one run: ``make bench``.

The same questions to vmcompat and to libvirt, side by side; then maximal baselines, frontier and pools. Texts are
compared outside the timings: a faster answer that differs is no answer.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from itertools import combinations
from random import Random

import numpy as np

import vmcompat as vc
from tests import bench_lattice, bench_pools
from vmcompat.baseline.choice import QEMU_DRIVER_HIDES, Description, Question, choose, cpu_text, describe
from vmcompat.baseline.verify import Libvirt
from vmcompat.fleet.cpu import Cpu
from vmcompat.fleet.cpu_map import CpuModel

REPEATS = 5
GENERATIONS = ("Westmere-IBRS", "Haswell-noTSX-IBRS", "Broadwell-IBRS", "Skylake-Server-IBRS", "Cascadelake-Server",
               "Icelake-Server")  # fmt: skip
HOST_FACTS = ("vmx", "smx", "est", "tm2", "xtpr", "pdcm", "dca", "monitor", "ds_cpl", "dtes64", "pbe", "tm", "ht", "ss")


def cpus(cpu_map: vc.CpuMap, *, count: int, kinds: int, seed: int) -> dict[str, str]:
    """XML of Intel host CPUs by name: generations of servers, each with settings and microcode of its own."""
    rnd = Random(seed)
    optional = [n for n in cpu_map.features if n not in QEMU_DRIVER_HIDES and n not in cpu_map.non_migratable]
    made: list[str] = []
    while len(made) < kinds:
        features = [*HOST_FACTS, *rnd.sample(optional, rnd.randint(8, 30))]
        listed = tuple((name, "require") for name in dict.fromkeys(features))
        cpu = Cpu(arch="x86_64", model=rnd.choice(GENERATIONS), vendor="Intel", features=listed)  # type: ignore[arg-type]
        made.append(cpu.xml())
    return {f"h{i}": made[i] if i < kinds else rnd.choice(made) for i in range(count)}


def median(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Seconds of the median run, after one that does not count."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def row(what: str, ours: float, theirs: float) -> str:
    """One line of the table."""
    return f"| {what} | {ours * 1000:.1f} ms | {theirs * 1000:.0f} ms | {theirs / ours:.0f} |"


def pairs(conn: Libvirt, cpu_map: vc.CpuMap, *, kinds: int) -> str:
    """All pairs of 100 hosts, from XML text to XML texts."""
    texts = cpus(cpu_map, count=100, kinds=kinds, seed=1)
    groups = {f"{a} {b}": [a, b] for a, b in combinations(texts, 2)}

    def ours() -> list[str]:
        fleet = vc.read_fleet(texts, view="host", cpu_map=cpu_map)
        table = fleet.baselines(groups, migratable=False)  # type: ignore[arg-type]
        return list(table["xml"])

    def theirs() -> list[str]:
        return [conn.baselineCPU([texts[a], texts[b]], 0) for a, b in groups.values()]

    if ours() != theirs():
        sys.exit("the answers differ")
    different = f"{kinds} of them different" if kinds < len(texts) else "all different"
    return row(f"all {len(groups):,} pairs of 100 hosts, {different}", median(ours), median(theirs, 2))


def one_of_thousand(conn: Libvirt, cpu_map: vc.CpuMap) -> str:
    """One baseline of 1,000 hosts that are in a fleet already."""
    texts = cpus(cpu_map, count=1000, kinds=1000, seed=2)
    fleet = vc.read_fleet(texts, view="host", cpu_map=cpu_map)

    def ours() -> str:
        return fleet.baseline(driver="test", migratable=False).xml

    def theirs() -> str:
        return conn.baselineCPU(list(texts.values()), 0)

    if ours() != theirs():
        sys.exit("the answers differ")
    return row("one baseline of 1,000 hosts, all different", median(ours), median(theirs))


def clusters(conn: Libvirt, cpu_map: vc.CpuMap) -> list[str]:
    """10,000 groups of 2 to 30 of 1,000 hosts of 100 kinds: libvirt's model choice alone, and from hosts to frame."""
    texts = cpus(cpu_map, count=1000, kinds=100, seed=3)
    fleet = vc.read_fleet(texts, view="host", cpu_map=cpu_map)
    rnd, names = Random(3), list(texts)
    groups = [rnd.sample(names, rnd.randint(2, 30)) for _ in range(10_000)]
    labelled = {str(i): group for i, group in enumerate(groups)}

    start = time.perf_counter()
    asked = [conn.baselineCPU([texts[host] for host in group], 0) for group in groups]
    theirs = time.perf_counter() - start

    bits, models = fleet.features.to_numpy(), fleet.hosts["model"].to_numpy()
    members = [fleet.positions(group) for group in groups]
    shared = np.array([bits[m].all(axis=0) for m in members])
    questions = [Question(vendor="Intel", names=frozenset(models[m]), allowed=None) for m in members]

    def chosen() -> list[tuple[CpuModel, Description]]:
        named = [m for m in choose(shared, questions, cpu_map=cpu_map) if m is not None]
        return list(zip(named, describe(shared, named, cpu_map=cpu_map), strict=True))

    def framed() -> list[str]:
        return list(fleet.baselines(labelled, migratable=False)["xml"].droplevel(["arch", "vendor"])[list(labelled)])  # type: ignore[arg-type]

    written = [
        cpu_text(m.name, features, vendor="Intel", fallback="forbid" if q.names == {m.name} else "allow")
        for (m, features), q in zip(chosen(), questions, strict=True)
    ]
    if not written == framed() == asked:
        sys.exit("the answers differ")
    return [
        row("the model and features of 10,000 clusters, from what their hosts share", median(chosen), theirs),
        row("10,000 clusters of 2 to 30 of 1,000 hosts, from hosts to frame", median(framed), theirs),
    ]


def main() -> None:
    """Prints the tables."""
    against_libvirt()
    bench_lattice.main()
    print("\nThe best pools, and what the usual ways of clustering lose of what pools can win:\n")
    for line in bench_pools.pools_rows():
        print(line, flush=True)


def against_libvirt() -> None:
    """Prints what both answer, if there is a libvirt here."""
    try:
        import libvirt

        cpu_map = vc.CpuMap.load("system")
    except (ImportError, vc.VmcompatError) as e:
        print(f"left out: libvirt, nothing to compare with: {e}")
        return
    conn = libvirt.open("test:///default")
    number = conn.getLibVersion()
    version = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    print(f"| the same answers, byte for byte | vmcompat | libvirt {version} | times faster |\n|---|---|---|---|")
    for kinds in (28, 100):
        print(pairs(conn, cpu_map, kinds=kinds), flush=True)
    print(one_of_thousand(conn, cpu_map), flush=True)
    print(*clusters(conn, cpu_map), sep="\n", flush=True)


if __name__ == "__main__":
    main()
