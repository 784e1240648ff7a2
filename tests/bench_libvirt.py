"""The same questions to vmcompat and to libvirt. Texts are compared: a faster answer that differs is no answer."""

from __future__ import annotations

import sys
from functools import reduce
from itertools import combinations
from random import Random

import vmcompat as vc
from tests.bench_timing import duration, head, row, timed, times
from vmcompat.baseline.choice import QEMU_DRIVER_HIDES, Description, Question, choose, cpu_text, describe
from vmcompat.baseline.verify import Libvirt
from vmcompat.fleet.cpu import Cpu
from vmcompat.fleet.cpu_map import CpuModel

GENERATIONS = ("Westmere-IBRS", "Haswell-noTSX-IBRS", "Broadwell-IBRS", "Skylake-Server-IBRS", "Cascadelake-Server",
               "Icelake-Server")  # fmt: skip
HOST_FACTS = ("vmx", "smx", "est", "tm2", "xtpr", "pdcm", "dca", "monitor", "ds_cpl", "dtes64", "pbe", "tm", "ht", "ss")
SIZES = (2, 4, 8, 16, 32)  # of the clusters


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


def against(what: str, ours: float, theirs: float) -> None:
    """One line of the table."""
    row(what, duration(ours), duration(theirs), times(theirs / ours))


def same(ours: list[str], theirs: list[str]) -> None:
    """Ends all where a text differs."""
    differing = sum(a != b for a, b in zip(ours, theirs, strict=True))
    if differing:
        sys.exit(f"{differing} of {len(ours)} answers differ from libvirt's")


def pairs(conn: Libvirt, cpu_map: vc.CpuMap, *, kinds: int) -> None:
    """All pairs of 100 hosts, from XML texts to XML texts."""
    texts = cpus(cpu_map, count=100, kinds=kinds, seed=1)
    groups = {f"{a} {b}": [a, b] for a, b in combinations(texts, 2)}

    def ours() -> list[str]:
        fleet = vc.read_fleet(texts, view="host", cpu_map=cpu_map)
        table = fleet.baselines(groups, migratable=False)  # type: ignore[arg-type]
        return list(table["xml"])

    def theirs() -> list[str]:
        return [conn.baselineCPU([texts[a], texts[b]], 0) for a, b in groups.values()]

    (here, answers), (there, expected) = timed(ours), timed(theirs, repeats=2)
    same(answers, expected)
    different = f"{kinds} of them different" if kinds < len(texts) else "all different"
    against(f"all {len(groups):,} pairs of 100 hosts, {different}", here, there)


def one_of_thousand(conn: Libvirt, cpu_map: vc.CpuMap) -> None:
    """One baseline of 1,000 hosts that are in a fleet already."""
    texts = cpus(cpu_map, count=1000, kinds=1000, seed=2)
    fleet = vc.read_fleet(texts, view="host", cpu_map=cpu_map)
    here, answer = timed(lambda: fleet.baseline(driver="test", migratable=False).xml)
    there, expected = timed(lambda: conn.baselineCPU(list(texts.values()), 0))
    same([answer], [expected])
    against("one baseline of 1,000 hosts, all different", here, there)


def clusters(conn: Libvirt, cpu_map: vc.CpuMap, *, count: int) -> None:
    """Model choice for many clusters of a fleet: by itself, and with all that a row of ``fleet.baselines`` says."""
    texts = cpus(cpu_map, count=1000, kinds=1000, seed=3)
    fleet = vc.read_fleet(texts, view="host", cpu_map=cpu_map)
    rnd = Random(4)
    groups = {f"g{i}": rnd.sample(list(texts), rnd.choice(SIZES)) for i in range(count)}
    there, expected = timed(lambda: [conn.baselineCPU([texts[h] for h in g], 0) for g in groups.values()], repeats=1)

    of = dict(zip(fleet.names, fleet.readings, strict=True))
    shared = cpu_map.rows(reduce(int.__and__, [of[h].offered for h in g]) for g in groups.values())
    named = [frozenset(cpu.model for h in g if (cpu := of[h].cpu) and cpu.model) for g in groups.values()]
    questions = [Question(vendor="Intel", names=names) for names in named]

    def ours() -> list[tuple[CpuModel, Description]]:
        models = [m for m in choose(shared, questions, cpu_map=cpu_map) if m is not None]
        return list(zip(models, describe(shared, models, cpu_map=cpu_map), strict=True))

    here, chosen = timed(ours)
    texts_of = [
        cpu_text(model.name, features, vendor="Intel", fallback="forbid" if names == {model.name} else "allow")
        for (model, features), names in zip(chosen, named, strict=True)
    ]
    same(texts_of, expected)
    against(f"model and listed features for {count:,} clusters, from what each shares", here, there)

    here, table = timed(lambda: fleet.baselines(groups, migratable=False))  # type: ignore[arg-type]
    by_label = dict(zip(table.index.get_level_values("group"), table["xml"], strict=True))
    same([by_label[label] for label in groups], expected)
    against(f"`fleet.baselines` for those {count:,} clusters, with levels and losses", here, there)


def main() -> None:
    """Prints the table."""
    try:
        import libvirt

        cpu_map = vc.CpuMap.load("system")
    except (ImportError, vc.VmcompatError) as e:
        print(f"\nnot measured against libvirt: {e}")
        return
    conn = libvirt.open("test:///default")
    number = conn.getLibVersion()
    version = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    head(
        "The same answers as libvirt's, byte for byte",
        "Pairs from XML texts to XML texts, the rest of hosts that are in a fleet already. libvirt is called once a "
        "group, in this process; a cluster has 2 to 32 of 1,000 different hosts.",
        ("what", "vmcompat", f"libvirt {version}", "times faster"),
    )
    for kinds in (28, 100):
        pairs(conn, cpu_map, kinds=kinds)
    one_of_thousand(conn, cpu_map)
    clusters(conn, cpu_map, count=10_000)
