"""EZCA's EST port, with curl and openssl as clients (ezca.md, EST at EZCA)."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from tests.support.lab import Lab

from .client import Ezca, Key, csr, ec_key, extension, openssl, pem, private_pem, sha1


@dataclass
class Curl:
    """curl with one client certificate, its files in ``directory``."""

    lab: Lab
    directory: Path

    def hold(self, certificate: x509.Certificate, key: Key) -> None:
        (self.directory / "cert.pem").write_text(pem(certificate))
        (self.directory / "key.pem").write_bytes(private_pem(key))

    def __call__(
        self, path: str, request: x509.CertificateSigningRequest | None = None, *, kind: str = "application/pkcs10"
    ) -> tuple[int, bytes]:
        """HTTP status (0: no TLS connection) and body."""
        out = self.directory / "out"
        out.write_bytes(b"")
        command: list[str | Path] = ["curl", "-s", "-o", out, "-w", "%{http_code}", "--cacert", self.lab.web_root]
        if (self.directory / "cert.pem").exists():
            command += ["--cert", self.directory / "cert.pem", "--key", self.directory / "key.pem"]
        if request is not None:
            body = base64.encodebytes(request.public_bytes(serialization.Encoding.DER)).decode()
            command += ["-H", f"Content-Type: {kind}", "--data-binary", body]
        command.append(f"{self.lab.ready('ezca')['est_url']}/{path}")
        run = subprocess.run(command, capture_output=True, text=True, timeout=20)
        return int(run.stdout), out.read_bytes()


@pytest.fixture
def curl(running: Lab, tmp_path: Path) -> Curl:
    return Curl(running, tmp_path)


def certificates(body: bytes) -> list[x509.Certificate]:
    assert body.count(b"\n") == 1, "one line of base64"
    return pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))


async def test_an_ec_holder_renews(ezca: Ezca, curl: Curl) -> None:
    key, new_key = ec_key(), ec_key()
    certificate = await ezca.issued("est-1", key)
    curl.hold(certificate, key)

    status, body = curl("cacerts")
    assert status == 200
    anchors = {each.subject.rfc4514_string() for each in certificates(body)}
    assert anchors == {"CN=Lab Device Issuing CA", "CN=Lab Device Root CA"}

    for request in (csr(new_key, "est-1", x509.DNSName("est-1")), csr(new_key, "est-1")):
        status, body = curl("simpleenroll", request)
        assert status == 200
        [renewed] = certificates(body)
        assert renewed.public_key() == new_key.public_key()
        assert renewed.subject == certificate.subject
        for kind in (x509.SubjectAlternativeName, x509.KeyUsage, x509.ExtendedKeyUsage):
            assert extension(renewed, kind) == extension(certificate, kind)
        assert (renewed.not_valid_after_utc - renewed.not_valid_before_utc).days == 10


async def test_what_est_refuses(ezca: Ezca, curl: Curl) -> None:
    request = csr(ec_key(), "est-2", x509.DNSName("est-2"))
    assert curl("simpleenroll", request)[0] == 0, "no client certificate, no TLS"

    key = ec_key()
    certificate = await ezca.issued("est-2", key)
    curl.hold(certificate, key)
    assert curl("simpleenroll", csr(ec_key(), "est-1"))[0] == 400
    assert curl("simpleenroll", csr(ec_key(), "est-2", x509.DNSName("more.example")))[0] == 400
    assert curl("simpleenroll", request, kind="text/plain")[0] == 415
    assert curl("simplereenroll", request)[0] == 404

    await ezca.ca("RevokeCertificateV2", {**ezca.ids, "Thumbprint": sha1(certificate)})
    assert curl("simpleenroll", request)[0] == 403


async def test_a_certificate_of_another_ca_gets_no_connection(running: Lab, curl: Curl) -> None:
    web = running.directory
    curl.hold(
        x509.load_pem_x509_certificate((web / "web-cert.pem").read_bytes()),
        serialization.load_pem_private_key((web / "web-key.pem").read_bytes(), None),  # type: ignore[arg-type]
    )
    assert curl("cacerts")[0] == 0


async def test_est_has_faults_too(ezca: Ezca, curl: Curl) -> None:
    key = ec_key()
    curl.hold(await ezca.issued("est-3", key), key)
    ezca.lab.post("ezca", "/lab/faults", {"call": "simpleenroll", "mode": "202", "retry_after": 1})
    request = csr(ec_key(), "est-3", x509.DNSName("est-3"))
    assert curl("simpleenroll", request)[0] == 202
    assert curl("simpleenroll", request)[0] == 200


async def test_openssl_reads_the_answer_and_trusts_it(ezca: Ezca, curl: Curl, tmp_path: Path) -> None:
    key = ec_key()
    curl.hold(await ezca.issued("est-4", key), key)
    for path, request in (("cacerts", None), ("simpleenroll", csr(ec_key(), "est-4"))):
        (tmp_path / f"{path}.der").write_bytes(base64.b64decode(curl(path, request)[1]))
        print_certs: list[str | Path] = ["pkcs7", "-inform", "DER", "-in", tmp_path / f"{path}.der", "-print_certs"]
        (tmp_path / f"{path}.pem").write_text(openssl(*print_certs))
    check: list[str | Path] = [
        "verify",
        "-x509_strict",
        "-CAfile",
        curl.lab.ca_root,
        "-untrusted",
        tmp_path / "cacerts.pem",
    ]
    assert "simpleenroll.pem: OK" in openssl(*check, tmp_path / "simpleenroll.pem")
