"""Who asks for a leaf's certificate, and how it is proved. Functions of one transaction.

The rules are core.enrollment's; here is what they are asked about.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime

from ..core import enrollment as rules
from ..core import lifecycle
from ..core.enrollment import EnrollmentRequest, Operation, Origin, Refusal
from ..core.model import Credential, CredentialState, Device, DeviceState, EnrollmentCode
from ..errors import CodeRefused, DeviceRevoked, EnrollmentDenied
from ..store.base import Tx


@dataclass(frozen=True, slots=True)
class Asker:
    device: Device
    who: str
    """For the journal."""
    code: EnrollmentCode | None = None
    """Behind a code is a person who stands beside the device."""
    origin: Origin | None = None
    """The hardware that the device has proved to be."""
    binds: bool = False
    """Whether that is to be bound to it, as nobody has done before. Hardware that a revocation has unbound is not bound
    again by a code or a rule."""

    @property
    def holds_certificate(self) -> bool:
        """Whether it has shown the device's present one."""
        return self.code is None and self.origin is None


def prove(tx: Tx, request: EnrollmentRequest, origin: Origin | None, now: datetime) -> Asker:
    """By the device's present certificate, its manufacturer's, or a one-time code. ``origin`` is what the client
    certificate says if it is a manufacturer's. Raises CodeRefused, EnrollmentDenied, DeviceRevoked."""
    own = _issued_here(tx, request.peer_certificate) if request.peer_certificate is not None else None
    if request.peer_certificate is not None and (own is not None or origin is None):
        device = _by_certificate(tx, own, now)
        if request.basic is not None and request.basic[0] != device.device_id:
            raise EnrollmentDenied("The code and the certificate belong to different devices.")
        return Asker(device, f"certificate:{device.device_id}")
    if request.basic is not None:
        if request.operation is Operation.REENROLL and origin is None:
            raise EnrollmentDenied("simplereenroll needs the device's present certificate.")
        asker = _by_code(tx, request, *request.basic, now)
        return asker if origin is None else _with_hardware(tx, asker, origin)
    if origin is not None:
        return _by_hardware(tx, origin)
    raise CodeRefused("Neither a certificate nor a code was given.")


def admit_use(tx: Tx, asker: Asker, now: datetime) -> None:
    """A manufacturer's certificate alone is good for some things only. Raises EnrollmentDenied."""
    if asker.origin is not None and asker.code is None:
        refusal = rules.use_refusal(asker.origin, tx.credentials.current(asker.device.device_id), now)
        if refusal is not None:
            raise EnrollmentDenied(refusal, device=asker.device.device_id)


def consume(tx: Tx, asker: Asker, public_key_sha256: str) -> str:
    """The code is used up, and hardware that enrolls for the first time is bound. Returns words on the latter."""
    if asker.code is not None:
        tx.codes.put(replace(asker.code, used_by=public_key_sha256))
    if asker.origin is None or not asker.binds:
        return ""
    tx.devices.put(replace(asker.device, binding=asker.origin.binding))
    return f"bound to {asker.origin.manufacturer.name} {asker.origin.serial}"


def _by_code(tx: Tx, request: EnrollmentRequest, device_id: str, code: str, now: datetime) -> Asker:
    kept = tx.codes.get(rules.code_hash(device_id, code))
    device = tx.devices.get(device_id)
    if device is None or kept is None or not rules.code_accepted(kept, request.csr.public_key_sha256, now):
        raise CodeRefused("The device id or the code is not accepted.")
    return Asker(device, f"code:{device_id}", kept)


def _with_hardware(tx: Tx, asker: Asker, origin: Origin) -> Asker:
    known = tx.devices.of_hardware(origin.binding)
    _refuse(rules.pairing_refusal(origin, asker.device, known), asker.device)
    return replace(asker, origin=origin, binds=known is None and not tx.devices.is_void(origin.binding))


def _by_hardware(tx: Tx, origin: Origin) -> Asker:
    known = tx.devices.of_hardware(origin.binding)
    device = known or tx.devices.get(origin.manufacturer.device_id(origin.serial))
    if known is None and tx.devices.is_void(origin.binding):  # its device has other hardware since
        raise EnrollmentDenied(Refusal.BINDING_VOID)
    replaced = device is not None and bool(tx.replacements.all(device.device_id))
    _refuse(rules.origin_refusal(origin, device, replaced=replaced), device)
    assert device is not None
    if origin.manufacturer.with_code:
        raise CodeRefused("A one-time code has to come along with the manufacturer's certificate.")
    return Asker(device, f"manufacturer:{origin.manufacturer.name}:{origin.serial}", origin=origin, binds=known is None)


def _refuse(refusal: Refusal | None, device: Device | None) -> None:
    device_id = device.device_id if device is not None else None
    if refusal is Refusal.REVOKED:
        raise DeviceRevoked(refusal, device=device_id)
    if refusal is not None:
        raise EnrollmentDenied(refusal, device=device_id)


def _issued_here(tx: Tx, der: bytes) -> Credential | None:
    return tx.credentials.by_thumbprint(hashlib.sha256(der).hexdigest())


def _by_certificate(tx: Tx, credential: Credential | None, now: datetime) -> Device:
    device = tx.devices.get(credential.device_id) if credential is not None else None
    if credential is None or device is None:
        raise EnrollmentDenied("The certificate is not one of a device known here.")
    if device.state is DeviceState.REVOKED or credential.state is CredentialState.REVOKED:
        raise DeviceRevoked(Refusal.REVOKED, device=device.device_id)
    if credential.state not in lifecycle.USABLE:
        raise EnrollmentDenied("The certificate has been replaced.", device=device.device_id)
    if credential.not_after is None or credential.not_after <= now:
        # TLS checks this when it verifies the chain, which it does not do for a resumed session.
        raise EnrollmentDenied("The certificate has expired.", device=device.device_id)
    return device
