"""What nobody waits for: keys of retired generations, codes long expired, the clock's floor."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta

from ..core.model import CredentialState
from ..errors import GatewayError
from ..keys.base import KeyStore
from ..store.base import Store
from .clock import SystemClock

log = logging.getLogger(__name__)

_EVERY = 600.0
"""Seconds."""
_CODES_KEPT = timedelta(days=30)


class Housekeeping:
    def __init__(self, *, store: Store, keys: KeyStore, clock: SystemClock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    async def run(self) -> None:
        while True:
            try:
                await self.round()
            except GatewayError as error:
                log.warning("housekeeping: %s", error)
            await asyncio.sleep(_EVERY)

    async def round(self) -> None:
        await self._clock.raise_floor(self._store)
        before = self._clock.now() - _CODES_KEPT
        await self._store.write(lambda tx: tx.codes.purge(before))
        retired = await self._store.read(lambda tx: tx.credentials.in_states([CredentialState.RETIRED]))
        for credential in retired:
            if credential.key is None:
                continue
            # The key first, the record after: a crash between destroys nothing twice.
            await self._keys.destroy(credential.key.id)
            without = replace(credential, key=None)
            await self._store.write(lambda tx, record=without: tx.credentials.put(record))  # type: ignore[misc]
            log.info("%s: the key of generation %d was removed", credential.device_id, credential.generation)
