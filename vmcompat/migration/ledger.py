"""A baseline comes into force guest by guest, at power cycles: who has it, who waits for one, and in which order."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.baseline.common import Baseline
from vmcompat.errors import FrameError
from vmcompat.fleet.cpu import X86, Cpu
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import Reading, differing_features
from vmcompat.fleet.frames import Fleet
from vmcompat.migration.domain import typed
from vmcompat.migration.domains import DomainRecord, Domains
from vmcompat.migration.observe import reading
from vmcompat.migration.reach import reachability
from vmcompat.migration.rollout import Candidate, Rollout, roll_out
from vmcompat.migration.room import Named, rules_of
from vmcompat.schema import LEDGER, frame

CYCLES: Final = ("cycle", "write and cycle")
_IN_WORDS: Final = {
    "none": "have it, and start with it next",
    "write": "need it written and no power cycle",
    "cycle": "have it stored and wait for a power cycle",
    "write and cycle": "need it written and a power cycle",
    "unknown": "cannot be told",
    "elsewhere": "are on none of its hosts",
}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Ledger:
    """How far a baseline has come. Made by :func:`restart_ledger`.

    Attributes
    ----------
    frame : DataFrame
        One row a guest: columns of ``schema.LEDGER``, index ``domain``.
    waves : tuple of tuple of str
        Guests to power off and on, those of one wave at a time.
    fewest : int
        Waves that it takes at least.
    base : Baseline
    """

    frame: pd.DataFrame
    waves: tuple[tuple[str, ...], ...]
    fewest: int
    base: Baseline
    _records: tuple[DomainRecord, ...] = field(repr=False)

    @property
    def done(self) -> bool:
        """Whether every guest on the baseline's hosts is known to have it and to start with it next."""
        return bool(self.frame["action"].isin(["none", "elsewhere"]).all())

    def explain(self) -> list[str]:
        """How many guests are how far, what is not known and why, the waves, and whose freedom to move will end."""
        actions = self.frame["action"]
        numbers = [(words, int((actions == action).sum())) for action, words in _IN_WORDS.items()]
        told = [
            f"{self.base.model}: of {len(actions)} guests " + ", ".join(f"{n} {words}" for words, n in numbers if n)
        ]
        unknown = self.frame[actions == "unknown"]
        for (evidence, remedy), rows in unknown.groupby(["evidence", "remedy"], sort=False):
            told.append(f"{some(list(rows.index))}: {evidence}. To do: {remedy}")
        if self.waves:
            least = "" if len(self.waves) == self.fewest else f" ({self.fewest} at least)"
            told.append(f"{_waves_in_words(len(self.waves))}{least}: " + "; ".join(some(wave) for wave in self.waves))
        ending = list(self.frame.index[self.frame["until"].notna()])
        if ending:
            told.append(
                f"{some(ending)} can move today, and perhaps not after the next power cycle: what is stored then "
                "brings more than they run with"
            )
        return told

    def apply(self, uris: Mapping[str, str], *, allow_host_view: bool = False) -> Rollout:
        """Writes the baseline into the stored definitions that lack it; a running guest keeps its CPU.

        Every guest is one call of :func:`vmcompat.apply_baseline`, which asks all hosts of the baseline first. What
        goes wrong with one stops no other, and is told. Guests of another manager are left alone, which would write
        their definitions anew, and those of which it is not known what is stored.

        Parameters
        ----------
        uris : mapping of str to str
            By name in the fleet, of all hosts of the baseline, as for virsh on this machine.
        allow_host_view : bool
            As of :func:`vmcompat.apply_baseline`.

        Returns
        -------
        Rollout
            A row a guest, who has to be powered off and on (the ledger's ``waves`` say in which order), and the undo.

        Raises
        ------
        FrameError
            A URI is missing; nothing was written.
        KeyboardInterrupt
            After Ctrl-C, when the definition that was being written is; the cause has those that are in ``rollout``.

        Notes
        -----
        Takes a connection to every host of the baseline for each guest that is written.
        """
        return roll_out(tuple(self._candidates()), self.base, uris=uris, allow_host_view=allow_host_view)

    def _candidates(self) -> Iterator[Candidate]:
        for record, (domain, row) in zip(self._records, self.frame.iterrows(), strict=True):
            written, on_it = (None if pd.isna(row[c]) else bool(row[c]) for c in ("written", "on_it"))
            excuse = ""
            if row["action"] == "elsewhere":
                excuse = row["evidence"]
            elif written is None:
                excuse = f"it is not known what it starts with: {row['evidence']}"
            elif not written and record.manager not in (None, "libvirt"):
                excuse = f"it belongs to {record.manager}, which writes its definition anew"
            elif not written and record.host is None:
                excuse = "it is not known on which host it is defined"
            yield Candidate(
                domain=str(domain),
                name=record.known.name if record.known is not None else record.name,
                uuid=record.known.uuid if record.known is not None else "",
                host=record.host or "",
                written=written,
                on_it=on_it,
                runs=record.runs,
                excuse=excuse,
                remedy=row["remedy"] if excuse else "",
            )

    def __repr__(self) -> str:
        counts = self.frame["action"].value_counts()
        told = ", ".join(f"{counts[action]} {action}" for action in _IN_WORDS if action in counts)
        return f"<Ledger of {self.base.model}, {len(self.frame)} guests: {told}; {_waves_in_words(len(self.waves))}>"

    def _repr_html_(self) -> str:
        shown = self.frame[self.frame["action"] != "none"]
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + shown.to_html(border=0, max_rows=20, na_rep="")


