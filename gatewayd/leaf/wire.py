"""EST on the wire (RFC 7030 as updated by RFC 8951): values in, values out.

What a stranger sends is read here and what it is answered is written here; nothing in this module does I/O or decides
who may have what. Three independent clients set the form of the answers: strongSwan fails on base64 with line breaks
and on a chunked answer, libest fails on /cacerts without line breaks and on a Content-Type without the smime-type,
and neither minds a missing Content-Transfer-Encoding.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ..core.enrollment import DEVICE_ID
from ..errors import (
    CodeRefused,
    CsrInvalid,
    DeviceRevoked,
    DeviceUnknown,
    EnrollmentDenied,
    GatewayError,
    Internal,
    TooManyRequests,
)

MAX_BODY: Final = 64 * 1024
"""Bytes of a request's body: a CSR with an RSA-4096 key takes 2.5 KiB."""

_ROOT: Final = "/.well-known/est/"
_NOT_OFFERED: Final = frozenset({"serverkeygen", "fullcmc"})
_TEXT: Final = "text/plain; charset=utf-8"
_RETRY_AFTER: Final = 60.0
"""Seconds that a client is asked to wait when the error does not say how long."""

_CSR_ATTRIBUTES: Final = bytes.fromhex(
    "3021"  # CsrAttrs ::= SEQUENCE OF AttrOrOID (RFC 8951)
    "3015"  # Attribute: the kind of key that is wanted
    "06072a8648ce3d0201"  # type id-ecPublicKey
    "310a06082a8648ce3d030107"  # values { secp256r1 }
    "06082a8648ce3d040302"  # OID ecdsa-with-SHA256: how the CSR is best signed
)
"""What a client without a mind of its own should use. Other keys that the scope check accepts come through as well."""


class Resource(StrEnum):
    CACERTS = "cacerts"
    CSRATTRS = "csrattrs"
    ENROLL = "simpleenroll"
    REENROLL = "simplereenroll"

    @property
    def method(self) -> str:
        return "GET" if self in (Resource.CACERTS, Resource.CSRATTRS) else "POST"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """The request is refused by the rules of HTTP alone, before anybody asks who sent it."""

    def __init__(self, status: int, sentence: str, *headers: tuple[str, str]) -> None:
        super().__init__(sentence)
        self.answer = _sentence(status, sentence, *headers)


# --- requests ------------------------------------------------------------------------------------


def route(method: str, path: str, labels: Collection[str]) -> Resource:
    """What is asked for (RFC 7030, 3.2.2). ``path`` is taken as it came, percent signs and all. Raises Refused."""
    label, slash, name = path.removeprefix(_ROOT).rpartition("/") if path.startswith(_ROOT) else ("", "", "")
    if slash and label not in labels:
        raise Refused(404, "There is no CA of this label here.")
    if name in _NOT_OFFERED:
        raise Refused(501, f"This server does not offer {name}: keys are made where they are used.")
    try:
        resource = Resource(name)
    except ValueError:
        raise Refused(404, "There is nothing here; EST is at /.well-known/est/.") from None
    if method != resource.method:
        raise Refused(405, f"{resource} takes {resource.method} only.", ("Allow", resource.method))
    return resource


def check_headers(content_type: str | None, content_encoding: str | None, content_length: int | None) -> None:
    """Raises Refused for a body that is not worth reading. Content-Transfer-Encoding says nothing: the body is
    base64 whatever it claims (RFC 8951)."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type != "application/pkcs10":
        raise Refused(415, "The Content-Type must be application/pkcs10.")
    if (content_encoding or "identity").strip().lower() != "identity":
        raise Refused(415, "The body must not be compressed.")
    if (content_length or 0) > MAX_BODY:
        raise too_large()


def too_large() -> Refused:
    return Refused(413, f"The body is larger than {MAX_BODY} bytes.")


def decode_csr(body: bytes) -> bytes:
    """DER of the CSR in a request's body: base64, with line breaks or without. Raises CsrInvalid."""
    if body.startswith(b"-----BEGIN"):
        raise CsrInvalid("The body is PEM: send the base64 without its BEGIN and END lines.")
    if body[:1] == b"\x30" and body[1:2] >= b"\x80":
        raise CsrInvalid("The body is plain DER: send it in base64 (RFC 8951).")
    try:
        der = base64.b64decode(body.translate(None, b" \t\r\n"), validate=True)
    except ValueError:
        raise CsrInvalid("The body is not base64.") from None
    if not der:
        raise CsrInvalid("The body is empty: it must be a PKCS#10 request in base64.")
    return der


def credentials(authorization: str | None) -> tuple[str, str] | None:
    """(device id, code) from HTTP Basic (RFC 7617); None for no header or another scheme. Raises CodeRefused.

    Split at the last colon, not at the first as RFC 7617 has it: a device id may hold colons, a code never does.
    """
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        device_id, _, code = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").rpartition(":")
    except ValueError:
        device_id = code = ""
    if not code or not DEVICE_ID.fullmatch(device_id):
        raise CodeRefused("The Authorization header does not hold a device id and a code.")
    return device_id, code


# --- answers -------------------------------------------------------------------------------------


def certificates(pkcs7: bytes, user_agent: str) -> Answer:
    """200 with a certs-only message (RFC 7030, 4.1.3 and 4.2.3)."""
    return Answer(200, _base64(pkcs7, user_agent), "application/pkcs7-mime; smime-type=certs-only")


def csr_attributes(user_agent: str) -> Answer:
    """200 with what a CSR should look like (RFC 7030, 4.5.2, as corrected by RFC 8951)."""
    return Answer(200, _base64(_CSR_ATTRIBUTES, user_agent), "application/csrattrs")


def pending(retry_after: float) -> Answer:
    """202: kept, not issued yet (RFC 7030, 4.2.3)."""
    return _sentence(202, "The request is being worked on: send it again, unchanged.", _retry(retry_after))


def refusal(error: GatewayError) -> Answer:
    """The one place where an error becomes a status.

    A refusal (4xx) tells the client what it did. Anything else is the gateway's own affair, of which a stranger
    learns the error's name and nothing more.
    """
    match error:
        case CsrInvalid():
            return _sentence(400, error.message)
        case CodeRefused():
            return _sentence(401, error.message, ("WWW-Authenticate", 'Basic realm="gatewayd", charset="UTF-8"'))
        case EnrollmentDenied() | DeviceRevoked() | DeviceUnknown():
            return _sentence(403, error.message)
        case TooManyRequests():
            return _sentence(429, error.message, _retry(error.retry_after))
        case Internal():
            return failure()
        case _:
            return _sentence(503, f"The gateway cannot do this now ({error.name()}).", _retry(error.retry_after))


def failure() -> Answer:
    """500: a defect of ours; the log says which."""
    return _sentence(500, "The gateway failed on this request; its log says why.")


def malformed() -> Answer:
    """400 for what is not even HTTP."""
    return _sentence(400, "This is not a well-formed HTTP request.")


def _sentence(status: int, sentence: str, *headers: tuple[str, str]) -> Answer:
    return Answer(status, " ".join(sentence.split()).encode("utf-8", "replace") + b"\n", headers=headers)


def _retry(seconds: float | None) -> tuple[str, str]:
    return "Retry-After", str(max(1, math.ceil(_RETRY_AFTER if seconds is None else seconds)))


def _base64(der: bytes, user_agent: str) -> bytes:
    wrapped = user_agent.lower().startswith("libest")
    return base64.encodebytes(der) if wrapped else base64.b64encode(der) + b"\n"
