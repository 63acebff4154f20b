"""Which CA certificates an issued certificate must chain to, and what leaves get as /cacerts.

Configured ones ([trust] issuer_anchors) are the only ones when they are given. Otherwise those that the CA names with
the gateway's first certificate are kept: that answer came over TLS from the configured host. Later ones join them when
these vouch for them, as a CA has it that takes a new root (RFC 7030, 4.1.3).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

from ..ca.base import Issued
from ..errors import CertificateUnacceptable
from ..messages import kind
from ..pki import certificates, pem
from ..store.base import Store

log = logging.getLogger(__name__)

_SETTING = "issuer-anchors"


class Anchors:
    def __init__(self, store: Store, configured: Path | None) -> None:
        self._store = store
        self._configured = configured
        self._known: tuple[x509.Certificate, ...] = ()
        self._changed: Callable[[], None] = lambda: None

    async def load(self) -> None:
        """Raises ConfigInvalid when the configured file cannot be read."""
        if self._configured is not None:
            self._known = pem.bundle(self._configured)
            return
        kept = await self._store.read(lambda tx: tx.settings.get(_SETTING))
        self._known = pem.certificates(kept) if kept else ()

    def known(self) -> tuple[x509.Certificate, ...]:
        """Empty before the first certificate."""
        return self._known

    async def adopt(self, issued: Issued) -> None:
        """After ``issued`` was found acceptable: keep the CA certificates that came with it and that those known so far
        vouch for."""
        if self._configured is not None or not self._known:
            return
        fresh = await asyncio.to_thread(certificates.vouched, issued.chain, self._known)
        if not fresh:
            return
        known = (*self._known, *fresh)
        text = pem.encode(known)
        await self._store.write(lambda tx: tx.settings.set(_SETTING, text))
        self._known = known
        for each in fresh:
            log.warning("the CA has a new certificate: %s", each.subject.rfc4514_string(), extra=kind("ca-certificate"))
        self._changed()

    def on_change(self, call: Callable[[], None]) -> None:
        """``call`` after the known ones have become more."""
        self._changed = call

    async def learn(self, issued: Issued) -> None:
        """Keep what came with the first certificate; does nothing once anchors are known."""
        if self._known:
            return
        roots = tuple(each for each in issued.chain if each.issuer == each.subject)
        if not roots:
            raise CertificateUnacceptable(
                "The CA did not name its root, and none is configured in [trust] issuer_anchors."
            )
        chain = issued.chain
        text = pem.encode(chain)
        await self._store.write(lambda tx: tx.settings.set(_SETTING, text))
        self._known = chain
