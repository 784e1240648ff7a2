"""Widgets for a notebook: choose, weigh and suppose, and see the answer at once.

Each is an ipywidgets box that only shows; what it knows and answers is a plain state without a widget. Nothing that one
clicks in an explorer touches a host, and the browser asks nobody for anything. `migrate` asks the hosts it was given,
and moves a guest only with ``allow_run=True``, by a button that was armed.
"""

from __future__ import annotations

try:
    from vmcompat.widgets.explorer import explore
    from vmcompat.widgets.migrator import migrate
    from vmcompat.widgets.planner import pools
except ModuleNotFoundError as e:
    if e.name != "ipywidgets":
        raise
    raise ModuleNotFoundError("vc.widgets needs ipywidgets: pip install 'vmcompat[notebook]'", name=e.name) from e

__all__ = ["explore", "migrate", "pools"]
