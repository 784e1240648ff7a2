"""Evacuations: as many guests as can be placed are, on hosts that will have them, and every other one hears why."""

from __future__ import annotations

import csv
import re
import tempfile
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmcompat as vc
from tests.migration.crowd import GIB, RACK, Person, crowd
from tests.migration.scene import at


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


# ---- what the documents do not say


def rack_without_size(samples: Path, folder: Path, *, host: str) -> vc.Fleet:
    """The rack, one host of which does not tell its CPUs and memory."""
    for name in RACK:
        for kind in ("capabilities", "domcapabilities"):
            text = (samples / "mixed" / f"{name}.{kind}.xml").read_text()
            if name == host:
                text = re.sub(r"<topology [^>]*/>|<topology>.*?</topology>", "", text, flags=re.DOTALL)
            (folder / f"{name}.{kind}.xml").write_text(text)
    return vc.read_fleet(folder)


def test_a_guest_whose_memory_is_not_known_has_no_sure_place_and_a_host_with_one_takes_nobody(
    samples: Path, fleet: vc.Fleet
) -> None:
    people = {"dark": Person(gib=None), "plain": Person(), "dark_there": Person(host=RACK[1], gib=None)}
    found = vc.plan_evacuation(RACK[0], fleet[RACK], crowd(samples, people))
    dark = at(found.frame, "dark")
    assert (dark["verdict"], dark["reasons"]) == ("unknown", ("memory",))
    assert dark["memory"] is pd.NA
    assert "virsh dumpxml" in dark["remedy"]
    assert at(found.frame, "plain")["target"] in RACK[2:]
    assert found.complete is None
    assert any(f"{RACK[1]} take nobody: how much memory dark_there on {RACK[1]} has" in d for d in found.doubts)
    nowhere = vc.plan_evacuation(RACK[0], fleet[RACK[:2]], crowd(samples, people))
    plain = at(nowhere.frame, "plain")
    assert (plain["verdict"], plain["reasons"]) == ("unknown", ("doubt",))
    assert f"how much memory dark_there on {RACK[1]} has is not known" in plain["evidence"]


def test_a_host_that_does_not_say_how_large_it_is_takes_nobody(samples: Path, tmp_path: Path) -> None:
    hosts = rack_without_size(samples, tmp_path, host=RACK[1])
    assert hosts.hosts["threads"].isna().tolist() == [False, True, False, False]
    guest = crowd(samples, {"plain": Person()})
    alone = vc.plan_evacuation(RACK[0], hosts[RACK[:2]], guest)
    assert (at(alone.frame, "plain")["verdict"], at(alone.frame, "plain")["reasons"]) == (
        "unknown",
        ("VCPU", "MEMORY"),
    )
    assert alone.complete is None
    others = vc.plan_evacuation(RACK[0], hosts, guest)
    assert others.complete is True
    assert at(others.frame, "plain")["target"] in RACK[2:]


def test_a_guest_that_may_run_is_unknown_and_one_that_is_nowhere_for_sure_casts_doubt(
    samples: Path, fleet: vc.Fleet
) -> None:
    people = {
        "maybe": Person(state=None, live=False),
        "astray": Person(host=None),
        "there": Person(host=RACK[1], state=None, live=False),
    }
    found = vc.plan_evacuation(RACK[0], fleet[RACK], crowd(samples, people))
    assert (at(found.frame, "maybe")["verdict"], at(found.frame, "maybe")["reasons"]) == ("unknown", ("STATE",))
    assert list(found.frame.index) == ["maybe"]
    assert any("where astray run, if they do, is not known" in doubt for doubt in found.doubts)
    assert "there may run, and count as running" in found.doubts
    assert found.complete is None
    assert found.moves == ()


def test_a_paused_guest_moves_and_is_said_to_arrive_paused(samples: Path, fleet: vc.Fleet) -> None:
    found = vc.plan_evacuation(
        RACK[0],
        fleet[RACK],
        crowd(samples, {"naps": Person(state="paused"), "off": Person(state="shut off", live=False)}),
    )
    naps = at(found.frame, "naps")
    assert (naps["verdict"], naps["evidence"]) == ("moves", "it is paused, and would arrive paused")
    assert "virsh resume" in naps["remedy"]
    assert at(found.frame, "off")["verdict"] == "off"
    assert found.complete is True


@pytest.mark.parametrize(
    ("other", "free"),
    [
        (Person(host=RACK[1], name="web"), False),  # another guest of the name
        (Person(host=RACK[1], name="web", state="shut off", live=False), False),
        (Person(host=RACK[1], name="api", uuid="00000001-2341-59eb-b5c5-164e04de2c2f"), False),  # a clone
        (Person(host=RACK[1], name="api", uuid="00000001-2341-59EB-B5C5-164E04DE2C2F"), False),
        (Person(host=RACK[1], name="web", uuid="00000001-2341-59eb-b5c5-164e04de2c2f"), False),  # runs twice
        # what an earlier move left behind: libvirt replaces it
        (Person(host=RACK[1], name="web", uuid="00000001-2341-59eb-b5c5-164e04de2c2f", state="shut off", live=False),
         True),
        (Person(host=RACK[1]), True),
    ],
)  # fmt: skip
def test_a_host_that_has_the_name_or_the_uuid_takes_no_other_guest_of_it(
    samples: Path, fleet: vc.Fleet, other: Person, free: bool
) -> None:
    people = {"web": Person(name="web"), "other": other}
    found = vc.plan_evacuation(RACK[0], fleet[RACK[:2]], crowd(samples, people))
    web = at(found.frame, "web")
    if free:
        assert (web["verdict"], web["target"]) == ("moves", RACK[1])
    else:
        assert (web["verdict"], web["reasons"]) == ("full", ("name",))
        assert f"of its name or UUID is on {RACK[1]} already" in web["evidence"]
    assert found.complete is free


def test_the_moves_name_guests_as_libvirt_does_and_leave_huge_pages_out_of_common_memory(
    samples: Path, fleet: vc.Fleet
) -> None:
    people = {"web#2": Person(name="web", gib=6), "paged": Person(gib=5, huge_pages=True)}
    found = vc.plan_evacuation(RACK[0], fleet[RACK], crowd(samples, people), at_once=1)
    web, paged = found.moves
    assert (web.domain, web.name, web.uuid) == ("web#2", "web", "00000001-2341-59eb-b5c5-164e04de2c2f")
    assert [m.target for m in found.moves] == [at(found.frame, m.domain)["target"] for m in found.moves]
    assert [(m.wave, m.memory) for m in (web, paged)] == [(1, 6 * GIB), (2, None)]
