"""A second process that stands by while guests move held, and lets them run where the first one dies before it could.

A guest that moves held arrives paused, and nobody but its client lets it run. A notebook's kernel that is killed or
restarted must not leave it so: libvirt goes on moving it peer to peer, and it would stand still at the target until
somebody noticed. The second process is started at the first such move, in a session of its own, which the end of a
kernel does not reach; it is told of every guest that moves held, and looks at none while the first one lives.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Final, NamedTuple

from vmcompat.errors import ConnectError, MigrationError
from vmcompat.migration.recover import recover
from vmcompat.migration.whereabouts import let_run

_BETWEEN_LOOKS: Final = 2.0  # [s]
_CALM_LOOKS: Final = 4  # at a guest that stays at the source, until that is taken for the end of it
_PATIENCE_SECONDS: Final = 600.0  # since a migration was last seen under way
_END_SECONDS: Final = 5.0


class _Guest(NamedTuple):
    """One that moves held; the URIs with their passwords, which therefore go through a pipe and no command line."""

    name: str
    source: str
    target: str


@contextmanager
def standing_by(name: str, source: str, target: str) -> Iterator[None]:
    """While this lasts, the second process lets a guest run that has arrived paused, should this process die.

    Parameters
    ----------
    name : str
        Of the domain.
    source, target : str
        URIs.

    Raises
    ------
    MigrationError
        No process can be started.
    """
    guest = _Guest(name, source, target)
    _owner.watch(guest)
    try:
        yield
    finally:
        _owner.leave(guest)


class _Owner:
    """The first process's end of the pipe: says which guests are to be looked after, all of them every time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guests: list[_Guest] = []
        self._process: subprocess.Popen[str] | None = None

    def watch(self, guest: _Guest) -> None:
        with self._lock:
            self._guests.append(guest)
            try:
                if not self._told():
                    self._start()
            except OSError as e:
                self._guests.remove(guest)
                raise MigrationError(
                    f"no second process can be started to let {guest.name} run should this one die: {e}. Make room for "
                    "it, or move without: Transfer(hold=False)"
                ) from e

    def leave(self, guest: _Guest) -> None:
        with self._lock:
            self._guests.remove(guest)
            self._told()

    def _told(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            return False
        try:
            self._pipe.write(json.dumps(self._guests) + "\n")
            self._pipe.flush()
        except OSError:
            return False
        return True

    @property
    def _pipe(self) -> IO[str]:
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin

    def _start(self) -> None:
        """Start it; where it finds vmcompat is where this process has."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"],  # by -m it would be imported twice
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, start_new_session=True,
        )  # fmt: skip
        atexit.register(self._end, self._process)
        self._told()

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        with suppress(OSError, subprocess.TimeoutExpired):
            if process.stdin is not None:
                process.stdin.close()
            process.wait(_END_SECONDS)


_owner: Final = _Owner()


# ---- the second process


def main() -> None:
    """Read who moves held until the process that tells it has died, then see to those that were left."""
    owner, guests = os.getppid(), list[_Guest]()

    def read() -> None:
        for line in sys.stdin:
            guests[:] = (_Guest(*each) for each in json.loads(line))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    # a process that was forked from the owner, and outlives it, has the other end of the pipe too
    while reader.is_alive() and os.getppid() == owner:
        reader.join(1.0)
    for guest in guests:
        threading.Thread(target=_see_to, args=guest).start()


def _see_to(name: str, source: str, target: str) -> None:
    """Let a guest run once it is at the target and the source has let go of it; touch nothing else."""
    calm, deadline = 0, time.monotonic() + _PATIENCE_SECONDS
    while calm < _CALM_LOOKS and time.monotonic() < deadline:
        left = recover(name, source, target)
        if left.found in ("arrived", "definition left"):
            if left.target.state != "paused" or _let_run(name, target):
                return
        elif left.found == "migrating":
            deadline = time.monotonic() + _PATIENCE_SECONDS
        calm = calm + 1 if left.found == "at source" else 0
        time.sleep(_BETWEEN_LOOKS)


def _let_run(name: str, target: str) -> bool:
    from vmcompat.connect import open_host

    try:
        with open_host(target, write=True) as there:
            let_run(there, name)
    except ConnectError:
        return False
    return True
