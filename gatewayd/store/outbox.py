from __future__ import annotations

import sqlite3
from datetime import datetime

from ..core.measures import Queue
from ..core.model import OutboxMessage
from ..core.renewal import BELIEVED
from .rows import Column, Table, moment, stamp

_TABLE = Table(
    "outbox",
    key=("key",),
    others=("kind", "payload", "created_at", "attempts", "next_attempt_at", "last_error", "sent_at"),
)

UNSENT = """
    SELECT * FROM outbox INDEXED BY outbox_unsent
    WHERE sent_at IS NULL AND (next_attempt_at IS NULL OR NOT next_attempt_at BETWEEN ? AND ?)
    ORDER BY created_at, seq LIMIT ?
"""


QUEUE = "SELECT count(*), min(created_at) FROM outbox INDEXED BY outbox_unsent WHERE sent_at IS NULL"


PURGE = """
    DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox INDEXED BY outbox_sent WHERE sent_at < ? LIMIT ?)
"""


class OutboxRows:
    """Sent messages stay for a while: their keys are what keeps the same thing from being told twice."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, message: OutboxMessage) -> bool:
        return _TABLE.add(self._connection, _columns(message))

    def get(self, key: str) -> OutboxMessage | None:
        row = self._connection.execute("SELECT * FROM outbox WHERE key = ?", (key,)).fetchone()
        return None if row is None else _message(row)

    def unsent(self, now: datetime, limit: int = 50) -> list[OutboxMessage]:
        later = stamp(now) + 1, stamp(now + BELIEVED)
        return [_message(row) for row in self._connection.execute(UNSENT, (*later, limit))]

    def queue(self) -> Queue:
        depth, oldest = self._connection.execute(QUEUE).fetchone()
        return Queue(depth, moment(oldest))

    def put(self, message: OutboxMessage) -> None:
        _TABLE.put(self._connection, _columns(message))

    def purge(self, sent_before: datetime, limit: int = 1000) -> int:
        return self._connection.execute(PURGE, (stamp(sent_before), limit)).rowcount


def _columns(message: OutboxMessage) -> dict[str, Column]:
    return {
        "key": message.key,
        "kind": message.kind,
        "payload": message.payload,
        "created_at": stamp(message.created_at),
        "attempts": message.attempts,
        "next_attempt_at": stamp(message.next_attempt_at),
        "last_error": message.last_error,
        "sent_at": stamp(message.sent_at),
    }


def _message(row: sqlite3.Row) -> OutboxMessage:
    return OutboxMessage(
        key=row["key"],
        kind=row["kind"],
        payload=row["payload"],
        created_at=moment(row["created_at"]),
        attempts=row["attempts"],
        next_attempt_at=moment(row["next_attempt_at"]),
        last_error=row["last_error"],
        sent_at=moment(row["sent_at"]),
    )
