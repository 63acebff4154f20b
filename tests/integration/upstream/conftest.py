"""What the tests of the hub's two sides share: one web certificate for whatever address a test serves on."""

from __future__ import annotations

import ipaddress
import random
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.authority import SERVER, Authority


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
