"""What callers hand in, checked before anything is done with it. Pure; every refusal is an InvalidArgument."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from ..core.enrollment import DEVICE_ID
from ..core.listing import HubState, Order, Shown, Wanted
from ..core.model import DeviceKind, KeyAlgorithm, RevocationReason, San
from ..core.page import LIFETIME
from ..errors import InvalidArgument

E = TypeVar("E", bound=StrEnum)

MAX_TOKEN = 16 * 1024
MAX_PIN = 255
MAX_PEM = 64 * 1024
MAX_EXPORT = 24 * 1024 * 1024
"""Characters: what goes through the bus (wrapper.MAX_ANSWER), some 12,000 leaves."""
MAX_SANS = 50
MAX_SAN = 1024
MAX_SERIAL = 128
CODE_LIFETIME = range(60, 90 * 86400 + 1)
"""Seconds: from a minute to 90 days."""
PAGE_OPEN = 3600
"""Seconds that the technician's page is open for when nobody says for how long."""

NONCE = range(8, 33)
"""Bytes. A TPM takes as much as its longest digest has, and SHA-256 every one has."""
MAX_CHALLENGE = 4096
MAX_PATTERN = 256
LIMIT = range(1, 1_000_001)
EXPIRING = range(3650 * 86400 + 1)
"""Seconds: at most ten years."""

MAX_AGE = range(60, 3650 * 86400 + 1)
"""Seconds: how old an export may be, at most ten years."""


def device_id(value: str) -> str:
    if not DEVICE_ID.fullmatch(value):
        raise InvalidArgument(
            f"{shown(value)} is not a device id: 1 to 64 of A-Z a-z 0-9 and - . % _ * ? ! ( ) , : = @ $ '"
        )
    return value


def reason(value: str) -> str:
    names = [each.value for each in RevocationReason]
    if value not in names:
        raise InvalidArgument(f"{shown(value)} is not a reason to revoke: {', '.join(names)}")
    return value


def token(value: str) -> str:
    """An access token in one line; never part of an error."""
    value = value.strip()
    if not value:
        raise InvalidArgument("the token is empty")
    if len(value) > MAX_TOKEN:
        raise InvalidArgument(f"the token is longer than {MAX_TOKEN} characters")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise InvalidArgument("the token holds something else than one line of printable ASCII")
    return value


def pin(value: str) -> str:
    """A PIN in one line; never part of an error."""
    if not value:
        raise InvalidArgument("the PIN is empty")
    if len(value.encode("utf-8", "replace")) > MAX_PIN or not value.isprintable():
        raise InvalidArgument(f"a PIN is one line of at most {MAX_PIN} bytes")
    return value


def certificate(value: str) -> str:
    """PEM of certificates, and no key."""
    if len(value) > MAX_PEM:
        raise InvalidArgument(f"the certificate is longer than {MAX_PEM} characters")
    if "PRIVATE KEY" in value:
        raise InvalidArgument("this is a private key: give the certificate only; the key has to be in the token")
    if "-----BEGIN CERTIFICATE-----" not in value:
        raise InvalidArgument("this is not a certificate in PEM")
    return value


def export(value: str) -> str:
    """What ``gatewayctl export`` has written: a JWS in its compact form."""
    value = value.strip()
    if len(value) > MAX_EXPORT:
        raise InvalidArgument(f"the export is longer than {MAX_EXPORT} characters")
    if not value.isascii() or value.count(".") != 2:
        raise InvalidArgument("this is not what 'gatewayctl export' writes")
    return value


def nonce(value: str) -> bytes:
    """A verifier's, in hex."""
    octets = _decoded(value, bytes.fromhex)
    if octets is None or len(octets) not in NONCE:
        raise InvalidArgument(f"a nonce has {NONCE[0]} to {NONCE[-1]} bytes, in hexadecimal")
    return octets


def challenge(value: str) -> bytes:
    """What tpm2_makecredential has written, in Base64."""
    octets = _decoded(value, partial(b64decode, validate=True))
    if not octets or len(octets) > MAX_CHALLENGE:
        raise InvalidArgument(f"a credential challenge has at most {MAX_CHALLENGE} bytes, in Base64")
    return octets


def _decoded(value: str, decode: Callable[[str], bytes]) -> bytes | None:
    try:
        return decode(value)
    except ValueError:
        return None


