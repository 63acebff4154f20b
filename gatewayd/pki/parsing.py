"""The ways in which ``cryptography`` says that something cannot be read: not all of them are a ValueError."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ..errors import CertificateUnacceptable

PARSE_ERRORS: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def certificate(der: bytes) -> x509.Certificate:
    """Raises CertificateUnacceptable. Parts that are read lazily may still turn out unreadable (PARSE_ERRORS)."""
    try:
        return x509.load_der_x509_certificate(der)
    except PARSE_ERRORS:
        raise CertificateUnacceptable("A certificate in DER was expected, and something else came.") from None
