"""The certificates whose revocation is of interest here: every one on record that has not expired, as an index that
knows their serial numbers, and where their CA publishes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar, cast

from cryptography import x509

from ..core.model import Credential
from ..errors import CertificateUnacceptable
from ..pki import certificates, parsing
from ..pki.crl import distribution_points
from ..pki.ocsp import responder_of
from ..store.base import Store
from .clock import Clock

T = TypeVar("T")

_AT_ONCE = 100
"""Certificates that are read and parsed in one go."""


@dataclass(frozen=True, slots=True)
class Own:
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
        self._known: dict[str, Own] = {}
        self._issuers: dict[tuple[x509.Name, tuple[bytes, ...]], tuple[x509.Certificate, ...]] = {}
        self._shared: dict[object, object] = {}
        self.version = 0
        """Grows whenever a certificate comes or goes."""

    async def refresh(self) -> None:
        now = self._clock.now()
        alive = {
            thumbprint: (device_id, generation)
            for device_id, generation, thumbprint in await self._store.read(lambda tx: tx.credentials.alive(now))
        }
        gone = self._known.keys() - alive.keys()
        new = [place for thumbprint, place in alive.items() if thumbprint not in self._known]
        for thumbprint in gone:
            del self._known[thumbprint]
        for begin in range(0, len(new), _AT_ONCE):
            places = new[begin : begin + _AT_ONCE]
            records = await self._store.read(
                lambda tx, places=places: [tx.credentials.get(*each) for each in places]  # type: ignore[misc]
            )
            self._known |= await asyncio.to_thread(self._parse, [each for each in records if each is not None])
        if gone or new:
            self.version += 1

    def _parse(self, records: Iterable[Credential]) -> dict[str, Own]:
        found: dict[str, Own] = {}
        for each in records:
            assert each.certificate is not None
            assert each.thumbprint is not None
            try:
                certificate = parsing.certificate(each.certificate)
                issuer = self._same(certificate.issuer)
            except (CertificateUnacceptable, *parsing.PARSE_ERRORS):
                continue  # a CA's answer that was rejected for that very reason
            if (issuer, each.chain) not in self._issuers:
                # Who has issued it, proved by signatures, not who came along with it.
                pool = [*map(parsing.certificate, each.chain), *self._anchors()]
                self._issuers[issuer, each.chain] = certificates.chain_of(certificate, pool)
            found[each.thumbprint] = Own(
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
        return self._known.values()

    def by_thumbprint(self, sha256: str) -> Own | None:
        return self._known.get(sha256)

    def serials(self) -> dict[x509.Name, dict[int, Own]]:
        """By issuer."""
        found: dict[x509.Name, dict[int, Own]] = {}
        for each in self._known.values():
            found.setdefault(each.issuer, {})[each.serial] = each
        return found
