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


def test_02_baselines_ends_in_decisions_that_the_frames_bear_out(samples: Path, tmp_path: Path) -> None:
    words = run("02_baselines", take_away=str(tmp_path))[-1]
    everyone = vc.read_fleet(samples / "mixed")
    fleet = everyone.drop(*everyone.unknown)
    upgraded = (samples / "mixed" / "ams-r5-h02.domcapabilities.xml").read_text()  # the twin of ams-r5-h01
    patched = {host: ["md-clear"] for host in ("ams-r2-h03", "ams-r2-h07")}
    mended = vc.what_if(fleet, replace=vc.read_fleet({"ams-r5-h01": upgraded}), with_=patched).fleet
    racks, sound = (vc.pools(f, len(f), current="rack", max_moves=0) for f in (fleet, mended))
    plan = vc.pools(mended, len(racks.frame) + 1, current="rack", max_moves=4)
    assert plan.optimal
    assert not plan.placement["restarts"].any()
    assert f"{racks.value:,.0f} in 7 racks today, {plan.value:,.0f} in 8 pools after 1 and 2." in words
    assert f"1. Mend ams-r5-h01, ams-r2-h03, ams-r2-h07: {sound.value - racks.value:,.0f} more without" in words
    moved = ", ".join(f"{host} to {pool}" for host, pool in plan.moves["pool"].items())
    assert f"2. Then move {moved}: {plan.value - sound.value:,.0f} more, 0 guests restart.\n" in words
    assert "mending is enough: ams-r5-h01.\n" in words
    both = mended.select("rack in ('ams-r4', 'ams-r5')")
    less = plan.placement.loc[list(both.names), "value"].sum() - vc.pools(both, 1).value
    assert f"a pool of their own: in one pool with the 6 of rack == 'ams-r4', all keep {less:,.0f} less.\n" in words
    younger = vc.pools(mended.select("purchased >= 2012"), len(plan.frame), current="rack", max_moves=4)
    assert younger.won is not None
    assert plan.won is not None
    freed = f"{younger.won - plan.won:,.0f}"
    assert f"No hurry to retire the Westmere: the pool that becomes free wins {freed} for the others.\n" in words
    rise = vc.retire(mended, hosts="purchased < 2012 or rack == 'ams-r1'").frame.loc[0]
    assert f"Intel: {rise['level_before']}, without the Westmere and all of ams-r1 {rise['level_after']}.\n" in words
    weaker = sum(bool(vc.models(fleet[hosts]).best["controls_given_up"].iloc[0]) for hosts in plan.frame["hosts"])
    assert f"Plain names would lose mitigation controls in {weaker} of 8 pools." in words
    assert f"{len(fleet)} of {len(everyone)} hosts satisfy them tonight.\n" in words
    assert f"6. Not planned for: {', '.join(everyone.unknown)}.\n" in words
    deployed = {path.stem: path.read_text() for path in (tmp_path / "baselines").iterdir()}
    assert deployed == {pool: fleet.baseline(hosts).guest_xml for pool, hosts in plan.frame["hosts"].items()}
    planned = vc.read_fleet([samples / "mixed", tmp_path])
    assert vc.conforms(planned.drop(*planned.unknown), baseline=deployed, by="pool").ok


def test_02_baselines_leaves_all_as_it_is_where_nothing_is_worth_it(samples: Path, tmp_path: Path) -> None:
    other = {"max_moves": 0, "worthwhile": 100_000, "old_hosts": {"the Westmere": "purchased < 2012"}}
    words = run("02_baselines", take_away=str(tmp_path), **other)[-1]
    everyone = vc.read_fleet(samples / "mixed")
    racks = vc.pools(everyone.drop(*everyone.unknown), len(everyone), current="rack", max_moves=0)
    assert f"{racks.value:,.0f} in 7 racks today, {racks.value:,.0f} in 7 pools after 1 and 2." in words
    assert "1. Mend nobody: 0 more" in words
    assert "2. Then move nobody: 0 more, 0 guests restart." in words
    assert "x86-64-v2, without the Westmere x86-64-v3." in words
    assert {path.stem for path in (tmp_path / "baselines").iterdir()} == set(racks.frame.index)


def test_03_explore_says_what_a_rack_can_promise_and_what_patches_and_pools_would_win(samples: Path) -> None:
    words = run("03_explore")[-1]
    fleet = vc.read_fleet(samples / "mixed")
    rack = fleet.select("rack == 'ams-r2'")
    base = rack.baseline()
    assert f"{len(rack)} hosts of ams-r2 promise {base.model}, {base.level}, {len(base.gives)} features." in words
    assert "With ams-r2-h03 and ams-r2-h07 patched they would win md-clear." in words
    proposed = vc.pools(fleet, 7, current="rack", allow_missing=True)
    assert f"Sorted by what they offer, {proposed.explain()[0]}." in words
    assert f"In no pool: {', '.join(proposed.missing)}." in words


def test_03_explore_asks_another_fleet_by_its_parameters(samples: Path) -> None:
    words = run("03_explore", source=str(samples / "virsh_pair"), rack="e", current="model")[-1]
    assert words.startswith("2 hosts of e promise Westmere, x86-64-v2")
    assert words.endswith("In no pool: none.\n")


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
