"""The report as a file: whole or not at all, the same bytes from the same inputs, nothing of it from a network."""

import re
import shutil
import zipfile
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

import vmcompat as vc
from vmcompat import cli

nbformat = pytest.importorskip("nbformat", reason="the extra 'report' is not installed")
pytest.importorskip("xlsxwriter", reason="the extra 'report' is not installed")

DAY = "2026-11-24"
NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "fleet_audit.ipynb"


@pytest.fixture(scope="module")
def made(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One report of the sample fleet, with everything that can be given."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "waivers.csv").write_text(
        "finding,owner,expiry,reason\n"
        "CONTROL_LACKING:ams-r2-h03:md-clear,ops@example.org,2027-01-31,board is replaced in January\n"
        "CONTROL_LACKING:ams-r2-h07:md-clear,ops@example.org,2026-10-31,was to be replaced in October\n"
    )
    fleet = vc.read_fleet(samples / "mixed")
    racks = {"ams-r2": fleet.baseline(fleet.select("rack == 'ams-r2'").names)}
    return vc.report(
        fleet, folder / "audit.html", title="Audit <of> the sample fleet", domains=samples / "mixed" / "domains",
        baseline=racks, waivers=folder / "waivers.csv", at=DAY, progress=False,
    )  # fmt: skip


def test_the_report_and_its_tables_stand_beside_each_other_and_nothing_else_is_left(made: Path) -> None:
    assert sorted(p.name for p in made.parent.iterdir()) == ["audit.html", "audit.tables", "audit.xlsx", "waivers.csv"]
    tables = {p.stem for p in (made.parent / "audit.tables").iterdir()}
    assert {
        "verdict",
        "findings",
        "hosts",
        "features",
        "documents",
        "baselines",
        "guests",
        "mobility",
        "moves",
    } <= tables
    with zipfile.ZipFile(made.with_suffix(".xlsx")) as workbook:
        assert set(re.findall(r'<sheet name="([^"]+)"', workbook.read("xl/workbook.xml").decode())) == tables


def test_it_asks_nobody_for_anything(made: Path) -> None:
    page = made.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)[^"']*""", page)
    assert not re.findall(r"@import|url\((?!data:)", page)
    assert "default-src 'none'" in page


def test_its_sections_come_in_the_order_of_an_auditor(made: Path) -> None:
    headings = re.findall(r"<h2 id='section-\d+'>(.*?)</h2>", made.read_text())
    assert headings[:4] == [
        "Verdict", "What has changed, and waivers", "What was read", "Hosts that should be identical and are not",
    ]  # fmt: skip
    assert headings.index("Security findings") < headings.index("Performance findings") < headings.index("Hosts")
    assert headings[-1] == "Appendix"


def test_the_first_sentence_says_what_was_not_given_and_what_could_not_be_read(made: Path) -> None:
    first = pd.read_csv(made.with_suffix(".tables") / "verdict.csv")["told"].iloc[0]
    assert "43 of 48 hosts is known" in first
    assert "ams-r3-h08 (the document could not be read)" in first
    assert "not given, and so not judged: an earlier report." in first


def test_a_waived_finding_is_shown_as_waived_and_an_expired_waiver_is_red(made: Path) -> None:
    findings = pd.read_csv(made.with_suffix(".tables") / "findings.csv", index_col="id")
    waived = findings.loc["CONTROL_LACKING:ams-r2-h03:md-clear"]
    expired = findings.loc["CONTROL_LACKING:ams-r2-h07:md-clear"]
    assert (waived["status"], waived["owner"]) == ("waived", "ops@example.org")
    assert (expired["status"], expired["severity"]) == ("waiver expired", "red")
    assert "board is replaced in January" in made.read_text()


def test_every_finding_of_a_document_cites_it_with_its_hash(made: Path) -> None:
    documents = pd.read_csv(made.with_suffix(".tables") / "documents.csv")
    page = made.read_text()
    for row in documents.to_dict("records"):
        assert f'id="d{row["document"]}"' in page
        assert row["sha256"] in page
    findings = pd.read_csv(made.with_suffix(".tables") / "findings.csv")
    assert findings.loc[findings["kind"] == "security", "sha256"].notna().all()


