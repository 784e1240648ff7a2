"""The errors that vmcompat raises: what happened, which host or file and line, what to do next."""

from __future__ import annotations


class VmcompatError(Exception):
    """Base of every error raised on purpose; catching it catches them all."""


class DocumentError(VmcompatError, ValueError):
    """An XML document or a ``hosts.csv`` that cannot be used.

    Parameters
    ----------
    problem : str
        What is wrong and what to do about it.
    source : str
        The file or URI the document came from.
    line : int, optional
        Line in that file.
    """

    def __init__(self, problem: str, *, source: str, line: int | None = None) -> None:
        self.problem, self.source, self.line = problem, source, line
        where = source if line is None else f"{source}:{line}"
        super().__init__(f"{where}: {problem}")


class FrameError(VmcompatError, ValueError):
    """A question that the frame cannot answer: an unknown host, a missing column, mixed views."""


class CpuMapError(VmcompatError, ValueError):
    """A CPU map that cannot be loaded, or a model or feature that it does not know."""


class NoBaselineError(VmcompatError):
    """No baseline for this group of hosts; the message names the hosts and the reason."""


class ConnectError(VmcompatError):
    """libvirt could not be reached or refused a call.

    Parameters
    ----------
    message : str
        What was asked of which host, what libvirt said, and what to do next.
    code : int, optional
        libvirt's own error code (``VIR_ERR_*``), where the error came from libvirt.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        self.code = code
        super().__init__(message)


class MigrationError(VmcompatError):
    """A migration or a change of a domain that was refused or failed; says what state was left."""
