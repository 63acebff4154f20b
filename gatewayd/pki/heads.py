"""Signatures of the audit trail's heads."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from ..core.audit import Head


def published(head: Head) -> dict[str, Any]:
    """As the gateway's twin holds it: all that is signed, and the signature. Whose it is must be known elsewhere."""
    return {
        "deviceId": head.device_id,
        "seq": head.seq,
        "hash": head.hash.hex(),
        "at": head.at.isoformat(timespec="microseconds"),
        "signature": base64.b64encode(head.signature).decode(),
    }


def from_published(document: Any, certificates: Iterable[x509.Certificate]) -> Head:
    """The head, by whichever of these certificates its signature is good for. ``document``: a published one, or what
    has one somewhere in it, such as the whole twin. Raises ValueError."""
    found = _published_in(document)
    if found is None:
        raise ValueError("there is no signed head of an audit trail in it")
    try:
        head = Head(
            device_id=str(found["deviceId"]),
            seq=int(found["seq"]),
            hash=bytes.fromhex(found["hash"]),
            at=datetime.fromisoformat(found["at"]),
            certificate=b"",
            signature=base64.b64decode(found["signature"], validate=True),
        )
        for each in certificates:
            if signed_by(each, head.signed_bytes(), head.signature):
                return replace(head, certificate=each.public_bytes(Encoding.DER))
    except (TypeError, ValueError) as error:
        raise ValueError(f"its head is not of the known form ({error})") from None
    raise ValueError("its head is not signed by any of these certificates")


def _published_in(document: Any) -> dict[str, Any] | None:
    if not isinstance(document, dict):
        return None
    if document.keys() >= {"deviceId", "seq", "hash", "at", "signature"}:
        return document
    return next((found for each in document.values() if (found := _published_in(each)) is not None), None)


def signed_by(certificate: x509.Certificate, data: bytes, signature: bytes) -> bool:
    """Whether ``certificate``'s RSA key made this signature (RSASSA-PKCS1-v1_5, SHA-256)."""
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    try:
        key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def trusted_by(certificates: Iterable[x509.Certificate], device_id: str | None = None) -> Callable[[Head], bool]:
    """A judge of heads: signed by one of these, by this gateway (None: by any). A certificate's dates do not matter:
    what it signed stays signed."""
    known = {each.public_bytes(Encoding.DER): each for each in certificates}

    def trusted(head: Head) -> bool:
        certificate = known.get(head.certificate)
        return (
            certificate is not None
            and device_id in (None, head.device_id)
            and signed_by(certificate, head.signed_bytes(), head.signature)
        )

    return trusted
