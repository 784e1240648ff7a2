"""Fleets to draw: the samples, and a large one with noise in it."""

from collections.abc import Callable
from pathlib import Path

import pytest

import vmcompat as vc
from tests import gallery


@pytest.fixture(scope="session")
def mixed(samples: Path) -> vc.Fleet:
    return vc.read_fleet(samples / "mixed")


@pytest.fixture(scope="session")
def pair(samples: Path) -> vc.Fleet:
    return vc.read_fleet(samples / "virsh_pair")


@pytest.fixture(scope="session")
def noisy() -> Callable[[int, float], vc.Fleet]:
    return gallery.noisy
