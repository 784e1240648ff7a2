"""The two hosts and the state of the guest: each check where it fires, where it does not, and where it cannot tell."""

from dataclasses import replace
from typing import Any

import pytest

from tests.migration.scene import SANDYBRIDGE, WESTMERE, capabilities, domain, end, found, seen
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import version
from vmcompat.fleet.records import Document
from vmcompat.migration.between import AT_A_TIME
from vmcompat.migration.domain import read_domain
from vmcompat.migration.observe import End, Observation, _without_what_opens
from vmcompat.migration.skews import SKEWS
from vmcompat.migration.transfer import Transfer

HOST_2 = "00000000-0000-4000-8000-000000000002"
HYPERV = "<features><hyperv mode='custom'>{}</hyperv></features>"
FIXED = "<clock offset='utc'><timer name='tsc' frequency='2000000000'/></clock>"


def custom(inside: str) -> str:
    return f"<cpu mode='custom' match='exact' check='full'>{inside}</cpu>"


def h1(libvirt: str = "9.0.0", qemu: str = "7.2.0", cpu: str = WESTMERE, **details: Any) -> End:
    return end("h1", cpu, libvirt=libvirt, qemu=qemu, **details)


def h2(libvirt: str = "9.0.0", qemu: str = "7.2.0", cpu: str = WESTMERE, **details: Any) -> End:
    return end("h2", cpu, libvirt=libvirt, qemu=qemu, **details)


def lists(there: End, **facts: object) -> End:
    """The host whose domain capabilities say that too."""
    assert there.hypervisor is not None
    return replace(there, hypervisor=replace(there.hypervisor, facts=facts))


def says(there: End, words: str | None) -> End:
    return replace(there, refusal=words)


def machines(**details: Any) -> Document:
    """Capabilities of h2, in which the machine type is called deprecated."""
    own = capabilities(uuid=HOST_2, **details)
    return replace(own, facts={**own.facts, "deprecated_machines": own.facts["machines"]})


THREADS = "<topology sockets='1' dies='1' cores='2' threads='1'/>"
EPYC = "<model fallback='forbid'>EPYC-Milan</model><vendor>AMD</vendor>"
SKYLAKE = "<model fallback='forbid'>Skylake-Server</model><vendor>Intel</vendor>"
ARCH_CAPABILITIES = f"{EPYC}<feature policy='require' name='arch-capabilities'/>"
VMX = f"{WESTMERE}<feature policy='require' name='vmx'/>"
NEEDLESS_SVM = f"{EPYC}<feature policy='disable' name='svm'/>"
CACHE = f"{WESTMERE}<cache mode='{{}}'/>"

