"""What a gateway hands over to the hardware that takes its place, as one value, and that value as plain JSON data.

There is no key in it: the keys of the old hardware stay in its token, and the new hardware makes its own.
"""

from __future__ import annotations

import base64
import types
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from . import lifecycle
from .model import Binding, Credential, CredentialState, Device, DeviceKind, Replacement, Revocation

VERSION: Final = 1
LONGEST_AGE: Final = timedelta(days=1)
"""How old an export may be, if nobody says otherwise: what was revoked since is not in it."""
CLOCK_SKEW: Final = timedelta(minutes=5)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bundle:
    device_id: str
    """The gateway's."""
    created_at: datetime
    journal_seq: int
    journal_hash: str
    """Hex: the head of the audit trail, which stays with the old hardware."""
    devices: tuple[Device, ...]
    credentials: tuple[Credential, ...]
    revocations: tuple[Revocation, ...]
    replacements: tuple[Replacement, ...]
    void_hardware: tuple[Binding, ...] = ()
    """What a revocation has unbound, also where its device has other hardware since."""
    version: int = VERSION


def is_handed_over(credential: Credential, open_serials: Iterable[str], now: datetime) -> bool:
    """Whether the new hardware has to know it: it is alive, was revoked, or is on its way."""
    if credential.state in lifecycle.UNFINISHED or credential.state is CredentialState.REVOKED:
        return True
    if credential.serial is not None and credential.serial in open_serials:
        return True
    return credential.not_after is not None and credential.not_after > now


def without_key(credential: Credential) -> Credential:
    """The old gateway's, in whose token its key has stayed."""
    return replace(credential, key=None)


def fault_of(bundle: Bundle, device_id: str, now: datetime, longest: timedelta) -> str | None:
    """Why this is not to be taken over by the gateway ``device_id``; None when it may be."""
    if bundle.version != VERSION:
        return f"it is of version {bundle.version}, and this gatewayd knows version {VERSION}"
    if bundle.device_id != device_id:
        return f"it is of {bundle.device_id}, and this gateway is {device_id}"
    if bundle.created_at > now + CLOCK_SKEW:
        return f"it was made at {bundle.created_at:%Y-%m-%dT%H:%M:%SZ}, which is yet to come"
    if now - bundle.created_at > longest:
        return f"it was made at {bundle.created_at:%Y-%m-%dT%H:%M:%SZ}: what was revoked since is not in it"
    known = {each.device_id for each in bundle.devices}
    if [each.device_id for each in bundle.devices if each.kind is DeviceKind.GATEWAY] != [device_id]:
        return "the gateway itself is not in it"
    owners = {each.device_id for each in bundle.credentials} | {each.device_id for each in bundle.revocations}
    owners |= {each.device_id for each in bundle.replacements}
    if len(known) != len(bundle.devices) or not owners <= known:
        return "its records do not fit together"
    return None


def pack(value: Any) -> Any:
    """A value of core.model, or one made of them, as JSON data. What is at its default is left out."""
    if is_dataclass(value):
        return {
            each.name: pack(getattr(value, each.name))
            for each in fields(value)
            if getattr(value, each.name) != each.default
        }
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dict):
        return {str(key): pack(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [pack(each) for each in value]
    return str(value) if isinstance(value, StrEnum) else value


def unpack(kind: type[T], data: Any) -> T:
    """The other way round. Raises ValueError for whatever is not exactly a ``kind``."""
    try:
        made: T = _unpack(kind, data)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(str(error)) from None
    return made


def _unpack(kind: Any, data: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in arguments if each is not type(None))
        return None if data is None else _unpack(inner, data)
    if origin is tuple:
        return tuple(_unpack(arguments[0], each) for each in _as(list, data))
    if origin is dict:
        return {_unpack(arguments[0], key): _unpack(arguments[1], each) for key, each in _as(dict, data).items()}
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        given = {name: _unpack(hints[name], each) for name, each in _as(dict, data).items()}
        return kind(**given)  # type: ignore[operator]  # is_dataclass() leaves open whether it is a class
    if kind is datetime:
        at = datetime.fromisoformat(data)
        if at.tzinfo is None:
            raise ValueError(f"{data} is without a time zone")
        return at
    if kind is bytes:
        return base64.b64decode(data, validate=True)
    if issubclass(kind, StrEnum):
        return kind(data)
    return _as(kind, data)


def _as(kind: type[Any], data: Any) -> Any:
    if type(data) is not kind:
        raise ValueError(f"{kind.__name__} expected, {type(data).__name__} found")
    return data
