"""Signatures over what has been hashed already, because it is too large or was read in pieces."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


def acceptable(algorithm: hashes.HashAlgorithm | None) -> hashes.HashAlgorithm:
    """The algorithm, if it is one of SHA-2's. Raises ValueError: SHA-1 no longer protects, and what signs without a
    hash of its own (Ed25519) cannot be verified in pieces."""
    if not isinstance(algorithm, _HASHES):
        raise ValueError("it is not signed with SHA-256, SHA-384 or SHA-512")
    return algorithm


def verify(
    issuer: x509.Certificate,
    signature: bytes,
    digest: bytes,
    algorithm: hashes.HashAlgorithm,
    scheme: padding.PKCS1v15 | padding.PSS | ec.ECDSA | None,
) -> None:
    """``scheme``: the parameters that the signature's AlgorithmIdentifier gives. Raises InvalidSignature; ValueError
    when key and scheme do not go together."""
    key = issuer.public_key()
    match key, scheme:
        case ec.EllipticCurvePublicKey(), ec.ECDSA():
            key.verify(signature, digest, ec.ECDSA(Prehashed(algorithm)))
        case rsa.RSAPublicKey(), padding.PKCS1v15() | padding.PSS():
            key.verify(signature, digest, scheme, Prehashed(algorithm))
        case _:
            raise ValueError("its signature is of a kind that the issuer's key does not make")
