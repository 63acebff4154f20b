"""The port to the token."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..core.model import KeyAlgorithm, KeyRef

if TYPE_CHECKING:  # the token's process does without cryptography: it costs 12 MB
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    from .pin import Pin

PublicKey: TypeAlias = "ec.EllipticCurvePublicKey | rsa.RSAPublicKey"
PrivateKey: TypeAlias = "ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey"
"""Duck-typed: subclasses that sign in the token and raise on everything that would need the key itself."""


class Priority(IntEnum):
    """Who is served first."""

    HANDSHAKE = 0
    """A peer waits in a TLS handshake."""
    REQUEST = 1
    """The signature of a CSR or a JWT."""
    HOUSEKEEPING = 2
    """Key generation, inventory, removal."""


class Scheme(Enum):
    """What the token is asked to do with the data."""

    ECDSA = "ecdsa"
    """Sign a digest no longer than the curve; the answer is r and s, each as long as the curve (CKM_ECDSA)."""
    RSA_PKCS1 = "rsa-pkcs1"
    """Pad a DigestInfo as RFC 8017, 9.2 and apply the key (CKM_RSA_PKCS)."""
    RSA_RAW = "rsa-raw"
    """Apply the key to a block as long as the modulus (CKM_RSA_X_509)."""


class TokenState(StrEnum):
    READY = "ready"
    ABSENT = "absent"
    """Module not loadable, or no token with that label and serial."""
    FAULTY = "faulty"
    UNUSABLE = "unusable"
    """There, but the login fails though the module works: its TPM was cleared, or it is not the TPM that made it."""
    KEY_MISSING = "key-missing"
    """Works, but does not hold the key that is in use. A key store does not know which that is: services.token does."""
    PIN_MISSING = "pin-missing"
    PIN_REFUSED = "pin-refused"
    """Waits for a person: the PIN was tried once and is not tried again."""


class PinTries(StrEnum):
    """What the token says of the tries that are left (CK_TOKEN_INFO, PKCS#11 2.40, table 9). No token says a number."""

    UNKNOWN = "unknown"
    FEWER = "fewer"
    """At least one was spent since the last login."""
    ONE = "one"
    NONE = "none"
    """The token is locked."""


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
    pin_tries: PinTries = PinTries.UNKNOWN
    """As the token said after the PIN was refused."""
    pin_tries_left: int | None = None
    """The number, where the token's device tells it: a TPM does."""
    locked_until: datetime | None = None
    """When a locked TPM allows another try at the latest, if it has power and nobody else fails meanwhile."""
    algorithms: tuple[KeyAlgorithm, ...] = ()
    """What the token can both make and sign with, by its own list of mechanisms; empty until it was opened."""

    @classmethod
    def of_unopened(cls, label: str | None, serial: str | None, module: Path, now: datetime) -> TokenStatus:
        detail = "The token has not been opened yet."
        return cls(TokenState.ABSENT, label or "", serial or "", "", "", str(module), detail, now)


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


class Attester(Protocol):
    """What a TPM says of itself and of a key in it, for others to check (docs/attestation.md).

    Every method may raise a ``TokenError``, AttestationUnsupported where the token is no TPM's; nothing is changed."""

    async def attest(self, key_id: bytes, nonce: bytes) -> dict[str, bytes]:
        """The files of the bundle for the private key with this id, by their names."""

    async def activate(self, challenge: bytes) -> bytes:
        """The secret in a credential challenge, as tpm2_makecredential makes it. Raises ChallengeRefused."""


class KeyStore(Protocol):
    """Keys that are made in the token and never leave it.

    Every method may raise a ``TokenError``; afterwards the token holds what it held before, except that a
    generation may have left its key under ``key_id``, where the next call with that id finds it.
    """

    async def open(self) -> None:
        """Load the module, find the token, log in. Tries the PIN at most once. Where it is open and was not well the
        last time, see whether it is now."""

    async def unlock(self, pin: Pin, *, final_try: bool = False) -> None:
        """``open`` with another PIN, which is kept in memory: the one way on after a PIN was missing or refused.
        Where the token is open already the PIN is neither tried nor kept. The last try before the token locks is
        made with ``final_try`` only."""

    async def initialize(self, pin: Pin) -> None:
        """Make the token where none with its label is, and open it. Raises TokenExists, TokenFull, PinRefused."""

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
