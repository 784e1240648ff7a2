"""One group of hosts -> its baseline: libvirt's answer, what a guest is given, and what that costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import Any, Final

import pandas as pd

from vmcompat.baseline import card
from vmcompat.baseline.answer import Member, answers, lost_for_sure, read_otherwise, some
from vmcompat.baseline.choice import QEMU_DRIVER_HIDES, cpu_text, expanded
from vmcompat.baseline.hypervisor import Endpoint
from vmcompat.baseline.meanings import SWITCHES, level, meaning
from vmcompat.baseline.verify import EXPAND_FEATURES, MIGRATABLE, Asked, Libvirt, Verification, verify
from vmcompat.errors import FrameError, NoBaselineError
from vmcompat.fleet.cpu import parse_cpu, parse_xml
from vmcompat.fleet.cpu_map import CpuMap, brought_along
from vmcompat.fleet.expand import View
from vmcompat.fleet.frames import Fleet
from vmcompat.fleet.records import HYPOTHETICAL
from vmcompat.schema import DROPPED, LOST, frame

_JSON_FORMAT: Final = 1


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The CPU that every host of a group can give.

    Attributes
    ----------
    model, vendor, fallback : str
        As in ``xml``; ``vendor`` is None where libvirt writes none.
    features : tuple of (name, policy)
        As in ``xml``, in its order.
    members : tuple of Member
        The hosts that were intersected.
    missing : tuple of str
        Hosts of the group whose CPU is not known; only with ``allow_missing=True``.
    view : {"hypervisor", "host"}
    cpu_map : str
        Version of the map whose models were candidates.
    migratable, expand, driver, asked_of
        As asked for.
    taken_out : tuple of str
        What :meth:`without` left out.
    limit : int or None
        Smallest limit of physical address bits, where libvirt would print it [bits].
    """

    model: str
    vendor: str | None
    fallback: str
    features: tuple[tuple[str, str], ...]
    members: tuple[Member, ...]
    missing: tuple[str, ...]
    view: View
    cpu_map: str
    migratable: bool
    expand: bool
    driver: str
    asked_of: str | None
    doubts: tuple[str, ...] = field(repr=False)
    taken_out: tuple[str, ...] = ()
    limit: int | None = None
    universe: tuple[str, ...] = field(repr=False)
    implied: tuple[str, ...] = field(repr=False)
    described: tuple[tuple[str, str], ...] = field(repr=False)
    non_migratable: frozenset[str] = field(repr=False)
    restrictions: tuple[tuple[str, tuple[str, ...]], ...] = field(repr=False, default=())
    endpoint: Endpoint | None = field(repr=False, default=None)
    read_otherwise: Callable[[], Iterable[str]] | None = field(repr=False, compare=False, default=None)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of the hosts that were intersected."""
        return tuple(m.host for m in self.members)

    @property
    def exact(self) -> bool:
        """Whether libvirt, asked the same with the same map, would print just this."""
        return not self.inexact

    @cached_property
    def inexact(self) -> tuple[str, ...]:
        """Why libvirt's own answer may differ."""
        return (*self.doubts, *(self.read_otherwise() if self.read_otherwise else ()))

    @cached_property
    def xml(self) -> str:
        """Libvirt's answer, byte for byte."""
        return cpu_text(self.model, self.features, vendor=self.vendor, fallback=self.fallback, limit=self.limit)

    @cached_property
    def guest_features(self) -> tuple[tuple[str, str], ...]:
        """What is written into a domain beside the model: nothing that cannot be migrated or that QEMU cannot give."""
        hidden = set(QEMU_DRIVER_HIDES)
        kept = [
            (n, p) for n, p in self.described if n not in hidden and (p == "disable" or n not in self.non_migratable)
        ]
        disabled = {n for n, p in kept if p == "disable"}
        return (
            *kept,
            *((n, "disable") for n in self.implied if n in self.non_migratable and n not in disabled),
        )

    @cached_property
    def guest_xml(self) -> str:
        """The only ``<cpu>`` that is ever written into a domain: no fallback, checked before the start."""
        return cpu_text(self.model, self.guest_features, vendor=self.vendor, fallback="forbid", check="partial")

    @cached_property
    def gives(self) -> frozenset[str]:
        """The features that a guest with ``guest_xml`` gets."""
        return _given(self.implied, self.guest_features)

    @cached_property
    def level(self) -> str | None:
        """The highest whole ABI level of :attr:`gives`, "x86-64-v1" to "x86-64-v4"; None below them."""
        return level(self.gives)

    @cached_property
    def lost(self) -> pd.DataFrame:
        """What each host offers, another lacks and :attr:`gives` lacks: columns of ``schema.LOST``, in map order.

        Features that all hosts share, or that only the age of a libvirt hides, are in :attr:`dropped`.
        """
        lost = lost_for_sure(self.members) & ~_set(self.gives, self.universe)
        rows = []
        for m in self.members:
            for name in _names(m.offered & lost, self.universe):
                what = meaning(name)
                rows.append({"host": m.host, "feature": name, "group": what.group, "polarity": what.polarity})
        return frame(LOST, rows)

    @cached_property
    def dropped(self) -> pd.DataFrame:
        """Features that the hosts share and :attr:`gives` lacks, with the reason: columns of ``schema.DROPPED``.

        A feature that only the age of a host's libvirt hides is here too.
        """
        reasons: dict[str, str] = {}
        shared = _names(reduce(int.__and__, (m.offered for m in self.members)), self.universe)
        for name in shared:
            if name not in self.gives:
                reasons[name] = self._why_dropped(name)
        for name in frozenset.intersection(*(m.beyond for m in self.members)):
            reasons[name] = "no CPU map at hand knows it"
        for name in _names(self._perhaps_shared(), self.universe):
            bit = _set([name], self.universe)
            silent = [m for m in self.members if not m.reported & bit]
            others = f" and {len(silent) - 1} more" if len(silent) > 1 else ""
            reasons[name] = f"not reported by {silent[0].host}{others}: libvirt {silent[0].libvirt} has no name for it"
        rows = (
            {"feature": n, "group": meaning(n).group, "polarity": meaning(n).polarity, "reason": r}
            for n, r in reasons.items()
        )
        return frame(DROPPED, rows)

    def _why_dropped(self, name: str) -> str:
        for reason, names in self.restrictions:
            if name in names:
                return reason
        if name in self.taken_out:
            return "taken out on request"
        if name in self.non_migratable:
            return "cannot be migrated"
        if name in QEMU_DRIVER_HIDES:
            return "a fact of the host, which the QEMU driver leaves out"
        return f"the hypervisor cannot give {self.model} with it"

    def _perhaps_shared(self) -> int:
        """Features that some host offers, none is known to lack, and another's libvirt is too old to report."""
        perhaps = reduce(int.__and__, (m.offered | ~m.reported for m in self.members))
        silent = reduce(int.__or__, (~m.reported for m in self.members))
        return perhaps & silent & reduce(int.__or__, (m.offered for m in self.members))

    @cached_property
    def maxphysaddr(self) -> int | None:
        """Fewest physical address bits in the group [bits]; None where a host's are not known. Reported, not pinned."""
        known = [m.address_bits for m in self.members if m.address_bits is not None]
        return min(known) if len(known) == len(self.members) else None

    @cached_property
    def needs_libvirt(self) -> str | None:
        """The oldest map brought along that knows all names in ``guest_xml``; None: not even the newest does."""
        names = {name for name, _ in self.guest_features}
        for known in brought_along():
            if self.model in known.models.keys() | known.ppc64.keys() and names <= known.index.keys():
                return known.version
        return None

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a planner must know before using this answer."""
        warnings = list(self.inexact)
        if self.view == "host":
            warnings.insert(0, "advisory: the CPU of the hosts themselves, not what their hypervisors can give a guest")
        if guessed := [m.host for m in self.members if m.source.startswith(HYPOTHETICAL)]:
            warnings.append(f"hypothetical: no document says what {some(guessed)} would then offer")
        if self.missing:
            warnings.append(f"without {', '.join(self.missing)}, whose CPU is not known")
        bits = {m.host: m.address_bits for m in self.members}
        spread = sorted({b for b in bits.values() if b is not None})
        unknown = [h for h, b in bits.items() if b is None]
        if len(spread) > 1:
            few = [h for h, b in bits.items() if b == spread[0]]
            warnings.append(f"physical address bits differ, {spread[0]} to {spread[-1]}; fewest on {some(few)}")
        if unknown:
            warnings.append(f"physical address bits not known of {some(unknown)}")
        asked = _set(_given(self.implied, self.features), self.universe)
        for m in self.members:
            if more := asked & ~m.offered:
                names = ", ".join(_names(more, self.universe))
                warnings.append(f"libvirt's answer gives {names}, which {m.host} does not have; guest_xml disables it")
                break
        return tuple(warnings)

    def without(self, *what: str) -> Baseline:
        """The same baseline less some features, which are disabled where the model's name implies them.

        Parameters
        ----------
        *what : str
            Names of features, or of bundles: "tsx", "mpx", "nested", "avx512", ... (``meanings.SWITCHES``).

        Returns
        -------
        Baseline
            No longer libvirt's own answer: ``exact`` is False.

        Raises
        ------
        FrameError
            A name that is neither a bundle nor a feature of the fleet's map.
        """
        gone: set[str] = set()
        for name in what:
            if name not in SWITCHES and name not in self.universe:
                raise FrameError(
                    f"without({name!r}): neither a feature of this map nor one of {', '.join(sorted(SWITCHES))}"
                )
            gone |= SWITCHES.get(name, frozenset([name]))
        taken = sorted(gone & (_given(self.implied, self.described) | set(self.implied)))
        described = [(n, p) for n, p in self.described if n not in gone or p == "disable"]
        disabled = {n for n, p in described if p == "disable"}
        described += [(n, "disable") for n in self.implied if n in gone and n not in disabled]
        hidden = {n for n, _ in self.described} - {n for n, _ in self.features}
        return replace(
            self,
            described=tuple(described),
            features=tuple((n, p) for n, p in described if n not in hidden),
            expand=False,
            taken_out=(*self.taken_out, *taken),
            doubts=(*self.doubts, f"not libvirt's own answer: {', '.join(what)} taken out on request"),
        )

    def diff(self, other: Baseline) -> pd.DataFrame:
        """What a guest would gain or lose with another baseline.

        Returns
        -------
        DataFrame
            One row a feature in which :attr:`gives` differs; index ``feature``, columns ``group``, ``polarity`` and
            ``change`` ("gained" or "lost" with ``other``).
        """
        changed = sorted(self.gives ^ other.gives)
        rows = [{"group": meaning(n).group, "polarity": meaning(n).polarity,
                 "change": "gained" if n in other.gives else "lost"} for n in changed]  # fmt: skip
        index = pd.Index(changed, dtype="str", name="feature")
        return frame({"group": "str", "polarity": "str", "change": "str"}, rows, index=index)

    def verify(self, conn: Libvirt) -> Verification:
        """Asks an open libvirt connection the same and compares the texts.

        Parameters
        ----------
        conn : libvirt.virConnect

        Returns
        -------
        Verification
            *identical*, *different* with the diff, or *cannot_tell* with the reason: another map, driver or call, or
            another host than the hypervisor that was asked (by UUID, where its capabilities were read).
        """
        if self.taken_out:
            return Verification("cannot_tell", "features were taken out on request: libvirt has no such question")
        if self.view == "hypervisor" and self.asked_of is None and len(self.members) > 1:
            return Verification("cannot_tell", "the answer is for all hosts of the group: ask with asked_of=")
        if self.view == "hypervisor" and self.endpoint is None:
            return Verification("cannot_tell", "no domain capabilities say which emulator and machine to ask about")
        return verify(
            Asked(
                xml=self.xml,
                inputs=[m.cpu.xml() for m in self.members],
                cpu_map=self.cpu_map,
                driver=self.driver,
                flags=EXPAND_FEATURES * self.expand + MIGRATABLE * self.migratable,
                hypervisor=self.endpoint,
                explanation="; ".join(self.inexact),
            ),
            conn,
        )

    def to_json(self) -> str:
        """All of it as JSON text, the hosts' features included."""
        facts = asdict(replace(self, doubts=self.inexact, read_otherwise=None))
        facts["members"] = [
            m._asdict()
            | {
                "cpu": m.cpu.xml(),
                "offered": f"{m.offered:x}",
                "reported": f"{m.reported:x}",
                "beyond": sorted(m.beyond),
            }
            for m in self.members
        ]
        facts["non_migratable"] = sorted(self.non_migratable)
        return json.dumps({"vmcompat_baseline": _JSON_FORMAT, **facts}, indent=1)

    @staticmethod
    def from_json(text: str) -> Baseline:
        """What :meth:`to_json` wrote.

        Raises
        ------
        FrameError
            The text is something else, or was written by a newer vmcompat.
        """
        try:
            facts: dict[str, Any] = json.loads(text)
            form = facts.pop("vmcompat_baseline")
            if form != _JSON_FORMAT:
                raise FrameError(f"a baseline of format {form}; this vmcompat reads format {_JSON_FORMAT}")
            facts["members"] = tuple(_member(m) for m in facts["members"])
            facts["non_migratable"] = frozenset(facts["non_migratable"])
            facts["restrictions"] = tuple((reason, tuple(names)) for reason, names in facts["restrictions"])
            for name in ("features", "described"):
                facts[name] = tuple((n, p) for n, p in facts[name])
            for name in ("missing", "doubts", "taken_out", "universe", "implied"):
                facts[name] = tuple(facts[name])
            facts["endpoint"] = Endpoint(*facts["endpoint"]) if facts["endpoint"] else None
            return Baseline(**facts)
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            if isinstance(e, FrameError):
                raise
            raise FrameError(f"no baseline written by Baseline.to_json ({e})") from e

    def __repr__(self) -> str:
        advisory = ", advisory" if self.view == "host" else ""
        level = f", {self.level or 'below x86-64-v1'}" if self.gives else ""  # POWER has no features here, nor levels
        return (
            f"<Baseline {self.model} of {len(self.members)} hosts: {len(self.gives)} features{level}; "
            f"{self.view} view{advisory}, CPU map {self.cpu_map}>"
        )

    def _repr_html_(self) -> str:
        return card.html_of(self)


