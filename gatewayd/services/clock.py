"""The wall clock and the dice, as a port: services never ask the system themselves."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Protocol

from ..store.base import Store

_SETTING = "clock-floor"


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock's time, in UTC."""

    def sane(self) -> bool:
        """Whether dates may be decided by it: False while it is earlier than a time that was seen before."""

    def dice(self) -> float:
        """A random number in [0, 1): the jitter of retries, not a secret."""


class SystemClock:
    """Knows a durable floor: the latest time that an earlier run has seen. A gateway that boots in 1970 waits for
    its time instead of taking every certificate for not yet valid."""

    def __init__(self) -> None:
        self._floor = datetime.fromtimestamp(0, UTC)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sane(self) -> bool:
        return self.now() >= self._floor

    def dice(self) -> float:
        return random.random()  # noqa: S311 - jitter

    async def load(self, store: Store) -> None:
        kept = await store.read(lambda tx: tx.settings.get(_SETTING))
        if kept:
            self._floor = datetime.fromisoformat(kept)

    async def raise_floor(self, store: Store) -> None:
        """Remember the present time, unless it is itself below the floor."""
        if self.sane():
            self._floor = self.now()
            text = self._floor.isoformat()
            await store.write(lambda tx: tx.settings.set(_SETTING, text))
