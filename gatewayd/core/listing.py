"""Devices as a list shows them: which ones, in which order. Pure.

What a device's state is called follows from its record and its live certificate at a moment; so the store narrows a
list down by what is written there, and the rest is chosen here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice

from .model import Device, DeviceKind, DeviceState, KeyAlgorithm, Standing


class Shown(StrEnum):
    """What a device's state is called."""

    NEW = "new"
    ENROLLING = "enrolling"
    ACTIVE = "active"
    EXPIRED = "expired"
    REPLACING = "replacing"
    REVOKED = "revoked"


class HubState(StrEnum):
    ABSENT = "absent"
    PRESENT = "present"
    DISABLED = "disabled"


class Order(StrEnum):
    ID = "id"
    """The gateway first."""
    EXPIRY = "expiry"
    """What expires first; last what has no certificate."""
    STATE = "state"
    """In the order of ``Shown``, then by id."""


@dataclass(frozen=True, slots=True)
class Live:
    """A device's current certificate, as far as a list shows it."""

    generation: int
    serial: str | None
    thumbprint: str | None
    not_before: datetime | None
    not_after: datetime | None
    renew_at: datetime | None
    algorithm: KeyAlgorithm | None
    """Of the key; the gateway's only."""


@dataclass(frozen=True, slots=True)
class Overview:
    device: Device
    live: Live | None
    under_way: bool
    """Whether its first credential is."""
    shut_out: bool
    """Whether the hub was seen to have it disabled."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which devices a list is to hold: those for which all of this is true."""

    id: str = "*"
    """A pattern, as shells have them."""
    kind: DeviceKind | None = None
    states: frozenset[Shown] = frozenset()
    """None: in any."""
    hub_states: frozenset[HubState] = frozenset()
    expiring_within: timedelta | None = None
    """Its certificate ends by then, or has ended."""
    order: Order = Order.ID
    limit: int | None = None


def state(it: Standing) -> Shown:
    if it.state is not DeviceState.ACTIVE:
        return Shown(it.state)
    if not it.has_certificate:
        return Shown.ENROLLING if it.under_way else Shown.NEW
    return Shown.ACTIVE if it.valid else Shown.EXPIRED


def state_of(it: Overview, now: datetime) -> Shown:
    valid = it.live is not None and it.live.not_after is not None and now < it.live.not_after
    return state(Standing(it.device.state, it.live is not None, valid, it.under_way))


def hub_state_of(it: Overview) -> HubState:
    if it.device.state is not DeviceState.ACTIVE and it.shut_out:
        return HubState.DISABLED
    return HubState.PRESENT if it.device.in_hub else HubState.ABSENT


def choose(found: Iterable[Overview], wanted: Wanted, now: datetime) -> Iterable[Overview]:
    """Of what the store has found: by id, the gateway first. One by one, unless they are to be sorted: thousands of
    them in memory would cost more than all else."""
    chosen: Iterable[Overview] = (
        each
        for each in found
        if not wanted.states or state_of(each, now) in wanted.states
        if not wanted.hub_states or hub_state_of(each) in wanted.hub_states
    )
    if wanted.order is Order.EXPIRY:
        chosen = sorted(chosen, key=_expiry)
    elif wanted.order is Order.STATE:
        places = {each: place for place, each in enumerate(Shown)}
        chosen = sorted(chosen, key=lambda each: places[state_of(each, now)])
    return islice(chosen, wanted.limit)


def _expiry(it: Overview) -> datetime:
    never = datetime.max.replace(tzinfo=UTC)
    return never if it.live is None else it.live.not_after or never
