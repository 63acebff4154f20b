"""EZCA's stand-in as a certificate's holder meets it (ezca.md, calls with the certificate's own JWT)."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from .client import Ezca, csr, ec_key, extension, holder_token, pem, rsa_key, sha1


def dns(name: str) -> x509.DNSName:
    return x509.DNSName(name)


async def test_all_three_renewals_each_in_its_own_form(ezca: Ezca, key: rsa.RSAPrivateKey) -> None:
    certificate = await ezca.issued("hold-1", key)
    request = csr(ec_key(), "hold-1", dns("hold-1"))

    status, text = await ezca.renew("", certificate, key, request)
    v1 = json.loads(text)
    assert (status, v1["Success"]) == (200, True)

    status, v2 = await ezca.renew("V2", certificate, key, request)
    assert status == 200
    assert v2.startswith("-----BEGIN CERTIFICATE-----")

    status, text = await ezca.renew("V3", certificate, key, request)
    v3 = json.loads(text)
    assert status == 200
    assert set(v3) == {"CertificatePEM", "IssuingCACertificate", "RootCertificate"}

    for text in (v1["Message"], v2, v3["CertificatePEM"]):
        renewed = x509.load_pem_x509_certificate(text.encode())
        assert renewed.public_key() == request.public_key()
        assert renewed.subject == certificate.subject
        for kind in (x509.SubjectAlternativeName, x509.KeyUsage, x509.ExtendedKeyUsage):
            assert extension(renewed, kind) == extension(certificate, kind)
        assert (renewed.not_valid_after_utc - renewed.not_valid_before_utc).days == 20


NOW = int(time.time())


@pytest.mark.parametrize(
    "changes",
    [
        {"x5t": "base64url_of_a_sha1_digest_"},
        {"x5t": "0" * 40},
        {"typ": "at+jwt"},
        {"aud": "https://portal.ezca.io"},
        {"exp": NOW - 3600, "nbf": NOW - 5400},
        {"nbf": NOW + 3600, "exp": NOW + 5400},
        {"exp": NOW + 86400},
        {"exp": None},
        {"nbf": None},
        {"jti": None},
        {"algorithm": "RS512"},
        {"algorithm": "PS256"},
    ],
    ids=lambda changes: ",".join(f"{name}={value}" for name, value in changes.items())[:40],
)
async def test_a_wrong_jwt_is_refused(ezca: Ezca, key: rsa.RSAPrivateKey, changes: dict[str, Any]) -> None:
    certificate = await ezca.issued_once("hold-jwt", key)
    token = holder_token(certificate, key, **changes)
    status, _ = await ezca.call("GET", "/api/Certificates/RevokeCertificate", token=token)
    assert status == 401


async def test_lower_case_x5t_and_another_key_are_refused(ezca: Ezca, key: rsa.RSAPrivateKey) -> None:
    certificate = await ezca.issued_once("hold-jwt", key)
    path = "/api/Certificates/RevokeCertificate"
    assert (await ezca.call("GET", path, token=holder_token(certificate, key, x5t=sha1(certificate))))[0] == 401
    assert (await ezca.call("GET", path, token=holder_token(certificate, rsa_key())))[0] == 401


async def test_an_ec_certificate_cannot_use_this_way(ezca: Ezca) -> None:
    key = ec_key()
    certificate = await ezca.issued("hold-ec", key)
    token = holder_token(certificate, key, algorithm="ES256")
    status, text = await ezca.call("GET", "/api/Certificates/RevokeCertificate", token=token)
    assert status == 401
    assert "RSA" in text


@pytest.mark.parametrize("version", ["", "V2", "V3"])
@pytest.mark.parametrize(
    ("name", "sans"),
    [("hold-other", ["hold-csr"]), ("hold-csr", []), ("hold-csr", ["hold-csr", "more.example"])],
    ids=["another subject", "no SAN", "one SAN more"],
)
async def test_a_csr_that_differs_is_refused(
    ezca: Ezca, key: rsa.RSAPrivateKey, version: str, name: str, sans: list[str]
) -> None:
    certificate = await ezca.issued_once("hold-csr", key)
    request = csr(ec_key(), name, *(dns(each) for each in sans))
    status, text = await ezca.renew(version, certificate, key, request)
    match version:
        case "":
            assert (status, json.loads(text)["Success"]) == (200, False)
        case "V2":
            assert status == 200
            assert text.startswith("Error")
        case _:
            assert status == 400
    assert "CERTIFICATE" not in text


async def test_the_body_must_name_the_certificate_that_signed(ezca: Ezca, key: rsa.RSAPrivateKey) -> None:
    certificate = await ezca.issued("hold-2", key)
    other = await ezca.issued("hold-3", key)
    body = {"Certificate": pem(other), "Payload": {"CSR": pem(csr(key, "hold-3", dns("hold-3"))), "ValidityInDays": 1}}
    token = holder_token(certificate, key)
    status, _ = await ezca.call("POST", "/api/Certificates/RenewCertificateV3", body, token)
    assert status == 401


async def test_a_revoked_certificate_does_nothing_more(ezca: Ezca, key: rsa.RSAPrivateKey) -> None:
    certificate = await ezca.issued("hold-4", key)
    path = "/api/Certificates/RevokeCertificate"
    status, text = await ezca.call("GET", path, token=holder_token(certificate, key))
    assert (status, json.loads(text)["Success"]) == (200, True)

    assert (await ezca.call("GET", path, token=holder_token(certificate, key)))[0] == 401
    status, _ = await ezca.renew("V3", certificate, key, csr(key, "hold-4", dns("hold-4")))
    assert status == 401


async def test_an_expired_certificate_does_nothing_more(ezca: Ezca, key: rsa.RSAPrivateKey) -> None:
    ezca.lab.post("ezca", "/lab/lifetime", {"seconds": 1})
    try:
        certificate = await ezca.issued("hold-5", key)
    finally:
        ezca.lab.post("ezca", "/lab/lifetime", {"seconds": None})
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).total_seconds() == 1
    await asyncio.sleep(2)
    status, text = await ezca.renew("V3", certificate, key, csr(key, "hold-5", dns("hold-5")))
    assert status == 401
    assert "expired" in text


async def test_an_older_server_knows_fewer_renewals(ezca: Ezca, key: rsa.RSAPrivateKey) -> None:
    certificate = await ezca.issued("hold-6", key)
    request = csr(key, "hold-6", dns("hold-6"))
    ezca.lab.post("ezca", "/lab/unknown", {"calls": ["RenewCertificateV3", "RenewCertificateV2"]})
    try:
        answers = [(await ezca.renew(version, certificate, key, request))[0] for version in ("V3", "V2", "")]
    finally:
        ezca.lab.post("ezca", "/lab/unknown", {"calls": []})
    assert answers == [404, 404, 200]
