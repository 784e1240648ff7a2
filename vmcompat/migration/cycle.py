"""A guest powered off and on again, with a new definition; and back to the old one where that does not start."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from vmcompat.errors import ConnectError, MigrationError, VmcompatError
from vmcompat.migration.account import Account
from vmcompat.migration.apply import redefine
from vmcompat.migration.domain import read_domain
from vmcompat.migration.whereabouts import not_given

if TYPE_CHECKING:
    from vmcompat.connect import Host

SHUTDOWN_SECONDS: Final = 180.0
_START_SECONDS: Final = 300.0


class PowerCycle:
    """One power cycle on the source.

    Parameters
    ----------
    account : Account
        Of the run; it gets what is changed, undone and not given.
    here : Host
        The source, read-write.
    """

    def __init__(self, account: Account, here: Host) -> None:
        self._account, self._here = account, here
        self._name = account.order.domain
        self._stored = account.old

    def do(self) -> None:
        """Off and on, in a thread of its own: once the guest is off, nothing but the start is a good moment to stop.

        Raises
        ------
        MigrationFailedError
            The guest did not power off, or did not start; with where it is now.
        KeyboardInterrupt
            The same, after Ctrl-C.
        """
        account = self._account
        cycle = self._here.begin("the power cycle", lambda c: self._off_and_on())
        while True:
            try:
                if cycle.ended(0.5):
                    break
            except KeyboardInterrupt:
                account.interrupted = True
                account.abort.set()
                account.progress.say("interrupted: bringing the guest to a safe state first")
        try:
            cycle.answer(0.0)
        except VmcompatError as e:
            if account.interrupted:
                raise account.stopped(str(e), next=account.look) from e
            raise

    def _off_and_on(self) -> None:
        account, name = self._account, self._name
        if account.new != account.old:
            account.progress.say(f"storing the new definition of {name}")
            self._stored = redefine(self._here, name, expected=account.old, new=account.new)
            account.changed.append(self._new_cpu)
        account.progress.say(f"powering {name} off")
        account.changed.append(f"{name} was told to power off")
        if not self._off():
            self._restore()
            when = f"before the {account.stop}" if account.abort.is_set() else "in time"
            how = "shut it down from inside, or plan with restart='destroy'"
            raise account.failed(
                f"{name} did not power off {when}, and may still do so",
                next=f"{how}; then: {account.virsh('domstate')}",
            )
        account.restarted = True
        account.progress.say(f"starting {name}")
        try:
            self._start()
        except ConnectError as e:
            self._start_from_old(e)
        account.changed[-1] = f"{name} was powered off and on"
        asked, live = read_domain(self._stored, source=name), account.live(self._here)
        account.not_given = not_given(asked, live, self._here.name, account.order.seen.source.libvirt)
        if account.not_given:
            account.progress.say(f"asked for, not given: {', '.join(account.not_given)}")

    @property
    def _new_cpu(self) -> str:
        return f"the stored CPU of {self._name} on {self._here.name} is {self._account.order.seen.baseline}"

    def _off(self) -> bool:
        here, name = self._here, self._name

        def is_off() -> bool:
            return not here.ask(f"whether {name} runs", lambda c: c.lookupByName(name).isActive())

        if self._account.order.restart == "destroy":
            here.ask(f"to power {name} off", lambda c: c.lookupByName(name).destroy())
            return is_off()
        here.ask(f"to shut {name} down", lambda c: c.lookupByName(name).shutdown())
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while not is_off():
            if self._account.abort.wait(0.5) or time.monotonic() > deadline:
                return is_off()
        return True

    def _start(self) -> None:
        name = self._name
        self._here.ask(f"to start {name}", lambda c: c.lookupByName(name).create(), seconds=_START_SECONDS)

    def _restore(self) -> None:
        account = self._account
        if self._stored != account.old:
            redefine(self._here, self._name, expected=self._stored, new=account.old)
            account.changed.remove(self._new_cpu)
            account.undone.append(f"the old definition of {self._name} is stored again")

    def _start_from_old(self, error: ConnectError) -> None:
        """The guest does not start: back to the definition that it had, and up again."""
        account, name = self._account, self._name
        account.changed[-1] = f"{name} was powered off"
        problem = f"{name} did not start on {self._here.name}: {error}"
        if self._stored == account.old:
            problem = f"{problem}. It is off, and its definition is the one it had"
            raise account.failed(problem, next=account.virsh("start")) from error
        try:
            self._restore()
            self._start()
        except (ConnectError, MigrationError) as e:
            problem = f"{problem}. Going back failed too: {e}. The guest is off"
            raise account.failed(problem, next=account.virsh("start")) from error
        account.undone.append(f"{name} was started from the old definition and runs on {self._here.name}")
        account.outcome = "restored"
        next = "look at the reason; compute a baseline that this host can start"
        raise account.failed(problem, next=next) from error
