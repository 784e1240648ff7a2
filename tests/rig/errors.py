"""What the rig raises."""


class RigError(Exception):
    """The rig could not be started, or something in it did not do as told."""


class RigUnavailable(RigError):
    """This machine lacks what the rig needs; the message is the reason to skip with."""
