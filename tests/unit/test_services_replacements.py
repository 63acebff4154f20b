"""A hardware swap reaches its end whatever fails on the way, and the hub lets no old certificate in."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gatewayd.core.enrollment import EnrollmentRequest
from gatewayd.core.model import (
    CredentialState,
    DeviceState,
    Milestone,
    Replacement,
    ReplacementState,
    RevocationReason,
)
from gatewayd.errors import (
    CodeRefused,
    DeviceHealthy,
    DeviceRevoked,
    EnrollmentDenied,
    GatewayError,
    HubUnreachable,
    IssuerUnreachable,
    NoReplacement,
    ReplacementUnfinished,
)
from gatewayd.services import replacing, revoking
from tests.support.plant import GATEWAY, LEAF, Plant, Someone, request


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    """With an enrolled leaf, and a hub whose every version of its identity is checked."""
    async with Plant(tmp_path) as plant:
        plant.registry.write(GATEWAY, enabled=True)
        await plant.bootstrap()
        await plant.enrollments.enroll(request(await plant.add_leaf()))
        await plant.settle()
        yield plant


async def swap(plant: Plant) -> Replacement:
    return (await plant.read(lambda tx: tx.replacements.all(LEAF)))[-1]


async def revoked_thumbprints(plant: Plant) -> set[str]:
    return {
        each.thumbprint
        for each in await plant.credentials(LEAF)
        if each.state is CredentialState.REVOKED and each.thumbprint is not None
    }


async def check_shut_out(plant: Plant) -> None:
    """No revoked certificate gets in; the one thing that must hold at every moment after it was shut out once."""
    identity = plant.registry.identities[LEAF]
    for thumbprint in await revoked_thumbprints(plant):
        assert not identity.lets_in(thumbprint)


async def new_hardware(plant: Plant, code: str) -> None:
    await until_in_service(plant, request(code))


async def until_in_service(plant: Plant, asked: EnrollmentRequest) -> None:
    """A leaf that asks until it is answered."""
    for _ in range(40):
        with contextlib.suppress(GatewayError):
            await plant.enrollments.enroll(asked)
        newest = await plant.newest(LEAF)
        if newest.state is CredentialState.CURRENT and newest.csr == asked.csr.der:
            return
        await plant.pass_time(minutes=15)
    raise AssertionError(await swap(plant))


async def test_from_the_old_hardware_to_the_new(plant: Plant) -> None:
    old = await plant.current(LEAF)
    assert old is not None
    code = await plant.replace()
    assert (await plant.device(LEAF)).state is DeviceState.REPLACING
    assert (await plant.current(LEAF)) is None
    await plant.settle()
    assert (await swap(plant)).state is ReplacementState.AWAITING
    assert plant.registry.enabled(LEAF) is False
    assert set(plant.issuer.revoked) == {old.serial}

    await plant.enrollments.enroll(request(code))
    new = await plant.current(LEAF)
    assert new is not None
    assert (await plant.device(LEAF)).state is DeviceState.ACTIVE
    assert (await swap(plant)).state is ReplacementState.PINNED
    identity = plant.registry.identities[LEAF]
    assert identity.enabled
    assert identity.pinned_to == frozenset([new.thumbprint])
    await check_shut_out(plant)


async def test_an_early_bird_waits_until_the_old_certificates_are_shut_out(plant: Plant) -> None:
    plant.issuer.faults.fail("revoke", IssuerUnreachable("away"), times=5)
    code = await plant.replace()
    early = await plant.enrollments.enroll(request(code))
    assert type(early).__name__ == "Pending"
    await plant.settle()
    assert plant.registry.enabled(LEAF) is False, "a CA that is linked to the hub would disable the new hardware"
    for _ in range(12):
        await plant.pass_time(minutes=10)
    assert (await swap(plant)).state is ReplacementState.PINNED
    await check_shut_out(plant)


async def test_an_id_that_somebody_has_enabled_again_is_disabled_before_the_technician_is_called(plant: Plant) -> None:
    await plant.revoke()
    await plant.settle()
    plant.registry.write(LEAF, enabled=True)
    await plant.replace()
    await plant.settle()
    assert (await swap(plant)).state is ReplacementState.AWAITING
    assert plant.registry.enabled(LEAF) is False


CRASHES = [
    ("issuer", "revoke"),
    ("registry", "disable"),
    ("registry", "get"),
    ("issuer", "issue"),
    ("registry", "pin"),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("port", "call"), CRASHES)
async def test_a_crash_in_any_step_is_gone_on_from(plant: Plant, port: str, call: str, after: bool) -> None:
    plant.faults(port).fail(call, asyncio.CancelledError(), after=after)
    asked = request(await plant.replace())
    with contextlib.suppress(GatewayError, asyncio.CancelledError):
        await plant.settle()
        await plant.enrollments.enroll(asked)
    await plant.restart()
    await until_in_service(plant, asked)
    assert (await swap(plant)).state is ReplacementState.PINNED
    assert plant.registry.enabled(LEAF)
    await check_shut_out(plant)
    assert len(plant.issuer.minted) == len(await plant.on_record()), "minted, and known of"


@pytest.mark.parametrize("call", ["pin", "get"])
@pytest.mark.parametrize("after", [False, True])
async def test_a_hub_that_fails_at_the_pin_is_asked_again(plant: Plant, call: str, after: bool) -> None:
    code = await plant.replace()
    await plant.settle()
    plant.registry.faults.fail(call, HubUnreachable("away"), after=after, times=3)
    await new_hardware(plant, code)
    assert (await swap(plant)).state is ReplacementState.PINNED
    await check_shut_out(plant)


async def test_a_renewal_places_the_next_thumbprint_first(plant: Plant) -> None:
    await new_hardware(plant, await plant.replace())
    first = await plant.current(LEAF)
    assert first is not None
    assert first.certificate is not None
    plant.clock.advance(days=1)
    plant.registry.faults.fail("pin", HubUnreachable("away"))
    renewal = request(certificate=first.certificate)
    await plant.enrollments.enroll(renewal)
    assert await plant.current(LEAF) == first, "not handed out before the hub knows it"
    for _ in range(8):
        await plant.pass_time(minutes=10)
    second = await plant.current(LEAF)
    assert second is not None
    assert second.generation == first.generation + 1
    assert plant.registry.identities[LEAF].pinned_to == frozenset([first.thumbprint, second.thumbprint])


async def test_the_pin_is_lifted_when_the_last_revoked_certificate_has_expired(plant: Plant) -> None:
    old = await plant.current(LEAF)
    assert old is not None
    assert old.not_after is not None
    await plant.pass_time(days=5)
    await new_hardware(plant, await plant.replace())
    assert (await swap(plant)).lift_at is not None
    plant.clock.time = old.not_after
    await plant.replacements.round()
    assert plant.registry.identities[LEAF].pinned_to is not None, "not yet, for the hub's clock may be behind"
    plant.registry.faults.fail("unpin", HubUnreachable("away"), after=True)
    await plant.pass_time(minutes=6)
    assert (await swap(plant)).state is ReplacementState.PINNED
    await plant.pass_time(minutes=6)
    assert (await swap(plant)).state is ReplacementState.LIFTED
    identity = plant.registry.identities[LEAF]
    assert (identity.enabled, identity.authentication_type) == (True, "certificateAuthority")


async def test_the_pin_stays_for_a_certificate_that_is_revoked_later(plant: Plant) -> None:
    """Such as one that the CA's list names as revoked, while its device goes on with another."""
    await plant.pass_time(days=5)
    await new_hardware(plant, await plant.replace())
    first, end = await plant.current(LEAF), (await swap(plant)).lift_at
    assert first is not None
    assert first.certificate is not None
    assert end is not None
    await plant.pass_time(days=1)
    await plant.enrollments.enroll(request(certificate=first.certificate))
    superseded = await plant.read(lambda tx: tx.credentials.get(LEAF, first.generation))
    assert superseded is not None
    now = plant.clock.now()
    await plant.write(lambda tx: revoking.revoke_certificate(tx, superseded, RevocationReason.SUPERSEDED, "crl", now))
    plant.clock.time = end
    await plant.settle()
    found = await swap(plant)
    assert found.state is ReplacementState.PINNED
    assert found.lift_at is not None
    assert first.not_after is not None
    assert found.lift_at > first.not_after


