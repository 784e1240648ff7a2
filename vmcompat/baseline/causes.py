"""What most likely changed a host, judged by what else changed in it: conclusions, no proof."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vmcompat.baseline.meanings import SWITCHES

PROCESSOR: Final = ("vendor", "family", "model_number", "stepping")
WORDS: Final = {
    "uuid": "UUID", "maxphysaddr": "address bits", "machines": "machine types", "tsc_frequency": "TSC frequency",
    "bios_date": "BIOS date", "qemu": "QEMU",
}  # fmt: skip
_VERSIONS: Final = ("microcode", "bios_date", "kernel", "qemu", "libvirt")
_REPLACED: Final = "another machine under this name, or its board was replaced"
# The features that show that their bundle of `SWITCHES` was switched as a whole.
_DECISIVE: Final = {
    "tsx": frozenset({"hle", "rtm"}), "nested": frozenset({"vmx", "svm"}), "sgx": frozenset({"sgx"}),
    "avx512": frozenset({"avx512f"}), "amx": frozenset({"amx-tile"}),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of a host both before and after.

    Attributes
    ----------
    both : mapping of str to (before, after)
        Columns of ``fleet.hosts``; "processor" stands for `PROCESSOR`, as a mapping of those that are known.
    changed : mapping of str to (before, after)
        Those of them that changed.
    former_of_uuid : str or None
        Name of the one host that had the UUID before.
    """

    both: Mapping[str, tuple[Any, Any]]
    changed: Mapping[str, tuple[Any, Any]]
    former_of_uuid: str | None

    @property
    def _versions(self) -> list[str]:
        return [what for what in _VERSIONS if what in self.changed]

    @property
    def _replaced(self) -> bool:
        return "processor" in self.changed or "uuid" in self.changed

    def features(
        self, *, lost: Collection[str], gained: Collection[str], before: Collection[str], after: Collection[str]
    ) -> Iterator[str]:
        """Why features were ``lost`` and ``gained``, of all that there were ``before`` and are ``after``."""
        if self._replaced:
            yield _REPLACED
            return
        rest = {*lost, *gained}
        for how, moved, whole in (("off", lost, before), ("on", gained, after)):
            for bundle, decisive in _DECISIVE.items():
                there = decisive & {*whole}
                if there and there <= {*moved} and (told := self._switched(bundle, how)):
                    yield told
                    rest -= SWITCHES[bundle]
        if rest and self._versions == ["libvirt"]:
            yield f"{self._new('libvirt')}, which may name or hide them differently"
        elif rest and self._versions:
            yield ", ".join(self._new(what) for what in self._versions)

    def names(self) -> str | None:
        """Why one of the two documents has no name for a feature that the other tells of."""
        return f"{self._new('libvirt')}, which has other names" if "libvirt" in self.changed else None

    def _switched(self, bundle: str, how: str) -> str | None:
        """What switches a bundle on or off as a whole; None where the versions say more."""
        match bundle:
            case "nested":
                return f"nesting switched {how}: kvm's option nested, or virtualization in the BIOS"
            case "sgx":
                return f"SGX switched {how} in the BIOS"
            case "tsx" if "microcode" in self.changed:
                return f"TSX switched {how} by {self._new('microcode')}, or tsx={how} of the kernel"
            case "tsx" if "microcode" in self.both:
                return f"TSX switched {how} by tsx={how} of the kernel, since the microcode is the same"
            case "tsx":
                return f"TSX switched {how} by microcode, or tsx={how} of the kernel"
        if self._versions:
            return None
        label = {"avx512": "AVX-512", "amx": "AMX"}[bundle]
        return f"{label} switched {how} as a whole: a BIOS setting, or clearcpuid= of the kernel"

    def fact(self, what: str) -> str | None:
        """Why one of ``changed`` did; None where nothing tells."""
        old, new = self.changed[what]
        down = what not in ("uuid", "processor") and new < old
        match what:
            case "uuid" if self.former_of_uuid is not None:
                return f"this is the machine that was called {self.former_of_uuid}"
            case "uuid" | "processor":
                return _REPLACED
            case "maxphysaddr" | "threads" | "memory" if self._replaced:
                return _REPLACED
            case "maxphysaddr":
                other = f", or {self._new('qemu')}" if "qemu" in self.changed else ""
                return f"memory encryption (SME, MKTME) switched {'on' if down else 'off'}, or a BIOS setting{other}"
            case "threads" if 2 * min(old, new) == max(old, new):
                return f"hyperthreading switched {'off' if down else 'on'}, in the BIOS or by nosmt of the kernel"
            case "machines" if "qemu" in self.changed:
                return self._new("qemu")
            case "model" if "libvirt" in self.changed:
                return f"{self._new('libvirt')}, which may have other models"
        return None

    def _new(self, what: str) -> str:
        old, new = self.changed[what]
        age = "" if what != "microcode" else "new " if new > old else "older "
        return f"{age}{WORDS.get(what, what)} {shown(what, new)}"


def shown(what: str, value: Any) -> str:
    """A fact of a host as text."""
    match what:
        case "processor":
            numbers = "/".join(str(value.get(column, "?")) for column in PROCESSOR[1:])
            return " ".join(part for part in (value.get("vendor"), numbers) if part and part != "?/?/?")
        case "microcode":
            return f"{value:#x}"
        case "tsc_frequency":
            return f"{value / 1e6:,.3f} MHz"
        case "memory":
            return f"{value / 2**20:.1f} GiB"
    return str(value)
