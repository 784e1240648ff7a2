"""libvirt's CPU map: which features a model name stands for, in libvirt's own order.

Every x86 feature of the maps so far is one CPUID or MSR bit and no two share one, so that the data of a CPU is a set
of names. Sets are Python integers here: bit *i* stands for ``features[i]``.

Run as a command it writes the facts of a map folder in the compact form that vmcompat brings along::

    python -m vmcompat.fleet.cpu_map /usr/share/libvirt/cpu_map 9.0.0 vmcompat/fleet/maps
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
from lxml import etree

from vmcompat.errors import CpuMapError, DocumentError
from vmcompat.fleet.cpu import Cpu, parse_xml

BROUGHT_ALONG: Final = ("9.0.0", "11.3.0", "12.8.0")
SYSTEM_FOLDER: Final = Path("/usr/share/libvirt/cpu_map")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuModel:
    """A named model of the map.

    Attributes
    ----------
    vendor : str or None
        None fits every vendor.
    data : int
        Set of the features that the name stands for.
    removed, added : tuple of str
        Features that an earlier or later libvirt counts in; not part of ``data``.
    host, guest : bool
        Whether libvirt may choose the name to describe a host CPU, or a guest CPU.
    base : str or None
        The model it was derived from: ``Haswell`` of ``Haswell-v1``.
    group : str or None
        The map's heading, from libvirt 11 on.
    compat : bool
        Whether libvirt compares the model by the map rather than by what QEMU calls usable.
    """

    name: str
    vendor: str | None
    data: int
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    host: bool = False
    guest: bool = False
    base: str | None = None
    group: str | None = None
    compat: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class CpuMap:
    """The x86 part of one libvirt's CPU map, and the model names of its ppc64 part.

    Attributes
    ----------
    version : str
        Version of libvirt, or the folder where it is none of those brought along.
    vendors, features : tuple of str
        In map order.
    non_migratable : frozenset of str
    aliases : mapping of str to tuple of str
        Names of the same feature in QEMU and Linux; libvirt accepts none of them.
    models : mapping of str to CpuModel
        In map order.
    ppc64 : mapping of str to str or None
        Vendor of each POWER model.
    """

    version: str
    vendors: tuple[str, ...]
    features: tuple[str, ...]
    non_migratable: frozenset[str]
    aliases: Mapping[str, tuple[str, ...]]
    models: Mapping[str, CpuModel]
    ppc64: Mapping[str, str | None]

    @staticmethod
    def load(version_or_path: str | Path | None = None) -> CpuMap:
        """A map brought along, the one of the libvirt on this machine, or one in a folder.

        Parameters
        ----------
        version_or_path : str or Path, optional
            "9.0.0", "11.3.0", "12.8.0"; "system"; or a folder with ``index.xml``. Default: the newest brought along.

        Raises
        ------
        CpuMapError
            No such version or folder, or a map that breaks a rule of libvirt's maps.

        Examples
        --------
        >>> newest = CpuMap.load()
        >>> newest.version, len(newest.features), len(newest.models)
        ('12.8.0', 400, 176)
        >>> "avx" in newest.names(newest.models["SandyBridge"].data)
        True
        """
        if version_or_path is None:
            return _brought_along(BROUGHT_ALONG[-1])
        if str(version_or_path) in BROUGHT_ALONG:
            return _brought_along(str(version_or_path))
        folder = SYSTEM_FOLDER if str(version_or_path) == "system" else Path(version_or_path)
        if not os.path.isfile(folder / "index.xml"):
            raise CpuMapError(
                f"no CPU map {str(version_or_path)!r}: give one of {', '.join(BROUGHT_ALONG)}, 'system' where libvirt "
                f"is installed, or a folder that holds index.xml"
            )
        facts = _Folder(folder).facts()
        for version in BROUGHT_ALONG:
            if facts == json.loads(_facts_text(version)):
                return _brought_along(version)
        return _from_facts(str(folder), facts)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Position of each feature, which is also its bit."""
        return {name: i for i, name in enumerate(self.features)}

    @cached_property
    def everything(self) -> int:
        """The set of all features."""
        return (1 << len(self.features)) - 1

    @cached_property
    def blocked(self) -> int:
        """The set of features that cannot be migrated."""
        return self.set_of(self.non_migratable)

    def set_of(self, names: Iterable[str]) -> int:
        """The set of those names that the map knows; the others are left out."""
        index = self.index
        bits = 0
        for name in names:
            if (i := index.get(name)) is not None:
                bits |= 1 << i
        return bits

    def names(self, bits: int) -> list[str]:
        """The names in a set, in map order."""
        names = []
        while bits:
            low = bits & -bits
            names.append(self.features[low.bit_length() - 1])
            bits ^= low
        return names

    def model(self, name: str) -> CpuModel:
        """The model of that name, or CpuMapError."""
        try:
            return self.models[name]
        except KeyError:
            raise CpuMapError(f"model {name!r} is not in the CPU map of libvirt {self.version}") from None

    def full(self, cpu: Cpu) -> int:
        """All features that a CPU has, those implied by its model name among them.

        Raises
        ------
        CpuMapError
            A model or feature that this map does not know, as in libvirt; a feature with policy ``optional`` is not
            looked at.

        References
        ----------
        ``x86ModelFromCPU`` of libvirt.
        """
        bits = self.model(cpu.model).data if cpu.model else 0
        for name, policy in cpu.features:
            if policy == "optional":
                continue
            i = self.index.get(name)
            if i is None:
                raise CpuMapError(f"feature {name!r} is not in the CPU map of libvirt {self.version}")
            if policy in ("force", "require"):
                bits |= 1 << i
            else:
                bits &= ~(1 << i)
        return bits

    def rows(self, sets: Iterable[int]) -> npt.NDArray[np.bool_]:
        """Sets as an array of bool, one row a set, one column a feature."""
        size = (len(self.features) + 7) // 8
        packed = np.frombuffer(b"".join(s.to_bytes(size, "little") for s in sets), dtype=np.uint8)
        bits = np.unpackbits(packed.reshape(-1, size), axis=1, count=len(self.features), bitorder="little")
        return bits.view(np.bool_)


