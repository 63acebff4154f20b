"""HubRegistry against a registry that misbehaves in every way a hub or the network does."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from gatewayd.errors import (
    HubConflict,
    HubRefused,
    HubRejected,
    HubThrottled,
    HubUnreachable,
    IssuerUnreachable,
    RegistrarRefused,
)
from gatewayd.upstream.base import Registry
from gatewayd.upstream.registry import ATTEMPTS, HubRegistry
from gatewayd.upstream.rest import ANSWER_LIMIT

from .conftest import Site

SCOPE = "https://iothubs.azure.net/.default"
BEARER = "eyJ.the-bearer.token"
Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class FakeHub:
    """The registry's rules on etags and whole replacement, and a list of faults that are served first."""

    def __init__(self) -> None:
        self.identities: dict[str, dict[str, Any]] = {}
        self.faults: list[Fault] = []
        self.requests: list[web.Request] = []
        self.connections: set[object] = set()

    def add(self, device_id: str, **fields: Any) -> dict[str, Any]:
        self.identities[device_id] = {
            "deviceId": device_id,
            "etag": "MQ==",
            "generationId": "1",
            "status": "enabled",
            "statusReason": None,
            "authentication": {"type": "certificateAuthority", "x509Thumbprint": {"primaryThumbprint": None}},
            **fields,
        }
        return self.identities[device_id]

    def touch(self, device_id: str) -> None:
        self.identities[device_id]["etag"] += "x"

    @property
    def writes(self) -> int:
        return sum(request.method == "PUT" for request in self.requests)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.connections.add(request.transport)
        assert request.headers["Authorization"] == f"Bearer {BEARER}"
        assert request.query_string == "api-version=2021-04-12"
        if self.faults:
            served = await self.faults.pop(0)(request)
            if served is not None:
                return served
        return await self.serve(request)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        device_id = request.match_info["id"]
        present = self.identities.get(device_id)
        if request.method == "GET":
            return web.json_response(present) if present else error(404, "DeviceNotFound")
        if_match = request.headers.get("If-Match")
        if if_match is None and present:
            return error(409, "DeviceAlreadyExists")
        if if_match is not None:
            if not present:
                return error(404, "DeviceNotFound")
            if if_match != f'"{present["etag"]}"':
                return error(412, "PreconditionFailed")
        document = await request.json()
        assert document["authentication"]["type"]  # or the hub would mint keys
        self.identities[device_id] = {"generationId": "1", **document, "etag": (present or {}).get("etag", "") + "w"}
        return web.json_response(self.identities[device_id])


def error(status: int, code: str) -> web.Response:
    body = {"Message": f"ErrorCode:{code};Because.", "ExceptionMessage": "Tracking ID:1"}
    return web.json_response(body, status=status, headers={"iothub-errorcode": code})


def answering(status: int, code: str = "", body: str | None = None) -> Fault:
    async def fault(_: web.Request) -> web.StreamResponse:
        return error(status, code) if body is None else web.Response(status=status, text=body)

    return fault


async def silence(_: web.Request) -> None:
    await asyncio.sleep(30)


async def reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.fixture
async def hub(site: Site) -> AsyncIterator[FakeHub]:
    fake = FakeHub()
    app = web.Application()
    app.router.add_route("*", "/devices/{id}", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, site.address, 8443, ssl_context=site.server).start()
    yield fake
    await runner.cleanup()


class Tokens:
    failure: Exception | None = None

    async def token(self, scope: str) -> str:
        assert scope == SCOPE
        if self.failure:
            raise self.failure
        return BEARER


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
async def registry(site: Site, hub: FakeHub, tokens: Tokens) -> AsyncIterator[HubRegistry]:
    made = HubRegistry(f"https://{site.address}:8443", tokens, SCOPE, site.client, timeout=0.5)
    port: Registry = made
    assert port is made
    yield made
    await made.close()


async def test_a_missing_device_is_created_with_certificate_authority(registry: HubRegistry, hub: FakeHub) -> None:
    assert await registry.get("leaf-1") is None
    created = await registry.ensure("leaf-1")
    assert (created.enabled, created.authentication_type) == (True, "certificateAuthority")
    assert hub.identities["leaf-1"]["authentication"]["type"] == "certificateAuthority"
    assert await registry.ensure("leaf-1") == created
    assert hub.writes == 1


