"""What strangers write stays text: no name, path or URI gets loose in a shell, a page, a table, a terminal or a file.

And what is secret stays so: no password of a URI or a definition is shown, told in an error, or kept in a log.
"""

import csv
import io
import os
import shlex
import stat
import subprocess
import time
import traceback
from collections.abc import Callable
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
from vmcompat import cli, connect, markup
from vmcompat.audit import report as reports
from vmcompat.connect import Host, open_host, refuse_unless_uri, shown
from vmcompat.errors import ConnectError, DocumentError, MigrationError
from vmcompat.fleet.cpu import parse_xml
from vmcompat.fleet.sources import HOSTS_CSV
from vmcompat.migration import itinerary, journal
from vmcompat.migration.apply import AppliedBaseline, redefine, without_secrets
from vmcompat.migration.domain import cpu_text, difference, typed, with_cpu
from vmcompat.migration.itinerary import Itinerary, Move, Roads
from vmcompat.migration.migrate import MigrationPlan
from vmcompat.migration.order import MigrationFailedError, MigrationResult, Order
from vmcompat.migration.preflight import preflight
from vmcompat.migration.transfer import Transfer
from vmcompat.migration.travel import transport

SECRET = "hunter2"
URIS = [
    f"qemu+tls://root:{SECRET}@h1/system",
    f"qemu+ssh://u:p%40{SECRET}@h1/system?keyfile=/k&command=/bin/false",
    f"qemu+ssh://u:p@{SECRET}@h1/system?socket=/a@b",
    f"qemu+ssh://u:p/{SECRET}@h1/system",
    f"qemu+ssh://u:p?{SECRET}@h1/system",
    f"qemu+ssh://u:p#{SECRET}@h1/system",
    f"qemu+ssh://u:p:{SECRET}@h1:22/system",
    f"qemu+libssh2://:{SECRET}@h1/system",
    f"QEMU+TCP://u:{SECRET}@[::1]:16509/system",
]
HOSTILE = [
    "--config",
    "-c",
    "$(touch owned)",
    "`touch owned`",
    "a'; touch owned; echo '",
    'a"; touch owned; echo "',
    "a\ntouch owned\n",
    "a\u2028touch owned",
    "a && touch owned #",
    "../../etc/passwd",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '=HYPERLINK("http://example.org")',
    "\u009b2J",
    "web\u202e1",
    "7",
    "n" * 250,
]
DAY = "2026-11-24"


def told(error: BaseException) -> str:
    """All that anybody may be shown of an error: its text, its attributes, and whatever it leads to."""
    texts = traceback.format_exception(error)
    left: list[BaseException | None] = [error]
    while left:
        if (one := left.pop()) is not None:
            texts += [str(one), repr(one), repr(vars(one))]
            left += [one.__cause__, one.__context__]
    return "\n".join(texts)


def named(name: str) -> Any:
    """A guest that is called so."""
    return domain(name=escape(name))


def order(observation: Any, **details: Any) -> Order:
    given: dict[str, Any] = {"source": "qemu+ssh://h1/system", "target": "qemu+ssh://h2/system"}
    given |= {"peer_uri": observation.peer_uri}
    return Order(domain=observation.domain, seen=observation, findings=preflight(observation), **(given | details))


@pytest.fixture
def libvirt() -> Any:
    return pytest.importorskip("libvirt", reason="libvirt-python is not installed")


@pytest.fixture
def ssh(libvirt: Any, tmp_path: Path) -> str:
    """What libvirt calls in place of ssh, and which fails as ssh does: with the name of the user, all of it."""
    program = tmp_path / "ssh"
    program.write_text('#!/bin/sh\necho "$*: Permission denied (publickey,password)." >&2\nexit 255\n')
    program.chmod(0o755)
    return str(program)


# ---- passwords


@pytest.mark.parametrize("uri", URIS)
def test_a_uri_is_shown_without_its_password_and_with_its_host(uri: str) -> None:
    assert SECRET not in shown(uri)
    assert "@h1" in shown(uri) or "@[::1]:16509" in shown(uri)
    assert shown(shown(uri)) == shown(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "qemu:///system",
        "qemu+ssh://root@h1/system",
        "qemu+ssh://h1:22/system?keyfile=/a@b",
        "qemu+ssh://h1:22?keyfile=/a@b",
        "qemu+ssh://[fe80::1]:22/system?keyfile=/a@b",
        "qemu+unix:///system?socket=/run/a:b@c",
    ],
)
def test_a_uri_without_a_password_is_shown_as_it_is(uri: str) -> None:
    assert shown(uri) == uri


