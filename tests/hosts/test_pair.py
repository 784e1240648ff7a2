"""What vmcompat says of two hosts, and what libvirt does on them: with throwaway guests, there and back."""

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pytest

import vmcompat as vc
from tests.hosts.pair import Pair, Road, finding
from vmcompat.baseline.common import Baseline
from vmcompat.errors import ConnectError
from vmcompat.fleet.frames import Fleet
from vmcompat.migration import MigrationFailedError, MigrationPlan, MigrationResult, Policy, Transfer
from vmcompat.migration.preflight import FORCEABLE
from vmcompat.migration.whereabouts import not_given

pytestmark = pytest.mark.hosts

Saw: TypeAlias = Callable[[str], None]
WAYS = {"there": 0, "back": 1}
MANAGED = Transfer(managed=True)
# never done before somebody stops it: a restless guest rewrites more than that between two looks
ENDLESS = Policy(name="endless", downtimes=(1,), stall=60.0, per_gib=0.0, least=60.0)


@pytest.fixture(params=WAYS)
def road(hosts: Pair, request: pytest.FixtureRequest) -> Road:
    return hosts.roads[WAYS[request.param]]


@pytest.fixture
def saw(record_property: Callable[[str, object], None]) -> Saw:
    """Notes what the table at the end is to show."""
    return lambda text: record_property("seen", text)


def past_risks(road: Road, plan: MigrationPlan) -> MigrationPlan:
    """The plan with all that may be passed passed, for the guest is nobody's."""
    order = plan.order
    if (peer := finding(plan, "PEER")).severity != "ok":
        pytest.skip(f"PEER: {peer.evidence}")
    if risks := [f.id for f in order.stops if f.severity in FORCEABLE]:
        plan = road.plan(order.domain, transfer=order.transfer, policy=order.policy, force=risks)
    assert not plan.blocked, repr(plan)
    return plan


def moves(pair: Pair, road: Road, plan: MigrationPlan) -> MigrationResult:
    """Runs a plan, and finds the guest there and nowhere else."""
    result = past_risks(road, plan).run(progress=False)
    assert result.outcome == "migrated"
    assert pair.where(plan.order.domain) == {road.there.label: "running"}
    return result


def told(road: Road, result: MigrationResult) -> str:
    forced = f", {', '.join(result.forced)} forced" if result.forced else ""
    return f"{road}: {result.seconds:.1f} s, stood still for {result.downtime_ms} ms{forced}"


def test_the_fleet_is_read_and_its_baseline_starts_a_guest_on_both(
    pair: Pair, fleet: Fleet, base: Baseline, saw: Saw
) -> None:
    assert fleet.complete, repr(fleet.findings)
    saw(f"{base.model}, {len(base.gives)} features, {base.level}")
    for place in pair.places:
        name = pair.start(place, base.guest_xml)
        live, asked = pair.live(name, place), vc.migration.read_domain(f"<domain>{base.guest_xml}</domain>", source="")
        assert not_given(asked, live, place.name, place.live.libvirt) == ()
        saw(f"starts on {place.label}")


@pytest.mark.parametrize("way", ["peer to peer", "managed"])
def test_a_guest_with_the_baseline_moves_there_and_back(pair: Pair, base: Baseline, saw: Saw, way: str) -> None:
    name = pair.start(pair.places[0], base.guest_xml)
    for road in pair.roads:
        plan = road.plan(name, transfer=Transfer(managed=way == "managed"))
        assert finding(plan, "LIVE_CPU").severity == "ok", finding(plan, "LIVE_CPU")
        assert plan.order.transfer.hold
        result = moves(pair, road, plan)
        assert result.way == way
        assert result.not_given == ()
        saw(told(road, result))


def test_the_plan_refuses_a_host_model_guest_where_libvirt_does(pair: Pair, road: Road, saw: Saw) -> None:
    name = pair.start(road.here, "<cpu mode='host-model'/>")
    plan = road.plan(name, transfer=MANAGED)
    fits, later = finding(plan, "LIVE_CPU"), finding(plan, "HOST_MODEL")
    saw(f"{road}: LIVE_CPU {fits.severity}: {fits.evidence}; HOST_MODEL {later.severity}")
    if fits.severity not in ("ok", "block"):
        pytest.skip("the plan does not claim to know")
    if fits.severity == "ok":
        moves(pair, road, plan)
        saw("libvirt moves it")
        return
    with pytest.raises(ConnectError, match="CPU") as refused:
        road.libvirt_moves(name)
    assert pair.where(name) == {road.here.label: "running"}
    saw(f"libvirt refuses (error {refused.value.code}), and it runs on")


