"""What follows from what a CA says of our certificates. Pure.

A CA says it in a CRL, by OCSP, or in its own list of certificates. Its word is final as far as *whether* a certificate
is revoked; what it means for the device depends on which of the device's certificates it is:

- the live one: the device is refused, reported, disabled, verified;
- one that a later one has replaced: the device goes on with that one, because to disable it would hit healthy
  hardware. Unless the certificate was already revoked when its successor was asked for: then whoever held it has
  renewed his way past the revocation, and the device is revoked after all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from . import lifecycle
from .model import Credential, CredentialState, Device, DeviceState, RevocationReason

CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far the CA's clock may be from ours."""


class Standing(StrEnum):
    REVOKED = "revoked"
    HELD = "on hold"
    """certificateHold, which the CA may lift: nothing that cannot be undone follows from it."""
    RELEASED = "released"
    """removeFromCRL: a hold was lifted, or the certificate has expired."""


_REASONS: Final[Mapping[str, RevocationReason]] = MappingProxyType({each.value: each for each in RevocationReason})


@dataclass(frozen=True, slots=True)
class Statement:
    """What a source says about one certificate of ours."""

    device_id: str
    generation: int
    standing: Standing
    reason: RevocationReason
    revoked_at: datetime | None
    """By the CA's clock; None when the source does not say."""
    evidence: str
    """One sentence."""


def standing(reason: str | None) -> tuple[Standing, RevocationReason]:
    """From a CRLReason by its name in RFC 5280, 5.3.1, or None when none is given."""
    if reason == "certificateHold":
        return Standing.HELD, RevocationReason.UNSPECIFIED
    if reason == "removeFromCRL":
        return Standing.RELEASED, RevocationReason.UNSPECIFIED
    # aACompromise is about attribute certificates, and says no more about ours than nothing does.
    return Standing.REVOKED, _REASONS.get(reason or "", RevocationReason.UNSPECIFIED)


class Consequence(StrEnum):
    NONE = "none"
    """Known already, over, or nothing that is of use to anybody."""
    LATER = "later"
    """The credential is in the engine's hands: look again when it has come to rest."""
    CERTIFICATE = "certificate"
    """This certificate alone: its device goes on with another one."""
    DEVICE = "device"


def consequence(
    device: Device,
    credential: Credential,
    others: Iterable[Credential],
    reason: RevocationReason,
    revoked_at: datetime | None,
    now: datetime,
) -> Consequence:
    """What follows from ``credential`` being revoked at the CA. ``others``: all of its device's credentials."""
    if credential.not_after is None or credential.not_after <= now or credential.state is CredentialState.REVOKED:
        return Consequence.NONE
    if credential.state in lifecycle.IN_PROGRESS:
        return Consequence.LATER
    others = list(others)
    live = next((each for each in others if each.state is CredentialState.CURRENT), None)
    if (
        device.state is DeviceState.REVOKED
        or live is None
        or live.generation == credential.generation
        or live.not_after is None
        or live.not_after <= now
    ):
        return Consequence.DEVICE
    # The CA itself says that it is merely superseded: then nobody was to be stopped.
    if reason is not RevocationReason.SUPERSEDED and _is_bypassed(credential, others, revoked_at):
        return Consequence.DEVICE
    return Consequence.CERTIFICATE


def _is_bypassed(credential: Credential, others: Iterable[Credential], revoked_at: datetime | None) -> bool:
    """Whether it was revoked before its successor was asked for: clearly, or a clock that is a little off would
    disable a device whose superseded certificate somebody has tidied away."""
    successors = [
        each.created_at for each in others if each.generation > credential.generation and each.state in _WAS_LIVE
    ]
    return revoked_at is not None and bool(successors) and revoked_at < min(successors) - CLOCK_SKEW


_WAS_LIVE: Final = lifecycle.USABLE | {CredentialState.RETIRED, CredentialState.REVOKED}


# --- when to look, and how old an answer may be ---------------------------------------------------


RETRY_FIRST: Final = timedelta(seconds=10)
_MISSED: Final = 3
"""Looks in a row that may fail before a source without a nextUpdate counts as stale."""


class Freshness(StrEnum):
    UNKNOWN = "unknown"
    """Nothing usable has come yet."""
    FRESH = "fresh"
    STALE = "stale"
    """What is known is out of date: a revocation may have been missed."""


def freshness(
    checked_at: datetime | None, next_update: datetime | None, interval: timedelta, now: datetime
) -> Freshness:
    """``checked_at``: when the source last gave something usable; ``next_update``: when, by its own word, there is
    something newer."""
    if next_update is None:
        if checked_at is None:
            return Freshness.UNKNOWN
        next_update = checked_at + _MISSED * interval
    return Freshness.FRESH if now <= next_update else Freshness.STALE


def next_look(
    now: datetime, interval: timedelta, failures: int, dice: float, next_update: datetime | None = None
) -> datetime:
    """At least once in an ``interval``: the jitter (``dice`` in [0, 1)) only ever makes it earlier, so that a fleet
    does not come all at once and what is published is known after an interval at the latest. After a failure sooner,
    at first; and soon after the moment for which something newer was announced."""
    wait = interval * (1 - dice / 5)
    if failures:
        wait = min(wait, RETRY_FIRST * float(2 ** min(failures - 1, 16)) * (1 - dice / 2))
    elif next_update is not None and now < next_update < now + wait:
        wait = min(next_update - now + RETRY_FIRST * dice, interval)
    return now + wait
