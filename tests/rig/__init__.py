"""Real libvirt hosts on one machine, to try migrations on: see :class:`Rig`."""

from tests.rig.console import Console
from tests.rig.errors import RigError, RigUnavailable
from tests.rig.rig import Rig

__all__ = ["Console", "Rig", "RigError", "RigUnavailable"]
