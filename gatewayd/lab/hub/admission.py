"""Whether a CONNECT is let in: everything the hub looks at, and what it does not. Pure.

It looks at the client id, the username, the identity's status and, by authentication mode, at the certificate: in CA
mode at its chain, its CN and its expiry; in ``selfSigned`` mode at its thumbprint and its expiry. **It never looks at
revocation.** A revoked certificate that has not expired is as good as any other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError

from .identity import Identity

ACCEPTED: Final = 0
REFUSED: Final = 5
"""CONNACK 'not authorized': the one answer to every failure; why is only in the hub's own log."""

_USERNAME: Final = re.compile(r"(?P<host>[^/]+)/(?P<device>[^/]+)/\?(?P<query>.+)")


@dataclass(frozen=True, slots=True)
class Verdict:
    code: int
    reason: str


def parse_username(username: str | None) -> tuple[str, str] | None:
    """(host, device id) of ``{host}/{deviceId}/?api-version=…``; None if it is not of that form."""
    matched = _USERNAME.fullmatch(username or "")
    if not matched or not any(part.startswith("api-version=") for part in matched["query"].split("&")):
        return None
    return matched["host"].partition(":")[0].lower(), matched["device"]


def decide(
    client_id: str,
    username: str | None,
    certificate: x509.Certificate | None,
    identity: Identity | None,
    hosts: frozenset[str],
    authorities: list[x509.Certificate],
    now: datetime,
) -> Verdict:
    """``identity`` is that of ``client_id`` in the registry; ``authorities`` are the CAs registered with the hub."""
    names = parse_username(username)
    if names is None or names[1] != client_id:
        return _refuse("the username is not {host}/{deviceId}/?api-version=… of this client id")
    if names[0] not in hosts:
        return _refuse(f"the username names another hub, {names[0]}")
    if identity is None:
        return _refuse("no such device")
    if identity["status"] != "enabled":
        return _refuse("the device is disabled")
    if certificate is None:
        return _refuse("no client certificate")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        return _refuse("the certificate is expired or not yet valid")
    match identity["authentication"]["type"]:
        case "certificateAuthority":
            return _by_authority(client_id, certificate, authorities, now)
        case "selfSigned":
            return _by_thumbprint(certificate, identity)
        case other:
            return _refuse(f"the device authenticates with {other}, not with X.509")


def thumbprints(certificate: x509.Certificate) -> tuple[str, str]:
    """SHA-1 and SHA-256, lower-case hex."""
    return certificate.fingerprint(hashes.SHA1()).hex(), certificate.fingerprint(hashes.SHA256()).hex()


def _refuse(reason: str) -> Verdict:
    return Verdict(REFUSED, reason)


def _by_authority(
    device_id: str, certificate: x509.Certificate, authorities: list[x509.Certificate], now: datetime
) -> Verdict:
    names = [attribute.value for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [device_id]:
        return _refuse(f"the certificate's CN is {names}, not the device id")
    # Of the leaf only the signature and the validity count: the hub is not known to look at its extensions.
    verifier = (
        PolicyBuilder()
        .store(Store(authorities))
        .time(now)
        .extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        verifier.verify(certificate, [])
    except VerificationError:
        return _refuse("the certificate does not chain to a CA registered with the hub")
    return Verdict(ACCEPTED, "certificate chain and CN")


def _by_thumbprint(certificate: x509.Certificate, identity: Identity) -> Verdict:
    slots = identity["authentication"]["x509Thumbprint"].values()
    if {slot.lower() for slot in slots if slot}.isdisjoint(thumbprints(certificate)):
        return _refuse("the certificate's thumbprint is in neither slot")
    return Verdict(ACCEPTED, "thumbprint")
