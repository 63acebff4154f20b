"""A hardware swap, as a table: old certificate out, id disabled, code out, new certificate in, pin, pin lifted.

Why it takes a pin: the hub never asks whether a certificate is revoked. In its ``certificateAuthority`` mode any
unexpired certificate of a registered CA whose CN is the device id gets in, so that enabling a disabled id lets the
revoked certificate in again. So the id is enabled only together with ``selfSigned`` mode and the *new* certificate's
thumbprint, in one conditional write, and goes back to ``certificateAuthority`` when no revoked certificate of its name
is alive any more.

How to read the table. CLOSING: the old certificates are on their way to *revoked at the CA, disabled, verified*, which
core.revocation sees to; the code for the new hardware is out already. AWAITING: the old ones are shut out, the id is
disabled, and what is missing is the new hardware. PINNING and LIFTING are in progress: one write to the hub has been
started, and its outcome is not known. PINNED: the new hardware is in service. The rest are ends.

What a cancellation undoes: the code, and whatever the new hardware has got so far. It never brings an old certificate
back: the device stays revoked and disabled, until it is replaced once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from .model import (
    Credential,
    CredentialState,
    Device,
    DeviceState,
    Milestone,
    Replacement,
    Revocation,
    RevocationReason,
)
from .model import ReplacementState as S
from .revocation import EXPECTED, is_done

DEFAULT_REASON: Final = RevocationReason.SUPERSEDED
"""RFC 5280 has no reason for "we have put in a better one". ``superseded`` says that a newer certificate stands in
this one's place and that nobody doubts its key; ``cessationOfOperation`` would say that the device is gone, and
``keyCompromise`` would set off an alarm."""

CLOCK_SKEW: Final = timedelta(minutes=5)
"""How much later than ours the hub's clock may see a certificate expire."""


class Event(StrEnum):
    SHUT = "shut"
    """Every old certificate is shut out (``is_shut``)."""
    REOPENED = "reopened"
    """One more certificate of the old hardware has turned up."""
    START = "start"
    DONE = "done"
    """Written to the hub, and read back."""
    FAILED = "failed"
    """Not written, or it is not known whether; it may be tried again."""
    CANCEL = "cancel"
    OVERTAKE = "overtake"
    """The device was revoked, or is replaced again: what this swap has brought is void."""


class Action(StrEnum):
    PIN = "pin"
    LIFT = "lift"


class IllegalEvent(Exception):
    """The event has no place in that state: a defect in the caller."""


_Moves = Mapping[Event, tuple[S, Action | None]]


def _moves(**by_name: tuple[S, Action | None]) -> _Moves:
    return MappingProxyType({Event[name]: move for name, move in by_name.items()})


_CANCELLED = (S.CANCELLED, None)
_OVERTAKEN = (S.OVERTAKEN, None)

TABLE: Final[Mapping[S, _Moves]] = MappingProxyType(
    {
        S.CLOSING: _moves(SHUT=(S.AWAITING, None), CANCEL=_CANCELLED, OVERTAKE=_OVERTAKEN),
        S.AWAITING: _moves(
            START=(S.PINNING, Action.PIN), REOPENED=(S.CLOSING, None), CANCEL=_CANCELLED, OVERTAKE=_OVERTAKEN
        ),
        S.PINNING: _moves(DONE=(S.PINNED, None), FAILED=(S.AWAITING, None), CANCEL=_CANCELLED, OVERTAKE=_OVERTAKEN),
        S.PINNED: _moves(START=(S.LIFTING, Action.LIFT), OVERTAKE=_OVERTAKEN),
        S.LIFTING: _moves(DONE=(S.LIFTED, None), FAILED=(S.PINNED, None), OVERTAKE=_OVERTAKEN),
        S.LIFTED: _moves(),
        S.CANCELLED: _moves(),
        S.OVERTAKEN: _moves(),
    }
)

_LAST_STABLE: Final = MappingProxyType({S.PINNING: S.AWAITING, S.LIFTING: S.PINNED})

FINAL: Final = frozenset({S.LIFTED, S.CANCELLED, S.OVERTAKEN})
UNDER_WAY: Final = frozenset({S.CLOSING, S.AWAITING, S.PINNING})
"""The new hardware is not in service yet."""
IN_FORCE: Final = frozenset({S.PINNED, S.LIFTING})
"""The hub admits the device by thumbprint: the next certificate's must be there before the device gets it."""


