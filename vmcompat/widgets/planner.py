"""The pool planner: how many pools, under which demands, and what moves from today's racks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import RLock
from typing import Any, Final

import ipywidgets as w

from vmcompat import markup
from vmcompat.errors import FrameError, VmcompatError
from vmcompat.fleet.frames import Fleet
from vmcompat.widgets._later import Later
from vmcompat.widgets._plan import WEIGHED, Answer, Demand, PoolsState, usual_weights
from vmcompat.widgets._pools_html import progress, render

_NOTHING: Final = "(from nothing)"


def pools(fleet: Fleet, *, current: str | None = None) -> w.Widget:
    """Lets one choose how many pools a fleet is split into, and shows what each number of them keeps and moves.

    Parameters
    ----------
    fleet : Fleet
    current : str, optional
        A column of ``fleet.hosts`` that says today's pools, chosen at the start.

    Returns
    -------
    Widget
        An ipywidgets box of CSS class ``vmcompat-pools``; its ``state`` is the :class:`PoolsState` that is shown.

    Raises
    ------
    FrameError
        No host has a known CPU, or there is no such column.

    Notes
    -----
    A number of pools is solved in at most 5 s, then the best that was found is shown with its gap. The chosen number
    comes first, the rest of the curve after it; another demand drops what is not solved yet. Numbers count when Enter
    is pressed or the field is left, not while one types.

    Examples
    --------
    >>> import vmcompat as vc
    >>> planner = vc.widgets.pools(vc.read_fleet("sample_caps/virsh_pair"))
    >>> planner.state.answer
    <Pools: 1 of 2 hosts, value 412 (proven)>
    """
    return Planner(fleet, current=current)


class Planner(w.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """The widget of :func:`pools`."""

    def __init__(self, fleet: Fleet, *, current: str | None) -> None:
        self.state = PoolsState.of(fleet, current=current)
        self._busy = False
        self._shown: tuple[Demand, Answer | None] | None = None
        self._lock = RLock()
        self._later = Later(self._lock, seconds=0.05)
        self.message, self.status, self.curve = w.HTML(), w.HTML(), w.HTML()
        self.proposal, self.moves, self.export = w.HTML(), w.HTML(), w.HTML()
        self._controls()
        tabs = w.Tab([self.proposal, self.moves, self.export], titles=("Pools", "Moves", "Export"))
        left = w.VBox(
            [self.today, *self._demands, self._pinning, self._pins, self._weights],
            layout=w.Layout(width="310px", flex="0 0 310px"),
        )
        right = w.VBox([self.k, self.curve, self.status, tabs], layout=w.Layout(flex="1 1 auto", min_width="0"))
        super().__init__([self.message, w.HBox([left, right])])
        for widget, name in (
            (self, "pools"),
            (self.k, "k"),
            (self.pool, "pool"),
            (self.status, "status"),
            (self.proposal, "proposal"),
            (self.moves, "moves"),
            (self.export, "export"),
            (self.message, "message"),
        ):
            widget.add_class(f"vmcompat-{name}")
        self.state.solve(self.state.k)
        self._answer()

    def _controls(self) -> None:
        full: dict[str, Any] = {"layout": w.Layout(width="98%"), "style": {"description_width": "130px"}}
        ks, demand = self.state.ks, self.state.demand
        self.k = w.IntSlider(
            value=self.state.k, min=ks[0], max=ks[-1], description="pools", continuous_update=False,
            layout=w.Layout(width="620px"),
        )  # fmt: skip
        columns = list(dict.fromkeys([*([demand.current] if demand.current else []), *self.state.scene.columns]))
        self.today = w.Dropdown(
            description="today's pools", options=[_NOTHING, *columns], value=demand.current or _NOTHING, **full
        )
        n = len(self.state.fleet)
        self.min_hosts = w.BoundedIntText(description="hosts at least", value=1, min=1, max=n, **full)
        self.n_plus = w.BoundedIntText(description="after losing (n+)", value=0, min=0, max=n, **full)
        self.max_moves = w.BoundedIntText(description="moves at most", value=n, min=0, max=n, **full)
        self._demands = (self.min_hosts, self.n_plus, self.max_moves)
        self.host = w.Combobox(placeholder="host", options=self.state.fleet.names, layout=w.Layout(width="42%"))
        self.pool = w.Dropdown(layout=w.Layout(width="36%"))
        self.pin = w.Button(description="pin", layout=w.Layout(width="18%"))
        self._pinning = w.HBox([self.host, self.pool, self.pin])
        self.unpin = w.Button(description="unpin all", layout=w.Layout(width="90px"))
        self.pinned = w.HTML()
        self._pins = w.VBox([self.pinned, self.unpin], layout=w.Layout(display="none"))
        self.weights = {
            group: w.BoundedFloatText(
                description=group, value=weight, min=0, max=1000, step=1,
                layout=full["layout"], style={"description_width": "165px"},
            )
            for group, weight in usual_weights().items()
        }  # fmt: skip
        self.defaults = w.Button(description="default weights", layout=w.Layout(width="130px"))
        self._weights = w.Accordion([w.VBox([*self.weights.values(), self.defaults])], titles=("Weights by group",))
        self._weights.add_class("vmcompat-weights")
        self._wire()

    def _wire(self) -> None:
        def on(widget: w.Widget, change: Callable[[Any], PoolsState]) -> None:
            widget.observe(lambda event: self._change(lambda: change(event["new"])), "value")

        n = len(self.state.fleet)
        on(self.k, lambda k: replace(self.state, k=k))
        on(self.today, lambda column: self.state.asking(current=None if column == _NOTHING else column))
        on(self.min_hosts, lambda number: self.state.asking(min_hosts=number))
        on(self.n_plus, lambda number: self.state.asking(n_plus=number))
        on(self.max_moves, lambda number: self._at_most(None if number == n else number))
        for group in WEIGHED:
            on(self.weights[group], partial(self._weigh, group))
        self.defaults.on_click(lambda _: self._change(lambda: self.state.asking(weights=())))
        self.pin.on_click(lambda _: self._change(self._pin))
        self.unpin.on_click(lambda _: self._change(lambda: self.state.asking(pins=())))

    def _at_most(self, moves: int | None) -> PoolsState:
        if moves is not None and self.state.demand.current is None:
            raise FrameError("moves are counted from today's pools: choose their column first")
        return self.state.asking(max_moves=moves)

    def _weigh(self, group: str, weight: float) -> PoolsState:
        return self.state.weighing(group, weight)

    def _pin(self) -> PoolsState:
        if not self.host.value or self.pool.value is None:
            raise FrameError("name the host, and choose the pool that it belongs to")
        return self.state.pinning(self.host.value, self.pool.value)

    def _change(self, change: Callable[[], PoolsState]) -> None:
        """Another state, shown and solved; what cannot be is a message, and the state stays."""
        if self._busy:
            return
        with self._lock:
            try:
                self.state = change()
                self.message.value = ""
            except VmcompatError as e:
                self.message.value = markup.page(markup.refusal(str(e)))
            self._answer()

    def _answer(self) -> None:
        """Shows what is known, and has the rest solved: first what is looked at, then the curve."""
        self._show()
        if self.state.open:
            self._later.ask(self._step)
        else:
            self._later.forget()

    def _step(self) -> bool:
        state = self.state
        if state.open:
            state.solve(state.k if state.answer is None else state.open[0])
        self._show()
        return bool(state.open)

    def _show(self) -> None:
        state = self.state
        shown = progress(state) if (state.demand, state.answer) == self._shown else render(state)
        self._shown = state.demand, state.answer
        for name, content in shown.items():
            part = getattr(self, name)
            part.value = markup.STYLE + content if part is self.status else content
        self._busy = True
        try:
            self._follow()
        finally:
            self._busy = False

    def _follow(self) -> None:
        """The controls as the state has them."""
        ks, demand, n = self.state.ks, self.state.demand, len(self.state.fleet)
        with self.k.hold_sync():
            self.k.min, self.k.max = min(ks[0], self.k.max), ks[-1]
            self.k.min, self.k.value = ks[0], self.state.k
        self.max_moves.value = n if demand.max_moves is None else demand.max_moves
        chosen = {**usual_weights(), **dict(demand.weights)}
        for group, field in self.weights.items():
            field.value = chosen[group]
        found = self.state.answer
        names = [] if found is None or isinstance(found, str) else list(found.frame.index)
        if found is not None and list(self.pool.options) != names:  # a choice outlives the wait for an answer
            kept = self.pool.value if self.pool.value in names else None
            self.pool.options = names
            self.pool.value = kept or (names[0] if names else None)
        self._pins.layout.display = "" if demand.pins else "none"
        items = "".join(
            f"<li>{markup.text(f'{p.host} goes with {p.beside} ({p.pool})').html}</li>" for p in demand.pins
        )
        self.pinned.value = markup.page(f"<ul class='vmcompat-pins'>{items}</ul>")
