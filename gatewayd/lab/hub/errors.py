"""The hub's errors and the three shapes in which they reach a REST client.

The reliable name is the header ``iothub-errorcode``. The body differs by endpoint: the device registry answers
``{"Message": "ErrorCode:…", "ExceptionMessage": …}``, twins ``{"errorCode": 404001, "message": …}``, and direct methods
the second as a *string* in the first's ``Message``. A client that reads only one of them is caught here.
"""

from __future__ import annotations

import json
import secrets
import uuid
from enum import Enum
from typing import Any

from .clock import text, utc_now


class Code(Enum):
    """(HTTP status, number, name)."""

    INVALID_PROTOCOL_VERSION = (400, 400001, "InvalidProtocolVersion")
    ARGUMENT_INVALID = (400, 400004, "ArgumentInvalid")
    IOT_HUB_UNAUTHORIZED_ACCESS = (401, 401002, "IotHubUnauthorizedAccess")
    IOT_HUB_UNAUTHORIZED = (401, 401003, "IotHubUnauthorized")
    DEVICE_NOT_FOUND = (404, 404001, "DeviceNotFound")
    DEVICE_NOT_ONLINE = (404, 404103, "DeviceNotOnline")
    DEVICE_ALREADY_EXISTS = (409, 409001, "DeviceAlreadyExists")
    PRECONDITION_FAILED = (412, 412001, "PreconditionFailed")
    TOO_MANY_DEVICES = (413, 413002, "TooManyDevices")
    THROTTLING = (429, 429001, "ThrottlingException")
    SERVER_ERROR = (500, 500001, "ServerError")
    SERVICE_UNAVAILABLE = (503, 503001, "ServiceUnavailable")
    GATEWAY_TIMEOUT = (504, 504101, "GatewayTimeout")

    @property
    def status(self) -> int:
        return self.value[0]

    @property
    def number(self) -> int:
        return self.value[1]

    @property
    def title(self) -> str:
        return self.value[2]


class HubError(Exception):
    """What the hub answers instead of a result."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def unknown_device(device_id: str) -> HubError:
    return HubError(Code.DEVICE_NOT_FOUND, f"The device '{device_id}' is not registered or is disabled.")


def body(error: HubError, path: str) -> dict[str, Any]:
    """The JSON body of ``error`` as the endpoint at ``path`` would write it."""
    tracking_id = f"{secrets.token_hex(16).upper()}-G:0-TimeStamp:{text(utc_now())}"
    flat = {
        "errorCode": error.code.number,
        "trackingId": uuid.uuid4().hex.upper(),
        "message": error.message,
        "info": {},
        "timestampUtc": text(utc_now()),
    }
    if path.startswith("/twins/"):
        return {"Message": json.dumps(flat), "ExceptionMessage": ""} if path.endswith("/methods") else flat
    return {
        "Message": f"ErrorCode:{error.code.title};{error.message}",
        "ExceptionMessage": f"Tracking ID:{tracking_id}",
    }
