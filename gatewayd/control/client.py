"""gatewayctl's side of the bus: calls, errors, and how to follow a job.

GDBus directly: a proxy of pydbus would ask for the introspection first, which costs a round trip and tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from gi.repository import Gio, GLib

from ..errors import (
    DBUS_PREFIX,
    DaemonUnreachable,
    GatewayError,
    InvalidArgument,
    JobUnknown,
    NotAuthorized,
    all_errors,
)
from .access import GATEWAY, JOB, Action, refusal, required
from .base import Data
from .glib import GLibThread

NAME = "org.gatewayd.Gateway1"
ROOT = "/org/gatewayd/Gateway1"
PROPERTIES = "org.freedesktop.DBus.Properties"
TIMEOUT = 60
"""Seconds for one call: a key made in a slow token is the longest that any of them takes."""

TYPING = 60
"""Seconds more that somebody may take to type a password."""

_NO_START = Gio.DBusCallFlags.NO_AUTO_START
"""Who looks at a daemon that was stopped does not start it, nor ``watch`` in the middle of a restore."""

_BUS_ERROR = "org.freedesktop.DBus.Error."
_MISSING = {_BUS_ERROR + name for name in ("UnknownObject", "UnknownMethod", "UnknownInterface")}


LEFT, BACK, LOST = "left", "back", "lost"
"""What is heard beside the daemon's signals: it has left the bus, it is (again) on it, the bus itself is gone."""


_GONE = {LEFT: "gatewayd left the bus", LOST: "the connection to the bus is lost"}


@dataclass(frozen=True, slots=True)
class Heard:
    member: str
    """The signal's name, or LEFT, BACK, LOST."""
    path: str = ""
    values: tuple[Any, ...] = ()


class Client:
    """A connection to the daemon. Every method may raise a GatewayError: the daemon's, or one of the way to it."""

    def __init__(self, address: str, *, interactive: bool = False) -> None:
        """``address`` is a D-Bus address, or "system". ``interactive``: polkit's agent, where there is one, may ask for
        an administrator's password when this user may not do something."""
        self._flags = _NO_START
        if interactive:
            self._flags |= Gio.DBusCallFlags.ALLOW_INTERACTIVE_AUTHORIZATION
        self._timeout = TIMEOUT + (TYPING if interactive else 0)
        flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
        try:
            if address == "system":
                address = Gio.dbus_address_get_for_bus_sync(Gio.BusType.SYSTEM, None)
            self._con = Gio.DBusConnection.new_for_address_sync(address, flags, None, None)
        except GLib.Error as error:
            raise DaemonUnreachable(f"the bus at {address!r} cannot be reached: {error.message}") from None

    def call(self, method: str, signature: str = "()", *arguments: Any) -> Any:
        """A method of org.gatewayd.Gateway1, and its one answer as plain data."""
        return self._call(ROOT, GATEWAY, method, GLib.Variant(signature, arguments))

    def call_with_file(self, method: str, file: int, within: int) -> Any:
        """The same for a method that is given an open file; ``within`` seconds."""
        files = Gio.UnixFDList()
        arguments = GLib.Variant("(h)", (files.append(file),))
        try:
            answer, _ = self._con.call_with_unix_fd_list_sync(
                NAME, ROOT, NAME, method, arguments, None, _NO_START, within * 1000, files, None
            )
        except GLib.Error as error:
            raise _ours(error, required(NAME, method)) from None
        (value,) = answer.unpack()
        return value

    def job(self, path: str) -> Data:
        """A job as docs/json.md has it. Raises JobUnknown."""
        try:
            found = self._call(path, PROPERTIES, "GetAll", GLib.Variant("(s)", (JOB,)))
        except _Missing:
            raise JobUnknown(f"there is no job {path}") from None
        return job_data(path, found)

    def follow(self, path: str, changed: Callable[[Data], None]) -> Data:
        """Call ``changed`` with the job as it is and whenever it changes, until it has ended; the job as it ended.

        Raises JobUnknown, DaemonUnreachable (the daemon went away), KeyboardInterrupt.
        """
        with self.listening((JOB, "Progress", path), (PROPERTIES, "PropertiesChanged", path)) as news:
            while (job := self.job(path))["state"] == "running":
                changed(job)
                if why := _GONE.get(news.get().member):
                    raise DaemonUnreachable(f"{why}; what it has begun it takes up again when it is back")
            changed(job)
            return job

    @contextmanager
    def listening(self, *wanted: tuple[str, str, str | None]) -> Iterator[SimpleQueue[Heard]]:
        """Hear these signals of the daemon's (interface, name, and path if it is to be one alone), and of its coming
        and going and of the loss of the bus in any case. Whoever takes a long time to get them has them all to get."""
        heard: SimpleQueue[Heard] = SimpleQueue()

        def on_signal(_con: Any, _sender: str, path: str, _interface: str, name: str, values: GLib.Variant) -> None:
            heard.put(Heard(name, path, values.unpack()))

        def on_owner(_con: Any, _sender: str, _path: str, _interface: str, _signal: str, values: GLib.Variant) -> None:
            heard.put(Heard(BACK if values.unpack()[2] else LEFT))

        def on_closed(*_: Any) -> None:
            heard.put(Heard(LOST))

        flags = Gio.DBusSignalFlags.NONE
        bus = "org.freedesktop.DBus"
        subscriptions = [
            self._con.signal_subscribe(NAME, interface, name, path, None, flags, on_signal)
            for interface, name, path in wanted
        ]
        subscriptions.append(
            self._con.signal_subscribe(bus, bus, "NameOwnerChanged", None, NAME, flags, on_owner),
        )
        handler = self._con.connect("closed", on_closed)
        glib = GLibThread()  # not in this one: a Ctrl-C there can come between two looks and be lost
        glib.start()
        try:
            yield heard
        finally:
            glib.stop()
            self._con.disconnect(handler)
            for subscription in subscriptions:
                self._con.signal_unsubscribe(subscription)

    def _call(self, path: str, interface: str, method: str, arguments: GLib.Variant) -> Any:
        limit = self._timeout * 1000
        try:
            answer = self._con.call_sync(NAME, path, interface, method, arguments, None, self._flags, limit, None)
        except GLib.Error as error:
            action = Action.VIEW if interface == PROPERTIES else required(interface, method)
            raise _ours(error, action) from None
        (value,) = answer.unpack()
        return value


