"""Fetching what a CA publishes, into a file: bounded, conditional, never half."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext
from typing import IO
from urllib.parse import urlsplit

import aiohttp

from ..errors import IssuerUnreachable
from .http import reason

_CHUNK = 64 * 1024
_REDIRECTS = 3


@dataclass(frozen=True, slots=True)
class Validator:
    """What tells a server which version we have (RFC 9110, 8.8)."""

    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> dict[str, str]:
        found = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in found.items() if value is not None}


async def download(
    url: str, into: Path, *, tls: SSLContext, within: float, limit: int, known: Validator
) -> Validator | None:
    """GET ``url`` into the file ``into``, which is there afterwards only if all of it came. None when the version
    ``known`` is still the present one.

    ``within`` (seconds) covers all of it, ``limit`` (bytes) bounds it. A redirect is followed: what is fetched proves
    itself by a signature, and nothing secret is sent. Raises IssuerUnreachable, and OSError when it cannot be kept.
    """
    host = urlsplit(url).netloc
    file: IO[bytes] = await asyncio.to_thread(into.open, "wb")
    complete = False
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls, force_close=True),
                timeout=aiohttp.ClientTimeout(total=within),
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session,
            session.get(
                url, headers={**known.headers(), "Accept-Encoding": "identity"}, max_redirects=_REDIRECTS
            ) as response,
        ):
            if response.status == 304 and known.headers():
                return None
            if response.status != 200:
                raise IssuerUnreachable(f"{host} answers HTTP {response.status} instead of a file.")
            size = 0
            async for chunk in response.content.iter_chunked(_CHUNK):
                size += len(chunk)
                if size > limit:
                    raise IssuerUnreachable(f"{host} sends more than {limit} bytes, which is too much to read.")
                await asyncio.to_thread(file.write, chunk)
            complete = True
            return Validator(_bounded(response.headers.get("ETag")), _bounded(response.headers.get("Last-Modified")))
    except TimeoutError:
        raise IssuerUnreachable(f"{host} did not send it all within {within:g} s.") from None
    except (aiohttp.ClientError, ValueError) as error:
        raise IssuerUnreachable(f"{host} could not be asked: {reason(error)}.") from None
    finally:
        file.close()
        if not complete:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(into.unlink)


def _bounded(header: str | None) -> str | None:
    return header if header is not None and len(header) <= 256 else None
