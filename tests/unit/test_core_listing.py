"""Which devices a list holds, and in which order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gatewayd.core.listing import HubState, Live, Order, Overview, Shown, Wanted, choose, hub_state_of, state_of
from gatewayd.core.model import Device, DeviceKind, DeviceState

NOW = datetime(2031, 5, 1, tzinfo=UTC)
BARE = Overview(Device("new", DeviceKind.LEAF, NOW), None, under_way=False, shut_out=False)


def with_certificate(name: str, days: int, state: DeviceState = DeviceState.ACTIVE, shut_out: bool = False) -> Overview:
    device = Device(name, DeviceKind.LEAF, NOW, state=state, in_hub=True)
    return Overview(device, Live(1, "1a", "ab", NOW, NOW + timedelta(days=days), None, None), False, shut_out)


LIVE, LATE, OVER = with_certificate("live", 2), with_certificate("late", 9), with_certificate("over", -1)
GONE = with_certificate("gone", 5, DeviceState.REVOKED, shut_out=True)
ALL = [GONE, LATE, LIVE, BARE, OVER]


@pytest.mark.parametrize(
    ("it", "state", "hub"),
    [
        (BARE, Shown.NEW, HubState.ABSENT),
        (replace(BARE, under_way=True), Shown.ENROLLING, HubState.ABSENT),
        (LIVE, Shown.ACTIVE, HubState.PRESENT),
        (replace(LIVE, shut_out=True), Shown.ACTIVE, HubState.PRESENT),  # of an earlier certificate
        (OVER, Shown.EXPIRED, HubState.PRESENT),
        (GONE, Shown.REVOKED, HubState.DISABLED),
        (replace(GONE, shut_out=False), Shown.REVOKED, HubState.PRESENT),
    ],
)
def test_what_a_state_is_called(it: Overview, state: Shown, hub: HubState) -> None:
    assert (state_of(it, NOW), hub_state_of(it)) == (state, hub)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Wanted(), "gone late live new over"),
        (Wanted(states=frozenset({Shown.ACTIVE, Shown.EXPIRED})), "late live over"),
        (Wanted(hub_states=frozenset({HubState.DISABLED})), "gone"),
        (Wanted(states=frozenset({Shown.ACTIVE}), hub_states=frozenset({HubState.DISABLED})), ""),
        (Wanted(order=Order.EXPIRY), "over live gone late new"),
        (Wanted(order=Order.STATE), "new late live over gone"),
        (Wanted(order=Order.EXPIRY, limit=2), "over live"),
    ],
)
def test_what_is_chosen(wanted: Wanted, names: str) -> None:
    assert [each.device.device_id for each in choose(ALL, wanted, NOW)] == names.split()
