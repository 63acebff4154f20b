"""CRLs: what is read from one, and everything for which one must not be used."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewayd.errors import RevocationDataUnusable
from gatewayd.pki import crl, der
from tests.support.authority import Authority
from tests.support.large_crl import entry, skeleton, with_entries

AUTHORITY = Authority()
ISSUER, KEY = AUTHORITY.issuing, AUTHORITY.issuing_key
POINT = "http://pki.example/one.crl"


def read(
    path: Path, data: bytes, own: Iterable[int] = (1, 2, 3), issuers: Iterable[x509.Certificate] = (ISSUER,)
) -> crl.Crl:
    file = path / "list.crl"
    file.write_bytes(data)
    return crl.read(file, issuers, {ISSUER.subject: frozenset(own)})


def made(entries: bytes = b"", *extensions: tuple[x509.ExtensionType, bool], number: int = 7) -> bytes:
    empty = skeleton(ISSUER, KEY, number=number, extensions=extensions)
    return with_entries(empty, KEY, entries) if entries else empty


def point(url: str) -> x509.DistributionPoint:
    return x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)


def scope(url: str | None = None, **changes: bool) -> tuple[x509.ExtensionType, bool]:
    flags = {
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_contains_attribute_certs": False,
        "indirect_crl": False,
    }
    names = None if url is None else [x509.UniformResourceIdentifier(url)]
    return x509.IssuingDistributionPoint(names, None, only_some_reasons=None, **flags | changes), True


def test_it_finds_ours_among_others(tmp_path: Path) -> None:
    serials = (5, 1, 2**159 - 1, 128, 255, 2)
    listed = b"".join(entry(each, reason=1 if each == 2 else None) for each in serials)
    found = read(tmp_path, made(listed), own=(1, 2, 3, 128, 2**159 - 1))
    assert [each.serial for each in found.listed] == [1, 2**159 - 1, 128, 2]
    reasons = {each.serial: each.reason for each in found.listed}
    assert reasons[1] is None
    assert reasons[2] is x509.ReasonFlags.key_compromise
    assert found.listed[0].revoked_at == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert (found.number, found.base, found.issuer) == (7, None, ISSUER)


def test_an_empty_list_and_many_windows(tmp_path: Path) -> None:
    assert read(tmp_path, made()).listed == ()
    many = b"".join(entry(each * 2**80 + 12345) for each in range(1, 9000))
    found = read(tmp_path, made(many), own=(12345 + 2**80, 12345 + 8999 * 2**80, 2))
    assert [each.serial for each in found.listed] == [12345 + 2**80, 12345 + 8999 * 2**80]


@pytest.mark.parametrize("pss", [False, True])
def test_rsa_issuers(tmp_path: Path, pss: bool) -> None:
    key = rsa.generate_private_key(65537, 2048)
    issuer = _self_issued(key, "RSA CA")
    empty = skeleton(issuer, key, pss=pss)
    file = tmp_path / "rsa.crl"
    file.write_bytes(empty if pss else with_entries(empty, key, entry(3)))
    found = crl.read(file, [issuer], {issuer.subject: {3}})
    assert len(found.listed) == (0 if pss else 1)


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    freshest = x509.FreshestCRL([point("http://pki.example/delta.crl")])
    found = read(tmp_path, made(b"", (freshest, False), scope(POINT)))
    assert found.freshest == ("http://pki.example/delta.crl",)
    assert found.points == {POINT}
    assert read(tmp_path, made(b"", (x509.DeltaCRLIndicator(5), True))).base == 5


def test_a_list_of_ca_certificates_says_nothing_about_devices(tmp_path: Path) -> None:
    assert read(tmp_path, made(entry(1), scope(only_contains_ca_certs=True))).listed == ()


@pytest.mark.parametrize(
    ("extension", "words"),
    [
        (scope(indirect_crl=True), "indirect"),
        (scope(only_contains_attribute_certs=True), "attribute"),
        (
            (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True),
            "critical extension that is not known",
        ),
    ],
)
def test_lists_that_are_not_understood(tmp_path: Path, extension: tuple[x509.ExtensionType, bool], words: str) -> None:
    with pytest.raises(RevocationDataUnusable, match=words):
        read(tmp_path, made(entry(1), extension))


def _entry_extension(oid: bytes, *, critical: bool) -> bytes:
    flag = b"\x01\x01\xff" if critical else b""
    one = der.sequence(b"\x06" + bytes([len(oid)]) + oid + flag + b"\x04\x03\x0a\x01\x01")
    return der.sequence(one)


def test_a_critical_extension_in_any_entry(tmp_path: Path) -> None:
    stranger, reason = b"\x55\x1d\x1d", b"\x55\x1d\x15"  # certificateIssuer, reasonCode
    for oid, critical, usable in (
        (stranger, True, False),
        (stranger, False, True),
        (reason, True, True),
    ):
        listed = entry(77, extensions=_entry_extension(oid, critical=critical)) + entry(1)
        if usable:
            assert [each.serial for each in read(tmp_path, made(listed)).listed] == [1]
        else:
            with pytest.raises(RevocationDataUnusable, match="an entry has a critical extension"):
                read(tmp_path, made(listed))
    # The same bytes inside a serial number are only a number.
    assert read(tmp_path, made(entry(0x0101FF) + entry(1))).listed


def test_only_the_issuer_signs(tmp_path: Path) -> None:
    data = made(entry(1))
    other = Authority()
    with pytest.raises(RevocationDataUnusable, match="not of a CA that issued"):
        read(tmp_path, data, issuers=[Authority("Other").issuing])
    with pytest.raises(RevocationDataUnusable, match="signature is not its issuer's"):
        read(tmp_path, data, issuers=[other.issuing])
    assert read(tmp_path, data, issuers=[other.issuing, ISSUER]).issuer == ISSUER  # a CA with an old and a new key
    without = _self_issued(KEY, "No CRLs", crl_sign=False)
    with pytest.raises(RevocationDataUnusable, match="not of a CA"):
        read(tmp_path, skeleton(without, KEY), issuers=[without])


def test_two_algorithms(tmp_path: Path) -> None:
    data = made(entry(1))
    sha256, sha384 = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d040303")
    assert data.count(sha256) == 2
    with pytest.raises(RevocationDataUnusable, match="two different signature algorithms"):
        read(tmp_path, data.replace(sha256, sha384, 1))


def test_sha1_protects_nothing(tmp_path: Path) -> None:
    sha1 = bytes.fromhex("06072a8648ce3d0401")
    data = made(entry(1))
    _, content, _ = der.header(data, 0)
    _, begin, end = der.header(data, content)
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    weak = der.sequence(sha1)
    signed = der.sequence(data[begin:end].replace(algorithm, weak, 1))
    with pytest.raises(RevocationDataUnusable, match="not signed with SHA-256"):
        read(tmp_path, der.sequence(signed + data[end:].replace(algorithm, weak, 1)))


@pytest.mark.parametrize("change", ["first entry", "last entry", "header", "signature"])
def test_a_changed_byte_is_noticed(tmp_path: Path, change: str) -> None:
    data = bytearray(made(b"".join(entry(each + 2**64) for each in range(3000))))
    at = {"first entry": 250, "last entry": len(data) - 200, "header": 40, "signature": len(data) - 3}[change]
    data[at] ^= 0x01
    with pytest.raises(RevocationDataUnusable):
        read(tmp_path, bytes(data))


GOOD = made(entry(1) + entry(2, reason=6) + entry(2**100))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["cut", "flip", "insert", "junk"]), place=st.integers(0, 2**16), junk=st.binary(min_size=1))
def test_whatever_comes_is_refused_or_says_the_same(tmp_path: Path, kind: str, place: int, junk: bytes) -> None:
    at = place % len(GOOD)
    bad = {
        "cut": GOOD[:at],
        "flip": GOOD[:at] + bytes([GOOD[at] ^ (junk[0] or 1)]) + GOOD[at + 1 :],
        "insert": GOOD[:at] + junk + GOOD[at:],
        "junk": junk,
    }[kind]
    try:
        found = read(tmp_path, bad)
    except RevocationDataUnusable:
        return
    assert found == read(tmp_path, GOOD)  # such as a padding bit of the signature


@pytest.mark.parametrize(
    "entries",
    [
        b"\x30\x84\xff\xff\xff\xff" + entry(1),  # longer than the list
        b"\x30\x03\x02\x01\x05" + entry(1),  # no time
        der.sequence(b"\x02\x01\x05" + b"\x17\x0d260101120000Z" + b"\x00" * 20_000),
        entry(1) + b"\x30",
        b"\x31" + entry(1)[1:],
        b"\x00" * 200_000,
    ],
)
def test_malformed_entries_even_when_they_are_signed(tmp_path: Path, entries: bytes) -> None:
    with pytest.raises(RevocationDataUnusable):
        read(tmp_path, made(entries), own=(5,))


def _self_issued(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, name: str, crl_sign: bool = True
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(False, False, False, False, False, True, crl_sign, False, False)
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(9)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
