"""aiohttp's low-level server, with the two things that it leaves to others: to say when a connection is gone, and to
answer what is not HTTP in our words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from . import wire

KEEP_ALIVE_SECONDS: Final = 15.0
"""For a request's head to be complete, from the start of the connection or from the end of the last request."""
_LINGER_SECONDS: Final = 2.0
"""For a client to stop sending a body that was refused before it was read."""

log = logging.getLogger(__name__)


class HttpServer(web.Server):
    """A protocol factory for ``loop.connect_accepted_socket``."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handler)
        self._gone: dict[web.RequestHandler, asyncio.Event] = {}

    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to say no
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=_LINGER_SECONDS,
            auto_decompress=False,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self._gone[handler] = asyncio.Event()
        super().connection_made(handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._gone.pop(handler).set()

    async def gone(self, handler: web.RequestHandler) -> None:
        """Return when this connection is lost, at once when it is already."""
        if event := self._gone.get(handler):
            await event.wait()


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Only what the parser refused comes here: the handler answers everything else itself. A stranger's garbage
        is worth no traceback in the log, nor an echo."""
        log.debug("%s sent what is not HTTP: %s", request.remote, type(exc).__name__)
        response = to_response(wire.malformed())
        response.force_close()
        return response


def to_response(answer: wire.Answer) -> web.Response:
    """Always with a Content-Length, never chunked: strongSwan and libest read nothing else."""
    headers = {"Content-Type": answer.content_type, "Server": "gatewayd", **dict(answer.headers)}
    return web.Response(status=answer.status, body=answer.body, headers=headers)
