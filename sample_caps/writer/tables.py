"""Reads the tables of ``../facts``."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FACTS = Path(__file__).resolve().parents[1] / "facts"

Version = tuple[int, ...]


def version(text: str) -> Version:
    """``"9.0.0"`` as a tuple that compares; what follows a dash or a plus is a packager's affair."""
    return tuple(int(part) for part in text.replace("+", "-").split("-")[0].split("."))


def rows(name: str) -> list[dict[str, str]]:
    """A CSV table."""
    with (FACTS / name).open(newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


@cache
def toml(name: str) -> Mapping[str, Any]:
    """A TOML table, read once."""
    return tomllib.loads((FACTS / name).read_text(encoding="utf-8"))
