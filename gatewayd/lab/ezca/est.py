"""EZCA's EST port: mutual TLS with the current certificate, ``/cacerts`` and ``/simpleenroll`` (RFC 7030).

``/simplereenroll`` is not served: whether EZCA has it is unknown, and its own client renews through ``/simpleenroll``.

Beside it, under the label ``plant``, the same CA as others have it that are asked over EST alone: with
``/simplereenroll``, and with registration authorities, which ask for others (3.7). Those are here the holders of a
server's certificate, that is, gateways; and the same CSR gets the same certificate.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID

from ..serve import server_context
from . import wire
from .authority import Order
from .service import CA_ID, TEMPLATE_ID, Service
from .store import Minted, common_name, thumbprint
from .wire import Refused

PATH = f"/EST/{CA_ID}/{TEMPLATE_ID}/lab/.well-known/est"
PLANT = "/.well-known/est/plant"
_LEAF_DAYS = 30


def est_context(directory: Path) -> ssl.SSLContext:
    """TLS that demands a client certificate of the lab's CA."""
    context = server_context(directory)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(directory / "ca-root.pem")
    # A client may send its certificate alone.
    context.load_verify_locations(directory / "ca-issuing.pem")
    return context


class Est:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._answered: dict[bytes, Minted] = {}
        """By the CSR's DER: what the label ``plant`` has issued."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{PATH}/cacerts", self.cacerts, name="cacerts"),
            web.post(f"{PATH}/simpleenroll", self.simpleenroll, name="simpleenroll"),
            web.get(f"{PLANT}/cacerts", self.cacerts, name="plant.cacerts"),
            web.post(f"{PLANT}/simpleenroll", self.plant, name="plant.simpleenroll"),
            web.post(f"{PLANT}/simplereenroll", self.plant, name="plant.simplereenroll"),
        ]

    async def cacerts(self, request: web.Request) -> web.Response:
        self._holder(request)
        return _certs_only([self._service.authority.issuing, self._service.authority.root])

    async def simpleenroll(self, request: web.Request) -> web.Response:
        current = self._holder(request)
        if request.content_type != "application/pkcs10":
            raise web.HTTPUnsupportedMediaType(text="Content-Type must be application/pkcs10")
        try:
            csr = wire.checked_csr(_decoded(await request.read()))
            minted = self._service.renew(
                current, csr, days=_days(current.certificate), call="simpleenroll", sans_required=False
            )
        except Refused as refusal:
            raise web.HTTPBadRequest(text=str(refusal)) from None
        return _certs_only([minted.certificate])

    async def plant(self, request: web.Request) -> web.Response:
        current = self._holder(request)
        call = str(request.match_info.route.name)
        try:
            csr = wire.checked_csr(_decoded(await request.read()))
            der = csr.public_bytes(serialization.Encoding.DER)
            if der not in self._answered:
                self._answered[der] = self._for_plant(current, csr, call)
        except Refused as refusal:
            raise web.HTTPBadRequest(text=str(refusal)) from None
        return _certs_only([self._answered[der].certificate])

    def _for_plant(self, current: Minted, csr: x509.CertificateSigningRequest, call: str) -> Minted:
        if csr.subject == current.certificate.subject:
            return self._service.renew(
                current, csr, days=_days(current.certificate), call=call, sans_required=call.endswith("simplereenroll")
            )
        if call.endswith("simplereenroll") or ExtendedKeyUsageOID.SERVER_AUTH.dotted_string not in wire.eku_oids(
            current.certificate
        ):
            raise web.HTTPForbidden(text="the certificate is not one of a registration authority")
        name = common_name(csr.subject)
        order = Order(
            subject=csr.subject,
            sans=wire.sans_of(csr.extensions),
            public_key=wire.public_key(csr),
            key_usages=["Digital Signature"],
            ekus=[ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string],
            lifetime=self._service.lifetime_for(_LEAF_DAYS),
        )
        requester = f"certificate {current.thumbprint}"
        return self._service.issue(order, domain=name, requester=requester, call=call, location="EST")

    def _holder(self, request: web.Request) -> Minted:
        assert request.transport is not None
        der = request.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        minted = self._service.store.by_thumbprint(thumbprint(x509.load_der_x509_certificate(der)))
        if minted is None:
            raise web.HTTPForbidden(text="the certificate is not one of this CA's")
        request["caller"] = f"certificate {minted.thumbprint}"
        if minted.revoked_at is not None:
            raise web.HTTPForbidden(text="the certificate is revoked")
        return minted


def _decoded(content: bytes) -> x509.CertificateSigningRequest:
    try:
        return x509.load_der_x509_csr(base64.b64decode(b"".join(content.split()), validate=True))
    except (binascii.Error, ValueError):
        raise Refused("the body is not a base64 PKCS#10 request") from None


def _days(certificate: x509.Certificate) -> int:
    """As long as the current one was issued for, in whole days."""
    return max(1, (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days)


def _certs_only(certificates: Sequence[x509.Certificate]) -> web.Response:
    der = pkcs7.serialize_certificates(list(certificates), serialization.Encoding.DER)
    return web.Response(
        body=base64.b64encode(der) + b"\n",
        headers={
            "Content-Type": "application/pkcs7-mime; smime-type=certs-only",
            "Content-Transfer-Encoding": "base64",
        },
    )
