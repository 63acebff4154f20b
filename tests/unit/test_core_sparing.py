"""Sparing a CA: no second holds more than its limit, an outage is met with silence, and nobody waits too long."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core import sparing
from gatewayd.core.sparing import (
    IN_TIME,
    LEAST_PACE,
    OPEN_LAST,
    OPENS_AFTER,
    OVERDUE,
    PACE,
    RETRY_AFTER_LAST,
    Breaker,
    Bucket,
)

DAY = 86400.0
RATES = st.floats(0.01, 1000)
STEPS = st.lists(st.floats(0, 100), min_size=1, max_size=200)
DICE = st.floats(0, 1, exclude_max=True)


@given(RATES, STEPS)
def test_whoever_waits_as_told_never_comes_faster_than_the_rate(rate: float, steps: list[float]) -> None:
    bucket, now, gone = Bucket(), 0.0, []
    for step in steps:
        now += step / rate / 10
        bucket, wait = sparing.take(bucket, now, rate, 1.0)
        gone.append(now + wait)
    assert all(later - earlier >= 0.999 / rate for earlier, later in pairwise(gone))


@given(RATES, st.floats(1, 50), STEPS)
def test_a_burst_is_all_that_comes_beyond_the_rate(rate: float, burst: float, steps: list[float]) -> None:
    bucket, now, taken = Bucket(), 0.0, 0
    for step in steps:
        now += step / rate / 10
        if sparing.wait(bucket, now, rate, burst) == 0:
            bucket, _ = sparing.take(bucket, now, rate, burst)
            taken += 1
    assert taken <= now * rate + burst + 1e-6


def _fail(breaker: Breaker, now: float, times: int, dice: float = 0.5) -> Breaker:
    for _ in range(times):
        breaker = sparing.failed(sparing.begun(breaker, now), now, dice)
    return breaker


def test_a_few_failures_close_nothing_and_a_success_forgets_them() -> None:
    assert sparing.pause(_fail(Breaker(), 0, OPENS_AFTER - 1), 0) == 0
    assert sparing.pause(_fail(Breaker(), 0, OPENS_AFTER), 0) > 0


def test_after_the_pause_one_may_try_and_the_others_wait_for_what_comes_of_it() -> None:
    breaker = _fail(Breaker(), 0, OPENS_AFTER)
    now = sparing.pause(breaker, 0)
    assert sparing.pause(breaker, now) == 0
    trying = sparing.begun(breaker, now)
    assert sparing.pause(trying, now) > 0
    assert sparing.pause(sparing.abandoned(trying, now), now) == 0


@given(DICE)
def test_each_failed_probe_makes_the_pause_longer_up_to_a_bound(dice: float) -> None:
    breaker, now, pauses = _fail(Breaker(), 0, OPENS_AFTER, dice), 0.0, []
    for _ in range(12):
        pauses.append(sparing.pause(breaker, now))
        now += pauses[-1]
        breaker = sparing.failed(sparing.begun(breaker, now), now, dice)
    assert all(later >= earlier - 1e-6 for earlier, later in pairwise(pauses))
    assert pauses[-1] <= OPEN_LAST


@given(st.floats(0, 1e9), DICE)
def test_what_the_ca_asks_for_is_honoured_at_once_up_to_six_hours(retry_after: float, dice: float) -> None:
    pause = sparing.pause(sparing.failed(Breaker(), 0, dice, retry_after), 0)
    assert min(retry_after, RETRY_AFTER_LAST) <= pause <= max(RETRY_AFTER_LAST, OPEN_LAST)


def test_one_that_was_under_way_does_not_shorten_the_pause() -> None:
    breaker = sparing.failed(Breaker(), 0, 0.5, 3600)
    assert sparing.pause(sparing.failed(breaker, 1, 0.5), 1) >= 3599


def test_a_small_plant_hardly_waits_and_a_large_one_goes_at_twice_its_own_rate() -> None:
    assert sparing.pace(3 / (15 * DAY), []) == LEAST_PACE
    mean = 10_000 / (52.5 * DAY)
    assert sparing.pace(mean, [30 * DAY] * 100) == PACE * mean


@given(st.lists(st.floats(-10 * DAY, 60 * DAY), max_size=300), st.floats(0, 0.1))
def test_at_that_pace_all_that_wait_are_on_time(remaining: list[float], mean: float) -> None:
    remaining.sort()
    rate = sparing.pace(mean, remaining)
    for number, left in enumerate(remaining, start=1):
        assert number / rate <= IN_TIME * max(left, OVERDUE) * 1.000001


@pytest.mark.parametrize("failures", [0, OPENS_AFTER])
def test_nothing_is_said_about_the_ca_by_a_request_that_was_broken_off(failures: int) -> None:
    breaker = _fail(Breaker(), 0, failures)
    now = sparing.pause(breaker, 0)
    assert sparing.abandoned(sparing.begun(breaker, now), now).failures == failures
