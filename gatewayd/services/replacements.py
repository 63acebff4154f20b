"""The loop behind a hardware swap: says when the id is free for the new hardware, and lifts the pin when its time has
come. What lies between, the certificate and the pin, is driven with the credential."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ..ca.base import Issuer
from ..core import replacement as table
from ..core.model import JournalEntry, Replacement, ReplacementState
from ..core.renewal import is_due, retry_at
from ..core.replacement import Event
from ..errors import GatewayError, PinLost
from ..store.base import Store, Tx
from ..upstream.base import Way
from . import replacing
from .clock import Clock
from .events import DAEMON, Alarm, Events
from .health import Health

log = logging.getLogger(__name__)

_LONGEST_SLEEP = 600.0
_WAIT_FOR_TIME = 10.0
_LOOK = timedelta(minutes=10)
"""At the latest after that long it is noticed that somebody has changed a pin. A few devices are pinned at a time."""
_AGO = datetime.min.replace(tzinfo=UTC)
_RETRY_LAST = timedelta(minutes=10)
"""Somebody stands beside the new hardware."""


class Replacements:
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        health: Health,
        way: Way,
        issuer: Issuer,
        gateway_id: str,
        exclusive: Callable[[str], AbstractAsyncContextManager[None]],
        drive_on: Callable[[], None],
    ) -> None:
        """``exclusive`` keeps a device's renewals out meanwhile; ``drive_on`` wakes whoever drives credentials."""
        self._store = store
        self._clock = clock
        self._events = events
        self._health = health
        self._way = way
        self._issuer = issuer
        self._gateway_id = gateway_id
        self._exclusive = exclusive
        self._drive_on = drive_on
        self._alarm = Alarm()
        self._look_at: dict[str, datetime] = {}
        """When the next look at a device's pin is due."""

    def ring(self) -> None:
        self._alarm.ring()

    async def run(self) -> None:
        await self._alarm.rounds("replacements", self.round, _LONGEST_SLEEP)

    async def round(self) -> float | None:
        """Returns the seconds until something is due again."""
        if not self._clock.sane():
            return _WAIT_FOR_TIME
        for found in await self._store.read(lambda tx: tx.replacements.open()):
            due = _due(found, self._clock.now())
            if due is not None and due <= self._clock.now():
                await (self._shut(found) if found.state is ReplacementState.CLOSING else self._lift(found))
            elif found.state is ReplacementState.PINNED and self._clock.now() >= self._look_at.get(
                found.device_id, _AGO
            ):
                await self._look(found)
        now = self._clock.now()
        still_open = await self._store.read(lambda tx: tx.replacements.open())
        pinned = {each.device_id for each in still_open if each.state is ReplacementState.PINNED}
        self._look_at = {device_id: at for device_id, at in self._look_at.items() if device_id in pinned}
        moments = [*(_due(each, now) for each in still_open), *self._look_at.values()]
        soonest = min((each for each in moments if each is not None and each > now), default=None)
        return None if soonest is None else (soonest - now).total_seconds()

    async def _shut(self, found: Replacement) -> None:
        """Once no old certificate is open any more, see for ourselves that the id is disabled: it may have been
        enabled again by hand since the last one was verified."""
        now = self._clock.now()
        by_pin = self._way.shuts_by_pin(found.device_id)
        if not await self._store.read(lambda tx: replacing.is_shut(tx, found, now, by_pin=by_pin)):
            return
        try:
            if await self._more_has_turned_up(found):
                return
            with self._health.watch(self._health.registry):
                evidence = await self._way.keep_out(found.device_id, f"hardware is being replaced: {found.reason}")
        except GatewayError as error:
            await self._failed(found, "shut-out", error)
            return
        now = self._clock.now()
        entry = await self._store.write(lambda tx: replacing.shut_out(tx, found, evidence, now, by_pin=by_pin))
        if entry is not None:
            self._events.publish(entry)
            self._drive_on()

    async def _more_has_turned_up(self, found: Replacement) -> bool:
        """The old gateway may have renewed since it was exported. With what is known revoked it cannot do so any more:
        so this comes to an end."""
        if found.device_id != self._gateway_id:
            return False
        with self._health.watch(self._health.issuer):
            alive = await self._issuer.alive(found.device_id)
        now = self._clock.now()
        entries = await self._store.write(lambda tx: replacing.take_in(tx, found, alive, found.reason, now))
        self._events.publish(*entries)
        return bool(entries)

    async def _look(self, found: Replacement) -> None:
        """Whether the pin is still there. It is not put back: somebody with rights on the hub has taken it away, and a
        person has to know of it."""
        self._look_at[found.device_id] = self._clock.now() + _LOOK * (1 - self._clock.dice() / 5)
        ours = await self._store.read(lambda tx: replacing.pinnable(tx, found))
        try:
            with self._health.watch(self._health.registry):
                await self._way.check_pin(found.device_id, ours)
        except PinLost as error:
            await self._note(found, f"{error.name()}: {error.message}")
        except GatewayError as error:
            log.warning("the pin of %s could not be looked at: %s", found.device_id, error)
        else:
            await self._note(found, None)

    async def _note(self, seen: Replacement, words: str | None) -> None:
        """That the pin is lost, or is there again; told once."""
        now = self._clock.now()

        def work(tx: Tx) -> JournalEntry | None:
            found = tx.replacements.open_of(seen.device_id)
            if found is None or found.state is not ReplacementState.PINNED or found.last_error == words:
                return None
            tx.replacements.put(replace(found, last_error=words))
            outcome, detail = ("failed", words) if words else ("done", "as it was written")
            entry = JournalEntry(now, found.device_id, DAEMON, "pin", outcome, detail)
            tx.journal.append(entry)
            return entry

        if (entry := await self._store.write(work)) is not None:
            self._events.publish(entry)

    async def _lift(self, found: Replacement) -> None:
        async with self._exclusive(found.device_id):
            begun = await self._move(found, Event.START)
            if begun is None:
                return
            try:
                evidence = await self._unpin(begun)
            except GatewayError as error:
                await self._failed(begun, "pin-lifted", error)
            else:
                await self._move(begun, Event.DONE, evidence)

    async def _unpin(self, begun: Replacement) -> str:
        ours = await self._store.read(lambda tx: replacing.pinnable(tx, begun))
        with self._health.watch(self._health.registry):
            return await self._way.unpin(begun.device_id, ours)

    async def _move(self, seen: Replacement, event: Event, evidence: str = "") -> Replacement | None:
        """One step of the table; None when there is none to take: the replacement has been overtaken meanwhile, one
        more certificate was revoked since it was known how long the pin has to last, or one is not verified yet."""
        now = self._clock.now()

        def work(tx: Tx) -> tuple[Replacement | None, JournalEntry | None]:
            found = tx.replacements.open_of(seen.device_id)
            if found is None or found.number != seen.number:
                return None, None
            if event is Event.START:
                found = replace(found, state=table.recover(found.state))
                until = table.lift_at(tx.credentials.all(found.device_id), now)
                if until > now:
                    tx.replacements.put(replace(found, lift_at=until))
                    return None, None
                if not table.may_lift(tx.revocations.all(found.device_id)):
                    return None, None
            state, _ = table.step(found.state, event)
            moved = replace(found, state=state, ended_at=now if state in table.FINAL else None)
            entry = None
            if event is Event.DONE:
                moved = replace(moved, last_error=None, next_attempt_at=None)
                entry = JournalEntry(now, found.device_id, DAEMON, "pin-lifted", "done", evidence)
                tx.journal.append(entry)
            tx.replacements.put(moved)
            return moved, entry

        moved, entry = await self._store.write(work)
        if entry is not None:
            self._events.publish(entry)
        return moved

    async def _failed(self, seen: Replacement, what: str, error: GatewayError) -> None:
        now = self._clock.now()
        words = f"{error.name()}: {error.message}"
        attempts = seen.attempts + 1
        again = retry_at(now, attempts, self._clock.dice(), retry_after=error.retry_after, longest=_RETRY_LAST)

        def work(tx: Tx) -> JournalEntry | None:
            found = tx.replacements.open_of(seen.device_id)
            if found is None or found.state is not seen.state:
                return None
            state = found.state
            if state is ReplacementState.LIFTING:
                state, _ = table.step(state, Event.FAILED)
            tx.replacements.put(replace(found, state=state, attempts=attempts, next_attempt_at=again, last_error=words))
            entry = JournalEntry(now, found.device_id, DAEMON, what, "failed", words)
            tx.journal.append(entry)
            return entry

        if (entry := await self._store.write(work)) is not None:
            self._events.publish(entry)


def _due(found: Replacement, now: datetime) -> datetime | None:
    """When the loop has something to do about it; for a closing one, whenever it is rung."""
    again = None if is_due(found.next_attempt_at, now) else found.next_attempt_at
    if found.state is ReplacementState.CLOSING:
        return again or now
    if found.state not in table.IN_FORCE or found.lift_at is None:
        return None
    return max(found.lift_at, again or found.lift_at)
