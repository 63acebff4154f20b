"""Direct methods: a call from the cloud that waits for the device's answer."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from . import topics
from .errors import Code, HubError
from .presence import Presence
from .registry import Registry

_RESPONSE_WITHIN: Final = 30.0
_LONGEST: Final = 300.0
_POLL: Final = 0.05


class Methods:
    def __init__(self, registry: Registry, presence: Presence) -> None:
        self._registry = registry
        self._presence = presence
        self._waiting: dict[str, tuple[str, asyncio.Future[dict[str, Any]]]] = {}

    async def invoke(self, device_id: str, call: Mapping[str, Any]) -> dict[str, Any]:
        """``{methodName, payload?, responseTimeoutInSeconds?, connectTimeoutInSeconds?}`` → ``{status, payload}``.

        Raises HubError: DeviceNotFound, DeviceNotOnline, GatewayTimeout, ArgumentInvalid.
        """
        self._registry.enabled(device_id)
        name = call.get("methodName")
        if not isinstance(name, str) or not name:
            raise HubError(Code.ARGUMENT_INVALID, "methodName is missing.")
        response_within = _seconds(call, "responseTimeoutInSeconds", _RESPONSE_WITHIN)
        connect_within = _seconds(call, "connectTimeoutInSeconds", 0.0)

        rid = uuid.uuid4().hex[:8]
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[rid] = (device_id, answer)
        try:
            await self._send(device_id, f"$iothub/methods/POST/{name}/?$rid={rid}", call.get("payload"), connect_within)
            async with asyncio.timeout(response_within):
                return await answer
        except TimeoutError:
            raise HubError(Code.GATEWAY_TIMEOUT, "Timed out waiting for the response from device.") from None
        finally:
            del self._waiting[rid]

    def answered(self, device_id: str, rid: str, status: int, payload: bytes) -> None:
        """The device's answer. One that nobody waits for, or of another device, is dropped."""
        asked, answer = self._waiting.get(rid, ("", None))
        if answer is None or asked != device_id or answer.done():
            return
        try:
            answer.set_result({"status": status, "payload": json.loads(payload) if payload else None})
        except ValueError:
            answer.set_result({"status": status, "payload": payload.decode(errors="replace")})

    async def _send(self, device_id: str, topic: str, payload: object, within: float) -> None:
        deadline = asyncio.get_running_loop().time() + within
        while True:
            connection = self._presence.find(device_id)
            if connection is not None and connection.send(topics.METHODS, topic, json.dumps(payload).encode()):
                return
            if asyncio.get_running_loop().time() >= deadline:
                raise HubError(Code.DEVICE_NOT_ONLINE, "Timed out waiting for device to connect.")
            await asyncio.sleep(_POLL)


def _seconds(call: Mapping[str, Any], key: str, default: float) -> float:
    value = call.get(key, default)
    if not isinstance(value, int | float) or not 0 <= value <= _LONGEST:
        raise HubError(Code.ARGUMENT_INVALID, f"{key} is not a number from 0 to {_LONGEST:.0f}.")
    return float(value)
