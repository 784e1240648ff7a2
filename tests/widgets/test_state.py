"""What the explorers know and say, without a widget."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import vmcompat as vc
from vmcompat.baseline.meanings import meaning, meanings
from vmcompat.baseline.pools import Pools
from vmcompat.errors import FrameError
from vmcompat.widgets import _explorer_html, _pools_html
from vmcompat.widgets._plan import Demand, PoolsState, usual_weights
from vmcompat.widgets._scene import Scene, counted, masks
from vmcompat.widgets._state import ExplorerState, Part


@pytest.fixture(scope="module")
def fleet() -> vc.Fleet:
    return vc.read_fleet(Path(__file__).resolve().parent.parent.parent / "sample_caps" / "mixed")


@pytest.fixture(scope="module")
def rack(fleet: vc.Fleet) -> vc.Fleet:
    return fleet.select("rack == 'ams-r2'")


@pytest.fixture
def state(fleet: vc.Fleet) -> ExplorerState:
    return ExplorerState.of(fleet)


def names(state: ExplorerState) -> list[str]:
    return [state.fleet.names[i] for i in state.chosen]


def only(state: ExplorerState) -> Part:
    (part,) = state.parts
    return part


def test_a_search_takes_every_word_from_names_cpus_and_columns(state: ExplorerState) -> None:
    assert names(replace(state, search="R2 dl360 h0")) == [f"ams-r2-h0{i}" for i in range(1, 10)]
    assert names(replace(state, search="epyc-rome 2020")) == ["fra-h03", "fra-h04"]
    assert names(replace(state, search="no such host")) == []


def test_a_column_leaves_the_hosts_of_its_values(state: ExplorerState) -> None:
    chosen = replace(state, column="rack", values=frozenset({"ams-r5", "fra"}))
    assert names(chosen) == [*state.fleet.select("rack in ['ams-r5', 'fra']").names]
    assert len(replace(state, column="rack").chosen) == 48, "a column without values leaves all"


def test_columns_that_tell_no_hosts_apart_are_not_offered(state: ExplorerState) -> None:
    assert list(state.scene.columns)[:3] == ["rack", "site", "os"]
    assert {"source", "uuid", "emulators"} & set(state.scene.columns) == set()
    assert counted(["h10", "h2", "", "h2"]) == [("h2", 2), ("h10", 1), ("", 1)]


def test_a_click_takes_hosts_that_are_alike_out_and_back_in(state: ExplorerState) -> None:
    searched = replace(state, search="ams-r2")
    row = searched.rows[0]
    assert row.hosts == ("ams-r2-h01", "ams-r2-h02", "ams-r2-h04", "ams-r2-h05", "ams-r2-h06")
    out = searched.toggled(row.kind)
    assert set(names(out)) == set(names(searched)) - set(row.hosts)
    assert out.rows[0].n_in == 0
    assert names(out.toggled(row.kind)) == names(searched)
    assert len(replace(out, search="").chosen) == 43, "what is clicked out stays out when the search is cleared"


def test_hosts_of_one_kind_share_what_they_offer_and_every_host_has_a_kind(state: ExplorerState) -> None:
    offered = state.fleet.features
    for kind in state.scene.kinds:
        if not kind.unknown:
            assert len(offered.loc[list(kind.hosts)].drop_duplicates()) == 1
    assert sorted(h for kind in state.scene.kinds for h in kind.hosts) == sorted(state.fleet.names)


def test_each_vendor_has_the_baseline_that_the_fleet_gives(state: ExplorerState, fleet: vc.Fleet) -> None:
    table = fleet.baselines(allow_missing=True).dropna(subset="model")
    assert [part.base.model for part in state.parts if part.base] == table["model"].tolist()
    for part, (_, row) in zip(state.parts, table.iterrows(), strict=True):
        assert part.base is not None
        assert (part.base.xml, len(part.base.gives)) == (row["xml"], row["n_features"])


def test_losses_are_those_of_the_baseline_with_polarities_apart(rack: vc.Fleet) -> None:
    part = only(ExplorerState.of(rack))
    assert part.base is not None
    lost = part.base.lost
    assert [(row.first, row.n_hosts, row.lost) for row in part.losses] == [
        ("ams-r2-h01", 5, {("control", "mitigation controls"): ("md-clear",)}),
        ("ams-r2-h03", 1, {}),
        ("ams-r2-h07", 1, {}),
        ("ams-r2-h08", 3, {("control", "mitigation controls"): ("md-clear", "flush-l1d")}),
    ]
    assert len(lost) == sum(row.n_hosts * len(f) for row in part.losses for f in row.lost.values())


def test_counts_of_losses_are_those_of_the_baselines_frame(state: ExplorerState, fleet: vc.Fleet) -> None:
    table = fleet.baselines(allow_missing=True).dropna(subset="model")
    for part, (_, row) in zip(state.parts, table.iterrows(), strict=True):
        for polarity, column in (("control", "controls_lost"), ("capability", "capabilities_lost")):
            lost = {f for r in part.losses for (p, _), found in r.lost.items() if p == polarity for f in found}
            assert len(lost) == row[column], (part.label, polarity)


def test_the_best_plain_name_is_that_of_all_the_hosts(state: ExplorerState, fleet: vc.Fleet) -> None:
    best = vc.models(fleet, allow_missing=True).best.reset_index()
    intel = best[(best["vendor"] == "Intel")].iloc[0]
    named = state.parts[0].named
    assert named is not None
    for column in ("model", "n_features", "given_up", "controls_given_up", "closest"):
        assert named[column] == intel[column]
    assert set(named["blocking_hosts"]) == set(intel["blocking_hosts"])


def test_several_vendors_are_never_mixed_silently(state: ExplorerState) -> None:
    assert [p.label for p in state.parts] == ["x86_64 Intel", "x86_64 AMD"]
    together = only(replace(state, across=False))
    assert together.base is None
    assert "CPU vendors do not match" in together.refusal
    assert "CPU vendors do not match" in _explorer_html.render(replace(state, across=False))["answer"]


def test_hosts_whose_cpu_is_not_known_are_named_and_in_no_baseline(state: ExplorerState) -> None:
    assert state.unknown == {h: state.fleet.hosts.at[h, "cpu_status"] for h in state.fleet.unknown}
    shown = _explorer_html.render(state)["chosen"]
    for host in state.fleet.unknown:
        assert host in shown
    lab = replace(state, search="ams-lab-h")
    assert lab.parts == ()
    assert "The CPU of none of the chosen hosts is known" in _explorer_html.render(lab)["answer"]


def test_the_host_view_is_advisory_and_answers_for_power_too(state: ExplorerState) -> None:
    host = state.with_view("host")
    assert "advisory" in _explorer_html.render(host)["chosen"]
    power = next(p for p in host.parts if p.label.startswith("ppc64le"))
    assert power.base is not None
    assert power.base.model == "POWER9"
    assert "ams-p9-h01" not in host.unknown
    assert "ams-z15-h01" in host.unknown


def test_a_view_without_documents_says_so_of_every_host(samples: Path) -> None:
    state = ExplorerState.of(vc.read_fleet(samples / "virsh_pair")).with_view("hypervisor")
    assert state.unknown == {"sandybridge": "no_view", "westmere": "no_view"}
    assert "no document of the fleet" in _explorer_html.render(state)["chosen"]


def test_switches_take_out_and_let_in(rack: vc.Fleet) -> None:
    state = ExplorerState.of(rack)
    base = only(state).base
    without = only(replace(state, without=frozenset({"tsx", "nested"}))).base
    assert base is not None
    assert without is not None
    assert {"hle", "rtm", "vmx"} <= base.gives
    assert {"hle", "rtm", "vmx"} & without.gives == set()
    everything = only(replace(state, migratable=False)).base
    assert everything is not None
    assert not everything.migratable


def test_a_plain_name_that_brings_back_what_is_taken_out_is_marked(fleet: vc.Fleet) -> None:
    state = ExplorerState.of(fleet.select("model == 'SapphireRapids'"))
    part = only(replace(state, without=frozenset({"tsx"})))
    assert part.named is not None
    assert part.named["model"].startswith("SapphireRapids")
    assert set(part.brings) == {"hle", "rtm", "tsx-ldtrk"}
    shown = _explorer_html.render(replace(state, without=frozenset({"tsx"})))["answer"]
    assert ", which you take out" in shown


def test_a_host_that_is_gone_keeps_nothing_from_the_others(rack: vc.Fleet) -> None:
    state = ExplorerState.of(rack).supposing("ams-r2-h03", "gone").supposing("ams-r2-h07", "gone")
    part = only(state)
    assert part.base is not None
    rest = rack.drop("ams-r2-h03", "ams-r2-h07").baseline()
    assert part.base.xml == rest.xml
    assert (part.gained, part.lost) == (("md-clear",), ())
    assert names(state.as_documented) == list(rack.names)


def test_a_patched_host_gets_controls_of_its_processor_and_is_marked_hypothetical(rack: vc.Fleet) -> None:
    state = ExplorerState.of(rack).supposing("ams-r2-h03", "patched").supposing("ams-r2-h07", "patched")
    part = only(state)
    assert part.base is not None
    assert part.gained == ("md-clear",)
    assert any("hypothetical" in w for w in part.base.warnings)
    assert [row.first for row in part.losses] == ["ams-r2-h01", "ams-r2-h03", "ams-r2-h07", "ams-r2-h08"]
    shown = _explorer_html.render(state)["answer"]
    assert "In thought only: ams-r2-h03, ams-r2-h07 patched" in shown
    assert list(rack.hosts["source"]) == list(state.fleet.hosts["source"]), "the fleet itself stays as it was read"


@pytest.mark.parametrize(
    ("host", "what", "message"),
    [
        ("ams-r2-h99", "gone", "no host 'ams-r2-h99' in the fleet of 48"),
        ("ams-r3-h08", "patched", "its CPU is not known (unreadable)"),
        ("ams-r2-h01", "patched", "offers a mitigation control that it is known to lack"),
    ],
)
def test_what_cannot_be_supposed_is_refused(state: ExplorerState, host: str, what: str, message: str) -> None:
    with pytest.raises(FrameError, match=re.escape(message)):
        state.supposing(host, what)


def test_what_strangers_call_their_hosts_is_escaped_everywhere(samples: Path) -> None:
    evil = "<img src=x onerror='alert(1)'>"
    text = (samples / "virsh_pair" / "westmere.capabilities.xml").read_text()
    fleet = vc.read_fleet({evil: text, "h2": text, f"{evil}2": "<cpu"}, errors="collect")
    state = ExplorerState.of(fleet)
    pools = PoolsState.of(fleet)
    pools.solve(1)
    shown = [*_explorer_html.render(state).values(), *_explorer_html.render(replace(state, search="h2")).values()]
    shown += _explorer_html.render(state.supposing(evil, "gone")).values()
    shown += _pools_html.render(pools).values()
    assert any("&lt;img" in page for page in shown)
    assert [page for page in shown if "<img" in page] == []


def test_downloads_hold_the_whole_file_and_name_no_other_place(rack: vc.Fleet) -> None:
    state = ExplorerState.of(rack)
    shown = _explorer_html.render(state)["xml"]
    links = re.findall(r"href='([^']*)'", shown)
    assert len(links) == 2
    assert all(link.startswith("data:text/xml;base64,") for link in links)
    assert "http" not in "".join(_explorer_html.render(state).values())


def test_masks_hold_each_feature_once_and_leave_out_another_vendors(fleet: vc.Fleet) -> None:
    intel = masks(fleet.cpu_map, "Intel")
    assert sum(m.bit_count() for m in intel.values()) == sum(
        1 for f in fleet.cpu_map.features if meaning(f).vendor != "AMD"
    )
    assert next(iter(intel)) == ("control", "mitigation controls")


# --- pools


def solved(state: PoolsState) -> Pools:
    state.solve(state.k)
    answer = state.answer
    assert isinstance(answer, Pools), answer
    return answer


def test_the_planner_starts_with_as_many_pools_as_today(fleet: vc.Fleet) -> None:
    assert PoolsState.of(fleet, current="rack").k == 7
    assert PoolsState.of(fleet).k == 2, "one for each vendor is the least"
    assert PoolsState.of(fleet).ks == range(2, 10)


def test_an_answer_is_that_of_pools_with_the_same_demands(fleet: vc.Fleet) -> None:
    state = replace(PoolsState.of(fleet, current="rack").asking(min_hosts=3), k=4)
    ours = solved(state)
    theirs = vc.pools(fleet, 4, current="rack", min_hosts=3, allow_missing=True)
    assert ours.placement.equals(theirs.placement)
    assert state.exchange is not None
    assert int(state.exchange.to_numpy().sum()) == len(ours.placement)


def test_demands_that_cannot_be_met_are_an_answer_in_words(fleet: vc.Fleet) -> None:
    state = replace(PoolsState.of(fleet, current="rack").asking(max_moves=0), k=2)
    state.solve(2)
    assert isinstance(state.answer, str)
    assert "cannot be met together" in state.answer
    assert "cannot be met together" in _pools_html.render(state)["status"]
    assert 2 not in state.open


def test_what_is_solved_is_kept_and_the_chosen_number_comes_first(rack: vc.Fleet) -> None:
    state = replace(PoolsState.of(rack), k=3)
    assert state.open[:3] == (3, 2, 4)
    state.solve(3)
    assert 3 not in state.open
    other = state.asking(n_plus=1)
    assert other.open[0] == 3, "another demand is another question"
    assert other.asking(n_plus=0).answer is state.answer


def test_weights_scale_a_group_and_keep_the_rank_inside_it(rack: vc.Fleet) -> None:
    state = PoolsState.of(rack)
    assert state.value is None
    assert usual_weights()["mitigation controls"] == 50
    changed = state.weighing("simd", 2 * usual_weights()["simd"]).value
    default = meanings(rack.cpu_map.features, vendor="Intel")
    assert changed is not None
    for name, row in default.iterrows():
        assert changed[str(name)] == row["value"] * (2 if row["group"] == "simd" else 1), name
    nested = state.weighing("nested virtualization", 4).value
    assert nested is not None
    assert nested["vmx-ept"] == default["value"]["vmx-ept"] + 4
    assert state.weighing("simd", 7).weighing("simd", usual_weights()["simd"]).demand == Demand()


def test_own_weights_over_several_vendors_come_with_a_note(fleet: vc.Fleet, rack: vc.Fleet) -> None:
    assert "counts on the hosts of every vendor" in PoolsState.of(fleet).weighing("simd", 9).notes[0]
    assert PoolsState.of(fleet).notes == ()
    assert PoolsState.of(rack).weighing("simd", 9).notes == ()


def test_a_pinned_host_shares_the_pool_of_its_anchor(rack: vc.Fleet) -> None:
    state = replace(PoolsState.of(rack), k=2)
    first = solved(state)
    host = first.frame["hosts"].iloc[0][0]
    other = str(first.frame.index[1])
    pinned = state.pinning(host, other)
    (pin,) = pinned.demand.pins
    assert tuple(pin) == (host, first.frame["hosts"][other][0], other)
    placed = solved(pinned).placement["pool"]
    assert placed[pin.host] == placed[pin.beside]


def test_what_cannot_be_pinned_is_refused(fleet: vc.Fleet) -> None:
    state = PoolsState.of(fleet)
    with pytest.raises(FrameError, match="no pool 'pool-1' is proposed now"):
        state.pinning("ams-r1-h01", "pool-1")
    solved(state)
    with pytest.raises(FrameError, match="its CPU is not known"):
        state.pinning("ams-r3-h08", "pool-1")
    with pytest.raises(FrameError, match="no host 'h'"):
        state.pinning("h", "pool-1")


def test_hosts_in_no_pool_are_named(fleet: vc.Fleet) -> None:
    state = PoolsState.of(fleet)
    solved(state)
    for host in fleet.unknown:
        assert host in _pools_html.render(state)["status"]


def test_a_fleet_that_says_nothing_is_refused(samples: Path) -> None:
    with pytest.raises(FrameError, match="no host with a known CPU"):
        PoolsState.of(vc.read_fleet({"h1": "<cpu"}, errors="collect"))
    with pytest.raises(FrameError, match="without hosts"):
        ExplorerState.of(vc.read_fleet(samples / "virsh_pair")[[]])
    with pytest.raises(FrameError, match="no column 'rak'"):
        PoolsState.of(vc.read_fleet(samples / "virsh_pair"), current="rak")


def test_kinds_do_not_depend_on_the_order_of_the_hosts(fleet: vc.Fleet) -> None:
    def found(scene: Scene) -> set[frozenset[str]]:
        return {frozenset(kind.hosts) for kind in scene.kinds}

    assert found(Scene.of(fleet)) == found(Scene.of(fleet[reversed(fleet.names)]))