def test_names_from_strangers_become_text_and_no_formula_or_link_of_the_workbook(samples: Path, tmp_path: Path) -> None:
    text = (samples / "mixed" / "ams-r2-h01.domcapabilities.xml").read_text()
    strange = "<img src=x onerror=alert(1)>"
    fleet = vc.read_fleet(dict.fromkeys([strange, "</script><b>", "=1+1", "http://example.org/"], text))
    made = vc.report(fleet, tmp_path / "a.html", title="<script>alert(1)</script>", at=DAY, progress=False)
    page = made.read_text()
    assert strange not in page
    assert "</script><b>" not in page
    assert "<script>alert" not in page
    with zipfile.ZipFile(made.with_suffix(".xlsx")) as workbook:
        sheets = [workbook.read(name).decode() for name in workbook.namelist() if "worksheets/sheet" in name]
    assert sheets
    assert not [sheet for sheet in sheets if "<f>" in sheet or "<hyperlink" in sheet]


def test_the_same_inputs_give_the_same_bytes(samples: Path, tmp_path: Path) -> None:
    pair, pages = samples / "virsh_pair", []
    for _ in range(2):
        made = vc.report(vc.read_fleet(pair), tmp_path / "pair.html", at=date(2026, 11, 24), progress=False)
        pages.append((made.read_bytes(), made.with_suffix(".xlsx").read_bytes()))
    assert pages[0] == pages[1]


def test_the_next_report_says_what_changed_since_and_progress_tells_each_section(samples: Path, tmp_path: Path) -> None:
    pair = {f"h{i}": (samples / "mixed" / f"ams-r2-h0{i}.domcapabilities.xml").read_text() for i in (1, 2, 4)}
    told: list[tuple[int, int, str]] = []
    before = vc.report(
        vc.read_fleet(pair), tmp_path / "before.html", at="2026-10-01", progress=lambda *now: told.append(now)
    )
    assert [n for n, _, _ in told] == list(range(1, told[0][1] + 1))
    assert told[0][2] == "Verdict"
    pair["h4"] = pair["h4"].replace("<feature policy='require' name='md-clear'/>", "")
    del pair["h2"]
    after = vc.report(vc.read_fleet(pair), tmp_path / "after.html", at=DAY, since=before, progress=False)
    page = after.read_text()
    assert "the report of 2026-10-01" in page
    changes = pd.read_csv(after.with_suffix(".tables") / "changes.csv")
    assert set(changes["host"]) == {"h2", "h4"}
    findings = pd.read_csv(after.with_suffix(".tables") / "findings.csv", index_col="id")
    assert findings["is_new"].notna().all()
    assert findings["is_new"].any()


def test_a_file_that_is_no_report_is_refused_before_anything_is_made(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html>hello</html>")
    fleet = vc.read_fleet(samples / "virsh_pair")
    with pytest.raises(vc.errors.DocumentError, match=r"page.html: not a report that vc.report wrote"):
        vc.report(fleet, tmp_path / "a.html", since=tmp_path / "page.html")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    "record", ["", "AAAA", "eJyrVkrOT0lVslJQysjPSVWoBQAzFwV/"], ids=["empty", "no zlib", "no record"]
)
def test_a_damaged_record_is_one_clear_error(samples: Path, tmp_path: Path, record: str) -> None:
    (tmp_path / "page.html").write_text(f'<script type="text/plain" id="vmcompat-record">{record}</script>')
    with pytest.raises(vc.errors.DocumentError, match=r"page.html: the record in this report is damaged"):
        vc.Audit.of(vc.read_fleet(samples / "virsh_pair"), since=tmp_path / "page.html")


