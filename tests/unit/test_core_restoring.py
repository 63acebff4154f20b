"""A restore is a join: it forgets no revocation and goes back to no earlier generation, whatever meets whatever."""

from __future__ import annotations

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
    KeyAlgorithm,
    KeyRef,
    Milestone,
    MilestoneProgress,
    Replacement,
    ReplacementState,
    Revocation,
    RevocationReason,
)
from gatewayd.core.restoring import Account, Diverged, account, join

START = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
S = CredentialState
LIFE = list(S)
SERVED = (S.CURRENT, S.PREVIOUS, S.RETIRED, S.REVOKED)
PATH = [S.WANTED, S.KEYED, S.REQUESTING, S.ISSUED, S.ACCEPTING, S.CURRENT, S.PREVIOUS, S.RETIRED, S.REVOKED]


def credential(generation: int, state: S) -> Credential:
    """Facts are the same in every account; what it has come to is not."""
    known = state in (S.ISSUED, S.ACCEPTING, *SERVED)
    return Credential(
        "leaf",
        generation,
        state,
        START + generation * MINUTE,
        START + (generation * 100 + LIFE.index(state)) * MINUTE,
        key=KeyRef(bytes([generation]), KeyAlgorithm.EC_P256),
        certificate=b"certificate %d" % generation if known else None,
        serial=f"{generation:x}" if known else None,
        thumbprint=f"{generation:064x}" if known else None,
    )


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    """A leaf's records as they may have been at some moment: one generation after the other, some of them revoked."""
    states: list[S] = []
    for _ in range(draw(st.integers(0, 3))):
        if states and states[-1] is S.CURRENT:
            states[-1] = S.PREVIOUS
        states.append(draw(st.sampled_from(PATH)))
    revoked = [number for number, state in enumerate(states, 1) if state is S.REVOKED]
    served = [number for number, state in enumerate(states, 1) if state in SERVED]
    state = draw(st.sampled_from([DeviceState.ACTIVE, DeviceState.REVOKED]))
    reason = RevocationReason.KEY_COMPROMISE if state is DeviceState.REVOKED else None
    device = Device("leaf", DeviceKind.LEAF, START, (), state, max(served, default=None), draw(st.booleans()), reason)
    revocations = [
        Revocation("leaf", f"{number:x}", RevocationReason.KEY_COMPROMISE, "uid:0", START, draw(progress()))
        for number in revoked
    ]
    return account([device], [credential(*each) for each in enumerate(states, 1)], revocations, [])


@st.composite
def progress(draw: st.DrawFn) -> dict[Milestone, MilestoneProgress]:
    reached = draw(st.integers(0, len(Milestone)))
    return {
        each: MilestoneProgress(done_at=START + draw(st.integers(0, 9)) * MINUTE, attempts=1)
        for each in list(Milestone)[:reached]
    }


@given(accounts(), accounts())
def test_it_does_not_matter_which_one_is_called_the_backup(a: Account, b: Account) -> None:
    assert join(a, b) == join(b, a)


@given(accounts())
def test_once_more_changes_nothing(a: Account) -> None:
    assert join(a, a) == a


@given(accounts(), accounts(), accounts())
def test_nor_in_which_order(a: Account, b: Account, c: Account) -> None:
    assert join(join(a, b), c) == join(a, join(b, c))


@given(accounts(), accounts())
def test_what_either_knows_as_revoked_is_revoked_and_no_milestone_is_undone(a: Account, b: Account) -> None:
    joined = join(a, b)
    for side in (a, b):
        for key, each in side.credentials.items():
            assert each.state is not S.REVOKED or joined.credentials[key].state is S.REVOKED
        for place, revocation in side.revocations.items():
            for milestone, it in revocation.progress.items():
                assert it.done_at is None or joined.revocations[place].progress[milestone].done_at is not None
        assert side.devices["leaf"].state is not DeviceState.REVOKED or (
            joined.devices["leaf"].state is DeviceState.REVOKED
        )


@given(accounts(), accounts())
def test_the_live_generation_is_older_than_neither_sides(a: Account, b: Account) -> None:
    joined = join(a, b)
    assert (joined.devices["leaf"].current or 0) >= max(each.devices["leaf"].current or 0 for each in (a, b))
    current = [key for key, each in joined.credentials.items() if each.state is S.CURRENT]
    assert len(current) <= 1
    for _, generation in current:
        assert generation == joined.devices["leaf"].current


def test_a_swap_that_has_come_to_its_pin_since_is_not_undone_by_the_revocation_before_it() -> None:
    old = Device("leaf", DeviceKind.LEAF, START, (), DeviceState.REVOKED, 1)
    new = Device("leaf", DeviceKind.LEAF, START, (), DeviceState.ACTIVE, 2)
    swap = Replacement("leaf", 1, ReplacementState.PINNED, RevocationReason.SUPERSEDED, "uid:0", 1, START)
    before = account([old], [credential(1, S.REVOKED)], [], [])
    after = account([new], [credential(1, S.REVOKED), credential(2, S.CURRENT)], [], [swap])
    assert join(before, after) == join(after, before) == after


def test_two_keys_under_one_number_are_two_histories() -> None:
    one = account([], [credential(1, S.KEYED)], [], [])
    other = account([], [Credential("leaf", 1, S.KEYED, START, START, KeyRef(b"x", KeyAlgorithm.EC_P256))], [], [])
    with pytest.raises(Diverged):
        join(one, other)
