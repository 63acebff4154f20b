"""Subject alternative names, between our nouns and X.509's (RFC 5280, 4.2.1.6)."""

from __future__ import annotations

import ipaddress

from cryptography import x509

from ..core.model import San, SanKind
from ..errors import InvalidArgument


def san(name: x509.GeneralName) -> San | None:
    """None for a kind of name that gatewayd does not deal in."""
    match name:
        case x509.RFC822Name():
            return San(SanKind.EMAIL, name.value)
        case x509.DNSName():
            return San(SanKind.DNS, name.value)
        case x509.UniformResourceIdentifier():
            return San(SanKind.URI, name.value)
        case x509.IPAddress(value=ipaddress.IPv4Address() | ipaddress.IPv6Address()):
            return San(SanKind.IP, str(name.value))
    return None


def general_name(name: San) -> x509.GeneralName:
    """Raises InvalidArgument when the value does not fit its kind."""
    try:
        match name.kind:
            case SanKind.EMAIL:
                return x509.RFC822Name(name.value)
            case SanKind.DNS:
                return x509.DNSName(name.value)
            case SanKind.URI:
                return x509.UniformResourceIdentifier(name.value)
            case SanKind.IP:
                return x509.IPAddress(ipaddress.ip_address(name.value))
    except ValueError:
        raise InvalidArgument(f"{name.value!r} cannot be a name of kind {name.kind}.") from None


def canonical(name: San) -> San:
    """The one spelling under which equal names compare equal: host names without case, addresses compressed."""
    if name.kind is SanKind.DNS:
        return San(SanKind.DNS, name.value.lower())
    if name.kind is SanKind.IP:
        try:
            return San(SanKind.IP, str(ipaddress.ip_address(name.value)))
        except ValueError:
            return name
    return name
