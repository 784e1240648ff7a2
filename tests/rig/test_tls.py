"""Certificates: guests that move encrypted between two real libvirt hosts, and what is said where one is not right."""

import select
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

import vmcompat as vc
from tests.rig import Rig
from tests.rig.certificates import (
    client_pki,
    give_certificates,
    inside_network,
    make_authority,
    take_certificates,
    why_no_certificates,
)
from tests.rig.guests import Guests, evidence, severity
from vmcompat.connect import open_host
from vmcompat.errors import ConnectError
from vmcompat.migration.migrate import MigrationPlan
from vmcompat.migration.order import MigrationFailedError
from vmcompat.migration.policy import Policy
from vmcompat.migration.transfer import Transfer

pytestmark = pytest.mark.rig

IN_ITS_MEMORY = b"nokaslr mitigations=off"  # of the kernel's command line
IMAGES = "/var/lib/libvirt/images"
_ALL_PACKETS = 3  # ETH_P_ALL
_IPV4, _TCP = 0x0800, 6
_MIGRATION_PORTS = range(49152, 49216)


@pytest.fixture(scope="module")
def authority(rig: Rig) -> Path:
    if why := why_no_certificates():
        pytest.skip(why)
    return make_authority(rig, "right")


@pytest.fixture(scope="module")
def other_authority(rig: Rig) -> Path:
    return make_authority(rig, "other")


@pytest.fixture(scope="module")
def pki(rig: Rig, authority: Path) -> Path:
    return client_pki(rig, authority)


@pytest.fixture(scope="module")
def certified(rig: Rig, authority: Path) -> Iterator[Guests]:
    """Both hosts have certificates, and listen with them."""
    for host in rig.cpus:
        give_certificates(rig, host, authority)
    yield Guests(rig)
    rig.clear()
    for host in rig.cpus:
        take_certificates(rig, host)


@pytest.fixture(scope="module")
def guest(certified: Guests) -> str:
    """One guest that goes to and fro."""
    return certified.start("confidant")


def ends(guests: Guests, name: str) -> tuple[str, str]:
    """Where it is, and where it is not."""
    here = next(iter(guests.where(name)))
    return here, "h2" if here == "h1" else "h1"


def away(guests: Guests, name: str, **options: Any) -> MigrationPlan:
    """A plan from where the guest is to the other host."""
    rig, (here, there) = guests.rig, ends(guests, name)
    given = {"peer_uri": rig.peer_uri(there), "migrate_uri": rig.migrate_uri(there)} | options
    return vc.plan_migration(name, rig.uri(here), rig.uri(there), **given)


def tls_uri(rig: Rig, host: str, pki: Path) -> str:
    """The host for a client in the rig's network, which is none of the hosts."""
    return f"qemu+tls://{rig.address(host)}/system?pkipath={pki}"


def is_whole(guests: Guests, name: str, plan: MigrationPlan) -> None:
    """It runs on the target alone, and nothing of it was lost on the way."""
    guests.lives_on(name)
    console = guests.rig.console(name)
    assert guests.where(name) == {plan.seen.target.name: "running"}
    assert (len(console.boot_ids), console.holes, console.bad) == (1, (), 0)


class Wire:
    """All that QEMU sends to QEMU over a host's cable, as somebody reads it who is on the same network."""

    def __init__(self, rig: Rig, host: str) -> None:
        self.streams: dict[tuple[int, int], list[bytes]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        with inside_network(rig):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 29)  # SO_RCVBUFFORCE: all of it, should nobody read in time
        self._socket.bind((f"v-{host}", _ALL_PACKETS))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    @property
    def heard(self) -> bytes:
        return b"".join(b"".join(stream) for stream in self.streams.values())

    def _listen(self) -> None:
        while select.select([self._socket], [], [], 0.2)[0] or not self._ended.is_set():
            if select.select([self._socket], [], [], 0.0)[0]:
                self._keep(self._socket.recv(1 << 17))

    def _keep(self, frame: bytes) -> None:
        if struct.unpack_from("!H", frame, 12)[0] != _IPV4 or frame[23] != _TCP:
            return
        tcp = 14 + 4 * (frame[14] & 0xF)
        ports: tuple[int, int] = struct.unpack_from("!HH", frame, tcp)
        payload = frame[tcp + 4 * (frame[tcp + 12] >> 4) : 14 + struct.unpack_from("!H", frame, 16)[0]]
        if ports[1] in _MIGRATION_PORTS and payload:
            self.streams.setdefault(ports, []).append(payload)


