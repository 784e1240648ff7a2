"""Named CPU models: which hosts can use which, and the best name that every host of a group can use."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, reduce
from typing import Any, Final

import numpy as np
import pandas as pd

from vmcompat.baseline.answer import answers, some
from vmcompat.baseline.choice import QEMU_DRIVER_HIDES
from vmcompat.baseline.meanings import NEEDLESS, level, meanings
from vmcompat.baseline.usable import NOT_LISTED, UNKNOWN, Kind, Say, kinds_of, names_of, stands_for
from vmcompat.baseline.worth import Exact, Value, feature_values
from vmcompat.errors import FrameError, NoBaselineError
from vmcompat.fleet.cpu_map import CpuMap, CpuModel
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import BEST_MODELS, CPU_STATUS, MODELS, frame

_TAKEN_AWAY: Final = ("hle", "rtm")  # by microcode, from hosts that had them: a name without them is the safer one
_WAYS: Final = ("refused", "lacking", "unknown", "not listed")  # the one that a domain's XML can mend comes first
_ADVISORY: Final = "advisory: computed from the CPU of the hosts themselves, not from what their hypervisors say"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Models:
    """Which hosts can use which named models.

    Attributes
    ----------
    best : DataFrame
        One row a group, largest first: columns of ``schema.BEST_MODELS``; index ``arch``, ``vendor`` and ``by``.
    missing : tuple of str
        Hosts that no group counts since their CPU is not known, with their status.
    warnings : tuple of str
        What a planner must know before using this answer.
    fleet : Fleet
        The one that was asked about.
    """

    best: pd.DataFrame
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    fleet: Fleet
    kinds: tuple[Kind, ...]
    kind_of_host: tuple[int, ...]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Every model on every host: columns of ``schema.MODELS``; index ``host``, ``model``.

        Hosts in the order of the fleet, models in that of the map; on a host of another architecture just the models
        that it lists. ``frame["usable"].unstack("host")`` is the table of models by hosts.
        """
        x86 = names_of(self.kinds, self.fleet.cpu_map)
        rows_of = [
            [(n, k.says.get(n, NOT_LISTED if k.says else UNKNOWN)) for n in x86] if k.x86 else list(k.says.items())
            for k in self.kinds
        ]
        codes, models = pd.factorize(np.array([n for rows in rows_of for n, _ in rows], dtype=object))
        ends = np.cumsum([0, *map(len, rows_of)])
        at = [np.arange(ends[k], ends[k + 1]) for k in self.kind_of_host]
        rows = np.concatenate([np.empty(0, dtype=np.int64), *at])
        index = pd.MultiIndex(
            levels=(pd.Index(self.fleet.names, dtype="str"), pd.Index(models, dtype="str")),  # type: ignore[arg-type]
            codes=(np.repeat(np.arange(len(at)), [len(a) for a in at]), codes[rows]),  # type: ignore[arg-type]
            names=["host", "model"],
        )
        said = frame(MODELS, (say._asdict() for rows in rows_of for _, say in rows))
        return said.take(rows).set_axis(index)

    def explain(self) -> list[str]:
        """One sentence a group."""
        rows = self.best.reset_index().to_dict("records")
        return [_sentence(label, row) for label, row in zip(_labels(self.best.index), rows, strict=True)]

    def __repr__(self) -> str:
        pairs = zip(self.best["model"], _labels(self.best.index), strict=True)
        found = ", ".join(f"{model} for {label}" for model, label in pairs if isinstance(model, str))
        return f"<Models of {len(self.fleet)} hosts: {found or 'no name that all hosts of a group can use'}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + self.best.to_html(border=0, na_rep="")


