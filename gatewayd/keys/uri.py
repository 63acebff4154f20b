"""PKCS#11 URIs (RFC 7512): text → values → text. Pure.

A URI that carries a PIN is refused, and no message ever quotes a value, so that a PIN in the wrong place does not
end up in a log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from ..errors import ConfigInvalid

_UNRESERVED_AND_AVAILABLE: Final = "A-Za-z0-9._~:\\[\\]@!$'()*+,=\\-"
_PATH_VALUE: Final = re.compile(f"(?:[{_UNRESERVED_AND_AVAILABLE}&]|%[0-9A-Fa-f]{{2}})*")
_QUERY_VALUE: Final = re.compile(f"(?:[{_UNRESERVED_AND_AVAILABLE}/?|]|%[0-9A-Fa-f]{{2}})*")
_SAFE_IN_PATH: Final = ":[]@!$'()*+,=&"
_SAFE_IN_QUERY: Final = ":[]@!$'()*+,=/?|"

_TYPES: Final = ("public", "private", "cert", "secret-key", "data")
_PIN_ATTRIBUTES: Final = ("pin-value", "pin-source")
_QUERY_FIELDS: Final = ("module_name", "module_path")


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """The attributes of RFC 7512, section 2.3; None where the URI does not say."""

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    library_manufacturer: str | None = None
    library_description: str | None = None
    library_version: str | None = None
    slot_id: int | None = None
    slot_description: str | None = None
    slot_manufacturer: str | None = None
    object: str | None = None
    type: str | None = None
    id: bytes | None = None
    module_name: str | None = None
    module_path: str | None = None

    def __str__(self) -> str:
        """The URI that parses to this value."""
        path: list[str] = []
        query: list[str] = []
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None:
                continue
            in_query = item.name in _QUERY_FIELDS
            raw = _encode(value, _SAFE_IN_QUERY if in_query else _SAFE_IN_PATH)
            (query if in_query else path).append(f"{item.name.replace('_', '-')}={raw}")
        return "pkcs11:" + ";".join(path) + ("?" + "&".join(query) if query else "")


_PATH_NAMES: Final = {
    item.name.replace("_", "-"): item.name for item in fields(Pkcs11Uri) if item.name not in _QUERY_FIELDS
}
_QUERY_NAMES: Final = {name.replace("_", "-"): name for name in _QUERY_FIELDS}


def parse(text: str) -> Pkcs11Uri:
    """Read a URI.

    An unknown path attribute would match nothing (RFC 7512, 2.3), so it is refused rather than searched for; unknown
    query attributes are ignored, as the RFC has it. Raises ConfigInvalid.
    """
    scheme, colon, rest = text.partition(":")
    if not colon or scheme.lower() != "pkcs11":
        raise ConfigInvalid("a PKCS#11 URI begins with 'pkcs11:'")
    path, question, query = rest.partition("?")
    values: dict[str, Any] = {}
    for name, raw in _attributes(path, ";"):
        if name in _PIN_ATTRIBUTES:
            raise _pin_in_uri(name)
        if name not in _PATH_NAMES:
            raise ConfigInvalid(f"a PKCS#11 URI's path has no attribute {name!r}")
        if _PATH_NAMES[name] in values:
            raise ConfigInvalid(f"the PKCS#11 URI gives {name!r} twice")
        values[_PATH_NAMES[name]] = _decode(name, raw, _PATH_VALUE)
    for name, raw in _attributes(query, "&") if question else ():
        if name in _PIN_ATTRIBUTES:
            raise _pin_in_uri(name)
        if name not in _QUERY_NAMES:
            continue
        if _QUERY_NAMES[name] in values:
            raise ConfigInvalid(f"the PKCS#11 URI gives {name!r} twice")
        values[_QUERY_NAMES[name]] = _decode(name, raw, _QUERY_VALUE)
    return Pkcs11Uri(**values)


def parse_token(text: str) -> Pkcs11Uri:
    """``parse`` for a URI that says which token. Raises ConfigInvalid."""
    wanted = parse(text)
    if any(each is not None for each in (wanted.object, wanted.type, wanted.id, wanted.module_name)):
        raise ConfigInvalid("the token's PKCS#11 URI must name a token: no object, type, id or module-name")
    return wanted


def _attributes(text: str, separator: str) -> list[tuple[str, str]]:
    pairs = []
    for attribute in text.split(separator) if text else ():
        name, equals, raw = attribute.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ConfigInvalid(f"the PKCS#11 URI's attributes must be name=value, separated by {separator!r}")
        pairs.append((name, raw))
    return pairs


def _decode(name: str, raw: str, allowed: re.Pattern[str]) -> str | bytes | int:
    if not allowed.fullmatch(raw):
        raise ConfigInvalid(f"{name!r} in the PKCS#11 URI holds a character that must be percent-encoded")
    octets = unquote_to_bytes(raw)
    if name == "id":
        return octets
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigInvalid(f"{name!r} in the PKCS#11 URI is not UTF-8") from None
    if name == "slot-id":
        # 64 bits of CK_ULONG have 20 digits.
        if not re.fullmatch(r"[0-9]{1,20}", text):
            raise ConfigInvalid("'slot-id' in the PKCS#11 URI must be a decimal number")
        return int(text)
    if name == "library-version" and not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise ConfigInvalid("'library-version' in the PKCS#11 URI must be of the form 2 or 2.40")
    if name == "type" and text not in _TYPES:
        raise ConfigInvalid(f"'type' in the PKCS#11 URI must be one of {', '.join(_TYPES)}")
    return text


def _encode(value: str | bytes | int, safe: str) -> str:
    if isinstance(value, bytes):
        return "".join(f"%{octet:02X}" for octet in value)  # section 2.3: all of an id should be percent-encoded
    return quote(str(value), safe=safe, encoding="utf-8", errors="strict")


def _pin_in_uri(name: str) -> ConfigInvalid:
    return ConfigInvalid(f"the PKCS#11 URI must not carry a PIN ({name}): give it as a systemd credential or --pin-fd")
