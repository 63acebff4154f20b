"""Revocation status of the EZCA stand-in, asked with OpenSSL."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from .client import Ezca, ec_key, openssl, pem, sha1


async def test_crl_and_ocsp_follow_a_revocation(ezca: Ezca, tmp_path: Path) -> None:
    lab = ezca.lab
    certificate = await ezca.issued("stat-1", ec_key())
    leaf = tmp_path / "leaf.pem"
    leaf.write_text(pem(certificate))
    issuing = lab.directory / "ca-issuing.pem"
    point = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value[0]
    assert point.full_name is not None
    crl_url = point.full_name[0].value
    [access] = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert access.access_method == AuthorityInformationAccessOID.OCSP

    def crl() -> x509.CertificateRevocationList:
        with urllib.request.urlopen(crl_url, timeout=5) as response:
            return x509.load_der_x509_crl(response.read())

    def verify() -> str:
        (tmp_path / "crl.der").write_bytes(urllib.request.urlopen(crl_url, timeout=5).read())
        check: list[str | Path] = [
            "-crl_check",
            "-CRLfile",
            tmp_path / "crl.der",
            "-partial_chain",
            "-trusted",
            issuing,
        ]
        return openssl("verify", *check, leaf)

    def ocsp(*options: str) -> str:
        url = str(access.access_location.value)
        return openssl("ocsp", *options, "-issuer", issuing, "-cert", leaf, "-url", url, "-CAfile", lab.ca_root)

    before = crl()
    authority = x509.load_pem_x509_certificate(issuing.read_bytes())
    assert before.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    assert before.get_revoked_certificate_by_serial_number(certificate.serial_number) is None
    assert "leaf.pem: OK" in verify()
    good = ocsp()
    assert "Response verify OK" in good
    assert "leaf.pem: good" in good
    assert "leaf.pem: good" in ocsp("-sha256", "-no_nonce")

    await ezca.ca("RevokeCertificateV2", {**ezca.ids, "Thumbprint": sha1(certificate)})

    after = crl()
    assert after.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
    numbers = [each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for each in (before, after)]
    assert numbers[1] > numbers[0]
    assert "certificate revoked" in verify()
    assert "leaf.pem: revoked" in ocsp()


async def test_ocsp_knows_only_its_own(ezca: Ezca) -> None:
    lab = ezca.lab
    url, issuing = lab.ready("ezca")["ocsp_url"], lab.directory / "ca-issuing.pem"
    trust: list[str | Path] = ["-CAfile", lab.ca_root]
    assert "0x1234: unknown" in openssl("ocsp", "-issuer", issuing, "-serial", "0x1234", "-url", url, *trust)
    other = openssl("ocsp", "-issuer", lab.ca_root, "-serial", "0x1234", "-url", url, *trust)
    assert "unauthorized (6)" in other


async def test_the_crl_is_served_over_https_as_well(ezca: Ezca) -> None:
    async with ezca.session.get(ezca.lab.url("ezca") + "/crl/issuing.crl") as answer:
        assert answer.status == 200
        assert x509.load_der_x509_crl(await answer.read()).issuer.rfc4514_string() == "CN=Lab Device Issuing CA"