async def test_ensure_leaves_a_disabled_device_disabled(registry: HubRegistry, hub: FakeHub) -> None:
    hub.add("leaf-1", status="disabled", statusReason="revoked")
    assert not (await registry.ensure("leaf-1")).enabled
    assert hub.writes == 0


async def test_ensure_finds_what_somebody_else_created_first(registry: HubRegistry, hub: FakeHub) -> None:
    async def created_meanwhile(request: web.Request) -> web.StreamResponse:
        answer = await hub.serve(request)
        hub.add("leaf-1", generationId="theirs")
        return answer

    hub.faults = [created_meanwhile]
    assert (await registry.ensure("leaf-1")).generation_id == "theirs"


async def test_disable_sends_the_whole_identity_back(registry: HubRegistry, hub: FakeHub) -> None:
    before = dict(hub.add("leaf-1", deviceScope="ms-azure-iot-edge://gw-1", somethingNew={"a": [1]}))
    disabled = await registry.disable("leaf-1", "r" * 200)
    assert disabled is not None
    assert not disabled.enabled
    changed = {key: value for key, value in hub.identities["leaf-1"].items() if before.get(key) != value}
    assert changed == {"status": "disabled", "statusReason": "r" * 128, "etag": "MQ==w"}


async def test_disable_writes_nothing_when_nothing_is_to_do(registry: HubRegistry, hub: FakeHub) -> None:
    assert await registry.disable("leaf-1", "revoked") is None
    hub.add("leaf-1", status="disabled", statusReason="EZCA was first")
    again = await registry.disable("leaf-1", "revoked")
    assert again is not None
    assert again.status_reason == "EZCA was first"
    assert hub.writes == 0


def racing(hub: FakeHub) -> list[Fault]:
    """Somebody changes the identity between each read and write."""

    async def touch_after_reading(request: web.Request) -> web.StreamResponse:
        answer = await hub.serve(request)
        hub.touch("leaf-1")
        return answer

    return [touch_after_reading, hub.serve]


async def test_a_lost_race_is_read_and_written_again(registry: HubRegistry, hub: FakeHub) -> None:
    hub.add("leaf-1")
    hub.faults = racing(hub)
    disabled = await registry.disable("leaf-1", "revoked")
    assert disabled is not None
    assert not disabled.enabled
    assert hub.writes == 2


async def test_a_storm_of_races_ends(registry: HubRegistry, hub: FakeHub) -> None:
    hub.add("leaf-1")
    hub.faults = racing(hub) * (ATTEMPTS + 3)
    with pytest.raises(HubConflict, match=r"leaf-1.*PreconditionFailed"):
        await registry.disable("leaf-1", "revoked")
    assert hub.writes == ATTEMPTS


async def test_deleted_between_reading_and_writing(registry: HubRegistry, hub: FakeHub) -> None:
    hub.add("leaf-1")

    async def deleted_meanwhile(request: web.Request) -> web.StreamResponse:
        answer = await hub.serve(request)
        del hub.identities["leaf-1"]
        return answer

    hub.faults = [deleted_meanwhile]
    assert await registry.disable("leaf-1", "revoked") is None


@pytest.mark.parametrize("lost", [silence, reset, answering(500, "ServerError"), answering(200, body="<html>")])
async def test_a_write_whose_answer_was_lost_is_not_repeated_blindly(
    registry: HubRegistry, hub: FakeHub, lost: Fault
) -> None:
    """The write took effect; only its answer did not arrive."""
    hub.add("leaf-1")

    async def done_but_lost(request: web.Request) -> web.StreamResponse | None:
        await hub.serve(request)
        return await lost(request)

    hub.faults = [hub.serve, done_but_lost]
    disabled = await registry.disable("leaf-1", "revoked")
    assert disabled is not None
    assert not disabled.enabled
    assert [request.method for request in hub.requests][-1] == "GET"
    assert hub.identities["leaf-1"]["etag"] == "MQ==w"  # written once


