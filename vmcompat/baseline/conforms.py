"""Does every host still satisfy what is deployed? The question of every night."""

from __future__ import annotations

import html
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.baseline.common import Baseline
from vmcompat.baseline.compare import MISSING, Comparison, as_cpu, comparisons
from vmcompat.baseline.meanings import in_words, meaning
from vmcompat.errors import FrameError
from vmcompat.fleet.cpu import Cpu
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import BREACHES, CONFORMS, frame

Deployed: TypeAlias = str | Cpu | Baseline
_VERDICTS: Final = {"identical": "yes", "superset": "yes", "incompatible": "no", "unknown": "unknown"}
_COLUMNS: Final = ("conforms", "baseline", "reason", "missing", "unreported")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Conformance:
    """Whether the hosts satisfy what is deployed.

    Attributes
    ----------
    frame : DataFrame
        One row a host, in the order of the fleet: columns of ``schema.CONFORMS``, index ``host``.
    by : str or None
        Column of ``fleet.hosts`` that says which baseline is a host's.
    fleet : Fleet
        The one that was asked about.
    """

    frame: pd.DataFrame
    by: str | None
    fleet: Fleet

    @property
    def ok(self) -> bool:
        """Whether every host is known to satisfy what is deployed; one that cannot be judged is not."""
        return bool((self.frame["conforms"] == "yes").all())

    @cached_property
    def features(self) -> pd.DataFrame:
        """What is missing, and where: columns of ``schema.BREACHES``."""
        places: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
        for row in self._doubtful():
            for i, column in enumerate(("missing", "unreported")):
                for name in row[column]:
                    places.setdefault((row["baseline"], name), ([], []))[i].append(row["host"])
        order = {label: i for i, label in enumerate(self.frame["baseline"].unique())}
        index = self.fleet.cpu_map.index
        found = sorted(places.items(), key=lambda item: (order[item[0][0]], index[item[0][1]]))
        return frame(BREACHES, (_breach(*key, *hosts) for key, hosts in found))

    def explain(self) -> list[str]:
        """One sentence for each baseline and reason why hosts may not satisfy it, what is known first."""
        counts = self.frame["conforms"].value_counts()
        n_yes = int(counts.get("yes", 0))
        if n_yes == len(self.frame):
            return [f"{'the host satisfies' if n_yes == 1 else f'all {n_yes} hosts satisfy'} what is deployed"]
        groups: dict[tuple[Any, ...], list[str]] = {}
        for row in self._doubtful():
            groups.setdefault(tuple(row[c] for c in _COLUMNS), []).append(row["host"])
        found = sorted(groups.items(), key=lambda item: item[0][0] != "no")  # stable: else in the fleet's order
        told = [_sentence(dict(zip(_COLUMNS, key, strict=True)), hosts) for key, hosts in found]
        return [*told, f"{n_yes} of {len(self.frame)} hosts satisfy what is deployed"]

    def _doubtful(self) -> list[dict[Any, Any]]:
        """Rows of the hosts that do not satisfy it for sure, with their names; None where there is no baseline."""
        rows = self.frame[self.frame["conforms"] != "yes"].reset_index()
        return rows.astype(object).where(rows.notna(), None).to_dict("records")

    def __repr__(self) -> str:
        counts = self.frame["conforms"].value_counts()
        told = ", ".join(f"{counts.get(v, 0)} {v}" for v in ("yes", "no", "unknown"))
        return f"<Conformance of {len(self.frame)} hosts{f' by {self.by}' if self.by else ''}: {told}>"

    def _repr_html_(self) -> str:
        shown = self.frame[self.frame["conforms"] != "yes"]
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + shown.to_html(border=0, max_rows=20, na_rep="")


