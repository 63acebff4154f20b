"""The ports to the hub: its registry (what a service may do) and the link (what a device may do)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa


@dataclass(frozen=True, slots=True)
class HubIdentity:
    """A device identity as GET /devices/{id} answers (iothub.md, Identity)."""

    device_id: str
    etag: str
    generation_id: str
    enabled: bool
    status_reason: str
    authentication_type: str
    """sas, selfSigned or certificateAuthority."""
    primary_thumbprint: str | None
    secondary_thumbprint: str | None
    scope: str
    """deviceScope: of a gateway (iotEdge) its own, of a leaf its gateway's; empty when it has none."""
    parents: tuple[str, ...]
    """parentScopes."""
    raw: Mapping[str, Any] = field(repr=False)
    """The whole document: an update is a full replace and must send all of it back. Of a sas identity it holds the
    symmetric keys, so it is not shown."""


class Registry(Protocol):
    """The hub's device registry. May raise HubUnreachable, HubThrottled, HubRefused, HubRejected, HubConflict,
    RegistrarRefused; the registry is then as it was, or as it would be after success."""

    async def get(self, device_id: str) -> HubIdentity | None: ...

    async def ensure(self, device_id: str, *, parent: str = "", edge: bool = False) -> HubIdentity:
        """Create the identity (certificateAuthority, enabled) when it is missing: as a child of the gateway whose
        scope ``parent`` is, or, with ``edge``, as one that may have children. An existing one is returned as it is:
        never re-enabled, never changed."""

    async def disable(self, device_id: str, reason: str) -> HubIdentity | None:
        """GET, change, PUT the whole identity with If-Match; again on 412. None when there is no such identity;
        nothing is written when it is disabled already (EZCA's own link may have been first)."""


class LinkState(StrEnum):
    OFF = "off"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    REFUSED = "refused"
    """CONNACK 4 or 5, or the TLS handshake was refused."""
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class LinkStatus:
    state: LinkState
    since: datetime
    detail: str = ""
    serial: str | None = None
    """Of the certificate that the link authenticates with."""


@dataclass(frozen=True, slots=True)
class LinkCredential:
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Link(Protocol):
    """The gateway's own MQTT connection to the hub."""

    def status(self) -> LinkStatus: ...

    async def connect(self, credential: LinkCredential) -> None:
        """Connect with this credential in place of the present one: the hub allows one connection a device.

        Returns when CONNACK 0 has come. Raises HubRefused or HubUnreachable; then the link is down and the caller
        decides with which credential to connect again.
        """

    async def close(self) -> None: ...

    async def report(self, properties: Mapping[str, Any]) -> None:
        """Merge into the twin's reported properties; returns when the hub has answered 204."""

    async def send(self, body: Mapping[str, Any], *, message_id: str, kind: str) -> None:
        """One D2C message, JSON in UTF-8, with application property ``type=kind``; returns at PUBACK."""

    async def wait_down(self) -> None:
        """Return when a connection that was up is lost; at once when there is none."""
