"""Asking a real libvirt the question that a baseline answered."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from vmcompat.baseline.hypervisor import Endpoint
from vmcompat.fleet.records import read_documents

EXPAND_FEATURES: Final = 1
MIGRATABLE: Final = 2


class Libvirt(Protocol):
    """The calls of an open libvirt connection that answer baselines."""

    def getType(self) -> str: ...  # noqa: D102
    def getLibVersion(self) -> int: ...  # noqa: D102
    def getCapabilities(self) -> str: ...  # noqa: D102
    def baselineCPU(self, xml: list[str], flags: int = 0) -> str: ...  # noqa: D102
    def baselineHypervisorCPU(  # noqa: D102
        self,
        emulator: str | None,
        arch: str,
        machine: str | None,
        virttype: str,
        xml: list[str],
        flags: int = 0,
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class Verification:
    """What a libvirt answered to the same question.

    Attributes
    ----------
    result : {"identical", "different", "cannot_tell"}
    reason : str
        Why it cannot be told, or what may explain a difference.
    diff : str
        Unified diff from our text to libvirt's.
    answer : str
        libvirt's text.
    """

    result: Literal["identical", "different", "cannot_tell"]
    reason: str = ""
    diff: str = ""
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question to libvirt: the call, its inputs, and our answer."""

    xml: str
    inputs: Sequence[str]
    cpu_map: str
    driver: str
    flags: int
    hypervisor: Endpoint | None = None
    explanation: str = ""


def verify(asked: Asked, conn: Libvirt) -> Verification:
    """Puts the question to an open connection and compares texts.

    Parameters
    ----------
    asked : Asked
    conn : libvirt.virConnect
        Of the driver that the question was about.

    Returns
    -------
    Verification
        Never *identical* for a question that was not asked.
    """
    kind = conn.getType().lower()
    if kind != asked.driver:
        return Verification("cannot_tell", f"the answer is that of libvirt's {asked.driver} driver, this is {kind}")
    number = conn.getLibVersion()
    theirs = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    if theirs != asked.cpu_map:
        return Verification(
            "cannot_tell",
            f"the answer is in terms of the CPU map of {asked.cpu_map}, this is libvirt {theirs}",
        )
    try:
        if asked.hypervisor is None:
            answer = conn.baselineCPU(list(asked.inputs), asked.flags)
        else:
            emulator, arch, machine, virttype, uuid = asked.hypervisor
            here = read_documents(conn.getCapabilities().encode(), source="this host")[0].facts.get("uuid")
            if uuid not in (None, here):
                return Verification("cannot_tell", f"the host that was asked has UUID {uuid}, this one {here}")
            inputs = list(asked.inputs)
            answer = conn.baselineHypervisorCPU(emulator, arch, machine, virttype, inputs, asked.flags)
    except Exception as e:
        # libvirt's own error class cannot be named here: libvirt-python is optional
        if not hasattr(e, "get_error_code"):
            raise
        return Verification("cannot_tell", f"libvirt did not answer: {e}")
    if answer == asked.xml:
        return Verification("identical", answer=answer)
    lines: tuple[Any, Any] = asked.xml.splitlines(), answer.splitlines()
    diff = "\n".join(difflib.unified_diff(*lines, "vmcompat", f"libvirt {theirs}", lineterm=""))
    return Verification("different", asked.explanation, diff, answer)
