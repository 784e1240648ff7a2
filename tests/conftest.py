"""What every test may ask for: the sample fleets, the shared data, and how hypothesis runs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# Deadlines measure the machine, not the code; a run in CI repeats itself, one at a desk goes on looking.
settings.register_profile("desk", deadline=None, max_examples=40)
settings.register_profile("ci", settings.get_profile("desk"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

# Not even counted unless somebody names the folder, as `make rig-test` does: nobody else has two hosts to spare.
collect_ignore = ["hosts"]


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of the sample fleets that come with the project."""
    return ROOT / "sample_caps"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real-world documents beside the checkout; under the LGPL, so never copied into it."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("no ../shared/data beside the checkout, where libvirt's maps and test data are")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Migrations of the tests are logged where nobody looks for real ones."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker has the browser; those who want a rig have one each, for all modules that come to them."""
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.xdist_group("browser"))
        elif item.get_closest_marker("rig"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
