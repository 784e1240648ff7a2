"""How long the explorer takes to answer a click, in the kernel: 2,000 hosts of 100 kinds, the matrix not drawn."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import vmcompat as vc
from vmcompat.widgets.explorer import Explorer

SAMPLES = Path(__file__).resolve().parent.parent / "sample_caps" / "mixed"
N_HOSTS = 2_000
SETTINGS = ("", "tsx", "nested", "pku", "umip")
CLICKS = 12

Click = Callable[[], object]


def fleet() -> vc.Fleet:
    """The sample fleet in the hypervisor view, over and over, with several settings of every processor."""
    as_read = vc.read_fleet(SAMPLES)
    settings: list[dict[str, list[str]]] = [{h: [gone] for h in as_read.features.index if gone} for gone in SETTINGS]
    fleets = [vc.what_if(as_read, without=changes, allow_missing=True).fleet for changes in settings]
    n = len(fleets)
    places = [(fleets[i % n], i // n % len(as_read), i) for i in range(N_HOSTS)]
    return dataclasses.replace(
        as_read,
        records=tuple(dataclasses.replace(f.records[at], name=f"{f.names[at]}-{i:04}") for f, at, i in places),
        readings=tuple(f.readings[at] for f, at, _ in places),
    )


def clicks(explorer: Explorer) -> Iterator[tuple[str, list[Click]]]:
    """What a person does, by kind of click; every one changes the answer."""

    def to(widget: object, *values: object) -> list[Click]:
        return [partial(setattr, widget, "value", value) for value in islice(cycle(values), CLICKS)]

    kinds = explorer.kinds.children[: CLICKS // 2]
    out, back = ([to(box, value)[0] for box in kinds] for value in (False, True))
    yield "click a class of alike hosts", [*out, *back]
    switches = {"migratable": explorer.migratable, **explorer.without, "vendors": explorer.across}
    for words, switch in switches.items():
        yield f"the switch {words}", to(switch, not switch.value, switch.value)
    yield "the other view", to(explorer.view, "host", "hypervisor")
    yield "type in the search", to(explorer.search, "r", "r2", "r2 dl360", "fra", "fra epyc", "6.1.0", "ams", "")
    explorer.column.value = "rack"
    yield "select by a column", to(explorer.values, ("ams-r2",), ("ams-r1", "ams-r3"), ("fra",), ())
    explorer.column.value = "(any)"
    host = next(h for h in explorer.state.fleet.names if h.startswith("ams-r2-h03"))
    explorer.host.value = host
    yield "as if a host were patched, and not", [explorer.patched.click, explorer.reset.click] * (CLICKS // 2)
    yield "as if a host were gone, and not", [explorer.gone.click, explorer.reset.click] * (CLICKS // 2)


def widget_rows() -> list[str]:
    """Rows of a table in markdown: what is clicked, the median and the worst of its answers."""
    explorer = vc.widgets.explore(fleet())
    n, kinds = len(explorer.state.fleet), len(explorer.state.scene.kinds)
    rows = [f"| a click in `vc.widgets.explore`, {n:,} hosts of {kinds} kinds | median | worst |", "|---|---|---|"]
    for what, chosen in clicks(explorer):
        seconds = []
        for click in chosen:
            before = explorer.state
            before._answers.clear()  # so that every click is a new question
            if what == "the other view":
                before._names.clear()
            start = time.perf_counter()
            click()
            seconds.append(time.perf_counter() - start)
            if explorer.state is before:
                raise AssertionError(f"{what}: the click changed nothing")
        rows.append(f"| {what} | {statistics.median(seconds) * 1000:.0f} ms | {max(seconds) * 1000:.0f} ms |")
    return rows


if __name__ == "__main__":
    print(*widget_rows(), sep="\n")
