"""After a restore without the database that was lost, and on new hardware that has taken over an export: what came
since the backup is found again.

Two things are: keys in the token that are newer than the records (the newest becomes the next generation, under its own
number, so that no older one is taken for the latest), and what the CA has revoked since. Until every source of
revocations was heard once, no leaf is given a certificate: one that was revoked since the backup would still pass for
good.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from ..core.inventory import key_label
from ..core.model import Credential, CredentialState, DeviceState, JournalEntry, KeyRef
from ..errors import GatewayError, RestoreUnproven
from ..keys.base import KeyStore, TokenObject
from ..store.base import Store, Tx
from ..store.restoring import RESTORED
from . import generations, revoking, views
from .clock import Clock
from .events import DAEMON, Alarm, Events

log = logging.getLogger(__name__)

_LOOK: Final = 2.0
_LONGEST_SLEEP: Final = 3600.0
_COME_BACK: Final = 30.0
"""Seconds."""


class AfterRestore:
    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        keys: KeyStore,
        gateway_id: str,
        heard: Callable[[], bool],
        ring: Callable[[], None],
    ) -> None:
        """``heard``: whether every source of revocations has been looked at since the start, with success."""
        self._store = store
        self._clock = clock
        self._events = events
        self._keys = keys
        self._gateway_id = gateway_id
        self._heard = heard
        self._ring = ring
        self._alarm = Alarm()
        self.pending = False

    async def load(self) -> None:
        self.pending = bool(await self._store.read(lambda tx: tx.settings.get(RESTORED)))
        if self.pending:
            now = self._clock.now()
            await self._store.write(lambda tx: revoking.report_open_later(tx, self._gateway_id, now))

    def taken_over(self) -> None:
        """New hardware of the gateway has taken over an export, which tells as little of what came after it as a backup
        does. It has written down RESTORED."""
        self.pending = True
        self._alarm.ring()

    def require(self) -> None:
        """Before a leaf is given a certificate. Raises RestoreUnproven."""
        if self.pending:
            raise RestoreUnproven(
                "What was revoked since the backup, or the export, is not known yet.",
                retry_after=_COME_BACK,
            )

    def waiting(self) -> list[dict[str, Any]]:
        """For status."""
        words = "Leaves get no certificates: what was revoked since the backup, or the export, is not known yet."
        return [views.waiting(words, RestoreUnproven)] if self.pending else []

    async def adopt_keys(self) -> None:
        """The token is open: take up what was made in it after the backup. Raises TokenError."""
        if not self.pending:
            return
        found = newer_keys(await self._keys.objects(), self._gateway_id)
        entries = await self._store.write(lambda tx: self._adopt(tx, found))
        if entries:
            self._events.publish(*entries)
            self._ring()

    def _adopt(self, tx: Tx, found: dict[int, KeyRef]) -> list[JournalEntry]:
        known = tx.credentials.next_generation(self._gateway_id) - 1
        later = sorted(
            number for number, key in found.items() if number > known and tx.credentials.by_key(key.id) is None
        )
        own = tx.devices.get(self._gateway_id)
        if not later or own is None or own.state is not DeviceState.ACTIVE:
            return []
        now = self._clock.now()
        # One generation is on its way at a time; what the backup had under way has come to this since.
        for each in generations.unfinished_of(tx, self._gateway_id):
            tx.credentials.put(replace(each, state=CredentialState.REJECTED, next_attempt_at=None))
        for number in later:
            newest = number == later[-1]
            tx.credentials.add(
                Credential(
                    device_id=self._gateway_id,
                    generation=number,
                    state=CredentialState.WANTED if newest else CredentialState.RETIRED,
                    created_at=now,
                    updated_at=now,
                    key=found[number],
                )
            )
        words = f"generation {later[-1]}: its key is in the token and was made after the backup"
        entry = JournalEntry(now, self._gateway_id, DAEMON, "key found", "done", words)
        tx.journal.append(entry)
        return [entry]

    async def run(self) -> None:
        while True:
            try:
                if self.pending and self._heard():
                    await self._end()
            except GatewayError as error:
                log.warning("after the restore: %s", error)
            await self._alarm.sleep(_LOOK if self.pending else _LONGEST_SLEEP)

    async def _end(self) -> None:
        words = "every source of revocations was heard since"
        entry = JournalEntry(self._clock.now(), self._gateway_id, DAEMON, "restore proven", "done", words)

        def work(tx: Tx) -> None:
            tx.settings.set(RESTORED, "")
            tx.journal.append(entry)

        await self._store.write(work)
        self.pending = False
        self._events.publish(entry)


def newer_keys(objects: Iterable[TokenObject], gateway_id: str) -> dict[int, KeyRef]:
    """The gateway's own private keys in the token, by the generation that their label names."""
    label = re.compile(re.escape(key_label(gateway_id, 0)[:-1]) + r"([1-9][0-9]{0,8})")
    return {
        int(match[1]): KeyRef(each.id, each.algorithm)
        for each in objects
        if each.kind == "private-key" and each.algorithm is not None and (match := label.fullmatch(each.label))
    }
