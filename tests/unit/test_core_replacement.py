"""The table of a hardware swap: how it goes, where it can end, and what has to be true before an id is enabled."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.model import (
    Credential,
    CredentialState,
    Device,
    DeviceKind,
    DeviceState,
    Milestone,
    MilestoneProgress,
    Replacement,
    Revocation,
    RevocationReason,
    RevocationScope,
)
from gatewayd.core.model import ReplacementState as S
from gatewayd.core.replacement import (
    CLOCK_SKEW,
    FINAL,
    IN_FORCE,
    TABLE,
    UNDER_WAY,
    Action,
    Event,
    IllegalEvent,
    Step,
    is_healthy,
    is_shut,
    lift_at,
    recover,
    slots,
    step,
    steps,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SWAP = Replacement("leaf-7", 1, S.CLOSING, RevocationReason.SUPERSEDED, "uid:0", 1, NOW)
DONE = MilestoneProgress(done_at=NOW, attempts=1, evidence="proof")

EVENTS = st.sampled_from(Event)


def credential(generation: int, state: CredentialState, ends: datetime = NOW + HOUR) -> Credential:
    thumbprint, serial = f"{generation:064x}", f"{generation:x}"
    return Credential("leaf-7", generation, state, NOW, NOW, thumbprint=thumbprint, serial=serial, not_after=ends)


def revocation(serial: str, *done: Milestone, scope: RevocationScope = RevocationScope.DEVICE) -> Revocation:
    progress = dict.fromkeys(done, DONE)
    return Revocation("leaf-7", serial, RevocationReason.SUPERSEDED, "uid:0", NOW, progress=progress, scope=scope)


def test_the_way_when_every_peer_answers() -> None:
    state, actions = S.CLOSING, []
    for event in (Event.SHUT, Event.START, Event.DONE, Event.START, Event.DONE):
        state, action = step(state, event)
        actions.append(action)
    assert state is S.LIFTED
    assert actions == [None, Action.PIN, None, Action.LIFT, None]


def test_every_state_is_under_way_in_force_or_an_end() -> None:
    assert set(TABLE) == set(S)
    assert set(S) == UNDER_WAY | IN_FORCE | FINAL
    assert len(UNDER_WAY) + len(IN_FORCE) + len(FINAL) == len(S)
    assert all((not TABLE[state]) == (state in FINAL) for state in S)


@given(st.sampled_from(S), EVENTS)
def test_an_event_out_of_place_is_refused(state: S, event: Event) -> None:
    if event in TABLE[state]:
        step(state, event)
    else:
        with pytest.raises(IllegalEvent):
            step(state, event)


@given(st.lists(EVENTS, max_size=30))
def test_the_id_is_pinned_only_from_shut_and_enabled_never_again_after_an_end(events: list[Event]) -> None:
    state = S.CLOSING
    for event in events:
        if event not in TABLE[state]:
            continue
        before = state
        state, action = step(state, event)
        if action is Action.PIN:
            assert before is S.AWAITING
        if state is S.PINNED and before not in IN_FORCE:
            assert before is S.PINNING
        assert before not in FINAL


@pytest.mark.parametrize("state", S)
def test_recovery_goes_back_to_where_the_action_can_be_started_again(state: S) -> None:
    back = recover(state)
    assert recover(back) is back
    if back is not state:
        assert step(back, Event.START)[0] is state
        assert step(state, Event.FAILED)[0] is back


@pytest.mark.parametrize("state", sorted(UNDER_WAY))
def test_a_swap_under_way_may_be_cancelled_and_one_in_service_may_not(state: S) -> None:
    assert step(state, Event.CANCEL)[0] is S.CANCELLED
    with pytest.raises(IllegalEvent):
        step(S.PINNED, Event.CANCEL)


ALL_OF_IT = (Milestone.REFUSED_HERE, Milestone.REVOKED_AT_CA, Milestone.DISABLED, Milestone.VERIFIED)


@given(st.sets(st.sampled_from(Milestone)), st.booleans())
def test_what_has_to_be_done_about_an_old_certificate(done: set[Milestone], alive: bool) -> None:
    needed = set(ALL_OF_IT) - (set() if alive else {Milestone.REVOKED_AT_CA})
    assert is_shut([revocation("a", *done)], ["a"] if alive else []) == (needed <= done)


def test_one_open_certificate_keeps_the_id_shut() -> None:
    closed = revocation("a", *ALL_OF_IT)
    assert is_shut([closed], ["a", "b"])
    assert not is_shut([closed, revocation("b", Milestone.REFUSED_HERE)], ["a", "b"])


def test_a_certificate_that_was_revoked_alone_has_to_be_revoked_at_the_ca_and_no_more() -> None:
    alone = revocation("a", Milestone.REFUSED_HERE, scope=RevocationScope.CERTIFICATE)
    assert not is_shut([alone], ["a"])
    done = revocation("a", Milestone.REFUSED_HERE, Milestone.REVOKED_AT_CA, scope=RevocationScope.CERTIFICATE)
    assert is_shut([done], ["a"])


@given(st.lists(st.tuples(st.sampled_from(CredentialState), st.integers(-100, 100)), max_size=8))
def test_the_pin_outlives_every_revoked_certificate(records: list[tuple[CredentialState, int]]) -> None:
    mine = [credential(n, state, NOW + hours * HOUR) for n, (state, hours) in enumerate(records, 1)]
    end = lift_at(mine, NOW)
    revoked = [each.not_after for each in mine if each.state is CredentialState.REVOKED]
    assert all(each is not None and each + CLOCK_SKEW <= end for each in revoked)
    assert end == NOW if not revoked else end - CLOCK_SKEW in revoked


def test_the_first_pin_is_the_new_certificate_alone_and_a_renewals_keeps_the_present_one() -> None:
    old, new, third = (
        credential(1, CredentialState.REVOKED),
        credential(2, CredentialState.CURRENT),
        credential(3, CredentialState.ACCEPTING),
    )
    for present in (None, old):
        assert slots(present, new) == (new.thumbprint, new.thumbprint)
    assert slots(new, third) == (new.thumbprint, third.thumbprint)


def test_a_device_is_healthy_while_it_is_in_service_with_a_valid_certificate() -> None:
    device = Device("leaf-7", DeviceKind.LEAF, NOW)
    current = credential(1, CredentialState.CURRENT)
    assert is_healthy(device, current, NOW)
    assert not is_healthy(device, current, NOW + HOUR)
    assert not is_healthy(device, None, NOW)
    assert not is_healthy(device, credential(1, CredentialState.REVOKED), NOW)
    for state in (DeviceState.REPLACING, DeviceState.REVOKED):
        assert not is_healthy(replace(device, state=state), current, NOW)


def test_a_person_sees_each_step_with_its_time() -> None:
    old = revocation("a", Milestone.REVOKED_AT_CA)
    assert steps(SWAP, [old]) == {
        Step.OLD_CERTIFICATE_OUT: NOW,
        Step.ID_DISABLED: None,
        Step.CODE_OUT: NOW,
        Step.NEW_CERTIFICATE_IN: None,
        Step.PINNED: None,
        Step.PIN_LIFTED: None,
    }
    over = replace(SWAP, state=S.LIFTED, shut_at=NOW, certificate_at=NOW, pinned_at=NOW, ended_at=NOW + HOUR)
    later = replace(revocation("b"), known_at=NOW + HOUR)  # of the new hardware: not this swap's affair
    seen = steps(over, [revocation("a", *ALL_OF_IT), later])
    assert list(seen) == list(Step)
    assert all(seen.values())
    assert seen[Step.PIN_LIFTED] == NOW + HOUR
