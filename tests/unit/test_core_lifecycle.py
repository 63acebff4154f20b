"""A credential's life: what the table allows, and that a crash anywhere can be resumed from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.lifecycle import (
    IN_PROGRESS,
    TABLE,
    UNFINISHED,
    USABLE,
    Action,
    Event,
    IllegalEvent,
    recover,
    step,
)
from gatewayd.core.model import CredentialState as S

STARTS = {S.WANTED, S.KEYED}
"""Of the gateway's own credential, and of a leaf's."""
FINAL = {S.REVOKED}

GATEWAY_STORY = [
    (Event.START, S.KEYING, (Action.MAKE_KEY,)),
    (Event.KEY_MADE, S.KEYED, ()),
    (Event.START, S.REQUESTING, (Action.REQUEST,)),
    (Event.WORKING, S.PENDING, ()),
    (Event.START, S.REQUESTING, (Action.REQUEST,)),
    (Event.ISSUED, S.ISSUED, ()),
    (Event.START, S.ACCEPTING, (Action.ACCEPT,)),
    (Event.FAILED, S.ISSUED, ()),
    (Event.START, S.ACCEPTING, (Action.ACCEPT,)),
    (Event.ACCEPTED, S.CURRENT, (Action.SWITCH,)),
    (Event.SUPERSEDED, S.PREVIOUS, ()),
    (Event.SUPERSEDED, S.RETIRED, (Action.COLLECT_KEY,)),
]


def test_the_gateways_story_from_wanted_to_retired() -> None:
    state = S.WANTED
    for event, expected, actions in GATEWAY_STORY:
        assert step(state, event) == (expected, actions)
        state = expected


def test_the_table_speaks_of_every_state() -> None:
    assert set(TABLE) == set(S)


def test_every_state_and_every_event_can_happen() -> None:
    reached = set(STARTS)
    pending = list(STARTS)
    while pending:
        for target, _ in TABLE[pending.pop()].values():
            if target not in reached:
                reached.add(target)
                pending.append(target)
    assert reached == set(S)
    assert {event for moves in TABLE.values() for event in moves} == set(Event)
    assert {action for moves in TABLE.values() for _, actions in moves.values() for action in actions} == set(Action)


@given(st.sampled_from(S), st.sampled_from(Event))
def test_what_the_table_does_not_allow_raises(state: S, event: Event) -> None:
    if event in TABLE[state]:
        assert step(state, event) == TABLE[state][event]
    else:
        with pytest.raises(IllegalEvent, match=f"{event} in state {state}"):
            step(state, event)


@pytest.mark.parametrize("state", sorted(IN_PROGRESS))
def test_after_a_crash_the_step_is_started_again(state: S) -> None:
    resumed = recover(state)
    assert resumed not in IN_PROGRESS
    restarted, actions = step(resumed, Event.START)
    assert restarted is state
    assert actions


@pytest.mark.parametrize("state", sorted(set(S) - IN_PROGRESS))
def test_a_stable_state_survives_a_crash_as_it_is(state: S) -> None:
    assert recover(state) is state


@pytest.mark.parametrize("state", sorted(IN_PROGRESS))
def test_what_is_under_way_is_not_started_twice(state: S) -> None:
    with pytest.raises(IllegalEvent):
        step(state, Event.START)


@pytest.mark.parametrize("state", sorted(UNFINISHED))
def test_the_unfinished_can_go_on_by_themselves(state: S) -> None:
    assert Event.START in TABLE[recover(state)]


@pytest.mark.parametrize("state", sorted(set(S) - UNFINISHED))
def test_the_finished_do_not_start_anything(state: S) -> None:
    assert Event.START not in TABLE[state]


@pytest.mark.parametrize("state", sorted(set(S) - FINAL))
def test_revocation_is_possible_everywhere_and_final(state: S) -> None:
    assert step(state, Event.REVOKED) == (S.REVOKED, ())
    assert not TABLE[S.REVOKED]


def test_a_live_key_is_never_collected() -> None:
    for state, moves in TABLE.items():
        for target, actions in moves.values():
            if Action.COLLECT_KEY in actions:
                assert state is not S.CURRENT
                assert target not in USABLE | UNFINISHED


def test_the_pointer_moves_only_once_the_hub_has_accepted() -> None:
    switches = [
        (state, event) for state, moves in TABLE.items() for event, (_, acts) in moves.items() if Action.SWITCH in acts
    ]
    assert switches == [(S.ACCEPTING, Event.ACCEPTED)]
