"""Fleets to draw: the samples, and a large one with noise in it."""

import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import vmcompat as vc


@pytest.fixture(scope="session")
def mixed(samples: Path) -> vc.Fleet:
    return vc.read_fleet(samples / "mixed")


@pytest.fixture(scope="session")
def pair(samples: Path) -> vc.Fleet:
    return vc.read_fleet(samples / "virsh_pair")


@pytest.fixture(scope="session")
def noisy(samples: Path) -> Callable[[int, float], vc.Fleet]:
    """As many hosts, made of the mixed ones under other names; each feature is left out with a probability."""
    files = sorted((samples / "mixed").glob("*.domcapabilities.xml"))
    assert len(files) > 40
    texts = [path.read_text() for path in files]

    @cache
    def fleet(n: int, noise: float) -> vc.Fleet:
        chance = random.Random(n)
        documents = {
            f"node-{i:04d}.dc{i % 3}.example.net": re.sub(
                r"\n\s*<feature policy='require' name='[^']*'/>",
                lambda found: "" if chance.random() < noise else found[0],
                texts[i % len(texts)],
            )
            for i in range(n)
        }
        return vc.read_fleet(documents, view="hypervisor")

    return fleet
