"""Who is connected: one connection a device, and what reaches it from the hub's other parts."""

from __future__ import annotations

import json
import logging

from . import topics
from .clock import text, utc_now
from .connection import Connection
from .identity import Identity
from .mailbox import Mailbox
from .registry import Registry
from .state import State
from .twins import Section, Twins

log = logging.getLogger(__name__)


class Presence:
    def __init__(self, state: State, registry: Registry, twins: Twins, mailbox: Mailbox) -> None:
        self._state = state
        self._registry = registry
        self._connections: dict[str, Connection] = {}
        registry.listen(self._identity_written)
        twins.on_desired(self._desired_changed)
        mailbox.on_letter(self._letter_came)

    def find(self, device_id: str) -> Connection | None:
        """The device's open connection. One that the hub has closed counts no more, though its TLS may still linger."""
        connection = self._connections.get(device_id)
        return connection if connection is not None and connection.is_open else None

    def all(self) -> list[Connection]:
        return [connection for connection in self._connections.values() if connection.is_open]

    def enter(self, connection: Connection) -> None:
        """A newcomer evicts the device's older connection."""
        device_id = connection.peer.device_id
        if older := self.find(device_id):
            older.close("evicted by a newer connection")
        self._connections[device_id] = connection
        self._registry.note_connection(device_id)

    def leave(self, connection: Connection) -> None:
        device_id, reason = connection.peer.device_id, connection.ended_because
        log.info("MQTT %r: connection ended, %s", device_id, reason)
        self._state.append("ended", {"deviceId": device_id, "reason": reason, "time": text(utc_now())})
        if self._connections.get(device_id) is connection:
            del self._connections[device_id]
            self._registry.note_connection(device_id)

    def _identity_written(self, device_id: str, identity: Identity | None) -> None:
        connection = self.find(device_id)
        if connection is not None and (identity is None or identity["status"] != "enabled"):
            connection.close("the device was disabled" if identity else "the device was deleted")

    def _desired_changed(self, device_id: str, patch: Section) -> None:
        if connection := self.find(device_id):
            topic = f"$iothub/twin/PATCH/properties/desired/?$version={patch['$version']}"
            connection.send(topics.DESIRED, topic, json.dumps(patch).encode())

    def _letter_came(self, device_id: str) -> None:
        if connection := self.find(device_id):
            connection.deliver()
