"""The migration widget: one button makes the plan, a second, armed one runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from threading import Event, Lock, RLock, Thread
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import ipywidgets as w

from vmcompat import markup
from vmcompat.connect import shown
from vmcompat.errors import MigrationError, VmcompatError
from vmcompat.migration.migrate import MigrationPlan
from vmcompat.migration.order import Restart
from vmcompat.migration.policy import BALANCED, POLICIES, Policy, policy_of
from vmcompat.migration.preflight import Finding
from vmcompat.migration.transfer import PLAIN, Transfer
from vmcompat.widgets._migrate_html import force_label, happening, render
from vmcompat.widgets._migrate_state import MigrateState, running_domains

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline

Change: TypeAlias = Callable[[MigrateState], MigrateState]

_RESTARTS: Final = (("stays on", False), ("shut down and start", True), ("pull the plug, start", "destroy"))
_one_guest = Lock()  # at a time, in all widgets of this kernel


def migrate(
    source: str,
    targets: str | Iterable[str],
    *,
    domain: str | None = None,
    baseline: Baseline | None = None,
    restart: Restart = False,
    peer_uri: str | None = None,
    migrate_uri: str = "",
    transfer: Transfer = PLAIN,
    policy: Policy | str = BALANCED,
    write: bool = True,
    allow_run: bool = False,
) -> w.Widget:
    """Lets one choose a running domain and a target, and shows what its live migration meets, changes and types.

    Parameters
    ----------
    source : str
        URI of the host whose running domains are listed.
    targets : str or iterable of str
        URIs of the hosts to choose from.
    domain : str, optional
        Chosen at the start.
    baseline, restart, peer_uri, migrate_uri, transfer, policy, write
        As :func:`vmcompat.plan_migration` takes them, the policy to begin with; ``peer_uri`` and ``migrate_uri`` with
        one target only.
    allow_run : bool
        Gives it a Run button, which works once the domain's name was typed beside a plan that is not blocked.

    Returns
    -------
    Widget
        An ipywidgets box of CSS class ``vmcompat-migrate``; its ``state`` is the :class:`MigrateState` that is shown.

    Raises
    ------
    MigrationError
        No target, the address of one target for several, or no such policy.

    Notes
    -----
    Hosts are asked in a thread, so that what they refuse is a message in the widget, and a run can be aborted by its
    button; interrupting the kernel reaches no such thread. One guest moves at a time in a kernel. A kernel that dies
    leaves a transfer that is under way to libvirt, which completes it.

    Examples
    --------
    On two hosts of one's own::

        vc.widgets.migrate("qemu+ssh://h1/system", ["qemu+ssh://h2/system", "qemu+ssh://h3/system"], allow_run=True)
    """
    state = MigrateState.of(
        source, targets, domain=domain, baseline=baseline, restart=restart, peer_uri=peer_uri, migrate_uri=migrate_uri,
        transfer=transfer, policy=policy_of(policy), write=write, allow_run=allow_run,
    )  # fmt: skip
    return Migrator(state)


class Migrator(w.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """The widget of :func:`migrate`."""

    def __init__(self, state: MigrateState) -> None:
        self.state = state
        self._showing = False
        self._drawn: MigrationPlan | None = None
        self._lock = RLock()
        self._abort = Event()
        self.message, self.status, self.arming = w.HTML(), w.HTML(), w.HTML()
        self.findings, self.diff, self.commands = w.HTML(), w.HTML(), w.HTML()
        self.progress, self.results = w.HTML(), w.HTML()
        self.force = w.VBox()
        self._controls()
        tabs = w.Tab(
            [w.VBox([self.force, self.findings]), self.diff, self.commands],
            titles=("Findings", "XML diff", "Commands"),
        )
        acting = [self._arming, self.progress, self.results] if state.allow_run else []
        super().__init__([self._choice, self.status, self.message, tabs, *acting])
        for name in ("domain", "target", "restart", "policy", "message", "status", "force", "findings", "diff",
                     "commands", "arm", "arming", "run", "abort", "progress", "results"):  # fmt: skip
            getattr(self, name).add_class(f"vmcompat-{name}")
        self.add_class("vmcompat-migrate")
        for name, content in render(self.state).items():
            getattr(self, name).value = content
        self._list()

    def _controls(self) -> None:
        state = self.state
        self.domain = w.Dropdown(description="domain", layout=w.Layout(width="260px"), style=_label("55px"))
        self.reload = w.Button(icon="refresh", tooltip="ask again which domains run", layout=w.Layout(width="36px"))
        self.target = w.Dropdown(
            description="to", options=[(shown(uri), uri) for uri in state.targets], value=state.target,
            layout=w.Layout(width="360px"), style=_label("25px"),
        )  # fmt: skip
        self.restart = w.Dropdown(
            description="before the move", options=_RESTARTS, value=state.restart, layout=w.Layout(width="290px"),
            style=_label("115px"),
        )  # fmt: skip
        policies = {state.policy.name: state.policy, **POLICIES}
        self.policy = w.Dropdown(
            description="policy", options=list(policies.items()), value=state.policy, layout=w.Layout(width="170px"),
            style=_label("45px"), tooltip="how long it may take, and what is done when it gets nowhere",
        )  # fmt: skip
        self.plan = w.Button(description="Plan", button_style="primary", layout=w.Layout(width="90px"))
        self._choice = w.Box(
            [self.domain, self.reload, self.target, self.restart, self.policy, self.plan],
            layout=w.Layout(flex_flow="row wrap", align_items="center"),
        )
        self.arm = w.Text(
            description="to arm, type the domain's name", layout=w.Layout(width="430px"), style=_label("215px")
        )
        self.run = w.Button(
            description="Run the migration", button_style="danger", icon="play", layout=w.Layout(width="170px")
        )
        self.abort = w.Button(description="Abort", button_style="warning", icon="stop")
        self._arming = w.Box(
            [self.arm, self.run, self.abort, self.arming],
            layout=w.Layout(flex_flow="row wrap", align_items="center", margin="8px 0 0 0"),
        )
        self._wire()

    def _wire(self) -> None:
        def on(widget: w.Widget, change: Callable[[Any], Change]) -> None:
            widget.observe(lambda event: self._chosen(change(event["new"])), "value")

        on(self.domain, lambda name: lambda state: state.choosing(domain=name or None))
        on(self.target, lambda uri: lambda state: state.choosing(target=uri))
        on(self.restart, lambda how: lambda state: state.choosing(restart=how))
        on(self.policy, lambda policy: lambda state: state.choosing(policy=policy))
        on(self.arm, lambda text: lambda state: state.typing(text))
        self.reload.on_click(lambda _: self._list())
        self.plan.on_click(lambda _: self._plan())
        self.run.on_click(lambda _: self._run())
        self.abort.on_click(lambda _: self._ask_to_abort())

    # ---- what the buttons do

    def _list(self) -> None:
        def ask() -> Change:
            names = running_domains(self.state.source)
            return lambda state: state.listed(names)

        if not self.state.busy:
            self._begin(MigrateState.listing, ask)

    def _plan(self) -> None:
        def look() -> Change:
            plan = self.state.look()
            return lambda state: state.planned(plan)

        self._begin(MigrateState.planning, look)

    def _run(self) -> None:
        plan, abort = self.state.plan, Event()

        def act() -> Change:
            if plan is None or not _one_guest.acquire(blocking=False):
                raise MigrationError("nothing was started: another guest moves from this kernel; wait until it is done")
            try:
                result = plan.run(progress=_Live(self), abort=abort)
            finally:
                _one_guest.release()
            return lambda state: state.ended(result)

        with self._lock:
            if self._begin(MigrateState.started, act):
                self._abort = abort

    def _ask_to_abort(self) -> None:
        if self._change(MigrateState.aborting):
            self._abort.set()

    # ---- from state to state

    def _begin(self, change: Change, work: Callable[[], Change]) -> bool:
        """Another state at once, and in a thread what leads to the one after it. Whether it began."""

        def do() -> None:
            try:
                after = work()
            except VmcompatError as e:
                self._fail(e)
            except BaseException as e:
                self._fail(
                    MigrationError(f"{type(e).__name__}: {e}. This is a fault of vmcompat: see where the domain is")
                )
                raise
            else:
                self._change(after)

        with self._lock:
            if began := self._change(change):
                Thread(target=do, name="vmcompat-migrate", daemon=True).start()
            return began

    def _fail(self, error: VmcompatError) -> None:
        self._change(lambda state: state.failed(error))

    def _chosen(self, change: Change) -> None:
        """What a person chose; not what :meth:`_follow` sets."""
        with self._lock:
            if not self._showing:
                self._change(change)

    def _change(self, change: Change) -> bool:
        """Another state, shown; what cannot be is a message. Whether it is another one."""
        with self._lock:
            before = self.state
            try:
                self.state, went = change(before), True
            except VmcompatError as e:
                self.state, went = before.refused(e), False
            self._show()
            return went and self.state is not before

    def _show(self) -> None:
        state = self.state
        parts = happening(state) if state.plan is self._drawn else render(state)
        self._drawn = state.plan
        for name, content in parts.items():
            getattr(self, name).value = markup.STYLE + content if name == "status" else content
        self._showing = True
        try:
            self._follow()
        finally:
            self._showing = False

    def _follow(self) -> None:
        """The controls as the state has them."""
        state = self.state
        options = [("(choose)", ""), *((name, name) for name in state.domains)]
        if list(self.domain.options) != options:
            self.domain.options = options
        self.domain.value, self.target.value, self.restart.value = state.domain or "", state.target, state.restart
        self.policy.value = state.policy
        for control in (self.domain, self.target, self.restart, self.policy, self.reload):
            control.disabled = state.busy
        self.plan.disabled = state.busy or state.domain is None
        self.arm.value = state.typed
        self.arm.disabled = state.busy or state.plan is None or state.plan.blocked
        self.run.disabled = bool(state.unarmed)
        self.abort.disabled = state.phase != "running"
        self.abort.layout.display = "" if state.phase in ("running", "aborting") else "none"
        self._list_forceable()

    def _list_forceable(self) -> None:
        state = self.state
        passed = state.plan.order.force if state.plan else ()
        wanted = [(force_label(f), f.evidence, f.id in passed) for f in state.forceable]
        if [(box.description, box.tooltip, box.value) for box in self.force.children[1:]] != wanted:
            head = w.HTML(markup.page("<b>Pass at your own word, and on record:</b>"))
            boxes = [self._box(f, passed=f.id in passed) for f in state.forceable]
            self.force.children = [head, *boxes] if boxes else []
        for box in self.force.children[1:]:
            box.disabled = state.busy

    def _box(self, finding: Finding, *, passed: bool) -> w.Checkbox:
        box = w.Checkbox(description=force_label(finding), tooltip=finding.evidence, value=passed, indent=False)
        box.observe(lambda event: self._chosen(lambda state: state.forcing(finding.id, on=event["new"])), "value")
        return box


class _Live:
    """Progress of a run, told to the widget: by :class:`vmcompat.migration.job.LibvirtJob` about twice a second."""

    def __init__(self, widget: Migrator) -> None:
        self._change = widget._change

    def say(self, text: str) -> None:
        self._change(lambda state: state.told(text))

    def update(self, stats: Mapping[str, Any]) -> None:
        self._change(lambda state: state.measured(stats))

    def close(self, *, complete: bool) -> None:
        pass


def _label(width: str) -> dict[str, str]:
    return {"description_width": width}
