"""One table of colours, glyphs and hatches for all plots.

The colours stay apart for the usual kinds of colour blindness; where two would be the same grey on a black-and-white
print, a glyph or a hatch tells them apart. No colour depends on matplotlib's settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vmcompat.plot._bundles import Shared
from vmcompat.plot._clocks import Scaling, Width
from vmcompat.plot._differences import Twin
from vmcompat.plot._moves import Move
from vmcompat.plot._offers import Offer
from vmcompat.plot._places import Change
from vmcompat.plot._shares import Share

PAPER: Final = "#ffffff"
INK: Final = "#1f2328"
FAINT: Final = "#5b6470"
ALARM: Final = "#b3121d"

_HAS: Final = "#17507e"
_LOST: Final = "#f2b84b"
_LACKS: Final = "#eceff2"
_HATCH: Final = "#8a939e"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How one state of a cell is drawn, and what the legend says of it.

    Attributes
    ----------
    words : str
        The state in the legend.
    colour : str
        Of the cell.
    hatch, hatch_colour : str
        matplotlib's hatch; "" for none.
    glyph, glyph_colour : str
        matplotlib's marker; "" for none.
    """

    words: str
    colour: str
    hatch: str = ""
    hatch_colour: str = _HATCH
    glyph: str = ""
    glyph_colour: str = INK


OFFERS: Final[Mapping[int, Look]] = MappingProxyType(
    {
        Offer.KEPT: Look(words="offered, and the baseline keeps it", colour=_HAS),
        Offer.CAPABILITY_LOST: Look(words="capability lost: another host lacks it", colour=_LOST, glyph="x"),
        Offer.CONTROL_LOST: Look(
            words="mitigation control lost: a security finding", colour=ALARM, glyph="$!$", glyph_colour=PAPER
        ),
        Offer.HAZARD_LOST: Look(
            words="hazard lost: guests are not warned any more", colour=ALARM, glyph="^", glyph_colour=PAPER
        ),
        Offer.IMMUNITY_LOST: Look(words="immunity lost: costs speed, not safety", colour=_LOST, glyph="o"),
        Offer.NOISE_LOST: Look(
            words="lost, of no use to these guests", colour="#c9ced5", glyph=".", glyph_colour=FAINT
        ),
        Offer.LEFT_OUT: Look(
            words="left out: cannot be migrated, or an old libvirt hides it", colour="#b9a3cf", glyph="_"
        ),
        Offer.OFFERED: Look(words="offered; there is no baseline", colour="#6d8fae"),
        Offer.ABSENT: Look(words="not offered", colour=_LACKS),
        Offer.NOT_REPORTED: Look(
            words="not reported: the host's libvirt has no name for it", colour=PAPER, hatch="//////"
        ),
        Offer.UNKNOWN: Look(words="not known", colour="#dfe3e8", hatch="xxxxx", hatch_colour=FAINT),
    }
)

MOVES: Final[Mapping[int, Look]] = MappingProxyType(
    {
        Move.BOTH: Look(words="may move, and back again", colour=_HAS),
        Move.AMONG: Look(
            words="alike: may move among themselves (outlined: an island)", colour=_HAS, glyph="D", glyph_colour=PAPER
        ),
        Move.ONE_WAY: Look(words="may move, but not back", colour=_LOST, glyph=">"),
        Move.NO: Look(words="may not: the target lacks a feature, or its libvirt has no name for it", colour=_LACKS),
        Move.SAME: Look(words="the host itself", colour="#7f8894", glyph="D", glyph_colour=PAPER),
        Move.STRANDED: Look(
            words="cannot be drained: its guests can go to no known host", colour=ALARM, glyph="$!$", glyph_colour=PAPER
        ),
        Move.UNKNOWN: Look(words="not known", colour="#dfe3e8", hatch="xxxxx", hatch_colour=FAINT),
    }
)

PLACES: Final[Mapping[int, Look]] = MappingProxyType(
    {
        Change.MOVES: Look(words="moves to this pool", colour="#2f8f83", glyph=">", glyph_colour=PAPER),
        Change.RESTARTS: Look(words="its guests have to restart", colour="#7d5aa6", glyph="+", glyph_colour=PAPER),
        Change.STAYS: Look(words="as today", colour=_LACKS),
        **OFFERS,
        Offer.KEPT: Look(words="offered, and the pool keeps it", colour=_HAS),
        Offer.CAPABILITY_LOST: Look(
            words="capability given up: another host of the pool lacks it", colour=_LOST, glyph="x"
        ),
    }
)

