"""The device registry: identities, their etags, and who is told when one changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import identity
from .clock import text, utc_now
from .errors import Code, HubError, unknown_device
from .identity import Identity
from .state import State

Listener = Callable[[str, Identity | None], None]


class Registry:
    def __init__(self, state: State) -> None:
        self._state = state
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """``listener(device_id, identity)`` after each identity write; None when the device was deleted."""
        self._listeners.append(listener)

    def find(self, device_id: str) -> Identity | None:
        return self._state.get("identity", device_id)

    def get(self, device_id: str) -> Identity:
        """Raises HubError (DeviceNotFound)."""
        found = self.find(device_id)
        if found is None:
            raise unknown_device(device_id)
        return found

    def enabled(self, device_id: str) -> Identity:
        """As ``get``; a disabled device is as unknown to twins, methods and C2D as a missing one."""
        found = self.get(device_id)
        if found["status"] != "enabled":
            raise unknown_device(device_id)
        return found

    def all(self) -> list[Identity]:
        return [document for _, document in self._state.all("identity")]

    def put(self, device_id: str, document: Mapping[str, Any], if_match: str | None) -> Identity:
        """Without ``if_match`` create only; with it replace only. Raises HubError."""
        if if_match is not None:
            current = self.get(device_id)
            self._check(current, if_match)
            written = identity.replace(current, document, utc_now())
        elif self.find(device_id) is None:
            written = identity.create(device_id, document, utc_now())
        else:
            raise HubError(Code.DEVICE_ALREADY_EXISTS, f"A device with ID '{device_id}' is already registered.")
        self._state.put("identity", device_id, written)
        self._tell(device_id, written)
        return written

    def delete(self, device_id: str, if_match: str) -> None:
        """Raises HubError."""
        self._check(self.get(device_id), if_match)
        self._state.delete("identity", device_id)
        self._tell(device_id, None)

    def note_connection(self, device_id: str) -> None:
        """The device came or went. No identity write: the etag stays."""
        self._touch(device_id, "connectionStateUpdatedTime", "lastActivityTime")

    def note_activity(self, device_id: str) -> None:
        self._touch(device_id, "lastActivityTime")

    def _touch(self, device_id: str, *fields: str) -> None:
        found = self.find(device_id)
        if found is not None:
            self._state.put("identity", device_id, {**found, **dict.fromkeys(fields, text(utc_now()))})

    @staticmethod
    def _check(current: Identity, if_match: str) -> None:
        if not identity.matches(if_match, current["etag"]):
            raise HubError(Code.PRECONDITION_FAILED, "Precondition failed: Device version did not match.")

    def _tell(self, device_id: str, written: Identity | None) -> None:
        for listener in self._listeners:
            listener(device_id, written)
