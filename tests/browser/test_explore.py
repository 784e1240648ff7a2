"""The explorers in a browser, used as a person would use them."""

from __future__ import annotations

import base64
import csv
import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import vmcompat as vc
from tests.browser.conftest import Lab, picture, run_notebook, tab

nbformat = pytest.importorskip("nbformat", reason="the extra 'notebook' is not installed")

pytestmark = pytest.mark.browser

Page = Any

HOSTILE: Final = {
    "ams-r2-h01": "<img src=/stolen onerror=window.pwned=1>",
    "ams-r2-h02": "</script><script>window.pwned=2</script>",
    "ams-r2-h03": "\"'><svg onload=window.pwned=3>",
    "ams-r4-h01": "</style></pre></textarea><b onmouseover='window.pwned=4'>bold</b>",
    "fra-h01": "{{constructor}} &lt;i&gt; javascript:window.pwned=5",
}
"""Names of sample hosts, and what these hosts are called here."""


@pytest.fixture(scope="module")
def fleet(samples: Path) -> vc.Fleet:
    return vc.read_fleet(samples / "mixed")


def write_notebook(lab: Lab, name: str, *cells: str, below: str = "") -> None:
    """A notebook of these cells, below those of another one."""
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    made = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    if below:
        made.cells = nbformat.read(lab.folder / "notebooks" / f"{below}.ipynb", as_version=4).cells
    made.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(made, lab.folder / "notebooks" / f"{name}.ipynb")


@pytest.fixture(scope="module")
def sent() -> list[str]:
    """What the page told its kernel of its widgets."""
    return []


@pytest.fixture(scope="module")
def explorers(browser: Any, lab: Lab, sent: list[str]) -> Iterator[Page]:
    """03_explore with both widgets once more at its end, so that each test has one that nobody has touched."""
    again = [f"vc.widgets.{widget}(vc.read_fleet(source))" for widget in ("explore", "pools")]
    write_notebook(lab, "03_twice", *again, below="03_explore")

    def noted(frame: str | bytes) -> None:
        told = frame if isinstance(frame, str) else frame.decode(errors="replace")
        sent.extend(["comm_msg"] * ("comm_msg" in told))

    with tab(browser, lab, "explorers") as page:
        page.on("websocket", lambda socket: socket.on("framesent", noted))
        run_notebook(page, lab, "03_twice")
        yield page


