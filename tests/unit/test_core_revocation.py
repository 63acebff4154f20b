"""What a revocation waits for, and that no peer that is away keeps it from the others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.model import Milestone, MilestoneProgress, Revocation, RevocationReason
from gatewayd.core.revocation import (
    PREREQUISITES,
    REPORT_FIRST,
    done,
    due,
    failed,
    is_closed,
    is_done,
    next_attempt,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
KNOWN = Revocation("leaf-1", "1f", RevocationReason.KEY_COMPROMISE, "uid:0", NOW)

MOMENTS = st.integers(-5, 5).map(lambda minutes: NOW + minutes * MINUTE)
PROGRESS = st.builds(
    MilestoneProgress,
    done_at=st.none() | MOMENTS,
    attempts=st.integers(0, 5),
    next_attempt_at=st.none() | MOMENTS,
)
REVOCATIONS = st.dictionaries(st.sampled_from(Milestone), PROGRESS).map(
    lambda progress: replace(KNOWN, progress=progress)
)


def after(revocation: Revocation, milestone: Milestone, progress: MilestoneProgress) -> Revocation:
    return replace(revocation, progress={**revocation.progress, milestone: progress})


def succeed(revocation: Revocation, milestone: Milestone) -> Revocation:
    return after(revocation, milestone, done(MilestoneProgress(), NOW, "proof"))


def test_it_is_refused_here_before_anything_else() -> None:
    assert due(KNOWN, NOW) == (Milestone.REFUSED_HERE,)


def test_then_ca_report_and_hub_wait_for_nothing_but_themselves() -> None:
    refused = succeed(KNOWN, Milestone.REFUSED_HERE)
    independent = (Milestone.REVOKED_AT_CA, Milestone.REPORTED, Milestone.DISABLED)
    assert due(refused, NOW) == independent
    for away in independent:
        stuck = after(refused, away, failed(MilestoneProgress(), "HubUnreachable: No answer.", NOW + MINUTE))
        assert due(stuck, NOW) == tuple(each for each in independent if each is not away)
        assert away in due(stuck, NOW + MINUTE)


def test_disabled_is_not_yet_verified() -> None:
    disabled = succeed(succeed(KNOWN, Milestone.REFUSED_HERE), Milestone.DISABLED)
    assert Milestone.VERIFIED in due(disabled, NOW)
    assert not is_closed(disabled)


def test_the_gateway_reports_its_own_revocation_before_it_is_disabled() -> None:
    refused = succeed(KNOWN, Milestone.REFUSED_HERE)
    assert Milestone.DISABLED not in due(refused, NOW, report_first=True)
    assert Milestone.DISABLED in due(succeed(refused, Milestone.REPORTED), NOW, report_first=True)


@pytest.mark.parametrize("table", [PREREQUISITES, REPORT_FIRST])
def test_prerequisites_come_earlier_in_the_canonical_order(
    table: dict[Milestone, frozenset[Milestone]],
) -> None:
    order = list(Milestone)
    assert set(table) == set(order)
    for milestone, needed in table.items():
        assert all(order.index(each) < order.index(milestone) for each in needed)


@given(REVOCATIONS, st.booleans())
def test_something_is_due_exactly_when_the_next_attempt_has_come(revocation: Revocation, report_first: bool) -> None:
    moment = next_attempt(revocation, NOW, report_first=report_first)
    assert bool(due(revocation, NOW, report_first=report_first)) == (moment is not None and moment <= NOW)


@given(REVOCATIONS, st.booleans())
def test_an_open_revocation_always_has_a_next_attempt(revocation: Revocation, report_first: bool) -> None:
    assert (next_attempt(revocation, NOW, report_first=report_first) is None) == is_closed(revocation)


@given(REVOCATIONS, st.booleans())
def test_doing_what_is_due_closes_it(revocation: Revocation, report_first: bool) -> None:
    now = NOW + 6 * MINUTE
    for _ in Milestone:
        for milestone in due(revocation, now, report_first=report_first):
            assert not is_done(revocation, milestone)
            revocation = succeed(revocation, milestone)
    assert is_closed(revocation)
    assert due(revocation, now, report_first=report_first) == ()


def test_a_failure_counts_and_a_success_clears_the_error() -> None:
    twice = failed(failed(MilestoneProgress(), "one", NOW), "two", NOW + MINUTE)
    assert twice == MilestoneProgress(attempts=2, next_attempt_at=NOW + MINUTE, last_error="two")
    assert done(twice, NOW + MINUTE, "etag AAAA") == MilestoneProgress(
        done_at=NOW + MINUTE, attempts=3, evidence="etag AAAA"
    )
