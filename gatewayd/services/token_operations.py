"""What an administrator may do with the tokens (control.base.TokenOperations)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from cryptography import x509

from ..core.model import JournalEntry
from ..errors import GatewayError, InvalidArgument, NotBootstrapped
from ..keys.base import Attester, KeyStore
from ..keys.pin import Pin
from ..pki import pem
from ..store.base import Store
from . import views
from .clock import Clock
from .events import Events
from .key_inventory import KeyInventory

Data = dict[str, Any]
T = TypeVar("T")


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
        attester: Attester,
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
        self._attester = attester
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

    async def attest(self, caller: Caller, nonce: bytes) -> Data:
        current = await self._store.read(lambda tx: tx.credentials.current(self._gateway_id))
        if current is None or current.key is None or current.certificate is None:
            raise NotBootstrapped("The gateway has no certificate whose key could be attested.")
        key_id, certificates = current.key.id, [current.certificate, *current.chain]
        detail = f"gateway, nonce {nonce.hex()}"
        files = await self._recorded(caller, "key attested", detail, lambda: self._attester.attest(key_id, nonce))
        files["certificate.pem"] = pem.encode(map(x509.load_der_x509_certificate, certificates)).encode()
        return {
            "device_id": self._gateway_id,
            "nonce": nonce.hex(),
            "files": {name: b64encode(content).decode() for name, content in sorted(files.items())},
        }

    async def activate(self, caller: Caller, challenge: bytes) -> Data:
        what = "credential challenge answered"
        secret = await self._recorded(caller, what, "gateway", lambda: self._attester.activate(challenge))
        return {"secret": secret.hex()}

    def _named(self, token: str) -> KeyStore:
        try:
            return self._tokens[token]
        except KeyError:
            raise InvalidArgument(f"There is no token {token!r} here ({', '.join(self._tokens)}).") from None

    async def _recorded(self, caller: Caller, what: str, detail: str, work: Callable[[], Awaitable[T]]) -> T:
        outcome = "done"
        try:
            made = await work()
        except GatewayError as error:
            outcome, detail = "failed", f"{detail}: {error.name()}: {error.message}"
            raise
        finally:
            entry = JournalEntry(self._clock.now(), self._gateway_id, f"uid:{caller.uid}", what, outcome, detail)
            await self._store.write(lambda tx: tx.journal.append(entry))
            self._events.publish(entry)
        self._ring()
        return made
