"""Looks at the two hosts first, says what will be done to them, and prints at the end what was proved on them."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import vmcompat as vc
from tests.hosts.pair import USAGE, Pair, Place, UnfitError, look
from vmcompat.baseline.common import Baseline
from vmcompat.errors import VmcompatError
from vmcompat.fleet.frames import Fleet

PAIR = pytest.StashKey[Pair]()


def pytest_sessionstart(session: pytest.Session) -> None:
    given = os.environ.get("VMCOMPAT_HOSTS")
    if given is None or session.config.option.collectonly:
        return
    try:
        pair = look(given)
    except (UnfitError, VmcompatError) as e:
        raise pytest.UsageError(f"{e}\nNothing was touched.") from None
    session.config.stash[PAIR] = pair
    session.config.add_cleanup(pair.remove)  # for an interrupt that hits where a test removes its guest
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if (number, signal.getsignal(number)) != (signal.SIGHUP, signal.SIG_IGN):  # as under nohup
            signal.signal(number, signal.default_int_handler)
    print(*pair.announcement(), sep="\n")


@pytest.fixture(scope="session")
def hosts(request: pytest.FixtureRequest) -> Pair:
    pair = request.config.stash.get(PAIR, None)
    if pair is None:
        pytest.skip(f"no two hosts are given: {USAGE}")
    return pair


@pytest.fixture
def pair(hosts: Pair) -> Iterator[Pair]:
    """The two hosts, on which nothing of the test is left."""
    yield hosts
    hosts.remove()


@pytest.fixture(scope="session")
def fleet(hosts: Pair) -> Fleet:
    return vc.read_fleet([place.uri for place in hosts.places], view="hypervisor", virttype=hosts.virttype)


@pytest.fixture(scope="session")
def base(fleet: Fleet) -> Baseline:
    return fleet.baseline()


# ---- the table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    pair = config.stash.get(PAIR, None)
    if pair is None:
        return
    outcomes = {"passed": "as it should be", "failed": "FAILED", "error": "FAILED", "skipped": "not tried"}
    reports = [
        (report, said)
        for kind, said in outcomes.items()
        for report in terminalreporter.stats.get(kind, [])
        if isinstance(report, pytest.TestReport)
    ]
    rows = [
        (_behaviour(report.nodeid), said, _seen(report), pair.proved_on)
        for report, said in sorted(reports, key=lambda each: each[0].start)
    ]
    terminalreporter.section("proved on these hosts; their names are left out: read it, and paste it into an issue")
    lines = [*_table([("", *(place.label for place in pair.places)), *_versions(pair)]), ""]
    lines += _table([("check", "outcome", "what was seen", "proved on"), *rows])
    terminalreporter.write_line(pair.anonymous("\n".join(lines)))


def _behaviour(nodeid: str) -> str:
    name, _, case = nodeid.partition("::test_")[2].partition("[")
    return name.replace("_", " ") + (f": {case.rstrip(']')}" if case else "")


def _seen(report: pytest.TestReport) -> str:
    seen = "; ".join(str(value) for name, value in report.user_properties if name == "seen")
    if report.outcome == "passed":
        return seen
    told: Any = report.longrepr
    why = told[2].removeprefix("Skipped: ") if report.skipped else told.reprcrash.message.partition("\n")[0]
    return "; ".join(filter(None, [seen, why]))


def _versions(pair: Pair) -> list[tuple[str, ...]]:
    def cpu(place: Place) -> str:
        facts, model = place.facts.facts, place.facts.cpu
        signature = "/".join(str(facts.get(each, "?")) for each in ("family", "model_number", "stepping"))
        return f"{model.vendor} {model.model}, {signature}, microcode {facts.get('microcode', '?')}" if model else "?"

    def at_most(place: Place) -> str:
        given = place.offers[pair.virttype].cpu
        return str(given.model) if given else "?"

    asked = {
        "libvirt": lambda place: place.live.libvirt,
        "QEMU": lambda place: f"{place.live.qemu}, {pair.proved_on}",
        "CPU": cpu,
        "what guests get at most": at_most,
        "guests here": lambda place: f"{pair.machine}, {pair.emulator}",
    }
    return [(what, *map(ask, pair.places)) for what, ask in asked.items()]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """In Markdown."""
    head, *body = (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    return [head, "|---" * len(rows[0]) + "|", *body]
