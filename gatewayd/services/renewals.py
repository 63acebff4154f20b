"""The loop that begins what is due and drives on what is unfinished."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import replace
from datetime import datetime

from ..core import lifecycle
from ..core.model import Credential, CredentialState, Device, DeviceState, KeyAlgorithm, KeyRef
from ..errors import GatewayError
from ..store.base import Store, Tx
from .clock import Clock
from .credentials import CredentialEngine, Driven
from .events import Alarm

log = logging.getLogger(__name__)

_LONGEST_SLEEP = 60.0
"""Seconds: the wall clock may jump, so no sleep is trusted for longer."""

_WAIT_FOR_TIME = 10.0
"""Seconds between two looks at a clock that cannot be right."""

_AT_ONCE = 16


def unfinished_of(tx: Tx, device_id: str) -> list[Credential]:
    return [each for each in tx.credentials.all(device_id) if each.state in lifecycle.UNFINISHED]


def begin(tx: Tx, device: Device, algorithm: KeyAlgorithm, now: datetime) -> Credential:
    """Write down that the gateway wants a next generation, under a fresh CKA_ID. One at a time: when one is under way
    it is returned, with its next attempt moved to now."""
    if under_way := unfinished_of(tx, device.device_id):
        sooner = replace(under_way[-1], next_attempt_at=None)
        tx.credentials.put(sooner)
        return sooner
    credential = Credential(
        device_id=device.device_id,
        generation=tx.credentials.next_generation(device.device_id),
        state=CredentialState.WANTED,
        created_at=now,
        updated_at=now,
        key=KeyRef(secrets.token_bytes(16), algorithm),
    )
    tx.credentials.add(credential)
    return credential


class Renewals:
    def __init__(self, *, store: Store, clock: Clock, engine: CredentialEngine, algorithm: KeyAlgorithm) -> None:
        self._store = store
        self._clock = clock
        self._engine = engine
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
        """Start what is due. Returns the seconds until something is due again."""
        if not self._clock.sane():
            return _WAIT_FOR_TIME
        now = self._clock.now()
        await self._store.write(lambda tx: self._begin_due(tx, now))
        unfinished, moment = await self._store.read(
            lambda tx: (tx.credentials.unfinished(now), tx.credentials.next_moment(after=now))
        )
        waiting = [each for each in unfinished if not self._engine.drives(each.device_id, each.generation)]
        for credential in waiting[: max(_AT_ONCE - self._engine.running, 0)]:
            self._engine.start(credential.device_id, credential.generation).add_done_callback(self._driven)
        if moment is None:
            return _LONGEST_SLEEP
        return min((moment - now).total_seconds(), _LONGEST_SLEEP)

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
