"""Certs-only CMS messages and PEM."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import CertificateUnacceptable, ConfigInvalid
from gatewayd.pki import csr, pem, pkcs7
from tests.support.authority import Authority

AUTHORITY = Authority()
KEY = ec.generate_private_key(ec.SECP256R1())
LEAF = AUTHORITY.leaf(KEY.public_key(), "leaf-1")
ALL = (LEAF, *AUTHORITY.chain)


@pytest.mark.parametrize("certificates", list(itertools.permutations(ALL)))
def test_certs_only_keeps_the_order(certificates: tuple[x509.Certificate, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pkcs7.read_certs_only(pkcs7.certs_only(certificates)) == certificates


def test_one_certificate_is_enough_and_none_is_not() -> None:
    assert pkcs7.read_certs_only(pkcs7.certs_only([LEAF])) == (LEAF,)
    with pytest.raises(CertificateUnacceptable):
        pkcs7.read_certs_only(pkcs7.certs_only([]))


def test_other_sizes_of_length_are_encoded_right() -> None:
    many = [AUTHORITY.root] * 200  # beyond 64 KiB: three octets of length
    assert len(pkcs7.read_certs_only(pkcs7.certs_only(many))) == 200


@given(st.binary(max_size=300) | st.binary(max_size=20).map(lambda tail: pkcs7.certs_only([LEAF])[:60] + tail))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CertificateUnacceptable):
        pkcs7.read_certs_only(data)


def test_pem_there_and_back() -> None:
    assert pem.certificates(pem.encode(ALL)) == ALL
    assert pem.certificate(pem.encode([LEAF])) == LEAF
    request = csr.build(KEY, "leaf-1", ())
    text = pem.encode_csr(request)
    assert text.startswith("-----BEGIN CERTIFICATE REQUEST-----\n")
    assert x509.load_pem_x509_csr(text.encode()).public_bytes(Encoding.DER) == request


@pytest.mark.parametrize(
    "text", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\ud800"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(CertificateUnacceptable):
        pem.certificates(text)


def test_several_are_not_one() -> None:
    with pytest.raises(CertificateUnacceptable, match="3 came"):
        pem.certificate(pem.encode(ALL))


def test_a_bundle_that_cannot_be_used_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "anchors.pem"
    with pytest.raises(ConfigInvalid, match=f"{file}: No such file"):
        pem.bundle(file)
    file.write_text("nothing")
    with pytest.raises(ConfigInvalid, match=f"{file} does not hold"):
        pem.bundle(file)
    file.write_text(pem.encode(ALL))
    assert pem.bundle(file) == ALL
