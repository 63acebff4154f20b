"""The way onto the bus: a connection, and a name on it.

The bus itself is asked with blocking calls in a pool of threads: a callback that lives for one call, as asynchronous
GIO takes it, is never freed by PyGObject before 3.44.2.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from gi.repository import Gio, GLib
from pydbus.bus import Bus

_log = logging.getLogger(__name__)

NAME = "org.gatewayd.Gateway1"
TIMEOUT = 10.0
"""Seconds that the bus itself, or polkit, may take to answer."""
ASKED_WITHIN = 60.0
"""Seconds that a person has to give a password to polkit's agent."""

_DO_NOT_QUEUE = 4  # D-Bus specification, RequestName; without ALLOW_REPLACEMENT and REPLACE_EXISTING
_PRIMARY_OWNER = 1
T = TypeVar("T")

_KNOWN_USERS = 256
_POLKIT = "org.freedesktop.PolicyKit1"
_POLKIT_PATH = "/org/freedesktop/PolicyKit1/Authority"
_USER_INTERACTION = 1  # polkit's CheckAuthorizationFlags


class BusError(Exception):
    """The bus cannot be had, or not as org.gatewayd.Gateway1; one sentence."""


class BusConnection:
    """A connection of our own (not the process-wide one, which would end the process with the bus)."""

    def __init__(self, con: Gio.DBusConnection, pool: ThreadPoolExecutor, on_lost: Callable[[], None]) -> None:
        # Not con.pydbus, which would keep itself in an attribute of ``con``. A wrapper with attributes makes GDBus' own
        # thread wait for the GIL while it holds GIO's lock on all connections; when Python then collects another
        # connection, it holds the GIL and waits for that lock, and the process stands still for ever.
        self.bus = Bus(con)
        self._con = con
        self._pool = pool
        self._users: dict[str, int] = {}
        self._polkit = ThreadPoolExecutor(max_workers=4, thread_name_prefix="polkit")
        self._agents = ThreadPoolExecutor(max_workers=4, thread_name_prefix="polkit agent")
        loop = asyncio.get_running_loop()

        def closed(*_: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(on_lost)

        self._handler = con.connect("closed", closed)

    @classmethod
    async def open(cls, address: str, pool: ThreadPoolExecutor, on_lost: Callable[[], None]) -> BusConnection:
        """Connect to ``address``, or to the system bus when it is "system". ``on_lost`` is called in the event loop
        when the connection ends other than by ``close``. Raises BusError."""

        def connect(limit: Gio.Cancellable) -> Gio.DBusConnection:
            where = Gio.dbus_address_get_for_bus_sync(Gio.BusType.SYSTEM, limit) if address == "system" else address
            flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
            return Gio.DBusConnection.new_for_address_sync(where, flags, None, limit)

        try:
            con = await _run(pool, connect)
        except GLib.Error as error:
            raise BusError(f"the bus at {address!r} cannot be reached: {error.message}") from None
        return cls(con, pool, on_lost)

    async def own(self, name: str = NAME) -> None:
        """Raises BusError when it is taken, or not to be had by this user."""
        try:
            (answer,) = await self._bus("RequestName", GLib.Variant("(su)", (name, _DO_NOT_QUEUE)), "(u)")
        except GLib.Error as error:
            raise BusError(f"the bus does not give this user the name {name}: {error.message}") from None
        if answer != _PRIMARY_OWNER:
            raise BusError(f"another process owns {name} on the bus")

    async def unix_user(self, sender: str) -> int:
        """The uid of a unique name. It is asked once, since unique names are never used again. Raises BusError."""
        if (known := self._users.get(sender)) is not None:
            return known
        try:
            (uid,) = await self._bus("GetConnectionUnixUser", GLib.Variant("(s)", (sender,)), "(u)")
        except GLib.Error:
            raise BusError(f"the bus does not know the user of {sender}") from None
        if len(self._users) >= _KNOWN_USERS:
            self._users.clear()
        self._users[sender] = int(uid)
        return int(uid)

    async def polkit(self, sender: str, action: str, interactive: bool) -> bool:
        """Whether polkit lets whoever has the unique name ``sender`` do this. Raises BusError when it does not say.

        The same call as pydbus' ``check_authorization``, which has no time limit. ``interactive``: polkit's agent, if
        the caller has one, may ask a person. Nobody waits for another's password, nor root for a polkit that hangs:
        each has threads of its own.
        """
        subject = ("system-bus-name", {"name": GLib.Variant("s", sender)})

        async def check(flags: int, pool: ThreadPoolExecutor, within: float) -> tuple[bool, bool]:
            arguments = GLib.Variant("((sa{sv})sa{ss}us)", (subject, action, {}, flags, ""))
            answer = GLib.VariantType("((bba{ss}))")
            call = (_POLKIT, _POLKIT_PATH, f"{_POLKIT}.Authority", "CheckAuthorization", arguments, answer)
            ((authorized, could_ask, _),) = await self._call(call, pool, within)
            return authorized, could_ask

        try:
            authorized, could_ask = await check(0, self._polkit, TIMEOUT)
            if interactive and could_ask and not authorized:
                authorized, _ = await check(_USER_INTERACTION, self._agents, ASKED_WITHIN)
        except GLib.Error as error:
            raise BusError(
                f"polkit cannot be asked (is polkitd installed?), so that only root may call: {error.message}"
            ) from None
        return authorized

    async def close(self) -> None:
        """Give back the name by leaving the bus; what was sent before is on its way."""
        self._con.disconnect(self._handler)

        def close(limit: Gio.Cancellable) -> None:
            try:
                self._con.flush_sync(limit)
                self._con.close_sync(limit)
            except GLib.Error as error:
                _log.debug("leaving the bus: %s", error.message)

        await _run(self._pool, close)
        for pool in (self._polkit, self._agents):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _bus(self, method: str, arguments: GLib.Variant, answer: str) -> Any:
        """Call the bus itself."""
        bus = "org.freedesktop.DBus"
        call = (bus, "/org/freedesktop/DBus", bus, method, arguments, GLib.VariantType(answer))
        return await self._call(call, self._pool, TIMEOUT)

    async def _call(self, call: tuple[Any, ...], pool: ThreadPoolExecutor, within: float) -> Any:
        """Blocks one of the pool's threads and no other."""

        def work(limit: Gio.Cancellable) -> Any:
            return self._con.call_sync(*call, Gio.DBusCallFlags.NONE, int(within * 1000), limit).unpack()

        return await _run(pool, work, within)


async def _run(pool: ThreadPoolExecutor, work: Callable[[Gio.Cancellable], T], within: float = TIMEOUT) -> T:
    """``work`` in one of the pool's threads, cancelled after ``within`` seconds (it then raises a GLib.Error)."""
    loop = asyncio.get_running_loop()
    cancellable = Gio.Cancellable()
    limit = loop.call_later(within, cancellable.cancel)
    try:
        return await loop.run_in_executor(pool, work, cancellable)
    finally:
        limit.cancel()
