"""Records to store, complete enough that a lost column would show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gatewayd.core.model import (
    Credential,
    CredentialState,
    Device,
    DeviceKind,
    EnrollmentCode,
    JournalEntry,
    KeyAlgorithm,
    KeyRef,
    OutboxMessage,
    Revocation,
    RevocationReason,
    San,
)

NOW = datetime(2030, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def device(device_id: str = "leaf-1", kind: DeviceKind = DeviceKind.LEAF) -> Device:
    return Device(device_id, kind, NOW, (San.parse("dns:b.example"), San.parse("ip:192.0.2.7")))


def credential(
    device_id: str = "leaf-1", generation: int = 1, state: CredentialState = CredentialState.KEYED
) -> Credential:
    return Credential(device_id, generation, state, created_at=NOW, updated_at=NOW)


def full_credential(device_id: str = "gw", generation: int = 1) -> Credential:
    return Credential(
        device_id=device_id,
        generation=generation,
        state=CredentialState.CURRENT,
        created_at=NOW,
        updated_at=NOW + MINUTE,
        key=KeyRef(b"\x00\xff" + f"{device_id} {generation}".encode(), KeyAlgorithm.RSA_2048),
        csr=b"csr\x00",
        public_key_sha256="ab" * 32,
        certificate=b"certificate\x00",
        chain=(b"issuing\x00", b"root\x00"),
        serial="1f",
        thumbprint="cd" * 32,
        not_before=NOW - MINUTE,
        not_after=NOW + 30 * MINUTE,
        renew_at=NOW + 15 * MINUTE,
        attempts=3,
        next_attempt_at=NOW + 2 * MINUTE,
        last_error="IssuerUnreachable: The CA did not answer.",
    )


def code(code_hash: str = "aa", device_id: str = "leaf-1", used_by: str | None = None) -> EnrollmentCode:
    return EnrollmentCode(code_hash, device_id, NOW, NOW + 60 * MINUTE, used_by)


def revocation(device_id: str = "leaf-1", serial: str = "1f", known_at: datetime = NOW) -> Revocation:
    return Revocation(device_id, serial, RevocationReason.KEY_COMPROMISE, "uid:1000", known_at)


def message(key: str, created_at: datetime = NOW, next_attempt_at: datetime | None = None) -> OutboxMessage:
    return OutboxMessage(key, "revocation", '{"device": "leaf-1"}', created_at, next_attempt_at=next_attempt_at)


def entry(what: str, device_id: str | None = "leaf-1") -> JournalEntry:
    return JournalEntry(NOW, device_id, "uid:0", what, "done", "a detail")
