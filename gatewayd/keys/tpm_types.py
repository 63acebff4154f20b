"""What a TPM's structures are made of (TPM 2.0 Part 2), as far as an attestation needs them."""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils

from .base import PublicKey

RSA: Final = 0x0001
SHA256: Final = 0x000B
NULL: Final = 0x0010
ECDSA: Final = 0x0018
ECC: Final = 0x0023
"""TPM_ALG_ID."""
_CURVES: Final[dict[int, ec.EllipticCurve]] = {0x0003: ec.SECP256R1(), 0x0004: ec.SECP384R1()}
_HAS_NO_DETAILS: Final = (NULL, 0x0015)
"""Schemes of a public area that stand for themselves: none, and RSAES."""


class TpmError(Exception):
    """The TPM's answer is a refusal, or makes no sense."""

    def __init__(self, what: str, code: int = 0) -> None:
        super().__init__(what)
        self.code = code


class Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, number: int) -> bytes:
        end = self._at + number
        if end > len(self._data):
            raise TpmError("an answer of the TPM was cut short")
        taken, self._at = self._data[self._at : end], end
        return taken

    def number(self, octets: int) -> int:
        return int.from_bytes(self.take(octets), "big")

    def sized(self) -> bytes:
        """A TPM2B's content."""
        return self.take(self.number(2))

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)


def sized(data: bytes) -> bytes:
    """As a TPM2B."""
    return struct.pack(">H", len(data)) + data


def name(public: bytes) -> bytes:
    """The name of an object by its TPMT_PUBLIC, whose name algorithm is SHA-256 (Part 1, 16)."""
    return struct.pack(">H", SHA256) + hashlib.sha256(public).digest()


def public_key(public: bytes) -> PublicKey:
    """Of a TPMT_PUBLIC. Raises TpmError."""
    reader = Reader(public)
    kind = reader.number(2)
    reader.take(2 + 4)  # the name's algorithm, the attributes
    reader.sized()  # the policy
    if reader.number(2) != NULL:
        reader.take(4)  # key length and mode of the symmetric cipher that a parent protects its children with
    if reader.number(2) not in _HAS_NO_DETAILS:
        reader.take(2)  # the scheme's hash
    if kind == RSA:
        reader.take(2)
        exponent = reader.number(4) or 65537
        return rsa.RSAPublicNumbers(exponent, int.from_bytes(reader.sized(), "big")).public_key()
    curve = _CURVES.get(reader.number(2))
    if kind != ECC or curve is None:
        raise TpmError("a key of the TPM is of an unknown kind")
    if reader.number(2) != NULL:
        reader.take(2)  # the hash of a key derivation
    x, y = (int.from_bytes(reader.sized(), "big") for _ in "xy")
    return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()


def ecc_point(key: ec.EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    numbers, size = key.public_numbers(), (key.key_size + 7) // 8
    return numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")


def ecdsa_signature(reader: Reader) -> bytes:
    """A TPMT_SIGNATURE by an attestation key, in DER. Raises TpmError."""
    if (reader.number(2), reader.number(2)) != (ECDSA, SHA256):
        raise TpmError("a signature of the TPM is not what was asked for")
    r, s = (int.from_bytes(reader.sized(), "big") for _ in "rs")
    return utils.encode_dss_signature(r, s)
