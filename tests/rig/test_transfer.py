"""Every way to travel, and what a policy does to a transfer that gets nowhere: on two real libvirt hosts."""

import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

import vmcompat as vc
from tests.rig import Rig
from tests.rig.guests import Guests, severity, when_under_way
from vmcompat.errors import MigrationError
from vmcompat.migration.migrate import MigrationPlan
from vmcompat.migration.order import MigrationFailedError
from vmcompat.migration.policy import Policy
from vmcompat.migration.transfer import Transfer

pytestmark = pytest.mark.rig

SLOW = 8  # MiB/s: the guest's memory then takes some ten seconds
HURRIED = Policy(name="hurried", downtimes=(300,), stall=60.0, per_gib=0.0, least=3.0)


@pytest.fixture(scope="module")
def travellers(rig: Rig) -> Iterator[Guests]:
    """One guest that goes to and fro."""
    yield Guests(rig)
    rig.clear()


@pytest.fixture(scope="module")
def traveller(travellers: Guests) -> str:
    return travellers.start("traveller")


def away(guests: Guests, name: str, **options: Any) -> MigrationPlan:
    """A plan from where the guest is to the other host."""
    here = next(iter(guests.where(name)))
    there = "h2" if here == "h1" else "h1"
    rig = guests.rig
    given = {"peer_uri": rig.peer_uri(there), "migrate_uri": rig.migrate_uri(there)} | options
    return vc.plan_migration(name, rig.uri(here), rig.uri(there), **given)


def is_whole(guests: Guests, name: str, plan: MigrationPlan) -> None:
    """It runs on the target alone, and nothing of it was lost on the way."""
    guests.lives_on(name)
    console = guests.rig.console(name)
    assert guests.where(name) == {plan.seen.target.name: "running"}
    assert (len(console.boot_ids), console.holes, console.bad) == (1, (), 0)


@pytest.mark.parametrize(
    "transfer",
    [
        Transfer(managed=True),
        Transfer(parallel=2),
        Transfer(compression="xbzrle"),
        Transfer(compression="mt"),
        Transfer(bandwidth=40, auto_converge=False),
        Transfer(managed=True, parallel=2, bandwidth=40),
        Transfer(hold=False),
    ],
    ids=str,
)
@pytest.mark.proves("TRANSPORT", libvirt="performs")
@pytest.mark.proves("EMULATION", libvirt="performs")
def test_a_guest_arrives_whole_by_every_way_that_the_hosts_have(
    travellers: Guests, traveller: str, transfer: Transfer
) -> None:
    plan = away(travellers, traveller, transfer=transfer)
    assert [severity(plan, check) for check in ("TRANSPORT", "EMULATION")] == ["warn", "warn"]
    result = plan.run(progress=False)
    assert (result.outcome, result.phase, result.policy) == ("migrated", "end", "balanced")
    assert result.way == ("managed" if transfer.managed else "peer to peer")
    is_whole(travellers, traveller, plan)


def test_in_managed_mode_nobody_needs_to_know_how_the_hosts_reach_each_other(
    travellers: Guests, traveller: str
) -> None:
    plan = away(travellers, traveller, transfer=Transfer(managed=True), peer_uri=None)
    plan.run(progress=False)
    is_whole(travellers, traveller, plan)


@pytest.mark.proves("TRANSFER", libvirt="refuses")
def test_an_option_that_the_hosts_lack_is_refused_by_name_before_the_start(travellers: Guests, traveller: str) -> None:
    plan = away(travellers, traveller, transfer=Transfer(parallel=2, compression="zstd"))
    with pytest.raises(MigrationFailedError, match=r"TRANSFER \(block\).*9\.4\.0.*Changed: nothing"):
        plan.run(progress=False)
    here, there = plan.seen.source.name, plan.seen.target.name
    options = ("--live", "--p2p", "--parallel", "--compressed", "--comp-methods", "zstd")
    tried = travellers.rig.virsh(here, "migrate", *options, traveller, travellers.rig.peer_uri(there), check=False)
    assert tried.returncode != 0
    assert "zstd" in tried.stderr
    travellers.lives_on(traveller)


