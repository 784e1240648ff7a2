"""Who else may listen on the way is told, and what is no URI is refused before any host is asked."""

from dataclasses import replace
from typing import Any

import pytest

import vmcompat as vc
from tests.migration.scene import WESTMERE, domain, end, seen
from tests.security.strangers import SECRET, told
from vmcompat import connect
from vmcompat.connect import refuse_unless_uri
from vmcompat.errors import ConnectError
from vmcompat.migration.preflight import preflight
from vmcompat.migration.transfer import Transfer
from vmcompat.migration.travel import transport


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
