"""What strangers write stays text: no name or path gets loose in a shell, a page, a table, a terminal or a file."""

import csv
import io
import os
import shlex
import stat
import subprocess
from dataclasses import replace
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

import vmcompat as vc
from tests.migration.crowd import RACK, Person, crowd
from tests.migration.scene import SANDYBRIDGE, UUID, WESTMERE, at, domain, domain_xml, end, seen
from tests.security.strangers import DAY, HOSTILE, SECRET, named, order
from vmcompat import cli, markup
from vmcompat.audit import report as reports
from vmcompat.errors import DocumentError
from vmcompat.fleet.sources import HOSTS_CSV
from vmcompat.migration import itinerary, journal
from vmcompat.migration.domain import typed
from vmcompat.migration.migrate import MigrationPlan
from vmcompat.migration.order import MigrationResult
from vmcompat.migration.preflight import preflight

# ---- names in a shell


def words(line: str) -> list[str]:
    """Of the part of a remedy that is to be typed."""
    lexer = shlex.shlex(line[line.index("virsh ") :], posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    return list(lexer)


def after_domain(line: str) -> set[str]:
    found = words(line)
    return {found[i + 1] for i, word in enumerate(found) if word == "--domain" and found[i - 1] != "--domain"}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_one_word_of_its_own_in_every_remedy(name: str, samples: Path) -> None:
    fleet = vc.read_fleet(samples / "virsh_pair")
    stored = domain_xml(name=escape(name), cpu=f"<cpu mode='custom' match='exact'>{SANDYBRIDGE}</cpu>")
    guests = vc.read_domains({"live": stored.replace("<domain ", "<domain id='3' "), "stored": stored})
    known = guests.records[0].known
    assert known is not None
    asleep = replace(seen(known), domain=known.name, state="suspended")
    busy = replace(seen(known), domain=known.name, job=True)
    device = "<hostdev mode='subsystem' type='pci'><source><address bus='0x1' slot='0x0'/></source></hostdev>"
    tied = domain(name=escape(name), devices=device)
    remedies = [f.remedy for one in (asleep, busy, replace(seen(tied), domain=tied.name))
                for f in preflight(one) if f.id in ("STATE", "HOSTDEV")]  # fmt: skip
    ledger = vc.restart_ledger(guests, fleet.baseline(), fleet=None)
    remedies += [r for r in ledger.frame["remedy"] if "virsh shutdown" in r]
    remedies = [r for r in remedies if "--domain" in r]
    assert len(remedies) >= 3
    for remedy in remedies:
        assert after_domain(remedy) == {typed(known.name, UUID)}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_script_runs_nothing_that_a_name_says_and_writes_beside_itself_only(name: str, tmp_path: Path) -> None:
    """A real shell, with a virsh that writes down its arguments."""
    one = named(name)
    asked = order(replace(seen(one), domain=one.name))
    script = MigrationPlan(order=asked).commands()
    bin_, work = tmp_path / "bin", tmp_path / "a" / "b" / "c"
    bin_.mkdir()
    work.mkdir(parents=True)
    virsh = bin_ / "virsh"
    virsh.write_text(f'#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done >> {tmp_path}/called\n')
    virsh.chmod(0o755)
    environment = {"PATH": f"{bin_}:{os.environ['PATH']}"}
    ran = subprocess.run(["sh", "-c", script], cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    called = (tmp_path / "called").read_text().split("\0")
    places = [i for i, word in enumerate(called) if word == "--domain" and called[i + 1] != "--domain"]
    assert {called[i + 1] for i in places} == {typed(one.name, UUID)}
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.name == "owned"] == []
    (kept,) = work.iterdir()
    assert kept.name.endswith(".before.xml")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "bin", "called"]