async def test_a_pin_is_ours_though_one_of_its_certificates_was_revoked_when_it_was_superseded(plant: Plant) -> None:
    """Were it left in the hub, the next renewal would be shut out."""
    await plant.pass_time(days=5)
    await new_hardware(plant, await plant.replace())
    first = await plant.current(LEAF)
    assert first is not None
    assert first.certificate is not None
    assert first.not_after is not None
    await plant.pass_time(days=22)
    await plant.enrollments.enroll(request(certificate=first.certificate))
    superseded = await plant.read(lambda tx: tx.credentials.get(LEAF, first.generation))
    assert superseded is not None
    now = plant.clock.now()
    await plant.write(lambda tx: revoking.revoke_certificate(tx, superseded, RevocationReason.SUPERSEDED, "crl", now))
    await plant.pass_time(minutes=11)
    assert not await pins_lost(plant)
    plant.clock.time = first.not_after
    await plant.pass_time(minutes=6)
    assert (await swap(plant)).state is ReplacementState.LIFTED
    assert plant.registry.identities[LEAF].authentication_type == "certificateAuthority"


async def test_a_pin_outlasts_a_revocation_that_is_not_verified_yet(plant: Plant) -> None:
    """As the gateway's own may be where a responder carries it out: without the pin it would hit the new hardware."""
    await plant.pass_time(days=5)
    await new_hardware(plant, await plant.replace())
    end = (await swap(plant)).lift_at
    assert end is not None
    (old,) = await plant.all_revocations(LEAF)
    progress = dict(old.progress)
    del progress[Milestone.VERIFIED]
    late = dataclasses.replace(old, serial="1a7e", progress=progress)
    await plant.write(lambda tx: tx.revocations.add(late))
    plant.clock.time = end
    await plant.replacements.round()
    assert (await swap(plant)).state is ReplacementState.PINNED
    await plant.write(lambda tx: tx.revocations.put(dataclasses.replace(late, progress=old.progress)))
    await plant.replacements.round()
    assert (await swap(plant)).state is ReplacementState.LIFTED


