"""Manufacturers' certificates (IEEE 802.1AR: IDevID): whose they are, and what they say of the hardware they are in."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from ..config import ManufacturerSettings
from ..core.enrollment import SERIAL, EnrollmentRequest, Manufacturer, Origin
from ..core.model import IdentitySource
from . import certificates, pem
from .csr import judge
from .parsing import PARSE_ERRORS

_ON_HARDWARE_MODULE_NAME: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4")
"""id-on-hardwareModuleName (RFC 4108, 5)."""
_LONGEST_CHAIN: Final = 8
_SEQUENCE, _OID, _OCTETS = 0x30, 0x06, 0x04


class Manufacturers:
    """Those that are configured."""

    def __init__(self, settings: Iterable[ManufacturerSettings]) -> None:
        """Raises ConfigInvalid when their anchors cannot be read."""
        self._known = [(each, _rule(each), pem.bundle(each.anchors)) for each in settings]

    @property
    def names(self) -> list[str]:
        return [rule.name for _, rule, _ in self._known]

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        return tuple(anchor for _, _, anchors in self._known for anchor in anchors)

    def origin_of(self, request: EnrollmentRequest, now: datetime) -> Origin | None:
        """None when there is no client certificate, it is none of these manufacturers', or it does not say which piece
        of hardware it is in. Any bytes may come in."""
        if request.peer_certificate is None or not self._known:
            return None
        try:
            certificate = x509.load_der_x509_certificate(request.peer_certificate)
            above = [x509.load_der_x509_certificate(each) for each in request.peer_chain[:_LONGEST_CHAIN]]
            _, key_accepted = judge(certificate.public_key())
        except PARSE_ERRORS:
            return None
        for settings, rule, anchors in self._known:
            serial = _serial(certificate, settings)
            if serial and certificates.is_device_of(certificate, above, anchors, now):
                return Origin(rule, serial, key_accepted)
        return None


def _rule(settings: ManufacturerSettings) -> Manufacturer:
    return Manufacturer(settings.name, frozenset(settings.uses), settings.device, settings.with_code)


def _serial(certificate: x509.Certificate, settings: ManufacturerSettings) -> str | None:
    try:
        match settings.identity:
            case IdentitySource.COMMON_NAME:
                found = certificates.common_name(certificate)
            case IdentitySource.SERIAL_NUMBER:
                values = [each.value for each in certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
                found = values[0] if len(values) == 1 and isinstance(values[0], str) else None
            case IdentitySource.HARDWARE_MODULE:
                found = _module_serial(certificate, settings.hardware_type)
    except PARSE_ERRORS:
        return None
    return found if found and SERIAL.fullmatch(found) else None


def _module_serial(certificate: x509.Certificate, hardware_type: str) -> str | None:
    """hwSerialNum, as text where it is plain ASCII without spaces, else as 0x and hex: no two are written alike."""
    values = [
        each.value
        for each in certificates.general_names(certificate)
        if isinstance(each, x509.OtherName) and each.type_id == _ON_HARDWARE_MODULE_NAME
    ]
    if len(values) != 1:
        return None
    content = _content(values[0], _SEQUENCE)
    kind, rest = _split(content, _OID)
    if kind != _encoded(hardware_type):
        return None
    serial = _content(rest, _OCTETS)
    plain = all(0x21 <= byte <= 0x7E for byte in serial) and not serial.startswith(b"0x")
    return serial.decode("ascii") if plain else f"0x{serial.hex()}"


def _split(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the first element, and what follows it. Raises ValueError for another tag, and for a length of
    more than 127, which no name of this kind needs."""
    if len(der) < 2 or der[0] != tag or der[1] > 0x7F or len(der) < 2 + der[1]:
        raise ValueError("not a hardwareModuleName")
    return der[2 : 2 + der[1]], der[2 + der[1] :]


def _content(der: bytes, tag: int) -> bytes:
    content, rest = _split(der, tag)
    if rest:
        raise ValueError("there is more than a hardwareModuleName")
    return content


def _encoded(oid: str) -> bytes:
    """The content octets of an OBJECT IDENTIFIER (X.690, 8.19)."""
    first, second, *others = (int(each) for each in oid.split("."))
    out = bytearray()
    for number in (40 * first + second, *others):
        septets = [number & 0x7F]
        while number := number >> 7:
            septets.append(number & 0x7F | 0x80)
        out += bytes(reversed(septets))
    return bytes(out)
