"""Who may enroll as what. Values in, a decision out.

A leaf proves itself by its present certificate, by a one-time code, or by its manufacturer's certificate. That last one
speaks for a piece of hardware, and so for the device that an administrator, or a first enrollment with a code, has
bound to it. A revocation ends the binding: a stolen device does not come back by it.

The scope is enforced here whatever the CA would allow (an RA that passes a wish on unchecked lets a client escape
its restriction): a leaf gets exactly its own device id as CN and only the names its record allows. A request that
asks for more is refused, not trimmed in silence; one that asks for less is fine, for the record decides.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from .model import Binding, Credential, Device, DeviceKind, DeviceState, EnrollmentCode, ManufacturerUse, San

DEVICE_ID: Final = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9\-.%_*?!(),:=@$']{1,64}")
"""The hub's character set (iothub.md), at most the 64 characters that a CN holds (RFC 5280, ub-common-name). Not ``.``
or ``..``, which in the path of a URL mean something else."""

SERIAL: Final = re.compile(r"[!-~]([ -~]{0,126}[!-~])?")
"""A hardware's serial number as it is believed and written: printable ASCII, without a space at its ends."""

_CODE_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: nothing to confuse in the rain
_CODE_LENGTH: Final = 16


class Operation(StrEnum):
    ENROLL = "simpleenroll"
    REENROLL = "simplereenroll"


@dataclass(frozen=True, slots=True)
class CsrFacts:
    """What a CSR asks for, as pki.csr has read and verified it."""

    der: bytes
    common_name: str | None
    other_subject: bool
    """Whether the subject holds anything beside the one CN."""
    sans: tuple[San, ...]
    unknown_names: bool
    """Whether it asks for a kind of name that gatewayd does not deal in."""
    public_key_sha256: str
    key_description: str
    """Such as ``EC secp256r1`` or ``RSA 2048``."""
    key_accepted: bool
    is_ca: bool
    """Whether it asks for basicConstraints CA, keyCertSign or cRLSign."""
    eku_beyond_client: bool
    """Whether it asks for extended key usages other than clientAuth."""
    asks_for_more: bool
    """Whether it holds extensions or attributes of which nobody here knows what a CA would make of them."""


@dataclass(frozen=True, slots=True)
class EnrollmentRequest:
    """One EST request, as the wire brought it."""

    operation: Operation
    csr: CsrFacts
    basic: tuple[str, str] | None
    """(device id, one-time code) from HTTP Basic."""
    peer_certificate: bytes | None
    """DER of the client certificate whose chain TLS has verified."""
    remote: str
    peer_chain: tuple[bytes, ...] = ()
    """DER of what the peer sent above its certificate, as it came."""


@dataclass(frozen=True, slots=True)
class Manufacturer:
    """What holds for the hardware of one manufacturer ([[manufacturers]])."""

    name: str
    uses: frozenset[ManufacturerUse]
    device: str = ""
    """Which device a piece of hardware is that nobody has bound: its id, with ``{serial}`` in it. Empty: none."""
    with_code: bool = False
    """Whether a one-time code has to come along."""

    def names(self, device_id: str, serial: str) -> bool:
        return bool(self.device) and device_id == self.device_id(serial)

    def device_id(self, serial: str) -> str:
        return self.device.replace("{serial}", serial)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a manufacturer's certificate (IEEE 802.1AR: IDevID) proves, its chain verified."""

    manufacturer: Manufacturer
    serial: str
    key_accepted: bool

    @property
    def binding(self) -> Binding:
        return Binding(self.manufacturer.name, self.serial)


@dataclass(frozen=True, slots=True)
class Enrolled:
    certificate: bytes
    """DER."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The request is kept durably; asking again for the same key gives the same answer."""

    retry_after: int
    """Seconds."""


class Refusal(StrEnum):
    """Why not; the value is the sentence the peer is told."""

    UNKNOWN_DEVICE = "The device is not known here."
    REVOKED = "The device has been revoked."
    REVOKED_KEY = "A certificate of this key was revoked: the device needs a new key."
    WRONG_CN = "The CSR's subject must be exactly CN=<device id>."
    WRONG_NAMES = "The CSR asks for names that the device's record does not allow."
    NOT_A_LEAF = "The gateway itself does not enroll here."
    WEAK_KEY = "The key is not one that is accepted: EC P-256 or P-384, or RSA of 2048 bits and more."
    CA_RIGHTS = "The CSR asks to be a certification authority."
    USAGE = "The CSR asks for extended key usages other than clientAuth."
    WEAK_ORIGIN = "The key of the manufacturer's certificate is not one that is accepted."
    NOT_BOUND = "No device here is bound to this manufacturer's certificate."
    OTHER_HARDWARE = "The device is bound to other hardware."
    BOUND_ELSEWHERE = "This hardware is bound to another device."
    BINDING_VOID = "The device's hardware was revoked: an administrator has to bind it again."
    STILL_VALID = "The device has a certificate that is valid: it renews with that one."
    NOT_TO_ENROLL = "The manufacturer's certificate is not good for a first certificate here."
    NOT_FOR_EXPIRED = "The manufacturer's certificate does not bring an expired device back here."
    MORE = "The CSR holds extensions or attributes that are not passed on to the CA."


