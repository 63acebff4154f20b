"""The CA's own list of certificates: the way to learn of a revocation that no CRL tells."""

from __future__ import annotations

from ..ca.base import CertificateList
from ..core.learning import Standing, Statement
from ..core.model import RevocationReason
from .health import Health
from .learning import Learner
from .own import OwnCertificates
from .watch import Looked


class ListSource:
    """Implements ``watch.Source``. One pass over the list for each look."""

    kind = "ca-list"

    def __init__(
        self, name: str, certificates: CertificateList, own: OwnCertificates, learner: Learner, health: Health
    ) -> None:
        self.name = name
        self._list = certificates
        self._own = own
        self._learner = learner
        self._health = health

    async def look(self) -> Looked:
        if not self._own.version:
            return Looked(detail="there is no certificate yet")
        settled, revoked = True, 0
        with self._health.watch(self._health.issuer):
            async for page in self._list.revoked():
                revoked += len(page)
                # Page by page: what the first pages say is not lost when a later one does not come.
                settled &= await self._learner.learn(self.kind, [said for each in page if (said := self._said(each))])
        return Looked(detail=f"{revoked} listed as revoked", settled=settled)

    def _said(self, thumbprint: str) -> Statement | None:
        own = self._own.by_thumbprint(thumbprint)
        if own is None:
            return None
        return Statement(
            device_id=own.device_id,
            generation=own.generation,
            standing=Standing.REVOKED,
            reason=RevocationReason.UNSPECIFIED,
            revoked_at=None,
            evidence="the CA's list of certificates says that it is revoked",
        )
