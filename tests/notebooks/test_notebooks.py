"""The notebooks run from top to bottom, keep the house's form, and say in the end what the frames say."""

import ast
import csv
import re
from collections import Counter
from collections.abc import Mapping
from math import ceil
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


@pytest.fixture(scope="module")
def explored() -> str:
    """The last words of 03_explore as it is."""
    return run("03_explore")[-1]


def listed(guests: Path, fleet: vc.Fleet, rack: str) -> dict[str, dict[str, str]]:
    """The rows of the table of guests that are on a rack, by guest."""
    with (guests / "domains.csv").open(newline="") as file:
        rows = {row["domain"]: row for row in csv.DictReader(file)}
    return {name: row for name, row in rows.items() if row["host"] in fleet.select(f"rack == '{rack}'").names}


def stored_xml(guests: Path, name: str) -> str:
    """Its definition; of a guest that is off the only XML that there is."""
    path = guests / f"{name}.inactive.xml"
    return (path if path.exists() else guests / f"{name}.xml").read_text()


def asks(xml: str, feature: str) -> bool:
    return re.search(rf"<feature policy='require' name='{feature}'/>", xml) is not None


def rewritten(folder: Path, here: Mapping[str, Mapping[str, str]], texts: Mapping[str, str]) -> vc.Domains:
    """Guests that nobody manages, with these texts as their XML, live and stored, where the table says they are."""
    folder.mkdir()
    rows = [f"{name},{here[name]['host']},{here[name]['state']},libvirt\n" for name in texts]
    (folder / "domains.csv").write_text("domain,host,state,manager\n" + "".join(rows))
    for name, text in texts.items():
        definition = re.sub(r"(<domain type='\w+') id='\d+'", r"\1", text)
        (folder / f"{name}.inactive.xml").write_text(definition)
        if text != definition:
            (folder / f"{name}.xml").write_text(text)
    return vc.read_domains(folder)


def other_cpu(xml: str, cpu: str) -> str:
    return re.sub(r"<cpu [^>]*?(/>|>.*?</cpu>)", lambda _: cpu, xml, count=1, flags=re.DOTALL)


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


