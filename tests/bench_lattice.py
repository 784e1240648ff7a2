"""Maximal baselines at every size, and against other libraries in the same run.

The libraries are for this only and are measured where they are installed (``make setup-bench``): concepts, fcapy, fim
(pyfim), mondher and networkx. All are asked for the maximal pairs of one table of classes and bundles, each in its own
form of answer, and each runs in a process of its own, which is ended after a minute. Compilation is outside the
timings, but for its own row.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

import vmcompat as vc
from tests.bench_timing import PATIENCE, apart, duration, head, peak, row, timed, times
from tests.generator import Instance, instance
from vmcompat.baseline import loops
from vmcompat.baseline.lattice import Table, Words, all_concepts, distinct, pack, robust_concepts

SIZES: Final = (100, 1_000, 10_000, 100_000, 1_000_000)
AGAINST: Final = (1_000, 25_000, 140_000)  # hosts of which Intel's have about 1,000, 28,000 and 200,000 baselines
ROBUST: Final = 0.01
LIMIT: Final = 20_000_000

Bits = npt.NDArray[np.bool_]
Contestant = Callable[[Bits], int]


def ours(bits: Bits) -> int:
    return len(all_concepts(Table.of(pack(bits), bits.shape[1]), limit=LIMIT).weights)


def with_concepts(bits: Bits) -> int:
    from concepts import Context

    rows, columns = ([f"{what}{i}" for i in range(n)] for what, n in zip("rc", bits.shape, strict=True))
    return len(Context(rows, columns, bits.tolist()).lattice) - pairs_of_nobody(bits)


def with_fcapy(bits: Bits) -> int:
    from fcapy.algorithms.concept_construction import close_by_one
    from fcapy.context import FormalContext

    return sum(1 for _ in close_by_one(FormalContext(data=bits.tolist()))) - pairs_of_nobody(bits)


def with_fim(bits: Bits, *, algorithm: str) -> int:
    import fim

    transactions = [np.flatnonzero(row).tolist() for row in bits]
    # it leaves out the empty set, which is all that all classes of a table share
    return len(getattr(fim, algorithm)(transactions, target="c", supp=-1, zmin=0)) + 1


def with_mondher(bits: Bits, *, algorithm: str) -> int:
    import mondher

    head = ["B", "", str(len(bits)), str(bits.shape[1]), ""]
    names = [*(f"r{i}" for i in range(len(bits))), *(f"c{j}" for j in range(bits.shape[1]))]
    rows = ["".join("X" if b else "." for b in row) for row in bits]
    context = mondher.parse_context("\n".join([*head, *names, *rows, ""]).encode())
    return len(mondher.compute_concepts(context, algorithm)) - pairs_of_nobody(bits)


def with_networkx(bits: Bits) -> int:
    """Maximal pairs as the cliques of a graph in which all rows know each other, and all columns."""
    import networkx

    n, m = bits.shape
    graph = networkx.Graph((i, n + j) for i, j in np.argwhere(bits).tolist())
    graph.add_edges_from((i, k) for i in range(n) for k in range(i))
    graph.add_edges_from((n + j, n + k) for j in range(m) for k in range(j))
    return sum(1 for _ in networkx.find_cliques(graph)) - pairs_of_nobody(bits)


def pairs_of_nobody(bits: Bits) -> int:
    """Whether they count the set of all bundles, which no class has, among the pairs."""
    return int(not bits.all(axis=1).any())


CONTESTANTS: Final[dict[str, tuple[str, Contestant]]] = {
    "vmcompat, to packed arrays": ("vmcompat", ours),
    **{f"pyfim {a}": ("fim", partial(with_fim, algorithm=a)) for a in ("eclat", "fpgrowth", "ista", "carpenter")},
    **{f"mondher {a}": ("mondher", partial(with_mondher, algorithm=a)) for a in ("fcbo", "in-close-5")},
    "networkx": ("networkx", with_networkx),
    "concepts": ("concepts", with_concepts),
    "fcapy": ("fcapy", with_fcapy),
}
FAST: Final = ("vmcompat", "fim")  # several runs, of the others one


def contest(name: str, bits: Bits) -> tuple[float, int, float]:
    """Seconds, number of pairs, and how much the peak of memory rose [MiB]."""
    module, function = CONTESTANTS[name]
    function(bits[:2])
    before = peak()
    seconds, count = timed(partial(function, bits), repeats=5 if module in FAST else 1)
    return seconds, count, peak() - before


def framed(n_hosts: int) -> tuple[float, int, float]:
    """The same for the frame of all maximal baselines of a fleet."""
    vc.maximal_baselines(as_read(instance(100)))
    fleet = as_read(instance(n_hosts))
    before = peak()
    seconds, found = timed(lambda: vc.maximal_baselines(fleet), repeats=3)
    return seconds, len(found), peak() - before


def against_others() -> None:
    tables = [instance(n).table("Intel").classes for n in AGAINST]
    counts = [ours(bits) for bits in tables]
    head(
        "Every maximal baseline",
        f"Of the Intel part of fleets of {', '.join(f'{n:,}' for n in AGAINST)} hosts, as classes × bundles of "
        f"features; in brackets how many times vmcompat's time to packed arrays, and by how much memory rose. The "
        f"frame is of the whole fleet, from its hosts and features on. Ended after {PATIENCE:.0f} s.",
        (
            "who",
            *(f"{b.shape[0]} × {b.shape[1]}: {count:,} baselines" for b, count in zip(tables, counts, strict=True)),
        ),
    )
    first: list[float] = []
    for name, (module, _) in CONTESTANTS.items():
        if importlib.util.find_spec(module) is None:
            row(name, *["not installed"] * len(tables))
            continue
        cells = []
        for i, bits in enumerate(tables):
            result = apart(contest, name, bits, patience=PATIENCE)
            if len(first) <= i and not isinstance(result, str):
                first.append(result[0])
            cells.append(result if isinstance(result, str) else cell(*result, first[i], expected=counts[i]))
        row(name, *cells)
        if module == "vmcompat":
            results = [apart(framed, n) for n in AGAINST]
            row(
                "vmcompat, to the frame",
                *(r if isinstance(r, str) else cell(*r, first[i]) for i, r in enumerate(results)),
            )


def cell(seconds: float, count: int, memory: float, first: float, *, expected: int | None = None) -> str:
    """One cell; with the count where it is not the one that the column has."""
    if expected is None:
        return f"{duration(seconds)} ({times(seconds / first)}; {memory:,.0f} MiB; {count:,} rows)"
    wrong = "" if count == expected else f"; finds {count:,}"
    ratio = "1" if seconds == first else times(seconds / first)
    return f"{duration(seconds)} ({ratio}; {memory:,.0f} MiB{wrong})"


def as_read(made: Instance) -> vc.Fleet:
    """The fleet with its frames there already, as after a first look at them."""
    fleet = made.fleet()
    vars(fleet).update(hosts=made.hosts, features=made.features)
    return fleet


def at_every_size() -> None:
    head(
        "At every size",
        f"Fleets of both vendors. Robust: every further feature would cost {ROBUST:.0%} of the hosts. Times to the "
        f"frame, after that of hosts and features exists; in brackets how many baselines or points. One process a "
        f"row, whose peak of memory counts the generator too.",
        ("hosts", "classes", "robust", "peak", "frontier", "all", "peak"),
    )
    for n_hosts in SIZES:
        cells = apart(at_size, n_hosts)
        row(f"{n_hosts:,}", *([cells] if isinstance(cells, str) else cells))


def at_size(n_hosts: int) -> list[str]:
    vc.maximal_baselines(as_read(instance(100)), delta=ROBUST)
    made = instance(n_hosts)
    n_classes = sum(len(made.table(vendor).classes) for vendor in ("Intel", "AMD"))
    fleet = as_read(made)
    vc.frontier(as_read(instance(100)))
    cells = [f"{n_classes:,}"]
    for delta in (ROBUST, 0.0):
        seconds, found = timed(partial(vc.maximal_baselines, fleet, delta=delta), repeats=3)
        cells += [f"{duration(seconds)} ({len(found):,}{' and more' if found.truncated else ''})", f"{peak():,.0f} MiB"]
        if delta:
            seconds, front = timed(partial(vc.frontier, fleet), repeats=3)
            cells.append(f"{duration(seconds)} ({len(front):,})")
    return cells


def deduplication() -> None:
    made = instance(1_000_000)
    rows = np.vstack([made.rows(vendor) for vendor in ("Intel", "AMD")])
    shuffled = rows[np.random.default_rng(0).permutation(len(rows))]
    delta = max(1, round(ROBUST * len(rows)))
    head(
        "A million hosts",
        "Classes of equal hosts, against a compiled loop that only hashes each packed row (with the hash that the "
        "classes are found by, whose speed is that of memory), and the search for robust baselines by itself.",
        ("what", "time", "times the hashing"),
    )
    hash_each = loops.compiled(hashes)
    for order, these in (("in the order of purchase", rows), ("in random order", shuffled)):
        hashing, _ = timed(partial(hash_each, these), repeats=15)
        finding, (_, first) = timed(partial(distinct, these), repeats=15)
        row(f"{len(these):,} rows of {8 * rows.shape[1]} bytes hashed, {order}", duration(hashing), "1")
        row(f"their {len(first):,} classes, {order}", duration(finding), times(finding / hashing))
    table = made.table("Intel")
    searching, found = timed(lambda: len(robust_concepts(table, delta=delta, limit=LIMIT).weights))
    row(f"the {found:,} robust baselines of the {len(table.classes):,} classes of Intel", duration(searching), "")


def hashes(rows: Words) -> Words:
    """A hash of each row."""
    found = np.empty(len(rows), np.uint64)
    for i in range(len(rows)):
        h = loops._SEED
        for w in range(rows.shape[1]):
            h = (h ^ rows[i, w]) * loops._FACTOR
            h ^= h >> np.uint64(32)
        found[i] = h
    return found


def first_call() -> None:
    program = "import vmcompat as vc; vc.maximal_baselines(vc.read_fleet('sample_caps/virsh_pair'))"
    head("The first answer", "Importing, reading and answering for two hosts, as a whole process.", ("where", "time"))
    with tempfile.TemporaryDirectory() as folder:

        def ask() -> bool:
            environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
            subprocess.run([sys.executable, "-c", program], check=True, env=environment)
            return True

        row("nothing compiled before", duration(timed(ask, repeats=1)[0]))
        row("compiled before", duration(timed(ask, repeats=1)[0]))


def main() -> None:
    """Prints the tables."""
    first_call()
    deduplication()
    at_every_size()
    against_others()


if __name__ == "__main__":
    main()
