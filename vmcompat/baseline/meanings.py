"""What each x86 CPU feature is for: group, polarity, vendor, default weight and one line in plain words.

The facts are rows of ``meanings.csv``, one a feature of libvirt's CPU map, ordered as `GROUPS` and inside a
group as the newest map. Names are libvirt's own; a feature without a row is group "other".

Five polarities, which must never be added up together:

capability
    Losing it costs speed or a function.
control
    A mitigation that a guest can switch on. Losing it is a security finding where the hosts are of the
    control's vendor and lack the immunities that make it needless (`NEEDLESS`).
immunity
    The CPU needs no mitigation. Losing it costs speed only; a guest that was told so and then runs on a host
    without it is exposed.
hazard
    The CPU says "beware". The safe answer for a group is the union; an intersection that loses one is a
    finding.
noise
    A fact of the host, of no use to a guest's baseline.

The default weight (``value``), all in one rule:

* A control weighs 50: more than any single step between the ABI levels (at most 45), because a pool that is
  faster but open is no better pool. Of another vendor than the hosts' it weighs 0.
* An immunity weighs 3 and is bound to its vendor in the same way.
* A hazard weighs 3, because a pool that keeps it tells its guests the truth.
* A capability weighs what its group does: base, simd and crypto 5; memory and OS, timing 2; wide simd,
  profiling, other 1; tsx and mpx, nested virtualization, confidential and enclave 0, because a planner sets
  hosts apart for these on purpose and never by their number.
* Noise weighs 0, and so does what cannot migrate (xsaves, invtsc).

A number in the table's ``value`` column replaces the rule's for that one feature (the features that decide
alone, such as aes, pcid and the vmx and svm bits, more; those that repeat others or left the market, less).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TypeVar

import pandas as pd

_T = TypeVar("_T")

POLARITIES: tuple[str, ...] = ("capability", "control", "immunity", "hazard", "noise")

GROUPS: tuple[str, ...] = (
    "base",
    "simd",
    "wide simd",
    "crypto",
    "memory and OS",
    "mitigation controls",
    "immunities",
    "hazards",
    "timing",
    "tsx and mpx",
    "nested virtualization",
    "confidential and enclave",
    "profiling",
    "host facts",
    "other",
)

_WEIGHT_BY_POLARITY = {"control": 50.0, "immunity": 3.0, "hazard": 3.0, "noise": 0.0}
_WEIGHT_BY_GROUP = {
    "base": 5.0,
    "simd": 5.0,
    "crypto": 5.0,
    "memory and OS": 2.0,
    "timing": 2.0,
    "tsx and mpx": 0.0,
    "nested virtualization": 0.0,
    "confidential and enclave": 0.0,
}

_IN_WORDS = {
    "control": ("control", "controls"),
    "capability": ("", ""),
    "immunity": ("immunity", "immunities"),
    "hazard": ("hazard", "hazards"),
    "noise": ("host fact", "host facts"),
}

# Hygon's CPUs are Zen under licence and carry AMD's controls.
CONTROLS_OF = {"Intel": "Intel", "AMD": "AMD", "Hygon": "AMD"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """One feature as a planner needs to know it.

    Attributes
    ----------
    feature : str
        libvirt's name.
    group : str
        One of `GROUPS`.
    polarity : str
        One of `POLARITIES`.
    vendor : str
        "Intel" or "AMD" where the bit means something on that vendor's CPUs only (every control and immunity,
        and the hazards of branch prediction), else "".
    value : float
        Default weight, at least 0, no unit; the rule is in the module's description.
    text : str
        What it does, in one line.
    """

    feature: str
    group: str
    polarity: str
    vendor: str
    value: float
    text: str


class _Lazy(Mapping[str, _T]):
    """A mapping that is read on first use, so that importing it costs nothing."""

    def __init__(self, read: Callable[[], Mapping[str, _T]]) -> None:
        self._read = read

    def __getitem__(self, key: str) -> _T:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(dict(self._read()))


def _weight(group: str, polarity: str) -> float:
    by_group = _WEIGHT_BY_GROUP.get(group, 1.0)
    return _WEIGHT_BY_POLARITY.get(polarity, by_group)


@cache
def _rows() -> tuple[dict[str, str], ...]:
    table = (files("vmcompat.baseline") / "meanings.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(table.splitlines()))


@cache
def _read_meanings() -> dict[str, Meaning]:
    return {
        row["feature"]: Meaning(
            feature=row["feature"],
            group=row["group"],
            polarity=row["polarity"],
            vendor=row["vendor"],
            value=float(row["value"] or _weight(row["group"], row["polarity"])),
            text=row["meaning"],
        )
        for row in _rows()
    }


@cache
def _read_switches() -> dict[str, frozenset[str]]:
    names = ("tsx", "mpx", "nested", "avx512", "amx", "sgx")
    return {n: frozenset(row["feature"] for row in _rows() if n in row["switches"].split()) for n in names}


MEANINGS: Mapping[str, Meaning] = _Lazy(_read_meanings)
"""Every feature of the newest CPU map by its name, in the table's order."""

