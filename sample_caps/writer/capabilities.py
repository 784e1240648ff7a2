"""The document of ``virsh capabilities``."""

from __future__ import annotations

from sample_caps.writer import facts
from sample_caps.writer.cpu import Description, host_description
from sample_caps.writer.facts import Host, Processor
from sample_caps.writer.markup import Element, el

KIB_PER_GIB = 1024 * 1024

# What a guest of each architecture is made with: emulator, word size, machine aliases, further machine types.
EMULATORS = {
    "x86_64": ("qemu-system-x86_64", 64, ("pc-i440fx", "pc"), ("pc-q35", "q35")),
    "i686": ("qemu-system-i386", 32, ("pc-i440fx", "pc"), ("pc-q35", "q35")),
    "ppc64le": ("qemu-system-ppc64", 64, ("pseries", "pseries"), None),
    "s390x": ("qemu-system-s390x", 64, ("s390-ccw-virtio", "s390-ccw-virtio"), None),
}
RELEASES = ((10, 0), (9, 2), (9, 1), (9, 0), (8, 2), (8, 1), (8, 0), (7, 2), (7, 1), (7, 0), (6, 2), (6, 1))
OLDER_RELEASES = ((6, 0), (5, 2), (5, 1), (5, 0), (4, 2), (4, 1), (4, 0), (3, 1), (3, 0), (2, 12), (2, 11))


def capabilities(host: Host) -> Element:
    """The whole document."""
    guests = {"x86_64": ("x86_64", "i686")}.get(host.arch, (host.arch,))
    return el("capabilities", _host(host), *(_guest(host, arch) for arch in guests))


def _host(host: Host) -> Element:
    numa = Numa(host)
    x86 = host.arch == "x86_64"
    return el(
        "host",
        el("uuid", host.uuid),
        _cpu(host, numa),
        el("power_management", *([el("suspend_mem")] if x86 else [])),
        el("iommu", support="yes" if host.arch != "s390x" else "no"),
        el(
            "migration_features",
            el("live"),
            el("uri_transports", el("uri_transport", "tcp"), el("uri_transport", "rdma")),
        ),
        el("topology", el("cells", *(numa.cell(number) for number in range(numa.cells)), num=numa.cells)),
        el("cache", *numa.banks()) if x86 else None,
        el("secmodel", el("model", "apparmor"), el("doi", "0")) if x86 else None,
        el(
            "secmodel",
            el("model", "dac"),
            el("doi", "0"),
            *(el("baselabel", "+64055:+108", type=kind) for kind in ("kvm", "qemu")),
        ),
    )


def _cpu(host: Host, numa: Numa) -> Element:
    """The host's CPU; in its ``<topology>`` libvirt counts the sockets and cores of one NUMA cell."""
    pages = [el("pages", unit="KiB", size=size) for size in numa.page_sizes]
    topology = el(
        "topology",
        sockets=1,
        dies=1 if host.libvirt >= (6, 1) else None,
        clusters=1 if host.libvirt >= (10, 1) else None,
        cores=numa.cores,
        threads={"ppc64le": 4, "s390x": 1}.get(host.arch, 2),
    )
    if host.arch == "ppc64le":
        return el("cpu", el("arch", host.arch), el("model", "POWER9"), el("vendor", "IBM"), topology, *pages)
    described = host_description(host) if host.arch == "x86_64" else None
    if described is None:
        return el("cpu", el("arch", host.arch), topology, *pages)
    return el("cpu", el("arch", host.arch), *_x86_cpu(host, described, numa, topology), *pages)


def _x86_cpu(host: Host, described: Description, numa: Numa, topology: Element) -> list[Element | None]:
    processor = numa.processor
    assert processor.signature is not None
    family, model, stepping = processor.signature
    libvirt = host.libvirt
    return [
        el("model", described.model),
        el("vendor", described.vendor),
        el("microcode", version=processor.microcode),
        el("signature", family=family, model=model, stepping=stepping) if libvirt >= (8, 6) else None,
        # libvirt asks KVM for the frequency.
        el(
            "counter",
            name="tsc",
            frequency=host.tsc_hz,
            scaling="yes" if host.tsc_scaling else "no",
        )
        if host.has_kvm
        else None,
        topology,
        el("maxphysaddr", mode="emulate", bits=processor.physical_bits) if libvirt >= (8, 7) else None,
        *(el("feature", name=name) for name, _ in described.features),
    ]


