"""Which CAs there are: one line in KINDS for each (docs/issuers.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ssl import SSLContext
from types import MappingProxyType
from typing import Final

from cryptography import x509

from ..config import Settings
from .base import CertificateList, Holder, Issuer, TokenSource
from .est_issuer import EstIssuer
from .ezca import EzcaIssuer
from .http import Connections
from .sparing import RateLimit


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an issuer may be made of."""

    settings: Settings
    tls: SSLContext
    """Trusts [trust] bundle, without a client certificate."""
    registrar: TokenSource
    """The gateway's Entra application."""
    static_tokens: Callable[[str], TokenSource]
    """A person's token, as a source."""
    holder: Callable[[], Awaitable[Holder | None]]
    """The gateway with its present certificate, expired or not."""
    known: Callable[[], Sequence[x509.Certificate]]
    """The CA certificates that are trusted so far."""


async def _nothing_to_close() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Ca:
    """One configured CA."""

    url: str
    issuer: Issuer
    bootstrap: Callable[[str], Issuer]
    """The same, with a secret that a person has given for the gateway's first certificate."""
    certificates: CertificateList | None
    """Its own account of what it has issued, where it keeps one."""
    lifetime: timedelta | None
    leaf_lifetime: timedelta | None
    """None: the CA alone decides."""
    requests_per_second: float
    close: Callable[[], Awaitable[None]] = _nothing_to_close


def _ezca(around: Surroundings) -> Ca:
    settings = around.settings.ezca
    requester = around.settings.entra.object_id
    rate, kept = RateLimit(settings.requests_per_second), Connections(around.tls)

    def make(tokens: TokenSource) -> EzcaIssuer:
        return EzcaIssuer(settings, tokens, around.tls, rate=rate, kept=kept, requester=requester, known=around.known)

    issuer = make(around.registrar)
    return Ca(
        url=settings.url,
        issuer=issuer,
        bootstrap=lambda token: make(around.static_tokens(token)),
        certificates=issuer,
        lifetime=timedelta(days=settings.lifetime_days),
        leaf_lifetime=timedelta(days=settings.leaf_lifetime_days),
        requests_per_second=settings.requests_per_second,
        close=kept.close,
    )


def _est(around: Surroundings) -> Ca:
    settings = around.settings.est_issuer
    rate = RateLimit(settings.requests_per_second)

    def make(secret: str | None) -> EstIssuer:
        return EstIssuer(settings, around.tls, rate=rate, holder=around.holder, known=around.known, secret=secret)

    return Ca(
        url=settings.url,
        issuer=make(None),
        bootstrap=make,
        certificates=None,
        lifetime=None,
        leaf_lifetime=None,
        requests_per_second=settings.requests_per_second,
    )


KINDS: Final[Mapping[str, Callable[[Surroundings], Ca]]] = MappingProxyType({"ezca": _ezca, "est": _est})
"""By the name that [issuer] kind gives."""
