# ruff: noqa: S608 - the statements are put together from constants of this package alone
from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import datetime

from ..core.listing import Live, Overview, Wanted
from ..core.model import (
    Binding,
    Device,
    DeviceKind,
    DeviceState,
    KeyAlgorithm,
    RevocationReason,
    San,
    Standing,
)
from ..errors import DeviceExists
from .credentials import IS_UNFINISHED
from .rows import Column, Table, moment, stamp

_TABLE = Table(
    "devices",
    key=("device_id",),
    others=(
        "kind",
        "state",
        "sans",
        "created_at",
        "current",
        "in_hub",
        "revocation_reason",
        "manufacturer",
        "manufacturer_serial",
        "binding_void",
    ),
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

_OVERVIEW = f"""
    SELECT devices.*, generation, serial, thumbprint, not_before, not_after, renew_at, key_algorithm,
      current IS NULL AND EXISTS (
        SELECT 1 FROM credentials WHERE credentials.device_id = devices.device_id AND {IS_UNFINISHED}
      ) AS under_way,
      EXISTS (
        SELECT 1 FROM revocation_milestones AS reached
        WHERE reached.device_id = devices.device_id AND milestone = 'verified' AND done_at IS NOT NULL
      ) AS shut_out
    FROM devices LEFT JOIN credentials live ON live.device_id = devices.device_id AND live.generation = current
"""
OVERVIEW = f"{_OVERVIEW} WHERE devices.device_id = ?"
OVERVIEWS = f"""{_OVERVIEW}
    WHERE devices.device_id GLOB :id AND (:kind IS NULL OR kind = :kind) AND (:until IS NULL OR not_after <= :until)
    ORDER BY kind = 'leaf', devices.device_id
"""

EXPIRED = """
    SELECT device_id, not_after, manufacturer IS NOT NULL AND NOT binding_void
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

    def void_hardware(self) -> list[Binding]:
        rows = self._connection.execute("SELECT manufacturer, serial FROM void_hardware ORDER BY 1, 2")
        return [Binding(row[0], row[1], void=True) for row in rows]

    def is_void(self, binding: Binding) -> bool:
        query = "SELECT 1 FROM void_hardware WHERE manufacturer = ? AND serial = ?"
        return self._connection.execute(query, (binding.manufacturer, binding.serial)).fetchone() is not None

    def unbind(self, binding: Binding) -> None:
        query = "INSERT OR IGNORE INTO void_hardware VALUES (?, ?)"
        self._connection.execute(query, (binding.manufacturer, binding.serial))

    def of_hardware(self, binding: Binding) -> Device | None:
        query = "SELECT * FROM devices WHERE manufacturer = ? AND manufacturer_serial = ? ORDER BY binding_void LIMIT 1"
        row = self._connection.execute(query, (binding.manufacturer, binding.serial)).fetchone()
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

    def expired(self, now: datetime, limit: int) -> list[tuple[str, datetime, bool]]:
        rows = self._connection.execute(EXPIRED, (stamp(now), limit))
        return [(row[0], moment(row[1]), bool(row[2])) for row in rows]

    def overview(self, device_id: str) -> Overview | None:
        row = self._connection.execute(OVERVIEW, (device_id,)).fetchone()
        return None if row is None else _overview(row)

    def overviews(self, wanted: Wanted, now: datetime) -> Iterator[Overview]:
        until = None if wanted.expiring_within is None else now + wanted.expiring_within
        # SQLite's GLOB knows shells' patterns, except that it writes [^…] for [!…].
        given = {"id": wanted.id.replace("[!", "[^"), "kind": wanted.kind, "until": stamp(until)}
        return map(_overview, self._connection.execute(OVERVIEWS, given))

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
        "manufacturer": device.binding.manufacturer if device.binding else None,
        "manufacturer_serial": device.binding.serial if device.binding else None,
        "binding_void": device.binding is not None and device.binding.void,
    }


def _overview(row: sqlite3.Row) -> Overview:
    live = None
    if row["generation"] is not None:
        live = Live(
            generation=row["generation"],
            serial=row["serial"],
            thumbprint=row["thumbprint"],
            not_before=moment(row["not_before"]),
            not_after=moment(row["not_after"]),
            renew_at=moment(row["renew_at"]),
            algorithm=None if row["key_algorithm"] is None else KeyAlgorithm(row["key_algorithm"]),
        )
    return Overview(_device(row), live, bool(row["under_way"]), bool(row["shut_out"]))


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
        binding=None
        if row["manufacturer"] is None
        else Binding(row["manufacturer"], row["manufacturer_serial"], bool(row["binding_void"])),
    )
