"""Whose a manufacturer's certificate is, and which piece of hardware it names."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.config import ManufacturerSettings
from gatewayd.core.enrollment import Origin
from gatewayd.core.model import IdentitySource
from gatewayd.errors import ConfigInvalid
from gatewayd.pki.idevid import Manufacturers
from tests.support.manufacturer import Manufacturer
from tests.support.plant import request

NOW = datetime(2031, 5, 1, tzinfo=UTC)
ACME, OTHER = Manufacturer(), Manufacturer("Other")
KEY = ec.generate_private_key(ec.SECP256R1())
HW_TYPE, HW_NAME = "1.3.6.1.4.1.99999.7", x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4")


def module(serial: bytes, oid: bytes = bytes.fromhex("06092b06010401868d1f07")) -> x509.OtherName:
    content = oid + bytes([4, len(serial)]) + serial
    return x509.OtherName(HW_NAME, bytes([0x30, len(content)]) + content)


@pytest.fixture(scope="module")
def anchors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("anchors") / "acme.pem"
    file.write_bytes(ACME.root.public_bytes(Encoding.PEM))
    return file


def origin(
    anchors: Path,
    certificate: x509.Certificate,
    *chain: x509.Certificate,
    now: datetime = NOW,
    **settings: Any,
) -> Origin | None:
    known = Manufacturers([ManufacturerSettings("acme", anchors, **settings)])
    der = certificate.public_bytes(Encoding.DER)
    sent = tuple(each.public_bytes(Encoding.DER) for each in chain)
    return known.origin_of(request(certificate=der, chain=sent), now)


def serial_of(anchors: Path, certificate: x509.Certificate, **settings: Any) -> str | None:
    found = origin(anchors, certificate, ACME.factory, **settings)
    return found.serial if found else None


def test_the_identity_is_taken_from_where_the_settings_say(anchors: Path) -> None:
    certificate = ACME.device(KEY, "4711", common_name="Pump 3000", names=[module(b"SN-9")])
    assert serial_of(anchors, certificate) == "4711"
    assert serial_of(anchors, certificate, identity=IdentitySource.COMMON_NAME) == "Pump 3000"
    by_module: dict[str, Any] = {"identity": IdentitySource.HARDWARE_MODULE, "hardware_type": HW_TYPE}
    assert serial_of(anchors, certificate, **by_module) == "SN-9"
    assert serial_of(anchors, ACME.device(KEY, names=[module(b"\x00\xff")]), **by_module) == "0x00ff"
    assert serial_of(anchors, ACME.device(KEY, names=[module(b"0x00ff")]), **by_module) == "0x307830306666"


@pytest.mark.parametrize(
    "names",
    [
        [],
        [module(b"SN-9"), module(b"SN-8")],
        [module(b"SN-9", bytes.fromhex("06092b06010401868d1f08"))],
        [module(b"")],
        [x509.OtherName(HW_NAME, b"\x04\x01a")],
        [x509.OtherName(HW_NAME, b"\x30\x00")],
        [x509.OtherName(HW_NAME, b"\x30\x03\x06\x01\x2a")],
        [x509.DNSName("SN-9")],
    ],
)
def test_a_certificate_without_the_identity_is_nobodys(anchors: Path, names: list[x509.GeneralName]) -> None:
    by_module: dict[str, Any] = {"identity": IdentitySource.HARDWARE_MODULE, "hardware_type": HW_TYPE}
    assert serial_of(anchors, ACME.device(KEY, names=names), **by_module) is None


def test_whose_it_is_says_its_chain_alone(anchors: Path) -> None:
    certificate = ACME.device(KEY)
    assert origin(anchors, certificate, ACME.factory) is not None
    assert origin(anchors, certificate) is None  # its issuer is missing
    assert origin(anchors, OTHER.device(KEY), OTHER.factory) is None
    assert origin(anchors, OTHER.device(KEY), OTHER.factory, OTHER.root) is None
    assert origin(anchors, ACME.device(KEY, ""), ACME.factory) is None
    assert origin(anchors, ACME.device(KEY, ca=True), ACME.factory) is None
    assert origin(anchors, ACME.device(KEY, ends=datetime(2030, 1, 1, tzinfo=UTC)), ACME.factory) is None
    forged = OTHER.device(KEY)
    assert origin(anchors, forged, ACME.factory, OTHER.factory) is None


def test_the_factorys_ca_may_be_the_anchor(tmp_path: Path) -> None:
    file = tmp_path / "factory.pem"
    file.write_bytes(ACME.factory.public_bytes(Encoding.PEM))
    assert origin(file, ACME.device(KEY)) is not None


@pytest.mark.parametrize(
    ("key", "accepted"),
    [
        (KEY, True),
        (ec.generate_private_key(ec.SECP384R1()), True),
        (rsa.generate_private_key(65537, 2048), True),
        (rsa.generate_private_key(65537, 1024), False),
        (ec.generate_private_key(ec.SECP256K1()), False),
        (ec.generate_private_key(ec.SECP521R1()), False),
    ],
)
def test_a_weak_key_is_told(anchors: Path, key: CertificateIssuerPrivateKeyTypes, accepted: bool) -> None:
    found = origin(anchors, ACME.device(key), ACME.factory)
    assert found is not None
    assert found.key_accepted is accepted


@given(st.binary(max_size=200), st.lists(st.binary(max_size=60), max_size=3))
def test_whatever_comes_is_no_more_than_nobodys(anchors: Path, der: bytes, chain: list[bytes]) -> None:
    known = Manufacturers([ManufacturerSettings("acme", anchors)])
    assert known.origin_of(request(certificate=der, chain=tuple(chain)), NOW) is None


def test_anchors_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="no-such"):
        Manufacturers([ManufacturerSettings("acme", tmp_path / "no-such.pem")])
