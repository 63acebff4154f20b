"""Event loops in threads of their own, for what would hold up the daemon's: a TLS handshake in which the token signs
takes 0.1 ms with SoftHSM and up to 200 ms with a TPM, and blocks the thread that it happens in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs from ``start`` to ``close``; what still runs on it then is cancelled."""

    def __init__(self, name: str) -> None:
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name=name, daemon=True)

    async def start(self) -> None:
        self._thread.start()
        self._loop = await asyncio.wrap_future(self._started)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the thread's loop and wait for it on the caller's."""
        return await across(work, self._loop)

    async def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join)

    async def _live(self) -> None:
        self._started.set_result(asyncio.get_running_loop())
        await self._stop.wait()


async def across(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Run ``work`` on another thread's ``loop`` and wait for it on the caller's."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


async def aside(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` on a loop that is made for it alone and ends with it."""
    thread = LoopThread("aside")
    await thread.start()
    try:
        return await thread.run(work)
    finally:
        await thread.close()
