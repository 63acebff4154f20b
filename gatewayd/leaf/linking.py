"""Proof-of-possession linked to the TLS session (RFC 7030, 3.5).

A client may put base64 of its session's ``tls-unique`` into the CSR's challengePassword: the proof that whoever
authenticated in TLS also signed this CSR, now. We do not ask for it, but a server must verify it when it is there, and
by 3.5 the attribute's presence is what says that it is there. TLS 1.3 has no ``tls-unique``; what took its place
(``tls-exporter``, RFC 9266) Python cannot compute, so that such a CSR is refused rather than half believed.
"""

from __future__ import annotations

import base64
import hmac

from cryptography import x509
from cryptography.x509.oid import AttributeOID

from ..errors import CsrInvalid


def check(csr: bytes, tls_version: str | None, tls_unique: bytes | None) -> None:
    """Pass when the CSR carries no link or the one of this session, else raise CsrInvalid.

    ``csr`` is well-formed DER; ``tls_version`` is as ``SSLObject.version()`` has it.
    """
    try:
        attribute = x509.load_der_x509_csr(csr).attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD)
    except x509.AttributeNotFound:
        return
    except ValueError:
        raise CsrInvalid("The CSR's attributes cannot be read.") from None
    if tls_version != "TLSv1.2" or tls_unique is None:
        raise CsrInvalid(
            "The CSR's challengePassword can be checked on TLS 1.2 only: leave it out, or connect with TLS 1.2."
        )
    if not hmac.compare_digest(attribute.value, base64.b64encode(tls_unique)):
        raise CsrInvalid("The CSR's challengePassword is not the tls-unique value of this TLS session.")
