"""How a revocation is written down. Functions of one transaction; what carries it out is services.revocations."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

from ..core import lifecycle
from ..core import replacement as swap
from ..core import revocation as table
from ..core.lifecycle import Event
from ..core.model import (
    Credential,
    CredentialState,
    Device,
    DeviceState,
    JournalEntry,
    Milestone,
    MilestoneProgress,
    OutboxMessage,
    Revocation,
    RevocationReason,
    RevocationScope,
)
from ..store.base import Tx
from ..upstream import report


def revoke_device(
    tx: Tx, device_id: str, reason: RevocationReason, who: str, now: datetime, *, tell: bool = True
) -> list[JournalEntry]:
    """From this transaction on the device is refused here, and each of its unexpired certificates is on its way to
    *verified*. Idempotent: what is revoked already is left as it is, and a device may be revoked again after a new
    certificate of it has turned up.

    A credential in progress is left to the engine, which holds it: it finds the device revoked and winds it up.
    ``tell``: whether it is reported at once.
    """
    device = tx.devices.get(device_id)
    assert device is not None
    # Its hardware may be in the hands for which it is revoked: the manufacturer's certificate in it counts no more.
    binding = replace(device.binding, void=True) if device.binding is not None else None
    tx.devices.put(replace(device, state=DeviceState.REVOKED, revocation_reason=reason, binding=binding))
    tx.codes.withdraw_unused(device_id)
    if (swapped := tx.replacements.open_of(device_id)) is not None:
        overtaken, _ = swap.step(swapped.state, swap.Event.OVERTAKE)
        tx.replacements.put(replace(swapped, state=overtaken, ended_at=now))
    entries = [JournalEntry(now, device_id, who, "revocation", "done", f"known; reason {reason}")]
    for credential in tx.credentials.all(device_id):
        if credential.state in lifecycle.IN_PROGRESS or credential.state is CredentialState.REVOKED:
            continue
        if credential.certificate is None and credential.state in lifecycle.UNFINISHED:
            tx.credentials.put(replace(credential, next_attempt_at=None))  # to be wound up now
            continue
        if credential.not_after is None or credential.not_after <= now:
            continue
        state, _ = lifecycle.step(credential.state, Event.REVOKED)
        tx.credentials.put(replace(credential, state=state, updated_at=now, renew_at=None, next_attempt_at=None))
        if add_revocation(tx, credential, reason, who, now, tell=tell):
            words, serial = f"serial {credential.serial}", credential.serial
            entries.append(JournalEntry(now, device_id, who, str(Milestone.REFUSED_HERE), "done", words, serial=serial))
    for entry in entries:
        tx.journal.append(entry)
    return entries + _revoke_expired(tx, device_id, reason, who, now, tell)


def _revoke_expired(
    tx: Tx, device_id: str, reason: RevocationReason, who: str, now: datetime, tell: bool
) -> list[JournalEntry]:
    """Where all of a device's certificates have expired, the last one stands for it: the CA has nothing to revoke any
    more, but the hub's identity is to be disabled all the same."""
    made = [each for each in tx.credentials.all(device_id) if each.not_after is not None and not _is_alone(tx, each)]
    if not made or any(each.not_after is not None and each.not_after > now for each in made):
        return []
    last = made[-1]
    if last.state is CredentialState.REVOKED or last.state in lifecycle.IN_PROGRESS:
        return []
    state, _ = lifecycle.step(last.state, Event.REVOKED)
    tx.credentials.put(replace(last, state=state, updated_at=now, renew_at=None, next_attempt_at=None))
    if not add_revocation(tx, last, reason, who, now, tell=tell):
        return []
    words = f"serial {last.serial}, which has expired"
    entry = JournalEntry(now, device_id, who, str(Milestone.REFUSED_HERE), "done", words)
    tx.journal.append(entry)
    return [entry, *revoked_at_ca(tx, last, "it has expired: there is nothing to revoke", who, now)]


def _is_alone(tx: Tx, credential: Credential) -> bool:
    """Whether it was revoked by itself, while its device went on with another: that gets no device disabled."""
    found = tx.revocations.get(credential.device_id, credential.serial or "")
    return found is not None and found.scope is RevocationScope.CERTIFICATE


