"""Has the hub let a certificate in by its thumbprint, while a revoked one of the same name is alive.

The first time that is the one write that ends a swap: pinned to the new certificate and enabled at once. Each renewal
afterwards places its certificate beside the present one before the device gets it.
"""

from __future__ import annotations

from ..core import replacement as table
from ..core.model import Credential, Device, ReplacementState
from ..core.replacement import IN_FORCE
from ..errors import ReplacementUnfinished
from ..store.base import Store, Tx
from ..upstream.base import Pinning, Way
from . import replacing
from .clock import Clock
from .health import Health


class Pins:
    def __init__(self, *, store: Store, clock: Clock, health: Health, way: Way) -> None:
        self._store = store
        self._clock = clock
        self._health = health
        self._way = way

    async def place(self, device: Device, credential: Credential) -> bool:
        """Write, and read back. False when the device needs no pin; then nothing was done. Raises
        ReplacementUnfinished while an old certificate is not shut out, and what the way raises."""
        now = self._clock.now()

        def intent(tx: Tx) -> tuple[ReplacementState | None, Credential | None]:
            found = replacing.begin_pin(tx, credential, now)
            return found.state if found else None, tx.credentials.current(device.device_id)

        state, current = await self._store.write(intent)
        if state is None:
            return False
        if state not in IN_FORCE and state is not ReplacementState.PINNING:
            raise ReplacementUnfinished(
                f"The old certificates of {device.device_id} are not shut out yet.", device=device.device_id
            )
        primary, secondary = table.slots(current, credential)
        enable = state is ReplacementState.PINNING
        pin = Pinning(device.device_id, credential.serial or "", primary, secondary, enable)
        with self._health.watch(self._health.registry):
            await self._way.pin(pin)
        return True
