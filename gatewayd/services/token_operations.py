"""What an administrator may do with the tokens (control.base.TokenOperations)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from ..core.model import JournalEntry
from ..errors import GatewayError, InvalidArgument
from ..keys.base import KeyStore
from ..keys.pin import Pin
from ..store.base import Store
from . import views
from .clock import Clock
from .events import Events
from .key_inventory import KeyInventory

Data = dict[str, Any]


class Caller(Protocol):
    @property
    def uid(self) -> int: ...


class TokenOperations:
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        tokens: Mapping[str, KeyStore],
        inventory: KeyInventory,
        gateway_id: str,
        ring: Callable[[], None],
    ) -> None:
        """``tokens``: ``gateway``, and ``registrar`` where that one's key has a token of its own. ``ring`` wakes who
        waits for a token."""
        self._store = store
        self._clock = clock
        self._events = events
        self._tokens = tokens
        self._inventory = inventory
        self._gateway_id = gateway_id
        self._ring = ring

    async def objects(self) -> Data:
        listings, missing = await self._inventory.list()
        return {
            "objects": [
                views.token_object(token.label, item, claim) for token in listings for item, claim in token.objects
            ],
            "missing": [
                {"id": key_id.hex(), "role": str(claim.role), "reason": claim.reason}
                for key_id, claim in missing.items()
            ],
        }

    async def unlock(self, caller: Caller, token: str, pin: str, final_try: bool) -> Data:
        keys = self._named(token)
        await self._recorded(caller, "token unlocked", token, lambda: keys.unlock(Pin(pin), final_try=final_try))
        return views.token(keys.status())

    async def initialize(self, caller: Caller, token: str, pin: str) -> Data:
        keys = self._named(token)
        await self._recorded(caller, "token initialised", token, lambda: keys.initialize(Pin(pin)))
        return views.token(keys.status())

    def _named(self, token: str) -> KeyStore:
        try:
            return self._tokens[token]
        except KeyError:
            raise InvalidArgument(f"There is no token {token!r} here ({', '.join(self._tokens)}).") from None

    async def _recorded(self, caller: Caller, what: str, token: str, work: Callable[[], Awaitable[None]]) -> None:
        outcome, detail = "done", token
        try:
            await work()
        except GatewayError as error:
            outcome, detail = "failed", f"{token}: {error.name()}: {error.message}"
            raise
        finally:
            entry = JournalEntry(self._clock.now(), self._gateway_id, f"uid:{caller.uid}", what, outcome, detail)
            await self._store.write(lambda tx: tx.journal.append(entry))
            self._events.publish(entry)
        self._ring()
