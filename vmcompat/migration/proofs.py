"""The checks of a migration plan as a table: what each asks, what it may say, and where that was seen to be true."""

from __future__ import annotations

from typing import Final, NamedTuple

import pandas as pd

from vmcompat.schema import MIGRATION_CHECKS, frame


class Proof(NamedTuple):
    """One row of :func:`checks`; what it claims is held against the tests."""

    asks: str
    severities: str
    proved_on: str = "nobody"
    libvirt: str = "not tried"


RIG: Final = "rig (TCG)"
RECORDED: Final = "recorded documents"

PROOFS: Final = {
    "STATE": Proof("does the guest run, and does no other job hold it?", "ok risk block", RIG, "refuses, performs"),
    "SAME_HOST": Proof("are source and target two hosts?", "ok block unknown", RIG, "refuses"),
    "PEER": Proof("can one host hand the guest to the other?", "ok block unknown", RIG, "refuses"),
    "TRANSFER": Proof("have both hosts what the options need?", "ok warn block unknown", RIG, "refuses"),
    "TRANSPORT": Proof("who may listen on the way?", "ok warn", RIG, "performs"),
    "VERSION": Proof("are libvirt and QEMU there not older?", "ok warn risk block unknown"),
    "SKEW": Proof("is a QEMU or libvirt there known to change such a CPU?", "ok warn risk", RECORDED),
    "DRY": Proof("does the target understand the whole definition?", "ok block unknown", RIG, "refuses"),
    "JOBS": Proof("how many migrations are under way?", "ok warn unknown", RIG, "performs"),
    "LIVE_CPU": Proof("does the target give every feature that the guest has now?", "ok risk block unknown", RIG,
        "refuses"),
    "NEW_CPU": Proof("can both hosts start the CPU of the next start?", "ok risk block unknown", RIG, "refuses"),
    "CPU_NAMES": Proof("do both libvirts know the model and the features by name?", "ok block unknown", RIG,
        "refuses"),
    "VENDOR": Proof("are the two CPUs of one maker?", "ok risk block unknown", RECORDED),
    "PASSTHROUGH": Proof("is a passed-through CPU the same one there?", "risk unknown", RIG, "performs"),
    "HOST_MODEL": Proof("could the guest come back after its next power cycle?", "ok warn unknown", RIG, "performs"),
    "NESTED": Proof("may the guest run guests of its own?", "warn risk", RECORDED),
    "EMULATION": Proof("does an emulated guest arrive as it was?", "ok warn unknown", RIG, "performs"),
    "CPU_HOST_PARTS": Proof("does a baseline go with the rest of <cpu>?", "ok block", RIG, "refuses"),
    "MACHINE": Proof("has the target the machine type, the emulator and the virtualization?", "ok block unknown",
        RIG, "refuses"),
    "DEPRECATED": Proof("will later QEMUs there still have the machine type?", "ok warn", RIG, "performs"),
    "VCPU": Proof("has the target the CPUs of <vcpu>?", "ok warn risk block unknown", RIG, "refuses, performs"),
    "CPUTUNE": Proof("has the target the CPUs and caches of <cputune>?", "ok risk block unknown", RIG,
        "refuses, performs"),
    "NUMATUNE": Proof("has the target the nodes of <numatune>?", "ok risk block unknown", RIG, "refuses"),
    "MEMORY": Proof("has the target so much memory, in pages of that size?", "ok warn risk block unknown", RIG,
        "refuses, performs"),
    "TSC": Proof("counts the target's TSC as fast, or can it scale?", "ok warn risk block unknown", RECORDED),
    "ADDRESS_BITS": Proof("has the target the physical address bits that are written down?", "ok risk unknown",
        RECORDED),
    "HYPERV": Proof("has the target the Hyper-V enlightenments?", "ok warn risk block", RIG, "performs"),
    "HOSTDEV": Proof("has it devices of its host?", "warn risk block unknown"),
    "NON_MIGRATABLE": Proof("has it devices that QEMU does not move?", "warn block unknown", RIG,
        "refuses, performs"),
    "DISKS": Proof("is every disk the same storage there?", "ok warn risk block unknown", RIG, "refuses"),
    "CACHE": Proof("is every write out of the source's cache at the end?", "ok warn block unknown", RECORDED,
        "performs"),
    "TRANSIENT": Proof("has it disks that forget what is written?", "block", RIG, "refuses"),
    "SNAPSHOTS": Proof("has it snapshots?", "ok block", RIG, "refuses"),
    "BLOCKJOB": Proof("is a block job under way?", "ok block", RIG, "refuses"),
    "FILESYSTEM": Proof("has it folders of its host?", "block unknown", RIG, "refuses"),
    "TPM": Proof("can its TPM go along?", "ok risk block unknown", RECORDED, "refuses"),
    "NETWORK": Proof("has the target its networks and bridges?", "ok warn risk block unknown", RIG, "refuses"),
    "GRAPHICS": Proof("can its graphics listen there?", "ok unknown", RIG, "refuses"),
    "PATHS": Proof("can its serial ports and channels be opened there?", "ok warn risk unknown", RIG, "refuses"),
    "FIRMWARE": Proof("has the target its firmware?", "ok risk unknown", RIG, "performs"),
    "SECLABEL": Proof("has the target its security model?", "ok risk block unknown", RIG, "refuses"),
    "MEMORY_DEVICES": Proof("can its memory devices be made there?", "ok warn risk block unknown", RIG,
        "refuses, performs"),
    "TOPOLOGY": Proof("does the target give so many virtual CPUs?", "ok block", RECORDED, "refuses"),
    "LAUNCH_SECURITY": Proof("is its memory sealed from the host?", "block"),
    "OWNER": Proof("does another manager own it?", "ok warn risk", RIG, "performs"),
    "NAME": Proof("are its name and UUID free there?", "ok warn block", RIG, "refuses, performs"),
    "AUTOSTART": Proof("which host starts it when it boots?", "ok risk", RIG, "performs"),
    "STORED": Proof("is it stored as it runs?", "ok warn", RIG, "performs"),
}  # fmt: skip
"""By the id of the finding. Of clocks nothing is asked: libvirt has no call that tells a host's time, and a guest's own
needs an agent in it; look at ``chronyc tracking`` on both hosts."""


def checks() -> pd.DataFrame:
    """Every check of a migration plan, and how far it is to be trusted.

    Returns
    -------
    DataFrame
        Index ``id``, in the order in which a plan shows its findings; columns of ``schema.MIGRATION_CHECKS``.
        ``proved_on`` is where it was seen to fire: *rig (TCG)*, real libvirt hosts whose CPUs are emulated; *recorded
        documents* of real hosts; *real KVM*; or *nobody*, where the tests have only cases made up after the
        documentation. ``libvirt`` is what libvirt did there with such a guest: *refuses*, *performs* (the reason why
        it is a warning or a risk), or *not tried*.

    Examples
    --------
    >>> from vmcompat import migration
    >>> table = migration.checks()
    >>> table.loc["PASSTHROUGH", ["severities", "proved_on", "libvirt"]].tolist()
    [('risk', 'unknown'), 'rig (TCG)', 'performs']
    """
    rows = [{**proof._asdict(), "severities": tuple(proof.severities.split())} for proof in PROOFS.values()]
    return frame(MIGRATION_CHECKS, rows, index=pd.Index(list(PROOFS), dtype="str", name="id"))
