"""The door to libvirt: least rights, one clear error with libvirt's code, no endless wait, no chatter, no password."""

import re
import threading
import time
from collections.abc import Iterator

import pytest

from vmcompat import connect
from vmcompat.calls import ConnectionCalls
from vmcompat.connect import Host, constant, describe, open_host, read_host, shown
from vmcompat.errors import ConnectError

NOWHERE = "qemu+unix:///system?socket=/nonexistent/libvirt-sock"


@pytest.fixture
def host() -> Iterator[Host]:
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    with open_host("test:///default") as host:
        yield host


def test_a_read_only_connection_gives_capabilities_and_versions(host: Host) -> None:
    about = describe(host)
    assert not host.write
    assert about.name == host.name
    assert about.capabilities.startswith("<capabilities>")
    assert about.libvirt.count(".") == 2
    assert about.qemu is None
    assert about.domcapabilities == ()


def test_a_refusal_keeps_the_code_and_names_host_and_question(host: Host) -> None:
    with pytest.raises(
        ConnectError, match=rf"{host.name} \(test:///default\): the domain nobody: .*error 42"
    ) as refused:
        host.ask("the domain nobody", lambda c: c.lookupByName("nobody"))
    assert refused.value.code == 42


def test_a_read_only_connection_is_refused_what_changes_anything(host: Host) -> None:
    with pytest.raises(ConnectError, match="read only access"):
        host.ask("to stop the guest", lambda c: c.lookupByName("test").destroy())


def test_libvirt_writes_nothing_on_stderr(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConnectError):
        host.ask("the domain nobody", lambda c: c.lookupByName("nobody"))
    assert capfd.readouterr() == ("", "")


def test_a_call_that_hangs_is_waited_for_no_longer_than_said(host: Host) -> None:
    released = threading.Event()

    def hang(connection: ConnectionCalls) -> None:
        released.wait(30)

    started = time.monotonic()
    with pytest.raises(ConnectError, match=r"no answer within 0 s") as refused:
        host.ask("something", hang, seconds=0.05)
    assert time.monotonic() - started < 5
    assert refused.value.code is None
    released.set()


def test_a_question_that_is_not_awaited_can_be_looked_at(host: Host) -> None:
    released = threading.Event()
    question = host.begin("something", lambda c: released.wait(30))
    assert not question.ended(0.01)
    released.set()
    assert question.ended(5.0)
    assert question.answer(0.0) is True


def test_a_fault_of_ours_is_not_dressed_as_one_of_libvirt(host: Host) -> None:
    with pytest.raises(ZeroDivisionError):
        host.ask("nonsense", lambda c: 1 // 0)


def test_closing_twice_is_no_error(host: Host) -> None:
    host.close()
    host.close()


def test_a_host_that_cannot_be_reached_is_one_error_that_says_what_to_try(host: Host) -> None:
    with pytest.raises(ConnectError, match=r"read-only connection.*virsh -c '.*' version") as refused:
        open_host(NOWHERE)
    assert refused.value.code == constant("VIR_ERR_SYSTEM_ERROR")


@pytest.mark.parametrize(("scheme", "told"), [("qemu+tls", "a certificate of one authority"), ("qemu", "An ssh that")])
def test_what_to_try_goes_by_the_way_to_the_host(host: Host, scheme: str, told: str) -> None:
    with pytest.raises(ConnectError, match=rf"{told}.*: try in a terminal  virsh -c {re.escape(scheme)}:\S* version"):
        open_host(f"{scheme}://127.0.0.1:1/nowhere")


def test_domain_capabilities_of_a_driver_without_them_are_an_error_not_an_empty_answer(host: Host) -> None:
    with pytest.raises(ConnectError) as refused:
        read_host("test:///default", hypervisor=True)
    assert refused.value.code == constant("VIR_ERR_NO_SUPPORT")


def test_a_constant_that_this_libvirt_does_not_know_is_an_error(host: Host) -> None:
    with pytest.raises(ConnectError, match="does not know VIR_OF_TOMORROW"):
        constant("VIR_OF_TOMORROW")


@pytest.mark.parametrize("uri", ["qemu:///system\nqemu:///session", "qemu+ssh://h 1/system", "qemu://\x00"])
def test_a_uri_with_blanks_or_control_characters_is_refused(host: Host, uri: str) -> None:
    with pytest.raises(ConnectError, match="no URI"):
        open_host(uri)


def test_without_libvirt_python_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "libvirt", None)
    for ask in (lambda: open_host("test:///default"), lambda: constant("VIR_MIGRATE_LIVE")):
        with pytest.raises(ConnectError, match=r"pip install 'vmcompat\[libvirt\]'"):
            ask()


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        ("qemu+tls://root:geheim@h2/system", "qemu+tls://root@h2/system"),
        ("esx://admin:p%40ss:word@h/?no_verify=1", "esx://admin@h/?no_verify=1"),
        ("qemu+ssh://root@h2:22/system", "qemu+ssh://root@h2:22/system"),
        ("qemu+ssh://h2:22/system?command=/a@b", "qemu+ssh://h2:22/system?command=/a@b"),
        ("qemu:///system", "qemu:///system"),
        ("qemu+libssh://root:a/b@h1/system", "qemu+libssh://root@h1/system"),
        ("qemu+libssh://root:a@b@h1/system?no_verify=1", "qemu+libssh://root@h1/system?no_verify=1"),
        ("qemu+ssh://h1:2222/system?keyfile=/k", "qemu+ssh://h1:2222/system?keyfile=/k"),
    ],
)
def test_no_password_is_shown(uri: str, seen: str) -> None:
    assert shown(uri) == seen


def test_no_password_is_in_the_error_of_a_connection_that_fails(host: Host) -> None:
    with pytest.raises(ConnectError) as refused:
        open_host("nosuch+driver://root:geheim@h2/system")
    assert "geheim" not in str(refused.value)
    assert "geheim" not in str(refused.value.__cause__)
