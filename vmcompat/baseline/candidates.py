"""Which named CPU models could join hosts without lowering their baseline, by what their names stand for."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.baseline.common import Baseline
from vmcompat.baseline.meanings import in_words, level, meaning
from vmcompat.baseline.what_if import worth
from vmcompat.baseline.worth import Value, feature_values
from vmcompat.errors import FrameError
from vmcompat.fleet.expand import version
from vmcompat.fleet.frames import Fleet
from vmcompat.schema import CANDIDATES, frame

_SHOWN: Final = 4
_TELLS_DEPRECATED: Final = (7, 1)  # the first libvirt whose domain capabilities say it of a model
_COLUMN_OF: Final = {
    "capability": "capabilities",
    "control": "controls",
    "immunity": "immunities",
    "hazard": "hazards",
    "noise": "host_facts",
}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Candidates:
    """Which named models could join hosts without lowering their baseline.

    Attributes
    ----------
    frame : DataFrame
        One row a model of their vendor: columns of ``schema.CANDIDATES``, index ``model``.
    unnamed : tuple of str
        What the baseline gives and no named model of the vendor stands for: only documents of a host can tell.
    base : Baseline
    """

    frame: pd.DataFrame
    unnamed: tuple[str, ...]
    base: Baseline

    def explain(self) -> list[str]:
        """One sentence for models that lack the same, those that lack least first."""
        alike: dict[tuple[Any, ...], list[str]] = {}
        columns = ("verdict", "value_lacking", *_COLUMN_OF.values())
        for row in self.frame.reset_index().to_dict("records"):
            alike.setdefault(tuple(row[c] for c in columns), []).append(row["model"])
        order = {"joins": 0, "cannot tell": 1, "lacks": 2}
        found = sorted(alike.items(), key=lambda item: (order[item[0][0]], item[0][1]))
        told = [_candidate(dict(zip(columns, key, strict=True)), models) for key, models in found]
        if self.unnamed:
            names = in_words(self.unnamed)
            told.insert(0, f"no named model stands for {names}: only the documents of a host can tell")
        return told

    def __repr__(self) -> str:
        counts = self.frame["verdict"].value_counts()
        told = ", ".join(f"{counts.get(v, 0)} {v}" for v in ("joins", "cannot tell", "lacks"))
        return f"<Candidates for {len(self.base.hosts)} hosts of {self.base.model}: {told}>"

    def _repr_html_(self) -> str:
        shown = self.frame.sort_values("value_lacking", kind="stable")
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + shown.to_html(border=0, max_rows=20, na_rep="")


def candidates(fleet: Fleet, *, base: Baseline, value: Value = None) -> Candidates:
    """Judges which CPU models of the fleet's map could join hosts without lowering their baseline.

    Parameters
    ----------
    fleet : Fleet
    base : Baseline
        Of hosts of the fleet.
    value : mapping, Series or callable, optional
        As for :func:`~vmcompat.baseline.maximal.maximal_baselines`.

    Returns
    -------
    Candidates
        What counts is what each name stands for. A host of the model can offer more than its name says, never less, so
        that only *joins* is sure; :func:`~vmcompat.baseline.generations.admit` answers once there are documents.

    Raises
    ------
    FrameError
        A host of the baseline is not in the fleet, or it was made with another map.

    Examples
    --------
    >>> import vmcompat as vc
    >>> fleet = vc.read_fleet("sample_caps/mixed")
    >>> found = vc.candidates(fleet, base=fleet.select("vendor == 'AMD'").baseline())
    >>> found.frame.loc[["EPYC-Rome", "EPYC-Turin"], "verdict"].tolist()
    ['lacks', 'cannot tell']
    """
    cpu_map = fleet.cpu_map
    positions = fleet.positions(base.hosts)
    if base.universe != cpu_map.features:
        raise FrameError("the baseline was made with another CPU map than the fleet's: make it of this fleet")
    first = fleet.readings[positions[0]]
    vendor = (first.cpu and first.cpu.vendor) or first.model_vendor
    weights = feature_values(cpu_map.features, vendor, value)
    models = [m for m in cpu_map.models.values() if m.vendor == vendor]
    gives, named = cpu_map.set_of(base.gives), 0
    for m in models:
        named |= m.data
    facts = cpu_map.set_of(f for f in cpu_map.features if meaning(f).polarity == "noise")
    deprecated = _deprecated(fleet)
    rows: list[dict[str, Any]] = []
    for m in models:
        lacking, untold = gives & named & ~m.data, gives & ~named
        row: dict[str, Any] = {"vendor": m.vendor, "deprecated": deprecated.get(m.name)}
        row["verdict"] = "lacks" if lacking & ~facts else "cannot tell" if lacking | untold else "joins"
        row["level"] = level(frozenset(cpu_map.names(gives & m.data)))
        row["value_lacking"] = worth(lacking, weights, cpu_map)
        for polarity, column in _COLUMN_OF.items():
            row[column] = tuple(f for f in cpu_map.names(lacking) if meaning(f).polarity == polarity)
        rows.append(row | {"unnamed": tuple(cpu_map.names(untold))})
    index = pd.Index([m.name for m in models], dtype="str", name="model")
    unnamed = tuple(cpu_map.names(gives & ~named))
    return Candidates(frame=frame(CANDIDATES, rows, index=index), unnamed=unnamed, base=base)


def _deprecated(fleet: Fleet) -> dict[str, bool]:
    """Whether the emulator of some host calls a model deprecated, for the models of which one says anything."""
    found: dict[str, bool] = {}
    for record in fleet.records:
        tells = version(record.libvirt or "") >= _TELLS_DEPRECATED
        for m in chain.from_iterable(d.models for d in record.documents):
            if tells or m.deprecated:
                found[m.name] = found.get(m.name, False) or m.deprecated
    return found


def _candidate(row: Mapping[str, Any], models: Sequence[str]) -> str:
    who = some(models, _SHOWN)
    if row["verdict"] == "joins":
        return f"{who}: joins without loss"
    lacking = [f for column in _COLUMN_OF.values() for f in row[column]]
    if not lacking:
        return f"{who}: lacks nothing that a named model stands for"
    return f"{who}: by name it lacks {in_words(lacking)} (value {row['value_lacking']:g})"
