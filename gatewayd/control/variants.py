"""Plain data ↔ GVariant.

One rule for each type, so that the way back needs no schema: text ``s``, truth ``b``, whole number ``x``, number
``d``, list ``av``, mapping ``a{sv}``. D-Bus has no null: a key whose value is None is left out. What comes off the bus
is undone by ``GLib.Variant.unpack``, which opens every variant on the way.

Each is put together by GLib's own constructors: ``GLib.Variant("a{sv}", …)`` reads the type anew for every value, and
takes three times as long for a thousand devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gi.repository import GLib

_ANY = GLib.VariantType("v")
_ENTRY = GLib.VariantType("{sv}")
_MAPPING = GLib.VariantType("a{sv}")


def text(value: str) -> str:
    """As D-Bus takes it: valid UTF-8 without NUL; what a peer said may hold anything."""
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")


def from_data(value: Any) -> GLib.Variant:
    """Raises TypeError for what is not plain data, OverflowError for a number beyond 64 bits."""
    if isinstance(value, bool):
        return GLib.Variant.new_boolean(value)
    if isinstance(value, str):
        return GLib.Variant.new_string(text(value))
    if isinstance(value, int):
        return GLib.Variant.new_int64(value)
    if isinstance(value, float):
        return GLib.Variant.new_double(value)
    if isinstance(value, Mapping):
        return from_mapping(value)
    if isinstance(value, list | tuple):
        return GLib.Variant.new_array(_ANY, [GLib.Variant.new_variant(from_data(each)) for each in value])
    raise TypeError(f"{type(value).__name__} is not plain data")


def from_mapping(data: Mapping[str, Any]) -> GLib.Variant:
    """``a{sv}``, without the keys whose value is None."""
    entries = [
        GLib.Variant.new_dict_entry(GLib.Variant.new_string(text(key)), GLib.Variant.new_variant(from_data(value)))
        for key, value in data.items()
        if value is not None
    ]
    return GLib.Variant.new_array(_ENTRY, entries)


def from_mappings(data: list[dict[str, Any]]) -> GLib.Variant:
    """``aa{sv}``"""
    return GLib.Variant.new_array(_MAPPING, [from_mapping(each) for each in data])
