# ruff: noqa: S608 - the statements are put together from constants of this module alone
from __future__ import annotations

import sqlite3

from ..core.model import Replacement, ReplacementState, RevocationReason
from ..errors import Internal
from .rows import Column, Table, moment, stamp

_TABLE = Table(
    "replacements",
    key=("device_id", "number"),
    others=(
        "state",
        "reason",
        "origin",
        "last_old",
        "started_at",
        "shut_at",
        "certificate_at",
        "pinned_at",
        "lift_at",
        "ended_at",
        "attempts",
        "next_attempt_at",
        "last_error",
    ),
)
# Word for word as in the schema, or SQLite could not use its partial index.
_IS_OPEN = "state NOT IN ('lifted', 'cancelled', 'overtaken')"
OPEN = f"SELECT * FROM replacements INDEXED BY replacements_one_is_open WHERE {_IS_OPEN} ORDER BY started_at"


class ReplacementRows:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def open_of(self, device_id: str) -> Replacement | None:
        query = f"SELECT * FROM replacements WHERE device_id = ? AND {_IS_OPEN}"
        row = self._connection.execute(query, (device_id,)).fetchone()
        return None if row is None else _replacement(row)

    def all(self, device_id: str) -> list[Replacement]:
        """Oldest first."""
        query = "SELECT * FROM replacements WHERE device_id = ? ORDER BY number"
        return [_replacement(row) for row in self._connection.execute(query, (device_id,))]

    def open(self) -> list[Replacement]:
        """Oldest first."""
        return [_replacement(row) for row in self._connection.execute(OPEN)]

    def add(self, replacement: Replacement) -> None:
        if not _TABLE.add(self._connection, _columns(replacement)):
            raise Internal(
                f"Replacement {replacement.number} of {replacement.device_id} exists.", device=replacement.device_id
            )

    def put(self, replacement: Replacement) -> None:
        _TABLE.put(self._connection, _columns(replacement))


def _columns(replacement: Replacement) -> dict[str, Column]:
    return {
        "device_id": replacement.device_id,
        "number": replacement.number,
        "state": replacement.state,
        "reason": replacement.reason,
        "origin": replacement.origin,
        "last_old": replacement.last_old,
        "started_at": stamp(replacement.started_at),
        "shut_at": stamp(replacement.shut_at),
        "certificate_at": stamp(replacement.certificate_at),
        "pinned_at": stamp(replacement.pinned_at),
        "lift_at": stamp(replacement.lift_at),
        "ended_at": stamp(replacement.ended_at),
        "attempts": replacement.attempts,
        "next_attempt_at": stamp(replacement.next_attempt_at),
        "last_error": replacement.last_error,
    }


def _replacement(row: sqlite3.Row) -> Replacement:
    return Replacement(
        device_id=row["device_id"],
        number=row["number"],
        state=ReplacementState(row["state"]),
        reason=RevocationReason(row["reason"]),
        origin=row["origin"],
        last_old=row["last_old"],
        started_at=moment(row["started_at"]),
        shut_at=moment(row["shut_at"]),
        certificate_at=moment(row["certificate_at"]),
        pinned_at=moment(row["pinned_at"]),
        lift_at=moment(row["lift_at"]),
        ended_at=moment(row["ended_at"]),
        attempts=row["attempts"],
        next_attempt_at=moment(row["next_attempt_at"]),
        last_error=row["last_error"],
    )