def step(state: S, event: Event) -> tuple[S, Action | None]:
    """The next state, and what has to be written to the hub. Raises IllegalEvent."""
    try:
        return TABLE[state][event]
    except KeyError:
        raise IllegalEvent(f"{event} in state {state}") from None


def recover(state: S) -> S:
    """The state to resume from after a crash: this function is the whole of crash recovery."""
    return _LAST_STABLE.get(state, state)


def is_shut(revocations: Iterable[Revocation], alive: Iterable[str], *, by_pin: bool = False) -> bool:
    """Whether the id may be enabled again. ``revocations``: all of the device's; ``alive``: the serials of its revoked
    certificates that have not expired; ``by_pin``: the hub shuts them out no sooner than with the pin.

    Each must be verified as disabled, or its own way there would disable the new hardware. One that is alive must be
    revoked at the CA, too, because a CA that is linked to the hub disables the id when it revokes.
    """
    living = frozenset(alive)
    later = _AFTER_THE_PIN if by_pin else {Milestone.REPORTED}
    return all(
        is_done(each, milestone)
        for each in revocations
        for milestone in EXPECTED[each.scope]
        if milestone not in later and (milestone is not Milestone.REVOKED_AT_CA or each.serial in living)
    )


def may_lift(revocations: Iterable[Revocation]) -> bool:
    """Whether no revocation of the device (``revocations``: all of them) is on its way in the hub any more: without the
    pin it would disable the new hardware."""
    return all(is_done(each, Milestone.VERIFIED) for each in revocations if Milestone.VERIFIED in EXPECTED[each.scope])


_AFTER_THE_PIN: Final = frozenset({Milestone.REPORTED, Milestone.DISABLED, Milestone.VERIFIED})


def lift_at(credentials: Iterable[Credential], now: datetime) -> datetime:
    """When no revoked one among a device's ``credentials`` is alive any more, for the hub's clock neither."""
    ends = [
        each.not_after for each in credentials if each.state is CredentialState.REVOKED and each.not_after is not None
    ]
    return max((end + CLOCK_SKEW for end in ends), default=now)


def slots(current: Credential | None, new: Credential) -> tuple[str, str]:
    """(primary, secondary) thumbprint of a pinned identity before ``new`` is handed out.

    At first the new one's in both. Later the present one stays in the primary slot: nobody here sees when the device
    takes up the new one, so the old one works until the next renewal needs its slot.
    """
    assert new.thumbprint is not None
    kept = current.thumbprint if current is not None and current.state is CredentialState.CURRENT else None
    return kept or new.thumbprint, new.thumbprint


def is_healthy(device: Device, current: Credential | None, now: datetime) -> bool:
    """Whether a device is in service with a valid certificate: ``superseded`` is no reason to end that."""
    return (
        device.state is DeviceState.ACTIVE
        and current is not None
        and current.state is CredentialState.CURRENT
        and current.not_after is not None
        and now < current.not_after
    )


class Step(StrEnum):
    """What a person sees of a swap, in the order in which it is done when every peer answers."""

    OLD_CERTIFICATE_OUT = "old-certificate-out"
    ID_DISABLED = "id-disabled"
    CODE_OUT = "code-out"
    NEW_CERTIFICATE_IN = "new-certificate-in"
    PINNED = "pinned"
    PIN_LIFTED = "pin-lifted"


def steps(replacement: Replacement, revocations: Iterable[Revocation]) -> dict[Step, datetime | None]:
    """When each step was done; None for one that is to come. ``revocations``: all of the device's."""
    until = replacement.shut_at
    mine = [each for each in revocations if until is None or each.known_at <= until]

    def all_done(milestone: Milestone) -> datetime | None:
        expected = [each for each in mine if milestone in EXPECTED[each.scope]]
        moments = [each.progress[milestone].done_at for each in expected if is_done(each, milestone)]
        if len(moments) < len(expected):
            return None
        return max((each for each in moments if each is not None), default=replacement.started_at)

    return {
        Step.OLD_CERTIFICATE_OUT: all_done(Milestone.REVOKED_AT_CA),
        Step.ID_DISABLED: all_done(Milestone.VERIFIED),
        Step.CODE_OUT: replacement.started_at,
        Step.NEW_CERTIFICATE_IN: replacement.certificate_at,
        Step.PINNED: replacement.pinned_at,
        Step.PIN_LIFTED: replacement.ended_at if replacement.state is S.LIFTED else None,
    }
