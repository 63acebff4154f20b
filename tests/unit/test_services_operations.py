"""What an administrator asks for: refused without a trace, or written down; and what is shown, as docs/json.md says."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from gatewayd.control.variants import from_mapping
from gatewayd.core.listing import Wanted
from gatewayd.core.model import CredentialState as S
from gatewayd.core.model import KeyAlgorithm, Milestone
from gatewayd.errors import (
    AnswerTooLarge,
    DeviceExists,
    DeviceRevoked,
    DeviceUnknown,
    GatewayError,
    HubUnreachable,
    InvalidArgument,
    IssuerRejected,
    IssuerUnreachable,
    KeyMissing,
    NotBootstrapped,
    RegistrarRefused,
)
from gatewayd.keys.base import TokenState
from gatewayd.pki import pem
from gatewayd.services import views
from tests.support.plant import GATEWAY, LEAF, Plant, Someone, request

ME = Someone()
DOC = (Path(__file__).parents[2] / "docs" / "json.md").read_text()


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with Plant(tmp_path) as plant:
        plant.registry.write(GATEWAY, enabled=True)
        yield plant


async def everything(plant: Plant) -> tuple[object, ...]:
    def work(tx: Any) -> tuple[object, ...]:
        devices = tx.devices.all()
        return (
            devices,
            [tx.credentials.all(each.device_id) for each in devices],
            len(tx.journal.recent(limit=1000)),
            tx.codes.open_until(LEAF, plant.clock.now()),
            tx.revocations.all(),
        )

    return await plant.read(work)


def ignore(step: str, state: str, detail: str = "") -> None:
    pass


# --- refused without a trace ---------------------------------------------------------------------

REFUSED: list[tuple[str, tuple[Any, ...], type[GatewayError]]] = [
    ("device_add", ("leaf/1", [], 0), InvalidArgument),
    ("device_add", ("x" * 65, [], 0), InvalidArgument),
    ("device_add", (LEAF, ["nonsense"], 0), InvalidArgument),
    ("device_add", (LEAF, ["ip:300.1.1.1"], 0), InvalidArgument),
    ("device_add", (GATEWAY, [], 0), DeviceExists),
    ("device_code", ("nobody", 0), DeviceUnknown),
    ("device_code", (GATEWAY, 0), InvalidArgument),
    ("renew", (GATEWAY, ""), NotBootstrapped),
    ("renew", (GATEWAY, "rsa-512"), InvalidArgument),
    ("renew", ("nobody", ""), DeviceUnknown),
    ("revoke", ("nobody", "keyCompromise"), DeviceUnknown),
    ("revoke", (GATEWAY, "boredom"), InvalidArgument),
    ("bootstrap", ("",), InvalidArgument),
    ("bootstrap", ("two words",), InvalidArgument),
    ("bootstrap_with_certificate", ("no PEM",), InvalidArgument),
]


@pytest.mark.parametrize(("operation", "arguments", "error"), REFUSED)
async def test_what_cannot_be_done_is_said_at_once_and_changes_nothing(
    plant: Plant, operation: str, arguments: tuple[Any, ...], error: type[GatewayError]
) -> None:
    before = await everything(plant)
    with pytest.raises(error):
        await getattr(plant.operations, operation)(ME, *arguments)
    assert await everything(plant) == before


async def test_a_device_is_added_once_and_a_new_code_puts_the_old_one_out_of_use(plant: Plant) -> None:
    await plant.bootstrap()
    old = await plant.add_leaf()
    with pytest.raises(DeviceExists):
        await plant.add_leaf()
    new = (await plant.operations.device_code(ME, LEAF, 0))["code"]
    with pytest.raises(GatewayError):
        await plant.enrollments.enroll(request(old))
    await plant.enrollments.enroll(request(new))
    await plant.revoke()
    with pytest.raises(DeviceRevoked):
        await plant.operations.device_code(ME, LEAF, 0)


# --- the gateway's certificate -------------------------------------------------------------------


async def test_a_persons_token_is_used_for_the_first_certificate_and_forgotten(plant: Plant) -> None:
    await plant.bootstrap()
    assert plant.bootstrap_issuer.faults.calls == ["issue"]
    assert plant.issuer.faults.calls == []
    assert plant.steps.bootstrap is None
    with pytest.raises(InvalidArgument):
        await plant.operations.bootstrap(ME, "token")


async def test_a_bootstrap_that_fails_is_told_as_it_was_and_may_be_tried_again(plant: Plant) -> None:
    plant.bootstrap_issuer.faults.fail("issue", IssuerUnreachable("no clear answer"), after=True)
    work = await plant.operations.bootstrap(ME, "token")
    with pytest.raises(IssuerUnreachable, match="no clear answer"):
        await work(ignore)
    assert plant.steps.bootstrap is None
    await plant.bootstrap()
    assert plant.bootstrap_issuer.faults.calls == ["issue", "find"]  # it has found what the first attempt had got
    assert len(plant.issuer.serials()) == 1


async def test_a_rejected_bootstrap_names_what_the_ca_said(plant: Plant) -> None:
    plant.bootstrap_issuer.faults.fail("issue", IssuerRejected("domain gw-1 waits for approval"))
    work = await plant.operations.bootstrap(ME, "token")
    with pytest.raises(IssuerRejected, match="waits for approval"):
        await work(ignore)
    await plant.bootstrap()


def factory_certificate(plant: Plant, key: ec.EllipticCurvePrivateKey, **more: Any) -> str:
    return pem.encode([plant.issuer.authority.leaf(key.public_key(), GATEWAY, **more)])


async def test_a_factory_certificate_is_renewed_into_the_first_own_one_also_after_a_crash(plant: Plant) -> None:
    await plant.fake_keys.generate(b"\x01", "factory", KeyAlgorithm.EC_P256)
    key = plant.fake_keys.keys[b"\x01"][2]
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    work = await plant.operations.bootstrap_with_certificate(ME, factory_certificate(plant, key))
    await work(ignore)
    assert plant.issuer.faults.calls == ["renew"]
    current = await plant.current()
    assert current is not None
    assert current.key is not None
    assert current.key.id != b"\x01"  # a key of its own


async def test_a_factory_certificate_without_its_key_or_out_of_date_is_refused(plant: Plant) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    before = await everything(plant)
    with pytest.raises(KeyMissing):
        await plant.operations.bootstrap_with_certificate(ME, factory_certificate(plant, stranger))
    expired = factory_certificate(plant, stranger, starts=timedelta(days=-9), lasts=timedelta(days=3))
    with pytest.raises(InvalidArgument, match="expired"):
        await plant.operations.bootstrap_with_certificate(ME, expired)
    assert await everything(plant) == before


async def test_a_watching_administrator_sees_the_steps_of_a_renewal(plant: Plant) -> None:
    await plant.bootstrap()
    plant.clock.advance(days=1)
    seen: list[tuple[str, str]] = []
    work = await plant.operations.renew(ME, GATEWAY, "ec-p384")
    shown = await work(lambda step, state, detail="": seen.append((step, state)))
    assert seen == [(step, "done") for step in ("make-key", "request", "accept", "switch")]
    assert (shown["generation"], shown["key_algorithm"]) == (2, "ec-p384")


# --- the registrar and the anchors ---------------------------------------------------------------


async def test_the_registrars_key_and_certificate_are_made_once_also_through_a_crash(plant: Plant) -> None:
    plant.fake_keys.faults.fail("generate", RuntimeError("power cut"), after=True)
    with pytest.raises(RuntimeError):
        await plant.operations.registrar_certificate(ME)
    await plant.restart()
    first = await plant.operations.registrar_certificate(ME)
    assert await plant.registrar.token("scope") == "token for scope"
    await plant.restart()
    assert await plant.operations.registrar_certificate(ME) == first
    assert len(plant.fake_keys.keys) == 1


@pytest.mark.parametrize("restarts", [True, False])
@pytest.mark.parametrize("what", ["cleared", "over"])
async def test_a_registrar_whose_key_or_time_is_gone_has_a_new_certificate_to_upload(
    plant: Plant, what: str, restarts: bool
) -> None:
    first = pem.certificate(await plant.operations.registrar_certificate(ME))
    if what == "cleared":
        plant.fake_keys.clear()
    else:
        plant.clock.advance(days=731)
    if restarts:
        await plant.restart()
    second = pem.certificate(await plant.operations.registrar_certificate(ME))
    assert second != first
    (_, _, key), *_ = plant.fake_keys.keys.values()
    assert second.public_key() == key.public_key()
    assert second.not_valid_before_utc <= plant.clock.now() < second.not_valid_after_utc


async def test_the_first_certificate_says_what_to_trust_and_no_later_one_does(plant: Plant) -> None:
    await plant.bootstrap()
    assert plant.anchors.known() == plant.issuer.authority.chain
    await plant.restart()
    assert plant.anchors.known() == plant.issuer.authority.chain
    plant.issuer.authority = type(plant.issuer.authority)("Other", plant.clock.now)
    plant.clock.advance(days=1)
    work = await plant.operations.renew(ME, GATEWAY, "")
    with pytest.raises(GatewayError, match="does not lead to a trusted root"):
        await work(ignore)
    assert (await plant.newest()).state is S.REJECTED


# --- what is shown -------------------------------------------------------------------------------


def documented(heading: str) -> tuple[set[str], set[str]]:
    """(all keys, those always there) of the first table under the heading that begins so in docs/json.md."""
    section = DOC.split(f"\n## {heading}")[1].split("\n| --- | --- |\n")[1].split("\n\n")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines()]
    keys = {key: "*always*" in words for names, words in rows for key in re.findall(r"`(\w+)`", names)}
    return set(keys), {key for key, always in keys.items() if always}


def check(shown: dict[str, Any], heading: str, beside: set[str] | None = None) -> None:
    known, always = documented(heading)
    assert set(shown) <= known | (beside or set())
    assert always <= set(shown)


def no_nulls(data: Any) -> None:
    if isinstance(data, dict):
        assert None not in data.values()
        data = list(data.values())
    if isinstance(data, list):
        for each in data:
            no_nulls(each)


STATES = ("new", "enrolling", "active", "expired", "replacing", "revoked")


async def test_everything_that_is_shown_is_what_the_document_says(plant: Plant) -> None:
    progress = {"attempts", "next_attempt_at", "last_error"}
    check((await plant.operations.status())["gateway"], "A device", progress)
    await plant.bootstrap()
    await plant.enrollments.enroll(request(await plant.add_leaf(sans=("dns:pump",)), sans=("dns:pump",)))
    await plant.add_leaf("leaf-2")
    plant.issuer.faults.fail("revoke", IssuerUnreachable("away"))
    await plant.revoke()
    await plant.settle()
    plant.clock.advance(days=1)
    plant.link.faults.fail("connect", HubUnreachable("away"))
    await plant.operations.renew(ME, GATEWAY, "")
    await plant.settle()

    status = await plant.operations.status()
    check(status, "gatewayctl status")
    check(status["gateway"], "A device", progress)
    assert status["gateway"]["attempts"] == 1
    assert status["devices"] == {state: int(state in ("new", "revoked")) for state in STATES}
    (revocation,) = status["revocations"]
    check(revocation, "A revocation")
    assert [each["name"] for each in revocation["milestones"]] == list(Milestone)
    for device in await plant.operations.device_list(Wanted()):
        check(device, "A device")
        shown = await plant.operations.device_show(device["device_id"])
        check(shown, "gatewayctl device show")
        no_nulls(shown)
    check(await plant.operations.device_code(ME, "leaf-2", 60), "gatewayctl device add")
    no_nulls(status)


async def test_a_list_that_the_bus_would_not_take_is_refused_while_it_is_made(plant: Plant) -> None:
    await plant.bootstrap()
    for number in range(20):
        await plant.add_leaf(f"leaf-{number}", ("dns:leaf.example",))
    rows = await plant.operations.device_list(Wanted())
    for row in rows:
        assert 0.8 < views.least_size(row) / from_mapping(row).get_size() <= 1
    room = sum(map(views.least_size, rows))
    assert await plant.operations.device_list(Wanted(), room) == rows
    assert len(await plant.operations.device_list(Wanted(limit=3), room // 2)) == 3
    with pytest.raises(AnswerTooLarge, match="has 11 devices at least"):
        await plant.operations.device_list(Wanted(), sum(map(views.least_size, rows[:11])) - 1)


WAITING: list[tuple[str, str]] = [("new", "NotBootstrapped"), ("pin", "PinRefused"), ("registrar", "RegistrarRefused")]


@pytest.mark.parametrize(("what", "error"), WAITING)
async def test_what_waits_for_a_person_says_so_with_the_remedy(plant: Plant, what: str, error: str) -> None:
    if what == "pin":
        plant.fake_keys.say(TokenState.PIN_REFUSED)
    if what == "registrar":
        await plant.bootstrap()
        plant.issuer.faults.fail("issue", RegistrarRefused("AADSTS700027"), times=None)
        await plant.enrollments.enroll(request(await plant.add_leaf()))
    (item,) = (await plant.operations.status())["waiting"]
    assert item["error"] == error
    assert item["remedy"]
    if what == "registrar":
        assert "AADSTS700027" in item["what"]


async def test_a_keys_attestation_is_for_the_current_certificate_and_on_record(plant: Plant) -> None:
    with pytest.raises(NotBootstrapped):
        await plant.operations.token.attest(ME, b"nonce")
    await plant.bootstrap()
    shown = await plant.operations.token.attest(ME, b"nonce")
    assert (shown["device_id"], shown["nonce"]) == (GATEWAY, b"nonce".hex())
    files = {name: b64decode(content) for name, content in shown["files"].items()}
    current = (await plant.credentials())[-1]
    assert current.key is not None
    assert files["key.name"] == current.key.id
    assert pem.certificates(files["certificate.pem"])[0].public_bytes(Encoding.DER) == current.certificate
    assert await plant.operations.token.activate(ME, b"\x01\x02") == {"secret": "0201"}
    history = (await plant.operations.device_show(GATEWAY))["history"]
    assert {"key attested", "credential challenge answered"} <= {each["what"] for each in history}
