"""Connections that come and go while another one is busy: ``python -m tests.support.bus_churn ADDRESS COUNT``.

Ends with "done", or never, when the bindings' locks have closed a circle.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from gi.repository import Gio, GLib

from gatewayd.control.bus import BusConnection
from gatewayd.control.glib import GLibThread


def flood(source: BusConnection, end: threading.Event) -> None:
    while not end.wait(0.0002):
        source.bus.con.emit_signal(None, "/churn", "org.gatewayd.Churn", "Noise", None)


async def churn(address: str, count: int) -> None:
    glib = GLibThread()
    glib.start()
    end = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        busy = await BusConnection.open(address, pool, lambda: None)
        match = GLib.Variant("(s)", ("interface='org.gatewayd.Churn'",))
        bus = "org.freedesktop.DBus"
        none = Gio.DBusCallFlags.NONE
        busy.bus.con.call_sync(bus, "/org/freedesktop/DBus", bus, "AddMatch", match, None, none, -1, None)
        noise = threading.Thread(target=flood, args=(await BusConnection.open(address, pool, lambda: None), end))
        noise.start()
        for number in range(count):
            connection = await BusConnection.open(address, pool, lambda: None)
            await connection.close()
            if number % 20 == 0:
                gc.collect()
        end.set()
        noise.join()
    glib.stop()
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(churn(sys.argv[1], int(sys.argv[2])))
