"""What a message says, and who says so. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from ...core.enrollment import DEVICE_ID
from ...core.model import RevocationReason
from .. import report

STAMPS: Final = (
    "iothub-connection-device-id",
    "iothub-connection-auth-generation-id",
    "iothub-connection-auth-method",
)
"""Put on each message by the hub, about the connection that it came over (iothub.md, The cloud's side of a report)."""


_KINDS: Final = (report.REVOCATION, report.ENROLLMENT, report.PIN, report.UNPIN)
_MOST_REPLACED: Final = 64
"""Certificates: a gateway holds a few at a time."""
_THUMBPRINT: Final = re.compile(r"[0-9a-f]{64}")
"""SHA-256."""
_REASONS: Final = tuple(each.value for each in RevocationReason)
_SERIAL: Final = re.compile(r"[0-9a-fA-F]{0,64}")


class Ignored(Exception):
    """The message is not one to act on, or not to be believed; the words say why."""


@dataclass(frozen=True, slots=True)
class Request:
    speaker: str
    """The device id of the connection: who says so."""
    generation_id: str
    """Of the speaker's identity at that time: a device that was deleted and made anew has another."""
    kind: str
    """One of ``report``'s: REVOCATION, ENROLLMENT, PIN, UNPIN."""
    device_id: str
    serial: str
    thumbprint: str | None
    """Hex SHA-256 of the certificate."""
    not_after: datetime | None
    reason: str
    thumbprints: tuple[str, ...] = ()
    """Of PIN: what is to be let in, primary and secondary; of UNPIN: what the gateway has pinned it to."""
    enable: bool = False
    etag: str = ""
    """The version of the identity that is meant: of PIN, UNPIN, and a REVOCATION of what has expired."""
    certificate: bytes | None = None
    """DER: the revoked one; of PIN, the one to be let in, where it has to be shown."""
    replaced: tuple[bytes, ...] = ()
    """DER, of PIN: the revoked ones in whose place it stands."""

    @property
    def is_own(self) -> bool:
        return self.device_id == self.speaker


def read(system: Mapping[str, Any], body: Any) -> Request:
    """``system`` holds the system properties and nothing that a device can write. Raises Ignored."""
    speaker, generation_id, method = (system.get(name) for name in STAMPS)
    if not (isinstance(speaker, str) and speaker and isinstance(generation_id, str) and generation_id):
        raise Ignored("it carries no stamp of the hub")
    if not _by_certificate(method):
        raise Ignored(f"the connection of {speaker} was not authenticated by the device's own certificate")
    if not isinstance(body, Mapping):
        raise Ignored(f"what {speaker} says is not a JSON object")
    kind, device_id, serial = (body.get(name) for name in ("type", "deviceId", "serial"))
    if kind not in _KINDS:
        raise Ignored(f"what {speaker} says is none of: {', '.join(_KINDS)}")
    if not (
        isinstance(device_id, str)
        and DEVICE_ID.fullmatch(device_id)
        and isinstance(serial, str)
        and _SERIAL.fullmatch(serial)
    ):
        raise Ignored(f"what {speaker} says names no device, or no certificate")
    thumbprint, reason = body.get("thumbprint"), body.get("reason")
    request = Request(
        speaker=speaker,
        generation_id=generation_id,
        kind=kind,
        device_id=device_id,
        serial=serial,
        thumbprint=thumbprint.lower() if isinstance(thumbprint, str) else None,
        not_after=_time(body.get("notAfter")),
        # It goes into the identity, and a device may have written anything.
        reason=reason if reason in _REASONS else RevocationReason.UNSPECIFIED.value,
        certificate=_bytes(body.get("certificate")),
    )
    if kind in (report.PIN, report.UNPIN):
        return replace(request, **_pin(body, speaker))
    etag = body.get("etag")
    return replace(request, etag=etag) if isinstance(etag, str) else request


def _pin(body: Mapping[str, Any], speaker: str) -> dict[str, Any]:
    thumbprints, enable, etag = (body.get(name) for name in ("thumbprints", "enable", "etag"))
    if not (
        isinstance(thumbprints, list)
        and all(isinstance(each, str) and _THUMBPRINT.fullmatch(each) for each in thumbprints)
        and (len(thumbprints) == 2 or body.get("type") == report.UNPIN)
        and isinstance(enable, bool)
        and isinstance(etag, str)
    ):
        raise Ignored(f"what {speaker} says about a pin is not of its form")
    certificate, replaced = _bytes(body.get("certificate")), body.get("replaced", [])
    shown = [_bytes(each) for each in replaced] if isinstance(replaced, list) else [None]
    if None in shown or len(shown) > _MOST_REPLACED:
        raise Ignored(f"what {speaker} says about a pin is not of its form")
    return {
        "thumbprints": tuple(thumbprints),
        "enable": enable,
        "etag": etag,
        "thumbprint": hashlib.sha256(certificate).hexdigest() if certificate else None,
        "replaced": tuple(shown),
    }


def _by_certificate(method: Any) -> bool:
    """``{"scope": "device", "type": "x509…", …}``: not with a shared key, which others may hold, nor with one of the
    hub's own policies, whose holder can pass for any device."""
    try:
        stamped = json.loads(method) if isinstance(method, str) else method
    except ValueError:
        return False
    return (
        isinstance(stamped, Mapping)
        and stamped.get("scope") == "device"
        and isinstance(kind := stamped.get("type"), str)
        and kind.lower().startswith("x509")
    )


def _bytes(text: Any) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except ValueError:
        return None


def _time(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None
