"""What a CA has been heard to say becomes an intent, as durable as an administrator's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..core.learning import Consequence, Standing, Statement, consequence
from ..core.model import DeviceState, JournalEntry, RevocationReason, RevocationScope
from ..errors import RevokedStillAdmitted
from ..store.base import Store, Tx
from . import revoking, views
from .clock import Clock
from .events import Events

_AT_ONCE = 100


class Learner:
    def __init__(self, *, store: Store, clock: Clock, events: Events) -> None:
        self._store = store
        self._clock = clock
        self._events = events

    async def learn(self, origin: str, statements: Sequence[Statement]) -> bool:
        """Write down what follows from ``statements``; ``origin`` is who made it known, such as ``crl``. Idempotent.
        False when one of them has to be heard again a little later."""
        settled = True
        revoked = [each for each in statements if each.standing is Standing.REVOKED]
        for begin in range(0, len(revoked), _AT_ONCE):
            some = revoked[begin : begin + _AT_ONCE]
            results = await self._store.write(lambda tx, some=some: [self._write(tx, origin, s) for s in some])  # type: ignore[misc]
            settled &= all(done for done, _ in results)
            self._events.publish(*(entry for _, entries in results for entry in entries))
        return settled

    def _write(self, tx: Tx, origin: str, said: Statement) -> tuple[bool, list[JournalEntry]]:
        device, credential = tx.devices.get(said.device_id), tx.credentials.get(said.device_id, said.generation)
        assert device is not None
        assert credential is not None
        now = self._clock.now()
        entries: list[JournalEntry] = []
        match consequence(device, credential, tx.credentials.all(said.device_id), said.reason, said.revoked_at, now):
            case Consequence.LATER:
                return False, []
            case Consequence.DEVICE:
                entries += revoking.revoke_device(tx, said.device_id, said.reason, origin, now)
            case Consequence.CERTIFICATE:
                entries += revoking.revoke_certificate(tx, credential, said.reason, origin, now)
        return True, entries + revoking.revoked_at_ca(tx, credential, said.evidence, origin, now)


def still_admitted(tx: Tx, now: datetime) -> list[dict[str, Any]]:
    """For status: the certificates that the CA has revoked and the hub may let in, because their device goes on. One
    that the CA itself calls superseded is in nobody else's hands."""
    alone = {
        (each.device_id, each.serial)
        for each in tx.revocations.all()
        if each.scope is RevocationScope.CERTIFICATE and each.reason is not RevocationReason.SUPERSEDED
    }
    if not alone:
        return []
    return [
        views.waiting(
            f"The hub may let its certificate {serial} in until {views.when(not_after)}:"
            " it is superseded, and the CA has revoked it.",
            RevokedStillAdmitted,
            device_id,
        )
        for device_id, serial, _, not_after in tx.credentials.refused(now)
        if (device_id, serial) in alone and _goes_on(tx, device_id)
    ]


def _goes_on(tx: Tx, device_id: str) -> bool:
    device = tx.devices.get(device_id)
    return device is not None and device.state is DeviceState.ACTIVE
