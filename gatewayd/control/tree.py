"""The objects of one connection, and the ObjectManager's view of them."""

from __future__ import annotations

from typing import Any, Protocol

from gi.repository import GLib
from pydbus.bus import Bus

from .access import MANAGER
from .objects import ROOT
from .wrapper import Dispatcher, Published, interfaces

_ENTRY = "{oa{sa{sv}}}"


class Manager(Protocol):
    """The object at ROOT, which tells of the others."""

    def InterfacesAdded(self, path: str, properties: dict[str, dict[str, GLib.Variant]]) -> None: ...
    def InterfacesRemoved(self, path: str, names: list[str]) -> None: ...


class Tree:
    """All methods are for the event loop's thread."""

    def __init__(self, bus: Bus, dispatcher: Dispatcher, root: Manager, root_interface: str) -> None:
        self._bus = bus
        self._dispatcher = dispatcher
        self._manager = root
        self._described: dict[str, list[Any]] = {}
        self._objects: dict[str, Published] = {}
        self._entries: dict[str, GLib.Variant] = {}
        self._root = Published(bus, ROOT, root, interfaces(root_interface, MANAGER), dispatcher)

    def add(self, path: str, target: object, interface: str) -> None:
        if interface not in self._described:
            self._described[interface] = interfaces(interface)
        published = Published(self._bus, path, target, self._described[interface], self._dispatcher)
        self._objects[path] = published
        self._manager.InterfacesAdded(path, published.properties())

    def changed(self, path: str) -> None:
        """The object's properties are no longer what they were."""
        self._entries.pop(path, None)

    def remove(self, path: str) -> None:
        if published := self._objects.pop(path, None):
            self._entries.pop(path, None)
            published.withdraw()
            self._manager.InterfacesRemoved(path, published.interfaces)

    def clear(self) -> None:
        """Withdraw everything, and tell nobody: the connection is about to end, or has."""
        for published in self._objects.values():
            published.withdraw()
        self._objects.clear()
        self._entries.clear()
        self._root.withdraw()

    def managed(self) -> GLib.Variant:
        """``a{oa{sa{sv}}}``. What has not changed since the last call is not built again: it is what makes it slow."""
        builder = GLib.VariantBuilder.new(GLib.VariantType(f"a{_ENTRY}"))
        for path, published in self._objects.items():
            if path not in self._entries:
                self._entries[path] = GLib.Variant(f"a{_ENTRY}", {path: published.properties()}).get_child_value(0)
            builder.add_value(self._entries[path])
        return builder.end()
