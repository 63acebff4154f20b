from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.audit import Head
from gatewayd.core.model import (
    Credential,
    CredentialState,
    Device,
    DeviceKind,
    DeviceState,
    Revocation,
    RevocationReason,
)
from gatewayd.upstream import report

T0 = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
CREDENTIAL = Credential(
    device_id="gw-1",
    generation=3,
    state=CredentialState.CURRENT,
    created_at=T0,
    updated_at=T0,
    serial="1a2b",
    thumbprint="ab" * 32,
    not_before=T0,
    not_after=T0 + timedelta(days=30),
    renew_at=T0 + timedelta(days=17),
)
REVOCATION = Revocation("leaf-1", "1a2b", RevocationReason.KEY_COMPROMISE, "uid:1000", T0)
LEAF = Device("leaf-1", DeviceKind.LEAF, T0)


def test_a_revocation_report_names_the_certificate_in_every_way() -> None:
    assert report.revocation_report(REVOCATION, CREDENTIAL) == {
        "type": "revocation",
        "deviceId": "leaf-1",
        "serial": "1a2b",
        "thumbprint": "ab" * 32,
        "certificate": None,
        "notAfter": "2026-02-01T03:04:05Z",
        "reason": "keyCompromise",
        "origin": "uid:1000",
        "knownAt": "2026-01-02T03:04:05Z",
    }
    assert report.revocation_report(REVOCATION, None)["thumbprint"] is None


def test_times_are_told_in_utc() -> None:
    elsewhere = T0.astimezone(timezone(timedelta(hours=5, minutes=30)))
    told = report.revocation_report(Revocation("d", "1", RevocationReason.UNSPECIFIED, "crl", elsewhere), None)
    assert told["knownAt"] == "2026-01-02T03:04:05Z"


def test_the_key_of_a_report_fits_into_a_message_id() -> None:
    longest = Revocation("d" * 64, "f" * 40, RevocationReason.UNSPECIFIED, "crl", T0)
    assert len(report.revocation_key(longest)) <= 128
    assert report.revocation_key(REVOCATION) == "revocation:leaf-1:1a2b"


def test_the_reported_state() -> None:
    leaves = {DeviceState.ACTIVE: 1, DeviceState.REVOKED: 1}
    assert report.reported_state("0.1.0", CREDENTIAL, leaves, [REVOCATION]) == {
        "gatewayd": {
            "version": "0.1.0",
            "certificate": {
                "generation": 3,
                "serial": "1a2b",
                "thumbprint": "ab" * 32,
                "notBefore": "2026-01-02T03:04:05Z",
                "notAfter": "2026-02-01T03:04:05Z",
                "renewAt": "2026-01-19T03:04:05Z",
                "lastError": None,
            },
            "leaves": {"active": 1, "replacing": 0, "revoked": 1},
            "revocations": {"open": 1, "openSince": "2026-01-02T03:04:05Z"},
            "audit": None,
        }
    }


def test_what_is_over_is_taken_back() -> None:
    """The hub merges patches, so that a key which is merely left out would stay there for ever."""
    before = report.reported_state("0.1.0", CREDENTIAL, {DeviceState.ACTIVE: 1}, [REVOCATION])["gatewayd"]
    after = report.reported_state("0.1.0", None, {}, [])["gatewayd"]
    assert merged(before, after) == {
        "version": "0.1.0",
        "leaves": {"active": 0, "replacing": 0, "revoked": 0},
        "revocations": {"open": 0},
    }


def merged(document: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@given(st.text(max_size=2000), st.integers(min_value=0, max_value=2000))
def test_it_is_bounded_whatever_happens(error: str, count: int) -> None:
    credential = Credential(
        "gw-1", 10**9, CredentialState.CURRENT, T0, T0, serial="f" * 40, thumbprint="f" * 64, last_error=error
    )
    head = Head("d" * 128, 10**12, bytes(32), T0, b"", bytes(512))
    state = report.reported_state("1.2.3", credential, {DeviceState.ACTIVE: count}, [REVOCATION] * count, head)
    assert len(json.dumps(state, ensure_ascii=False).encode()) <= report.STATE_LIMIT
