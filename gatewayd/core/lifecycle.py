"""A credential's life, as a table.

All about its state lives here: the table says every legal move and what has to be done on the way; everything
else only interprets it. An illegal event raises. Nothing here does I/O.

How to read it. A state is *stable* (nothing is under way; a restart resumes from it) or *in progress* (an action
was started and its outcome is not known yet). The engine writes the in-progress state down, carries the action
out, and feeds the outcome back as an event. After a crash ``recover`` maps each in-progress state back to its last
stable one; since every action is idempotent, starting it again is the whole of recovery. A stable state that *waits
for a person* is looked at again by itself, but seldom.

What a CA may answer are the events of REQUESTING: issued, working, rejected, unreachable, unconfigured, needs a new
key. docs/lifecycle.md is drawn from this table.

The gateway's credential starts at WANTED (a key has to be made); a leaf's at KEYED (its CSR brought the key).
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from .model import CredentialState as S


class Event(StrEnum):
    START = "start"
    """Time to take the next step."""
    KEY_MADE = "key-made"
    """The key is in the token, and the request for it is signed."""
    FAILED = "failed"
    """The action failed on our side and may be tried again."""
    ISSUED = "issued"
    """The CA has issued a certificate, and it has passed our own check."""
    WORKING = "working"
    """The CA has taken the request and asks us to come back."""
    REJECTED = "rejected"
    """The CA, or our own check of what it issued, said no for good."""
    UNREACHABLE = "unreachable"
    """No clear answer: a certificate may have been minted."""
    UNCONFIGURED = "unconfigured"
    """The CA does not serve us until a person has mended something, there or here."""
    NEEDS_NEW_KEY = "needs-new-key"
    """The CA wants another key, or this one is gone from the token: the next generation is begun at once."""
    DEFERRED = "deferred"
    """The CA was not asked, to spare it."""
    ACCEPTED = "accepted"
    """The hub took the certificate (gateway), or knows the device (leaf)."""
    SUPERSEDED = "superseded"
    """A later generation has become current."""
    EXPIRED = "expired"
    """It is over: before the hub had accepted it, or as the one before the current."""
    REVOKED = "revoked"
    """For good, from wherever it stood."""


class Action(StrEnum):
    MAKE_KEY = "make-key"
    """In the token; idempotent, since the key's id is written down before."""
    REQUEST = "request"
    """Look at the CA for a certificate for this key; ask for one only when there is none."""
    ACCEPT = "accept"
    """Have the hub accept it."""
    SWITCH = "switch"
    """Point the device at this generation and supersede the one before, in one transaction."""
    COLLECT_KEY = "collect-key"
    """Remove the key from the token; housekeeping does it later."""
    BEGIN_ANEW = "begin-anew"
    """Want a next generation, under a new key."""


class IllegalEvent(Exception):
    """The event has no place in that state: a defect in the caller."""


_Moves = MappingProxyType[Event, tuple[S, tuple[Action, ...]]]


def _moves(**by_name: tuple[S, tuple[Action, ...]]) -> _Moves:
    return MappingProxyType({Event[name]: move for name, move in by_name.items()})


_GONE = (S.REVOKED, ())

TABLE: Final[MappingProxyType[S, _Moves]] = MappingProxyType(
    {
        S.WANTED: _moves(START=(S.KEYING, (Action.MAKE_KEY,)), REVOKED=_GONE),
        S.KEYING: _moves(KEY_MADE=(S.KEYED, ()), FAILED=(S.WANTED, ()), REVOKED=_GONE),
        S.KEYED: _moves(START=(S.REQUESTING, (Action.REQUEST,)), REVOKED=_GONE),
        S.REQUESTING: _moves(
            ISSUED=(S.ISSUED, ()),
            WORKING=(S.PENDING, ()),
            FAILED=(S.KEYED, ()),
            REJECTED=(S.REJECTED, ()),
            UNREACHABLE=(S.KEYED, ()),
            UNCONFIGURED=(S.BLOCKED, ()),
            NEEDS_NEW_KEY=(S.REJECTED, (Action.BEGIN_ANEW,)),
            DEFERRED=(S.KEYED, ()),
            REVOKED=_GONE,
        ),
        S.PENDING: _moves(START=(S.REQUESTING, (Action.REQUEST,)), REVOKED=_GONE),
        S.BLOCKED: _moves(START=(S.REQUESTING, (Action.REQUEST,)), REVOKED=_GONE),
        S.ISSUED: _moves(START=(S.ACCEPTING, (Action.ACCEPT,)), REVOKED=_GONE),
        S.ACCEPTING: _moves(
            ACCEPTED=(S.CURRENT, (Action.SWITCH,)),
            FAILED=(S.ISSUED, ()),
            NEEDS_NEW_KEY=(S.REJECTED, (Action.BEGIN_ANEW,)),
            EXPIRED=(S.RETIRED, (Action.COLLECT_KEY,)),
            REVOKED=_GONE,
        ),
        S.CURRENT: _moves(SUPERSEDED=(S.PREVIOUS, ()), REVOKED=_GONE),
        S.PREVIOUS: _moves(
            SUPERSEDED=(S.RETIRED, (Action.COLLECT_KEY,)),
            EXPIRED=(S.RETIRED, (Action.COLLECT_KEY,)),
            REVOKED=_GONE,
        ),
        S.RETIRED: _moves(REVOKED=_GONE),
        S.REJECTED: _moves(REVOKED=_GONE),
        S.REVOKED: _moves(),
    }
)

_LAST_STABLE: Final = MappingProxyType({S.KEYING: S.WANTED, S.REQUESTING: S.KEYED, S.ACCEPTING: S.ISSUED})

IN_PROGRESS: Final = frozenset(_LAST_STABLE)
WAITS_FOR_PERSON: Final = frozenset({S.BLOCKED})
UNFINISHED: Final = frozenset({S.WANTED, S.KEYED, S.PENDING, S.BLOCKED, S.ISSUED}) | IN_PROGRESS
"""On the way to CURRENT: the engine drives these on by itself."""
USABLE: Final = frozenset({S.CURRENT, S.PREVIOUS})


def step(state: S, event: Event) -> tuple[S, tuple[Action, ...]]:
    """The next state and what has to be done. Raises IllegalEvent."""
    try:
        return TABLE[state][event]
    except KeyError:
        raise IllegalEvent(f"{event} in state {state}") from None


def recover(state: S) -> S:
    """The state to resume from after a crash: this function is the whole of crash recovery."""
    return _LAST_STABLE.get(state, state)
