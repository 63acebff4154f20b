"""Devices and jobs as objects: what a program that listens gets to know."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from gi.repository import Gio, GLib

from gatewayd.control.service import ControlService
from gatewayd.errors import IssuerRejected
from tests.support.bus import Bus, gdbus
from tests.support.fake_operations import FakeOperations, device

ROOT = "/org/gatewayd/Gateway1"
Signal = tuple[str, str, tuple[Any, ...]]


class Listener:
    """Every signal of the service, in order: (path, name, values)."""

    def __init__(self, address: str) -> None:
        flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
        self.con = Gio.DBusConnection.new_for_address_sync(address, flags, None, None)
        self.heard: list[Signal] = []
        sender = "org.gatewayd.Gateway1"
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

    async def until(self, path: str, name: str) -> tuple[Any, ...]:
        """The values of the first such signal. GLib's loop, which calls ``_hear``, runs in the service's thread."""
        async with asyncio.timeout(5):
            while True:
                for heard_path, heard_name, values in self.heard:
                    if (heard_path, heard_name) == (path, name):
                        return values
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


async def test_devices_come_change_and_go(
    bus: Bus, service: ControlService, operations: FakeOperations, listener: Listener
) -> None:
    path = f"{ROOT}/devices/leaf_2d1"
    operations.devices["leaf-1"] = device("leaf-1", state="new", hub_state="absent")
    await service.refresh_devices()
    assert (await listener.until(ROOT, "InterfacesAdded"))[0] == path
    assert (await managed(bus))[path]["org.gatewayd.Device1"]["State"]["data"] == "new"

    operations.devices["leaf-1"] = device("leaf-1", not_after="2031-06-01T12:00:00Z")
    await service.refresh_devices()
    _, changed, _ = await listener.until(path, "PropertiesChanged")
    assert changed == {
        "State": "active",
        "HubState": "present",
        "Serial": "1a2b",
        "NotAfter": "2031-06-01T12:00:00Z",
    }
    assert (await managed(bus))[path]["org.gatewayd.Device1"]["State"]["data"] == "active"

    del operations.devices["leaf-1"]
    await service.refresh_devices()
    assert await listener.until(ROOT, "InterfacesRemoved") == (path, ["org.gatewayd.Device1"])
    assert list(await managed(bus)) == [f"{ROOT}/devices/gw_2d1"]


async def test_a_device_that_was_added_over_the_bus_is_an_object_soon(
    bus: Bus, service: ControlService, listener: Listener
) -> None:
    await asyncio.to_thread(gdbus, bus.address, "org.gatewayd.Gateway1.AddDevice", "leaf-1", "{}")
    assert (await listener.until(ROOT, "InterfacesAdded"))[0] == f"{ROOT}/devices/leaf_2d1"


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