def models(fleet: Fleet, *, by: str | None = None, value: Value = None, allow_missing: bool = False) -> Models:
    """Finds which hosts can use which named CPU models, and for each group the best that all of its hosts can use.

    Parameters
    ----------
    fleet : Fleet
        In the hypervisor view the answer is that of the domain capabilities; where these are of a libvirt that writes
        no blockers, they are computed. In the host view everything is computed from the CPU map.
    by : str, optional
        A column of ``fleet.hosts`` to group by, beside architecture and vendor.
    value : mapping, Series or callable, optional
        Weight of a feature, as for :func:`~vmcompat.baseline.maximal.maximal_baselines`.
    allow_missing : bool
        Answer although the CPU of some hosts is not known; they are named in ``missing``.

    Returns
    -------
    Models

    Raises
    ------
    NoBaselineError
        The CPU of a host is not known.
    FrameError
        No such column, or a weight that is none or negative.

    Notes
    -----
    What a name stands for is looked up in the map of the libvirt that wrote a host's document, since it is that libvirt
    that starts the guest; features that the map marks as added to or removed from a model are no part of it. A name
    gives a group what it stands for on every one of its hosts, as far as all of these offer it. Of names worth the same
    the one that is not deprecated is recommended, then one without hle and rtm, which microcode takes away, then that
    of most default value, then the plain name rather than the versioned one, then the first of the map.

    That the emulator can give a model is not all: libvirt before 11.3 compares the model of its own map with the host
    before it starts a guest. Where they differ, as for mpx on Ice Lake, the plain name is ``refused`` and is not
    recommended. In the host view what KVM can add to a CPU, such as x2apic, counts as lacking. QEMU's models are not
    quite those of the map: what is computed may name mpx or monitor where QEMU does not ask for it, and not pku or ss.

    Linear in the hosts; what is costly is asked once for hosts alike.

    Examples
    --------
    >>> import vmcompat as vc
    >>> found = vc.models(vc.read_fleet("sample_caps/virsh_pair"))
    >>> found.best["model"].tolist()
    ['Westmere']
    >>> found.frame["usable"].unstack("host").loc[["Westmere", "SandyBridge"]].to_numpy().tolist()
    [['yes', 'yes'], ['yes', 'no']]
    """
    hosts = fleet.hosts
    if by is not None and by not in hosts.columns:
        raise FrameError(f"no column {by!r} to group by; columns: {', '.join(hosts.columns)}")
    missing = tuple(f"{h} ({status})" for h, status in hosts["cpu_status"].loc[fleet.unknown].items())
    if missing and not allow_missing:
        raise NoBaselineError(
            f"the CPU of {len(missing)} of {len(fleet)} hosts is not known: {some(missing)}. See fleet.findings; mend "
            f"or drop them, or give allow_missing=True to answer without them"
        )
    kinds, kind_of_host = kinds_of(fleet)
    notes = [_ADVISORY] if fleet.view == "host" else []
    if missing:
        notes.append(f"without {some(missing)}, whose CPU is not known")
    return Models(
        best=best_of(fleet, kinds, kind_of_host, by=by, value=value),
        missing=missing,
        warnings=tuple(notes),
        fleet=fleet,
        kinds=tuple(kinds),
        kind_of_host=tuple(kind_of_host),
    )


class _Worth:
    """What sets of features are worth to hosts of one vendor: whole numbers, each sum made once."""

    def __init__(self, exact: Exact) -> None:
        self.per_one = exact.per_one
        self.weights: list[int] = exact.multiples.tolist()
        self._sums: dict[int, int] = {}

    def of(self, features: int) -> int:
        if features not in self._sums:
            self._sums[features] = sum(self.weights[i] for i in _bits(features))
        return self._sums[features]


