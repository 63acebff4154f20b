"""Requests to the hub's service side over HTTPS, and what its answers mean (iothub.md, Registry REST)."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiohttp
import yarl

from ..errors import HubRefused, HubRejected, HubThrottled, HubUnreachable, IssuerUnreachable
from . import problem

API_VERSION: Final = "2021-04-12"
THROTTLED_FOR: Final = 10.0
"""Seconds to wait after a 429: it carries no Retry-After, its text says 10 s."""
ANSWER_LIMIT: Final = 256 * 1024
"""Bytes; an identity is a few hundred, a twin has at most some 70 KB."""
CONNECTIONS: Final = 8
"""To the hub at once: many revocations go side by side, and each has to ask three times."""


class TokenSource(Protocol):
    async def token(self, scope: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    problem: problem.Problem


class HubRest:
    """One HTTPS session to the hub's service side, kept alive; ``close`` ends it."""

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

    async def request(
        self,
        method: str,
        path: str,
        document: dict[str, Any] | None = None,
        *,
        device_id: str,
        etag: str | None = None,
    ) -> Answer:
        """One request; ``path`` is percent-encoded already, ``device_id`` is whom it is about.

        Raises HubUnreachable when no complete answer came, RegistrarRefused for want of a token.
        """
        try:
            token = await self._tokens.token(self._scope)
        except IssuerUnreachable as error:
            raise HubUnreachable(f"No token for the hub's registry: {error.message}", device=device_id) from None
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        if etag is not None:
            headers["If-Match"] = f'"{etag}"'
        url = f"{self._url}{path}?api-version={API_VERSION}"
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
                return Answer(response.status, seen, problem.read(response.headers.get("iothub-errorcode"), seen))
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

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls, limit=CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
            )
        return self._session


def failure(
    answer: Answer, device_id: str, what: str, thing: str = "identity"
) -> HubRefused | HubThrottled | HubUnreachable | HubRejected:
    """The error that an answer stands for: ``thing`` of ``device_id`` cannot ``what``, such as "be read"."""
    said = f"HTTP {answer.status}, {answer.problem}"
    if answer.status in (401, 403):
        return HubRefused(
            f"The hub does not let gatewayd work on the {thing} of {device_id} ({said}).", device=device_id
        )
    if answer.status == 429:
        return HubThrottled(
            f"The hub's registry is over its quota; {device_id} has to wait.",
            device=device_id,
            retry_after=THROTTLED_FOR,
        )
    if answer.status >= 500 or answer.status == 408:
        return HubUnreachable(f"The hub's {thing} of {device_id} could not {what} now ({said}).", device=device_id)
    return HubRejected(f"The hub's {thing} of {device_id} cannot {what} ({said}).", device=device_id)


def _describe(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else type(error).__name__
