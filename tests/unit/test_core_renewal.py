"""When to renew and when to try again, over all lifetimes and all failures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.renewal import (
    RETRY_EXPIRED,
    RETRY_FIRST,
    RETRY_LAST,
    RenewalPolicy,
    ask_again_at,
    is_due,
    is_emergency,
    renew_at,
    retry_at,
)

POLICY = RenewalPolicy()
START = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)

STARTS = st.datetimes(datetime(2020, 1, 1), datetime(2080, 1, 1), timezones=st.just(UTC))
LIFETIMES = st.timedeltas(timedelta(minutes=5), timedelta(days=4000))
DICE = st.floats(0, 1, exclude_max=True)
ATTEMPTS = st.integers(0, 10_000)


@given(st.text(min_size=1, max_size=64), STARTS, LIFETIMES)
def test_a_renewal_is_due_inside_the_window_and_always_at_the_same_moment(
    device_id: str, start: datetime, lifetime: timedelta
) -> None:
    end = start + lifetime
    due = renew_at(device_id, start, end, POLICY)
    assert start + lifetime * POLICY.opens <= due <= start + lifetime * POLICY.closes
    assert due == renew_at(device_id, start, end, POLICY)
    assert not is_emergency(due, start, end, POLICY)


def test_a_fleet_is_spread_over_the_window() -> None:
    lifetime = timedelta(days=30)
    window = lifetime * (POLICY.closes - POLICY.opens)
    opens = START + lifetime * POLICY.opens
    places = [(renew_at(f"leaf-{i}", START, START + lifetime, POLICY) - opens) / window for i in range(10_000)]
    tenths = [sum(tenth <= place * 10 < tenth + 1 for place in places) for tenth in range(10)]
    assert all(850 < count < 1150 for count in tenths)


def test_a_device_has_another_place_the_next_time() -> None:
    lifetime = timedelta(days=30)
    offsets = {
        renew_at("gw", START + timedelta(days=day), START + timedelta(days=day) + lifetime, POLICY)
        - timedelta(days=day)
        for day in range(20)
    }
    assert len(offsets) == 20


@given(STARTS, LIFETIMES, st.floats(0, 2))
def test_the_emergency_is_the_last_tenth_and_lasts(start: datetime, lifetime: timedelta, at: float) -> None:
    left = (start + lifetime) - (start + lifetime * at)
    assert is_emergency(start + lifetime * at, start, start + lifetime, POLICY) == (left < lifetime * POLICY.emergency)


@given(STARTS, ATTEMPTS, DICE)
def test_a_retry_is_between_a_second_and_six_hours_away(now: datetime, attempts: int, dice: float) -> None:
    assert SECOND <= retry_at(now, attempts, dice) - now <= RETRY_LAST


@given(STARTS, ATTEMPTS, DICE, st.timedeltas(SECOND, timedelta(days=400)))
def test_the_nearer_the_end_the_more_often(now: datetime, attempts: int, dice: float, left: timedelta) -> None:
    wait = retry_at(now, attempts, dice, not_after=now + left) - now
    assert SECOND <= wait <= max(left / 10, SECOND)
    assert wait <= RETRY_LAST


@given(STARTS, ATTEMPTS, DICE, st.floats(0, 1e300))
def test_what_a_peer_asks_for_is_honoured_up_to_six_hours(
    now: datetime, attempts: int, dice: float, retry_after: float
) -> None:
    wait = retry_at(now, attempts, dice, retry_after=retry_after) - now
    asked = min(retry_after, RETRY_LAST.total_seconds())
    assert wait.total_seconds() >= asked - 1e-6
    assert wait <= RETRY_LAST


@given(ATTEMPTS, DICE, st.timedeltas(timedelta(minutes=1), timedelta(hours=6)))
def test_a_step_may_be_given_a_shorter_upper_bound(attempts: int, dice: float, longest: timedelta) -> None:
    assert retry_at(START, attempts, dice, longest=longest) - START <= longest


def test_the_first_retry_is_soon_and_the_waits_double_on_average() -> None:
    dice = [i / 100 for i in range(100)]
    waits = [mean((retry_at(START, n, each) - START).total_seconds() for each in dice) for n in range(1, 12)]
    assert RETRY_FIRST.total_seconds() / 2 <= waits[0] <= RETRY_FIRST.total_seconds()
    assert all(1.9 < later / earlier < 2.1 for earlier, later in pairwise(waits[1:9]))
    assert waits[-1] <= RETRY_LAST.total_seconds()


@given(ATTEMPTS, DICE, st.timedeltas(timedelta(), timedelta(days=400)))
def test_an_expired_certificate_is_still_worth_trying_but_no_busy_loop(
    attempts: int, dice: float, ago: timedelta
) -> None:
    assert SECOND <= retry_at(START, attempts, dice, not_after=START - ago) - START <= RETRY_EXPIRED
    assert retry_at(START, 99, 0.5, not_after=START - ago) - START == RETRY_EXPIRED / 2


@pytest.mark.parametrize(
    ("ahead", "due"),
    [
        (None, True),
        (timedelta(0), True),
        (timedelta(seconds=-1), True),
        (timedelta(seconds=1), False),
        (RETRY_LAST, False),
        (RETRY_LAST + timedelta(minutes=6), True),
        (timedelta(days=400), True),
    ],
)
def test_a_moment_further_ahead_than_any_retry_says_nothing(ahead: timedelta | None, due: bool) -> None:
    now = datetime(2031, 5, 1, tzinfo=UTC)
    assert is_due(None if ahead is None else now + ahead, now) is due


@pytest.mark.parametrize(("named", "wait"), [(0, 2), (1, 2), (90, 90), (1e9, 21600), (float("inf"), 21600)])
def test_a_ca_at_work_is_asked_again_when_it_says_within_reason(named: float, wait: int) -> None:
    assert ask_again_at(START, named) == START + wait * SECOND
