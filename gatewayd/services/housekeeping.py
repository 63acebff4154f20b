"""What nobody waits for: keys that are not needed any more, codes long expired, messages long sent,
memory that was freed.

The journal is not cut: it is the audit trail, whose records prove each other (docs/operations.md says how it grows).
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from .. import memory
from ..store.base import Store
from .clock import Clock
from .events import Alarm
from .key_inventory import KeyInventory

_EVERY = 600.0
"""Seconds."""
_CODES_KEPT = timedelta(days=30)
_SENT_KEPT = timedelta(days=30)
"""A message that the hub has acknowledged is of use only to whoever looks for what was told, and when."""


class Housekeeping:
    def __init__(self, *, store: Store, clock: Clock, inventory: KeyInventory) -> None:
        self._store = store
        self._clock = clock
        self._inventory = inventory
        self._alarm = Alarm()

    def ring(self) -> None:
        """There may be something to do now."""
        self._alarm.ring()

    async def run(self) -> None:
        await self._alarm.rounds("housekeeping", self.round, _EVERY)

    async def round(self) -> None:
        if self._clock.sane():
            now = self._clock.now()
            await self._store.write(lambda tx: (tx.codes.purge(now - _CODES_KEPT), tx.outbox.purge(now - _SENT_KEPT)))
        await self._inventory.collect()
        await asyncio.to_thread(memory.give_back)
