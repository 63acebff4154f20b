"""sqlite3's errors as ours: whose fault it is, in one plain sentence."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ..errors import GatewayError, Internal, StoreBroken, StoreFull, StoreReadOnly

_SENTENCES = {
    sqlite3.SQLITE_FULL: "The disk that holds {path} is full; nothing was written.",
    sqlite3.SQLITE_READONLY: "The database {path} cannot be written: it, or its file system, is read-only.",
    sqlite3.SQLITE_CORRUPT: "The database {path} is damaged: restore it from a backup.",
    sqlite3.SQLITE_NOTADB: "The file {path} is not a gatewayd database.",
    sqlite3.SQLITE_IOERR: "The disk failed under the database {path} ({name}).",
    sqlite3.SQLITE_CANTOPEN: "The database {path} cannot be opened; check its path and permissions.",
    sqlite3.SQLITE_BUSY: "The database {path} is locked by another program.",
}

_KINDS = {sqlite3.SQLITE_FULL: StoreFull, sqlite3.SQLITE_READONLY: StoreReadOnly}
_DEFECTS = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_MISUSE)


def broken(error: sqlite3.Error, path: Path) -> StoreBroken:
    """What makes the database as a whole unusable for now."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    code = _primary_code(error)
    sentence = _SENTENCES.get(code, "The database {path} failed: {error} ({name}).")
    return _KINDS.get(code, StoreBroken)(sentence.format(path=path, name=name, error=error))


def translated(error: sqlite3.Error, path: Path) -> GatewayError:
    """What came out of one statement: a broken rule of the schema, or wrong SQL, is our defect and not the disk's."""
    if _primary_code(error) in _DEFECTS:
        return Internal(f"The store refused a change: {error}.")
    return broken(error, path)


def _primary_code(error: sqlite3.Error) -> int:
    """The low byte of the extended code; misuse is what the Python module itself objects to, without a code."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
    return code & 0xFF
