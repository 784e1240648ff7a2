"""Stands in for QEMU on a rig host, so that no guest gets a feature which the pretended host CPU lacks.

A copy of this file, with a first line that names the interpreter, is mounted over the emulator's usual path.
It must not import anything of the project: it runs with no path but the standard library's.
"""

import json
import os
import sys
from typing import Any

REAL = "/run/rig/bin/qemu-system-x86_64"
PRETENCE = "/run/rig/pretence/pretence.json"


def without_hidden(cpu: str, pretence: dict[str, Any]) -> str:
    """Return a value of ``-cpu`` with the hidden features off; exit as QEMU does where they are enforced."""
    model, *settings = cpu.split(",")
    hidden: list[str] = pretence["hidden"]
    if "enforce" in settings:
        asked = {setting.removesuffix("=on") for setting in settings if setting.endswith("=on")}
        asked.update(pretence["models"].get(model, []))
        lacking = [feature for feature in hidden if feature in asked]
        if lacking:
            sys.exit(f"qemu-system-x86_64: TCG doesn't support requested features: {', '.join(lacking)}")
    return ",".join([cpu, *(f"{feature}=off" for feature in hidden)])


def main() -> None:
    """Replace this process by the real emulator."""
    with open(PRETENCE, encoding="utf-8") as file:
        pretence = json.load(file)
    arguments = sys.argv[1:]
    # libvirt's probe passes no -cpu and sees the real emulator: pretence.py edits what libvirt cached of it.
    if "-cpu" in arguments:
        at = arguments.index("-cpu") + 1
        arguments[at] = without_hidden(arguments[at], pretence)
    os.execv(REAL, [sys.argv[0], *arguments])


if __name__ == "__main__":
    main()