def test_what_a_dead_client_left_held_is_found_and_told_to_be_resumed(travellers: Guests, traveller: str) -> None:
    plan = away(travellers, traveller)
    rig, here, there = travellers.rig, plan.seen.source.name, plan.seen.target.name
    # as a run leaves it whose client dies before the last step, with its machine
    options = ("--live", "--p2p", "--persistent", "--undefinesource", "--suspend")
    rig.virsh(here, "migrate", *options, traveller, rig.peer_uri(there), rig.migrate_uri(there))
    left = vc.recover(traveller, rig.uri(here), rig.uri(there))
    assert (left.found, left.safe) == ("arrived", True)
    assert left.remedy.startswith("it is paused: ")
    assert left.remedy.endswith(f"virsh resume on {there}")
    rig.virsh(there, "resume", traveller)
    is_whole(travellers, traveller, plan)


def test_without_certificates_an_encrypted_move_fails_before_anything_moves(travellers: Guests, traveller: str) -> None:
    here = travellers.where(traveller)
    with pytest.raises(MigrationFailedError, match="credentials") as failed:
        away(travellers, traveller, transfer=Transfer(tls=True)).run(progress=False)
    assert failed.value.result.outcome == "stayed"
    assert travellers.where(traveller) == here
    travellers.lives_on(traveller)


def test_at_the_deadline_the_transfer_is_aborted_and_the_guest_goes_on_at_the_source(
    travellers: Guests, traveller: str
) -> None:
    here = travellers.where(traveller)
    plan = away(travellers, traveller, transfer=Transfer(bandwidth=SLOW), policy=HURRIED)
    with pytest.raises(MigrationFailedError, match="the deadline of 3 s is over") as failed:
        plan.run(progress=False)
    assert failed.value.result.phase == "transfer"
    assert failed.value.result.policy_steps == ("aborting: the deadline of 3 s is over",)
    assert failed.value.next == "plan again"
    assert travellers.where(traveller) == here
    travellers.lives_on(traveller)


def test_a_pause_at_the_deadline_lets_it_finish_and_the_guest_runs_on_there(travellers: Guests, traveller: str) -> None:
    policy = Policy(name="pausing", downtimes=(300,), stall=60.0, per_gib=0.0, least=2.0, at_deadline="pause")
    plan = away(travellers, traveller, transfer=Transfer(bandwidth=4 * SLOW), policy=policy)
    result = plan.run(progress=False)
    assert any("pausing the guest" in step for step in result.policy_steps)
    is_whole(travellers, traveller, plan)


