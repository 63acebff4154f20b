"""What has just been written down, told to whoever listens in this process: jobs, the twin, the bus."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol

from ..core.model import JournalEntry
from ..errors import GatewayError

log = logging.getLogger(__name__)

DAEMON = "gatewayd"
"""Who, in the journal, when the daemon acts by itself."""

Listener = Callable[[JournalEntry], None]


class Progress(Protocol):
    """What a job is told of its steps (control.base)."""

    def __call__(self, step: str, state: str, detail: str = "") -> None: ...


def telling(progress: Progress) -> Listener:
    """Hands what happens on to a job."""

    def tell(entry: JournalEntry) -> None:
        state = entry.outcome if entry.outcome in ("failed", "waiting") else "done"
        progress(entry.what, state, entry.detail)

    return tell


class Events:
    """Listeners are called on the event loop, after the entry is durable. They must not block."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._of: dict[str, list[Listener]] = {}
        """Those that listen to one device alone."""

    @contextmanager
    def listening(self, device_id: str, listener: Listener) -> Iterator[None]:
        """To what happens to one device: a hundred jobs do not each hear of the hundred others."""
        mine = self._of.setdefault(device_id, [])
        mine.append(listener)
        try:
            yield
        finally:
            mine.remove(listener)
            if not mine and self._of.get(device_id) is mine:
                del self._of[device_id]

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def publish(self, *entries: JournalEntry) -> None:
        for entry in entries:
            level = logging.WARNING if entry.outcome == "failed" else logging.INFO
            log.log(
                level,
                "%s: %s %s%s",
                entry.device_id or "gatewayd",
                entry.what,
                entry.outcome,
                f": {entry.detail}" if entry.detail else "",
                extra={"entry": entry},
            )
            for listener in (*self._listeners, *self._of.get(entry.device_id or "", ())):
                try:
                    listener(entry)
                except Exception:
                    log.exception("a listener failed on %s", entry.what)


class Alarm:
    """Sleeping that can be cut short: a service sleeps until its next moment, or until it is rung."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._slept_at = time.monotonic()

    def ring(self) -> None:
        self._event.set()

    @property
    def since_progress(self) -> float:
        """Seconds since the service last came round to sleeping: what the watchdog looks at."""
        return time.monotonic() - self._slept_at

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``, or as soon as it rings; a ring that came before counts."""
        self._slept_at = time.monotonic()
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()

    async def rounds(self, what: str, work: Callable[[], Awaitable[float | None]], longest: float) -> NoReturn:
        """A service's life: a round of ``work``, then sleep for the seconds that it returns, but no longer than for
        ``longest``, or until it is rung. What goes wrong in a round is in the log, as of ``what``, and the service goes
        on."""
        while True:
            wait = None
            try:
                wait = await work()
            except GatewayError as error:
                log.error("%s: %s", what, error)
            await self.sleep(longest if wait is None else min(wait, longest))
