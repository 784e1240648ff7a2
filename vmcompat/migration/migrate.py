"""Plans one domain's move from host to host: what stands in its way, what would change, and the steps."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pandas as pd

from vmcompat.errors import MigrationError
from vmcompat.migration import run as running
from vmcompat.migration import runbook
from vmcompat.migration.forecast import Forecast, measured_dirty_rate
from vmcompat.migration.handle import MigrationJob
from vmcompat.migration.observe import Observation, observe
from vmcompat.migration.order import MigrationResult, Order, Restart
from vmcompat.migration.policy import BALANCED, Policy, policy_of
from vmcompat.migration.preflight import CHECKS, WORST_FIRST, Finding, preflight
from vmcompat.migration.progress import Shown
from vmcompat.migration.transfer import PLAIN, Transfer
from vmcompat.schema import PREFLIGHT, frame

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline

GLYPHS: Final = {"ok": "\u2713", "warn": "\u26a0", "risk": "\u25b2", "block": "\u2717", "unknown": "?"}

# What a client's own URI says about the client and means nothing on the source.
_PEER: Final = re.compile(r"[a-z]+\+(?:ssh|tls|tcp|libssh2?)://(?:[^/@]*@)?[^/?#]+")


@dataclass(frozen=True, kw_only=True, repr=False)
class MigrationPlan:
    """What a migration would do; nothing was touched.

    Attributes
    ----------
    order : Order
        What was asked for, and what was seen.
    """

    order: Order = field(repr=False)

    @property
    def seen(self) -> Observation:
        """Both ends, as they were when the plan was made."""
        return self.order.seen

    @property
    def findings(self) -> pd.DataFrame:
        """Every check that applies, one row each: id, severity, evidence, remedy, and whether ``force`` passes it."""
        rows = [
            {"id": f.id, "severity": f.severity, "evidence": f.evidence, "remedy": f.remedy,
             "forced": f.id in self.order.forced}
            for f in self.order.findings
        ]  # fmt: skip
        return frame(PREFLIGHT, rows)

    @property
    def blocked(self) -> bool:
        """Whether a run would stop before it touches anything: on a block, or a risk or unknown that is not forced."""
        return bool(self.order.stops)

    @property
    def diff(self) -> str:
        """What would change in the stored definition, as ``patch`` takes it; empty where nothing would."""
        return runbook.diff(self.order)

    @property
    def steps(self) -> tuple[str, ...]:
        """What a run does, in order."""
        name, here, there = self.order.domain, self.seen.source.name, self.seen.target.name
        steps = ["look at both hosts again, and stop if anything has changed"]
        if self.order.restart:
            if self.diff:
                steps.append(f"store the definition with the {self.seen.baseline} baseline on {here}")
            how = "power it off at once" if self.order.restart == "destroy" else "ask the guest to shut down, and wait"
            steps.append(f"{how}; start it again on {here}, and see what CPU it has got")
            steps.append(f"ask {there} whether it can run that CPU")
        with_new = f", with the {self.seen.baseline} baseline for its next start" if self.diff else ""
        if self.order.transfer.offline:
            steps.append(f"move the definition of {name} from {here} to {there}{with_new}")
            steps.append(f"see that it is off on {there} and gone from {here}")
            return tuple(steps)
        steps.append(f"migrate {name} live, {self.order.way}, from {here} to {there}{with_new}")
        steps += self.order.policy.steps(self.order.transfer, memory=self.order.memory)
        if self.order.transfer.hold:
            steps.append(f"it arrives paused; resume it on {there} once it is gone from {here}, about 0.2 s later")
        steps.append(f"see that it runs on {there} and is gone from {here}")
        if self.seen.stored and self.seen.source.autostart:
            steps.append(f"mark it autostart on {there}")
        return tuple(steps)

    def commands(self) -> str:
        """The same steps as a script for a shell, with virsh and patch; commented out where the plan is blocked."""
        return runbook.commands(self.order)

    def runbook(self) -> str:
        """The same steps as a page for a change ticket, in Markdown.

        What moves and why, the findings, the commands of each step, how to see that it worked, what to do where it
        did not. Where another manager owns the domain, its command stands in place of virsh's.
        """
        return runbook.runbook(self.order)

    def run(self, *, progress: Shown = True, abort: threading.Event | None = None) -> MigrationResult:
        """Does it.

        Parameters
        ----------
        progress : bool, callable or Progress
            A bar where tqdm is installed, else lines; or a function that is given libvirt's job statistics about
            twice a second, by their names there; or what is told every step too.
        abort : threading.Event, optional
            For a run in another thread, which no Ctrl-C reaches: once it is set, the run asks libvirt to abort, as
            after Ctrl-C, and ends with MigrationFailedError. Where the domain has moved by then, that is the result.

        Returns
        -------
        MigrationResult
            The domain runs on the target, and both ends were looked at.

        Raises
        ------
        MigrationFailedError
            The plan is blocked, something changed since it was made, a step failed, or the run was aborted: with what
            was changed, what was undone, what to type next, and the row of the run in ``result``.
        KeyboardInterrupt
            After Ctrl-C, when libvirt has answered the abort; the text says where the domain is.
        """
        return running.run(self.order, progress=progress, abort=abort)

    def forecast(
        self, *, bandwidth: float | tuple[float, float] | None = None, seconds: int = 1, times: int = 3
    ) -> Forecast:
        """Measures how fast the guest rewrites its memory, and says whether the migration would converge, and when.

        Parameters
        ----------
        bandwidth : float or (float, float), optional
            What is sent, or the least and the most of it [MiB/s]. Default: that of the transfer.
        seconds : int
            Each measurement takes [s].
        times : int
            Number of measurements; they differ, and the forecast says by how much that makes it uncertain.

        Raises
        ------
        ConnectError
            The source's libvirt is older than 7.2, refuses write access, or does not answer.
        MigrationError
            The guest does not run, or a number is out of range.

        Notes
        -----
        QEMU compares some pages of the guest with what they were: no page is sent, and nothing is changed.
        """
        from vmcompat.connect import open_host

        order = self.order
        if self.seen.live is None:
            raise MigrationError(f"{order.domain} is {self.seen.state}: nothing is rewritten")
        given = bandwidth if bandwidth is not None else order.transfer.bandwidth or None
        low, high = given if isinstance(given, tuple) else (given, given)
        if low is not None and high is not None and not 0 < low <= high:
            raise MigrationError(f"bandwidth={bandwidth}: MiB/s, above 0, the least first")
        with open_host(order.source, write=True) as here:
            rates = measured_dirty_rate(here, order.domain, memory=order.memory, seconds=seconds, times=times)
        return Forecast(
            memory=order.memory,
            dirty_rate=rates,
            bandwidth=None if low is None or high is None else (low * 2**20, high * 2**20),
            downtime=order.policy.downtimes[-1],
            throttled=bool(order.transfer.auto_converge),
        )

    def start(self, *, progress: Shown = False) -> MigrationJob:
        """Does it in the background.

        Parameters
        ----------
        progress : bool, callable or Progress
            As for :meth:`run`; nothing is printed by default.

        Returns
        -------
        MigrationJob
            With the statistics so far, speed, downtime, abort and wait.
        """
        return MigrationJob(self.order, progress=progress)

    def __repr__(self) -> str:
        lines = [f"<MigrationPlan {self._title()}>"]
        told, fine = self._told_and_fine()
        width = max((len(f.id) for f in told), default=0) + 2
        lines += [f"  {f.severity:8}{f.id:{width}}{f.evidence}" for f in told]
        lines += [f"  ok: {', '.join(f.id for f in fine)}"] if fine else []
        lines += [f"  {number}. {step}" for number, step in enumerate(self.steps, 1)]
        if self.diff and not self.order.restart and self.seen.live:
            lines.append("  the running guest keeps its CPU until it is powered off and on again")
        return "\n".join(lines)

    def _title(self) -> str:
        stops = ", ".join(f.id for f in self.order.stops)
        state = f"blocked by {stops}" if stops else "may run"
        forced = f", forced: {', '.join(self.order.forced)}" if self.order.forced else ""
        return f"{self.order.domain}: {self.seen.source.name} -> {self.seen.target.name}, {state}{forced}"

    def _told_and_fine(self) -> tuple[list[Finding], list[Finding]]:
        """What is to be read, the worst first; and what is as it should be."""
        worst_first = sorted(self.order.findings, key=lambda f: WORST_FIRST.index(f.severity))
        return [f for f in worst_first if f.severity != "ok"], [f for f in worst_first if f.severity == "ok"]

    def _repr_html_(self) -> str:
        told, fine = (self._table(findings) for findings in self._told_and_fine())
        n_fine = sum(f.severity == "ok" for f in self.order.findings)
        checks = f"<details><summary>{n_fine} checks that are fine</summary>{fine}</details>" if n_fine else ""
        steps = "".join(f"<li>{html.escape(step)}</li>" for step in self.steps)
        diff = f"<pre style='font-family:monospace'>{html.escape(self.diff)}</pre>" if self.diff else ""
        title = html.escape(self._title())
        return f"<div class='vmcompat-plan'><b>{title}</b>{told}{checks}<ol>{steps}</ol>{diff}</div>"

    def _table(self, findings: list[Finding]) -> str:
        if not findings:
            return ""
        left = " style='text-align:left'"
        head = "".join(f"<th{left}>{name}</th>" for name in ("severity", "id", "evidence", "remedy"))
        cells = ("".join(f"<td{left}>{cell}</td>" for cell in self._cells(finding)) for finding in findings)
        rows = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"

    def _cells(self, finding: Finding) -> Iterator[str]:
        for text in (f"{GLYPHS[finding.severity]} {finding.severity}", finding.id, finding.evidence, finding.remedy):
            yield html.escape(text) if finding.severity == "ok" else f"<b>{html.escape(text)}</b>"


def plan_migration(
    domain: str,
    source: str,
    target: str,
    *,
    baseline: Baseline | None = None,
    restart: Restart = False,
    force: Iterable[str] = (),
    peer_uri: str | None = None,
    migrate_uri: str = "",
    transfer: Transfer = PLAIN,
    policy: Policy | str = BALANCED,
    write: bool = True,
) -> MigrationPlan:
    """Looks at a domain and two hosts, and plans its live migration; touches nothing.

    Both hosts are asked over read-only connections. What libvirt tells on no such connection (domain capabilities, and
    whether a hypervisor can run a CPU) is asked over a second, read-write one.

    Parameters
    ----------
    domain : str
        Name.
    source, target : str
        URIs, as for virsh on this machine.
    baseline : Baseline, optional
        CPU for the stored definition. A running guest keeps its CPU until it is powered off and on again.
    restart : bool or "destroy"
        Power the guest off and on before it moves, so that it moves with the CPU of its stored definition. True asks
        it to shut down; "destroy" pulls the plug, which is for guests that do not listen and have nothing to lose.
    force : iterable of str
        Ids of findings of severity risk or unknown that a run may pass; nothing passes a block.
    peer_uri : str, optional
        Where the source's libvirtd finds the target's, as one would type it on the source. Default: ``target`` without
        its parameters, if it names a host.
    migrate_uri : str, optional
        Where the source's QEMU sends the guest, such as ``tcp://h2``. Default: what the target's libvirt says.
    transfer : Transfer
        How it travels: peer to peer or managed, over one connection or several, compressed, encrypted, with its disks.
    policy : Policy or str
        How long it may take, and what is done when it gets nowhere: "gentle", "balanced", "must-finish", "huge guest",
        or one of your own. ``plan.steps`` has it in words.
    write : bool
        False opens no read-write connection: what takes one is then *unknown*.

    Returns
    -------
    MigrationPlan

    Raises
    ------
    ConnectError
        A host cannot be reached, the source has no such domain, a URI is none, or the libvirt-python here lacks an
        option.
    MigrationError
        ``force`` names no check, there is no such policy, or the domain has no stored definition and one is needed.

    Notes
    -----
    On the rig, or on two hosts of one's own::

        plan = plan_migration("web1", "qemu+ssh://h1/system", "qemu+ssh://h2/system", baseline=base, restart=True)
        plan.findings, plan.diff, plan.commands()
        result = plan.run()
    """
    from vmcompat.connect import refuse_unless_uri

    force = tuple(dict.fromkeys([force] if isinstance(force, str) else force))
    if strange := [name for name in force if name not in CHECKS]:
        raise MigrationError(f"force={', '.join(strange)}: no such finding; there are {', '.join(CHECKS)}")
    policy = policy_of(policy)
    transfer = policy.settled(transfer)
    transfer.flags(persistent=True)
    for what, uri in (("peer_uri", peer_uri), ("migrate_uri", migrate_uri)):
        refuse_unless_uri(uri or "", what=what)
    if peer_uri is None and (named := _PEER.match(target)):
        peer_uri = f"{named[0]}/{target[named.end() :].lstrip('/').partition('?')[0] or 'system'}"
    seen = observe(
        domain, source, target, baseline=baseline, restart=bool(restart), peer_uri=peer_uri, migrate_uri=migrate_uri,
        transfer=transfer, write=write,
    )  # fmt: skip
    return MigrationPlan(
        order=Order(
            domain=domain,
            source=source,
            target=target,
            baseline=baseline,
            restart=restart,
            peer_uri=peer_uri,
            migrate_uri=migrate_uri,
            force=force,
            transfer=transfer.for_guest(seen.state),
            policy=policy,
            seen=seen,
            findings=preflight(seen),
        )
    )
