"""Evacuations: as many guests as can be placed are, on hosts that will have them, and every other one hears why."""

from __future__ import annotations

import csv
import re
import tempfile
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmcompat as vc

GIB = 1 << 20  # [KiB]
RACK = ["ams-r2-h01", "ams-r2-h02", "ams-r2-h04", "ams-r2-h05"]  # alike, so that only room decides


@pytest.fixture(scope="module")
def fleet(samples: Path) -> vc.Fleet:
    return vc.read_fleet(samples / "mixed")


@pytest.fixture(scope="module")
def domains(samples: Path) -> vc.migration.domains.Domains:
    return vc.read_domains(samples / "mixed" / "domains")


def guests(samples: Path, sizes: dict[str, tuple[str, int]]) -> vc.migration.domains.Domains:
    """Guests like app-01 by name, each on a host with so much memory [GiB]."""
    text = (samples / "mixed" / "domains" / "app-01.xml").read_text()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "domains.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["domain", "host", "state", "manager"])
            for i, (guest, (host, gib)) in enumerate(sizes.items()):
                rows.writerow([guest, host, "running", "libvirt"])
                own = re.sub(r"(<(?:memory|currentMemory) unit='KiB'>)\d+", rf"\g<1>{gib * GIB}", text)
                own = own.replace("<name>app-01<", f"<name>{guest}<").replace("<uuid>89097baf", f"<uuid>{i:08x}")
                (folder / f"{guest}.xml").write_text(own)
        return vc.read_domains(folder)


def test_every_guest_that_moves_goes_where_reachability_says_yes_and_memory_is_left(
    fleet: vc.Fleet, domains: vc.migration.domains.Domains
) -> None:
    allowed = vc.reachability(domains, fleet).frame["verdict"]
    moved = 0
    for host in fleet.names:
        found = vc.plan_evacuation(host, fleet, domains)
        going = found.frame[found.frame["verdict"] == "moves"]
        assert all(allowed.loc[[(str(g), str(t))]].eq("yes").all() for g, t in going["target"].items())
        assert (found.targets["memory_share"] <= 0.9).all()
        assert going.groupby("target")["memory"].sum().to_dict() == {
            h: int(row["memory_after"] - row["memory_before"]) for h, row in found.targets.iterrows()
        }
        assert set(found.frame.index) == set(domains.frame.index[domains.frame["host"] == host])
        assert found.frame.loc[found.frame["verdict"].isin(["stuck", "unknown", "full"]), "remedy"].ne("").all()
        moved += len(going)
    assert moved > 30


def test_guests_of_another_manager_and_those_that_are_off_do_not_move(
    fleet: vc.Fleet, domains: vc.migration.domains.Domains
) -> None:
    rack = [h for h in fleet.names if h.startswith("ams-r3")]
    verdicts = {g: v for h in rack for g, v in vc.plan_evacuation(h, fleet, domains).frame["verdict"].items()}
    assert verdicts["instance-000000a1"] == "managed"
    assert verdicts["instance-000000a6"] == "off"
    assert verdicts["win-ts-01"] == "stuck"


@settings(max_examples=40, deadline=None)
@given(
    there=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    elsewhere=st.lists(st.tuples(st.sampled_from(RACK[1:]), st.integers(1, 90)), max_size=3),
    share=st.sampled_from([0.1, 0.2, 0.4]),
    parted=st.booleans(),
    tied=st.booleans(),
)
def test_no_other_assignment_places_more_or_leaves_the_fullest_target_emptier(
    samples: Path,
    fleet: vc.Fleet,
    there: list[int],
    elsewhere: list[tuple[str, int]],
    share: float,
    parted: bool,
    tied: bool,
) -> None:
    sizes = {f"g{i}": (RACK[0], gib) for i, gib in enumerate(there)}
    sizes |= {f"k{i}": where for i, where in enumerate(elsewhere)}
    movers = [f"g{i}" for i in range(len(there))]
    apart = [movers[:2]] if parted and len(movers) > 1 else []
    together = [movers[1:3]] if tied and len(movers) > 2 else []
    rack, memory = fleet[RACK], fleet.hosts["memory"]
    found = vc.plan_evacuation(
        RACK[0], rack, guests(samples, sizes), memory_share=share, vcpus_per_thread=1e9, apart=apart, together=together
    )
    best = (0, 0.0)
    for where in product([None, *RACK[1:]], repeat=len(movers)):
        at = dict(zip(movers, where, strict=True))
        load = {h: sum(gib for host, gib in elsewhere if host == h) * GIB for h in RACK[1:]}
        for guest, host in at.items():
            if host is not None:
                load[host] += sizes[guest][1] * GIB
        used = {h for h in where if h is not None}
        fits = all(load[h] <= share * memory[h] for h in used)
        fits &= all(at[a] != at[b] or at[a] is None for a, b in apart)
        fits &= all(at[a] == at[b] for a, b in together)
        if fits:
            n = sum(h is not None for h in where)
            fullest = max((load[h] / memory[h] for h in used), default=0.0)
            best = max(best, (n, -fullest))
    going = found.frame[found.frame["verdict"] == "moves"]
    assert len(going) == best[0]
    assert found.complete is (len(going) == len(movers))
    if len(going):
        assert found.targets["memory_share"].max() == pytest.approx(-best[1])
    assert (found.frame.loc[found.frame["verdict"] != "moves", "evidence"] != "").all()


