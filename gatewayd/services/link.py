"""Keeps the gateway connected to the hub.

Reconnecting is ours: the SDK stops for good at CONNACK 5, and a new certificate needs a new client. The hub allows
one connection a device, so that trying a new certificate is a switch: when the hub refuses it, the present one is
connected again before the error goes up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from ..errors import GatewayError, HubRefused
from ..upstream.base import Link, LinkCredential, LinkState
from .clock import Clock
from .events import Alarm

log = logging.getLogger(__name__)

_FIRST = timedelta(seconds=1)
_LAST = timedelta(minutes=1)
_LAST_REFUSED = timedelta(minutes=5)
"""A hub that says no is asked less often than one that is away; a person may enable the device at any time."""


class LinkKeeper:
    def __init__(self, *, link: Link, live: Callable[[], Awaitable[LinkCredential | None]], clock: Clock) -> None:
        """``live`` gives the current credential; None while there is none, or when it must not be used any more."""
        self._link = link
        self._live = live
        self._clock = clock
        self._lock = asyncio.Lock()
        self._alarm = Alarm()
        self._connected: list[Callable[[], None]] = []

    def on_connected(self, call: Callable[[], None]) -> None:
        self._connected.append(call)

    def ring(self) -> None:
        """Something has changed: try now."""
        self._alarm.ring()

    async def switch(self, credential: LinkCredential) -> None:
        async with self._lock:
            try:
                await self._link.connect(credential)
            except GatewayError:
                await self._go_back()
                raise
        self._announce()

    async def _go_back(self) -> None:
        try:
            if (present := await self._live()) is not None:
                await self._link.connect(present)
        except GatewayError as error:
            log.warning("could not go back to the present certificate: %s", error)
            self._alarm.ring()

    async def close(self) -> None:
        async with self._lock:
            await self._link.close()

    async def run(self) -> None:
        attempts = 0
        while True:
            wait = await self._attempt(attempts)
            if wait is None:
                attempts = 0
                await self._link.wait_down()
                continue
            attempts += 1
            await self._alarm.sleep(wait)

    async def _attempt(self, attempts: int) -> float | None:
        """None when the link is up; else how many seconds to wait."""
        async with self._lock:
            if self._link.status().state is LinkState.CONNECTED:
                return None
            try:
                credential = await self._live()
                if credential is None:
                    await self._link.close()
                    return _LAST.total_seconds()
                await self._link.connect(credential)
            except GatewayError as error:
                longest = _LAST_REFUSED if isinstance(error, HubRefused) else _LAST
                ceiling = min(_FIRST.total_seconds() * 2.0 ** min(attempts, 10), longest.total_seconds())
                if attempts == 0:
                    log.warning("the hub: %s", error)
                return ceiling * (0.5 + self._clock.dice() / 2)
        self._announce()
        return None

    def _announce(self) -> None:
        for call in self._connected:
            call()
