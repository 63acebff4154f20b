"""Revocations that the hub's side asks for: what is wrong with one order is no other's affair."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gatewayd.core.model import DeviceState
from gatewayd.services.orders import Orders
from tests.support.plant import GATEWAY, LEAF, Plant, request


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        plant.registry.write(GATEWAY, enabled=True)
        await plant.bootstrap()
        await plant.enrollments.enroll(request(await plant.add_leaf()))
        yield plant


def desired(**orders: Any) -> Mapping[str, Any]:
    return {"gatewayd": {"revoke": orders}}


def outcomes(plant: Plant) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for each in plant.link.reported:
        told |= each["gatewayd"]["revoke"]
    return told


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not await condition():  # noqa: ASYNC110 - the store has no event to wait for
            await asyncio.sleep(0.01)


async def test_an_order_that_is_refused_does_not_hold_up_the_next(plant: Plant) -> None:
    orders = Orders(store=plant.store, link=plant.link, clock=plant.clock, revoke=plant.operations.revoke_for)
    orders.take(
        desired(
            a={"deviceId": LEAF, "reason": "superseded"},  # it is healthy
            b={"deviceId": "nobody"},
            c={"deviceId": LEAF, "reason": "keyCompromise"},
        )
    )
    running = asyncio.create_task(orders.run())

    async def all_told() -> bool:
        return len(outcomes(plant)) == 3

    await until(all_told)
    running.cancel()
    assert outcomes(plant)["a"]["outcome"].startswith("DeviceHealthy: ")
    assert outcomes(plant)["b"]["outcome"].startswith("DeviceUnknown: ")
    assert outcomes(plant)["c"] == {"deviceId": LEAF, "outcome": "open"}
    device = await plant.read(lambda tx: tx.devices.get(LEAF))
    assert device is not None
    assert device.state is DeviceState.REVOKED


async def test_an_order_may_come_while_others_are_carried_out(plant: Plant) -> None:
    async def revoke(who: str, device_id: str, reason: str) -> Any:
        orders.take(desired(second={"deviceId": LEAF}))
        return await plant.operations.revoke_for(who, device_id, reason)

    orders = Orders(store=plant.store, link=plant.link, clock=plant.clock, revoke=revoke)
    orders.take(desired(first={"deviceId": LEAF}))
    running = asyncio.create_task(orders.run())

    async def both_told() -> bool:
        return running.done() or outcomes(plant).keys() == {"first", "second"}

    await until(both_told)
    assert not running.done()
    running.cancel()


async def test_an_order_is_remembered_while_the_hub_names_it_and_for_a_month(plant: Plant) -> None:
    """Otherwise a leaf that was replaced since would be revoked once more."""
    orders = Orders(store=plant.store, link=plant.link, clock=plant.clock, revoke=plant.operations.revoke_for)

    async def remembered() -> set[str]:
        return {
            each.removeprefix("order:") for each in await plant.read(lambda tx: tx.settings.beginning_with("order:"))
        }

    async def after(days: int, told: Mapping[str, Any]) -> set[str]:
        plant.clock.advance(days=days)
        reported = len(plant.link.reported)
        orders.take(told)
        running = asyncio.create_task(orders.run())
        await asyncio.sleep(0.05)
        running.cancel()
        assert len(plant.link.reported) >= reported
        return await remembered()

    both = desired(a={"deviceId": "nobody"}, b={"deviceId": "nobody"})
    assert await after(0, both) == {"a", "b"}
    assert await after(31, both) == {"a", "b"}
    assert await after(0, desired(a=None)) == {"b"}
    assert await after(0, desired(c={"deviceId": "nobody"})) == {"b", "c"}
    assert await after(1, desired(c=None)) == {"b", "c"}
    assert await after(30, desired()) == {"b"}

    restarted = Orders(store=plant.store, link=plant.link, clock=plant.clock, revoke=plant.operations.revoke_for)
    restarted.ring()
    running = asyncio.create_task(restarted.run())
    await asyncio.sleep(0.05)
    running.cancel()
    assert await remembered() == {"b"}, "the hub has not said yet which there are"
