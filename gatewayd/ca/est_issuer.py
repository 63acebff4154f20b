"""Any CA that speaks EST (RFC 7030), as an issuer.

The gateway shows its own certificate for itself and, as registration authority, for its leaves: the key is in the
token. EST has no call to revoke, to list, or to find what was issued; what that means is said below at each.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from ssl import SSLContext

from cryptography import x509

from ..config import EstIssuerSettings
from ..core.model import RevocationReason
from ..errors import CertificateExpired, GatewayError, IssuerUnconfigured, RevocationElsewhere
from ..pki import certificates
from ..pki.names import canonical
from .base import CertificateRequest, Holder, Issued, Working
from .est import EstClient
from .sparing import RateLimit

log = logging.getLogger(__name__)


class EstIssuer:
    """Implements ``Issuer``.

    ``holder`` is the gateway with its present certificate, None while it has none; ``secret`` a person's
    ``user:password`` for HTTP Basic, at bootstrap; ``known`` the CA certificates that are known so far.
    """

    can_find = False

    def __init__(
        self,
        settings: EstIssuerSettings,
        tls: SSLContext,
        *,
        rate: RateLimit,
        holder: Callable[[], Awaitable[Holder | None]],
        known: Callable[[], Sequence[x509.Certificate]],
        secret: str | None = None,
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._holder = holder
        self._known = known
        basic = None if secret is None else f"Basic {base64.b64encode(secret.encode()).decode()}"
        self._own = EstClient(settings.url, settings.timeout, rate, basic)
        self._leaves = EstClient(settings.leaf_url or settings.url, settings.timeout, rate, basic)
        self._with_secret = secret is not None

    async def issue(self, request: CertificateRequest) -> Issued | Working:
        """As registration authority. The CA must let the holder of the gateway's certificate ask for other subjects
        than its own (RFC 7030, 3.7: id-kp-cmcRA, or the CA's own list of those who may)."""
        est = self._own if request.server_auth else self._leaves
        context = await self._context(request.device_id)
        return await self._with_chain(
            await est.simpleenroll(request.csr, context, request.device_id), request, est, context
        )

    async def renew(self, request: CertificateRequest, holder: Holder) -> Issued | Working:
        """simplereenroll for the same subject and names (4.2.2); simpleenroll where they change, as from a factory
        certificate."""
        context = await asyncio.to_thread(holder.client_context)
        same = certificates.common_name(holder.certificate) == request.device_id and {
            canonical(each) for each in certificates.sans_of(holder.certificate)
        } == {canonical(each) for each in request.sans}
        ask = self._own.simplereenroll if same and self._settings.reenroll else self._own.simpleenroll
        return await self._with_chain(await ask(request.csr, context, request.device_id), request, self._own, context)

    async def find(self, request: CertificateRequest) -> Issued | None:
        """EST cannot tell. A server that answers the same CSR with the same certificate makes up for it."""
        return None

    async def revoke(self, certificate: x509.Certificate, reason: RevocationReason) -> str:
        """EST cannot revoke (RFC 7030 leaves it to CMC). Raises RevocationElsewhere until there is nothing left to
        revoke: what a CRL or OCSP shows before closes the milestone as well, without us."""
        serial = certificates.serial_hex(certificate)
        if certificate.not_valid_after_utc <= datetime.now(UTC):
            return f"Certificate {serial} has expired: there is nothing left to revoke."
        if not self._settings.revocable:
            return f"This CA publishes no revocations ([est_issuer] revocable): certificate {serial} ends by expiry."
        raise RevocationElsewhere(
            f"EST cannot revoke: revoke serial {serial} ({reason}) at the CA; its CRL or OCSP then shows it.",
            device=certificates.common_name(certificate),
        )

    async def alive(self, device_id: str) -> tuple[x509.Certificate, ...]:
        return ()  # EST has no call for it

    async def anchors(self) -> tuple[x509.Certificate, ...]:
        return await self._own.cacerts(self._tls)

    async def _context(self, device_id: str) -> SSLContext:
        if self._with_secret:
            return self._tls
        holder = await self._holder()
        if holder is None:
            raise IssuerUnconfigured("The gateway has no certificate to ask an EST server with.", device=device_id)
        if holder.certificate.not_valid_after_utc <= datetime.now(UTC) and not self._settings.accepts_expired:
            raise CertificateExpired(
                f"The gateway's certificate expired at {holder.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ},"
                " and this CA takes none that has ([est_issuer] accepts_expired).",
                device=device_id,
            )
        return await asyncio.to_thread(holder.client_context)

    async def _with_chain(
        self, answer: Issued | Working, request: CertificateRequest, est: EstClient, context: SSLContext
    ) -> Issued | Working:
        """What an answer leaves out is made up from what is known; where that leads nowhere, the CA has new
        certificates, and /cacerts has them with the old one's word for the new (4.1.3, NewWithOld)."""
        if isinstance(answer, Working):
            return answer
        known = self._known()
        chain = certificates.chain_of(answer.certificate, [*answer.chain, *known])
        if not (set(chain) & set(known) if known else any(each.issuer == each.subject for each in chain)):
            try:
                named = await est.cacerts(context)
                chain = certificates.chain_of(answer.certificate, [*answer.chain, *named, *known])
            except GatewayError as error:
                log.warning("the chain of the new certificate of %s stays unknown: %s", request.device_id, error)
        return Issued(answer.certificate, chain)
