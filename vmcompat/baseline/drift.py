"""Two looks at the same hosts: what changed in between, and what most likely did it."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.baseline.causes import PROCESSOR, WORDS, Evidence, shown
from vmcompat.baseline.identical import TSC_TOLERANCE
from vmcompat.baseline.lattice import Bools
from vmcompat.baseline.meanings import NEEDLESS, in_words, polarity_on
from vmcompat.errors import FrameError
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import CPU_STATUS, DRIFT, DRIFT_GROUPS, frame

# What is compared beside the features, in the order in which it is told; "processor" is PROCESSOR in one.
_FACTS: Final = (
    "uuid", "processor", "maxphysaddr", "threads", "memory", "machines", "model", "tsc_frequency",
    "microcode", "bios_date", "kernel", "qemu", "libvirt",
)  # fmt: skip
_COLUMNS: Final = ("cpu_status", *PROCESSOR, *(what for what in _FACTS if what != "processor"))
_FROM_CSV: Final = ("bios_date", "kernel")  # a number in one hosts.csv may be a text in the other
_CAPACITY: Final = ("maxphysaddr", "threads", "memory")
# Parts per million by which a number may change and count as the same: the clock is measured anew at each boot, and a
# kernel keeps some of the memory to itself.
_TOLERANCE: Final = {"tsc_frequency": TSC_TOLERANCE, "memory": 10_000}

# How bad a change is, 0 the worst.
_CONTROL_LOST, _OUT_OF_SIGHT, _IMMUNITY_LOST, _HAZARD_GAINED, _LOST, _PERHAPS_LOST, _GAINED, _FACT = range(8)
_WORSE: Final = frozenset({_CONTROL_LOST, _IMMUNITY_LOST, _HAZARD_GAINED, _LOST})
_UNSURE: Final = frozenset({_OUT_OF_SIGHT, _PERHAPS_LOST})
_OF_LOSS: Final = {"control": _CONTROL_LOST, "immunity": _IMMUNITY_LOST, "capability": _LOST}
_OF_GAIN: Final = {"control": _GAINED, "immunity": _GAINED, "capability": _GAINED, "hazard": _HAZARD_GAINED}


class Seen(Protocol):
    """Hosts at one time: a :class:`~vmcompat.fleet.frames.Fleet`, or what an earlier audit kept of one."""

    @property
    def view(self) -> str:
        """What the features are of."""

    @property
    def names(self) -> tuple[str, ...]:
        """All hosts."""

    @property
    def hosts(self) -> pd.DataFrame:
        """As ``fleet.hosts``; columns may be missing."""

    @property
    def features(self) -> pd.DataFrame:
        """As ``fleet.features``."""

    @property
    def reported(self) -> pd.DataFrame:
        """As ``fleet.reported``."""


class _Change(NamedTuple):
    """One change of a host: what to say of it, and its columns of ``schema.DRIFT`` but the first."""

    words: str
    what: str
    before: str | None = None
    after: str | None = None
    gained: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    unreported: tuple[str, ...] = ()
    polarities: tuple[str, ...] = ()
    cause: str | None = None
    rank: int = _FACT


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Drift:
    """What changed in hosts.

    Attributes
    ----------
    n_hosts : int
        Hosts that are in both, those that were renamed among them.
    unknown : tuple of str
        Those of them whose CPU is not known in one of the two, so that nothing can be said of their features.
    view : str
        In which they were seen.
    """

    n_hosts: int
    unknown: tuple[str, ...]
    view: str
    _changes: Mapping[str, tuple[_Change, ...]]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a change of a host: columns of ``schema.DRIFT``."""
        return frame(DRIFT, ({"host": h} | c._asdict() for h, changes in self._changes.items() for c in changes))

    @cached_property
    def groups(self) -> pd.DataFrame:
        """Hosts with exactly the same changes, one row a change: columns of ``schema.DRIFT_GROUPS``.

        Index ``group``, the name of the first of the hosts; most hosts first.
        """
        folded = sorted(self._folded, key=lambda hosts: -len(hosts))
        pairs = [(hosts, change) for hosts in folded for change in self._changes[hosts[0]]]
        rows = ({"n_hosts": len(hosts), "hosts": hosts} | change._asdict() for hosts, change in pairs)
        return frame(DRIFT_GROUPS, rows, index=pd.Index([hosts[0] for hosts, _ in pairs], dtype="str", name="group"))

    @cached_property
    def _folded(self) -> list[tuple[str, ...]]:
        same: dict[tuple[_Change, ...], list[str]] = {}
        for host, changes in self._changes.items():
            same.setdefault(changes, []).append(host)
        return [tuple(hosts) for hosts in same.values()]

    @property
    def ok(self) -> bool | None:
        """Whether no host got worse: False where one did for sure, None where that cannot be known of all.

        Worse is a lost control, immunity or capability, a gained hazard, fewer address bits, threads, memory or machine
        types. That a host is gone is no answer: what became of it is not in the documents.
        """
        ranks = {c.rank for changes in self._changes.values() for c in changes}
        if ranks & _WORSE:
            return False
        return None if self.unknown or ranks & _UNSURE else True

    def explain(self) -> list[str]:
        """One sentence for hosts with exactly the same changes, the worst first, then most hosts."""
        worst = {hosts: min(c.rank for c in self._changes[hosts[0]]) for hosts in self._folded}
        told = [
            f"{some(hosts, 4)}: {_sentence(self._changes[hosts[0]])}"
            for hosts in sorted(worst, key=lambda hosts: (worst[hosts], -len(hosts)))
        ]
        silent = [h for h in self.unknown if all(c.what != "cpu_status" for c in self._changes.get(h, ()))]
        if silent:
            told.append(f"{some(silent, 4)}: CPU known neither before nor now, so that no change of it could be seen")
        return told

    def __repr__(self) -> str:
        unknown = f", {len(self.unknown)} of these not known" if self.unknown else ""
        return (
            f"<Drift: {len(self._changes)} hosts changed in {len(self._folded)} ways, {self.n_hosts} in both{unknown}; "
            f"{self.view} view>"
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + self.groups.to_html(border=0, na_rep="")


def drift(before: Seen, after: Seen) -> Drift:
    """Finds what changed in hosts between two looks at them.

    Parameters
    ----------
    before, after : Fleet
        The same hosts by name, seen in one view. A host of a new name with the UUID of another is that one, renamed.

    Returns
    -------
    Drift
        A feature counts as gained or lost only where both documents could speak of it: what the older libvirt had no
        name for is not gained, and a host that cannot be read any more has lost nothing that is known. Other facts are
        compared where both are known.

    Raises
    ------
    FrameError
        The two are seen in different views, or read with different maps or not alike.

    Notes
    -----
    Causes are conclusions from what else changed, no proof: new microcode, BIOS, kernel, QEMU or libvirt, and what is
    switched as a whole (TSX, nesting, SGX, AVX-512, AMX, hyperthreading, memory encryption).

    A TSC frequency counts as changed beyond the 250 ppm that libvirt and QEMU allow, the memory beyond 1 %. Linear in
    the hosts.

    Examples
    --------
    >>> import vmcompat as vc
    >>> fleet = vc.read_fleet("sample_caps/mixed").select("rack == 'ams-r5'")
    >>> found = vc.drift(fleet, vc.what_if(fleet, without={"ams-r5-h02": ["hle", "rtm"]}).fleet)
    >>> found.frame.loc[0, "lost"], found.ok
    (('hle', 'rtm'), False)
    >>> print(found.explain()[0])
    ams-r5-h02: lost hle, rtm; likely cause: TSX switched off by tsx=off of the kernel, since the microcode is the same
    """
    _check(before, after)
    columns = after.features.columns
    was, now = (_Side.of(seen, columns) for seen in (before, after))
    renamed = _renamed(was, now)
    pairs = {host: renamed.get(host, host) for host in after.names if host in was.facts or host in renamed}
    changes: dict[str, tuple[_Change, ...]] = {}
    for host in after.names:
        if host not in pairs:
            changes[host] = (_Change("new", "host", after="there"),)
        elif found := tuple(_changes(pairs[host], host, was, now, columns)):
            changes[host] = found
    there = {*pairs.values()}
    for host in before.names:
        if host not in there:
            changes[host] = (_Change("not there any more", "host", before="there", rank=_OUT_OF_SIGHT),)
    unknown = tuple(h for h, former in pairs.items() if not (h in now.position and former in was.position))
    return Drift(n_hosts=len(pairs), unknown=unknown, view=after.view, _changes=changes)


def _check(before: Seen, after: Seen) -> None:
    if before.view != after.view:
        raise FrameError(
            f"one is seen in the {before.view} view, the other in the {after.view} view, which are two questions: "
            f"give both alike, such as before.with_view({after.view!r})"
        )
    if isinstance(before, Fleet) and isinstance(after, Fleet):
        for what in ("virttype", "strict"):
            one, other = getattr(before, what), getattr(after, what)
            if one != other:
                raise FrameError(f"two fleets of different {what} ({one}, {other}) are two questions: read them alike")
        one, other = ((m.version, m.features, m.models) for m in (before.cpu_map, after.cpu_map))
        if one != other:  # what the models stand for changes from map to map
            raise FrameError(
                f"the fleets were read with different maps ({before.cpu_map.version}, {after.cpu_map.version}): read "
                "both with the same cpu_map="
            )


class _Side(NamedTuple):
    """One of the two looks: what is known of each host, and the features of those whose CPU is."""

    facts: dict[str, dict[str, Any]]
    position: dict[str, int]
    offered: Bools
    reported: Bools
    of_uuid: dict[str, str]

    @staticmethod
    def of(seen: Seen, columns: pd.Index) -> _Side:
        rows = seen.hosts.reindex(columns=_COLUMNS).to_dict("index")
        facts = {str(host): _known({str(c): v for c, v in row.items()}) for host, row in rows.items()}
        offered, reported = (table[columns].to_numpy(dtype=bool) for table in (seen.features, seen.reported))
        owners: dict[str, list[str]] = {}
        for host, known in facts.items():
            owners.setdefault(known.get("uuid", ""), []).append(host)
        of_uuid = {uuid: hosts[0] for uuid, hosts in owners.items() if uuid and len(hosts) == 1}
        return _Side(facts, {str(h): i for i, h in enumerate(seen.features.index)}, offered, reported, of_uuid)


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that are known, the processor in one."""
    known: dict[str, Any] = {}
    for column, value in row.items():
        if isinstance(value, tuple):
            known |= {column: value} if value else {}
        elif not pd.isna(value):
            whole = int(value) if isinstance(value, float) and value.is_integer() else value
            known[column] = str(whole) if column in _FROM_CSV else whole
    processor = {c: known[c] for c in PROCESSOR if c in known}
    return known | {"processor": processor} if processor else known


def _renamed(was: _Side, now: _Side) -> dict[str, str]:
    """Former names of the new names, by UUIDs that are one host's each time."""
    found = {}
    for uuid, host in now.of_uuid.items():
        former = was.of_uuid.get(uuid)
        # A host of the former name that does not say its UUID may be the same one still.
        if former is not None and host not in was.facts and "uuid" in now.facts.get(former, {"uuid": None}):
            found[host] = former
    return found


def _changes(former: str, host: str, was: _Side, now: _Side, columns: pd.Index) -> Iterator[_Change]:
    old, new = was.facts[former], now.facts[host]
    if former != host:
        yield _Change(f"was called {former} before", "host", before=former, after=host)
    if old["cpu_status"] != new["cpu_status"]:
        yield _status(old["cpu_status"], new["cpu_status"])
    both: dict[str, tuple[Any, Any]] = {what: (old[what], new[what]) for what in _FACTS if what in old and what in new}
    evidence = Evidence(
        both=both,
        changed={what: pair for what, pair in both.items() if _differs(what, *pair)},
        former_of_uuid=was.of_uuid.get(new.get("uuid", "")),
    )
    if host in now.position and former in was.position:
        i, j = was.position[former], now.position[host]
        had, knew, has, knows = was.offered[i], was.reported[i], now.offered[j], now.reported[j]
        if not np.array_equal(had, has):
            came, went = has & ~had, had & ~has
            newly_named, unnamed = came & ~knew, went & ~knows
            masks = (came & knew, went & knows, newly_named, unnamed, newly_named | unnamed, had, has)
            yield _Moved(*(tuple(columns[mask]) for mask in masks)).change(evidence, new.get("vendor"))
    for what in evidence.changed:
        yield _fact(what, evidence)


def _status(before: str, after: str) -> _Change:
    if after == "ok":
        words = f"can be judged now, and could not before ({CPU_STATUS[before]})"
        return _Change(words, "cpu_status", before, after, rank=_GAINED)
    if before != "ok":
        return _Change(f"cannot be judged for another reason now: {CPU_STATUS[after]}", "cpu_status", before, after)
    cause = "virtualization switched off in the BIOS, or KVM not loaded" if after == "tcg_only" else None
    words = f"cannot be judged any more: {CPU_STATUS[after]}"
    return _Change(words, "cpu_status", before, after, cause=cause, rank=_OUT_OF_SIGHT)


def _differs(what: str, old: Any, new: Any) -> bool:
    if what == "processor":
        return any(old[c] != new[c] for c in old if c in new)
    if what == "machines":
        return {*old} != {*new}
    if what in _TOLERANCE:
        return bool(abs(new - old) * 1_000_000 > _TOLERANCE[what] * max(old, new))
    return bool(old != new)


class _Moved(NamedTuple):
    """Features that one of two documents tells of and the other does not, for sure or not, and all of both."""

    gained: tuple[str, ...]
    lost: tuple[str, ...]
    newly_named: tuple[str, ...]
    unnamed: tuple[str, ...]
    unreported: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]

    def change(self, evidence: Evidence, vendor: str | None) -> _Change:
        gained, lost = self.gained, self.lost
        needless = tuple(f for f in lost if f in NEEDLESS and NEEDLESS[f] <= {*self.after})
        felt = [f for f in lost if f not in needless]
        told = {
            "lost {}": in_words(felt, vendor=vendor),
            "lost {}, needless since it is immune": ", ".join(needless),
            "gained {}": in_words(gained, vendor=vendor),
            "{} perhaps not new (no name in the earlier libvirt)": some(self.newly_named, 3),
            "{} perhaps still there (no name in the present libvirt)": some(self.unnamed, 3),
        }
        causes = [*evidence.features(lost=lost, gained=gained, before=self.before, after=self.after)]
        return _Change(
            "; ".join(words.format(features) for words, features in told.items() if features),
            "features",
            gained=gained,
            lost=lost,
            unreported=self.unreported,
            polarities=tuple(dict.fromkeys(polarity_on(f, vendor) for f in (*lost, *gained))),
            cause=("; ".join(causes) or None) if lost or gained else evidence.names(),
            rank=min(self._ranks(felt, vendor), default=_FACT),
        )

    def _ranks(self, felt: Sequence[str], vendor: str | None) -> Iterator[int]:
        """How bad each is."""
        yield from (_OF_LOSS.get(polarity_on(f, vendor), _FACT) for f in felt)
        yield from (_OF_GAIN.get(polarity_on(f, vendor), _FACT) for f in self.gained)
        yield from (_PERHAPS_LOST for f in self.unnamed if polarity_on(f, vendor) in _OF_LOSS)
        yield from (_PERHAPS_LOST for f in self.newly_named if polarity_on(f, vendor) == "hazard")


def _fact(what: str, evidence: Evidence) -> _Change:
    old, new = evidence.changed[what]
    name, cause = WORDS.get(what, what), evidence.fact(what)
    if what == "machines":
        gone, come = ([m for m in ours if m not in theirs] for ours, theirs in ((old, new), (new, old)))
        words = "; ".join(f"{verb} {name} {some(m, 3)}" for verb, m in (("lost", gone), ("gained", come)) if m)
        before, after = (", ".join(m) or None for m in (gone, come))
        return _Change(words, what, before, after, cause=cause, rank=_LOST if gone else _GAINED)
    before, after = shown(what, old), shown(what, new)
    rank = _FACT if what not in _CAPACITY else _LOST if new < old else _GAINED
    words = "another UUID" if what == "uuid" else f"{name} {before} -> {after}"
    return _Change(words, what, before, after, cause=cause, rank=rank)


def _sentence(changes: Sequence[_Change]) -> str:
    causes = [*dict.fromkeys(c.cause for c in changes if c.cause)]
    causes = [c for c in causes if not any(c != other and c in other for other in causes)]
    return "; ".join(c.words for c in changes) + (f"; likely cause: {'; '.join(causes)}" if causes else "")
