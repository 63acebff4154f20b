"""Devices and jobs: what a program that listens gets to know."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from gi.repository import Gio, GLib

from gatewayd.config import ControlSettings
from gatewayd.control.bus import BusConnection
from gatewayd.control.service import ControlService
from gatewayd.errors import IssuerRejected
from tests.support.bus import Bus, gdbus
from tests.support.fake_operations import GATEWAY, FakeOperations, device

ROOT = "/org/gatewayd/Gateway1"
Signal = tuple[str, str, tuple[Any, ...]]


class Listener:
    """Every signal of the service, in order: (path, name, values)."""

    def __init__(self, address: str, sender: str | None = "org.gatewayd.Gateway1") -> None:
        flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
        self.con = Gio.DBusConnection.new_for_address_sync(address, flags, None, None)
        self.heard: list[Signal] = []
        self.con.signal_subscribe(sender, None, None, None, None, Gio.DBusSignalFlags.NONE, self._hear)
        self.con.call_sync(
            "org.freedesktop.DBus",
            "/",
            "org.freedesktop.DBus.Peer",
            "Ping",
            None,
            None,
            Gio.DBusCallFlags.NONE,
            -1,
            None,
        )  # the subscription has arrived

    def _hear(self, _con: Any, _sender: str, path: str, _interface: str, name: str, values: GLib.Variant) -> None:
        self.heard.append((path, name, values.unpack()))

    async def until(self, path: str, name: str, count: int = 1) -> tuple[Any, ...]:
        """The values of such a signal, the ``count``-th. GLib's loop, which calls ``_hear``, runs in the service's
        thread."""
        async with asyncio.timeout(5):
            while True:
                found = [values for *what, values in self.heard if what == [path, name]]
                if len(found) >= count:
                    return found[count - 1]
                await asyncio.sleep(0.01)


@pytest.fixture
def listener(bus: Bus, service: ControlService) -> Iterator[Listener]:
    made = Listener(bus.address)
    yield made
    made.con.close_sync(None)


async def managed(bus: Bus) -> dict[str, Any]:
    """What ``busctl`` reads from the ObjectManager."""
    command = ["busctl", f"--address={bus.address}", "--json=short", "call", "org.gatewayd.Gateway1", ROOT]
    call = [*command, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"]
    finished = await asyncio.to_thread(subprocess.run, call, capture_output=True, text=True, check=True)
    objects: dict[str, Any] = json.loads(finished.stdout)["data"][0]
    return objects


async def test_a_device_that_has_changed_is_told_as_the_list_has_it(
    bus: Bus, service: ControlService, operations: FakeOperations, listener: Listener
) -> None:
    operations.devices["leaf-1"] = device("leaf-1", not_after="2031-06-01T12:00:00Z")
    service.ring("leaf-1")
    device_id, told = await listener.until(ROOT, "DeviceChanged")
    assert device_id == "leaf-1"
    assert told == operations.devices["leaf-1"]
    assert await managed(bus) == {}


async def test_what_changes_together_is_told_once_and_of_no_other_device(
    bus: Bus, service: ControlService, operations: FakeOperations, listener: Listener
) -> None:
    operations.devices.update({each: device(each) for each in ("leaf-1", "leaf-2", "leaf-3")})
    for _ in range(10):
        service.ring("leaf-2")
        service.ring("gone")
    await listener.until(ROOT, "DeviceChanged")
    await asyncio.to_thread(gdbus, bus.address, "org.gatewayd.Gateway1.AddDevice", "leaf-4", "{}")
    await listener.until(ROOT, "DeviceChanged", 2)
    assert [values[0] for _, name, values in listener.heard if name == "DeviceChanged"] == ["leaf-2", "leaf-4"]


async def test_a_job_tells_its_steps_and_its_end(
    bus: Bus, service: ControlService, operations: FakeOperations, listener: Listener
) -> None:
    answer = await asyncio.to_thread(gdbus, bus.address, "org.gatewayd.Gateway1.Revoke", "gw-1", "superseded", "{}")
    path = f"{ROOT}/jobs/1"
    assert path in answer
    assert await listener.until(path, "Finished") == ("done",)
    steps = [values for heard, name, values in listener.heard if (heard, name) == (path, "Progress")]
    assert ("revoked-at-ca", "done", "proof of revoked-at-ca") in steps
    names = [name for heard, name, _ in listener.heard if heard == path]
    assert names[-2:] == ["PropertiesChanged", "Finished"]
    job = (await managed(bus))[path]["org.gatewayd.Job1"]
    assert job["State"]["data"] == "done"
    assert job["Result"]["data"]["device"]["data"]["state"]["data"] == "revoked"


async def test_a_failed_job_has_its_error(
    bus: Bus, service: ControlService, operations: FakeOperations, listener: Listener
) -> None:
    operations.failure = IssuerRejected("the CA said no")
    await asyncio.to_thread(gdbus, bus.address, "org.gatewayd.Gateway1.Renew", "", "{}")
    path = f"{ROOT}/jobs/1"
    assert await listener.until(path, "Finished") == ("failed",)
    job = (await managed(bus))[path]["org.gatewayd.Job1"]
    assert job["Error"]["data"]["error"]["data"] == "IssuerRejected"
    assert job["Error"]["data"]["message"]["data"] == "the CA said no"


async def test_nothing_is_told_before_the_name_is_owned(
    bus: Bus, operations: FakeOperations, settings: ControlSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the bus cannot know whose signals they are, and would give them to strangers, too."""
    allowed, asked = asyncio.Event(), asyncio.Event()
    own = BusConnection.own

    async def later(connection: BusConnection) -> None:
        asked.set()
        await allowed.wait()
        await own(connection)

    monkeypatch.setattr(BusConnection, "own", later)
    monkeypatch.setattr("gatewayd.control.service._SETTLE", 0.01)
    service = ControlService(operations, settings, GATEWAY)
    starting = asyncio.create_task(service.start())
    async with asyncio.timeout(5):
        await asked.wait()
    listener = Listener(bus.address, sender=None)
    service.ring(GATEWAY)
    await asyncio.sleep(0.1)
    operations.devices["leaf-1"] = device("leaf-1")
    allowed.set()
    await starting
    service.ring("leaf-1")
    await listener.until(ROOT, "DeviceChanged")
    assert [values[0] for path, _, values in listener.heard if path.startswith(ROOT)] == ["leaf-1"]
    listener.con.close_sync(None)
    await service.stop()
