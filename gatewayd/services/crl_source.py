"""One CRL that is followed: fetched when it has changed, verified, compared with the certificates on record.

The latest verified copy stays in a file, so that a server need not send again what we have, and so that a start without
a network begins with what is known. What the server calls that version (its ETag) is only kept once all that the copy
says has been written down: a crash in between costs one more download, never a revocation.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from ssl import SSLContext

from ..ca.download import Validator, download
from ..config import RevocationSettings
from ..core.learning import CLOCK_SKEW, Standing, Statement, standing
from ..errors import GatewayError, RevocationDataUnusable, StoreBroken
from ..pki import crl
from ..pki.crl import Crl, Entry
from ..store.base import Store
from .clock import Clock
from .learning import Learner
from .own import Own, OwnCertificates
from .watch import Looked

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all CRL sources work with."""

    settings: RevocationSettings
    directory: Path
    """Where the copies lie."""
    store: Store
    clock: Clock
    own: OwnCertificates
    learner: Learner
    tls: SSLContext


class CrlFile:
    """The latest verified copy of what one URL gives."""

    def __init__(self, url: str, shared: Shared) -> None:
        self.url = url
        self._shared = shared
        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        self.path = shared.directory / f"{name}.crl"
        self._setting = f"crl/{name}"
        self._read: tuple[Crl, int] | None = None
        """The copy, and which state of the own certificates it was compared with."""
        self._validator: Validator | None = None
        """Of the copy; None before it is known."""
        self._settled = True

    async def present(self) -> Crl | None:
        """The copy as it is now, compared with the certificates on record; None when there is none that is usable."""
        version = self._shared.own.version
        if self._read is None or self._read[1] != version:
            try:
                self._read = (await self._verified(self.path), version)
            except FileNotFoundError:
                return None
            except RevocationDataUnusable as error:
                log.warning("the copy of %s: %s", self.url, error)
                return None
        return self._read[0]

    async def update(self, check: Callable[[Crl], None]) -> Crl:
        """Fetch it if it has changed. ``check`` raises RevocationDataUnusable for one that is not to take the copy's
        place. Raises IssuerUnreachable, RevocationDataUnusable, OSError; the copy is then as before."""
        before = await self.present()
        scratch = self.path.with_suffix(".new")
        settings = self._shared.settings
        got = await download(
            self.url,
            scratch,
            tls=self._shared.tls,
            within=settings.timeout,
            limit=settings.largest_crl,
            known=Validator() if before is None else await self._known(),
        )
        if got is None:
            assert before is not None
            return before
        version = self._shared.own.version
        try:
            found = await self._verified(scratch)
            if before is not None and found.this_update < before.this_update:
                raise RevocationDataUnusable("The CRL cannot be used: it is older than the one before.")
            check(found)
        except GatewayError:
            await asyncio.to_thread(scratch.unlink)
            raise
        await asyncio.to_thread(os.replace, scratch, self.path)
        self._read, self._validator, self._settled = (found, version), got, False
        return found

    async def settle(self) -> None:
        """All that the copy says has been written down."""
        if not self._settled and self._validator is not None:
            kept = json.dumps([self._validator.etag, self._validator.last_modified])
            await self._shared.store.write(lambda tx: tx.settings.set(self._setting, kept))
            self._settled = True

    async def _known(self) -> Validator:
        if self._validator is None:
            kept = await self._shared.store.read(lambda tx: tx.settings.get(self._setting))
            self._validator = Validator(*json.loads(kept)) if kept else Validator()
        return self._validator

    async def _verified(self, path: Path) -> Crl:
        own = self._shared.own
        found = await asyncio.to_thread(crl.read, path, own.issuers(), own.serials())
        if found.this_update > self._shared.clock.now() + CLOCK_SKEW:
            raise RevocationDataUnusable("The CRL cannot be used: it is not valid yet.")
        return found


