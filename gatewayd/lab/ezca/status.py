"""Revocation status in public: the CRL and OCSP, over HTTP and HTTPS alike."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

from aiohttp import web
from cryptography.x509.ocsp import OCSPCertStatus

from .service import Service


class Status:
    def __init__(self, service: Service) -> None:
        self._authority = service.authority
        self._store = service.store

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/crl/issuing.crl", self.crl, name="crl"),
            web.post("/ocsp", self.ocsp_post, name="ocsp"),
            web.get("/ocsp/{request:.+}", self.ocsp_get),
        ]

    async def crl(self, _: web.Request) -> web.Response:
        """DER, made afresh for each request; its number grows with each revocation."""
        revoked = [
            (minted.certificate.serial_number, minted.revoked_at)
            for minted in self._store.certificates()
            if minted.revoked_at is not None
        ]
        body = self._authority.crl(len(revoked) + 1, revoked)
        return web.Response(body=body, content_type="application/pkix-crl")

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

    def _status_of(self, serial: int) -> tuple[OCSPCertStatus, datetime | None]:
        minted = self._store.by_serial(serial)
        if minted is None:
            return OCSPCertStatus.UNKNOWN, None
        if minted.revoked_at is None:
            return OCSPCertStatus.GOOD, None
        return OCSPCertStatus.REVOKED, minted.revoked_at
