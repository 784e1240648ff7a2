"""Dirty rate against bandwidth: what converges, how long it takes, and how sure that is."""

import math

import pytest

from vmcompat.migration.forecast import Forecast

MIB = 2**20
GIB = 2**30


def forecast(dirty: tuple[float, float], sent: tuple[float, float] | None, downtime: int = 100) -> Forecast:
    rates = (dirty[0] * MIB, dirty[1] * MIB)
    bandwidth = None if sent is None else (sent[0] * MIB, sent[1] * MIB)
    return Forecast(memory=GIB, dirty_rate=rates, bandwidth=bandwidth, downtime=downtime)


def test_a_guest_that_rewrites_nothing_takes_one_pass() -> None:
    found = forecast((0, 0), (128, 128))
    assert found.outlook == "converges"
    assert found.seconds == (8.0, 8.0)


def test_what_is_rewritten_meanwhile_is_a_geometric_series() -> None:
    found = forecast((64, 64), (128, 128), downtime=1)
    least, most = found.seconds or (0.0, None)
    # 8 s for all of it, then half as long each time: 16 s in the limit
    assert math.isclose(least, 16.0, abs_tol=0.01)
    assert least == most


def test_faster_than_the_link_never_converges_and_the_answer_says_what_would_help() -> None:
    found = forecast((150, 200), (100, 100))
    assert found.outlook == "does not converge"
    assert found.seconds is None
    assert "auto-converge (50% slower in the worst case), or consent to post-copy" in found.explain()[-1]


def test_a_guest_that_fits_into_the_downtime_converges_however_fast_it_writes() -> None:
    assert forecast((5000, 5000), (1024, 1024), downtime=1000).outlook == "converges"


def test_where_the_cases_disagree_the_answer_says_so() -> None:
    found = forecast((50, 120), (100, 100))
    assert found.outlook == "may converge"
    assert found.seconds is not None
    assert found.seconds[1] is None
    assert "at best after" in found.explain()[1]


def test_without_a_bandwidth_it_is_unknown_and_the_threshold_is_told() -> None:
    found = forecast((50, 120), None)
    assert (found.outlook, found.seconds) == ("unknown", None)
    assert "above 120 MiB/s it converges, below 50 MiB/s it does not" in found.explain()[-1]


@pytest.mark.parametrize("dirty", [0, 10, 99, 100, 101, 300])
def test_more_bandwidth_never_takes_longer(dirty: float) -> None:
    took = [forecast((dirty, dirty), (b, b)).seconds for b in (60, 100, 120, 240, 1000)]
    times = [math.inf if t is None else t[0] for t in took]
    assert times == sorted(times, reverse=True)
