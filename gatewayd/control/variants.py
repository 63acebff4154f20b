"""Plain data ↔ GVariant.

One rule for each type, so that the way back needs no schema: text ``s``, truth ``b``, whole number ``x``, number
``d``, list ``av``, mapping ``a{sv}``. D-Bus has no null: a key whose value is None is left out. What comes off the bus
is undone by ``GLib.Variant.unpack``, which opens every variant on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gi.repository import GLib


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
        return GLib.Variant("av", [from_data(each) for each in value])
    raise TypeError(f"{type(value).__name__} is not plain data")


def from_mapping(data: Mapping[str, Any]) -> GLib.Variant:
    """``a{sv}``, without the keys whose value is None."""
    return GLib.Variant("a{sv}", {text(key): from_data(value) for key, value in data.items() if value is not None})


def from_mappings(data: list[dict[str, Any]]) -> GLib.Variant:
    """``aa{sv}``"""
    builder = GLib.VariantBuilder.new(GLib.VariantType("aa{sv}"))
    for each in data:
        builder.add_value(from_mapping(each))
    return builder.end()
