"""The audit report: an executed notebook as one HTML file that opens without a network, and its tables beside it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import pandas as pd

from vmcompat.audit.audit import Audit
from vmcompat.audit.case import Promise
from vmcompat.baseline.pools import Pools
from vmcompat.connect import shown
from vmcompat.errors import VmcompatError
from vmcompat.fleet.frames import Fleet
from vmcompat.fleet.sources import Source
from vmcompat.markup import inert
from vmcompat.migration.domains import Domains

NOTEBOOK: Final = "fleet_audit.ipynb"
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_HEADING: Final = re.compile(r"<h2>(.*?)</h2>", re.DOTALL)
_PDF_SECONDS: Final = 300


def report(
    fleet: Fleet,
    path: str | Path,
    *,
    title: str | None = None,
    domains: Domains | Any = None,
    baseline: Promise | None = None,
    pools: Pools | None = None,
    since: Source | Fleet | None = None,
    waivers: str | Path | None = None,
    pdf: bool = False,
    at: date | str | None = None,
    by: str | None = None,
    alike: Sequence[str] | None = None,
    notebook: str | Path | None = None,
    progress: bool | Callable[[int, int, str], None] = True,
    command: str | None = None,
) -> Path:
    """Writes the audit of a fleet as one HTML file that asks no network for anything.

    Beside ``audit.html`` come ``audit.xlsx`` with all tables, the same as CSV in ``audit.tables/``, and with ``pdf``
    ``audit.pdf``. Same inputs, same bytes in the HTML file, as long as the recommended moves are proven.

    Parameters
    ----------
    fleet : Fleet
    path : str or Path
        The file to write; one that is there is replaced when the new one is whole.
    title : str, optional
    domains : Domains, or what :func:`vmcompat.read_domains` reads, optional
        The guests. What is not given is not judged, and the report says so in its first sentence.
    baseline : Baseline, Cpu, str, or mapping to these, optional
        What is deployed on all hosts, or by value of ``by``; a text is that of a ``<cpu>``.
    pools : Pools, optional
        The recommended pools. Default: as many as there are groups today, the best that moving one host in ten gives.
    since : path of an earlier report, Fleet, or earlier documents, optional
        What to compare with.
    waivers : path, optional
        CSV with the columns finding, owner, expiry, reason.
    pdf : bool
        Print it with Chromium too.
    at : date or str, optional
        The day of the audit, by which waivers expire; the only time in the report. Default: today (UTC).
    by : str, optional
        The column of ``fleet.hosts`` that says which hosts swap guests today. Default: rack, cluster or pool, the first
        that there is.
    alike : sequence of str, optional
        The columns that say which hosts should be identical. Default: server and purchased, or the CPU's model.
    notebook : path, optional
        A changed copy of ``notebooks/fleet_audit.ipynb`` to execute in its place.
    progress : bool or callable
        Print each section as it is made, or call a function with its number, how many there are, and its heading.
    command : str, optional
        What makes the report again, for its appendix. Default: this call.

    Returns
    -------
    Path
        Of the HTML file.

    Raises
    ------
    FrameError, DocumentError
        An input cannot be used.
    VmcompatError
        The notebook fails, a package of ``vmcompat[report]`` or a browser for the PDF is missing. Nothing is written.

    Notes
    -----
    Takes about 20 s for 50 hosts and two minutes for 500, half of it the proof of the recommended moves.
    """
    path = Path(path)
    _may_write(path)
    browser = _browser() if pdf else None
    audit = Audit.of(
        fleet, title=title, domains=domains, baseline=baseline, pools=pools, since=since, waivers=waivers, at=at, by=by,
        alike=list(alike) if alike is not None and not isinstance(alike, str) else alike,
    )  # fmt: skip
    audit = replace(audit, command=command or _call(path, audit, domains, since, waivers))
    with tempfile.TemporaryDirectory(prefix=".vmcompat-", dir=path.parent) as folder:
        made = Path(folder)
        body = _executed(audit, made, notebook=notebook, tell=_teller(progress))
        (made / path.name).write_text(_page(body, audit.title), encoding="utf-8")
        if browser:
            _print(browser, made / path.name, made / path.with_suffix(".pdf").name)
        _put(made, path, pdf=pdf)
    return path


def _may_write(path: Path) -> None:
    """Refuses, before anything is made, a place where something else would be lost."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise VmcompatError(f"{path}: the report is an HTML file; name it so, such as {path.with_suffix('.html')}")
    if not path.parent.is_dir():
        raise VmcompatError(f"{path.parent}: no such folder to write the report into")
    tables = path.with_suffix(".tables")
    strange = [p.name for p in tables.iterdir() if p.suffix != ".csv"] if tables.is_dir() else []
    if strange:
        raise VmcompatError(f"{tables} is replaced with the tables, and holds {strange[0]}: move that away first")


