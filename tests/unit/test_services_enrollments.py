"""Who gets a certificate over EST, for what, and that a refusal leaves no trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from gatewayd.core.enrollment import Enrolled, EnrollmentRequest, Operation, Pending
from gatewayd.core.model import CredentialState as S
from gatewayd.errors import (
    CodeRefused,
    DeviceRevoked,
    EnrollmentDenied,
    GatewayError,
    HubUnreachable,
    IssuerRejected,
    IssuerUnreachable,
    NotBootstrapped,
    TooManyRequests,
)
from gatewayd.services.enrollments import Enrollments
from tests.support.plant import GATEWAY, LEAF, POLICIES, Plant, request


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        plant.registry.write(GATEWAY, enabled=True)
        await plant.bootstrap()
        yield plant


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


async def enroll(plant: Plant, wanted: EnrollmentRequest) -> x509.Certificate:
    answer = await plant.enrollments.enroll(wanted)
    assert isinstance(answer, Enrolled), answer
    return x509.load_der_x509_certificate(answer.certificate)


async def with_certificate(plant: Plant, **more: Any) -> EnrollmentRequest:
    """A re-enrollment by the leaf's present certificate."""
    current = await plant.current(LEAF)
    assert current is not None
    return request(certificate=current.certificate, **more)


async def books(plant: Plant) -> tuple[object, ...]:
    """All that a refused request must leave as it was."""
    credentials = {each: await plant.credentials(each) for each in (GATEWAY, LEAF)}
    journal = await plant.read(lambda tx: len(tx.journal.recent(limit=1000)))
    open_until = await plant.read(lambda tx: tx.codes.open_until(LEAF, plant.clock.now()))
    return credentials, journal, open_until, plant.issuer.serials(), list(plant.issuer.faults.calls)


async def test_a_code_gives_a_certificate_for_the_leafs_own_key_and_the_hub_knows_it(plant: Plant) -> None:
    key = new_key()
    code = await plant.add_leaf(sans=("dns:pump.plant", "ip:192.0.2.9"))
    certificate = await enroll(plant, request(code, key=key, sans=("dns:pump.plant",)))
    assert certificate.public_key() == key.public_key()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(each.value) for each in names} == {"pump.plant", "192.0.2.9"}  # the record decides, not the CSR
    assert plant.registry.enabled(LEAF)
    current = await plant.current(LEAF)
    assert current is not None
    assert current.state is S.CURRENT
    assert current.renew_at is None  # only the leaf can renew it


async def test_a_code_is_good_for_one_key_which_may_ask_again(plant: Plant) -> None:
    code, key = await plant.add_leaf(), new_key()
    first = await enroll(plant, request(code, key=key))
    assert await enroll(plant, request(code, key=key)) == first  # signed anew: other bytes, the same key
    with pytest.raises(CodeRefused):
        await plant.enrollments.enroll(request(code))
    assert plant.issuer.serials()[1:] == [f"{first.serial_number:x}"]


@pytest.mark.parametrize(
    ("late", "soonest", "latest"), [(HubUnreachable("away"), 5, 10), (IssuerUnreachable("away"), 30, 61)]
)
async def test_a_leaf_that_has_to_wait_asks_again_and_gets_the_one_certificate(
    plant: Plant, late: GatewayError, soonest: int, latest: int
) -> None:
    code, key = await plant.add_leaf(), new_key()
    port = plant.registry if isinstance(late, HubUnreachable) else plant.issuer
    port.faults.fail("ensure" if isinstance(late, HubUnreachable) else "issue", late, after=True)
    answer = await plant.enrollments.enroll(request(code, key=key))
    assert isinstance(answer, Pending)
    assert soonest <= answer.retry_after <= latest
    assert isinstance(await plant.enrollments.enroll(request(code, key=key)), Pending)
    await plant.pass_time(seconds=61)
    await enroll(plant, request(code, key=key))
    assert len(plant.issuer.serials()) == 2


async def test_a_slow_ca_does_not_keep_the_leaf_on_the_line_and_a_client_that_leaves_changes_nothing(
    plant: Plant,
) -> None:
    impatient = Enrollments(
        store=plant.store,
        hold=lambda: None,
        clock=plant.clock,
        events=plant.events,
        engine=plant.engine,
        turns=plant.turns,
        policies=POLICIES,
        anchors=plant.anchors.known,
        answer_within=0.01,
    )
    code, key = await plant.add_leaf(), new_key()
    hold = plant.issuer.faults.hold("issue")
    assert isinstance(await impatient.enroll(request(code, key=key)), Pending)
    waiting = asyncio.create_task(plant.enrollments.enroll(request(code, key=key)))
    await asyncio.sleep(0.01)
    waiting.cancel()
    hold.released.set()
    await plant.idle()
    await enroll(plant, request(code, key=key))
    assert len(plant.issuer.serials()) == 2


