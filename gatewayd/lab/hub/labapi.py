"""The /lab/ endpoints: what a test or a demo plays in the cloud's place, and what it may look at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from .errors import HubError
from .faults import Faults
from .mailbox import Mailbox
from .methods import Methods
from .presence import Presence
from .state import State
from .twins import Twins

_POLL = 0.02
"""Seconds."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LabApi:
    """Unauthenticated, and not part of the hub's protocol."""

    def __init__(
        self,
        state: State,
        twins: Twins,
        mailbox: Mailbox,
        presence: Presence,
        methods: Methods,
        faults: Faults,
    ) -> None:
        self._state = state
        self._twins = twins
        self._mailbox = mailbox
        self._presence = presence
        self._methods = methods
        self._faults = faults

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/lab/messages", _told(self._messages)),
            web.get("/lab/twins/{id}", _told(self._twin)),
            web.get("/lab/connections", _told(self._connections)),
            web.get("/lab/faults", _told(self._list_faults)),
            web.post("/lab/faults", _told(self._add_fault)),
            web.delete("/lab/faults", _told(self._clear_faults)),
            web.post("/lab/desired", _told(self._desired)),
            web.post("/lab/methods", _told(self._method)),
            web.post("/lab/c2d", _told(self._c2d)),
        ]

    async def _messages(self, request: web.Request) -> web.Response:
        """D2C messages as message routing would hand them on; ``?after=`` a sequence number, ``&wait=`` the seconds to
        hold the request when there is none yet."""
        after = int(request.query.get("after", 0))
        deadline = asyncio.get_running_loop().time() + float(request.query.get("wait", 0))
        while True:
            if self._state.has_entry("message", after) or asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(_POLL)
        messages = [{"sequence": sequence, **entry} for sequence, entry in self._state.entries("message", after)]
        return web.json_response(messages)

    async def _twin(self, request: web.Request) -> web.Response:
        return web.json_response(self._twins.document(request.match_info["id"]))

    async def _connections(self, request: web.Request) -> web.Response:
        """Who is connected, every CONNECT decision with its reason, and why connections ended; oldest first."""
        peers = [connection.peer for connection in self._presence.all()]
        current = [{"deviceId": peer.device_id} | peer.evidence for peer in peers]
        history = [entry for _, entry in self._state.entries("decision")]
        ended = [entry for _, entry in self._state.entries("ended")]
        return web.json_response({"current": current, "history": history, "ended": ended})

    async def _list_faults(self, request: web.Request) -> web.Response:
        return web.json_response(self._faults.pending())

    async def _add_fault(self, request: web.Request) -> web.Response:
        """``{"where": "registry"|"mqtt", "mode": …, "times"?: 1, "match"?: ""}``; see faults.py."""
        self._faults.add(await _document(request))
        return web.json_response(self._faults.pending())

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response([])

    async def _desired(self, request: web.Request) -> web.Response:
        """``{"deviceId", "desired": {…}}``: merge into the desired properties."""
        document = await _document(request)
        patch = {"properties": {"desired": document["desired"]}}
        return web.json_response(self._twins.update(document["deviceId"], patch, None, replace=False))

    async def _method(self, request: web.Request) -> web.Response:
        """``{"deviceId", "methodName", "payload"?, …}`` → ``{"status", "payload"}``."""
        document = await _document(request)
        return web.json_response(await self._methods.invoke(document["deviceId"], document))

    async def _c2d(self, request: web.Request) -> web.Response:
        """``{"deviceId", "body": text, "properties"?: {}}``."""
        document = await _document(request)
        sequence = self._mailbox.post(document["deviceId"], document["body"], document.get("properties", {}))
        return web.json_response({"sequence": sequence})


async def _document(request: web.Request) -> dict[str, Any]:
    document: dict[str, Any] = await request.json()
    return document


def _told(handler: Handler) -> Handler:
    """Errors as ``{"error", "message"}``: plain, unlike the hub's own."""

    async def told(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except HubError as error:
            answer = {"error": error.code.title, "message": error.message}
            return web.json_response(answer, status=error.code.status)
        except (KeyError, TypeError, ValueError) as error:
            return web.json_response({"error": "BadRequest", "message": repr(error)}, status=400)

    return told