@dataclass(frozen=True, eq=False)
class _Group:
    """Hosts that are to run the same named model: how many of them are of which kind, and what they share."""

    cpu_map: CpuMap
    kinds: Mapping[int, Kind]
    counts: Mapping[int, int]
    vendor: str | None
    shared: int
    worth: _Worth
    usual: _Worth

    @cached_property
    def candidates(self) -> list[CpuModel]:
        """Models of the map that fit the vendor and that some host can name, the most recommendable first."""
        named = set(names_of(self.kinds.values(), self.cpu_map))
        fitting = [m for m in self.cpu_map.models.values() if m.name in named and m.vendor in (None, self.vendor)]
        return sorted(fitting, key=self._rank)

    def _rank(self, model: CpuModel) -> tuple[float, ...]:
        fragile = bool(model.data & self.cpu_map.set_of(_TAKEN_AWAY))
        given = self.gives(model)
        ours, usual = self.worth.of(given), self.usual.of(given)
        return (-ours, self.deprecated(model), fragile, -usual, model.base is not None)

    def means(self, model: CpuModel) -> int:
        """What the name stands for on every one of the hosts."""
        sets = [stands_for(model.name, writer, self.cpu_map) for writer in {k.writer for k in self.kinds.values()}]
        return reduce(int.__and__, (s[0] for s in sets if s is not None)) & ~_held_back(self.cpu_map)

    def gives(self, model: CpuModel) -> int:
        """What the name gives a guest, as far as all hosts offer it."""
        return self.means(model) & self.shared

    def deprecated(self, model: CpuModel) -> bool:
        """Whether a host's emulator calls it so."""
        return any(k.says[model.name].deprecated for k in self.kinds.values() if model.name in k.says)

    def cannot(self, model: CpuModel) -> dict[int, Say]:
        """The kinds of hosts that cannot use the model, or of which that is not known, and what is said there."""
        said = {i: k.says.get(model.name, NOT_LISTED) for i, k in self.kinds.items()}
        return {i: say for i, say in said.items() if say.usable != "yes" or say.refused}

    def verdict(self) -> dict[str, Any]:
        """Columns of ``schema.BEST_MODELS``; ``blocking`` are the kinds of the hosts that ``closest`` fails on."""
        usable = [m for m in self.candidates if not self.cannot(m)]
        row: dict[str, Any] = {
            "baseline_features": self.shared.bit_count(),
            "baseline_level": level(self.cpu_map.names(self.shared)),
        }
        if usable:
            row |= self._recommended(usable[0])
            others = [m for m in usable[1:] if (m.base or m.name) != (usable[0].base or usable[0].name)]
            if others:
                row |= self._runner_up(others[0], usable[0])
        return row | self._closest(self.worth.of(self.means(usable[0])) if usable else -1)

    def _recommended(self, model: CpuModel) -> dict[str, Any]:
        given = self.gives(model)
        lost = self.shared & ~given
        names = self.cpu_map.names(lost)
        return {
            "model": model.name,
            "deprecated": self.deprecated(model),
            "n_features": given.bit_count(),
            "value": self.worth.of(given) / self.worth.per_one,
            "level": level(self.cpu_map.names(given)),
            "given_up": tuple(sorted(names, key=lambda n: -self.worth.weights[self.cpu_map.index[n]])),
            "value_given_up": self.worth.of(lost) / self.worth.per_one,
            "controls_given_up": self._controls(names),
        }

    def _runner_up(self, model: CpuModel, best: CpuModel) -> dict[str, Any]:
        more = self.gives(model) & ~self.gives(best)
        return {
            "runner_up": model.name,
            "runner_up_value": self.worth.of(self.gives(model)) / self.worth.per_one,
            "runner_up_adds": tuple(self.cpu_map.names(more)),
        }

    def _closest(self, value: int) -> dict[str, Any]:
        """The model of more value than this that fails on the fewest hosts, if some can use it."""
        failing: dict[CpuModel, tuple[int, int, int]] = {}
        for m in self.candidates:
            if (more := self.worth.of(self.means(m))) > value:
                ways = {i: _WAYS.index(_how(say)) for i, say in self.cannot(m).items()}
                n_hosts = sum(self.counts[i] for i in ways)
                if 0 < n_hosts < sum(self.counts.values()):
                    failing[m] = (n_hosts, max(ways.values()), -more)
        if not failing:
            return {"blocking": ()}
        closest = min(failing, key=lambda m: failing[m])
        said = self.cannot(closest)
        features = {name for say in said.values() for name in (*say.blockers, *say.refused)}
        index = self.cpu_map.index
        return {
            "closest": closest.name,
            "blocking": said,
            "blocking_features": tuple(sorted(features, key=lambda n: (index.get(n, len(index)), n))),
            "blocked_by": ", ".join(dict.fromkeys(_how(say) for say in said.values())),
        }

    def _controls(self, lost: list[str]) -> tuple[str, ...]:
        """Mitigation controls among these that the hosts need."""
        known = meanings(lost, vendor=self.vendor)
        controls = known.index[(known["polarity"] == "control") & (known["value"] > 0)]
        offered = set(self.cpu_map.names(self.shared))
        return tuple(c for c in controls if not (c in NEEDLESS and NEEDLESS[c] <= offered))


def _how(say: Say) -> str:
    """In which of the ways a host keeps a model from being used."""
    if say.usable == "yes":
        return "refused"
    if say.usable == "unknown":
        return "unknown"
    return "not listed" if say.told == "not listed" else "lacking"


@cache
def _held_back(cpu_map: CpuMap) -> int:
    """What no guest is given, whatever its model."""
    return cpu_map.blocked | cpu_map.set_of(QEMU_DRIVER_HIDES)


def _bits(features: int) -> Iterator[int]:
    while features:
        low = features & -features
        yield low.bit_length() - 1
        features ^= low


