"""The only door to libvirt: open a host with the least rights that answer, and ask it with a deadline.

A libvirt call can hang for ever (a dead peer, a QEMU that does not answer its monitor), and while it does,
Python delivers no Ctrl-C. So every call runs in a thread of its own, and the caller waits for that thread.
"""

from __future__ import annotations

import os
import re
import shlex
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar
from urllib.parse import unquote, urlsplit

from vmcompat.calls import ConnectionCalls, DomainCalls
from vmcompat.errors import ConnectError

# libvirt tells even of a host name that does not resolve on standard error; what matters comes as an exception
os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null")
try:
    import libvirt
except ImportError:
    libvirt = None

T = TypeVar("T")

OPEN_SECONDS: Final = 45.0
ANSWER_SECONDS: Final = 60.0  # the first getDomainCapabilities after a QEMU upgrade probes it: seconds, not minutes
_KEEPALIVE: Final = (5, 3)  # interval [s], lost answers until the connection counts as dead

_BY_SSH: Final = "An ssh that asks for a password or about an unknown host key waits for ever"
_BY_TLS: Final = (
    "Both ends need a certificate of one authority, this one in /etc/pki or in the folder of ?pkipath=, and that of "
    "the host has to name it as the URI does; where it is the host that refuses, its journal says why"
)
_INSTALL: Final = (
    "libvirt-python is not installed: pip install 'vmcompat[libvirt]' (it is compiled, so first: apt-get "
    "install libvirt-dev pkg-config gcc python3-dev, or what these are called on this system)"
)


class Pending(Generic[T]):
    """A libvirt call that runs in a thread of its own.

    Parameters
    ----------
    call : callable
        Makes the call.
    where, what : str
        Of which host and what was asked, for messages.
    hint : str
        What to do where it fails.
    uris : tuple of str
        Which libvirt, or the ssh that it calls, may repeat: told without their passwords.
    """

    def __init__(
        self, call: Callable[[], T], *, where: str, what: str, hint: str = "", uris: tuple[str, ...] = ()
    ) -> None:
        self._future: Future[T] = Future()
        self._asked = f"{where}: {what}"
        self._hint = f"; {hint}" if hint else ""
        self._uris = uris

        def run() -> None:
            try:
                self._future.set_result(call())
            except BaseException as e:  # noqa: BLE001  raised again where the answer is awaited
                self._future.set_exception(e)

        # no pool: its threads are joined when Python exits, and a hung one would never let it
        threading.Thread(target=run, name=f"libvirt: {what}", daemon=True).start()

    def ended(self, seconds: float) -> bool:
        """Whether the call has ended, well or badly, after waiting so long at most [s]."""
        return bool(wait([self._future], timeout=seconds).done)

    def answer(self, seconds: float) -> T:
        """The answer, waited for so long at most [s]; ConnectError where there is none."""
        try:
            return self._future.result(timeout=seconds)
        except TimeoutError as e:
            raise ConnectError(f"{self._asked}: no answer within {seconds:.0f} s{self._hint}") from e
        except libvirt.libvirtError as e:
            refused = e
        # out here, so that no chain of errors leads to a text that had a password in it
        text, code = _told(str(refused), *self._uris), refused.get_error_code()
        cause = refused if text == str(refused) else None
        raise ConnectError(f"{self._asked}: {text} (libvirt error {code}){self._hint}", code=code) from cause


