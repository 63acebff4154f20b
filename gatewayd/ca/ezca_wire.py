"""EZCA's REST API as values: bodies to send, answers to read. No I/O.

The server is closed source; what stands here was read from its vendor's own clients. An answer says no in several
ways (an HTTP status, a wrapped failure with HTTP 200, plain text that begins with "Error"), and says yes bare,
wrapped, or as JSON within a JSON string. What each means to the caller:

====================================  ==================================================================
401 to the registrar                  RegistrarRefused: the Entra token does not count there
401 to a certificate's holder, 403    IssuerUnconfigured: known or not, it may not; a person has to look
404, 405 or 3xx without EZCA's words  IssuerUnconfigured: no such call at this address
408, 429, 5xx, or not EZCA's form     IssuerUnreachable: unclear, a certificate may have been minted
a failure in EZCA's words, other 4xx  IssuerRejected: it understood and said no
====================================  ==================================================================

What 401, 403, 404 and 409 mean to EZCA is not documented: the first three are read so that a person is asked and the
daemon goes on trying slowly, because none of them says that the request itself was bad.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ..config import EzcaSettings, OwnerSettings
from ..core.model import SanKind
from ..errors import GatewayError, IssuerRejected, IssuerUnconfigured, IssuerUnreachable, RegistrarRefused
from ..pki import pem
from .base import CertificateRequest, Issued
from .http import Answer

Body = dict[str, Any]

_SAN_TYPES: Final = {SanKind.EMAIL: 1, SanKind.DNS: 2, SanKind.URI: 6, SanKind.IP: 7}
_TOKENS: Final = re.compile(r"eyJ[\w-]*\.[\w-]*(\.[\w-]*)?")
_UNCLEAR_STATUSES: Final = frozenset({408, 429})
_WORDS: Final = 200
"""Characters of a peer's text that are passed on."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked, for the sentence that says why it failed."""

    doing: str
    """``issue a certificate for gw-1``: follows "EZCA did not"."""
    device: str | None
    as_registrar: bool = True


@dataclass(frozen=True, slots=True)
class Listed:
    """One item of the caller's certificates."""

    pem: str
    thumbprint: str
    """SHA-1, hex, lower-case."""
    revoked: bool


# --- bodies --------------------------------------------------------------------------------------


def registration(settings: EzcaSettings, device_id: str, requester: OwnerSettings) -> Body:
    """For RegisterNewDomain: to EZCA a device is a "domain"."""
    return {
        "CAID": settings.ca_id,
        "TemplateID": settings.template_id,
        "Domain": device_id,
        "Owners": [_principal(each) for each in settings.owners],
        "Requesters": [_principal(requester)],
        "RequestersOnly": [],
        "NotificationEmails": [],
    }


def certificate_request(settings: EzcaSettings, request: CertificateRequest) -> Body:
    """For RequestSSLCertificateV2. EZCA takes subject and names from here and only the public key from the CSR."""
    if "," in request.device_id:
        # Inside a distinguished name a comma has to be escaped, and how EZCA reads an escape is not known.
        raise IssuerRejected(
            f"EZCA is not asked for {request.device_id}: a comma cannot be said in its subject names.",
            device=request.device_id,
        )
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if request.server_auth else [])]
    return {
        "SubjectName": f"CN={request.device_id}",
        "SubjectAltNames": [{"SubjectAltType": _SAN_TYPES[each.kind], "ValueSTR": each.value} for each in request.sans],
        "CAID": settings.ca_id,
        "TemplateID": settings.template_id,
        "CSR": pem.encode_csr(request.csr),
        "ValidityInDays": days(settings, request),
        "EKUs": [each.dotted_string for each in purposes],
        "KeyUsages": ["Digital Signature"],
        "SelectedLocation": "IoT Device",
        "ResourceID": "",
        "SecretName": "",
        "AKVName": "",
        "CertAppID": "",
        "CertificateTags": "",
        "AutoRenew": False,
        "AutoRenewPercentage": 80,
        "SID": "",
    }


def renewal_v1(settings: EzcaSettings, request: CertificateRequest) -> Body:
    return {"CSR": pem.encode_csr(request.csr), "ValidityInDays": days(settings, request)}


def renewal(settings: EzcaSettings, request: CertificateRequest, current: x509.Certificate) -> Body:
    """For V2 and V3."""
    return {"Certificate": pem.encode([current]), "Payload": renewal_v1(settings, request)}


def revocation(settings: EzcaSettings, thumbprint: str) -> Body:
    """``thumbprint``: SHA-1, hex, lower-case. EZCA takes no reason."""
    return {"CAID": settings.ca_id, "TemplateID": settings.template_id, "Thumbprint": thumbprint}


def days(settings: EzcaSettings, request: CertificateRequest) -> int:
    """EZCA counts a lifetime in whole days, at least one."""
    if request.lifetime is not None:
        return max(request.lifetime.days, 1)
    return settings.lifetime_days if request.server_auth else settings.leaf_lifetime_days


def _principal(who: OwnerSettings) -> Body:
    # The vendor's clients say "User" of people, groups and applications alike.
    return {"ObjectId": who.object_id, "FriendlyName": who.friendly_name, "ObjectType": "User", "isValid": True}


# --- answers -------------------------------------------------------------------------------------


