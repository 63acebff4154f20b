"""What is done with the daemon itself (control.base.MaintenanceOperations): its configuration and its database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..core.model import JournalEntry
from ..errors import TooManyRequests
from ..store import backup
from ..store.base import Store
from .clock import Clock
from .events import Events
from .token_operations import Caller

Data = dict[str, Any]


class Maintenance:
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        gateway_id: str,
        database: Path,
        reload: Callable[[str], Awaitable[Data]],
    ) -> None:
        """``reload`` takes up the configuration anew, on behalf of whoever it is given."""
        self._store = store
        self._clock = clock
        self._events = events
        self._gateway_id = gateway_id
        self._database = database
        self._reload = reload
        self._backing_up = asyncio.Lock()

    async def reload(self, caller: Caller) -> Data:
        return await self._reload(f"uid:{caller.uid}")

    async def backup(self, caller: Caller, file: int) -> Data:
        """``file`` is a descriptor that is written to and closed. In a thread and on a connection of its own: the
        loops go on, and so do readers and writers."""
        with os.fdopen(file, "wb") as target:
            if self._backing_up.locked():
                raise TooManyRequests("A backup is being made already.", retry_after=10.0)
            async with self._backing_up:
                now = self._clock.now()
                scratch = self._database.with_name("backup.partial")
                manifest = await asyncio.to_thread(backup.make, self._database, scratch, target, now)
        entry = JournalEntry(now, self._gateway_id, f"uid:{caller.uid}", "backup", "done", f"sha256 {manifest.sha256}")
        await self._store.write(lambda tx: tx.journal.append(entry))
        self._events.publish(entry)
        return asdict(manifest)