class Host:
    """An open connection to one libvirt host.

    Made by :func:`open_host`; a context manager that closes the connection.

    Attributes
    ----------
    uri : str
        As shown to people: without a password.
    name : str
        What the host calls itself.
    write : bool
        Whether it may be told to change anything.
    """

    def __init__(self, connection: ConnectionCalls, *, uri: str, write: bool) -> None:
        self._connection = connection
        self._given = uri
        self._where = self.uri = shown(uri)
        self.write = write
        self.name = self.ask("its name", lambda c: c.getHostname())
        self._where = f"{self.name} ({self.uri})"

    def __repr__(self) -> str:
        return f"<Host {self.name} at {self.uri}, {'read-write' if self.write else 'read-only'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, what: str, call: Callable[[ConnectionCalls], T], *, seconds: float = ANSWER_SECONDS) -> T:
        """The answer to one question, or to several that belong together.

        Parameters
        ----------
        what : str
            What is asked, for the message: ``"the definition of web1"``.
        call : callable
            Makes the libvirt calls on the connection.
        seconds : float
            Deadline [s]. A call that misses it goes on in its thread; the connection is of no use any more.

        Raises
        ------
        ConnectError
            libvirt refused, with its code; or no answer came in time.
        """
        return self.begin(what, call).answer(seconds)

    def begin(self, what: str, call: Callable[[ConnectionCalls], T], *, uri: str = "") -> Pending[T]:
        """A question whose answer takes as long as it takes, such as a migration; to be waited for by the caller.

        ``uri`` is one that goes into the call: what libvirt says of it is told without its password.
        """
        return Pending(lambda: call(self._connection), where=self._where, what=what, uris=(self._given, uri))

    def begin_with(self, other: Host, what: str, call: Callable[[ConnectionCalls, ConnectionCalls], T]) -> Pending[T]:
        """The same for what takes two hosts: the call is given this connection and the other's."""
        uris = (self._given, other._given)
        return Pending(lambda: call(self._connection, other._connection), where=self._where, what=what, uris=uris)

    def on_lifecycle(self, name: str, event: str, tell: Callable[[], None]) -> None:
        """Calls ``tell``, in another thread, whenever that happens to a domain, until the connection is closed.

        ``event`` is libvirt's ``VIR_DOMAIN_EVENT_*`` without the prefix; the domain need not be there yet.
        """
        lifecycle, wanted = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, constant(f"VIR_DOMAIN_EVENT_{event}")

        def heard(connection: object, domain: DomainCalls, event: int, detail: int, opaque: object) -> None:
            if event == wanted and domain.name() == name:
                tell()

        what = f"to be told when {name} is {event.lower()}"
        self.ask(what, lambda c: c.domainEventRegisterAny(None, lifecycle, heard, None))

    @property
    def alive(self) -> bool:
        """Whether the connection still stands."""
        try:
            return bool(self.ask("whether it is there", lambda c: c.isAlive(), seconds=5.0))
        except ConnectError:
            return False

    def close(self) -> None:
        """Closes the connection; one that is dead already, or does not answer, is left behind."""
        try:
            self.ask("to close", lambda c: c.close(), seconds=5.0)
        except ConnectError:
            return


def open_host(uri: str, *, write: bool = False) -> Host:
    """A connection to the libvirt at a URI, read-only unless asked otherwise.

    Parameters
    ----------
    uri : str
        As virsh takes it: ``qemu:///system``, ``qemu+ssh://root@h2/system``,
        ``qemu+unix:///system?socket=/run/libvirt/libvirt-sock``.
    write : bool
        Ask for the right to change things. libvirt wants it for domain capabilities too, and for
        ``compareHypervisorCPU``, ``baselineHypervisorCPU`` and ``domainXMLToNative``.

    Raises
    ------
    ConnectError
        libvirt-python is not installed, the host cannot be reached, refuses, or does not answer in time.
    """
    if libvirt is None:
        raise ConnectError(_INSTALL)
    seen = shown(uri)
    refuse_unless_uri(uri)
    _prepare()
    what = "a read-write connection" if write else "a read-only connection"
    by_tls = urlsplit(uri).scheme.endswith("+tls")
    opening: Pending[ConnectionCalls] = Pending(
        lambda: libvirt.open(uri) if write else libvirt.openReadOnly(uri),
        where=seen,
        what=what,
        uris=(uri,),
        hint=f"is the address right, does libvirtd run there, may this user log in? {_BY_TLS if by_tls else _BY_SSH}: "
        f"try in a terminal  virsh -c {shlex.quote(seen)} version",
    )
    connection = opening.answer(OPEN_SECONDS)
    try:
        connection.setKeepAlive(*_KEEPALIVE)
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:  # local drivers have no peer that could vanish
            raise ConnectError(f"{seen}: keepalive: {_told(str(e), uri)}", code=e.get_error_code()) from None
    return Host(connection, uri=uri, write=write)


def constant(name: str) -> Any:
    """A constant of libvirt by its name there.

    Raises
    ------
    ConnectError
        The libvirt-python here is older than the constant, or is not installed.
    """
    if libvirt is None:
        raise ConnectError(_INSTALL)
    value = getattr(libvirt, name, None)
    if value is None:
        raise ConnectError(f"libvirt-python {libvirt.getVersion()} does not know {name}; install a newer one")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveHost:
    """What one host said about itself.

    Attributes
    ----------
    name : str
        What the host calls itself.
    uri : str
        Where it was asked, without a password.
    libvirt : str
        Version of its libvirt: ``"9.0.0"``.
    qemu : str or None
        Version of its QEMU; None where another hypervisor answered.
    capabilities : str
        As ``virsh capabilities`` prints them.
    domcapabilities : tuple of str
        As ``virsh domcapabilities`` prints them, one for each way to run guests of the host's own
        architecture, KVM first; empty where they were not asked for.
    """

    name: str
    uri: str
    libvirt: str
    qemu: str | None
    capabilities: str
    domcapabilities: tuple[str, ...] = ()


