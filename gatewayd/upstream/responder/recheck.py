"""What the CA itself says, where the speaker's word is not enough.

About a device that is not the gateway's child: the report brings the certificate along, a configured CA must have
signed it, its CN must be the device, and the CA's list must name it; what else the report says of it has to be so.

About a gateway's own pin: the certificate to be let in, and each that it replaces, must be signed by a configured CA
for this very device; the list must name each replaced one, and not the new one, which must be the youngest of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from ...core.model import RevocationReason
from ...errors import HubUnreachable, RevocationDataUnusable
from ...pki import certificates, crl
from ...pki.parsing import PARSE_ERRORS
from .message import Request

_KEPT: Final = 300.0
"""Seconds for which a list is not fetched again, however many reports come."""
_KEPT_FOR_PINS: Final = 1.0
"""The same for whether a gateway is given its id back: somebody waits for it, and who was revoked just now is not to
have it."""
_SKEW: Final = timedelta(minutes=15)
"""By which clocks may differ."""
_NOT_FOR_GOOD: Final = frozenset({x509.ReasonFlags.certificate_hold, x509.ReasonFlags.remove_from_crl})
_LIMIT: Final = 256 * 1024 * 1024
"""Bytes of a list: some five million entries."""
_WITHIN: Final = 60.0


class CrlRecheck:
    def __init__(
        self,
        url: str,
        issuers: Sequence[x509.Certificate],
        tls: ssl.SSLContext,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``url`` of the complete list; ``issuers``: the CA certificates that sign devices' certificates and it."""
        self._now = now
        self._url = url
        self._issuers = tuple(issuers)
        self._tls = tls
        self._lock = asyncio.Lock()
        self._file: Path | None = None
        self._fetched = 0.0

    async def is_revoked(self, request: Request) -> bool:
        """Whether the certificate is revoked, and not as merely superseded: then its device goes on with another one.
        Raises HubUnreachable when the list cannot be had: the report has to come again."""
        certificate = self._certificate(request)
        if certificate is None or request.reason == RevocationReason.SUPERSEDED:
            return False
        reason = _for_good(await self._read((certificate,), _KEPT)).get(certificate.serial_number)
        return reason is not None and reason != RevocationReason.SUPERSEDED

    async def fault_of_pin(self, request: Request) -> str:
        """Why the CA does not bear out that this certificate takes the place of those; empty when it does. Raises as
        ``is_revoked``."""
        new = self._signed_for(request.device_id, request.certificate)
        if new is None or certificates.serial_hex(new) != request.serial:
            return "it brings no certificate of this device that a configured CA has signed"
        now = self._now()
        if not new.not_valid_before_utc - _SKEW <= now < new.not_valid_after_utc:
            return "its certificate is not valid now"
        replaced = [self._signed_for(request.device_id, each) for each in request.replaced]
        known = [each for each in replaced if each is not None]
        if len(known) < len(replaced):
            return "what it replaces is no certificate of this device that a configured CA has signed"
        listed = await self._read((new, *known), _KEPT_FOR_PINS)
        covers = not listed.points or listed.points & set(crl.distribution_points(new))
        if new.issuer != listed.issuer.subject or not covers:
            return "the CA's list does not cover its certificate"
        revoked = _for_good(listed)
        if new.serial_number in revoked:
            return "the CA has revoked its certificate"
        for each in known:
            serial = certificates.serial_hex(each)
            if each.serial_number not in revoked:
                return f"the CA's list does not name {serial} as revoked"
            if each.not_valid_before_utc >= new.not_valid_before_utc:
                return f"its certificate is older than {serial}, which it is to replace"
            if each.not_valid_after_utc <= now:
                return f"{serial} has expired: there is nothing to be shut out"
        return ""

    async def _read(self, wanted: Iterable[x509.Certificate], kept: float) -> crl.Crl:
        """The list as to these certificates, fetched within the last ``kept`` seconds."""
        serials: dict[x509.Name, set[int]] = {}
        for each in wanted:
            serials.setdefault(each.issuer, set()).add(each.serial_number)
        async with self._lock:
            path = await self._list(kept)
            try:
                found = await asyncio.to_thread(crl.read, path, self._issuers, serials)
            except RevocationDataUnusable as error:
                raise HubUnreachable(f"The CA's list cannot be used: {error.message}") from None
        if found.next_update is not None and found.next_update < self._now():
            self._fetched = -_KEPT
            raise HubUnreachable("The CA's list is overdue, and does not tell what is revoked now.")
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _certificate(self, request: Request) -> x509.Certificate | None:
        """The reported certificate, if it is one of this device's and of our CA's."""
        found = self._signed_for(request.device_id, request.certificate)
        if (
            found is not None
            and certificates.serial_hex(found) == request.serial
            # By these it is judged whether the certificate still opens the identity.
            and certificates.thumbprint(found) == request.thumbprint
            and found.not_valid_after_utc == request.not_after
        ):
            return found
        return None

    def _signed_for(self, device_id: str, der: bytes | None) -> x509.Certificate | None:
        if der is None:
            return None
        with contextlib.suppress(*PARSE_ERRORS):
            found = x509.load_der_x509_certificate(der)
            if certificates.common_name(found) == device_id and any(_signed(found, each) for each in self._issuers):
                return found
        return None

    async def _list(self, kept: float) -> Path:
        if self._file is not None and time.monotonic() - self._fetched < kept:
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


def _for_good(listed: crl.Crl) -> dict[int, str]:
    """Serial numbers that are revoked and not on hold, with the reason."""
    return {
        each.serial: each.reason.value if each.reason else RevocationReason.UNSPECIFIED.value
        for each in listed.listed
        if each.reason not in _NOT_FOR_GOOD
    }


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
