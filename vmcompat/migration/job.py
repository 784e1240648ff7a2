"""One running migration: started, watched, and aborted from a second connection; and how its progress is shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from vmcompat.errors import ConnectError

if TYPE_CHECKING:
    from vmcompat.connect import Host

Stats: TypeAlias = Mapping[str, Any]

POLL_SECONDS: Final = 0.5
ABORT_SECONDS: Final = 60.0
_LINE_SECONDS: Final = 2.0


class MigrationJob:
    """A live migration that the source's libvirtd carries out.

    Parameters
    ----------
    host : Host
        The source, read-write; busy until the migration has ended.
    control : Host
        A second connection to it, over which the job is watched and aborted.
    domain : str
        Name.
    peer_uri : str
        Where the source's libvirtd finds the target's.
    parameters : mapping
        Of ``virDomainMigrateToURI3``, by libvirt's names.
    flags : int
        Of the same call.
    """

    def __init__(
        self,
        host: Host,
        control: Host,
        domain: str,
        *,
        peer_uri: str,
        parameters: Mapping[str, Any],
        flags: int,
    ) -> None:
        self.domain = domain
        self._control = control
        self._call = host.begin(
            f"to migrate {domain}",
            lambda c: c.lookupByName(domain).migrateToURI3(peer_uri, dict(parameters), flags),
        )

    def ended(self, seconds: float) -> bool:
        """Whether the migration has ended, well or badly, after waiting so long at most [s]."""
        return self._call.ended(seconds)

    def stats(self) -> Stats:
        """What libvirt says of the job now; empty where it has none to tell, as before and after the transfer."""
        try:
            return self._control.ask(
                f"the progress of {self.domain}", lambda c: c.lookupByName(self.domain).jobStats(), seconds=10.0
            )
        except ConnectError:
            return {}  # the last poll comes too late, and a lost connection shows in the call itself

    def abort(self) -> None:
        """Asks libvirt to abort; the guest goes on at the source, unless the migration has just succeeded."""
        try:
            self._control.ask(f"to abort the job of {self.domain}", lambda c: c.lookupByName(self.domain).abortJob())
        except ConnectError:
            return  # no job yet, or no more: the caller asks again until the migration has ended

    def watch(self, progress: Progress, *, abort: threading.Event) -> bool:
        """Waits for the end; once told to abort, by the event or by Ctrl-C, for libvirt's answer to that.

        Parameters
        ----------
        progress : Progress
        abort : threading.Event
            Set by whoever wants the job aborted, from any thread; Ctrl-C sets it too.

        Returns
        -------
        bool
            Whether it was Ctrl-C. How the migration ended, :meth:`result` says.
        """
        interrupted = False
        aborting_since: float | None = None
        while True:
            try:
                if aborting_since is None and abort.is_set():
                    aborting_since = time.monotonic()
                    by = "interrupted: " if interrupted else ""
                    progress.say(f"{by}asking libvirt to abort, and waiting for its answer")
                if aborting_since is None:
                    if self.ended(POLL_SECONDS):
                        return False
                    progress.update(self.stats())
                else:
                    self.abort()
                    if self.ended(POLL_SECONDS) or time.monotonic() - aborting_since > ABORT_SECONDS:
                        return interrupted
            except KeyboardInterrupt:
                interrupted = True
                abort.set()

    def result(self) -> None:
        """ConnectError unless the migration has succeeded."""
        self._call.answer(0.0)


class Progress(Protocol):
    """Where a run tells how far it is."""

    def say(self, text: str) -> None:
        """One line: what begins now."""

    def update(self, stats: Stats) -> None:
        """The transfer, as far as it is."""

    def close(self, *, complete: bool) -> None:
        """The transfer has ended, and all of it has arrived or not."""


Shown: TypeAlias = "bool | Callable[[Stats], None] | Progress"


def show(progress: Shown) -> Progress:
    """How progress is shown: a bar where tqdm is installed, else lines; as the caller does it; or not at all."""
    if callable(progress):
        return _Told(progress)
    if not isinstance(progress, bool):
        return progress
    if not progress:
        return _Told(lambda stats: None)
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _Lines()
    return _Bar(tqdm)


class _Told:
    def __init__(self, tell: Callable[[Stats], None]) -> None:
        self.update = tell

    def say(self, text: str) -> None:
        pass

    def close(self, *, complete: bool) -> None:
        pass


class _Lines:
    def __init__(self) -> None:
        self._next = 0.0

    def say(self, text: str) -> None:
        print(text)

    def update(self, stats: Stats) -> None:
        if stats.get("memory_total") and time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_SECONDS
            print(f"{_percent(stats):.0f} % {_details(stats)}")

    def close(self, *, complete: bool) -> None:
        pass


class _Bar:
    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._bar: Any = None

    def say(self, text: str) -> None:
        self._tqdm.write(text)

    def update(self, stats: Stats) -> None:
        if not stats.get("memory_total"):
            return
        if self._bar is None:
            self._bar = self._tqdm(total=100, unit="%", desc="migrating", bar_format="{l_bar}{bar}| {elapsed}{postfix}")
        self._bar.n = round(_percent(stats))
        self._bar.set_postfix_str(_details(stats))

    def close(self, *, complete: bool) -> None:
        if self._bar is not None:
            if complete:  # the last look was some time before the end
                self._bar.n = self._bar.total
                self._bar.set_postfix_str("arrived")
            self._bar.close()


def _percent(stats: Stats) -> float:
    total, remaining = int(stats["memory_total"]), int(stats.get("memory_remaining", 0))
    return 100.0 * (1.0 - remaining / total)


def _details(stats: Stats) -> str:
    left, speed = stats.get("memory_remaining", 0) / 2**20, stats.get("memory_bps", 0) / 2**20
    return f"pass {stats.get('memory_iteration', 0)}, {left:.0f} MiB left, {speed:.0f} MiB/s"