def best_of(
    fleet: Fleet, kinds: Sequence[Kind], kind_of_host: Sequence[int], *, by: str | None, value: Value
) -> pd.DataFrame:
    """See ``schema.BEST_MODELS``."""
    hosts = fleet.hosts
    keys = ["arch", "vendor", *([by] if by else [])]
    number = hosts.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
    groups = [np.flatnonzero(number == i).tolist() for i in range(number.max(initial=-1) + 1)]
    groups.sort(key=lambda positions: (-len(positions), positions[0]))
    exact = answers(
        fleet, groups, migratable=True, driver="qemu", cpu_map=fleet.cpu_map, asked_of=None, allow_missing=True
    )
    labels = hosts[keys].iloc[[positions[0] for positions in groups]]
    worth: dict[str | None, tuple[_Worth, _Worth]] = {}
    rows: list[dict[str, Any]] = []
    for positions, answer in zip(groups, exact, strict=True):
        known = [i for i in positions if fleet.readings[i].status == "ok"]
        row: dict[str, Any] = {"n_hosts": len(positions), "n_unknown": len(positions) - len(known)}
        if isinstance(answer, NoBaselineError) or not known:
            why = dict.fromkeys(CPU_STATUS[fleet.readings[i].status] for i in positions)
            row["reason"] = str(answer) if known else f"the CPU of none of the hosts is known ({', '.join(why)})"
        else:
            counts = Counter(kind_of_host[i] for i in known)
            vendor = None if pd.isna(named := labels["vendor"].iloc[len(rows)]) else str(named)
            if vendor not in worth:
                ours, usual = (_Worth(feature_values(fleet.cpu_map.features, vendor, v)) for v in (value, None))
                worth[vendor] = (ours, usual)
            group = _Group(
                cpu_map=fleet.cpu_map,
                kinds={k: kinds[k] for k in counts},
                counts=counts,
                vendor=vendor,
                shared=answer.shared & ~_held_back(fleet.cpu_map),
                worth=worth[vendor][0],
                usual=worth[vendor][1],
            )
            row |= group.verdict() | {"baseline": answer.model.name}
            hosts_of = row.pop("blocking")
            row["blocking_hosts"] = tuple(fleet.names[i] for i in known if kind_of_host[i] in hosts_of)
        rows.append(row)
    return frame(BEST_MODELS, rows, index=pd.MultiIndex.from_frame(labels))


def _labels(index: pd.Index) -> list[str]:
    """What groups are called: by the column's value, where that says it all."""
    named = [
        [f"{what} unknown" if pd.isna(v) else str(v) for v, what in zip(key, index.names, strict=True)] for key in index
    ]
    kinds, values = [" ".join(key[:2]) for key in named], [" ".join(key[2:]) for key in named]
    alone = Counter(values)
    return [
        kind if not value else value if alone[value] == 1 else f"{value} ({kind})"
        for kind, value in zip(kinds, values, strict=True)
    ]


def _sentence(label: str, row: Mapping[Hashable, Any]) -> str:
    if isinstance(row["reason"], str):
        return f"{label}: {row['reason']}"
    n = row["n_hosts"] - row["n_unknown"]
    who = f"all {n} hosts" if n > 1 else "the one host"
    if row["n_unknown"]:
        who += f" whose CPU is known (of {row['n_hosts']})"
    if isinstance(row["model"], str):
        flag = ", deprecated" if row["deprecated"] else ""
        text = f"{label}: {who} can use {row['model']} ({_level(row['level'])}{flag}); {_cost(row)}"
    else:
        text = f"{label}: no named model can be used by {who}"
    if isinstance(row["runner_up"], str):
        less = row["value"] - row["runner_up_value"]
        adds = f", but with {some(row['runner_up_adds'])}" if row["runner_up_adds"] and not less else ""
        text += f"; next best {row['runner_up']}, worth {f'{less:g} less' if less else f'as much{adds}'}"
    return text + (_beyond(row) if isinstance(row["closest"], str) else "")


def _level(name: object) -> str:
    return name if isinstance(name, str) else "below x86-64-v1"


def _cost(row: Mapping[Hashable, Any]) -> str:
    lost, controls = row["given_up"], row["controls_given_up"]
    exact = f"the exact baseline ({row['baseline_features']} features, {_level(row['baseline_level'])})"
    if not lost:
        return f"it gives all of {exact}"
    text = f"against {exact} it gives up {len(lost)} {'feature' if len(lost) == 1 else 'features'}"
    if not row["value_given_up"]:
        return f"{text} of no weight ({some(lost, 3)})"
    text += f" ({some(lost, 3)}), {row['value_given_up']:g} of {row['value'] + row['value_given_up']:g} in value"
    if controls:
        what = "a mitigation control" if len(controls) == 1 else "mitigation controls"
        text += f", {len(controls)} of them {what} ({some(controls)})"
    return text


def _beyond(row: Mapping[Hashable, Any]) -> str:
    """The next model up, and what keeps which hosts from it."""
    hosts, features = some(row["blocking_hosts"], 3), some(row["blocking_features"])
    better = f"; {row['closest']} would give more, but"
    match row["blocked_by"]:
        case "lacking" if features:
            return f"{better} not on {hosts}: no {features}"
        case "refused":
            return f"{better} the libvirt of {hosts} refuses it unless the domain disables {features}"
        case "not listed":
            return f"{better} {hosts} {'knows' if len(row['blocking_hosts']) == 1 else 'know'} no such name"
        case "unknown":
            return (
                f"{better} it is not known of {hosts}{f', whose libvirt cannot report {features}' if features else ''}"
            )
    return f"{better} not on {hosts} ({row['blocked_by']}{f': {features}' if features else ''})"