SWITCHES: Mapping[str, frozenset[str]] = _Lazy(_read_switches)
"""Features that are left out of a baseline together, because the guest sees them as one thing.

Besides the features of that name a bundle holds what is of no use without them: the VMX controls that only
serve MPX or SGX, and the large-state switch (xfd) of AMX.
"""


def _levels() -> Mapping[str, frozenset[str]]:
    steps = {
        "x86-64-v1": "cmov cx8 fpu fxsr mmx sse sse2 syscall lm",
        "x86-64-v2": "cx16 lahf_lm popcnt pni sse4.1 sse4.2 ssse3",
        "x86-64-v3": "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave",
        "x86-64-v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
    }
    levels: dict[str, frozenset[str]] = {}
    needed: frozenset[str] = frozenset()
    for name, step in steps.items():
        needed |= frozenset(step.split())
        levels[name] = needed
    return MappingProxyType(levels)


LEVELS: Mapping[str, frozenset[str]] = _levels()
"""All features that each level of the x86-64 psABI asks for, lowest first; each level holds the one before.

osxsave, which the psABI names for v3, is set by the running system and no property of the CPU: xsave stands
for it.
"""

NEEDLESS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "md-clear": frozenset({"mds-no", "taa-no"}),
        "flush-l1d": frozenset({"rdctl-no"}),
        "ssbd": frozenset({"ssb-no"}),
        "fb-clear": frozenset({"sbdr-ssdp-no", "fbsdp-no", "psdp-no"}),
        "rfds-clear": frozenset({"rfds-no"}),
        "amd-ssbd": frozenset({"amd-no-ssb"}),
        "virt-ssbd": frozenset({"amd-no-ssb"}),
        "verw-clear": frozenset({"tsa-sq-no", "tsa-l1-no"}),
        "ibpb-brtype": frozenset({"srso-no"}),
    }
)
"""Controls that are needless on a host with *all* of these immunities; the other controls are never needless.

bhi-no does not stand here for bhi-ctrl: it rules out attacks from user mode, not those inside the kernel.
"""


def meaning(feature: str) -> Meaning:
    """What one feature is for.

    Parameters
    ----------
    feature : str
        libvirt's name of the feature.

    Returns
    -------
    Meaning
        Its row; for a name without a row group "other", polarity "capability" and a text that says so.

    Examples
    --------
    >>> meaning("pcid").text
    'keeps TLB entries across address-space switches; softens the cost of the Meltdown fix'
    >>> meaning("md-clear").polarity, meaning("md-clear").vendor
    ('control', 'Intel')
    >>> meaning("zzz").group, meaning("zzz").text
    ('other', 'no meaning known to this version of vmcompat')
    """
    try:
        return MEANINGS[feature]
    except KeyError:
        group, polarity = "other", "capability"
        return Meaning(
            feature=feature,
            group=group,
            polarity=polarity,
            vendor="",
            value=_weight(group, polarity),
            text="no meaning known to this version of vmcompat",
        )


def polarity_on(feature: str, vendor: str | None) -> str:
    """Polarity of a feature on hosts of a vendor: what is bound to another vendor's CPUs is noise there.

    Parameters
    ----------
    feature : str
        libvirt's name.
    vendor : str or None
        libvirt's vendor of the hosts; for None, and vendors without controls of their own, everything keeps its
        polarity.

    Examples
    --------
    >>> polarity_on("amd-stibp", "AMD"), polarity_on("amd-stibp", "Intel")
    ('control', 'noise')
    """
    what, own = meaning(feature), CONTROLS_OF.get(vendor or "")
    return "noise" if own and what.vendor not in ("", own) else what.polarity