REFUSED: list[tuple[dict[str, Any], type[GatewayError]]] = [
    ({"code": "0000-0000-0000-0000"}, CodeRefused),
    ({"device_id": "leaf-9"}, CodeRefused),
    ({"code": None}, CodeRefused),
    ({"common_name": "leaf-9"}, EnrollmentDenied),
    ({"common_name": GATEWAY}, EnrollmentDenied),
    ({"sans": ("dns:other.plant",)}, EnrollmentDenied),
    ({"operation": Operation.REENROLL}, EnrollmentDenied),
]


@pytest.mark.parametrize(("change", "error"), REFUSED)
async def test_a_refusal_leaves_no_trace_and_the_code_works_afterwards(
    plant: Plant, change: dict[str, Any], error: type[GatewayError]
) -> None:
    code = await plant.add_leaf()
    before = await books(plant)
    with pytest.raises(error):
        await plant.enrollments.enroll(request(**({"code": code} | change)))
    assert await books(plant) == before
    await enroll(plant, request(code))


BEYOND: list[dict[str, Any]] = [
    {"is_ca": True},
    {"eku_beyond_client": True},
    {"unknown_names": True},
    {"other_subject": True},
    {"key_accepted": False},
]


@pytest.mark.parametrize("facts", BEYOND)
async def test_a_csr_that_asks_for_more_than_it_may_is_refused(plant: Plant, facts: dict[str, Any]) -> None:
    wanted = request(await plant.add_leaf())
    before = await books(plant)
    with pytest.raises(EnrollmentDenied):
        await plant.enrollments.enroll(replace(wanted, csr=replace(wanted.csr, **facts)))
    assert await books(plant) == before


async def test_a_code_that_is_over_or_withdrawn_lets_nobody_in(plant: Plant) -> None:
    code = await plant.add_leaf()
    plant.clock.advance(days=1)
    with pytest.raises(CodeRefused):
        await plant.enrollments.enroll(request(code))


async def test_nobody_enrolls_before_the_gateway_has_its_own_certificate(tmp_path: Path) -> None:
    async with Plant(tmp_path) as plant:
        with pytest.raises(NotBootstrapped):
            await plant.enrollments.enroll(request(await plant.add_leaf()))
        with pytest.raises(NotBootstrapped):
            await plant.enrollments.anchors()


async def test_a_leaf_renews_with_its_certificate_for_a_new_key_and_for_the_same(plant: Plant) -> None:
    key = new_key()
    await enroll(plant, request(await plant.add_leaf(), key=key))
    plant.clock.advance(days=20)
    second = await enroll(plant, await with_certificate(plant))
    plant.clock.advance(days=20)
    again = await with_certificate(plant, key=key)
    third = await enroll(plant, again)
    assert third.public_key() == key.public_key()
    assert third.not_valid_after_utc > second.not_valid_after_utc
    states = [each.state for each in await plant.credentials(LEAF)]
    assert states == [S.RETIRED, S.PREVIOUS, S.CURRENT]


async def test_the_same_key_gets_the_same_certificate_until_it_is_due_for_renewal(plant: Plant) -> None:
    key = new_key()
    first = await enroll(plant, request(await plant.add_leaf(), key=key))
    assert await enroll(plant, await with_certificate(plant, key=key)) == first
    plant.clock.advance(days=21)
    assert await enroll(plant, await with_certificate(plant, key=key)) != first


async def test_only_the_devices_own_present_certificates_let_it_in(plant: Plant) -> None:
    await enroll(plant, request(await plant.add_leaf()))
    for _ in range(2):
        plant.clock.advance(days=1)
        await enroll(plant, await with_certificate(plant))
    retired, previous, current = await plant.credentials(LEAF)
    own = await plant.current()
    assert own is not None
    foreign = plant.issuer.authority.leaf(new_key().public_key(), LEAF).public_bytes(Encoding.DER)
    for certificate in (retired.certificate, own.certificate, foreign):
        with pytest.raises(EnrollmentDenied):
            await plant.enrollments.enroll(request(certificate=certificate))
    with pytest.raises(EnrollmentDenied):
        await plant.enrollments.enroll(request("code", device_id="leaf-2", certificate=current.certificate))
    plant.clock.advance(days=1)
    await enroll(plant, request(certificate=previous.certificate))  # its last answer may not have reached it


