"""The nouns. Values only: frozen, comparable, without behaviour that needs the world.

Times are timezone-aware UTC ``datetime``s. Certificates, CSRs and public keys are DER ``bytes``:
the core names them and compares them but does not read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class DeviceKind(StrEnum):
    GATEWAY = "gateway"
    LEAF = "leaf"


class DeviceState(StrEnum):
    ACTIVE = "active"
    REPLACING = "replacing"
    """Its old certificates are revoked for good; new hardware may enroll under its id, with a code."""
    REVOKED = "revoked"
    """Refused here: it may neither enroll nor renew. Only a replacement of its hardware leads out of it."""


class KeyAlgorithm(StrEnum):
    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"

    @property
    def is_rsa(self) -> bool:
        return self in (KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_3072)


class SanKind(StrEnum):
    """GeneralName choices that gatewayd deals in (RFC 5280, 4.2.1.6)."""

    EMAIL = "email"
    DNS = "dns"
    URI = "uri"
    IP = "ip"


@dataclass(frozen=True, slots=True, order=True)
class San:
    kind: SanKind
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    @classmethod
    def parse(cls, text: str) -> San:
        """``dns:gw.example`` → San. Raises ValueError."""
        kind, colon, value = text.partition(":")
        if not colon or not value:
            raise ValueError(f"{text!r} is not of the form kind:value, such as dns:{text or 'name'}")
        try:
            return cls(SanKind(kind), value)
        except ValueError:
            kinds = ", ".join(SanKind)
            raise ValueError(f"{kind!r} is not a kind of subject alternative name ({kinds})") from None


class RevocationReason(StrEnum):
    """CRLReason (RFC 5280, 5.3.1), less removeFromCRL and certificateHold, which end nothing."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


@dataclass(frozen=True, slots=True)
class KeyRef:
    """A private key in the token, by its CKA_ID."""

    id: bytes
    algorithm: KeyAlgorithm


class IdentitySource(StrEnum):
    """Where a manufacturer's certificate says which piece of hardware it belongs to."""

    SERIAL_NUMBER = "serial-number"
    """The subject's serialNumber (IEEE 802.1AR, 8.6)."""
    COMMON_NAME = "common-name"
    HARDWARE_MODULE = "hardware-module"
    """hwSerialNum of the hardwareModuleName in its alternative names (RFC 4108, 5)."""


class ManufacturerUse(StrEnum):
    """What a manufacturer's certificate is good for."""

    ENROLL = "enroll"
    """The first certificate of a device, or of its new hardware."""
    EXPIRED = "re-enroll-expired"
    """A new one for a device whose certificate is over."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The hardware that a device is, by its manufacturer's certificate."""

    manufacturer: str
    """Its name in [[manufacturers]]."""
    serial: str
    void: bool = False
    """Whether it counts no more: the device was revoked since. Only an administrator binds again."""


@dataclass(frozen=True, slots=True)
class Device:
    """An identity in the hub."""

    device_id: str
    kind: DeviceKind
    created_at: datetime
    sans: tuple[San, ...] = ()
    """The names that its certificate may carry beside the CN."""
    state: DeviceState = DeviceState.ACTIVE
    current: int | None = None
    """The live credential's generation: the one pointer that a switch flips."""
    in_hub: bool = False
    """Whether the identity was seen in the hub's registry."""
    revocation_reason: RevocationReason | None = None
    """Why, once it is revoked: also of a certificate that turns up only afterwards."""
    binding: Binding | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides how a device is shown."""

    state: DeviceState
    has_certificate: bool
    valid: bool
    """Whether that one has not expired."""
    under_way: bool
    """Whether its first one is."""


class CredentialState(StrEnum):
    """Where a credential stands; core.lifecycle holds the legal moves."""

    WANTED = "wanted"
    KEYING = "keying"
    KEYED = "keyed"
    REQUESTING = "requesting"
    PENDING = "pending"
    BLOCKED = "blocked"
    ISSUED = "issued"
    ACCEPTING = "accepting"
    CURRENT = "current"
    PREVIOUS = "previous"
    RETIRED = "retired"
    REJECTED = "rejected"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Credential:
    """One key and one certificate of a device; a generation is never overwritten."""

    device_id: str
    generation: int
    state: CredentialState
    created_at: datetime
    updated_at: datetime
    key: KeyRef | None = None
    """The gateway's key in the token; None for a leaf, whose key only the leaf has."""
    csr: bytes | None = None
    public_key_sha256: str | None = None
    """Hex SHA-256 of the SubjectPublicKeyInfo that the certificate is to carry."""
    certificate: bytes | None = None
    chain: tuple[bytes, ...] = ()
    serial: str | None = None
    """Hex, lower-case, no leading zeros."""
    thumbprint: str | None = None
    """Hex SHA-256 of the certificate, lower-case."""
    not_before: datetime | None = None
    not_after: datetime | None = None
    renew_at: datetime | None = None
    deadline: datetime | None = None
    """When the leaf's certificate that this one is to replace expires; None when there is none, and for the gateway's
    own: such a credential does not wait for its turn at the CA."""
    attempts: int = 0
    """Failed attempts at the present step; 0 again after a success."""
    next_attempt_at: datetime | None = None
    last_error: str | None = None
    """``Name: sentence`` of the latest failure of the present step."""


