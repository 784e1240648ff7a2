"""What the explorers know and answer, without a widget: every click gives another state, which says all there is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, get_args

from vmcompat.baseline.answer import lost_for_sure
from vmcompat.baseline.common import Baseline
from vmcompat.baseline.meanings import SWITCHES
from vmcompat.baseline.named import best_of
from vmcompat.baseline.usable import Kind, kinds_of
from vmcompat.baseline.what_if import what_if
from vmcompat.errors import FrameError, VmcompatError
from vmcompat.fleet.expand import View
from vmcompat.fleet.frames import Fleet
from vmcompat.widgets._scene import Loss, Scene, masks, part_label, parts_of

OUT: Final = ("tsx", "nested")  # what a switch takes out of every baseline
_KEPT: Final = 64  # answers

_Alike: TypeAlias = tuple[int, int]  # number of a kind, and what its hosts are supposed to offer
_Best: TypeAlias = tuple[dict[str, Any], frozenset[_Alike]]
_Answer = TypeVar("_Answer")


class KindRow(NamedTuple):
    """Hosts that are alike, as the list to click shows them.

    Attributes
    ----------
    kind : int
        Position among ``scene.kinds``.
    hosts : tuple of str
        Those that the search and the column leave.
    n_in : int
        How many of these are chosen.
    """

    kind: int
    hosts: tuple[str, ...]
    n_in: int


class LossRow(NamedTuple):
    """What hosts that are alike offer and a guest with the baseline does not get, since another host lacks it."""

    kind: int
    first: str
    n_hosts: int
    lost: Mapping[Loss, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The answer for the chosen hosts of one architecture and vendor, or for all of them together.

    Attributes
    ----------
    label : str
    hosts : tuple of str
        Chosen, known or not.
    base : Baseline or None
    refusal : str
        Why there is none.
    losses : tuple of LossRow
    named : mapping or None
        The best plain model: a row of ``schema.BEST_MODELS``.
    brings : tuple of str
        What that model brings though a switch took it out of the baseline.
    gained, lost : tuple of str
        Against the same choice with every host as its documents say; empty where nothing is supposed.
    """

    label: str
    hosts: tuple[str, ...]
    base: Baseline | None = None
    refusal: str = ""
    losses: tuple[LossRow, ...] = ()
    named: Mapping[str, Any] | None = None
    brings: tuple[str, ...] = ()
    gained: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class ExplorerState:
    """Which hosts are chosen, what is asked of them, and what is supposed.

    Attributes
    ----------
    fleet : Fleet
    view : {"hypervisor", "host"}
    search : str
        Words; all of them must be in a host's name, CPU or columns of ``hosts.csv``.
    column : str or None
        Of ``fleet.hosts``; only hosts with one of its ``values`` ("" for missing), all where there are none.
    out : frozenset of str
        Hosts that were clicked away.
    migratable : bool
    without : frozenset of str
        Of `OUT`.
    across : bool
        Vendors apart, a baseline for each; else one is asked for all, which libvirt refuses for several vendors.
    gone : frozenset of str
        Hosts as if they were not there.
    patched : tuple of str
        Hosts as if they had the mitigation controls that others of their processor have.
    """

    fleet: Fleet
    view: View
    search: str = ""
    column: str | None = None
    values: frozenset[str] = frozenset()
    out: frozenset[str] = frozenset()
    migratable: bool = True
    without: frozenset[str] = frozenset()
    across: bool = True
    gone: frozenset[str] = frozenset()
    patched: tuple[str, ...] = ()
    _scenes: dict[View, Scene] = field(default_factory=dict, repr=False)
    _answers: dict[Hashable, Part] = field(default_factory=dict, repr=False)
    _names: dict[Hashable, _Best | None] = field(default_factory=dict, repr=False)
    _uses: dict[Hashable, tuple[list[Kind], dict[_Alike, int]]] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(fleet: Fleet) -> ExplorerState:
        """All hosts, in the fleet's own view.

        Raises
        ------
        FrameError
            The fleet has no host.
        """
        if not len(fleet):
            raise FrameError("a fleet without hosts has nothing to explore")
        state = ExplorerState(fleet=fleet, view=fleet.view)
        for view in get_args(View):  # both now, so that no click has to wait for it
            assert replace(state, view=view)._usable
        return state

    @property
    def scene(self) -> Scene:
        """The fleet in this view as its documents say."""
        if self.view not in self._scenes:
            same = self.view == self.fleet.view
            self._scenes[self.view] = Scene.of(self.fleet if same else self.fleet.with_view(self.view))
        return self._scenes[self.view]

    @cached_property
    def matching(self) -> tuple[int, ...]:
        """Positions of the hosts that the search and the column leave."""
        words, scene = self.search.casefold().split(), self.scene
        found = [i for i, text in enumerate(scene.texts) if all(word in text for word in words)]
        if self.column is not None and self.values:
            column = scene.columns[self.column]
            found = [i for i in found if column[i] in self.values]
        return tuple(found)

    @cached_property
    def chosen(self) -> tuple[int, ...]:
        """Positions of the hosts that an answer is for."""
        names = self.fleet.names
        return tuple([i for i in self.matching if names[i] not in self.out and names[i] not in self.gone])

    @cached_property
    def rows(self) -> tuple[KindRow, ...]:
        """Kinds of hosts that the search and the column leave, in the order of ``scene.kinds``."""
        names, found = self.fleet.names, dict[int, list[int]]()
        for i in self.matching:
            found.setdefault(self.scene.kind_of[i], []).append(i)
        chosen = frozenset(self.chosen)
        return tuple(
            KindRow(kind, tuple(names[i] for i in found[kind]), sum(i in chosen for i in found[kind]))
            for kind in sorted(found)
        )

    def toggled(self, kind: int) -> ExplorerState:
        """With all its matching hosts chosen, or none if all were."""
        hosts = {self.fleet.names[i] for i in self.matching if self.scene.kind_of[i] == kind} - self.gone
        return replace(self, out=self.out - hosts if hosts & self.out else self.out | hosts)

    def with_view(self, view: View) -> ExplorerState:
        """In the other view; a column that does not tell hosts apart there is forgotten."""
        state = replace(self, view=view)
        if state.column in state.scene.columns or state.column is None:
            return state
        return replace(state, column=None, values=frozenset())

    def supposing(self, host: str, what: str) -> ExplorerState:
        """As if this host were "gone" or "patched".

        Raises
        ------
        FrameError
            No such host, or nothing says what a patch would bring.
        """
        self.fleet.positions([host])
        if what == "gone":
            return replace(self, gone=self.gone | {host}, patched=tuple(h for h in self.patched if h != host))
        self.scene.controls_elsewhere(host)
        return replace(self, gone=self.gone - {host}, patched=tuple(dict.fromkeys([*self.patched, host])))

    @property
    def as_documented(self) -> ExplorerState:
        """With nothing supposed."""
        return replace(self, gone=frozenset(), patched=())

    @cached_property
    def supposed(self) -> Fleet:
        """The fleet with the patches that are thought of; hosts that are gone are merely not chosen.

        Raises
        ------
        FrameError
            A patch that cannot be thought of in this view.
        """
        fleet = self.scene.fleet
        if not self.patched:
            return fleet
        brings = {host: self.scene.controls_elsewhere(host) for host in self.patched}
        changed = what_if(fleet[self.patched], with_=brings).fleet
        return (fleet.drop(*self.patched) + changed)[fleet.names]

    @cached_property
    def unknown(self) -> dict[str, str]:
        """Chosen hosts that no baseline counts since their CPU is not known, with the status."""
        counted = {host for part in self.parts if part.base is not None for host in part.base.hosts}
        readings, names = self.scene.fleet.readings, self.fleet.names
        return {
            names[i]: readings[i].status for i in self.chosen if readings[i].status != "ok" and names[i] not in counted
        }

    @cached_property
    def selection(self) -> Fleet:
        """The chosen hosts as they are supposed to be, for pictures and further questions.

        Raises
        ------
        FrameError
            None is chosen.
        """
        if not self.chosen:
            raise FrameError("no host is chosen: clear the search, or click some in")
        return self.supposed[[self.fleet.names[i] for i in self.chosen]]

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """One answer for each architecture and vendor, most hosts first; only one with ``across=False``."""
        if not self.chosen:
            return ()
        groups = parts_of(self.scene, self.chosen)
        if self.across:
            return tuple(
                self._part(part_label(part), part[1], positions)
                for part, positions in groups
                if positions and self._answerable(positions)
            )
        several = len({part for part, positions in groups if self._answerable(positions)}) > 1
        label = "all chosen hosts together" if several else part_label(groups[0][0])
        return (self._part(label, groups[0][0][1], list(self.chosen)),)

    def _answerable(self, positions: Iterable[int]) -> bool:
        """Whether a host of these can be in a baseline; libvirt names POWER models in the host view."""
        readings = self.scene.fleet.readings
        power = {"ppc64", "ppc64le"} if self.view == "host" else set()
        return any(readings[i].status == "ok" or self.scene.part_of[i][0] in power for i in positions)

    def _part(self, label: str, vendor: str | None, positions: list[int]) -> Part:
        """Made once for the same question: most clicks change the answer of one vendor only, or take back another."""
        supposed = self.gone, self.patched
        asked = (self.view, label, tuple(positions), self.migratable, self.without, supposed)
        return _kept(self._answers, asked, lambda: self._made(label, vendor, positions))

    def _made(self, label: str, vendor: str | None, positions: list[int]) -> Part:
        hosts = tuple([self.fleet.names[i] for i in positions])
        try:
            base = self._base(positions)
        except VmcompatError as e:
            return Part(label=label, hosts=hosts, refusal=str(e))
        counted = frozenset(base.hosts)
        known = [i for i in positions if self.fleet.names[i] in counted]
        named = self._named(known)
        gained, lost = self._changed(base, positions)
        return Part(
            label=label,
            hosts=hosts,
            base=base,
            losses=self._losses(base, vendor, known),
            named=named,
            brings=self._brought(named),
            gained=gained,
            lost=lost,
        )

    def _base(self, positions: Iterable[int]) -> Baseline:
        hosts = [self.fleet.names[i] for i in positions]
        base = self.supposed.baseline(hosts, migratable=self.migratable, allow_missing=True)
        return base.without(*sorted(self.without)) if self.without else base

    def _losses(self, base: Baseline, vendor: str | None, known: list[int]) -> tuple[LossRow, ...]:
        """Once for all hosts that are alike; one that is patched in thought has a row of its own."""
        fleet = self.supposed
        lost = lost_for_sure(base.members) & ~fleet.cpu_map.set_of(base.gives)
        groups = masks(fleet.cpu_map, vendor)
        alike = self._alike(known)
        return tuple(
            LossRow(
                kind,
                fleet.names[alike[kind, offered][0]],
                len(alike[kind, offered]),
                {
                    loss: tuple(fleet.cpu_map.names(offered & lost & mask))
                    for loss, mask in groups.items()
                    if offered & lost & mask
                },
            )
            for kind, offered in sorted(alike, key=lambda key: (key[0], alike[key][0]))
        )

    def _alike(self, known: Iterable[int]) -> dict[_Alike, list[int]]:
        """Hosts of one kind that are supposed to offer the same."""
        readings, alike = self.supposed.readings, dict[_Alike, list[int]]()
        for i in known:
            alike.setdefault((self.scene.kind_of[i], readings[i].offered), []).append(i)
        return alike

    def _named(self, known: list[int]) -> Mapping[str, Any] | None:
        """Asked of one host of each kind, since that is all it depends on; ``blocking_hosts`` are all of them."""
        alike = self._alike(known)
        found = _kept(self._names, (self.view, frozenset(alike)), lambda: self._verdict(alike))
        if found is None:
            return None
        row, failing = found
        names = self.fleet.names
        return row | {"blocking_hosts": tuple(names[i] for key, same in alike.items() if key in failing for i in same)}

    @cached_property
    def _usable(self) -> tuple[list[Kind], dict[_Alike, int]]:
        """What every kind of host can use, asked once: it is the costliest part of an answer."""

        def ask() -> tuple[list[Kind], dict[_Alike, int]]:
            patched = self.supposed
            alike = self._alike(i for i, x in enumerate(patched.readings) if x.status == "ok")
            kinds, number = kinds_of(patched[[patched.names[members[0]] for members in alike.values()]])
            return kinds, dict(zip(alike, number, strict=True))

        return _kept(self._uses, (self.view, self.patched), ask)

    def _verdict(self, alike: Mapping[_Alike, list[int]]) -> _Best | None:
        """The row of ``schema.BEST_MODELS``, and the kinds of the hosts that its ``closest`` fails on."""
        fleet = self.supposed
        key_of = {fleet.names[members[0]]: key for key, members in alike.items()}
        sample = fleet[key_of]
        if (sample.hosts["cpu_status"] != "ok").any():
            return None
        kinds, number = self._usable
        best = best_of(sample, kinds, [number[key] for key in alike], by=None, value=None)
        if len(best) != 1:
            return None
        row: dict[str, Any] = {str(name): value for name, value in best.iloc[0].items()}
        return row, frozenset(key_of[host] for host in row["blocking_hosts"])

    def _brought(self, named: Mapping[str, Any] | None) -> tuple[str, ...]:
        cpu_map = self.scene.fleet.cpu_map
        if named is None or not isinstance(named["model"], str) or named["model"] not in cpu_map.models:
            return ()
        out = frozenset[str]().union(*(SWITCHES[name] for name in self.without))
        return tuple(n for n in cpu_map.names(cpu_map.models[named["model"]].data) if n in out)

    def _changed(self, base: Baseline, positions: Iterable[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What a guest would win and lose by what is supposed."""
        if not self.gone and not self.patched:
            return (), ()
        parts = {self.scene.part_of[i] for i in positions}
        documented = self.as_documented
        try:
            before = documented._base(i for i in documented.chosen if self.scene.part_of[i] in parts)
        except VmcompatError:  # what is supposed makes an answer possible: there is nothing to compare it with
            return (), ()
        gained, lost = base.gives - before.gives, before.gives - base.gives
        names = self.scene.fleet.cpu_map.features
        return tuple(n for n in names if n in gained), tuple(n for n in names if n in lost)


def _kept(answers: dict[Hashable, _Answer], asked: Hashable, make: Callable[[], _Answer]) -> _Answer:
    """The answer to a question, made on first use; the oldest ones are forgotten."""
    if asked not in answers:
        if len(answers) >= _KEPT:
            del answers[next(iter(answers))]
        answers[asked] = make()
    return answers[asked]