def revoke_certificate(
    tx: Tx, credential: Credential, reason: RevocationReason, who: str, now: datetime
) -> list[JournalEntry]:
    """This superseded certificate alone is refused from now on; its device goes on with a later one."""
    state, _ = lifecycle.step(credential.state, Event.REVOKED)
    tx.credentials.put(replace(credential, state=state, updated_at=now, next_attempt_at=None))
    if not add_revocation(tx, credential, reason, who, now, RevocationScope.CERTIFICATE):
        return []
    words = f"serial {credential.serial}; reason {reason}; the device goes on with a later certificate"
    serial = credential.serial
    entry = JournalEntry(now, credential.device_id, who, str(Milestone.REFUSED_HERE), "done", words, serial=serial)
    tx.journal.append(entry)
    return [entry]


def revoked_at_ca(tx: Tx, credential: Credential, evidence: str, who: str, now: datetime) -> list[JournalEntry]:
    """The CA was seen to have revoked it: nobody has to ask for that any more."""
    revocation = tx.revocations.get(credential.device_id, credential.serial or "")
    if revocation is None or table.is_done(revocation, Milestone.REVOKED_AT_CA):
        return []
    progress = revocation.progress.get(Milestone.REVOKED_AT_CA, MilestoneProgress())
    done = table.done(progress, now, evidence)
    tx.revocations.put(replace(revocation, progress={**revocation.progress, Milestone.REVOKED_AT_CA: done}))
    serial = credential.serial
    entry = JournalEntry(now, credential.device_id, who, str(Milestone.REVOKED_AT_CA), "done", evidence, serial=serial)
    tx.journal.append(entry)
    return [entry]


def is_given_up(tx: Tx, device: Device, generation: int) -> bool:
    """Whether a credential on its way is not to come into use any more: its device is revoked, or was given new
    hardware since."""
    if device.state is not DeviceState.REPLACING:
        return device.state is DeviceState.REVOKED
    found = tx.replacements.open_of(device.device_id)
    return found is None or generation <= found.last_old


def add_revocation(
    tx: Tx,
    credential: Credential,
    reason: RevocationReason,
    who: str,
    now: datetime,
    scope: RevocationScope = RevocationScope.DEVICE,
    *,
    tell: bool = True,
) -> bool:
    """The intent to revoke one certificate, and, with ``tell``, the message that reports it: that gets its device
    disabled, so there is none when only the certificate is revoked. False when there is none to revoke."""
    if credential.certificate is None or credential.serial is None:
        return False
    refused = MilestoneProgress(done_at=now, attempts=1, evidence="the device's record")
    revocation = Revocation(
        device_id=credential.device_id,
        serial=credential.serial,
        reason=reason,
        origin=who,
        known_at=now,
        scope=scope,
        progress={Milestone.REFUSED_HERE: refused},
    )
    if not tx.revocations.add(revocation):
        return False
    if tell and scope is RevocationScope.DEVICE:
        report_later(tx, revocation, credential, now)
    return True


def report_all_later(tx: Tx, device_id: str, now: datetime) -> None:
    """What has not been reported of a device's revocations. Idempotent."""
    by_serial = {each.serial: each for each in tx.credentials.all(device_id) if each.serial}
    device = tx.devices.get(device_id)
    goes_on = device is not None and device.state is DeviceState.ACTIVE
    for revocation in tx.revocations.all(device_id):
        credential = by_serial.get(revocation.serial)
        if credential is None and goes_on:
            continue  # a report that does not say which certificate would disable the new hardware
        if revocation.scope is RevocationScope.DEVICE and not table.is_done(revocation, Milestone.REPORTED):
            report_later(tx, revocation, credential, now)


def report_open_later(tx: Tx, gateway_id: str, now: datetime) -> None:
    """The messages that are missing: of a database that was damaged, only the records are taken over. What new hardware
    of the gateway has to report waits for its pin."""
    for device_id in {each.device_id for each in tx.revocations.open()}:
        device = tx.devices.get(device_id)
        if device is not None and not (device_id == gateway_id and device.state is DeviceState.REPLACING):
            report_all_later(tx, device_id, now)


def report_later(tx: Tx, revocation: Revocation, credential: Credential | None, now: datetime) -> None:
    """The message that reports it; once. ``credential``: the revoked one, where it is on record."""
    tx.outbox.add(
        OutboxMessage(
            key=report.revocation_key(revocation),
            kind=report.REVOCATION,
            payload=json.dumps(report.revocation_report(revocation, credential)),
            created_at=now,
        )
    )