@pytest.mark.parametrize("login", [f"u:{SECRET}", f"u:p%40{SECRET}", f":{SECRET}"])
def test_what_ssh_repeats_of_a_login_is_told_without_the_password(ssh: str, login: str) -> None:
    uri = f"qemu+ssh://{login}@h1/system?command={ssh}"
    with pytest.raises(ConnectError) as refused:
        open_host(uri)
    assert "Permission denied" in str(refused.value)
    assert SECRET not in told(refused.value)


def test_hosts_that_cannot_be_reached_take_no_password_into_an_answer(ssh: str) -> None:
    here, there = (f"qemu+ssh://u:{SECRET}@{h}/system?command={ssh}" for h in ("h1", "h2"))
    fleet = vc.read_fleet([here, there])
    left = vc.recover("web1", here, there)
    shown_ = [
        repr(fleet), fleet._repr_html_(), fleet.hosts.to_csv(), fleet.findings.to_csv(), repr(left), repr(left.source),
        left.remedy, *left.steps, *left.evidence,
    ]  # fmt: skip
    for ask in (
        lambda: vc.plan_migration("web1", here, there),
        lambda: vc.read_domains(here),
        lambda: vc.read_fleet(here),
        lambda: left.act(confirm="web1"),
    ):
        with pytest.raises(vc.VmcompatError) as refused:
            ask()
        shown_.append(told(refused.value))
    assert "Permission denied" in "".join(shown_)
    assert [text for text in shown_ if SECRET in text] == []


def test_a_connection_that_breaks_later_tells_no_password_either(libvirt: Any) -> None:
    uri = f"qemu+ssh://u:{SECRET}@h1/system"
    other = f"qemu+tls://v:{SECRET}@h2/system"

    def fail(*connections: Any) -> None:
        raise libvirt.libvirtError(f"Cannot recv data: u:{SECRET}@h1: gone; unable to connect to {other}")

    with Host(libvirt.open("test:///default"), uri=uri, write=True) as host:
        far = Host(libvirt.open("test:///default"), uri=other, write=True)
        assert SECRET not in repr(host) + host.uri + repr(far)
        asks: list[Callable[[], object]] = [
            lambda: host.begin("to migrate web1", fail, uri=other).answer(5.0),
            lambda: host.begin_with(far, "to migrate web1", fail).answer(5.0),
        ]
        for ask in asks:
            with pytest.raises(ConnectError, match=r"Cannot recv data: u@h1: gone; unable to connect to .*v@h2") as e:
                ask()
            assert SECRET not in told(e.value)


def test_a_refusal_without_a_password_keeps_what_libvirt_said_as_its_cause(libvirt: Any) -> None:
    with open_host("test:///default") as host, pytest.raises(ConnectError) as refused:
        host.ask("the domain nobody", lambda c: c.lookupByName("nobody"))
    assert isinstance(refused.value.__cause__, libvirt.libvirtError)


def test_a_login_without_a_password_takes_nothing_out_of_a_text() -> None:
    assert connect._told("a: b: c", "qemu+ssh://:@h/system") == "a: b: c"


@pytest.mark.parametrize("uri", URIS)
def test_no_object_of_a_migration_shows_the_password_of_a_uri(uri: str) -> None:
    observation = seen(
        domain(cpu=f"<cpu mode='custom' check='full'>{SANDYBRIDGE}</cpu>"), new=domain(),
        source=end("h1", SANDYBRIDGE), baseline="Westmere", migrate_uri=shown(f"tcp://u:{SECRET}@h2"),
    )  # fmt: skip
    asked = order(observation, source=uri, target=uri, peer_uri=uri, migrate_uri=f"tcp://u:{SECRET}@h2")
    plan = MigrationPlan(order=asked)
    roads = Roads(uris={"h1": uri, "h2": uri}, peer_uris={"h2": uri}, migrate_uris={"h2": uri})
    move = Move(domain="web1", name="web1", uuid=UUID, target="h2", wave=1, memory=None)
    trip = Itinerary("h1", moves=[move], staying=[], host_uuids={}, roads=roads)
    row = MigrationResult(
        domain="web1", source="h1", target="h2", outcome="stayed", seconds=1.0,
        started=pd.Timestamp(DAY, tz="UTC").to_pydatetime(),
    )  # fmt: skip
    failed = MigrationFailedError("refused", changed=(), undone=(), next="look", result=row)
    applied = AppliedBaseline(
        domain="web1", host="h1", model="Westmere", old_xml=SECRET, new_xml=SECRET, diff="", running=True, answers=(),
        _uri=uri,
    )  # fmt: skip
    for text in (
        repr(asked), str(asked), repr(plan), plan._repr_html_(), plan.commands(), plan.runbook(),
        plan.findings.to_csv(), repr(observation),
        repr(roads), repr(trip), str(trip), told(failed), repr(applied), repr([applied]),
    ):  # fmt: skip
        assert SECRET not in text


