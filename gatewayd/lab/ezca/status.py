"""Revocation status in public: CRLs and OCSP, over HTTP and HTTPS alike."""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import datetime

from aiohttp import web
from cryptography.x509.ocsp import OCSPCertStatus

from .service import Service

Revoked = dict[int, tuple[datetime, str | None]]
"""Time and reason of each revocation, by serial number."""


class Status:
    """A complete CRL is made when something has been revoked since the last one; while ``with_delta`` is set it stays
    as it is, names its delta, and the delta is made instead."""

    def __init__(self, service: Service) -> None:
        self._authority = service.authority
        self._store = service.store
        self._number = 0
        self._listed: Revoked | None = None
        self._complete = b""
        self._complete_number = 0
        self.with_delta = False

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/crl/issuing.crl", self.crl, name="crl"),
            web.get("/crl/issuing-delta.crl", self.delta, name="delta-crl"),
            web.get("/crl/root.crl", self.root_crl),
            web.post("/ocsp", self.ocsp_post, name="ocsp"),
            web.get("/ocsp/{request:.+}", self.ocsp_get),
        ]

    def renew(self) -> None:
        """Make the next complete CRL afresh, whatever has happened."""
        self._listed = None

    def _revoked(self) -> Revoked:
        return {
            minted.certificate.serial_number: (minted.revoked_at, minted.reason)
            for minted in self._store.certificates()
            if minted.revoked_at is not None
        }

    async def crl(self, request: web.Request) -> web.Response:
        """DER, with an ETag."""
        revoked = self._revoked()
        if self._listed is None or (revoked != self._listed and not self.with_delta):
            self._number += 1
            entries = [(serial, *rest) for serial, rest in revoked.items()]
            self._complete = self._authority.crl(self._number, entries, names_delta=self.with_delta)
            self._complete_number, self._listed = self._number, revoked
        etag = f'"{hashlib.sha256(self._complete).hexdigest()[:32]}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(body=self._complete, content_type="application/pkix-crl", headers={"ETag": etag})

    async def delta(self, _: web.Request) -> web.Response:
        """What has changed since the complete list."""
        if not self.with_delta or self._listed is None:
            raise web.HTTPNotFound(text="no complete CRL that names a delta has been published")
        revoked = self._revoked()
        changed = [(serial, *rest) for serial, rest in revoked.items() if self._listed.get(serial) != rest]
        released = [(s, at, "removeFromCRL") for s, (at, _) in self._listed.items() if s not in revoked]
        self._number += 1
        body = self._authority.crl(self._number, [*changed, *released], base=self._complete_number)
        return web.Response(body=body, content_type="application/pkix-crl")

    async def root_crl(self, _: web.Request) -> web.Response:
        return web.Response(body=self._authority.root_crl(), content_type="application/pkix-crl")

    async def ocsp_post(self, request: web.Request) -> web.Response:
        return self._answer(await request.read())

    async def ocsp_get(self, request: web.Request) -> web.Response:
        """The request in base64 at the end of the path (RFC 6960, A.1)."""
        try:
            return self._answer(base64.b64decode(request.match_info["request"], validate=True))
        except binascii.Error:
            raise web.HTTPBadRequest(text="the path does not end in base64") from None

    def _answer(self, request: bytes) -> web.Response:
        body = self._authority.ocsp(request, self._status_of)
        return web.Response(body=body, content_type="application/ocsp-response")

    def _status_of(self, serial: int) -> tuple[OCSPCertStatus, datetime | None, str | None]:
        minted = self._store.by_serial(serial)
        if minted is None:
            return OCSPCertStatus.UNKNOWN, None, None
        if minted.revoked_at is None:
            return OCSPCertStatus.GOOD, None, None
        return OCSPCertStatus.REVOKED, minted.revoked_at, minted.reason
