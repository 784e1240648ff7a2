"""The notebooks run from top to bottom, keep the house's form, and say in the end what the frames say."""

import ast
import re
from pathlib import Path

import pytest

import vmcompat as vc
from tests.rig import RigUnavailable
from tests.rig.supplies import require_machine

nbformat = pytest.importorskip("nbformat", reason="the extra 'notebook' is not installed")
nbclient = pytest.importorskip("nbclient", reason="the extra 'notebook' is not installed")

FOLDER = Path(__file__).resolve().parent.parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def run(name: str, **parameters: object) -> list[str]:
    """Executes a notebook with other parameters; the text that each code cell printed or showed."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
    quiet = ["--IPKernelApp.log_level=40"]
    client = nbclient.NotebookClient(
        notebook, timeout=180, extra_arguments=quiet, resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute()
    return [
        "".join(o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_its_purpose_and_its_parameters_and_defines_little(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    assert "minute" in cells[0].source, "how long does it take?"
    assert code[0].metadata.tags == ["parameters"]
    for cell in code:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert (node.end_lineno or 0) - node.lineno < 10, f"{path.name}: {node.name}"


def test_01_fleet_ends_in_words_that_the_frames_bear_out(samples: Path) -> None:
    words = run("01_fleet")[-1]
    fleet = vc.read_fleet(samples / "mixed")
    racks = fleet.baselines(by="rack")
    twins = vc.twins(fleet, by=["server", "purchased"])
    assert f"{len(fleet.features)} of {len(fleet)} hosts can be judged; not {', '.join(fleet.unknown)}." in words
    assert f"{twins.frame['group'].nunique()} of {twins.n_groups} deliveries are no longer identical." in words
    assert f"{racks['model'].notna().sum()} of {len(racks)} groups have a baseline" in words
    assert "would be Westmere-IBRS,\nx86-64-v2, and cost" in words


def test_01_fleet_reads_another_fleet_by_its_parameters(samples: Path) -> None:
    words = run("01_fleet", source=str(samples / "virsh_pair"), group="model", bought_together=["model"])[-1]
    assert words.startswith("2 of 2 hosts can be judged")


@pytest.mark.rig
def test_04_migrate_moves_a_guest_on_the_rig_and_the_guest_proves_it() -> None:
    try:
        require_machine()
    except RigUnavailable as e:
        pytest.skip(f"no rig: {e}")
    words = run("04_migrate")[-1]
    assert (
        "As it was, web1 could not move from h1 to h2.\n- LIVE_CPU (block): h2 lacks xsave, avx, xsaveopt, rdtscp"
        in words
    )
    assert "With the Westmere baseline of both hosts it migrated" in words
    assert "not given: nothing." in words
    assert re.search(
        r"1 boot since the plan was run .* with 0 holes, [1-9]\d* pages read back with 0 damaged words", words
    )
