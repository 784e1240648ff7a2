"""The upgrade night: which guests could go to the upgraded host and not come back, and which are cut off."""

from dataclasses import replace
from pathlib import Path

import pytest

import vmcompat as vc
from tests.migration.scene import SANDYBRIDGE, WESTMERE, at, domain_xml
from tests.migration.test_domains import in_state, live
from tests.migration.test_reach import host, hosts, on
from vmcompat.errors import FrameError
from vmcompat.migration.canary import canary
from vmcompat.migration.domains import Domains, read_domains
from vmcompat.schema import CANARY

HOST_MODEL = "<cpu mode='host-model' check='partial'/>"


@pytest.fixture(scope="module")
def fleet(samples: Path) -> vc.Fleet:
    return vc.read_fleet(samples / "mixed")


@pytest.fixture(scope="module")
def domains(samples: Path) -> Domains:
    return read_domains(samples / "mixed" / "domains")


def with_documents_of(fleet: vc.Fleet, name: str, *, like: str) -> vc.Fleet:
    """One host of the fleet as it would be with the documents of another."""
    other = fleet[like]
    return replace(other, records=tuple(replace(r, name=name) for r in other.records))


def guest(cpu: str, *, stored: str = HOST_MODEL, place: str = "h1") -> Domains:
    """A running guest, and what its definition says."""
    return on(place, read_domains({"live": live(cpu=cpu), "stored": domain_xml(cpu=stored)}))


RUNS_WESTMERE = f"<cpu check='full'>{WESTMERE}</cpu>"


def test_nothing_upgraded_is_a_go(fleet: vc.Fleet, domains: Domains) -> None:
    found = canary(fleet, fleet["ams-r1-h08", "ams-r2-h01"], domains)
    assert (found.go, found.upgraded) == (True, ())
    assert set(found.frame["verdict"]) == {"ok"}
    assert list(found.frame.columns) == list(CANARY)
    assert list(found.frame.index) == list(domains.names)


def test_a_host_that_got_features_back_lets_guests_in_that_cannot_return(fleet: vc.Fleet, domains: Domains) -> None:
    found = canary(fleet, with_documents_of(fleet, "ams-r1-h08", like="ams-r1-h07"), domains)
    assert found.go is False
    one_way = found.frame[found.frame["one_way"]]
    assert set(one_way.index) == {"web-04", "win-dc-01"}
    assert set(one_way["missing"]) == {("hle", "rtm")}
    assert (one_way["verdict"] == "no").all()
    told = found.explain()
    assert told[0].startswith("no-go: ams-r1-h08 upgraded")
    assert "web-04, win-dc-01: after a power cycle on ams-r1-h08 it has hle, rtm and cannot go back to ams-r1-h05" in (
        " ".join(told)
    )


def test_a_managers_guest_counts_as_any_other(fleet: vc.Fleet, domains: Domains) -> None:
    found = canary(fleet, with_documents_of(fleet, "ams-r1-h08", like="ams-r1-h07"), domains)
    row = at(found.frame, "instance-000000a6")
    assert (row["verdict"], row["lost"]) == ("no", ("ams-r1-h08",))
    assert "MACHINE" in row["evidence"]
    assert "OWNER" not in row["evidence"]


@pytest.mark.parametrize(
    ("stored", "one_way"),
    [(HOST_MODEL, True), ("<cpu mode='maximum'/>", True), (RUNS_WESTMERE, False), ("", False)],
)
def test_only_a_guest_that_takes_what_its_host_has_becomes_one_way(stored: str, one_way: bool) -> None:
    before, after = hosts(h1=WESTMERE, h2=WESTMERE), hosts(h2=SANDYBRIDGE)
    found = canary(before, after, guest(RUNS_WESTMERE, stored=stored))
    row = at(found.frame, "web1")
    assert row["one_way"] == one_way
    assert found.go is not one_way
    assert ("avx" in row["missing"]) == one_way