def test_a_place_where_something_else_would_be_lost_is_refused(samples: Path, tmp_path: Path) -> None:
    fleet = vc.read_fleet(samples / "virsh_pair")
    with pytest.raises(vc.VmcompatError, match=r"audit\.xlsx: the report is an HTML file"):
        vc.report(fleet, tmp_path / "audit.xlsx")
    (tmp_path / "audit.tables").mkdir()
    (tmp_path / "audit.tables" / "thesis.txt").write_text("mine")
    with pytest.raises(vc.VmcompatError, match=r"audit\.tables is replaced with the tables, and holds thesis\.txt"):
        vc.report(fleet, tmp_path / "audit.html")
    assert (tmp_path / "audit.tables" / "thesis.txt").read_text() == "mine"


def test_findings_and_groups_have_names_of_their_own(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed", view="host")
    audit = vc.Audit.of(fleet, domains=samples / "mixed" / "domains", at=DAY)
    labels = [group.label for group in audit.case.groups]
    assert len(set(labels)) == len(labels)
    assert "ams-r2" in labels
    assert audit.findings.index.is_unique


@pytest.mark.slow
def test_a_changed_copy_of_the_notebook_is_what_is_executed(samples: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("f'{len(audit.case.fleet)} hosts, says the planner'"))
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    made = vc.report(
        vc.read_fleet(samples / "virsh_pair"), tmp_path / "a.html", notebook=tmp_path / "mine.ipynb", progress=False
    )
    assert "2 hosts, says the planner" in made.read_text()


def test_a_notebook_that_fails_leaves_the_old_report(samples: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("1 / 0"))
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    (tmp_path / "a.html").write_text("the old one")
    with pytest.raises(vc.VmcompatError, match=r"mine.ipynb: a cell fails with ZeroDivisionError"):
        vc.report(
            vc.read_fleet(samples / "virsh_pair"), tmp_path / "a.html", notebook=tmp_path / "mine.ipynb", progress=False
        )
    assert (tmp_path / "a.html").read_text() == "the old one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "mine.ipynb"]


def test_the_command_writes_the_report_and_says_where(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deployed.xml").write_text(vc.read_fleet(samples / "virsh_pair").baseline().guest_xml)
    out = tmp_path / "pair.html"
    given = ["report", str(samples / "virsh_pair"), "-o", str(out), "--baseline", str(tmp_path / "deployed.xml"), "-q"]
    printer = ["--pdf"] if shutil.which("chromium") else []
    assert cli.main([*given, *printer]) == 0
    assert not printer or out.with_suffix(".pdf").read_bytes().startswith(b"%PDF-")
    assert capsys.readouterr().out.strip() == str(out)
    page = out.read_text()
    assert f"--at {date.today().isoformat()}" in page
    assert "all 2 hosts satisfy what is deployed" in page


def test_the_command_tells_an_error_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path / "none"), "-o", str(tmp_path / "a.html")]) == 1
    assert capsys.readouterr().err.startswith("vmcompat: ")
    assert not (tmp_path / "a.html").exists()


@pytest.mark.slow
def test_the_report_of_500_hosts_and_700_guests_is_smaller_than_5_mb(samples: Path, tmp_path: Path) -> None:
    source, folder = samples / "mixed", tmp_path / "fleet"
    (folder / "domains").mkdir(parents=True)
    for table, key, of in (("hosts.csv", "host", "rack"), ("domains/domains.csv", "domain", "host")):
        rows = pd.read_csv(source / table, dtype="str")
        copies = [rows.assign(**{c: rows[c] + f"-{i:02d}" for c in (key, of)}) for i in range(11)]
        pd.concat(copies).to_csv(folder / table, index=False)
    for path in [*source.glob("*.xml"), *source.glob("domains/*.xml")]:
        name, _, rest = path.name.partition(".")
        for i in range(11):
            text = (
                path.read_text()
                .replace("<uuid>", f"<uuid>{i:x}", 1)
                .replace(f"<name>{name}</name>", f"<name>{name}-{i:02d}</name>")
            )
            (folder / path.relative_to(source)).with_name(f"{name}-{i:02d}.{rest}").write_text(text)
    fleet = vc.read_fleet(folder)
    assert len(fleet) == 528
    made = vc.report(fleet, tmp_path / "audit.html", domains=folder / "domains", at=DAY, progress=False)
    assert made.stat().st_size < 5_000_000
