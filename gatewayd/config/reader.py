"""TOML → the schema's dataclasses, by their type hints. An unknown key is an error that names the nearest known one."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

from ..core.model import San
from ..errors import ConfigInvalid
from .checks import check
from .schema import Settings


def load(path: Path) -> Settings:
    """Read and check the file. Raises ConfigInvalid with one line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigInvalid(f"{path}: {reason}") from None
    try:
        return parse(text)
    except ConfigInvalid as error:
        raise ConfigInvalid(f"{path}: {error.message}") from None


def parse(text: str) -> Settings:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"not valid TOML: {error}") from None
    settings = typing.cast(Settings, _table(Settings, document, ""))
    check(settings)
    return settings


def _table(cls: type[Any], table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise ConfigInvalid(f"[{where}] must be a table")
    hints = typing.get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            what = f"[{where}] {key}" if where else f"[{key}]"
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.0)
            raise ConfigInvalid(f"unknown key {what}; the nearest known one is {near[0]!r}")
    values: dict[str, Any] = {}
    for name, item in fields.items():
        inner = f"{where}.{name}" if where else name
        if name in table:
            values[name] = _value(hints[name], table[name], inner)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise ConfigInvalid(f"[{where}] {name} is missing" if where else f"table [{name}] is missing")
    return cls(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):
        hint = next(each for each in typing.get_args(hint) if each is not types.NoneType)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and hint is not San:
        return _table(hint, value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigInvalid(f"{where} must be a list")
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, each, f"{where}[{index}]") for index, each in enumerate(value))
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ConfigInvalid(f"{where} is too large a number") from None
    if hint in (int, float, bool, str):
        if type(value) is not hint:
            raise ConfigInvalid(f"{where} must be {_NAMES[hint]}, not {value!r}")
        return value
    if not isinstance(value, str):
        raise ConfigInvalid(f"{where} must be text, not {value!r}")
    if hint is Path:
        return Path(value)
    if hint is San:
        try:
            return San.parse(value)
        except ValueError as error:
            raise ConfigInvalid(f"{where}: {error}") from None
    if issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            known = ", ".join(str(each.value) for each in hint)
            raise ConfigInvalid(f"{where} must be one of {known}, not {value!r}") from None
    raise AssertionError(hint)


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
