"""EZCA's link to the hub: on revocation it disables the device of that CN on its own side.

How fast the real link is, how it maps a certificate to a device and whether it retries is unknown. This one goes by
CN, at once, and tries three times.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import ssl
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import aiohttp

_LOG = logging.getLogger(__name__)

_POLICY = "iothubowner"
_API_VERSION = "2021-04-12"
_ATTEMPTS = 3
_PAUSE = 1.0
_TIMEOUT = aiohttp.ClientTimeout(total=10)


class HubLink:
    """Disables devices through the registry's REST calls, with the key of a shared access policy."""

    def __init__(self, directory: Path, url: str) -> None:
        self._url = url.rstrip("/")
        self._key = base64.b64decode((directory / "hub-key").read_text())
        self._tls = ssl.create_default_context(cafile=directory / "web-root.pem")

    async def disable(self, device_id: str) -> None:
        """Never raises; the outcome is in the log."""
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_PAUSE)
            try:
                outcome = await self._disable_once(device_id)
            except (aiohttp.ClientError, TimeoutError) as error:
                outcome = None
                _LOG.warning("hub link: %s: %s", device_id, error)
            if outcome is not None:
                _LOG.info("hub link: %s: %s", device_id, outcome)
                return
        _LOG.warning("hub link: gave up on %s", device_id)

    async def _disable_once(self, device_id: str) -> str | None:
        """None: try again."""
        url = f"{self._url}/devices/{quote(device_id, safe='')}?api-version={_API_VERSION}"
        headers = {"Authorization": self._signature()}
        connector = aiohttp.TCPConnector(ssl=self._tls)
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=_TIMEOUT) as session:
            async with session.get(url) as response:
                if response.status == 404:
                    return "no such device in the hub"
                if response.status != 200:
                    return None
                identity = await response.json()
            if identity["status"] == "disabled":
                return "disabled already"
            changed = {**identity, "status": "disabled", "statusReason": "certificate revoked at EZCA"}
            async with session.put(url, json=changed, headers={"If-Match": f'"{identity["etag"]}"'}) as response:
                return "disabled" if response.status == 200 else None

    def _signature(self) -> str:
        """A shared access signature for five minutes (iothub.md, Auth)."""
        resource = quote(urlsplit(self._url).netloc, safe="")
        expiry = int(time.time()) + 300
        digest = hmac.new(self._key, f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
        signature = quote(base64.b64encode(digest), safe="")
        return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={_POLICY}"
