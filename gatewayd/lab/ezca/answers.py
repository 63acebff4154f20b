"""The objects that EZCA's answers hold, under the names of the wire (ezca.md)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ..entra_directory import TENANT_ID
from . import wire
from .auth import Caller
from .service import CA_ID, CA_NAME, MAX_CERT_LIFE_DAYS, TEMPLATE_ID, Service
from .store import Domain, Minted

CA = {
    "CAID": CA_ID,
    "TemplateID": TEMPLATE_ID,
    "CAFriendlyName": CA_NAME,
    "CATemplateType": "SSL Template",
    "KeyUsage": "Digital Signature, Key Encipherment",
    "DomainRestrictions": "",
    "CAKeyType": "ECDSA P256",
    "CAHashing": "SHA256",
    "MaxCertLifeDays": MAX_CERT_LIFE_DAYS,
    "CAType": "PrivateCA",
    "CATier": "SubordinateCA",
}
"""The one CA with its one template (ezca.md, CA+template)."""


def chain(service: Service, minted: Minted) -> web.Response:
    """The bare object of RequestSSLCertificateV2 and RenewCertificateV3."""
    return web.json_response(
        {
            "CertificatePEM": minted.pem,
            "IssuingCACertificate": wire.pem(service.authority.issuing),
            "RootCertificate": wire.pem(service.authority.root),
        }
    )


def domain_item(domain: Domain, caller: Caller) -> dict[str, Any]:
    return {
        "CAID": CA_ID,
        "TemplateID": TEMPLATE_ID,
        "DomainID": domain.domain_id,
        "Domain": domain.name,
        "CAFriendlyName": CA_NAME,
        "IsOwner": domain.is_owner(caller.object_id),
        "IsRequester": domain.is_requester(caller.object_id),
        "Owners": domain.owners,
        "Requesters": domain.requesters,
        "RequestersOnly": domain.requesters_only,
        "NotificationEmails": domain.notification_emails,
    }


def certificate_item(minted: Minted) -> dict[str, Any]:
    certificate = minted.certificate
    length = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return {
        "CertificatePEM": minted.pem,
        # Upper-case as .NET writes it; a revocation wants it lower-case.
        "Thumbprint": minted.thumbprint.upper(),
        "CAID": CA_ID,
        "SubjectName": certificate.subject.rfc4514_string(),
        "TemplateID": TEMPLATE_ID,
        "Revoked": minted.revoked_at is not None,
        "SubjectAlternateNames": [wire.typed(name) for name in wire.sans_of(certificate.extensions)],
        "KeyUsages": wire.key_usage_names(certificate),
        "EKUs": wire.eku_oids(certificate),
        "DateRequested": wire.timestamp(minted.requested_at),
        "ExpiryDate": wire.timestamp(certificate.not_valid_after_utc),
        "CertLocationType": minted.location,
        "CertLocation": "",
        "CAFriendlyName": CA_NAME,
        "CertNameAtLocation": "",
        "AutoRenew": False,
        "AutoRenewPercentage": 80,
        "CertLengthDays": length.days,
        "CertAppID": "",
        "CertificateTags": "",
        "CanRevoke": minted.revoked_at is None,
    }


def audit_entry(minted: Minted, domain: Domain) -> dict[str, Any]:
    return {
        "TenantID": TENANT_ID,
        "CAID": CA_ID,
        "DateRequested": wire.timestamp(minted.requested_at),
        "Domain": domain.name,
        "DomainID": domain.domain_id,
        "Thumbprint": minted.thumbprint.upper(),
        "TemplateID": TEMPLATE_ID,
        "CertificatePEM": minted.pem,
        "SubID": "",
        "Requester": minted.requester,
        "CAFriendlyName": CA_NAME,
        "CertLocationType": minted.location,
        "CertLocation": "",
        "CertNameAtLocation": "",
        "Action": minted.call,
    }
