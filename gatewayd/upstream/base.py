"""The ports to the hub: its registry (what a service may do) and the link (what a device may do)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
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
    """deviceScope: of a gateway its own, of a leaf its gateway's; empty when it has none."""
    is_gateway: bool
    """iotEdge: only such an identity may have children."""
    parents: tuple[str, ...]
    """parentScopes."""
    raw: Mapping[str, Any] = field(repr=False)
    """The whole document: an update is a full replace and must send all of it back. Of a sas identity it holds the
    symmetric keys, so it is not shown."""

    @property
    def own_scope(self) -> str:
        """What its children name as their parent; empty for a leaf, whose scope is another's."""
        return self.scope if self.is_gateway else ""

    @property
    def pinned_to(self) -> frozenset[str] | None:
        """The thumbprints that are let in, in lower case; None unless it goes by thumbprint."""
        if self.authentication_type != "selfSigned":
            return None
        return frozenset(each.lower() for each in (self.primary_thumbprint, self.secondary_thumbprint) if each)

    def is_pinned(self, pin: Pinning) -> bool:
        return self.pinned_to == pin.thumbprints and (self.enabled or not pin.enable)

    def lets_in(self, thumbprint: str | None) -> bool:
        """Whether it may let in a certificate of its name with this SHA-256 thumbprint; True where that cannot be
        told."""
        if not self.enabled:
            return False
        pins = self.pinned_to
        if pins is None or thumbprint is None:
            return True
        return thumbprint in pins or any(len(each) != len(thumbprint) for each in pins)


class Registry(Protocol):
    """The hub's device registry. May raise HubUnreachable, HubThrottled, HubRefused, HubRejected, HubConflict,
    RegistrarRefused; the registry is then as it was, or as it would be after success."""

    async def get(self, device_id: str) -> HubIdentity | None: ...

    async def ensure(self, device_id: str, *, parent: str = "", edge: bool = False) -> HubIdentity:
        """Create the identity (certificateAuthority, enabled) when it is missing: as a child of the gateway whose
        scope ``parent`` is, or, with ``edge``, as one that may have children. An existing one is returned as it is:
        never re-enabled, never changed."""

    async def disable(self, device_id: str, reason: str, thumbprint: str | None = None) -> HubIdentity | None:
        """GET, change, PUT the whole identity with If-Match; again on 412. None when there is no such identity;
        nothing is written when it is disabled already (EZCA's own link may have been first), or pinned to other
        certificates than the one with this ``thumbprint``."""

    async def pin(self, pin: Pinning, *, parent: str = "") -> HubIdentity | None:
        """Authentication ``selfSigned`` with these thumbprints, and with ``enable`` status enabled, in one conditional
        write; again on 412. Without ``enable`` the status stays as it is. Nothing is written when it is so already.
        A missing identity is created with ``enable``, as a child of ``parent``; without, None is returned."""

    async def unpin(self, device_id: str, ours: Collection[str]) -> HubIdentity | None:
        """Back to ``certificateAuthority``, the status as it is, when the identity is pinned to nothing but
        thumbprints in ``ours``. Any other is returned as it is; None when there is no such identity."""


@dataclass(frozen=True, slots=True)
class Order:
    """One revoked certificate that the hub must not let in any more."""

    device_id: str
    serial: str
    reason: str
    """CRLReason by its name."""
    known_at: datetime
    attempts: int
    """How often this was attempted before."""
    report: Mapping[str, Any]
    """What the hub is told about it (``report.revocation_report``)."""
    own_end: bool = False
    """Whether the gateway itself goes with it, and so can neither be answered nor look any more."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """It has been asked for and has not come true yet: no failure, but to be looked at again."""

    seconds: float
    words: str


@dataclass(frozen=True, slots=True)
class Pinning:
    """Which certificates of a device the hub is to let in, whatever else its CA has signed for that name."""

    device_id: str
    serial: str
    """Of the certificate for whose sake it is done."""
    primary: str
    secondary: str
    """SHA-256 thumbprints, hex in lower case."""
    enable: bool
    """Whether the identity is to be enabled with it, in the same write."""
    certificate: bytes = b""
    """DER of the certificate for whose sake it is done, and"""
    replaced: tuple[bytes, ...] = ()
    """DER of the revoked ones that it shuts out: what a gateway has to show that asks for a pin of its own."""

    @property
    def thumbprints(self) -> frozenset[str]:
        return frozenset((self.primary, self.secondary))


class Way(Protocol):
    """One way to have a device's identity in the hub created, disabled and pinned, and to prove it.

    Every method is idempotent, beside others who do the same as well. It may raise HubUnreachable, HubThrottled,
    HubRefused, HubRejected, HubConflict, RegistrarRefused, ResponderRefused, ResponderSilent; it is then as it was, or
    as it would be after success.
    """

    reports_first: bool
    """Whether the D2C report is what gets the device disabled, and so comes before."""

    def shuts_by_pin(self, device_id: str) -> bool:
        """Whether its old hardware cannot be shut out before the new one is let in, but only in the same write: of the
        gateway itself, where what is to be done has to be said over its own link."""

    async def ensure(self, device_id: str, serial: str) -> None:
        """For its certificate ``serial``: the identity exists and is enabled, a leaf's as a child of the gateway's. It
        is created when it is missing. Raises HubRefused for one that is disabled: it is never enabled here."""

    async def disable(self, order: Order) -> str | Waiting:
        """Returns the evidence, such as an etag, once the certificate is shut out."""

    async def verify(self, order: Order) -> str | Waiting:
        """Evidence by looking at the identity itself. Raises HubRejected when it is enabled."""

    async def keep_out(self, device_id: str, reason: str) -> str:
        """Before new hardware comes: the identity is disabled now, whoever may have enabled it since its certificates
        were revoked. Returns the evidence."""

    async def pin(self, pin: Pinning) -> str:
        """Returns the evidence, read back."""

    async def check_pin(self, device_id: str, ours: frozenset[str]) -> None:
        """Look, and change nothing. Raises PinLost when the identity is not pinned, or to others than ``ours``."""

    async def unpin(self, device_id: str, ours: frozenset[str]) -> str:
        """Let in any certificate of its CA again, unless it is pinned to others than ``ours``. Returns the evidence,
        read back."""


@dataclass(frozen=True, slots=True)
class MethodAnswer:
    """What a direct method answers: a status as HTTP has them, and a JSON value."""

    status: int
    payload: Any


OnDesired = Callable[[Mapping[str, Any]], None]
OnMethod = Callable[[str, Any], Awaitable[MethodAnswer]]
"""``on_method(name, payload)``. Does not raise."""


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

    def listen(self, on_desired: OnDesired, on_method: OnMethod) -> None:
        """What to call, on the event loop, with desired properties and direct methods, from the next connect on.
        After each connect ``on_desired`` gets the whole section first, so that nothing said meanwhile is missed; then
        each patch, in order. A patch may come twice."""

    async def wait_down(self) -> None:
        """Return when a connection that was up is lost; at once when there is none."""