def test_the_order_of_guests_and_hosts_changes_no_answer_and_waves_hold_so_many(samples: Path, fleet: vc.Fleet) -> None:
    sizes = {f"g{i}": (RACK[0], 10 + i) for i in range(5)}
    one = vc.plan_evacuation(RACK[0], fleet[RACK], guests(samples, sizes), at_once=2)
    other = vc.plan_evacuation(RACK[0], fleet[RACK[::-1]], guests(samples, dict(reversed(sizes.items()))), at_once=2)
    assert one.complete is True
    assert one.frame["wave"].value_counts().max() == 2
    assert one.frame.sort_index()["wave"].to_dict() == other.frame.sort_index()["wave"].to_dict()
    assert one.targets["memory_share"].max() == other.targets["memory_share"].max()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memory_share": 0}, "memory_share=0"),
        ({"vcpus_per_thread": -1}, "vcpus_per_thread=-1"),
        ({"at_once": 0}, "at_once=0"),
        ({"apart": [("web-01", "nobody")]}, "no guest 'nobody'"),
        ({"apart": [("web-01", "web-02")], "together": [("web-01", "web-02")]}, "both together and apart"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    fleet: vc.Fleet, domains: vc.migration.domains.Domains, given: dict[str, object], message: str
) -> None:
    with pytest.raises(vc.errors.FrameError, match=message):
        vc.plan_evacuation("ams-r2-h01", fleet, domains, **given)  # type: ignore[arg-type]


def test_a_host_that_is_not_there_is_refused(fleet: vc.Fleet, domains: vc.migration.domains.Domains) -> None:
    with pytest.raises(vc.errors.FrameError, match="no host 'nowhere'"):
        vc.plan_evacuation("nowhere", fleet, domains)


def test_a_loss_is_survived_just_where_the_evacuation_finds_room_for_all(samples: Path, fleet: vc.Fleet) -> None:
    small = {"a": (RACK[0], 20), "b": (RACK[1], 20)}
    assert vc.survives_loss(fleet[RACK], guests(samples, small)).ok is True
    memory_gib = int(fleet.hosts["memory"][RACK].min() // GIB)
    big = {f"g{i}": (h, int(memory_gib * 0.6)) for i, h in enumerate(RACK)}
    lost = vc.survives_loss(fleet[RACK], guests(samples, big))
    assert lost.ok is False
    assert set(lost.frame["verdict"]) == {"no"}
    assert (lost.frame["memory_borrowed"] > 0).all()
    assert "no" in " ".join(lost.explain())


def test_the_sample_fleet_does_not_survive_every_loss_and_says_which(
    fleet: vc.Fleet, domains: vc.migration.domains.Domains
) -> None:
    lost = vc.survives_loss(fleet, domains)
    assert lost.ok is False
    assert lost.frame["n_like"].sum() >= len(fleet)
    stuck = lost.domains[lost.domains["verdict"] == "stuck"]
    assert {"p9-01", "sap-01"} <= set(stuck["domain"])


def test_any_two_hosts_are_every_pair_of_them(samples: Path, fleet: vc.Fleet) -> None:
    sizes = {f"g{i}": (h, 20) for i, h in enumerate(RACK)}
    lost = vc.survives_loss(fleet[RACK], guests(samples, sizes), n=2)
    assert lost.ok is True
    assert lost.frame["n_like"].sum() == 6
    assert {len(hosts) for hosts in lost.frame["hosts"]} == {2}
    third = int(fleet.hosts["memory"][RACK].min() // GIB) // 3
    assert (
        vc.survives_loss(fleet[RACK], guests(samples, {g: (h, third) for g, (h, _) in sizes.items()}), n=2).ok is True
    )
    half = int(third * 1.4)
    assert (
        vc.survives_loss(fleet[RACK], guests(samples, {g: (h, half) for g, (h, _) in sizes.items()}), n=2).ok is False
    )
