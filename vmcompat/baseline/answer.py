"""Groups of hosts -> libvirt's answers: who is in, which features they share, which model names them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from vmcompat.baseline.choice import QEMU_DRIVER_HIDES, Description, Question, choose, describe
from vmcompat.baseline.hypervisor import HypervisorLimits, limits_of
from vmcompat.errors import CpuMapError, NoBaselineError
from vmcompat.fleet.cpu import Cpu
from vmcompat.fleet.cpu_map import CpuMap, CpuModel
from vmcompat.fleet.expand import View, version
from vmcompat.fleet.frames import Fleet


class Member(NamedTuple):
    """One host of a group: what it offers, over the features of the group, and where that was read."""

    host: str
    cpu: Cpu
    model_vendor: str | None
    offered: int
    reported: int
    beyond: frozenset[str]
    source: str
    sha256: str
    libvirt: str | None
    address_bits: int | None


class Answer(NamedTuple):
    """What libvirt finds for one group, before it is written down.

    Attributes
    ----------
    members : tuple of Member
    missing : tuple of str
        Hosts that could not be intersected, with their status.
    model : CpuModel
    shared : int
        Set of the features that all members have and the hypervisors can give with the model, over the answer's map.
    described : list of (name, policy)
        Features beside the model, before any filter.
    hidden : frozenset of str
        What libvirt's filters take away from them.
    vendor : str or None
        None where libvirt writes none.
    fallback : str
    limits : HypervisorLimits
    restrictions : tuple of (reason, names)
        Shared features that the map or the emulator leaves out.
    limit : int or None
        Of the physical address bits [bits].
    """

    members: tuple[Member, ...]
    missing: tuple[str, ...]
    model: CpuModel
    shared: int
    described: Description
    hidden: frozenset[str]
    vendor: str | None
    fallback: str
    limits: HypervisorLimits
    restrictions: tuple[tuple[str, tuple[str, ...]], ...]
    limit: int | None

    @property
    def features(self) -> Description:
        """Features beside the model as libvirt lists them."""
        if not self.hidden:
            return self.described
        return [entry for entry in self.described if entry[0] not in self.hidden]


class _Shared(NamedTuple):
    """One group up to the choice of its model."""

    members: tuple[Member, ...]
    missing: tuple[str, ...]
    features: int
    question: Question
    written: bool
    limits: HypervisorLimits
    restrictions: tuple[tuple[str, tuple[str, ...]], ...]


def answers(
    fleet: Fleet,
    groups: Sequence[Sequence[int]],
    *,
    migratable: bool,
    driver: str,
    cpu_map: CpuMap,
    asked_of: str | None,
    allow_missing: bool,
) -> list[Answer | NoBaselineError]:
    """Libvirt's answer for each group, or why there is none.

    Parameters
    ----------
    fleet : Fleet
    groups : sequence of sequences of int
        Positions of hosts in the fleet, in the order in which libvirt would be given them.
    migratable, driver, asked_of, allow_missing
        As for :meth:`Fleet.baseline`.
    cpu_map : CpuMap
        Whose models are candidates.

    Returns
    -------
    list of Answer or NoBaselineError
        One a group.
    """
    everyone = _members(fleet)
    power = _power_hosts(fleet) if fleet.view == "host" else {}
    limits = HypervisorLimits()
    shared: list[_Shared | Answer | NoBaselineError] = []
    for positions in groups:
        try:
            if power and {i in power for i in positions} == {True}:
                shared.append(_power_answer([power[i] for i in positions], cpu_map))
                continue
            members, missing = _known(fleet, everyone, positions, allow_missing=allow_missing)
            if fleet.view == "hypervisor":
                asked = positions if asked_of is None else fleet.positions([asked_of])
                records = [fleet.records[i] for i in asked if asked_of is not None or everyone[i] is not None]
                limits = limits_of(records, virttype=fleet.virttype, cpu_map=cpu_map)
            shared.append(_shared(fleet, members, missing, limits, cpu_map, migratable=migratable))
        except NoBaselineError as e:
            shared.append(e)
    found = [s for s in shared if isinstance(s, _Shared)]
    rows = cpu_map.rows(s.features for s in found)
    models = choose(rows, [s.question for s in found], cpu_map=cpu_map)
    named = [i for i, model in enumerate(models) if model is not None]
    chosen = [model for model in models if model is not None]
    blockers = [_blockers(found[i], model) for i, model in zip(named, chosen, strict=True)]
    described = iter(describe(rows[named], chosen, cpu_map=cpu_map, blockers=blockers))
    hidden = frozenset(QEMU_DRIVER_HIDES if fleet.view == "host" and driver == "qemu" else ())
    answered = iter(
        NoBaselineError(f"no CPU model that every hypervisor lists fits {some([m.host for m in s.members])}")
        if model is None
        else _answer(s, model, next(described), fleet.view, cpu_map, hidden, migratable=migratable)
        for s, model in zip(found, models, strict=True)
    )
    return [next(answered) if isinstance(s, _Shared) else s for s in shared]


def _blockers(shared: _Shared, model: CpuModel) -> int:
    return (shared.limits.allowed or {}).get(model.name, 0)


_MEMBERS: Final[WeakKeyDictionary[Fleet, list[Member | None]]] = WeakKeyDictionary()


def _members(fleet: Fleet) -> list[Member | None]:
    """Each host of the fleet as a member, None where its CPU is not known; made once for all questions to a fleet."""
    if fleet in _MEMBERS:
        return _MEMBERS[fleet]
    members: list[Member | None] = []
    for record, x in zip(fleet.records, fleet.readings, strict=True):
        member = None
        if x.status == "ok" and x.cpu is not None and (read := x.document) is not None:
            where = (read.source, read.sha256, record.libvirt, record.address_bits)
            member = Member(record.name, x.cpu, x.model_vendor, x.offered, x.reported, x.beyond, *where)
        members.append(member)
    _MEMBERS[fleet] = members  # not before it is whole: another thread may look
    return members


def _known(
    fleet: Fleet, everyone: list[Member | None], positions: Sequence[int], *, allow_missing: bool
) -> tuple[tuple[Member, ...], tuple[str, ...]]:
    asked = [everyone[i] for i in positions]
    members = tuple([m for m in asked if m is not None])
    missing: tuple[str, ...] = ()
    if len(members) < len(asked):
        missing = tuple(f"{fleet.names[i]} ({fleet.readings[i].status})" for i in positions if everyone[i] is None)
    if missing and not allow_missing:
        raise NoBaselineError(
            f"the CPU of {len(missing)} of {len(positions)} hosts is not known: {some(missing)}. See fleet.findings; "
            f"mend or drop them, or give allow_missing=True to answer without them"
        )
    if not members:
        raise NoBaselineError("no host with a known CPU to compute a baseline of")
    return members, missing


def _shared(
    fleet: Fleet,
    members: tuple[Member, ...],
    missing: tuple[str, ...],
    limits: HypervisorLimits,
    cpu_map: CpuMap,
    *,
    migratable: bool,
) -> _Shared:
    vendor, written = _common_vendor(members, cpu_map)
    offered = reduce(int.__and__, [m.offered for m in members])
    features, restrictions = _restricted(offered, fleet.cpu_map, cpu_map, limits, migratable=migratable)
    if not features:
        raise NoBaselineError(f"the CPUs of {some([m.host for m in members])} have no feature in common")
    names = frozenset([m.cpu.model for m in members if m.cpu.model])
    question = Question(vendor=vendor, names=names, allowed=limits.allowed)
    return _Shared(members, missing, features, question, written, limits, restrictions)


def _answer(
    shared: _Shared,
    model: CpuModel,
    described: Description,
    view: View,
    cpu_map: CpuMap,
    hidden: frozenset[str],
    *,
    migratable: bool,
) -> Answer:
    if migratable and not shared.limits.knows_migratable:
        hidden |= cpu_map.non_migratable
    question = shared.question
    return Answer(
        members=shared.members,
        missing=shared.missing,
        model=model,
        shared=shared.features & ~(_blockers(shared, model) & model.data),
        described=described,
        hidden=hidden,
        vendor=question.vendor if shared.written else None,
        fallback="forbid" if view == "hypervisor" or question.names == {model.name} else "allow",
        limits=shared.limits,
        restrictions=shared.restrictions,
        limit=_limit(shared.members, view, cpu_map),
    )


def _power_hosts(fleet: Fleet) -> dict[int, Member]:
    """POWER hosts by position: their models are known, their features are not for the map to tell."""
    members = {}
    for i, (record, x) in enumerate(zip(fleet.records, fleet.readings, strict=True)):
        if x.cpu is not None and x.document is not None and x.cpu.arch in ("ppc64", "ppc64le") and x.cpu.model:
            where = (x.document.source, x.document.sha256, record.libvirt, record.address_bits)
            members[i] = Member(record.name, x.cpu, None, 0, 0, frozenset(), *where)
    return members


def _power_answer(members: Sequence[Member], cpu_map: CpuMap) -> Answer:
    """POWER knows no features here: all hosts are of one model of the map, or there is no baseline.

    References
    ----------
    ``ppc64Baseline`` of libvirt.
    """
    first = members[0]
    name = str(first.cpu.model)
    if name not in cpu_map.ppc64:
        raise NoBaselineError(f"{first.host}: the CPU map knows no POWER model {name}")
    vendor = cpu_map.ppc64[name]
    for m in members:
        if m.cpu.model != name:
            raise NoBaselineError(f"CPUs are incompatible: {first.host} is {name}, {m.host} is {m.cpu.model}")
        if m.cpu.vendor not in (None, vendor):
            raise NoBaselineError(f"{m.host} says vendor {m.cpu.vendor}, its model is {vendor}'s")
    return Answer(
        members=tuple(members),
        missing=(),
        model=CpuModel(name=name, vendor=vendor, data=0),
        shared=0,
        described=[],
        hidden=frozenset(),
        vendor=None,
        fallback="forbid",
        limits=HypervisorLimits(),
        restrictions=(),
        limit=None,
    )


def _common_vendor(members: Iterable[Member], cpu_map: CpuMap) -> tuple[str | None, bool]:
    """The vendor that restricts the models, and whether libvirt prints it: only if every host names it.

    Raises
    ------
    NoBaselineError
        Vendors differ, or one is unknown to the map.
    """
    seen: set[tuple[str | None, str | None]] = set()
    vendor: str | None = None
    first = ""
    written = True
    for i, m in enumerate(members):
        named, of_model = key = (m.cpu.vendor, m.model_vendor)
        if key in seen:
            continue
        if i > 0:  # the first host is judged more mildly than one just like it that comes later
            seen.add(key)
        written = written and named is not None
        if i > 0 and named and of_model and named != of_model:
            raise NoBaselineError(f"{m.host} says vendor {named}, its model {m.cpu.model} is {of_model}'s")
        says = named if i == 0 else named or of_model
        if says is None:
            continue
        if vendor is None:
            if says not in cpu_map.vendors:
                raise NoBaselineError(f"{m.host}: the CPU map knows no vendor {says}")
            vendor, first = says, m.host
        elif vendor != says:
            raise NoBaselineError(
                f"CPU vendors do not match: {first} is {vendor}, {m.host} is {says}; "
                f"fleet.baselines() answers for each vendor"
            )
    return vendor, written


def _restricted(
    offered: int, fleet_map: CpuMap, answer_map: CpuMap, limits: HypervisorLimits, *, migratable: bool
) -> tuple[int, tuple[tuple[str, tuple[str, ...]], ...]]:
    """The shared features over the map of the answer, and what that map or the emulator leaves out."""
    if answer_map is fleet_map and limits.properties is None:
        return offered, ()
    restrictions = []
    shared = offered
    if answer_map is not fleet_map:
        names = fleet_map.names(offered)
        shared = answer_map.set_of(names)
        younger = tuple(n for n in names if n not in answer_map.index)
        restrictions.append((f"the CPU map of libvirt {answer_map.version} does not know it", younger))
    if limits.properties is not None:
        known = answer_map.set_of(limits.properties)
        unheard = tuple(answer_map.names(shared & ~known))
        restrictions.append(("the emulator asked has no such property", unheard))
        shared &= known
        if migratable and limits.knows_migratable:
            stuck = answer_map.set_of(n for n, may in limits.properties.items() if may is False)
            restrictions.append(("cannot be migrated", tuple(answer_map.names(shared & stuck))))
            shared &= ~stuck
    return shared, tuple((reason, names) for reason, names in restrictions if names)


def _limit(members: tuple[Member, ...], view: View, answer_map: CpuMap) -> int | None:
    """Libvirt prints it from 9.3 on: the least, if every input limits the passed-through address bits."""
    if view == "host" or version(answer_map.version)[:2] < (9, 3):
        return None
    limits = [m.cpu.maxphysaddr.limit for m in members if m.cpu.maxphysaddr and m.cpu.maxphysaddr.mode == "passthrough"]
    known = [b for b in limits if b is not None]
    return min(known) if len(known) == len(members) else None


def read_otherwise(answer: Answer, fleet: Fleet, cpu_map: CpuMap) -> Iterator[str]:
    """Why libvirt, which reads all documents with its one map, would answer for other features, if it would."""
    if answer.model.name not in cpu_map.models or (fleet.strict and cpu_map is fleet.cpu_map):
        return
    theirs, offered = cpu_map.everything, fleet.cpu_map.everything
    for m in {(m.cpu.model, m.cpu.features, m.offered): m for m in answer.members}.values():
        try:
            theirs &= cpu_map.full(m.cpu)
        except CpuMapError as e:
            yield f"libvirt {cpu_map.version} would refuse {m.host}: {e}"
            return
        offered &= m.offered
    ours = offered if cpu_map is fleet.cpu_map else cpu_map.set_of(fleet.cpu_map.names(offered))
    differing = theirs ^ ours
    if answer.limits.properties is not None:
        differing &= cpu_map.set_of(answer.limits.properties)
    if differing:
        names = some(cpu_map.names(differing))
        yield (
            f"libvirt {cpu_map.version} reads every document with its own map and sees {names} otherwise than the "
            f"libvirts that wrote them"
        )


def lost_for_sure(members: Sequence[Member]) -> int:
    """Features that some of the hosts have and another lacks.

    What another host's libvirt is merely too old to report is not among them.
    """
    offered = [m.offered for m in members]
    lacking = reduce(int.__or__, [m.reported & ~m.offered for m in members])
    return reduce(int.__or__, offered) & lacking


def some(names: Sequence[str], most: int = 5) -> str:
    """Some names in words, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
