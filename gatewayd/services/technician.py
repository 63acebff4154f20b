"""The technician's page: who is let in, and what they may do there (leaf.page.base.Technician)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from ..core import page
from ..core.listing import Wanted
from ..core.model import DeviceKind, JournalEntry
from ..core.page import PageSession
from ..errors import DeviceUnknown, LinkRefused, PageClosed
from ..store.base import Store, Tx
from .clock import Clock, require
from .events import Events
from .status import StatusReader
from .swaps import Swaps

Data = dict[str, Any]

_SETTING: Final = "page"


class Caller(Protocol):
    @property
    def uid(self) -> int: ...


class Technicians:
    """Sessions are durable, so that a power cut in the middle of a swap does not lock the technician out."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        reader: StatusReader,
        swaps: Swaps,
        gateway_id: str,
        url: Callable[[], str | None],
    ) -> None:
        """``url`` is where the page is served, None while it is not."""
        self._store = store
        self._clock = clock
        self._events = events
        self._reader = reader
        self._swaps = swaps
        self._gateway_id = gateway_id
        self._url = url

    # --- for an administrator (control.base.PageOperations) --------------------------------------

    async def open(self, caller: Caller, lifetime: int) -> Data:
        url = self._url()
        if url is None:
            raise PageClosed("The technician's page is not served.")
        require(self._clock)  # or the link would expire at a time that nobody knows
        now = self._clock.now()
        link = page.new_secret()

        def work(tx: Tx) -> tuple[PageSession, JournalEntry]:
            last, sessions = _load(tx)
            new = PageSession(last + 1, page.digest(link), False, now + timedelta(seconds=lifetime))
            _keep(tx, new.number, page.admit(sessions, new, now))
            detail = f"{new.who}, until {new.expires_at:%Y-%m-%d %H:%M}Z"
            return new, self._record(tx, now, f"uid:{caller.uid}", "page opened", detail)

        session, entry = await self._store.write(work)
        self._events.publish(entry)
        expires = f"{session.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        return {"session": session.number, "url": f"{url}/open/{link}", "expires_at": expires}

    async def close(self, caller: Caller) -> Data:
        now = self._clock.now()

        def work(tx: Tx) -> tuple[int, JournalEntry]:
            last, sessions = _load(tx)
            _keep(tx, last, [])
            ended = sum(now < each.expires_at for each in sessions)
            return ended, self._record(tx, now, f"uid:{caller.uid}", "page closed", f"{ended} sessions ended")

        ended, entry = await self._store.write(work)
        self._events.publish(entry)
        return {"ended": ended}

    # --- for the technician ----------------------------------------------------------------------

    async def enter(self, link: str, remote: str) -> tuple[str, PageSession]:
        now = self._clock.now()
        cookie = page.new_secret()

        def work(tx: Tx) -> tuple[PageSession, JournalEntry]:
            last, known = _load(tx)
            sessions, entered = page.enter(known, link, cookie, now)
            if entered is None:
                raise LinkRefused("This link is not valid, or has been used.")
            _keep(tx, last, sessions)
            return entered, self._record(tx, now, entered.who, "page entered", f"from {remote}")

        session, entry = await self._store.write(work)
        self._events.publish(entry)
        return cookie, session

    async def session(self, cookie: str) -> PageSession | None:
        now = self._clock.now()
        return await self._store.read(lambda tx: page.session_of(_load(tx)[1], cookie, now))

    async def devices(self) -> list[Data]:
        return await self._reader.device_list(Wanted(kind=DeviceKind.LEAF))

    async def device(self, device_id: str) -> Data:
        shown = await self._reader.device_show(device_id)
        if shown["device"]["kind"] != DeviceKind.LEAF:
            raise DeviceUnknown(f"{device_id} is the gateway itself.", device=device_id)
        return shown

    async def replace(self, session: PageSession, device_id: str, reason: str) -> Data:
        require(self._clock)
        return await self._swaps.begin(session.who, device_id, reason, 0)

    async def cancel(self, session: PageSession, device_id: str) -> None:
        await self._swaps.cancel(session.who, device_id)

    def _record(self, tx: Tx, now: datetime, who: str, what: str, detail: str) -> JournalEntry:
        entry = JournalEntry(now, self._gateway_id, who, what, "done", detail)
        tx.journal.append(entry)
        return entry


def _load(tx: Tx) -> tuple[int, list[PageSession]]:
    """The last session's number, and the sessions."""
    kept = json.loads(tx.settings.get(_SETTING) or '{"last": 0, "sessions": []}')
    sessions = [
        PageSession(**each | {"expires_at": datetime.fromisoformat(each["expires_at"])}) for each in kept["sessions"]
    ]
    return kept["last"], sessions


def _keep(tx: Tx, last: int, sessions: list[PageSession]) -> None:
    kept = [asdict(each) | {"expires_at": each.expires_at.isoformat()} for each in sessions]
    tx.settings.set(_SETTING, json.dumps({"last": last, "sessions": kept}))
