"""The doctor from inside: what only the daemon knows, in the classes that the exit status goes by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatewayd.errors import IssuerUnreachable, StoreBroken
from gatewayd.keys.base import TokenState
from tests.support.plant import GATEWAY, Plant, Someone, request

Found = dict[tuple[str, str], dict[str, str]]


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        plant.registry.write(GATEWAY, enabled=True)
        yield plant


async def diagnosed(plant: Plant) -> Found:
    return {(each["area"], each["check"]): each for each in await plant.doctor.diagnose()}


async def test_a_plant_that_is_well(plant: Plant) -> None:
    await plant.bootstrap()
    found = await diagnosed(plant)
    for well in (
        ("token", "token"),
        ("hub", "link"),
        ("expiry", "certificate"),
        ("expiry", "CA"),
        ("daemon", "daemon"),
    ):
        assert found[well]["verdict"] == "fine", found[well]
    assert found["clock", "time"]["verdict"] == "warning"  # sane, and not synchronised
    areas = [each["area"] for each in await plant.doctor.diagnose()]
    assert areas == sorted(areas, key=list(dict.fromkeys(areas)).index)
    # Nobody listens where its configuration says that the CA and the hub are.
    assert found["ca", "the CA"]["verdict"] == found["hub", "the hub"]["verdict"] == "problem"


async def test_the_gateways_own_certificate_is_no_leaf(plant: Plant) -> None:
    await plant.bootstrap()
    assert ("expiry", "leaves") not in await diagnosed(plant)
    await plant.enrollments.enroll(request(await plant.add_leaf()))
    await plant.settle()
    assert (await diagnosed(plant))["expiry", "leaves"]["verdict"] == "fine"


async def test_of_a_revoked_gateway_nothing_is_taken_from_the_leaves(plant: Plant) -> None:
    await plant.bootstrap()
    await plant.revoke(GATEWAY)
    await plant.settle()
    assert ("expiry", "leaves") not in await diagnosed(plant)


async def test_what_waits_for_a_person_is_a_problem_of_its_class(plant: Plant) -> None:
    plant.fake_keys.say(TokenState.PIN_REFUSED)
    found = await diagnosed(plant)
    assert found["token", "PinRefused"]["verdict"] == "problem"
    assert "token unlock" in found["token", "PinRefused"]["remedy"]
    assert ("token", "token") not in found


async def test_a_failing_peer_and_a_late_renewal_are_seen(plant: Plant) -> None:
    await plant.bootstrap()
    plant.issuer.faults.fail("renew", IssuerUnreachable("away"))
    await plant.operations.renew(Someone(), GATEWAY, "")
    await plant.settle()
    found = await diagnosed(plant)
    assert found["ca", "CA"]["verdict"] == "warning"
    assert "IssuerUnreachable" in found["expiry", "certificate"]["what"]


async def test_before_the_first_certificate_that_is_what_to_do(plant: Plant) -> None:
    found = await diagnosed(plant)
    assert "gatewayctl bootstrap" in found["daemon", "NotBootstrapped"]["remedy"]
    assert found["hub", "link"]["verdict"] == "unknown"
    assert not any(area == "expiry" for area, _ in found)


async def test_with_a_wrong_clock_nothing_is_said_of_what_has_expired(plant: Plant) -> None:
    await plant.bootstrap()
    plant.clock.right = False
    found = await diagnosed(plant)
    assert found["clock", "time"]["verdict"] == "problem"
    assert found["expiry", "certificates"]["verdict"] == "unknown"
    assert ("daemon", "ClockWrong") not in found


async def test_a_database_that_cannot_be_read_takes_nothing_else_from_the_look(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(_: object) -> None:
        raise StoreBroken("The database cannot be read: disk I/O error")

    monkeypatch.setattr(plant.store, "read", read)
    found = await diagnosed(plant)
    assert found["daemon", "StoreBroken"]["verdict"] == "problem"
    assert found["disk", "space"]["verdict"] == "fine"
    assert found["hub", "the hub"]["verdict"] == "problem"


async def test_two_who_ask_at_once_share_one_look(plant: Plant) -> None:
    one, other = await asyncio.gather(plant.doctor.diagnose(), plant.doctor.diagnose())
    assert one is other
