"""The migration widget in a browser, used as an operator would, on a real guest of the rig."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.conftest import PICTURES, Lab
from tests.rig import Rig, RigUnavailable

nbformat = pytest.importorskip("nbformat", reason="the extra 'notebook' is not installed")

pytestmark = [pytest.mark.browser, pytest.mark.rig]

Page = Any
GUEST = "web1"


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    hosts = Rig({"h1": "SandyBridge", "h2": "Westmere"})
    try:
        hosts.start()
    except RigUnavailable as e:
        pytest.skip(f"no rig: {e}")
    yield hosts
    hosts.stop()


@pytest.fixture
def notebook(rig: Rig, lab: Lab) -> str:
    """A notebook with the widget for a guest that runs on h1, and for one that is to get a poorer CPU."""
    for name, cpu in ((GUEST, "Westmere"), ("maximum", "<cpu mode='maximum'/>")):
        definition = rig.dir / f"{name}.xml"
        definition.write_text(rig.domain_xml(name, cpu=cpu))
        rig.virsh("h1", "define", str(definition))
        rig.virsh("h1", "start", name)
        rig.wait_for_tick(name)
    code = f"""import vmcompat as vc

source, target = {rig.uri("h1")!r}, {rig.ssh_uri("h2")!r}
base = vc.read_fleet([source, target], view="hypervisor", virttype="qemu").baseline()
there = {{"peer_uri": {rig.peer_uri("h2")!r}, "migrate_uri": {rig.migrate_uri("h2")!r}}}
vc.widgets.migrate(source, target, baseline=base, allow_run=True, **there)"""
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata={"kernelspec": kernel})
    nbformat.write(made, lab.folder / "notebooks" / "migrate_widget.ipynb")
    return "migrate_widget"


def test_an_operator_plans_arms_aborts_and_moves_a_guest(
    rig: Rig, notebook: str, page: Page, run_all: Callable[[str], None]
) -> None:
    from playwright.sync_api import expect

    run_all(notebook)
    widget = page.locator(".vmcompat-migrate")
    status, message = widget.locator(".vmcompat-status"), widget.locator(".vmcompat-message")
    run, abort = widget.locator("button.vmcompat-run"), widget.locator("button.vmcompat-abort")
    name, plan = widget.locator(".vmcompat-arm input"), widget.get_by_role("button", name="Plan", exact=True)
    expect(status).to_contain_text("2 domains run on")
    expect(plan).to_be_disabled()
    expect(run).to_be_disabled()
    expect(abort).to_be_hidden()

    widget.locator(".vmcompat-domain select").select_option("maximum")
    plan.click()
    expect(status).to_contain_text("blocked by PASSTHROUGH")
    expect(name).to_be_disabled()
    expect(widget.locator(".vmcompat-checks tbody tr").first).to_contain_text("▲ risk")
    picture(page, widget, "migrate-blocked")

    widget.locator(".vmcompat-domain select").select_option(GUEST)
    expect(widget.locator(".vmcompat-findings")).to_contain_text("No plan yet")
    plan.click()
    expect(status).to_contain_text("may run")
    picture(page, widget, "migrate-findings")
    widget.get_by_role("tab", name="XML diff").click()
    expect(widget.locator(".vmcompat-diff")).to_contain_text("+++ web1.after.xml")
    picture(page, widget, "migrate-diff")
    widget.get_by_role("tab", name="Commands").click()
    script = widget.locator(".vmcompat-script").inner_text()
    assert re.search(r"^virsh -c \S+ migrate --p2p --live .*--domain web1", script, re.MULTILINE)
    with page.expect_download() as started:
        widget.locator(".vmcompat-commands a").click()
    assert started.value.suggested_filename == "web1.migrate.sh"
    assert started.value.path().read_text().strip() == script.strip()
    picture(page, widget, "migrate-commands")
    widget.get_by_role("tab", name="Findings").click()

    # the name arms the button, and nothing else does
    expect(run).to_be_disabled()
    name.fill("maximum")
    expect(widget.locator(".vmcompat-arming")).to_contain_text("is not the domain of this plan")
    name.press("Enter")
    expect(run).to_be_disabled()
    rig.virsh("h1", "migrate-setspeed", GUEST, "3")
    name.fill(GUEST)
    expect(run).to_be_enabled()
    name.press("Enter")
    page.wait_for_timeout(1000)
    expect(abort).to_be_hidden()

    run.click()
    expect(widget.locator(".vmcompat-said")).to_contain_text("MiB left")
    drawn = widget.locator(".vmcompat-chart polyline").first
    before = drawn.get_attribute("points")
    page.wait_for_timeout(3000)
    assert drawn.get_attribute("points") != before, "the chart is live"
    expect(run).to_be_disabled()
    expect(plan).to_be_disabled()
    picture(page, widget, "migrate-running")
    abort.click()
    expect(message).to_contain_text("aborted; web1 is running on h1 and gone on h2")
    expect(widget.locator(".vmcompat-next")).to_have_text("plan again")
    expect(widget.locator(".vmcompat-outcome tbody tr")).to_contain_text("stayed")
    expect(run).to_be_disabled()
    expect(name).to_have_value("")
    picture(page, widget, "migrate-aborted")

    rig.virsh("h1", "migrate-setspeed", GUEST, "16")
    plan.click()
    expect(status).to_contain_text("may run")
    expect(message).to_have_text("")
    name.fill(GUEST)
    run.click()
    rows = widget.locator(".vmcompat-outcome tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("migrated")
    expect(widget.locator(".vmcompat-moved")).to_contain_text("web1 runs on h2. It stood still for")
    expect(widget.locator(".vmcompat-domain select option")).to_have_text(["(choose)", "maximum"])
    expect(widget.locator(".vmcompat-domain select option:checked")).to_have_text("(choose)")
    expect(run).to_be_disabled()
    assert GUEST in rig.virsh("h2", "list", "--name").stdout.split()
    assert GUEST not in rig.virsh("h1", "list", "--all", "--name").stdout.split()
    after = rig.wait_for_tick(GUEST, rig.console(GUEST).ticks[-1].number + 3)
    assert (len(after.boot_ids), after.bad) == (1, 0)
    picture(page, widget, "migrate-moved")


def picture(page: Page, widget: Any, name: str) -> None:
    """Keeps what the widget looks like now."""
    page.wait_for_timeout(300)
    PICTURES.mkdir(parents=True, exist_ok=True)
    widget.screenshot(path=str(PICTURES / f"{name}.png"))
