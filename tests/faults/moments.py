"""When a fault strikes: both hosts are watched closely, and what phase they were in is told from what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import libvirt

from tests.rig import Rig

Moment: TypeAlias = Literal["setup", "pre-copy", "switch-over", "post-copy"]
MOMENTS: Final[tuple[Moment, ...]] = ("setup", "pre-copy", "switch-over", "post-copy")

_POLL_SECONDS: Final = 0.004
_UNDER_WAY: Final = 2 * 2**20  # of memory sent [bytes]
_STATES: Final = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "shutting down",
    libvirt.VIR_DOMAIN_SHUTOFF: "shut off",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What one host says of the guest: its state, "gone" where it has none, "silent" where the host does not answer.

    ``job`` is libvirt's statistics of it, empty where there is none.
    """

    state: str
    reason: int = 0
    job: dict[str, Any] = field(default_factory=dict)
    persistent: bool = False
    autostart: bool = False

    @property
    def active(self) -> bool:
        return self.state in ("running", "paused", "shutting down", "crashed")

    def __str__(self) -> str:
        words = [self.state, *(["persistent"] if self.persistent else []), *(["autostart"] if self.autostart else [])]
        return ", ".join(words + (["with a job"] if self.job else []))


class Watch:
    """Looks at the hosts of the rig over connections of its own, which outlive nothing: they are opened anew."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._open: dict[str, Any] = {}
        libvirt.registerErrorHandler(lambda context, error: None, None)

    def look(self, host: str, name: str) -> Side:
        """What a host says of a guest now."""
        try:
            if host not in self._open:
                self._open[host] = libvirt.open(self._rig.uri(host))
            domain = self._open[host].lookupByName(name)
            state, reason = domain.state()
            active = bool(domain.isActive())
            return Side(
                state=_STATES[state], reason=reason, job=_job(domain) if active else {},
                persistent=bool(domain.isPersistent()), autostart=bool(domain.autostart()),
            )  # fmt: skip
        except libvirt.libvirtError as e:
            if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return Side(state="gone")
            self.close(host)
            return Side(state="silent")

    def close(self, *hosts: str) -> None:
        """Forget the connections to some hosts, or to all."""
        for host in hosts or tuple(self._open):
            connection = self._open.pop(host, None)
            try:
                if connection is not None:
                    connection.close()
            except libvirt.libvirtError:
                continue


def _job(domain: Any) -> dict[str, Any]:
    try:
        stats: dict[str, Any] = domain.jobStats()
    except libvirt.libvirtError as e:
        if e.get_error_code() == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:  # of an incoming one, which has none to tell
            return {"incoming": True}
        if e.get_error_code() in (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN):
            return {}
        raise
    return stats if stats.get("type") else {}


def phase(source: Side, target: Side) -> str:
    """Of a migration, from what both hosts say."""
    if "silent" in (source.state, target.state):
        return "silent"
    if target.reason == libvirt.VIR_DOMAIN_RUNNING_POSTCOPY and target.state == "running":
        return "post-copy"
    if not source.active:
        return "end"
    if source.state == "paused":
        return "switch-over"
    if not source.job and not target.active:
        return "no job"
    return "pre-copy" if source.job.get("memory_processed", 0) > 0 else "setup"


def wait_for(moment: Moment, look: Callable[[], tuple[Side, Side]], *, over: Callable[[], bool], seconds: float) -> str:
    """Wait until a migration is in a phase, or has ended before; the phase that it was in at last.

    Parameters
    ----------
    moment : str
    look : callable
        Source and target as they are now.
    over : callable
        Whether the client has ended: then there is nothing to wait for any more.
    seconds : float
        Longest wait [s].
    """
    order: Iterable[str] = (*MOMENTS, "end")
    wanted = tuple(order)[tuple(order).index(moment) :]
    if moment != "post-copy":
        wanted = tuple(one for one in wanted if one != "post-copy")
    deadline = time.monotonic() + seconds
    while True:
        source, target = look()
        now = phase(source, target)
        if (now in wanted and _ripe(moment, now, source)) or over() or time.monotonic() > deadline:
            return now
        time.sleep(_POLL_SECONDS)


def _ripe(moment: Moment, now: str, source: Side) -> bool:
    return not (moment == now == "pre-copy") or source.job.get("memory_processed", 0) > _UNDER_WAY
