"""The journal, and the chain that it forms (core.audit)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..core import audit
from ..core.model import JournalEntry
from ..errors import StoreBroken
from .rows import moment, stamp


class JournalRows:
    """Append-only; the schema refuses changes and deletions, and nothing is ever thrown away."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def append(self, entry: JournalEntry) -> None:
        last = self._connection.execute("SELECT hash FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
        seq = self.written() + 1
        entry_hash = audit.link(audit.FIRST if last is None else last["hash"], entry, seq)
        self._connection.execute(
            "INSERT INTO journal (seq, at, device_id, who, what, outcome, detail, hash)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (seq, stamp(entry.at), entry.device_id, entry.who, entry.what, entry.outcome, entry.detail, entry_hash),
        )

    def recent(self, device_id: str | None = None, limit: int = 100) -> list[JournalEntry]:
        if device_id is None:
            rows = self._connection.execute("SELECT * FROM journal ORDER BY seq DESC LIMIT ?", (limit,))
        else:
            query = "SELECT * FROM journal WHERE device_id = ? ORDER BY seq DESC LIMIT ?"
            rows = self._connection.execute(query, (device_id, limit))
        return [entry_of(row) for row in rows]

    def written(self) -> int:
        """The highest number ever given out, as SQLite remembers it or a head proves it: also of a record that has
        been taken away."""
        row = self._connection.execute(
            "SELECT max(ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'journal'), 0),"
            " ifnull((SELECT max(seq) FROM audit_heads), 0)) AS written"
        ).fetchone()
        return int(row["written"])

    def records(self, first: int, limit: int) -> list[audit.Record]:
        rows = self._connection.execute("SELECT * FROM journal WHERE seq >= ? ORDER BY seq LIMIT ?", (first, limit))
        return [audit.Record(entry_of(row), bytes(row["hash"])) for row in rows]

    def heads(self) -> list[audit.Head]:
        return [_head(row) for row in self._connection.execute("SELECT * FROM audit_heads ORDER BY seq")]

    def last_head(self) -> audit.Head | None:
        row = self._connection.execute("SELECT * FROM audit_heads ORDER BY seq DESC LIMIT 1").fetchone()
        return None if row is None else _head(row)

    def add_head(self, head: audit.Head) -> None:
        self._connection.execute(
            "INSERT INTO audit_heads (seq, device_id, hash, at, certificate, signature) VALUES (?, ?, ?, ?, ?, ?)",
            (head.seq, head.device_id, head.hash, stamp(head.at), head.certificate, head.signature),
        )


def entry_of(row: sqlite3.Row) -> JournalEntry:
    return JournalEntry(
        at=moment(row["at"]),
        device_id=row["device_id"],
        who=row["who"],
        what=row["what"],
        outcome=row["outcome"],
        detail=row["detail"],
        seq=row["seq"],
    )


def _head(row: sqlite3.Row) -> audit.Head:
    return audit.Head(
        device_id=row["device_id"],
        seq=row["seq"],
        hash=bytes(row["hash"]),
        at=moment(row["at"]),
        certificate=bytes(row["certificate"]),
        signature=bytes(row["signature"]),
    )


@contextmanager
def copy_of(path: Path) -> Iterator[JournalRows]:
    """The journal in a copy of the database, which is only read. Raises StoreBroken."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            yield JournalRows(connection)
    except sqlite3.Error as error:
        raise StoreBroken(f"The database {path} cannot be read: {error}.") from error


def chain(connection: sqlite3.Connection) -> None:
    """Migration 6: give every record its hash, in order."""
    previous = audit.FIRST
    for row in connection.execute("SELECT * FROM journal ORDER BY seq").fetchall():
        previous = audit.link(previous, entry_of(row), row["seq"])
        connection.execute("UPDATE journal SET hash = ? WHERE seq = ?", (previous, row["seq"]))
