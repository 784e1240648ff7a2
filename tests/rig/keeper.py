"""The process that outlives the rig's owner for as long as it takes to remove everything.

It is started before anything else exists, makes the run's folder and starts the namespaces in it. Its
standard input is a pipe that only the owner holds: when that closes, or the owner's process is gone, for
whatever reason, the outermost PID namespace is ended, which ends every process of the rig, and the folder is
removed.

It runs with no path but the standard library's, in a session of its own, so that a Ctrl-C meant for the owner
does not reach it.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile

_FIRST_PROCESS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "namespaces.py")
_UNSHARE = ("unshare", "--net", "--mount", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child=KILL")
# A PID namespace is gone within milliseconds of its first process: after this long unshare is killed.
_END_TIMEOUT = 10.0
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _leave(signum: int, _frame: object) -> None:
    for later in _ENDING:
        signal.signal(later, signal.SIG_IGN)
    raise SystemExit(128 + signum)


def _wait_for_end(owner: int, outer: "subprocess.Popen[bytes]") -> None:
    """Return when the owner lets go, the owner is gone, or the namespaces are."""
    # The pipe alone would not do: a child that the owner forked without exec holds it too.
    select.select([sys.stdin.fileno(), owner, os.pidfd_open(outer.pid)], [], [])


def _end(outer: "subprocess.Popen[bytes]") -> None:
    assert outer.stdin is not None
    outer.stdin.close()
    try:
        outer.wait(_END_TIMEOUT)
    except subprocess.TimeoutExpired:
        outer.kill()
        outer.wait()


def main(owner_pid: int) -> None:
    """Keep one run from the making of its folder to its removal."""
    owner = os.pidfd_open(owner_pid)
    for signum in _ENDING:
        signal.signal(signum, _leave)
    # In /tmp, not in $TMPDIR: the path of a unix socket has at most 107 characters.
    folder = tempfile.mkdtemp(prefix="vmcompat-rig-", dir="/tmp")
    try:
        print(folder, flush=True)
        if not sys.stdin.buffer.readline():
            return
        outer = subprocess.Popen(
            [*_UNSHARE, sys.executable, "-IS", _FIRST_PROCESS, "network", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait_for_end(owner, outer)
        finally:
            _end(outer)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]))
