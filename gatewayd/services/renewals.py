"""The loop that begins what is due and drives on what is unfinished."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import datetime, timedelta

from ..core.model import Credential, CredentialState, DeviceState, KeyAlgorithm
from ..core.renewal import BELIEVED
from ..store.base import Store, Tx
from .clock import Clock
from .credentials import CredentialEngine, Driven
from .events import Alarm
from .generations import begin, unfinished_of
from .turns import Turns

_LONGEST_SLEEP = 60.0
"""Seconds: the wall clock may jump, so no sleep is trusted for longer."""

_WAIT_FOR_TIME = 10.0
"""Seconds between two looks at a clock that cannot be right."""

_AT_ONCE = 16

_HASTEN_WITHIN = timedelta(minutes=2)
_HASTEN_EVERY = 600.0
"""Seconds."""
_HASTENS = (CredentialState.WANTED, CredentialState.KEYED, CredentialState.ISSUED)
"""Not what waits for a person, nor for a CA that has said when to come back."""


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
        self._hastened = False
        self._hastened_at = -_HASTEN_EVERY

    def ring(self) -> None:
        self.alarm.ring()

    def hasten(self) -> None:
        """The network is back: what has failed for want of it is tried soon, each at a moment of its own. The breaker,
        the rate limit and the turns hold as ever. A link that comes and goes hastens once in a while only."""
        if time.monotonic() >= self._hastened_at + _HASTEN_EVERY:
            self._hastened_at = time.monotonic()
            self._hastened = True
            self.alarm.ring()

    async def run(self) -> None:
        await self.alarm.rounds("renewals", self.round, _LONGEST_SLEEP)

    async def round(self) -> float:
        """Start what is due. Returns the seconds until something is due again; a drive that ends rings."""
        if not self._clock.sane():
            return _WAIT_FOR_TIME
        now = self._clock.now()
        if self._hastened:
            await self._store.write(lambda tx: self._hasten(tx, now))
            self._hastened = False
        misled, due = await self._store.read(lambda tx: (_is_misled(tx, now), bool(tx.credentials.due(now, 1))))
        if misled:
            await self._store.write(lambda tx: _forget_what_misleads(tx, now))
        if misled or due:
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

    def _hasten(self, tx: Tx, now: datetime) -> None:
        for each in tx.credentials.put_off(after=now + _HASTEN_WITHIN):
            if each.attempts and each.state in _HASTENS:
                tx.credentials.put(replace(each, next_attempt_at=now + _HASTEN_WITHIN * self._clock.dice()))

    def _begin_due(self, tx: Tx, now: datetime) -> None:
        for current in tx.credentials.due(now):
            device = tx.devices.get(current.device_id)
            if device is None or device.state is not DeviceState.ACTIVE or current.key is None:
                continue
            if not unfinished_of(tx, device.device_id):
                begin(tx, device, self._algorithm, now)


def _is_misled(tx: Tx, now: datetime) -> bool:
    """Whether a moment was written down while the clock was ahead."""
    return bool(tx.credentials.put_off(now + BELIEVED, 1) or tx.credentials.postponed(now + BELIEVED))


def _forget_what_misleads(tx: Tx, now: datetime) -> None:
    for each in tx.credentials.put_off(now + BELIEVED):
        tx.credentials.put(replace(each, next_attempt_at=None))
    for each in tx.credentials.postponed(now + BELIEVED):
        tx.credentials.put(replace(each, renew_at=now))