def test_a_door_that_was_one_way_before_the_upgrade_is_not_its_doing() -> None:
    before = hosts(h1=WESTMERE, h2=SANDYBRIDGE)
    after = hosts(h2=f"{SANDYBRIDGE}<feature policy='require' name='fma'/>")
    row = at(canary(before, after, guest(RUNS_WESTMERE)).frame, "web1")
    assert (row["verdict"], row["one_way"], row["upgraded"]) == ("ok", False, ("h2",))


def test_a_guest_on_the_upgraded_host_that_nobody_else_could_take_after_a_power_cycle_is_one_way() -> None:
    before, after = hosts(h1=WESTMERE, h2=WESTMERE), hosts(h1=SANDYBRIDGE)
    row = at(canary(before, after, guest(RUNS_WESTMERE)).frame, "web1")
    assert (row["verdict"], row["one_way"]) == ("no", True)
    assert "cannot go back to h2" in row["evidence"]
    assert "vc.apply_baseline" in row["remedy"]


def test_one_host_to_return_to_is_enough() -> None:
    before, after = hosts(h1=WESTMERE, h2=WESTMERE, h3=SANDYBRIDGE), hosts(h1=SANDYBRIDGE)
    assert canary(before, after, guest(RUNS_WESTMERE)).go is True


def test_a_guest_that_can_no_longer_reach_a_poorer_host_is_lost_to_it() -> None:
    before, after = hosts(h1=SANDYBRIDGE, h2=SANDYBRIDGE), hosts(h2=WESTMERE)
    found = canary(before, after, guest(f"<cpu check='full'>{SANDYBRIDGE}</cpu>", stored=RUNS_WESTMERE))
    row = at(found.frame, "web1")
    assert (found.go, row["lost"], row["n_before"], row["n_after"]) == (False, ("h2",), 1, 0)
    assert "h2 lacks" in row["evidence"]


def test_an_upgraded_host_that_cannot_be_read_is_neither_go_nor_no_go() -> None:
    before = hosts(h1=WESTMERE, h2=WESTMERE)
    (text,) = host("h2", WESTMERE).values()
    after = vc.read_fleet({"h2": text[: len(text) // 2]}, view="hypervisor")
    found = canary(before, after, guest(RUNS_WESTMERE, stored=RUNS_WESTMERE))
    assert found.go is None
    assert found.unread == ("h2",)
    assert at(found.frame, ("web1", "verdict")) == "unknown"
    assert "fetch them again" in " ".join(found.explain())


def test_a_libvirt_without_a_name_for_what_an_upgraded_one_gives_is_unknown(fleet: vc.Fleet, domains: Domains) -> None:
    found = canary(fleet, with_documents_of(fleet, "ams-r2-h01", like="ams-r2-h08"), domains["app-02"])
    row = at(found.frame, "app-02")
    assert (found.go, row["verdict"]) == (None, "unknown")
    assert "has no name for" in row["evidence"]


def test_a_guest_that_is_off_is_asked_about_its_next_start() -> None:
    before, after = hosts(h1=WESTMERE, h2=WESTMERE), hosts(h2=SANDYBRIDGE)
    off = on("h1", in_state("shut off", domain_xml(cpu=HOST_MODEL)))
    assert at(canary(before, after, off).frame, ("web1", ["verdict", "one_way"])).tolist() == ["no", True]


def test_a_host_that_was_not_there_is_refused() -> None:
    with pytest.raises(FrameError, match="h9"):
        canary(hosts(h1=WESTMERE), hosts(h9=WESTMERE), guest(RUNS_WESTMERE))


def test_the_answer_is_in_its_repr() -> None:
    found = canary(hosts(h1=WESTMERE, h2=WESTMERE), hosts(h2=SANDYBRIDGE), guest(RUNS_WESTMERE))
    assert repr(found) == "<Canary h2: no-go; 1 of 1 guests one-way>"
