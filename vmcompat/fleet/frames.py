"""The fleet: many hosts, one view, one CPU map, as frames."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from vmcompat.errors import FrameError
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import Reading, View, default_view, read_cpu, status_finding
from vmcompat.fleet.sources import HostRecord, Source, read_hosts, shared_uuids
from vmcompat.schema import DOCUMENTS, FINDINGS, HOSTS, frame

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline
    from vmcompat.fleet.cpu import Cpu


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Fleet:
    """Hosts as read from their documents, seen in one view.

    Made by :func:`read_fleet`; every selection is a new Fleet.

    Attributes
    ----------
    view : {"hypervisor", "host"}
        What is compared: the CPU that the hypervisor can give a guest (host-model of ``virsh domcapabilities``), or the
        CPU of the host itself (``virsh capabilities``).
    cpu_map : CpuMap
        Whose features, in whose order.
    virttype : str
        Which domain capabilities count.
    strict : bool
        Read as one libvirt with this map would.
    records : tuple of HostRecord
    readings : tuple of Reading
        The CPU of each record in this view.
    """

    view: View
    cpu_map: CpuMap
    virttype: str
    strict: bool
    records: tuple[HostRecord, ...]
    readings: tuple[Reading, ...]

    @cached_property
    def hosts(self) -> pd.DataFrame:
        """Every host, known or not: columns of ``schema.HOSTS``, then those of ``hosts.csv``; index ``host``."""
        index = pd.Index(self.names, dtype="str", name="host")
        rows = [_host_row(r, x) for r, x in zip(self.records, self.readings, strict=True)]
        own = frame(HOSTS, rows, index=index)
        extra = dict.fromkeys(chain.from_iterable(r.columns for r in self.records))
        added = {c: _typed([r.columns.get(c) for r in self.records], index) for c in extra}
        return pd.concat([own, pd.DataFrame(added, index=index)], axis=1) if added else own

    @cached_property
    def features(self) -> pd.DataFrame:
        """What each host offers: bool, known hosts by feature, in map order.

        Index ``host``, columns ``feature``. A feature that a host's libvirt has no name for is False here and False in
        :attr:`reported`.
        """
        return self._bool_frame([x.offered for x in self.readings if x.status == "ok"])

    @cached_property
    def reported(self) -> pd.DataFrame:
        """Whether a host's document could say anything about a feature: bool, of the shape of :attr:`features`."""
        return self._bool_frame([x.reported for x in self.readings if x.status == "ok"])

    def _bool_frame(self, sets: list[int]) -> pd.DataFrame:
        known = [n for n, x in zip(self.names, self.readings, strict=True) if x.status == "ok"]
        return pd.DataFrame(
            self.cpu_map.rows(sets),
            index=pd.Index(known, dtype="str", name="host"),
            columns=pd.Index(self.cpu_map.features, dtype="str", name="feature"),
            copy=False,
        )

    @cached_property
    def unknown(self) -> pd.Index:
        """Hosts whose CPU is not known, in input order."""
        names = [n for n, x in zip(self.names, self.readings, strict=True) if x.status != "ok"]
        return pd.Index(names, dtype="str", name="host")

    @property
    def complete(self) -> bool:
        """Whether the CPU of every host is known."""
        return all(x.status == "ok" for x in self.readings)

    @cached_property
    def findings(self) -> pd.DataFrame:
        """What was noticed while reading: columns of ``schema.FINDINGS``, in the order of the hosts."""
        rows = []
        clones = shared_uuids(self.records)
        for record, reading in zip(self.records, self.readings, strict=True):
            rows += [*record.findings, *reading.findings]
            if record.name in clones:
                rows.append(clones[record.name])
            if reading.status not in ("ok", "unreadable"):
                rows.append(status_finding(record.name, reading, self.view))
        return frame(FINDINGS, ({c: getattr(f, c) for c in FINDINGS} for f in rows))

    @cached_property
    def documents(self) -> pd.DataFrame:
        """Every document that was read: columns of ``schema.DOCUMENTS``."""
        rows = []
        for record, reading in zip(self.records, self.readings, strict=True):
            for d in record.documents:
                row = {c: getattr(d, c) for c in DOCUMENTS if c not in ("host", "used")}
                rows.append(row | {"host": record.name, "used": d is reading.document})
        return frame(DOCUMENTS, rows)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all hosts, in input order."""
        return tuple(r.name for r in self.records)

    @cached_property
    def _position(self) -> Mapping[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, hosts: str | Iterable[str]) -> Fleet:
        return self._take(self.positions([hosts] if isinstance(hosts, str) else dict.fromkeys(hosts)))

    def select(self, query: str) -> Fleet:
        """The hosts for which a query over the columns of :attr:`hosts` holds.

        Raises
        ------
        FrameError
            The query cannot be evaluated; the message lists the columns.

        Examples
        --------
        >>> fleet = read_fleet("sample_caps/mixed")
        >>> len(fleet.select("rack == 'ams-r1'"))
        8
        """
        try:
            chosen = self.hosts.query(query).index
        except Exception as e:  # pandas lets through whatever its evaluation meets
            raise FrameError(f"cannot select by {query!r} ({e}); columns: {', '.join(self.hosts.columns)}") from e
        return self._take(self.positions(chosen))

    def drop(self, *hosts: str) -> Fleet:
        """The fleet without those hosts."""
        gone = set(self.positions(hosts))
        return self._take([i for i in range(len(self)) if i not in gone])

    def __add__(self, other: Fleet) -> Fleet:
        for what in ("view", "virttype", "strict"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise FrameError(
                    f"two fleets of different {what} ({mine}, {theirs}) are two questions: read them alike"
                )
        mine, theirs = ((m.version, m.features, m.models) for m in (self.cpu_map, other.cpu_map))
        if mine != theirs:
            raise FrameError(
                f"the fleets were read with different maps: {self.cpu_map.version}, {other.cpu_map.version}"
            )
        twice = [n for n in other.names if n in self._position]
        if twice:
            raise FrameError(f"in both fleets: {', '.join(twice)}; drop them from one")
        return replace(self, records=self.records + other.records, readings=self.readings + other.readings)

    def with_view(self, view: View) -> Fleet:
        """The same hosts in the other view, without reading again."""
        return _seen(self.records, view=view, virttype=self.virttype, cpu_map=self.cpu_map, strict=self.strict)

    def positions(self, hosts: Iterable[str]) -> list[int]:
        """Positions of hosts by name.

        Raises
        ------
        FrameError
            A host is not in the fleet.
        """
        try:
            return [self._position[h] for h in hosts]
        except KeyError as e:
            raise FrameError(
                f"no host {e.args[0]!r} in the fleet of {len(self)}: fleet.hosts.index has the names"
            ) from None

    def _take(self, positions: Sequence[int]) -> Fleet:
        return replace(
            self,
            records=tuple(self.records[i] for i in positions),
            readings=tuple(self.readings[i] for i in positions),
        )

    def baseline(
        self,
        hosts: Iterable[str] | None = None,
        *,
        migratable: bool = True,
        expand: bool = False,
        driver: str = "qemu",
        cpu_map: str | Path | CpuMap | None = None,
        asked_of: str | None = None,
        allow_missing: bool = False,
    ) -> Baseline:
        """The CPU that every one of these hosts can give, in libvirt's own words.

        Parameters
        ----------
        hosts : iterable of str, optional
            Default: all.
        migratable : bool
            Leave out features that cannot be migrated. True here; ``virsh`` asks without it unless given
            ``--migratable``.
        expand : bool
            List the features that the model's name implies too.
        driver : {"qemu", "test"}
            Host view: whose ``baselineCPU``. The QEMU driver leaves out a few features that the test driver keeps.
        cpu_map : str, Path or CpuMap, optional
            Choose among the models of this map and keep only features it knows. Default: the fleet's map.
        asked_of : str, optional
            Hypervisor view: give what asking this host gives. Default: models that every host of the group lists.
        allow_missing : bool
            Answer although the CPU of some hosts is not known; they are named in the warnings.

        Returns
        -------
        Baseline

        Raises
        ------
        NoBaselineError
            The CPU of a host is not known, vendors differ, or nothing is shared.
        FrameError
            A host is not in the fleet.

        References
        ----------
        libvirt's ``virConnectBaselineCPU`` and ``virConnectBaselineHypervisorCPU``.

        Examples
        --------
        >>> base = read_fleet("sample_caps/virsh_pair").baseline()
        >>> base.model, base.level
        ('Westmere', 'x86-64-v2')
        """
        from vmcompat.baseline.common import baseline_of

        return baseline_of(
            self,
            hosts,
            migratable=migratable,
            expand=expand,
            driver=driver,
            cpu_map=cpu_map,
            asked_of=asked_of,
            allow_missing=allow_missing,
        )

    def baselines(
        self,
        by: str | Callable[[pd.Series], Hashable] | Mapping[Hashable, Iterable[str]] | None = None,
        *,
        migratable: bool = True,
        allow_missing: bool = False,
    ) -> pd.DataFrame:
        """One baseline for each architecture and vendor, split further by ``by``.

        Parameters
        ----------
        by : str, callable or mapping, optional
            A column of :attr:`hosts`, a function of a row of it, or candidate groups by name, which may overlap.
        migratable, allow_missing : bool
            As for :meth:`baseline`.

        Returns
        -------
        DataFrame
            Columns of ``schema.BASELINES``; index ``arch``, ``vendor`` and ``by``. Largest group first. Hosts whose
            architecture or vendor is not known have a row of their own.
        """
        from vmcompat.baseline.groups import baselines_of

        return baselines_of(self, by, migratable=migratable, allow_missing=allow_missing)

    def compare(self, cpu: str | Cpu | Baseline) -> pd.DataFrame:
        """Whether this CPU fits, a row a host.

        Parameters
        ----------
        cpu : str, Cpu or Baseline
            XML text of a ``<cpu>``, or a baseline, judged by its ``guest_xml``.

        Returns
        -------
        DataFrame
            Columns of ``schema.COMPARISON``, index ``host``: *incompatible* with the missing features, *identical*,
            *superset* (the host offers more), *unknown*.
        """
        from vmcompat.baseline.compare import compare_fleet

        return compare_fleet(self, cpu)

    def __repr__(self) -> str:
        reasons: dict[str, int] = {}
        for x in self.readings:
            if x.status != "ok":
                reasons[x.status] = reasons.get(x.status, 0) + 1
        known = len(self) - sum(reasons.values())
        why = "".join(f", {n} {status}" for status, n in reasons.items())
        return (
            f"<Fleet: {known} of {len(self)} hosts usable{':' if why else ''}{why[1:]}; {self.view} view"
            f"{f' ({self.virttype})' if self.view == 'hypervisor' else ''}, CPU map {self.cpu_map.version}>"
        )

    def _repr_html_(self) -> str:
        counts = self.hosts.groupby(["arch", "vendor", "model", "cpu_status"], dropna=False, sort=False).size()
        table = counts.rename("n_hosts").reset_index()
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + table.to_html(index=False, na_rep="", border=0)


def read_fleet(
    source: Source,
    *,
    view: View | None = None,
    cpu_map: str | Path | CpuMap | None = None,
    errors: str | None = None,
    virttype: str | None = None,
    strict: bool = False,
) -> Fleet:
    """Reads the capabilities of many hosts.

    Parameters
    ----------
    source : path, URI, mapping, or list of paths and URIs
        A file or folder of ``virsh capabilities``, ``virsh domcapabilities`` and plain ``<cpu>`` XML (a file may hold
        several documents), a libvirt URI, or XML text by host name. Host names come from the file names
        (``<host>.capabilities.xml``, ``<host>.domcapabilities.xml``, of which ``<host>.domcapabilities.<machine>.xml``
        tells several apart, ``<host>.xml``); a ``hosts.csv`` in the folder joins its columns by ``host``, its column
        ``file`` renames, its columns ``libvirt`` and ``qemu`` say the versions, and a host that it lists stays without
        any document. Folders are read in natural order, without their subfolders.
    view : {"hypervisor", "host"}, optional
        Default: hypervisor if the readable hosts have domain capabilities, host if none has. For a URI only
        ``view="hypervisor"`` opens a connection that may write, since libvirt gives domain capabilities on no other.
    cpu_map : str, Path or CpuMap, optional
        As for :meth:`CpuMap.load`. Default: the newest.
    errors : {"raise", "collect"}, optional
        What to do with a document that cannot be used: raise, or keep its host with a row in ``fleet.findings``.
        Default: raise for a single file or URI, else collect.
    virttype : str, optional
        Which domain capabilities count. Default: "kvm" if any host has those, else "qemu".
    strict : bool
        Read every document with the one map, as a libvirt of that version would, instead of expanding each with the
        map of the libvirt that wrote it.

    Returns
    -------
    Fleet

    Raises
    ------
    DocumentError, ConnectError
        A document cannot be used and ``errors`` is "raise"; or a ``hosts.csv`` cannot.
    FrameError
        The source does not exist, or some hosts have domain capabilities and others do not and no view was given.
    CpuMapError
        No such map.

    Examples
    --------
    >>> fleet = read_fleet("sample_caps/virsh_pair")
    >>> fleet.view, list(fleet.hosts["model"])
    ('host', ['SandyBridge', 'Westmere'])
    """
    if view not in (None, "hypervisor", "host"):
        raise FrameError(f"view={view!r}: give 'hypervisor' or 'host'")
    if errors not in (None, "raise", "collect"):
        raise FrameError(f"errors={errors!r}: give 'raise' or 'collect'")
    loaded = cpu_map if isinstance(cpu_map, CpuMap) else CpuMap.load(cpu_map)
    collect = None if errors is None else errors == "collect"
    records = tuple(read_hosts(source, hypervisor=view == "hypervisor", virttype=virttype, collect=collect))
    if virttype is None:
        virttypes = {d.virttype for r in records for d in r.documents if d.kind == "domcapabilities"}
        virttype = "qemu" if "qemu" in virttypes and "kvm" not in virttypes else "kvm"
    chosen = view or default_view(records)
    return _seen(records, view=chosen, virttype=virttype, cpu_map=loaded, strict=strict)


def _seen(records: tuple[HostRecord, ...], *, view: View, virttype: str, cpu_map: CpuMap, strict: bool) -> Fleet:
    readings = tuple(read_cpu(r, view=view, virttype=virttype, cpu_map=cpu_map, strict=strict) for r in records)
    return Fleet(view=view, cpu_map=cpu_map, virttype=virttype, strict=strict, records=records, readings=readings)


def _host_row(record: HostRecord, reading: Reading) -> dict[str, Any]:
    row: dict[str, Any] = {c: record.fact(c) for c in HOSTS}
    cpu, document = reading.cpu, reading.document
    if not row["emulators"]:
        row["emulators"] = tuple(dict.fromkeys(d.emulator for d in record.documents if d.emulator))
    row |= {"cpu_status": reading.status, "arch": record.arch, "libvirt": record.libvirt, "qemu": record.qemu}
    row["maxphysaddr"] = record.address_bits
    if row["arch"] is None and reading.status == "ok":
        row["arch"] = "x86_64"
    if cpu is None:  # whose host it is can still be known from the other view's document
        cpu = next((d.cpu for d in record.documents if d.cpu is not None and d.cpu.vendor is not None), None)
        row["vendor"] = cpu.vendor if cpu else None
    else:
        row["model"], row["vendor"] = cpu.model, cpu.vendor or reading.model_vendor
    if document is not None:
        row["source"], row["sha256"] = document.source, document.sha256
    return row


def _typed(values: list[str | None], index: pd.Index) -> pd.Series:
    """A column of hosts.csv: numbers where all its values are and none loses by it, as 007 and 5.10 would."""
    given = [v for v in values if v]
    if given and all(re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", v) for v in given):
        return pd.Series([int(v) if v else None for v in values], dtype="Int64", index=index)
    if given and all(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", v) and v in (repr(float(v)), f"{float(v):g}") for v in given):
        return pd.Series([float(v) if v else None for v in values], dtype="Float64", index=index)
    return pd.Series([v or None for v in values], dtype="str", index=index)
