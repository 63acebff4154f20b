"""Whom the responder believes, and what it does about it."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.replacement import CLOCK_SKEW
from gatewayd.upstream import report
from gatewayd.upstream.answers import Status
from gatewayd.upstream.base import HubIdentity
from gatewayd.upstream.responder.decision import Act, Verdict, judge
from gatewayd.upstream.responder.message import Ignored, Request, read

NOW = datetime(2031, 5, 1, tzinfo=UTC)
SCOPE = "ms-azure-iot-edge://gw-1-638"
STAMP = {
    "iothub-connection-device-id": "gw-1",
    "iothub-connection-auth-generation-id": "638",
    "iothub-connection-auth-method": '{"scope": "device", "type": "x509Certificate", "issuer": "external"}',
}
BODY = {
    "type": "revocation",
    "deviceId": "leaf-1",
    "serial": "1a2b",
    "thumbprint": "AB" * 32,
    "notAfter": "2031-06-01T00:00:00Z",
    "reason": "keyCompromise",
}


def identity(device_id: str, scope: str = SCOPE, **changed: Any) -> HubIdentity:
    plain = HubIdentity(
        device_id=device_id,
        etag="e1",
        generation_id="638",
        enabled=True,
        status_reason="",
        authentication_type="certificateAuthority",
        primary_thumbprint=None,
        secondary_thumbprint=None,
        scope=scope,
        is_gateway=False,
        parents=(scope,) if scope else (),
        raw={},
    )
    return replace(plain, **changed)


GATEWAY = identity("gw-1", is_gateway=True, parents=())
LEAF = identity("leaf-1")
REQUEST = read(STAMP, BODY)


def asked(**changed: Any) -> Request:
    return replace(REQUEST, **changed)


def test_a_message_is_read() -> None:
    assert asked() == Request(
        "gw-1", "638", "revocation", "leaf-1", "1a2b", "ab" * 32, NOW + timedelta(days=31), "keyCompromise"
    )


@pytest.mark.parametrize(
    "stamp",
    [
        {},
        STAMP | {"iothub-connection-device-id": ""},
        STAMP | {"iothub-connection-auth-generation-id": None},
        STAMP | {"iothub-connection-auth-method": '{"scope": "device", "type": "sas", "issuer": "iothub"}'},
        STAMP | {"iothub-connection-auth-method": '{"scope": "hub", "type": "x509Certificate"}'},
        STAMP | {"iothub-connection-auth-method": "x509Certificate"},
    ],
)
def test_only_what_the_hub_stamped_on_a_certificates_connection_is_believed(stamp: dict[str, Any]) -> None:
    with pytest.raises(Ignored):
        read(stamp, BODY)


JSON: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just([1])


@given(st.dictionaries(st.sampled_from([*STAMP, *BODY]), JSON), st.dictionaries(st.sampled_from([*BODY]), JSON) | JSON)
def test_any_message_is_read_or_ignored(system: dict[str, Any], body: Any) -> None:
    for stamps in (system, STAMP):
        with suppress(Ignored):
            read(stamps, body)


@pytest.mark.parametrize("device_id", ["\ud800", "..", "a/b", "x" * 65])
def test_what_is_no_device_id_is_ignored(device_id: str) -> None:
    with pytest.raises(Ignored):
        read(STAMP, BODY | {"deviceId": device_id})
    with pytest.raises(Ignored):
        read(STAMP, BODY | {"serial": device_id})


def test_words_of_a_device_do_not_get_into_an_identity() -> None:
    assert read(STAMP, BODY | {"reason": "\ud800"}).reason == "unspecified"


def test_any_time_may_be_named() -> None:
    for moment in ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59"):
        judge(read(STAMP, BODY | {"notAfter": moment}), GATEWAY, LEAF, NOW)


def test_a_report_that_comes_when_the_pin_has_just_been_lifted_harms_nobody() -> None:
    """Which is some minutes after the last revoked certificate has expired (core.replacement.CLOCK_SKEW)."""
    soon_after = NOW + timedelta(days=31) + CLOCK_SKEW
    assert judge(REQUEST, GATEWAY, LEAF, soon_after).status is Status.STALE


def test_a_gateway_speaks_for_itself_and_its_children() -> None:
    assert judge(REQUEST, GATEWAY, LEAF, NOW) == Verdict(Act.DISABLE)
    assert judge(asked(device_id="gw-1"), GATEWAY, GATEWAY, NOW) == Verdict(Act.DISABLE)


STRANGERS = {
    "of another gateway": identity("leaf-1", "ms-azure-iot-edge://gw-2-1"),
    "of nobody": identity("leaf-1", ""),
    "a gateway itself": identity("leaf-1", "ms-azure-iot-edge://leaf-1-1", is_gateway=True, parents=()),
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_it_does_not_speak_for_anybody_else(stranger: HubIdentity) -> None:
    for kind in (report.REVOCATION, report.ENROLLMENT):
        verdict = judge(asked(kind=kind), GATEWAY, stranger, NOW)
        assert (verdict.act, verdict.status) == (Act.ANSWER, Status.REFUSED)
    assert judge(REQUEST, GATEWAY, stranger, NOW, revoked_at_ca=True) == Verdict(Act.DISABLE)


def test_a_leaf_speaks_for_itself_alone_though_it_shares_its_gateways_scope() -> None:
    speaker = identity("leaf-2")
    said = asked(speaker="leaf-2")
    assert judge(said, speaker, LEAF, NOW).act is Act.IGNORE
    assert judge(replace(said, kind=report.ENROLLMENT), speaker, None, NOW).act is Act.IGNORE
    assert judge(replace(said, device_id="leaf-2"), speaker, speaker, NOW).act is Act.DISABLE


def test_a_speaker_who_is_gone_or_another_by_now_is_not_heard() -> None:
    assert judge(REQUEST, None, LEAF, NOW).act is Act.IGNORE
    assert judge(REQUEST, replace(GATEWAY, generation_id="639"), LEAF, NOW).act is Act.IGNORE


PIN, OTHER = "ab" * 32, "cd" * 32
ALREADY = {
    "gone": (None, Status.ABSENT),
    "disabled": (replace(LEAF, enabled=False), Status.DISABLED),
    "pinned to another": (replace(LEAF, authentication_type="selfSigned", primary_thumbprint=OTHER), Status.SHUT_OUT),
}


@pytest.mark.parametrize(("device", "status"), ALREADY.values(), ids=ALREADY)
def test_what_is_shut_out_already_is_left_alone(device: HubIdentity | None, status: Status) -> None:
    verdict = judge(REQUEST, GATEWAY, device, NOW)
    assert (verdict.act, verdict.status) == (Act.ANSWER, status)


def test_a_report_that_comes_when_its_certificate_has_expired_harms_nobody() -> None:
    late = NOW + timedelta(days=32)
    assert judge(REQUEST, GATEWAY, LEAF, late) == Verdict(Act.ANSWER, Status.STALE, "the certificate has expired")
    assert judge(asked(etag="e0"), GATEWAY, LEAF, late).status is Status.STALE
    assert judge(asked(etag="e1"), GATEWAY, LEAF, late).act is Act.DISABLE  # asked for this very version
    assert judge(asked(not_after=None), GATEWAY, LEAF, late).act is Act.DISABLE


@pytest.mark.parametrize(
    "pinned",
    [
        {"primary_thumbprint": PIN.upper()},
        {"primary_thumbprint": OTHER, "secondary_thumbprint": PIN},
        {"primary_thumbprint": "12" * 20},  # SHA-1: whose it is cannot be told
    ],
)
def test_an_identity_that_the_revoked_certificate_may_open_is_disabled(pinned: dict[str, str]) -> None:
    device = replace(LEAF, authentication_type="selfSigned", **pinned)  # type: ignore[arg-type]
    assert judge(REQUEST, GATEWAY, device, NOW).act is Act.DISABLE
    assert judge(asked(thumbprint=None), GATEWAY, replace(device, primary_thumbprint=OTHER), NOW).act is Act.DISABLE


def test_a_leafs_identity_is_created_for_its_gateway_and_never_enabled() -> None:
    wanted = asked(kind=report.ENROLLMENT)
    assert judge(wanted, GATEWAY, None, NOW).act is Act.CREATE
    assert judge(wanted, GATEWAY, LEAF, NOW).status is Status.PRESENT
    assert judge(wanted, GATEWAY, replace(LEAF, enabled=False), NOW).status is Status.DISABLED


# --- pins -----------------------------------------------------------------------------------------

A, B, C = "a" * 64, "b" * 64, "c" * 64
PIN_BODY = {"type": "pin", "deviceId": "leaf-1", "serial": "2", "thumbprints": [A, B], "enable": True, "etag": "e1"}
TO_PIN = read(STAMP, PIN_BODY)
SHUT = replace(LEAF, enabled=False)
PINNED = replace(LEAF, authentication_type="selfSigned", primary_thumbprint=A.upper(), secondary_thumbprint=B)
TO_UNPIN = read(STAMP, PIN_BODY | {"type": "unpin", "serial": "", "thumbprints": [A, B, C], "enable": False})


def test_a_gateway_may_have_its_child_pinned_and_enabled_and_let_go_again() -> None:
    assert judge(TO_PIN, GATEWAY, SHUT, NOW).act is Act.PIN
    assert judge(TO_PIN, GATEWAY, PINNED, NOW) == Verdict(Act.ANSWER, Status.PINNED)
    assert judge(TO_PIN, GATEWAY, replace(PINNED, enabled=False), NOW).act is Act.PIN
    assert judge(TO_PIN, GATEWAY, None, NOW).act is Act.PIN
    assert judge(replace(TO_PIN, enable=False), GATEWAY, None, NOW) == Verdict(Act.ANSWER, Status.ABSENT)
    assert judge(TO_UNPIN, GATEWAY, PINNED, NOW).act is Act.UNPIN
    for other in (LEAF, replace(PINNED, secondary_thumbprint="d" * 64)):
        assert judge(TO_UNPIN, GATEWAY, other, NOW) == Verdict(Act.ANSWER, Status.UNPINNED)


@pytest.mark.parametrize("request_", [TO_PIN, TO_UNPIN])
def test_a_pin_that_comes_late_or_again_changes_nothing(request_: Request) -> None:
    """Above all it enables nobody who was revoked since."""
    later = replace(PINNED if request_ is TO_UNPIN else SHUT, etag="e2")
    assert judge(request_, GATEWAY, later, NOW) == Verdict(Act.ANSWER, Status.STALE)


@pytest.mark.parametrize("request_", [TO_PIN, TO_UNPIN])
@pytest.mark.parametrize("device", STRANGERS.values(), ids=STRANGERS)
def test_nobody_pins_what_is_not_his(request_: Request, device: HubIdentity) -> None:
    for enabled in (True, False):
        verdict = judge(request_, GATEWAY, replace(device, enabled=enabled), NOW, revoked_at_ca=True)
        assert verdict.status is Status.REFUSED
    assert judge(request_, replace(LEAF, device_id="leaf-2"), SHUT, NOW).act is Act.IGNORE


@pytest.mark.parametrize(
    "changed",
    [
        {"thumbprints": [A]},
        {"thumbprints": [A, "AB"]},
        {"thumbprints": "ab"},
        {"thumbprints": None},
        {"enable": "yes"},
        {"etag": None},
    ],
)
def test_a_pin_of_another_form_is_ignored(changed: dict[str, Any]) -> None:
    with pytest.raises(Ignored):
        read(STAMP, PIN_BODY | changed)


# --- a gateway's own pin: whoever holds the old hardware is the same device to the hub ---------------------------


DER = b"the new certificate"
NEW = hashlib.sha256(DER).hexdigest()
OWN_BODY = PIN_BODY | {
    "deviceId": "gw-1",
    "thumbprints": [NEW, NEW],
    "certificate": base64.b64encode(DER).decode(),
    "replaced": [base64.b64encode(b"the old one").decode()],
}


def own(**changed: Any) -> Verdict:
    """What is said about the gateway's own pin; ``device`` and ``fault`` go to the judge, the rest to the message."""
    device, fault = changed.pop("device", GATEWAY), changed.pop("fault", "")
    return judge(read(STAMP, OWN_BODY | changed), device, device, NOW, fault=fault)


