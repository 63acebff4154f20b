"""Topics of the device's side: what belongs to which function, and the property bag. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

TWIN_RESULTS: Final = "$iothub/twin/res/#"
DESIRED: Final = "$iothub/twin/PATCH/properties/desired/#"
METHODS: Final = "$iothub/methods/POST/#"

SYSTEM_PROPERTIES: Final[Mapping[str, str]] = {
    "$.mid": "message-id",
    "$.cid": "correlation-id",
    "$.uid": "user-id",
    "$.to": "to",
    "$.ct": "content-type",
    "$.ce": "content-encoding",
    "$.ctime": "iothub-creation-time-utc",
    "$.sub": "dt-subject",
    "$.ifid": "iothub-interface-id",
}


@dataclass(frozen=True, slots=True)
class Telemetry:
    system: dict[str, str]
    properties: dict[str, str]


@dataclass(frozen=True, slots=True)
class TwinGet:
    rid: str


@dataclass(frozen=True, slots=True)
class TwinReport:
    rid: str


@dataclass(frozen=True, slots=True)
class MethodResult:
    rid: str
    status: int


Request = Telemetry | TwinGet | TwinReport | MethodResult

_METHOD_RESULT: Final = re.compile(r"\$iothub/methods/res/(-?\d+)/\?(.*)")


def devicebound(device_id: str) -> str:
    """The filter of C2D messages."""
    return f"devices/{device_id}/messages/devicebound/#"


def may_subscribe(device_id: str, topic_filter: str) -> bool:
    """A device may only have its own."""
    return topic_filter in (TWIN_RESULTS, DESIRED, METHODS, devicebound(device_id))


def parse(device_id: str, topic: str) -> Request | None:
    """What a PUBLISH to ``topic`` asks for; None when this device has nothing to say there."""
    events = f"devices/{device_id}/messages/events"
    if topic == events or topic.startswith(events + "/"):
        return _telemetry(topic[len(events) :].strip("/"))
    for prefix, kind in (("$iothub/twin/GET/?", TwinGet), ("$iothub/twin/PATCH/properties/reported/?", TwinReport)):
        if topic.startswith(prefix):
            rid = _rid(topic[len(prefix) :])
            return kind(rid) if rid else None
    if matched := _METHOD_RESULT.fullmatch(topic):
        rid = _rid(matched[2])
        return MethodResult(rid, int(matched[1])) if rid else None
    return None


def bag(system: Mapping[str, str], properties: Mapping[str, str]) -> str:
    """System properties first, then the application's sorted by key, percent-encoded."""
    pairs: Iterable[tuple[str, str]] = (*system.items(), *sorted(properties.items()))
    return "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in pairs)


def _telemetry(text: str) -> Telemetry:
    system: dict[str, str] = {}
    properties: dict[str, str] = {}
    for pair in filter(None, text.removeprefix("?").split("&")):
        # '+' is itself in a property bag, not a space: unquote, not unquote_plus.
        key, _, value = (unquote(part) for part in pair.partition("="))
        if key in SYSTEM_PROPERTIES:
            system[SYSTEM_PROPERTIES[key]] = value
        else:
            properties[key] = value
    return Telemetry(system, properties)


def _rid(query: str) -> str | None:
    return dict(parse_qsl(query)).get("$rid")
