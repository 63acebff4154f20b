"""Device identities as the hub's registry speaks them (iothub.md, Identity). Documents in, documents out.

A PUT replaces the whole identity, and one without ``authentication`` makes the hub mint symmetric keys. So an update
is always the document that was read, with nothing but the intended change in it; fields that nobody here has heard
of go back as they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .base import HubIdentity, Pinning

STATUS_REASON_LIMIT: Final = 128
"""Characters that the hub takes as statusReason (iothub.md, Identity)."""

_AUTHENTICATION_TYPES: Final = frozenset({"sas", "selfSigned", "certificateAuthority"})


def parse(document: object, device_id: str) -> HubIdentity:
    """The identity of ``device_id``. Raises ValueError when the document is not that."""
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    if document.get("deviceId") != device_id:  # ids are case-sensitive
        raise ValueError("it names another device")
    status = document.get("status")
    if status not in ("enabled", "disabled"):
        raise ValueError("its status is neither enabled nor disabled")
    authentication = document.get("authentication")
    if not isinstance(authentication, dict) or authentication.get("type") not in _AUTHENTICATION_TYPES:
        raise ValueError("its authentication type is none of " + ", ".join(sorted(_AUTHENTICATION_TYPES)))
    thumbprints = authentication.get("x509Thumbprint") or {}
    if not isinstance(thumbprints, dict):
        raise ValueError("its x509Thumbprint is not an object")
    etag = _text(document, "etag")
    if not etag:
        raise ValueError("it has no etag")
    return HubIdentity(
        device_id=device_id,
        etag=etag,
        generation_id=_text(document, "generationId") or "",
        enabled=status == "enabled",
        status_reason=_text(document, "statusReason") or "",
        authentication_type=authentication["type"],
        primary_thumbprint=_text(thumbprints, "primaryThumbprint"),
        secondary_thumbprint=_text(thumbprints, "secondaryThumbprint"),
        scope=_text(document, "deviceScope") or "",
        is_gateway=_is_gateway(document),
        parents=_parents(document),
        raw=document,
    )


def _is_gateway(document: Mapping[str, Any]) -> bool:
    capabilities = document.get("capabilities") or {}
    if not isinstance(capabilities, dict):
        raise ValueError("its capabilities is not an object")
    return capabilities.get("iotEdge") is True


def _parents(document: Mapping[str, Any]) -> tuple[str, ...]:
    value = document.get("parentScopes") or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("its parentScopes is not a list of texts")
    return tuple(value)


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"its {key} is not text")
    return value


def new(device_id: str, parent: str = "", edge: bool = False) -> dict[str, Any]:
    """What to PUT to create a device that authenticates with certificates of a registered CA.

    ``parent`` is the scope of the gateway that it belongs to. ``edge`` makes it a gateway: only an identity with
    iotEdge has a scope of its own, and so children.
    """
    document: dict[str, Any] = {
        "deviceId": device_id,
        "status": "enabled",
        "authentication": {"type": "certificateAuthority"},
    }
    if edge:
        document["capabilities"] = {"iotEdge": True}
    if parent:
        document |= {"deviceScope": parent, "parentScopes": [parent]}
    return document


def disabled(identity: HubIdentity, reason: str) -> dict[str, Any]:
    """What to PUT to disable it: everything as it was, save for the status and its reason."""
    return {**identity.raw, "status": "disabled", "statusReason": reason[:STATUS_REASON_LIMIT]}


def pinned(document: Mapping[str, Any], pin: Pinning) -> dict[str, Any]:
    """What to PUT so that the hub lets in the certificates with these thumbprints and no others; enabled, if it is to
    be, in the same write, because an id that is enabled first lets every unexpired certificate of its name in."""
    thumbprints = {"primaryThumbprint": pin.primary, "secondaryThumbprint": pin.secondary}
    changed = {**document, "authentication": {"type": "selfSigned", "x509Thumbprint": thumbprints}}
    return {**changed, "status": "enabled", "statusReason": None} if pin.enable else changed


def unpinned(document: Mapping[str, Any]) -> dict[str, Any]:
    """What to PUT so that it authenticates with certificates of a registered CA again."""
    return {**document, "authentication": {"type": "certificateAuthority"}}
