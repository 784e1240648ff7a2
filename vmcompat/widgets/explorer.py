"""The explorer: choose hosts and see at once what they can promise together, and at what price."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import RLock
from typing import Any, Final, cast

import ipywidgets as w

from vmcompat import markup
from vmcompat.errors import FrameError, VmcompatError
from vmcompat.fleet.frames import Fleet
from vmcompat.plot._canvas import PlotAxes
from vmcompat.plot.features import features
from vmcompat.widgets._explorer_html import render, row_label
from vmcompat.widgets._later import Later
from vmcompat.widgets._scene import counted
from vmcompat.widgets._state import OUT, ExplorerState

_ROWS: Final = 100  # kinds of hosts that are listed to click; the others are counted
_EVERY: Final = "(any)"
_MATRIX: Final = 2  # its tab


def explore(fleet: Fleet) -> w.Widget:
    """Lets one choose hosts and shows at once their baseline, what it costs, and its XML.

    Parameters
    ----------
    fleet : Fleet

    Returns
    -------
    Widget
        An ipywidgets box of CSS class ``vmcompat-explore``; its ``state`` is the :class:`ExplorerState` that is shown.

    Raises
    ------
    FrameError
        The fleet has no host.

    Notes
    -----
    A click is answered in the kernel, without asking anybody. Hosts that are alike are judged once. The matrix is drawn
    only while its tab is open.

    Examples
    --------
    >>> import vmcompat as vc
    >>> explorer = vc.widgets.explore(vc.read_fleet("sample_caps/virsh_pair"))
    >>> [part.base.model for part in explorer.state.parts]
    ['Westmere']
    """
    return Explorer(fleet)


class Explorer(w.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """The widget of :func:`explore`."""

    def __init__(self, fleet: Fleet) -> None:
        self.state = ExplorerState.of(fleet)
        self._busy = False
        self._drawn: ExplorerState | None = None
        self._lock = RLock()
        self._later = Later(self._lock, seconds=0.3)
        self.message = w.HTML()
        self.answer, self.xml, self.chosen = w.HTML(), w.HTML(), w.HTML()
        self.matrix = w.VBox([w.HTML()])
        self._controls()
        self._rows: list[w.Checkbox] = []
        self.kinds = w.VBox(layout=w.Layout(max_height="420px", overflow="hidden auto", display="block"))
        self.rest = w.HTML()
        tabs = w.Tab([self.answer, self.xml, self.matrix], titles=("Baseline", "XML", "Matrix"))
        self.tabs = tabs
        tabs.observe(lambda change: self._draw_soon(), "selected_index")
        left = w.VBox(
            [self.search, self.column, self.values, self._chooser, self.kinds, self.rest, self._thought],
            layout=w.Layout(width="350px", flex="0 0 350px"),
        )
        right = w.VBox([self.chosen, tabs], layout=w.Layout(flex="1 1 auto", min_width="0", width="auto"))
        super().__init__([self._switches, self.message, w.HBox([left, right])])
        for widget, name in (
            (self, "explore"),
            (self.search, "search"),
            (self.kinds, "kinds"),
            (self.answer, "answer"),
            (self.xml, "xml"),
            (self.matrix, "matrix"),
            (self.message, "message"),
            (self.chosen, "choice"),
        ):
            widget.add_class(f"vmcompat-{name}")
        self._show()

    def _controls(self) -> None:
        state, full = self.state, w.Layout(width="98%")
        self.search = w.Text(placeholder="search: name, model, rack, ...", layout=full)
        self.column = w.Dropdown(description="by", options=[_EVERY, *state.scene.columns], layout=full)
        self.values = w.SelectMultiple(rows=5, layout=w.Layout(width="98%", display="none"))
        self.every, self.none = w.Button(description="all in"), w.Button(description="all out")
        self._chooser = w.HBox([w.Label("Hosts alike:"), self.every, self.none])
        for button in (self.every, self.none):
            button.layout.width = "72px"
        self.view = w.ToggleButtons(
            options=[("what guests get", "hypervisor"), ("what hosts are", "host")], value=state.view
        )
        self.view.style.button_width = "136px"
        self.migratable = _switch("only what can migrate", value=True)
        self.without = {name: _switch(f"without {name.upper() if name == 'tsx' else name}") for name in OUT}
        self.across = _switch("across vendors: one baseline each", value=True)
        self._switches = w.HBox(
            [self.view, self.migratable, *self.without.values(), self.across], layout=w.Layout(flex_flow="row wrap")
        )
        self.host = w.Combobox(
            placeholder="a host", options=self.state.fleet.names, ensure_option=False, layout=w.Layout(width="60%")
        )
        self.patched, self.gone = w.Button(description="patched"), w.Button(description="gone")
        self.reset = w.Button(description="as documented")
        for button, width in ((self.patched, "28%"), (self.gone, "24%"), (self.reset, "42%")):
            button.layout.width = width
        self._thought = w.VBox(
            [w.HBox([w.Label("As if"), self.host, w.Label("were")]), w.HBox([self.patched, self.gone, self.reset])]
        )
        self._thought.add_class("vmcompat-thought")
        self._wire()

    def _wire(self) -> None:
        def on(widget: w.Widget, change: Callable[[Any], ExplorerState]) -> None:
            widget.observe(lambda event: self._change(lambda: change(event["new"])), "value")

        def press(button: w.Button, change: Callable[[], ExplorerState]) -> None:
            button.on_click(lambda _: self._change(change))

        on(self.search, lambda text: replace(self.state, search=text))
        on(self.column, self._by)
        on(self.values, lambda chosen: replace(self.state, values=frozenset(chosen)))
        on(self.view, lambda view: self.state.with_view(view))
        on(self.migratable, lambda value: replace(self.state, migratable=value))
        for switch in self.without.values():
            on(switch, lambda _: replace(self.state, without=frozenset(n for n, s in self.without.items() if s.value)))
        on(self.across, lambda value: replace(self.state, across=value))
        press(self.every, lambda: replace(self.state, out=self.state.out - self._matching()))
        press(self.none, lambda: replace(self.state, out=self.state.out | self._matching()))
        press(self.gone, lambda: self.state.supposing(self._named(), "gone"))
        press(self.patched, lambda: self.state.supposing(self._named(), "patched"))
        press(self.reset, lambda: self.state.as_documented)

    def _by(self, column: str) -> ExplorerState:
        chosen = None if column == _EVERY else column
        options = [] if chosen is None else counted(self.state.scene.columns[chosen])
        self._busy = True
        try:
            self.values.options = [(f"{value or '(missing)'} ({n})", value) for value, n in options]
            self.values.layout.display = "none" if chosen is None else ""
        finally:
            self._busy = False
        return replace(self.state, column=chosen, values=frozenset())

    def _matching(self) -> frozenset[str]:
        return frozenset(self.state.fleet.names[i] for i in self.state.matching)

    def _named(self) -> str:
        if not self.host.value:
            raise FrameError("name the host first")
        return str(self.host.value)

    def _change(self, change: Callable[[], ExplorerState]) -> None:
        """Another state, shown; what cannot be is a message, and the state stays."""
        if self._busy:
            return
        with self._lock:
            before = self.state
            try:
                self.state = change()
                self._show()
                self.message.value = ""
            except VmcompatError as e:
                self.state = before
                self._show()
                self.message.value = markup.page(markup.refusal(str(e)))

    def _show(self) -> None:
        shown = render(self.state)
        self._busy = True
        try:
            self.chosen.value = markup.STYLE + shown["chosen"]
            self.answer.value, self.xml.value = shown["answer"], shown["xml"]
            self._list_kinds()
            if self.column.value != (self.state.column or _EVERY):
                self.column.value = self.state.column or _EVERY
        finally:
            self._busy = False
        self._draw_soon()

    def _list_kinds(self) -> None:
        rows = self.state.rows
        while len(self._rows) < min(len(rows), _ROWS):
            self._rows.append(self._row())
        for box, row in zip(self._rows, rows, strict=False):
            with box.hold_sync():
                box.description = row_label(self.state, row)
                box.tooltip = ", ".join(row.hosts[:20])
                box.value = row.n_in > 0
        if len(self.kinds.children) != min(len(rows), _ROWS):
            self.kinds.children = self._rows[: len(rows)]
        more = rows[_ROWS:]
        told = f"and {len(more)} more kinds of {sum(len(r.hosts) for r in more)} hosts: narrow the search to click them"
        self.rest.value = markup.page(markup.note(told)) if more else ""

    def _row(self) -> w.Checkbox:
        box = w.Checkbox(indent=False, layout=w.Layout(width="97%"))
        at = len(self._rows)
        box.observe(lambda _: self._change(lambda: self.state.toggled(self.state.rows[at].kind)), "value")
        return box

    def _draw_soon(self) -> None:
        if self.tabs.selected_index == _MATRIX and self._drawn is not self.state:
            shown = self.matrix.children[-1]
            self.matrix.children = [w.HTML(markup.page(markup.note("drawing ..."))), shown]
            self._later.ask(self._draw)

    def _draw(self) -> bool:
        try:
            picture = cast(PlotAxes, features(self.state.selection))
            self.matrix.children = [w.HTML(picture._repr_html_())]
        except VmcompatError as e:
            self.matrix.children = [w.HTML(markup.page(markup.refusal(str(e))))]
        self._drawn = self.state
        return False


def _switch(words: str, *, value: bool = False) -> w.Checkbox:
    return w.Checkbox(description=words, value=value, indent=False, layout=w.Layout(width="auto", margin="2px 12px"))