class CrlSource:
    """Implements ``watch.Source``: a complete CRL, with the delta that it names."""

    kind = "crl"

    def __init__(self, url: str, shared: Shared) -> None:
        self.name = url
        self._shared = shared
        self._complete = CrlFile(url, shared)
        self._delta: CrlFile | None = None

    @property
    def path(self) -> Path:
        """The verified copy, where there is one."""
        return self._complete.path

    async def look(self) -> Looked:
        """What is known already counts even when nothing new can be had."""
        try:
            return await self._look()
        except OSError as error:
            raise StoreBroken(f"The copy of {self.name} cannot be kept: {error.strerror}.") from None

    async def _look(self) -> Looked:
        failure: GatewayError | None = None
        delta: Crl | None = None
        try:
            complete = await self._complete.update(self._check_complete)
        except GatewayError as error:
            before = await self._complete.present()
            if before is None:
                raise
            complete, failure = before, error
        else:
            try:
                delta = await self._update_delta(complete)
            except GatewayError as error:
                failure = error
        return replace(await self._learn(complete, delta), error=failure)

    def _check_complete(self, found: Crl) -> None:
        if found.base is not None:
            raise RevocationDataUnusable("The CRL cannot be used: it is a delta, which cannot stand alone.")
        # A list of one distribution point says nothing about the certificates of another (RFC 5280, 6.3.3 b 2).
        named = {self.name} | {url for each in self._shared.own.all() for url in each.points}
        if found.points and not found.points & named:
            raise RevocationDataUnusable("The CRL cannot be used: it is that of another distribution point.")

    async def _update_delta(self, complete: Crl) -> Crl | None:
        if not complete.freshest:
            self._delta = None
            return None
        url = complete.freshest[0]
        if self._delta is None or self._delta.url != url:
            self._delta = CrlFile(url, self._shared)

        def check(found: Crl) -> None:
            """RFC 5280, 5.2.4."""
            if found.base is None or found.number is None or complete.number is None:
                raise RevocationDataUnusable("The delta CRL cannot be used: it is none, or its base has no number.")
            if found.issuer.subject != complete.issuer.subject or found.points != complete.points:
                raise RevocationDataUnusable("The delta CRL cannot be used: it is about other certificates.")
            if found.base > complete.number:
                raise RevocationDataUnusable("The delta CRL cannot be used: its base has not been published yet.")

        delta = await self._delta.update(check)
        assert delta.number is not None
        assert complete.number is not None
        return delta if delta.number >= complete.number else None

    async def _learn(self, complete: Crl, delta: Crl | None) -> Looked:
        own = self._shared.own.serials().get(complete.issuer.subject, {})
        latest = {entry.serial: (entry, of) for of in (complete, delta) if of is not None for entry in of.listed}
        said = [_statement(own[serial], entry, of) for serial, (entry, of) in latest.items() if serial in own]
        settled = await self._shared.learner.learn(self.kind, said)
        if settled:
            await self._complete.settle()
            if self._delta is not None:
                await self._delta.settle()
        updates = [each.next_update for each in (complete, delta) if each is not None and each.next_update is not None]
        return Looked(
            next_update=min(updates, default=None),
            held=tuple(each.device_id for each in said if each.standing is Standing.HELD),
            detail=f"number {(delta or complete).number}" + (f", delta to {complete.number}" if delta else ""),
            settled=settled,
        )


def _statement(own: Own, entry: Entry, of: Crl) -> Statement:
    kind, reason = standing(entry.reason.value if entry.reason else None)
    name = ("CRL" if of.base is None else "delta CRL") + ("" if of.number is None else f" {of.number}")
    return Statement(
        device_id=own.device_id,
        generation=own.generation,
        standing=kind,
        reason=reason,
        revoked_at=entry.revoked_at,
        evidence=f"{name} of {_time(of.this_update)} lists it as revoked since {_time(entry.revoked_at)}",
    )


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
