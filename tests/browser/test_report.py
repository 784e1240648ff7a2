"""The audit report in a browser that has no network: everything is there, and its searches and links work."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import vmcompat as vc

pytest.importorskip("xlsxwriter", reason="the extra 'report' is not installed")

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).resolve().parents[2] / "build" / "browser"


@pytest.fixture(scope="module")
def report(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    fleet = vc.read_fleet(samples / "mixed")
    (folder / "waivers.csv").write_text(
        "finding,owner,expiry,reason\nCONTROL_LACKING:ams-r2-h07:md-clear,ops,2026-10-31,was to be replaced\n"
    )
    return vc.report(
        fleet, folder / "audit.html", domains=samples / "mixed" / "domains", at="2026-11-24",
        waivers=folder / "waivers.csv", progress=False,
    )  # fmt: skip


@pytest.fixture
def offline(browser: Any, request: pytest.FixtureRequest) -> Iterator[Callable[[Path], Any]]:
    """Opens a file in a browser without a network; nothing may be asked for but that file, nothing may go wrong."""
    context = browser.new_context(offline=True, viewport={"width": 1500, "height": 1300})
    page = context.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)

    def opened(path: Path) -> Any:
        page.goto(path.as_uri())
        return page

    yield opened
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(PICTURES / f"{request.node.name}.png"))
    context.close()
    assert [urlsplit(url).scheme for url in asked if not url.startswith("data:")] == ["file"]
    assert wrong == []


def test_the_report_opens_without_a_network_and_every_picture_is_there(
    report: Path, offline: Callable[[Path], Any]
) -> None:
    page = offline(report)
    assert page.locator("ol.verdict > li").count() == 5
    pictures = page.locator("img")
    assert pictures.count() >= 5
    for i in range(pictures.count()):
        assert pictures.nth(i).evaluate("i => i.complete && i.naturalWidth > 0")
        assert len(pictures.nth(i).get_attribute("alt")) > 40


def test_an_auditor_searches_a_host_and_follows_a_citation(report: Path, offline: Callable[[Path], Any]) -> None:
    page = offline(report)
    page.locator("#hosts input").fill("ams-r2 0x200005d")
    rows = page.locator("#hosts tbody tr:visible")
    assert [rows.nth(i).locator("td").first.inner_text() for i in range(rows.count())] == ["ams-r2-h03", "ams-r2-h07"]
    assert page.locator("#hosts output").inner_text() == "2 of 48"
    page.locator("#documents input").fill("nothing has this name")
    cited = page.locator("ol.verdict > li").nth(1).locator("a.doc").first
    place = cited.get_attribute("href")
    cited.click()
    assert page.locator(f"tr:has({place})").is_visible()
    assert "domcapabilities" in page.locator(f"tr:has({place})").inner_text()


def test_an_expired_waiver_is_the_first_thing_under_changes_and_links_to_its_finding(
    report: Path, offline: Callable[[Path], Any]
) -> None:
    page = offline(report)
    row = page.locator("tr", has_text="was to be replaced").first
    assert "expired" in row.inner_text()
    row.locator("a").click()
    assert page.locator("tr:has(:target)").inner_text().startswith("✗ red")


def test_without_scripts_every_row_can_be_read(report: Path, browser: Any) -> None:
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("#hosts tbody tr").count() == 48
    assert page.locator("#hosts tbody tr").last.is_visible()
    context.close()
