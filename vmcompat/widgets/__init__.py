"""Explorers for a notebook: choose, weigh and suppose, and see the answer at once.

Each is an ipywidgets box that only shows; what it knows and answers is a plain state without a widget. Nothing that one
clicks here touches a host, and no request leaves the machine.
"""

from __future__ import annotations

try:
    from vmcompat.widgets.explorer import explore
    from vmcompat.widgets.planner import pools
except ModuleNotFoundError as e:
    if e.name != "ipywidgets":
        raise
    raise ModuleNotFoundError("vc.widgets needs ipywidgets: pip install 'vmcompat[notebook]'", name=e.name) from e

__all__ = ["explore", "pools"]
