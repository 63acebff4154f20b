"""What a failure means for a credential: the event that it is in core.lifecycle, and when the next attempt is due."""

from __future__ import annotations

from datetime import datetime, timedelta

from ..core.lifecycle import Action, Event
from ..core.model import Credential
from ..core.renewal import RETRY_BLOCKED, RETRY_LAST, RenewalPolicy, is_emergency, retry_at
from ..errors import (
    CertificateUnacceptable,
    GatewayError,
    IssuerRejected,
    IssuerSpared,
    IssuerUnconfigured,
    IssuerUnreachable,
    NewKeyNeeded,
    RegistrarRefused,
)

_ANSWERS: tuple[tuple[type[GatewayError], Event], ...] = (
    (IssuerRejected, Event.REJECTED),
    (CertificateUnacceptable, Event.REJECTED),
    (IssuerUnreachable, Event.UNREACHABLE),
    (IssuerUnconfigured, Event.UNCONFIGURED),
    (RegistrarRefused, Event.UNCONFIGURED),
    (NewKeyNeeded, Event.NEEDS_NEW_KEY),
    (IssuerSpared, Event.DEFERRED),
)


def event_of(action: Action, error: GatewayError) -> Event:
    if action is Action.REQUEST:
        return next((event for kind, event in _ANSWERS if isinstance(error, kind)), Event.FAILED)
    if action is Action.ACCEPT and isinstance(error, NewKeyNeeded):
        return Event.NEEDS_NEW_KEY
    return Event.FAILED


def attempts_after(event: Event, before: int) -> int:
    """A request that never went out is no attempt."""
    return before if event is Event.DEFERRED else before + 1


def next_attempt(
    event: Event,
    attempts: int,
    error: GatewayError,
    present: Credential | None,
    policy: RenewalPolicy,
    now: datetime,
    dice: float,
) -> datetime | None:
    """``present`` is the device's current credential. None: this generation is not tried again."""
    if event in (Event.REJECTED, Event.NEEDS_NEW_KEY):
        return None
    if event is Event.DEFERRED:
        return now + timedelta(seconds=error.retry_after or 1.0)
    not_before, not_after = (present.not_before, present.not_after) if present is not None else (None, None)
    return retry_at(
        now,
        attempts,
        dice,
        not_after=not_after,
        emergency=not_before is not None and not_after is not None and is_emergency(now, not_before, not_after, policy),
        retry_after=error.retry_after,
        longest=RETRY_BLOCKED if event is Event.UNCONFIGURED else RETRY_LAST,
    )
