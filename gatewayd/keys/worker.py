"""One thread that makes every call into the token, in order of urgency and within a time limit.

python-pkcs11 calls C_Initialize without locking, and small tokens have few sessions and object slots: one caller at
a time is both the safe way and the fast one. The queue is bounded: a caller that cannot be served is told at once.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from queue import PriorityQueue
from typing import Any, Final, TypeVar

from ..errors import TokenBusy, TokenFault, TokenTimeout

T = TypeVar("T")


class Priority(IntEnum):
    """Who is served first."""

    HANDSHAKE = 0
    """A peer waits in a TLS handshake."""
    REQUEST = 1
    """The signature of a CSR or a JWT."""
    HOUSEKEEPING = 2
    """Key generation, inventory, removal."""


_LAST: Final = 99


@dataclass(order=True, slots=True)
class _Job:
    priority: int
    sequence: int
    work: Callable[[], Any] = field(compare=False)
    future: Future[Any] = field(compare=False)


class Worker:
    """Runs functions one at a time.

    ``timeout`` (seconds) is how long a caller waits, its time in the queue included. The call itself cannot be
    interrupted: when it hangs, the thread hangs with it, later callers time out too, and soon find the queue full.
    What nobody waits for any more is skipped. The thread is a daemon, so that a hanging token cannot keep the process
    from ending. Not to be used after a fork: the module's state does not survive one.
    """

    def __init__(self, *, timeout: float, queue_size: int) -> None:
        self._timeout = timeout
        self._queue_size = queue_size
        self._queue: PriorityQueue[_Job] = PriorityQueue()
        self._sequence = itertools.count()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._pid = os.getpid()

    def call(self, priority: Priority, work: Callable[[], T]) -> T:
        """Run ``work`` and wait for it, blocking this thread. Raises TokenBusy, TokenTimeout, what ``work`` raises."""
        future = self._submit(priority, work)
        try:
            return future.result(self._timeout)
        except TimeoutError:
            future.cancel()
            raise self._timed_out() from None

    async def acall(self, priority: Priority, work: Callable[[], T]) -> T:
        """``call`` for a coroutine."""
        return await self._wait(self._submit(priority, work))

    async def stop(self, last: Callable[[], None]) -> None:
        """Take no more work, finish what is queued, run ``last`` and end the thread. Raises TokenTimeout."""
        with self._lock:
            already = self._closed
            self._closed = True
            if already or self._thread is None:
                return
            future = self._put(_LAST, last)
        await self._wait(future)

    def _submit(self, priority: int, work: Callable[[], T]) -> Future[T]:
        if os.getpid() != self._pid:
            raise TokenFault("The token was opened before a fork and cannot be used after it.")
        with self._lock:
            if self._closed:
                raise TokenFault("The token has been closed.")
            if self._queue.qsize() >= self._queue_size:
                raise TokenBusy(f"{self._queue_size} calls wait for the token already.")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="token", daemon=True)
                self._thread.start()
            return self._put(priority, work)

    def _put(self, priority: int, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._queue.put(_Job(priority, next(self._sequence), work, future))
        return future

    async def _wait(self, future: Future[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise self._timed_out() from None

    def _timed_out(self) -> TokenTimeout:
        return TokenTimeout(f"The token did not answer within {self._timeout:g} s.")

    def _run(self) -> None:
        while True:
            job = self._queue.get()
            if job.future.set_running_or_notify_cancel():
                try:
                    job.future.set_result(job.work())
                except BaseException as error:  # it is the caller's, and this thread must live on
                    job.future.set_exception(error)
            if job.priority == _LAST:
                return
            del job  # its result may be large, and the next job may be long in coming
