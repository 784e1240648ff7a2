"""Guests that move, and guests that must not: plans run on two real libvirt hosts, the second with the poorer CPU."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import vmcompat as vc
from tests.rig import Rig
from tests.rig.guests import Guests, evidence, severity, when_under_way
from vmcompat.baseline.common import Baseline
from vmcompat.errors import ConnectError, MigrationError
from vmcompat.migration import cycle
from vmcompat.migration.apply import apply_baseline
from vmcompat.migration.migrate import plan_migration
from vmcompat.migration.order import MigrationFailedError

pytestmark = pytest.mark.rig

NOT_IN_WESTMERE = ["xsave", "avx", "xsaveopt", "rdtscp"]
# TCG emulates neither, so that no SandyBridge starts on the rig with them.
SANDYBRIDGE = """<cpu mode='custom' match='exact' check='partial'><model fallback='forbid'>SandyBridge</model>
<feature policy='disable' name='x2apic'/><feature policy='disable' name='tsc-deadline'/></cpu>"""
MAXIMUM = "<cpu mode='maximum'/>"


@pytest.fixture
def guests(rig: Rig) -> Iterator[Guests]:
    yield Guests(rig)
    rig.clear()


@pytest.fixture(scope="module")
def base(rig: Rig) -> Baseline:
    """The baseline of both hosts, read live, one by its socket and one by ssh."""
    return vc.read_fleet([rig.uri("h1"), rig.ssh_uri("h2")], view="hypervisor", virttype="qemu").baseline()


# ---- what libvirt refuses, the plan refuses first


@pytest.mark.proves("LIVE_CPU", libvirt="refuses")
@pytest.mark.parametrize("way", ["ssh", "unix"])
def test_a_guest_that_the_target_cannot_run_is_refused_by_name_and_libvirt_agrees(guests: Guests, way: str) -> None:
    name = guests.start(f"richer-{way}", cpu=SANDYBRIDGE)
    before = guests.stored(name, "h1")
    plan = guests.plan(name, way=way)
    assert plan.blocked
    assert severity(plan, "LIVE_CPU") == "block"
    assert f"lacks {', '.join(NOT_IN_WESTMERE)} " in evidence(plan, "LIVE_CPU")
    with pytest.raises(MigrationError, match=r"Changed: nothing\."):
        plan.run()
    assert guests.where(name) == {"h1": "running"}
    assert guests.stored(name, "h1") == before

    rig = guests.rig
    refused = rig.virsh(
        "h1", "migrate", name, "--live", "--p2p", rig.peer_uri("h2"), rig.migrate_uri("h2"), check=False
    )
    assert refused.returncode != 0
    assert all(feature in refused.stderr for feature in NOT_IN_WESTMERE)
    guests.lives_on(name)


@pytest.mark.proves("PASSTHROUGH", libvirt="performs")
def test_a_maximum_guest_that_libvirt_would_move_is_stopped_with_what_it_would_lose(guests: Guests) -> None:
    name = guests.start("maximum", cpu=MAXIMUM)
    plan = guests.plan(name)
    assert plan.blocked
    assert severity(plan, "PASSTHROUGH") == "risk"
    assert f"lose {', '.join(NOT_IN_WESTMERE)}" in evidence(plan, "PASSTHROUGH")
    with pytest.raises(MigrationError, match="PASSTHROUGH"):
        plan.run()
    assert guests.where(name) == {"h1": "running"}

    # libvirt itself has no objection
    result = guests.plan(name, force=["PASSTHROUGH"]).run(progress=False)
    assert result.forced == ("PASSTHROUGH",)
    assert guests.where(name) == {"h2": "running"}


def sapphire_rapids() -> Baseline:
    document = """<domainCapabilities><path>/usr/bin/qemu-system-x86_64</path><domain>kvm</domain>