def brought_along() -> Iterator[CpuMap]:
    """The maps that vmcompat brings along, oldest first."""
    return (_brought_along(version) for version in BROUGHT_ALONG)


@cache
def _brought_along(version: str) -> CpuMap:
    return _from_facts(version, json.loads(_facts_text(version)))


def _facts_text(version: str) -> str:
    return resources.files("vmcompat.fleet").joinpath("maps", f"{version}.json").read_text(encoding="utf-8")


def _from_facts(version: str, facts: dict[str, Any]) -> CpuMap:
    models = {}
    for name, m in facts["models"].items():
        models[name] = CpuModel(
            name=name,
            vendor=m.get("vendor"),
            data=int(m["data"], 16),
            removed=tuple(m.get("removed", ())),
            added=tuple(m.get("added", ())),
            host="host" in m["decode"],
            guest="guest" in m["decode"],
            base=m.get("base"),
            group=m.get("group"),
            compat=m.get("compat", False),
        )
    return CpuMap(
        version=version,
        vendors=tuple(facts["vendors"]),
        features=tuple(facts["features"]),
        non_migratable=frozenset(facts["non_migratable"]),
        aliases={name: tuple(names) for name, names in facts["aliases"].items()},
        models=models,
        ppc64=facts["ppc64"],
    )


