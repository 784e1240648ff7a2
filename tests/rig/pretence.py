"""Hosts of different CPUs on one machine: under TCG a host's CPU is what QEMU's probe says it is.

libvirt asks QEMU once what it can emulate (``max``) and caches the answer. On a rig host the answer is edited
to what the pretended CPU has, so domain capabilities, the hypervisor baseline and the compare differ as between
real hosts; and ``emulator.py`` takes the same features from every guest. ``virsh capabilities`` reads CPUID
itself and stays as it is.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.rig.errors import RigError
from tests.rig.supplies import EMULATOR, program, publish

_STAND_IN = Path(__file__).with_name("emulator.py")
_IDENTITY = ("vendor", "family", "model", "stepping", "model-id")
# What a guest sees of its being one, on any host: no property of the host's CPU.
_OF_THE_HYPERVISOR = {"hypervisor", "arat"}


class _Qmp:
    """A QMP conversation with a QEMU that has no machine."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._receive()
        self.ask("qmp_capabilities")

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RigError(f"{EMULATOR} ended while its CPUs were asked for")
        message: dict[str, Any] = json.loads(line)
        return message

    def ask(self, command: str, **arguments: Any) -> Any:
        """Return the answer to one command, None where QEMU refuses it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        while True:
            message = self._receive()
            if "return" in message or "error" in message:
                return message.get("return")

    def expand(self, model: str, how: str = "full") -> dict[str, Any]:
        """Return the properties of a CPU model, empty where QEMU does not expand it."""
        answer = self.ask("query-cpu-model-expansion", type=how, model={"name": model})
        return answer["model"]["props"] if answer else {}


@contextlib.contextmanager
def _qmp() -> Iterator[_Qmp]:
    command = [program(EMULATOR), "-S", "-nodefaults", "-no-user-config", "-nographic"]
    command += ["-machine", "none,accel=tcg", "-qmp", "stdio"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _Qmp(process)
        finally:
            process.kill()


def _canonical(feature: str) -> str:
    """QEMU's own spelling of a feature; it takes several (``sse4_1``, ``sse4-1``)."""
    return feature.replace("_", "-")


def _describe(cpu: str) -> dict[str, Any]:
    """Say what to hide so that ``max`` becomes this CPU, and which models thereby miss what."""
    with _qmp() as qmp:
        names = [definition["name"] for definition in qmp.ask("query-cpu-definitions")]
        if cpu not in names:
            raise RigError(f"QEMU knows no CPU model {cpu!r}")
        emulated, pretended = qmp.expand("max"), qmp.expand(cpu)
        settable = qmp.expand("max", "static")
        hidden = {
            _canonical(name)
            for name, has in emulated.items()
            if has is True and pretended.get(name) is False and name in settable
        }
        hidden -= _OF_THE_HYPERVISOR
        models = {}
        for name in names:
            expanded = qmp.expand(name)
            lacking = {_canonical(feature) for feature, has in expanded.items() if has is True} & hidden
            # "max" is what the host has, whatever that is: nothing of it is ever missing.
            if lacking and name != "max":
                models[name] = sorted(lacking)
    return {
        "hidden": sorted(hidden),
        "identity": {name: pretended[name] for name in _IDENTITY if name in pretended},
        "models": models,
    }


def pretence_dir(cpu: str, cache: Path) -> Path:
    """The folder with a CPU's ``pretence.json``, its ``emulator`` and libvirt's edited probes of it.

    The stand-in has to stay the same file from run to run: libvirt throws its probe away when the emulator's
    ctime differs, and probing takes most of a host's start.
    """
    emulator = Path(program(EMULATOR)).resolve()
    interpreter = os.path.realpath(sys.executable)
    about = [Path(__file__).read_text(), _STAND_IN.read_text(), interpreter, str(emulator.stat().st_ctime_ns)]
    folder = cache / f"pretence-{cpu}-{hashlib.sha256(''.join(about).encode()).hexdigest()[:12]}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch) / "pretence"
            (made / "probes").mkdir(parents=True)
            (made / "pretence.json").write_text(json.dumps(_describe(cpu), indent=1))
            (made / "emulator").write_text(f"#!{interpreter} -IS\n{_STAND_IN.read_text()}")
            (made / "emulator").chmod(0o755)
            publish(made, folder)
    return folder


def restore_probes(folder: Path, probes: Path) -> None:
    """Give a host, before its libvirtd starts, the probes that an earlier run kept."""
    shutil.copytree(folder / "probes", probes, dirs_exist_ok=True)


def edit_probes(folder: Path, probes: Path) -> bool:
    """Make the probes that a host's libvirtd cached those of the pretended CPU, and keep them.

    Returns
    -------
    bool
        Whether anything had to be edited: the running libvirtd then still believes the unedited ones.
    """
    pretence = json.loads((folder / "pretence.json").read_text())
    edited = False
    for probe in sorted(probes.glob("*.xml")):
        tree = ET.parse(probe)
        if tree.findtext("arch") == "x86_64" and _edit_probe(tree, pretence):
            tree.write(probe, encoding="unicode")
            edited = True
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                Path(shutil.copy2(probe, scratch)).replace(folder / "probes" / probe.name)
    return edited


def _edit_probe(tree: "ET.ElementTree[ET.Element]", pretence: dict[str, Any]) -> bool:
    edited = False
    for feature in tree.iterfind("hostCPU[@type='tcg']/property"):
        name = feature.get("name", "")
        value = pretence["identity"].get(name)
        if _canonical(name) in pretence["hidden"] and feature.get("type") == "boolean":
            value = "false"
        if value is not None and feature.get("value") != str(value):
            feature.set("value", str(value))
            edited = True
    for model in tree.iterfind("cpu[@type='tcg']"):
        known = {blocker.get("name") for blocker in model.iterfind("blocker")}
        for name in pretence["models"].get(model.get("name"), []):
            if name not in known:
                ET.SubElement(model, "blocker", name=name)
                model.set("usable", "no")
                edited = True
    return edited
