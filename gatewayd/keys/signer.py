"""Private keys in the token as ``cryptography`` takes them.

They are subclasses of its key classes, so that its builders, PyJWT and MSAL accept them. Hashing and padding are
done here, in software; the token does the one operation that needs the key. Whatever would need the key itself
raises. A signature may raise a TokenError and blocks the calling thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, NoReturn, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.utils import Buffer

from .base import Priority, Scheme

Sign = Callable[[Scheme, bytes, Priority], bytes]

# RFC 8017, 9.2, note 1: the DER of a DigestInfo up to the digest itself.
_DIGEST_INFO: Final = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


class _StaysInside:
    """A private key that signs where it is, and is neither read, copied nor pickled."""

    def private_numbers(self) -> NoReturn:
        raise _stays_inside()

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        raise _stays_inside()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise _stays_inside()


class TokenEcKey(_StaysInside, ec.EllipticCurvePrivateKey):
    """An EC private key in the token."""

    def __init__(self, public_key: ec.EllipticCurvePublicKey, sign: Sign) -> None:
        self._public_key = public_key
        self._sign = sign

    def sign(self, data: Buffer, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """ECDSA over ``data``, or over a digest where the algorithm says Prehashed; DER (RFC 3279, 2.2.3)."""
        if not isinstance(signature_algorithm, ec.ECDSA) or signature_algorithm.deterministic_signing:
            raise UnsupportedAlgorithm("the token signs ECDSA, with a nonce of its own making")
        digest, _ = _digest(bytes(data), signature_algorithm.algorithm)
        return self.sign_digest(digest, Priority.REQUEST)

    def sign_digest(self, digest: bytes, priority: Priority) -> bytes:
        """ECDSA over a digest; DER. A digest longer than the curve counts with its leftmost bits (FIPS 186-5, 6.4)."""
        size = (self.key_size + 7) // 8
        raw = self._sign(Scheme.ECDSA, digest[:size], priority)
        r, s = (int.from_bytes(half, "big") for half in (raw[: len(raw) // 2], raw[len(raw) // 2 :]))
        return utils.encode_dss_signature(r, s)

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        raise _stays_inside()

    def __repr__(self) -> str:
        return f"<EC key in the token, {self.curve.name}>"


class TokenRsaKey(_StaysInside, rsa.RSAPrivateKey):
    """An RSA private key in the token."""

    def __init__(self, public_key: rsa.RSAPublicKey, sign: Sign) -> None:
        self._public_key = public_key
        self._sign = sign

    def sign(
        self,
        data: Buffer,
        padding: padding.AsymmetricPadding,
        algorithm: utils.Prehashed | hashes.HashAlgorithm | utils.NoDigestInfo,
    ) -> bytes:
        """RSASSA-PKCS1-v1_5 or RSASSA-PSS (RFC 8017, 8) with SHA-256, SHA-384 or SHA-512."""
        if isinstance(algorithm, utils.NoDigestInfo):
            raise UnsupportedAlgorithm("a signature names its digest")
        digest, hash_algorithm = _digest(bytes(data), algorithm)
        if padding.name == "EMSA-PKCS1-v1_5":
            return self.private_operation(Scheme.RSA_PKCS1, _digest_info(digest, hash_algorithm), Priority.REQUEST)
        if padding.name == "EMSA-PSS":
            block = _emsa_pss(digest, hash_algorithm, padding, self.key_size)
            return self.private_operation(Scheme.RSA_RAW, block, Priority.REQUEST)
        raise UnsupportedAlgorithm(f"the token does not sign with {padding.name}")

    def private_operation(self, scheme: Scheme, data: bytes, priority: Priority) -> bytes:
        """RSA_PKCS1 or RSA_RAW; the answer is as long as the modulus."""
        return self._sign(scheme, data, priority)

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public_key

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> NoReturn:
        raise UnsupportedAlgorithm("keys in the token only sign")

    def __repr__(self) -> str:
        return f"<RSA key in the token, {self.key_size} bits>"


def _stays_inside() -> TypeError:
    return TypeError("the private key is in the token and does not leave it")


def _digest(data: bytes, algorithm: utils.Prehashed | hashes.HashAlgorithm) -> tuple[bytes, hashes.HashAlgorithm]:
    if isinstance(algorithm, utils.Prehashed):
        prehashed = algorithm._algorithm
        if len(data) != prehashed.digest_size:
            raise ValueError(f"the digest must have the {prehashed.digest_size} bytes of {prehashed.name}")
        return data, prehashed
    return _hash(data, algorithm), algorithm


def _hash(data: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()


def _digest_info(digest: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    prefix = _DIGEST_INFO.get(algorithm.name)
    if prefix is None:
        raise UnsupportedAlgorithm(f"the token signs with SHA-256, SHA-384 or SHA-512, not {algorithm.name}")
    return prefix + digest


def _emsa_pss(digest: bytes, algorithm: hashes.HashAlgorithm, pss: padding.AsymmetricPadding, key_size: int) -> bytes:
    """EMSA-PSS (RFC 8017, 9.1.1), as a block of the modulus' length.

    Padded here and not by the token: TPMs choose the salt's length themselves, and PS256 prescribes it.
    """
    if not isinstance(pss, padding.PSS) or algorithm.name not in _DIGEST_INFO:
        raise UnsupportedAlgorithm("the token signs PSS with SHA-256, SHA-384 or SHA-512")
    # cryptography has no public names for these; the version is held to one major release, and tests cover them.
    mask_hash, wanted_salt = pss.mgf._algorithm, pss._salt_length
    bits = key_size - 1
    length = (bits + 7) // 8
    longest = length - len(digest) - 2
    salt_length = {padding.PSS.DIGEST_LENGTH: len(digest), padding.PSS.MAX_LENGTH: longest}.get(
        wanted_salt, wanted_salt
    )
    if not isinstance(salt_length, int) or salt_length > longest:
        raise ValueError("this length of salt does not fit the key")
    salt = os.urandom(salt_length)
    hashed = _hash(bytes(8) + digest + salt, algorithm)
    block = bytes(longest - salt_length) + b"\x01" + salt
    mask = _mgf1(hashed, len(block), mask_hash)
    masked = bytearray(a ^ b for a, b in zip(block, mask, strict=True))
    masked[0] &= 0xFF >> (8 * length - bits)
    return (bytes(masked) + hashed + b"\xbc").rjust((key_size + 7) // 8, b"\0")


def _mgf1(seed: bytes, length: int, algorithm: hashes.HashAlgorithm) -> bytes:
    """RFC 8017, B.2.1."""
    blocks = -(-length // algorithm.digest_size)
    return b"".join(_hash(seed + counter.to_bytes(4, "big"), algorithm) for counter in range(blocks))[:length]
