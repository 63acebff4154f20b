"""What goes on by itself: the link, the outbox, renewals when they are due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gatewayd.ca.base import Working
from gatewayd.core.model import CredentialState as S
from gatewayd.core.model import OutboxMessage
from gatewayd.core.renewal import renew_at
from gatewayd.errors import (
    GatewayError,
    HubRefused,
    HubThrottled,
    HubUnreachable,
    IssuerRejected,
    IssuerUnreachable,
    StoreBroken,
)
from gatewayd.services.link import LinkKeeper
from gatewayd.upstream.base import LinkCredential
from tests.support.plant import GATEWAY, POLICIES, Plant, Someone, request


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        plant.registry.write(GATEWAY, enabled=True)
        await plant.bootstrap()
        yield plant


# --- renewals ------------------------------------------------------------------------------------


async def test_a_renewal_comes_by_itself_at_its_place_in_the_window_and_not_before(plant: Plant) -> None:
    first = await plant.current()
    assert first is not None
    assert first.not_before is not None
    assert first.not_after is not None
    due = renew_at(GATEWAY, first.not_before, first.not_after, POLICIES.default)
    assert first.renew_at == due
    plant.clock.time = due - timedelta(seconds=1)
    await plant.settle()
    assert await plant.current() == first
    assert 0 < await plant.renewals.round() <= 1  # awake in time
    await plant.pass_time(seconds=1)
    second = await plant.current()
    assert second is not None
    assert (second.generation, plant.link.serial) == (2, second.serial)
    assert (await plant.credentials())[0].state is S.PREVIOUS


async def test_no_date_is_decided_by_a_clock_that_cannot_be_right(plant: Plant) -> None:
    plant.clock.right = False
    await plant.pass_time(days=29)
    assert len(await plant.credentials()) == 1
    plant.clock.right = True
    await plant.settle()
    assert len(await plant.credentials()) == 2


async def test_the_pause_between_attempts_survives_a_restart(plant: Plant) -> None:
    plant.issuer.faults.fail("renew", IssuerUnreachable("away"), times=None)
    plant.issuer.faults.fail("find", IssuerUnreachable("away"), times=None)
    await plant.pass_time(days=20)
    for _ in range(6):
        await plant.pass_time(hours=1)
    waiting = await plant.newest()
    assert waiting.attempts > 4
    calls = len(plant.issuer.faults.calls)
    await plant.restart()
    await plant.settle()
    assert len(plant.issuer.faults.calls) == calls
    assert await plant.newest() == waiting


async def test_a_renewal_that_waits_lets_the_loop_sleep(plant: Plant) -> None:
    """The certificate stays due while its renewal backs off; that is no reason to look all the time."""
    plant.issuer.faults.fail("renew", IssuerUnreachable("away"), times=None)
    plant.issuer.faults.fail("find", IssuerUnreachable("away"), times=None)
    await plant.pass_time(days=20)
    assert await plant.renewals.round() > 20


async def test_what_was_put_off_while_the_clock_was_ahead_is_due_at_once(plant: Plant) -> None:
    plant.issuer.faults.fail("renew", IssuerUnreachable("away"), times=None)
    plant.issuer.faults.fail("find", IssuerUnreachable("away"), times=None)
    await plant.pass_time(days=20)
    true = plant.clock.time
    await plant.pass_time(days=200)
    put_off = (await plant.newest()).next_attempt_at
    assert put_off is not None
    assert put_off > true + timedelta(days=199)
    plant.clock.time = true
    plant.issuer.faults.mend()
    await plant.settle()
    assert (await plant.newest()).state is S.CURRENT


async def test_a_renewal_that_was_postponed_while_the_clock_was_ahead_begins_at_once(plant: Plant) -> None:
    plant.issuer.faults.fail("renew", IssuerRejected("no"))
    await plant.pass_time(days=20)
    true = plant.clock.time
    current = await plant.current()
    assert current is not None
    plant.clock.advance(days=200)
    await plant.write(lambda tx: tx.credentials.put(replace(current, renew_at=plant.clock.now() + timedelta(hours=5))))
    plant.clock.time = true
    await plant.settle()
    assert (await plant.newest()).state is S.CURRENT


async def test_the_networks_return_hastens_what_has_failed_for_want_of_it(plant: Plant) -> None:
    plant.issuer.faults.fail("renew", IssuerUnreachable("away"), times=None)
    plant.issuer.faults.fail("find", IssuerUnreachable("away"), times=None)
    await plant.pass_time(days=20)
    for _ in range(6):
        await plant.pass_time(hours=1)
    plant.issuer.faults.mend()
    asked = len(plant.issuer.faults.calls)
    plant.renewals.hasten()
    await plant.settle()
    assert len(plant.issuer.faults.calls) == asked  # not all at the very moment
    await plant.pass_time(minutes=2)
    assert (await plant.newest()).state is S.CURRENT


async def test_a_link_that_comes_and_goes_does_not_hasten_each_time(plant: Plant) -> None:
    plant.issuer.faults.fail("renew", IssuerUnreachable("away"), times=None)
    plant.issuer.faults.fail("find", IssuerUnreachable("away"), times=None)
    await plant.pass_time(days=20)
    for _ in range(6):
        await plant.pass_time(hours=1)
    plant.renewals.hasten()
    await plant.pass_time(minutes=2)
    hastened = await plant.newest()
    for _ in range(5):
        plant.renewals.hasten()
        await plant.pass_time(minutes=2)
    assert (await plant.newest()).attempts <= hastened.attempts + 1


async def test_who_has_said_when_to_come_back_is_not_asked_sooner(plant: Plant) -> None:
    await plant.pass_time(days=14)
    plant.issuer.working = [Working(20_000)]
    await plant.operations.renew(Someone(), GATEWAY, "")
    await plant.settle()
    asked = len(plant.issuer.faults.calls)
    plant.renewals.hasten()
    await plant.pass_time(hours=1)
    assert len(plant.issuer.faults.calls) == asked


async def test_a_broken_disk_does_not_turn_the_loop_into_a_busy_one(plant: Plant) -> None:
    await plant.operations.renew(Someone(), GATEWAY, "")
    real = plant.store.write
    broken = 0

    async def write(work: object) -> object:
        nonlocal broken
        broken += 1
        raise StoreBroken("no space left")

    plant.store.write = write  # type: ignore[method-assign, assignment]
    loop = asyncio.create_task(plant.renewals.run())
    await asyncio.sleep(0.2)
    loop.cancel()
    assert broken < 5
    plant.store.write = real  # type: ignore[method-assign]
    plant.clock.advance(days=1)
    await plant.settle()
    assert (await plant.newest()).state is S.CURRENT


# --- the link ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [HubRefused("CONNACK 5"), HubUnreachable("no route")])
async def test_a_refused_switch_goes_back_to_the_present_certificate(plant: Plant, error: GatewayError) -> None:
    present = await plant.live()
    assert present is not None
    plant.clock.advance(days=1)
    plant.link.faults.fail("connect", error)
    await plant.operations.renew(Someone(), GATEWAY, "")
    await plant.settle()
    assert plant.link.serial == f"{present.certificate.serial_number:x}"


async def test_a_lost_link_comes_back_by_itself_and_says_so(plant: Plant) -> None:
    told: list[int] = []
    plant.keeper.on_connected(lambda: told.append(1))
    running = asyncio.create_task(plant.keeper.run())
    await asyncio.sleep(0)
    plant.link.drop()
    await asyncio.wait_for(plant.link.up.wait(), 5)
    plant.link.faults.fail("connect", HubUnreachable("no route"))
    plant.link.drop()
    await asyncio.sleep(0.05)
    plant.keeper.ring()
    await asyncio.wait_for(plant.link.up.wait(), 5)
    running.cancel()
    assert len(told) == 2


async def test_a_broken_disk_does_not_end_the_links_keeper(plant: Plant) -> None:
    plant.link.drop()
    broken = True

    async def live() -> LinkCredential | None:
        if broken:
            raise StoreBroken("cannot be read")
        return await plant.live()

    keeper = LinkKeeper(link=plant.link, live=live, clock=plant.clock)
    running = asyncio.create_task(keeper.run())
    await asyncio.sleep(0.05)
    broken = False
    keeper.ring()
    await asyncio.wait_for(plant.link.up.wait(), 5)
    running.cancel()


async def test_a_revoked_gateway_that_was_seen_shut_out_does_not_come_back(plant: Plant) -> None:
    await plant.settle()
    await plant.revoke(GATEWAY)
    await plant.settle()
    plant.link.drop()
    connects = plant.link.faults.count("connect")
    running = asyncio.create_task(plant.keeper.run())
    await asyncio.sleep(0.05)
    running.cancel()
    assert plant.link.faults.count("connect") == connects


# --- the outbox ----------------------------------------------------------------------------------


async def put(plant: Plant, *keys: str) -> None:
    for key in keys:
        message = OutboxMessage(key=key, kind="note", payload='{"n": 1}', created_at=plant.clock.now())
        await plant.write(lambda tx, message=message: tx.outbox.add(message))  # type: ignore[misc]


def sent(plant: Plant) -> list[str]:
    return [key for key, kind, _ in plant.link.sent if kind == "note"]


async def test_what_there_is_to_tell_is_told_once_in_its_order(plant: Plant) -> None:
    await put(plant, *(f"note-{i:02}" for i in range(40)))
    await plant.settle()
    await plant.restart()
    await plant.settle()
    assert sent(plant) == [f"note-{i:02}" for i in range(40)]


async def test_without_a_link_messages_wait_and_go_out_as_soon_as_it_is_back(plant: Plant) -> None:
    plant.link.drop()
    await put(plant, "note")
    await plant.pass_time(days=3)
    message = await plant.read(lambda tx: tx.outbox.get("note"))
    assert message is not None
    assert message.attempts == 0
    live = await plant.live()
    assert live is not None
    await plant.keeper.switch(live)
    await plant.outbox.round()
    assert sent(plant) == ["note"]


async def test_a_message_that_the_hub_does_not_take_waits_and_holds_up_no_other(plant: Plant) -> None:
    await plant.settle()
    plant.link.faults.fail("send", HubThrottled("429", retry_after=120))
    await put(plant, "first", "second")
    await plant.outbox.round()
    assert sent(plant) == ["second"]
    await plant.pass_time(seconds=119)
    assert sent(plant) == ["second"]
    await plant.pass_time(seconds=2)
    assert sent(plant) == ["second", "first"]


async def test_a_new_certificate_is_told_upstream(plant: Plant) -> None:
    await plant.enrollments.enroll(request(await plant.add_leaf()))
    await plant.settle()
    told = [body["deviceId"] for _, kind, body in plant.link.sent if kind == "certificate"]
    assert told == [GATEWAY, "leaf-1"]
