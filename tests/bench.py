"""The same questions to vmcompat and to libvirt, side by side in one run: ``make bench``.

Prints a table for the README. Texts are compared outside the timings: a faster answer that differs is no answer.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from itertools import combinations
from random import Random

import vmcompat as vc
from vmcompat.baseline.choice import QEMU_DRIVER_HIDES
from vmcompat.baseline.verify import Libvirt
from vmcompat.fleet.cpu import Cpu

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


def main() -> None:
    """Prints the table."""
    try:
        import libvirt

        cpu_map = vc.CpuMap.load("system")
    except (ImportError, vc.VmcompatError) as e:
        sys.exit(f"nothing to compare with: {e}")
    conn = libvirt.open("test:///default")
    number = conn.getLibVersion()
    version = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    print(f"| the same answers, byte for byte | vmcompat | libvirt {version} | times faster |\n|---|---|---|---|")
    for kinds in (28, 100):
        print(pairs(conn, cpu_map, kinds=kinds), flush=True)
    print(one_of_thousand(conn, cpu_map))


if __name__ == "__main__":
    main()
