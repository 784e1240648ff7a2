"""The explorers as widgets: set values, press buttons, look at the HTML. Without an event loop nothing waits."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path
from threading import RLock

import pytest

import vmcompat as vc
from vmcompat.baseline.pools import Pools
from vmcompat.errors import FrameError

pytest.importorskip("ipywidgets", reason="the extra 'notebook' is not installed")

from vmcompat.widgets._later import Later
from vmcompat.widgets.explorer import Explorer
from vmcompat.widgets.planner import Planner

SAMPLES = Path(__file__).resolve().parent.parent.parent / "sample_caps"


@pytest.fixture(scope="module")
def fleet() -> vc.Fleet:
    return vc.read_fleet(SAMPLES / "mixed")


@pytest.fixture
def explorer(fleet: vc.Fleet) -> Explorer:
    found = vc.widgets.explore(fleet)
    assert isinstance(found, Explorer)
    return found


@pytest.fixture(scope="module")
def rack(fleet: vc.Fleet) -> vc.Fleet:
    return fleet.select("rack == 'ams-r2'")


def test_typing_choosing_and_clicking_change_what_is_shown(explorer: Explorer) -> None:
    assert "48 of 48 hosts chosen" in explorer.chosen.value
    explorer.search.value = "ams-r2"
    assert "10 of 48 hosts chosen" in explorer.chosen.value
    assert "Skylake-Server-IBRS" in explorer.answer.value
    labels = [box.description for box in explorer.kinds.children]
    assert len(labels) == 4
    assert labels[0].startswith("ams-r2-h01 +4 · Skylake-Server-IBRS")
    explorer.kinds.children[0].value = False
    assert "5 of 48 hosts chosen" in explorer.chosen.value
    assert not explorer.kinds.children[0].value
    explorer.every.click()
    assert "10 of 48 hosts chosen" in explorer.chosen.value
    explorer.none.click()
    assert "No host is chosen" in explorer.answer.value
    assert [box.value for box in explorer.kinds.children] == [False] * 4
    explorer.search.value = ""
    assert "38 of 48 hosts chosen" in explorer.chosen.value


def test_a_column_offers_its_values_with_their_counts(explorer: Explorer) -> None:
    explorer.column.value = "rack"
    assert ("ams-r2 (10)", "ams-r2") in [tuple(o) for o in explorer.values.options]
    explorer.values.value = ("ams-r2", "fra")
    assert "18 of 48 hosts chosen" in explorer.chosen.value
    explorer.column.value = "(any)"
    assert "48 of 48 hosts chosen" in explorer.chosen.value


def test_switches_change_the_baseline_and_its_xml(explorer: Explorer) -> None:
    explorer.search.value = "ams-r2"
    before = explorer.xml.value
    explorer.without["tsx"].value = True
    assert "taken out on request: hle, rtm" in explorer.answer.value
    assert explorer.xml.value != before
    explorer.without["tsx"].value = False
    assert explorer.xml.value == before
    explorer.view.value = "host"
    assert "host view" in explorer.chosen.value
    explorer.view.value = "hypervisor"
    assert explorer.xml.value == before
    explorer.search.value = ""
    explorer.across.value = False
    assert "CPU vendors do not match" in explorer.answer.value


def test_an_error_is_a_message_that_the_next_click_takes_away(explorer: Explorer) -> None:
    explorer.gone.click()
    assert "name the host first" in explorer.message.value
    explorer.host.value = "<b>x</b>"
    explorer.patched.click()
    assert "no host" in explorer.message.value
    assert "<b>x</b>" not in explorer.message.value
    explorer.search.value = "ams-r2"
    assert explorer.message.value == ""
    explorer.host.value = "ams-r2-h07"
    explorer.gone.click()
    assert "9 of 48 hosts chosen" in explorer.chosen.value
    assert "In thought only: ams-r2-h07 gone" in explorer.answer.value
    explorer.reset.click()
    assert "In thought only" not in explorer.answer.value


def test_the_matrix_is_drawn_only_while_its_tab_is_open(explorer: Explorer) -> None:
    def picture() -> str:
        return "".join(part.value for part in explorer.matrix.children)

    explorer.search.value = "ams-r2"
    assert "<img" not in picture()
    explorer.tabs.selected_index = 2
    assert 'alt="Matrix of hosts by features. 10 hosts' in picture()
    explorer.search.value = "ams-r3"
    assert 'alt="Matrix of hosts by features. 8 hosts' in picture()
    explorer.none.click()
    assert "no host is chosen" in picture()
    explorer.tabs.selected_index = 0
    explorer.every.click()
    assert "no host is chosen" in picture(), "nobody looks: nothing is drawn"


def test_more_kinds_than_can_be_listed_are_counted(monkeypatch: pytest.MonkeyPatch, fleet: vc.Fleet) -> None:
    monkeypatch.setattr("vmcompat.widgets.explorer._ROWS", 5)
    explorer = Explorer(fleet)
    assert len(explorer.kinds.children) == 5
    assert f"and {len(explorer.state.rows) - 5} more kinds of" in explorer.rest.value
    explorer.search.value = "ams-r2"
    assert explorer.rest.value == ""


def test_the_slider_shows_another_number_of_pools(fleet: vc.Fleet) -> None:
    planner = vc.widgets.pools(fleet, current="rack")
    assert isinstance(planner, Planner)
    assert (planner.k.min, planner.k.value) == (2, 7)
    assert "7 pools keep a value of" in planner.status.value
    planner.k.value = 5
    assert "5 pools keep a value of" in planner.status.value
    assert planner.curve.value.count("<circle") == len(planner.state.ks)
    assert "vmcompat-exchange" in planner.proposal.value
    assert "guests have to restart" in planner.moves.value
    for name in ("pools.csv", "placement.csv", "moves.csv"):
        assert f"download='{name}'" in planner.export.value


def test_demands_weights_and_pins_reach_the_answer(rack: vc.Fleet) -> None:
    planner = Planner(rack, current=None)
    planner.k.value = 3
    before = planner.state.answer
    planner.min_hosts.value = 3
    found = planner.state.answer
    assert isinstance(found, Pools)
    assert found is not before
    assert found.frame["n_hosts"].min() >= 3
    planner.weights["simd"].value = 11
    assert dict(planner.state.demand.weights) == {"simd": 11.0}
    planner.defaults.click()
    assert dict(planner.state.demand.weights) == {}
    assert planner.weights["simd"].value == 5
    planner.min_hosts.value = 1
    planner.host.value, planner.pool.value = "ams-r2-h01", planner.pool.options[-1]
    planner.pin.click()
    assert "ams-r2-h01 goes with" in planner.pinned.value
    planner.unpin.click()
    assert planner.state.demand.pins == ()


def test_refusals_of_the_planner_are_messages(rack: vc.Fleet) -> None:
    planner = Planner(rack, current=None)
    planner.max_moves.value = 2
    assert "choose their column first" in planner.message.value
    assert planner.max_moves.value == len(rack), "the field shows what holds"
    planner.pin.click()
    assert "name the host" in planner.message.value
    planner.today.value = "os"
    assert planner.message.value == ""
    planner.n_plus.value = len(rack)
    assert "cannot be met together" in planner.status.value


def test_every_part_that_a_test_looks_for_has_its_class(explorer: Explorer, rack: vc.Fleet) -> None:
    assert "vmcompat-explore" in explorer._dom_classes
    assert "vmcompat-pools" in Planner(rack, current=None)._dom_classes
    with pytest.raises(FrameError, match="no column"):
        vc.widgets.pools(rack, current="nothing")


def test_later_does_what_was_asked_last_and_stops_when_it_is_done() -> None:
    done: list[str] = []

    def work(name: str, times: int) -> bool:
        done.append(name)
        return done.count(name) < times

    async def ask() -> None:
        later = Later(RLock(), seconds=0.01)
        later.ask(lambda: work("first", 3))
        later.ask(lambda: work("last", 3))
        assert done == [], "the click comes first"
        await asyncio.sleep(0.3)
        later.ask(lambda: work("never", 1))
        later.forget()
        await asyncio.sleep(0.1)

    asyncio.run(ask())
    assert done == ["last"] * 3


def test_work_waits_for_whoever_holds_the_lock() -> None:
    lock, done = RLock(), list[float]()
    holding = threading.Event()

    def hold() -> None:
        with lock:
            holding.set()
            time.sleep(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    start = time.monotonic()

    def work() -> bool:
        done.append(time.monotonic() - start)
        return False

    Later(lock, seconds=0).ask(work)
    thread.join()
    assert done[0] > 0.1


def test_importing_vmcompat_and_asking_for_a_baseline_loads_no_widgets() -> None:
    program = (
        "import sys, vmcompat as vc; vc.read_fleet('sample_caps/virsh_pair').baseline(); "
        "print('ipywidgets' in sys.modules, 'matplotlib' in sys.modules); "
        "vc.widgets; print('ipywidgets' in sys.modules)"
    )
    said = subprocess.check_output([sys.executable, "-c", program], cwd=SAMPLES.parent, text=True)
    assert said.split() == ["False", "False", "True"]
