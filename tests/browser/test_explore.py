"""Both explorers of notebook 03 in a browser, used as a person would use them."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.browser

Page = Any


def test_a_planner_searches_clicks_supposes_and_takes_the_xml(page: Page, run_all: Callable[[str], None]) -> None:
    from playwright.sync_api import expect

    run_all("03_explore")
    explorer = page.locator(".vmcompat-explore")
    answer, choice = explorer.locator(".vmcompat-answer"), explorer.locator(".vmcompat-choice")
    expect(choice).to_contain_text("10 of 48 hosts chosen")
    expect(answer.locator(".vmcompat-exact")).to_contain_text("Skylake-Server-IBRS")

    search = explorer.locator(".vmcompat-search input")
    search.fill("r3 dell")
    expect(choice).to_contain_text("8 of 48 hosts chosen, the CPU of 7 known")
    expect(choice).to_contain_text("ams-r3-h08 (the document could not be read)")
    expect(answer.locator(".vmcompat-exact")).to_contain_text("Cascadelake-Server")

    search.fill("")
    expect(choice).to_contain_text("48 of 48 hosts chosen")
    expect(answer).to_contain_text("2 baselines, for no guest moves between them live")
    explorer.get_by_label("across vendors").click()
    expect(answer).to_contain_text("CPU vendors do not match")
    explorer.get_by_label("across vendors").click()

    search.fill("ams-r2")
    expect(answer.locator(".vmcompat-losses").first).to_contain_text("mitigation controls")
    for host in ("ams-r2-h03", "ams-r2-h07"):
        explorer.locator(".vmcompat-kinds label", has_text=f"{host} ·").first.click()
    expect(choice).to_contain_text("8 of 48 hosts chosen")
    expect(answer.locator(".vmcompat-exact")).to_contain_text("88 features")
    explorer.get_by_role("button", name="all in").click()
    expect(answer.locator(".vmcompat-exact")).to_contain_text("87 features")

    explorer.locator(".vmcompat-thought input").fill("ams-r2-h99")
    explorer.get_by_role("button", name="gone").click()
    expect(explorer.locator(".vmcompat-message")).to_contain_text("no host 'ams-r2-h99' in the fleet")
    explorer.locator(".vmcompat-thought input").fill("ams-r2-h03")
    explorer.get_by_role("button", name="patched").click()
    expect(answer).to_contain_text("In thought only: ams-r2-h03 patched")
    expect(explorer.locator(".vmcompat-message")).to_have_text("")
    explorer.locator(".vmcompat-thought input").fill("ams-r2-h07")
    explorer.get_by_role("button", name="gone").click()
    expect(answer.locator(".vmcompat-supposed")).to_contain_text("guests gain control md-clear")
    picture(page, explorer, "explore-answer")

    explorer.get_by_role("tab", name="XML").click()
    link = explorer.locator(".vmcompat-xml a").first
    shown = explorer.locator(".vmcompat-xml-guest").first.inner_text()
    with page.expect_download() as started:
        link.click()
    assert started.value.suggested_filename == "x86_64-Intel-Skylake-Server-IBRS-guest.xml"
    assert started.value.path().read_text() == shown + "\n" * (not shown.endswith("\n"))
    assert "<feature policy='require' name='md-clear'/>" in shown
    picture(page, explorer, "explore-xml")

    explorer.get_by_role("tab", name="Matrix").click()
    matrix = explorer.locator(".vmcompat-matrix img")
    expect(matrix).to_have_attribute("alt", re.compile(r"^Matrix of hosts by features\. 9 hosts"))
    picture(page, explorer, "explore-matrix")


def test_a_planner_moves_the_slider_weighs_pins_and_takes_the_files(page: Page, run_all: Callable[[str], None]) -> None:
    from playwright.sync_api import expect

    run_all("03_explore")
    planner = page.locator(".vmcompat-pools")
    status = planner.locator(".vmcompat-status")
    expect(status).to_contain_text("7 pools keep a value of")
    expect(planner.locator(".vmcompat-working")).to_have_count(0)
    expect(planner.locator(".vmcompat-curve circle")).to_have_count(8)
    picture(page, planner, "pools-start")

    planner.locator(".vmcompat-k .noUi-handle").focus()
    page.keyboard.press("ArrowLeft")
    expect(status).to_contain_text("6 pools keep a value of")
    expect(planner.locator(".vmcompat-proposed tbody tr")).to_have_count(6)
    expect(planner.locator(".vmcompat-exchange")).to_contain_text("fra (AMD)")

    small = planner.locator(".vmcompat-proposed tbody tr td:nth-child(4)", has_text=re.compile("^[1-4]$"))
    assert small.count() > 0
    least = planner.get_by_label("hosts at least")
    least.fill("5")
    page.wait_for_timeout(1000)
    assert small.count() > 0, "nothing is solved while one types"
    least.press("Enter")
    expect(small).to_have_count(0)
    expect(planner.locator(".vmcompat-proposed tbody tr")).to_have_count(6)
    least.fill("1")
    least.press("Enter")
    expect(small.first).to_be_visible()

    planner.get_by_placeholder("host").fill("ams-r1-h01")
    planner.get_by_role("button", name="pin", exact=True).click()
    expect(planner.locator(".vmcompat-pins")).to_contain_text("ams-r1-h01 goes with")
    planner.get_by_role("button", name="unpin all").click()
    expect(planner.locator(".vmcompat-pins li")).to_have_count(0)

    moves = planner.get_by_label("moves at most")
    moves.fill("0")
    moves.press("Enter")
    expect(status).to_contain_text("cannot be met together")
    expect(planner.locator(".vmcompat-working")).to_have_count(0)
    expect(planner.locator(".vmcompat-curve title", has_text="no pools meet all demands")).to_have_count(5)
    picture(page, planner, "pools-refusal")
    moves.fill("48")
    moves.press("Enter")
    expect(planner.locator(".vmcompat-working")).to_have_count(0)

    planner.get_by_role("tab", name="Moves").click()
    expect(planner.locator(".vmcompat-move-list")).to_contain_text("guests have to restart")
    picture(page, planner, "pools-moves")
    planner.get_by_role("tab", name="Export").click()
    href = planner.locator(".vmcompat-export a", has_text="placement.csv").get_attribute("href")
    head, data = href.split(",")
    assert head == "data:text/csv;base64"
    lines = base64.b64decode(data).decode().splitlines()
    assert lines[0].startswith("host,pool,today,moved,restarts")
    assert len(lines) == 1 + 43
    picture(page, planner, "pools-export")


def picture(page: Page, widget: Any, name: str) -> None:
    """Keeps what the widget looks like now."""
    from tests.browser.conftest import PICTURES

    page.wait_for_timeout(500)
    PICTURES.mkdir(parents=True, exist_ok=True)
    widget.screenshot(path=str(PICTURES / f"{name}.png"))