CASES: dict[str, tuple[str, str, str, Observation]] = {
    # name: check, severity, what the evidence says, what was seen
    "one version": ("VERSION", "ok", "libvirt 9.0.0 and QEMU 7.2.0", seen(domain())),
    "an upgraded target": ("VERSION", "warn", "QEMU 7.2.0 on h1, 10.0.2 on h2", seen(
        domain(), target=h2("11.3.0", "10.0.2"))),
    "an older target": ("VERSION", "risk", "QEMU 10.0.2 on h1, 7.2.0 on h2", seen(
        domain(), source=h1("11.3.0", "10.0.2"))),
    "an older libvirt alone": ("VERSION", "risk", "libvirt 11.3.0 on h1, 9.0.0 on h2", seen(
        domain(), source=h1("11.3.0"))),
    "a stable update less": ("VERSION", "warn", "QEMU 7.2.17 on h1, 7.2.0 on h2", seen(
        domain(), source=h1(qemu="7.2.17"))),
    "another hypervisor": ("VERSION", "block", "h2 runs another hypervisor", seen(
        domain(), target=replace(h2(), qemu=None))),
    "a version not told": ("VERSION", "unknown", "h2 of its libvirt", seen(domain(), target=replace(h2(), libvirt=""))),
    "no skew between equals": ("SKEW", "ok", "the same QEMU", seen(domain())),
    "no known skew": ("SKEW", "warn", "not all skews are known", seen(domain(), target=h2("9.10.0", "8.1.0"))),
    "ht of QEMU 10": ("SKEW", "risk", "extra features: ht", seen(
        domain(cpu=custom(f"{WESTMERE}{THREADS}")), target=h2("11.3.0", "10.0.2"))),
    "ht and a libvirt that knows": ("SKEW", "warn", "no skew is known", seen(
        domain(cpu=custom(f"{WESTMERE}{THREADS}")), target=h2("11.10.0", "10.0.2"))),
    "ht without siblings": ("SKEW", "warn", "no skew is known", seen(domain(), target=h2("11.3.0", "10.0.2"))),
    "ht on its way back": ("SKEW", "warn", "no skew is known", seen(
        domain(cpu=custom(f"{WESTMERE}{THREADS}")), source=h1("11.3.0", "10.0.2"))),
    "pdcm and QEMU 10.1": ("SKEW", "risk", "missing features: pdcm", seen(
        domain(cpu=custom(f"{WESTMERE}<feature policy='require' name='pdcm'/>")),
        source=h1("12.0.0", "10.0.2"), target=h2("12.0.0", "10.1.0"))),
    "arch-capabilities on AMD": ("SKEW", "risk", "no guest on AMD", seen(
        domain(cpu=custom(ARCH_CAPABILITIES)), source=h1("12.0.0", "10.0.2", ARCH_CAPABILITIES),
        target=h2("12.0.0", "10.1.0", EPYC))),
    "arch-capabilities on Intel": ("SKEW", "warn", "no skew is known", seen(
        domain(cpu=custom(f"{WESTMERE}<feature policy='require' name='arch-capabilities'/>")),
        source=h1("12.0.0", "10.0.2"), target=h2("12.0.0", "10.1.0"))),
    "mpx on its way back": ("SKEW", "risk", "mpx", seen(
        domain(cpu=custom(SKYLAKE)), source=h1("11.3.0", "7.2.0", SKYLAKE), target=h2(cpu=SKYLAKE))),
    "mpx said": ("SKEW", "warn", "no skew is known", seen(
        domain(cpu=custom(f"{SKYLAKE}<feature policy='disable' name='mpx'/>")),
        source=h1("11.3.0", "7.2.0", SKYLAKE), target=h2(cpu=SKYLAKE))),
    "vmx of old to the libvirts that compare all": ("SKEW", "risk", "vmx-*", seen(
        domain(cpu=custom(VMX)), target=h2("10.0.0", "7.2.0", VMX))),
    "vmx of those libvirts to an old one": ("SKEW", "risk", "vmx-*", seen(
        domain(cpu=custom(VMX)), source=h1("9.10.0", "7.2.0", VMX), target=h2(cpu=VMX))),
    "vmx of new to those libvirts": ("SKEW", "risk", "vmx-*", seen(
        domain(cpu=custom(VMX)), source=h1("11.3.0", "7.2.0", VMX), target=h2("10.1.0", "7.2.0", VMX))),
    "vmx past those libvirts": ("SKEW", "warn", "no skew is known", seen(
        domain(cpu=custom(VMX)), target=h2("11.3.0", "7.2.0", VMX))),
    "vmx out of those libvirts": ("SKEW", "warn", "no skew is known", seen(
        domain(cpu=custom(VMX)), source=h1("10.1.0", "7.2.0", VMX), target=h2("11.3.0", "7.2.0", VMX))),
    "a definition that is understood": ("DRY", "ok", "understands", seen(domain())),
    "a feature nobody there knows": ("DRY", "block", "unknown CPU feature: amx-fp16", seen(
        domain(), target=says(h2(), "unsupported configuration: unknown CPU feature: amx-fp16"))),
    "a machine type nobody there knows": ("DRY", "block", "machine type 'pc-q35-9.9'", seen(domain(), target=says(
        h2(), "unsupported configuration: Emulator '/usr/bin/qemu-system-x86_64' does not support machine type "
        "'pc-q35-9.9'"))),
    "a dry run that stumbles over itself": ("DRY", "unknown", "stricter than a migration", seen(
        domain(), target=says(h2(), "Storage pool not found: no storage pool with matching name 'ssd'"))),
    "no dry run": ("DRY", "unknown", "has not parsed", seen(domain(), target=end("h2", None))),
    "nobody on the way": ("JOBS", "ok", "no other migrations", seen(domain())),
    "one on the way": ("JOBS", "ok", "1 other migration under", seen(domain(), target=h2(jobs=("web2",)))),
    "two on the way": ("JOBS", "warn", "h2 has 2 migrations under way: web2, web3", seen(
        domain(), target=h2(jobs=("web2", "web3")))),
    "jobs not told": ("JOBS", "unknown", "h2 did not say", seen(domain(), target=h2(jobs=None))),
    "stored as it runs": ("STORED", "ok", "as it runs", seen(domain())),
    "more memory at the next start": ("STORED", "warn", "memory in KiB 1048576, stored 2097152", seen(
        domain(), stored=domain(memory="<memory unit='GiB'>2</memory>"))),
    "another machine type at the next start": ("STORED", "warn", "pc-q35-7.2, stored pc-q35-9.2", seen(
        domain(), stored=domain(machine="pc-q35-9.2"))),
    "another model at the next start": ("STORED", "warn", "CPU model Westmere, stored SandyBridge", seen(
        domain(), stored=domain(cpu=custom(SANDYBRIDGE)))),
    "a feature more at the next start": ("STORED", "warn", "stored with pcid, which it has not got",
        seen(domain(), stored=domain(cpu=custom(f"{WESTMERE}<feature policy='require' name='pcid'/>")))),
    "a feature less at the next start": ("STORED", "warn", "stored without aes, which it has", seen(
        domain(), stored=domain(cpu=custom(f"{WESTMERE}<feature policy='disable' name='aes'/>")))),
    "another mode at the next start": ("STORED", "warn", "CPU mode custom, stored host-passthrough", seen(
        domain(), stored=domain(cpu="<cpu mode='host-passthrough'/>"))),
    "an emulated guest and an old QEMU": ("EMULATION", "warn", "may arrive damaged", seen(domain(virttype="qemu"))),
    "an emulated guest and a new QEMU": ("EMULATION", "ok", "sends all", seen(
        domain(virttype="qemu"), source=replace(h1(), qemu="9.0.0"))),
    "an emulated guest and no version": ("EMULATION", "unknown", "does not tell", seen(
        domain(virttype="qemu"), source=replace(h1(), qemu=None))),
    "no autostart": ("AUTOSTART", "ok", "not marked", seen(domain())),
    "autostart at the source": ("AUTOSTART", "ok", "does not take that along", seen(
        domain(), source=h1(autostart=True))),
    "autostart at the target": ("AUTOSTART", "risk", "a second time", seen(domain(), target=h2(autostart=True))),
    "a guest with vmx": ("NESTED", "warn", "4.20", seen(domain(cpu=custom(VMX)))),
    "a guest with vmx on an old QEMU": ("NESTED", "risk", "QEMU 4.0.1 of h2", seen(
        domain(cpu=custom(VMX)), target=h2(qemu="4.0.1"))),
    "a passed-through vmx": ("NESTED", "warn", "vmx", seen(
        domain(cpu="<cpu mode='host-passthrough'/>"), source=h1(cpu=VMX))),
    "a machine type with a future": ("DEPRECATED", "ok", "not called deprecated", seen(domain())),
    "a machine type without": ("DEPRECATED", "warn", "pc-q35-7.2 is deprecated on h2", seen(
        domain(), target=h2(host=machines()))),
    "re-enlightenment and any TSC": ("HYPERV", "block", "QEMU refuses", seen(
        domain(before=HYPERV.format("<reenlightenment state='on'/>")))),
    "re-enlightenment and a fixed TSC": ("HYPERV", "ok", "1 Hyper-V", seen(
        domain(before=HYPERV.format("<reenlightenment state='on'/>"), inside=FIXED),
        target=lists(h2(), hyperv=("relaxed", "reenlightenment")))),
    "re-enlightenment switched off": ("HYPERV", "ok", "1 Hyper-V", seen(
        domain(before=HYPERV.format("<relaxed state='on'/><reenlightenment state='off'/>")),
        target=lists(h2(), hyperv=("relaxed",)))),
    "all enlightenments of the host": ("HYPERV", "risk", "passthrough", seen(
        domain(before="<features><hyperv mode='passthrough'/></features>"))),
    "an enlightenment that the target lacks": ("HYPERV", "risk", "h2 does not list vapic", seen(
        domain(before=HYPERV.format("<relaxed state='on'/><vapic state='on'/>")),
        target=lists(h2(), hyperv=("relaxed",)))),
    "a target without enlightenments": ("HYPERV", "risk", "h2 does not list relaxed", seen(
        domain(before=HYPERV.format("<relaxed state='on'/>")), target=lists(h2(), hyperv=()))),
    "enlightenments not told": ("HYPERV", "warn", "does not list its own", seen(
        domain(before=HYPERV.format("<relaxed state='on'/>")))),
    "a baseline beside a passed-through cache": ("CPU_HOST_PARTS", "block", "<cache mode='passthrough'/>", seen(
        domain(), new=domain(cpu=custom(CACHE.format("passthrough"))), baseline="Westmere")),
    "a baseline beside a disabled cache": ("CPU_HOST_PARTS", "ok", "nothing is left", seen(
        domain(), new=domain(cpu=custom(CACHE.format("disable"))), baseline="Westmere")),
    "a baseline beside passed-through address bits": ("CPU_HOST_PARTS", "ok", "nothing is left", seen(
        domain(), new=domain(cpu=custom(f"{WESTMERE}<maxphysaddr mode='passthrough'/>")), baseline="Westmere")),
}  # fmt: skip


