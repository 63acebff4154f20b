"""``/api/Certificates/*``: what a certificate's holder does with a JWT signed by its key."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from cryptography import x509

from . import answers, wire
from .auth import HolderAuthentication, refuse
from .service import Service
from .store import Minted, thumbprint
from .wire import Refused


class Holder:
    """Handlers. A refusal comes in each version's own form, so that a client meets all of them."""

    def __init__(self, service: Service, authentication: HolderAuthentication) -> None:
        self._service = service
        self._authentication = authentication

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/Certificates/RenewCertificate", self.renew_v1, name="RenewCertificate"),
            web.post("/api/Certificates/RenewCertificateV2", self.renew_v2, name="RenewCertificateV2"),
            web.post("/api/Certificates/RenewCertificateV3", self.renew_v3, name="RenewCertificateV3"),
            web.get("/api/Certificates/RevokeCertificate", self.revoke, name="RevokeCertificate"),
        ]

    def _holder(self, request: web.Request) -> Minted:
        minted = self._authentication.holder(request)
        request["caller"] = f"certificate {minted.thumbprint}"
        return minted

    async def renew_v1(self, request: web.Request) -> web.Response:
        current = self._holder(request)
        document = await wire.body(request)
        try:
            minted = self._renew(current, document, "RenewCertificate")
        except Refused as refusal:
            return wire.wrapped(str(refusal), success=False)
        return wire.wrapped(minted.pem)

    async def renew_v2(self, request: web.Request) -> web.Response:
        current = self._holder(request)
        document = await wire.body(request)
        try:
            minted = self._renew(current, _payload(document, current), "RenewCertificateV2")
        except Refused as refusal:
            return wire.error_text(str(refusal))
        return web.Response(text=minted.pem)

    async def renew_v3(self, request: web.Request) -> web.Response:
        current = self._holder(request)
        document = await wire.body(request)
        try:
            minted = self._renew(current, _payload(document, current), "RenewCertificateV3")
        except Refused as refusal:
            return web.Response(status=400, text=str(refusal))
        return answers.chain(self._service, minted)

    def _renew(self, current: Minted, document: dict[str, Any], call: str) -> Minted:
        csr = wire.csr(wire.field(document, "CSR", str))
        return self._service.renew(current, csr, days=wire.field(document, "ValidityInDays", int), call=call)

    async def revoke(self, request: web.Request) -> web.Response:
        minted = self._holder(request)
        try:
            self._service.revoke(minted, f"certificate {minted.thumbprint}")
        except Refused as refusal:
            return wire.wrapped(str(refusal), success=False)
        return wire.wrapped("the certificate is revoked")


def _payload(document: dict[str, Any], current: Minted) -> dict[str, Any]:
    """V2's and V3's body: the current certificate and, beside it, what V1 sends."""
    try:
        named = x509.load_pem_x509_certificate(wire.field(document, "Certificate", str).encode())
    except ValueError:
        raise web.HTTPBadRequest(text="Certificate is not PEM") from None
    if thumbprint(named) != current.thumbprint:
        raise refuse("Certificate is not the one that signed the JWT")
    return wire.field(document, "Payload", dict)
