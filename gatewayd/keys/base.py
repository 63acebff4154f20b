"""The port to the token."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ..core.model import KeyAlgorithm, KeyRef

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""Duck-typed: subclasses that sign in the token and raise on everything that would need the key itself."""


class TokenState(StrEnum):
    READY = "ready"
    ABSENT = "absent"
    """Module not loadable, or no token with that label and serial."""
    FAULTY = "faulty"
    PIN_MISSING = "pin-missing"
    PIN_REFUSED = "pin-refused"
    """Waits for a person: the PIN was tried once and is not tried again."""


@dataclass(frozen=True, slots=True)
class TokenStatus:
    state: TokenState
    label: str
    serial: str
    model: str
    manufacturer: str
    module: str
    detail: str
    """Empty, or one sentence on what is wrong."""
    since: datetime


@dataclass(frozen=True, slots=True)
class TokenObject:
    kind: str
    """``private-key``, ``public-key``, ``certificate``, ``other``."""
    id: bytes
    label: str
    algorithm: KeyAlgorithm | None
    sensitive: bool
    extractable: bool
    local: bool


class KeyStore(Protocol):
    """Keys that are made in the token and never leave it.

    Every method may raise a ``TokenError``; afterwards the token holds what it held before, except that a
    generation may have left its key under ``key_id``, where the next call with that id finds it.
    """

    async def open(self) -> None:
        """Load the module, find the token, log in. Tries the PIN at most once."""

    async def close(self) -> None:
        """Log out and finalise the module; waits for calls under way."""

    def status(self) -> TokenStatus: ...

    async def generate(self, key_id: bytes, label: str, algorithm: KeyAlgorithm) -> PublicKey:
        """Make a key pair under ``key_id``, or return the one that is there (idempotent).

        The private key is sensitive, not extractable and local; this is read back and checked, also of a key that
        was found. Raises KeyNotProtected (and destroys what it has just made), AlgorithmUnsupported, TokenFull.
        """

    def private_key(self, ref: KeyRef, public_key: PublicKey) -> PrivateKey:
        """The key as ``cryptography`` takes it; does not touch the token until it signs. Signing blocks the thread."""

    async def find(self, public_key: PublicKey) -> KeyRef | None:
        """The private key in the token that belongs to this public key."""

    async def destroy(self, key_id: bytes) -> None:
        """Remove the key pair; no error when it is not there."""

    async def objects(self) -> list[TokenObject]: ...