def is_unknown_call(answer: Answer) -> bool:
    """Whether the server does not have this call at all, rather than having a no for it."""
    return answer.status in (404, 405) and _refusal(answer.text) is None


def done(answer: Answer, call: Call) -> str:
    """The wrapped success's message, empty if there is none. Raises as the table above says."""
    _accept(answer, call)
    wrapped = _json(answer)
    if not isinstance(wrapped, dict) or wrapped.get("Success") is not True:
        raise _unreadable(call)
    message = wrapped.get("Message")
    return excerpt(message) if isinstance(message, str) else ""


def bundle(answer: Answer, call: Call) -> Issued:
    """RequestSSLCertificateV2 and RenewCertificateV3: the certificate with its issuer and, if it is named, the root."""
    _accept(answer, call)
    parts = _json(answer)
    if not isinstance(parts, dict):
        raise _unreadable(call)
    issuing = _certificates(parts.get("IssuingCACertificate"), call)
    root = parts.get("RootCertificate")
    return Issued(
        _certificate(parts.get("CertificatePEM"), call), issuing + (_certificates(root, call) if root else ())
    )


def bare(answer: Answer, call: Call) -> Issued:
    """RenewCertificateV2: the certificate's text alone."""
    _accept(answer, call)
    text = answer.text
    quoted = _json(answer) if text.startswith('"') else None
    return Issued(_certificate(quoted if isinstance(quoted, str) else text, call), ())


def wrapped(answer: Answer, call: Call) -> Issued:
    """RenewCertificate, the first version: the certificate as the message of a success."""
    _accept(answer, call)
    outer = _json(answer)
    if not isinstance(outer, dict) or outer.get("Success") is not True:
        raise _unreadable(call)
    return Issued(_certificate(outer.get("Message"), call), ())


def has_domain(answer: Answer, call: Call, settings: EzcaSettings, device_id: str) -> bool:
    """GetMyDomains: whether ``device_id`` is registered with the configured CA and template."""
    _accept(answer, call)
    outer = _json(answer)
    message = outer.get("Message") if isinstance(outer, dict) else outer
    domains = _loads(message) if isinstance(message, str) else message
    wanted = (device_id, settings.ca_id.lower(), settings.template_id.lower())
    return any(
        (each.get("Domain"), str(each.get("CAID")).lower(), str(each.get("TemplateID")).lower()) == wanted
        for each in _objects(domains, call)
    )


def listing(answer: Answer, call: Call) -> tuple[Listed, ...]:
    """One page of GetMyCertificatesV2Paginated; empty after the last."""
    _accept(answer, call)
    return tuple(
        Listed(
            str(each.get("CertificatePEM") or ""),
            str(each.get("Thumbprint") or "").lower(),
            each.get("Revoked") is True,
        )
        for each in _objects(_json(answer), call)
    )


def excerpt(text: str) -> str:
    """A peer's words, safe to show: one line, bounded, without a token that it may have quoted."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text[: 10 * _WORDS]).split())
    line = _TOKENS.sub("…", line)
    return (line if len(line) <= _WORDS else line[:_WORDS] + "…").rstrip(".")


def _accept(answer: Answer, call: Call) -> None:
    """Return if the answer is not a failure."""
    status = answer.status
    refusal = _refusal(answer.text)
    if 200 <= status < 300 and refusal is None:
        return
    words = excerpt(answer.text if refusal is None else refusal) or "no reason given"
    said = (
        f"EZCA did not {call.doing}: {words}" if status < 300 else f"EZCA did not {call.doing}: HTTP {status}, {words}"
    )
    raise _failure(status, call, refused=refusal is not None)(
        f"{said}.", device=call.device, retry_after=answer.retry_after
    )


def _failure(status: int, call: Call, *, refused: bool) -> type[GatewayError]:
    if status >= 500 or status in _UNCLEAR_STATUSES:
        return IssuerUnreachable
    if status == 401 and call.as_registrar:
        return RegistrarRefused
    if status in (401, 403):
        return IssuerUnconfigured
    if refused:
        return IssuerRejected
    return IssuerUnconfigured if status in (404, 405) or status < 400 else IssuerRejected


def _refusal(text: str) -> str | None:
    """EZCA's own words when the text is one of its ways to say no."""
    if text.startswith("Error"):
        return text
    value = _loads(text)
    if isinstance(value, dict) and value.get("Success") is False:
        return str(value.get("Message") or "")
    if isinstance(value, str) and value.startswith("Error"):
        return value
    return None


def _json(answer: Answer) -> object:
    return _loads(answer.text)


def _loads(text: str) -> object:
    """The value, also of JSON within a JSON string; None when it is neither."""
    try:
        value: object = json.loads(text)
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            value = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return value


def _objects(value: object, call: Call) -> Iterable[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise _unreadable(call)
    return value


def _certificates(value: object, call: Call) -> tuple[x509.Certificate, ...]:
    """Raises CertificateUnacceptable for what calls itself a certificate and is none."""
    if not isinstance(value, str) or not value.lstrip().startswith("-----BEGIN CERTIFICATE-----"):
        raise _unreadable(call)
    return pem.certificates(value)


def _certificate(value: object, call: Call) -> x509.Certificate:
    return _certificates(value, call)[0]


def _unreadable(call: Call) -> IssuerUnreachable:
    return IssuerUnreachable(
        f"EZCA did not {call.doing}: its answer is not of the form that its protocol has.", device=call.device
    )
