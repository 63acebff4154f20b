from __future__ import annotations

import json
import sqlite3

from ..core.model import Device, DeviceKind, DeviceState, RevocationReason, San
from ..errors import DeviceExists
from .rows import Column, Table, moment, stamp

_TABLE = Table(
    "devices",
    key=("device_id",),
    others=("kind", "state", "sans", "created_at", "current", "in_hub", "revocation_reason"),
)


class DeviceRows:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, device_id: str) -> Device | None:
        row = self._connection.execute("SELECT * FROM devices WHERE device_id = ?", (device_id,)).fetchone()
        return None if row is None else _device(row)

    def all(self) -> list[Device]:
        """By device id."""
        return [_device(row) for row in self._connection.execute("SELECT * FROM devices ORDER BY device_id")]

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
