"""The CPU models of libvirt's map, and the order in which libvirt lists features, for two ages of the map.

The tables hold facts: ``models.csv`` a model a row in the order of the map, written as a difference from a
model above it; ``features.toml`` the order of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from sample_caps.writer.tables import Version, rows, toml, version


@dataclass(frozen=True)
class Model:
    """A named model: ``features`` come with the name, ``removed`` once did, ``decode`` is (host, guest)."""

    name: str
    canonical_of: str
    features: frozenset[str]
    vendor: str
    signatures: tuple[tuple[int, int, frozenset[int]], ...]
    decode: tuple[bool, bool]
    removed: tuple[str, ...]
    libvirt: Version
    qemu: tuple[Version, Version] | None

    def matches(self, signature: tuple[int, int, int] | None) -> bool:
        """Whether a processor of this family, model and stepping is one of the model's."""
        return signature is not None and any(
            signature[:2] == (family, number) and (not steppings or signature[2] in steppings)
            for family, number, steppings in self.signatures
        )


def _signature(text: str) -> tuple[int, int, frozenset[int]]:
    family, number, *steppings = text.split("/")
    if not steppings:
        return int(family), int(number), frozenset()
    first, _, last = steppings[0].partition("-")
    return int(family), int(number), frozenset(range(int(first), int(last or first) + 1))


def _qemu_range(text: str) -> tuple[Version, Version] | None:
    if text == "none":
        return None
    first, _, last = text.partition("-")
    return version(first), version(last) if last else (99,)


@cache
def models(new: bool) -> dict[str, Model]:
    """The models of the map in its order; ``new`` is the age of 11.3, in which some features left the models."""
    table: dict[str, Model] = {}
    for row in rows("models.csv"):
        ancestor = table.get(row["canonical_of"])
        if ancestor is not None:
            features, vendor, signatures = ancestor.features, ancestor.vendor, ancestor.signatures
            decode, removed = (True, False), ancestor.removed
        else:
            base = table[row["like"]].features if row["like"] else frozenset()
            features = (base | set(row["plus"].split())) - set(row["minus"].split())
            vendor = row["vendor"]
            signatures = tuple(_signature(text) for text in row["signatures"].split())
            decode = (not row["decode"].startswith("off"), not row["decode"].endswith("off"))
            removed = tuple(row["removed"].split())
        table[row["model"]] = Model(
            row["model"],
            row["canonical_of"],
            features,
            vendor,
            signatures,
            decode,
            removed,
            version(row["libvirt"]),
            _qemu_range(row["qemu"]),
        )
    if not new:
        return {name: model for name, model in table.items() if model.libvirt < (11,)}
    gone = {row["model"]: row["removed_by_11"].split() for row in rows("models.csv")}
    return {name: _without(model, gone[model.canonical_of or name]) for name, model in table.items()}


def _without(model: Model, gone: Sequence[str]) -> Model:
    return replace(model, features=model.features - set(gone), removed=(*model.removed, *gone))


def model_features(name: str, libvirt: Version) -> frozenset[str]:
    """What comes with the model's name in this libvirt; a model that it does not know is taken from a newer one."""
    model = models(libvirt >= (11,)).get(name) or models(True)[name]
    return model.features


def model_vendor(name: str) -> str:
    """The model's vendor, empty where it fits all."""
    return models(True)[name].vendor


@cache
def map_order(libvirt: Version) -> tuple[str, ...]:
    """Every feature that this libvirt knows, in the order in which it lists them."""
    table = toml("features.toml")
    if libvirt >= (11,):
        return tuple(table["order"]["11.3"].split())
    younger = {
        name for since, names in table["since"]["libvirt"].items() if version(since) > libvirt for name in names.split()
    }
    return tuple(name for name in table["order"]["6.0"].split() if name not in younger)
