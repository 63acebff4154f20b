"""Weeks without a network, and what comes back in which order when it is there again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gatewayd.core import revocation as table
from gatewayd.core.enrollment import Enrolled
from gatewayd.errors import EnrollmentDenied, GatewayError, HubUnreachable, IssuerUnreachable, RegistrarRefused
from gatewayd.upstream.base import LinkState
from tests.support.plant import GATEWAY, LEAF, Plant, Someone, request

AWAY: dict[str, dict[str, GatewayError]] = {
    "link": {"connect": HubUnreachable("no route")},
    "registry": {call: HubUnreachable("no route") for call in ("get", "ensure", "disable")},
    "issuer": {call: IssuerUnreachable("no route") for call in ("issue", "renew", "find", "revoke")},
}


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        plant.registry.write(GATEWAY, enabled=True)
        yield plant


async def enroll(plant: Plant, device_id: str = LEAF) -> bytes:
    answer = await plant.enrollments.enroll(request(await plant.add_leaf(device_id), device_id=device_id))
    assert isinstance(answer, Enrolled)
    return answer.certificate


def go_away(plant: Plant) -> None:
    for port, calls in AWAY.items():
        for call, error in calls.items():
            plant.faults(port).fail(call, error, times=None)
    plant.link.drop()


async def come_back(plant: Plant) -> None:
    for port in AWAY:
        plant.faults(port).mend()
    await plant.pass_time(hours=7)
    await connect(plant)
    for _ in range(10):
        await plant.pass_time(minutes=15)
        await connect(plant)


async def connect(plant: Plant) -> None:
    """What the keeper's loop does at each of its attempts."""
    if plant.link.status().state is not LinkState.CONNECTED:
        await plant.keeper._attempt(0)
        await plant.outbox.round()


async def waiting(plant: Plant) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await plant.operations.status())["waiting"]
    return found


@pytest.mark.parametrize("restarts", [False, True])
async def test_thirty_days_offline_and_back(plant: Plant, restarts: bool) -> None:
    await plant.bootstrap()
    await enroll(plant, "leaf-1")
    await enroll(plant, "leaf-2")
    await plant.outbox.round()
    before = list(plant.link.sent)
    go_away(plant)
    await plant.revoke("leaf-1")
    for _ in range(35):
        await plant.pass_time(days=1)
        await connect(plant)
        if restarts:
            await plant.restart()
    assert plant.link.serial is None
    assert (await plant.operations.status())["gateway"]["state"] == "expired"
    await come_back(plant)

    current = await plant.current()
    assert current is not None
    assert plant.link.serial == current.serial
    assert current.not_after is not None
    assert current.not_after > plant.clock.now()
    (revocation,) = await plant.all_revocations("leaf-1")
    assert table.is_closed(revocation)
    assert plant.registry.enabled("leaf-1") is False
    # What was said meanwhile has arrived, in the order in which it happened, nothing twice and nothing lost.
    fresh = [(kind, body["deviceId"]) for _, kind, body in plant.link.sent[len(before) :]]
    assert fresh == [("revocation", "leaf-1"), ("certificate", GATEWAY)]
    assert len({message for message, _, _ in plant.link.sent}) == len(plant.link.sent)
    assert set(plant.issuer.serials()) <= await plant.on_record()


async def test_a_switch_to_a_new_certificate_loses_no_message(plant: Plant) -> None:
    await plant.bootstrap()
    await plant.outbox.round()
    for number in range(5):
        await enroll(plant, f"leaf-{number}")
    # The connection goes while they are on their way, as it does when the new client takes over.
    plant.link.faults.fail("send", HubUnreachable("the connection was lost"), after=False, times=3)
    plant.clock.advance(days=1)
    await plant.operations.renew(Someone(), GATEWAY, "")
    await plant.settle()
    await plant.pass_time(minutes=5)
    current = await plant.current()
    assert current is not None
    assert plant.link.serial == current.serial
    said = [body["deviceId"] for _, kind, body in plant.link.sent if kind == "certificate"]
    assert sorted(said) == sorted([GATEWAY, GATEWAY, *(f"leaf-{number}" for number in range(5))])


async def test_an_expired_leaf_is_told_to_get_a_code_and_comes_back_with_it(plant: Plant) -> None:
    await plant.bootstrap()
    certificate = await enroll(plant)
    for _ in range(31):
        await plant.pass_time(days=1)
    (item,) = await waiting(plant)
    assert (item["device_id"], item["error"]) == (LEAF, "CertificateExpired")
    assert "gatewayctl device code leaf-1" in item["remedy"]
    with pytest.raises(EnrollmentDenied, match="expired"):
        await plant.enrollments.enroll(request(certificate=certificate))
    code = (await plant.operations.device_code(Someone(), LEAF, 0))["code"]
    answer = await plant.enrollments.enroll(request(code))
    assert isinstance(answer, Enrolled)
    assert await waiting(plant) == []


async def test_a_gateway_that_cannot_come_back_by_itself_says_which_command_brings_it_back(plant: Plant) -> None:
    await plant.bootstrap()
    refused: GatewayError = RegistrarRefused("Entra does not know the key.")
    for call in ("renew", "issue", "find"):
        plant.issuer.faults.fail(call, refused, times=None)
    for _ in range(31):
        await plant.pass_time(days=1)
    items = {each["error"]: each for each in await waiting(plant)}
    assert "gatewayctl bootstrap" in items["CertificateExpired"]["remedy"]
    assert "gatewayctl registrar certificate" in items["RegistrarRefused"]["remedy"]
    plant.clock.advance(minutes=1)
    plant.issuer.faults.mend()
    work = await plant.operations.bootstrap(Someone(), "token")
    await work(lambda step, state, detail="": None)
    current = await plant.current()
    assert current is not None
    assert plant.link.serial == current.serial
    assert await waiting(plant) == []
