"""Certificates in a CMS message that signs nothing: "certs-only" (RFC 5652, 5.1; RFC 8551, 3.8; RFC 7030, 4.1.3)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from ..errors import CertificateUnacceptable
from .parsing import PARSE_ERRORS

_SEQUENCE, _SET, _CONTEXT_0 = 0x30, 0x31, 0xA0
_ID_DATA = bytes.fromhex("06092a864886f70d010701")
_ID_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_VERSION_1 = bytes.fromhex("020101")


def certs_only(certificates: Iterable[x509.Certificate]) -> bytes:
    """ContentInfo with ``certificates`` in the order given.

    Encoded here, because ``cryptography`` sorts the certificates as DER sorts a SET OF. Many EST clients take the
    first certificate for their own, so the leaf has to come first; CMS asks for BER only, which leaves the order free.
    """
    bag = b"".join(each.public_bytes(Encoding.DER) for each in certificates)
    signed_data = _tlv(
        _SEQUENCE,
        _VERSION_1,
        _tlv(_SET),  # digestAlgorithms
        _tlv(_SEQUENCE, _ID_DATA),  # encapContentInfo without content
        _tlv(_CONTEXT_0, bag),  # certificates
        _tlv(_SET),  # signerInfos
    )
    return _tlv(_SEQUENCE, _ID_SIGNED_DATA, _tlv(_CONTEXT_0, signed_data))


def read_certs_only(der: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates, at least one, in the order in which they came. Raises CertificateUnacceptable."""
    try:
        with warnings.catch_warnings():
            # An order other than DER's, such as leaf first, makes cryptography say that it falls back to BER.
            warnings.simplefilter("ignore", UserWarning)
            found = tuple(pkcs7.load_der_pkcs7_certificates(der))
    except PARSE_ERRORS:
        raise CertificateUnacceptable(
            "A CMS message with certificates was expected, and something else came."
        ) from None
    if not found:
        raise CertificateUnacceptable("The CMS message holds no certificate.")
    return found


def _tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content
