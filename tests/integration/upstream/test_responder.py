"""The responder's own ways: what it does when the hub fails it, and when the CA bears a gateway out."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from gatewayd.errors import HubUnreachable, Internal
from gatewayd.pki import pem
from gatewayd.upstream import answers
from gatewayd.upstream.answers import Status
from gatewayd.upstream.base import HubIdentity
from gatewayd.upstream.registry import HubRegistry
from gatewayd.upstream.responder.decision import Act
from gatewayd.upstream.responder.message import Request
from gatewayd.upstream.responder.recheck import CrlRecheck
from gatewayd.upstream.responder.service import Message, Outcome, Responder, from_event
from gatewayd.upstream.responder.twins import HubTwins
from tests.support.lab import Lab

from .conftest import SCOPE, Credentials, Tokens

METHOD = '{"scope": "device", "type": "x509Certificate", "issuer": "external"}'


@pytest.fixture
async def twins(lab: Lab, bearer: str) -> AsyncIterator[HubTwins]:
    twins = HubTwins(lab.url("hub"), Tokens(bearer), SCOPE, lab.tls)
    yield twins
    await twins.close()


async def family(registry: HubRegistry, name: str) -> tuple[str, str]:
    """A gateway and its child."""
    gateway = await registry.ensure(f"gw-{name}", edge=True)
    await registry.ensure(f"leaf-{name}", parent=gateway.own_scope)
    return f"gw-{name}", f"leaf-{name}"


async def said(registry: HubRegistry, speaker: str, device_id: str, **body: Any) -> Message:
    identity = await registry.get(speaker)
    assert identity is not None
    stamp = {
        "iothub-connection-device-id": speaker,
        "iothub-connection-auth-generation-id": identity.generation_id,
        "iothub-connection-auth-method": METHOD,
    }
    return Message(stamp, {"type": "revocation", "deviceId": device_id, "serial": "1a", **body})


def told(lab: Lab, device_id: str) -> list[tuple[str, Status]]:
    desired = lab.get("hub", f"/lab/twins/{device_id}")["properties"]["desired"]
    return [(each.device_id, each.status) for each in answers.of(desired)]


async def test_it_disables_reads_back_and_answers_all_in_one_write(
    lab: Lab, registry: HubRegistry, twins: HubTwins
) -> None:
    gateway, leaf = await family(registry, "a")
    messages = [
        await said(registry, gateway, leaf),
        await said(registry, gateway, leaf),  # delivered twice
        await said(registry, gateway, "nobody"),
        await said(registry, gateway, "new", type="enrollment"),
        Message({}, {"type": "revocation", "deviceId": leaf, "serial": "1a"}),
    ]
    outcomes = await Responder(registry, twins).handle(messages)
    acts = [each.verdict.act for each in outcomes]
    assert acts == [Act.DISABLE, Act.DISABLE, Act.ANSWER, Act.CREATE, Act.IGNORE]
    assert sorted(told(lab, gateway)) == [
        (leaf, Status.DISABLED),
        ("new", Status.PRESENT),
        ("nobody", Status.ABSENT),
    ]
    assert lab.get("hub", f"/lab/twins/{gateway}")["properties"]["desired"]["$version"] == 2
    disabled, created = await registry.get(leaf), await registry.get("new")
    assert disabled is not None
    assert not disabled.enabled
    assert created is not None
    parent = await registry.get(gateway)
    assert parent is not None
    assert created.scope == parent.own_scope != ""


async def test_what_is_said_of_a_device_is_done_in_its_order(
    registry: HubRegistry, twins: HubTwins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have waited for the responder; an identity made after the revocation would let its certificate in."""
    gateway, _ = await family(registry, "order")
    messages = [await said(registry, gateway, "late", type="enrollment"), await said(registry, gateway, "late")]
    read, looks = registry.get, 0

    async def get(device_id: str) -> HubIdentity | None:
        nonlocal looks
        found = await read(device_id)
        looks += device_id == "late"
        if looks == 1:
            await asyncio.sleep(0.2)  # so that whatever goes side by side overtakes it
        return found

    monkeypatch.setattr(registry, "get", get)
    await Responder(registry, twins).handle(messages)
    identity = await registry.get("late")
    assert identity is not None
    assert not identity.enabled


