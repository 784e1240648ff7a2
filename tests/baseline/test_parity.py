"""The same text as libvirt, byte for byte, or an error on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path
from random import Random
from typing import Any

import pytest

import vmcompat as vc
from tests.rig import Rig, RigUnavailable
from tests.strategies import guest_cpu, guest_cpu_near, host_group
from vmcompat import connect
from vmcompat.fleet.expand import View

libvirt: Any = pytest.importorskip("libvirt", reason="libvirt-python is not installed: no libvirt to agree with")


@pytest.fixture(scope="module")
def cpu_map() -> vc.CpuMap:
    """The map of the linked libvirt."""
    number = libvirt.getVersion()
    for where in ("system", f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"):
        try:
            return vc.CpuMap.load(where)
        except vc.VmcompatError as e:
            reason = str(e)
    pytest.skip(f"the map of the linked libvirt is neither installed nor brought along: {reason}")


@pytest.fixture(scope="module")
def test_driver() -> Iterator[connect.Host]:
    with connect.open_host("test:///default") as host:
        yield host


def ours(group: list[str], cpu_map: vc.CpuMap, **options: Any) -> str | None:
    named = {f"h{i}": text for i, text in enumerate(group)}
    try:
        fleet = vc.read_fleet(named, view="host", strict=True, cpu_map=cpu_map, errors="collect")
        return fleet.baseline(**options).xml
    except vc.VmcompatError:
        return None


def theirs(host: connect.Host, group: list[str], flags: int) -> str | None:
    try:
        return host.ask("a baseline", lambda c: c.baselineCPU(group, flags))
    except vc.VmcompatError:
        return None


def agree(
    host: connect.Host, cpu_map: vc.CpuMap, count: int, *, driver: str, flags: tuple[int, ...]
) -> tuple[int, int]:
    """How many random groups had an answer, and how many an error on both sides; any difference fails."""
    rnd = Random(f"{driver} {count}")
    answered = refused = 0
    for _ in range(count):
        group, flag = host_group(rnd, cpu_map), rnd.choice(flags)
        expected = theirs(host, group, flag)
        got = ours(group, cpu_map, driver=driver, expand=bool(flag & 1), migratable=bool(flag & 2))
        assert got == expected, "\n".join(group)
        answered, refused = answered + (got is not None), refused + (got is None)
    return answered, refused


@pytest.mark.parametrize("count", [1_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_random_groups_get_the_test_drivers_very_text(
    test_driver: connect.Host, cpu_map: vc.CpuMap, count: int
) -> None:
    answered, refused = agree(test_driver, cpu_map, count, driver="test", flags=(0, 1))
    print(f"\nbaselineCPU of the test driver: {answered} equal texts, {refused} refused on both sides")
    assert answered > 3 * refused


def test_every_pair_of_real_hosts_gets_the_test_drivers_very_text(
    test_driver: connect.Host, cpu_map: vc.CpuMap, shared: Path
) -> None:
    files = sorted((shared / "data" / "libvirt-9.0.0" / "cputestdata").glob("x86_64-cpuid-*-host.xml"))
    texts = {f.name: f.read_text() for f in files}
    fleet = vc.read_fleet(texts, view="host", strict=True, cpu_map=cpu_map)
    if not fleet.complete:
        pytest.skip("the linked libvirt does not know the models of the 9.0.0 hosts")
    answered = 0
    for i, (a, b) in enumerate(combinations_with_replacement(texts, 2)):
        pair, expand = ([a, b] if i & 2 else [b, a]), bool(i & 1)
        expected = theirs(test_driver, [texts[name] for name in pair], int(expand))
        try:
            assert fleet.baseline(pair, driver="test", migratable=False, expand=expand).xml == expected, pair
            answered += 1
        except vc.VmcompatError:
            assert expected is None, pair
    print(f"\npairs of {len(texts)} real hosts: {answered} equal texts")
    assert answered > 1000


def test_a_host_of_another_architecture_is_refused_although_libvirt_looks_away(test_driver: connect.Host) -> None:
    group = [f"<cpu><arch>{arch}</arch><model>Haswell</model></cpu>" for arch in ("x86_64", "s390x")]
    assert "Haswell" in (theirs(test_driver, group, 0) or "")
    with pytest.raises(vc.VmcompatError, match=r"h1 \(other_arch\)"):
        vc.read_fleet({f"h{i}": text for i, text in enumerate(group)}, strict=True).baseline()


class QemuDriver:
    """A libvirt with the QEMU driver, what it said of its host, and the probe of QEMU that it keeps.

    A host of the rig, for it has no /dev/kvm: one that is there and cannot be used makes libvirt, the embedded driver
    too, probe QEMU anew at every question.
    """

    def __init__(self, host: connect.Host, root: Path) -> None:
        self.host = host
        self.capabilities = host.ask("its capabilities", lambda c: c.getCapabilities())
        self.domcapabilities = host.ask(
            "its domain capabilities", lambda c: c.getDomainCapabilities(None, "x86_64", None, "qemu")
        )
        caches = (path.read_text() for path in sorted(root.glob("var/cache/libvirt/qemu/capabilities/*.xml")))
        self.qemucaps = next(text for text in caches if "<arch>x86_64</arch>" in text)

    def fleet(self, guests: list[str], cpu_map: vc.CpuMap) -> vc.Fleet:
        """The hosts whose host-model these CPUs are, and this host, whose emulator is asked."""
        named = {f"h{i}": text for i, text in enumerate(guests)} | {"asked": self.qemucaps}
        return vc.read_fleet(named, view="hypervisor", strict=True, cpu_map=cpu_map, errors="collect", virttype="qemu")


@pytest.fixture(scope="module")
def qemu_driver() -> Iterator[QemuDriver]:
    rig = Rig({"h1": "SandyBridge"})
    try:
        rig.start()
    except RigUnavailable as e:
        pytest.skip(f"no libvirt with the QEMU driver to agree with: {e}")
    try:
        with connect.open_host(rig.uri("h1"), write=True) as host:
            yield QemuDriver(host, rig.dir / "h1")
    finally:
        rig.stop()


QEMU = [250, pytest.param(6_000, marks=pytest.mark.slow)]


@pytest.mark.rig
@pytest.mark.parametrize("count", QEMU)
def test_random_groups_get_the_qemu_drivers_very_text(qemu_driver: QemuDriver, cpu_map: vc.CpuMap, count: int) -> None:
    answered, refused = agree(qemu_driver.host, cpu_map, count, driver="qemu", flags=(0, 1, 2, 3))
    print(f"\nbaselineCPU of the QEMU driver: {answered} equal texts, {refused} refused on both sides")
    assert answered > 3 * refused


@pytest.mark.rig
@pytest.mark.parametrize("count", QEMU)
def test_random_guests_get_the_hypervisor_baselines_very_text(
    qemu_driver: QemuDriver, cpu_map: vc.CpuMap, count: int
) -> None:
    rnd = Random(count)
    answered = refused = 0
    for _ in range(count):
        vendor = rnd.choice(["Intel", "AMD"])
        group = [guest_cpu(rnd, cpu_map, vendor=vendor) for _ in range(rnd.choice([1, 2, 2, 3, 5]))]
        flags = rnd.choice([0, 1, 2, 3])
        fleet = qemu_driver.fleet(group, cpu_map)
        hosts = [name for name in fleet.names if name != "asked"]
        try:
            base = fleet.baseline(hosts, asked_of="asked", expand=bool(flags & 1), migratable=bool(flags & 2))
            assert base.exact, base.inexact
            got: str | None = base.xml
        except vc.VmcompatError:
            got = None
        try:
            expected: str | None = qemu_driver.host.ask(
                "a hypervisor baseline",
                lambda c, g=group, f=flags: c.baselineHypervisorCPU(None, "x86_64", None, "qemu", g, f),  # type: ignore[misc]
            )
        except vc.VmcompatError:
            expected = None
        assert got == expected, "\n".join([f"flags {flags}", *group])
        answered, refused = answered + (got is not None), refused + (got is None)
    print(f"\nbaselineHypervisorCPU: {answered} equal texts, {refused} refused on both sides")
    assert answered > 3 * refused


@pytest.mark.rig
def test_verify_is_identical_to_what_the_asked_hypervisor_says_and_asks_no_other(
    qemu_driver: QemuDriver, cpu_map: vc.CpuMap
) -> None:
    texts = [qemu_driver.capabilities, qemu_driver.domcapabilities, qemu_driver.qemucaps]
    fleet = vc.read_fleet({"h1": "".join(texts)}, view="hypervisor", cpu_map=cpu_map, strict=True)
    uuid = str(fleet.hosts["uuid"].iloc[0])
    for migratable, expand in ((True, False), (False, True)):
        base = fleet.baseline(asked_of="h1", migratable=migratable, expand=expand)
        assert base.exact
        answer = qemu_driver.host.ask("a hypervisor baseline", base.verify)
        assert (answer.result, answer.reason, answer.diff) == ("identical", "", "")
    other = "".join(texts).replace(uuid, "4c4c4544-0000-2010-8020-80c04f202020")
    base = vc.read_fleet({"h1": other}, view="hypervisor", cpu_map=cpu_map, strict=True).baseline(asked_of="h1")
    answer = qemu_driver.host.ask("a hypervisor baseline", base.verify)
    assert answer.result == "cannot_tell"
    assert f"this one {uuid}" in answer.reason


COMPARED = {0: "incompatible", 1: "identical", 2: "superset"}


@pytest.mark.rig
@pytest.mark.parametrize("count", QEMU)
@pytest.mark.parametrize("view", ["host", "hypervisor"])
def test_random_guests_compare_as_libvirt_compares_them(
    qemu_driver: QemuDriver, cpu_map: vc.CpuMap, view: View, count: int
) -> None:
    documents = {"host": qemu_driver.capabilities, "hypervisor": qemu_driver.domcapabilities}
    fleet = vc.read_fleet({"here": documents[view]}, view=view, strict=True, cpu_map=cpu_map, virttype="qemu")
    (reading,) = fleet.readings
    assert reading.cpu is not None
    rnd = Random(count)
    seen: dict[str, int] = {}
    for _ in range(count):
        if rnd.random() < 0.5:
            cpu = guest_cpu_near(rnd, cpu_map, offered=reading.offered)
        else:
            cpu = guest_cpu(rnd, cpu_map, vendor=rnd.choice([reading.cpu.vendor, None]))
        try:
            if view == "host":
                number = qemu_driver.host.ask("a comparison", lambda c, x=cpu: c.compareCPU(x, 0))  # type: ignore[misc]
            else:
                number = qemu_driver.host.ask(
                    "a comparison",
                    lambda c, x=cpu: c.compareHypervisorCPU(None, "x86_64", None, "qemu", x, 0),  # type: ignore[misc]
                )
            expected = COMPARED[number]
        except vc.VmcompatError:
            expected = "error"
        try:
            got: str = vc.compare(cpu, host=reading.cpu, cpu_map=cpu_map).result
        except vc.VmcompatError:
            got = "error"
        assert got == expected, cpu
        seen[got] = seen.get(got, 0) + 1
    call = "compareCPU" if view == "host" else "compareHypervisorCPU"
    print(f"\n{call}: {seen}")
    assert {"incompatible", "identical", "superset", "error"} <= seen.keys()
