"""Shows the gateway's state as reported properties of its twin, whenever it has changed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from .. import __version__
from ..errors import GatewayError
from ..store.base import Store, Tx
from ..upstream import report
from ..upstream.base import Link, LinkState
from .events import Alarm

log = logging.getLogger(__name__)

_SETTLE = 1.0
"""Seconds: what changes together is reported together."""
_LONGEST_SLEEP = 3600.0


class TwinReporter:
    def __init__(self, *, store: Store, link: Link, gateway_id: str) -> None:
        self._store = store
        self._link = link
        self._gateway_id = gateway_id
        self._alarm = Alarm()
        self._reported: dict[str, Any] | None = None

    def ring(self) -> None:
        self._alarm.ring()

    def forget(self) -> None:
        """After a reconnect: what the hub holds is not known for sure."""
        self._reported = None
        self._alarm.ring()

    async def run(self) -> None:
        while True:
            await self._alarm.sleep(_LONGEST_SLEEP)
            await asyncio.sleep(_SETTLE)
            try:
                await self._report()
            except GatewayError as error:
                log.warning("the twin: %s", error)

    async def _report(self) -> None:
        if self._link.status().state is not LinkState.CONNECTED:
            return
        state = await self._store.read(self._state)
        if state != self._reported:
            await self._link.report(state)
            self._reported = state

    def _state(self, tx: Tx) -> dict[str, Any]:
        current = tx.credentials.current(self._gateway_id)
        leaves, revocations = tx.devices.count_leaves(), tx.revocations.open()
        return report.reported_state(__version__, current, leaves, revocations, tx.journal.last_head())
