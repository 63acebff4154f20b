"""What was proven lately about each peer, not what is hoped: for status and for whoever watches it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from ..errors import GatewayError, IssuerSpared
from .clock import Clock


@dataclass(slots=True)
class Proven:
    last_success_at: datetime | None = None
    last_error: str | None = None
    """``Name: sentence``; None when the latest exchange went well."""
    last_error_at: datetime | None = None


class Health:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.issuer = Proven()
        self.registry = Proven()

    @contextmanager
    def watch(self, peer: Proven) -> Iterator[None]:
        """Around one exchange with ``peer``."""
        try:
            yield
        except IssuerSpared:
            raise  # nobody was asked: why the CA is being spared stays on show
        except GatewayError as error:
            peer.last_error = f"{error.name()}: {error.message}"
            peer.last_error_at = self._clock.now()
            raise
        peer.last_success_at = self._clock.now()
        peer.last_error = peer.last_error_at = None
