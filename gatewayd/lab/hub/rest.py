"""The service's side over HTTPS: devices, twins, direct methods."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from . import bulk
from .auth import Gatekeeper
from .errors import Code, HubError, body
from .faults import SILENCE, Faults, Mode
from .identity import Identity
from .mailbox import Mailbox
from .methods import Methods
from .presence import Presence
from .query import PAGE, Index
from .registry import Registry
from .twins import Twins

API_VERSION: Final = "2021-04-12"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_INJECTED: Final = {
    Mode.THROTTLED: (Code.THROTTLING, "Please slow down: request rate is too high. Wait 10 seconds before you retry."),
    Mode.SERVER_ERROR: (Code.SERVER_ERROR, "An internal error occurred."),
    Mode.UNAVAILABLE: (Code.SERVICE_UNAVAILABLE, "The service is unavailable; try again."),
    Mode.UNAVAILABLE_AFTER: (Code.SERVICE_UNAVAILABLE, "The service is unavailable; try again."),
    Mode.REFUSE: (Code.IOT_HUB_UNAUTHORIZED_ACCESS, "Unauthorized."),
}


class RegistryApi:
    def __init__(
        self,
        gatekeeper: Gatekeeper,
        registry: Registry,
        twins: Twins,
        mailbox: Mailbox,
        presence: Presence,
        methods: Methods,
        faults: Faults,
    ) -> None:
        self._gatekeeper = gatekeeper
        self._registry = registry
        self._twins = twins
        self._mailbox = mailbox
        self._presence = presence
        self._methods = methods
        self._faults = faults
        self._index = Index(registry, twins)

    def routes(self) -> list[web.RouteDef]:
        guarded = self._guarded
        return [
            web.put("/devices/{id}", guarded(self._put_device)),
            web.get("/devices/{id}", guarded(self._get_device), allow_head=False),
            web.delete("/devices/{id}", guarded(self._delete_device)),
            web.post("/devices", guarded(self._bulk)),
            web.post("/devices/query", guarded(self._query)),
            web.get("/twins/{id}", guarded(self._get_twin), allow_head=False),
            web.patch("/twins/{id}", guarded(self._patch_twin)),
            web.put("/twins/{id}", guarded(self._put_twin)),
            web.post("/twins/{id}/methods", guarded(self._invoke)),
        ]

    def _guarded(self, handler: Handler) -> Handler:
        """Faults, then version and authorization, then the work; errors come out as the hub writes them."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            fault = self._faults.take("registry", f"{request.method} {request.path}")
            try:
                if fault is Mode.TIMEOUT:
                    await asyncio.sleep(SILENCE)
                if fault in (Mode.TIMEOUT, Mode.DROP):
                    return _hang_up(request)
                if fault is not None and fault is not Mode.UNAVAILABLE_AFTER:
                    raise HubError(*_INJECTED[fault])
                if request.query.get("api-version") != API_VERSION:
                    raise HubError(Code.INVALID_PROTOCOL_VERSION, f"api-version is not {API_VERSION}.")
                self._gatekeeper.check(request.headers.get("Authorization"), request.path)
                response = await handler(request)
                if fault is Mode.UNAVAILABLE_AFTER:
                    raise HubError(*_INJECTED[fault])
            except HubError as error:
                return _refusal(request, error)
            return response

        return guarded

    # --- devices

    async def _put_device(self, request: web.Request) -> web.Response:
        identity = self._registry.put(_id(request), await _document(request), request.headers.get("If-Match"))
        return self._identity_response(identity)

    async def _get_device(self, request: web.Request) -> web.Response:
        return self._identity_response(self._registry.get(_id(request)))

    async def _delete_device(self, request: web.Request) -> web.Response:
        if_match = request.headers.get("If-Match")
        if if_match is None:
            raise HubError(Code.ARGUMENT_INVALID, "If-Match is missing.")
        self._registry.delete(_id(request), if_match)
        return web.Response(status=204)

    async def _bulk(self, request: web.Request) -> web.Response:
        result = bulk.run(await _json(request), self._registry, self._twins)
        return web.json_response(result, status=200 if result["isSuccessful"] else 400)

    async def _query(self, request: web.Request) -> web.Response:
        document = await _document(request)
        try:
            limit = int(request.headers.get("x-ms-max-item-count", PAGE))
            page, continuation = self._index.page(
                document.get("query"), max(limit, 1), request.headers.get("x-ms-continuation")
            )
        except ValueError:
            raise HubError(Code.ARGUMENT_INVALID, "x-ms-max-item-count or x-ms-continuation is malformed.") from None
        headers = {"x-ms-item-type": "Twin"} | ({"x-ms-continuation": continuation} if continuation else {})
        return web.json_response([self._with_connection(row) for row in page], headers=headers)

    # --- twins and methods

    async def _get_twin(self, request: web.Request) -> web.Response:
        return self._twin_response(self._twins.document(_id(request)))

    async def _patch_twin(self, request: web.Request) -> web.Response:
        return await self._update_twin(request, replace=False)

    async def _put_twin(self, request: web.Request) -> web.Response:
        return await self._update_twin(request, replace=True)

    async def _update_twin(self, request: web.Request, *, replace: bool) -> web.Response:
        document, if_match = await _document(request), request.headers.get("If-Match")
        return self._twin_response(self._twins.update(_id(request), document, if_match, replace=replace))

    async def _invoke(self, request: web.Request) -> web.Response:
        return web.json_response(await self._methods.invoke(_id(request), await _document(request)))

    # --- answers

    def _identity_response(self, identity: Identity) -> web.Response:
        return web.json_response(self._with_connection(identity), headers={"ETag": f'"{identity["etag"]}"'})

    def _twin_response(self, twin: dict[str, Any]) -> web.Response:
        return web.json_response(self._with_connection(twin), headers={"ETag": f'"{twin["etag"]}"'})

    def _with_connection(self, document: dict[str, Any]) -> dict[str, Any]:
        device_id = document["deviceId"]
        return document | {
            "connectionState": "Connected" if self._presence.find(device_id) else "Disconnected",
            "cloudToDeviceMessageCount": len(self._mailbox.pending(device_id)),
        }


def _id(request: web.Request) -> str:
    return request.match_info["id"]


async def _json(request: web.Request) -> Any:
    try:
        return await request.json()
    except ValueError:
        raise HubError(Code.ARGUMENT_INVALID, "the body is not JSON.") from None


async def _document(request: web.Request) -> dict[str, Any]:
    document = await _json(request)
    if not isinstance(document, dict):
        raise HubError(Code.ARGUMENT_INVALID, "the body is not a JSON object.")
    return document


def _refusal(request: web.Request, error: HubError) -> web.Response:
    response = web.json_response(
        body(error, request.path), status=error.code.status, headers={"iothub-errorcode": error.code.title}
    )
    if error.code is Code.THROTTLING:
        response.force_close()
    return response


def _hang_up(request: web.Request) -> web.Response:
    """Close the connection without an answer; aiohttp wants a response all the same, and finds nobody to send it to."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
