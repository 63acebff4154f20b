"""A CSR that carries a link to a TLS session is good on that session only."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AttributeOID

from gatewayd.errors import CsrInvalid
from gatewayd.leaf import linking

UNIQUE = bytes(range(12))


def csr(challenge: bytes | None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if challenge is not None:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge)
    key = ec.generate_private_key(ec.SECP256R1())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3", None])
def test_no_link_is_asked_for(version: str | None) -> None:
    linking.check(csr(None), version, UNIQUE)


def test_the_session_s_own_link() -> None:
    linking.check(csr(base64.b64encode(UNIQUE)), "TLSv1.2", UNIQUE)


@pytest.mark.parametrize("challenge", [b"", b"a password for SCEP", base64.b64encode(UNIQUE[:-1] + b"x")])
def test_anything_else(challenge: bytes) -> None:
    with pytest.raises(CsrInvalid, match="not the tls-unique value"):
        linking.check(csr(challenge), "TLSv1.2", UNIQUE)


@pytest.mark.parametrize(("version", "unique"), [("TLSv1.3", UNIQUE), (None, UNIQUE), ("TLSv1.2", None)])
def test_where_no_link_can_be_checked(version: str | None, unique: bytes | None) -> None:
    with pytest.raises(CsrInvalid, match=r"TLS 1\.2 only"):
        linking.check(csr(base64.b64encode(UNIQUE)), version, unique)