NOT_ASKED: dict[str, tuple[str, Observation]] = {
    "versions for a definition that moves": ("VERSION", seen(
        None, stored=domain(), state="shut off", transfer=Transfer(offline=True))),
    "a dry run that says what the checks of the CPU say": ("DRY", seen(domain(), target=says(
        h2(), "the CPU is incompatible with host CPU: Host CPU does not provide required features: avx"))),
    "skews of a CPU that it leaves behind": ("SKEW", seen(domain(), restart=True, target=h2("11.3.0", "10.0.2"))),
    "skews of whatever the host has": ("SKEW", seen(domain(cpu="<cpu mode='host-passthrough'/>"))),
    "a next start that is the plan": ("STORED", seen(domain(), stored=domain(cpu=custom(SANDYBRIDGE)), restart=True)),
    "autostart of a transient domain": ("AUTOSTART", replace(seen(domain()), stored=None)),
    "nesting without an extension": ("NESTED", seen(domain())),
    "nesting that is switched off": ("NESTED", seen(domain(cpu=custom(NEEDLESS_SVM)))),
    "nesting of an emulated CPU": ("NESTED", seen(domain(cpu=custom(VMX), virttype="qemu"))),
    "enlightenments of a guest without": ("HYPERV", seen(domain())),
    "a definition that keeps its CPU": ("CPU_HOST_PARTS", seen(domain(cpu=custom(CACHE.format("passthrough"))))),
    "deprecation where no machine type is told": ("DEPRECATED", seen(
        domain(), target=h2(host=capabilities(uuid=HOST_2, machine="")))),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_ASKED)