def test_a_passed_through_cpu_is_judged_by_the_features_of_the_hosts(
    pair: Pair, road: Road, fleet: Fleet, saw: Saw
) -> None:
    modes = [place.modes(pair.virttype) for place in road]
    mode = next((m for m in ("host-passthrough", "maximum") if all(each.get(m) for each in modes)), None)
    if mode is None:
        pytest.skip("neither host-passthrough nor maximum is supported on both hosts")
    name = pair.start(road.here, f"<cpu mode='{mode}'/>")
    said = finding(road.plan(name, transfer=MANAGED), "PASSTHROUGH")
    table = fleet.features.T
    lost = set(table.index[table[road.here.name] & ~table[road.there.name] & fleet.reported.T[road.there.name]])
    saw(f"{mode}, {road}: {said.severity}: {said.evidence}")
    named = set(re.findall(r"[\w.-]+", said.evidence.partition(" lose ")[2]))
    assert said.severity == "risk" if lost else said.severity in ("risk", "unknown")
    assert len(named & lost) == min(len(lost), 12), lost
    assert pair.where(name) == {road.here.label: "running"}


def test_pinned_address_bits_are_held_against_those_of_the_target(
    pair: Pair, road: Road, fleet: Fleet, base: Baseline, saw: Saw
) -> None:
    has, given = (place.facts.facts.get("maxphysaddr") for place in road)
    bits = has if pair.virttype == "kvm" and isinstance(has, int) else 40  # TCG has 40, whatever the host has
    pinned = base.guest_xml.replace("</cpu>", f"<maxphysaddr mode='emulate' bits='{bits}'/></cpu>")
    name = pair.start(road.here, pinned)
    if "maxphysaddr" not in pair.live(name, road.here).xml:
        pytest.skip(f"libvirt {road.here.live.libvirt} of {road.here.label} has no <maxphysaddr>")
    plan = road.plan(name, transfer=MANAGED)
    said = finding(plan, "ADDRESS_BITS")
    saw(f"{road}: {said.severity}: {said.evidence}")
    assert said.severity == ("unknown" if not isinstance(given, int) else "risk" if bits > given else "ok")
    moves(pair, road, plan)
    saw("libvirt moves it")


def test_the_downtime_is_in_the_row_of_a_move(pair: Pair, base: Baseline, saw: Saw) -> None:
    road = pair.roads[1]
    name = pair.start(road.here, base.guest_xml)
    result = moves(pair, road, road.plan(name, transfer=Transfer(managed=True, hold=False)))
    assert result.downtime_ms is not None
    assert 0 < result.downtime_ms < 1000 * result.seconds
    assert result.frame["downtime_ms"].tolist() == [result.downtime_ms]
    saw(f"not held, {told(road, result)}")


def test_an_abort_leaves_the_guest_at_the_source(pair: Pair, base: Baseline, saw: Saw) -> None:
    road, abort = pair.roads[0], threading.Event()
    name = pair.start(road.here, base.guest_xml, restless=True)
    plan = past_risks(road, road.plan(name, transfer=Transfer(managed=True, bandwidth=1), policy=ENDLESS))
    sent = []

    def progress(stats: Mapping[str, Any]) -> None:
        if stats.get("memory_processed"):
            sent.append(stats["memory_processed"])
            abort.set()

    with pytest.raises(MigrationFailedError, match="aborted") as failed:
        plan.run(progress=progress, abort=abort)
    assert failed.value.result.outcome == "stayed"
    assert pair.where(name) == {road.here.label: "running"}
    saw(f"{road}: aborted after {sent[0] / 2**10:.0f} KiB at 1 MiB/s")


def test_recover_says_arrived_after_a_move(pair: Pair, base: Baseline, saw: Saw) -> None:
    road = pair.roads[0]
    name = pair.start(road.here, base.guest_xml)
    before = vc.recover(name, road.here.uri, road.there.uri)
    moves(pair, road, road.plan(name, transfer=MANAGED))
    after = vc.recover(name, road.here.uri, road.there.uri)
    assert (before.found, before.safe, before.steps) == ("at source", True, ())
    assert (after.found, after.safe, after.steps) == ("arrived", True, ())
    saw(f"before: {before.found}; after: {after.found}")
