"""Every plot at several sizes on one page to look at: ``make gallery`` writes build/gallery/index.html.

The page needs no network: images are inside it. Beside each stands what it took to answer, to draw and to render.
"""

from __future__ import annotations

import html
import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any, Final, NamedTuple

import vmcompat as vc
from tests.generator import instance
from vmcompat import plot
from vmcompat.errors import VmcompatError

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "build" / "gallery" / "index.html"
SAMPLES: Final = ROOT / "sample_caps"


@cache
def noisy(n: int, noise: float) -> vc.Fleet:
    """As many hosts, made of the mixed ones under other names; each feature is left out with a probability."""
    files = sorted((SAMPLES / "mixed").glob("*.domcapabilities.xml"))
    assert len(files) > 40
    texts = [path.read_text() for path in files]
    chance = random.Random(n)
    documents = {
        f"node-{i:04d}.dc{i % 3}.example.net": re.sub(
            r"\n\s*<feature policy='require' name='[^']*'/>",
            lambda found: "" if chance.random() < noise else found[0],
            texts[i % len(texts)],
        )
        for i in range(n)
    }
    return vc.read_fleet(documents, view="hypervisor")


def _baseline_of_largest_group(fleet: vc.Fleet) -> vc.Baseline:
    (hosts, *_) = fleet.baselines(allow_missing=True)["hosts"]
    return fleet[list(hosts)].baseline(allow_missing=True)


def _pools(fleet: vc.Fleet) -> Any:
    current = "arch" if fleet.hosts["vendor"].nunique() == 1 else None
    return vc.pools(fleet, 3, current=current, time_limit=1, allow_missing=True)


ANSWERS: Final[Mapping[str, Callable[[vc.Fleet], Any]]] = {
    "features": lambda fleet: fleet,
    "upset": lambda fleet: fleet,
    "adoption": lambda fleet: fleet,
    "spreads": lambda fleet: fleet,
    "migration": lambda fleet: fleet,
    "dendrogram": lambda fleet: fleet,
    "loss": _baseline_of_largest_group,
    "twins": lambda fleet: vc.twins(fleet, by="vendor"),
    "lattice": lambda fleet: vc.maximal_baselines(fleet, allow_missing=True),
    "frontier": lambda fleet: vc.frontier(fleet, allow_missing=True),
    "pools": _pools,
}
"""What each plot of ``vc.plot`` is given."""

FLEETS: Final[Mapping[str, Callable[[], vc.Fleet]]] = {
    "virsh_pair": lambda: vc.read_fleet(SAMPLES / "virsh_pair"),
    "mixed": lambda: vc.read_fleet(SAMPLES / "mixed"),
    "noisy, 96 hosts": lambda: noisy(96, 0.01),
    "generated, 300 hosts": lambda: instance(300).fleet(),
    "generated, 2,000 hosts": lambda: instance(2000).fleet(),
}


class Picture(NamedTuple):
    """One plot of one fleet: as a notebook shows it, or why there is none."""

    name: str
    fleet: str
    seconds: tuple[float, float, float]
    shown: str


def pictures(fleets: Mapping[str, Callable[[], vc.Fleet]]) -> Iterator[Picture]:
    """Every plot of every fleet, plot by plot."""
    read = {name: make() for name, make in fleets.items()}
    for name, answer in ANSWERS.items():
        draw: Callable[[Any], Any] = getattr(plot, name)
        for of, fleet in read.items():
            start = perf_counter()
            try:
                found = answer(fleet)
                answered = perf_counter()
                drawn = draw(found)
                finished = perf_counter()
                shown = drawn._repr_html_()
                yield Picture(name, of, (answered - start, finished - answered, perf_counter() - finished), shown)
            except VmcompatError as e:
                yield Picture(name, of, (perf_counter() - start, 0.0, 0.0), f"<p>no picture: {html.escape(str(e))}</p>")


def page(shown: list[Picture]) -> str:
    """All pictures, with the times in a table on top."""
    fleets, names = list(dict.fromkeys(p.fleet for p in shown)), list(dict.fromkeys(p.name for p in shown))
    times = {(p.name, p.fleet): p.seconds for p in shown}
    head = "".join(f"<th>{html.escape(fleet)}</th>" for fleet in fleets)
    rows = "".join(
        f'<tr><th><a href="#{name}">{name}</a></th>'
        + "".join(f"<td>{' + '.join(f'{s:.2f}' for s in times[name, fleet])}</td>" for fleet in fleets)
        + "</tr>\n"
        for name in names
    )
    parts = []
    for name in names:
        parts.append(f'<h2 id="{name}">plot.{name}</h2>')
        for p in shown:
            if p.name == name:
                took = "{:.2f} s to answer, {:.2f} s to draw, {:.2f} s to render".format(*p.seconds)
                parts.append(f"<h3>{html.escape(p.fleet)}</h3><p>{took}</p>\n{p.shown}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>vmcompat: every plot</title>\n'
        "<style>body { font: 14px sans-serif; margin: 2em } td, th { padding: .2em .8em; text-align: left }\n"
        "h2 { border-top: 1px solid #bbb; padding-top: 1em } img { border: 1px solid #ddd }</style></head>\n<body>"
        "<h1>Every plot of vmcompat</h1>"
        "<p>Seconds to answer + to draw + to render.</p>\n"
        f"<table><tr><th></th>{head}</tr>\n{rows}</table>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def main() -> None:
    """Writes the page and says where it is."""
    shown = []
    for p in pictures(FLEETS):
        print(f"{p.name:12}{p.fleet:24}" + "".join(f"{s:8.2f} s" for s in p.seconds), flush=True)
        shown.append(p)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(shown), encoding="utf-8")
    print(f"{len(shown)} pictures: {PAGE.relative_to(ROOT)}, {PAGE.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
