"""Where Prometheus reads the metrics: GET /metrics on a UNIX socket or a loopback address."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from ..config import MetricsSettings
from ..errors import GatewayError

log = logging.getLogger(__name__)

_AGAIN: Final = 30.0
"""Seconds until another attempt to listen."""
_WITHIN: Final = 10.0
"""Seconds for one answer: no longer than Prometheus waits."""
_MODE: Final = 0o660
"""Of the socket: the daemon's user and group."""


class MetricsServer:
    def __init__(self, exposition: Callable[[], Awaitable[bytes]], settings: MetricsSettings) -> None:
        self._exposition = exposition
        self._settings = settings
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Listen until cancelled; where that is not possible, try again."""
        app = web.Application(client_max_size=0)
        app.router.add_get("/metrics", self._answer)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=90.0, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await self._listen(runner)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        address = self._settings.address()
        assert address is not None
        while True:
            site = web.UnixSite(runner, str(address)) if isinstance(address, Path) else web.TCPSite(runner, *address)
            try:
                await site.start()
                if isinstance(address, Path):
                    address.chmod(_MODE)
            except OSError as error:
                await site.stop()  # or the runner keeps each that failed
                log.error("the metrics cannot be served at %s: %s", self._settings.listen, error.strerror)
                await asyncio.sleep(_AGAIN)
            else:
                log.info("the metrics are at %s", self._settings.listen)
                return

    async def _answer(self, _: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_WITHIN), self._one_at_a_time:
                body = await self._exposition()
        except (GatewayError, TimeoutError) as error:
            log.warning("the metrics could not be gathered: %s", error)
            return web.Response(status=503, text="The metrics could not be gathered; the log says why.\n")
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
