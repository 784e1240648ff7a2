"""Small documents as libvirt prints them, with only what a test looks at."""


def cpu(model: str | None = "Westmere", *features: str, arch: str = "x86_64", more: str = "") -> str:
    """A host <cpu>; ``more`` is what else stands in it."""
    named = f"<model>{model}</model><vendor>Intel</vendor>" if model else ""
    listed = "".join(f"<feature name='{f}'/>" for f in features)
    return f"<cpu><arch>{arch}</arch>{named}{more}{listed}</cpu>"


def capabilities(cpu: str, *, uuid: str | None = None, more: str = "") -> str:
    """What virsh capabilities prints; ``more`` is what else the host says."""
    known = f"<uuid>{uuid}</uuid>" if uuid else ""
    return f"<capabilities>\n<host>{known}{cpu}{more}</host>\n</capabilities>\n"


def domcapabilities(
    model: str | None = "Westmere",
    *features: str,
    disabled: tuple[str, ...] = (),
    arch: str = "x86_64",
    virttype: str = "kvm",
    emulator: str = "/usr/bin/qemu-system-x86_64",
    machine: str = "pc-q35-7.2",
) -> str:
    """What virsh domcapabilities prints; without a model it offers no host-model CPU."""
    listed = "".join(f"<feature policy='require' name='{f}'/>" for f in features)
    listed += "".join(f"<feature policy='disable' name='{f}'/>" for f in disabled)
    mode = (
        f"<mode name='host-model' supported='yes'><model fallback='forbid'>{model}</model><vendor>Intel</vendor>"
        f"{listed}</mode>"
        if model
        else "<mode name='host-model' supported='no'/>"
    )
    return (
        f"<domainCapabilities>\n<path>{emulator}</path><domain>{virttype}</domain><machine>{machine}</machine>"
        f"<arch>{arch}</arch><cpu>{mode}<mode name='custom' supported='yes'><model usable='yes'>Westmere</model>"
        f"</mode></cpu>\n</domainCapabilities>\n"
    )