@pytest.mark.parametrize("per_wave", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_01_fleet_restarts_in_waves_all_guests_that_run_without_the_control(samples: Path, per_wave: int) -> None:
    said = run("01_fleet", per_wave=per_wave)
    fleet = vc.read_fleet(samples / "mixed").select("rack == 'ams-r2'")
    guests = samples / "mixed" / "domains"
    odd = [host for host in fleet.names if not fleet.features.loc[host, "md-clear"]]
    assert fleet.reported.loc[odd, "md-clear"].all()
    here = listed(guests, fleet, "ams-r2")
    live = {name: (guests / f"{name}.xml").read_text() for name in here}
    has_all = {name for name, xml in live.items() if "mode='host-passthrough'" in xml and here[name]["host"] not in odd}
    have = {name for name, xml in live.items() if asks(xml, "md-clear")} | has_all
    reach = vc.reachability(vc.read_domains(guests)[here], fleet).frame["verdict"]
    assert all(reach[name, host] == "no" for name in have for host in odd)
    as_host = {name for name in here if "mode='host-model'" in stored_xml(guests, name)}
    one_way = [name for name in here if here[name]["host"] in odd and name in as_host]
    assert all("yes" in list(reach[name].drop(odd, errors="ignore")) for name in one_way)

    without = [name for name in here if name not in have]
    kept = [name for name in without if name not in as_host and not asks(stored_xml(guests, name), "md-clear")]
    services = Counter(name.rstrip("0123456789").rstrip("-_") for name in without)
    n_waves = max(max(services.values()), ceil(len(without) / per_wave))
    waves: dict[int, list[str]] = {}
    stored_first = []
    table = next(text for text in said if text.lstrip().startswith("host service"))
    for line in table.splitlines()[2:]:
        found = re.fullmatch(r"(\d*) +(\S+) +(\S+) +(\S+) +(.*)", line)
        assert found, line
        wave, name, host, _, to_do = found.groups()
        assert here[name]["host"] == host
        waves.setdefault(int(wave or max(waves)), []).append(name)
        stored_first += [name] if to_do == "store the baseline, off and on" else []
    assert sorted(name for wave in waves.values() for name in wave) == sorted(without)
    assert sorted(waves) == list(range(1, n_waves + 1))
    for wave in waves.values():
        assert len(wave) <= per_wave
        assert len({name.rstrip("0123456789") for name in wave}) == len(wave)
    assert sorted(stored_first) == sorted(kept)

    lacking = {"ams-r2-h03": ["md-clear"], "ams-r2-h07": ["md-clear", "flush-l1d"]}
    mended = vc.what_if(fleet, with_=lacking).fleet
    for host in odd:
        newly = mended.features & ~mended.features.loc[host] & mended.reported.loc[host]
        assert not newly.any(axis=None)
    words = said[-1]
    assert f"Microcode parted {', '.join(odd)} from their twins: no md-clear.\n" in words
    assert f"Of {len(here)} guests that run beside them {len(have)} have it and cannot go there,\n" in words
    assert f"{len(without)} run without it, and {len(one_way)} can go one way only: {', '.join(one_way)}.\n" in words
    assert f"new microcode for {', '.join(odd)}, then restart {len(without)} guests in {n_waves} waves,\n" in words
    assert f"{len(kept)} of them with the baseline of the mended rack stored first." in words
    assert words.endswith("After that 0 guests can go one way only.\n")


@pytest.mark.slow
def test_01_fleet_reads_another_fleet_by_its_parameters(samples: Path) -> None:
    words = run("01_fleet", source=str(samples / "virsh_pair"), group="model", bought_together=["model"])[-1]
    assert words.startswith("2 of 2 hosts can be judged")
    assert "microcode" not in words.lower()


def test_01_fleet_decides_on_the_hosts_alone_where_no_guests_are_given() -> None:
    said = run("01_fleet", guests=None)
    assert any(text.startswith("No guests were given: nothing can be said of them here.\n") for text in said)
    assert said[-1].endswith(
        "Decision: new microcode for ams-r2-h03, ams-r2-h07; which guests need a restart after it needs their XML.\n"
    )


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


@pytest.mark.slow
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


def test_03_explore_says_what_a_rack_can_promise_and_what_patches_and_pools_would_win(
    samples: Path, explored: str
) -> None:
    words = " ".join(explored.split())
    fleet = vc.read_fleet(samples / "mixed")
    rack = fleet.select("rack == 'ams-r2'")
    base = rack.baseline()
    assert f"{len(rack)} hosts of ams-r2 promise {base.model}, {base.level}, {len(base.gives)} features." in words
    assert "With ams-r2-h03 and ams-r2-h07 patched they would win md-clear." in words
    proposed = vc.pools(fleet, 7, current="rack", allow_missing=True)
    assert f"Sorted by what they offer, {proposed.explain()[0]}." in words
    assert f"In no pool: {', '.join(proposed.missing)}." in words


@pytest.mark.slow
def test_03_explore_asks_another_fleet_by_its_parameters(samples: Path) -> None:
    other = {"upgraded": "westmere", "twin": "sandybridge", "drained": "Westmere", "guests": None}
    words = run("03_explore", source=str(samples / "virsh_pair"), rack="e", current="model", **other)[-1]
    assert words.startswith("2 hosts of e promise Westmere, x86-64-v2")
    assert "In no pool: none.\n" in words
    assert words.endswith("No guests were given: no decision on the upgrade of westmere, nor on draining Westmere.\n")


def test_03_explore_asks_the_upgrade_night_as_the_documents_answer(
    samples: Path, tmp_path: Path, explored: str
) -> None:
    fleet, guests = vc.read_fleet(samples / "mixed"), samples / "mixed" / "domains"
    before = fleet.select("rack == 'ams-r2'")
    night = tmp_path / "night"
    night.mkdir()
    for kind in ("capabilities", "domcapabilities"):
        text = (samples / "mixed" / f"ams-r2-h08.{kind}.xml").read_text()
        text = text.replace(fleet.hosts["uuid"]["ams-r2-h08"], fleet.hosts["uuid"]["ams-r2-h03"])
        (night / f"ams-r2-h03.{kind}.xml").write_text(text)
    (night / "hosts.csv").write_text("host,libvirt,qemu\nams-r2-h03,11.3.0,10.0.2\n")
    after = vc.read_fleet(night)
    here = listed(guests, fleet, "ams-r2")
    domains = vc.read_domains(guests)[here]
    verdicts = vc.canary(before, after, domains).frame["verdict"]
    no, unknown = ([name for name in verdicts.index if verdicts[name] == v] for v in ("no", "unknown"))
    assert no
    assert unknown
    assert f"The upgrade of ams-r2-h03: no go. Of {len(domains)} guests {len(no)} would not come back, " in explored
    assert f"of {len(unknown)} it cannot be told.\n" in explored

    base = before.baseline()
    live = {name: (guests / f"{name}.xml").read_text() for name in domains.names}
    in_doubt = [name for name in domains.names if verdicts[name] != "ok"]
    texts = {name: other_cpu(xml, base.guest_xml) if name in in_doubt else xml for name, xml in live.items()}
    assert vc.canary(before, after, rewritten(tmp_path / "same", here, texts)[in_doubt]).go
    gives_up = [name for name in in_doubt if asks(live[name], "md-clear") and "md-clear" not in base.gives]
    assert f"first the baseline in {', '.join(in_doubt)}, then go; {len(gives_up)} give up a mitigation" in explored


def test_03_explore_drains_a_rack_as_guests_without_their_obstacles_could_leave(
    samples: Path, tmp_path: Path, explored: str
) -> None:
    """Each way is tried: without the mark of its manager, and with the baseline of both hosts as its CPU."""
    fleet, guests = vc.read_fleet(samples / "mixed"), samples / "mixed" / "domains"
    here = listed(guests, fleet, "ams-r3")
    refuges = [host for host in fleet.features.index if not host.startswith("ams-r3")]

    def free(domains: vc.Domains, where: list[str]) -> set[str]:
        verdicts = vc.reachability(domains, fleet).frame["verdict"]
        return {name for name, host in verdicts.index[verdicts == "yes"] if host in where}

    xml = {name: (guests / f"{name}.xml").read_text() for name in here}
    marks = re.compile(r"<(metadata|sysinfo)\b.*?</\1>", re.DOTALL)  # where a manager leaves its name
    unowned = {name: marks.sub("", text) for name, text in xml.items()}
    live = free(vc.read_domains(guests)[here], refuges)
    by_manager = free(rewritten(tmp_path / "unowned", here, unowned), refuges) - live
    rest = [name for name in here if name not in live | by_manager]
    by_baseline = set()
    for host in (h for h in refuges if fleet.hosts["vendor"][h] == "Intel"):
        own = {name: [h for h in (here[name]["host"], host) if h in fleet.features.index] for name in rest}
        texts = {name: other_cpu(unowned[name], fleet.baseline(own[name]).guest_xml) for name in rest}
        by_baseline |= free(rewritten(tmp_path / host, here, texts), [host])
    stuck = [name for name in rest if name not in by_baseline]
    assert all((live, by_manager, by_baseline, stuck))
    numbers = f"{len(live)} leave live, {len(by_manager)} by their manager, {len(by_baseline)} after a power cycle"
    assert (
        f"To drain ams-r3, {len(here)} guests: {numbers} with a baseline, {len(stuck)} not as they are.\n" in explored
    )
    cycled = ", ".join(name for name in rest if name in by_baseline)
    assert f"a power cycle with a baseline for {cycled}; see to {', '.join(stuck)}.\n" in explored


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