async def test_a_write_that_did_not_arrive_is_repeated(registry: HubRegistry, hub: FakeHub) -> None:
    hub.faults = [hub.serve, answering(503, "ServiceUnavailable")]
    assert (await registry.ensure("leaf-1")).enabled
    assert hub.writes == 2


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (answering(401, "IotHubUnauthorizedAccess"), HubRefused),
        (answering(403, "IotHubForbidden"), HubRefused),
        (answering(400, "ArgumentInvalid"), HubRejected),
        (answering(302, body=""), HubRejected),
        (answering(500, "ServerError"), HubUnreachable),
        (answering(503, body="<html>down</html>"), HubUnreachable),
        (answering(200, body="not JSON"), HubUnreachable),
        (answering(200, body='{"deviceId": "leaf-2"}'), HubUnreachable),
        (answering(200, body="x" * (ANSWER_LIMIT + 1)), HubUnreachable),
        (answering(404, body="<html>no such page</html>"), HubRejected),
        (silence, HubUnreachable),
    ],
)
async def test_what_a_read_raises(registry: HubRegistry, hub: FakeHub, fault: Fault, expected: type[Exception]) -> None:
    hub.add("leaf-1")
    hub.faults = [fault]
    with pytest.raises(expected, match=r"leaf-1") as raised:
        await registry.get("leaf-1")
    assert BEARER not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert (await registry.get("leaf-1")) is not None  # and the session is still good


async def test_a_page_that_is_not_the_hubs_does_not_pass_for_a_missing_device(
    registry: HubRegistry, hub: FakeHub
) -> None:
    hub.add("leaf-1")
    hub.faults = [answering(404, body="<html>")]
    with pytest.raises(HubRejected):
        await registry.disable("leaf-1", "revoked")


async def test_over_quota_says_how_long_to_wait(registry: HubRegistry, hub: FakeHub) -> None:
    hub.faults = [answering(429, "ThrottlingException")]
    with pytest.raises(HubThrottled) as raised:
        await registry.ensure("leaf-1")
    assert raised.value.retry_after == 10
    assert len(hub.requests) == 1


async def test_an_echoed_token_does_not_reach_the_error(registry: HubRegistry, hub: FakeHub) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        message = {"Message": f"ErrorCode:Odd;You sent {request.headers['Authorization']}"}
        return web.Response(status=400, text=json.dumps(message))

    hub.faults = [echo]
    with pytest.raises(HubRejected, match="You sent Bearer") as raised:
        await registry.get("leaf-1")
    assert BEARER not in str(raised.value)


async def test_ids_with_reserved_characters_reach_the_hub_as_they_are(registry: HubRegistry, hub: FakeHub) -> None:
    name = "a%2F!(b),:=@$'*?_-."
    await registry.ensure(name)
    assert list(hub.identities) == [name]
    assert hub.requests[0].raw_path.split("?")[0].isascii()


async def test_the_connection_is_reused(registry: HubRegistry, hub: FakeHub) -> None:
    for _ in range(5):
        await registry.ensure("leaf-1")
    assert len(hub.connections) == 1


async def test_tokens_that_cannot_be_had(registry: HubRegistry, hub: FakeHub, tokens: Tokens) -> None:
    tokens.failure = IssuerUnreachable("Entra did not answer.")
    with pytest.raises(HubUnreachable, match=r"token.*Entra did not answer"):
        await registry.get("leaf-1")
    tokens.failure = RegistrarRefused("Entra does not accept the assertion.")
    with pytest.raises(RegistrarRefused):
        await registry.get("leaf-1")
    assert not hub.requests


async def test_a_hub_that_is_not_the_trusted_one(site: Site, hub: FakeHub, tokens: Tokens) -> None:
    registry = HubRegistry(f"https://{site.address}:8443", tokens, SCOPE, ssl.create_default_context(), timeout=2)
    with pytest.raises(HubUnreachable, match="not trusted"):
        await registry.get("leaf-1")
    await registry.close()
    assert not hub.requests


async def test_nobody_there(site: Site, tokens: Tokens) -> None:
    registry = HubRegistry(f"{site.address}:1", tokens, SCOPE, site.client, timeout=2)
    with pytest.raises(HubUnreachable, match=r"(?i)refused"):
        await registry.get("leaf-1")
    await registry.close()
    await registry.close()


async def test_it_can_be_used_again_after_close(registry: HubRegistry, hub: FakeHub) -> None:
    await registry.ensure("leaf-1")
    await registry.close()
    assert await registry.get("leaf-1") is not None
