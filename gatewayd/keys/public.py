"""Public keys as ``cryptography`` has them, and as plain numbers, which is how they pass between the two processes."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..core.model import KeyAlgorithm
from .base import PublicKey

_CURVES: dict[KeyAlgorithm, ec.EllipticCurve] = {
    KeyAlgorithm.EC_P256: ec.SECP256R1(),
    KeyAlgorithm.EC_P384: ec.SECP384R1(),
}


def from_numbers(numbers: dict[str, Any]) -> PublicKey:
    """What objects.public_numbers has read. Raises ValueError when it is no key."""
    if "modulus" in numbers:
        return rsa.RSAPublicNumbers(int(numbers["exponent"], 16), int(numbers["modulus"], 16)).public_key()
    curve = _CURVES[KeyAlgorithm(numbers["curve"])]
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, bytes.fromhex(numbers["point"]))


def to_numbers(key: PublicKey) -> dict[str, Any] | None:
    """None for a curve that is none of ours."""
    if isinstance(key, rsa.RSAPublicKey):
        rsa_numbers = key.public_numbers()
        return {"modulus": f"{rsa_numbers.n:x}", "exponent": f"{rsa_numbers.e:x}"}
    for algorithm, curve in _CURVES.items():
        if curve.name == key.curve.name:
            point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            return {"curve": str(algorithm), "point": point.hex()}
    return None
