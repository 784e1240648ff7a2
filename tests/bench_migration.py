"""What the helper adds to a migration: the same guest to and fro, by ``virsh migrate`` and through a plan."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from tests.rig import Rig, RigUnavailable
from vmcompat.connect import open_host
from vmcompat.migration.migrate import plan_migration

_TURNS = 10
_GUEST = "traveller"


def _by_virsh(rig: Rig, here: str, there: str) -> dict[str, float]:
    begin = time.perf_counter()
    options = ("--live", "--p2p", "--persistent", "--undefinesource", "--auto-converge")
    rig.virsh(here, "migrate", *options, _GUEST, rig.peer_uri(there), rig.migrate_uri(there))
    return {"virsh migrate": time.perf_counter() - begin}


def _by_plan(rig: Rig, here: str, there: str) -> dict[str, float]:
    begin = time.perf_counter()
    plan = plan_migration(
        _GUEST, rig.uri(here), rig.uri(there), peer_uri=rig.peer_uri(there), migrate_uri=rig.migrate_uri(there)
    )
    planned = time.perf_counter()
    result = plan.run(progress=False)
    assert result.transfer_seconds is not None
    opening = time.perf_counter()
    for uri in (rig.uri(here), rig.uri(here), rig.uri(there)):
        open_host(uri, write=True).close()
    opened = time.perf_counter() - opening
    return {
        "moving": result.transfer_seconds + opened,
        "preflight": planned - begin,
        "second look, resuming, verification": result.seconds - result.transfer_seconds - opened,
    }


def migration_rows() -> Iterator[str]:
    """Rows of ``make bench``: medians, and the ratio of the two ways."""
    try:
        with Rig({"h1": "Westmere", "h2": "Westmere"}) as rig:
            yield from _rows(rig)
    except RigUnavailable as e:
        yield f"migration: not measured, no rig: {e}"


def _rows(rig: Rig) -> Iterator[str]:
    path = rig.dir / f"{_GUEST}.xml"
    path.write_text(rig.domain_xml(_GUEST, memory=256, buffer=128))
    rig.virsh("h1", "define", str(path))
    rig.virsh("h1", "start", _GUEST)
    rig.wait_for_tick(_GUEST, 8)
    times: dict[str, list[float]] = {}
    for turn in range(_TURNS):
        # each way goes to and fro, and is first in every other turn
        first, second = (_by_virsh, _by_plan) if turn % 2 else (_by_plan, _by_virsh)
        for way, here, there in ((first, "h1", "h2"), (second, "h2", "h1"), (second, "h1", "h2"), (first, "h2", "h1")):
            for what, seconds in way(rig, here, there).items():
                times.setdefault(what, []).append(seconds)
    median = {what: statistics.median(taken) for what, taken in times.items()}
    yield f"migration of a guest of 256 MiB on the rig, {2 * _TURNS} times each, medians:"
    yield from (f"  {what:30} {1000 * seconds:7.0f} ms" for what, seconds in median.items())
    yield f"  moving through a plan takes {median['moving'] / median['virsh migrate']:.2f} times virsh migrate"


if __name__ == "__main__":
    print(*migration_rows(), sep="\n")