@dataclass(frozen=True, slots=True)
class EnrollmentCode:
    """A one-time code; only its hash exists here."""

    code_hash: str
    device_id: str
    created_at: datetime
    expires_at: datetime
    used_by: str | None = None
    """Hex SHA-256 of the public key whose request consumed it: that key may ask again, no other may. Not of the CSR:
    a client that signs anew when it tries again sends other bytes."""


class UpstreamWay(StrEnum):
    """How the hub comes to shut a revoked device out."""

    REPORT = "report"
    """The gateway reports; a responder in the cloud disables and answers. The gateway has no rights on the hub."""
    REGISTRY = "registry"
    """The gateway disables in the hub's registry, with its Entra application."""
    CA = "ca"
    """The CA's own link to the hub disables."""


class Milestone(StrEnum):
    """What has to come true for a revocation to be closed, in canonical order."""

    REFUSED_HERE = "refused-here"
    REVOKED_AT_CA = "revoked-at-ca"
    REPORTED = "reported"
    DISABLED = "disabled"
    VERIFIED = "verified"


class RevocationScope(StrEnum):
    """How far a revocation goes."""

    DEVICE = "device"
    CERTIFICATE = "certificate"
    """A superseded certificate that the CA has revoked: its device goes on with a later one and is not disabled."""


@dataclass(frozen=True, slots=True)
class MilestoneProgress:
    done_at: datetime | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    last_error: str | None = None
    evidence: str | None = None
    """What proves it: an etag, the CA's words, a message id."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """One revoked certificate on its way to *verified*; keyed by (device, serial)."""

    device_id: str
    serial: str
    reason: RevocationReason
    origin: str
    """Who made it known: ``uid:1000``, ``ca-list``, ``crl``…"""
    known_at: datetime
    progress: dict[Milestone, MilestoneProgress] = field(default_factory=dict)
    scope: RevocationScope = RevocationScope.DEVICE


class ReplacementState(StrEnum):
    """Where a hardware swap stands; core.replacement holds the legal moves."""

    CLOSING = "closing"
    AWAITING = "awaiting"
    PINNING = "pinning"
    PINNED = "pinned"
    LIFTING = "lifting"
    LIFTED = "lifted"
    CANCELLED = "cancelled"
    OVERTAKEN = "overtaken"


@dataclass(frozen=True, slots=True)
class Replacement:
    """New hardware under an old device id, and the pin that keeps the old certificates out of the hub."""

    device_id: str
    number: int
    """1 for the device's first."""
    state: ReplacementState
    reason: RevocationReason
    """Why the old certificates were revoked."""
    origin: str
    """Who ordered it: ``uid:1000``."""
    last_old: int
    """Generations up to this one belong to the old hardware."""
    started_at: datetime
    """When the old certificates were given up and the code was made."""
    shut_at: datetime | None = None
    """When the old certificates were revoked at the CA and the id was read back as disabled."""
    certificate_at: datetime | None = None
    """When the new hardware's certificate was there."""
    pinned_at: datetime | None = None
    lift_at: datetime | None = None
    """When the pin may go: the last revoked certificate of this name has expired by then."""
    ended_at: datetime | None = None
    attempts: int = 0
    """Failed attempts to lift the pin."""
    next_attempt_at: datetime | None = None
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What happened, to whom, by whom, how it went: the history that status shows."""

    at: datetime
    device_id: str | None
    who: str
    what: str
    outcome: str
    detail: str = ""
    seq: int = 0
    """Given by the store."""
    serial: str | None = field(default=None, compare=False)
    """Of the certificate concerned, for whoever is told of it now; not kept: the detail says what is to be."""


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """Something to tell the hub, kept until the hub has taken it."""

    key: str
    """Deduplicates: the same key is sent once."""
    kind: str
    payload: str
    """JSON."""
    created_at: datetime
    attempts: int = 0
    next_attempt_at: datetime | None = None
    last_error: str | None = None
    sent_at: datetime | None = None
