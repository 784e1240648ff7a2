"""What an audit was given, and the answers that its report is made of, each computed once when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Final, TypeAlias

import pandas as pd

from vmcompat.audit.record import Record
from vmcompat.audit.waivers import Waiver
from vmcompat.baseline.common import Baseline
from vmcompat.baseline.conforms import Conformance, Deployed, conforms
from vmcompat.baseline.drift import Drift, drift
from vmcompat.baseline.pools import Pools
from vmcompat.baseline.pools import pools as best_pools
from vmcompat.baseline.twins import Twins, twins
from vmcompat.baseline.veto import Veto, veto
from vmcompat.errors import FrameError, NoBaselineError, VmcompatError
from vmcompat.fleet.frames import Fleet
from vmcompat.migration.demand import demand
from vmcompat.migration.domains import Domains
from vmcompat.migration.reach import Reachability, reachability

Promise: TypeAlias = Deployed | Mapping[Any, Deployed]

GROUP_COLUMNS: Final = ("rack", "cluster", "pool")
ALIKE_COLUMNS: Final = ("server", "purchased")
_HOSTS_A_MOVE: Final = 10  # one host in so many may move
_PROOF_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Hosts that swap guests today: of one architecture, vendor and value of ``by``.

    Attributes
    ----------
    label : str
    hosts : tuple of str
        Known or not.
    unknown : tuple of str
        Those of them whose CPU is not known.
    base : Baseline or None
        Of those that are known.
    reason : str
        Why there is none.
    """

    label: str
    hosts: tuple[str, ...]
    unknown: tuple[str, ...]
    base: Baseline | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Case:
    """The inputs of one audit.

    Attributes
    ----------
    fleet : Fleet
    domains : Domains or None
    deployed : Baseline, Cpu, str, or mapping to these, or None
        What is deployed: one baseline for all hosts, or one for each value of ``by``.
    given_plan : Pools or None
    before : Record or None
        What the earlier report said, or what the earlier documents say.
    waivers : tuple of Waiver or None
    at : date
        The day of the audit: what it says of waivers is true then.
    by : str or None
        Column of ``fleet.hosts`` that says which hosts swap guests today.
    alike : tuple of str
        Columns that say which hosts should be identical.
    """

    fleet: Fleet
    domains: Domains | None = None
    deployed: Promise | None = None
    given_plan: Pools | None = None
    before: Record | None = None
    waivers: tuple[Waiver, ...] | None = None
    at: date
    by: str | None
    alike: tuple[str, ...]

    @cached_property
    def host_view(self) -> Fleet:
        """The hosts by what they are (``virsh capabilities``)."""
        return self.fleet if self.fleet.view == "host" else self.fleet.with_view("host")

    @cached_property
    def guest_view(self) -> Fleet:
        """The hosts by what their hypervisors can give (``virsh domcapabilities``)."""
        return self.fleet if self.fleet.view == "hypervisor" else self.fleet.with_view("hypervisor")

    @cached_property
    def known(self) -> Fleet:
        """The hosts whose CPU is known."""
        return self.fleet.drop(*self.fleet.unknown)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Those that swap guests today, most hosts first."""
        rows = self.fleet.baselines(by=self.by, allow_missing=True).reset_index().to_dict("records")
        parts = [self._label_parts(row) for row in rows]
        unknown = frozenset(self.fleet.unknown)
        groups = []
        for row, own in zip(rows, parts, strict=True):
            # as short as no other group has it
            short = (own[:n] for n in range(1 if self.by else 2, 3))
            label = next((s for s in short if sum(p[: len(s)] == s for p in parts) == 1), own)
            hosts = tuple(row["hosts"])
            base, reason = None, ""
            try:
                base = self.fleet.baseline(hosts, allow_missing=True)
            except NoBaselineError as e:
                reason = str(e)
            groups.append(
                Group(label=" ".join(label).strip(), hosts=hosts, unknown=tuple(h for h in hosts if h in unknown),
                      base=base, reason=reason)
            )  # fmt: skip
        return tuple(groups)

    def _label_parts(self, row: Mapping[Any, Any]) -> tuple[str, str, str]:
        value = "" if self.by is None else f"no {self.by}" if pd.isna(row[self.by]) else str(row[self.by])
        vendor = row["vendor"] if isinstance(row["vendor"], str) else "vendor not known"
        return value, vendor, row["arch"] if isinstance(row["arch"], str) else "architecture not known"

    @cached_property
    def group_of(self) -> Mapping[str, str]:
        """Label of the group of each host."""
        return {host: group.label for group in self.groups for host in group.hosts}

    @cached_property
    def twins(self) -> Twins:
        """Hosts that should be identical and are not."""
        return twins(self.fleet, by=self.alike)

    @cached_property
    def conformance(self) -> Conformance | None:
        """Whether hosts satisfy what is deployed; None where that was not given."""
        if self.deployed is None:
            return None
        by = self.by if isinstance(self.deployed, Mapping) else None
        return conforms(self.fleet, baseline=self.deployed, by=by)

    @cached_property
    def vetoes(self) -> Mapping[str, Veto]:
        """Who keeps what from whom within each group of two or more known hosts."""
        found = {}
        for group in self.groups:
            hosts = [h for h in group.hosts if h not in group.unknown]
            if len(hosts) > 1 and group.base is not None:
                found[group.label] = veto(self.fleet[hosts])
        return found

    @cached_property
    def reach(self) -> Reachability | None:
        """Where guests can go; None without guests."""
        return None if self.domains is None else reachability(self.domains, self.guest_view)

    @cached_property
    def demand(self) -> pd.DataFrame | None:
        """What guests need of a host; None without guests."""
        return None if self.domains is None else demand(self.domains, fleet=self.guest_view)

    @cached_property
    def running(self) -> pd.Series:
        """Number of running guests by host, 0 where none was given."""
        count = pd.Series(0, index=pd.Index(self.fleet.names, name="host"), dtype="int64")
        if self.domains is not None:
            guests = self.domains.frame
            on = guests.loc[guests["live"], "host"].value_counts()
            count = on.reindex(count.index, fill_value=0).astype("int64")
        return count

    @cached_property
    def plan(self) -> Pools | None:
        """The recommended pools: as given, else the best near today's groups; None where :attr:`no_plan` says why."""
        return self._planned[0]

    @property
    def no_plan(self) -> str:
        """Why there are no recommended pools."""
        return self._planned[1]

    @cached_property
    def _planned(self) -> tuple[Pools | None, str]:
        if self.given_plan is not None:
            return self.given_plan, ""
        if self.by is None:
            return None, f"no column says which hosts swap guests today ({', '.join(GROUP_COLUMNS)}, or give by=)"
        if not len(self.known):
            return None, "the CPU of no host is known"
        k = sum(group.base is not None for group in self.groups)
        try:
            plan = best_pools(
                self.known, k, current=self.by, max_moves=max(2, len(self.known) // _HOSTS_A_MOVE),
                restart_cost=self.running[list(self.known.names)], time_limit=_PROOF_SECONDS,
            )  # fmt: skip
        except VmcompatError as e:
            return None, str(e)
        return plan, ""

    @cached_property
    def record(self) -> Record:
        """The hosts of this audit, as the next one compares with them."""
        return Record.of(self.fleet)

    @cached_property
    def changes(self) -> Drift | None:
        """What has changed in the hosts since then; None without an earlier report.

        Raises
        ------
        FrameError
            The two were seen in different views.
        """
        return None if self.before is None else drift(self.before, self.record)


def group_column(fleet: Fleet, by: str | None) -> str | None:
    """The column that says which hosts swap guests: as given, else the usual one that there is.

    Raises
    ------
    FrameError
        No such column.
    """
    if by is not None and by not in fleet.hosts.columns:
        raise FrameError(f"by={by!r}: no such column; there are {', '.join(fleet.hosts.columns)}")
    return by or next((column for column in GROUP_COLUMNS if column in fleet.hosts.columns), None)


def alike_columns(fleet: Fleet) -> tuple[str, ...]:
    """The columns that say which hosts should be identical: what was bought together, else the CPU's model."""
    return tuple(c for c in ALIKE_COLUMNS if c in fleet.hosts.columns) or ("model",)
