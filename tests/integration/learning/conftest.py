"""A CA's web server whose every answer the test decides, and the sources on the real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from ssl import create_default_context
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from gatewayd.config import RevocationSettings
from gatewayd.core.model import Credential, CredentialState, Device, DeviceKind
from gatewayd.pki import certificates
from gatewayd.services.clock import SystemClock
from gatewayd.services.crl_source import CrlSource, Shared
from gatewayd.services.events import Events
from gatewayd.services.learning import Learner
from gatewayd.services.own import OwnCertificates
from gatewayd.store.base import Tx
from gatewayd.store.database import SqliteStore
from tests.support.authority import Authority
from tests.support.large_crl import entry, skeleton, with_entries

from ...support.lab import unused_address

HOUR = timedelta(hours=1)


@dataclass
class Published:
    """What the server has at a path."""

    body: bytes
    etag: str | None = None
    status: int = 200


@dataclass
class Ca:
    """An authority, its web server, and the certificates that it has issued."""

    url: str = ""
    authority: Authority = field(default_factory=Authority)
    files: dict[str, Published] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.Response:
        self.requests.append((request.path, dict(request.headers)))
        found = self.files.get(request.path, Published(b"", status=404))
        headers = {} if found.etag is None else {"ETag": found.etag}
        if found.etag is not None and request.headers.get("If-None-Match") == found.etag:
            found = Published(b"", status=304)
        self.statuses.append(found.status)
        return web.Response(status=found.status, body=found.body, headers=headers)

    def crl(
        self,
        *entries: bytes,
        number: int = 1,
        age: timedelta = timedelta(minutes=1),
        lasts: timedelta = HOUR,
        delta: str | None = None,
        base: int | None = None,
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    ) -> bytes:
        found = list(extensions)
        if delta is not None:
            place = x509.DistributionPoint([x509.UniformResourceIdentifier(self.url + delta)], None, None, None)
            found.append((x509.FreshestCRL([place]), False))
        if base is not None:
            found.append((x509.DeltaCRLIndicator(base), True))
        issuer, key = self.authority.issuing, self.authority.issuing_key
        empty = skeleton(issuer, key, number=number, extensions=found, this_update=datetime.now(UTC) - age, lasts=lasts)
        return with_entries(empty, key, b"".join(entries)) if entries else empty


@pytest.fixture
async def ca() -> AsyncIterator[Ca]:
    ca = Ca()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", ca.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, unused_address(), 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    ca.url = f"http://{host}:{port}"
    yield ca
    await runner.cleanup()


class Gateway:
    """Whoever learns: the real store, the sources' parts, and some devices."""

    def __init__(self, directory: Path, store: SqliteStore, ca: Ca) -> None:
        self.directory = directory
        self.store = store
        self.ca = ca
        self.clock = SystemClock()
        self.events = Events()
        self.own = OwnCertificates(store, self.clock, tuple)
        self.learner = Learner(store=store, clock=self.clock, events=self.events)

    def source(self, path: str = "/issuing.crl", **changes: Any) -> CrlSource:
        settings = RevocationSettings(**{"timeout": 5.0, "largest_crl": 1_000_000, **changes})
        copies = self.directory / "crl"
        copies.mkdir(exist_ok=True)
        tls = create_default_context()
        return CrlSource(
            self.ca.url + path, Shared(settings, copies, self.store, self.clock, self.own, self.learner, tls)
        )

    async def device(self, device_id: str, *, generations: int = 1) -> list[Credential]:
        """With its certificates, the last of which is live."""
        now = self.clock.now()
        made: list[Credential] = []
        for generation in range(1, generations + 1):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = self.ca.authority.leaf(key.public_key(), device_id)
            live = generation == generations
            made.append(
                Credential(
                    device_id=device_id,
                    generation=generation,
                    state=CredentialState.CURRENT if live else CredentialState.PREVIOUS,
                    created_at=now,
                    updated_at=now,
                    public_key_sha256=certificates.public_key_sha256_of(certificate),
                    certificate=certificate.public_bytes(Encoding.DER),
                    chain=tuple(each.public_bytes(Encoding.DER) for each in self.ca.authority.chain),
                    serial=certificates.serial_hex(certificate),
                    thumbprint=certificates.thumbprint(certificate),
                    not_before=certificate.not_valid_before_utc,
                    not_after=certificate.not_valid_after_utc,
                )
            )

        def write(tx: Tx) -> None:
            tx.devices.add(Device(device_id, DeviceKind.LEAF, now))
            for each in made:
                tx.credentials.add(each)
            device = tx.devices.get(device_id)
            assert device is not None
            tx.devices.put(Device(device_id, DeviceKind.LEAF, now, current=generations, in_hub=True))

        await self.store.write(write)
        await self.own.refresh()
        return made

    async def revoked(self) -> dict[str, str]:
        """Scope of each revocation by its serial."""
        found = await self.store.read(lambda tx: tx.revocations.all())
        return {each.serial: str(each.scope) for each in found}


@pytest.fixture
async def gateway(tmp_path: Path, ca: Ca) -> AsyncIterator[Gateway]:
    store = SqliteStore(tmp_path / "state" / "gatewayd.db")
    await store.open()
    yield Gateway(tmp_path, store, ca)
    await store.close()


def listed(credential: Credential, reason: int | None = None, *, hours_ago: int = 0) -> bytes:
    """An entry of a CRL."""
    assert credential.serial is not None
    at = (datetime.now(UTC) - hours_ago * HOUR).strftime("%y%m%d%H%M%SZ").encode()
    return entry(int(credential.serial, 16), reason=reason, at=at)
