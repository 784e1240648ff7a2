"""Hosts sorted into their pools: what each keeps and gives up, and who moves for it."""

from __future__ import annotations

from typing import Final

from matplotlib.axes import Axes

from vmcompat.baseline.pools import Pools
from vmcompat.plot import _canvas as canvas
from vmcompat.plot._fold import count
from vmcompat.plot._matrix import draw_matrix
from vmcompat.plot._offers import RED, FeatureTable, Offer
from vmcompat.plot._places import Change, fold_places
from vmcompat.plot._style import PLACES

_TITLE: Final = "Who belongs together: what each pool keeps and gives up"


def pools(pools: Pools, *, ax: Axes | None = None, visuals: canvas.Visuals | None = None) -> Axes:
    """Hosts by features under the pools that they are sorted into, with the moves from today.

    One block of rows for each pool, under the band of what it keeps and gives up. Hosts of one model that offer the
    same and go the same way are one row; features of one group that are alike everywhere are one column. Where the
    pools are a change from today's, two columns mark the hosts that move and those whose guests have to restart, and
    the note says where they come from. Hosts whose CPU is not known are rows of hatching at the end.

    Parameters
    ----------
    pools : Pools
        From ``vc.pools``.
    ax : Axes, optional
        Where to draw. Default: a figure of its own, as large as its content needs.
    visuals : mapping of str to mapping or False, optional
        Keywords for the artists of a part, or False to leave it out: title, groups, feature_labels, host_labels, notes,
        block_titles, cells, hatches, glyphs, legend.

    Returns
    -------
    Axes
        One unit is one cell; ``get_label()`` says in words what is drawn. A notebook shows it where a cell ends with
        it; ``ax.figure.savefig(...)`` writes it.

    Raises
    ------
    FrameError
        ``visuals`` names a part that is not there.

    Notes
    -----
    At most 80 different kinds of host are drawn, those that move first, then those of most hosts, and 160 columns; what
    is not drawn is counted in a row or column of its own.

    Examples
    --------
    >>> import vmcompat as vc
    >>> rack = vc.read_fleet("sample_caps/mixed").select("rack == 'ams-r2'")
    >>> [label.get_text() for label in vc.plot.pools(vc.pools(rack, 2)).get_yticklabels()]
    ['pool', 'ams-r2-h01 +4', 'ams-r2-h08 +2', 'pool', 'ams-r2-h03', 'ams-r2-h07']
    """
    table = fold_places(pools)
    subtitle = _subtitle(pools)
    ax = draw_matrix(
        ax,
        table,
        PLACES,
        band="pool",
        with_glyph=(*RED, Offer.LEFT_OUT, Change.MOVES, Change.RESTARTS),
        title=_TITLE,
        subtitle=subtitle,
        visuals=visuals,
    )
    ax.set_label(_in_words(subtitle, table))
    return ax


def _subtitle(pools: Pools) -> str:
    n = f"{count(len(pools.frame), 'pool')} of {count(len(pools.placement), 'host')}"
    unit = f" ({pools.capacity} x value)" if pools.capacity else ""
    proof = "proven to be the best" if pools.optimal else f"not proven: at most {pools.bound:,.0f}, gap {pools.gap:.1%}"
    told = f"{n}: value kept {pools.value:,.0f}{unit}, {proof}"
    if pools.won is not None:
        restarts = int(pools.placement["restarts"].sum())
        told += f"; from today {count(len(pools.moves), 'move')} and {pools.won:+,.0f}"
        told += f", guests of {count(restarts, 'host')} restart" if restarts else ", no guest restarts"
    return told + (f"; without {count(len(pools.missing), 'host')} not known" if pools.missing else "")


def _in_words(subtitle: str, table: FeatureTable) -> str:
    """The picture for those who cannot see it."""
    unknown = [f"{kind.label}: {kind.note}" for kind in table.unknown]
    sentences = [f"Hosts in their pools. {subtitle}", *(b.title for b in table.blocks)]
    return ". ".join(sentences) + (f". Not known: {'; '.join(unknown)}." if unknown else ".")
