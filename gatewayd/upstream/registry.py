"""The hub's device registry over REST (iothub.md, Registry REST)."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote

import aiohttp
import yarl

from ..errors import (
    HubConflict,
    HubRefused,
    HubRejected,
    HubThrottled,
    HubUnreachable,
    IssuerUnreachable,
)
from . import identity as identities
from . import problem
from .base import HubIdentity

API_VERSION: Final = "2021-04-12"
ATTEMPTS: Final = 3
"""How often a write is tried when somebody else was faster or its answer was lost."""
THROTTLED_FOR: Final = 10.0
"""Seconds to wait after a 429: it carries no Retry-After, its text says 10 s."""
ANSWER_LIMIT: Final = 256 * 1024
"""Bytes; an identity is a few hundred."""


class TokenSource(Protocol):
    async def token(self, scope: str) -> str: ...


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    problem: problem.Problem


class HubRegistry:
    """The ``Registry`` port. Keeps one HTTPS session to the hub; ``close`` ends it."""

    def __init__(
        self, host_or_url: str, tokens: TokenSource, scope: str, tls: ssl.SSLContext, timeout: float = 30.0
    ) -> None:
        """``host_or_url`` is ``<hub>.azure-devices.net`` or an https URL; ``timeout`` is the seconds one request may
        take, its token not counted."""
        url = host_or_url if "://" in host_or_url else f"https://{host_or_url}"
        self._url = url.rstrip("/")
        self._tokens = tokens
        self._scope = scope
        self._tls = tls
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def get(self, device_id: str) -> HubIdentity | None:
        answer = await self._request("GET", device_id)
        if answer.status == 200:
            return _identity(answer, device_id)
        # Only the hub's own word that there is no such device counts: another 404 may come from a proxy or a wrong
        # host, and a device that is taken for absent would be taken for harmless.
        if answer.status == 404 and answer.problem.code == "DeviceNotFound":
            return None
        raise _error(answer, device_id, "be read")

    async def ensure(self, device_id: str) -> HubIdentity:
        def missing(present: HubIdentity | None) -> dict[str, Any] | None:
            return identities.new(device_id) if present is None else None

        found = await self._converge(device_id, missing)
        assert found is not None
        return found

    async def disable(self, device_id: str, reason: str) -> HubIdentity | None:
        def still_enabled(present: HubIdentity | None) -> dict[str, Any] | None:
            return identities.disabled(present, reason) if present is not None and present.enabled else None

        return await self._converge(device_id, still_enabled)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _converge(
        self, device_id: str, change: Callable[[HubIdentity | None], dict[str, Any] | None]
    ) -> HubIdentity | None:
        """Read, decide, write, until there is nothing to change.

        A write that met somebody else's (409, 412, or 404 for one deleted meanwhile), or whose answer never came, is
        not repeated blindly: the next round reads first.
        """
        failure: HubConflict | HubUnreachable | None = None
        for _ in range(ATTEMPTS):
            present = await self.get(device_id)
            document = change(present)
            if document is None:
                return present
            try:
                return await self._put(device_id, document, present)
            except (HubConflict, HubUnreachable) as error:
                failure = error
        assert failure is not None
        raise failure

    async def _put(self, device_id: str, document: dict[str, Any], present: HubIdentity | None) -> HubIdentity:
        """Create when nothing is ``present``, otherwise replace exactly that version of it."""
        answer = await self._request("PUT", device_id, document, etag=present.etag if present else None)
        if answer.status == 200:
            return _identity(answer, device_id)
        if answer.status in (404, 409, 412):
            raise HubConflict(
                f"The hub's identity of {device_id} was changed by somebody else at the same time "
                f"({answer.problem.code or answer.status}).",
                device=device_id,
            )
        raise _error(answer, device_id, "be written")

    async def _request(
        self, method: str, device_id: str, document: dict[str, Any] | None = None, etag: str | None = None
    ) -> _Answer:
        """One request. Raises HubUnreachable when no complete answer came, RegistrarRefused for want of a token."""
        try:
            token = await self._tokens.token(self._scope)
        except IssuerUnreachable as error:
            raise HubUnreachable(f"No token for the hub's registry: {error.message}", device=device_id) from None
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        if etag is not None:
            headers["If-Match"] = f'"{etag}"'
        url = f"{self._url}/devices/{quote(device_id, safe='')}?api-version={API_VERSION}"
        try:
            async with self._client().request(
                method, yarl.URL(url, encoded=True), json=document, headers=headers, allow_redirects=False
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_chunked(16 * 1024):
                    body += chunk
                    if len(body) > ANSWER_LIMIT:
                        raise HubUnreachable(
                            f"The hub's answer about {device_id} is longer than {ANSWER_LIMIT} bytes.",
                            device=device_id,
                        )
                # A proxy's error page may echo the request's headers.
                seen = bytes(body).replace(token.encode(), b"...")
                return _Answer(response.status, seen, problem.read(response.headers.get("iothub-errorcode"), seen))
        except TimeoutError:
            raise HubUnreachable(
                f"The hub's registry did not answer about {device_id} within {self._timeout.total:g} seconds.",
                device=device_id,
            ) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise HubUnreachable(
                f"The certificate of the hub's registry is not trusted: {error.certificate_error}.", device=device_id
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise HubUnreachable(
                f"The connection to the hub's registry failed ({_describe(error)}).", device=device_id
            ) from None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls, limit=4),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
            )
        return self._session


def _identity(answer: _Answer, device_id: str) -> HubIdentity:
    """Raises HubUnreachable: an answer that cannot be read tells nothing, so it counts as none."""
    try:
        return identities.parse(json.loads(answer.body), device_id)
    except (ValueError, RecursionError) as error:
        reason = "not JSON" if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)) else str(error)
        raise HubUnreachable(
            f"What the hub's registry answered about {device_id} is not its identity: {reason}.", device=device_id
        ) from None


def _error(answer: _Answer, device_id: str, what: str) -> HubRefused | HubThrottled | HubUnreachable | HubRejected:
    said = f"HTTP {answer.status}, {answer.problem}"
    if answer.status in (401, 403):
        return HubRefused(
            f"The hub does not let gatewayd work on the identity of {device_id} ({said}).", device=device_id
        )
    if answer.status == 429:
        return HubThrottled(
            f"The hub's registry is over its quota; {device_id} has to wait.",
            device=device_id,
            retry_after=THROTTLED_FOR,
        )
    if answer.status >= 500 or answer.status == 408:
        return HubUnreachable(f"The hub's identity of {device_id} could not {what} now ({said}).", device=device_id)
    return HubRejected(f"The hub's identity of {device_id} cannot {what} ({said}).", device=device_id)


def _describe(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else type(error).__name__
