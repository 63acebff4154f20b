"""What nobody waits for: keys that are not needed any more, codes long expired."""

from __future__ import annotations

from datetime import timedelta

from ..store.base import Store
from .clock import Clock
from .events import Alarm
from .key_inventory import KeyInventory

_EVERY = 600.0
"""Seconds."""
_CODES_KEPT = timedelta(days=30)


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
        before = self._clock.now() - _CODES_KEPT
        await self._store.write(lambda tx: tx.codes.purge(before))
        await self._inventory.collect()
