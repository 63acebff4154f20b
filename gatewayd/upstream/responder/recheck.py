"""The second way to believe a gateway about a device that is not its child: the CA itself has revoked the certificate.

What is reported is then no matter of trust any more: the report brings the certificate along, a configured CA must have
signed it, its CN must be the device, and the CA's list must name it; what else the report says of it has to be so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import aiohttp
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from ...errors import HubUnreachable, RevocationDataUnusable
from ...pki import certificates, crl
from ...pki.parsing import PARSE_ERRORS
from .message import Request

_KEPT: Final = 300.0
"""Seconds for which a list is not fetched again, however many reports come."""
_LIMIT: Final = 256 * 1024 * 1024
"""Bytes of a list: some five million entries."""
_WITHIN: Final = 60.0


class CrlRecheck:
    def __init__(self, url: str, issuers: Sequence[x509.Certificate], tls: ssl.SSLContext) -> None:
        """``url`` of the complete list; ``issuers``: the CA certificates that sign devices' certificates and it."""
        self._url = url
        self._issuers = tuple(issuers)
        self._tls = tls
        self._lock = asyncio.Lock()
        self._file: Path | None = None
        self._fetched = 0.0

    async def is_revoked(self, request: Request) -> bool:
        """Raises HubUnreachable when the list cannot be had: the report has to come again."""
        certificate = self._certificate(request)
        if certificate is None:
            return False
        async with self._lock:
            path = await self._list()
            try:
                found = await asyncio.to_thread(
                    crl.read, path, self._issuers, {certificate.issuer: {certificate.serial_number}}
                )
            except RevocationDataUnusable as error:
                raise HubUnreachable(f"The CA's list cannot be used: {error.message}") from None
        return any(each.serial == certificate.serial_number for each in found.listed)

    def close(self) -> None:
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _certificate(self, request: Request) -> x509.Certificate | None:
        """The reported certificate, if it is one of this device's and of our CA's."""
        if request.certificate is None:
            return None
        with contextlib.suppress(*PARSE_ERRORS):
            found = x509.load_der_x509_certificate(request.certificate)
            if (
                certificates.common_name(found) == request.device_id
                and certificates.serial_hex(found) == request.serial
                # By these it is judged whether the certificate still opens the identity.
                and certificates.thumbprint(found) == request.thumbprint
                and found.not_valid_after_utc == request.not_after
                and any(_signed(found, each) for each in self._issuers)
            ):
                return found
        return None

    async def _list(self) -> Path:
        if self._file is not None and time.monotonic() - self._fetched < _KEPT:
            return self._file
        handle, name = tempfile.mkstemp(suffix=".crl")
        try:
            with os.fdopen(handle, "wb") as file:
                await self._fetch(file.write)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            os.unlink(name)
            raise HubUnreachable(f"The CA's list cannot be fetched: {type(error).__name__}.") from None
        self.close()
        self._file, self._fetched = Path(name), time.monotonic()
        return self._file

    async def _fetch(self, write: Callable[[bytes], object]) -> None:
        timeout = aiohttp.ClientTimeout(total=_WITHIN)
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls), timeout=timeout) as session,
            session.get(self._url, raise_for_status=True) as response,
        ):
            size = 0
            async for chunk in response.content.iter_chunked(64 * 1024):
                size += len(chunk)
                if size > _LIMIT:
                    raise OSError("it is too large")
                write(chunk)


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
