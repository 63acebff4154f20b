"""What EZCA does, whoever asks: issue, renew, revoke; one account of it for all the ways in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from cryptography import x509

from . import wire
from .authority import Authority, Order
from .store import Minted, Store
from .wire import Refused

CA_ID = "5c1d7a52-3f0e-4b56-9d2f-6a3c8e0b7a11"
TEMPLATE_ID = "8e2b4f90-7c1a-4d3e-b5a6-2f9d0c4e6b22"
CA_NAME = "Lab Device Issuing CA"
MAX_CERT_LIFE_DAYS = 365

Link = Callable[[str], Awaitable[None]]
"""Told the CN of each certificate that is revoked."""


class Service:
    """The CA's business rules. Raises wire.Refused."""

    def __init__(self, authority: Authority, store: Store, link: Link | None) -> None:
        self.authority = authority
        self.store = store
        self.lifetime: timedelta | None = None
        """The lab's override: a real CA counts in days, and a trial cannot wait that long."""
        self._link = link
        self._links: set[asyncio.Task[None]] = set()

    def issue(self, order: Order, *, domain: str, requester: str, call: str, location: str) -> Minted:
        certificate = self.authority.mint(order)
        return self.store.add(certificate, domain=domain, requester=requester, call=call, location=location)

    def lifetime_for(self, days: int) -> timedelta:
        """Raises Refused for less than a day."""
        if days < 1:
            raise Refused("ValidityInDays must be at least 1")
        return self.lifetime or timedelta(days=min(days, MAX_CERT_LIFE_DAYS))

    def renew(
        self, current: Minted, csr: x509.CertificateSigningRequest, *, days: int, call: str, sans_required: bool = True
    ) -> Minted:
        """The holder's renewal: subject and SANs as before, whatever the CSR would like; it is refused if it differs.

        ``sans_required`` False: a CSR without any SAN is taken as well.
        """
        certificate = current.certificate
        sans = wire.sans_of(certificate.extensions)
        wanted = wire.sans_of(csr.extensions)
        if csr.subject != certificate.subject:
            raise Refused("the CSR's subject differs from the certificate's")
        if set(wanted) != set(sans) and (wanted or sans_required):
            raise Refused("the CSR's subject alternative names differ from the certificate's")
        order = Order(
            subject=certificate.subject,
            sans=sans,
            public_key=wire.public_key(csr),
            key_usages=wire.key_usage_names(certificate),
            ekus=wire.eku_oids(certificate),
            lifetime=self.lifetime_for(days),
        )
        requester = f"certificate {current.thumbprint}"
        return self.issue(order, domain=current.domain, requester=requester, call=call, location=current.location)

    def revoke(self, minted: Minted, by: str) -> None:
        """Raises Refused when it is revoked already. The hub learns of it a little later, as through EZCA's link."""
        if minted.revoked_at is not None:
            raise Refused("the certificate is already revoked")
        self.store.revoke(minted.thumbprint, by)
        if self._link is not None:
            task = asyncio.ensure_future(self._link(minted.common_name))
            self._links.add(task)
            task.add_done_callback(self._links.discard)
