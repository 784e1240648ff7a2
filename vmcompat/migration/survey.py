"""The checks of a migration plan for many domains and many targets at once, each host and guest asked live."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pandas as pd

from vmcompat.errors import MigrationError
from vmcompat.migration.migrate import plan_migration
from vmcompat.schema import PREFLIGHT, PREFLIGHTS, frame

_AT_ONCE: Final = 8  # plans that are made at a time


def preflight(domains: str | Iterable[str], source: str, targets: str | Iterable[str], **options: Any) -> pd.DataFrame:
    """What stands in the way of each domain to each target, all findings at once; touches nothing.

    Parameters
    ----------
    domains : str or iterable of str
        Names, on the source.
    source : str
        URI of the host where they are.
    targets : str or iterable of str
        URIs of the hosts that they may go to.
    **options
        As :func:`vmcompat.plan_migration` takes them; ``peer_uri`` and ``migrate_uri`` with one target only.

    Returns
    -------
    DataFrame
        Columns of ``schema.PREFLIGHTS``: the findings of a plan, with domain and target (as it calls itself) in front;
        by domain, then by target, in the order given.

    Raises
    ------
    ConnectError
        A host cannot be reached, or the source has no such domain.
    MigrationError
        As by :func:`vmcompat.plan_migration`; or the address of one target for several.

    Notes
    -----
    From files alone, for thousands of guests: :func:`vmcompat.reachability`.
    """
    names = [domains] if isinstance(domains, str) else list(dict.fromkeys(domains))
    uris = [targets] if isinstance(targets, str) else list(dict.fromkeys(targets))
    if len(uris) > 1 and (named := [n for n in ("peer_uri", "migrate_uri") if options.get(n)]):
        raise MigrationError(f"{' and '.join(named)}: the address of one target, and there are {len(uris)}")
    pairs = [(name, uri) for name in names for uri in uris]
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        plans = list(pool.map(lambda pair: plan_migration(pair[0], source, pair[1], **options), pairs))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    rows = [
        {"domain": plan.order.domain, "target": plan.seen.target.name, "forced": f.id in plan.order.forced}
        | {column: getattr(f, column) for column in PREFLIGHT if column != "forced"}
        for plan in plans
        for f in plan.order.findings
    ]
    return frame(PREFLIGHTS, rows)
