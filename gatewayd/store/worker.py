"""A thread that owns one database connection and works off a bounded queue for the event loop.

SQLite blocks, and a connection belongs to one thread: this is the one adapter between it and asyncio. The thread
takes what has gathered in the queue as one batch, has it processed, and only then hands the outcomes back, all in one
wake-up of the loop; that is what makes a group commit possible.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar, cast

from ..errors import StoreBroken
from .base import Tx

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """One piece of work and what became of it. The thread fills it in; the loop reads it once ``settled``."""

    work: Callable[[Tx], T]
    settled: asyncio.Future[None]
    value: T | None = None
    error: BaseException | None = None

    @property
    def abandoned(self) -> bool:
        """Whether its caller was cancelled meanwhile."""
        return self.settled.cancelled()


class Worker:
    """``connect`` opens the connection, inside the thread; ``process`` fills in the outcomes of a batch."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], sqlite3.Connection],
        process: Callable[[sqlite3.Connection, list[Job[Any]]], None],
        *,
        largest_batch: int,
        backlog: int,
    ) -> None:
        self._connect = connect
        self._process = process
        self._largest_batch = largest_batch
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(backlog)
        self._queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def start(self) -> None:
        """Returns when the connection is open; raises what ``connect`` raised."""
        self._thread.start()
        await self._opened

    async def submit(self, work: Callable[[Tx], T]) -> T:
        """Run ``work`` in the thread. Waits for room when the backlog is full.

        A caller that is cancelled harms no one else; its work is then either left out or carried out whole.
        """
        await self._room.acquire()
        if self._stopping:
            self._room.release()
            raise StoreBroken("The store is closed.")
        job = Job(work, self._loop.create_future())
        self._queue.put(job)
        await job.settled
        if job.error is not None:
            raise job.error
        return cast(T, job.value)

    def waiting(self) -> int:
        """How much has not been begun."""
        return self._queue.qsize()

    async def stop(self) -> None:
        """Finish what was submitted, close the connection, end the thread."""
        self._stopping = True
        if self._thread.ident is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:
            self._tell(self._settle_opened, error)
            return
        try:
            self._tell(self._settle_opened, None)
            more = True
            while more:
                batch, more = self._next_batch()
                if batch:
                    self._work_off(connection, batch)
                batch = []  # a large answer is not kept until the next question
        finally:
            connection.close()

    def _work_off(self, connection: sqlite3.Connection, batch: list[Job[Any]]) -> None:
        try:
            self._process(connection, batch)
        except BaseException as error:  # such as a MemoryError: the thread goes on, and nobody waits for ever
            for job in batch:
                job.error = error
        self._tell(self._settle, batch)

    def _next_batch(self) -> tuple[list[Job[Any]], bool]:
        """Wait for a job and take what has gathered behind it; False when it was the last."""
        batch: list[Job[Any]] = []
        job = self._queue.get()
        while job is not None:
            batch.append(job)
            if len(batch) == self._largest_batch:
                return batch, True
            try:
                job = self._queue.get_nowait()
            except Empty:
                return batch, True
        return batch, False

    def _tell(self, callback: Callable[[Any], None], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left who waits
            self._loop.call_soon_threadsafe(callback, argument)

    def _settle_opened(self, error: BaseException | None) -> None:
        if self._opened.cancelled():
            return
        if error is None:
            self._opened.set_result(None)
        else:
            self._opened.set_exception(error)

    def _settle(self, batch: list[Job[Any]]) -> None:
        for job in batch:
            self._room.release()
            if not job.abandoned:
                job.settled.set_result(None)
