"""What the gateway tells the hub about itself: plain JSON values, built from the core's nouns."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ..core.audit import Head
from ..core.model import Credential, DeviceState, Revocation
from ..pki import heads
from .base import Pinning

REVOCATION: Final = "revocation"
"""The application property ``type`` of a revocation report, by which the hub routes it; the body says it again,
because not every receiver is shown the properties."""

ENROLLMENT: Final = "enrollment"
"""The same of a request to have a leaf's identity created."""

PIN: Final = "pin"
UNPIN: Final = "unpin"
"""The same of a request to have a leaf's identity pinned to certificates, or to any of its CA's again."""

ERROR_LIMIT: Final = 256
"""Characters of the last error in the reported state. With it the state has a fixed shape and stays below
``STATE_LIMIT``, whatever the gateway looks after."""
STATE_LIMIT: Final = 2048
"""Bytes of the reported state as JSON. Our own bound, far below what a twin holds."""


def revocation_key(revocation: Revocation) -> str:
    """The message id of a report, and its key in the outbox: device ids and hex need no escaping in a message id,
    and together stay within its 128 characters."""
    return f"{REVOCATION}:{revocation.device_id}:{revocation.serial}"


def revocation_report(revocation: Revocation, credential: Credential | None) -> dict[str, Any]:
    """The body of the D2C message. ``credential`` is the revoked one, where it is on record.

    It does not say who reports: a receiver may trust only what the hub stamps on the message (iothub.md, The cloud's
    side of a report). Delivery is at least once: receivers key their action on the serial or the thumbprint.
    """
    der = credential.certificate if credential else None
    return {
        "type": REVOCATION,
        "deviceId": revocation.device_id,
        "serial": revocation.serial,
        "thumbprint": credential.thumbprint if credential else None,
        "certificate": base64.b64encode(der).decode() if der else None,
        "notAfter": _time(credential.not_after) if credential else None,
        "reason": revocation.reason.value,
        "origin": revocation.origin,
        "knownAt": _time(revocation.known_at),
    }


def enrollment_report(device_id: str, serial: str) -> dict[str, Any]:
    """The body of the D2C message by which a gateway without rights on the hub asks for a leaf's identity."""
    return {"type": ENROLLMENT, "deviceId": device_id, "serial": serial}


def pin_report(pin: Pinning) -> dict[str, Any]:
    """The body of the D2C message by which a gateway without rights on the hub asks for a pin, less the ``etag`` of
    the identity that it is about."""
    body = {
        "type": PIN,
        "deviceId": pin.device_id,
        "serial": pin.serial,
        "thumbprints": [pin.primary, pin.secondary],
        "enable": pin.enable,
    }
    if pin.certificate:
        body["certificate"] = base64.b64encode(pin.certificate).decode()
        body["replaced"] = [base64.b64encode(each).decode() for each in pin.replaced]
    return body


def unpin_report(device_id: str, ours: Iterable[str]) -> dict[str, Any]:
    return {"type": UNPIN, "deviceId": device_id, "serial": "", "thumbprints": sorted(ours), "enable": False}


def reported_state(
    version: str,
    credential: Credential | None,
    leaves: Mapping[DeviceState, int],
    open_revocations: Collection[Revocation],
    head: Head | None = None,
) -> dict[str, Any]:
    """A patch for the twin's reported properties: the daemon's version, the gateway's live ``credential``, how many
    leaves and open revocations there are, and the newest signed ``head`` of the audit trail: kept outside, it shows
    when the end of the trail was cut off.

    Every key is always there, null where there is nothing to say: the hub merges a patch into what it has, and null
    deletes. Counts instead of lists keep it small and free of names that a twin's keys could not hold.
    """
    return {
        "gatewayd": {
            "version": version,
            "certificate": None if credential is None else _certificate(credential),
            "leaves": {state.value: leaves.get(state, 0) for state in DeviceState},
            "revocations": {
                "open": len(open_revocations),
                "openSince": _time(min((each.known_at for each in open_revocations), default=None)),
            },
            "audit": None if head is None else heads.published(head),
        }
    }


def _certificate(credential: Credential) -> dict[str, Any]:
    error = credential.last_error
    return {
        "generation": credential.generation,
        "serial": credential.serial,
        "thumbprint": credential.thumbprint,
        "notBefore": _time(credential.not_before),
        "notAfter": _time(credential.not_after),
        "renewAt": _time(credential.renew_at),
        "lastError": error[:ERROR_LIMIT] if error else None,
    }


def _time(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, to the second."""
    if moment is None:
        return None
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"