def meanings(features: Iterable[str], *, vendor: str | None = None) -> pd.DataFrame:
    """Features with what they are for, in the order given.

    Parameters
    ----------
    features : iterable of str
        libvirt's names.
    vendor : str, optional
        libvirt's vendor of the hosts in question ("Intel", "AMD", "Hygon"): what is bound to another vendor
        then weighs 0. Without it, and for vendors that have no controls of their own in the map, everything
        keeps its weight.

    Returns
    -------
    DataFrame
        Index ``feature``; columns ``group``, ``polarity``, ``vendor``, ``value`` (float) and ``text``.

    Examples
    --------
    >>> on_amd = meanings(["aes", "ssbd", "amd-ssbd", "zzz"], vendor="AMD")
    >>> on_amd["polarity"].tolist()
    ['capability', 'control', 'control', 'capability']
    >>> on_amd["value"].to_dict()
    {'aes': 10.0, 'ssbd': 0.0, 'amd-ssbd': 50.0, 'zzz': 1.0}
    """
    rows = [meaning(feature) for feature in features]
    own = None if vendor is None else CONTROLS_OF.get(vendor)
    return pd.DataFrame(
        {
            "group": pd.Series([row.group for row in rows], dtype="str"),
            "polarity": pd.Series([row.polarity for row in rows], dtype="str"),
            "vendor": pd.Series([row.vendor for row in rows], dtype="str"),
            "value": pd.Series(
                [0.0 if own and row.vendor not in ("", own) else row.value for row in rows], dtype="float64"
            ),
            "text": pd.Series([row.text for row in rows], dtype="str"),
        }
    ).set_axis(pd.Index([row.feature for row in rows], dtype="str", name="feature"), axis="index")


def in_words(
    features: Iterable[str],
    *,
    weights: Mapping[str, float] | None = None,
    vendor: str | None = None,
    most: int = 4,
) -> str:
    """Features as a sentence names them: polarities apart, controls first.

    Parameters
    ----------
    features : iterable of str
    weights : mapping of str to float, optional
        The weightiest come first, and those of weight 0 are only counted where others have one. Default: the default
        weights, and none is only counted.
    vendor : str, optional
        libvirt's vendor of the hosts: what is bound to another vendor's CPUs is named with the facts of the host.
    most : int
        How many of each polarity are named.

    Examples
    --------
    >>> in_words(["aes", "md-clear", "avx", "mds-no", "cmt"], most=1)
    'control md-clear; aes and 1 more; immunity mds-no; host fact cmt'
    >>> in_words(["avx", "hle", "rtm"], weights={"avx": 5, "hle": 0, "rtm": 0})
    'avx; 2 without value'
    """
    names = list(features)
    told = sorted(names, key=lambda f: -(meaning(f).value if weights is None else weights.get(f, 0.0)))
    worthless = 0 if weights is None else sum(not weights.get(f) for f in names)
    if 0 < worthless < len(names):
        told = told[:-worthless]
    parts = []
    for polarity, (one, many) in _IN_WORDS.items():
        chosen = [f for f in told if polarity_on(f, vendor) == polarity]
        if chosen:
            more = f" and {len(chosen) - most} more" if len(chosen) > most else ""
            parts.append(f"{one if len(chosen) == 1 else many} {', '.join(chosen[:most])}{more}".lstrip())
    if len(told) < len(names):
        parts.append(f"{worthless} without value")
    return "; ".join(parts)


def level(features: Collection[str]) -> str | None:
    """Highest x86-64 psABI level that a CPU meets in full, with every level below it.

    Parameters
    ----------
    features : collection of str
        Names of the features that the CPU has.

    Returns
    -------
    str or None
        A key of `LEVELS`, or None where not even x86-64-v1 is whole.

    Examples
    --------
    >>> level(LEVELS["x86-64-v3"] - {"movbe"})
    'x86-64-v2'
    >>> level(["fpu", "cmov"]) is None
    True
    """
    names = frozenset(features)
    whole = [name for name, needed in LEVELS.items() if needed <= names]
    return whole[-1] if whole else None
