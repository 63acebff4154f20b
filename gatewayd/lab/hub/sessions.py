"""MQTT sessions: CleanSession 0 keeps a device's subscriptions for its next connection (MQTT 3.1.1, 3.1.2.4)."""

from __future__ import annotations

from collections.abc import Iterable

from .identity import Identity
from .registry import Registry
from .state import State


class Session:
    """One device's subscriptions; written through when they are to be kept."""

    def __init__(self, state: State, device_id: str, kept: Iterable[str] | None, *, clean: bool) -> None:
        self.present = kept is not None and not clean
        """Whether there was a session to go on with: CONNACK's flag."""
        self._state = state
        self._device_id = device_id
        self._clean = clean
        self._filters: set[str] = set() if clean or kept is None else set(kept)
        self._write()

    def __contains__(self, topic_filter: str) -> bool:
        return topic_filter in self._filters

    def subscribe(self, topic_filter: str) -> None:
        self._filters.add(topic_filter)
        self._write()

    def unsubscribe(self, topic_filter: str) -> None:
        self._filters.discard(topic_filter)
        self._write()

    def _write(self) -> None:
        if not self._clean:
            self._state.put("session", self._device_id, {"subscriptions": sorted(self._filters)})


class Sessions:
    def __init__(self, state: State, registry: Registry) -> None:
        self._state = state
        registry.listen(self._identity_written)

    def open(self, device_id: str, *, clean: bool) -> Session:
        """The session that a connection begins or goes on with."""
        kept = self._state.get("session", device_id)
        if clean:
            self._state.delete("session", device_id)
        return Session(self._state, device_id, kept["subscriptions"] if kept else None, clean=clean)

    def _identity_written(self, device_id: str, identity: Identity | None) -> None:
        if identity is None:
            self._state.delete("session", device_id)
