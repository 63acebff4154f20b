"""Twins over REST (iothub.md, Registry REST): read one, merge into its desired properties."""

from __future__ import annotations

import json
import ssl
from typing import Any
from urllib.parse import quote

from ...errors import HubUnreachable
from ..rest import HubRest, TokenSource, failure


class HubTwins:
    """Role: *IoT Hub Twin Contributor*."""

    def __init__(
        self, host_or_url: str, tokens: TokenSource, scope: str, tls: ssl.SSLContext, timeout: float = 30.0
    ) -> None:
        """As ``HubRest``."""
        self._rest = HubRest(host_or_url, tokens, scope, tls, timeout)

    async def desired(self, device_id: str) -> dict[str, Any] | None:
        """The desired properties; None when there is no such device, or when it is disabled."""
        document = await self._request("GET", device_id, None, "be read")
        if document is None:
            return None
        properties = document.get("properties")
        desired = properties.get("desired") if isinstance(properties, dict) else None
        return desired if isinstance(desired, dict) else {}

    async def merge(self, device_id: str, patch: dict[str, Any]) -> bool:
        """Merge into the desired properties. False when there is no such device, or when it is disabled."""
        return await self._request("PATCH", device_id, {"properties": {"desired": patch}}, "be written") is not None

    async def close(self) -> None:
        await self._rest.close()

    async def _request(
        self, method: str, device_id: str, document: dict[str, Any] | None, what: str
    ) -> dict[str, Any] | None:
        path = f"/twins/{quote(device_id, safe='')}"
        answer = await self._rest.request(method, path, document, device_id=device_id)
        if answer.status == 404 and answer.problem.code == "DeviceNotFound":
            return None
        if answer.status != 200:
            raise failure(answer, device_id, what, "twin")
        try:
            twin = json.loads(answer.body)
        except (ValueError, RecursionError):
            twin = None
        if not isinstance(twin, dict):
            raise HubUnreachable(f"What the hub answered about {device_id} is not its twin.", device=device_id)
        return twin
