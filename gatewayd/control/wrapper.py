"""pydbus' ObjectWrapper, made fit for a daemon on asyncio.

What it changes:

- Every handler runs in the event loop's thread, never in GLib's; a coroutine answers when it is done, and nobody else
  waits for it. How many calls may be under way is bounded.
- Our errors go out as ``org.gatewayd.Error.<Name>`` with their sentence; anything unexpected is logged here and goes
  out as ``Internal`` without a word of what it was.
- No handler is called before the caller is known to have what access.TABLE asks for it: what has no row there is
  denied. A handler with a parameter ``caller`` is told who it is.
- Two leaks of the layers below are mended: the invocation that nobody unreferences (about 2 KB a call), and the entry
  that pydbus keeps for each signal of an object that is gone (about 1.2 KB an object).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from importlib import resources
from typing import Any, TypeVar

from gi.repository import Gio, GLib
from pydbus.bus import Bus
from pydbus.generic import signal
from pydbus.registration import ObjectRegistration, ObjectWrapper

from ..errors import AnswerTooLarge, GatewayError, Internal, InvalidArgument, NotAuthorized, TooManyRequests
from .access import Action, required
from .base import Caller
from .variants import text

_log = logging.getLogger(__name__)

_INTERACTIVE = Gio.DBusMessageFlags.ALLOW_INTERACTIVE_AUTHORIZATION
PROPERTIES = "org.freedesktop.DBus.Properties"
MAX_CALLS = 256
"""Calls under way at a time, over all objects of a connection."""
MAX_ANSWER = 24 * 1024 * 1024
"""Bytes of an answer as GLib packs it, which D-Bus makes a fifth more of. The system bus takes 32 MB
(dbus-daemon(1), max_message_size), and throws whoever sends more off the bus."""
MAX_LIST = MAX_ANSWER // 2
"""The same for a list of devices: while it is packed it takes some 18 times its size in memory, and the unit has 512 MB
in all."""
MAX_READS = 128
"""With as many under way no read is taken on any more: those who only look cannot shut out those who act."""


def leaves_invocation_referenced(version: tuple[int, int, int]) -> bool:
    """Whether this GLib hands the invocation to a binding with one reference more than the binding gives back.

    It does until 2.84, where register_object became g_dbus_connection_register_object_with_closures2. In 2.82.3 alone
    the old function was changed as well (and changed back), and to give back one more than is held is a crash.
    """
    return version < (2, 83, 0) and version != (2, 82, 3)


_UNREF = leaves_invocation_referenced((GLib.MAJOR_VERSION, GLib.MINOR_VERSION, GLib.MICRO_VERSION))


Admit = Callable[[str, Collection[Action], bool], Awaitable[Caller]]
"""Who has this unique name, if he has these actions; may he be asked for a password? Or raises NotAuthorized."""


H = TypeVar("H", bound=Callable[..., Any])


def takes_file(handler: H) -> H:
    """Mark a handler whose last argument is a file descriptor (``h``): it is given one of its own, to close."""
    handler.__dict__["takes_file"] = True
    return handler


def interfaces(*names: str) -> list[Gio.DBusInterfaceInfo]:
    """The interfaces that control/interfaces/<name>.xml describes."""
    folder = resources.files(__package__) / "interfaces"
    nodes = [Gio.DBusNodeInfo.new_for_xml((folder / f"{name}.xml").read_text("utf-8")) for name in names]
    return [interface for node in nodes for interface in node.interfaces]


class Dispatcher:
    """Where calls from GLib's thread enter the event loop; shared by all objects of a connection."""

    def __init__(self, admit: Admit) -> None:
        self.admit = admit
        self.heard = False
        """Whether signals go out: not before the name is owned, by which the bus keeps them from strangers."""
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def enter(
        self, call: Callable[[], Coroutine[Any, Any, None]], refuse: Callable[[GatewayError], None], limit: int
    ) -> None:
        """From any thread: run ``call`` in the event loop, or ``refuse`` it when ``limit`` calls are under way."""

        def begin() -> None:
            if len(self._tasks) >= limit:
                refuse(TooManyRequests(f"gatewayd is answering {limit} calls already"))
                return
            task = self._loop.create_task(call())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        try:
            self._loop.call_soon_threadsafe(begin)
        except RuntimeError:  # the loop is closed: the process is about to end, and the bus answers in our place
            _log.debug("a call came after the end")

    async def stop(self, grace: float = 2.0) -> None:
        """Give the calls under way ``grace`` seconds to end, then cancel them."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class _QuietSignal(signal):  # type: ignore[misc]
    """A signal to a connection that may not have its name yet, or may be gone: that is dealt with elsewhere."""

    def emit(self, emitter: AsyncObjectWrapper, *values: Any) -> None:
        if not emitter.dispatcher.heard:
            return
        try:
            super().emit(emitter, *values)
        except GLib.Error as error:
            _log.debug("a signal was not sent: %s", error.message)


class AsyncObjectWrapper(ObjectWrapper):  # type: ignore[misc]
    __slots__ = ("dispatcher",)

    SignalEmitted = _QuietSignal()

    def __init__(self, target: object, described: Sequence[Gio.DBusInterfaceInfo], dispatcher: Dispatcher) -> None:
        super().__init__(target, described)
        self.dispatcher = dispatcher
        self.outargs |= {f"{PROPERTIES}.Get": ["v"], f"{PROPERTIES}.GetAll": ["a{sv}"]}

    def call_method(
        self,
        connection: Gio.DBusConnection,
        sender: str,
        path: str,
        interface: str,
        method: str,
        parameters: GLib.Variant,
        invocation: Gio.DBusMethodInvocation,
    ) -> None:
        """In GLib's thread."""
        handler = getattr(self if interface == PROPERTIES else self.object, method)  # GDBus has checked the name
        interactive = bool(invocation.get_message().get_flags() & _INTERACTIVE)
        try:
            needed = self._needed(interface, method, parameters)
        except NotAuthorized as error:
            _finish(invocation, error)
            return

        async def call() -> None:
            try:
                caller = await self.dispatcher.admit(sender, needed, interactive)
                known = {"caller": caller} if "caller" in inspect.signature(handler).parameters else {}
                arguments = parameters.unpack()
                if getattr(handler, "takes_file", False):  # only now: nobody else would close it
                    arguments = (*arguments[:-1], _file(invocation, arguments[-1]))
                result = handler(*arguments, **known)
                if inspect.isawaitable(result):
                    result = await result
                answer = _pack(result, self.outargs[f"{interface}.{method}"])
            except GatewayError as error:
                refuse(error)
            except Exception:
                _log.exception("%s met an unexpected error", method)
                refuse(Internal(f"{method} met an unexpected error; gatewayd's log has the details"))
            else:
                _finish(invocation, answer)

        def refuse(error: GatewayError) -> None:
            _finish(invocation, error)

        self.dispatcher.enter(call, refuse, MAX_READS if needed == {Action.VIEW} else MAX_CALLS)

    def _needed(self, interface: str, method: str, parameters: GLib.Variant) -> set[Action]:
        """For a property its own; for all of an interface's at once, those of each. Raises NotAuthorized."""
        if interface != PROPERTIES:
            return {required(interface, method)}
        if method == "GetAll":
            (asked,) = parameters.unpack()
            names = (name.rpartition(".") for name in self.readable_properties)
            return {Action.VIEW, *(required(of, name) for of, _, name in names if of == asked)}
        of, name, *_ = parameters.unpack()
        return {required(of, name)}

    def GetAll(self, interface: str) -> dict[str, GLib.Variant]:
        properties: dict[str, GLib.Variant] = super().GetAll(interface)
        return properties


