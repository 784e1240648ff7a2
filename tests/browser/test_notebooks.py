"""Every notebook in JupyterLab, run from its menu: what the page shows in the end, and nothing is wrong on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

import vmcompat as vc
from tests.rig import RigUnavailable
from tests.rig.supplies import require_machine

pytestmark = pytest.mark.browser

Page = Any

WRONG: Final = ("stderr", "error")
NOT_DRAWN: Final = re.compile(r"Error (displaying|creating|rendering) |Loading widget|Javascript Error|Traceback")


@pytest.fixture(scope="module")
def fleet(samples: Path) -> vc.Fleet:
    return vc.read_fleet(samples / "mixed")


def last_words(page: Page) -> str:
    """What the last code cell printed, wherever its lines are broken."""
    return " ".join(page.locator(".jp-CodeCell").last.locator(".jp-OutputArea-output").inner_text().split())


def look_over(page: Page, *, pictures: int) -> None:
    """Nothing on the page went wrong, and at least so many pictures are there, each with words for who cannot see."""
    notebook = page.locator(".jp-Notebook")
    for kind in WRONG:
        assert notebook.locator(f"[data-mime-type='application/vnd.jupyter.{kind}']").all_inner_texts() == []
    for output in notebook.locator(".jp-OutputArea-output").all_inner_texts():
        assert not NOT_DRAWN.search(output), output[:2000]
    assert [words for words in notebook.locator(".vmcompat-message").all_inner_texts() if words.strip()] == []
    page.wait_for_function("[...document.querySelectorAll('.jp-Notebook img')].every(image => image.complete)")
    images = notebook.locator(".jp-OutputArea-output img")
    drawn = images.evaluate_all("images => images.map(image => [image.naturalWidth, image.alt])")
    assert len(drawn) >= pictures
    for width, words in drawn:
        assert width > 100, words
        assert len(words) > 40, f"a picture {width} px wide says no more than {words!r}"


def stretch(page: Page) -> None:
    """Makes the window as tall as the notebook, so that the picture which is kept shows all of it."""
    panel = page.locator(".jp-WindowedPanel-outer").first
    height = panel.evaluate("panel => panel.scrollHeight")
    page.set_viewport_size({"width": 1500, "height": min(height + 150, 16_000)})  # Chromium draws no more
    panel.evaluate("panel => panel.scrollTo(0, 0)")


def test_01_fleet_shows_what_was_read(fleet: vc.Fleet, page: Page, run_all: Callable[[str], None]) -> None:
    run_all("01_fleet")
    look_over(page, pictures=2)
    stretch(page)
    words = last_words(page)
    twins = vc.twins(fleet, by=["server", "purchased"])
    assert f"{len(fleet.features)} of {len(fleet)} hosts can be judged; not {', '.join(fleet.unknown)}." in words
    assert f"{twins.frame['group'].nunique()} of {twins.n_groups} deliveries are no longer identical." in words


def test_02_baselines_shows_the_decisions(fleet: vc.Fleet, page: Page, run_all: Callable[[str], None]) -> None:
    run_all("02_baselines")
    look_over(page, pictures=3)
    stretch(page)
    words = last_words(page)
    racks = vc.pools(fleet.drop(*fleet.unknown), len(fleet), current="rack", max_moves=0)
    assert f"host by host: {racks.value:,.0f} in {len(racks.frame)} racks today" in words
    assert f"6. Not planned for: {', '.join(fleet.unknown)}." in words


def test_03_explore_shows_both_explorers(fleet: vc.Fleet, page: Page, run_all: Callable[[str], None]) -> None:
    from playwright.sync_api import expect

    run_all("03_explore")
    expect(page.locator(".vmcompat-working")).to_have_count(0)
    look_over(page, pictures=0)
    stretch(page)
    words, base = last_words(page), fleet.select("rack == 'ams-r2'").baseline()
    assert f"10 hosts of ams-r2 promise {base.model}, {base.level}, {len(base.gives)} features." in words
    unknown = [f"{host} ({fleet.hosts['cpu_status'][host]})" for host in fleet.unknown]
    assert f"In no pool: {', '.join(unknown)}." in words
    expect(page.locator(".vmcompat-explore .vmcompat-exact")).to_contain_text(f"{len(base.gives)} features")


def test_fleet_audit_shows_the_verdict(fleet: vc.Fleet, page: Page, run_all: Callable[[str], None]) -> None:
    run_all("fleet_audit")
    look_over(page, pictures=5)
    stretch(page)
    assert f"The CPU of {len(fleet.features)} of {len(fleet)} hosts is known" in last_words(page)


@pytest.mark.rig
def test_04_migrate_moves_a_guest(page: Page, run_all: Callable[[str], None]) -> None:
    try:
        require_machine()
    except RigUnavailable as e:
        pytest.skip(f"no rig: {e}")
    run_all("04_migrate")
    look_over(page, pictures=0)
    stretch(page)
    words = last_words(page)
    assert "As it was, web1 could not move from h1 to h2." in words
    assert re.search(r"With the Westmere baseline of both hosts it migrated in \d+\.\d s", words)
    assert re.search(r"with 0 holes, [1-9]\d* pages read back with 0 damaged words", words)
