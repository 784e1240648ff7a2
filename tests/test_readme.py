"""The README's page of code does what its remarks say."""

import re
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the page leaves behind, without its last lines, which need two hosts (tests/rig runs such)."""
    (page,) = re.findall(r"```python\n(.*?)```", README, re.S)
    looking, acting, _ = page.partition("plan = vc.plan_migration")
    assert acting
    Path("build").mkdir(exist_ok=True)  # where the page puts its report
    names: dict[str, Any] = {}
    exec(looking, names)
    return names


def test_the_page_of_code_runs(names: dict[str, Any]) -> None:
    assert names["fleet"].complete is False


def test_what_its_remarks_show_is_what_is_shown(names: dict[str, Any]) -> None:
    shown = re.search(r"# (<Fleet: [^.]*), \.\.\.", README)
    assert shown is not None
    assert repr(names["fleet"]).startswith(shown[1])
    base = names["base"]
    assert f"# {(base.model, base.level)}" in README


def test_every_picture_and_file_it_points_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (Path(__file__).resolve().parent.parent / target).exists(), target
