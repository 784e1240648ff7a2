"""Where a domain is, after anything may have happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmcompat.errors import ConnectError
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.migration.domain import Domain
from vmcompat.migration.observe import STATES, reading

if TYPE_CHECKING:
    from vmcompat.calls import ConnectionCalls
    from vmcompat.connect import Host

GONE, OFF = "gone", "shut off"
_UNKNOWN = "in an unknown state"


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The state of a domain on both hosts: one of :data:`STATES`, ``"gone"``, or why that is not known."""

    source: str
    target: str

    @property
    def known(self) -> bool:
        """Whether both hosts have answered."""
        return not any(each.startswith(_UNKNOWN) for each in (self.source, self.target))

    def told(self, name: str, here: str, there: str) -> str:
        """In words."""
        return f"{name} is {self.source} on {here} and {self.target} on {there}"


def state(uri: str, name: str, host: Host) -> str:
    """Of a domain on one host: over a new connection where the old one does not answer."""
    from vmcompat.connect import constant, open_host

    def ask(of: Host) -> str:
        try:
            return STATES[of.ask(f"the state of {name}", lambda c: c.lookupByName(name).state()[0], seconds=15.0)]
        except ConnectError as e:
            if e.code == constant("VIR_ERR_NO_DOMAIN"):
                return GONE
            raise

    try:
        return ask(host)
    except ConnectError:
        try:
            with open_host(uri) as again:
                return ask(again)
        except ConnectError as e:
            return f"{_UNKNOWN} ({e.__cause__ or e})"


def let_run(host: Host, name: str) -> None:
    """Resumes a domain that is paused; one that runs already is left alone."""
    from vmcompat.connect import constant

    def resume(c: ConnectionCalls) -> None:
        domain = c.lookupByName(name)
        if domain.state()[0] == constant("VIR_DOMAIN_PAUSED"):
            domain.resume()

    host.ask(f"to resume {name}", resume)


def not_given(asked: Domain, live: Domain, host: str, libvirt: str) -> tuple[str, ...]:
    """Features that a definition asks for and the running guest does not have."""
    if asked.cpu is None or asked.cpu.model is None or live.cpu is None or live.cpu.model is None:
        return ()
    wanted, has = (reading(d.cpu, host=host, libvirt=libvirt) for d in (asked, live))
    return tuple(CpuMap.load().names(wanted.offered & ~has.offered))
