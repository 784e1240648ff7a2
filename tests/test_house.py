"""The floor plan holds: who imports whom, what importing costs, and what no committed file may name."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vmcompat"


def room(name: str, files: str) -> list[str]:
    return [*(f"{name}.{file}" for file in files.split()), name]


# From top to bottom: a module imports only from above its own. The empty name is the front door.
PLAN = [
    *["errors", "schema", "calls", "connect"],
    *room("fleet", "cpu cpu_map records sources expand frames"),
    *room(
        "baseline",
        "meanings choice hypervisor answer card verify common groups "
        "loops lattice sets worth unreported parts maximal frontier "
        "pricing program partition demands ground conflict outcome pools "
        "compare conforms veto supposed what_if candidates generations usable named identical twins "
        "causes drift",
    ),
    *room(
        "migration",
        "transfer policy devices immovable domain inventory pieces domains apply observe demand fit attached disks "
        "blockers travel skews between preflight proofs kinds reach canary wordings explain progress job order "
        "whereabouts journal runbook aftermath recover standby account cycle run handle forecast migrate survey "
        "placing room rollout ledger assignment board itinerary convoy evacuate losses",
    ),
    "markup",
    *room(
        "plot",
        "_fold _moves _offers _losses _differences _places _bundles _shares _clocks _order _merges _style _canvas "
        "_matrix _chart upset adoption spreads "
        "features migration loss twins lattice frontier pools dendrogram",
    ),
    *room(
        "widgets",
        "_scene _state _plan _explorer_html _pools_html _later explorer planner "
        "progress _migrate_state _migrate_html migrator",
    ),
    *room("audit", "waivers mitigations record case points verdict _findings _fleet _guests audit report"),
    *["", "cli"],
]
UPHILL = {("fleet.frames", f"Fleet.{name}") for name in ("baseline", "baselines", "compare")}


class Edge(NamedTuple):
    """One import: from which module, inside which class and function ("" at the top), to which full name."""

    module: str
    inside: str
    name: str
    typing_only: bool = False


def imports(source: str, *, module: str, is_package: bool = False) -> Iterator[Edge]:
    """Every import in a module's text, the relative ones made absolute."""
    full = ["vmcompat", *module.split(".")] if module else ["vmcompat"]
    package = full if is_package else full[:-1]

    def walk(node: ast.AST, inside: str, typing_only: bool) -> Iterator[Edge]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Edge(module, inside, alias.name, typing_only)
            elif isinstance(child, ast.ImportFrom):
                above = package[: len(package) - child.level + 1] if child.level else []
                base = ".".join([*above, *([child.module] if child.module else [])])
                for alias in child.names:
                    yield Edge(module, inside, f"{base}.{alias.name}", typing_only)
            elif isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from walk(child, f"{inside}.{child.name}".lstrip("."), typing_only)
            else:
                guarded = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
                yield from walk(child, inside, typing_only or guarded)

    yield from walk(ast.parse(source), "", False)


def modules() -> dict[str, Path]:
    """Every module of the package by its name below vmcompat."""
    named = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def graph() -> list[Edge]:
    return [
        edge
        for module, path in modules().items()
        for edge in imports(path.read_text(), module=module, is_package=path.name == "__init__.py")
    ]


def target(name: str) -> str | None:
    """The module of the plan that a full name lies in, the longest that fits; None outside vmcompat."""
    parts = name.split(".")
    if parts[0] != "vmcompat":
        return None
    below = [".".join(parts[1:end]) for end in range(len(parts), 0, -1)]
    return next(module for module in below if module in PLAN)


def uphill(edges: list[Edge]) -> list[Edge]:
    """The edges that the plan forbids. For type checkers only, neighbours in a room may name each other's types,
    and a module with an exception those of its answers.
    """
    excused = {module for module, _ in UPHILL}
    found = []
    for edge in edges:
        to = target(edge.name)
        if to is None or PLAN.index(to) < PLAN.index(edge.module) or (edge.module, edge.inside) in UPHILL:
            continue
        neighbours = to.split(".")[0] == edge.module.split(".")[0]
        if not (edge.typing_only and (neighbours or edge.module in excused)):
            found.append(edge)
    return found


def test_every_module_has_its_place_in_the_plan_and_every_place_its_module() -> None:
    assert sorted(modules()) == sorted(PLAN)


@pytest.mark.parametrize("name", ["baseline", "migration"])
def test_a_large_room_begins_with_a_guide_to_every_module_in_it(name: str) -> None:
    guide = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text()))
    assert guide is not None
    inside = {module.removeprefix(f"{name}.") for module in modules() if module.startswith(f"{name}.")}
    assert set(re.findall(r"``(\w+)``", guide)) == inside