# ---- encrypted, and whole


@pytest.mark.parametrize(
    "transfer",
    [Transfer(tls=True), Transfer(tls=True, managed=True), Transfer(tls=True, parallel=2), Transfer()],
    ids=["peer to peer", "managed", "parallel", "not encrypted"],
)
@pytest.mark.proves("TRANSPORT", libvirt="performs")
def test_who_is_on_the_network_reads_a_guests_memory_unless_it_moves_encrypted(
    certified: Guests, guest: str, transfer: Transfer
) -> None:
    plan = away(certified, guest, transfer=transfer)
    assert severity(plan, "TRANSPORT") == ("ok" if transfer.tls else "warn")
    with Wire(certified.rig, plan.seen.source.name) as wire:
        result = plan.run(progress=False)
    assert result.outcome == "migrated"
    is_whole(certified, guest, plan)
    assert result.transferred is not None
    assert len(wire.heard) > 0.99 * result.transferred, "it did not hear all"
    beginnings = {stream[0][:2] for stream in wire.streams.values()}
    assert beginnings == ({b"\x16\x03"} if transfer.tls else {b"QE"})  # a handshake of TLS, and the magic QEVM
    assert (IN_ITS_MEMORY in wire.heard) != transfer.tls


def test_encrypted_it_may_end_in_post_copy(certified: Guests, guest: str) -> None:
    policy = Policy(name="hurried", downtimes=(300,), stall=60.0, per_gib=0.0, least=5.0)
    plan = away(certified, guest, transfer=Transfer(tls=True, post_copy=True, bandwidth=8), policy=policy)
    result = plan.run(progress=False)
    assert any("post-copy" in step for step in result.policy_steps)
    is_whole(certified, guest, plan)


def test_a_disk_that_is_copied_along_is_encrypted_too(certified: Guests) -> None:
    rig, path, secret = certified.rig, f"{IMAGES}/confidential.raw", "nobody else may read this"
    for host, content in (("h1", f"printf '{secret}'"), ("h2", "true")):
        rig.run(host, "sh", "-c", f"mkdir -p {IMAGES} && {content} > {path} && truncate -s 1M {path}", check=True)
    disk = f"""<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>
      <source file='{path}'/><target dev='vda' bus='virtio'/></disk>"""
    definition = rig.dir / "confidential.xml"
    xml = rig.domain_xml("confidential", memory=32, buffer=0).replace("<serial", f"{disk}<serial", 1)
    definition.write_text(xml)
    rig.virsh("h1", "define", str(definition))
    heard = []
    for there, tls in (("h2", False), ("h1", True)):
        if tls:
            rig.run("h1", "sh", "-c", f"truncate -s 0 {path} && truncate -s 1M {path}", check=True)
        else:
            rig.virsh("h1", "start", "confidential")
        plan = away(certified, "confidential", transfer=Transfer(tls=tls, copy_disks="all"), force=["DISKS"])
        with Wire(rig, plan.seen.source.name) as wire:
            plan.run(progress=False)
        assert certified.where("confidential") == {there: "running"}
        assert rig.run(there, "head", f"-c{len(secret)}", path, check=True).stdout == secret
        heard.append(secret.encode() in wire.heard)
    assert heard == [True, False]


# ---- qemu+tls