def test_the_state_of_the_widget_shows_no_password() -> None:
    pytest.importorskip("ipywidgets", reason="the extra 'notebook' is not installed")
    from vmcompat.widgets._migrate_html import render
    from vmcompat.widgets._migrate_state import MigrateState

    uri = f"qemu+tls://u:{SECRET}@h1/system"
    state = MigrateState.of(uri, [uri.replace("h1", "h2")], domain="web1", migrate_uri=f"tcp://u:{SECRET}@h2")
    assert SECRET not in repr(state) + "".join(render(state.listing()).values())


SECRETS = f"""<graphics type='vnc' passwd='{SECRET}' passwdValidTo='2030-01-01T00:00:00'/>
    <graphics type='spice' passwd="{SECRET}"/>
    <disk type='network' device='disk'><source protocol='https' name='x'><host name='s'/>
      <cookies><cookie name='session'>{SECRET}</cookie></cookies></source><target dev='vda' bus='virtio'/></disk>
  <qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
    <qemu:arg value='secret,id=s0,data={SECRET}'/><qemu:arg value="vnc,password={SECRET}"/></qemu:commandline>"""


def test_a_definition_and_its_changes_are_shown_without_secrets() -> None:
    text = domain_xml(devices=SECRETS)
    assert text.count(SECRET) == 5
    assert SECRET not in without_secrets(text)
    assert SECRET not in without_secrets(difference(text, text.replace(SECRET, f"new {SECRET}"), name="web1"))
    assert "passwdValidTo='2030" in without_secrets(text)


def test_a_definition_that_changed_meanwhile_is_told_without_secrets(libvirt: Any) -> None:
    text = domain_xml(devices=f"<graphics type='vnc' passwd='{SECRET}'/>", virttype="test", cpu="", emulator="/x")
    with open_host("test:///default", write=True) as host:
        host.ask("to define web1", lambda c: c.defineXML(text))
        with pytest.raises(MigrationError, match="somebody changed") as refused:
            redefine(host, "web1", expected=text, new=text)
        assert SECRET not in told(refused.value)


def test_guests_read_from_files_with_secrets_show_none(samples: Path) -> None:
    guests = vc.read_domains({"web1": domain_xml(devices=SECRETS).replace("<domain ", "<domain id='3' ")})
    assert guests.records[0].live is not None
    fleet = vc.read_fleet(samples / "virsh_pair")
    reach, ledger = vc.reachability(guests, fleet), vc.restart_ledger(guests, fleet.baseline(), fleet=fleet)
    frames = [guests.frame, guests.findings, vc.demand(guests), reach.domains, ledger.frame]
    texts = [repr(guests), guests._repr_html_(), repr(guests.records), repr(reach), reach._repr_html_()]
    texts += [*reach.explain(), *ledger.explain(), repr(ledger), ledger._repr_html_()]
    assert [t for t in [*texts, *(f.to_csv() for f in frames), *(f.to_html() for f in frames)] if SECRET in t] == []


