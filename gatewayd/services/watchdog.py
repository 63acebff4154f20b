"""Feeds systemd's watchdog, and only with real progress: the loops that must never stand still have lately come round,
and the store has just answered. A daemon whose event loop turns while its work does not is one to restart."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence

from ..errors import GatewayError
from ..messages import kind
from ..store.base import Store
from ..systemd import notify
from .events import Alarm

log = logging.getLogger(__name__)

STALE = 150.0
"""Seconds without coming round after which a loop counts as stuck; the watched ones sleep for a minute at most."""
_STORE_WITHIN = 10.0


def interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two feedings, half of what systemd allows (sd_watchdog_enabled(3)); None when it does not."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2_000_000 if microseconds.isdigit() and int(microseconds) else None


class Watchdog:
    def __init__(self, *, store: Store, watched: Sequence[Alarm]) -> None:
        self._store = store
        self._watched = watched

    async def run(self) -> None:
        if (every := interval()) is None:
            return
        while True:
            if await self._progressing():
                notify("WATCHDOG=1")
            await asyncio.sleep(every)

    async def _progressing(self) -> bool:
        if any(each.since_progress > STALE for each in self._watched):
            log.critical("a loop has not come round for %.0f s; the watchdog is not fed", STALE, extra=kind("stuck"))
            return False
        try:
            async with asyncio.timeout(_STORE_WITHIN):
                await self._store.read(lambda tx: tx.settings.get("registrar"))
        except (GatewayError, TimeoutError) as error:
            log.critical("the store does not answer; the watchdog is not fed: %s", error, extra=kind("stuck"))
            return False
        return True
