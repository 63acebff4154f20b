"""How a replacement is written down. Functions of one transaction; services.pins and services.replacements carry it
out, as core.replacement says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..core import lifecycle
from ..core import replacement as table
from ..core.model import (
    Credential,
    CredentialState,
    Device,
    DeviceKind,
    DeviceState,
    JournalEntry,
    Replacement,
    ReplacementState,
    RevocationReason,
    RevocationScope,
)
from ..core.replacement import Event
from ..errors import GatewayError, NoReplacement, ReplacementUnfinished
from ..pki import certificates
from ..store.base import Tx
from ..upstream.base import Pinning
from . import revoking
from .events import DAEMON

_RETRY_LAST = timedelta(minutes=5)
"""Somebody stands beside the new hardware."""
_LATEST = 16
"""Certificates: a pin is made of two that follow each other, and fails to come into use a few times at most."""


def begin(tx: Tx, device: Device, reason: RevocationReason, who: str, now: datetime) -> list[JournalEntry]:
    """Give the old hardware up: from this transaction on it is refused here, its certificates are on their way to
    *verified*, and new hardware may enroll. One that is under way is left as it is: nothing is returned then."""
    device_id = device.device_id
    present = tx.replacements.open_of(device_id)
    if present is not None and present.state in table.UNDER_WAY:
        return []
    # Ends a pin that is in force. A gateway's is reported once the new hardware can, which the report would disable.
    entries = revoking.revoke_device(tx, device_id, reason, who, now, tell=device.kind is DeviceKind.LEAF)
    tx.codes.withdraw_all(device_id)  # the old hardware's own code would let its key in again
    generations = [each.generation for each in tx.credentials.all(device_id)]
    tx.replacements.add(
        Replacement(
            device_id=device_id,
            number=len(tx.replacements.all(device_id)) + 1,
            state=ReplacementState.CLOSING,
            reason=reason,
            origin=who,
            last_old=max(generations, default=0),
            started_at=now,
        )
    )
    revoked = tx.devices.get(device_id)
    assert revoked is not None
    tx.devices.put(replace(revoked, state=DeviceState.REPLACING, current=None))
    entry = JournalEntry(now, device_id, who, "replacement", "done", f"begun; the old certificates: {reason}")
    tx.journal.append(entry)
    return [entry, *entries]


def cancel(tx: Tx, device: Device, who: str, now: datetime) -> list[JournalEntry]:
    """Give the swap up: the code is withdrawn, and what the new hardware has got is revoked. The old certificates stay
    revoked, and the device stays disabled. Raises NoReplacement."""
    device_id = device.device_id
    found = tx.replacements.open_of(device_id)
    if found is None or found.state not in table.UNDER_WAY:
        raise NoReplacement(f"No replacement of {device_id} is under way.", device=device_id)
    state, _ = table.step(found.state, Event.CANCEL)
    tx.replacements.put(replace(found, state=state, ended_at=now))
    entry = JournalEntry(now, device_id, who, "replacement", "done", "cancelled; the device stays revoked")
    tx.journal.append(entry)
    return [entry, *revoking.revoke_device(tx, device_id, found.reason, who, now)]


def shut_out(tx: Tx, seen: Replacement, evidence: str, now: datetime, *, by_pin: bool) -> JournalEntry | None:
    """The id was read back as disabled: it is free for the new hardware, unless more has turned up meanwhile."""
    found = tx.replacements.open_of(seen.device_id)
    if found is None or found.state is not ReplacementState.CLOSING or not is_shut(tx, found, now, by_pin=by_pin):
        return None
    state, _ = table.step(found.state, Event.SHUT)
    tx.replacements.put(replace(found, state=state, shut_at=now, attempts=0, next_attempt_at=None, last_error=None))
    for credential in tx.credentials.all(found.device_id):
        if credential.generation > found.last_old and credential.state in _WAITING:
            tx.credentials.put(replace(credential, next_attempt_at=None))  # it has waited for this
    entry = JournalEntry(now, found.device_id, DAEMON, "shut-out", "done", evidence)
    tx.journal.append(entry)
    return entry


def next_attempt(
    tx: Tx, device: Device, error: GatewayError, otherwise: datetime | None, now: datetime
) -> datetime | None:
    """When a step of new hardware that has failed is tried again: at once, if what it waits for has come meanwhile."""
    if device.state is not DeviceState.REPLACING:
        return otherwise
    if isinstance(error, ReplacementUnfinished):
        found = tx.replacements.open_of(device.device_id)
        if found is None or found.state is not ReplacementState.CLOSING:
            return None
    return None if otherwise is None else min(otherwise, now + _RETRY_LAST)


_WAITING = frozenset({CredentialState.KEYED, CredentialState.ISSUED})


def is_shut(tx: Tx, found: Replacement, now: datetime, *, by_pin: bool) -> bool:
    """core.replacement.is_shut, of what is on record."""
    everything = tx.credentials.all(found.device_id)
    old = [each for each in everything if each.generation <= found.last_old or each.state is CredentialState.REVOKED]
    if any(each.state in lifecycle.UNFINISHED for each in old):
        return False  # the engine has to find out yet what was minted for it
    alive = {each.serial for each in old if each.serial and each.not_after is not None and each.not_after > now}
    return table.is_shut(tx.revocations.all(found.device_id), alive, by_pin=by_pin)


def take_in(
    tx: Tx, found: Replacement, alive: Iterable[x509.Certificate], reason: RevocationReason, now: datetime
) -> list[JournalEntry]:
    """What the CA shows as the old gateway's and is not on record, because it was issued after the export: it goes the
    way of the others. What is on its way to the new hardware is known by its key."""
    device_id, entries = found.device_id, []
    keys = {each.public_key_sha256 for each in tx.credentials.all(device_id)}
    for certificate in alive:
        key, thumbprint = certificates.public_key_sha256_of(certificate), certificates.thumbprint(certificate)
        if key in keys or tx.credentials.by_thumbprint(thumbprint):
            continue
        unknown = Credential(
            device_id=device_id,
            generation=tx.credentials.next_generation(device_id),
            state=CredentialState.REVOKED,
            created_at=now,
            updated_at=now,
            public_key_sha256=key,
            certificate=certificate.public_bytes(Encoding.DER),
            serial=certificates.serial_hex(certificate),
            thumbprint=thumbprint,
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )
        tx.credentials.add(unknown)
        revoking.add_revocation(tx, unknown, reason, DAEMON, now, tell=False)
        words = f"known; serial {unknown.serial}, which the CA has issued since the export"
        entries.append(JournalEntry(now, device_id, DAEMON, "revocation", "done", words, serial=unknown.serial))
    for entry in entries:
        tx.journal.append(entry)
    return entries


def begin_pin(tx: Tx, credential: Credential, now: datetime, *, by_pin: bool) -> Replacement | None:
    """The intent to have the hub let ``credential`` in: the replacement as it stands now. PINNING or with its pin in
    force, it may be done; in any other state an old certificate is not shut out yet. None when no pin is needed."""
    found = tx.replacements.open_of(credential.device_id)
    if found is None or found.state in table.IN_FORCE:
        return found
    found = replace(found, state=table.recover(found.state), certificate_at=found.certificate_at or now)
    if found.state is ReplacementState.AWAITING:
        shut = is_shut(tx, found, now, by_pin=by_pin)
        state, _ = table.step(found.state, Event.START if shut else Event.REOPENED)
        found = replace(found, state=state, shut_at=found.shut_at if shut else None)
    tx.replacements.put(found)
    return found


def pinned(tx: Tx, credential: Credential, now: datetime) -> JournalEntry | None:
    """The hub lets the new hardware in, and no old certificate: part of the switch to ``credential``."""
    found = tx.replacements.open_of(credential.device_id)
    if found is None or found.state is not ReplacementState.PINNING:
        return None
    state, _ = table.step(found.state, Event.DONE)
    until = table.lift_at(tx.credentials.all(credential.device_id), now)
    tx.replacements.put(replace(found, state=state, pinned_at=now, lift_at=until))
    device = tx.devices.get(credential.device_id)
    assert device is not None
    tx.devices.put(replace(device, state=DeviceState.ACTIVE, revocation_reason=None))
    if device.kind is DeviceKind.GATEWAY:
        revoking.report_all_later(tx, credential.device_id, now)
    words = f"to {credential.thumbprint}, until {until:%Y-%m-%d %H:%M:%S}Z"
    entry = JournalEntry(now, credential.device_id, DAEMON, "pinned", "done", words, serial=credential.serial)
    tx.journal.append(entry)
    return entry


def pinnable(tx: Tx, found: Replacement) -> frozenset[str]:
    """What a pin of ours may consist of: the latest certificates that are not revoked, or were by themselves since the
    swap, when the device had a later one."""
    device_id = found.device_id
    alone = {each.serial for each in tx.revocations.all(device_id) if each.scope is RevocationScope.CERTIFICATE}
    latest = [
        each
        for each in tx.credentials.all(device_id)
        if each.state is not CredentialState.REVOKED or (each.serial in alone and each.generation > found.last_old)
    ][-_LATEST:]
    return frozenset(each.thumbprint for each in latest if each.thumbprint)


def pin_of(tx: Tx, found: Replacement, credential: Credential, now: datetime) -> Pinning:
    """What the hub is to let in, for ``credential``. A gateway shows the certificates for which it asks that."""
    current = tx.credentials.current(found.device_id)
    primary, secondary = table.slots(current, credential)
    enable = found.state is ReplacementState.PINNING
    pin = Pinning(found.device_id, credential.serial or "", primary, secondary, enable)
    device = tx.devices.get(found.device_id)
    if device is None or device.kind is not DeviceKind.GATEWAY:
        return pin
    revoked = [each for each in tx.credentials.all(found.device_id) if each.state is CredentialState.REVOKED]
    replaced = [each for each in revoked if each.not_after is not None and each.not_after > now][-_LATEST:]
    shown = tuple(each.certificate for each in replaced if each.certificate is not None)
    return replace(pin, certificate=credential.certificate or b"", replaced=shown if enable else ())
