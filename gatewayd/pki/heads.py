"""Signatures of the audit trail's heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from ..core.audit import Head


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
