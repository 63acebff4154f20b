"""OCSP: which answers are believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp as x509_ocsp
from cryptography.x509.ocsp import OCSPCertStatus, OCSPResponderEncoding, OCSPResponseStatus
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.errors import RevocationDataUnusable
from gatewayd.pki import ocsp
from tests.support.authority import CLIENT, Authority

AUTHORITY = Authority()
IMPOSTOR = Authority()
ISSUER = AUTHORITY.issuing
LEAF_KEY = ec.generate_private_key(ec.SECP256R1())
LEAF = AUTHORITY.leaf(LEAF_KEY.public_key(), "leaf-1")
NONCE = b"0123456789abcdef"
NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)


def answer(
    certificate: x509.Certificate = LEAF,
    *,
    by: x509.Certificate = ISSUER,
    key: ec.EllipticCurvePrivateKey = AUTHORITY.issuing_key,
    status: OCSPCertStatus = OCSPCertStatus.GOOD,
    this_update: datetime = NOW,
    next_update: datetime | None = NOW + HOUR,
    nonce: bytes | None = NONCE,
    reason: x509.ReasonFlags | None = None,
    along: bool = False,
) -> bytes:
    builder = (
        x509_ocsp.OCSPResponseBuilder()
        .add_response(
            certificate,
            ISSUER,
            hashes.SHA1(),
            status,
            this_update,
            next_update,
            NOW - HOUR if status is OCSPCertStatus.REVOKED else None,
            reason,
        )
        .responder_id(OCSPResponderEncoding.HASH, by)
    )
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    if along:
        builder = builder.certificates([by])
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def read(data: bytes) -> ocsp.Answer:
    return ocsp.read(data, LEAF, ISSUER, NONCE, NOW)


def test_good_revoked_and_unknown() -> None:
    assert read(answer()).status is OCSPCertStatus.GOOD
    found = read(answer(status=OCSPCertStatus.REVOKED, reason=x509.ReasonFlags.key_compromise))
    assert (found.status, found.reason) == (OCSPCertStatus.REVOKED, x509.ReasonFlags.key_compromise)
    assert found.revoked_at == NOW - HOUR
    assert read(answer(status=OCSPCertStatus.UNKNOWN)).status is OCSPCertStatus.UNKNOWN


def test_an_answer_may_have_been_made_in_advance() -> None:
    assert read(answer(nonce=None)).status is OCSPCertStatus.GOOD
    assert read(answer(nonce=None, next_update=None)).status is OCSPCertStatus.GOOD


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nonce": b"fedcba9876543210"}, "answers another request"),
        ({"certificate": AUTHORITY.leaf(LEAF_KEY.public_key(), "leaf-1")}, "about another certificate"),
        ({"this_update": NOW - 3 * HOUR, "next_update": NOW - HOUR}, "out of date"),
        ({"this_update": NOW - timedelta(days=2), "next_update": None}, "out of date"),
        ({"this_update": NOW + HOUR, "next_update": NOW + 2 * HOUR}, "not valid yet"),
        ({"by": IMPOSTOR.issuing, "key": IMPOSTOR.issuing_key}, "not signed by the certificate's issuer"),
        ({"by": IMPOSTOR.issuing, "key": IMPOSTOR.issuing_key, "along": True}, "nor by whom that has authorised"),
        ({"by": LEAF, "key": LEAF_KEY, "along": True}, "not signed by the certificate's issuer"),
    ],
)
def test_answers_that_are_not_believed(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RevocationDataUnusable, match=words):
        read(answer(**changes))


def _delegate(issuer: Authority = AUTHORITY, *, purpose: x509.ObjectIdentifier, **times: Any) -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    return issuer.leaf(key.public_key(), "Responder", purposes=[purpose], **times), key


def test_a_responder_that_the_issuer_has_authorised() -> None:
    by, key = _delegate(purpose=ExtendedKeyUsageOID.OCSP_SIGNING)
    assert read(answer(by=by, key=key, along=True)).status is OCSPCertStatus.GOOD
    with pytest.raises(RevocationDataUnusable):
        read(answer(by=by, key=key))  # nobody knows it
    for by, key in (
        _delegate(purpose=CLIENT),
        _delegate(Authority(), purpose=ExtendedKeyUsageOID.OCSP_SIGNING),
        _delegate(purpose=ExtendedKeyUsageOID.OCSP_SIGNING, starts=timedelta(days=-9), lasts=timedelta(days=1)),
    ):
        with pytest.raises(RevocationDataUnusable, match="nor by whom that has authorised"):
            read(answer(by=by, key=key, along=True))


def test_a_responders_refusal_is_told() -> None:
    refusal = x509_ocsp.OCSPResponseBuilder.build_unsuccessful(OCSPResponseStatus.TRY_LATER)
    with pytest.raises(RevocationDataUnusable, match="the responder says try later"):
        read(refusal.public_bytes(serialization.Encoding.DER))


def test_the_request_names_the_certificate_and_carries_the_nonce() -> None:
    asked = x509_ocsp.load_der_ocsp_request(ocsp.request(LEAF, ISSUER, NONCE))
    assert asked.serial_number == LEAF.serial_number
    assert asked.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == NONCE


def test_the_responder_that_a_certificate_names() -> None:
    def access(*urls: str) -> x509.Certificate:
        places = [
            x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(each))
            for each in urls
        ]
        extra = [(x509.AuthorityInformationAccess(places), False)]
        return AUTHORITY.leaf(LEAF_KEY.public_key(), "leaf-1", extra=extra)

    assert ocsp.responder_of(LEAF) is None
    assert ocsp.responder_of(access("ldap://pki.example/", "http://pki.example/ocsp")) == "http://pki.example/ocsp"


GOOD = answer()


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(["cut", "flip", "junk"]), place=st.integers(0, 2**16), junk=st.binary(min_size=1))
def test_whatever_comes_is_refused_or_says_the_same(kind: str, place: int, junk: bytes) -> None:
    at = place % len(GOOD)
    flipped = GOOD[:at] + bytes([GOOD[at] ^ (junk[0] or 1)]) + GOOD[at + 1 :]
    bad = {"cut": GOOD[:at], "flip": flipped, "junk": junk}[kind]
    try:
        found = read(bad)
    except RevocationDataUnusable:
        return
    assert found == read(GOOD)
