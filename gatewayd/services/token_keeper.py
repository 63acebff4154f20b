"""The loop that opens the token, proves that it works, and sees that it is well again when it comes back.

A token goes and comes back: a TPM resets, a module crashes, somebody pulls a stick. Whoever needs it then fails for
itself; here it is seen that it is back, and what waited for it goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ..core.model import KeyAlgorithm
from ..errors import AlgorithmUnsupported, GatewayError
from ..keys.base import KeyStore, TokenState, TokenStatus
from ..messages import kind
from .events import Alarm

log = logging.getLogger(__name__)

_EVERY: Final = 10.0
"""Seconds between two looks at a token that is not ready. A look costs a reload of the module at most once in 30 s."""
_PROVEN_FOR: Final = 60.0
"""Seconds that a proof is good for."""

_A_PERSONS: Final = (TokenState.PIN_MISSING, TokenState.PIN_REFUSED)


class TokenKeeper:
    def __init__(
        self,
        keys: KeyStore,
        name: str,
        wanted: KeyAlgorithm,
        opened: Callable[[], Awaitable[None]],
        prove: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """``name`` for the log; ``wanted`` is the algorithm of the keys to come; ``opened`` is called each time when
        the token has become ready; ``prove`` raises a TokenError when it does not really work (default: that it can
        list its objects)."""
        self._keys = keys
        self._name = name
        self._wanted = wanted
        self._opened = opened
        self._prove = prove or keys.objects
        self._proven_at: float | None = None
        self._alarm = Alarm()
        self._was_ready = False
        self._told = ""

    def ring(self) -> None:
        """Look now: a person has done something about it."""
        self._alarm.ring()

    async def run(self) -> None:
        while True:
            if self._keys.status().state not in _A_PERSONS:
                await self.look()
            await self._alarm.sleep(_EVERY)

    async def look(self) -> bool:
        """Open it where it is not ready, and tell when it has become so. Returns whether it is ready."""
        if self._keys.status().state is not TokenState.READY:
            self._was_ready = False  # also when it has failed somebody since, and nobody noticed here
        if self._was_ready and self._is_proven_lately():
            return True
        try:
            await self._keys.open()
            await self._prove()
        except GatewayError as error:
            self._was_ready = False
            if error.message != self._told:  # once, not every ten seconds
                log.error("%s: %s: %s %s", self._name, error.name(), error, error.remedy)
                self._told = error.message
            return False
        self._proven_at, self._told = time.monotonic(), ""
        if self._was_ready:
            return True
        log.info("%s is ready", self._name, extra=kind("token-ready"))
        self._was_ready = True
        if refusal := algorithm_refusal(self._keys.status(), self._wanted):
            log.error("%s: %s %s", self._name, refusal, refusal.remedy)
        await self._opened()
        return True

    def _is_proven_lately(self) -> bool:
        return self._proven_at is not None and time.monotonic() - self._proven_at < _PROVEN_FOR


def algorithm_refusal(status: TokenStatus, wanted: KeyAlgorithm) -> AlgorithmUnsupported | None:
    """None when the token makes such keys, or has not said what it makes."""
    if not status.algorithms or wanted in status.algorithms:
        return None
    offered = ", ".join(status.algorithms)
    return AlgorithmUnsupported(f"The token {status.label!r} makes no {wanted} keys; it offers {offered}.")
