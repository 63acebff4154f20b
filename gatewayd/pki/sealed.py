"""Signed text: a JWS (RFC 7515, compact), with the signer's certificate chain in its header (x5c)."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from datetime import datetime

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from ..errors import CertificateUnacceptable
from . import certificates
from .parsing import PARSE_ERRORS

TYPE = "gatewayd-export"
LONGEST = 512 * 1024 * 1024
"""Bytes of what is inside."""
_ALGORITHMS = ("ES256", "ES384", "PS256")


def seal(
    content: bytes,
    certificate: x509.Certificate,
    chain: Sequence[x509.Certificate],
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> str:
    """Blocks for one signature in the token, and raises whatever it raises."""
    algorithm = "PS256" if isinstance(key, rsa.RSAPrivateKey) else f"ES{key.curve.key_size}"
    x5c = [base64.b64encode(each.public_bytes(Encoding.DER)).decode("ascii") for each in (certificate, *chain)]
    header = {"typ": TYPE, "cty": "application/zlib", "x5c": x5c}
    return jwt.PyJWS().encode(zlib.compress(content), key, algorithm=algorithm, headers=header)


def unseal(text: str, anchors: Sequence[x509.Certificate], device_id: str, now: datetime) -> bytes:
    """What ``device_id``, by a certificate that leads to one of ``anchors``, has signed. Raises
    CertificateUnacceptable when it has not."""
    try:
        header = jwt.get_unverified_header(text)
        if header.get("typ") != TYPE:
            raise CertificateUnacceptable("It is not an export of gatewayd.")
        certificate, *chain = (
            x509.load_der_x509_certificate(base64.b64decode(each, validate=True)) for each in header["x5c"]
        )
        certificates.check_signer(certificate, chain, anchors, device_id=device_id, now=now)
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise CertificateUnacceptable("The certificate's key is neither EC nor RSA.")
        packed: bytes = jwt.PyJWS().decode(text, key, algorithms=list(_ALGORITHMS))
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(packed, LONGEST)
        if not unpacking.eof:
            raise CertificateUnacceptable("It is longer than an export can be, or cut off.")
    except (jwt.PyJWTError, zlib.error, KeyError, TypeError, *PARSE_ERRORS) as error:
        raise CertificateUnacceptable(f"It is not an export signed by {device_id} ({type(error).__name__}).") from None
    return content