def restart_ledger(
    domains: Domains,
    base: Baseline,
    *,
    fleet: Fleet | None = None,
    together: Named = (),
    apart: Named = (),
    at_once: int | None = None,
) -> Ledger:
    """Says of each guest whether it runs with a baseline, whether that is stored, and when to power it off and on.

    Touches nothing: :func:`apply_baseline` writes, and people switch off.

    Parameters
    ----------
    domains : Domains
        Live and stored XML: the one is what a guest runs with, the other what it starts with next.
    base : Baseline
        Guests on other hosts than its own are left alone.
    fleet : Fleet, optional
        Hosts among which the guests are to move; says who can today. Its libvirts say what a model's name stands for.
    together : iterable of iterable of str
        Groups of guests that are switched off in one wave, those of them that have to be.
    apart : iterable of iterable of str
        Groups of guests of which no two are switched off in one wave.
    at_once : int, optional
        Most guests in a wave.

    Returns
    -------
    Ledger
        A guest is on the baseline where its live CPU is of that model and has its features, no more and no less. What
        a document does not say is *unknown*, and such a guest is in no wave.

    Raises
    ------
    FrameError
        ``at_once`` is below 1 or smaller than a group that stays together; a group names a guest that is not there, or
        two guests are to be both together and apart; the baseline is not one of x86.

    Notes
    -----
    Large groups are put first, each into the first wave that takes it. That is quick and need not be the fewest waves;
    ``fewest`` is a lower bound.

    Examples
    --------
    >>> import vmcompat as vc
    >>> fleet = vc.read_fleet("sample_caps/mixed").select("rack == 'ams-r1'")
    >>> domains = vc.read_domains("sample_caps/mixed/domains")
    >>> found = vc.restart_ledger(domains["web-01", "ldap-01", "app-01"], fleet.baseline(), fleet=fleet)
    >>> found
    <Ledger of Haswell-noTSX-IBRS, 3 guests: 2 write and cycle, 1 elsewhere; 1 wave>
    """
    if not base.gives:
        raise FrameError(f"the baseline {base.model} is not one of x86: what its guests get is not known here")
    if at_once is not None and at_once < 1:
        raise FrameError(f"at_once={at_once}: at least 1 guest at a time")
    rules = rules_of(domains, memory_share=1, vcpus_per_thread=1, together=together, apart=apart)
    libvirts = {} if fleet is None else {r.name: r.libvirt or "" for r in fleet.records}
    rows = [_row(record, base, libvirts.get(record.host or "", "")) for record in domains.records]
    if fleet is not None:
        _movements(rows, domains, fleet)
    cycling = [i for i, row in enumerate(rows) if row["action"] in CYCLES]
    waves, fewest = _waves(cycling, rules.together, rules.apart, at_once, domains.names)
    for number, wave in enumerate(waves, 1):
        for i in wave:
            rows[i]["wave"] = number
    return Ledger(
        frame=frame(LEDGER, rows, index=pd.Index(domains.names, dtype="str", name="domain")),
        waves=tuple(tuple(domains.names[i] for i in wave) for wave in waves),
        fewest=fewest,
        base=base,
        _records=domains.records,
    )


