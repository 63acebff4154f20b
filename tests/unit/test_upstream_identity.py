from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.upstream import identity
from gatewayd.upstream.base import Pinning

AS_READ: dict[str, Any] = {
    "deviceId": "leaf-1",
    "generationId": "638000000000000000",
    "etag": "NTk0ODQ5",
    "connectionState": "Connected",
    "status": "enabled",
    "statusReason": None,
    "connectionStateUpdatedTime": "2026-01-02T03:04:05.6789Z",
    "authentication": {
        "symmetricKey": {"primaryKey": None, "secondaryKey": None},
        "x509Thumbprint": {"primaryThumbprint": "AA" * 32, "secondaryThumbprint": None},
        "type": "selfSigned",
    },
    "capabilities": {"iotEdge": False},
    "deviceScope": "ms-azure-iot-edge://gw-1-638000000000000000",
    "parentScopes": ["ms-azure-iot-edge://gw-1-638000000000000000"],
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def test_an_identity_is_read() -> None:
    read = identity.parse(AS_READ, "leaf-1")
    assert (read.device_id, read.etag, read.enabled, read.status_reason) == ("leaf-1", "NTk0ODQ5", True, "")
    assert (read.authentication_type, read.primary_thumbprint, read.secondary_thumbprint) == (
        "selfSigned",
        "AA" * 32,
        None,
    )


@given(st.dictionaries(st.text(max_size=12).filter(lambda key: key not in AS_READ), JSON, max_size=5), st.text())
def test_disabling_changes_the_status_and_nothing_else(unknown: dict[str, Any], reason: str) -> None:
    document = {**copy.deepcopy(AS_READ), **unknown}
    kept = copy.deepcopy(document)
    written = identity.disabled(identity.parse(document, "leaf-1"), reason)
    assert document == kept
    assert written.pop("status") == "disabled"
    assert reason.startswith(reason_written := written.pop("statusReason"))
    assert len(reason_written) == min(len(reason), 128)
    assert written == {key: value for key, value in kept.items() if key not in ("status", "statusReason")}


def test_a_new_device_has_an_authentication() -> None:
    document = identity.new("leaf-1")
    assert identity.parse({**document, "etag": "x"}, "leaf-1").authentication_type == "certificateAuthority"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"deviceId": "LEAF-1"}, "another device"),
        ({"status": "Enabled?"}, "status"),
        ({"authentication": None}, "authentication"),
        ({"authentication": {"type": "magic"}}, "authentication"),
        ({"authentication": {"type": "sas", "x509Thumbprint": "AA"}}, "x509Thumbprint"),
        ({"etag": None}, "etag"),
        ({"etag": 7}, "etag"),
        ({"statusReason": ["x"]}, "statusReason"),
    ],
)
def test_a_document_that_is_no_identity_is_not_taken_for_one(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        identity.parse({**AS_READ, **change}, "leaf-1")


@given(JSON)
def test_anything_else_is_a_value_error(document: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        identity.parse(document, "leaf-1")


def test_the_keys_of_a_password_device_are_not_shown() -> None:
    keys = {"symmetricKey": {"primaryKey": "c2VjcmV0", "secondaryKey": "c2VjcmV0"}, "type": "sas"}
    assert "c2VjcmV0" not in repr(identity.parse({**AS_READ, "authentication": keys}, "leaf-1"))


A, B = "a" * 64, "b" * 64


@given(st.booleans(), st.sampled_from(["enabled", "disabled"]))
def test_a_pin_and_the_enabling_are_one_write(enable: bool, status: str) -> None:
    document = {**copy.deepcopy(AS_READ), "status": status, "authentication": {"type": "certificateAuthority"}}
    kept = copy.deepcopy(document)
    pinning = Pinning("leaf-1", "1", A, B, enable)
    written = identity.pinned(document, pinning)
    assert document == kept
    read = identity.parse(written, "leaf-1")
    assert read.pinned_to == frozenset([A, B])
    assert read.enabled == (enable or status == "enabled")
    changed = {"authentication", "status", "statusReason"} if enable else {"authentication"}
    assert {key: value for key, value in written.items() if key not in changed} == {
        key: value for key, value in kept.items() if key not in changed
    }
    back = identity.parse(identity.unpinned(written), "leaf-1")
    assert (back.authentication_type, back.pinned_to, back.enabled) == ("certificateAuthority", None, read.enabled)


@pytest.mark.parametrize(
    ("changed", "lets_in"),
    [
        ({}, False),
        ({"status": "disabled"}, False),
        ({"authentication": {"type": "certificateAuthority"}}, True),
        ({"authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "BB" * 32}}}, True),
        ({"authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "AA" * 20}}}, True),
    ],
)
def test_which_certificates_an_identity_lets_in(changed: dict[str, Any], lets_in: bool) -> None:
    """Where it cannot be told, because the pin is a SHA-1 of something, the worse is taken to be so."""
    read = identity.parse({**AS_READ, **changed}, "leaf-1")
    assert read.lets_in("bb" * 32) == lets_in
    assert read.lets_in(None) == read.enabled
