"""Independent clients get their certificates: strongSwan's pki, curl, and what libest does on the wire."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from gatewayd.core.enrollment import Operation
from gatewayd.pki import pkcs7
from tests.support.fake_enroller import DER

from .conftest import Est, make_csr, run


def b64(csr: x509.CertificateSigningRequest) -> bytes:
    return base64.b64encode(csr.public_bytes(DER))


def only_certificate(body: bytes) -> x509.Certificate:
    (certificate,) = pkcs7.read_certs_only(base64.b64decode(body))
    return certificate


async def strongswan_key_and_csr(est: Est, common_name: str) -> tuple[Path, Path]:
    made = await run("pki", "--gen", "--type", "ecdsa", "--size", "256", "--outform", "pem")
    key = est.write(f"{common_name}-{hashlib.sha256(made.out).hexdigest()[:8]}-key.pem", made.out)
    request = await run("pki", "--req", "--type", "ecdsa", "--in", key, "--dn", f"CN={common_name}")
    assert request.status == 0, request.err
    est.write(key.with_suffix(".csr").name, request.out)
    return key, key.with_suffix(".csr")


async def test_strongswan_gets_the_cas_certificates(est: Est) -> None:
    out = est.directory / "ca.der"
    ran = await est.pki("--estca", "--url", est.server.url, "--caout", out)
    assert ran.status == 0, ran.err
    got = {x509.load_der_x509_certificate(path.read_bytes()) for path in est.directory.glob("ca*.der")}
    assert got == {est.ca.root, est.ca.issuing}


async def test_strongswan_enrolls_with_a_code_and_again_with_its_certificate(est: Est) -> None:
    est.enroller.add("leaf-1", "AAAA-BBBB")
    key, csr = await strongswan_key_and_csr(est, "leaf-1")
    first = await est.pki("--est", "--url", est.server.url, "--in", csr, "--userpass", "leaf-1:AAAA-BBBB")
    assert first.status == 0, first.err
    certificate = x509.load_der_x509_certificate(first.out)
    assert certificate.subject.rfc4514_string() == "CN=leaf-1"

    old = est.write("leaf-1.der", first.out)
    _, csr = await strongswan_key_and_csr(est, "leaf-1")
    again = await est.pki("--est", "--url", est.server.url, "--in", csr, "--cert", old, "--key", key)
    assert again.status == 0, again.err
    assert x509.load_der_x509_certificate(again.out).serial_number != certificate.serial_number
    asked = est.enroller.requests
    assert [each.operation for each in asked] == [Operation.ENROLL, Operation.REENROLL]
    assert asked[0].basic == ("leaf-1", "AAAA-BBBB")
    assert asked[0].peer_certificate is None
    assert asked[1].peer_certificate == first.out
    assert asked[1].remote.startswith("127.")


async def test_strongswan_waits_while_the_ca_is_slow(est: Est) -> None:
    est.enroller.add("leaf-1", "AAAA-BBBB")
    est.enroller.pending = 2
    _, csr = await strongswan_key_and_csr(est, "leaf-1")
    ran = await est.pki(
        "--est", "--url", est.server.url, "--in", csr, "--userpass", "leaf-1:AAAA-BBBB", "--interval", "1"
    )
    assert ran.status == 0, ran.err
    assert len(est.enroller.requests) == 3
    assert len(est.enroller.issued) == 1


async def test_strongswan_fails_with_a_wrong_code(est: Est) -> None:
    est.enroller.add("leaf-1", "AAAA-BBBB")
    _, csr = await strongswan_key_and_csr(est, "leaf-1")
    ran = await est.pki("--est", "--url", est.server.url, "--in", csr, "--userpass", "leaf-1:CCCC-DDDD")
    assert ran.status != 0
    assert ran.out == b""
    assert est.enroller.unused_codes == 1


@pytest.mark.parametrize("version", ["--tlsv1.2 --tls-max 1.2", "--tlsv1.3"])
@pytest.mark.parametrize("resource", ["simpleenroll", "plant/simpleenroll"])
async def test_curl_enrolls(est: Est, version: str, resource: str) -> None:
    est.enroller.add("leaf-1", "AAAA-BBBB")
    reply = await est.curl(resource, *version.split(), "-u", "leaf-1:AAAA-BBBB", body=b64(make_csr("leaf-1")))
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert "transfer-encoding" not in reply.headers
    assert only_certificate(reply.body).subject.rfc4514_string() == "CN=leaf-1"


async def test_curl_reenrolls_with_its_certificate(est: Est) -> None:
    est.enroller.add("leaf-1")
    certificate = est.client_certificate("leaf-1")
    reply = await est.curl("simplereenroll", "--cert", certificate, body=b64(make_csr("leaf-1")))
    assert reply.status == 200
    assert est.enroller.requests[0].peer_certificate == x509.load_pem_x509_certificate(
        certificate.read_bytes()
    ).public_bytes(DER)


@pytest.mark.parametrize(
    "options",
    [
        ("-H", "Content-Transfer-Encoding: base64"),
        ("-H", "Content-Type: application/pkcs10; charset=us-ascii"),
        ("-H", "Transfer-Encoding: chunked"),
        ("-H", "Expect: 100-continue"),
        ("--http1.0",),
    ],
)
async def test_what_clients_do_differently_makes_no_difference(est: Est, options: tuple[str, ...]) -> None:
    est.enroller.add("leaf-1", "AAAA-BBBB")
    body = base64.encodebytes(make_csr("leaf-1").public_bytes(DER)).replace(b"\n", b"\r\n")
    reply = await est.curl("simpleenroll", "-u", "leaf-1:AAAA-BBBB", *options, body=body)
    assert reply.status == 200, reply.body


async def test_one_line_for_most_and_wrapped_for_libest(est: Est) -> None:
    one = await est.curl("cacerts")
    wrapped = await est.curl("cacerts", "-A", "libest 1.0")
    assert one.body.count(b"\n") == 1
    assert max(map(len, wrapped.body.splitlines())) == 76
    assert base64.b64decode(one.body) == base64.b64decode(wrapped.body)


async def test_csr_attributes_name_the_curve_and_the_hash(est: Est) -> None:
    reply = await est.curl("csrattrs")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/csrattrs"
    shown = await run("openssl", "asn1parse", "-inform", "DER", stdin=base64.b64decode(reply.body))
    assert shown.status == 0, shown.err
    for name in (b"id-ecPublicKey", b"prime256v1", b"ecdsa-with-SHA256"):
        assert name in shown.out


async def test_a_hundred_leaves_at_once(est: Est) -> None:
    keys = ec.generate_private_key(ec.SECP256R1())  # one key for all: it is the server that is tested
    context = est.client_context()

    async def enroll(number: int) -> x509.Certificate:
        device_id = f"leaf-{number}"
        est.enroller.add(device_id, "AAAA-BBBB")
        body = b64(make_csr(device_id, keys))
        basic = base64.b64encode(f"{device_id}:AAAA-BBBB".encode()).decode()
        reader, writer = await asyncio.open_connection(*est.host_port, ssl=context)
        writer.write(
            b"POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n"
            b"Content-Type: application/pkcs10\r\nAuthorization: Basic %s\r\nContent-Length: %d\r\n\r\n%s"
            % (basic.encode(), len(body), body)
        )
        answer = await reader.read()
        writer.close()
        head, _, content = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), answer
        return only_certificate(content)

    est.enroller.delay = 0.2
    certificates = await asyncio.gather(*(enroll(number) for number in range(100)))
    assert [each.subject.rfc4514_string() for each in certificates] == [f"CN=leaf-{number}" for number in range(100)]


class TestLinking:
    """What libest does: base64 of tls-unique in the CSR's challengePassword (RFC 7030, 3.5)."""

    async def enroll(self, est: Est, context: ssl.SSLContext, password: bytes | None) -> bytes:
        est.enroller.add("leaf-1", "AAAA-BBBB")
        reader, writer = await asyncio.open_connection(*est.host_port, ssl=context)
        unique = writer.get_extra_info("ssl_object").get_channel_binding("tls-unique")
        csr = b64(make_csr("leaf-1", challenge_password=base64.b64encode(unique) if password is None else password))
        writer.write(
            b"POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n"
            b"Content-Type: application/pkcs10\r\nAuthorization: Basic %s\r\nContent-Length: %d\r\n\r\n%s"
            % (base64.b64encode(b"leaf-1:AAAA-BBBB"), len(csr), csr)
        )
        answer = await reader.read()
        writer.close()
        return answer

    async def test_the_session_s_own_value_is_taken(self, est: Est) -> None:
        context = est.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await self.enroll(est, context, None)).startswith(b"HTTP/1.1 200")

    async def test_another_session_s_value_is_refused(self, est: Est) -> None:
        context = est.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        answer = await self.enroll(est, context, base64.b64encode(b"from elsewhere"))
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"not the tls-unique value of this TLS session" in answer
        assert est.enroller.requests == []

    async def test_tls_1_3_cannot_link(self, est: Est) -> None:
        answer = await self.enroll(est, est.client_context(), None)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"TLS 1.2 only" in answer
        assert est.enroller.requests == []
