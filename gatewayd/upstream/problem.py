"""What the hub's REST interface says when it says no (iothub.md, Errors).

The reliable name is the header ``iothub-errorcode``. Two kinds of body occur, and the second sometimes sits as a
string in the first's ``Message``::

    {"Message": "ErrorCode:PreconditionFailed;…", "ExceptionMessage": "Tracking ID:…"}
    {"errorCode": 404103, "message": "…", "trackingId": "…", "timestampUtc": "…", "info": {…}}
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

TEXT_LIMIT: Final = 300
"""Characters of the hub's words that go into an error message."""

_NAMES: Final = {
    401002: "IotHubUnauthorizedAccess",
    401003: "IotHubUnauthorized",
    403012: "DeviceDisabled",
    404001: "DeviceNotFound",
    409001: "DeviceAlreadyExists",
    412001: "PreconditionFailed",
    429001: "ThrottlingException",
}


@dataclass(frozen=True, slots=True)
class Problem:
    code: str
    """The hub's name for it, such as ``DeviceNotFound``; empty when the answer names none: then it may not be the
    hub that answered."""
    text: str
    """The hub's words, on one line and bounded; may be empty."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.code, self.text) if part) or "no reason given"


def read(header: str | None, body: bytes) -> Problem:
    """From the header ``iothub-errorcode`` and the body, whatever state these are in. Never raises."""
    document = _json_object(body)
    message = document.get("Message")
    nested = _json_object(message) if isinstance(message, str) else {}
    if nested:
        document, message = nested, None
    if message is None:
        message = document.get("message")
    text = message if isinstance(message, str) else ""
    code = _token(header) or _code_in(document, text)
    return Problem(code, _one_line(re.sub(r"^ErrorCode:\w+;?\s*", "", text)))


def _code_in(document: dict[str, Any], text: str) -> str:
    if found := re.match(r"ErrorCode:(\w{1,64})", text):
        return found[1]
    number = document.get("errorCode")
    if isinstance(number, int):
        return _NAMES.get(number, str(number)[:64])
    return _token(number) if isinstance(number, str) else ""


def _token(value: str | None) -> str:
    found = re.match(r"\s*(\w{1,64})\s*$", value or "")
    return found[1] if found else ""


def _one_line(text: str) -> str:
    line = " ".join("".join(each if each.isprintable() else " " for each in text[: 2 * TEXT_LIMIT]).split())
    return line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 1] + "…"


def _json_object(text: str | bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
