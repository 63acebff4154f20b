"""Cloud-to-device messages: kept until the device has acknowledged them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import topics
from .identity import Identity
from .registry import Registry
from .state import State


@dataclass(frozen=True, slots=True)
class Letter:
    sequence: int
    topic: str
    body: bytes


class Mailbox:
    def __init__(self, state: State, registry: Registry) -> None:
        self._state = state
        self._registry = registry
        self._listeners: list[Callable[[str], None]] = []
        registry.listen(self._identity_written)

    def on_letter(self, listener: Callable[[str], None]) -> None:
        """``listener(device_id)`` when there is something new for a device."""
        self._listeners.append(listener)

    def post(self, device_id: str, body: str, properties: Mapping[str, str]) -> int:
        """Queue a message; returns its sequence number. Raises HubError when the device is missing or disabled."""
        self._registry.enabled(device_id)
        entry = {"deviceId": device_id, "body": body, "properties": dict(properties)}
        sequence = self._state.append("c2d", entry)
        for listener in self._listeners:
            listener(device_id)
        return sequence

    def pending(self, device_id: str) -> list[Letter]:
        """Oldest first."""
        prefix = topics.devicebound(device_id).removesuffix("#")
        system = {"$.to": f"/devices/{device_id}/messages/deviceBound"}
        return [
            Letter(sequence, prefix + topics.bag(system, entry["properties"]), entry["body"].encode())
            for sequence, entry in self._state.entries("c2d")
            if entry["deviceId"] == device_id
        ]

    def complete(self, letter: Letter) -> None:
        self._state.remove_entry(letter.sequence)

    def _identity_written(self, device_id: str, identity: Identity | None) -> None:
        if identity is None:
            for letter in self.pending(device_id):
                self.complete(letter)