class _Folder:
    """Reads a map folder the way libvirt loads it: per file vendors, then features, then models."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.path = folder
        self.vendors: dict[str, int] = {}
        self.features: dict[str, int] = {}
        self.non_migratable: list[str] = []
        self.aliases: dict[str, list[str]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.ppc64: dict[str, str | None] = {}
        self._owner: dict[tuple[object, ...], str] = {}
        self._data: dict[str, int] = {}

    def facts(self) -> dict[str, Any]:
        index = self._parse("index.xml")
        for arch in index.iterfind("arch"):
            if arch.get("name") not in ("x86", "ppc64"):
                continue
            for include in arch.iter("include"):
                group = include.getparent()
                heading = group.get("name") if group is not None and group.tag == "group" else None
                self._file(self._parse(include.get("filename", "")), str(arch.get("name")), heading)
        if not self.models:
            raise CpuMapError(
                f"{self.folder / 'index.xml'}: names no x86 models; give the folder of a libvirt's cpu_map"
            )
        for name, data in self._data.items():
            self.models[name]["data"] = format(data, "x")
        return {
            "vendors": list(self.vendors),
            "features": list(self.features),
            "non_migratable": self.non_migratable,
            "aliases": self.aliases,
            "models": self.models,
            "ppc64": self.ppc64,
        }

    def _parse(self, filename: str) -> etree._Element:
        if filename in ("", "..") or Path(filename).name != filename:
            raise CpuMapError(f"{self.folder / 'index.xml'}: includes {filename!r}; only files beside it are read")
        self.path = self.folder / filename
        try:
            return parse_xml(self.path.read_bytes(), source=str(self.path))
        except DocumentError as e:
            raise CpuMapError(str(e)) from e
        except OSError as e:
            raise CpuMapError(f"{self.path}: cannot be read ({e.strerror})") from e

    def _wrong(self, element: etree._Element, problem: str) -> NoReturn:
        raise CpuMapError(f"{self.path}:{element.sourceline}: <{element.tag!s}> {element.get('name')!r} {problem}")

    def _file(self, root: etree._Element, arch: str, group: str | None) -> None:
        if arch == "ppc64":
            for m in root.iterfind("model"):
                vendor = m.find("vendor")
                self.ppc64[self._new(m, self.ppc64)] = vendor.get("name") if vendor is not None else None
            return
        for v in root.iterfind("vendor"):
            self.vendors[self._new(v, self.vendors)] = len(self.vendors)
        for f in root.iterfind("feature"):
            self._feature(f)
        for m in root.iterfind("model"):
            self._model(m, group)

    def _new(self, element: etree._Element, known: Mapping[str, object]) -> str:
        name = element.get("name")
        if not name or name in known:
            self._wrong(element, "has no name or stands there twice")
        return name

    def _feature(self, element: etree._Element) -> None:
        name = self._new(element, self.features)
        self.features[name] = len(self.features)
        if element.get("migratable") == "no":
            self.non_migratable.append(name)
        aliases = [a.get("name", "") for a in element.iterfind("alias")]
        if aliases:
            self.aliases[name] = sorted(set(aliases))
        try:
            bits = list(_bits(element))
        except ValueError:
            self._wrong(element, "has a number that is none")
        if len(bits) != 1 or bits[0] in self._owner:
            self._wrong(
                element,
                f"is not one bit of its own, as all were up to libvirt {BROUGHT_ALONG[-1]}; a newer vmcompat is needed",
            )
        self._owner[bits[0]] = name

    def _model(self, element: etree._Element, group: str | None) -> None:
        name = self._new(element, self.models)
        ancestor, vendor, decode = element.find("model"), element.find("vendor"), element.find("decode")
        if decode is None:
            self._wrong(element, "has no <decode>")
        base: str | None = None
        inherited: dict[str, Any] = {}
        data = 0
        if ancestor is not None:
            base = ancestor.get("name", "")
            inherited = self._known(self.models, base, element)
            data = self._data[base] & ~self._set(inherited.get("removed", ()), element)
        if vendor is not None:
            self._known(self.vendors, vendor.get("name", ""), element)
        removed, added = (
            [f.get("name", "") for f in element.iterfind("feature") if f.get(flag) == "yes"]
            for flag in ("removed", "added")
        )
        own = {f.get("name", "") for f in element.iterfind("feature")} - {*removed, *added}
        self._set({*removed, *added}, element)
        facts: dict[str, Any] = {
            "vendor": inherited.get("vendor") if vendor is None else vendor.get("name"),
            "decode": [k for k in ("host", "guest") if decode.get(k) == "on"],
            "data": "",
            "removed": removed,
            "added": added,
            "base": base,
            "group": group,
            "compat": any(c.get("partial") == "compat" for c in element.iterfind("check")),
        }
        self.models[name] = {k: v for k, v in facts.items() if v or k in ("data", "decode")}
        self._data[name] = data | self._set(own, element)

    def _set(self, names: Iterable[str], model: etree._Element) -> int:
        return sum(1 << self._known(self.features, name, model) for name in names)

    def _known(self, known: Mapping[str, Any], name: str, model: etree._Element) -> Any:
        if name not in known:
            self._wrong(model, f"refers to {name!r}, which is not loaded before it")
        return known[name]


def _bits(feature: etree._Element) -> Iterator[tuple[object, ...]]:
    for place in feature.iterchildren("cpuid", "msr"):
        where = (place.tag, *(int(place.get(k, "0"), 16) for k in ("index", "eax_in", "ecx_in")))
        for register in ("eax", "ebx", "ecx", "edx"):
            value = int(place.get(register, "0"), 16)
            if not 0 <= value < 2**32:
                raise ValueError(register)
            yield from ((*where, register, bit) for bit in range(32) if value >> bit & 1)


def write_facts(folder: Path, version: str, target: Path) -> Path:
    """Writes the facts of a map folder as ``target/<version>.json``, one model a line, and gives that path."""
    facts = _Folder(folder).facts()
    lines = [f' "{k}": {json.dumps(v)}' for k, v in facts.items() if k != "models"]
    models = ",\n".join(f'  "{name}": {json.dumps(m)}' for name, m in facts["models"].items())
    path = target / f"{version}.json"
    made = path.with_suffix(".new")
    made.write_text("{\n" + ",\n".join([*lines, ' "models": {\n' + models + "\n }"]) + "\n}\n", encoding="utf-8")
    made.replace(path)
    return path


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: python -m vmcompat.fleet.cpu_map FOLDER VERSION TARGET\n{__doc__}")
    print(write_facts(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
