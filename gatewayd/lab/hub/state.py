"""What survives a restart of the stand-in: JSON documents by kind and key, and append-only lists, in one SQLite file.

Calls run on the event loop: a write is some tens of microseconds without an fsync, and a stand-in has nothing to lose
in a power cut.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

Document = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS document (kind TEXT, key TEXT, body TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (sequence INTEGER PRIMARY KEY AUTOINCREMENT, list TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS entry_list ON entry (list, sequence);
"""


class State:
    def __init__(self, path: Path | str) -> None:
        """``path`` may be ``:memory:``."""
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        self._database.close()

    def get(self, kind: str, key: str) -> Document | None:
        row = self._database.execute("SELECT body FROM document WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, kind: str, key: str, body: Document) -> None:
        self._database.execute("INSERT OR REPLACE INTO document VALUES (?, ?, ?)", (kind, key, json.dumps(body)))

    def delete(self, kind: str, key: str) -> None:
        self._database.execute("DELETE FROM document WHERE kind = ? AND key = ?", (kind, key))

    def all(self, kind: str) -> list[tuple[str, Document]]:
        """Every document of a kind, by key."""
        rows = self._database.execute("SELECT key, body FROM document WHERE kind = ? ORDER BY key", (kind,))
        return [(key, json.loads(body)) for key, body in rows]

    def append(self, name: str, body: Document) -> int:
        """Add to the list ``name``; returns the entry's sequence number."""
        cursor = self._database.execute("INSERT INTO entry (list, body) VALUES (?, ?)", (name, json.dumps(body)))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def entries(self, name: str, after: int = 0) -> list[tuple[int, Document]]:
        rows = self._database.execute(
            "SELECT sequence, body FROM entry WHERE list = ? AND sequence > ? ORDER BY sequence", (name, after)
        )
        return [(sequence, json.loads(body)) for sequence, body in rows]

    def has_entry(self, name: str, after: int) -> bool:
        query = "SELECT 1 FROM entry WHERE list = ? AND sequence > ? LIMIT 1"
        return self._database.execute(query, (name, after)).fetchone() is not None

    def remove_entry(self, sequence: int) -> None:
        self._database.execute("DELETE FROM entry WHERE sequence = ?", (sequence,))