def test_a_check_is_silent_where_its_question_does_not_arise(case: str) -> None:
    check, observation = NOT_ASKED[case]
    assert found(observation, check) is None


def test_a_baseline_is_no_difference_between_running_and_stored() -> None:
    observation = seen(domain(), new=domain(cpu=custom(SANDYBRIDGE)), baseline="SandyBridge")
    finding = found(replace(observation, stored=domain(cpu=custom(SANDYBRIDGE))), "STORED")
    assert finding is not None
    assert finding.severity == "ok"


def test_a_migration_of_the_guest_itself_is_not_another_one() -> None:
    busy = ("a", "b")
    assert len(busy) == AT_A_TIME
    finding = found(seen(domain(), source=h1(jobs=busy[:1]), target=h2(jobs=busy[1:])), "JOBS")
    assert finding is not None
    assert finding.severity == "ok", "two hosts with one each are not crowded"


# ---- the table of skews


def test_every_skew_has_a_year_a_source_and_an_order() -> None:
    known = CpuMap.load()
    for skew in SKEWS:
        for first, until in (skew.leaves, skew.meets):
            assert not until or version(first) < version(until), skew
        assert 2018 < skew.year < 2027
        assert skew.source
        assert known.set_of([skew.feature]), f"{skew.feature} is no name of the newest map"


def test_the_maps_themselves_show_that_mpx_left_the_models() -> None:
    (skew,) = [s for s in SKEWS if s.feature == "mpx"]
    old, new = CpuMap.load("9.0.0"), CpuMap.load(skew.meets[1])
    concerned = [m for m in old.models if m.startswith(skew.models) and m in new.models]
    gone = [
        m
        for m in concerned
        if old.models[m].data & old.set_of(["mpx"]) and not new.models[m].data & new.set_of(["mpx"])
    ]
    assert len(gone) >= 8
    # and no other model lost it
    others = [m for m in old.models if m in new.models and m not in concerned]
    assert [m for m in others if bool(old.models[m].data & old.set_of(["mpx"])) != bool(
        new.models[m].data & new.set_of(["mpx"]))] == []  # fmt: skip


def test_a_version_between_the_known_ones_counts_as_changed() -> None:
    live = domain(cpu=custom(SKYLAKE))
    for libvirt in ("10.0.0", "11.3.0"):
        finding = found(seen(live, source=h1(libvirt, "7.2.0", SKYLAKE), target=h2(cpu=SKYLAKE)), "SKEW")
        assert finding is not None
        assert finding.severity == "risk"


# ---- the dry run


def test_a_dry_run_is_given_nothing_that_libvirt_would_have_to_open() -> None:
    opened = """<interface type='network'><source network='default'/></interface>
<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm><vsock model='virtio'/>
<hostdev mode='subsystem' type='usb'/><filesystem type='mount'><source dir='/a'/><target dir='b'/></filesystem>
<disk type='file' device='disk'><source file='/a'/><target dev='vda' bus='virtio'/></disk>"""
    asked = _without_what_opens(domain(devices=opened, before="<seclabel type='dynamic' model='apparmor'/>"))
    for gone in ("interface", "tpm", "vsock", "hostdev", "filesystem", "seclabel"):
        assert f"<{gone}" not in asked
    kept = read_domain(asked, source="asked")
    assert (kept.cpu, kept.machine, kept.emulator, kept.vcpus) == (
        domain().cpu, domain().machine, domain().emulator, domain().vcpus,
    )  # fmt: skip
    assert "<disk" in asked