<machine>pc-q35-8.0</machine><arch>x86_64</arch><cpu><mode name='host-model' supported='yes'>
<model fallback='forbid'>SapphireRapids</model><vendor>Intel</vendor></mode><mode name='custom' supported='yes'>
<model usable='yes'>SapphireRapids</model></mode></cpu></domainCapabilities>"""
    return vc.read_fleet({"new": document}, view="hypervisor").baseline()


@pytest.mark.proves("CPU_NAMES", libvirt="refuses")
def test_a_model_that_the_old_libvirt_does_not_know_is_refused_before_anything_is_touched(guests: Guests) -> None:
    name = guests.start("older")
    before = guests.stored(name, "h1")
    plan = guests.plan(name, baseline=sapphire_rapids(), restart="destroy")
    assert severity(plan, "CPU_NAMES") == "block"
    assert "SapphireRapids" in evidence(plan, "CPU_NAMES")
    with pytest.raises(MigrationError, match="SapphireRapids"):
        plan.run()
    with pytest.raises(MigrationError, match=r"SapphireRapids.*Nothing was changed"):
        apply_baseline(name, sapphire_rapids(), source=guests.rig.uri("h1"), targets=[guests.rig.uri("h2")])
    assert guests.stored(name, "h1") == before
    assert len(guests.rig.console(name).boot_ids) == 1
    guests.lives_on(name)


def test_without_write_access_the_plan_does_not_know_and_says_so(guests: Guests) -> None:
    name = guests.power_on("unasked")
    plan = guests.plan(name, write=False)
    assert {check: severity(plan, check) for check in ("LIVE_CPU", "CPU_NAMES")} == {
        "LIVE_CPU": "unknown",
        "CPU_NAMES": "unknown",
    }
    assert plan.blocked


def test_a_target_that_only_this_client_can_reach_is_refused(guests: Guests) -> None:
    name = guests.power_on("unreachable")
    plan = guests.plan(name, peer_uri=None)
    assert severity(plan, "PEER") == "block"
    assert "PEER_URI" in plan.commands()


def test_a_domain_of_that_name_at_the_target_is_refused(guests: Guests) -> None:
    guests.power_on("twin", on="h2")
    name = guests.power_on("twin")
    plan = guests.plan(name)
    assert severity(plan, "NAME") == "block"


# ---- the way that works


def test_the_live_fleet_gives_the_baseline_that_libvirt_gives(rig: Rig, base: Baseline, tmp_path: Path) -> None:
    assert base.model == "Westmere"
    both = tmp_path / "both.xml"
    both.write_text("".join(rig.virsh(host, "domcapabilities", "--virttype", "qemu").stdout for host in rig.cpus))
    asked = rig.virsh("h1", "hypervisor-cpu-baseline", "--virttype", "qemu", "--migratable", str(both))
    assert base.xml.strip() == asked.stdout.strip()


def kernel_flags(base: Baseline) -> set[str]:
    """The baseline's features as a Linux guest spells them, without those that it does not show."""
    aliases = vc.CpuMap.load().aliases
    spelled = {"pni": "pni", "ds_cpl": "ds_cpl", "pclmuldq": "pclmulqdq", "lahf_lm": "lahf_lm"}
    spelled |= {feature: feature.replace(".", "_") for feature in base.gives if feature not in spelled}
    assert "pclmulqdq" in aliases["pclmuldq"]
    return {spelled[feature] for feature in base.gives}


@pytest.mark.parametrize("way", ["unix", "ssh"])
def test_a_guest_gets_the_baseline_and_moves_and_its_own_console_proves_it(
    guests: Guests, base: Baseline, way: str
) -> None:
    rig, name = guests.rig, guests.start(f"moves-{way}", cpu=SANDYBRIDGE, dirty=8)
    assert "avx" in rig.console(name).flags

    plan = guests.plan(name, way=way, baseline=base, restart="destroy")
    assert not plan.blocked
    result = plan.run(progress=False)

    at_arrival = rig.console(name).ticks[-1].number
    after = rig.wait_for_tick(name, at_arrival + 20)
    assert result.outcome == "migrated"
    assert result.restarted
    assert result.not_given == ()
    assert result.message == "", "its own change of the definition is nobody else's"
    assert guests.where(name) == {"h2": "running"}
    assert guests.stored_model(name, "h2") == "Westmere"
    # one boot before the power cycle and one after: none through the migration
    assert len(after.boot_ids) == 2
    assert after.holes == ()
    assert after.bad == 0
    assert after.checked > 0
    assert after.flags & {"xsave", "avx", "xsaveopt", "rdtscp"} == set()
    assert kernel_flags(base) - after.flags == set()
    assert result.downtime_ms is not None
    assert result.frame["downtime_ms"].tolist() == [result.downtime_ms]


