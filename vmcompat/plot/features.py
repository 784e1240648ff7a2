"""Hosts by features: who offers what, and what a baseline keeps of it."""

from __future__ import annotations

from typing import Final

from matplotlib.axes import Axes

from vmcompat.fleet.frames import Fleet
from vmcompat.plot import _canvas as canvas
from vmcompat.plot._fold import count
from vmcompat.plot._matrix import draw_matrix
from vmcompat.plot._offers import RED, FeatureTable, Offer, fold_features
from vmcompat.plot._style import OFFERS

_TITLE: Final = "What each host offers, and what the baseline of its vendor keeps"


def features(fleet: Fleet, *, ax: Axes | None = None, visuals: canvas.Visuals | None = None) -> Axes:
    """Hosts by features, grouped by meaning, with what a baseline would keep and drop.

    One block of rows for each architecture and vendor, under the band of its baseline (``fleet.baselines()``; hosts
    whose CPU is not known are left out of it, as its title says). Hosts that are alike are one row, named after the
    first with the number of the others; features of one group that are alike on every host are one column. Features
    that no known host offers are not drawn, and counted. Hosts whose CPU is not known are rows of hatching at the end,
    with the reason.

    Parameters
    ----------
    fleet : Fleet
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
        The fleet has no host, or ``visuals`` names a part that is not there.

    Notes
    -----
    At most 80 different kinds of host are drawn, those of most hosts, and 160 columns; what is not drawn is counted
    in a row or column of its own.

    Examples
    --------
    >>> import vmcompat as vc
    >>> ax = vc.plot.features(vc.read_fleet("sample_caps/virsh_pair"))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['baseline', 'sandybridge', 'westmere']
    """
    table = fold_features(fleet)
    subtitle = _subtitle(fleet, table)
    ax = draw_matrix(
        ax,
        table,
        OFFERS,
        band="baseline",
        with_glyph=(*RED, Offer.LEFT_OUT),
        title=_TITLE,
        subtitle=subtitle,
        visuals=visuals,
    )
    ax.set_label(_in_words(subtitle, table))
    return ax


def _subtitle(fleet: Fleet, table: FeatureTable) -> str:
    known = len(fleet) - len(fleet.unknown)
    view = f"{fleet.view} view" + (f" ({fleet.virttype})" if fleet.view == "hypervisor" else "")
    drawn = sum(len(c.features) for c in table.columns)
    columns = f"{count(drawn, 'feature')} in {count(len(table.columns), 'column')}"
    absent = f", {table.absent} more that no known host offers" if table.absent else ""
    return f"{count(len(fleet), 'host')}, {known} known; {view}, CPU map {fleet.cpu_map.version}; {columns}{absent}"


def _in_words(subtitle: str, table: FeatureTable) -> str:
    """The picture for those who cannot see it."""
    unknown = [f"{kind.label}: {kind.note}" for kind in table.unknown]
    sentences = [f"Matrix of hosts by features. {subtitle}", *(b.title for b in table.blocks)]
    return ". ".join(sentences) + (f". Not known: {'; '.join(unknown)}." if unknown else ".")
