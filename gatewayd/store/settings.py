from __future__ import annotations

import sqlite3

from .rows import Table

_TABLE = Table("settings", key=("name",), others=("value",))


class SettingRows:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> str | None:
        row = self._connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row["value"])

    def set(self, name: str, value: str) -> None:
        _TABLE.upsert(self._connection, {"name": name, "value": value})

    def beginning_with(self, prefix: str) -> dict[str, str]:
        found = self._connection.execute(
            "SELECT name, value FROM settings WHERE substr(name, 1, ?) = ?", (len(prefix), prefix)
        )
        return {str(row["name"]): str(row["value"]) for row in found}

    def remove(self, name: str) -> None:
        self._connection.execute("DELETE FROM settings WHERE name = ?", (name,))
