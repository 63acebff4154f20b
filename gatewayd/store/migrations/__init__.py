"""The schema and its history: ``NNN_what.sql``, applied in order, each in one transaction.

``PRAGMA user_version`` is the number of the last one applied. A file that was released is never edited again.
"""

from __future__ import annotations

import re
import sqlite3
from importlib.resources import files

from ...errors import StoreTooNew
from .. import journal

_COMPLETED_BY = {6: journal.chain}
"""What SQL cannot say, in the same transaction."""


def scripts() -> dict[int, str]:
    """Every migration by its number, in order."""
    found = {
        int(match[1]): entry.read_text(encoding="utf-8")
        for entry in files(__name__).iterdir()
        if (match := re.fullmatch(r"(\d{3})_\w+\.sql", entry.name))
    }
    return dict(sorted(found.items()))


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version of this database; 0 when it is empty."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database to the newest schema. Raises StoreTooNew, and ``sqlite3.Error``; a migration that fails
    leaves the version before it.

    The connection must be outside a transaction with foreign keys off, because a table can only be rebuilt so; that
    no reference dangles is checked before each commit instead.
    """
    known = scripts()
    present = version_of(connection)
    if present > max(known):
        raise StoreTooNew(f"The database has schema version {present}; this gatewayd knows up to {max(known)}.")
    for version, script in known.items():
        if version > present:
            _apply(connection, version, script)


def _apply(connection: sqlite3.Connection, version: int, script: str) -> None:
    try:
        # executescript() commits what is open before it starts, so the BEGIN has to be in the script itself.
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {version};")
        if complete := _COMPLETED_BY.get(version):
            complete(connection)
        dangling = connection.execute("PRAGMA foreign_key_check").fetchone()
        if dangling is not None:
            raise sqlite3.IntegrityError(f"migration {version} leaves a dangling reference in table {dangling[0]}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