def test_a_module_imports_only_from_above_its_own() -> None:
    edges = graph()
    assert any(target(edge.name) for edge in edges), "no import inside vmcompat found"
    assert uphill(edges) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fleet.frames", "from vmcompat.baseline.common import Baseline"),
        ("fleet.frames", "from ..baseline import common"),
        ("fleet.frames", "class Fleet:\n    def select(self):\n        import vmcompat.baseline.common"),
        ("baseline.card", "from vmcompat.baseline.common import Baseline"),
        ("baseline.common", "if TYPE_CHECKING:\n    from vmcompat.plot.features import features"),
        ("baseline.lattice", "from vmcompat import read_fleet"),
        ("errors", "try:\n    from vmcompat import schema\nexcept ImportError:\n    pass"),
    ],
)
def test_an_import_from_below_is_seen(module: str, source: str) -> None:
    assert len(uphill(list(imports(source, module=module)))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "fleet.frames",
            "class Fleet:\n    def baseline(self):\n        from ..baseline.common import of_hosts",
        ),
        ("fleet.frames", "if TYPE_CHECKING:\n    from vmcompat.baseline.common import Baseline"),
        ("baseline.card", "if TYPE_CHECKING:\n    from vmcompat.baseline.common import Baseline"),
        ("baseline.common", "import pandas as pd\nfrom vmcompat.fleet import frames"),
        ("cli", "import vmcompat as vc"),
    ],
)
def test_the_named_exceptions_and_imports_from_above_pass(module: str, source: str) -> None:
    assert uphill(list(imports(source, module=module))) == []


def test_only_connect_imports_libvirt() -> None:
    importers = {edge.module for edge in graph() if edge.name.split(".")[0].startswith("libvirt")}
    assert importers <= {"connect"}


def test_importing_vmcompat_loads_no_plots_widgets_compiler_or_libvirt() -> None:
    program = "import sys, vmcompat; print(*{'matplotlib', 'ipywidgets', 'libvirt', 'numba'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True).split() == []


def test_what_vmcompat_requires_is_what_it_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {re.split(r"[<>=\[ ]", line)[0] for line in project["dependencies"]}
    optional = {"libvirt", "ipywidgets", "tqdm", "IPython", "nbclient", "nbconvert", "nbformat", "xlsxwriter"}
    imported = (
        {edge.name.split(".")[0].replace("PIL", "pillow") for edge in graph()} - sys.stdlib_module_names - {"vmcompat"}
    )
    assert imported - optional == required


def test_the_extra_all_sums_up_all_but_those_to_race_and_set_up_without_libvirt_takes_the_rest() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    others = set(extras) - {"all", "bench"}
    assert extras["all"] == [f"vmcompat[{','.join(name for name in extras if name in others)}]"]
    fallback = re.search(r"extras=(\w+(?:,\w+)+)$", (ROOT / ".ci/setup").read_text(), re.MULTILINE)
    assert fallback is not None
    assert set(fallback[1].split(",")) == others - {"libvirt"}


def test_constraints_are_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    assert "pandas" in {line.split("==")[0] for line in lines}


# In pieces, so that this file is not among the finds.
REGISTRIES = [
    "pypi" + r"\.org",
    "python" + r"hosted\.org",
    "ana" + r"conda\.org",
    "npm" + r"js\.(org|com)",
    "deb" + r"\.debian\.org",
    "archive" + r"\.ubuntu\.com",
    "--(extra-)?" + "index-url",
    "file:" + "///opt",
]
HOMES = [r"/(home|Users)" + r"/[a-z][\w.-]*/"]


def forbidden() -> re.Pattern[str]:
    """Package registries, people's home folders, and the place where this very checkout lies."""
    here = [re.escape(str(ROOT)), re.escape(str(ROOT.parent / "shared"))]
    return re.compile("|".join([*REGISTRIES, *HOMES, *here]))


def test_no_committed_file_names_a_registry_or_a_path_of_a_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files are committed is not known")
    files = [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    assert "pyproject.toml" in files
    texts = {name: (ROOT / name).read_bytes().decode("utf-8", "replace") for name in files}
    found = [f"{name}: {hit[0]}" for name, text in texts.items() for hit in forbidden().finditer(text)]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "pip install --" + "index-url x",
        "https://files.python" + "hosted.org/x",
        "open('/ho" + "me/jane/x')",
        f"read {ROOT}/x",
    ],
)
def test_a_registry_or_a_path_of_a_machine_is_seen(line: str) -> None:
    assert forbidden().search(line)
