"""Takes up a new configuration while all goes on: what is live holds at once, what is not is named until a restart, and
a bad one changes nothing. Which settings are which is config.changes' decision."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import datetime
from pathlib import Path

from .config import Settings, changes, load
from .control.base import Data
from .core.model import JournalEntry
from .errors import ConfigInvalid, ReloadRefused, RestartNeeded
from .front import Front
from .parts import Parts
from .services import own_record, views
from .services.events import DAEMON
from .store.base import Tx
from .systemd import notify

log = logging.getLogger(__name__)


class Reloading:
    def __init__(self, parts: Parts, front: Front, file: Path) -> None:
        """``file``: the configuration."""
        self._parts = parts
        self._front = front
        self._file = file
        self._lock = asyncio.Lock()
        self._loaded_at = parts.clock.now()
        self._needs_restart: tuple[str, ...] = ()
        self._refused: tuple[str, datetime] | None = None

    async def reload(self, who: str = DAEMON) -> Data:
        """Returns what ``gatewayctl reload --json`` prints. Raises ReloadRefused, and StoreBroken when it could not be
        written down; the settings before it stay in force then."""
        async with self._lock:
            # systemd waits for a READY=1 that comes after this (sd_notify(3)).
            notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=Reading the configuration")
            try:
                return await self._reload(who)
            finally:
                notify("READY=1", f"STATUS={self.sentence()}")

    def sentence(self) -> str:
        """How the daemon stands, for ``systemctl status``."""
        serving = f"Serving {self._parts.id}"
        if self._refused:
            return f"{serving}; the new configuration was refused: {self._refused[0]}"
        if self._needs_restart:
            return f"{serving}; a restart is needed for {', '.join(self._needs_restart)}"
        return serving

    async def _reload(self, who: str) -> Data:
        try:
            new = await asyncio.to_thread(load, self._file)
            change = changes.decide(self._parts.settings, new)
        except ConfigInvalid as error:
            log.error("the new configuration is refused, the one before stays in force: %s", error.message)
            self._refused = error.message, self._parts.clock.now()
            await self._write_down(who, "failed", error.message)
            raise ReloadRefused(error.message) from error
        words = [f"in force: {', '.join(change.applied) or 'nothing new'}"]
        if change.needs_restart:
            words.append(f"after a restart: {', '.join(change.needs_restart)}")
        await self._write_down(who, "done", "; ".join(words), change.settings)
        take_up(self._parts, self._front, change.settings)
        self._needs_restart, self._refused, self._loaded_at = change.needs_restart, None, self._parts.clock.now()
        return {"applied": list(change.applied), "needs_restart": list(change.needs_restart)}

    async def _write_down(self, who: str, outcome: str, detail: str, settings: Settings | None = None) -> None:
        entry = JournalEntry(self._parts.clock.now(), self._parts.id, who, "configuration", outcome, detail)

        def work(tx: Tx) -> None:
            if settings is not None:
                own_record.adopt(tx, settings.gateway, entry.at)
            tx.journal.append(entry)

        await self._parts.store.write(work)
        self._parts.events.publish(entry)

    def _shown(self) -> Data:
        refused, at = self._refused or (None, None)
        return views.present(
            {
                "file": str(self._file),
                "loaded_at": views.when(self._loaded_at),
                "needs_restart": list(self._needs_restart) or None,
                "last_error": refused,
                "last_error_at": views.when(at),
            }
        )

    def status(self) -> tuple[Data, list[Data]]:
        """How it stands, and what of it waits for a person."""
        found = []
        if self._refused:
            found.append(views.waiting(f"The new configuration was refused: {self._refused[0]}", ReloadRefused))
        if self._needs_restart:
            names = ", ".join(self._needs_restart)
            found.append(views.waiting(f"New values are not in force yet: {names}.", RestartNeeded))
        return self._shown(), found


def take_up(parts: Parts, front: Front, settings: Settings) -> None:
    """What is live of ``settings`` holds from now on, in every part that uses it (config.changes.LIVE)."""
    parts.settings = settings
    logging.getLogger().setLevel(settings.log.level.upper())
    policies = settings.policies
    parts.engine.policies = parts.enrollments.policies = policies
    parts.turns.policy, parts.turns.paced = policies.default, settings.renewal.paced
    parts.sources.take_up(settings.revocation)
    parts.hooks.take_up(settings.hooks)
    front.operations.leaves.code_lifetime = front.swaps.code_lifetime = settings.control.code_lifetime