def test_a_guest_that_fits_moves_at_once_and_takes_the_baseline_as_its_next_cpu(guests: Guests, base: Baseline) -> None:
    name = guests.start("fits", cpu="Nehalem")
    plan = guests.plan(name, baseline=base)
    assert "keeps its CPU" in repr(plan)
    plan.run(progress=False)
    assert guests.where(name) == {"h2": "running"}
    assert guests.stored_model(name, "h2") == "Westmere"
    assert "pclmulqdq" not in guests.rig.console(name).flags
    assert len(guests.rig.console(name).boot_ids) == 1


def test_the_commands_of_a_plan_do_the_same(guests: Guests, base: Baseline, tmp_path: Path) -> None:
    name = guests.start("by-hand", cpu=SANDYBRIDGE)
    plan = guests.plan(name, baseline=base, restart="destroy")
    subprocess.run(["sh", "-c", plan.commands()], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert guests.where(name) == {"h2": "running"}
    assert guests.stored_model(name, "h2") == "Westmere"
    guests.lives_on(name)


# ---- what goes wrong leaves the guest alive, and says so


def slowly(guests: Guests, name: str) -> None:
    """Let the next migration of the guest take seconds."""
    guests.rig.virsh("h1", "migrate-setspeed", name, "4")


def test_an_interrupt_aborts_and_the_guest_runs_on_at_the_source(guests: Guests) -> None:
    name = guests.start("aborted", buffer=64, dirty=8)
    slowly(guests, name)
    plan = guests.plan(name)
    with pytest.raises(KeyboardInterrupt, match=r"aborted; aborted is running on h1 and gone on h2"):
        plan.run(progress=when_under_way(lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert guests.where(name) == {"h1": "running"}
    guests.lives_on(name)
    assert guests.rig.console(name).bad == 0
    assert guests.rig.virsh("h1", "domjobinfo", name).stdout.split()[2] == "None"
    # and nothing is left that would stand in the way of the next try
    assert not guests.plan(name).blocked


def test_a_target_that_dies_on_the_way_leaves_the_guest_at_the_source(guests: Guests) -> None:
    rig, name = guests.rig, guests.start("widowed", buffer=64)
    slowly(guests, name)
    plan = guests.plan(name)
    try:
        with pytest.raises(MigrationFailedError) as failed:
            plan.run(progress=when_under_way(lambda: rig.kill_libvirtd("h2")))
    finally:
        rig.start_libvirtd("h2")
    assert "is running on h1" in str(failed.value)
    assert "virsh -c" in failed.value.next
    guests.lives_on(name)
    assert guests.where(name) == {"h1": "running"}


@pytest.mark.proves("NEW_CPU", libvirt="refuses")
def test_a_guest_that_does_not_start_gets_its_old_definition_back_and_runs(guests: Guests, samples: Path) -> None:
    advisory = vc.read_fleet(samples / "virsh_pair", view="host").baseline()
    name = guests.start("restored", cpu=SANDYBRIDGE)
    before = guests.stored(name, "h1")
    plan = guests.plan(name, baseline=advisory, restart="destroy", force=["NEW_CPU"])
    assert severity(plan, "NEW_CPU") == "risk"
    with pytest.raises(MigrationFailedError) as failed:
        plan.run(progress=False)
    assert failed.value.result.outcome == "restored"
    assert failed.value.result.forced == ("NEW_CPU",)
    assert "started from the old definition" in str(failed.value)
    assert guests.where(name) == {"h1": "running"}
    assert guests.stored(name, "h1") == before
    console = guests.rig.wait_for_tick(name, 2, boot=1)
    assert "avx" in console.flags


@pytest.fixture
def ctrl_c_in_two_seconds() -> Iterator[Callable[[], int]]:
    before = signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    yield lambda: signal.alarm(2)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_a_guest_that_does_not_shut_down_runs_on_with_its_old_definition(
    guests: Guests, base: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = guests.start("stubborn", cpu=SANDYBRIDGE)
    before = guests.stored(name, "h1")
    plan = guests.plan(name, baseline=base, restart=True)
    monkeypatch.setattr(cycle, "SHUTDOWN_SECONDS", 1.0)
    with pytest.raises(MigrationFailedError, match="did not power off in time") as failed:
        plan.run(progress=False)
    assert failed.value.changed == (f"{name} was told to power off",)
    assert failed.value.undone == (f"the old definition of {name} is stored again",)
    assert guests.stored(name, "h1") == before
    assert guests.where(name) == {"h1": "running"}
    guests.lives_on(name)


def test_an_interrupt_while_the_guest_shuts_down_restores_its_old_definition(
    guests: Guests, base: Baseline, ctrl_c_in_two_seconds: Callable[[], int]
) -> None:
    name = guests.start("impatient", cpu=SANDYBRIDGE)
    before = guests.stored(name, "h1")
    plan = guests.plan(name, baseline=base, restart=True)
    ctrl_c_in_two_seconds()
    with pytest.raises(KeyboardInterrupt, match="did not power off before the interrupt"):
        plan.run(progress=False)
    assert guests.stored(name, "h1") == before
    assert guests.where(name) == {"h1": "running"}
    guests.lives_on(name)


def test_a_plan_is_void_once_somebody_has_changed_the_definition(guests: Guests, base: Baseline) -> None:
    name = guests.start("changed", cpu=SANDYBRIDGE)
    plan = guests.plan(name, baseline=base, restart="destroy")
    describe(guests, name, "changed by hand")
    with pytest.raises(MigrationError, match=r"its stored definition.*Changed: nothing"):
        plan.run(progress=False)
    assert guests.stored_model(name, "h1") == "SandyBridge"
    assert len(guests.rig.console(name).boot_ids) == 1


def describe(guests: Guests, name: str, text: str) -> None:
    guests.rig.virsh("h1", "desc", name, "--config", text)


# ---- a baseline by itself


def test_an_applied_baseline_waits_for_the_next_start_and_can_be_taken_back(guests: Guests, base: Baseline) -> None:
    rig, name = guests.rig, guests.start("applied", cpu=SANDYBRIDGE)
    before = guests.stored(name, "h1")
    applied = apply_baseline(name, base, source=rig.uri("h1"), targets=[rig.ssh_uri("h2")])
    assert applied.running
    assert "keeps its CPU until it is powered off" in repr(applied)
    assert [(a.host, a.result) for a in applied.answers] == [("h1", "superset"), ("h2", "identical")]
    assert guests.stored_model(name, "h1") == "Westmere"
    assert "avx" in rig.console(name).flags

    applied.undo()
    assert guests.stored(name, "h1") == before


def test_undo_refuses_what_somebody_else_has_changed(guests: Guests, base: Baseline) -> None:
    name = guests.power_on("not-undone", cpu=SANDYBRIDGE)
    applied = apply_baseline(name, base, source=guests.rig.uri("h1"), targets=[])
    describe(guests, name, "changed by hand")
    with pytest.raises(MigrationError, match="somebody changed the definition"):
        applied.undo()
    assert guests.stored_model(name, "h1") == "Westmere"


def test_a_baseline_of_the_host_view_is_applied_only_on_demand(guests: Guests, samples: Path) -> None:
    advisory = vc.read_fleet(samples / "virsh_pair", view="host").baseline()
    name = guests.power_on("advisory", cpu=SANDYBRIDGE)
    here = guests.rig.uri("h1")
    with pytest.raises(MigrationError, match=r"host view.*view='hypervisor'"):
        apply_baseline(name, advisory, source=here, targets=[])
    assert guests.stored_model(name, "h1") == "SandyBridge"
    applied = apply_baseline(name, advisory, source=here, targets=[], allow_host_view=True)
    assert applied.answers[0].result == "incompatible"
    assert guests.stored_model(name, "h1") == "Westmere"


def test_a_domain_that_does_not_exist_is_one_clear_error(rig: Rig) -> None:
    with pytest.raises(ConnectError, match=r"h1 .*the domain nobody.*not found") as refused:
        plan_migration("nobody", rig.uri("h1"), rig.uri("h2"))
    assert refused.value.code == 42
