"""``/api/CA/*`` and ``/api/Audit/*``: what a registrar does with an Entra token."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from cryptography import x509

from . import answers, wire
from .auth import Caller, EntraAuthentication
from .authority import KEY_USAGES, Order
from .service import CA_ID, TEMPLATE_ID, Service
from .store import Domain, Minted, common_name
from .wire import Refused

_THUMBPRINT = re.compile(r"[0-9a-f]{40}")


class Registrar:
    """Handlers; the caller is known by its object id."""

    def __init__(
        self,
        service: Service,
        authentication: EntraAuthentication,
        is_application: Callable[[str], bool],
        page_size: int,
    ) -> None:
        """``is_application``: whether an object id is that of an application in Entra."""
        self._service = service
        self._store = service.store
        self._authentication = authentication
        self._is_application = is_application
        self._page_size = page_size

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/CA/GetAvailableSSLCAs", self.available_cas, name="GetAvailableSSLCAs"),
            web.get("/api/CA/GetSSLCA", self.ssl_ca, name="GetSSLCA"),
            web.get("/api/CA/GetMyCAs", self.my_cas, name="GetMyCAs"),
            web.post("/api/CA/RegisterNewDomain", self.register_domain, name="RegisterNewDomain"),
            web.get("/api/CA/GetMyDomains", self.my_domains, name="GetMyDomains"),
            web.post("/api/CA/RequestSSLCertificate", self.request_v1, name="RequestSSLCertificate"),
            web.post("/api/CA/RequestSSLCertificateV2", self.request_v2, name="RequestSSLCertificateV2"),
            web.post("/api/CA/RevokeCertificateV2", self.revoke, name="RevokeCertificateV2"),
            web.get("/api/CA/GetMyCertificatesV2Paginated", self.certificates, name="GetMyCertificatesV2Paginated"),
            web.post("/api/Audit/GetCertLogs", self.audit, name="GetCertLogs"),
        ]

    def _caller(self, request: web.Request) -> Caller:
        caller = self._authentication.caller(request)
        request["caller"] = caller.name
        return caller

    async def available_cas(self, request: web.Request) -> web.Response:
        self._caller(request)
        return web.json_response([answers.CA])

    async def ssl_ca(self, request: web.Request) -> web.Response:
        self._caller(request)
        return web.json_response([answers.CA] if request.query.get("caID", "").lower() == CA_ID else [])

    async def my_cas(self, request: web.Request) -> web.Response:
        self._caller(request)
        return wire.wrapped(json.dumps([answers.CA]))

    async def register_domain(self, request: web.Request) -> web.Response:
        self._caller(request)
        document = await wire.body(request)
        try:
            _check_ca(document)
            domain = self._new_domain(document)
            self._store.add_domain(domain)
        except (Refused, ValueError) as error:
            return wire.wrapped(str(error), success=False)
        return wire.wrapped(f"domain {domain.name} is registered")

    def _new_domain(self, document: dict[str, Any]) -> Domain:
        name = wire.field(document, "Domain", str)
        owners = _people(document, "Owners")
        if not name or not owners:
            raise Refused("a domain needs a name and an owner")
        for owner in owners:
            if owner.get("ObjectType") != "User" or self._is_application(owner["ObjectId"]):
                raise Refused(f"{owner['ObjectId']} cannot own a domain: owners must be people or groups")
        return Domain(
            name=name,
            domain_id=str(uuid.uuid4()),
            owners=owners,
            requesters=_people(document, "Requesters"),
            requesters_only=_people(document, "RequestersOnly"),
            notification_emails=wire.strings(document, "NotificationEmails"),
        )

    async def my_domains(self, request: web.Request) -> web.Response:
        caller = self._caller(request)
        mine = [answers.domain_item(domain, caller) for domain in self._my_domains(caller)]
        return wire.wrapped(json.dumps(mine))

    def _my_domains(self, caller: Caller) -> Iterable[Domain]:
        return (domain for domain in self._store.domains() if domain.admits(caller.object_id))

    async def request_v1(self, request: web.Request) -> web.Response:
        try:
            minted = await self._issue(request, wire.plain_sans)
        except Refused as refusal:
            return wire.wrapped(str(refusal), success=False)
        return wire.wrapped(minted.pem)

    async def request_v2(self, request: web.Request) -> web.Response:
        try:
            minted = await self._issue(request, wire.typed_sans)
        except Refused as refusal:
            return wire.wrapped(str(refusal), success=False)
        return answers.chain(self._service, minted)

    async def _issue(self, request: web.Request, read_sans: Callable[[list[Any]], list[x509.GeneralName]]) -> Minted:
        caller = self._caller(request)
        document = await wire.body(request)
        _check_ca(document)
        subject = wire.subject(wire.field(document, "SubjectName", str))
        domain = self._permitted(common_name(subject), caller)
        usages = wire.strings(document, "KeyUsages")
        if unknown := [usage for usage in usages if usage not in KEY_USAGES]:
            raise Refused(f"KeyUsages {unknown[0]!r} is not known")
        order = Order(
            subject=subject,
            sans=read_sans(wire.field(document, "SubjectAltNames", list)),
            public_key=wire.public_key(wire.csr(wire.field(document, "CSR", str))),
            key_usages=usages,
            ekus=wire.ekus(wire.strings(document, "EKUs")),
            lifetime=self._service.lifetime_for(wire.field(document, "ValidityInDays", int)),
        )
        call = request.match_info.route.name or ""
        location = wire.field(document, "SelectedLocation", str)
        return self._service.issue(order, domain=domain.name, requester=caller.name, call=call, location=location)

    def _permitted(self, name: str, caller: Caller) -> Domain:
        domain = self._store.domain(name)
        if domain is None:
            raise Refused(f"domain {name} is not registered")
        if not domain.admits(caller.object_id):
            raise Refused(f"the caller is neither owner nor requester of domain {name}")
        return domain

    async def revoke(self, request: web.Request) -> web.Response:
        caller = self._caller(request)
        document = await wire.body(request)
        try:
            _check_ca(document)
            thumbprint = wire.field(document, "Thumbprint", str)
            if not _THUMBPRINT.fullmatch(thumbprint):
                raise Refused("Thumbprint must be SHA-1 in 40 lower-case hexadecimal digits")
            minted = self._store.by_thumbprint(thumbprint)
            if minted is None:
                raise Refused("no certificate has this thumbprint")
            self._permitted(minted.domain, caller)
            self._service.revoke(minted, caller.name)
        except Refused as refusal:
            return wire.wrapped(str(refusal), success=False)
        return wire.wrapped("the certificate is revoked")

    async def certificates(self, request: web.Request) -> web.Response:
        caller = self._caller(request)
        number = request.query.get("pageNumber", "")
        if not number.isdecimal():
            raise web.HTTPBadRequest(text="pageNumber must be a whole number from 0")
        names = [domain.name for domain in self._my_domains(caller)]
        page = self._store.page(names, int(number), self._page_size)
        return web.json_response([answers.certificate_item(minted) for minted in page])

    async def audit(self, request: web.Request) -> web.Response:
        caller = self._caller(request)
        document = await wire.body(request)
        earliest, latest = _moment(document, "DateFrom"), _moment(document, "DateTo")
        size = wire.field(document, "MaxNumberOfRecords", int)
        skip = wire.field(document, "PageNumber", int) * size
        if size < 1 or skip < 0:
            raise web.HTTPBadRequest(text="MaxNumberOfRecords must be at least 1 and PageNumber at least 0")
        domains = {domain.name: domain for domain in self._my_domains(caller)}
        entries = [
            answers.audit_entry(minted, domains[minted.domain])
            for minted in self._store.certificates()
            if minted.domain in domains and earliest <= minted.requested_at <= latest
        ]
        return web.json_response(entries[skip : skip + size])


def _check_ca(document: dict[str, Any]) -> None:
    wanted = wire.field(document, "CAID", str), wire.field(document, "TemplateID", str)
    if tuple(each.lower() for each in wanted) != (CA_ID, TEMPLATE_ID):
        raise Refused("no such CA and template")


def _people(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    people = wire.field(document, name, list)
    for person in people:
        # The service reads isValid by its lower-case name; another spelling leaves the entry invalid.
        if not isinstance(person, dict) or not person.get("ObjectId") or person.get("isValid") is not True:
            raise Refused(f"{name} holds an entry that is not valid")
    return people


def _moment(document: dict[str, Any], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(wire.field(document, name, str))
    except ValueError:
        raise web.HTTPBadRequest(text=f"{name} is not a date") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
