"""New hardware for the gateway itself: what it is, handed over by the old one and taken over by the new one."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta

from ..core import replacement, transfer
from ..core.model import JournalEntry, RevocationReason
from ..core.transfer import Bundle
from ..errors import AdoptionRefused, CertificateUnacceptable, InvalidArgument, NotBootstrapped
from ..pki import sealed
from ..store.base import Store, Tx
from ..store.restoring import RESTORED
from ..upstream.base import LinkCredential
from . import handover
from .anchors import Anchors
from .clock import Clock, require
from .events import Events
from .steps import GatewaySteps

_ADOPTED = "adopted"
"""The setting that holds the SHA-256 of the export that was taken over."""


class Transfers:
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        steps: GatewaySteps,
        anchors: Anchors,
        gateway_id: str,
        ring: Callable[[], None],
        taken_over: Callable[[], None],
    ) -> None:
        """``taken_over``: what was revoked since the export is not known yet."""
        self._store = store
        self._clock = clock
        self._events = events
        self._steps = steps
        self._anchors = anchors
        self._gateway_id = gateway_id
        self._ring = ring
        self._taken_over = taken_over

    async def export(self, who: str) -> str:
        """Signed with the gateway's present key. Raises NotBootstrapped, and what the token raises."""
        require(self._clock)
        now = self._clock.now()
        live = await self._live()
        bundle = await self._store.read(lambda tx: handover.collect(tx, self._gateway_id, now))
        text = await asyncio.to_thread(_seal, bundle, live)
        words = f"{len(bundle.devices) - 1} devices"
        entry = JournalEntry(now, self._gateway_id, who, "exported", "done", words)
        await self._store.write(lambda tx: tx.journal.append(entry))
        self._events.publish(entry)
        return text

    async def _live(self) -> LinkCredential:
        device = await self._store.read(lambda tx: tx.devices.get(self._gateway_id))
        live = await self._steps.live(device) if device is not None else None
        if live is None:
            raise NotBootstrapped(f"{self._gateway_id} has no certificate to sign with.", device=self._gateway_id)
        return live

    async def adopt(self, who: str, text: str, reason: str, max_age: int) -> None:
        """Take over what is in an export, once; the same one again changes nothing. ``max_age`` in seconds, 0 for the
        default. Raises AdoptionRefused, and then nothing was changed."""
        try:
            why = RevocationReason(reason) if reason else replacement.DEFAULT_REASON
        except ValueError:
            raise InvalidArgument(f"{reason!r} is not a reason for a revocation.") from None
        require(self._clock)
        if not self._anchors.known():
            raise AdoptionRefused("No CA is known here to check the export against: set [trust] issuer_anchors.")
        now = self._clock.now()
        longest = timedelta(seconds=max_age) if max_age else transfer.LONGEST_AGE
        digest = hashlib.sha256(text.encode()).hexdigest()
        if await self._store.read(lambda tx: tx.settings.get(_ADOPTED)) == digest:
            return
        bundle = await asyncio.to_thread(self._read, text, now)
        if fault := transfer.fault_of(bundle, self._gateway_id, now, longest):
            raise AdoptionRefused(f"The export is not taken over: {fault}.", device=self._gateway_id)

        def work(tx: Tx) -> list[JournalEntry]:
            entries = handover.take_over(tx, bundle, why, who, now)
            tx.settings.set(_ADOPTED, digest)
            tx.settings.set(RESTORED, json.dumps({"export": bundle.created_at.isoformat(), "at": now.isoformat()}))
            return entries

        entries = await self._store.write(work)
        self._taken_over()
        self._events.publish(*entries)
        self._ring()

    def _read(self, text: str, now: datetime) -> Bundle:
        try:
            content = sealed.unseal(text, self._anchors.known(), self._gateway_id, now)
            return transfer.unpack(Bundle, json.loads(content))
        except CertificateUnacceptable as error:
            raise AdoptionRefused(f"The export is not taken over: {error.message}", device=self._gateway_id) from None
        except (ValueError, RecursionError):
            raise AdoptionRefused("The export cannot be read.", device=self._gateway_id) from None


def _seal(bundle: Bundle, live: LinkCredential) -> str:
    content = json.dumps(transfer.pack(bundle), separators=(",", ":"), sort_keys=True).encode()
    return sealed.seal(content, live.certificate, live.chain, live.private_key)
