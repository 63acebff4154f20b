"""What the tests of the hub's two sides share: servers of their own, the hub stand-in, and credentials for it."""

from __future__ import annotations

import ipaddress
import random
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from gatewayd.upstream.base import LinkCredential
from gatewayd.upstream.registry import HubRegistry
from tests.support.authority import SERVER, Authority
from tests.support.lab import Lab
from tests.support.softhsm import softhsm, softhsm_template  # noqa: F401 - fixtures

GATEWAY = "gw-1"
SCOPE = "https://iothubs.azure.net/.default"
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Site:
    """An address of our own, a TLS server context for it, and the anchor that trusts it."""

    address: str
    server: ssl.SSLContext
    anchor_pem: str

    @property
    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.anchor_pem)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    address = f"127.{random.randint(67, 250)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
    authority = Authority("Web")
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.IPAddress(ipaddress.ip_address(address))]
    certificate = authority.leaf(key.public_key(), address, names, purposes=[SERVER])
    pem = tmp_path / "web.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + authority.issuing.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return Site(address, server, authority.root.public_bytes(serialization.Encoding.PEM).decode())


class Credentials:
    """Certificates by the CA that the stand-in knows."""

    def __init__(self, directory: Path) -> None:
        self._issuer = x509.load_pem_x509_certificate((directory / "ca-issuing.pem").read_bytes())
        key = serialization.load_pem_private_key((directory / "ca-issuing-key.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    def make(
        self,
        common_name: str = GATEWAY,
        lasts: timedelta = timedelta(days=1),
        key: PrivateKey | None = None,
        age: timedelta = timedelta(hours=1),
    ) -> LinkCredential:
        """For a key of software unless one is given; ``lasts`` counts from ``age`` ago."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        begin = datetime.now(UTC) - age
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self._issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + lasts)
            .sign(self._key, hashes.SHA256())
        )
        return LinkCredential(certificate, (self._issuer,), key)

    def crl(
        self,
        revoked: Iterable[x509.Certificate],
        reason: x509.ReasonFlags | None = None,
        lasts: timedelta = timedelta(hours=1),
    ) -> bytes:
        """A list of the same CA's, in DER."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._issuer.subject)
            .last_update(now - timedelta(minutes=1))
            .next_update(now + lasts)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for each in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(each.serial_number).revocation_date(now)
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab") / "lab") as lab:
        lab.start("hub")
        yield lab


@pytest.fixture(scope="module")
def bearer(lab: Lab) -> str:
    return lab.token(SCOPE, "00000000-0000-0000-0000-000000000001")


class Tokens:
    def __init__(self, bearer: str) -> None:
        self._bearer = bearer

    async def token(self, scope: str) -> str:
        return self._bearer


@pytest.fixture
async def registry(lab: Lab, bearer: str) -> AsyncIterator[HubRegistry]:
    registry = HubRegistry(lab.url("hub"), Tokens(bearer), SCOPE, lab.tls)
    yield registry
    await registry.close()


@pytest.fixture
def credentials(lab: Lab) -> Credentials:
    return Credentials(lab.directory)
