"""Keys in the token where a key of ``cryptography`` is expected."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.x509.oid import NameOID

from gatewayd.core.model import KeyAlgorithm, KeyRef
from gatewayd.keys.base import PrivateKey
from gatewayd.keys.token import Pkcs11KeyStore

from .conftest import on_both_tokens

SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gw-1")])


async def make(keys: Pkcs11KeyStore, algorithm: KeyAlgorithm) -> PrivateKey:
    key_id = algorithm.encode()
    return keys.private_key(KeyRef(key_id, algorithm), await keys.generate(key_id, "a key", algorithm))


async def make_ec(keys: Pkcs11KeyStore, algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256) -> ec.EllipticCurvePrivateKey:
    key = await make(keys, algorithm)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


async def make_rsa(keys: Pkcs11KeyStore) -> rsa.RSAPrivateKey:
    key = await make(keys, KeyAlgorithm.RSA_2048)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def verified_by_openssl(csr: x509.CertificateSigningRequest, directory: Path) -> str:
    """The request as openssl prints it, once openssl has verified its signature."""
    path = directory / "csr.pem"
    path.write_bytes(csr.public_bytes(serialization.Encoding.PEM))
    command = ["openssl", "req", "-in", str(path), "-verify", "-noout", "-text"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "verify OK" in done.stderr + done.stdout
    return done.stdout


@on_both_tokens
async def test_openssl_verifies_a_csr_signed_in_the_token(keys: Pkcs11KeyStore, tmp_path: Path) -> None:
    for algorithm in KeyAlgorithm:
        key = await make(keys, algorithm)
        csr = x509.CertificateSigningRequestBuilder().subject_name(SUBJECT).sign(key, hashes.SHA256())
        assert re.search("Subject: CN ?= ?gw-1", verified_by_openssl(csr, tmp_path))


async def test_openssl_verifies_a_csr_with_a_pss_signature(keys: Pkcs11KeyStore, tmp_path: Path) -> None:
    key = await make_rsa(keys)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    csr = x509.CertificateSigningRequestBuilder().subject_name(SUBJECT).sign(key, hashes.SHA256(), rsa_padding=pss)
    assert "rsassaPss" in verified_by_openssl(csr, tmp_path)


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.RSA_2048])
async def test_a_certificate_is_signed_in_the_token(keys: Pkcs11KeyStore, algorithm: KeyAlgorithm) -> None:
    key = await make(keys, algorithm)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(SUBJECT)
        .issuer_name(SUBJECT)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    certificate.verify_directly_issued_by(certificate)


@on_both_tokens
async def test_a_jwt_is_signed_in_the_token(keys: Pkcs11KeyStore) -> None:
    key = await make_rsa(keys)
    for algorithm in ("RS256", "RS384", "PS256", "PS512"):
        token = jwt.encode({"sub": "gw-1"}, key, algorithm=algorithm)
        assert jwt.decode(token, key.public_key(), algorithms=[algorithm]) == {"sub": "gw-1"}


async def test_digests_of_every_length_and_those_made_elsewhere(keys: Pkcs11KeyStore) -> None:
    elliptic, other = await make_ec(keys), await make_rsa(keys)
    for hash_algorithm in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
        sign_and_verify(elliptic, other, hash_algorithm)


def sign_and_verify(
    elliptic: ec.EllipticCurvePrivateKey, other: rsa.RSAPrivateKey, hash_algorithm: hashes.HashAlgorithm
) -> None:
    digest = hashes.Hash(hash_algorithm)
    digest.update(b"data")
    done = digest.finalize()
    ecdsa = ec.ECDSA(hash_algorithm)
    prehashed = utils.Prehashed(hash_algorithm)
    elliptic.public_key().verify(elliptic.sign(b"data", ecdsa), b"data", ecdsa)
    elliptic.public_key().verify(elliptic.sign(done, ec.ECDSA(prehashed)), b"data", ecdsa)
    for how in (
        padding.PKCS1v15(),
        padding.PSS(padding.MGF1(hash_algorithm), padding.PSS.MAX_LENGTH),
        padding.PSS(padding.MGF1(hashes.SHA256()), 0),
    ):
        other.public_key().verify(other.sign(b"data", how, hash_algorithm), b"data", how, hash_algorithm)
        other.public_key().verify(other.sign(done, how, prehashed), b"data", how, hash_algorithm)


async def test_what_would_need_the_key_itself_is_refused(keys: Pkcs11KeyStore) -> None:
    elliptic, other = await make_ec(keys), await make_rsa(keys)
    for key in (elliptic, other):
        with pytest.raises(TypeError, match="does not leave it"):
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        with pytest.raises(TypeError):
            key.private_numbers()
        with pytest.raises(TypeError):
            pickle.dumps(key)
        assert copy.copy(key) is key
        assert copy.deepcopy([key]) == [key]
        assert "in the token" in repr(key)
    with pytest.raises(TypeError):
        elliptic.exchange(ec.ECDH(), elliptic.public_key())
    with pytest.raises(UnsupportedAlgorithm):
        other.decrypt(b"", padding.PKCS1v15())


async def test_weak_or_unknown_ways_to_sign_are_refused(keys: Pkcs11KeyStore) -> None:
    elliptic, other = await make_ec(keys), await make_rsa(keys)
    with pytest.raises(UnsupportedAlgorithm):
        elliptic.sign(b"data", ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    with pytest.raises(UnsupportedAlgorithm):
        other.sign(b"data", padding.PKCS1v15(), hashes.SHA1())
    with pytest.raises(UnsupportedAlgorithm):
        other.sign(b"data", padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None), hashes.SHA256())
    with pytest.raises(ValueError, match="digest"):
        other.sign(b"short", padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))
    with pytest.raises(ValueError, match="salt"):
        other.sign(b"data", padding.PSS(padding.MGF1(hashes.SHA256()), 500), hashes.SHA256())
