"""Domain XML of the proof-of-life guest."""

from collections.abc import Iterable
from xml.sax.saxutils import escape

# Paths as every rig host sees them.
GUEST_DIR = "/run/rig/guest"
SHARED_DIR = "/run/rig/shared"


def domain_xml(
    name: str,
    *,
    cpu: str = "Westmere",
    disable: Iterable[str] = (),
    memory: int = 128,
    buffer: int = 32,
    dirty: int = 0,
    tick: int = 250,
) -> str:
    """Return the XML of a TCG guest that writes its signs of life to its console.

    Parameters
    ----------
    name : str
        Name of the domain and of its console's log.
    cpu : str
        A model, written as an exact custom CPU that is checked before the start, or a whole ``<cpu>``.
    disable : iterable of str
        Features taken from the model. TCG emulates neither ``x2apic`` nor ``tsc-deadline``, so a model that
        brings them (SandyBridge does) starts on no host of the rig without this.
    memory : int
        Of the guest [MiB].
    buffer : int
        Memory that the guest fills and keeps checking, at most some two thirds of ``memory`` [MiB].
    dirty : int
        How much of the buffer it rewrites in a second [MiB/s].
    tick : int
        Time between two signs of life [ms].
    """
    if not cpu.lstrip().startswith("<"):
        model = f"<model fallback='forbid'>{escape(cpu)}</model>"
        features = "".join(f"<feature policy='disable' name='{escape(feature)}'/>" for feature in disable)
        cpu = f"<cpu mode='custom' match='exact' check='partial'>{model}{features}</cpu>"
    # mitigations=off and nokaslr: under emulation they cost seconds of the boot and protect nobody.
    kernel = "console=ttyS0 quiet nokaslr mitigations=off panic=-1"
    # append='on': the target of a migration opens the same log.
    return f"""\
<domain type='qemu'>
  <name>{escape(name)}</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{GUEST_DIR}/vmlinux</kernel>
    <initrd>{GUEST_DIR}/initrd.gz</initrd>
    <cmdline>{kernel} vm.memory={buffer} vm.dirty={dirty} vm.tick={tick}</cmdline>
  </os>
  <features><acpi/></features>
  {cpu}
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <serial type='file'>
      <source path='{SHARED_DIR}/{escape(name)}.log' append='on'/>
      <target port='0'/>
    </serial>
    <audio id='1' type='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""
