"""The port to a certification authority.

What an issuer may raise, and what it means for the caller:

- ``IssuerUnreachable``: no clear answer. A certificate may have been minted: ``find`` before asking again.
- ``IssuerRejected``: no, and asking again will not help.
- ``IssuerUnconfigured``: the CA does not know us, or not the CA id or template. Waits for a person; retried slowly.
- ``RegistrarRefused``: Entra does not accept us as registrar. The same.
- ``NewKeyNeeded``: not for this key, but perhaps for another one. Neither EZCA nor EST has a way to say so.
- ``IssuerSpared``: the CA was not asked; ``retry_after`` says when it may be.

All of them leave what was issued before intact.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from ssl import SSLContext
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ..core.model import RevocationReason, San
from ..core.renewal import Window


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What a certificate is asked for: exactly this subject and these names, whatever else the CSR holds."""

    device_id: str
    csr: bytes
    """DER PKCS#10; gives the public key."""
    sans: tuple[San, ...]
    server_auth: bool
    """The gateway's own certificate also serves TLS; a leaf's only authenticates a client."""
    lifetime: timedelta | None = None
    """None: the issuer's configured default."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A current certificate with its key in the token, with which its holder renews it."""

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    client_context: Callable[[], SSLContext]
    """A fresh TLS client context, trusting what the issuer's host needs, with this certificate bound to it."""


@dataclass(frozen=True, slots=True)
class Issued:
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """Issuer first, without the root where the CA leaves it out."""
    suggested: Window | None = None
    """When the CA would like it to be renewed. EZCA and EST do not say."""


@dataclass(frozen=True, slots=True)
class Working:
    """The CA has the request; ask again with the same CSR."""

    retry_after: float
    """Seconds."""


class TokenSource(Protocol):
    """Bearer tokens for one identity."""

    async def token(self, scope: str) -> str:
        """A token for ``scope`` that is valid for another five minutes at least. Raises RegistrarRefused,
        IssuerUnreachable. Never logged."""


class Issuer(Protocol):
    """A CA that gatewayd can ask. Every call has a time limit of its own and retries nothing by itself."""

    async def issue(self, request: CertificateRequest) -> Issued | Working:
        """As registrar: a certificate for a device that cannot or need not prove itself to the CA."""

    async def renew(self, request: CertificateRequest, holder: Holder) -> Issued | Working:
        """As the holder of the current certificate."""

    async def find(self, request: CertificateRequest) -> Issued | None:
        """A valid certificate already minted for this request's public key; None if there is none, or if this
        issuer cannot tell (``can_find`` is False)."""

    @property
    def can_find(self) -> bool: ...

    async def alive(self, device_id: str) -> tuple[x509.Certificate, ...]:
        """All that it has issued to this device, as far as it shows us, and that has neither expired nor been revoked.
        Nothing if this issuer cannot tell (``can_find`` is False)."""

    async def revoke(self, certificate: x509.Certificate, reason: RevocationReason) -> str:
        """As registrar; idempotent: an already revoked certificate is no error. Returns the CA's evidence, one
        sentence."""

    async def anchors(self) -> tuple[x509.Certificate, ...]:
        """The CA's certificates, root included: what leaves get as ``/cacerts``."""


class CertificateList(Protocol):
    """A CA's own account of what it has issued to us."""

    def revoked(self) -> AsyncIterator[tuple[str, ...]]:
        """The certificates that it lists as revoked, page by page, by their thumbprints (SHA-256, hex, lower-case).
        Raises as an Issuer does; what has come until then holds."""
