"""What follows from a CA's word: no revoked device goes on, and no healthy one is disabled."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.learning import (
    CLOCK_SKEW,
    RETRY_FIRST,
    Consequence,
    Freshness,
    Standing,
    consequence,
    freshness,
    next_look,
    standing,
)
from gatewayd.core.model import (
    Credential,
    CredentialState,
    Device,
    DeviceKind,
    DeviceState,
    RevocationReason,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
ACTIVE = Device("leaf-1", DeviceKind.LEAF, NOW - 90 * DAY, current=2)
REVOKED = replace(ACTIVE, state=DeviceState.REVOKED)
SUCCESSOR_AT = NOW - DAY
UNSPECIFIED, COMPROMISE = RevocationReason.UNSPECIFIED, RevocationReason.KEY_COMPROMISE


def credential(generation: int, state: CredentialState, *, ends: datetime = NOW + DAY) -> Credential:
    return Credential("leaf-1", generation, state, SUCCESSOR_AT, NOW, not_after=ends, certificate=b"x", serial="1f")


OLD = credential(1, CredentialState.PREVIOUS)
LIVE = credential(2, CredentialState.CURRENT, ends=NOW + 2 * DAY)


def decide(
    which: Credential,
    *others: Credential,
    device: Device = ACTIVE,
    reason: RevocationReason = UNSPECIFIED,
    revoked_at: datetime | None = NOW,
) -> Consequence:
    return consequence(device, which, [which, *others], reason, revoked_at, NOW)


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (None, (Standing.REVOKED, UNSPECIFIED)),
        ("keyCompromise", (Standing.REVOKED, COMPROMISE)),
        ("cACompromise", (Standing.REVOKED, RevocationReason.CA_COMPROMISE)),
        ("aACompromise", (Standing.REVOKED, UNSPECIFIED)),
        ("certificateHold", (Standing.HELD, UNSPECIFIED)),
        ("removeFromCRL", (Standing.RELEASED, UNSPECIFIED)),
    ],
)
def test_reasons(said: str | None, means: tuple[Standing, RevocationReason]) -> None:
    assert standing(said) == means


def test_a_device_whose_live_certificate_is_revoked_is_revoked() -> None:
    for reason in RevocationReason:
        for revoked_at in (None, NOW - 60 * DAY, NOW):
            assert decide(LIVE, OLD, reason=reason, revoked_at=revoked_at) is Consequence.DEVICE


@pytest.mark.parametrize("state", [CredentialState.PREVIOUS, CredentialState.RETIRED, CredentialState.REJECTED])
@pytest.mark.parametrize("reason", RevocationReason)
@pytest.mark.parametrize("revoked_at", [None, SUCCESSOR_AT + HOUR, SUCCESSOR_AT - CLOCK_SKEW])
def test_a_superseded_one_leaves_a_healthy_device_alone(
    state: CredentialState, reason: RevocationReason, revoked_at: datetime | None
) -> None:
    old = replace(OLD, state=state)
    assert decide(old, LIVE, reason=reason, revoked_at=revoked_at) is Consequence.CERTIFICATE


def test_whoever_has_renewed_with_a_revoked_certificate_is_found_out() -> None:
    before = SUCCESSOR_AT - HOUR
    assert decide(OLD, LIVE, revoked_at=before) is Consequence.DEVICE
    assert decide(OLD, LIVE, revoked_at=before, reason=COMPROMISE) is Consequence.DEVICE
    # Unless the CA itself says that nobody was to be stopped.
    assert decide(OLD, LIVE, revoked_at=before, reason=RevocationReason.SUPERSEDED) is Consequence.CERTIFICATE


def test_a_superseded_one_is_the_devices_when_there_is_no_other() -> None:
    over = replace(LIVE, not_after=NOW)
    assert decide(OLD, over) is Consequence.DEVICE
    assert decide(OLD, replace(LIVE, state=CredentialState.REVOKED)) is Consequence.DEVICE
    assert decide(credential(1, CredentialState.ISSUED), device=replace(ACTIVE, current=None)) is Consequence.DEVICE


def test_a_revoked_devices_certificates_are_all_revoked() -> None:
    assert decide(OLD, LIVE, device=REVOKED) is Consequence.DEVICE


@pytest.mark.parametrize("state", [CredentialState.ACCEPTING, CredentialState.REQUESTING, CredentialState.KEYING])
def test_what_the_engine_holds_is_looked_at_again(state: CredentialState) -> None:
    assert decide(credential(3, state), LIVE) is Consequence.LATER


def test_what_is_over_or_known_has_no_consequence() -> None:
    assert decide(replace(LIVE, not_after=NOW)) is Consequence.NONE
    assert decide(replace(LIVE, state=CredentialState.REVOKED)) is Consequence.NONE


def test_what_is_overdue_is_stale() -> None:
    assert freshness(None, None, HOUR, NOW) is Freshness.UNKNOWN
    assert freshness(NOW, NOW, HOUR, NOW) is Freshness.FRESH
    assert freshness(NOW, NOW - timedelta(seconds=1), HOUR, NOW) is Freshness.STALE
    # What was known before a start counts, also when nothing newer could be had since.
    assert freshness(None, NOW + HOUR, HOUR, NOW) is Freshness.FRESH
    assert freshness(NOW - 3 * HOUR, None, HOUR, NOW) is Freshness.FRESH
    assert freshness(NOW - 4 * HOUR, None, HOUR, NOW) is Freshness.STALE


@given(
    interval=st.timedeltas(timedelta(seconds=1), timedelta(days=7)),
    failures=st.integers(0, 10_000),
    dice=st.floats(0, 1, exclude_max=True),
    announced=st.none() | st.timedeltas(timedelta(days=-1), timedelta(days=7)),
)
def test_an_interval_never_passes_without_a_look(
    interval: timedelta, failures: int, dice: float, announced: timedelta | None
) -> None:
    at = next_look(NOW, interval, failures, dice, None if announced is None else NOW + announced)
    assert NOW < at <= NOW + interval
    if failures == 1:
        assert at <= NOW + RETRY_FIRST


def test_a_look_comes_soon_after_something_newer_was_announced() -> None:
    announced = NOW + timedelta(minutes=10)
    assert announced <= next_look(NOW, HOUR, 0, 0.5, announced) <= announced + RETRY_FIRST
