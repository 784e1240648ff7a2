"""libvirt itself, and an ssh that refuses as ssh does."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def libvirt() -> Any:
    return pytest.importorskip("libvirt", reason="libvirt-python is not installed")


@pytest.fixture
def ssh(libvirt: Any, tmp_path: Path) -> str:
    """What libvirt calls in place of ssh, and which fails as ssh does: with the name of the user, all of it."""
    program = tmp_path / "ssh"
    program.write_text('#!/bin/sh\necho "$*: Permission denied (publickey,password)." >&2\nexit 255\n')
    program.chmod(0o755)
    return str(program)