async def test_a_crash_while_the_pin_is_lifted(plant: Plant) -> None:
    old = await plant.current(LEAF)
    assert old is not None
    assert old.not_after is not None
    await plant.pass_time(days=5)
    await new_hardware(plant, await plant.replace())
    plant.clock.time = old.not_after
    plant.clock.advance(minutes=6)
    plant.registry.faults.fail("unpin", asyncio.CancelledError(), after=True)
    with pytest.raises(asyncio.CancelledError):
        await plant.replacements.round()
    assert (await swap(plant)).state is ReplacementState.LIFTING
    await plant.restart()
    await plant.settle()
    assert (await swap(plant)).state is ReplacementState.LIFTED


async def test_another_pin_than_ours_is_left_alone(plant: Plant) -> None:
    await plant.pass_time(days=5)
    await new_hardware(plant, await plant.replace())
    end = (await swap(plant)).lift_at
    assert end is not None
    plant.registry._change(plant.registry.identities[LEAF], primary_thumbprint="f" * 64)
    plant.clock.time = end
    await plant.settle()
    assert (await swap(plant)).state is ReplacementState.LIFTED
    assert plant.registry.identities[LEAF].pinned_to is not None


async def test_a_cancelled_swap_brings_nothing_back(plant: Plant) -> None:
    code = await plant.replace()
    await plant.settle()
    plant.registry.faults.fail("pin", HubUnreachable("away"), times=None)
    await plant.enrollments.enroll(request(code))
    await plant.operations.device_replace_cancel(Someone(), LEAF)
    plant.registry.faults.mend()
    for _ in range(8):
        await plant.pass_time(minutes=10)
    assert (await plant.device(LEAF)).state is DeviceState.REVOKED
    assert plant.registry.enabled(LEAF) is False
    assert all(each.state is CredentialState.REVOKED for each in await plant.credentials(LEAF))
    with pytest.raises(NoReplacement):
        await plant.operations.device_replace_cancel(Someone(), LEAF)
    await new_hardware(plant, await plant.replace())
    await check_shut_out(plant)


