"""Reading requests that anybody may send."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.model import San
from gatewayd.errors import CsrInvalid, InvalidArgument
from gatewayd.pki import csr

SANS = tuple(map(San.parse, ("dns:gw-1.example", "ip:192.0.2.7", "ip:2001:db8::1", "uri:urn:x", "email:a@b.example")))
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
GOOD = csr.build(EC_KEY, "leaf-1", SANS)


def builder(*names: tuple[x509.ObjectIdentifier, str]) -> x509.CertificateSigningRequestBuilder:
    subject = names or ((NameOID.COMMON_NAME, "leaf-1"),)
    return x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(*each) for each in subject])
    )


def der(request: x509.CertificateSigningRequestBuilder, key: csr.PrivateKey = EC_KEY) -> bytes:
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("key", "description"),
    [
        (EC_KEY, "EC secp256r1"),
        (ec.generate_private_key(ec.SECP384R1()), "EC secp384r1"),
        (RSA_KEY, "RSA 2048"),
    ],
)
def test_a_request_of_ours_reads_back(key: csr.PrivateKey, description: str) -> None:
    facts = csr.read(csr.build(key, "leaf-1", SANS))
    assert (facts.common_name, facts.other_subject) == ("leaf-1", False)
    assert facts.sans == SANS
    assert facts.public_key_sha256 == csr.public_key_sha256(key.public_key())
    assert (facts.key_description, facts.key_accepted) == (description, True)
    assert not any((facts.unknown_names, facts.is_ca, facts.eku_beyond_client, facts.asks_for_more))


def test_no_names_make_no_extension() -> None:
    request = x509.load_der_x509_csr(csr.build(EC_KEY, "leaf-1", ()))
    assert list(request.extensions) == []
    assert csr.read(request.public_bytes(Encoding.DER)).sans == ()


@pytest.mark.parametrize("san", ["ip:not-an-address", "dns:bücher.example", "email:ä@b.example"])
def test_a_name_that_does_not_fit_its_kind_is_named(san: str) -> None:
    with pytest.raises(InvalidArgument, match=r"cannot be a name of kind") as caught:
        csr.build(EC_KEY, "gw", [San.parse(san)])
    assert san.partition(":")[2] in caught.value.message


@pytest.mark.parametrize(
    ("key", "description"),
    [
        (rsa.generate_private_key(65537, 1024), "RSA 1024"),
        (rsa.generate_private_key(3, 2048), "RSA 2048"),
        (ec.generate_private_key(ec.SECP256K1()), "EC secp256k1"),
        (ec.generate_private_key(ec.SECP521R1()), "EC secp521r1"),
    ],
)
def test_weak_and_odd_keys_are_read_and_not_accepted(key: csr.PrivateKey, description: str) -> None:
    facts = csr.read(der(builder(), key))
    assert (facts.key_description, facts.key_accepted) == (description, False)


def test_other_kinds_of_key_are_not_accepted() -> None:
    edwards = builder().sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.DER)
    assert csr.read(edwards).key_description == "Ed25519"
    assert not csr.read(edwards).key_accepted
    old = builder().sign(dsa.generate_private_key(2048), hashes.SHA256()).public_bytes(Encoding.DER)
    assert not csr.read(old).key_accepted


@pytest.mark.parametrize(
    ("names", "common_name", "other"),
    [
        ([(NameOID.COMMON_NAME, "leaf-1"), (NameOID.ORGANIZATION_NAME, "Plant")], "leaf-1", True),
        ([(NameOID.COMMON_NAME, "leaf-1"), (NameOID.COMMON_NAME, "leaf-2")], None, True),
        ([(NameOID.ORGANIZATION_NAME, "Plant")], None, True),
    ],
)
def test_a_subject_with_more_than_the_name_shows(
    names: list[tuple[x509.ObjectIdentifier, str]], common_name: str | None, other: bool
) -> None:
    facts = csr.read(der(builder(*names)))
    assert (facts.common_name, facts.other_subject) == (common_name, other)


def test_an_empty_subject_has_no_name_and_nothing_else() -> None:
    facts = csr.read(der(x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))))
    assert (facts.common_name, facts.other_subject) == (None, False)


def test_wishes_beyond_a_leafs_show() -> None:
    usage = dict.fromkeys(
        ("key_encipherment", "content_commitment", "data_encipherment", "key_agreement", "crl_sign"), False
    )
    rights = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, encipher_only=False, decipher_only=False, **usage
    )
    server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    client = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    other_name = x509.SubjectAlternativeName(
        [x509.DNSName("a"), x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")]
    )
    assert csr.read(der(builder().add_extension(x509.BasicConstraints(True, None), True))).is_ca
    assert not csr.read(der(builder().add_extension(x509.BasicConstraints(False, None), True))).is_ca
    assert csr.read(der(builder().add_extension(rights, True))).is_ca
    assert csr.read(der(builder().add_extension(server, False))).eku_beyond_client
    assert not csr.read(der(builder().add_extension(client, False))).eku_beyond_client
    assert csr.read(der(builder().add_extension(other_name, False))).unknown_names


def test_what_a_ca_might_follow_unread_is_seen() -> None:
    template = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2"), b"\x1e\x04\x00S\x00u")
    name_value_pair = x509.ObjectIdentifier("1.3.6.1.4.1.311.13.2.1")
    harmless = builder().add_extension(x509.SubjectKeyIdentifier.from_public_key(EC_KEY.public_key()), False)
    assert not csr.read(der(harmless.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"x"))).asks_for_more
    for more in (template, x509.OCSPNoCheck(), x509.NameConstraints([x509.DNSName("a")], None)):
        assert csr.read(der(builder().add_extension(more, False))).asks_for_more
    assert csr.read(der(builder().add_attribute(name_value_pair, b"SAN:dns=other"))).asks_for_more


def test_extensions_asked_for_twice_are_refused() -> None:
    """The second list would pass unread here, and a CA might honour it."""
    names = x509.SubjectAlternativeName([x509.DNSName("leaf-1")])
    microsoft = x509.ObjectIdentifier("1.3.6.1.4.1.311.2.1.14")
    twice = builder().add_extension(names, False).add_attribute(microsoft, b"x")
    with pytest.raises(CsrInvalid, match="more than once"):
        csr.read(der(twice))


def test_a_challenge_password_is_no_reason_to_refuse() -> None:
    facts = csr.read(der(builder().add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"channel binding")))
    assert facts.common_name == "leaf-1"


def test_a_signature_by_another_key_is_refused() -> None:
    other = csr.build(ec.generate_private_key(ec.SECP256R1()), "leaf-1", SANS)
    swapped = x509.load_der_x509_csr(GOOD).tbs_certrequest_bytes + other[other.rindex(b"\x30\x0a\x06\x08") :]
    with pytest.raises(CsrInvalid, match="not by its own key"):
        csr.read(b"\x30\x82" + len(swapped).to_bytes(2, "big") + swapped)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_in_one_sentence(data: bytes) -> None:
    with pytest.raises(CsrInvalid) as caught:
        csr.read(data)
    assert caught.value.message.endswith(".")


@settings(max_examples=600, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(GOOD)))
def test_a_damaged_request_is_refused_or_unchanged(changes: list[tuple[int, int]], length: int) -> None:
    damaged = bytearray(GOOD)
    for place, value in changes:
        damaged[place] = value
    damaged = damaged[: length or None]
    if damaged != GOOD:
        with pytest.raises(CsrInvalid):
            csr.read(bytes(damaged))