def pinned_to(*thumbprints: str) -> HubIdentity:
    primary, secondary = thumbprints
    return replace(
        GATEWAY, authentication_type="selfSigned", primary_thumbprint=primary, secondary_thumbprint=secondary
    )


def test_a_gateway_gets_its_own_pin_where_the_ca_bears_it_out() -> None:
    assert own() == Verdict(Act.PIN)
    assert own(device=replace(GATEWAY, enabled=False)) == Verdict(Act.PIN)
    assert own(device=pinned_to(NEW, NEW)) == Verdict(Act.ANSWER, Status.PINNED)


def test_it_places_its_next_certificate_beside_the_one_that_is_pinned() -> None:
    beside = {"thumbprints": [A, NEW], "replaced": [], "enable": False}
    assert own(device=pinned_to(A, A), **beside) == Verdict(Act.PIN)
    assert own(device=pinned_to(B, B), **beside).status is Status.REFUSED


@pytest.mark.parametrize(
    "changed",
    [
        {"fault": "the CA has revoked its certificate"},
        {"thumbprints": [A, A]},
        {"thumbprints": [NEW, A]},
        {"replaced": []},
        {"certificate": None},
        {"certificate": base64.b64encode(b"another").decode()},
    ],
)
def test_what_would_serve_the_old_hardware_is_refused(changed: dict[str, Any]) -> None:
    verdict = own(**changed)
    assert (verdict.act, verdict.status) == (Act.ANSWER, Status.REFUSED)
    assert verdict.detail
    assert own(**changed, etag="e0").status is Status.STALE


@pytest.mark.parametrize("changed", [{"replaced": "x"}, {"replaced": ["?"]}, {"replaced": ["YQ=="] * 65}])
def test_a_list_of_replaced_certificates_of_another_form_is_ignored(changed: dict[str, Any]) -> None:
    with pytest.raises(Ignored):
        own(**changed)
