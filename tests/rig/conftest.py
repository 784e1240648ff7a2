"""The rig of the tests: two hosts, of which the second has the poorer CPU."""

from collections.abc import Iterator

import pytest

from tests.rig import Rig, RigUnavailable


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    hosts = Rig({"h1": "SandyBridge", "h2": "Westmere"})
    try:
        hosts.start()
    except RigUnavailable as e:
        pytest.skip(f"no rig: {e}")
    yield hosts
    hosts.stop()
