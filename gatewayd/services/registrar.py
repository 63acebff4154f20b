"""The gateway as registrar: its own Entra application, whose key is in the token.

Entra knows the application by a self-signed certificate that an administrator uploads once ('gatewayctl registrar
certificate'); each client assertion is signed in the token, so that there is no secret to steal or to rotate by hand.
The key is RSA: Entra takes RS256 and PS256 assertions.

The certificate does not last for ever, and a person has to upload the next one: so that is made in time, for the same
key, and the present one is used until Entra takes the next.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ..ca.base import TokenSource
from ..core.inventory import registrar_label
from ..core.model import KeyAlgorithm, KeyRef
from ..errors import IssuerUnreachable, KeyMissing, RegistrarRefused
from ..keys.base import KeyStore, PublicKey
from ..pki import certificates, pem
from ..store.base import Store, Tx
from .clock import Clock

log = logging.getLogger(__name__)

LIFETIME = timedelta(days=730)
RENEWED_BEFORE = timedelta(days=60)
"""Before its end: so long a person has time."""
TRIED_EVERY = timedelta(hours=1)
"""Whether Entra knows the next one already."""

REGISTRAR = "registrar"
"""The setting that holds the registrar's key id and, once made, its certificate, and the next one in its time."""
ALGORITHM = KeyAlgorithm.RSA_2048

MakeTokens = Callable[[rsa.RSAPrivateKey, x509.Certificate], TokenSource]


@dataclass(frozen=True, slots=True)
class _Ready:
    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    tokens: TokenSource
    following: x509.Certificate | None
    """The next one, which Entra may know already."""


class Registrar:
    """A TokenSource; makes its key and certificate at first use."""

    def __init__(self, *, store: Store, keys: KeyStore, clock: Clock, device_id: str, make_tokens: MakeTokens) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._device_id = device_id
        self._make_tokens = make_tokens
        self._lock = asyncio.Lock()
        self._ready: _Ready | None = None
        self._tried_at: datetime | None = None

    async def certificate(self) -> x509.Certificate:
        """The one in use."""
        return (await self._at_hand()).certificate

    async def to_upload(self) -> x509.Certificate:
        """The next one, once there is one."""
        ready = await self._at_hand()
        self._tried_at = None  # a person is about to make it known
        return ready.following or ready.certificate

    async def _at_hand(self) -> _Ready:
        ready = await self._prepare()
        return await self._prepare() if await self._lost(ready.certificate) else ready

    async def made(self) -> bool:
        """Whether it has a certificate already: who could do without does not make one for the asking."""
        kept = await self._store.read(lambda tx: tx.settings.get(REGISTRAR))
        return kept is not None and "certificate" in json.loads(kept)

    async def sign(self, data: bytes) -> tuple[x509.Certificate, bytes]:
        """RSASSA-PKCS1-v1_5 with SHA-256, and the certificate that it is to be verified with."""
        await self.certificate()
        ready = await self._prepare()
        signature = await asyncio.to_thread(ready.key.sign, data, padding.PKCS1v15(), hashes.SHA256())
        return ready.certificate, signature

    async def token(self, scope: str) -> str:
        ready = await self._prepare()
        if ready.following is not None and (token := await self._by_the_next(ready, ready.following, scope)):
            return token
        try:
            return await ready.tokens.token(scope)
        except KeyMissing:
            if not await self._lost(ready.certificate):
                raise
        return await (await self._prepare()).tokens.token(scope)

    async def _by_the_next(self, ready: _Ready, following: x509.Certificate, scope: str) -> str | None:
        """A token for the next certificate, which is the one in use from then on; None while it does not work."""
        now = self._clock.now()
        if self._tried_at is not None and self._tried_at <= now < self._tried_at + TRIED_EVERY:
            return None
        self._tried_at = now
        tokens = self._make_tokens(ready.key, following)
        try:
            token = await tokens.token(scope)
        except (RegistrarRefused, IssuerUnreachable) as error:
            log.info("Entra does not take the registrar's next certificate yet: %s", error.message)
            return None
        kept = await self._store.read(lambda tx: tx.settings.get(REGISTRAR))
        assert kept is not None
        await self._keep({"key_id": json.loads(kept)["key_id"], "certificate": pem.encode([following])})
        self._ready = _Ready(following, ready.key, tokens, None)
        log.warning("the registrar's next certificate is in use, until %s", following.not_valid_after_utc)
        return token

    async def _lost(self, certificate: x509.Certificate) -> bool:
        """Whether its key is gone from the token; then the next preparation makes another one."""
        if await self._keys.find(certificate.public_key()) is not None:  # type: ignore[arg-type]  # our own RSA key
            return False
        log.error("the registrar's key is gone from the token: another one is made, and has to be made known to Entra")
        self._ready = None
        return True

    async def _prepare(self) -> _Ready:
        async with self._lock:
            if self._ready is None or self._is_due(self._ready):
                self._ready = await self._make()
            return self._ready

    def _is_due(self, ready: _Ready) -> bool:
        left = ready.certificate.not_valid_after_utc - self._clock.now()
        return left <= timedelta(0) or (left <= RENEWED_BEFORE and ready.following is None and self._clock.sane())

    async def _make(self) -> _Ready:
        kept = await self._store.read(lambda tx: tx.settings.get(REGISTRAR))
        state: dict[str, str] = json.loads(kept) if kept else {"key_id": secrets.token_hex(16)}
        if not kept:  # the intent first: an interrupted generation is found under this id
            await self._keep(state)
        ref = KeyRef(bytes.fromhex(state["key_id"]), ALGORITHM)
        public_key = await self._keys.generate(ref.id, registrar_label(self._device_id), ref.algorithm)
        key = cast(rsa.RSAPrivateKey, self._keys.private_key(ref, public_key))
        following = state.pop("next", None)
        if not self._still_good(following, public_key):
            following = None
        if not self._still_good(state.get("certificate"), public_key):
            state["certificate"], following = following or await self._signed(key), None
            await self._keep(state)
        certificate = pem.certificate(state["certificate"])
        if following is None and certificate.not_valid_after_utc - self._clock.now() <= RENEWED_BEFORE:
            following = await self._signed(key)
            await self._keep({**state, "next": following})
        upcoming = pem.certificate(following) if following is not None else None
        return _Ready(certificate, key, self._make_tokens(key, certificate), upcoming)

    async def _signed(self, key: rsa.RSAPrivateKey) -> str:
        name = f"gatewayd {self._device_id}"
        return pem.encode([await asyncio.to_thread(certificates.self_signed, key, name, LIFETIME, self._clock.now())])

    def _still_good(self, kept: str | None, public_key: PublicKey) -> bool:
        """Not when the token was cleared and has made another key since, nor once it is over: then a person has to
        tell Entra about a new one."""
        if kept is None:
            return False
        certificate = pem.certificate(kept)
        return certificate.public_key() == public_key and self._clock.now() < certificate.not_valid_after_utc

    async def _keep(self, state: dict[str, str]) -> None:
        text = json.dumps(state)
        await self._store.write(lambda tx: tx.settings.set(REGISTRAR, text))


def shown(tx: Tx) -> dict[str, str]:
    """When its certificate ends and, in its time, when the next one does; empty before there is one."""
    state = json.loads(tx.settings.get(REGISTRAR) or "{}")
    ends = {"not_after": state.get("certificate"), "next_not_after": state.get("next")}
    return {
        name: f"{pem.certificate(text).not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}" for name, text in ends.items() if text
    }
