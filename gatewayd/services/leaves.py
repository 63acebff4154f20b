"""What an administrator may do about leaves: record them, give them codes, say which piece of hardware they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.enrollment import DEVICE_ID, SERIAL
from ..core.model import Binding, Device, DeviceKind, DeviceState, EnrollmentCode, JournalEntry, San
from ..errors import DeviceExists, DeviceRevoked, DeviceUnknown, InvalidArgument
from ..pki.names import canonical, general_name
from ..store.base import Store, Tx
from . import codes
from .bindings import bind
from .clock import Clock, require
from .events import Events
from .status import StatusReader
from .token_operations import Caller

Data = dict[str, Any]


class Leaves:
    """``manufacturers`` are the names of those that are configured."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: Events,
        reader: StatusReader,
        gateway_id: str,
        code_lifetime: int,
        manufacturers: Sequence[str],
    ) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._reader = reader
        self._gateway_id = gateway_id
        self.code_lifetime = code_lifetime
        self._manufacturers = manufacturers

    async def add(
        self, caller: Caller, device_id: str, sans: list[str], code_lifetime: int, manufacturer: str, serial: str
    ) -> Data:
        if not DEVICE_ID.fullmatch(device_id):
            raise InvalidArgument(
                f"{device_id!r} is not a device id that the hub takes: 1 to 64 of "
                "A-Z a-z 0-9 - . % _ * ? ! ( ) , : = @ $ '"
            )
        if device_id == self._gateway_id:
            raise DeviceExists(f"{device_id} is the gateway itself.", device=device_id)
        try:
            names = tuple(canonical(San.parse(each)) for each in sans)
            for name in names:
                general_name(name)  # raises InvalidArgument when the value does not fit its kind
        except ValueError as error:
            raise InvalidArgument(f"{error}.") from None
        binding = self.binding(manufacturer, serial)
        require(self._clock)  # or the code would expire at a time that nobody knows
        now = self._clock.now()
        record = Device(device_id=device_id, kind=DeviceKind.LEAF, created_at=now, sans=names)

        def work(tx: Tx) -> tuple[JournalEntry, str, EnrollmentCode]:
            tx.devices.add(record)
            if binding is not None:
                bind(tx, record, binding)
            entry = JournalEntry(now, device_id, _who(caller), "device added", "done", ", ".join(sans))
            tx.journal.append(entry)
            return (entry, *codes.make(tx, device_id, now, code_lifetime or self.code_lifetime))

        return await self._with_code(work, device_id)

    async def new_code(self, caller: Caller, device_id: str, code_lifetime: int) -> Data:
        require(self._clock)
        now = self._clock.now()

        def work(tx: Tx) -> tuple[JournalEntry, str, EnrollmentCode]:
            record = _known(tx, device_id)
            if record.kind is not DeviceKind.LEAF:
                raise InvalidArgument(f"{device_id} is the gateway: it does not enroll with a code.")
            if record.state is DeviceState.REVOKED:
                raise DeviceRevoked(f"{device_id} has been revoked.", device=device_id)
            entry = JournalEntry(now, device_id, _who(caller), "code made", "done")
            tx.journal.append(entry)
            return (entry, *codes.make(tx, device_id, now, code_lifetime or self.code_lifetime))

        return await self._with_code(work, device_id)

    async def _with_code(self, work: Callable[[Tx], tuple[JournalEntry, str, EnrollmentCode]], device_id: str) -> Data:
        entry, code, kept = await self._store.write(work)
        self._events.publish(entry)
        return await self._reader.with_code(device_id, code, kept.expires_at)

    # --- hardware --------------------------------------------------------------------------------

    def binding(self, manufacturer: str, serial: str) -> Binding | None:
        """None for no serial number. ``manufacturer`` may be "" where there is only one. Raises InvalidArgument."""
        if not serial:
            if manufacturer:
                raise InvalidArgument("A manufacturer was named without a serial number.")
            return None
        if not self._manufacturers:
            raise InvalidArgument("No manufacturer is configured ([[manufacturers]] in gatewayd.toml).")
        known = ", ".join(self._manufacturers)
        if not manufacturer and len(self._manufacturers) > 1:
            raise InvalidArgument(f"Say whose serial number that is: {known}.")
        name = manufacturer or self._manufacturers[0]
        if name not in self._manufacturers:
            raise InvalidArgument(f"{name!r} is not a manufacturer that is configured ({known}).")
        if not SERIAL.fullmatch(serial):
            raise InvalidArgument(f"{serial!r} is not a serial number: 1 to 128 characters of printable ASCII.")
        return Binding(name, serial)

    async def bind(self, caller: Caller, device_id: str, manufacturer: str, serial: str) -> Data:
        binding = self.binding(manufacturer, serial)
        words = f"to {binding.manufacturer} {binding.serial}" if binding is not None else "to none"
        entry = JournalEntry(self._clock.now(), device_id, _who(caller), "hardware bound", "done", words)

        def work(tx: Tx) -> None:
            device = _known(tx, device_id)
            if device.kind is not DeviceKind.LEAF:
                raise InvalidArgument(f"{device_id} is the gateway: it does not enroll here.")
            if device.state is DeviceState.REVOKED and binding is not None:
                raise DeviceRevoked(f"{device_id} has been revoked: replace its hardware.", device=device_id)
            bind(tx, device, binding)
            tx.journal.append(entry)

        await self._store.write(work)
        self._events.publish(entry)
        return await self._reader.device_show(device_id)


def _who(caller: Caller) -> str:
    return f"uid:{caller.uid}"


def _known(tx: Tx, device_id: str) -> Device:
    record = tx.devices.get(device_id)
    if record is None:
        raise DeviceUnknown(f"There is no device {device_id!r}.", device=device_id)
    return record
