"""What EZCA is sent, and what each of its ways to answer means. The bodies are written by hand after its clients."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.ca import ezca_wire as wire
from gatewayd.ca.base import CertificateRequest, Issued
from gatewayd.ca.ezca_auth import holder_token
from gatewayd.ca.http import Answer
from gatewayd.config import EzcaSettings, OwnerSettings
from gatewayd.core.model import San
from gatewayd.errors import (
    CertificateUnacceptable,
    GatewayError,
    IssuerRejected,
    IssuerUnconfigured,
    IssuerUnreachable,
    RegistrarRefused,
)
from gatewayd.pki import csr, pem
from tests.support.authority import Authority, now

AUTHORITY = Authority()
KEY = ec.generate_private_key(ec.SECP256R1())
LEAF = AUTHORITY.leaf(KEY.public_key(), "gw-1")
CERTIFICATE, ISSUING, ROOT = (pem.encode([each]) for each in (LEAF, *AUTHORITY.chain))
OWNER = OwnerSettings("11111111-1111-1111-1111-111111111111", "Ada")
APPLICATION = OwnerSettings("22222222-2222-2222-2222-222222222222", "gatewayd")
SETTINGS = EzcaSettings(ca_id="AAAA-1", template_id="BBBB-2", owners=(OWNER,), lifetime_days=30, leaf_lifetime_days=7)
SANS = tuple(map(San.parse, ("dns:gw-1.example", "ip:192.0.2.7", "uri:urn:x", "email:a@b.example")))
CALL = wire.Call("issue a certificate for gw-1", "gw-1")
HOLDER = wire.Call("renew the certificate of gw-1", "gw-1", as_registrar=False)

BUNDLE = {"CertificatePEM": CERTIFICATE, "IssuingCACertificate": ISSUING, "RootCertificate": ROOT}

Reader = Callable[[Answer, wire.Call], object]
READERS: list[Reader] = [wire.bundle, wire.bare, wire.wrapped, wire.done, wire.listing]


def answer(body: object, status: int = 200, retry_after: float | None = None) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)
    return Answer(status, text.encode(), retry_after)


def request(device_id: str = "gw-1", **changes: Any) -> CertificateRequest:
    fields: dict[str, Any] = {"csr": csr.build(KEY, device_id, SANS), "sans": SANS, "server_auth": True, **changes}
    return CertificateRequest(device_id, **fields)


# --- bodies --------------------------------------------------------------------------------------


def test_a_request_says_subject_names_and_purposes_itself() -> None:
    body = wire.certificate_request(SETTINGS, request())
    assert body["SubjectName"] == "CN=gw-1"
    assert body["SubjectAltNames"] == [
        {"SubjectAltType": 2, "ValueSTR": "gw-1.example"},
        {"SubjectAltType": 7, "ValueSTR": "192.0.2.7"},
        {"SubjectAltType": 6, "ValueSTR": "urn:x"},
        {"SubjectAltType": 1, "ValueSTR": "a@b.example"},
    ]
    assert (body["CAID"], body["TemplateID"]) == ("AAAA-1", "BBBB-2")
    assert body["CSR"].startswith("-----BEGIN CERTIFICATE REQUEST-----\n")
    assert body["EKUs"] == ["1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"]
    assert body["SelectedLocation"] == "IoT Device"
    assert body["ValidityInDays"] == 30


def test_a_leaf_authenticates_as_a_client_only() -> None:
    body = wire.certificate_request(SETTINGS, request("leaf-1", server_auth=False))
    assert body["EKUs"] == ["1.3.6.1.5.5.7.3.2"]
    assert body["ValidityInDays"] == 7


@pytest.mark.parametrize(("lifetime", "days"), [(timedelta(hours=1), 1), (timedelta(days=1.9), 1), (timedelta(90), 90)])
def test_lifetimes_are_whole_days_and_one_at_least(lifetime: timedelta, days: int) -> None:
    assert wire.days(SETTINGS, request(lifetime=lifetime)) == days


def test_a_comma_in_the_device_id_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(IssuerRejected, match="a,CN=b"):
        wire.certificate_request(SETTINGS, request("a,CN=b"))


def test_a_domain_is_owned_by_people_and_requested_by_the_application() -> None:
    body = wire.registration(SETTINGS, "leaf-1", APPLICATION)
    assert body["Domain"] == "leaf-1"
    assert body["Owners"] == [
        {"ObjectId": OWNER.object_id, "FriendlyName": "Ada", "ObjectType": "User", "isValid": True}
    ]
    assert [each["ObjectId"] for each in body["Requesters"]] == [APPLICATION.object_id]
    assert body["RequestersOnly"] == body["NotificationEmails"] == []


def test_renewals_and_revocations_have_the_bodies_of_their_versions() -> None:
    asked = request()
    first = wire.renewal_v1(SETTINGS, asked)
    assert first == {"CSR": pem.encode_csr(asked.csr), "ValidityInDays": 30}
    assert wire.renewal(SETTINGS, asked, LEAF) == {"Certificate": CERTIFICATE, "Payload": first}
    assert wire.revocation(SETTINGS, "ab12") == {"CAID": "AAAA-1", "TemplateID": "BBBB-2", "Thumbprint": "ab12"}


def test_the_holders_token_is_exactly_as_ezca_wants_it() -> None:
    key = rsa.generate_private_key(65537, 2048)
    certificate = AUTHORITY.leaf(key.public_key(), "gw-1")
    at = now()
    token = holder_token(key, certificate, at)
    assert jwt.get_unverified_header(token) == {
        "alg": "RS256",
        "typ": "JWT",
        "x5t": certificate.fingerprint(hashes.SHA1()).hex().upper(),
    }
    claims = jwt.decode(token, key.public_key(), algorithms=["RS256"], audience="https://ezca.io")
    assert set(claims) == {"aud", "jti", "nbf", "exp"}
    assert (claims["nbf"], claims["exp"]) == (int(at.timestamp()), int(at.timestamp()) + 1800)
    again = jwt.decode(holder_token(key, certificate, at), options={"verify_signature": False})
    assert again["jti"] != claims["jti"]


# --- yes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "body", "chain"),
    [
        (wire.bundle, BUNDLE, AUTHORITY.chain),
        (wire.bundle, json.dumps(json.dumps(BUNDLE)), AUTHORITY.chain),
        (wire.bundle, "\ufeff" + json.dumps(BUNDLE), AUTHORITY.chain),
        (wire.bundle, BUNDLE | {"RootCertificate": ""}, AUTHORITY.chain[:1]),
        (wire.bundle, BUNDLE | {"RootCertificate": None}, AUTHORITY.chain[:1]),
        (wire.bare, CERTIFICATE, ()),
        (wire.bare, json.dumps(CERTIFICATE), ()),
        (wire.wrapped, {"Success": True, "Message": CERTIFICATE}, ()),
        (wire.wrapped, json.dumps(json.dumps({"Success": True, "Message": CERTIFICATE})), ()),
    ],
)
def test_an_issued_certificate_is_read_in_each_form(
    read: Callable[[Answer, wire.Call], Issued], body: object, chain: tuple[x509.Certificate, ...]
) -> None:
    assert read(answer(body), CALL) == Issued(LEAF, chain)


def test_a_success_gives_its_message() -> None:
    assert wire.done(answer({"Success": True, "Message": "Certificate revoked."}), CALL) == "Certificate revoked"
    assert wire.done(answer({"Success": True, "Message": None}), CALL) == ""


def test_domains_come_as_a_string_within_a_message() -> None:
    domain = {"Domain": "gw-1", "CAID": "aaaa-1", "TemplateID": "bbbb-2", "IsOwner": False, "IsRequester": True}
    listed = answer({"Success": True, "Message": json.dumps([domain])})
    assert wire.has_domain(listed, CALL, SETTINGS, "gw-1")
    assert not wire.has_domain(listed, CALL, SETTINGS, "gw-2")
    assert wire.has_domain(answer({"Success": True, "Message": [domain]}), CALL, SETTINGS, "gw-1")
    other_template = answer({"Success": True, "Message": json.dumps([domain | {"TemplateID": "cccc"}])})
    assert not wire.has_domain(other_template, CALL, SETTINGS, "gw-1")
    assert not wire.has_domain(answer({"Success": True, "Message": "[]"}), CALL, SETTINGS, "gw-1")


def test_a_page_of_certificates() -> None:
    items = [
        {"CertificatePEM": CERTIFICATE, "Thumbprint": "AB12", "Revoked": True, "Unheard": 1},
        {"CertificatePEM": None},
    ]
    assert wire.listing(answer(items), CALL) == (wire.Listed(CERTIFICATE, "ab12", True), wire.Listed("", "", False))
    assert wire.listing(answer([]), CALL) == ()


# --- no ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("body", "status", "call", "error"),
    [
        ({"Success": False, "Message": "Domain not registered"}, 200, CALL, IssuerRejected),
        (json.dumps(json.dumps({"Success": False, "Message": "Domain not registered"})), 200, CALL, IssuerRejected),
        ("Error: Domain not registered", 200, CALL, IssuerRejected),
        (json.dumps("Error: Domain not registered"), 200, CALL, IssuerRejected),
        ("Domain not registered", 400, CALL, IssuerRejected),
        ("Domain not registered", 409, CALL, IssuerRejected),
        ({"Success": False, "Message": "Domain not registered"}, 404, CALL, IssuerRejected),
        ("Domain not registered", 401, CALL, RegistrarRefused),
        ({"Success": False, "Message": "Domain not registered"}, 401, CALL, RegistrarRefused),
        ("Domain not registered", 401, HOLDER, IssuerUnconfigured),
        ("Domain not registered", 403, CALL, IssuerUnconfigured),
        ("Domain not registered", 403, HOLDER, IssuerUnconfigured),
        ("Domain not registered", 404, CALL, IssuerUnconfigured),
        ("Domain not registered", 405, CALL, IssuerUnconfigured),
        ("Domain not registered", 302, CALL, IssuerUnconfigured),
        ("Domain not registered", 408, CALL, IssuerUnreachable),
        ("Domain not registered", 429, CALL, IssuerUnreachable),
        ("Domain not registered", 500, CALL, IssuerUnreachable),
        ({"Success": False, "Message": "Domain not registered"}, 503, CALL, IssuerUnreachable),
    ],
)
def test_each_no_becomes_its_error(
    read: Reader, body: object, status: int, call: wire.Call, error: type[GatewayError]
) -> None:
    with pytest.raises(GatewayError, match="Domain not registered") as caught:
        read(answer(body, status, retry_after=17.0), call)
    assert type(caught.value) is error
    assert caught.value.device == "gw-1"
    assert caught.value.retry_after == 17.0
    assert caught.value.message.startswith(f"EZCA did not {call.doing}: ")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "body", ["", "null", "true", "7", '"text"', "{", "<html>Sign in to the hotel's network</html>", {}, [7], [[]]]
)
def test_an_answer_of_no_known_form_is_unclear(read: Reader, body: object) -> None:
    """A certificate may have been minted, so it must not count as a no."""
    with pytest.raises(IssuerUnreachable, match="not of the form"):
        read(answer(body), CALL)


@pytest.mark.parametrize(
    "body",
    [
        BUNDLE | {"IssuingCACertificate": ""},
        {"CertificatePEM": CERTIFICATE, "RootCertificate": ROOT},
        BUNDLE | {"CertificatePEM": "none"},
        BUNDLE | {"CertificatePEM": 7},
    ],
)
def test_a_bundle_without_its_parts_is_unclear(body: object) -> None:
    with pytest.raises(IssuerUnreachable, match="not of the form"):
        wire.bundle(answer(body), CALL)


def test_what_calls_itself_a_certificate_and_is_none_is_unacceptable() -> None:
    broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    for read, body in (
        (wire.bundle, BUNDLE | {"CertificatePEM": broken}),
        (wire.bare, broken),
        (wire.wrapped, {"Success": True, "Message": broken}),
    ):
        with pytest.raises(CertificateUnacceptable):
            read(answer(body), CALL)


def test_only_a_bare_404_or_405_means_that_the_call_is_unknown() -> None:
    assert wire.is_unknown_call(answer("", 404))
    assert wire.is_unknown_call(answer("<html>404</html>", 405))
    assert not wire.is_unknown_call(answer({"Success": False, "Message": "no such certificate"}, 404))
    assert not wire.is_unknown_call(answer("Error: no such certificate", 404))
    assert not wire.is_unknown_call(answer("", 400))


def test_a_quoted_token_is_not_passed_on() -> None:
    token = jwt.encode({"aud": "x"}, "s" * 32, algorithm="HS256")
    with pytest.raises(IssuerRejected) as caught:
        wire.done(answer(f"Error validating {token}: expired\r\nat Server.Auth()"), CALL)
    assert "eyJ" not in caught.value.message
    assert caught.value.message.endswith("Error validating …: expired at Server.Auth().")


# --- whatever comes ------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from([CERTIFICATE, "Error"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*BUNDLE, "Success", "Message", "Domain", "Revoked", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()), st.integers(200, 599))
def test_any_answer_is_read_or_becomes_one_sentence(body: bytes, status: int) -> None:
    anything = Answer(status, body)
    failures = [error for read in READERS if (error := _failure(read, anything))]
    assert all(re.fullmatch(r"[^\n]{1,400}\.", error.message) for error in failures)
    wire.is_unknown_call(anything)


def _failure(read: Reader, anything: Answer) -> GatewayError | None:
    try:
        read(anything, CALL)
    except GatewayError as error:
        return error
    return None


def test_a_deeply_nested_answer_does_not_break_the_reader() -> None:
    with pytest.raises(IssuerUnreachable):
        wire.bundle(answer("[" * 100_000), CALL)


@given(st.text(max_size=5000))
def test_words_of_a_peer_are_one_bounded_line(text: str) -> None:
    words = wire.excerpt(text)
    assert len(words) <= 201
    assert words.isprintable()
