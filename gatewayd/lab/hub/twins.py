"""Device twins: tags, desired and reported properties, each section with its own version."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from .clock import NEVER, text, utc_now
from .errors import Code, HubError
from .identity import Identity, matches
from .registry import Registry
from .state import State

Patch = Mapping[str, Any]
Section = dict[str, Any]


def merge(target: Mapping[str, Any], patch: Patch) -> dict[str, Any]:
    """JSON merge patch (RFC 7386) of two objects: null deletes."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


class Twins:
    def __init__(self, state: State, registry: Registry) -> None:
        self._state = state
        self._registry = registry
        self._desired_listeners: list[Callable[[str, Section], None]] = []
        registry.listen(self._identity_written)

    def on_desired(self, listener: Callable[[str, Section], None]) -> None:
        """``listener(device_id, patch)`` after each change of desired properties; ``$version`` is in the patch."""
        self._desired_listeners.append(listener)

    def sections(self, device_id: str) -> dict[str, Section]:
        """What the device itself sees: desired and reported, without metadata."""
        twin = self._stored(device_id)
        return {name: _without_metadata(twin[name]) for name in ("desired", "reported")}

    def document(self, device_id: str) -> dict[str, Any]:
        """The twin as the service sees it. Raises HubError: a disabled device's is not found."""
        return self.render(self._registry.enabled(device_id))

    def render(self, identity: Identity) -> dict[str, Any]:
        twin = self._stored(identity["deviceId"])
        return {
            "deviceId": identity["deviceId"],
            "etag": base64.b64encode(twin["etag"].to_bytes(8, "big")).decode(),
            "deviceEtag": identity["etag"],
            "status": identity["status"],
            "statusUpdateTime": identity["statusUpdatedTime"],
            "lastActivityTime": identity["lastActivityTime"],
            "x509Thumbprint": identity["authentication"]["x509Thumbprint"],
            "authenticationType": identity["authentication"]["type"],
            "version": twin["version"],
            "tags": twin["tags"],
            "properties": {"desired": twin["desired"], "reported": twin["reported"]},
            "capabilities": identity["capabilities"],
            "deviceScope": identity["deviceScope"],
            "parentScopes": identity["parentScopes"],
        }

    def update(self, device_id: str, document: Patch, if_match: str | None, *, replace: bool) -> dict[str, Any]:
        """The service's PATCH (merge) or PUT (replace) of tags and desired properties. Raises HubError."""
        current = self.document(device_id)
        if if_match is not None and not matches(if_match, current["etag"]):
            raise HubError(Code.PRECONDITION_FAILED, "Precondition failed: twin version did not match.")
        self.write(device_id, document, replace=replace)
        return self.document(device_id)

    def write(self, device_id: str, document: Patch, *, replace: bool) -> None:
        """As ``update``, whatever the device's status: a device may be created disabled and with tags."""
        twin = self._stored(device_id)
        tags = _object(document.get("tags"), "tags")
        desired = _object(_object(document.get("properties"), "properties").get("desired"), "properties.desired")
        twin["tags"] = merge({} if replace else twin["tags"], tags)
        twin["etag"] += 1
        twin["version"] += 1
        if desired or replace:
            twin["desired"] = _changed(twin["desired"], desired, replace=replace)
        self._state.put("twin", device_id, twin)
        if desired or replace:
            version = twin["desired"]["$version"]
            for listener in self._desired_listeners:
                listener(device_id, {**_without_metadata(desired), "$version": version})

    def report(self, device_id: str, patch: Patch) -> int:
        """The device's PATCH of its reported properties. Returns the section's new version."""
        twin = self._stored(device_id)
        twin["reported"] = _changed(twin["reported"], patch, replace=False)
        twin["version"] += 1
        self._state.put("twin", device_id, twin)
        version: int = twin["reported"]["$version"]
        return version

    def _stored(self, device_id: str) -> dict[str, Any]:
        return self._state.get("twin", device_id) or {
            "etag": 1,
            "version": 2,
            "tags": {},
            "desired": {"$metadata": {"$lastUpdated": NEVER}, "$version": 1},
            "reported": {"$metadata": {"$lastUpdated": NEVER}, "$version": 1},
        }

    def _identity_written(self, device_id: str, identity: Identity | None) -> None:
        if identity is None:
            self._state.delete("twin", device_id)


def _changed(section: Section, patch: Patch, *, replace: bool) -> Section:
    base: Mapping[str, Any] = {} if replace else _without_metadata(section)
    return {
        **merge(base, {key: value for key, value in patch.items() if not key.startswith("$")}),
        "$metadata": {"$lastUpdated": text(utc_now())},
        "$version": section["$version"] + 1,
    }


def _without_metadata(section: Mapping[str, Any]) -> Section:
    return {key: value for key, value in section.items() if key != "$metadata"}


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise HubError(Code.ARGUMENT_INVALID, f"{name} is not an object.")
    return value
