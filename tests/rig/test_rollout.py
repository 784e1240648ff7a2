"""A baseline into many definitions on real hosts, and out again; no running CPU changes, and nobody's work is lost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vmcompat as vc
from tests.migration.scene import at
from tests.rig import Rig
from vmcompat.errors import FrameError
from vmcompat.migration.domain import read_domain
from vmcompat.migration.ledger import Ledger

pytestmark = pytest.mark.rig

# TCG emulates neither, so that no SandyBridge starts on the rig with them.
SANDYBRIDGE = """<cpu mode='custom' match='exact' check='partial'><model fallback='forbid'>SandyBridge</model>
<feature policy='disable' name='x2apic'/><feature policy='disable' name='tsc-deadline'/></cpu>"""
NOVA = """<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:name>i</nova:name>
</nova:instance></metadata>"""


class Definitions:
    """Guests of h1, and what a planner reads of them."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig, self.folder = rig, folder
        self.uris = {host: rig.uri(host) for host in rig.cpus}
        self.fleet = vc.read_fleet(list(self.uris.values()), view="hypervisor", virttype="qemu")

    def define(self, name: str, *, cpu: str, on: bool, inside: str = "") -> None:
        path = self.rig.dir / f"{name}.xml"
        xml = self.rig.domain_xml(name, cpu=cpu, memory=96, buffer=16)
        path.write_text(xml.replace("<vcpu>", f"{inside}<vcpu>"))
        self.rig.virsh("h1", "define", str(path))
        if on:
            self.rig.virsh("h1", "start", name)

    def xml(self, name: str, *options: str) -> str:
        return self.rig.virsh("h1", "dumpxml", *options, name).stdout

    def stored(self, *names: str) -> dict[str, str]:
        return {name: self.xml(name, "--inactive", "--security-info") for name in names}

    def ledger(self) -> Ledger:
        return vc.restart_ledger(vc.read_domains(self.uris["h1"]), self.fleet.baseline(), fleet=self.fleet)


@pytest.fixture
def guests(rig: Rig, tmp_path: Path) -> Iterator[Definitions]:
    yield Definitions(rig, tmp_path)
    rig.clear()


def rows(frame: Any, column: str) -> dict[str, Any]:
    found: dict[str, Any] = frame[column].to_dict()
    return found


def test_definitions_get_the_baseline_and_the_old_ones_back_but_for_the_one_that_somebody_changed(
    guests: Definitions,
) -> None:
    guests.define("richer", cpu=SANDYBRIDGE, on=True)
    guests.define("poorer", cpu="Nehalem", on=True)
    guests.define("resting", cpu=SANDYBRIDGE, on=False)
    guests.define("novas", cpu=SANDYBRIDGE, on=False, inside=NOVA)
    ours = ("richer", "poorer", "resting")
    before = guests.stored(*ours, "novas")
    live = {name: guests.xml(name) for name in ("richer", "poorer")}

    ledger = guests.ledger()
    with pytest.raises(FrameError, match="uris: h2 missing"):
        ledger.apply({"h1": guests.uris["h1"]})
    assert guests.stored(*ours, "novas") == before

    done = ledger.apply(guests.uris)
    assert rows(done.frame, "outcome") == {**dict.fromkeys(ours, "applied"), "novas": "left alone"}
    assert rows(done.frame, "power_cycle") == {"richer": True, "poorer": True, "resting": False, "novas": False}
    assert "virsh shutdown --domain richer; virsh start --domain richer" in at(done.frame, "richer")["next"]
    assert any(said.startswith("poorer, richer run on with the CPU that they have") for said in done.explain())
    after = guests.stored(*ours, "novas")
    assert after["novas"] == before["novas"]
    for name in ours:
        cpu = read_domain(after[name], source=name).cpu
        assert cpu is not None
        assert cpu.model == "Westmere"
    assert {name: guests.xml(name) for name in live} == live

    again = guests.ledger()
    assert rows(again.frame.loc[list(ours)], "action") == {"richer": "cycle", "poorer": "cycle", "resting": "none"}
    twice = again.apply(guests.uris)
    assert rows(twice.frame, "outcome") == {**dict.fromkeys(ours, "already there"), "novas": "left alone"}
    assert rows(twice.frame, "power_cycle") == rows(done.frame, "power_cycle")
    assert twice.applied == {}
    assert guests.stored(*ours) == {name: after[name] for name in ours}

    changed = guests.folder / "changed.xml"
    changed.write_text(after["poorer"].replace("<on_crash>destroy", "<on_crash>restart"))
    guests.rig.virsh("h1", "define", str(changed))
    theirs = guests.stored("poorer")
    undone = done.undo()
    assert rows(undone, "outcome") == {"richer": "undone", "poorer": "refused", "resting": "undone"}
    assert "somebody changed the definition of poorer" in at(undone, "poorer")["message"]
    assert guests.stored("richer", "resting", "poorer") == {
        "richer": before["richer"], "resting": before["resting"], **theirs,
    }  # fmt: skip
    assert {name: guests.xml(name) for name in live} == live


def test_a_guest_that_is_gone_meanwhile_stops_no_other(guests: Definitions) -> None:
    for name in ("gone", "stays"):
        guests.define(name, cpu=SANDYBRIDGE, on=False)
    ledger = guests.ledger()
    guests.rig.virsh("h1", "undefine", "gone")
    done = ledger.apply(guests.uris)
    assert rows(done.frame, "outcome") == {"gone": "failed", "stays": "applied"}
    assert "Domain not found" in at(done.frame, "gone")["message"]
    assert "virsh -c" in at(done.frame, "gone")["next"]
    assert rows(done.undo(), "outcome") == {"stays": "undone"}
