"""Has the hub let a certificate in by its thumbprint, while a revoked one of the same name is alive.

The first time that is the one write that ends a swap: pinned to the new certificate and enabled at once. Each renewal
afterwards places its certificate beside the present one before the device gets it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..core.model import Credential, Device, DeviceState, Replacement, ReplacementState
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

    async def place(
        self, device: Device, credential: Credential, connect: Callable[[], Awaitable[None]] | None = None
    ) -> bool:
        """Write, and read back. False when the device needs no pin; then nothing was done. Raises
        ReplacementUnfinished while an old certificate is not shut out, and what the way raises.

        ``connect``: of the gateway itself, to the hub with this very certificate. Where the way goes over the link,
        new hardware has to be let in before it can ask for its pin.
        """
        now = self._clock.now()
        by_pin = self._way.shuts_by_pin(device.device_id)

        def intent(tx: Tx) -> tuple[Replacement | None, Pinning | None]:
            found = replacing.begin_pin(tx, credential, now, by_pin=by_pin)
            return found, replacing.pin_of(tx, found, credential, now) if found else None

        found, pin = await self._store.write(intent)
        if found is None or pin is None:
            return False
        if found.state not in IN_FORCE and found.state is not ReplacementState.PINNING:
            raise unfinished(device)
        if pin.enable and by_pin and connect is not None:
            await connect()
        with self._health.watch(self._health.registry):
            await self._way.pin(pin)
        return True

    async def wait_for_old_hardware(self, device: Device) -> None:
        """Where the old hardware still gets into the hub while the new one asks for its pin, the CA has to tell them
        apart: nothing is minted for the new one before the old one's certificates are revoked, with which it might
        renew. Raises ReplacementUnfinished until then."""
        if device.state is not DeviceState.REPLACING or not self._way.shuts_by_pin(device.device_id):
            return
        found = await self._store.read(lambda tx: tx.replacements.open_of(device.device_id))
        if found is not None and found.state is ReplacementState.CLOSING:
            raise unfinished(device)


def unfinished(device: Device) -> ReplacementUnfinished:
    return ReplacementUnfinished(
        f"The old certificates of {device.device_id} are not shut out yet.", device=device.device_id
    )
