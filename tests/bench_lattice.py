"""Maximal baselines at every size, and against other libraries in the same run: ``python -m tests.bench_lattice``.

The libraries are for this only and are measured where ``make bench`` could install them: concepts, fcapy, fim (pyfim),
mondher and networkx. All are asked for the closed sets of one table of classes and bundles, each in its own form; each
runs in a process of its own, which is ended after a minute. Their counts differ by one: some leave out the empty set of
bundles, some count the set of all bundles, which no class has. Compilation is outside the timings, but for its own row.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import vmcompat as vc
from tests.generator import Instance, instance
from vmcompat.baseline.lattice import Table, Words, all_concepts, distinct, pack, robust_concepts
from vmcompat.baseline.loops import compiled

PATIENCE: Final = 60.0  # seconds
SIZES: Final = (100, 1_000, 10_000, 100_000, 1_000_000)
AGAINST: Final = (1_000, 25_000, 150_000)
ROBUST: Final = 0.01
LIMIT: Final = 20_000_000

Bits = npt.NDArray[np.bool_]
Contestant = Callable[[Bits], int]


def ours(bits: Bits) -> int:
    return len(all_concepts(Table.of(pack(bits), bits.shape[1]), limit=LIMIT).weights)


def with_concepts(bits: Bits) -> int:
    from concepts import Context

    rows, columns = ([f"{what}{i}" for i in range(n)] for what, n in zip("rc", bits.shape, strict=True))
    return len(Context(rows, columns, bits.tolist()).lattice)


def with_fcapy(bits: Bits) -> int:
    from fcapy.algorithms.concept_construction import close_by_one
    from fcapy.context import FormalContext

    return sum(1 for _ in close_by_one(FormalContext(data=bits.tolist())))


def with_fim(bits: Bits, *, algorithm: str) -> int:
    import fim

    transactions = [np.flatnonzero(row).tolist() for row in bits]
    return len(getattr(fim, algorithm)(transactions, target="c", supp=-1, zmin=0))


def with_mondher(bits: Bits, *, algorithm: str) -> int:
    import mondher

    head = ["B", "", str(len(bits)), str(bits.shape[1]), ""]
    names = [*(f"r{i}" for i in range(len(bits))), *(f"c{j}" for j in range(bits.shape[1]))]
    rows = ["".join("X" if b else "." for b in row) for row in bits]
    context = mondher.parse_context("\n".join([*head, *names, *rows, ""]).encode())
    return len(mondher.compute_concepts(context, algorithm))


def with_networkx(bits: Bits) -> int:
    """Maximal pairs as the cliques of a graph in which all rows know each other, and all columns."""
    import networkx

    n, m = bits.shape
    graph = networkx.Graph((i, n + j) for i, j in np.argwhere(bits).tolist())
    graph.add_edges_from((i, k) for i in range(n) for k in range(i))
    graph.add_edges_from((n + j, n + k) for j in range(m) for k in range(j))
    return sum(1 for _ in networkx.find_cliques(graph))


CONTESTANTS: Final[dict[str, tuple[str, Contestant]]] = {
    "vmcompat": ("vmcompat", ours),
    **{f"fim.{a}": ("fim", partial(with_fim, algorithm=a)) for a in ("eclat", "fpgrowth", "ista", "carpenter")},
    **{f"mondher {a}": ("mondher", partial(with_mondher, algorithm=a)) for a in ("fcbo", "in-close-5")},
    "networkx": ("networkx", with_networkx),
    "concepts": ("concepts", with_concepts),
    "fcapy": ("fcapy", with_fcapy),
}


def contest(name: str, bits: Bits, answer: Any) -> None:
    """Runs in a process of its own: seconds, number of closed sets, and how much the peak of memory rose [MiB]."""
    module, function = CONTESTANTS[name]
    try:
        function(bits[:2])
        before = peak()
        seconds, count = best(partial(function, bits), times=3 if module in ("vmcompat", "fim") else 1)
        answer.send((seconds, count, peak() - before))
    except Exception as e:  # noqa: BLE001 - whatever a stranger's library raises is its row of the table
        answer.send(f"{type(e).__name__}: {e}")


def best(function: Callable[[], Any], *, times: int = 3) -> tuple[float, Any]:
    """The shortest of some runs [s], and the answer."""
    seconds, answer = [], None
    for _ in range(times):
        start = time.perf_counter()
        answer = function()
        seconds.append(time.perf_counter() - start)
    return min(seconds), answer


def against_others() -> None:
    print("| hosts | classes x bundles | who | s | closed sets | ratio | MiB |\n|---|---|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for n_hosts in AGAINST:
        bits = instance(n_hosts).table("Intel").classes
        first: float | None = None
        for name, (module, _) in CONTESTANTS.items():
            where = f"| {n_hosts:,} | {bits.shape[0]} x {bits.shape[1]} | {name} |"
            if importlib.util.find_spec(module) is None:
                print(where, "not installed | | | |")
                continue
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=contest, args=(name, bits, there))
            process.start()
            there.close()
            try:
                result = here.recv() if here.poll(PATIENCE) else f"no answer in {PATIENCE:.0f}"
            except EOFError:
                result = "ended without an answer"
            process.kill()
            process.join()
            if isinstance(result, str):
                print(where, result, "| | | |", flush=True)
                continue
            seconds, count, memory = result
            first = seconds if first is None else first
            print(where, f"{seconds:.4f} | {count:,} | {seconds / first:,.1f} | {memory:,.0f} |", flush=True)


@compiled
def hashed(rows: Words) -> Words:
    """A hash of each packed row: what the deduplication is measured against."""
    hashes = np.empty(len(rows), np.uint64)
    for i in range(len(rows)):
        h = np.uint64(0x9E3779B97F4A7C15)
        for w in range(rows.shape[1]):
            h = (h ^ rows[i, w]) * np.uint64(0xFF51AFD7ED558CCD)
            h ^= h >> np.uint64(32)
        hashes[i] = h
    return hashes


def as_read(made: Instance) -> vc.Fleet:
    """The fleet with its frames there already, as after a first look at them."""
    fleet = made.fleet()
    vars(fleet).update(hosts=made.hosts, features=made.features)
    return fleet


def at_every_size() -> None:
    columns = [
        "hosts", "hashing ms", "deduplication ms", "of hosts in any order", "classes x bundles", "enumeration s",
        "maximal", "to the frame s", "rows", f"robust {ROBUST:.0%} s", "robust", "to the frame s", "rows",
        "frontier s", "points", "peak MiB", "peak with all MiB",
    ]  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for n_hosts in SIZES:
        print(at_size(n_hosts), flush=True)


def at_size(n_hosts: int) -> str:
    made = instance(n_hosts)
    rows = made.rows("Intel")
    hashing, _ = best(lambda: hashed(rows))
    dedupe, _ = best(lambda: distinct(rows))
    mixed = np.random.default_rng(0).permutation(rows)
    dedupe_mixed, _ = best(lambda: distinct(mixed))
    table = made.table("Intel")
    delta = max(1, round(ROBUST * len(rows)))
    enumeration, found = best(lambda: len(all_concepts(table, limit=LIMIT).weights))
    searching, robust = best(lambda: len(robust_concepts(table, delta=delta, limit=LIMIT).weights))
    fleet = as_read(made)
    asking, n_robust = best(lambda: len(vc.maximal_baselines(fleet, delta=ROBUST)), times=1)
    drawing, n_points = best(lambda: len(vc.frontier(fleet).frame), times=1)
    before_all = peak()
    asking_all, n_all = best(lambda: len(vc.maximal_baselines(fleet)), times=1)
    ms = " | ".join(f"{1000 * s:.2f}" for s in (hashing, dedupe, dedupe_mixed))
    return (
        f"| {n_hosts:,} | {ms} | {table.classes.shape[0]} x {table.n_bundles} | {enumeration:.4f} | {found:,} "
        f"| {asking_all:.2f} | {n_all:,} | {searching:.4f} | {robust:,} | {asking:.2f} | {n_robust:,} "
        f"| {drawing:.2f} | {n_points} | {before_all:,.0f} | {peak():,.0f} |"
    )


def peak() -> float:
    """Most memory that this process ever had [MiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def first_call() -> None:
    """What the first answer takes where nothing was compiled before."""
    program = "import vmcompat as vc; vc.maximal_baselines(vc.read_fleet('sample_caps/virsh_pair'))"
    with tempfile.TemporaryDirectory() as folder:
        for what in ("in a fresh environment", "in a fresh process"):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "NUMBA_CACHE_DIR": folder})
            print(f"first answer {what}: {time.perf_counter() - start:.1f} s")


def main() -> None:
    print("\nEvery maximal baseline of the Intel hosts of one fleet, beside other libraries:\n")
    against_others()
    print("\nFleets of every size; frames are of all hosts, the rest of the Intel ones:\n")
    small = as_read(instance(100))
    vc.maximal_baselines(small)
    vc.frontier(small)
    hashed(instance(100).rows("Intel"))
    at_every_size()
    print()
    first_call()


if __name__ == "__main__":
    main()