TWINS: Final[Mapping[int, Look]] = MappingProxyType(
    {
        Twin.NO_CONTROL: Look(
            words="lacks a mitigation control: a security finding", colour=ALARM, glyph="$!$", glyph_colour=PAPER
        ),
        Twin.NO_HAZARD: Look(words="is not warned of a hazard", colour=ALARM, glyph="^", glyph_colour=PAPER),
        Twin.NO_CAPABILITY: Look(words="lacks a capability", colour=_LOST, glyph="x"),
        Twin.NO_IMMUNITY: Look(words="lacks an immunity: costs speed, not safety", colour=_LOST, glyph="o"),
        Twin.NO_NOISE: Look(words="lacks what is of no use to guests", colour="#c9ced5", glyph=".", glyph_colour=FAINT),
        Twin.HAS: Look(words="has it, or its libvirt has no name for it", colour="#b9cfe2"),
        Twin.OTHERWISE: Look(words="another value", colour=_LOST, glyph="D"),
        Twin.USUAL: Look(words="the usual value, or not known", colour="#d3dae2"),
        Twin.SOME: Look(words="some of these hosts", colour="#f7dca8", hatch="//////", hatch_colour=FAINT),
        Twin.EVIDENCE: Look(
            words="this tells them apart without exception", colour="#4a525c", glyph="D", glyph_colour=PAPER
        ),
        Twin.NO_EVIDENCE: Look(words="this does not", colour=_LACKS),
    }
)

_NOT_KNOWN: Final = Look(words="not known", colour="#dfe3e8", hatch="xxxxx", hatch_colour=FAINT)

BUNDLES: Final[Mapping[int, Look]] = MappingProxyType(
    {
        Shared.ALL: Look(words="all hosts of the group offer it", colour=PAPER, glyph="8", glyph_colour=_HAS),
        Shared.SOME: Look(words="some do, others do not", colour=PAPER, glyph="o", glyph_colour="#a85c00"),
        Shared.NONE: Look(words="none does", colour=PAPER, glyph=".", glyph_colour="#b7bec7"),
        Shared.ALL_TOLD: Look(
            words="all do whose libvirt has a name for it", colour=PAPER, hatch="//////", glyph="8", glyph_colour=_HAS
        ),
        Shared.NONE_TOLD: Look(
            words="none does whose libvirt has a name for it", colour=PAPER, hatch="//////", glyph=".", glyph_colour=INK
        ),
        Shared.NOT_REPORTED: Look(words="not reported: their libvirt has no name for it", colour=PAPER, hatch="//////"),
        Shared.UNKNOWN: _NOT_KNOWN,
    }
)

SHARES: Final[Mapping[int, Look]] = MappingProxyType(
    {
        Share.HAS: Look(words="has it", colour=_HAS),
        Share.LACKS: Look(words="lacks it", colour="#dde2e7"),
        Share.EXCLUDED: Look(
            words="lacks the level: such a baseline excludes it", colour=_LOST, hatch="...", hatch_colour=INK
        ),
        Share.NOT_REPORTED: Look(words="not reported: its libvirt has no name for it", colour=PAPER, hatch="//////"),
        Share.UNKNOWN: Look(words="CPU not known", colour="#dfe3e8", hatch="xxxxx", hatch_colour=FAINT),
        Share.ELSEWHERE: Look(
            words="of another vendor or architecture: it means nothing there", colour=PAPER, glyph="_"
        ),
    }
)

SCALING: Final[Mapping[int, Look]] = MappingProxyType(
    {
        Scaling.YES: Look(words="says that it scales: takes any frequency", colour=PAPER, glyph="D", glyph_colour=_HAS),
        Scaling.NO: Look(words="does not scale", colour=PAPER, glyph="o", glyph_colour="#a85c00"),
        Scaling.NOT_TOLD: Look(words="does not say whether it scales", colour=PAPER, glyph="x", glyph_colour=FAINT),
    }
)

WIDTHS: Final[Mapping[int, Look]] = MappingProxyType(
    {
        Width.USUAL: Look(words="hosts with so many bits", colour="#b9cfe2"),
        Width.LOWEST: Look(
            words="fewer than others of the group: a guest of these may not fit", colour=_LOST, glyph="v"
        ),
        Width.UNKNOWN: _NOT_KNOWN,
    }
)

LEVELS: Final[Mapping[str, Look]] = MappingProxyType(
    {
        "x86-64-v4": Look(words="x86-64-v4", colour=PAPER, glyph="D", glyph_colour=_HAS),
        "x86-64-v3": Look(words="x86-64-v3", colour=PAPER, glyph="s", glyph_colour="#4f86b5"),
        "x86-64-v2": Look(words="x86-64-v2", colour=PAPER, glyph="^", glyph_colour="#d9920a"),
        "x86-64-v1": Look(words="x86-64-v1", colour=PAPER, glyph="v", glyph_colour="#8f6fb0"),
        "": Look(words="below x86-64-v1", colour=PAPER, glyph="o", glyph_colour=FAINT),
    }
)
"""How a baseline of an ABI level is marked."""

LINES: Final = (
    ("#17507e", "-"),
    ("#c26a00", (0, (5, 1.5))),
    ("#7d5aa6", (0, (1.2, 1.2))),
    ("#5b6470", (0, (6, 1.5, 1, 1.5))),
    ("#2f8f83", (0, (3, 1, 1, 1, 1, 1))),
    ("#8a939e", (0, (8, 3))),
)
"""Colour and dashes of the lines of one picture, in their order."""