def read_host(uri: str, *, hypervisor: bool, virttype: str | None = None) -> LiveHost:
    """A host's own documents, by a connection with no more rights than they need.

    Parameters
    ----------
    uri : str
        As for :func:`open_host`.
    hypervisor : bool
        Ask for domain capabilities too, which takes a read-write connection: libvirt gives them on no other.
    virttype : str, optional
        Ask for those of ``"kvm"`` or ``"qemu"`` only. Default: of each that the host has.

    Raises
    ------
    ConnectError
        The host cannot be reached or refuses, or has no such ``virttype``.
    """
    with open_host(uri, write=hypervisor) as host:
        return describe(host, hypervisor=hypervisor, virttype=virttype)


def describe(host: Host, *, hypervisor: bool = False, virttype: str | None = None) -> LiveHost:
    """What :func:`read_host` gives, over a connection that is open already."""
    kind, capabilities, version = host.ask(
        "its capabilities", lambda c: (c.getType(), c.getCapabilities(), c.getLibVersion())
    )
    is_qemu = kind == "QEMU"
    return LiveHost(
        name=host.name,
        uri=host.uri,
        libvirt=_version(version),
        qemu=_version(host.ask("its QEMU's version", lambda c: c.getVersion())) if is_qemu else None,
        capabilities=capabilities,
        domcapabilities=_domcapabilities(host, virttype, is_qemu) if hypervisor else (),
    )


def refuse_unless_uri(uri: str, *, what: str = "") -> None:
    """Raises ConnectError where a text cannot be the one word that a URI is; ``what`` is it, for the message."""
    given = f"{what}={shown(uri)!r}" if what else f"{shown(uri)!r}"
    if re.search(r"[\s\x00-\x20\x7f-\x9f]", uri):
        raise ConnectError(f"{given} is no URI: it holds blanks or control characters")
    try:
        urlsplit(uri)
    except ValueError:
        raise ConnectError(f"{given} is no URI: its host cannot be read; an IPv6 address stands in brackets") from None


# Up to the last @ before the query, since a password may hold what should have been escaped; where there is none, to
# the last of all, unless what follows the colon is a port.
_PASSWORD: Final = re.compile(r"(?<=//)([^/@:?#[]*):(?:[^?]*|(?!\d*(?:[/?#]|$)).*)@", re.DOTALL)


def shown(uri: str) -> str:
    """A URI as people may see it: without the password that some transports carry."""
    return _PASSWORD.sub(r"\1@", uri)


def _told(text: str, *uris: str) -> str:
    """What libvirt says, without the passwords of URIs: ssh takes user and password for a name, and repeats it."""
    for uri in filter(None, uris):
        text = text.replace(uri, shown(uri))
        if found := _PASSWORD.search(uri):
            login = found[0].removesuffix("@")
            for said in (login, unquote(login)) if not login.endswith(":") else ():
                text = text.replace(said, unquote(found[1]))
    return text


def _domcapabilities(host: Host, virttype: str | None, is_qemu: bool) -> tuple[str, ...]:
    arch = str(host.ask("its architecture", lambda c: c.getInfo())[0])
    answers: list[str] = []
    refusals: list[ConnectError] = []
    for each in (virttype,) if virttype or not is_qemu else ("kvm", "hvf", "qemu"):
        what = f"domain capabilities ({each or 'default'}, {arch})"
        try:
            answers.append(
                host.ask(what, lambda c, v=each: c.getDomainCapabilities(None, arch, None, v))  # type: ignore[misc]
            )
        except ConnectError as e:
            # libvirt's way to say that the host has no such virttype; anything else is a fault
            if e.code != constant("VIR_ERR_INVALID_ARG"):
                raise
            refusals.append(e)
    if not answers:
        raise refusals[0]
    return tuple(answers)


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


_prepared = threading.Lock()
_is_prepared = False


def _prepare() -> None:
    """Once a process: libvirt's event loop, without which no keepalive works, and no chatter on stderr."""
    global _is_prepared
    with _prepared:
        if _is_prepared:
            return
        libvirt.registerErrorHandler(lambda context, error: None, None)
        libvirt.virEventRegisterDefaultImpl()

        def loop() -> None:
            while True:
                libvirt.virEventRunDefaultImpl()

        threading.Thread(target=loop, name="libvirt events", daemon=True).start()
        _is_prepared = True
