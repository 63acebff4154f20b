"""What a device identity is: which documents the hub accepts, and what it makes of them. Pure.

A write is a full replace. What the client leaves out falls back to its default, and the default of ``authentication``
is ``sas`` with freshly minted keys: that is how a careless update turns an X.509 device into a password device.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from .clock import NEVER, text
from .errors import Code, HubError

DEVICE_ID: Final = re.compile(r"[A-Za-z0-9\-.%_*?!(),:=@$']{1,128}")
_THUMBPRINT: Final = re.compile(r"[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}")
_STATUS: Final = ("enabled", "disabled")
_TYPES: Final = ("sas", "selfSigned", "certificateAuthority")
_REASON_LENGTH: Final = 128

Identity = dict[str, Any]


def create(device_id: str, document: Mapping[str, Any], now: datetime) -> Identity:
    """A new identity from what a client sent. Raises HubError (ArgumentInvalid)."""
    generation_id = str(int(now.timestamp() * 1_000_000))
    fresh: Identity = {
        "deviceId": device_id,
        "generationId": generation_id,
        "connectionStateUpdatedTime": NEVER,
        "statusUpdatedTime": NEVER,
        "lastActivityTime": NEVER,
    }
    return _written(fresh, document)


def replace(current: Identity, document: Mapping[str, Any], now: datetime) -> Identity:
    """``current`` after a full replace by ``document``. Raises HubError (ArgumentInvalid)."""
    updated = _written(current, document)
    if updated["status"] != current["status"]:
        updated["statusUpdatedTime"] = text(now)
    return updated


def matches(if_match: str, etag: str) -> bool:
    """Whether an If-Match header admits ``etag``: quoted or not; ``*``, which Microsoft's client sends as ``"*"``."""
    wanted = if_match.strip().strip('"')
    return wanted in ("*", etag)


def new_etag() -> str:
    return base64.b64encode(str(secrets.randbelow(10**9)).encode()).decode()


def _written(base: Identity, document: Mapping[str, Any]) -> Identity:
    device_id: str = base["deviceId"]
    if not DEVICE_ID.fullmatch(device_id):
        raise _invalid(f"'{device_id}' is not a device id: 1 to 128 of A-Z a-z 0-9 - . % _ * ? ! ( ) , : = @ $ '")
    if document.get("deviceId") != device_id:
        raise _invalid("deviceId in the body differs from the one in the address.")
    edge = bool(_table(document, "capabilities").get("iotEdge", False))
    scope = _scope(base, document, edge)
    parents = document.get("parentScopes") or ([] if edge or not scope else [scope])
    return {
        **base,
        "etag": new_etag(),
        "status": _status(document),
        "statusReason": _reason(document),
        "authentication": _authentication(document),
        "capabilities": {"iotEdge": edge},
        "deviceScope": scope,
        "parentScopes": parents,
    }


def _invalid(message: str) -> HubError:
    return HubError(Code.ARGUMENT_INVALID, message)


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _invalid(f"{key} is not an object.")
    return value


def _status(document: Mapping[str, Any]) -> str:
    status = document.get("status") or "enabled"
    if not isinstance(status, str) or status.lower() not in _STATUS:
        raise _invalid("status is neither enabled nor disabled.")
    return status.lower()


def _reason(document: Mapping[str, Any]) -> str | None:
    reason = document.get("statusReason")
    if reason is None:
        return None
    if not isinstance(reason, str) or len(reason) > _REASON_LENGTH:
        raise _invalid(f"statusReason is not a text of at most {_REASON_LENGTH} characters.")
    return reason


def _scope(base: Identity, document: Mapping[str, Any], edge: bool) -> str:
    """A gateway (iotEdge) gets a scope of its own; a leaf names its gateway's."""
    if edge:
        return f"ms-azure-iot-edge://{base['deviceId']}-{base['generationId']}"
    scope = document.get("deviceScope") or ""
    if not isinstance(scope, str):
        raise _invalid("deviceScope is not a text.")
    return scope


def _authentication(document: Mapping[str, Any]) -> dict[str, Any]:
    given = _table(document, "authentication")
    thumbprints = _table(given, "x509Thumbprint")
    slots = {slot: _thumbprint(thumbprints, slot) for slot in ("primaryThumbprint", "secondaryThumbprint")}
    kind = given.get("type") or ("selfSigned" if any(slots.values()) else "sas")
    if kind not in _TYPES:
        raise _invalid(f"authentication.type is none of {', '.join(_TYPES)}.")
    if kind == "selfSigned" and not any(slots.values()):
        raise _invalid("authentication.type selfSigned needs a thumbprint.")
    keys = _table(given, "symmetricKey")
    return {
        "type": kind,
        "symmetricKey": {slot: _key(keys, slot) if kind == "sas" else None for slot in ("primaryKey", "secondaryKey")},
        "x509Thumbprint": slots if kind == "selfSigned" else dict.fromkeys(slots),
    }


def _thumbprint(thumbprints: Mapping[str, Any], slot: str) -> str | None:
    value = thumbprints.get(slot) or None
    if value is not None and not (isinstance(value, str) and _THUMBPRINT.fullmatch(value)):
        raise _invalid(f"{slot} is neither a SHA-1 nor a SHA-256 thumbprint: 40 or 64 hex digits, no separators.")
    return value


def _key(keys: Mapping[str, Any], slot: str) -> str:
    return keys.get(slot) or base64.b64encode(secrets.token_bytes(32)).decode()
