"""What several tests of the key store need."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from gatewayd.core.model import KeyAlgorithm, KeyRef
from gatewayd.keys.token import Pkcs11KeyStore

ECDSA = ec.ECDSA(hashes.SHA256())


class Handle:
    """A private key's handle in the module, that does something else first."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def sign(self, data: bytes, **_: Any) -> bytes:
        self._before()
        return bytes(64)


def raising(error: Exception) -> Any:
    def function(*_: object) -> None:
        raise error

    return function


async def ec_key(store: Pkcs11KeyStore) -> ec.EllipticCurvePrivateKey:
    public_key = await store.generate(b"ec", "ec", KeyAlgorithm.EC_P256)
    key = store.private_key(KeyRef(b"ec", KeyAlgorithm.EC_P256), public_key)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