def conforms(fleet: Fleet, *, baseline: Deployed | Mapping[Any, Deployed], by: str | None = None) -> Conformance:
    """Judges every host by what is deployed on it.

    Parameters
    ----------
    fleet : Fleet
    baseline : Baseline, str or Cpu, or mapping to these
        A baseline is judged by its ``guest_xml``; a text is that of a ``<cpu>``. With ``by`` one for each value of that
        column.
    by : str, optional
        Column of ``fleet.hosts`` that says which baseline is a host's, such as ``"rack"``.

    Returns
    -------
    Conformance
        By the rules of :meth:`Fleet.compare`. Where the CPU of a host is not known, or what is missing is only what its
        libvirt has no name for, or no baseline is given for its value of ``by``, the answer is unknown.

    Raises
    ------
    FrameError
        There are no hosts, no such column, a mapping without ``by`` or ``by`` without a mapping, or a key that no host
        has.
    CpuMapError
        A model or feature that the fleet's map does not know.
    DocumentError
        A text that is no ``<cpu>``.

    Notes
    -----
    Hosts that are alike are compared once.

    Examples
    --------
    >>> import vmcompat as vc
    >>> fleet = vc.read_fleet("sample_caps/mixed")
    >>> deployed = fleet["ams-r1-h01", "ams-r1-h08"].baseline()
    >>> found = vc.conforms(fleet.select("rack == 'ams-r1'"), baseline=deployed)
    >>> found
    <Conformance of 8 hosts: 7 yes, 1 no, 0 unknown>
    >>> print(found.explain()[0])
    Haswell-noTSX-IBRS: ams-r1-h06 is known to lack vmx
    """
    if not len(fleet):
        raise FrameError("no hosts to judge: an empty fleet satisfies nothing")
    index = pd.Index(fleet.names, dtype="str", name="host")
    if not isinstance(baseline, Mapping):
        if by is not None:
            raise FrameError(f"by={by!r} asks for a baseline for each of its values: give a mapping of these")
        label = as_cpu(baseline, what="the baseline").model
        rows = [_row(c, label) for c in comparisons(fleet, baseline)]
    else:
        rows = _by_label(fleet, baseline, by)
    return Conformance(frame=frame(CONFORMS, rows, index=index), by=by, fleet=fleet)


def _by_label(fleet: Fleet, deployed: Mapping[Any, Deployed], by: str | None) -> list[dict[str, Any]]:
    if by is None:
        raise FrameError("baselines by label: say with by= which column of fleet.hosts holds the labels")
    if by not in fleet.hosts.columns:
        raise FrameError(f"no column {by!r}; columns: {', '.join(fleet.hosts.columns)}")
    labels: list[Hashable] = fleet.hosts[by].astype(object).where(fleet.hosts[by].notna(), None).tolist()
    positions: dict[Hashable, list[int]] = {}
    for i, label in enumerate(labels):
        positions.setdefault(label, []).append(i)
    if strange := [str(label) for label in deployed if label not in positions]:
        raise FrameError(f"baselines for {some(strange)}, which no host has in its column {by!r}")
    rows: list[dict[str, Any]] = [{}] * len(fleet)
    for label, at in positions.items():
        if label in deployed:
            part = fleet[[fleet.names[i] for i in at]]
            answers = [_row(c, str(label)) for c in comparisons(part, deployed[label])]
        else:
            why = f"it has no value in column {by!r}" if label is None else f"no baseline is given for {by} {label}"
            none = Comparison("unknown", why)
            answers = [_row(none, None)] * len(at)
        for i, row in zip(at, answers, strict=True):
            rows[i] = row
    return rows


def _row(answer: Comparison, label: str | None) -> dict[str, Any]:
    row = {"conforms": _VERDICTS[answer.result], "baseline": label, "unreported": answer.unreported}
    if answer.reason == MISSING:
        return row | {"reason": answer.reason, "missing": answer.features}
    there = answer.features if answer.result == "incompatible" else ()  # features that the CPU forbids
    return row | {"reason": f"{answer.reason}{': ' if there else ''}{', '.join(there)}"}


def _breach(baseline: str, feature: str, missing_on: list[str], unreported_on: list[str]) -> dict[str, Any]:
    what = meaning(feature)
    return {
        "baseline": baseline,
        "feature": feature,
        "group": what.group,
        "polarity": what.polarity,
        "n_missing": len(missing_on),
        "n_unreported": len(unreported_on),
        "missing_on": tuple(missing_on),
        "unreported_on": tuple(unreported_on),
    }


def _sentence(found: Mapping[str, Any], hosts: list[str]) -> str:
    are, libvirt = ("is", "its libvirt") if len(hosts) == 1 else ("are", "their libvirt")
    missing, unreported = in_words(found["missing"]), found["unreported"]
    if missing and unreported:
        told = f"{are} known to lack {missing} (and cannot report {len(unreported)} more)"
    elif missing:
        told = f"{are} known to lack {missing}"
    elif unreported:
        told = f"cannot be judged: {libvirt} has no name for {in_words(unreported)}"
    else:
        told = f"{'cannot be judged' if found['conforms'] == 'unknown' else f'{are} refused'} ({found['reason']})"
    label = f"{found['baseline']}: " if found["baseline"] else ""
    return f"{label}{some(hosts)} {told}"