def test_the_script_of_an_evacuation_holds_no_line_that_a_name_or_a_host_wrote(
    samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = vc.read_fleet(samples / "mixed")
    guests = crowd(samples, {name: Person(name=escape(name)) for name in HOSTILE})
    plan = vc.plan_evacuation(RACK[0], fleet, guests)
    assert len(plan.moves) == len(HOSTILE)
    monkeypatch.setattr(itinerary, "look", lambda uris: dict.fromkeys(uris, ()))
    script = plan.commands(dict.fromkeys(fleet.names, "qemu+ssh://h\ntouch owned/system"))
    assert [line for line in script.split("\n") if line and not line.startswith("# ") and line != "set -e"] == []
    assert "touch owned" in script


def test_a_host_that_calls_itself_a_command_is_one_word() -> None:
    asked = preflight(seen(domain(), peer_uri=None, target=replace(end("h2", WESTMERE), name="x; touch owned")))
    remedy = next(f.remedy for f in asked if f.id == "PEER")
    assert "'qemu+ssh://x; touch owned/system'" in remedy


@pytest.mark.parametrize("name", [n for n in HOSTILE if "\n" not in n and len(n) < 100])
def test_an_error_text_hands_over_no_command(name: str) -> None:
    found = vc.explain_error(f"error: operation failed: domain '{name}' is already active")
    for problem in found.problems:
        if "--domain" in problem.remedy:
            assert after_domain(problem.remedy) == {"".join(c if c.isprintable() else " " for c in name)}
    assert "<script>" not in found._repr_html_()
    assert "<img" not in found._repr_html_()


# ---- pages, tables, terminals


@pytest.mark.parametrize("name", HOSTILE)
def test_a_page_shows_a_name_and_runs_none(name: str, samples: Path) -> None:
    fleet = vc.read_fleet(samples / "virsh_pair")
    guests = vc.read_domains({"x": domain_xml(name=escape(name)).replace("<domain ", "<domain id='3' ")})
    one = named(name)
    plan = MigrationPlan(order=order(replace(seen(one), domain=one.name)))
    reach = vc.reachability(guests, fleet)
    pages = [plan._repr_html_(), guests._repr_html_(), reach._repr_html_(),
             vc.restart_ledger(guests, fleet.baseline())._repr_html_()]  # fmt: skip
    assert [page for page in pages if "<script" in page or "<img" in page] == []


FORMULAS = ['=HYPERLINK("http://example.org")', "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1"]


def test_no_cell_of_a_csv_table_is_a_formula_and_numbers_stay_numbers() -> None:
    table = pd.DataFrame(
        {"host": FORMULAS, "=bad": ["a=b"] * 6, "n": [-1] * 6, "x": pd.array([None, -2] * 3, dtype="Int64")},
    ).astype({"host": "str"})
    for one in (table, table.set_index("host")):
        before = one.copy()
        text = markup.inert(one).to_csv(index=False)
        assert one.equals(before)
        rows = list(csv.reader(io.StringIO(text, newline="")))
        assert [c for row in rows for c in row if c[:1] in ("=", "+", "@", "\t", "\r")] == []
        assert {"'" + f.replace("\r", "\n") for f in FORMULAS} <= {c for row in rows for c in row}
        assert [row[rows[0].index("n")] for row in rows[1:]] == ["-1"] * 6
        assert [row[rows[0].index("x")] for row in rows[1:]] == ["", "-2"] * 3


def test_the_tables_of_a_report_hold_no_formula_from_a_document(tmp_path: Path) -> None:
    pytest.importorskip("xlsxwriter", reason="the extra 'report' is not installed")
    table = pd.DataFrame({"told": FORMULAS, "many": [tuple(FORMULAS)] * 6})
    case = SimpleNamespace(at=pd.Timestamp(DAY).date())
    audit: Any = SimpleNamespace(title="=1+1", case=case, frames={"findings": table})
    reports.write_tables(audit, str(tmp_path))
    text = (tmp_path / "tables" / "findings.csv").read_bytes().decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert [c for row in rows for c in row if c[:1] in ("=", "+", "-", "@", "\t", "\r")] == []
    assert at(table, 0)["many"] == tuple(FORMULAS)


@pytest.mark.parametrize("control", ["\x00", "\x1b[2J", "\x07", "\x9b2J", "\x7f"])
def test_a_table_that_speaks_to_a_terminal_is_refused(samples: Path, tmp_path: Path, control: str) -> None:
    xml = (samples / "virsh_pair").glob("*.xml")
    (tmp_path / "h1.xml").write_text(next(xml).read_text())
    (tmp_path / HOSTS_CSV).write_text(f"host,note\nh1,{control}\n")
    (tmp_path / "domains.csv").write_text(f"domain,state\nweb1,{control}\n")
    for read, table in ((vc.read_fleet, HOSTS_CSV), (vc.read_domains, "domains.csv")):
        with pytest.raises(DocumentError, match=rf"{table}:2: .*control character"):
            read(tmp_path)


def test_a_table_that_never_ends_is_refused_and_none_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / HOSTS_CSV)
    (tmp_path / "h1.xml").write_text("<cpu/>")
    with pytest.raises(DocumentError, match="no regular file"):
        vc.read_fleet(tmp_path)
    (tmp_path / HOSTS_CSV).unlink()
    (tmp_path / HOSTS_CSV).symlink_to("/dev/zero")
    with pytest.raises(DocumentError, match="larger than"):
        vc.read_fleet(tmp_path)


