"""What the tokens hold, who it belongs to, and the removal of what nobody needs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..core import inventory
from ..core.inventory import Claim, Held
from ..core.model import DeviceState
from ..errors import GatewayError
from ..keys.base import KeyStore, TokenObject
from ..store.base import Store, Tx
from .clock import Clock
from .registrar import REGISTRAR
from .steps import FACTORY

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listing:
    """One token."""

    label: str
    objects: list[tuple[TokenObject, Claim]]


class KeyInventory:
    def __init__(self, *, store: Store, clock: Clock, gateway_id: str, tokens: Iterable[KeyStore]) -> None:
        self._store = store
        self._clock = clock
        self._gateway_id = gateway_id
        self._tokens = tuple(tokens)

    async def list(self) -> tuple[list[Listing], Mapping[bytes, Claim]]:
        """Every token's objects with what they are, and what should be in one and is not. Raises TokenError."""
        found = [(keys.status().label, await keys.objects()) for keys in self._tokens]
        claims = await self._claims(each for _, objects in found for each in objects)
        listings = [
            Listing(label, list(zip(objects, inventory.classify(_held(objects), claims), strict=True)))
            for label, objects in found
        ]
        return listings, inventory.missing(_held(each for _, objects in found for each in objects), claims)

    async def collect(self) -> None:
        """Remove what may go, from each token that answers. Raises the last one's TokenError."""
        failed: GatewayError | None = None
        for keys in self._tokens:
            try:
                await self._collect(keys)
            except GatewayError as error:
                failed = error
        if failed is not None:
            raise failed

    async def _collect(self, keys: KeyStore) -> None:
        # The token first, the records after: whatever was made meanwhile is not in the list, and what the records say
        # of a key that is in it is newer than the list. No state from which a key is collected leads back to use.
        objects = await keys.objects()
        claims = await self._claims(objects)
        for key_id in inventory.collectable(_held(objects), claims, self._clock.now()):
            await keys.destroy(key_id)
            log.info("key %s was removed from the token: %s", key_id.hex(), claims[key_id].reason)

    async def _claims(self, objects: Iterable[TokenObject]) -> dict[bytes, Claim]:
        ids = {each.id for each in objects}
        return await self._store.read(lambda tx: self._read_claims(tx, ids))

    def _read_claims(self, tx: Tx, ids: Iterable[bytes]) -> dict[bytes, Claim]:
        claims: dict[bytes, Claim] = {}
        for name, what in ((REGISTRAR, inventory.REGISTRAR), (FACTORY, inventory.FACTORY)):
            if kept := tx.settings.get(name):
                claims[bytes.fromhex(json.loads(kept)["key_id"])] = what
        still_open = {(each.device_id, each.serial) for each in tx.revocations.open()}
        records = [tx.credentials.by_key(each) for each in ids]
        device = tx.devices.get(self._gateway_id)
        if device is not None and device.state is DeviceState.ACTIVE:
            records.append(tx.credentials.current(self._gateway_id))
        for record in records:
            if record is not None and record.key is not None:
                is_open = (record.device_id, record.serial) in still_open
                claims[record.key.id] = inventory.claim(record, revocation_open=is_open)
        return claims


def _held(objects: Iterable[TokenObject]) -> list[Held]:
    return [Held(each.id, each.label, each.kind in ("private-key", "public-key")) for each in objects]
