"""Which CA certificates an issued certificate must chain to, and what leaves get as /cacerts.

Configured ones ([trust] issuer_anchors) are the only ones when they are given. Otherwise those that the CA names with
the gateway's first certificate are kept, once and for good: that answer came over TLS from the configured host.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from ..ca.base import Issued
from ..errors import CertificateUnacceptable
from ..pki import pem
from ..store.base import Store

_SETTING = "issuer-anchors"


class Anchors:
    def __init__(self, store: Store, configured: Path | None) -> None:
        self._store = store
        self._configured = configured
        self._known: tuple[x509.Certificate, ...] = ()

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
