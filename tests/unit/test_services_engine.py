"""The engine: a step that fails in any way is taken again, later, and nothing that was minted is lost from sight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gatewayd.ca.base import Working
from gatewayd.core.model import CredentialState as S
from gatewayd.core.model import DeviceState
from gatewayd.errors import (
    GatewayError,
    HubRefused,
    HubUnreachable,
    IssuerRejected,
    IssuerUnconfigured,
    IssuerUnreachable,
    RegistrarRefused,
    TokenBusy,
    TokenFault,
)
from tests.support.plant import GATEWAY, LEAF, Plant, Someone, request

UNCLEAR = IssuerUnreachable("No clear answer.")


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        plant.registry.write(GATEWAY, enabled=True)
        yield plant


async def renew(plant: Plant) -> None:
    """Ask for a renewal, as an administrator does on the next day, and let it go as far as it goes."""
    plant.clock.advance(days=1)
    await plant.operations.renew(Someone(), GATEWAY, "")
    await plant.settle()


async def enroll(plant: Plant) -> None:
    await plant.enrollments.enroll(request(await plant.add_leaf()))


FAILURES = [
    ("keys", "generate", TokenFault("CKR_GENERAL_ERROR"), False),
    ("keys", "generate", TokenBusy("too much work"), True),
    ("issuer", "renew", UNCLEAR, False),
    ("issuer", "renew", UNCLEAR, True),
    ("issuer", "renew", IssuerUnconfigured("no such template"), False),
    ("link", "connect", HubUnreachable("no route"), False),
    ("link", "connect", HubRefused("CONNACK 5"), False),
    ("issuer", "renew", RuntimeError("a defect of ours"), True),
]


@pytest.mark.parametrize(("where", "call", "error", "after"), FAILURES)
async def test_a_failed_step_of_the_gateway_leaves_the_present_one_alone_and_is_taken_again(
    plant: Plant, where: str, call: str, error: Exception, after: bool
) -> None:
    present = await plant.bootstrap()
    plant.faults(where).fail(call, error, after=after)
    await renew(plant)
    assert await plant.current() == present
    assert plant.link.serial == present.serial
    waiting = await plant.newest()
    assert waiting.attempts == 1
    assert waiting.last_error is not None
    assert waiting.last_error.startswith(error.name() if isinstance(error, GatewayError) else "Internal: ")
    assert waiting.next_attempt_at is not None

    await plant.pass_time(minutes=2)
    current = await plant.current()
    assert current is not None
    assert current.generation == present.generation + 1
    assert (current.attempts, current.last_error, current.next_attempt_at) == (0, None, None)
    assert plant.link.serial == current.serial
    assert plant.issuer.serials() == [present.serial, current.serial]


@pytest.mark.parametrize(
    ("where", "call", "after"),
    [
        ("keys", "generate", True),
        ("issuer", "renew", False),
        ("issuer", "renew", True),
        ("link", "connect", False),
        ("link", "connect", True),
    ],
)
async def test_after_a_crash_in_any_step_a_restart_finishes_it_at_once(
    plant: Plant, where: str, call: str, after: bool
) -> None:
    present = await plant.bootstrap()
    plant.faults(where).fail(call, asyncio.CancelledError(), after=after)
    plant.clock.advance(days=1)
    await plant.operations.renew(Someone(), GATEWAY, "")
    await plant.renewals.round()
    await plant.idle()
    assert await plant.current() == present
    await plant.restart()
    await plant.settle()
    current = await plant.current()
    assert current is not None
    assert current.generation == present.generation + 1
    assert plant.issuer.serials() == [present.serial, current.serial]


@pytest.mark.parametrize("call", ["issue", "ensure"])
@pytest.mark.parametrize("after", [False, True])
async def test_a_leafs_step_finishes_after_a_crash_with_one_certificate(plant: Plant, call: str, after: bool) -> None:
    await plant.bootstrap()
    plant.faults("issuer" if call == "issue" else "registry").fail(call, asyncio.CancelledError(), after=after)
    with pytest.raises(asyncio.CancelledError):
        await enroll(plant)
    await plant.restart()
    await plant.settle()
    current = await plant.current(LEAF)
    assert current is not None
    assert plant.issuer.serials()[1:] == [current.serial]
    assert plant.registry.enabled(LEAF)


@pytest.mark.parametrize("blind", [UNCLEAR, IssuerRejected("no list for you"), RegistrarRefused("not known")])
async def test_after_an_unclear_answer_it_looks_before_it_asks_again(plant: Plant, blind: GatewayError) -> None:
    await plant.bootstrap()
    plant.issuer.faults.fail("issue", UNCLEAR, after=True)
    await enroll(plant)
    plant.issuer.faults.fail("find", blind)
    await plant.pass_time(minutes=2)
    assert plant.issuer.faults.count("issue") == 1  # it cannot look, so it does not ask
    await plant.pass_time(minutes=4)
    current = await plant.current(LEAF)
    assert current is not None
    assert plant.issuer.faults.count("issue") == 1
    assert plant.issuer.serials()[1:] == [current.serial]


@pytest.mark.parametrize("refusal", [RegistrarRefused("not known"), IssuerRejected("no list for you")])
async def test_a_gateway_whose_registrar_is_refused_renews_all_the_same(plant: Plant, refusal: GatewayError) -> None:
    present = await plant.bootstrap()
    plant.issuer.faults.fail("renew", UNCLEAR, after=True)
    plant.issuer.faults.fail("find", refusal, times=None)
    await renew(plant)
    await plant.pass_time(minutes=2)
    current = await plant.current()
    assert current is not None
    assert current.generation == present.generation + 1


async def test_a_ca_that_works_on_it_is_asked_again_when_it_said(plant: Plant) -> None:
    await plant.bootstrap()
    plant.issuer.working = [Working(retry_after=300)]
    await enroll(plant)
    assert (await plant.newest(LEAF)).state is S.PENDING
    await plant.pass_time(minutes=4)
    assert plant.issuer.faults.count("issue") == 1
    await plant.pass_time(minutes=2)
    assert (await plant.newest(LEAF)).state is S.CURRENT


async def test_a_rejected_renewal_comes_later_and_later_each_time_with_a_new_key(plant: Plant) -> None:
    present = await plant.bootstrap()
    plant.issuer.faults.fail("renew", IssuerRejected("the names differ"), times=None)
    assert present.renew_at is not None
    plant.clock.time = present.renew_at
    waits: list[timedelta] = []
    for _ in range(6):
        await plant.settle()
        current = await plant.current()
        assert current is not None
        assert current.renew_at is not None
        waits.append(current.renew_at - plant.clock.now())
        plant.clock.time = current.renew_at
    assert plant.link.serial == present.serial
    assert plant.issuer.faults.count("renew") == 6
    assert waits[-1] > 8 * waits[0] >= 8 * timedelta(seconds=30)
    rejected = [each for each in await plant.credentials() if each.state is S.REJECTED]
    assert len({each.key.id for each in rejected if each.key}) == len(rejected) == 6


@pytest.mark.parametrize("spoiled", [{"device_id": "gw-2"}, {"ca": True}, {"lasts": timedelta(days=20)}])
async def test_an_unacceptable_certificate_is_on_record_and_not_used(plant: Plant, spoiled: dict[str, object]) -> None:
    present = await plant.bootstrap()
    plant.issuer.spoil = spoiled
    await renew(plant)
    assert await plant.current() is not None
    assert plant.link.serial == present.serial
    newest = await plant.newest()
    assert newest.state is S.REJECTED
    assert newest.serial == plant.issuer.serials()[-1]
    assert newest.last_error is not None
    assert newest.last_error.startswith("CertificateUnacceptable: ")


@pytest.mark.parametrize("outcome", ["certificate", "unclear", "spoiled", "refused", "nothing"])
async def test_what_was_minted_for_a_device_revoked_meanwhile_is_revoked_and_never_used(
    plant: Plant, outcome: str
) -> None:
    await plant.bootstrap()
    hold = plant.issuer.faults.hold("issue")
    match outcome:
        case "unclear":
            plant.issuer.faults.fail("issue", UNCLEAR, after=True)
        case "spoiled":
            plant.issuer.spoil = {"ca": True}
        case "refused":
            plant.issuer.faults.fail("issue", IssuerRejected("no"))
        case "nothing":
            plant.issuer.faults.fail("issue", UNCLEAR)
    asking = asyncio.create_task(enroll(plant))
    await hold.reached.wait()
    await plant.revoke()
    hold.released.set()
    await asyncio.gather(asking, return_exceptions=True)
    await plant.settle()
    assert await plant.current(LEAF) is None
    assert (await plant.newest(LEAF)).state is S.REVOKED
    assert set(plant.issuer.serials()[1:]) == set(plant.issuer.revoked)
    assert {each.serial for each in await plant.all_revocations(LEAF)} == set(plant.issuer.revoked)


async def test_a_leaf_revoked_while_the_hub_is_asked_ends_up_disabled_there(plant: Plant) -> None:
    await plant.bootstrap()
    hold = plant.registry.faults.hold("ensure", after=True)
    asking = asyncio.create_task(enroll(plant))
    await hold.reached.wait()
    await plant.revoke()
    hold.released.set()
    await asyncio.gather(asking, return_exceptions=True)
    await plant.settle()
    assert (await plant.device(LEAF)).current is None
    assert plant.registry.enabled(LEAF) is False
    assert set(plant.issuer.serials()[1:]) == set(plant.issuer.revoked)


async def test_a_revocation_between_two_steps_is_no_failure(plant: Plant) -> None:
    """The engine has read the record, and then it changes: seen before the next step is begun."""
    await plant.bootstrap()
    plant.registry.faults.fail("ensure", HubUnreachable("away"))
    await enroll(plant)
    plant.clock.advance(minutes=2)
    credential = await plant.newest(LEAF)
    task = plant.engine.start(LEAF, credential.generation)
    await plant.revoke()
    driven = await task
    await plant.settle()
    assert driven.error is None
    assert plant.registry.enabled(LEAF) is not True
    assert set(plant.issuer.serials()[1:]) == set(plant.issuer.revoked)


async def test_a_revoked_request_waits_for_nothing(plant: Plant) -> None:
    """Its next attempt may be hours away: an administrator who has revoked it does not wait for that."""
    await plant.bootstrap()
    plant.issuer.faults.fail("issue", IssuerUnreachable("busy", retry_after=7200))
    await enroll(plant)
    await plant.revoke()
    await plant.settle()
    assert (await plant.newest(LEAF)).state is S.REVOKED


async def test_a_certificate_that_expires_before_the_hub_takes_it_makes_room_for_another(plant: Plant) -> None:
    present = await plant.bootstrap()
    plant.link.faults.fail("connect", HubUnreachable("away for months"), times=None)
    await renew(plant)
    assert (await plant.newest()).state is S.ISSUED
    await plant.pass_time(days=60)
    plant.link.faults.mend()
    for _ in range(3):
        await plant.pass_time(hours=7)
    current = await plant.current()
    assert current is not None
    assert current.not_after is not None
    assert current.not_after > plant.clock.now()
    assert current.generation > present.generation + 1


async def test_an_expired_gateway_has_a_way_back(plant: Plant) -> None:
    present = await plant.bootstrap()
    plant.issuer.faults.fail("renew", UNCLEAR, times=None)
    plant.issuer.faults.fail("issue", UNCLEAR, times=None)
    await plant.pass_time(days=20)
    await plant.pass_time(days=20)
    keys, asked = len(plant.fake_keys.keys), len(plant.issuer.faults.calls)
    for _ in range(100):
        await plant.pass_time(seconds=10)
    assert len(plant.issuer.faults.calls) - asked < 20  # dead, but no busy loop
    assert len(plant.fake_keys.keys) == keys
    plant.issuer.faults.mend()
    await plant.pass_time(hours=7)
    current = await plant.current()
    assert current is not None
    assert current.generation > present.generation
    assert plant.link.serial == current.serial


async def test_a_first_certificate_creates_the_gateway_in_the_hub_when_it_is_missing(plant: Plant) -> None:
    plant.registry.identities.clear()
    current = await plant.bootstrap()
    assert plant.registry.enabled(GATEWAY)
    assert plant.link.serial == current.serial
    assert (await plant.device()).in_hub


async def test_one_drive_at_a_time_and_a_second_joins_it(plant: Plant) -> None:
    await plant.bootstrap()
    plant.clock.advance(days=1)
    hold = plant.issuer.faults.hold("renew")
    await plant.operations.renew(Someone(), GATEWAY, "")
    generation = (await plant.newest()).generation
    first = plant.engine.start(GATEWAY, generation)
    await hold.reached.wait()
    assert plant.engine.start(GATEWAY, generation) is first
    again = await plant.operations.renew(Someone(), GATEWAY, "")
    assert (await plant.newest()).generation == generation
    hold.released.set()
    await again(lambda step, state, detail="": None)
    assert plant.issuer.faults.count("renew") == 1


async def test_a_device_that_is_revoked_stays_so(plant: Plant) -> None:
    await plant.bootstrap()
    await enroll(plant)
    await plant.revoke()
    await plant.revoke()
    await plant.settle()
    assert (await plant.device(LEAF)).state is DeviceState.REVOKED
    assert len(await plant.all_revocations(LEAF)) == 1
