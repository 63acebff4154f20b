"""Keeps the audit trail provable: signs its newest hash in the token from time to time, and verifies it on request.

The registrar's key signs: its certificate is known outside, because an administrator has uploaded it to Entra, so that
a copy of the database can be judged by something that does not lie beside it.

Before a head is signed, what came since the last one is verified; so a start costs no more than that, however long the
trail. What is found broken is written into the trail itself and covered by the next head: it is not found twice by
this loop, and for ever by a whole verification.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from ..core import audit
from ..core.audit import Head, Verification
from ..core.model import JournalEntry
from ..pki import heads
from ..store.base import Store, Tx
from .clock import Clock
from .events import DAEMON, Alarm, Events
from .registrar import Registrar

log = logging.getLogger(__name__)

MOST_UNSIGNED = 500
"""Records after which a head is signed at once."""
LONGEST_UNSIGNED = timedelta(minutes=5)
"""For which a record at most waits for a head, while the token can sign."""
_LOOK = 60.0
"""Seconds."""
_PIECE = 1000
"""Records read at a time: some milliseconds of the reader's."""


class AuditTrail:
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        registrar: Registrar,
        gateway_id: str,
        signed: Callable[[], None] = lambda: None,
    ) -> None:
        """``signed`` is told of each new head."""
        self._signed = signed
        self._store = store
        self._clock = clock
        self._events = events
        self._registrar = registrar
        self._gateway_id = gateway_id
        self._alarm = Alarm()
        self._unsigned = 0
        events.listen(self._happened)

    def _happened(self, _: JournalEntry) -> None:
        self._unsigned += 1
        if self._unsigned == MOST_UNSIGNED:
            self._alarm.ring()

    async def run(self) -> None:
        await self._alarm.rounds("the audit trail is not signed", self.round, _LOOK)

    async def round(self) -> None:
        """Sign a head if it is time for one."""
        if not await self._registrar.made():
            return
        certificate = (await self._registrar.certificate()).public_bytes(Encoding.DER)
        head, written = await self._store.read(lambda tx: (tx.journal.last_head(), tx.journal.written()))
        if head is not None and head.certificate != certificate:  # from now on, the earlier one's proves nothing
            entry = JournalEntry(self._clock.now(), self._gateway_id, DAEMON, "audit", "done", "signed by another key")
            await self._store.write(lambda tx: tx.journal.append(entry))
            await self.sign()
            return
        unsigned = await self._store.read(lambda tx: tx.journal.records(head.seq + 1 if head else 1, 1))
        if not unsigned:
            return
        age = self._clock.now() - unsigned[0].entry.at
        if written - (head.seq if head else 0) >= MOST_UNSIGNED or not timedelta(0) <= age < LONGEST_UNSIGNED:
            await self.sign()

    async def sign(self) -> Head:
        """Verify what came since the last head, and sign the newest record."""
        last = await self._store.read(lambda tx: tx.journal.last_head())
        known = [last] if last else []
        # Whether an earlier certificate may still be trusted is for a whole verification to say.
        checked = Verification(known, lambda _: True, after=last)
        written = await self._feed(checked)
        findings = checked.findings(written)
        if findings:
            words = "; ".join(f"{each.fault} {each.first}-{each.last}" for each in findings[:10])
            log.critical("the audit trail was tampered with: %s", words)
            entry = JournalEntry(self._clock.now(), self._gateway_id, DAEMON, "audit", "failed", words)
            await self._store.write(lambda tx: tx.journal.append(entry))
            self._events.publish(entry)
        self._unsigned = 0
        (newest,) = await self._store.read(lambda tx: tx.journal.records(tx.journal.written(), 1))
        head = Head(self._gateway_id, newest.seq, newest.hash, self._clock.now(), b"", b"")
        signer, signature = await self._registrar.sign(head.signed_bytes())
        head = replace(head, certificate=signer.public_bytes(Encoding.DER), signature=signature)
        await self._store.write(lambda tx: tx.journal.add_head(head))
        self._signed()
        return head

    async def verify(self) -> dict[str, Any]:
        """The whole trail, against the registrar's present certificate (docs/json.md)."""
        known = [await self._registrar.certificate()] if await self._registrar.made() else []
        all_heads = await self._store.read(lambda tx: tx.journal.heads())
        verification = Verification(all_heads, heads.trusted_by(known, self._gateway_id))
        written = await self._feed(verification)
        return await asyncio.to_thread(audit.report, verification, all_heads, written)

    async def _feed(self, verification: Verification) -> int:
        """All that is written now, from where the verification begins; returns its last number."""
        written = await self._store.read(lambda tx: tx.journal.written())
        first = verification.begins_at
        while first <= written:

            def piece(tx: Tx, first: int = first) -> list[audit.Record]:
                return tx.journal.records(first, _PIECE)

            records = [each for each in await self._store.read(piece) if each.seq <= written]
            if not records:
                break
            await asyncio.to_thread(verification.take, records)
            first = records[-1].seq + 1
        return written
