"""Who has a baseline, who waits for a power cycle, and in which waves."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vmcompat as vc
from tests.migration.scene import SANDYBRIDGE, WESTMERE, at, domain_xml
from tests.migration.test_domains import live
from tests.migration.test_reach import hosts
from vmcompat.errors import FrameError
from vmcompat.migration.domains import Domains, read_domains
from vmcompat.migration.ledger import Ledger, restart_ledger
from vmcompat.schema import LEDGER

HOST_MODEL = "<cpu mode='host-model'/>"


def fleet() -> vc.Fleet:
    return hosts(h1=WESTMERE, h2=SANDYBRIDGE)


BASE = fleet().baseline()
ON_IT = BASE.guest_xml
RICHER = f"<cpu mode='custom' match='exact'>{SANDYBRIDGE}</cpu>"
POORER = "<cpu mode='custom' match='exact'><model fallback='forbid'>Nehalem</model><vendor>Intel</vendor></cpu>"


def guest(running: str | None, stored: str | None, *, host: str | None = "h1", state: str | None = None) -> Domains:
    texts = {} if running is None else {"live": live(cpu=running)}
    texts |= {} if stored is None else {"stored": domain_xml(cpu=stored)}
    (record,) = read_domains(texts).records
    return Domains(records=(replace(record, host=host, state=state),))


def row(domains: Domains, **options: Any) -> Any:
    return at(restart_ledger(domains, BASE, **options).frame, "web1")


@pytest.mark.parametrize(
    ("running", "stored", "state", "on_it", "written", "action"),
    [
        (ON_IT, ON_IT, "running", True, True, "none"),
        (RICHER, ON_IT, "running", False, True, "cycle"),
        (POORER, ON_IT, "running", False, True, "cycle"),
        (ON_IT, RICHER, "running", True, False, "write"),
        (RICHER, RICHER, "running", False, False, "write and cycle"),
        (RICHER, HOST_MODEL, "running", False, False, "write and cycle"),
        (None, ON_IT, "shut off", None, True, "none"),
        (None, RICHER, "shut off", None, False, "write"),
        (None, ON_IT, "running", None, True, "unknown"),
        (None, ON_IT, None, None, True, "unknown"),
        (ON_IT, None, "running", True, None, "unknown"),
    ],
)
def test_what_a_guest_waits_for(
    running: str | None, stored: str | None, state: str | None, on_it: bool | None, written: bool | None, action: str
) -> None:
    found = restart_ledger(guest(running, stored, state=state), BASE)
    told = at(found.frame, "web1")
    assert told["action"] == action
    assert [None if told[c] is pd.NA else bool(told[c]) for c in ("on_it", "written")] == [
        on_it,
        written,
    ]
    assert found.done is (action == "none")
    assert found.waves == ((("web1",),) if "cycle" in action else ())


def test_what_a_guest_has_beyond_the_baseline_is_named() -> None:
    told = row(guest(RICHER, ON_IT, state="running"))
    assert "avx" in told["beyond"]
    assert "SandyBridge with" in told["evidence"]
    assert "virsh shutdown --domain web1; virsh start --domain web1" in told["remedy"]
    assert "apply_baseline" not in told["remedy"]


@pytest.mark.parametrize("host", ["h3", "h1"])
def test_only_guests_of_the_baselines_hosts_are_asked_to_change(host: str) -> None:
    told = row(guest(RICHER, RICHER, host=host))
    assert told["action"] == ("elsewhere" if host == "h3" else "write and cycle")


def test_the_fleet_says_who_can_move_today_and_whose_next_start_may_end_it() -> None:
    kept, ending = (row(guest(ON_IT, stored, state="running"), fleet=fleet()) for stored in (ON_IT, RICHER))
    assert [bool(r["moves_today"]) for r in (kept, ending)] == [True, True]
    assert (kept["n_hosts"], ending["until"]) == (1, "power cycle")
    assert not isinstance(kept["until"], str)
    stuck = row(guest(RICHER, RICHER, state="running", host="h2"), fleet=fleet())
    assert (bool(stuck["moves_today"]), stuck["n_hosts"]) == (False, 0)


def many(n: int) -> Domains:
    (record,) = guest(RICHER, ON_IT, state="running").records
    return Domains(records=tuple(replace(record, name=f"g{i}") for i in range(n)))


def test_a_guest_that_is_not_known_is_in_no_wave() -> None:
    unknown = replace(guest(None, ON_IT, state="running").records[0], name="dark")
    found = restart_ledger(Domains(records=(*many(2).records, unknown)), BASE)
    assert found.waves == (("g0", "g1"),)
    assert any(told.startswith("dark: ") for told in found.explain())


@given(st.data())
def test_waves_hold_every_guest_once_and_keep_the_rules(data: st.DataObject) -> None:
    n, at_once = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    names = [f"g{i}" for i in range(n)]
    pairs = list(combinations(names, 2))
    together = data.draw(st.lists(st.sampled_from(pairs), max_size=2)) if pairs else []
    apart = data.draw(st.lists(st.sampled_from(pairs), max_size=4)) if pairs else []
    try:
        found = restart_ledger(many(n), BASE, together=together, apart=apart, at_once=at_once)
    except FrameError:
        refused = True
    else:
        refused = False
    if refused:  # nothing but guests that stay together can be too much to ask
        assert restart_ledger(many(n), BASE, apart=apart, at_once=at_once).waves
        assert together
        return
    wave = {name: i for i, names_of in enumerate(found.waves) for name in names_of}
    assert sorted(wave) == sorted(names)
    assert sum(len(w) for w in found.waves) == n
    assert max(len(w) for w in found.waves) <= at_once
    assert all(wave[a] == wave[b] for a, b in together)
    assert all(wave[a] != wave[b] for a, b in apart)
    assert -(-n // at_once) <= found.fewest <= len(found.waves)
    assert [at(found.frame, name)["wave"] - 1 for name in names] == [wave[name] for name in names]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at_once": 0}, "at least 1 guest"),
        ({"at_once": 1, "together": [("g0", "g1")]}, "stay together"),
        ({"together": [("g0", "g1")], "apart": [("g0", "g1")]}, "both together and apart"),
        ({"apart": [("g0", "nobody")]}, "no guest 'nobody'"),
    ],
)
def test_a_wish_that_cannot_be_granted_is_one_clear_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FrameError, match=message):
        restart_ledger(many(3), BASE, **options)


def test_the_answer_is_a_frame_a_repr_and_sentences() -> None:
    found: Ledger = vc.restart_ledger(many(2), BASE, at_once=1)
    assert {c: str(t) for c, t in found.frame.dtypes.items()} == LEDGER
    assert repr(found) == "<Ledger of Westmere, 2 guests: 2 cycle; 2 waves>"
    assert found.explain() == [
        "Westmere: of 2 guests 2 have it stored and wait for a power cycle", "2 waves: g0; g1",
    ]  # fmt: skip
