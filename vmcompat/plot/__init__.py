"""Pictures that answer a question each; what they show is in the frames.

Every plot is called as ``plot.x(data, *, ax=None, visuals=None)`` and returns Axes; one of several panels takes a
mapping of Axes by their role and returns one. Without ``ax`` it makes a figure of the size that its content needs,
unknown to pyplot: nothing stays open, nothing global changes, and a notebook shows the Axes that a cell ends with.
``ax.figure.savefig("matrix.png")`` writes it. ``ax.get_label()`` is the picture in words, which is also the alternative
text of the image in a notebook.
"""

from __future__ import annotations

from vmcompat.plot.adoption import adoption
from vmcompat.plot.dendrogram import dendrogram
from vmcompat.plot.features import features
from vmcompat.plot.frontier import frontier
from vmcompat.plot.lattice import lattice
from vmcompat.plot.loss import loss
from vmcompat.plot.migration import migration
from vmcompat.plot.pools import pools
from vmcompat.plot.spreads import spreads
from vmcompat.plot.twins import twins
from vmcompat.plot.upset import upset

__all__ = [
    "adoption",
    "dendrogram",
    "features",
    "frontier",
    "lattice",
    "loss",
    "migration",
    "pools",
    "spreads",
    "twins",
    "upset",
]