def _put(made: Path, path: Path, *, pdf: bool) -> None:
    """Everything into its place; the HTML file last, since it is what people look for."""
    tables = path.with_suffix(".tables")
    if tables.is_dir():
        os.replace(tables, made / "old tables")  # a link to a folder goes as a link
    os.replace(made / "tables", tables)
    os.replace(made / "tables.xlsx", path.with_suffix(".xlsx"))
    if pdf:
        os.replace(made / path.with_suffix(".pdf").name, path.with_suffix(".pdf"))
    os.replace(made / path.name, path)


def _executed(audit: Audit, made: Path, *, notebook: str | Path | None, tell: Callable[[int, int, str], None]) -> str:
    """The outputs of the notebook as HTML; the kernel writes the tables too, since it has computed what is in them."""
    try:
        import nbformat
        import xlsxwriter  # noqa: F401
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, DeadKernelError
        from nbconvert import HTMLExporter
    except ModuleNotFoundError as e:
        raise VmcompatError(f"the report needs {e.name}: pip install 'vmcompat[report]'") from e
    source = Path(notebook) if notebook is not None else _notebook()
    try:
        cells = nbformat.read(source, as_version=4)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, nbformat.reader.NotJSONError) as e:
        raise VmcompatError(f"{source}: cannot read this notebook ({e})") from e
    audit.hand_over(made / "audit.pickle")
    at = next((i for i, c in enumerate(cells.cells) if "parameters" in c.metadata.get("tags", ())), None)
    if at is None:
        raise VmcompatError(f"{source}: no cell has the tag 'parameters', behind which the report puts its own")
    here = str(made.resolve())
    new_cell: Callable[..., Any] = nbformat.v4.new_code_cell  # ids of our own, or every report had others
    cells.cells.insert(at + 1, new_cell(f"handed_over = {here + '/audit.pickle'!r}", id="handed-over"))
    tables = f"from vmcompat.audit.report import write_tables\n\nwrite_tables(audit, {here!r})"
    cells.cells.append(new_cell(tables, id="tables"))
    headings = _headings(cells.cells)
    client = NotebookClient(
        cells, timeout=None, record_timing=False, extra_arguments=["--IPKernelApp.log_level=40"],
        resources={"metadata": {"path": str(source.resolve().parent)}},
        on_cell_start=lambda cell, cell_index: tell(*headings[cell_index]) if cell_index in headings else None,
    )  # fmt: skip
    try:
        client.execute(env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONWARNINGS": "default"})
    except CellExecutionError as e:
        raise VmcompatError(f"{source.name}: a cell fails with {e.ename}: {e.evalue}") from e
    except DeadKernelError as e:
        raise VmcompatError(f"{source.name}: its kernel died, perhaps for want of memory ({e})") from e
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="basic", exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True,
        exclude_anchor_links=True,
    )  # fmt: skip
    cells.cells = [c for c in cells.cells if "hidden" not in c.metadata.get("tags", ())]
    body: str = exporter.from_notebook_node(cells)[0]
    return body


def _headings(cells: Sequence[Any]) -> dict[int, tuple[int, int, str]]:
    """By the cell at which a section begins to be made: its number, how many there are, its heading."""
    found = {}
    for i, cell in enumerate(cells):
        match = re.match(r"##\s+(.+)", cell.source) if cell.cell_type == "markdown" else None
        if match:
            found[next((j for j in range(i, len(cells)) if cells[j].cell_type == "code"), i)] = match[1]
    return {cell: (n, len(found), heading) for n, (cell, heading) in enumerate(found.items(), 1)}


