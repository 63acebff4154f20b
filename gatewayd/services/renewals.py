"""The loop that begins what is due and drives on what is unfinished."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from ..core.model import Credential, DeviceState, KeyAlgorithm
from ..errors import GatewayError
from ..store.base import Store, Tx
from .clock import Clock
from .credentials import CredentialEngine, Driven
from .events import Alarm
from .generations import begin, unfinished_of
from .turns import Turns

log = logging.getLogger(__name__)

_LONGEST_SLEEP = 60.0
"""Seconds: the wall clock may jump, so no sleep is trusted for longer."""

_WAIT_FOR_TIME = 10.0
"""Seconds between two looks at a clock that cannot be right."""

_AT_ONCE = 16


class Renewals:
    def __init__(
        self, *, store: Store, clock: Clock, engine: CredentialEngine, turns: Turns, algorithm: KeyAlgorithm
    ) -> None:
        self._store = store
        self._clock = clock
        self._engine = engine
        self._turns = turns
        self._algorithm = algorithm
        self.alarm = Alarm()

    def ring(self) -> None:
        self.alarm.ring()

    async def run(self) -> None:
        while True:
            wait = _LONGEST_SLEEP
            try:
                wait = await self.round()
            except GatewayError as error:
                log.error("renewals: %s", error)
            await self.alarm.sleep(wait)

    async def round(self) -> float:
        """Start what is due. Returns the seconds until something is due again; a drive that ends rings."""
        if not self._clock.sane():
            return _WAIT_FOR_TIME
        now = self._clock.now()
        if await self._store.read(lambda tx: bool(tx.credentials.due(now, 1))):
            await self._store.write(lambda tx: self._begin_due(tx, now))
        unfinished, moment = await self._store.read(
            lambda tx: (tx.credentials.unfinished(now, 2 * _AT_ONCE), tx.credentials.next_moment(after=now))
        )
        self._start([each for each in unfinished if not self._engine.drives(each)][: self._room()])
        going, wait = await self._turns.next(now, self._room(), self._engine.drives)
        self._start(going)
        if moment is not None:
            wait = min(wait, (moment - now).total_seconds())
        return min(wait, _LONGEST_SLEEP)

    def _room(self) -> int:
        return max(_AT_ONCE - self._engine.running, 0)

    def _start(self, credentials: list[Credential]) -> None:
        for credential in credentials:
            self._engine.start(credential.device_id, credential.generation).add_done_callback(self._driven)

    def _driven(self, task: asyncio.Task[Driven]) -> None:
        """There may be room for another now. Not after a broken disk, or it would be tried without a pause."""
        if not task.cancelled() and task.exception() is None:
            self.alarm.ring()

    def _begin_due(self, tx: Tx, now: datetime) -> None:
        for current in tx.credentials.due(now):
            device = tx.devices.get(current.device_id)
            if device is None or device.state is not DeviceState.ACTIVE or current.key is None:
                continue
            if not unfinished_of(tx, device.device_id):
                begin(tx, device, self._algorithm, now)
