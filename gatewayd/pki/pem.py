"""PEM at the borders: configuration files, and peers that speak text (RFC 7468)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..errors import CertificateUnacceptable, ConfigInvalid
from .parsing import PARSE_ERRORS


def certificates(text: str | bytes) -> tuple[x509.Certificate, ...]:
    """All certificates in ``text``, at least one. Raises CertificateUnacceptable."""
    try:
        return tuple(x509.load_pem_x509_certificates(text.encode() if isinstance(text, str) else text))
    except PARSE_ERRORS:
        raise CertificateUnacceptable("A certificate in PEM was expected, and something else came.") from None


def certificate(text: str | bytes) -> x509.Certificate:
    """The one certificate in ``text``. Raises CertificateUnacceptable, also when there are several."""
    found = certificates(text)
    if len(found) != 1:
        raise CertificateUnacceptable(f"One certificate was expected, and {len(found)} came.")
    return found[0]


def bundle(path: Path) -> tuple[x509.Certificate, ...]:
    """The certificates of a file that the configuration names. Raises ConfigInvalid."""
    try:
        return certificates(path.read_bytes())
    except OSError as error:
        raise ConfigInvalid(f"{path}: {error.strerror}") from None
    except CertificateUnacceptable:
        raise ConfigInvalid(f"{path} does not hold certificates in PEM") from None


def encode(certificates: Iterable[x509.Certificate]) -> str:
    return "".join(each.public_bytes(Encoding.PEM).decode("ascii") for each in certificates)


def encode_csr(der: bytes) -> str:
    """``BEGIN CERTIFICATE REQUEST``; ``der`` must be a well-formed request."""
    return x509.load_der_x509_csr(der).public_bytes(Encoding.PEM).decode("ascii")
