"""Guests on the rig for tests of migrations: defined, started, planned for, found again, and taken away."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.rig.rig import Rig
from vmcompat.migration.domain import read_domain
from vmcompat.migration.migrate import MigrationPlan, plan_migration


class Guests:
    """Defines and starts guests on the rig, and says where they are."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def start(self, name: str, *, on: str = "h1", cpu: str = "Westmere", buffer: int = 32, dirty: int = 0) -> str:
        """Define and start a guest, and wait for its first sign of life."""
        self.power_on(name, on=on, cpu=cpu, buffer=buffer, dirty=dirty)
        self.rig.wait_for_tick(name)
        return name

    def power_on(self, name: str, *, on: str = "h1", cpu: str = "Westmere", buffer: int = 32, dirty: int = 0) -> str:
        """Define and start a guest of which it does not matter how far it boots."""
        path = self.rig.dir / f"{name}.xml"
        path.write_text(self.rig.domain_xml(name, cpu=cpu, memory=96 + 3 * buffer // 2, buffer=buffer, dirty=dirty))
        self.rig.virsh(on, "define", str(path))
        self.rig.virsh(on, "start", name)
        return name

    def where(self, name: str) -> dict[str, str]:
        return {
            host: state.stdout.strip()
            for host in self.rig.cpus
            if (state := self.rig.virsh(host, "domstate", name, check=False)).returncode == 0
        }

    def stored(self, name: str, host: str) -> str:
        return self.rig.virsh(host, "dumpxml", "--inactive", "--security-info", name).stdout

    def stored_model(self, name: str, host: str) -> str | None:
        cpu = read_domain(self.stored(name, host), source=name).cpu
        return cpu.model if cpu else None

    def plan(self, name: str, *, way: str = "unix", **options: Any) -> MigrationPlan:
        uri = self.rig.ssh_uri if way == "ssh" else self.rig.uri
        where = {"peer_uri": self.rig.peer_uri("h2"), "migrate_uri": self.rig.migrate_uri("h2")}
        return plan_migration(name, uri("h1"), uri("h2"), **(where | options))

    def lives_on(self, name: str) -> None:
        """Wait for signs of life that it has not given yet."""
        self.rig.wait_for_tick(name, self.rig.console(name).ticks[-1].number + 3)


def severity(plan: MigrationPlan, check: str) -> str | None:
    found = plan.findings.set_index("id")["severity"]
    return str(found[check]) if check in found.index else None


def evidence(plan: MigrationPlan, check: str) -> str:
    return str(plan.findings.set_index("id").loc[check, "evidence"])


def when_under_way(act: Callable[[], object]) -> Callable[[Mapping[str, Any]], None]:
    """Progress that does something once, when memory is on its way."""
    done: list[object] = []

    def progress(stats: Mapping[str, Any]) -> None:
        if stats.get("memory_processed") and not done:
            done.append(act())

    return progress