def job_data(path: str, found: Data) -> Data:
    """A job as docs/json.md has it, from its properties."""
    data: Data = {"job": path, "kind": found["Kind"], "device_id": found["DeviceId"], "state": found["State"]}
    data["started_at"] = found["StartedAt"]
    if found["FinishedAt"]:
        data["finished_at"] = found["FinishedAt"]
    data["steps"] = found["Steps"]
    if found["State"] == "done":
        data["result"] = found["Result"]
    if found["State"] == "failed":
        data["error"] = found["Error"]
    return data


class _Missing(DaemonUnreachable):
    """The name is owned, but the object is not there: gone, or not there yet."""


def _ours(error: GLib.Error, action: Action) -> GatewayError:
    """The error that an answer, or the want of one, stands for; ``action`` is what the call takes."""
    name = Gio.DBusError.get_remote_error(error) or ""
    message = error.message.removeprefix(f"GDBus.Error:{name}: ")
    if name.startswith(DBUS_PREFIX):
        known = all_errors().get(name.removeprefix(DBUS_PREFIX))
        if known is NotAuthorized and action in message:
            return NotAuthorized(message, remedy=refusal(action, "").remedy)
        return known(message) if known else GatewayError(f"{message} ({name})")
    if name == _BUS_ERROR + "AccessDenied":
        return refusal(action, "this user")
    if name == _BUS_ERROR + "InvalidArgs":
        return InvalidArgument(message)
    if name in _MISSING:
        return _Missing("gatewayd is on the bus but does not answer there")
    if name in (_BUS_ERROR + "ServiceUnknown", _BUS_ERROR + "NameHasNoOwner"):
        return DaemonUnreachable("gatewayd is not on the bus")
    if error.matches(Gio.io_error_quark(), Gio.IOErrorEnum.TIMED_OUT) or name in (
        _BUS_ERROR + "NoReply",
        _BUS_ERROR + "TimedOut",
    ):
        return DaemonUnreachable("gatewayd did not answer")
    return DaemonUnreachable(f"gatewayd cannot be asked: {message}")