@pytest.mark.parametrize("tls", [False, True], ids=["memory readable", "memory encrypted"])
def test_a_source_calls_the_target_by_tls(certified: Guests, guest: str, tls: bool) -> None:
    _, there = ends(certified, guest)
    plan = away(certified, guest, peer_uri=f"qemu+tls://{there}/system", transfer=Transfer(tls=tls))
    assert severity(plan, "PEER") == "ok"
    assert f"calls qemu+tls://{there}/system" in evidence(plan, "PEER")
    assert severity(plan, "TRANSPORT") == ("ok" if tls else "warn")
    assert f"--desturi qemu+tls://{there}/system" in plan.commands()
    plan.run(progress=False)
    is_whole(certified, guest, plan)


@pytest.mark.parametrize("managed", [False, True], ids=["peer to peer", "managed"])
def test_a_client_with_a_certificate_of_its_own_moves_a_guest_and_nothing_else_knows_its_folder(
    certified: Guests, guest: str, pki: Path, managed: bool
) -> None:
    rig, (here, there) = certified.rig, ends(certified, guest)
    transfer = Transfer(tls=True, managed=managed)
    with inside_network(rig):
        plan = vc.plan_migration(guest, tls_uri(rig, here, pki), tls_uri(rig, there, pki), transfer=transfer)
        assert severity(plan, "TRANSPORT") == "ok"
        # the client's folder is on no host
        assert plan.order.peer_uri == f"qemu+tls://{rig.address(there)}/system"
        assert plan.run(progress=False).outcome == "migrated"
    is_whole(certified, guest, plan)