def test_a_pause_that_does_not_help_ends_and_the_guest_runs_at_the_source_again(
    travellers: Guests, traveller: str
) -> None:
    here = travellers.where(traveller)
    policy = Policy(
        name="short of breath", downtimes=(300,), stall=60.0, per_gib=0.0, least=2.0, at_deadline="pause",
        pause_seconds=2.0,
    )  # fmt: skip
    with pytest.raises(MigrationFailedError, match="within 2 s of pause") as failed:
        away(travellers, traveller, transfer=Transfer(bandwidth=SLOW // 2), policy=policy).run(progress=False)
    assert failed.value.undone == (f"{traveller} runs again on {next(iter(here))}",)
    assert travellers.where(traveller) == here
    travellers.lives_on(traveller)


def test_with_consent_it_is_post_copy_at_the_deadline_and_an_abort_then_is_not_asked_for(
    travellers: Guests, traveller: str
) -> None:
    plan = away(travellers, traveller, transfer=Transfer(bandwidth=SLOW, post_copy=True), policy=HURRIED)
    job = plan.start()
    while not any("post-copy" in step for step in job.steps):
        assert not job.ended
        time.sleep(0.1)
    job.abort()
    result = job.wait(60.0)
    assert result.outcome == "migrated"
    assert result.message == f"the abort came too late: {traveller} has moved to {plan.seen.target.name}"
    is_whole(travellers, traveller, plan)


def test_a_job_in_the_background_is_watched_slowed_down_hurried_up_and_waited_for(
    travellers: Guests, traveller: str
) -> None:
    plan = away(travellers, traveller, transfer=Transfer(bandwidth=SLOW))
    job = plan.start()
    while job.stats.empty:
        assert not job.ended
        time.sleep(0.1)
    job.set_downtime(700)
    job.set_speed(SLOW // 2)
    with pytest.raises(TimeoutError, match="has not ended after 1 s"):
        job.wait(1.0)
    job.set_speed(400)
    assert job.wait(60.0).outcome == "migrated"
    assert len(job.stats) > 2
    assert job.stats["memory_remaining"].is_monotonic_decreasing
    with pytest.raises(MigrationError, match="no transfer of traveller is under way"):
        job.set_speed(1)
    is_whole(travellers, traveller, plan)


def test_a_job_that_is_aborted_says_where_the_guest_is(travellers: Guests, traveller: str) -> None:
    here = travellers.where(traveller)
    job = away(travellers, traveller, transfer=Transfer(bandwidth=SLOW, managed=True)).start()
    while job.stats.empty:
        assert not job.ended
        time.sleep(0.1)
    job.abort()
    with pytest.raises(MigrationFailedError, match=rf"aborted; {traveller} is running on {next(iter(here))} and gone"):
        job.wait(60.0)
    travellers.lives_on(traveller)


def test_a_definition_of_a_guest_that_is_off_moves_offline(travellers: Guests) -> None:
    name = "dormant"
    path = travellers.rig.dir / f"{name}.xml"
    path.write_text(travellers.rig.domain_xml(name))
    travellers.rig.virsh("h1", "define", str(path))
    for transfer in (Transfer(offline=True), Transfer(offline=True, managed=True)):
        plan = away(travellers, name, transfer=transfer)
        result = plan.run(progress=False)
        assert (result.outcome, result.way, result.downtime_ms) == ("migrated", "offline", None)
        assert travellers.where(name) == {plan.seen.target.name: "shut off"}


IMAGES = "/var/lib/libvirt/images"


def with_disk(guests: Guests, name: str, path: str) -> str:
    """A guest on h1 with a disk of 1 MiB, that starts from its firmware and writes nothing."""
    disk = f"""<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>
      <source file='{path}'/><target dev='vda' bus='virtio'/></disk>"""
    xml = guests.rig.domain_xml(name, memory=32, buffer=0).replace("<serial", f"{disk}<serial", 1)
    definition = guests.rig.dir / f"{name}.xml"
    definition.write_text(xml)
    guests.rig.virsh("h1", "define", str(definition))
    guests.rig.virsh("h1", "start", name)
    return name


def test_a_disk_of_the_hosts_own_is_copied_along(travellers: Guests) -> None:
    rig, path = travellers.rig, f"{IMAGES}/own.raw"
    for host, content in (("h1", "printf carried"), ("h2", "true")):
        rig.run(host, "sh", "-c", f"mkdir -p {IMAGES} && {content} > {path} && truncate -s 1M {path}", check=True)
    name = with_disk(travellers, "own-disk", path)
    assert away(travellers, name).blocked
    plan = away(travellers, name, transfer=Transfer(copy_disks="all"), force=["DISKS"])
    assert not plan.blocked, plan.findings
    result = plan.run(progress=False)
    assert (result.outcome, travellers.where(name)) == ("migrated", {"h2": "running"})
    assert rig.run("h2", "head", "-c7", path, check=True).stdout == "carried"


def test_what_libvirt_calls_unsafe_takes_consent(travellers: Guests) -> None:
    rig = travellers.rig
    (rig.shared_dir / "one.raw").write_bytes(bytes(1 << 20))
    name = with_disk(travellers, "shared-disk", "/run/rig/shared/one.raw")
    with pytest.raises(MigrationFailedError, match="unsafe") as failed:
        away(travellers, name, force=["DISKS"]).run(progress=False)
    assert failed.value.result.outcome == "stayed"
    result = away(travellers, name, transfer=Transfer(unsafe=True), force=["DISKS"]).run(progress=False)
    assert (result.outcome, travellers.where(name)) == ("migrated", {"h2": "running"})


def test_many_guests_are_looked_at_as_one_is(travellers: Guests, traveller: str) -> None:
    rig, other = travellers.rig, travellers.power_on("other", on=next(iter(travellers.where(traveller))))
    plan = away(travellers, traveller)
    here, there = plan.seen.source.name, plan.seen.target.name
    # among the targets the host itself, which is none
    found = vc.preflight(
        [traveller, other], rig.uri(here), [rig.uri(there), rig.uri(here)], transfer=Transfer(managed=True)
    )
    assert found.groupby(["domain", "target"], sort=False).size().index.tolist() == [
        *((traveller, there), (traveller, here)),
        *((other, there), (other, here)),
    ]
    assert found.query("id == 'SAME_HOST'")["severity"].tolist() == ["ok", "block", "ok", "block"]
    one = found.query("domain == @traveller and target == @there").set_index("id")["severity"]
    assert one.drop("PEER").to_dict() == plan.findings.set_index("id")["severity"].drop("PEER").to_dict()
    rig.virsh(here, "destroy", other)


def test_no_password_of_the_peers_uri_is_in_what_a_failed_run_says_or_logs(travellers: Guests, traveller: str) -> None:
    plan = away(travellers, traveller, peer_uri="qemu+ssh://root:geheim@nowhere/system?proxy=netcat")
    with pytest.raises(MigrationFailedError, match="nowhere") as failed:
        plan.run(progress=False)
    shown = "".join(traceback.format_exception(failed.value)) + repr(plan) + plan.commands() + plan.runbook()
    assert "geheim" not in shown + failed.value.result.frame.to_csv() + vc.migration.log().to_csv()
    travellers.lives_on(traveller)


def test_a_forecast_tells_a_quiet_guest_from_one_that_rewrites_its_memory(travellers: Guests, traveller: str) -> None:
    quiet = away(travellers, traveller, transfer=Transfer(bandwidth=SLOW)).forecast()
    assert quiet.outlook == "converges"
    busy = travellers.start("busy", dirty=24)
    found = away(travellers, busy, transfer=Transfer(bandwidth=2)).forecast()
    assert found.outlook == "does not converge"
    assert found.dirty_rate[0] < 24 * 2**20 < found.dirty_rate[1] + found.dirty_rate[0]
    assert "rewrites" in repr(found)
    travellers.rig.virsh("h1", "destroy", busy)


def test_a_definition_that_somebody_changes_during_the_transfer_is_not_lost_without_a_word(
    travellers: Guests, traveller: str
) -> None:
    plan = away(travellers, traveller, transfer=Transfer(bandwidth=4 * SLOW))
    here = plan.seen.source.name
    edited = travellers.rig.dir / "edited.xml"
    stored = travellers.stored(traveller, here)
    edited.write_text(stored.replace("<memory", "<description>edited meanwhile</description>\n  <memory", 1))
    result = plan.run(progress=when_under_way(lambda: travellers.rig.virsh(here, "define", str(edited))))
    assert result.outcome == "migrated"
    assert "edited meanwhile" not in travellers.stored(traveller, plan.seen.target.name)
    assert "+  <description>edited meanwhile</description>" in result.message


def test_every_run_is_in_the_log(travellers: Guests, traveller: str) -> None:
    before = len(vc.migration.log())
    away(travellers, traveller).run(progress=False)
    after = vc.migration.log()
    assert len(after) == before + 1
    assert after.iloc[-1][["domain", "outcome", "way", "policy"]].tolist() == [
        *(traveller, "migrated"),
        *("peer to peer", "balanced"),
    ]