def test_the_report_names_no_password_in_its_appendix_nor_as_what_was_before(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, given = f"qemu+tls://u:{SECRET}@h1/system", []
    monkeypatch.setattr(vc, "read_fleet", lambda *a, **k: vc.Fleet)
    monkeypatch.setattr(vc, "report", lambda *a, **k: given.append(k["command"]))
    assert cli.main(["report", uri, f"--domains={uri}", "--since", uri, "-o", "a.html"]) == 0
    (command,) = given
    assert SECRET not in command
    assert shlex.split(command).count(shown(uri)) == 2

    monkeypatch.undo()
    audit = vc.Audit.of(vc.read_fleet(samples / "virsh_pair"), at=DAY)
    call = reports._call(tmp_path / "a.html", audit, uri, uri, None)
    assert SECRET not in call
    assert shown(uri) in shlex.split(call)


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


# ---- XML


def nested(depth: int) -> str:
    return "<a>" * depth + "</a>" * depth


LAUGHS = "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 10))
ATTACKS = {
    "billion laughs": f"<!DOCTYPE domain [<!ENTITY a0 'ha'>{LAUGHS}]><domain><name>&a9;</name></domain>",
    "external entity": "<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><name>&x;</name></domain>",
    "parameter entity": "<!DOCTYPE d [<!ENTITY % x SYSTEM 'http://127.0.0.1:9/x'> %x;]><domain/>",
    "external DTD": "<!DOCTYPE domain SYSTEM 'http://127.0.0.1:9/x.dtd'><domain/>",
    "UTF-16": "<?xml version='1.0' encoding='UTF-16'?><!DOCTYPE d [<!ENTITY x 'y'>]><domain><name>&x;</name></domain>",
    "unknown entity": "<domain><name>&x;</name></domain>",
    "deep nesting": f"<domain>{nested(100_000)}</domain>",
    "many elements": f"<domain>{'<a/>' * 1_100_000}</domain>",
    "many attributes": "<domain " + " ".join(f"a{i}=''" for i in range(1_100_000)) + "/>",
    "a control character": "<domain><name>\x1b[2J</name></domain>",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_xml_that_attacks_its_reader_is_refused_at_once(attack: str) -> None:
    data = ATTACKS[attack].encode("utf-16" if attack == "UTF-16" else "utf-8")
    began = time.monotonic()
    with pytest.raises(DocumentError) as refused:
        parse_xml(data, source="x.xml")
    guests, fleet = vc.read_domains({"x": data}), vc.read_fleet({"x": data})
    assert [r.known for r in guests.records] == [None]
    assert [len(r.unreadable) for r in fleet.records] == [1]
    assert time.monotonic() - began < 20
    assert "root:" not in told(refused.value) + guests.findings.to_csv() + fleet.findings.to_csv()


def test_an_inclusion_is_an_element_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    include = f"<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='{tmp_path}/secret' parse='text'/>"
    text = domain_xml(before=f"<metadata>{include}</metadata><title>{include}</title>")
    guests = vc.read_domains({"web1": text})
    assert SECRET not in repr(guests.records) + guests.frame.to_csv()


@pytest.mark.parametrize(
    "children",
    ["<a>é</a>" * 100_000, "".join(f"<a{i}/>" for i in range(50_000))],
    ids=["alike", "each another"],
)
def test_a_cpu_is_found_among_any_number_of_elements_in_seconds(children: str) -> None:
    text = f"<domain type='kvm'><name>é</name>{children}<cpu mode='host-model'/><devices/></domain>"
    began = time.monotonic()
    assert cpu_text(text) == "<cpu mode='host-model'/>"
    assert "<model>Westmere</model>" in with_cpu(text, "<cpu mode='custom'><model>Westmere</model></cpu>")
    assert time.monotonic() - began < 10


def test_a_diff_has_the_ends_of_lines_of_patch() -> None:
    old = domain_xml(before="<title>a\u2028END\x85b</title>")
    new = old.replace("1048576", "2097152")
    assert all(line[:1] in " +-@" for line in difference(old, new, name="web1").removesuffix("\n").split("\n"))
    assert " <title>a\u2028END\x85b</title>\n" in difference(old, new, name="web1").replace("   <", " <")


# ---- who listens


@pytest.mark.parametrize(
    ("source", "peer", "migrate", "transfer", "warned"),
    [
        ("qemu+tcp://h1/system", "qemu+ssh://h2/system", "unix:/s", Transfer(), ["qemu+tcp://h1/system: "]),
        ("QEMU+TCP://h1/system", "qemu+ssh://h2/system", "unix:/s", Transfer(), ["QEMU+TCP://h1/system: "]),
        ("qemu+ssh://h1/system", "qemu+tcp://h2/system", "unix:/s", Transfer(), ["qemu+tcp://h2/system: "]),
        ("qemu+tcp://u@h1/system", "qemu+ssh://h2/system", "unix:/s", Transfer(), ["qemu+tcp://u@h1/system: "]),
        ("qemu+tcp://localhost@h1/system", "qemu+ssh://h2/system", "unix:/s", Transfer(), ["localhost@h1"]),
        ("qemu+tcp://localhost.example.org/system", "qemu+ssh://h2/system", "unix:/s", Transfer(), ["example.org"]),
        ("qemu+tcp://128.0.0.1/system", "qemu+ssh://h2/system", "unix:/s", Transfer(), ["128.0.0.1"]),
        ("qemu+tcp://localhost/system", "qemu+ssh://h2/system", "unix:/s", Transfer(), []),
        ("qemu+tcp://LOCALHOST/system", "qemu+ssh://h2/system", "unix:/s", Transfer(), []),
        ("qemu+tcp://[::1]:16509/system", "qemu+ssh://h2/system", "unix:/s", Transfer(), []),
        ("qemu+tcp://127.1.2.3/system", "qemu+ssh://h2/system", "unix:/s", Transfer(), []),
        ("qemu+tcp:///system", "qemu+ssh://h2/system", "unix:/s", Transfer(), []),
        ("qemu+tls://h1/system", "qemu+tls://h2/system", "unix:/s", Transfer(), []),
        ("qemu+unix:///system", "qemu+tls://h2/system", "unix:/s", Transfer(), []),
        ("qemu:///system", "qemu+tls://h2/system", "tcp://[::1]", Transfer(), []),
        ("qemu:///system", "qemu+tls://h2/system", "tcp://localhost:49152", Transfer(), []),
        ("qemu:///system", "qemu+tls://h2/system", "tcp://[fe80::1]", Transfer(), ["unencrypted"]),
        ("qemu:///system", "qemu+tls://h2/system", "tcp:localhost", Transfer(), ["unencrypted"]),
        ("qemu:///system", "qemu+tls://h2/system", "tcp://h2", Transfer(), ["unencrypted"]),
        ("qemu:///system", "qemu+tls://h2/system", "rdma://h2", Transfer(), ["unencrypted"]),
        ("qemu:///system", "qemu+tls://h2/system", "", Transfer(), ["unencrypted"]),
        ("qemu:///system", "qemu+tls://h2/system", "", Transfer(tls=True), []),
        ("qemu:///system", "qemu+tls://h2/system", "", Transfer(offline=True), []),
        ("qemu+tcp://h1/system", "qemu+tls://h2/system", "", Transfer(offline=True), ["qemu+tcp://h1"]),
    ],
)  # fmt: skip
def test_what_others_can_read_or_rule_is_a_warning_that_names_the_risk(
    source: str, peer: str, migrate: str, transfer: Transfer, warned: list[str]
) -> None:
    verdict = transport(
        replace(
            seen(domain(), source=replace(end("h1", WESTMERE), uri=source), migrate_uri=migrate, transfer=transfer),
            peer_uri=peer,
        )
    )
    assert verdict.severity == ("warn" if warned else "ok")
    assert [text for text in warned if text not in verdict.evidence] == []
    if any("tcp" in text.lower() for text in warned):
        assert "whoever reaches it is root" in verdict.evidence


def test_the_transport_is_among_the_findings_of_every_plan() -> None:
    assert "TRANSPORT" in {f.id for f in preflight(seen(domain()))}


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ssh://h2/system --postcopy",
        "qemu+ssh://h2\n/system",
        "tcp://[::1",
        "tcp://h2\x1b[2J",
        f"x://u:{SECRET}@[h 2",
    ],
)
def test_what_is_no_uri_is_refused_before_any_host_is_asked(
    libvirt: Any, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object, **__: object) -> None:
        raise AssertionError("a host was asked")

    monkeypatch.setattr(connect, "open_host", ask)
    for given in ({"peer_uri": uri}, {"migrate_uri": uri}):
        with pytest.raises(ConnectError, match="no URI") as refused:
            vc.plan_migration("web1", "test:///default", "test:///default", **given)  # type: ignore[arg-type]
        assert SECRET not in told(refused.value)
        assert next(iter(given)) in str(refused.value)
    with pytest.raises(ConnectError):
        refuse_unless_uri(uri)
