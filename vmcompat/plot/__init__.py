"""Pictures that answer a question each; what they show is in the frames.

Every plot is called as ``plot.x(fleet, *, ax=None, visuals=None)`` and returns Axes. Without ``ax`` it makes a figure
of the size that its content needs, unknown to pyplot: nothing stays open, nothing global changes, and a notebook shows
the Axes that a cell ends with. ``ax.figure.savefig("matrix.png")`` writes it. ``ax.get_label()`` is the picture in
words, which is also the alternative text of the image in a notebook.
"""

from __future__ import annotations

from vmcompat.plot.features import features
from vmcompat.plot.migration import migration

__all__ = ["features", "migration"]
