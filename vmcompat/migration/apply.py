"""Asks hosts whether they can run a CPU, and writes it into a stored definition; takes it out again on request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from vmcompat.errors import ConnectError, MigrationError
from vmcompat.migration.domain import Domain, cpu_text, difference, read_domain, with_cpu

if TYPE_CHECKING:
    from vmcompat.baseline.common import Baseline
    from vmcompat.connect import Host

_UNKNOWN_NAME: Final = r"Unknown CPU (model|feature)"  # libvirt has no error code of its own for it

# What libvirt itself prints on demand only, and what its users write into QEMU's command line.
_SECRETS: Final = (
    (re.compile(r"(?i)\b(passwd|password)=('[^']*'|\"[^\"]*\")"), r"\1='...'"),
    (re.compile(r"(<cookie\b[^>]*>)[^<]*"), r"\1..."),
    (re.compile(r"(?i)(\bvalue=)('[^']*(?:secret|password|passwd)[^']*'|\"[^\"]*(?:secret|password|passwd)[^\"]*\")"),
     r"\1'...'"),
)  # fmt: skip

CpuResult: TypeAlias = Literal["incompatible", "identical", "superset", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuAnswer:
    """What a host's libvirt says to a CPU that a guest is to have there (``compareHypervisorCPU``).

    Attributes
    ----------
    host : str
    result : {"incompatible", "identical", "superset", "unknown"}
        ``superset``: the host can give more. ``unknown``: the question was not answered.
    features : tuple of str
        What the host cannot give, by libvirt's own list.
    reason : str
        libvirt's words; empty where the CPU fits.
    """

    host: str
    result: CpuResult
    features: tuple[str, ...] = ()
    reason: str = ""

    @property
    def unknown_name(self) -> bool:
        """Whether the host refused because it has no such model or feature."""
        return re.search(_UNKNOWN_NAME, self.reason) is not None

    @property
    def fits(self) -> bool:
        """Whether the host said that it can run the CPU."""
        return self.result in ("identical", "superset")


def ask_cpu(host: Host, cpu: str, domain: Domain) -> CpuAnswer:
    """Whether the hypervisor of a host can run a CPU, for the emulator and machine type of a domain."""
    from vmcompat.connect import constant

    flags = constant("VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE")
    what = (domain.emulator, domain.arch, domain.machine, domain.virttype)
    try:
        number = host.ask(
            f"whether it can run the CPU of {domain.name}", lambda c: c.compareHypervisorCPU(*what, cpu, flags)
        )
    except ConnectError as e:
        reason = str(e.__cause__ or e)
        names = reason.rpartition("eatures: ")[2] if "eatures: " in reason else ""
        if e.code == constant("VIR_ERR_CPU_INCOMPATIBLE"):
            return CpuAnswer(
                host=host.name, result="incompatible", features=tuple(names.split(", ")) if names else (), reason=reason
            )
        if re.search(_UNKNOWN_NAME, reason):
            return CpuAnswer(host=host.name, result="incompatible", reason=reason.removeprefix("internal error: "))
        return CpuAnswer(host=host.name, result="unknown", reason=reason)
    if number == constant("VIR_CPU_COMPARE_IDENTICAL"):
        return CpuAnswer(host=host.name, result="identical")
    if number == constant("VIR_CPU_COMPARE_SUPERSET"):
        return CpuAnswer(host=host.name, result="superset")
    return CpuAnswer(host=host.name, result="incompatible", reason="the CPU is incompatible")


def stored_xml(host: Host, name: str, *, secrets: bool = False) -> str:
    """The stored definition of a domain; ``secrets`` as a redefinition needs them, which takes write access."""
    from vmcompat.connect import constant

    flags = constant("VIR_DOMAIN_XML_INACTIVE") | (constant("VIR_DOMAIN_XML_SECURE") if secrets else 0)
    return host.ask(f"the stored definition of {name}", lambda c: c.lookupByName(name).XMLDesc(flags))


def redefine(host: Host, name: str, *, expected: str, new: str) -> str:
    """Replaces a stored definition, unless somebody else has changed it.

    Parameters
    ----------
    host : Host
        With write access.
    expected : str
        What must be stored now, secrets included.
    new : str
        What is to be stored.

    Returns
    -------
    str
        What libvirt stored, in its own words.

    Raises
    ------
    MigrationError
        Something else is stored; nothing was changed.
    """
    now = stored_xml(host, name, secrets=True)
    if now != expected:
        changed = difference(expected, now, name=name)
        raise MigrationError(
            f"{host.name}: somebody changed the definition of {name} in the meantime; nothing was written. Look at it "
            f"and plan again. Changed since:\n{without_secrets(changed)}"
        )
    host.ask(f"to store the definition of {name}", lambda c: c.defineXML(new))
    return stored_xml(host, name, secrets=True)


def without_secrets(text: str) -> str:
    """XML, or a diff of it, with dots in place of passwords, of cookies, and of what QEMU is given as a secret."""
    for secret, shown in _SECRETS:
        text = secret.sub(shown, text)
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedBaseline:
    """A baseline that was written into a stored definition.

    Attributes
    ----------
    domain, host : str
        Whose definition, and where.
    model : str
        Of the baseline.
    old_xml, new_xml : str
        The stored definition before and after, secrets included; not part of the repr.
    diff : str
        Between the two, as ``patch`` takes it, but without secrets.
    running : bool
        The guest was running: it keeps the CPU it has until it is powered off and on again.
    answers : tuple of CpuAnswer
        What source and targets said to the CPU before it was written.
    """

    domain: str
    host: str
    model: str
    old_xml: str = field(repr=False)
    new_xml: str = field(repr=False)
    diff: str
    running: bool
    answers: tuple[CpuAnswer, ...]
    _uri: str = field(repr=False)

    def __repr__(self) -> str:
        when = (
            "the running guest keeps its CPU until it is powered off and on again (a reboot inside is not enough)"
            if self.running
            else "the guest is off and starts with it"
        )
        asked = ", ".join(f"{a.host} {a.result}" for a in self.answers)
        return f"{self.domain} on {self.host}: stored CPU is now {self.model}; {when}; asked before: {asked}"

    def undo(self) -> None:
        """Stores the old definition again.

        Raises
        ------
        MigrationError
            Somebody changed the definition since; nothing is written.
        """
        from vmcompat.connect import open_host

        with open_host(self._uri, write=True) as host:
            redefine(host, self.domain, expected=self.new_xml, new=self.old_xml)


def apply_baseline(
    domain: str, base: Baseline, *, source: str, targets: Sequence[str], allow_host_view: bool = False
) -> AppliedBaseline:
    """Writes a baseline into the stored definition of a domain; a running guest keeps its CPU.

    Source and targets are asked first, with the very CPU that is to be written. Connections are read-write: libvirt
    answers that question on no other.

    Parameters
    ----------
    domain : str
        Name.
    base : Baseline
        Its ``guest_xml`` is what is written.
    source : str
        URI of the host where the domain is defined.
    targets : sequence of str
        URIs of the hosts to which it shall be able to go.
    allow_host_view : bool
        Write a baseline of the host view although a host does not accept it. Features that the host knows and does
        not give are then missing in the guest, or keep it from starting.

    Raises
    ------
    MigrationError
        A host does not know a name in the CPU or cannot run it, with the names; or somebody changed the definition.
    ConnectError
        A host cannot be reached, or has no such domain.
    """
    from vmcompat.connect import open_host

    with open_host(source, write=True) as host:
        old = stored_xml(host, domain, secrets=True)
        seen = read_domain(old, source=f"{host.uri} {domain}")
        new = with_cpu(old, base.guest_xml)
        cpu = cpu_text(new) or ""
        answers = [ask_cpu(host, cpu, seen)]
        for uri in targets:
            with open_host(uri, write=True) as target:
                answers.append(ask_cpu(target, cpu, seen))
        _refuse_unless_accepted(domain, base, answers, allow_host_view=allow_host_view)
        running = bool(host.ask(f"whether {domain} runs", lambda c: c.lookupByName(domain).isActive()))
        stored = redefine(host, domain, expected=old, new=new)
        return AppliedBaseline(
            domain=domain,
            host=host.name,
            model=base.model,
            old_xml=old,
            new_xml=stored,
            diff=without_secrets(difference(old, stored, name=domain)),
            running=running,
            answers=tuple(answers),
            _uri=source,
        )


def _refuse_unless_accepted(
    domain: str, base: Baseline, answers: Sequence[CpuAnswer], *, allow_host_view: bool
) -> None:
    refused = [a for a in answers if not a.fits]
    if base.view == "host" and allow_host_view:
        # the names are known and libvirt compared: that the host does not give all of them is what was allowed
        refused = [a for a in refused if a.result == "unknown" or a.unknown_name]
    if not refused:
        return
    said = "; ".join(f"{a.host}: {a.reason}" for a in refused)
    advice = (
        "this baseline is of the host view and names what no guest is given: read the fleet with view='hypervisor', or "
        "insist with allow_host_view=True"
        if base.view == "host"
        else "compute the baseline from these hosts as they are now"
    )
    raise MigrationError(
        f"{domain}: the baseline ({base.model}) was not written: {said}. Nothing was changed; {advice}"
    )
