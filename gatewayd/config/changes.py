"""What a new configuration changes, and which of it a running daemon takes up. Pure: two Settings in, a Change out.

A setting is live when the part that uses it can be given another value between two of its steps, without a connection
lost and without a moment in which both hold. All others name what is built once: a socket, the token, the CA, the way
to the hub. They wait for a restart, and are named until then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from .schema import Settings

LIVE: Final = (
    "gateway.sans",
    "ezca.renewal",
    "est_issuer.renewal",
    "renewal",
    "revocation.interval",
    "revocation.crl_urls",
    "revocation.distribution_points",
    "control.code_lifetime",
    "hooks",
    "log.level",
)
"""A table or a key, each of which stands for all below it."""


@dataclass(frozen=True, slots=True)
class Change:
    settings: Settings
    """The old ones with all that is live from the new ones: what holds from now on."""
    applied: tuple[str, ...]
    """Live settings with a new value, as ``table.key``."""
    needs_restart: tuple[str, ...]
    """Those with a new value that the running daemon goes on without."""


def decide(old: Settings, new: Settings) -> Change:
    changed = tuple(_changed(old, new, ""))
    applied = tuple(each for each in changed if is_live(each))
    return Change(_merged(old, new, ""), applied, tuple(each for each in changed if each not in applied))


def is_live(name: str) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in LIVE)


def _changed(old: Any, new: Any, where: str) -> Iterator[str]:
    """The names below ``where`` whose values differ. A table that came or went as a whole is named itself."""
    for item in dataclasses.fields(old):
        name = f"{where}.{item.name}" if where else item.name
        before, after = getattr(old, item.name), getattr(new, item.name)
        if before == after:
            continue
        if dataclasses.is_dataclass(before) and type(before) is type(after):
            yield from _changed(before, after, name)
        else:
            yield name


def _merged(old: Any, new: Any, where: str) -> Any:
    values: dict[str, Any] = {}
    for item in dataclasses.fields(old):
        name = f"{where}.{item.name}" if where else item.name
        before, after = getattr(old, item.name), getattr(new, item.name)
        if is_live(name):
            values[item.name] = after
        elif dataclasses.is_dataclass(before) and type(before) is type(after):
            values[item.name] = _merged(before, after, name)
    return dataclasses.replace(old, **values)
