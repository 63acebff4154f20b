"""What spares a CA, around its port: one rate limit and one circuit breaker for all devices (core.sparing)."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography import x509

from ..core import sparing
from ..core.model import RevocationReason
from ..core.sparing import Breaker, Bucket
from ..errors import GatewayError, IssuerSpared, IssuerUnconfigured, IssuerUnreachable, RegistrarRefused, TokenError
from ..messages import kind
from .base import CertificateRequest, Holder, Issued, Issuer, Working

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_WAIT: Final = 30.0
"""Seconds that a request waits for its turn; behind that many others it is told to come back instead."""
_CANNOT_SERVE: Final = (IssuerUnreachable, IssuerUnconfigured, RegistrarRefused)
"""Failures that say something about the CA and not about one device."""


class RateLimit:
    """Keeps the requests to one CA at a distance from each other, whichever part of the daemon they come from."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_second
        self._clock = clock
        self._bucket = Bucket()

    async def turn(self) -> None:
        """Wait until one request may go. Raises IssuerSpared when that would take longer than LONGEST_WAIT."""
        bucket, wait = sparing.take(self._bucket, self._clock(), self._rate, 1.0)
        if wait > LONGEST_WAIT:
            raise IssuerSpared("More requests wait for the CA than it may be sent.", retry_after=wait)
        self._bucket = bucket
        if wait > 0:
            await asyncio.sleep(wait)


@dataclass(frozen=True, slots=True)
class Spared:
    """An open breaker, for status."""

    failures: int
    """In a row."""
    next_try: float
    """Seconds from now; 0 when the next request may go."""


class SparedIssuer:
    """Implements ``Issuer`` around one; raises IssuerSpared, without asking, while the breaker is open."""

    def __init__(
        self,
        issuer: Issuer,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._issuer = issuer
        self._clock = clock
        self._dice = dice
        self._breaker = Breaker()

    @property
    def can_find(self) -> bool:
        return self._issuer.can_find

    def pause(self) -> float:
        """Seconds for which nobody is let through; 0 when somebody is."""
        return sparing.pause(self._breaker, self._clock())

    def on_trial(self) -> bool:
        """Whether only one request may go, to see if the CA is back."""
        return self._breaker.until is not None

    def spared(self) -> Spared | None:
        """None while the breaker is closed."""
        return Spared(self._breaker.failures, self.pause()) if self._breaker.until is not None else None

    def try_now(self) -> None:
        """Let the next request through: a person says that it is worth it."""
        self._breaker = sparing.abandoned(self._breaker, self._clock())

    async def issue(self, request: CertificateRequest) -> Issued | Working:
        return await self._through(lambda: self._issuer.issue(request))

    async def renew(self, request: CertificateRequest, holder: Holder) -> Issued | Working:
        return await self._through(lambda: self._issuer.renew(request, holder))

    async def find(self, request: CertificateRequest) -> Issued | None:
        return await self._through(lambda: self._issuer.find(request))

    async def alive(self, device_id: str) -> tuple[x509.Certificate, ...]:
        return await self._through(lambda: self._issuer.alive(device_id))

    async def revoke(self, certificate: x509.Certificate, reason: RevocationReason) -> str:
        return await self._through(lambda: self._issuer.revoke(certificate, reason))

    async def anchors(self) -> tuple[x509.Certificate, ...]:
        return await self._through(self._issuer.anchors)

    async def _through(self, ask: Callable[[], Awaitable[T]]) -> T:
        if (wait := self.pause()) > 0:
            raise IssuerSpared(
                f"The CA has failed {self._breaker.failures} times in a row and is left alone for a while.",
                retry_after=wait,
            )
        self._breaker = sparing.begun(self._breaker, self._clock())
        try:
            answer = await ask()
        except _CANNOT_SERVE as error:
            self._failed(error)
            raise
        except (IssuerSpared, TokenError, asyncio.CancelledError):
            self._breaker = sparing.abandoned(self._breaker, self._clock())
            raise
        except GatewayError:
            self._answered()
            raise
        self._answered()
        return answer

    def _failed(self, error: GatewayError) -> None:
        was_open = self._breaker.until is not None
        self._breaker = sparing.failed(self._breaker, self._clock(), self._dice(), error.retry_after)
        if not was_open and self._breaker.until is not None:
            log.warning(
                "the CA is left alone for %.0f s after %d failures",
                self.pause(),
                self._breaker.failures,
                extra=kind("ca-spared"),
            )

    def _answered(self) -> None:
        if self._breaker.until is not None:
            log.info("the CA serves again", extra=kind("ca-back"))
        self._breaker = Breaker()
