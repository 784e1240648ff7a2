"""A JupyterLab of its own and a Chromium for all tests in this folder: what a person at a desk would see.

What is asserted is what the page shows. Every request is recorded, and a test fails if one would leave the machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PICTURES: Final = ROOT / "build" / "browser"
IDLE: Final = "Python 3 (ipykernel) | Idle"
WAIT: Final = 90_000  # [ms]
FLAGS: Final = (
    "--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
).split()
SETTINGS: Final = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "notebook-extension/tracker": {
        "windowingMode": "none",
        "scrollPastEnd": False,
    },  # cells are drawn though nobody scrolls to them
}
HERE: Final = ("127.0.0.1", "localhost", "")  # no host at all: data: and blob:

Page = Any  # playwright's, which may not be installed


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab."""

    port: int
    folder: Path

    def address(self, notebook: str) -> str:
        """Where a notebook of its folder is opened."""
        return f"http://127.0.0.1:{self.port}/lab/tree/notebooks/{notebook}.ipynb?reset&token=t"

    def ready(self) -> bool:
        try:
            self._ask("status")
        except OSError:
            return False
        return True

    def shut_down_kernels(self) -> None:
        """Ends what the notebooks left running, so that the next one has the machine to itself."""
        for session in json.loads(self._ask("sessions")):
            self._ask(f"sessions/{session['id']}", method="DELETE")

    def _ask(self, what: str, *, method: str = "GET") -> bytes:
        asked = Request(f"http://127.0.0.1:{self.port}/api/{what}?token=t", method=method)
        with urlopen(asked, timeout=30) as answer:
            return bytes(answer.read())


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where the browser is."""
    pytest.importorskip("playwright", reason="playwright is not installed: the extra 'test'")
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: the extra 'notebook'")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    return found


@pytest.fixture(scope="session")
def lab(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab over a copy of the notebooks, with settings of its own."""
    folder = tmp_path_factory.mktemp("lab")
    desk = folder / "desk"
    shutil.copytree(ROOT / "notebooks", desk / "notebooks", ignore=shutil.ignore_patterns("kernel-ipc-*", ".ipynb_*"))
    shutil.copytree(ROOT / "sample_caps", desk / "sample_caps")
    (desk / "tests").symlink_to(ROOT / "tests")  # the rig of 04_migrate
    for name, chosen in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(chosen))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{what}_DIR": str(folder / what.lower()) for what in ("CONFIG", "DATA", "RUNTIME")}
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--ServerApp.root_dir={desk}", "--IdentityProvider.token=t",
        f"--LabApp.user_settings_dir={folder / 'settings'}", f"--LabApp.workspaces_dir={folder / 'workspaces'}",
        "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    log = folder / "jupyterlab.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            command, env=os.environ | own | {"IPYTHONDIR": str(folder / "ipython")}, stdout=out, stderr=out
        )
    running = Lab(port, desk)
    try:
        until = time.monotonic() + 60
        while not running.ready():
            if server.poll() is not None or time.monotonic() > until:
                pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.3)
        yield running
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """One browser for the tests of a file; not longer, since playwright's event loop runs as long as it does."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT / 2)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=FLAGS, ignore_default_args=["--hide-scrollbars"]
        )
        yield browser
        browser.close()


@contextmanager
def tab(browser: Any, lab: Lab, name: str) -> Iterator[Page]:
    """A tab; in the end its picture is kept, no script of it failed, and no request of it has left the machine."""
    context = browser.new_context(viewport={"width": 1500, "height": 1700}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(WAIT)
    asked: list[str] = []
    failed: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    page.on("pageerror", lambda e: failed.append(str(e)))
    try:
        yield page
    finally:
        picture(page, page, name)
        context.close()
        lab.shut_down_kernels()
    assert asked, "no request was seen at all: the record is broken"
    assert [url for url in asked if (urlsplit(url).hostname or "") not in HERE] == []
    assert failed == []


@pytest.fixture
def page(browser: Any, lab: Lab, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A tab for one test."""
    with tab(browser, lab, request.node.name) as page:
        yield page


@pytest.fixture
def run_all(lab: Lab, page: Page) -> Callable[[str], None]:
    """Opens a notebook and runs all its cells."""
    return lambda notebook: run_notebook(page, lab, notebook)


def run_notebook(page: Page, lab: Lab, notebook: str) -> None:
    """Opens a notebook and runs all its cells, as the menu does; a cell that does not end well fails the test."""
    from playwright.sync_api import expect

    page.goto(lab.address(notebook))
    idle = page.get_by_role("button", name=IDLE)
    idle.wait_for()
    page.get_by_text("Run", exact=True).first.click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_function(
        """() => {
            const cells = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map(cell => cell.innerText);
            return cells.some(cell => /\\d/.test(cell)) && !cells.includes("[*]:");
        }"""
    )
    idle.wait_for()
    drawn(page)
    for error in page.locator("[data-mime-type='application/vnd.jupyter.error']").all():
        pytest.fail(error.inner_text()[-2000:])
    for prompt in page.locator(".jp-CodeCell .jp-InputPrompt").all():
        expect(prompt).to_have_text(re.compile(r"^\[\d+\]:$"))


def drawn(page: Page) -> None:
    """Waits until what has arrived is on the screen."""
    page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


def picture(page: Page, part: Any, name: str) -> None:
    """Keeps what the page or a part of it looks like now."""
    drawn(page)
    PICTURES.mkdir(parents=True, exist_ok=True)
    part.screenshot(path=str(PICTURES / f"{name}.png"))
