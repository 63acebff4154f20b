from __future__ import annotations

import sqlite3
from datetime import datetime

from ..core.model import EnrollmentCode
from ..errors import Internal
from .rows import Column, Table, moment, stamp

_TABLE = Table("enrollment_codes", key=("code_hash",), others=("device_id", "created_at", "expires_at", "used_by"))


class CodeRows:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, code_hash: str) -> EnrollmentCode | None:
        query = "SELECT * FROM enrollment_codes WHERE code_hash = ?"
        row = self._connection.execute(query, (code_hash,)).fetchone()
        return None if row is None else _code(row)

    def add(self, code: EnrollmentCode) -> None:
        if not _TABLE.add(self._connection, _columns(code)):
            raise Internal(f"This enrollment code of {code.device_id} exists already.", device=code.device_id)

    def put(self, code: EnrollmentCode) -> None:
        _TABLE.put(self._connection, _columns(code))

    def withdraw_unused(self, device_id: str) -> None:
        self._connection.execute("DELETE FROM enrollment_codes WHERE device_id = ? AND used_by IS NULL", (device_id,))

    def withdraw_all(self, device_id: str) -> None:
        self._connection.execute("DELETE FROM enrollment_codes WHERE device_id = ?", (device_id,))

    def open_until(self, device_id: str, now: datetime) -> datetime | None:
        query = (
            "SELECT max(expires_at) FROM enrollment_codes WHERE device_id = ? AND used_by IS NULL AND expires_at > ?"
        )
        (latest,) = self._connection.execute(query, (device_id, stamp(now))).fetchone()
        return None if latest is None else moment(latest)

    def purge(self, expired_before: datetime) -> int:
        """Forget codes, used or not, that expired earlier than this; how many there were."""
        query = "DELETE FROM enrollment_codes WHERE expires_at < ?"
        return self._connection.execute(query, (stamp(expired_before),)).rowcount


def _columns(code: EnrollmentCode) -> dict[str, Column]:
    return {
        "code_hash": code.code_hash,
        "device_id": code.device_id,
        "created_at": stamp(code.created_at),
        "expires_at": stamp(code.expires_at),
        "used_by": code.used_by,
    }


def _code(row: sqlite3.Row) -> EnrollmentCode:
    return EnrollmentCode(
        code_hash=row["code_hash"],
        device_id=row["device_id"],
        created_at=moment(row["created_at"]),
        expires_at=moment(row["expires_at"]),
        used_by=row["used_by"],
    )
