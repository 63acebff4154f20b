# ruff: noqa: S608 - the statements are put together from constants of this package alone
from __future__ import annotations

import json
import sqlite3
from datetime import datetime

from ..core.model import Device, DeviceKind, DeviceState, RevocationReason, San, Standing
from ..errors import DeviceExists
from .credentials import IS_UNFINISHED
from .rows import Column, Table, moment, stamp

_TABLE = Table(
    "devices",
    key=("device_id",),
    others=("kind", "state", "sans", "created_at", "current", "in_hub", "revocation_reason"),
)

CENSUS = f"""
    SELECT devices.state, current IS NOT NULL, ifnull(live.not_after > ?, 0),
      current IS NULL AND EXISTS (
        SELECT 1 FROM credentials WHERE credentials.device_id = devices.device_id AND {IS_UNFINISHED}
      ),
      count(*)
    FROM devices LEFT JOIN credentials live ON live.device_id = devices.device_id AND live.generation = current
    WHERE kind = 'leaf' GROUP BY 1, 2, 3, 4
"""

EXPIRED = """
    SELECT device_id, not_after
    FROM devices CROSS JOIN credentials USING (device_id)
    WHERE kind = 'leaf' AND devices.state = 'active' AND generation = current AND not_after <= ?
    ORDER BY device_id LIMIT ?
"""


class DeviceRows:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, device_id: str) -> Device | None:
        row = self._connection.execute("SELECT * FROM devices WHERE device_id = ?", (device_id,)).fetchone()
        return None if row is None else _device(row)

    def all(self) -> list[Device]:
        """By device id."""
        return [_device(row) for row in self._connection.execute("SELECT * FROM devices ORDER BY device_id")]

    def of_kind(self, kind: DeviceKind) -> list[Device]:
        """By device id."""
        query = "SELECT * FROM devices WHERE kind = ? ORDER BY device_id"
        return [_device(row) for row in self._connection.execute(query, (kind,))]

    def count_leaves(self) -> dict[DeviceState, int]:
        query = "SELECT state, count(*) FROM devices WHERE kind = 'leaf' GROUP BY state"
        return dict.fromkeys(DeviceState, 0) | {DeviceState(row[0]): row[1] for row in self._connection.execute(query)}

    def census(self, now: datetime) -> list[tuple[Standing, int]]:
        return [
            (Standing(DeviceState(row[0]), *map(bool, row[1:4])), row[4])
            for row in self._connection.execute(CENSUS, (stamp(now),))
        ]

    def expired(self, now: datetime, limit: int) -> list[tuple[str, datetime]]:
        return [(row[0], moment(row[1])) for row in self._connection.execute(EXPIRED, (stamp(now), limit))]

    def add(self, device: Device) -> None:
        if not _TABLE.add(self._connection, _columns(device)):
            raise DeviceExists(f"The device {device.device_id} exists already.", device=device.device_id)

    def put(self, device: Device) -> None:
        _TABLE.put(self._connection, _columns(device))


def _columns(device: Device) -> dict[str, Column]:
    return {
        "device_id": device.device_id,
        "kind": device.kind,
        "state": device.state,
        "sans": json.dumps([str(san) for san in device.sans]),
        "created_at": stamp(device.created_at),
        "current": device.current,
        "in_hub": device.in_hub,
        "revocation_reason": device.revocation_reason,
    }


def _device(row: sqlite3.Row) -> Device:
    return Device(
        device_id=row["device_id"],
        kind=DeviceKind(row["kind"]),
        created_at=moment(row["created_at"]),
        sans=tuple(San.parse(text) for text in json.loads(row["sans"])),
        state=DeviceState(row["state"]),
        current=row["current"],
        in_hub=bool(row["in_hub"]),
        revocation_reason=None if row["revocation_reason"] is None else RevocationReason(row["revocation_reason"]),
    )
