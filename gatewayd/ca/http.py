"""One request, one bounded answer: what every call to a CA over HTTPS has in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ssl import SSLContext
from urllib.parse import urlsplit

import aiohttp

from ..errors import IssuerUnreachable

_CHUNK = 64 * 1024
_KEPT = 4
_KEPT_FOR = 10.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, complete and within bounds, whatever its status."""

    status: int
    body: bytes
    retry_after: float | None = None
    """Seconds, when the peer names a time to come back."""

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace").removeprefix("\ufeff").strip()


class Connections:
    """To one CA, kept open for requests that do no harm when they reach it twice; ``close`` ends them."""

    def __init__(self, tls: SSLContext) -> None:
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls, limit=_KEPT, keepalive_timeout=_KEPT_FOR)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def exchange(
    method: str,
    url: str,
    *,
    tls: SSLContext,
    within: float,
    limit: int,
    headers: Mapping[str, str],
    body: bytes | None = None,
    kept: Connections | None = None,
) -> Answer:
    """Send one request, and never again by itself; on a connection of its own, unless there are ``kept`` ones.

    A connection that was kept open may die at the very moment it is used, and would leave open whether the CA has seen
    the request; the handshake saved is not worth a certificate minted twice. ``kept`` is for what may be asked twice.

    ``within`` (seconds) covers everything from connecting to the last byte; ``limit`` (bytes) bounds the body.
    Raises IssuerUnreachable when there is no complete answer within both.
    """
    host = urlsplit(url).netloc
    try:
        async with (
            _session(tls, kept) as session,
            session.request(
                method,
                url,
                data=body,
                timeout=aiohttp.ClientTimeout(total=within),
                headers={**headers, "Accept-Encoding": "identity"},
                allow_redirects=False,  # credentials go to the configured host only
            ) as response,
        ):
            received = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                received += chunk
                if len(received) > limit:
                    raise IssuerUnreachable(f"{host} sent more than {limit} bytes, which is no answer to read.")
            return Answer(response.status, bytes(received), _retry_after(response.headers.get("Retry-After")))
    except TimeoutError:
        raise IssuerUnreachable(f"{host} did not answer within {within:g} s.") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise IssuerUnreachable(f"{host} could not be asked: {reason(error)}.") from None


@asynccontextmanager
async def _session(tls: SSLContext, kept: Connections | None) -> AsyncIterator[aiohttp.ClientSession]:
    if kept is not None:
        yield kept.session()
        return
    connector = aiohttp.TCPConnector(ssl=tls, force_close=True)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


def reason(error: Exception) -> str:
    """Why an exchange failed, in words of our own: what a library says may quote the request."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its TLS certificate is not trusted"
        case aiohttp.ClientConnectorDNSError():
            return "its name does not resolve"
        case aiohttp.ClientSSLError():
            return "TLS could not be established"
        case aiohttp.ClientConnectorError():
            return error.os_error.strerror or "no connection"
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError() | OSError():
            return "the connection broke before the answer was complete"
    return "it does not speak HTTP properly"


def _retry_after(value: str | None) -> float | None:
    """RFC 9110, 10.2.3: seconds or a date."""
    if value is None:
        return None
    try:
        if value.isascii() and value.isdigit():
            return float(value)
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
