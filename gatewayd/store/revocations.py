# ruff: noqa: S608 - the statements are put together from constants of this module alone
"""Revocations; each milestone is a row of its own, and one that is done stays done."""

from __future__ import annotations

import json
import sqlite3
from itertools import groupby

from ..core.model import Milestone, MilestoneProgress, Revocation, RevocationReason, RevocationScope
from ..core.revocation import is_closed
from .rows import Column, Table, moment, stamp

_TABLE = Table("revocations", key=("device_id", "serial"), others=("reason", "origin", "known_at", "scope", "closed"))
_MILESTONES = Table(
    "revocation_milestones",
    key=("device_id", "serial", "milestone"),
    others=("done_at", "attempts", "next_attempt_at", "last_error", "evidence"),
)

_JOIN = "LEFT JOIN revocation_milestones USING (device_id, serial)"
_ORDER = "ORDER BY known_at, device_id, serial"
OPEN = f"SELECT * FROM revocations INDEXED BY revocations_open {_JOIN} WHERE closed = 0 {_ORDER}"

CLOSED = f"""
    SELECT * FROM (
      SELECT * FROM revocations INDEXED BY revocations_closed WHERE closed = 1 ORDER BY known_at DESC LIMIT ?
    ) {_JOIN} {_ORDER}
"""


class RevocationRows:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, device_id: str, serial: str) -> Revocation | None:
        query = f"SELECT * FROM revocations {_JOIN} WHERE device_id = ? AND serial = ?"
        return next(iter(self._many(query, device_id, serial)), None)

    def all(self, device_id: str | None = None) -> list[Revocation]:
        """Oldest first."""
        if device_id is None:
            return self._many(f"SELECT * FROM revocations {_JOIN} {_ORDER}")
        return self._many(f"SELECT * FROM revocations {_JOIN} WHERE device_id = ? {_ORDER}", device_id)

    def open(self) -> list[Revocation]:
        """Oldest first."""
        return self._many(OPEN)

    def closed(self, limit: int) -> list[Revocation]:
        """Latest first."""
        return list(reversed(self._many(CLOSED, limit)))

    def add(self, revocation: Revocation) -> bool:
        if not _TABLE.add(self._connection, _columns(revocation)):
            return False
        self._put_milestones(revocation)
        return True

    def put(self, revocation: Revocation) -> None:
        _TABLE.put(self._connection, _columns(revocation))
        self._connection.execute(
            "DELETE FROM revocation_milestones WHERE device_id = ? AND serial = ?"
            " AND milestone NOT IN (SELECT value FROM json_each(?))",
            (revocation.device_id, revocation.serial, json.dumps(list(revocation.progress))),
        )
        self._put_milestones(revocation)

    def _put_milestones(self, revocation: Revocation) -> None:
        for milestone, progress in revocation.progress.items():
            _MILESTONES.upsert(self._connection, _milestone_columns(revocation, milestone, progress))

    def _many(self, query: str, *values: Column) -> list[Revocation]:
        rows = self._connection.execute(query, values)
        return [
            _revocation(list(group)) for _, group in groupby(rows, key=lambda row: (row["device_id"], row["serial"]))
        ]


def _columns(revocation: Revocation) -> dict[str, Column]:
    return {
        "device_id": revocation.device_id,
        "serial": revocation.serial,
        "reason": revocation.reason,
        "origin": revocation.origin,
        "known_at": stamp(revocation.known_at),
        "scope": revocation.scope,
        "closed": is_closed(revocation),
    }


def _milestone_columns(revocation: Revocation, milestone: Milestone, progress: MilestoneProgress) -> dict[str, Column]:
    return {
        "device_id": revocation.device_id,
        "serial": revocation.serial,
        "milestone": milestone,
        "done_at": stamp(progress.done_at),
        "attempts": progress.attempts,
        "next_attempt_at": stamp(progress.next_attempt_at),
        "last_error": progress.last_error,
        "evidence": progress.evidence,
    }


def _revocation(rows: list[sqlite3.Row]) -> Revocation:
    """From the rows of one revocation: one for each milestone, or a single one without any."""
    first = rows[0]
    progress = {Milestone(row["milestone"]): _progress(row) for row in rows if row["milestone"] is not None}
    return Revocation(
        device_id=first["device_id"],
        serial=first["serial"],
        reason=RevocationReason(first["reason"]),
        origin=first["origin"],
        known_at=moment(first["known_at"]),
        scope=RevocationScope(first["scope"]),
        progress={milestone: progress[milestone] for milestone in Milestone if milestone in progress},
    )


def _progress(row: sqlite3.Row) -> MilestoneProgress:
    return MilestoneProgress(
        done_at=moment(row["done_at"]),
        attempts=row["attempts"],
        next_attempt_at=moment(row["next_attempt_at"]),
        last_error=row["last_error"],
        evidence=row["evidence"],
    )
