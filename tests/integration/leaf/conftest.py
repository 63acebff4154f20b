"""The real EST server on real TLS, a fake Enroller behind it, and independent clients in front of it."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID

from gatewayd.config import EstSettings
from gatewayd.leaf.server import EstServer
from gatewayd.leaf.tls import ServerTls, server_context
from tests.support.fake_enroller import DER, FakeEnroller, MemoryCa

PEM = serialization.Encoding.PEM


@dataclass
class Ran:
    status: int
    out: bytes
    err: str


async def run(*argv: str | Path, stdin: bytes = b"", within: float = 20.0) -> Ran:
    process = await asyncio.create_subprocess_exec(
        *map(str, argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), within)
    assert process.returncode is not None
    return Ran(process.returncode, out, err.decode(errors="replace"))


@dataclass
class Reply:
    """An HTTP answer as curl saw it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def sentence(self) -> str:
        """The body, which must be one plain-text sentence."""
        assert self.headers["content-type"] == "text/plain; charset=utf-8"
        text = self.body.decode()
        assert text.count("\n") == 1
        assert text.endswith(".\n")
        assert "Traceback" not in text
        return text.strip()


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def make_csr(
    common_name: str, key: ec.EllipticCurvePrivateKey | None = None, challenge_password: bytes | None = None
) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    )
    if challenge_password is not None:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge_password)
    return builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())


@dataclass
class Est:
    """The server under test with all that a client needs."""

    directory: Path
    address: str
    ca: MemoryCa
    enroller: FakeEnroller
    settings: EstSettings
    anchors: list[x509.Certificate] = field(default_factory=list)
    """For client certificates; a reload takes up changes."""
    server_cas: list[MemoryCa] = field(default_factory=list)
    """The last one certifies the server at the next reload."""

    def __post_init__(self) -> None:
        self.anchors = [self.ca.issuing]
        self.server_cas = [self.ca]
        self.tls = ServerTls(self.make_context)
        self.server = EstServer(self.enroller, self.settings, self.tls)
        self.trust = self.write("trust.pem", self.ca.root.public_bytes(PEM) + self.ca.issuing.public_bytes(PEM))

    def make_context(self) -> ssl.SSLContext:
        context = server_context([each.public_bytes(DER) for each in self.anchors])
        key = ec.generate_private_key(ec.SECP256R1())
        ca = self.server_cas[-1]
        certificate = ca.issue(
            "gateway",
            key.public_key(),
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
            names=(x509.IPAddress(ipaddress.ip_address(self.address)),),
        )
        pem = certificate.public_bytes(PEM) + ca.issuing.public_bytes(PEM) + private_pem(key)
        context.load_cert_chain(self.write("server.pem", pem))
        return context

    def write(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path

    def url(self, resource: str) -> str:
        return f"{self.server.url}/.well-known/est/{resource}"

    @property
    def host_port(self) -> tuple[str, int]:
        return self.address, int(self.server.url.rpartition(":")[2])

    def client_certificate(
        self, common_name: str, ca: MemoryCa | None = None, not_after: datetime | None = None
    ) -> Path:
        """A PEM file with a leaf's certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (ca or self.ca).issue(common_name, key.public_key(), not_after=not_after)
        return self.write(
            f"client-{key.private_numbers().private_value % 10**9}.pem",
            certificate.public_bytes(PEM) + private_pem(key),
        )

    def client_context(self, certificate: Path | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.trust)
        if certificate:
            context.load_cert_chain(certificate)
        return context

    async def curl(self, resource: str, *options: str | Path, body: bytes | None = None) -> Reply:
        extra: list[str | Path] = []
        if body is not None:
            extra = ["--data-binary", "@-"]
            if not any("Content-Type" in str(option) for option in options):
                extra += ["-H", "Content-Type: application/pkcs10"]
        ran = await run(
            "curl", "-sS", "-i", "--cacert", self.trust, *extra, *options, self.url(resource), stdin=body or b""
        )
        assert ran.status == 0, ran.err
        head, _, content = ran.out.partition(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100"):
            head, _, content = content.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return Reply(int(status.split()[1]), headers, content)

    async def pki(self, *arguments: str | Path, stdin: bytes = b"") -> Ran:
        return await run("pki", *arguments, "--cacert", self.trust, stdin=stdin)


def unused_address() -> str:
    return f"127.{random.randint(2, 60)}.{random.randint(0, 255)}.{random.randint(1, 254)}"


@pytest.fixture
def settings() -> EstSettings:
    """A module or test may override it."""
    return EstSettings(address=unused_address(), port=0, answer_within=5.0, max_concurrent=128, labels=("plant",))


@pytest.fixture
async def est(tmp_path: Path, settings: EstSettings) -> AsyncIterator[Est]:
    ca = MemoryCa()
    est = Est(tmp_path, settings.address, ca, FakeEnroller(ca), settings)
    await est.server.start()
    yield est
    await est.server.stop(drain=1.0)
