"""No password of a URI or a definition is shown, told in an error, or kept in a log."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import vmcompat as vc
from tests.migration.scene import SANDYBRIDGE, UUID, domain, domain_xml, end, seen
from tests.security.strangers import DAY, SECRET, URIS, order, told
from vmcompat import cli, connect
from vmcompat.audit import report as reports
from vmcompat.connect import Host, open_host, shown
from vmcompat.errors import ConnectError, MigrationError
from vmcompat.migration.apply import AppliedBaseline, redefine, without_secrets
from vmcompat.migration.domain import difference
from vmcompat.migration.itinerary import Itinerary, Move, Roads
from vmcompat.migration.migrate import MigrationPlan
from vmcompat.migration.order import MigrationFailedError, MigrationResult


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
