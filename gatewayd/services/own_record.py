"""The gateway's own record follows the configuration, except for its id, which is for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ..config import GatewaySettings
from ..core.model import Device, DeviceKind
from ..errors import ConfigInvalid
from ..pki.names import canonical
from ..store.base import Tx


def adopt(tx: Tx, settings: GatewaySettings, now: datetime) -> None:
    """Make it, or give it the configured names. Raises ConfigInvalid when the record is another gateway's."""
    known = tx.devices.of_kind(DeviceKind.GATEWAY)
    sans = tuple(canonical(each) for each in settings.sans)
    if not known:
        tx.devices.add(Device(device_id=settings.device_id, kind=DeviceKind.GATEWAY, created_at=now, sans=sans))
    elif known[0].device_id != settings.device_id:
        raise ConfigInvalid(
            f"gateway.device_id is {settings.device_id!r}, but this state directory belongs to {known[0].device_id!r}"
        )
    elif known[0].sans != sans:
        tx.devices.put(replace(known[0], sans=sans))