async def test_revoked_while_it_is_replaced(plant: Plant) -> None:
    code = await plant.replace()
    hold = plant.registry.faults.hold("pin", after=True)
    await plant.settle()
    enrolling = asyncio.create_task(plant.enrollments.enroll(request(code)))
    await hold.reached.wait()
    await plant.revoke()
    hold.released.set()
    with pytest.raises(DeviceRevoked):
        await enrolling
    for _ in range(8):
        await plant.pass_time(minutes=10)
    assert (await swap(plant)).state is ReplacementState.OVERTAKEN
    assert plant.registry.enabled(LEAF) is False


async def test_the_old_hardware_does_not_come_back(plant: Plant) -> None:
    used = request(first_code := await plant.add_leaf("leaf-2"), device_id="leaf-2")
    await plant.enrollments.enroll(used)
    code = await plant.replace("leaf-2")
    assert used.basic == ("leaf-2", first_code)
    with pytest.raises(CodeRefused):
        await plant.enrollments.enroll(used)
    with pytest.raises(EnrollmentDenied, match="new key"):
        await plant.enrollments.enroll(type(used)(used.operation, used.csr, ("leaf-2", code), None, used.remote))


async def test_a_healthy_device_is_not_revoked_for_being_superseded(plant: Plant) -> None:
    with pytest.raises(DeviceHealthy):
        await plant.operations.revoke(Someone(), LEAF, "superseded")
    assert await plant.all_revocations(LEAF) == []
    assert plant.registry.enabled(LEAF)


async def test_a_pin_that_somebody_takes_away_is_noticed_and_told_and_not_put_back(plant: Plant) -> None:
    await new_hardware(plant, await plant.replace())
    identity = plant.registry.identities[LEAF]
    await plant.pass_time(minutes=11)
    assert await pins_lost(plant) == []
    plant.registry.identities[LEAF] = dataclasses.replace(identity, authentication_type="certificateAuthority")
    await plant.pass_time(minutes=11)
    assert await pins_lost(plant) == [LEAF]
    assert plant.registry.identities[LEAF].pinned_to is None
    plant.registry.identities[LEAF] = identity
    await plant.pass_time(minutes=11)
    assert await pins_lost(plant) == []
    outcomes = [each.outcome for each in await plant.read(lambda tx: tx.journal.recent(LEAF, 50)) if each.what == "pin"]
    assert sorted(outcomes) == ["done", "failed"]


async def pins_lost(plant: Plant) -> list[str]:
    waiting = (await plant.reader.status())["waiting"]
    return [each["device_id"] for each in waiting if each["error"] == "PinLost"]


async def test_new_hardware_that_is_told_to_wait_just_as_the_wait_ends_goes_on_at_once(plant: Plant) -> None:
    """The last old certificate is shut out while the refusal is being written down."""
    await plant.replace()
    await plant.settle()
    device, now = await plant.device(LEAF), plant.clock.now()
    error, later = ReplacementUnfinished("not yet"), now + timedelta(hours=6)
    assert (await swap(plant)).state is ReplacementState.AWAITING
    assert await plant.read(lambda tx: replacing.next_attempt(tx, device, error, later, now)) is None
    sooner = await plant.read(lambda tx: replacing.next_attempt(tx, device, HubUnreachable("away"), later, now))
    assert sooner == now + timedelta(minutes=5), "somebody stands beside it"
