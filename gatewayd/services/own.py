"""The certificates whose revocation is of interest here: every one on record that has not expired, as an index that
knows their serial numbers, and where their CA publishes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TypeVar, cast

from cryptography import x509

from ..core.model import Credential
from ..errors import CertificateUnacceptable
from ..pki import certificates, parsing
from ..pki.crl import distribution_points
from ..pki.ocsp import responder_of
from ..store.base import Alive, Store, Tx
from .clock import Clock

T = TypeVar("T")

_AT_ONCE = 100
"""Certificates that are read and parsed in one go."""
_PAGE = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Own:
    """One of them; as long as it is known, it is the same object."""

    device_id: str
    generation: int
    serial: int
    issuer: x509.Name
    points: tuple[str, ...]
    """URLs of its CRL."""
    responder: str | None
    """URL of its OCSP responder."""


class OwnCertificates:
    """Each certificate is parsed once; what stays in memory are some hundred bytes of each."""

    def __init__(self, store: Store, clock: Clock, anchors: Callable[[], tuple[x509.Certificate, ...]]) -> None:
        self._store = store
        self._clock = clock
        self._anchors = anchors
        self._known: dict[bytes, Own | None] = {}
        """By thumbprint; None for what cannot be read."""
        self._issuers: dict[tuple[x509.Name, tuple[bytes, ...]], tuple[x509.Certificate, ...]] = {}
        self._shared: dict[object, object] = {}
        self.version = 0
        """Grows whenever a certificate comes or goes."""

    async def refresh(self) -> None:
        now = self._clock.now()
        alive, found_new = 0, False
        async for page in self._alive(now):
            alive += len(page)
            new = [each for each in page if bytes.fromhex(each.thumbprint) not in self._known]
            for begin in range(0, len(new), _AT_ONCE):
                places = [(each.device_id, each.generation) for each in new[begin : begin + _AT_ONCE]]
                records = await self._store.read(
                    lambda tx, places=places: [tx.credentials.get(*each) for each in places]  # type: ignore[misc]
                )
                self._known |= await asyncio.to_thread(self._parse, [each for each in records if each is not None])
                found_new = True
        if gone := len(self._known) > alive:
            left = {bytes.fromhex(each.thumbprint) async for page in self._alive(now) for each in page}
            self._known = {key: own for key, own in self._known.items() if key in left}
        if gone or found_new:
            self.version += 1

    async def _alive(self, now: datetime) -> AsyncIterator[list[Alive]]:
        """Page by page: all of them at once would leave holes in memory between what stays."""
        last = Alive(now)
        while page := await self._store.read(partial(_next_page, last)):
            yield page
            last = page[-1]

    def _parse(self, records: Iterable[Credential]) -> dict[bytes, Own | None]:
        found: dict[bytes, Own | None] = {}
        for each in records:
            assert each.certificate is not None
            assert each.thumbprint is not None
            found[bytes.fromhex(each.thumbprint)] = None
            try:
                certificate = parsing.certificate(each.certificate)
                issuer = self._same(certificate.issuer)
            except (CertificateUnacceptable, *parsing.PARSE_ERRORS):
                continue  # a CA's answer that was rejected for that very reason
            if (issuer, each.chain) not in self._issuers:
                # Who has issued it, proved by signatures, not who came along with it.
                pool = [*map(parsing.certificate, each.chain), *self._anchors()]
                self._issuers[issuer, each.chain] = certificates.chain_of(certificate, pool)
            found[bytes.fromhex(each.thumbprint)] = Own(
                device_id=each.device_id,
                generation=each.generation,
                serial=certificate.serial_number,
                issuer=issuer,
                points=self._same(distribution_points(certificate)),
                responder=self._same(responder_of(certificate)),
            )
        return found

    def _same(self, value: T) -> T:
        """One object for equal values: thousands of certificates name the same CA and the same URLs."""
        return cast(T, self._shared.setdefault(value, value))

    def issuers(self) -> set[x509.Certificate]:
        """The CAs above the own certificates."""
        return {each for chain in self._issuers.values() for each in chain} | set(self._anchors())

    def all(self) -> Iterable[Own]:
        return (each for each in self._known.values() if each is not None)

    def by_thumbprint(self, sha256: str) -> Own | None:
        return self._known.get(bytes.fromhex(sha256))

    def serials(self) -> dict[x509.Name, dict[int, Own]]:
        """By issuer."""
        found: dict[x509.Name, dict[int, Own]] = {}
        for each in self.all():
            found.setdefault(each.issuer, {})[each.serial] = each
        return found


def _next_page(last: Alive, tx: Tx) -> list[Alive]:
    return tx.credentials.alive(last, _PAGE)
