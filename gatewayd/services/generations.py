"""A device's generations under way, and how the next one of the gateway is begun. Functions of one transaction."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime

from ..core import lifecycle
from ..core.model import Credential, CredentialState, Device, KeyAlgorithm, KeyRef
from ..store.base import Tx


def unfinished_of(tx: Tx, device_id: str) -> list[Credential]:
    """Oldest generation first."""
    return tx.credentials.all(device_id, lifecycle.UNFINISHED)


def begin(tx: Tx, device: Device, algorithm: KeyAlgorithm, now: datetime) -> Credential:
    """Write down that the gateway wants a next generation, under a fresh CKA_ID. One at a time: when one is under way
    it is returned, with its next attempt moved to now."""
    if under_way := unfinished_of(tx, device.device_id):
        sooner = replace(under_way[-1], next_attempt_at=None)
        tx.credentials.put(sooner)
        return sooner
    credential = Credential(
        device_id=device.device_id,
        generation=tx.credentials.next_generation(device.device_id),
        state=CredentialState.WANTED,
        created_at=now,
        updated_at=now,
        key=KeyRef(secrets.token_bytes(16), algorithm),
    )
    tx.credentials.add(credential)
    return credential


def rejected_since(tx: Tx, device_id: str, generation: int) -> int:
    """How many generations after this one have come to nothing."""
    return sum(each.generation > generation for each in tx.credentials.all(device_id, [CredentialState.REJECTED]))
