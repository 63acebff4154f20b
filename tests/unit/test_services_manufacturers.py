"""Leaves that enroll, and come back, with their manufacturer's certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gatewayd.core.enrollment import Enrolled, Manufacturer, Operation, Origin, Pending, Refusal
from gatewayd.core.model import Binding, DeviceState, ManufacturerUse
from gatewayd.errors import (
    CodeRefused,
    DeviceRevoked,
    EnrollmentDenied,
    GatewayError,
    InvalidArgument,
    IssuerRejected,
    TooManyRequests,
)
from tests.support.plant import GATEWAY, LEAF, Plant, Someone, request

IDEVID = b"the manufacturer's certificate"
ACME = Origin(Manufacturer("acme", frozenset(ManufacturerUse)), "4711", key_accepted=True)
BY_RULE = replace(
    ACME, manufacturer=Manufacturer("acme", frozenset(ManufacturerUse), device="leaf-{serial}"), serial="1"
)


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        plant.registry.write(GATEWAY, enabled=True)
        await plant.bootstrap()
        plant.origin = ACME
        yield plant


async def add(plant: Plant, device_id: str = LEAF, serial: str = "4711") -> str:
    shown = await plant.operations.device_add(Someone(), device_id, [], 0, "", serial)
    return str(shown["code"])


async def enroll(plant: Plant, key: ec.EllipticCurvePrivateKey | None = None, device_id: str = LEAF) -> bytes:
    answer = await plant.enrollments.enroll(request(certificate=IDEVID, key=key, device_id=device_id))
    assert isinstance(answer, Enrolled)
    return answer.certificate


async def refused(plant: Plant, device_id: str = LEAF, code: str | None = None) -> GatewayError:
    before = await plant.credentials(device_id), len(plant.issuer.minted)
    with pytest.raises(GatewayError) as caught:
        await plant.enrollments.enroll(request(code, certificate=IDEVID, device_id=device_id))
    assert (await plant.credentials(device_id), len(plant.issuer.minted)) == before
    return caught.value


async def binding(plant: Plant, device_id: str = LEAF) -> Binding | None:
    return (await plant.device(device_id)).binding


async def test_a_leaf_whose_hardware_is_on_record_enrolls_without_a_code(plant: Plant) -> None:
    await add(plant)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = await enroll(plant, key)
    assert await enroll(plant, key) == certificate  # an answer that was lost
    assert (await plant.current(LEAF)).certificate == certificate  # type: ignore[union-attr]
    history = (await plant.reader.device_show(LEAF))["history"]
    assert "manufacturer:acme:4711" in [each["who"] for each in history]
    assert str(await refused(plant)) == Refusal.STILL_VALID


async def test_other_hardware_does_not(plant: Plant) -> None:
    await plant.add_leaf()
    assert str(await refused(plant)) == Refusal.NOT_BOUND
    await plant.operations.leaves.bind(Someone(), LEAF, "", "4712")
    assert str(await refused(plant)) == Refusal.NOT_BOUND
    plant.origin = replace(ACME, serial="4712", key_accepted=False)
    assert str(await refused(plant)) == Refusal.WEAK_ORIGIN
    plant.origin = None  # some certificate that leads to no manufacturer
    assert isinstance(await refused(plant), EnrollmentDenied)


async def test_an_expired_leaf_comes_back_by_itself(plant: Plant) -> None:
    await add(plant)
    await enroll(plant)
    await plant.pass_time(days=31)
    await enroll(plant)
    assert (await plant.current(LEAF)).generation == 2  # type: ignore[union-attr]
    plant.origin = replace(ACME, manufacturer=Manufacturer("acme", frozenset({ManufacturerUse.ENROLL})))
    await plant.pass_time(days=31)
    assert str(await refused(plant)) == Refusal.NOT_FOR_EXPIRED


async def test_a_client_may_call_it_a_reenrollment(plant: Plant) -> None:
    """As strongSwan does whenever it shows a certificate."""
    await add(plant)
    answer = await plant.enrollments.enroll(request(certificate=IDEVID, operation=Operation.REENROLL))
    assert isinstance(answer, Enrolled)


async def test_hardware_that_comes_along_with_a_code_is_bound_to_the_device(plant: Plant) -> None:
    code = await plant.add_leaf()
    await plant.enrollments.enroll(request(code, certificate=IDEVID, operation=Operation.ENROLL))
    assert await binding(plant) == Binding("acme", "4711")
    await plant.pass_time(days=31)
    await enroll(plant)
    other = await plant.add_leaf("leaf-2")
    assert str(await refused(plant, "leaf-2", other)) == Refusal.BOUND_ELSEWHERE


async def test_a_rule_names_a_device_until_it_has_other_hardware(plant: Plant) -> None:
    plant.origin = BY_RULE
    assert str(await refused(plant)) == Refusal.NOT_BOUND  # not known here
    await plant.add_leaf()
    await enroll(plant)
    assert await binding(plant) == Binding("acme", "1")
    await plant.pass_time(days=31)
    await plant.operations.leaves.bind(Someone(), LEAF, "acme", "99")
    assert str(await refused(plant)) == Refusal.OTHER_HARDWARE


async def test_where_a_code_has_to_come_along_the_certificate_alone_is_challenged(plant: Plant) -> None:
    plant.origin = replace(ACME, manufacturer=replace(ACME.manufacturer, with_code=True))
    code = await add(plant)
    assert isinstance(await refused(plant), CodeRefused)
    assert isinstance(await refused(plant, code="WRON-GWRO-NGWR-ONGW"), CodeRefused)
    answer = await plant.enrollments.enroll(request(code, certificate=IDEVID, operation=Operation.ENROLL))
    assert isinstance(answer, Enrolled)


# --- what is stolen stays out ----------------------------------------------------------------------


async def test_a_stolen_device_does_not_come_back_by_its_manufacturers_certificate(plant: Plant) -> None:
    plant.origin = BY_RULE
    await add(plant, serial="1")
    await enroll(plant)
    await plant.revoke()
    await plant.settle()
    assert isinstance(await refused(plant), DeviceRevoked)
    assert await binding(plant) == Binding("acme", "1", void=True)
    code = await plant.replace()
    await plant.settle()
    assert str(await refused(plant)) == Refusal.BINDING_VOID
    # The new hardware enrolls with the code, and with its own certificate it is bound; the old one stays out.
    plant.origin = replace(BY_RULE, serial="2")
    await plant.enrollments.enroll(request(code, certificate=IDEVID, operation=Operation.ENROLL))
    await plant.settle()
    assert (await plant.device(LEAF)).state is DeviceState.ACTIVE
    assert await binding(plant) == Binding("acme", "2")
    plant.origin = BY_RULE
    await plant.pass_time(days=31)
    assert str(await refused(plant)) == Refusal.BINDING_VOID


async def test_nor_where_a_rule_names_it_and_it_never_was_bound(plant: Plant) -> None:
    """It has enrolled with a code alone, and only later was there a rule."""
    code = await plant.add_leaf()
    plant.origin = None
    await plant.enrollments.enroll(request(code))
    code = await plant.replace()
    await plant.settle()
    plant.origin = BY_RULE
    assert str(await refused(plant)) == Refusal.NOT_BOUND
    plant.origin = None
    await plant.enrollments.enroll(request(code))
    await plant.settle()
    assert (await plant.device(LEAF)).state is DeviceState.ACTIVE
    plant.origin = BY_RULE
    await plant.pass_time(days=31)  # the new hardware was switched off
    assert str(await refused(plant)) == Refusal.NOT_BOUND


async def test_nor_as_another_device(plant: Plant) -> None:
    await add(plant)
    await enroll(plant)
    await plant.revoke()
    plant.origin = replace(ACME, manufacturer=replace(BY_RULE.manufacturer, device="spare-{serial}"))
    await plant.add_leaf("spare-4711")
    assert isinstance(await refused(plant, "spare-4711"), DeviceRevoked)


async def test_nor_as_another_device_once_its_own_has_other_hardware(plant: Plant) -> None:
    await add(plant)
    await enroll(plant)
    await plant.operations.device_replace(Someone(), LEAF, "keyCompromise", 0, "acme", "4712")
    await plant.settle()
    plant.origin = replace(ACME, manufacturer=replace(BY_RULE.manufacturer, device="spare-{serial}"))
    code = await plant.add_leaf("spare-4711")
    assert str(await refused(plant, "spare-4711")) == Refusal.BINDING_VOID
    await plant.enrollments.enroll(
        request(code, certificate=IDEVID, device_id="spare-4711", operation=Operation.ENROLL)
    )
    assert await binding(plant, "spare-4711") is None  # a code is no order to bind it again
    await plant.operations.leaves.bind(Someone(), "spare-4711", "acme", "4711")
    await plant.pass_time(days=31)
    await enroll(plant, device_id="spare-4711")


async def test_only_an_administrator_binds_again(plant: Plant) -> None:
    await add(plant)
    await enroll(plant)
    await plant.revoke()
    await plant.settle()
    with pytest.raises(DeviceRevoked):
        await plant.operations.leaves.bind(Someone(), LEAF, "acme", "4711")
    code = await plant.replace()
    await plant.settle()
    # The same hardware with a code: a person stands beside it, and yet it is not bound by that.
    await plant.enrollments.enroll(request(code, certificate=IDEVID, operation=Operation.ENROLL))
    await plant.settle()
    assert await binding(plant) == Binding("acme", "4711", void=True)
    await plant.pass_time(days=31)
    assert str(await refused(plant)) == Refusal.BINDING_VOID
    await plant.operations.leaves.bind(Someone(), LEAF, "acme", "4711")
    await enroll(plant)


async def test_new_hardware_may_be_bound_when_the_old_is_given_up(plant: Plant) -> None:
    await add(plant)
    await enroll(plant)
    await plant.operations.device_replace(Someone(), LEAF, "keyCompromise", 0, "acme", "4712")
    assert str(await refused(plant)) == Refusal.BINDING_VOID
    plant.origin = replace(ACME, serial="4712")
    answer = await plant.enrollments.enroll(request(certificate=IDEVID))
    assert isinstance(answer, Enrolled | Pending)
    await plant.settle()
    await plant.settle()
    assert (await plant.device(LEAF)).state is DeviceState.ACTIVE


async def test_a_cancelled_replacement_ends_the_new_binding_too(plant: Plant) -> None:
    await add(plant)
    await plant.operations.device_replace(Someone(), LEAF, "", 0, "acme", "4712")
    await plant.operations.device_replace_cancel(Someone(), LEAF)
    plant.origin = replace(ACME, serial="4712")
    assert isinstance(await refused(plant), DeviceRevoked)


async def test_a_binding_that_is_ended_by_hand_counts_no_more(plant: Plant) -> None:
    plant.origin = BY_RULE
    await add(plant, serial="1")
    await plant.operations.leaves.bind(Someone(), LEAF, "", "")
    assert str(await refused(plant)) == Refusal.BINDING_VOID


async def test_a_leaf_that_the_ca_refuses_is_not_asked_for_again_and_again(plant: Plant) -> None:
    await add(plant)
    plant.issuer.faults.fail("issue", IssuerRejected("no"))
    with pytest.raises(IssuerRejected):
        await enroll(plant)
    asked = plant.issuer.faults.count("issue")
    with pytest.raises((IssuerRejected, TooManyRequests)):
        await enroll(plant)
    assert plant.issuer.faults.count("issue") == asked


# --- what administrators say -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manufacturer", "serial"),
    [("nobody", "1"), ("acme", ""), ("", " 1"), ("", "x" * 129), ("", "a\nb")],
)
async def test_nonsense_is_refused(plant: Plant, manufacturer: str, serial: str) -> None:
    with pytest.raises(InvalidArgument):
        await plant.operations.device_add(Someone(), LEAF, [], 0, manufacturer, serial)
    assert await plant.read(lambda tx: tx.devices.get(LEAF)) is None


async def test_one_piece_of_hardware_is_one_device(plant: Plant) -> None:
    await add(plant)
    with pytest.raises(InvalidArgument, match="bound to leaf-1 already"):
        await add(plant, "leaf-2")
    assert await plant.read(lambda tx: tx.devices.get("leaf-2")) is None
    shown = await plant.operations.leaves.bind(Someone(), LEAF, "acme", "4712")
    assert shown["hardware"] == {"manufacturer": "acme", "serial": "4712", "void": False}
    await add(plant, "leaf-2")
