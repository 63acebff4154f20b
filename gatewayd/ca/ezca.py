"""EZCA as an issuer: which call when, and what to do when one of them says no."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from ssl import SSLContext
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from ..config import EzcaSettings, OwnerSettings
from ..core.model import RevocationReason, San
from ..errors import CertificateUnacceptable, GatewayError, IssuerRejected, IssuerUnconfigured, IssuerUnreachable
from ..pki import certificates, pem
from ..pki.csr import public_key_sha256
from ..pki.names import canonical
from ..pki.parsing import PARSE_ERRORS
from . import ezca_wire as wire
from .base import CertificateRequest, Holder, Issued, TokenSource, Working
from .est import EstClient
from .ezca_auth import holder_token
from .http import Answer, Connections, exchange
from .sparing import RateLimit

log = logging.getLogger(__name__)

_LIMIT: Final = 1024 * 1024
_LISTING_LIMIT: Final = 32 * 1024 * 1024
"""A page's size is the server's choice, and each item carries a whole certificate."""
_MAX_PAGES: Final = 1000

_RENEWALS: Final = (
    ("RenewCertificateV3", wire.bundle),
    ("RenewCertificateV2", wire.bare),
    ("RenewCertificate", wire.wrapped),
)


class EzcaIssuer:
    """Implements ``Issuer``.

    ``tokens`` speak for the registrar: the gateway's own application, or, at bootstrap, a person. ``requester`` is the
    object id of the gateway's application, for which domains are registered either way. ``known`` gives the CA
    certificates that are known so far: V1, V2 and the listing answer with the certificate alone, and its chain is made
    up from these.
    """

    can_find = True

    def __init__(
        self,
        settings: EzcaSettings,
        tokens: TokenSource,
        tls: SSLContext,
        *,
        rate: RateLimit,
        requester: str,
        known: Callable[[], Sequence[x509.Certificate]],
        kept: Connections | None = None,
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._tls = tls
        self._rate = rate
        self._kept = kept
        self._requester = OwnerSettings(requester, "gatewayd")
        self._known = known
        self._registered: set[str] = set()
        self._renewal = 0
        """Index of the newest renewal call that this server knows, as far as we have found out."""

    async def issue(self, request: CertificateRequest) -> Issued | Working:
        call = wire.Call(f"issue a certificate for {request.device_id}", request.device_id)
        body = wire.certificate_request(self._settings, request)
        await self._register(request.device_id)
        try:
            return wire.bundle(await self._post("CA/RequestSSLCertificateV2", body), call)
        except IssuerRejected:
            self._registered.discard(request.device_id)  # perhaps the domain was taken away
            raise

    async def renew(self, request: CertificateRequest, holder: Holder) -> Issued | Working:
        """By the holder's JWT for an RSA key, over EST for an EC key. As registrar where the holder cannot: when other
        names are asked for than it has (EZCA refuses a renewal whose names differ), and for an EC key while no EST URL
        is configured (EZCA takes no JWT of one)."""
        if _names(certificates.sans_of(holder.certificate)) != _names(request.sans):
            return await self.issue(request)
        if isinstance(holder.private_key, rsa.RSAPrivateKey):
            return await self._renew_by_jwt(request, holder.certificate, holder.private_key)
        if not self._settings.est_url:
            return await self.issue(request)
        return await self._renew_over_est(request, holder)

    async def find(self, request: CertificateRequest) -> Issued | None:
        key = public_key_sha256(x509.load_der_x509_csr(request.csr).public_key())
        found: list[x509.Certificate] = []
        async for page in self._pages(wire.Call("list its certificates", request.device_id)):
            found += await asyncio.to_thread(_matching, page, request, key, datetime.now(UTC))
        if not found:
            return None
        if len(found) > 1:
            log.warning("EZCA has issued %d valid certificates for one key of %s", len(found), request.device_id)
        return self._with_chain(Issued(max(found, key=lambda each: each.not_valid_before_utc), ()))

    async def alive(self, device_id: str) -> tuple[x509.Certificate, ...]:
        found: list[x509.Certificate] = []
        async for page in self._pages(wire.Call("list its certificates", device_id)):
            found += await asyncio.to_thread(_alive, page, device_id, datetime.now(UTC))
        return tuple(found)

    async def revoke(self, certificate: x509.Certificate, reason: RevocationReason) -> str:
        device = certificates.common_name(certificate)
        serial = certificates.serial_hex(certificate)
        thumbprint = certificates.thumbprint_sha1(certificate)
        call = wire.Call(f"revoke certificate {serial} of {device}", device)
        try:
            body = wire.revocation(self._settings, thumbprint)
            words = wire.done(await self._post("CA/RevokeCertificateV2", body, kept=self._kept), call)
        except (IssuerRejected, IssuerUnreachable) as error:
            if not await self._is_revoked(thumbprint):
                raise error from None
            return f"EZCA lists certificate {serial} as revoked."
        return f"EZCA revoked certificate {serial}{f' ({words})' if words else ''}."

    async def revoked(self) -> AsyncIterator[tuple[str, ...]]:
        """CertificateList: one pass over the registrar's certificates."""
        async for page in self._pages(wire.Call("list its certificates", None)):
            yield await asyncio.to_thread(_revoked, page)

    async def anchors(self) -> tuple[x509.Certificate, ...]:
        """The known ones: the REST API names them with an issued certificate only, and EST only to a certificate's
        holder. Raises IssuerUnconfigured when none is known."""
        if known := tuple(self._known()):
            return known
        raise IssuerUnconfigured("The CA's certificates are not known before it has issued the first one.")

    async def _register(self, device_id: str) -> None:
        """EZCA issues for registered domains only, and refuses to register one twice: so look first."""
        if device_id in self._registered or await self._is_registered(device_id):
            self._registered.add(device_id)
            return
        call = wire.Call(f"register {device_id}", device_id)
        body = wire.registration(self._settings, device_id, self._requester)
        try:
            wire.done(await self._post("CA/RegisterNewDomain", body), call)
        except IssuerRejected:
            if not await self._is_registered(device_id):  # somebody may have been quicker
                raise
        self._registered.add(device_id)

    async def _is_registered(self, device_id: str) -> bool:
        call = wire.Call(f"list its domains, to register {device_id}", device_id)
        answer = await self._ask("GET", "CA/GetMyDomains", await self._registrar(), limit=_LISTING_LIMIT)
        return await asyncio.to_thread(wire.has_domain, answer, call, self._settings, device_id)

    async def _renew_over_est(self, request: CertificateRequest, holder: Holder) -> Issued | Working:
        est = EstClient(self._settings.est_url, self._settings.timeout, self._rate)
        context = await asyncio.to_thread(holder.client_context)
        answer = await est.simpleenroll(request.csr, context, request.device_id)
        if isinstance(answer, Working):
            return answer
        issued = self._with_chain(answer)
        if issued.chain:
            return issued
        try:  # the CA may have a new issuing certificate
            return Issued(issued.certificate, certificates.chain_of(issued.certificate, await est.cacerts(context)))
        except GatewayError as error:
            log.warning("the chain of the new certificate of %s stays unknown: %s", request.device_id, error)
            return issued

    async def _renew_by_jwt(
        self, request: CertificateRequest, current: x509.Certificate, private_key: rsa.RSAPrivateKey
    ) -> Issued:
        call = wire.Call(f"renew the certificate of {request.device_id}", request.device_id, as_registrar=False)
        newer = wire.renewal(self._settings, request, current)
        for version in range(self._renewal, len(_RENEWALS)):
            name, read = _RENEWALS[version]
            body = newer if read is not wire.wrapped else wire.renewal_v1(self._settings, request)
            # Fresh for each call, in case EZCA refuses a token that it has seen before.
            token = await asyncio.to_thread(holder_token, private_key, current, datetime.now(UTC))
            answer = await self._ask("POST", f"Certificates/{name}", token, body)
            if wire.is_unknown_call(answer):
                log.info("EZCA does not know %s (HTTP %d)", name, answer.status)
                continue
            self._renewal = version
            return self._with_chain(read(answer, call))
        raise IssuerUnconfigured(
            f"EZCA did not {call.doing}: it knows none of the renewal calls; check [ezca] url.",
            device=request.device_id,
        )

    def _with_chain(self, issued: Issued) -> Issued:
        """Make up the chain that an answer leaves out. That proves nothing: whoever uses the certificate checks it."""
        return Issued(issued.certificate, issued.chain or certificates.chain_of(issued.certificate, self._known()))

    async def _is_revoked(self, thumbprint: str) -> bool:
        """False also when it cannot be found out: the failure that made us look is then the one to tell."""
        try:
            async for page in self._pages(wire.Call("list its certificates", None)):
                if any(each.thumbprint == thumbprint for each in page):
                    return any(each.thumbprint == thumbprint and each.revoked for each in page)
        except GatewayError as error:
            log.info("whether a certificate is revoked is not known: %s", error)
        return False

    async def _pages(self, call: wire.Call) -> AsyncIterator[tuple[wire.Listed, ...]]:
        """The registrar's certificates, page by page, until an empty one."""
        before: tuple[wire.Listed, ...] = ()
        for number in range(_MAX_PAGES):
            path = f"CA/GetMyCertificatesV2Paginated?pageNumber={number}"
            answer = await self._ask("GET", path, await self._registrar(), limit=_LISTING_LIMIT, kept=self._kept)
            page = await asyncio.to_thread(wire.listing, answer, call)
            if not page:
                return
            if page == before:
                break
            yield page
            before = page
        raise IssuerUnreachable(f"EZCA did not {call.doing} to an end within {number + 1} pages.", device=call.device)

    async def _registrar(self) -> str:
        return await self._tokens.token(self._settings.scope)

    async def _post(self, path: str, body: wire.Body, kept: Connections | None = None) -> Answer:
        return await self._ask("POST", path, await self._registrar(), body, kept=kept)

    async def _ask(
        self,
        method: str,
        path: str,
        token: str,
        body: wire.Body | None = None,
        limit: int = _LIMIT,
        kept: Connections | None = None,
    ) -> Answer:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        await self._rate.turn()
        return await exchange(
            method,
            f"{self._settings.url.rstrip('/')}/api/{path}",
            tls=self._tls,
            within=self._settings.timeout,
            limit=limit,
            headers=headers,
            body=None if body is None else json.dumps(body).encode(),
            kept=kept,
        )