class _Distance(NamedTuple):
    """A CPU against the baseline: whether it is the same, None where that cannot be told, and why it is not.

    ``as_host`` is a CPU of which only its host decides what is in it.
    """

    same: bool | None
    beyond: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    why: str = ""
    as_host: bool = False


@lru_cache(maxsize=4096)
def _read(cpu: Cpu, libvirt: str) -> Reading:
    return reading(cpu, host="", libvirt=libvirt)


def _distance(cpu: Cpu | None, base: Baseline, libvirt: str) -> _Distance:
    if cpu is None:
        return _Distance(False, why="left to the hypervisor", as_host=True)
    if cpu.mode != "custom" or cpu.model is None:
        return _Distance(False, why=f"mode={cpu.mode!r}, whatever its host has", as_host=True)
    read = _read(cpu, libvirt)
    if read.status != "ok":
        return _Distance(None, why=read.reason)
    has, wanted = {*CpuMap.load().names(read.offered), *read.beyond}, base.gives
    listed = {name for name, policy in cpu.features if policy != "optional"}
    doubtful = set() if libvirt else set(differing_features(cpu.model)) - listed
    beyond, missing = _in_order(has - wanted), _in_order(wanted - has)
    more = f"with {some(beyond, most=8)} beyond the baseline" if beyond else ""
    less = f"without {some(missing, most=8)}" if missing else ""
    why = " and ".join(words for words in (more, less) if words)
    if cpu.model != base.model:
        return _Distance(False, beyond, missing, f"{cpu.model} {why}".strip())
    if why and {*beyond, *missing} <= doubtful:
        return _Distance(None, beyond, missing, f"it depends on its host's libvirt whether it is {cpu.model} {why}")
    return _Distance(not why, beyond, missing, f"{cpu.model} {why}")


def _row(record: DomainRecord, base: Baseline, libvirt: str) -> dict[str, Any]:
    live, stored, runs = record.live, record.stored, record.runs
    row: dict[str, Any] = {"host": record.host, "state": record.state, "manager": record.manager}
    row |= {"running": _named(live.cpu) if live else None, "stored": _named(stored.cpu) if stored else None}
    elsewhere = _elsewhere(record, base)
    if elsewhere:
        return row | {"action": "elsewhere", "evidence": elsewhere, "remedy": ""}
    now = _distance(live.cpu, base, libvirt) if live is not None else _Distance(None, why="there is no live XML of it")
    then = _distance(stored.cpu, base, libvirt) if stored is not None else _Distance(None, why=_NO_STORED)
    if base.view == "host" and live is not None and now.same is False and now.missing and not now.beyond:
        # what such a baseline names is not always given: this may be all that a start from it brings
        own = live.cpu is not None and live.cpu.model == base.model
        now = now._replace(same=None, why=f"{now.why}: perhaps not given at its start") if own else now
    row |= {"on_it": now.same if runs is not False else None, "written": then.same}
    row |= {"beyond": now.beyond, "missing": now.missing}
    row["action"] = _action(row["on_it"], row["written"], runs=runs)
    row["evidence"] = _evidence(record, now, then)
    row["remedy"] = _remedy(record, row)
    row["_ends"] = (then.as_host and not now.as_host) or bool(not then.as_host and set(then.beyond) - set(now.beyond))
    return row


_NO_STORED: Final = "there is no stored definition of it"


def _named(cpu: Cpu | None) -> str | None:
    return None if cpu is None else cpu.model if cpu.mode == "custom" else cpu.mode


def _elsewhere(record: DomainRecord, base: Baseline) -> str:
    if record.host is not None and record.host not in (*base.hosts, *base.missing):
        return f"it is on {record.host}, which is not among the hosts of the baseline"
    arch = record.known.arch if record.known is not None else None
    return f"it is {arch}, and the baseline is for x86" if arch is not None and arch not in X86 else ""


