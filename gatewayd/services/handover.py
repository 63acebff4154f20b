"""How a gateway's records are handed over to new hardware. Functions of one transaction."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ..core import revocation as table
from ..core import transfer
from ..core.model import DeviceKind, JournalEntry, Revocation, RevocationReason
from ..core.transfer import Bundle
from ..errors import AdoptionRefused
from ..store.base import Tx
from . import replacing, revoking


def collect(tx: Tx, gateway_id: str, now: datetime) -> Bundle:
    """Leaves with their certificates, pins and revocations, and the gateway's own certificates without their keys."""
    devices = tx.devices.all()
    revocations = tx.revocations.all()
    unclosed: dict[str, set[str]] = {}
    for revocation in revocations:
        if not table.is_closed(revocation):
            unclosed.setdefault(revocation.device_id, set()).add(revocation.serial)
    credentials = []
    for device in devices:
        serials = unclosed.get(device.device_id, set())
        for each in tx.credentials.all(device.device_id):
            if transfer.is_handed_over(each, serials, now) or each.generation == device.current:
                credentials.append(transfer.without_key(each) if device.kind is DeviceKind.GATEWAY else each)
    kept = {(each.device_id, each.serial) for each in credentials}
    last = tx.journal.records(tx.journal.written(), 1)
    return Bundle(
        device_id=gateway_id,
        created_at=now,
        journal_seq=last[0].seq if last else 0,
        journal_hash=last[0].hash.hex() if last else "",
        devices=tuple(devices),
        credentials=tuple(credentials),
        revocations=tuple(each for each in revocations if (each.device_id, each.serial) in kept),
        replacements=tuple(each for device in devices for each in tx.replacements.all(device.device_id)),
        void_hardware=tuple(tx.devices.void_hardware()),
    )


def take_over(tx: Tx, bundle: Bundle, reason: RevocationReason, who: str, now: datetime) -> list[JournalEntry]:
    """Everything at once: the leaves go on as they are, and the old gateway's certificates are on their way to
    *verified*. Raises AdoptionRefused where something is on record already."""
    own = tx.devices.get(bundle.device_id)
    assert own is not None
    if len(tx.devices.all()) > 1 or tx.credentials.all(bundle.device_id):
        raise AdoptionRefused("This gateway has devices or a certificate of its own already.", device=own.device_id)
    for device in bundle.devices:
        if device.kind is DeviceKind.GATEWAY:
            tx.devices.put(replace(own, in_hub=device.in_hub))
        else:
            tx.devices.add(replace(device, current=None))
    for credential in bundle.credentials:
        tx.credentials.add(credential)
    for device in bundle.devices:
        if device.kind is DeviceKind.LEAF:
            tx.devices.put(device)
    for hardware in bundle.void_hardware:
        tx.devices.unbind(hardware)
    for revocation in bundle.revocations:
        tx.revocations.add(_at_once(revocation))
    for device in bundle.devices:
        if device.kind is DeviceKind.LEAF:
            revoking.report_all_later(tx, device.device_id, now)
    for replacement in bundle.replacements:
        tx.replacements.add(replace(replacement, next_attempt_at=None))
    words = (
        f"{len(bundle.devices) - 1} devices, as of {bundle.created_at:%Y-%m-%d %H:%M:%S}Z; "
        f"the audit trail before: record {bundle.journal_seq}, {bundle.journal_hash}"
    )
    adopted = JournalEntry(now, bundle.device_id, who, "adopted", "done", words)
    tx.journal.append(adopted)
    return [adopted, *replacing.begin(tx, own, reason, who, now)]


def _at_once(revocation: Revocation) -> Revocation:
    """The old hardware may have waited for the end of a fault; that is no reason to go on waiting."""
    progress = {name: replace(each, next_attempt_at=None) for name, each in revocation.progress.items()}
    return replace(revocation, progress=progress)
