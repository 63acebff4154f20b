from __future__ import annotations

import sqlite3

from ..core.model import JournalEntry
from .rows import moment, stamp


class JournalRows:
    """Append-only; the schema refuses changes and deletions, and nothing is ever thrown away."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def append(self, entry: JournalEntry) -> None:
        self._connection.execute(
            "INSERT INTO journal (at, device_id, who, what, outcome, detail) VALUES (?, ?, ?, ?, ?, ?)",
            (stamp(entry.at), entry.device_id, entry.who, entry.what, entry.outcome, entry.detail),
        )

    def recent(self, device_id: str | None = None, limit: int = 100) -> list[JournalEntry]:
        if device_id is None:
            rows = self._connection.execute("SELECT * FROM journal ORDER BY seq DESC LIMIT ?", (limit,))
        else:
            query = "SELECT * FROM journal WHERE device_id = ? ORDER BY seq DESC LIMIT ?"
            rows = self._connection.execute(query, (device_id, limit))
        return [_entry(row) for row in rows]


def _entry(row: sqlite3.Row) -> JournalEntry:
    return JournalEntry(
        at=moment(row["at"]),
        device_id=row["device_id"],
        who=row["who"],
        what=row["what"],
        outcome=row["outcome"],
        detail=row["detail"],
        seq=row["seq"],
    )
