"""A handover survives the way through JSON whole, or is refused."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core import transfer
from gatewayd.core.model import (
    Binding,
    Credential,
    CredentialState,
    Device,
    DeviceKind,
    KeyAlgorithm,
    KeyRef,
    Milestone,
    MilestoneProgress,
    Replacement,
    ReplacementState,
    Revocation,
    RevocationReason,
    San,
)
from gatewayd.core.transfer import Bundle, fault_of, pack, unpack

NOW = datetime(2030, 6, 1, 12, 0, 0, 5, tzinfo=UTC)
GATEWAY = Device("gw", DeviceKind.GATEWAY, NOW, (San.parse("dns:gw"),), current=2, in_hub=True)
LEAF = Device("leaf", DeviceKind.LEAF, NOW)
CREDENTIAL = Credential(
    "leaf",
    3,
    CredentialState.CURRENT,
    NOW,
    NOW,
    key=KeyRef(b"\x00\xff", KeyAlgorithm.EC_P256),
    csr=b"csr",
    certificate=b"\x00certificate",
    chain=(b"issuer", b"root"),
    not_after=NOW,
)
REVOCATION = Revocation(
    "leaf",
    "1f",
    RevocationReason.KEY_COMPROMISE,
    "uid:0",
    NOW,
    {Milestone.DISABLED: MilestoneProgress(NOW, 3, None, None, "etag")},
)
REPLACEMENT = Replacement("leaf", 1, ReplacementState.PINNED, RevocationReason.SUPERSEDED, "uid:0", 2, NOW, lift_at=NOW)
VOID = Binding("acme", "4711", void=True)
BUNDLE = Bundle("gw", NOW, 7, "ab", (GATEWAY, LEAF), (CREDENTIAL,), (REVOCATION,), (REPLACEMENT,), (VOID,))
DAY = timedelta(days=1)


def test_it_comes_back_as_it_was() -> None:
    assert unpack(Bundle, json.loads(json.dumps(pack(BUNDLE)))) == BUNDLE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.data(), JSON)
def test_whatever_else_it_is_it_is_refused(data: st.DataObject, junk: Any) -> None:
    """One place in it is something else: either that is as good, or it is a ValueError and nothing else."""
    packed = json.loads(json.dumps(pack(BUNDLE)))
    place = packed
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = junk
    with contextlib.suppress(ValueError):
        assert isinstance(unpack(Bundle, packed), Bundle)


@pytest.mark.parametrize(
    ("changes", "now", "says"),
    [
        ({}, NOW, None),
        ({}, NOW + DAY, None),
        ({}, NOW - timedelta(minutes=1), None),
        ({}, NOW + 2 * DAY, "what was revoked since"),
        ({}, NOW - DAY, "yet to come"),
        ({"device_id": "other"}, NOW, "it is of other"),
        ({"version": 2}, NOW, "version 2"),
        ({"devices": (LEAF,)}, NOW, "the gateway itself"),
        ({"devices": (GATEWAY,)}, NOW, "do not fit together"),
        ({"devices": (GATEWAY, LEAF, LEAF)}, NOW, "do not fit together"),
    ],
)
def test_what_is_taken_over(changes: dict[str, Any], now: datetime, says: str | None) -> None:
    fault = fault_of(replace(BUNDLE, **changes), "gw", now, transfer.LONGEST_AGE)
    assert fault is None if says is None else says in (fault or "")
