"""One table of colours, glyphs and hatches for all plots.

The colours stay apart for the usual kinds of colour blindness; where two would be the same grey on a black-and-white
print, a glyph or a hatch tells them apart. No colour depends on matplotlib's settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vmcompat.plot._moves import Move
from vmcompat.plot._offers import Offer

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
        Move.AMONG: Look(words="alike: may move among themselves", colour=_HAS, glyph="D", glyph_colour=PAPER),
        Move.ONE_WAY: Look(words="may move, but not back", colour=_LOST, glyph=">"),
        Move.NO: Look(words="may not: the target lacks a feature, or its libvirt has no name for it", colour=_LACKS),
        Move.SAME: Look(words="the host itself", colour="#7f8894", glyph="D", glyph_colour=PAPER),
        Move.UNKNOWN: Look(words="not known", colour="#dfe3e8", hatch="xxxxx", hatch_colour=FAINT),
    }
)