async def test_a_message_that_cannot_be_seen_to_holds_up_no_other(
    lab: Lab, registry: HubRegistry, twins: HubTwins, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, leaf = await family(registry, "poison")
    messages = [await said(registry, gateway, "odd"), await said(registry, gateway, leaf)]
    read = registry.get

    async def get(device_id: str) -> HubIdentity | None:
        if device_id == "odd":
            raise OverflowError
        return await read(device_id)

    monkeypatch.setattr(registry, "get", get)
    odd, good = await Responder(registry, twins).handle(messages)
    assert isinstance(odd.error, Internal)
    assert (good.verdict.act, good.error) == (Act.DISABLE, None)


async def test_a_gateway_that_reports_itself_is_disabled_and_not_answered(
    registry: HubRegistry, twins: HubTwins
) -> None:
    gateway, _ = await family(registry, "b")
    (outcome,) = await Responder(registry, twins).handle([await said(registry, gateway, gateway)])
    assert (outcome.verdict.act, outcome.error) == (Act.DISABLE, None)
    identity = await registry.get(gateway)
    assert identity is not None
    assert not identity.enabled


@pytest.mark.parametrize("operation", ["GET /devices/", "PUT /devices/", "GET /twins/", "PATCH /twins/"])
async def test_what_the_hub_does_not_take_has_to_come_again(
    lab: Lab, registry: HubRegistry, twins: HubTwins, operation: str
) -> None:
    gateway, leaf = await family(registry, f"c-{operation[:3]}{operation[-6:-1]}".replace("/", "").replace(" ", ""))
    message = await said(registry, gateway, leaf)
    lab.post("hub", "/lab/faults", {"where": "registry", "match": operation, "mode": "500", "times": 3})
    responder = Responder(registry, twins)
    outcomes: list[Outcome] = []
    for _ in range(4):
        outcomes += await responder.handle([message])
    assert isinstance(outcomes[0].error, HubUnreachable)
    assert outcomes[-1].error is None
    assert told(lab, gateway) == [(leaf, Status.DISABLED)]
    lab.delete("hub", "/lab/faults")


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


async def test_it_believes_a_gateway_about_others_where_the_ca_bears_it_out(
    lab: Lab, registry: HubRegistry, twins: HubTwins, credentials: Credentials
) -> None:
    gateway, _ = await family(registry, "d")
    certificates = {name: credentials.make(name).certificate for name in ("revoked-leaf", "good-leaf", "other-leaf")}
    for name in certificates:
        await registry.ensure(name)
    with serving(credentials.crl([certificates["revoked-leaf"]])) as url:
        recheck = CrlRecheck(url, pem.bundle(lab.directory / "ca-issuing.pem"), lab.tls)
        responder = Responder(registry, twins, recheck)

        async def report(device_id: str, certificate: x509.Certificate, **otherwise: str) -> Status | None:
            body = {
                "serial": f"{certificate.serial_number:x}",
                "thumbprint": certificate.fingerprint(hashes.SHA256()).hex(),
                "certificate": base64.b64encode(certificate.public_bytes(Encoding.DER)).decode(),
                "notAfter": certificate.not_valid_after_utc.isoformat(),
            }
            message = await said(registry, gateway, device_id, **(body | otherwise))
            (outcome,) = await responder.handle([message])
            return outcome.answer.status if outcome.answer else None

        assert await report("good-leaf", certificates["good-leaf"]) is Status.REFUSED
        assert await report("other-leaf", certificates["revoked-leaf"]) is Status.REFUSED
        revoked = certificates["revoked-leaf"]
        for forged in ({"thumbprint": "ab" * 32}, {"notAfter": "2099-01-01T00:00:00Z"}):
            assert await report("revoked-leaf", revoked, **forged) is Status.REFUSED
        assert await report("revoked-leaf", revoked) is Status.DISABLED
        recheck.close()
    enabled = {name: identity.enabled for name in certificates if (identity := await registry.get(name))}
    assert enabled == {"revoked-leaf": False, "good-leaf": True, "other-leaf": True}


def test_an_event_of_azure_functions_is_a_message() -> None:
    message = from_event(b'{"deviceId": "leaf-1"}', {"connection-device-id": "gw-1", "enqueuedtime": "…"})
    assert message.body == {"deviceId": "leaf-1"}
    assert message.system["iothub-connection-device-id"] == "gw-1"
    assert from_event(b"\xff", None) == Message({}, None)


@pytest.mark.parametrize("reason", [x509.ReasonFlags.superseded, x509.ReasonFlags.certificate_hold])
async def test_a_healthy_device_of_somebody_else_is_not_disabled_for_a_superseded_certificate(
    lab: Lab, registry: HubRegistry, twins: HubTwins, credentials: Credentials, reason: x509.ReasonFlags
) -> None:
    gateway, _ = await family(registry, f"e-{reason.name}")
    device = f"healthy-{reason.name}"
    await registry.ensure(device)
    certificate = credentials.make(device).certificate
    body = {
        "serial": f"{certificate.serial_number:x}",
        "thumbprint": certificate.fingerprint(hashes.SHA256()).hex(),
        "certificate": base64.b64encode(certificate.public_bytes(Encoding.DER)).decode(),
        "notAfter": certificate.not_valid_after_utc.isoformat(),
        "reason": "keyCompromise",
    }
    with serving(credentials.crl([certificate], reason)) as url:
        recheck = CrlRecheck(url, pem.bundle(lab.directory / "ca-issuing.pem"), lab.tls)
        message = await said(registry, gateway, device, **body)
        (outcome,) = await Responder(registry, twins, recheck).handle([message])
        recheck.close()
    assert outcome.verdict.status is Status.REFUSED
    found = await registry.get(device)
    assert found is not None
    assert found.enabled


def pin_request(new: x509.Certificate, *replaced: x509.Certificate) -> Request:
    der = new.public_bytes(Encoding.DER)
    return Request(
        speaker="gw",
        generation_id="1",
        kind="pin",
        device_id="gw",
        serial=f"{new.serial_number:x}",
        thumbprint=hashlib.sha256(der).hexdigest(),
        not_after=None,
        reason="unspecified",
        thumbprints=(hashlib.sha256(der).hexdigest(),) * 2,
        enable=True,
        etag="e1",
        certificate=der,
        replaced=tuple(each.public_bytes(Encoding.DER) for each in replaced),
    )


async def test_the_ca_tells_the_new_hardware_from_the_old(lab: Lab, credentials: Credentials) -> None:
    def made(age: float, name: str = "gw", lasts: float = 24) -> x509.Certificate:
        return credentials.make(name, timedelta(hours=lasts), age=timedelta(hours=age)).certificate

    old, older, new, expired = made(2), made(3), made(1), made(30)
    strangers = made(1, "gw-2")
    revoked = [old, expired]
    expected = {
        pin_request(new, old): "",
        pin_request(new): "",
        pin_request(old, old): "the CA has revoked its certificate",
        pin_request(older, old): "is older than",
        pin_request(new, older): "does not name",
        pin_request(new, expired): "has expired",
        pin_request(expired, old): "is not valid now",
        pin_request(strangers, old): "it brings no certificate of this device",
        pin_request(new, strangers): "no certificate of this device",
        replace(pin_request(new, old), certificate=None): "it brings no certificate of this device",
        replace(pin_request(new, old), serial="1"): "it brings no certificate of this device",
    }
    with serving(credentials.crl(revoked)) as url:
        recheck = CrlRecheck(url, pem.bundle(lab.directory / "ca-issuing.pem"), lab.tls)
        for request, why in expected.items():
            fault = await recheck.fault_of_pin(request)
            assert why in fault if why else not fault
        recheck.close()


async def test_an_overdue_list_tells_nobody_apart(lab: Lab, credentials: Credentials) -> None:
    new, old = credentials.make("gw").certificate, credentials.make("gw", age=timedelta(hours=2)).certificate
    with serving(credentials.crl([old], lasts=timedelta(seconds=-1))) as url:
        recheck = CrlRecheck(url, pem.bundle(lab.directory / "ca-issuing.pem"), lab.tls)
        with pytest.raises(HubUnreachable):
            await recheck.fault_of_pin(pin_request(new, old))
        recheck.close()