class Numa:
    """Cells, processors and caches of a host: one cell a socket, or one a die where the processor has several."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.processor = _processor_of(host)
        self.cells = host.sockets * self.processor.dies
        self.page_sizes = {"ppc64le": (64, 2048, 1048576), "s390x": (4, 1024)}.get(host.arch, (4, 2048, 1048576))
        self.cores = self.processor.cores // self.processor.dies

    def cpus(self, cell: int) -> list[tuple[int, int, str]]:
        """(number, core, siblings) of each processor; the second thread of a core follows all first ones."""
        firsts = range(cell * self.cores, (cell + 1) * self.cores)
        if self.host.arch == "ppc64le":
            # KVM on POWER wants the other three threads of a core switched off.
            return [(4 * first, 4 * first, str(4 * first)) for first in firsts]
        total = self.cells * self.cores
        return [
            (first + half * total, first % self.cores, f"{first},{first + total}")
            for half in (0, 1)
            for first in firsts
        ]

    def cpuset(self, cell: int) -> str:
        """The processors of a cell as libvirt writes a set."""
        numbers = sorted(number for number, _, _ in self.cpus(cell))
        runs: list[list[int]] = []
        for number in numbers:
            if runs and number == runs[-1][-1] + 1:
                runs[-1].append(number)
            else:
                runs.append([number])
        return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

    def memory_kib(self, cell: int) -> int:
        """The share of the cell less what the firmware keeps, a little different everywhere."""
        share = int(self.host.row["memory_gib"]) * KIB_PER_GIB // self.cells
        kept = 340_000 + self.host.noise(f"memory {cell}", 60_000)
        return (share - kept - kept % 64) // 64 * 64

    def cell(self, number: int) -> Element:
        """A cell with its memory, distances and processors."""
        memory = self.memory_kib(number)
        huge = self.host.hugepages_1g if self.page_sizes[-1] == 1048576 else 0
        counts = {self.page_sizes[0]: (memory - huge * KIB_PER_GIB) // self.page_sizes[0]}
        processors = self.cpus(number)
        dies = self.processor.dies
        return el(
            "cell",
            el("memory", str(memory), unit="KiB"),
            *(
                el("pages", str(counts.get(size, huge if size == KIB_PER_GIB else 0)), unit="KiB", size=size)
                for size in self.page_sizes
            ),
            el("distances", *(self._sibling(number, other) for other in range(self.cells))),
            el(
                "cpus",
                *(
                    el(
                        "cpu",
                        id=identity,
                        socket_id=number // dies,
                        die_id=number % dies if self.host.libvirt >= (6, 1) else None,
                        cluster_id=0 if self.host.libvirt >= (10, 1) else None,
                        core_id=core,
                        siblings=siblings,
                    )
                    for identity, core, siblings in processors
                ),
                num=len(processors),
            ),
            id=number,
        )

    def _sibling(self, cell: int, other: int) -> Element:
        if cell == other:
            value = 10
        elif cell // self.processor.dies == other // self.processor.dies:
            value = 16
        else:
            value = 32 if self.processor.dies > 1 else 21
        return el("sibling", id=other, value=value)

    def banks(self) -> list[Element]:
        """The last-level caches, one a cell."""
        share = self.processor.l3_mib // self.processor.dies
        return [
            el("bank", id=cell, level=3, type="both", size=share, unit="MiB", cpus=self.cpuset(cell))
            for cell in range(self.cells)
        ]


def _processor_of(host: Host) -> Processor:
    if host.arch == "x86_64":
        return facts.processor(host.row["cpu"])
    cores = {"ppc64le": 16, "s390x": 8}[host.arch]
    return Processor(host.row["cpu"], "IBM", None, frozenset(), 0, cores, 1, 0, 0, 0, False)


def machine_types(host: Host, arch: str) -> list[tuple[str, str | None]]:
    """(name, canonical name) of the machine types of this QEMU; an alias stands after what it means."""
    _, _, *families = EMULATORS[arch]
    listed: list[tuple[str, str | None]] = []
    for family in families:
        if family is None:
            continue
        prefix, alias = family
        first = True
        for release in RELEASES + OLDER_RELEASES:
            if release > host.qemu[:2] or (host.qemu[:2] >= (10, 0) and release < (4, 0)):
                continue
            name = f"{prefix}-{release[0]}.{release[1]}"
            listed.append((name, None))
            if first:
                listed.append((alias, name))
            first = False
    return listed


def default_machine(host: Host) -> str:
    """The machine type that the domain capabilities are asked for."""
    prefix = {"x86_64": "pc-q35", "ppc64le": "pseries", "s390x": "s390-ccw-virtio"}[host.arch]
    return f"{prefix}-{host.qemu[0]}.{host.qemu[1]}"


def max_vcpus(host: Host, machine: str) -> int:
    """The virtual CPUs that QEMU allows on this machine type."""
    if host.arch == "ppc64le":
        return 2147483647
    if host.arch == "s390x":
        return 248
    if not machine.startswith(("pc-q35", "q35")):
        return 255
    newest = machine.endswith("q35") or machine.endswith(f"-{host.qemu[0]}.{host.qemu[1]}")
    return 4096 if host.qemu >= (10,) and newest else 288


def _machine(host: Host, name: str, canonical: str | None) -> Element:
    old = host.qemu >= (10,) and (canonical or name).rpartition("-")[2].split(".")[0] in ("4", "5", "6")
    return el(
        "machine",
        name,
        canonical=canonical,
        maxCpus=max_vcpus(host, canonical or name),
        deprecated="yes" if old and host.libvirt >= (7, 1) else None,
    )


def _guest(host: Host, arch: str) -> Element:
    binary, wordsize, *_ = EMULATORS[arch]
    machines = [_machine(host, name, canonical) for name, canonical in machine_types(host, arch)]
    x86 = arch in ("x86_64", "i686")
    return el(
        "guest",
        el("os_type", "hvm"),
        el(
            "arch",
            el("wordsize", str(wordsize)),
            el("emulator", f"/usr/bin/{binary}"),
            *machines,
            el("domain", type="qemu"),
            el("domain", type="kvm") if host.has_kvm else None,
            name=arch,
        ),
        el(
            "features",
            *([el("pae"), el("nonpae")] if arch == "i686" else []),
            el("acpi", default="on", toggle="yes") if x86 else None,
            el("apic", default="on", toggle="no") if x86 else None,
            el("cpuselection"),
            el("deviceboot"),
            el("disksnapshot", default="on", toggle="no"),
            el("externalSnapshot") if host.libvirt >= (9, 10) else None,
        ),
    )