def _names(sans: Sequence[San]) -> set[San]:
    return {canonical(each) for each in sans}


def _matching(
    page: Sequence[wire.Listed], request: CertificateRequest, key: str, now: datetime
) -> list[x509.Certificate]:
    """Those of the page that answer this very request and may still be used. An item that cannot be read is none of
    ours: the list holds whatever else the registrar's application has had issued."""
    return [found for each in page if not each.revoked and (found := _answering(each, request, key, now)) is not None]


def _alive(page: Sequence[wire.Listed], device_id: str, now: datetime) -> list[x509.Certificate]:
    found = []
    for each in page:
        if not each.revoked:
            with contextlib.suppress(CertificateUnacceptable, *PARSE_ERRORS):  # not readable, so none of ours
                certificate = pem.certificate(each.pem)
                if certificates.common_name(certificate) == device_id and now < certificate.not_valid_after_utc:
                    found.append(certificate)
    return found


def _revoked(page: Sequence[wire.Listed]) -> tuple[str, ...]:
    found = []
    for each in page:
        if each.revoked:
            with contextlib.suppress(CertificateUnacceptable):  # not readable, so none of ours
                found.append(certificates.thumbprint(pem.certificate(each.pem)))
    return tuple(found)


def _answering(item: wire.Listed, request: CertificateRequest, key: str, now: datetime) -> x509.Certificate | None:
    try:
        found = pem.certificate(item.pem)
        answers = (
            certificates.public_key_sha256_of(found) == key
            and certificates.common_name(found) == request.device_id
            and _names(certificates.sans_of(found)) == _names(request.sans)
            and now < found.not_valid_after_utc
        )
    except (CertificateUnacceptable, *PARSE_ERRORS):
        return None
    return found if answers else None
