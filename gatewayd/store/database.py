"""The store on SQLite: one writer thread with group commit, one reader thread beside it.

Why a group: with ``synchronous=FULL`` a commit costs one fsync, whatever is in it. The works that arrive while one
commit is under way form the next batch and share one fsync; each runs in a savepoint of its own, so that an
exception undoes its own changes only. Nobody hears of success before the COMMIT has returned.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import Internal, StoreBroken
from .base import Tx
from .faults import broken, translated
from .files import claim
from .migrations import migrate
from .tx import SqliteTx
from .worker import Job, Worker

T = TypeVar("T")

_LARGEST_BATCH = 128
_BACKLOG = 1024
_BUSY_TIMEOUT = 5.0
"""Seconds to wait for another program, such as a backup, that holds the database locked."""
_WAL_KEPT = 16 * 1024 * 1024
"""Bytes to which the write-ahead log is cut back after a burst."""


class SqliteStore:
    """A ``Store`` in the file ``path``; used from the event loop that opened it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: int | None = None
        self._writer: Worker | None = None
        self._reader: Worker | None = None
        self.trouble: StoreBroken | None = None
        """Why nothing could be written the last time; None when it could."""

    async def open(self) -> None:
        """Lock the database against other processes, create or migrate it, start the threads.

        Raises StoreInUse, StoreTooNew, StoreBroken; nothing is held then.
        """
        self._lock = claim(self._path)
        try:
            self._writer = Worker(
                "store-writer",
                lambda: self._connect(_prepare_writer),
                self._commit,
                largest_batch=_LARGEST_BATCH,
                backlog=_BACKLOG,
            )
            await self._writer.start()
            self._reader = Worker(
                "store-reader", lambda: self._connect(_prepare_reader), self._look, largest_batch=1, backlog=_BACKLOG
            )
            await self._reader.start()
        except BaseException:
            await self.close()
            raise

    async def write(self, work: Callable[[Tx], T]) -> T:
        return await self._started(self._writer).submit(work)

    async def read(self, work: Callable[[Tx], T]) -> T:
        return await self._started(self._reader).submit(work)

    async def close(self) -> None:
        """Finish what was asked for, then let go of the file. Calling it again does nothing."""
        reader, self._reader = self._reader, None
        writer, self._writer = self._writer, None
        for worker in (reader, writer):
            if worker is not None:
                await worker.stop()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def waiting(self) -> int:
        """How many reads and writes have not been begun."""
        return sum(worker.waiting() for worker in (self._reader, self._writer) if worker is not None)

    @staticmethod
    def _started(worker: Worker | None) -> Worker:
        if worker is None:
            raise StoreBroken("The store is closed.")
        return worker

    def _connect(self, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=_BUSY_TIMEOUT,
                isolation_level=None,  # transactions are begun and ended here, by hand
            )
            try:
                connection.row_factory = sqlite3.Row
                prepare(connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise broken(error, self._path) from error
        return connection

    def _commit(self, connection: sqlite3.Connection, batch: list[Job[Any]]) -> None:
        """The whole batch in one transaction.

        A failed commit has no effect; only when the fsync itself failed and the power then fails too, before the next
        commit, may the group turn out to be written after all: callers try again with the same keys anyway.
        """
        tx = SqliteTx(connection)
        before = connection.total_changes
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                if not job.abandoned:
                    self._carry_out(connection, tx, job)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have undone it by itself
                connection.execute("ROLLBACK")
            # Also for a work that had failed by itself: what it saw of the others' changes was never true.
            for job in batch:
                job.error = broken(error, self._path)
            self.trouble = broken(error, self._path)
        else:
            if connection.total_changes != before:  # what changes nothing takes no room
                self.trouble = None

    def _carry_out(self, connection: sqlite3.Connection, tx: SqliteTx, job: Job[Any]) -> None:
        connection.execute("SAVEPOINT work")
        try:
            job.value = job.work(tx)
        except BaseException as error:
            job.error = self._as_ours(error)
            if isinstance(error, sqlite3.Error) and not connection.in_transaction:
                raise  # a full disk and the like make SQLite undo the whole transaction: the batch is lost
            connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")

    def _look(self, connection: sqlite3.Connection, batch: list[Job[Any]]) -> None:
        """Each on a snapshot of its own."""
        tx = SqliteTx(connection)
        for job in batch:
            try:
                connection.execute("BEGIN")
                job.value = job.work(tx)
            except BaseException as error:
                job.error = self._as_ours(error, reading=True)
            finally:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")

    def _as_ours(self, error: BaseException, *, reading: bool = False) -> BaseException:
        if not isinstance(error, sqlite3.Error):
            return error
        if reading and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY:
            return Internal("A function given to read() tried to write.")
        return translated(error, self._path)


def _prepare_writer(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA synchronous = FULL")
    migrate(connection)
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise sqlite3.NotSupportedError("its file system does not support a write-ahead log")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT}")
    connection.execute("PRAGMA foreign_keys = ON")


def _prepare_reader(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = ON")
