"""Stands in for QEMU on a rig host: no guest gets a feature which the pretended host CPU lacks, nor loses memory.

A copy of this file, with a first line that names the interpreter, is mounted over the emulator's usual path.
It must not import anything of the project: it runs with no path but the standard library's.
"""

import json
import os
import re
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


def with_sound_memory(arguments: list[str]) -> list[str]:
    """Return the arguments with the guest's memory 8 KiB smaller, so that it arrives whole.

    Before 9.0 QEMU's migration takes 64 pages at a time from the record of written pages and forgets to tell
    TCG, which then writes to them unrecorded: every guest that wrote during a slow migration arrived with a
    damaged kernel (8 of 8 under 7.2, on one thread too). Memory that is no multiple of 64 pages goes page by page,
    which is sound (0 of 8). QEMU wants a multiple of 8 KiB.
    """
    backend = re.compile(r'"id":"pc.ram","size":(\d+)')
    size = next((int(found[1]) for text in arguments if (found := backend.search(text))), None)
    if size is None:
        return arguments
    smaller = size - 8192
    changed = [backend.sub(f'"id":"pc.ram","size":{smaller}', text) for text in arguments]
    at = changed.index("-m") + 1
    changed[at] = re.sub(r"^(size=)?\d+k?", rf"\g<1>{smaller // 1024}k", changed[at])
    return changed


def main() -> None:
    """Replace this process by the real emulator."""
    with open(PRETENCE, encoding="utf-8") as file:
        pretence = json.load(file)
    arguments = sys.argv[1:]
    # libvirt's probe passes no -cpu and sees the real emulator: pretence.py edits what libvirt cached of it.
    if "-cpu" in arguments:
        at = arguments.index("-cpu") + 1
        arguments[at] = without_hidden(arguments[at], pretence)
        arguments = with_sound_memory(arguments)
    os.execv(REAL, [sys.argv[0], *arguments])


if __name__ == "__main__":
    main()
