# ruff: noqa: S608 - the statements are put together from constants of this package alone
"""How the values of core.model become columns and come back.

A time is whole microseconds since 1970 UTC: that is exact, sorts, and compares as one integer. A naive time is refused
by the subtraction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import overload

from ..errors import Internal

Column = str | int | bytes | None

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@overload
def stamp(at: datetime) -> int: ...
@overload
def stamp(at: None) -> None: ...
def stamp(at: datetime | None) -> int | None:
    return None if at is None else (at - _EPOCH) // _MICROSECOND


@overload
def moment(stamped: int) -> datetime: ...
@overload
def moment(stamped: None) -> None: ...
def moment(stamped: int | None) -> datetime | None:
    return None if stamped is None else _EPOCH + stamped * _MICROSECOND


class Table:
    """The statements that store a whole record, made from its column names.

    ``key`` names the columns that identify it, ``others`` the rest; both are constants of this package.
    """

    def __init__(self, name: str, *, key: tuple[str, ...], others: tuple[str, ...]) -> None:
        columns = ", ".join(key + others)
        values = ", ".join(f":{column}" for column in key + others)
        assignments = ", ".join(f"{column} = :{column}" for column in others)
        insert = f"INSERT INTO {name} ({columns}) VALUES ({values}) ON CONFLICT ({', '.join(key)})"
        self._name = name
        self._key = key
        self._add = f"{insert} DO NOTHING"
        self._upsert = f"{insert} DO UPDATE SET {assignments}"
        self._put = f"UPDATE {name} SET {assignments} WHERE {' AND '.join(f'{column} = :{column}' for column in key)}"

    def add(self, connection: sqlite3.Connection, record: Mapping[str, Column]) -> bool:
        """False, and nothing changed, when there is one with this key already."""
        return connection.execute(self._add, record).rowcount == 1

    def put(self, connection: sqlite3.Connection, record: Mapping[str, Column]) -> None:
        """Replace. Raises Internal when there is no record with this key."""
        if connection.execute(self._put, record).rowcount != 1:
            key = ", ".join(str(record[column]) for column in self._key)
            raise Internal(f"There is no record ({key}) in {self._name} to replace.")

    def upsert(self, connection: sqlite3.Connection, record: Mapping[str, Column]) -> None:
        connection.execute(self._upsert, record)