def scope_refusal(device: Device | None, csr: CsrFacts) -> Refusal | None:
    """None when ``csr`` asks for no more than ``device`` may have."""
    if device is None:
        return Refusal.UNKNOWN_DEVICE
    if device.kind is not DeviceKind.LEAF:
        return Refusal.NOT_A_LEAF
    if device.state is DeviceState.REVOKED:
        return Refusal.REVOKED
    if csr.common_name != device.device_id or csr.other_subject:
        return Refusal.WRONG_CN
    if csr.unknown_names or not set(csr.sans) <= set(device.sans):
        return Refusal.WRONG_NAMES
    if csr.is_ca:
        return Refusal.CA_RIGHTS
    if csr.eku_beyond_client:
        return Refusal.USAGE
    if csr.asks_for_more:
        return Refusal.MORE
    if not csr.key_accepted:
        return Refusal.WEAK_KEY
    return None


def origin_refusal(origin: Origin, device: Device | None, *, replaced: bool = False) -> Refusal | None:
    """None when this hardware speaks for ``device`` by itself: it is bound to it, or its manufacturer's rule names it
    and nobody has bound it to other hardware. ``replaced``: whether new hardware was ever wanted for it; what a rule
    names is the first."""
    if not origin.key_accepted:
        return Refusal.WEAK_ORIGIN
    if device is None:
        return Refusal.NOT_BOUND
    if device.state is DeviceState.REVOKED:
        return Refusal.REVOKED
    if device.binding is None:
        named = not replaced and origin.manufacturer.names(device.device_id, origin.serial)
        return None if named else Refusal.NOT_BOUND
    if device.binding.void:
        return Refusal.BINDING_VOID
    return None if device.binding == origin.binding else Refusal.OTHER_HARDWARE


def use_refusal(origin: Origin, current: Credential | None, now: datetime) -> Refusal | None:
    """None when the manufacturer's certificate alone is good for a new certificate, ``current`` being the present one.

    A device with a valid one renews with that: whoever cannot, does not have its key.
    """
    uses = origin.manufacturer.uses
    if current is None:
        return None if ManufacturerUse.ENROLL in uses else Refusal.NOT_TO_ENROLL
    if current.not_after is None or now < current.not_after:
        return Refusal.STILL_VALID
    return None if ManufacturerUse.EXPIRED in uses else Refusal.NOT_FOR_EXPIRED


def pairing_refusal(origin: Origin, device: Device, known: Device | None) -> Refusal | None:
    """None when this hardware may come along with a one-time code of ``device``; ``known`` is the device that it is, or
    once was, bound to."""
    if not origin.key_accepted:
        return Refusal.WEAK_ORIGIN
    if known is not None and known.device_id != device.device_id and known.binding == origin.binding:
        return Refusal.BOUND_ELSEWHERE
    if device.binding is not None and not device.binding.void and device.binding != origin.binding:
        return Refusal.OTHER_HARDWARE
    return None


def new_code() -> str:
    """A fresh one-time code: 80 random bits as ``XXXX-XXXX-XXXX-XXXX``."""
    code = "".join(secrets.choice(_CODE_ALPHABET) for _ in range(_CODE_LENGTH))
    return "-".join(code[i : i + 4] for i in range(0, _CODE_LENGTH, 4))


def code_hash(device_id: str, code: str) -> str:
    """What the store keeps. A plain SHA-256 suffices: the code has 80 random bits and lives for hours.

    Case, spaces and dashes do not matter, and the letters that look like digits count as those digits.
    """
    plain = re.sub(r"[\s-]", "", code).upper().translate(str.maketrans("OIL", "011"))
    return hashlib.sha256(f"{device_id}\0{plain}".encode()).hexdigest()


def code_accepted(code: EnrollmentCode | None, public_key_sha256: str, now: datetime) -> bool:
    """Whether the code lets a request for this key in: unused and in time, or used for this very key before."""
    if code is None:
        return False
    if code.used_by is not None:
        return code.used_by == public_key_sha256
    return code.created_at <= now < code.expires_at