def _file(invocation: Gio.DBusMethodInvocation, handle: int) -> int:
    """Raises InvalidArgument."""
    files = invocation.get_message().get_unix_fd_list()
    if files is None or not 0 <= handle < files.get_length():
        raise InvalidArgument("there is no file with the call")
    try:
        return int(files.get(handle))  # a duplicate, close-on-exec
    except GLib.Error as error:
        raise InvalidArgument(f"the file with the call cannot be used: {error.message}") from None


def _pack(result: Any, types: list[str]) -> GLib.Variant | None:
    """An answer as GDBus wants it. None of our methods returns more than one value. Raises AnswerTooLarge."""
    if not types:
        return None
    (kind,) = types
    if isinstance(result, GLib.Variant) and kind != "v":
        answer = GLib.Variant.new_tuple(result)
    else:
        answer = GLib.Variant(f"({kind})", (result,))
    if (size := answer.get_size()) > MAX_ANSWER:
        raise AnswerTooLarge(f"the answer has {size // 1024**2} MB, more than the bus takes")
    return answer


def _finish(invocation: Gio.DBusMethodInvocation, answer: GLib.Variant | GatewayError | None) -> None:
    """Answer, once. Any thread may: GDBus sends from a thread of its own."""
    if isinstance(answer, GatewayError):
        invocation.return_dbus_error(answer.dbus_name(), text(answer.message))
    else:
        invocation.return_value(answer)
    if _UNREF:
        invocation._unref()


class Published:
    """An object on a connection, until it is withdrawn."""

    def __init__(
        self, bus: Bus, path: str, target: object, described: Sequence[Gio.DBusInterfaceInfo], dispatcher: Dispatcher
    ) -> None:
        self.path = path
        self.interfaces = [interface.name for interface in described]
        self._target = target
        self._wrapper = AsyncObjectWrapper(target, described, dispatcher)
        self._registration = ObjectRegistration(bus, path, described, self._wrapper, own_wrapper=True)

    def properties(self) -> dict[str, dict[str, GLib.Variant]]:
        """Of each interface, as ObjectManager wants them."""
        return {name: self._wrapper.GetAll(name) for name in self.interfaces}

    def withdraw(self) -> None:
        self._registration.unregister()
        _forget(self._wrapper)
        _forget(self._target)


def _forget(emitter: object) -> None:
    """Drop what pydbus' signals keep of an object that nobody listens to any more."""
    for cls in type(emitter).__mro__:
        for member in vars(cls).values():
            if isinstance(member, signal) and not member.map.get(emitter):
                member.map.pop(emitter, None)
