"""What a certificate says, and whether what a CA issued may be used."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.model import Credential, CredentialState, San
from gatewayd.errors import CertificateUnacceptable
from gatewayd.pki import certificates, csr, parsing
from gatewayd.pki.names import general_name
from tests.support.authority import CLIENT, SERVER, Authority, now

AUTHORITY = Authority()
KEY = ec.generate_private_key(ec.SECP256R1())
SANS = (San.parse("dns:gw-1.example"), San.parse("ip:2001:db8::1"))
NAMES = [general_name(each) for each in SANS]


def check(certificate: x509.Certificate, **changes: Any) -> None:
    asked: dict[str, Any] = {
        "chain": (AUTHORITY.issuing,),
        "anchors": (AUTHORITY.root,),
        "device_id": "gw-1",
        "sans": SANS,
        "public_key_sha256": csr.public_key_sha256(KEY.public_key()),
        "server_auth": True,
        "now": now(),
        "replaces": None,
        **changes,
    }
    certificates.check_issued(certificate, asked.pop("chain"), asked.pop("anchors"), **asked)


def leaf(device_id: str = "gw-1", **changes: Any) -> x509.Certificate:
    return AUTHORITY.leaf(changes.pop("key", KEY).public_key(), device_id, changes.pop("names", NAMES), **changes)


_GOOD = leaf()


def before(begins: timedelta = timedelta(0), ends: timedelta = timedelta(0)) -> Credential:
    """A credential that began, and ends, so much later than ``_GOOD``."""
    return Credential(
        device_id="gw-1",
        generation=1,
        state=CredentialState.CURRENT,
        created_at=now(),
        updated_at=now(),
        serial="1f",
        not_before=_GOOD.not_valid_before_utc + begins,
        not_after=_GOOD.not_valid_after_utc + ends,
    )


def usage(**changes: bool) -> x509.KeyUsage:
    names = "content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    off = dict.fromkeys(names.split(), False) | {"encipher_only": False, "decipher_only": False}
    return x509.KeyUsage(**{"digital_signature": True, **off, **changes})


def test_what_was_asked_for_passes() -> None:
    check(leaf())
    check(leaf(extra=[(usage(), True)]))
    check(leaf(), chain=(AUTHORITY.root, AUTHORITY.issuing))
    check(leaf(), sans=(San.parse("dns:GW-1.Example"), San.parse("ip:2001:db8:0:0::1")))
    check(leaf(purposes=[CLIENT]), server_auth=False)
    check(leaf(), replaces=before(ends=-timedelta(days=1)))
    check(leaf(starts=timedelta(minutes=4)))


def test_an_rsa_key_passes_too() -> None:
    key = rsa.generate_private_key(65537, 2048)
    check(leaf(key=key), public_key_sha256=csr.public_key_sha256(key.public_key()))


@pytest.mark.parametrize(
    ("certificate", "asked", "reason"),
    [
        (leaf(key=ec.generate_private_key(ec.SECP256R1())), {}, "another public key"),
        (leaf("gw-2"), {}, "common name is 'gw-2'"),
        (leaf(names=[*NAMES, x509.DNSName("other.example")]), {}, r"not asked for \(dns:other.example\)"),
        (leaf(names=NAMES[:1]), {}, r"lacks names that were asked for \(ip:2001:db8::1\)"),
        (leaf(names=[*NAMES, x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))]), {}, "a kind of name"),
        (leaf(ca=True), {}, "a CA's certificate"),
        (leaf(extra=[(usage(key_cert_sign=True), True)]), {}, "may sign certificates"),
        (leaf(extra=[(usage(digital_signature=False, key_encipherment=True), True)]), {}, "may not make signatures"),
        (leaf(purposes=[SERVER]), {}, "not for client authentication"),
        (leaf(purposes=[]), {}, "not for client authentication"),
        (leaf(purposes=[CLIENT]), {}, "not for server authentication"),
        (leaf(starts=timedelta(minutes=10)), {}, "not valid before"),
        (leaf(starts=timedelta(days=-11)), {}, "expired at"),
        (leaf(), {"replaces": before(ends=timedelta(seconds=1))}, "does not outlast"),
        (leaf(), {"chain": ()}, "does not lead to a trusted root"),
        (leaf(), {"anchors": (Authority().root,)}, "does not lead to a trusted root"),
        (leaf(), {"anchors": ()}, "no anchor is known"),
        (leaf(extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x"), True)]), {}, "does not lead"),
    ],
)
def test_anything_else_is_refused_with_its_reason(
    certificate: x509.Certificate, asked: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CertificateUnacceptable, match=reason) as caught:
        check(certificate, **asked)
    assert caught.value.device == "gw-1"
    assert caught.value.message.startswith("The certificate issued for gw-1 is not used: ")


def test_an_issuer_that_is_no_ca_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    impostor = AUTHORITY.leaf(key.public_key(), "Test Issuing")
    forged = Authority.__new__(Authority)
    forged.__dict__.update(AUTHORITY.__dict__ | {"issuing_key": key, "issuing": impostor})
    with pytest.raises(CertificateUnacceptable, match="does not lead to a trusted root"):
        check(forged.leaf(KEY.public_key(), "gw-1", NAMES), chain=(impostor, AUTHORITY.issuing))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_certificate_is_refused_or_cannot_be_loaded(place: int, value: int) -> None:
    good = _GOOD.public_bytes(Encoding.DER)
    damaged = bytearray(good)
    damaged[place % len(good)] = value
    if damaged == good:
        return
    try:
        certificate = parsing.certificate(bytes(damaged))
    except CertificateUnacceptable:
        return
    with pytest.raises(CertificateUnacceptable):
        check(certificate)


def test_the_names_of_a_certificate() -> None:
    der = _GOOD.public_bytes(Encoding.DER)
    assert certificates.thumbprint(_GOOD) == hashlib.sha256(der).hexdigest()
    assert certificates.thumbprint_sha1(_GOOD) == hashlib.sha1(der).hexdigest()
    assert int(certificates.serial_hex(_GOOD), 16) == _GOOD.serial_number
    assert certificates.common_name(_GOOD) == "gw-1"
    assert certificates.sans_of(_GOOD) == SANS
    assert certificates.sans_of(leaf(names=[])) == ()
    assert certificates.public_key_sha256_of(_GOOD) == csr.public_key_sha256(KEY.public_key())


def test_a_self_signed_certificate_carries_the_key() -> None:
    at = now()
    made = certificates.self_signed(KEY, "gw-1 registrar", timedelta(days=730), at)
    assert made.public_key() == KEY.public_key()
    assert certificates.common_name(made) == "gw-1 registrar"
    assert made.not_valid_before_utc < at < made.not_valid_after_utc == at + timedelta(days=730)
    made.verify_directly_issued_by(made)


def test_one_of_the_same_second_is_a_renewal_and_one_that_is_merely_shorter_is_not() -> None:
    """The latter is what a CA gives whose own end is near: to take it would be to renew ever faster."""
    check(_GOOD, replaces=before())
    check(_GOOD, replaces=before(begins=timedelta(seconds=1)))
    with pytest.raises(CertificateUnacceptable, match="outlast"):
        check(_GOOD, replaces=before(begins=-timedelta(seconds=1)))
    with pytest.raises(CertificateUnacceptable, match="the one that it is to replace"):
        check(_GOOD, replaces=replace(before(), serial=certificates.serial_hex(_GOOD)))


def test_a_chain_is_put_in_order_from_whatever_is_known() -> None:
    foreign = Authority()
    found = leaf()
    assert certificates.chain_of(found, [AUTHORITY.root, *foreign.chain, AUTHORITY.issuing]) == AUTHORITY.chain
    assert certificates.chain_of(found, [AUTHORITY.issuing, AUTHORITY.issuing]) == (AUTHORITY.issuing,)
    assert certificates.chain_of(found, [found, AUTHORITY.root]) == ()
    assert certificates.chain_of(found, foreign.chain) == ()
