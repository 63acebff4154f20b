"""Somebody on the bus: calls what it is told to on standard input, and says what it has heard.

Run with the system's interpreter and nothing of ours, since it runs as users who may read neither. A line of JSON is
a call: ``path``, ``interface``, ``member``, ``types`` and ``arguments`` (see calls.py), ``flags`` of Gio.DBusCallFlags.
Its answer is a line with ``error``, the D-Bus error's name or null, and ``message``, the error's words or the answer's
text. An empty line asks for the signals heard so far, each as [path, name].
"""

import json
import os
import sys
from typing import Any

from gi.repository import Gio, GLib

NAME = "org.gatewayd.Gateway1"
AUTHENTICATED = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
con = Gio.DBusConnection.new_for_address_sync(sys.argv[1], AUTHENTICATED, None, None)
heard: list[list[str]] = []


def hear(_con: Any, _sender: str, path: str, _interface: str, name: str, _values: GLib.Variant) -> None:
    if path.startswith("/org/gatewayd"):
        heard.append([path, name])


def variant(kind: str, text: str) -> GLib.Variant:
    return GLib.Variant("s", text) if kind == "s" else GLib.Variant.parse(GLib.VariantType(kind), text, None, None)


def call(order: dict[str, Any]) -> dict[str, str | None]:
    files = Gio.UnixFDList()
    if "h" in order["types"]:  # not the descriptor that gdbus is told: that one is where the answers go
        with open(os.devnull, "wb") as nowhere:
            files.append(nowhere.fileno())  # a duplicate, number 0 of the call's
        order["arguments"] = ["0"]
    values = [variant(*each) for each in zip(order["types"], order["arguments"], strict=True)]
    arguments = GLib.Variant.new_tuple(*values)
    where = (NAME, order["path"], order["interface"], order["member"])
    try:
        flags = Gio.DBusCallFlags(order["flags"])
        answer, _ = con.call_with_unix_fd_list_sync(*where, arguments, None, flags, 20_000, files, None)
    except GLib.Error as error:
        return {"error": Gio.DBusError.get_remote_error(error) or "none", "message": error.message}
    return {"error": None, "message": answer.print_(False)}


con.signal_subscribe(None, None, None, None, None, Gio.DBusSignalFlags.NONE, hear)
for line in sys.stdin:
    if line.strip():
        print(json.dumps(call(json.loads(line))), flush=True)
        continue
    bus = "org.freedesktop.DBus"  # what it sent before this answer has arrived
    con.call_sync(bus, "/org/freedesktop/DBus", bus, "GetId", None, None, Gio.DBusCallFlags.NONE, 20_000, None)
    while GLib.MainContext.default().iteration(False):
        pass
    print(json.dumps(heard), flush=True)
