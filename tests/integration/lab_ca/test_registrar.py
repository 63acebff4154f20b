"""EZCA's stand-in as a registrar meets it (ezca.md, calls with the Entra token)."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from gatewayd.lab import entra_token

from .client import MANAGEMENT, OWNER, STRANGER, Ezca, csr, ec_key, pem, person, sha1


async def test_the_ca_list_comes_bare_and_wrapped(ezca: Ezca) -> None:
    bare = await ezca.ca("GetAvailableSSLCAs")
    assert [(each["CAID"], each["TemplateID"]) for each in bare] == [tuple(ezca.ids.values())]
    assert bare[0]["CATemplateType"] == "SSL Template"
    assert isinstance(bare[0]["MaxCertLifeDays"], int)

    wrapped = await ezca.ca("GetMyCAs")
    assert wrapped["Success"] is True
    assert json.loads(wrapped["Message"]) == bare

    assert await ezca.ca(f"GetSSLCA?caID={ezca.ids['CAID']}") == bare
    assert await ezca.ca("GetSSLCA?caID=00000000-0000-0000-0000-000000000000") == []


@pytest.mark.parametrize(
    ("audience", "lifetime"),
    [("https://iothubs.azure.net", 3600), ("https://management.core.windows.net", -60)],
    ids=["for the hub", "expired"],
)
async def test_a_token_for_elsewhere_or_out_of_date_is_refused(ezca: Ezca, audience: str, lifetime: int) -> None:
    token = entra_token.mint(ezca.lab.directory, audience, OWNER, upn="ada@plant.example", lifetime=lifetime)
    status, _ = await ezca.call("GET", "/api/CA/GetMyDomains", token=token)
    assert status == 401


async def test_the_token_is_needed_and_its_signature_counts(ezca: Ezca) -> None:
    async with ezca.session.get(ezca.lab.url("ezca") + "/api/CA/GetMyCAs") as answer:
        assert answer.status == 401
    head, claims, _ = ezca.token.split(".")
    other = ezca.lab.token(MANAGEMENT, STRANGER).split(".")[2]
    status, _ = await ezca.call("GET", "/api/CA/GetMyCAs", token=f"{head}.{claims}.{other}")
    assert status == 401


async def test_audience_with_a_trailing_slash_is_taken(ezca: Ezca) -> None:
    token = entra_token.mint(ezca.lab.directory, "https://management.core.windows.net/", OWNER, upn="ada@plant.example")
    assert await ezca.ca("GetMyCAs", token=token)


async def test_a_domain_is_registered_once_and_seen_by_its_people_only(ezca: Ezca) -> None:
    requester = person(STRANGER)
    assert (await ezca.ca("RegisterNewDomain", ezca.registration("reg-1", Requesters=[requester])))["Success"]
    assert not (await ezca.ca("RegisterNewDomain", ezca.registration("reg-1")))["Success"]
    assert (await ezca.ca("RegisterNewDomain", ezca.registration("reg-2")))["Success"]

    mine = {each["Domain"]: each for each in json.loads((await ezca.ca("GetMyDomains"))["Message"])}
    assert mine["reg-1"]["IsOwner"] is True
    assert mine["reg-1"]["IsRequester"] is False
    assert mine["reg-1"]["Requesters"] == [requester]

    theirs = await ezca.ca("GetMyDomains", token=ezca.lab.token(MANAGEMENT, STRANGER))
    assert [each["Domain"] for each in json.loads(theirs["Message"])] == ["reg-1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"Owners": []},
        {"Owners": [{"ObjectId": OWNER, "FriendlyName": "Ada", "ObjectType": "User", "IsValid": True}]},
        {"Owners": [person(OWNER, ObjectType="Application")]},
        {"TemplateID": "00000000-0000-0000-0000-000000000000"},
    ],
    ids=["no owner", "upper-case IsValid", "application", "no such template"],
)
async def test_a_registration_is_refused(ezca: Ezca, changes: dict[str, Any]) -> None:
    answer = await ezca.ca("RegisterNewDomain", ezca.registration("refused", **changes))
    assert answer["Success"] is False
    assert answer["Message"]


async def test_an_application_that_entra_knows_can_request_but_not_own(ezca: Ezca, key: rsa.RSAPrivateKey) -> None:
    own = await ezca.issued("portal", key)
    app = {"client_id": "22222222-0000-4000-8000-000000000001", "object_id": "22222222-0000-4000-8000-000000000002"}
    ezca.lab.post("entra", "/lab/applications", {**app, "certificate": pem(own)})
    gateway = person(app["object_id"])

    owned = await ezca.ca("RegisterNewDomain", ezca.registration("app-1", Owners=[gateway]))
    assert owned["Success"] is False
    requested = await ezca.ca("RegisterNewDomain", ezca.registration("app-1", Requesters=[gateway]))
    assert requested["Success"] is True

    audience = MANAGEMENT.removesuffix("/.default")
    token = entra_token.mint(ezca.lab.directory, audience, app["object_id"], appid=app["client_id"])
    answer = await ezca.ca("RequestSSLCertificateV2", ezca.order("app-1", ec_key()), token)
    assert "CertificatePEM" in answer


async def test_the_certificate_is_what_the_request_says_and_only_the_key_comes_from_the_csr(ezca: Ezca) -> None:
    await ezca.ca("RegisterNewDomain", ezca.registration("req-1"))
    key = ec_key()
    names = [(2, "req-1"), (1, "ops@plant.example"), (6, "urn:plant:req-1"), (7, "192.0.2.7")]
    order = ezca.order(
        "req-1",
        key,
        CSR=pem(csr(key, "somebody-else", x509.DNSName("elsewhere.example"))),
        SubjectAltNames=[{"SubjectAltType": kind, "ValueSTR": value} for kind, value in names],
        ValidityInDays=10_000,
    )
    answer = await ezca.ca("RequestSSLCertificateV2", order)
    certificate = x509.load_pem_x509_certificate(answer["CertificatePEM"].encode())

    assert certificate.subject.rfc4514_string() == "CN=req-1"
    assert certificate.public_key() == key.public_key()
    sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in sans] == [value for _, value in names]
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign) == (True, True, False)
    assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime == timedelta(days=365), "capped by MaxCertLifeDays"

    issuing, root = (
        x509.load_pem_x509_certificate(answer[name].encode()) for name in ("IssuingCACertificate", "RootCertificate")
    )
    certificate.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(root)


async def test_v1_takes_plain_names_and_answers_wrapped(ezca: Ezca) -> None:
    await ezca.ca("RegisterNewDomain", ezca.registration("req-v1"))
    order = ezca.order("req-v1", ec_key(), SubjectAltNames=["req-v1"])
    answer = await ezca.ca("RequestSSLCertificate", order)
    assert answer["Success"] is True
    certificate = x509.load_pem_x509_certificate(answer["Message"].encode())
    assert certificate.subject.rfc4514_string() == "CN=req-v1"


async def test_requests_that_are_refused_mint_nothing(ezca: Ezca) -> None:
    await ezca.ca("RegisterNewDomain", ezca.registration("req-2"))
    key = ec_key()
    before = len(ezca.lab.get("ezca", "/lab/certificates"))
    tampered = csr(key, "req-2").public_bytes(serialization.Encoding.DER)
    orders = [
        ezca.order("not-registered", key),
        ezca.order("req-2", key, ValidityInDays=0),
        ezca.order("req-2", key, KeyUsages=["digitalSignature"]),
        ezca.order("req-2", key, EKUs=["clientAuth"]),
        ezca.order("req-2", key, SubjectName="req-2"),
        ezca.order("req-2", key, SubjectAltNames=[{"SubjectAltType": 3, "ValueSTR": "x"}]),
        ezca.order("req-2", key, CSR=pem(csr(key, "req-2")).replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")),
        ezca.order("req-2", key, CSR=pem(x509.load_der_x509_csr(tampered[:-1] + bytes([tampered[-1] ^ 1])))),
    ]
    for order in orders:
        answer = await ezca.ca("RequestSSLCertificateV2", order)
        assert answer["Success"] is False, order
    for malformed in (ezca.order("req-2", key, ValidityInDays="10"), ezca.order("req-2", key, EKUs=[1]), ["no object"]):
        assert (await ezca.call("POST", "/api/CA/RequestSSLCertificateV2", malformed))[0] == 400
    stranger = ezca.lab.token(MANAGEMENT, STRANGER)
    assert (await ezca.ca("RequestSSLCertificateV2", ezca.order("req-2", key), stranger))["Success"] is False
    assert len(ezca.lab.get("ezca", "/lab/certificates")) == before


async def test_revocation_wants_the_thumbprint_in_lower_case(ezca: Ezca) -> None:
    certificate = await ezca.issued("rev-1", ec_key())

    async def revoke(thumbprint: str, token: str | None = None) -> bool:
        answer = await ezca.ca("RevokeCertificateV2", {**ezca.ids, "Thumbprint": thumbprint}, token)
        success: bool = answer["Success"]
        return success

    assert not await revoke(sha1(certificate).upper())
    assert not await revoke("0" * 40)
    assert not await revoke(sha1(certificate), ezca.lab.token(MANAGEMENT, STRANGER))
    assert await revoke(sha1(certificate))
    assert not await revoke(sha1(certificate)), "a second time"

    [account] = [each for each in ezca.lab.get("ezca", "/lab/certificates") if each["common_name"] == "rev-1"]
    assert account["revoked"] is True
    assert account["revoked_by"] == "registrar@example.test"


async def test_the_list_goes_page_by_page_until_an_empty_one(ezca: Ezca) -> None:
    watcher = ezca.lab.token(MANAGEMENT, STRANGER)
    await ezca.ca("RegisterNewDomain", ezca.registration("list-1", Requesters=[person(STRANGER)]))
    minted = []
    for _ in range(4):
        answer = await ezca.ca("RequestSSLCertificateV2", ezca.order("list-1", ec_key()))
        minted.append(answer["CertificatePEM"])
    first = x509.load_pem_x509_certificate(minted[0].encode())
    await ezca.ca("RevokeCertificateV2", {**ezca.ids, "Thumbprint": sha1(first)})

    items: list[dict[str, Any]] = []
    number = 0
    while page := await ezca.ca(f"GetMyCertificatesV2Paginated?pageNumber={number}", token=watcher):
        assert len(page) <= 3
        items += page
        number += 1
    mine = [item for item in items if item["SubjectName"] == "CN=list-1"]
    assert {item["CertificatePEM"] for item in mine} == set(minted)
    assert [item["CertificatePEM"] for item in mine if item["Revoked"]] == [minted[0]]
    assert mine[0]["SubjectAlternateNames"] == [{"SubjectAltType": 2, "ValueSTR": "list-1"}]
    assert mine[0]["CertLocationType"] == "IoT Device"


async def test_the_audit_log_tells_who_asked(ezca: Ezca) -> None:
    await ezca.issued("audit-1", ec_key())

    async def logs(**changes: Any) -> list[dict[str, Any]]:
        span = {"DateFrom": "2020-01-01T00:00:00Z", "DateTo": "2100-01-01T00:00:00Z"}
        body = {**span, "MaxNumberOfRecords": 12000, "PageNumber": 0, **changes}
        status, text = await ezca.call("POST", "/api/Audit/GetCertLogs", body)
        assert status == 200, text
        entries: list[dict[str, Any]] = json.loads(text)
        return [entry for entry in entries if entry["Domain"] == "audit-1"]

    [entry] = await logs()
    assert entry["Requester"] == "registrar@example.test"
    assert await logs(DateTo="2020-01-02T00:00:00Z") == []
    assert await logs(PageNumber=1) == []
