"""Known skews: what a newer QEMU or libvirt does to a guest's CPU by itself, so that a move between two versions fails.

Every row is a fact with its year and a public source. A distribution may have mended or brought in a change without
another version number, so that a row is a risk and never a certainty. Skews between kernels are left out: libvirt tells
nothing of a host's kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Software: TypeAlias = Literal["QEMU", "libvirt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """One change that two versions do not share.

    Attributes
    ----------
    feature : str
        libvirt's name.
    happens : str
        What becomes of a guest that it concerns.
    software : {"QEMU", "libvirt"}
        Whose versions matter.
    leaves, meets : (str, str)
        Versions at the source and at the target between which it happens, each from the first that is concerned to
        the first that is not any more; empty for all before, or all after.
    only_down : bool
        Only towards an older version: where exactly between the known ones the change lies is not known.
    concerns : {"has", "lacks", "unlisted"}
        Guests whose CPU has the feature, does not have it, or has a definition that does not list it.
    vendor : str
        Of the guest's CPU, where it matters.
    models : tuple of str
        How the names of the CPU models begin that it is about; empty for any.
    siblings : bool
        Only guests with more than one thread in a socket.
    mended : str
        First libvirt at the target that gets along with it; empty where none is known.
    year : int
    source : str
    """

    feature: str
    happens: str
    software: Software
    leaves: tuple[str, str]
    meets: tuple[str, str]
    only_down: bool = False
    concerns: Literal["has", "lacks", "unlisted"]
    vendor: str = ""
    models: tuple[str, ...] = ()
    siblings: bool = False
    mended: str = ""
    year: int
    source: str


SKEWS: Final = (
    Skew(
        feature="ht",
        happens="QEMU reports it for guests with more than one thread in a socket, of which older ones said nothing: "
        "libvirt refuses with 'extra features: ht'",
        software="QEMU", leaves=("", "10.0.0"), meets=("10.0.0", ""), concerns="lacks", siblings=True, mended="11.10.0",
        year=2025, source="libvirt 11.10.0 release notes; https://gitlab.com/qemu-project/qemu/-/issues/3153",
    ),
    Skew(
        feature="pdcm",
        happens="QEMU takes it from guests without a PMU: libvirt refuses with 'missing features: pdcm'",
        software="QEMU", leaves=("", "10.1.0"), meets=("10.1.0", ""), concerns="has",
        year=2025, source="QEMU commit e68ec298090; https://github.com/harvester/harvester/issues/11358",
    ),
    Skew(
        feature="arch-capabilities",
        happens="QEMU gives it to no guest on AMD any more unless it is asked to: libvirt misses it and what hangs on "
        "it",
        software="QEMU", leaves=("", "10.1.0"), meets=("10.1.0", ""), concerns="has", vendor="AMD",
        year=2025, source="libvirt 12.5.0 release notes, domain capabilities on AMD CPUs",
    ),
    Skew(
        feature="mpx",
        happens="the older libvirt counts it to the model, the newer one does not, and QEMU no longer gives it with "
        "the model: the older one misses it at arrival",
        software="libvirt", leaves=("9.0.1", ""), meets=("", "11.3.0"), only_down=True, concerns="unlisted",
        models=("Skylake-", "Cascadelake-", "Icelake-Server"),
        year=2025, source="the CPU maps of libvirt 9.0.0 and 11.3.0",
    ),
    *(
        Skew(
            feature="vmx",
            happens="a libvirt of 9.10 to 10.1 at one end looks at its parts (vmx-*) otherwise than the one at the "
            "other end, and the guest is refused",
            software="libvirt", leaves=leaves, meets=meets, concerns="has",
            year=2024, source="libvirt 10.2.0 release notes",
        )
        for leaves, meets in (
            (("", "9.10.0"), ("9.10.0", "10.2.0")),
            (("9.10.0", "10.2.0"), ("", "9.10.0")),
            (("10.2.0", ""), ("9.10.0", "10.2.0")),
        )
    ),
)  # fmt: skip
