"""What an administrator may do about the hardware of a device: replace it, and think better of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..core import replacement as table
from ..core.model import (
    Binding,
    Device,
    DeviceKind,
    EnrollmentCode,
    JournalEntry,
    Replacement,
    ReplacementState,
    RevocationReason,
)
from ..errors import DeviceUnknown, InvalidArgument, NoReplacement, ReplacementEnded
from ..store.base import Store, Tx
from . import codes, replacing
from .bindings import bind
from .clock import Clock
from .events import Events, Progress, telling
from .status import StatusReader

Data = dict[str, Any]


class Swaps:
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        reader: StatusReader,
        code_lifetime: int,
        ring: Callable[[], None],
    ) -> None:
        """``ring`` wakes the loops."""
        self._store = store
        self._clock = clock
        self._events = events
        self._reader = reader
        self.code_lifetime = code_lifetime
        self._ring = ring

    async def begin(
        self, who: str, device_id: str, reason: str, code_lifetime: int, binding: Binding | None = None
    ) -> Data:
        """Begin, or go on with, a replacement: the code for the new hardware, shown this once."""
        try:
            why = RevocationReason(reason) if reason else table.DEFAULT_REASON
        except ValueError:
            known = ", ".join(RevocationReason)
            raise InvalidArgument(f"{reason!r} is not a reason for a revocation ({known}).") from None
        now = self._clock.now()

        def work(tx: Tx) -> tuple[list[JournalEntry], str, EnrollmentCode]:
            record = _leaf(tx, device_id)
            entries = replacing.begin(tx, record, why, who, now)
            if binding is not None:
                bind(tx, _leaf(tx, device_id), binding)
            code, kept = codes.make(tx, device_id, now, code_lifetime or self.code_lifetime)
            made = JournalEntry(
                now, device_id, who, "code-out", "done", f"open until {kept.expires_at:%Y-%m-%d %H:%M}Z"
            )
            tx.journal.append(made)
            return [*entries, made], code, kept

        entries, code, kept = await self._store.write(work)
        self._events.publish(*entries)
        self._ring()
        return await self._reader.with_code(device_id, code, kept.expires_at)

    async def cancel(self, who: str, device_id: str) -> Data:
        now = self._clock.now()
        entries = await self._store.write(lambda tx: replacing.cancel(tx, _leaf(tx, device_id), who, now))
        self._events.publish(*entries)
        self._ring()
        return await self._reader.device_show(device_id)

    async def follow(self, device_id: str, progress: Progress) -> Data:
        """Tell each step as it comes, until the new hardware is in service. Raises ReplacementEnded."""
        changed = asyncio.Event()
        tell = telling(progress)

        def listener(entry: JournalEntry) -> None:
            tell(entry)
            changed.set()

        with self._events.listening(device_id, listener):
            for name, done_at in (await self._store.read(lambda tx: _steps(tx, device_id))).items():
                if done_at is not None:
                    progress(name, "done")
            while True:
                changed.clear()
                last = await self._store.read(lambda tx: _last(tx, device_id))
                if last.state not in table.UNDER_WAY:
                    break
                await changed.wait()
        if last.state in (ReplacementState.CANCELLED, ReplacementState.OVERTAKEN):
            raise ReplacementEnded(f"The replacement of {device_id} is {last.state}.", device=device_id)
        shown = await self._reader.device_show(device_id)
        result: Data = shown["device"]
        return result


def _leaf(tx: Tx, device_id: str) -> Device:
    record = tx.devices.get(device_id)
    if record is None:
        raise DeviceUnknown(f"There is no device {device_id!r}.", device=device_id)
    if record.kind is not DeviceKind.LEAF:
        raise InvalidArgument(f"{device_id} is the gateway itself: see 'gatewayctl export' and 'gatewayctl adopt'.")
    return record


def _last(tx: Tx, device_id: str) -> Replacement:
    found = tx.replacements.all(device_id)
    if not found:
        raise NoReplacement(f"{device_id} was never replaced.", device=device_id)
    return found[-1]


def _steps(tx: Tx, device_id: str) -> dict[table.Step, datetime | None]:
    return table.steps(_last(tx, device_id), tx.revocations.all(device_id))
