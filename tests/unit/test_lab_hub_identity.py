"""The hub stand-in's identities: what a write makes of a document."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.lab.hub import identity
from gatewayd.lab.hub.clock import NEVER
from gatewayd.lab.hub.errors import Code, HubError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HEX = st.sampled_from("0123456789abcdefABCDEF")


def create(**fields: Any) -> identity.Identity:
    return identity.create("leaf-1", {"deviceId": "leaf-1", **fields}, NOW)


def self_signed(thumbprint: str) -> dict[str, Any]:
    return {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": thumbprint}}


@given(st.one_of(st.text(HEX, min_size=40, max_size=40), st.text(HEX, min_size=64, max_size=64)))
def test_a_thumbprint_is_40_or_64_hex_digits(thumbprint: str) -> None:
    slots = create(authentication=self_signed(thumbprint))["authentication"]["x509Thumbprint"]
    assert slots == {"primaryThumbprint": thumbprint, "secondaryThumbprint": None}


@given(st.text(max_size=80).filter(lambda text: text and not identity._THUMBPRINT.fullmatch(text)))
def test_anything_else_is_no_thumbprint(thumbprint: str) -> None:
    with pytest.raises(HubError) as refused:
        create(authentication=self_signed(thumbprint))
    assert refused.value.code is Code.ARGUMENT_INVALID


@pytest.mark.parametrize("device_id", ["", "a" * 129, "sp ace", "sla/sh", "ümlaut", "line\n"])
def test_a_bad_device_id_is_refused(device_id: str) -> None:
    with pytest.raises(HubError):
        identity.create(device_id, {"deviceId": device_id}, NOW)


def test_in_ca_mode_neither_keys_nor_thumbprints_are_kept() -> None:
    given_too_much = {"type": "certificateAuthority", "x509Thumbprint": {"primaryThumbprint": "a" * 40}}
    assert create(authentication=given_too_much)["authentication"] == {
        "type": "certificateAuthority",
        "symmetricKey": {"primaryKey": None, "secondaryKey": None},
        "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
    }


def test_sas_keys_are_minted_once_and_then_kept_if_they_are_sent_back() -> None:
    first = create()
    kept = identity.replace(first, first, NOW)
    assert kept["authentication"] == first["authentication"]
    minted = identity.replace(first, {"deviceId": "leaf-1"}, NOW)
    assert minted["authentication"]["symmetricKey"] != first["authentication"]["symmetricKey"]


def test_the_servers_own_fields_cannot_be_written() -> None:
    first = create()
    written = identity.replace(first, {**first, "generationId": "1", "etag": "x", "lastActivityTime": "y"}, NOW)
    assert written["generationId"] == first["generationId"]
    assert written["lastActivityTime"] == NEVER
    assert written["etag"] not in ("x", first["etag"])


def test_the_status_time_moves_with_the_status_only() -> None:
    first = create()
    same = identity.replace(first, {**first, "statusReason": "spare"}, NOW)
    assert same["statusUpdatedTime"] == NEVER
    disabled = identity.replace(same, {**same, "status": "Disabled"}, NOW)
    assert disabled["status"] == "disabled"
    assert datetime.fromisoformat(disabled["statusUpdatedTime"]) == NOW


@pytest.mark.parametrize(
    ("if_match", "admitted"),
    [("abc=", True), ('"abc="', True), ("*", True), ('"*"', True), ('"abd="', False), ("", False)],
)
def test_if_match(if_match: str, admitted: bool) -> None:
    assert identity.matches(if_match, "abc=") is admitted