def test_the_command_speaks_to_no_terminal_in_a_strangers_name(
    samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", str(samples / "virsh_pair"), "-o", "\x1b[2J\u202e.txt"]) == 1
    assert capsys.readouterr().err.startswith("vmcompat: \ufffd[2J\ufffd.txt: the report is an HTML file")


# ---- files


def test_a_report_replaces_links_and_leaves_what_they_lead_to(tmp_path: Path) -> None:
    made, elsewhere = tmp_path / "made", tmp_path / "elsewhere"
    (made / "tables").mkdir(parents=True)
    elsewhere.mkdir()
    for name in ("a.html", "tables.xlsx", "tables/new.csv"):
        (made / name).write_text("new")
    for name in ("kept.html", "kept.xlsx", "kept.csv"):
        (elsewhere / name).write_text("kept")
    path = tmp_path / "a.html"
    path.symlink_to(elsewhere / "kept.html")
    path.with_suffix(".xlsx").symlink_to(elsewhere / "kept.xlsx")
    path.with_suffix(".tables").symlink_to(elsewhere)
    reports._put(made, path, pdf=False)
    assert {p.name: p.read_text() for p in elsewhere.iterdir()} == dict.fromkeys(
        ["kept.html", "kept.xlsx", "kept.csv"], "kept"
    )
    assert path.read_text() == path.with_suffix(".xlsx").read_text() == "new"
    assert [p.name for p in path.with_suffix(".tables").iterdir()] == ["new.csv"]


def test_the_log_is_its_owners_only_and_grows_at_its_end(tmp_path: Path) -> None:
    file = tmp_path / "state" / "migrations.jsonl"
    message = f"failed: qemu+tls://u:p?{SECRET}@h1/system"
    row = MigrationResult(
        domain="a\nb\u2028", source="h1", target="h2", outcome="stayed", seconds=1.0, message=message,
        started=pd.Timestamp(DAY, tz="UTC").to_pydatetime(),
    )  # fmt: skip
    before = os.umask(0)
    try:
        journal.append(row, path=file)
        first = file.read_bytes()
        journal.append(row, path=file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes() == first * 2
    assert first.count(b"\n") == 1
    assert SECRET not in first.decode()
    assert list(vc.migration.log(file)["domain"]) == ["a\nb\u2028"] * 2


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_to_take_away_has_a_name_without_a_path(name: str) -> None:
    link = markup.download("x", name=f"{name}.patch", kind="text/plain", words=name)
    file = link.partition("download='")[2].partition("'")[0]
    assert file == os.path.basename(file)
    assert not file.startswith((".", "-"))
    assert "<script" not in link