def test_the_commands_of_a_plan_by_tls_do_what_the_plan_does(
    certified: Guests, guest: str, pki: Path, tmp_path: Path
) -> None:
    rig, (here, there) = certified.rig, ends(certified, guest)
    with inside_network(rig):
        plan = vc.plan_migration(guest, tls_uri(rig, here, pki), tls_uri(rig, there, pki), transfer=Transfer(tls=True))
        done = subprocess.run(
            ["bash", "-c", plan.commands()], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    is_whole(certified, guest, plan)


@pytest.mark.parametrize("whose", ["nobody's", "another authority's"])
def test_a_client_without_the_right_certificate_is_not_let_in(
    certified: Guests, authority: Path, other_authority: Path, pki: Path, whose: str, tmp_path: Path
) -> None:
    rig = certified.rig
    # it trusts the host: it is the host that refuses
    trusted = [(folder / "ca.pem").read_bytes() for folder in (authority, other_authority)]
    (tmp_path / "cacert.pem").write_bytes(b"".join(trusted))
    if whose != "nobody's":
        stranger = client_pki(rig, other_authority)
        for name in ("clientcert.pem", "clientkey.pem"):
            (tmp_path / name).write_bytes((stranger / name).read_bytes())
    with inside_network(rig):
        with pytest.raises(ConnectError, match=r"TLS confirmation.*its journal says why") as refused:
            open_host(tls_uri(rig, "h1", tmp_path))
        with open_host(tls_uri(rig, "h1", pki)) as host:
            assert host.name == "h1"
    assert vc.explain_error(str(refused.value)).kind == "TLS"


def test_a_clients_folder_in_which_something_is_wrong_is_named(certified: Guests, pki: Path, tmp_path: Path) -> None:
    rig = certified.rig
    with inside_network(rig):
        with pytest.raises(ConnectError, match=r"the folder of [?]pkipath=") as nowhere:
            open_host(tls_uri(rig, "h1", tmp_path))
        for name in ("clientcert.pem", "clientkey.pem"):
            (tmp_path / name).write_bytes((pki / name).read_bytes())
        (tmp_path / "cacert.pem").write_bytes((make_authority(rig, "third") / "ca.pem").read_bytes())
        with pytest.raises(ConnectError) as of_another:
            open_host(tls_uri(rig, "h1", tmp_path))
    told = [vc.explain_error(str(error.value)) for error in (nowhere, of_another)]
    assert [found.kind for found in told] == ["TLS", "TLS"]
    assert str(tmp_path / "cacert.pem") in told[0].cause
    assert told[1].cause.startswith(str(tmp_path / "clientcert.pem"))


# ---- certificates that are not right

OTHER_NAME, OTHER_AUTHORITY = "made out to another name", "of another authority"
IN_QEMUS_LOG = {
    OTHER_NAME: "Certificate does not match the hostname {there}",
    OTHER_AUTHORITY: "The certificate hasn't got a known issuer",
}
IN_LIBVIRTS_LOG = {
    OTHER_NAME: "owner does not match the hostname {there}",
    OTHER_AUTHORITY: "The certificate hasn't got a known issuer",
}


@pytest.fixture
def spoil(certified: Guests, authority: Path, other_authority: Path) -> Iterator[Callable[[str, str], None]]:
    """Gives a host a certificate that is not right, for the time of a test."""
    spoilt = []

    def do(host: str, how: str) -> None:
        spoilt.append(host)
        if how == OTHER_NAME:
            give_certificates(certified.rig, host, authority, name="elsewhere")
        else:
            give_certificates(certified.rig, host, other_authority)

    yield do
    for host in spoilt:
        give_certificates(certified.rig, host, authority)


class Log:
    """What a log of a host says from now on."""

    def __init__(self, rig: Rig, host: str, name: str) -> None:
        self._path = rig.dir / host / "var/log/libvirt" / name
        self._before = len(self._path.read_bytes()) if self._path.exists() else 0

    @property
    def text(self) -> str:
        return self._path.read_bytes()[self._before :].decode()


def refused(guests: Guests, name: str, plan: MigrationPlan) -> MigrationFailedError:
    """Why the run failed, after which the guest runs on at the source as if nothing had been tried."""
    with pytest.raises(MigrationFailedError) as failed:
        plan.run(progress=False)
    assert (failed.value.result.outcome, failed.value.result.phase) == ("stayed", "transfer")
    assert failed.value.changed == ()
    assert guests.where(name) == {plan.seen.source.name: "running"}
    guests.lives_on(name)
    assert guests.rig.console(name).holes == ()
    assert vc.explain_error(failed.value.problem).kind == "TLS"
    assert failed.value.next.endswith("; then plan again")
    return failed.value


@pytest.mark.parametrize("managed", [False, True], ids=["peer to peer", "managed"])
@pytest.mark.parametrize("how", [OTHER_NAME, OTHER_AUTHORITY])
def test_no_memory_goes_to_a_qemu_whose_certificate_is_not_right(
    certified: Guests, guest: str, spoil: Callable[[str, str], None], how: str, managed: bool
) -> None:
    here, there = ends(certified, guest)
    spoil(there, how)
    log = Log(certified.rig, here, f"qemu/{guest}.log")
    plan = away(certified, guest, transfer=Transfer(tls=True, managed=managed))
    with Wire(certified.rig, here) as wire:
        failed = refused(certified, guest, plan)
    # libvirt hands on whichever QEMU was heard first: the source's, with the reason, or the target's, without it
    said = IN_QEMUS_LOG[how].format(there=there)
    assert said in failed.problem or "Cannot read from TLS channel" in failed.problem
    assert "/etc/pki/qemu" in failed.next or f"/var/log/libvirt/qemu/{guest}.log of both" in failed.next
    assert said in log.text
    assert len(wire.heard) < 2**16


@pytest.mark.parametrize("how", [OTHER_NAME, OTHER_AUTHORITY])
def test_no_guest_is_offered_to_a_libvirtd_whose_certificate_is_not_right(
    certified: Guests, guest: str, spoil: Callable[[str, str], None], how: str
) -> None:
    here, there = ends(certified, guest)
    spoil(there, how)
    log = Log(certified.rig, here, "libvirtd.log")
    failed = refused(certified, guest, away(certified, guest, peer_uri=f"qemu+tls://{there}/system"))
    assert "Failed to verify peer's certificate" in failed.problem
    assert "the machine that connects says which of it: virsh -c with the same URI" in failed.next
    by_hand = certified.rig.run(here, "env", "-i", "virsh", "-c", f"qemu+tls://{there}/system", "version")
    assert IN_LIBVIRTS_LOG[how].format(there=there) in by_hand.stderr
    assert IN_LIBVIRTS_LOG[how].format(there=there) in log.text


def test_a_target_that_refuses_the_sources_certificate_says_so_in_its_log_only(
    certified: Guests, guest: str, spoil: Callable[[str, str], None], authority: Path, other_authority: Path
) -> None:
    here, there = ends(certified, guest)
    spoil(here, OTHER_AUTHORITY)
    both = (authority / "ca.pem").read_bytes() + (other_authority / "ca.pem").read_bytes()
    for place in ("etc/pki/CA/cacert.pem", "etc/pki/qemu/ca-cert.pem"):  # itself, it trusts the target
        (certified.rig.dir / here / place).write_bytes(both)
    log = Log(certified.rig, there, f"qemu/{guest}.log")
    failed = refused(certified, guest, away(certified, guest, transfer=Transfer(tls=True)))
    assert "TLS channel" in failed.problem
    assert f"/var/log/libvirt/qemu/{guest}.log of both hosts" in failed.next
    assert "Verify failed: No certificate was found" in log.text

    log = Log(certified.rig, there, "libvirtd.log")
    failed = refused(certified, guest, away(certified, guest, peer_uri=f"qemu+tls://{there}/system"))
    assert "Unable to read TLS confirmation" in failed.problem
    assert "qemu+tls in journalctl" in failed.next
    assert "Unable to verify TLS peer: No certificate was found" in log.text


@pytest.mark.parametrize("at_target", [False, True], ids=["source", "target"])
def test_a_host_without_certificates_is_told_what_goes_where(
    certified: Guests, guest: str, authority: Path, at_target: bool
) -> None:
    host = ends(certified, guest)[at_target]
    take_certificates(certified.rig, host)
    try:
        failed = refused(certified, guest, away(certified, guest, transfer=Transfer(tls=True)))
    finally:
        give_certificates(certified.rig, host, authority)
    assert "Unable to access credentials /etc/pki/qemu/ca-cert.pem" in failed.problem
    assert "server-cert.pem, server-key.pem, client-cert.pem and client-key.pem in /etc/pki/qemu" in failed.next


@pytest.mark.parametrize("how", [OTHER_NAME, OTHER_AUTHORITY])
def test_a_client_does_not_believe_a_host_whose_certificate_is_not_right(
    certified: Guests, pki: Path, spoil: Callable[[str, str], None], how: str
) -> None:
    spoil("h2", how)
    with inside_network(certified.rig), pytest.raises(ConnectError, match="Failed to verify peer's") as refused:
        open_host(tls_uri(certified.rig, "h2", pki))
    assert "has to name it as the URI does" in str(refused.value)
    assert vc.explain_error(str(refused.value)).kind == "TLS"


# ---- the certificates of the rig themselves


def listening(rig: Rig, host: str) -> set[str]:
    lines = rig.run(host, "ss", "--no-header", "-lntup", check=True).stdout.splitlines()
    return {line.split()[4] for line in lines}


def test_with_certificates_a_host_listens_in_the_rigs_network_alone_and_without_them_not_at_all(
    certified: Guests, authority: Path
) -> None:
    rig = certified.rig
    ssh, tls = (f"{rig.address('h2')}:{port}" for port in (22, 16514))
    assert listening(rig, "h2") == {ssh, tls}
    take_certificates(rig, "h2")
    try:
        assert listening(rig, "h2") == {ssh}
        assert not (rig.dir / "h2/etc/pki").exists()
        settings = (rig.dir / "h2/etc/libvirt/libvirtd.conf").read_text()
        assert "listen_tls = 0" in settings
        assert "listen_addr" not in settings
    finally:
        give_certificates(rig, "h2", authority)
