"""The preflight matrix: check by where it fires in the tests, what libvirt does then, and what that was proved on.

``python -m tests.matrix`` prints it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from tests.migration import test_attached, test_between, test_preflight
from tests.migration.test_attached import PROVED_ON
from vmcompat.migration import checks

HERE = Path(__file__).resolve().parent
# name: check, severity, what the evidence says, what was seen
CASES = {**test_preflight.CASES, **test_between.CASES, **test_attached.CASES}
FIRES = ("warn", "risk", "block", "unknown")
# How the tests of devices say what the marks of the others say.
_LIBVIRT = {"libvirt agreed": "refuses", "libvirt does not look": "performs", "not asked": "not tried"}


def severities() -> dict[str, set[str]]:
    """What each check says in the cases of the tests."""
    said: dict[str, set[str]] = {}
    for check, severity, *_ in CASES.values():
        said.setdefault(check, set()).add(severity)
    return said


def marks() -> dict[str, dict[str, set[str]]]:
    """By check and by what it was proved on: what libvirt does, after the marks on the tests."""
    found: dict[str, dict[str, set[str]]] = {}
    for path in sorted(HERE.rglob("test_*.py")):
        on = "rig (TCG)" if path.parent.name == "rig" else "recorded documents"
        for check, libvirt in _marked(path.read_text()):
            found.setdefault(check, {}).setdefault(on, set()).add(libvirt)
    for check, (on, libvirt) in PROVED_ON.items():
        found.setdefault(check, {}).setdefault(on, set()).add(_LIBVIRT[libvirt])
    return found


def _marked(source: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.proves":
                    (check,), says = mark.args, {k.arg: ast.literal_eval(k.value) for k in mark.keywords}
                    yield ast.literal_eval(check), says.get("libvirt", "not tried")


def matrix() -> pd.DataFrame:
    """One row a check: what it may say, in how many cases of the tests it fires, what libvirt does, proved on what."""
    table = checks()
    cases = [(c, s) for c, s, *_ in CASES.values()]
    table.insert(2, "fired", [sum(c == check and s in FIRES for c, s in cases) for check in table.index])
    return table


if __name__ == "__main__":
    shown = matrix()
    shown["severities"] = shown["severities"].map(" ".join)
    print(shown.to_string())
