"""How the Entra stand-in judges a client assertion."""

from __future__ import annotations

import base64
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from gatewayd.lab.entra_assertion import EntraError, check
from gatewayd.lab.entra_directory import Application

CLIENT = "33333333-0000-4000-8000-000000000001"
AUDIENCE = "https://entra.example/tenant/oauth2/v2.0/token"
KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = rsa.generate_private_key(65537, 2048)


def self_signed(key: rsa.RSAPrivateKey, ends: timedelta = timedelta(days=1)) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + ends)
        .sign(key, hashes.SHA256())
    )


CERTIFICATE = self_signed(KEY)
EXPIRED = self_signed(OTHER_KEY, timedelta(hours=-1))
APPLICATION = Application(CLIENT, "33333333-0000-4000-8000-000000000002", (CERTIFICATE, EXPIRED))


def name(certificate: x509.Certificate, algorithm: hashes.HashAlgorithm) -> str:
    return base64.urlsafe_b64encode(certificate.fingerprint(algorithm)).rstrip(b"=").decode()


def assertion(
    *,
    key: rsa.RSAPrivateKey = KEY,
    algorithm: str = "RS256",
    header: dict[str, str] | None = None,
    **changes: Any,
) -> str:
    now = int(time.time())
    claims = {"iss": CLIENT, "sub": CLIENT, "aud": AUDIENCE, "jti": str(uuid.uuid4()), "nbf": now, "exp": now + 600}
    header = {"x5t": name(CERTIFICATE, hashes.SHA1())} if header is None else header
    return jwt.encode({**claims, **changes}, key, algorithm=algorithm, headers=header)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
@pytest.mark.parametrize(
    "header",
    [{"x5t": name(CERTIFICATE, hashes.SHA1())}, {"x5t#S256": name(CERTIFICATE, hashes.SHA256())}],
    ids=["x5t", "x5t#S256"],
)
def test_both_thumbprints_and_both_signatures_are_taken(algorithm: str, header: dict[str, str]) -> None:
    check(assertion(algorithm=algorithm, header=header), APPLICATION, AUDIENCE)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("not.a.jwt", 50027),
        (assertion(header={}), 700027),
        (assertion(header={"x5t": CERTIFICATE.fingerprint(hashes.SHA1()).hex().upper()}), 700027),
        (assertion(key=OTHER_KEY, header={"x5t": name(EXPIRED, hashes.SHA1())}), 700027),
        (assertion(key=OTHER_KEY), 700027),
        (assertion(algorithm="RS512"), 700027),
        (assertion(iss="somebody"), 700021),
        (assertion(sub="somebody"), 700021),
        (assertion(aud="https://entra.example/tenant/v2.0"), 700023),
        (assertion(jti=""), 50027),
        (assertion(exp=int(time.time()) - 3600), 700024),
        (assertion(nbf=int(time.time()) + 3600), 700024),
        (assertion(exp=int(time.time()) + 86400), 700024),
    ],
    ids=[
        "no JWT",
        "no thumbprint",
        "thumbprint in hex, as EZCA wants it",
        "expired certificate",
        "signed by another key",
        "RS512",
        "another issuer",
        "another subject",
        "another audience",
        "no jti",
        "expired",
        "not yet valid",
        "valid for a day",
    ],
)
def test_a_wrong_assertion_is_refused_with_its_code(given: str, code: int) -> None:
    with pytest.raises(EntraError) as refusal:
        check(given, APPLICATION, AUDIENCE)
    assert refusal.value.code == code
    assert refusal.value.error == "invalid_client"
