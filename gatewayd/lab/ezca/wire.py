"""EZCA's forms: what its requests hold and how its answers are wrapped. No I/O."""

from __future__ import annotations

import ipaddress
from datetime import datetime
from typing import Any, TypeVar

from aiohttp import web
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from .authority import KEY_USAGES

_T = TypeVar("_T")

_SAN_TYPES: dict[Any, type[x509.RFC822Name | x509.DNSName | x509.UniformResourceIdentifier]] = {
    1: x509.RFC822Name,
    2: x509.DNSName,
    6: x509.UniformResourceIdentifier,
}
_SAN_IP = 7


class Refused(Exception):
    """The request is understood and not granted; the message is what the caller reads."""


def wrapped(message: str, *, success: bool = True) -> web.Response:
    return web.json_response({"Success": success, "Message": message})


def error_text(message: str) -> web.Response:
    """Plain text that begins with ``Error`` in place of JSON, with status 200."""
    return web.Response(text=f"Error: {message}")


def timestamp(moment: datetime) -> str:
    """As .NET writes a UTC DateTime."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


async def body(request: web.Request) -> dict[str, Any]:
    """The JSON object in the request's body. Raises HTTPBadRequest."""
    try:
        document = await request.json()
    except ValueError:
        raise web.HTTPBadRequest(text="the body is not JSON") from None
    if not isinstance(document, dict):
        raise web.HTTPBadRequest(text="the body is not a JSON object")
    return document


def field(document: dict[str, Any], name: str, kind: type[_T]) -> _T:
    """A required field. Raises HTTPBadRequest."""
    value = document.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise web.HTTPBadRequest(text=f"the field {name} is required and must be of type {kind.__name__}")
    return value


def strings(document: dict[str, Any], name: str) -> list[str]:
    """A required list of strings. Raises HTTPBadRequest."""
    values = field(document, name, list)
    if not all(isinstance(value, str) for value in values):
        raise web.HTTPBadRequest(text=f"the field {name} must be a list of strings")
    return values


def csr(text: str) -> x509.CertificateSigningRequest:
    """A PEM request with a good signature and a key that the CA takes. Raises Refused."""
    if "-----BEGIN CERTIFICATE REQUEST-----" not in text:
        raise Refused("the CSR is not PEM with BEGIN CERTIFICATE REQUEST")
    try:
        return checked_csr(x509.load_pem_x509_csr(text.encode()))
    except ValueError:
        raise Refused("the CSR cannot be read") from None


def checked_csr(request: x509.CertificateSigningRequest) -> x509.CertificateSigningRequest:
    """Raises Refused."""
    try:
        good = request.is_signature_valid
        key = request.public_key()
        _ = request.extensions
    except (ValueError, UnsupportedAlgorithm):
        good = False
    if not good:
        raise Refused("the CSR is malformed or not signed by its own key")
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < 2048:
            raise Refused("the RSA key is shorter than 2048 bits")
    elif not isinstance(key, ec.EllipticCurvePublicKey):
        raise Refused("the key is neither RSA nor EC")
    return request


def public_key(request: x509.CertificateSigningRequest) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    key = request.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return key


def subject(text: str) -> x509.Name:
    """``CN=…``. Raises Refused."""
    try:
        return x509.Name.from_rfc4514_string(text)
    except ValueError:
        raise Refused(f"SubjectName {text!r} is not a distinguished name") from None


def typed_sans(items: list[Any]) -> list[x509.GeneralName]:
    """V2's ``[{"SubjectAltType": int, "ValueSTR": string}]``. Raises Refused."""
    return [_typed_san(item) for item in items]


def _typed_san(item: Any) -> x509.GeneralName:
    if not isinstance(item, dict) or not isinstance(item.get("ValueSTR"), str):
        raise Refused("a subject alternative name must be {SubjectAltType, ValueSTR}")
    kind, value = item.get("SubjectAltType"), item["ValueSTR"]
    try:
        if kind == _SAN_IP:
            return x509.IPAddress(ipaddress.ip_address(value))
        if kind in _SAN_TYPES:
            return _SAN_TYPES[kind](value)
    except ValueError:
        raise Refused(f"{value!r} is not a subject alternative name of type {kind}") from None
    raise Refused(f"SubjectAltType {kind!r} is not known")


def plain_sans(items: list[Any]) -> list[x509.GeneralName]:
    """V1's ``[string]``: DNS names. Raises Refused."""
    return [_typed_san({"SubjectAltType": 2, "ValueSTR": item}) for item in items]


def sans_of(extensions: x509.Extensions) -> list[x509.GeneralName]:
    """The subject alternative names of a certificate or CSR, in their order."""
    try:
        return list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def typed(name: x509.GeneralName) -> dict[str, Any]:
    """A general name in the wire's form."""
    if isinstance(name, x509.IPAddress):
        return {"SubjectAltType": _SAN_IP, "ValueSTR": str(name.value)}
    kind = next(number for number, cls in _SAN_TYPES.items() if isinstance(name, cls))
    return {"SubjectAltType": kind, "ValueSTR": name.value}


def ekus(oids: list[str]) -> list[str]:
    """Raises Refused for what is no OID."""
    for oid in oids:
        try:
            x509.ObjectIdentifier(oid)
        except ValueError:
            raise Refused(f"EKU {oid!r} is not an object identifier") from None
    return oids


def key_usage_names(certificate: x509.Certificate) -> list[str]:
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    return [name for name, attribute in KEY_USAGES.items() if getattr(usage, attribute)]


def eku_oids(certificate: x509.Certificate) -> list[str]:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return []
    return [usage.dotted_string for usage in usages]