async def test_a_revoked_device_is_refused_in_every_way(plant: Plant) -> None:
    code, key = await plant.add_leaf(), new_key()
    await enroll(plant, request(code, key=key))
    again = await with_certificate(plant)
    await plant.revoke()
    await plant.settle()
    before = await books(plant)
    for wanted in (request(code, key=key), again, request(code)):
        with pytest.raises((DeviceRevoked, CodeRefused)):
            await plant.enrollments.enroll(wanted)
    assert await books(plant) == before


async def test_a_leaf_whose_certificate_waits_for_the_hub_alone_comes_back_soon(plant: Plant) -> None:
    code, key = await plant.add_leaf(), new_key()
    plant.registry.faults.fail("ensure", HubUnreachable("away"), times=None)
    for _ in range(5):  # the hub is tried later and later, but may be back at any moment
        answer = await plant.enrollments.enroll(request(code, key=key))
        assert isinstance(answer, Pending)
        assert answer.retry_after <= 10
        plant.clock.advance(minutes=20)
    plant.registry.faults.mend()
    await enroll(plant, request(code, key=key))


async def test_one_request_of_a_device_at_a_time(plant: Plant) -> None:
    await enroll(plant, request(await plant.add_leaf()))
    plant.issuer.faults.fail("issue", IssuerUnreachable("away"), times=None)
    plant.clock.advance(days=1)
    first, second = await with_certificate(plant), await with_certificate(plant)
    assert isinstance(await plant.enrollments.enroll(first), Pending)
    before = await books(plant)
    with pytest.raises(TooManyRequests):
        await plant.enrollments.enroll(second)
    assert await books(plant) == before


async def test_what_the_ca_has_refused_is_refused_and_asked_once(plant: Plant) -> None:
    code, key = await plant.add_leaf(), new_key()
    plant.issuer.faults.fail("issue", IssuerRejected("the policy says no"), times=None)
    for _ in range(3):
        with pytest.raises(IssuerRejected):
            await plant.enrollments.enroll(request(code, key=key))
        plant.clock.advance(minutes=1)
    assert plant.issuer.faults.count("issue") == 1


async def test_a_renewal_that_the_ca_has_refused_is_asked_for_later_and_later(plant: Plant) -> None:
    await enroll(plant, request(await plant.add_leaf()))
    plant.clock.advance(days=1)
    plant.issuer.faults.fail("issue", IssuerRejected("the policy says no"), times=None)
    again = await with_certificate(plant)
    asked = plant.issuer.faults.count("issue")
    for _ in range(120):
        with pytest.raises(IssuerRejected):
            await plant.enrollments.enroll(again)
        plant.clock.advance(minutes=1)
    assert 1 < plant.issuer.faults.count("issue") - asked < 15
    plant.issuer.faults.mend()
    plant.clock.advance(hours=6)
    await enroll(plant, again)


async def test_a_leaf_that_renews_again_and_again_before_its_time_has_to_wait(plant: Plant) -> None:
    await enroll(plant, request(await plant.add_leaf()))
    for _ in range(9):
        plant.clock.advance(hours=1)
        await enroll(plant, await with_certificate(plant))
    asked = plant.issuer.faults.count("issue")
    with pytest.raises(TooManyRequests) as caught:
        await plant.enrollments.enroll(await with_certificate(plant))
    assert caught.value.retry_after == pytest.approx(86400 - 9 * 3600)
    assert plant.issuer.faults.count("issue") == asked
    plant.clock.advance(days=29)
    await enroll(plant, await with_certificate(plant))  # in time


async def test_a_certificate_that_expired_before_the_hub_knew_the_leaf_is_asked_for_anew(plant: Plant) -> None:
    code, key = await plant.add_leaf(), new_key()
    plant.registry.faults.fail("ensure", HubUnreachable("away"), times=None)
    assert isinstance(await plant.enrollments.enroll(request(code, key=key)), Pending)
    plant.clock.advance(days=31)
    plant.registry.faults.mend()
    assert isinstance(await plant.enrollments.enroll(request(code, key=key)), Pending)
    certificate = await enroll(plant, request(code, key=key))
    assert certificate.not_valid_after_utc > plant.clock.now()