def _action(on_it: bool | None, written: bool | None, *, runs: bool | None) -> str:
    if written is None or runs is None or (runs and on_it is None):
        return "unknown"
    if not runs or on_it:
        return "none" if written else "write"
    return "cycle" if written else "write and cycle"


def _evidence(record: DomainRecord, now: _Distance, then: _Distance) -> str:
    stored = f"stored CPU: {'the baseline' if then.same else then.why}"
    if record.runs is False:
        return stored
    runs = "" if record.runs else "whether it runs is not known; "
    return f"{runs}running CPU: {'the baseline' if now.same else now.why}; {stored}"


def _remedy(record: DomainRecord, row: dict[str, Any]) -> str:
    name, uuid = (record.known.name, record.known.uuid) if record.known is not None else (record.name, "")
    quoted, action = shlex.quote(typed(name, uuid)), row["action"]
    if action == "unknown":
        fetch = "fetch its XML and read it too: virsh dumpxml, and virsh dumpxml --inactive"
        return (
            fetch if record.manager in (None, "libvirt") else f"{fetch}; what it starts with, {record.manager} decides"
        )
    steps = []
    if "write" in action:
        own = record.manager in (None, "libvirt")
        write = f"vc.apply_baseline({name!r}, base, source=URI, targets=[...])"
        steps.append(write if own else f"set the CPU in {record.manager}, which writes the definition anew")
    if action in CYCLES:
        steps.append(f"virsh shutdown --domain {quoted}; virsh start --domain {quoted} (a reboot inside is not enough)")
    return "; then ".join(steps)


def _movements(rows: list[dict[str, Any]], domains: Domains, fleet: Fleet) -> None:
    """Who can move today, and whose next start ends that."""
    reach = reachability(domains, fleet).domains
    for row, (_, answer) in zip(rows, reach.iterrows(), strict=True):
        if row["action"] == "elsewhere":
            continue
        n_hosts = int(answer["n_yes"] + answer["n_by_manager"])
        row["n_hosts"] = n_hosts
        row["moves_today"] = True if n_hosts else None if answer["n_unknown"] else False
        if n_hosts and row["running"] is not None and row["stored"] is not None and row["_ends"]:
            row["until"] = "power cycle"


def _waves(
    cycling: Sequence[int],
    together: Sequence[Sequence[int]],
    apart: Sequence[Sequence[int]],
    at_once: int | None,
    names: Sequence[str],
) -> tuple[list[list[int]], int]:
    """The guests in waves, and how many it takes at least."""
    if not cycling:
        return [], 0
    wanted, most = set(cycling), at_once or len(cycling)
    blocks = [[i for i in group if i in wanted] for group in together]
    bound = {i for block in blocks for i in block}
    blocks = [b for b in blocks if b] + [[i] for i in cycling if i not in bound]
    if wide := next((b for b in blocks if len(b) > most), None):
        raise FrameError(f"{some([names[i] for i in wide])} stay together, and at_once={at_once} are fewer")
    block_of = {i: number for number, block in enumerate(blocks) for i in block}
    parted = [{block_of[i] for i in group if i in wanted} for group in apart]

    def first(block: int) -> tuple[int, int, int]:
        """Large ones, then those that most others may not be with."""
        return -len(blocks[block]), -sum(len(group) for group in parted if block in group), blocks[block][0]

    waves: list[list[int]] = []
    for block in sorted(range(len(blocks)), key=first):
        rivals = set().union(*(p for p in parted if block in p)) - {block}
        fitting = (
            wave for wave in waves
            if not rivals & {block_of[i] for i in wave} and len(wave) + len(blocks[block]) <= most
        )  # fmt: skip
        wave = next(fitting, None)
        if wave is None:
            waves.append(wave := [])
        wave += blocks[block]
    fewest = max(-(-len(cycling) // most), *(len(p) for p in parted), 1)
    return [sorted(wave) for wave in waves], fewest


def _waves_in_words(n: int) -> str:
    return f"{n} wave{'s' * (n != 1)}"


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    order = CpuMap.load().index
    return tuple(sorted(names, key=lambda name: (order.get(name, len(order)), name)))
