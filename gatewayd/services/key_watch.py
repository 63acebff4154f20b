"""Proves that the gateway's key in the token works.

A token may be there without its keys: the TPM was cleared, somebody has deleted the key, an old backup was restored.
That shows only when the key signs, so that is what is asked for; and what it says, ``status`` tells.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from ..core import lifecycle
from ..core.model import Credential, JournalEntry
from ..errors import IssuerUnreachable, KeyMissing, TokenError, all_errors
from ..keys.base import KeyStore, PrivateKey, PublicKey, TokenState, TokenStatus
from ..store.base import Store, Tx
from .clock import Clock
from .events import DAEMON, Events

KEY_LOST: Final = "key lost"
"""What, in the journal: the certificate is due for renewal at once."""

_TEXT: Final = b"gatewayd proves that its key signs"

_FOR_WANT_OF_THE_TOKEN: Final = frozenset(
    name for name, error in all_errors().items() if issubclass(error, TokenError | IssuerUnreachable)
)
"""What an action may have failed with for want of the token: a CA is out of reach when a handshake is not signed."""


class KeyWatch:
    def __init__(self, *, store: Store, keys: KeyStore, clock: Clock, events: Events, gateway_id: str) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._events = events
        self._gateway_id = gateway_id
        self._missed: int | None = None
        """The generation whose key was missing when it was last looked for."""
        self._lost: TokenStatus | None = None

    def status(self) -> TokenStatus:
        """The token's, with what is known of the key."""
        status = self._keys.status()
        return self._lost if self._lost is not None and status.state is TokenState.READY else status

    async def prove(self) -> None:
        """Have the key of the gateway's certificate sign. Raises TokenError; KeyMissing when it is not there."""
        current = await self._store.read(lambda tx: tx.credentials.current(self._gateway_id))
        if current is None or current.key is None or current.certificate is None:
            self._lost = self._missed = None
            return
        public_key = x509.load_der_x509_certificate(current.certificate).public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        try:
            await asyncio.to_thread(_prove, self._keys.private_key(current.key, public_key), public_key)
        except KeyMissing as error:
            await self._miss(current)
            raise KeyMissing(
                f"The token does not hold the key of {self._gateway_id}'s certificate.", device=self._gateway_id
            ) from error
        self._lost = self._missed = None

    async def _miss(self, current: Credential) -> None:
        """Certain the second time: the token may have been caught while it was being replaced. Then the certificate is
        due for renewal at once, for which another key is made."""
        seen_before = self._missed == current.generation
        self._missed = current.generation
        if not seen_before or self._lost is not None:
            return
        now = self._clock.now()
        words = "The token works, and does not hold the key of the gateway's certificate."
        self._lost = replace(self._keys.status(), state=TokenState.KEY_MISSING, detail=words, since=now)
        entry = JournalEntry(now, self._gateway_id, DAEMON, KEY_LOST, "failed", f"generation {current.generation}")

        def work(tx: Tx) -> None:
            tx.journal.append(entry)
            # As it is now: while the token was asked it may have been revoked or superseded.
            present = tx.credentials.current(self._gateway_id)
            if present is None or present.generation != current.generation:
                return
            if present.renew_at is None or present.renew_at > now:
                tx.credentials.put(replace(present, renew_at=now))

        await self._store.write(work)
        self._events.publish(entry)

    async def hasten(self) -> None:
        """The token is back: what failed for want of it is tried now, not when its turn would come."""

        def work(tx: Tx) -> None:
            for each in tx.credentials.in_states(lifecycle.UNFINISHED):
                if (each.last_error or "").partition(":")[0] in _FOR_WANT_OF_THE_TOKEN:
                    tx.credentials.put(replace(each, next_attempt_at=None))

        await self._store.write(work)


def _prove(key: PrivateKey, public_key: PublicKey) -> None:
    """Raises TokenError; KeyMissing also when what is under its id now is another key."""
    try:
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(public_key, ec.EllipticCurvePublicKey):
            ecdsa = ec.ECDSA(hashes.SHA256())
            public_key.verify(key.sign(_TEXT, ecdsa), _TEXT, ecdsa)
        elif isinstance(key, rsa.RSAPrivateKey) and isinstance(public_key, rsa.RSAPublicKey):
            way = (padding.PKCS1v15(), hashes.SHA256())
            public_key.verify(key.sign(_TEXT, *way), _TEXT, *way)
        else:
            raise InvalidSignature
    except InvalidSignature:
        raise KeyMissing("Another key is in its place.") from None