def content(link: Any, kind: str) -> str:
    """The file that a link holds."""
    head, data = link.get_attribute("href").split(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(data).decode()


def fits(widget: Any) -> bool:
    """Whether nothing of the open tab is cut at its right edge; a table may scroll inside."""
    wide = "panes => panes.map(pane => pane.scrollWidth - pane.clientWidth)"
    over: list[int] = widget.locator(".widget-tab-contents > :not(.lm-mod-hidden)").evaluate_all(wide)
    return max(over) <= 0


def enter(field: Any, text: str) -> None:
    field.fill(text)
    field.press("Enter")


def test_a_planner_searches_clicks_supposes_and_takes_the_xml(explorers: Page) -> None:
    from playwright.sync_api import expect

    page = explorers
    explorer = page.locator(".vmcompat-explore").first
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
    picture(page, explorer, "explore-all")
    assert fits(explorer)
    explorer.get_by_label("across vendors").click()
    expect(answer).to_contain_text("CPU vendors do not match")
    picture(page, explorer, "explore-refusal")
    explorer.get_by_label("across vendors").click()

    search.fill("ams-r2")
    expect(answer.locator(".vmcompat-losses").first).to_contain_text("mitigation controls")
    picture(page, explorer, "explore-losses")
    for host in ("ams-r2-h03", "ams-r2-h07"):
        explorer.locator(".vmcompat-kinds label", has_text=f"{host} ·").first.click()
    expect(choice).to_contain_text("8 of 48 hosts chosen")
    expect(answer.locator(".vmcompat-exact")).to_contain_text("88 features")
    explorer.get_by_role("button", name="all in").click()
    expect(answer.locator(".vmcompat-exact")).to_contain_text("87 features")

    supposed, message = explorer.locator(".vmcompat-thought input"), explorer.locator(".vmcompat-message")
    supposed.fill("ams-r2-h99")
    explorer.get_by_role("button", name="gone").click()
    expect(message).to_contain_text("no host 'ams-r2-h99' in the fleet")
    supposed.fill("ams-r2-h03")
    explorer.get_by_role("button", name="patched").click()
    expect(answer).to_contain_text("In thought only: ams-r2-h03 patched")
    expect(message).to_have_text("")
    supposed.fill("ams-r2-h07")
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

    explorer.get_by_role("button", name="as documented").click()
    expect(choice).to_contain_text("10 of 48 hosts chosen")
    expect(matrix).to_have_attribute("alt", re.compile(r"^Matrix of hosts by features\. 10 hosts"))


def test_every_switch_changes_the_answer_to_that_of_the_frames(explorers: Page, fleet: vc.Fleet) -> None:
    from playwright.sync_api import expect

    explorer = explorers.locator(".vmcompat-explore").last
    exact, choice = explorer.locator(".vmcompat-exact"), explorer.locator(".vmcompat-choice")
    expect(choice).to_contain_text("48 of 48 hosts chosen")

    explorer.get_by_label("by", exact=True).select_option("rack")
    values = explorer.locator("select[multiple]")
    values.select_option(["ams-r2 (10)", "ams-r4 (6)"])
    expect(choice).to_contain_text("16 of 48 hosts chosen")
    both = fleet.select("rack in ('ams-r2', 'ams-r4')")
    expect(exact).to_contain_text(f"{len(both.baseline().gives)} features")
    picture(explorers, explorer, "explore-column")
    assert fits(explorer)
    values.select_option("ams-r2 (10)")
    rack = fleet.select("rack == 'ams-r2'")
    base = rack.baseline()
    expect(exact).to_contain_text(f"{len(base.gives)} features")

    switches = explorer.get_by_label
    switches("only what can migrate").click()
    expect(explorer.locator(".vmcompat-answer")).to_contain_text("names what cannot be migrated too")
    explorer.get_by_role("tab", name="XML").click()
    expect(explorer.locator(".vmcompat-xml-libvirt")).to_have_text(rack.baseline(migratable=False).xml)
    switches("only what can migrate").click()
    assert rack.baseline(migratable=False).xml != base.xml
    expect(explorer.locator(".vmcompat-xml-libvirt")).to_have_text(base.xml)
    expect(explorer.locator(".vmcompat-xml-guest")).to_have_text(base.guest_xml)
    explorer.get_by_role("tab", name="Baseline").click()
    for switch, out in (("without TSX", "tsx"), ("without nested", "nested")):
        less = base.without(out)
        assert less.taken_out
        switches(switch).click()
        expect(exact).to_contain_text(f"{len(less.gives)} features")
        expect(exact).to_contain_text(f"taken out on request: {less.taken_out[0]}")
        switches(switch).click()
        expect(exact).to_contain_text(f"{len(base.gives)} features")

    explorer.get_by_role("button", name="what hosts are").click()
    expect(choice).to_contain_text("host view (advisory")
    own = rack.with_view("host").baseline()
    assert len(own.gives) != len(base.gives)
    expect(exact).to_contain_text(f"{len(own.gives)} features")
    picture(explorers, explorer, "explore-host-view")
    explorer.get_by_role("button", name="what guests get").click()
    expect(exact).to_contain_text(f"{len(base.gives)} features")

    explorer.get_by_role("button", name="all out").click()
    expect(choice).to_contain_text("0 of 48 hosts chosen")
    expect(explorer.locator(".vmcompat-answer")).to_contain_text("No host is chosen")
    explorer.locator(".vmcompat-kinds label", has_text="ams-r2-h03 ·").click()
    expect(choice).to_contain_text("1 of 48 hosts chosen")
    expect(exact).to_contain_text(f"{len(fleet[['ams-r2-h03']].baseline().gives)} features")
    explorer.get_by_role("tab", name="XML").click()
    link = explorer.locator(".vmcompat-xml a", has_text="download").last
    assert content(link, "text/xml") == fleet[["ams-r2-h03"]].baseline().xml


def test_a_planner_moves_the_slider_pins_and_takes_the_files(explorers: Page, fleet: vc.Fleet) -> None:
    from playwright.sync_api import expect

    page = explorers
    planner = page.locator(".vmcompat-pools").first
    status, working = planner.locator(".vmcompat-status"), planner.locator(".vmcompat-working")
    expect(status).to_contain_text("7 pools keep a value of")
    expect(working).to_have_count(0)
    expect(planner.locator(".vmcompat-curve circle")).to_have_count(8)
    picture(page, planner, "pools-start")
    assert fits(planner)

    slider = planner.locator(".vmcompat-k .noUi-handle")
    slider.press("ArrowLeft")
    expect(status).to_contain_text("6 pools keep a value of")
    expect(planner.locator(".vmcompat-proposed tbody tr")).to_have_count(6)
    expect(planner.locator(".vmcompat-exchange")).to_contain_text("fra (AMD)")

    small = planner.locator(".vmcompat-proposed tbody tr td:nth-child(4)", has_text=re.compile("^[1-4]$"))
    assert small.count() > 0
    least = planner.get_by_label("hosts at least")
    enter(least, "5")
    expect(small).to_have_count(0)
    expect(planner.locator(".vmcompat-proposed tbody tr")).to_have_count(6)
    enter(least, "1")
    expect(small.first).to_be_visible()
    spare = planner.get_by_label("after losing (n+)")
    enter(spare, "2")
    single = planner.locator(".vmcompat-proposed tbody tr td:nth-child(4)", has_text=re.compile("^[12]$"))
    expect(single).to_have_count(0)
    expect(planner.locator(".vmcompat-proposed tbody tr")).to_have_count(6)
    enter(spare, "0")
    expect(single.first).to_be_visible()

    planner.get_by_placeholder("host").fill("ams-r1-h01")
    planner.locator(".vmcompat-pool select").select_option("ams-r5")
    planner.get_by_role("button", name="pin", exact=True).click()
    pinned = planner.locator(".vmcompat-pins")
    expect(pinned).to_contain_text(re.compile(r"ams-r1-h01 goes with ams-r5-h\d+ \(ams-r5\)"))
    together = planner.locator(".vmcompat-proposed td:first-child[title*='ams-r1-h01']")
    expect(together).to_have_attribute("title", re.compile(f"{pinned.inner_text().split()[3]}(,|$)"))
    planner.get_by_role("button", name="unpin all").click()
    expect(planner.locator(".vmcompat-pins li")).to_have_count(0)

    moves = planner.get_by_label("moves at most")
    enter(moves, "0")
    expect(status).to_contain_text("cannot be met together")
    expect(working).to_have_count(0)
    expect(planner.locator(".vmcompat-curve title", has_text="no pools meet all demands")).to_have_count(5)
    picture(page, planner, "pools-refusal")
    enter(moves, "48")
    expect(status).to_contain_text("6 pools keep a value of")
    expect(working).to_have_count(0)

    planner.get_by_role("tab", name="Moves").click()
    expect(planner.locator(".vmcompat-move-list")).to_contain_text("guests have to restart")
    picture(page, planner, "pools-moves")

    planner.get_by_role("tab", name="Export").click()
    links = planner.locator(".vmcompat-export a")
    placement = list(csv.DictReader(io.StringIO(content(links.filter(has_text="placement.csv"), "text/csv"))))
    assert list(placement[0])[:5] == ["host", "pool", "today", "moved", "restarts"]
    assert [row["host"] for row in placement] == list(fleet.features.index)
    assert len(content(links.filter(has_text="moves.csv"), "text/csv").splitlines()) == 1 + sum(
        row["moved"] == "True" for row in placement
    )
    pools = list(csv.DictReader(io.StringIO(content(links.filter(has_text="pools.csv"), "text/csv"))))
    assert len(pools) == 6
    for pool in pools:
        hosts = [row["host"] for row in placement if row["pool"] == pool["pool"]]
        xml = content(links.filter(has_text=f"{pool['pool']}: "), "text/xml")
        assert xml == fleet.baseline(hosts).guest_xml
    with page.expect_download() as started:
        links.filter(has_text="pools.csv").click()
    assert started.value.suggested_filename == "pools.csv"
    assert started.value.path().read_text().startswith("pool,")
    picture(page, planner, "pools-export")


def test_a_planner_who_has_no_pools_yet_weighs_and_chooses_what_is_today(
    explorers: Page, sent: list[str], fleet: vc.Fleet
) -> None:
    from playwright.sync_api import expect

    page = explorers
    planner = page.locator(".vmcompat-pools").last
    status, working = planner.locator(".vmcompat-status"), planner.locator(".vmcompat-working")
    message = planner.locator(".vmcompat-message")
    expect(status).to_contain_text("2 pools keep a value of")
    slider = planner.locator(".vmcompat-k .noUi-handle")
    slider.press("ArrowRight")
    expect(planner.locator(".vmcompat-proposed tbody tr")).to_have_count(3)
    expect(working).to_have_count(0)
    sum_of_all = status.locator(".vmcompat-verdict").inner_text()

    enter(planner.get_by_label("moves at most"), "4")
    expect(message).to_contain_text("choose their column first")
    planner.get_by_role("tab", name="Moves").click()
    expect(planner.locator(".vmcompat-moves")).to_contain_text("Choose what today's pools are")
    planner.get_by_placeholder("host").fill("nobody")
    planner.get_by_role("button", name="pin", exact=True).click()
    expect(message).to_contain_text("no host 'nobody' in the fleet")

    planner.get_by_text("Weights by group").click()
    weight = planner.get_by_label("mitigation controls")
    expect(weight).to_be_visible()
    sent.clear()
    weight.fill("0")
    expect(weight).to_have_value("0")
    assert sent == [], "nothing is asked while one types"
    weight.press("Enter")
    expect(status).to_contain_text("with weights of your own")
    assert sent
    expect(working).to_have_count(0)
    expect(status.locator(".vmcompat-verdict")).not_to_have_text(sum_of_all)
    picture(page, planner, "pools-weights")
    planner.get_by_role("button", name="default weights").click()
    expect(status.locator(".vmcompat-verdict")).to_have_text(sum_of_all)
    expect(weight).not_to_have_value("0")

    planner.get_by_label("today's pools").select_option("rack")
    expect(planner.locator(".vmcompat-move-list")).to_contain_text("guests have to restart")
    planner.get_by_role("tab", name="Pools").click()
    today = planner.locator(".vmcompat-today tbody tr")
    racks = fleet[fleet.features.index].baselines(by="rack")
    expect(today).to_have_count(len(racks))
    expect(today.first).to_contain_text(racks["model"].iloc[0])
    expect(working).to_have_count(0)


@pytest.fixture(scope="module")
def hostile(lab: Lab, samples: Path) -> str:
    """A notebook over hosts whose names, columns and documents hold markup."""
    folder = lab.folder / "hostile"
    folder.mkdir()
    table = [["host", "file", "rack", "<script>window.pwned=6</script>"]]
    for i, (sample, name) in enumerate(HOSTILE.items()):
        for kind in ("capabilities", "domcapabilities"):
            shutil.copy(samples / "mixed" / f"{sample}.{kind}.xml", folder / f"h{i}.{kind}.xml")
        table.append([name, f"h{i}", f"<img src=/stolen onerror=window.pwned={i % 2}7>", f"<b>{i % 2}</b>"])
    for kind in ("capabilities", "domcapabilities"):  # a document from a stranger
        text = (samples / "mixed" / f"ams-r4-h02.{kind}.xml").read_text()
        bad = re.sub(
            r"(<model[^>]*>)Icelake-Server[^<]*(</model>)", r"\1&lt;img src=/stolen onerror=pwned=8&gt;\2", text
        )
        (folder / f"stranger.{kind}.xml").write_text(bad)
    with (folder / "hosts.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    write_notebook(
        lab, "hostile",
        "import vmcompat as vc\n\nfleet = vc.read_fleet('../hostile')\nfleet", "fleet.hosts", "fleet.findings",
        "vc.widgets.explore(fleet)", "vc.widgets.pools(fleet, current='rack')",
        "vc.plot.features(fleet)", "vc.plot.migration(fleet)",
    )  # fmt: skip
    return "hostile"


def test_markup_in_names_columns_and_documents_stays_text(
    hostile: str, page: Page, run_all: Callable[[str], None]
) -> None:
    from playwright.sync_api import expect

    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    run_all(hostile)
    explorer, planner = page.locator(".vmcompat-explore"), page.locator(".vmcompat-pools")
    image, script = HOSTILE["ams-r2-h01"], HOSTILE["ams-r2-h02"]

    expect(explorer.locator(".vmcompat-kinds")).to_contain_text(script)
    expect(explorer.locator(".vmcompat-choice")).to_contain_text("5 known")
    explorer.get_by_label("by", exact=True).select_option("<script>window.pwned=6</script>")
    explorer.locator("select[multiple]").select_option("<b>1</b> (2)")
    expect(explorer.locator(".vmcompat-choice")).to_contain_text("2 of 6 hosts chosen")
    explorer.get_by_label("by", exact=True).select_option("rack")
    expect(explorer.locator("select[multiple] option").first).to_contain_text("<img src=/stolen")
    explorer.get_by_label("by", exact=True).select_option("(any)")
    explorer.locator(".vmcompat-search input").fill("<img src=/stolen")
    expect(explorer.locator(".vmcompat-choice")).to_contain_text("6 hosts chosen")
    explorer.locator(".vmcompat-thought input").fill("<svg onload=window.pwned=9>")
    explorer.get_by_role("button", name="gone").click()
    expect(explorer.locator(".vmcompat-message")).to_contain_text("<svg onload=window.pwned=9>")
    explorer.locator(".vmcompat-thought input").fill(image)
    explorer.get_by_role("button", name="gone").click()
    expect(explorer.locator(".vmcompat-answer")).to_contain_text(f"In thought only: {image} gone")
    explorer.get_by_role("tab", name="Matrix").click()
    expect(explorer.locator(".vmcompat-matrix img")).to_have_attribute("alt", re.compile("^Matrix of hosts"))
    picture(page, explorer, "hostile-explore")

    expect(planner.locator(".vmcompat-working")).to_have_count(0)
    expect(planner.locator(".vmcompat-today")).to_contain_text("<img src=/stolen")
    planner.get_by_placeholder("host").fill(image)
    planner.get_by_role("button", name="pin", exact=True).click()
    expect(planner.locator(".vmcompat-pins")).to_contain_text(f"{image} goes with")
    for name in ("Moves", "Export"):
        planner.get_by_role("tab", name=name).click()
    for link in planner.locator(".vmcompat-export a").all():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", link.get_attribute("download"))
    picture(page, planner, "hostile-pools")

    outputs = page.locator(".jp-OutputArea-output")
    foreign = "img:not([src^='data:image/png']), svg[onload], [onerror], [onmouseover], script, iframe"
    assert outputs.locator(foreign).all() == []
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert [url for url in asked if "stolen" in url] == []
