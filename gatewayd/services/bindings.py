"""How a leaf is bound to its hardware. A function of one transaction."""

from __future__ import annotations

from dataclasses import replace

from ..core.model import Binding, Device
from ..errors import InvalidArgument
from ..store.base import Tx


def bind(tx: Tx, device: Device, binding: Binding | None) -> None:
    """None ends the present binding, as a revocation does: that hardware does not come back by a rule either. Raises
    InvalidArgument where the hardware is bound to another device."""
    if binding is None:
        binding = replace(device.binding, void=True) if device.binding is not None else None
    elif (
        (known := tx.devices.of_hardware(binding)) and known.device_id != device.device_id and known.binding == binding
    ):
        raise InvalidArgument(f"{binding.manufacturer} {binding.serial} is bound to {known.device_id} already.")
    tx.devices.put(replace(device, binding=binding))
