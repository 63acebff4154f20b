"""What azure-iot-device raises, in our words. Imported with the SDK only (``sdk.py``)."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from typing import Final

from azure.iot.device import exceptions
from paho.mqtt.client import connack_string

from ..errors import GatewayError, HubRefused, HubRejected, HubThrottled, HubUnreachable, Internal

SDK_ERRORS: Final = (exceptions.ClientError, exceptions.OperationCancelled, exceptions.OperationTimeout)
"""What a call into the client raises (``handle_result`` in its async_clients.py)."""

_CONNACK: Final = {connack_string(code): code for code in (4, 5)}
_CERTIFICATE_ALERT: Final = re.compile(r"_ALERT_(\w*CERTIFICATE\w*|UNKNOWN_CA|ACCESS_DENIED)$")
"""The alerts by which a TLS server turns down the client's certificate (RFC 5246, 7.2.2), as OpenSSL names them."""


def translated(error: Exception, device_id: str) -> GatewayError:
    """CONNACK 4 and 5, and a TLS alert about our certificate, are refusals; what ``bind`` raised stays what it is;
    an error that is none of the SDK's is Internal; all else means that there is no connection."""
    for cause in _causes(error):
        if isinstance(cause, GatewayError):  # bind raised it
            return cause
        if isinstance(cause, exceptions.ServiceError):
            return _service_error(cause, device_id)
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = f"its certificate is not trusted: {cause.verify_message.rstrip('.')}"
            return HubUnreachable(f"The hub of {device_id} cannot be reached: {reason}.", device=device_id)
        if isinstance(cause, ssl.SSLError) and (alert := _CERTIFICATE_ALERT.search(cause.reason or "")):
            said = alert[1].lower().replace("_", " ")
            return HubRefused(f"The hub refuses the certificate of {device_id} (TLS alert: {said}).", device=device_id)
        if isinstance(cause, ssl.SSLError):
            reason = f"TLS failed ({cause.reason or cause.strerror or type(cause).__name__})"
            return HubUnreachable(f"The hub of {device_id} cannot be reached: {reason}.", device=device_id)
        if isinstance(cause, OSError):
            reason = cause.strerror or str(cause) or type(cause).__name__
            return HubUnreachable(f"The hub of {device_id} cannot be reached: {reason}.", device=device_id)
    root = list(_causes(error))[-1]
    if isinstance(error, exceptions.CredentialError):
        code = _CONNACK.get(str(root))
        said = f"CONNACK {code}" if code else str(root)
        return HubRefused(f"The hub refuses the connection of {device_id} ({said}).", device=device_id)
    if isinstance(
        error, exceptions.NoConnectionError | exceptions.ConnectionDroppedError | exceptions.OperationCancelled
    ):
        return HubUnreachable(f"The hub connection of {device_id} was lost.", device=device_id)
    if isinstance(error, SDK_ERRORS):
        reason = str(root).rstrip(".") or type(root).__name__
        return HubUnreachable(f"The hub of {device_id} cannot be reached: {reason}.", device=device_id)
    return Internal(f"The hub client of {device_id} failed with an unforeseen {type(root).__name__}.", device=device_id)


def _service_error(error: Exception, device_id: str) -> GatewayError:
    status = int(found[0]) if (found := re.search(r"\d{3}$", str(error))) else 0
    said = f"The hub did not take the reported state of {device_id} (status {status})."
    if status == 429:
        return HubThrottled(said, device=device_id)
    return HubRejected(said, device=device_id) if 400 <= status < 500 else HubUnreachable(said, device=device_id)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """From what the SDK raised down to what made it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__