def _notebook() -> Path:
    """In an installed package beside this file, in a checkout among the notebooks."""
    places = [Path(str(files("vmcompat.audit") / NOTEBOOK)), Path(__file__).parents[2] / "notebooks" / NOTEBOOK]
    return next((place for place in places if place.is_file()), places[0])


def write_tables(audit: Audit, folder: str) -> None:
    """Writes ``audit.frames`` as CSV files and as one workbook, in which no cell is a formula or a link."""
    tables = Path(folder) / "tables"
    tables.mkdir()
    options = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with pd.ExcelWriter(
        Path(folder) / "tables.xlsx", engine="xlsxwriter", engine_kwargs={"options": options}
    ) as workbook:
        workbook.book.set_properties(
            {"title": audit.title, "created": datetime.combine(audit.case.at, datetime.min.time())}
        )
        for name, frame in audit.frames.items():
            plain = frame.reset_index() if frame.index.names != [None] else frame.copy()
            for column in plain.columns[plain.dtypes == "object"]:
                plain[column] = plain[column].map(_in_one_cell)
            inert(plain).to_csv(tables / f"{name}.csv", index=False)
            plain.to_excel(workbook, sheet_name=name, index=False, freeze_panes=(1, 1))
            workbook.sheets[name].autofilter(0, 0, len(plain), max(len(plain.columns) - 1, 0))
            workbook.sheets[name].autofit(300)


def _in_one_cell(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, tuple | frozenset | set | list) else value


def _teller(progress: bool | Callable[[int, int, str], None]) -> Callable[[int, int, str], None]:
    if callable(progress):
        return progress
    if not progress:
        return lambda n, of, heading: None
    return lambda n, of, heading: print(f"[{n:2} of {of}] {heading}", file=sys.stderr, flush=True)


def _call(path: Path, audit: Audit, domains: Any, since: Any, waivers: Any) -> str:
    """The command that makes this report again, as far as it can be typed."""
    folders = {str(Path(d).parent) for d in audit.case.fleet.documents["source"] if "://" not in d}
    words = ["vmcompat", "report", *(sorted(folders) or ["FLEET"]), "-o", str(path), "--title", audit.title,
             "--at", audit.case.at.isoformat()]  # fmt: skip
    words += ["--view", audit.case.fleet.view, *(["--by", audit.case.by] if audit.case.by else [])]
    words += [word for column in audit.case.alike for word in ("--alike", column)]
    for option, value in (("--domains", domains), ("--since", since), ("--waivers", waivers)):
        if value is not None:
            words += [option, str(value) if isinstance(value, str | Path) else option[2:].upper()]
    words += ["--baseline", "BASELINE"] if audit.case.deployed is not None else []
    return shlex.join(map(shown, words))


# ---- the page


def _page(body: str, title: str) -> str:
    headings: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        headings.append(match[1])
        return f"<h2 id='section-{len(headings)}'>{match[1]}</h2>"

    body = _HEADING.sub(numbered, body)
    links = "".join(f"<li><a href='#section-{n}'>{heading}</a></li>" for n, heading in enumerate(headings, 1))
    style, script = ((files("vmcompat.audit") / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<meta http-equiv='Content-Security-Policy' content=\"{policy}\">"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{escape(title)}</title><link rel='icon' href='data:,'><style>{style}</style></head>"
        f"<body><nav><ol>{links}</ol></nav><main>{body}</main><script>{script}</script></body></html>\n"
    )


# ---- PDF


def _browser() -> str:
    found = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise VmcompatError(f"pdf=True needs a browser to print with: install one of {', '.join(_BROWSERS)}")
    return found


def _print(browser: str, page: Path, pdf: Path) -> None:
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # Chromium's own demand of root
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", *sandbox, "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--no-pdf-header-footer", f"--user-data-dir={profile}",
            f"--print-to-pdf={pdf.resolve()}", page.resolve().as_uri(),
        ]  # fmt: skip
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=_PDF_SECONDS, check=False)
        except subprocess.TimeoutExpired as e:
            raise VmcompatError(f"{browser} has not printed the report after {_PDF_SECONDS} s") from e
    if not pdf.is_file():
        raise VmcompatError(f"{browser} has not printed the report: {ran.stderr.strip()[-500:]}")
