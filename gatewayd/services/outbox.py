"""From the outbox to the hub, over the gateway's own link: each message until the hub has taken it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from ..core import revocation as table
from ..core.model import JournalEntry, Milestone, MilestoneProgress, OutboxMessage
from ..core.renewal import retry_at
from ..errors import GatewayError
from ..store.base import Store, Tx
from ..upstream import report
from ..upstream.base import Link, LinkState
from .clock import Clock
from .events import DAEMON, Alarm, Events

log = logging.getLogger(__name__)

_LONGEST_SLEEP = 30.0
_AT_ONCE = 16
"""Messages that wait for their PUBACK side by side; they go out in their order."""


class Outbox:
    def __init__(self, *, store: Store, clock: Clock, events: Events, link: Link) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._link = link
        self._alarm = Alarm()

    def ring(self) -> None:
        self._alarm.ring()

    async def run(self) -> None:
        await self._alarm.rounds("outbox", self.round, _LONGEST_SLEEP)

    async def round(self) -> None:
        """Send what is due, as long as the link is up."""
        while self._link.status().state is LinkState.CONNECTED:
            now = self._clock.now()
            messages = await self._store.read(lambda tx, now=now: tx.outbox.unsent(now, _AT_ONCE))  # type: ignore[misc]
            if not messages:
                return
            await asyncio.gather(*(self._send(message) for message in messages))

    async def _send(self, message: OutboxMessage) -> None:
        try:
            body: Mapping[str, Any] = json.loads(message.payload)
            await self._link.send(body, message_id=message.key, kind=message.kind)
        except GatewayError as error:
            await self._failed(message, error)
        else:
            await self._sent(message, body)

    async def _sent(self, message: OutboxMessage, body: Mapping[str, Any]) -> None:
        now = self._clock.now()

        def work(tx: Tx) -> JournalEntry | None:
            tx.outbox.put(replace(message, attempts=message.attempts + 1, sent_at=now, last_error=None))
            if message.kind != report.REVOCATION:
                return None
            return _reported(tx, body["deviceId"], body["serial"], message.key, now)

        if (entry := await self._store.write(work)) is not None:
            self._events.publish(entry)

    async def _failed(self, message: OutboxMessage, error: GatewayError) -> None:
        if self._link.status().state is not LinkState.CONNECTED:
            return  # not the message's fault: it goes out as soon as the link is back
        now = self._clock.now()
        words = f"{error.name()}: {error.message}"
        log.warning("message %s: %s", message.key, words)
        attempts = message.attempts + 1
        again = retry_at(now, attempts, self._clock.dice(), retry_after=error.retry_after)
        failed = replace(message, attempts=attempts, next_attempt_at=again, last_error=words)
        await self._store.write(lambda tx: tx.outbox.put(failed))


def _reported(tx: Tx, device_id: str, serial: str, key: str, now: datetime) -> JournalEntry | None:
    revocation = tx.revocations.get(device_id, serial)
    if revocation is None or table.is_done(revocation, Milestone.REPORTED):
        return None
    progress = revocation.progress.get(Milestone.REPORTED, MilestoneProgress())
    done = table.done(progress, now, f"message {key}")
    tx.revocations.put(replace(revocation, progress={**revocation.progress, Milestone.REPORTED: done}))
    words = f"message {key}"
    entry = JournalEntry(now, device_id, DAEMON, str(Milestone.REPORTED), "done", words, serial=serial)
    tx.journal.append(entry)
    return entry