class Options:
    """A dictionary ``a{sv}`` of named options: take each, then ``end`` to refuse those that nobody asked for."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._left = dict(given)
        self._known: list[str] = []

    def sans(self) -> list[str]:
        value = self._take("sans", [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise InvalidArgument("option 'sans' must be a list of text")
        if len(value) > MAX_SANS:
            raise InvalidArgument(f"option 'sans' has more than {MAX_SANS} names")
        for each in value:
            if len(each) > MAX_SAN:
                raise InvalidArgument(f"option 'sans' has a name of more than {MAX_SAN} characters")
            try:
                San.parse(each)
            except ValueError as error:
                raise InvalidArgument(f"option 'sans': {error}") from None
        return value

    def wanted(self) -> Wanted:
        """Which devices to list, and in which order."""
        pattern = self._take("id", "*")
        if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_PATTERN:
            raise InvalidArgument(f"option 'id' must be a pattern of 1 to {MAX_PATTERN} characters")
        within, limit = self._whole("expiring_within", EXPIRING), self._whole("limit", LIMIT)
        return Wanted(
            id=pattern,
            kind=self._one_of("kind", DeviceKind),
            states=self._some_of("states", Shown),
            hub_states=self._some_of("hub_states", HubState),
            expiring_within=None if within is None else timedelta(seconds=within),
            order=self._one_of("sort", Order) or Order.ID,
            limit=limit,
        )

    def code_lifetime(self) -> int:
        """Seconds; 0 when it is not given."""
        return self._seconds("code_lifetime", 0, CODE_LIFETIME)

    def page_lifetime(self) -> int:
        """Seconds."""
        return self._seconds("lifetime", PAGE_OPEN, LIFETIME)

    def max_age(self) -> int:
        """Seconds; 0 when it is not given."""
        value = self._take("max_age", 0)
        if not isinstance(value, int) or isinstance(value, bool) or (value != 0 and value not in MAX_AGE):
            raise InvalidArgument(f"option 'max_age' must be from {MAX_AGE[0]} to {MAX_AGE[-1]} seconds")
        return value

    def secret_token(self) -> str:
        """ "" when it is not given."""
        value = self._take("token", "")
        if not isinstance(value, str):
            raise InvalidArgument("option 'token' must be text")
        return token(value) if value else ""

    def key_algorithm(self) -> str:
        """ "" when it is not given."""
        value = self._take("key_algorithm", "")
        names = [each.value for each in KeyAlgorithm]
        if not isinstance(value, str) or (value and value not in names):
            raise InvalidArgument(f"option 'key_algorithm' must be one of {', '.join(names)}")
        return value

    def hardware(self) -> tuple[str, str]:
        """Manufacturer and serial number; "" for what is not given."""
        found = self._take("manufacturer", ""), self._take("manufacturer_serial", "")
        if not all(isinstance(each, str) and len(each) <= MAX_SERIAL for each in found):
            raise InvalidArgument(
                f"options 'manufacturer' and 'manufacturer_serial' must be text of at most {MAX_SERIAL} characters"
            )
        return found

    def reason(self) -> str:
        """ "" when it is not given."""
        value = self._take("reason", "")
        if not isinstance(value, str):
            raise InvalidArgument("option 'reason' must be text")
        return reason(value) if value else ""

    def token(self) -> str:
        value = self._take("token", "gateway")
        if value not in ("gateway", "registrar"):
            raise InvalidArgument("option 'token' must be gateway or registrar")
        return str(value)

    def final_try(self) -> bool:
        value = self._take("final_try", False)
        if not isinstance(value, bool):
            raise InvalidArgument("option 'final_try' must be true or false")
        return value

    def end(self) -> None:
        if self._left:
            known = f"the options are {', '.join(self._known)}" if self._known else "there are none"
            raise InvalidArgument(f"{shown(min(self._left))} is not an option here: {known}")

    def _whole(self, name: str, allowed: range) -> int | None:
        value = self._take(name, None)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
            raise InvalidArgument(f"option {name!r} must be a whole number from {allowed[0]} to {allowed[-1]}")
        return value

    def _one_of(self, name: str, kind: type[E]) -> E | None:
        value = self._take(name, None)
        return None if value is None else _member(name, value, kind)

    def _some_of(self, name: str, kind: type[E]) -> frozenset[E]:
        values = self._take(name, [])
        if not isinstance(values, list):
            raise InvalidArgument(f"option {name!r} must be a list of text")
        return frozenset(_member(name, each, kind) for each in values)

    def _seconds(self, name: str, default: int, allowed: range) -> int:
        value = self._take(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidArgument(f"option {name!r} must be a whole number of seconds")
        if value != default and value not in allowed:
            raise InvalidArgument(f"option {name!r} must be from {allowed[0]} to {allowed[-1]} seconds")
        return value

    def _take(self, name: str, default: Any) -> Any:
        self._known.append(name)
        return self._left.pop(name, default)


def _member(name: str, value: object, kind: type[E]) -> E:
    if not isinstance(value, str) or value not in list(kind):
        raise InvalidArgument(f"option {name!r} is one of {', '.join(kind)}")
    return kind(value)


def shown(value: str) -> str:
    """Quoted, safe to print, and not longer than a line."""
    return ascii(value if len(value) <= 80 else value[:77] + "...")
