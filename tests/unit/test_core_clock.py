"""Whether the time of day can be right."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.clock import FURTHEST, FURTHEST_FROM_BUILD, SLACK, KnownTime, Verdict, judge

BUILD = datetime(2026, 7, 1, tzinfo=UTC)
SEEN = datetime(2031, 5, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(lambda each: each.replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("now", "synchronised", "known", "verdict"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), False, KnownTime(BUILD), Verdict.BEHIND),
        (datetime(1970, 1, 1, tzinfo=UTC), True, KnownTime(BUILD), Verdict.BEHIND),
        (BUILD, False, KnownTime(BUILD), Verdict.SANE),
        (BUILD + FURTHEST_FROM_BUILD, False, KnownTime(BUILD), Verdict.SANE),
        (BUILD + FURTHEST_FROM_BUILD + SECOND, False, KnownTime(BUILD), Verdict.AHEAD),
        (datetime(2099, 1, 1, tzinfo=UTC), True, KnownTime(BUILD), Verdict.SANE),
        (SEEN - SLACK, False, KnownTime(BUILD, SEEN), Verdict.SANE),
        (SEEN - SLACK - SECOND, False, KnownTime(BUILD, SEEN), Verdict.BEHIND),
        (SEEN + FURTHEST, False, KnownTime(BUILD, SEEN), Verdict.SANE),
        (SEEN + FURTHEST + SECOND, False, KnownTime(BUILD, SEEN), Verdict.AHEAD),
        (SEEN + FURTHEST + SECOND, True, KnownTime(BUILD, SEEN), Verdict.SANE),
        # What an unsynchronised clock has shown, a synchronised one may take back; not what another one has proven.
        (SEEN - timedelta(days=90), True, KnownTime(BUILD, SEEN, SEEN - timedelta(days=100)), Verdict.SANE),
        (SEEN - timedelta(days=90), True, KnownTime(BUILD, SEEN, SEEN), Verdict.BEHIND),
    ],
)
def test_what_is_believed(now: datetime, synchronised: bool, known: KnownTime, verdict: Verdict) -> None:
    assert judge(now, synchronised, known) is verdict


@given(st.lists(st.tuples(moments, st.booleans()), max_size=12), moments)
def test_nothing_earlier_than_the_build_or_a_proven_moment_is_ever_believed(
    shown: list[tuple[datetime, bool]], now: datetime
) -> None:
    known, proven = KnownTime(BUILD), BUILD
    for moment, synchronised in shown:
        if judge(moment, synchronised, known) is Verdict.SANE:
            known = known.after(moment, synchronised)
            proven = moment if synchronised else proven
    for synchronised in (True, False):
        if judge(now, synchronised, known) is Verdict.SANE:
            assert now >= BUILD - SLACK
        assert known.floor(True) == max(BUILD, proven)
