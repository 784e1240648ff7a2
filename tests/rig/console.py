"""What the proof-of-life guest said on its console: see ``guest/init.c`` for the lines."""

import re
from dataclasses import dataclass, field
from itertools import pairwise

_TICK = re.compile(
    r"TICK (?P<number>\d+) boot=(?P<boot>\S+) up=(?P<up>[\d.]+) bad=(?P<bad>\d+)"
    r" checked=(?P<checked>\d+) dirtied=(?P<dirtied>\d+) pause=(?P<pause>\d+)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """One sign of life.

    Attributes
    ----------
    number : int
        Counts up by one from 0 in every boot.
    boot_id : str
        The boot that it belongs to.
    up : float
        The guest's own clock since its boot [s].
    bad : int
        Words of its memory that were not as written, since the boot.
    checked, dirtied : int
        Pages that it read back and pages that it rewrote, since the boot.
    pause : int
        Longest time, by its own clock, between two turns of its loop since the tick before [ms].
    """

    number: int
    boot_id: str
    up: float
    bad: int
    checked: int
    dirtied: int
    pause: int


@dataclass(frozen=True, kw_only=True)
class Console:
    """A guest's console, read up to its last whole line.

    Attributes
    ----------
    boot_ids : tuple of str
        One a boot, in order.
    vendor, model_name : str
        The CPU as the last boot saw it.
    flags : frozenset of str
        Its features in the kernel's spelling, of the last boot.
    ticks : tuple of Tick
        Of all boots, in the order in which they were printed.
    failure : str
        What the guest said when it could not go on, else empty.
    """

    boot_ids: tuple[str, ...] = ()
    vendor: str = ""
    model_name: str = ""
    flags: frozenset[str] = field(default=frozenset(), repr=False)
    ticks: tuple[Tick, ...] = field(default=(), repr=False)
    failure: str = ""

    @property
    def bad(self) -> int:
        """Damaged words, of all boots."""
        worst = {tick.boot_id: tick.bad for tick in self.ticks}
        return sum(worst.values())

    @property
    def checked(self) -> int:
        """Pages read back, of all boots: without any, ``bad`` says nothing."""
        last = {tick.boot_id: tick.checked for tick in self.ticks}
        return sum(last.values())

    @property
    def holes(self) -> tuple[tuple[int, int], ...]:
        """Pairs of neighbouring ticks of one boot whose numbers do not follow each other.

        A number that jumps means lost ticks; one that stays or falls means that two copies of the guest ran.
        """
        return tuple(
            (before.number, after.number)
            for before, after in pairwise(self.ticks)
            if before.boot_id == after.boot_id and after.number != before.number + 1
        )

    def ticks_of(self, boot_id: str) -> tuple[Tick, ...]:
        """The ticks of one boot."""
        return tuple(tick for tick in self.ticks if tick.boot_id == boot_id)


def parse_console(text: str) -> Console:
    """Read a console log; what the kernel or the firmware wrote in between is passed over."""
    boot_ids: list[str] = []
    ticks: list[Tick] = []
    cpu: dict[str, str] = {}
    failure = ""
    whole, _, _ = text.rpartition("\n")
    for line in whole.splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind == "BOOT":
            boot_ids.append(rest)
            cpu, failure = {}, ""
        elif kind == "CPU":
            for name in ("vendor_id", "model name", "flags"):
                if rest.startswith(f"{name} "):
                    cpu[name] = rest.removeprefix(f"{name} ")
        elif kind == "FAILED":
            failure = rest
        elif kind == "TICK" and (said := _TICK.fullmatch(line.strip())):
            ticks.append(
                Tick(
                    number=int(said["number"]),
                    boot_id=said["boot"],
                    up=float(said["up"]),
                    bad=int(said["bad"]),
                    checked=int(said["checked"]),
                    dirtied=int(said["dirtied"]),
                    pause=int(said["pause"]),
                )
            )
    return Console(
        boot_ids=tuple(boot_ids),
        vendor=cpu.get("vendor_id", ""),
        model_name=cpu.get("model name", ""),
        flags=frozenset(cpu.get("flags", "").split()),
        ticks=tuple(ticks),
        failure=failure,
    )
