"""Leaves whose renewals come all at once: a few go at once, the others in turn, the most urgent first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from gatewayd.core.enrollment import Enrolled, Pending
from gatewayd.core.model import CredentialState, JournalEntry
from gatewayd.errors import IssuerSpared, IssuerUnconfigured, IssuerUnreachable
from tests.support.plant import Plant, request

CROWD = 12
AT_ONCE = 6
"""Of a small plant (core.sparing.burst)."""


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        await plant.bootstrap()
        yield plant


async def enrolled(plant: Plant, number: int) -> bytes:
    """A leaf of its own, and its certificate."""
    device_id = f"leaf-{number}"
    answer = await plant.enrollments.enroll(request(await plant.add_leaf(device_id), device_id=device_id))
    assert isinstance(answer, Enrolled)
    return answer.certificate


async def asks(plant: Plant, number: int, certificate: bytes) -> Enrolled | Pending:
    return await plant.enrollments.enroll(request(device_id=f"leaf-{number}", certificate=certificate))


async def test_a_crowd_goes_one_by_one_and_the_most_urgent_first(plant: Plant) -> None:
    certificates = []
    for number in range(CROWD):
        certificates.append(await enrolled(plant, number))
        plant.clock.advance(hours=1)
    plant.clock.advance(days=20)
    latest_first = list(reversed(range(CROWD)))
    answers = [await asks(plant, number, certificates[number]) for number in latest_first]
    waiting = [number for number, answer in zip(latest_first, answers, strict=True) if isinstance(answer, Pending)]
    assert len(waiting) == CROWD - AT_ONCE

    order: list[str] = []

    def heard(entry: JournalEntry) -> None:
        if entry.what == "switch" and entry.device_id is not None and entry.device_id.startswith("leaf"):
            order.append(entry.device_id)

    plant.events.listen(heard)
    await plant.settle()
    assert order == []
    for _ in range(2 * CROWD):
        await plant.pass_time(minutes=5)
    assert order == [f"leaf-{number}" for number in sorted(waiting)]


async def test_whoever_has_waited_finds_its_certificate_and_need_not_come_often(plant: Plant) -> None:
    certificates = [await enrolled(plant, number) for number in range(CROWD)]
    plant.clock.advance(days=20)
    for number in range(CROWD - 1):
        await asks(plant, number, certificates[number])
    again = request(device_id=f"leaf-{CROWD - 1}", certificate=certificates[-1])
    answer = await plant.enrollments.enroll(again)
    assert isinstance(answer, Pending)
    assert 300 < answer.retry_after <= 3600
    for _ in range(2 * CROWD):
        await plant.pass_time(minutes=5)
    assert isinstance(await plant.enrollments.enroll(again), Enrolled)


async def test_a_code_does_not_wait_behind_the_crowd(plant: Plant) -> None:
    certificates = [await enrolled(plant, number) for number in range(CROWD)]
    plant.clock.advance(days=20)
    for number in range(CROWD):
        await asks(plant, number, certificates[number])
    await enrolled(plant, CROWD)


async def test_a_ca_that_needs_a_person_blocks_and_is_looked_at_within_the_hour(plant: Plant) -> None:
    certificate = await enrolled(plant, 0)
    plant.clock.advance(days=20)
    plant.issuer.faults.fail("issue", IssuerUnconfigured("The template is gone."))
    assert isinstance(await asks(plant, 0, certificate), Pending)
    newest = await plant.newest("leaf-0")
    assert newest.state is CredentialState.BLOCKED
    assert newest.next_attempt_at is not None
    assert newest.next_attempt_at - plant.clock.now() <= timedelta(hours=1)
    assert any(each["error"] == "IssuerUnconfigured" for each in (await plant.reader.status())["waiting"])
    await plant.pass_time(hours=1)
    assert (await plant.newest("leaf-0")).state is CredentialState.CURRENT


async def test_why_the_ca_is_spared_stays_on_show(plant: Plant) -> None:
    for error in (IssuerUnreachable("The CA is away."), IssuerSpared("It is left alone.", retry_after=60)):
        plant.issuer.faults.fail("issue", error)
        code = await plant.add_leaf(f"leaf-{type(error).__name__}")
        await plant.enrollments.enroll(request(code, device_id=f"leaf-{type(error).__name__}"))
    assert (await plant.reader.status())["issuer"]["last_error"] == "IssuerUnreachable: The CA is away."
    spared = await plant.newest("leaf-IssuerSpared")
    assert (spared.state, spared.attempts) == (CredentialState.KEYED, 0)
    await plant.pass_time(minutes=2)
    assert (await plant.newest("leaf-IssuerSpared")).state is CredentialState.CURRENT


async def test_in_an_emergency_it_is_tried_every_minute(plant: Plant) -> None:
    current = await plant.current()
    assert current is not None
    assert current.not_after is not None
    plant.clock.time = current.not_after - timedelta(days=2)
    plant.issuer.faults.fail("renew", IssuerUnreachable("away"), times=None)
    plant.issuer.faults.fail("find", IssuerUnreachable("away"), times=None)
    for attempts in range(1, 8):
        await plant.settle()
        newest = await plant.newest()
        assert newest.attempts == attempts
        assert newest.next_attempt_at is not None
        assert newest.next_attempt_at - plant.clock.now() <= timedelta(minutes=1)
        plant.clock.time = newest.next_attempt_at
    plant.issuer.faults.mend()
    await plant.settle()
    assert (await plant.newest()).state is CredentialState.CURRENT


async def test_a_key_that_is_gone_gets_no_certificate_and_another_one_is_made(plant: Plant) -> None:
    first = await plant.current()
    assert first is not None
    assert first.renew_at is not None
    plant.issuer.faults.fail("renew", IssuerUnreachable("away"))
    plant.clock.time = first.renew_at
    await plant.settle()
    lost = await plant.newest()
    assert lost.key is not None
    minted = len(plant.issuer.minted)
    await plant.keys.destroy(lost.key.id)
    await plant.pass_time(hours=1)
    assert [each.state for each in await plant.credentials()] == [
        CredentialState.PREVIOUS,
        CredentialState.REJECTED,
        CredentialState.CURRENT,
    ]
    assert len(plant.issuer.minted) == minted + 1
    current = await plant.current()
    assert current is not None
    assert current.certificate == plant.issuer.minted[-1].public_bytes(Encoding.DER)