def _member(facts: dict[str, Any]) -> Member:
    cpu = parse_cpu(parse_xml(facts["cpu"].encode(), source="JSON"), source="JSON")
    bits = {k: int(facts[k], 16) for k in ("offered", "reported")}
    return Member(**(facts | bits | {"cpu": cpu, "beyond": frozenset(facts["beyond"])}))


def baseline_of(
    fleet: Fleet,
    hosts: Iterable[str] | None,
    *,
    migratable: bool,
    expand: bool,
    driver: str,
    cpu_map: str | Path | CpuMap | None,
    asked_of: str | None,
    allow_missing: bool,
) -> Baseline:
    """See :meth:`Fleet.baseline`."""
    if driver not in ("qemu", "test"):
        raise FrameError(f"driver={driver!r}: give 'qemu' or 'test'")
    if asked_of is not None and fleet.view == "host":
        raise FrameError("asked_of= is a question to a hypervisor: use fleet.with_view('hypervisor')")
    answer_map = fleet.cpu_map if cpu_map is None else cpu_map if isinstance(cpu_map, CpuMap) else CpuMap.load(cpu_map)
    (answer,) = answers(
        fleet,
        [range(len(fleet)) if hosts is None else fleet.positions(hosts)],
        migratable=migratable,
        driver=driver,
        cpu_map=answer_map,
        asked_of=asked_of,
        allow_missing=allow_missing,
    )
    if isinstance(answer, NoBaselineError):
        raise answer
    features = answer.features
    return Baseline(
        model=answer.model.name,
        vendor=answer.vendor,
        fallback=answer.fallback,
        features=tuple(expanded(features, answer.model, cpu_map=answer_map) if expand else features),
        members=answer.members,
        missing=answer.missing,
        view=fleet.view,
        cpu_map=answer_map.version,
        migratable=migratable,
        expand=expand,
        driver=driver,
        asked_of=asked_of,
        doubts=answer.limits.inexact,
        read_otherwise=partial(read_otherwise, answer, fleet, answer_map),
        limit=answer.limit,
        universe=fleet.cpu_map.features,
        implied=tuple(answer_map.names(answer.model.data)),
        described=tuple(answer.described),
        non_migratable=answer_map.non_migratable,
        restrictions=answer.restrictions,
        endpoint=answer.limits.endpoint,
    )


def _given(implied: Iterable[str], features: Iterable[tuple[str, str]]) -> frozenset[str]:
    policies = dict(features)
    kept = (n for n in implied if policies.get(n) != "disable")
    return frozenset((*kept, *(n for n, p in policies.items() if p == "require")))


def _set(names: Iterable[str], universe: tuple[str, ...]) -> int:
    wanted = frozenset(names)
    return sum(1 << i for i, name in enumerate(universe) if name in wanted)


def _names(bits: int, universe: tuple[str, ...]) -> list[str]:
    return [name for i, name in enumerate(universe) if bits >> i & 1]
