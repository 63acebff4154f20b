"""Faults to inject: what goes wrong, where, how often.

A fault matches an operation by prefix: ``PUT /devices/leaf-1`` at the registry, ``CONNECT leaf-1`` or
``PUBLISH devices/leaf-1/messages/events/`` at the MQTT listener; an empty match takes every operation there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from .errors import Code, HubError


class Mode(StrEnum):
    THROTTLED = "429"
    SERVER_ERROR = "500"
    UNAVAILABLE = "503"
    """At MQTT: CONNACK 3."""
    UNAVAILABLE_AFTER = "503-after"
    """Carried out, and then the answer is 503 (at MQTT: no PUBACK, the connection closes)."""
    TIMEOUT = "timeout"
    """Taken, not carried out, never answered."""
    REFUSE = "refuse"
    """401 at the registry, CONNACK 5 at MQTT."""
    DROP = "drop"
    """Not carried out; the connection closes without an answer."""


SILENCE: Final = 120.0
"""Seconds that ``timeout`` holds a peer before it is hung up on."""

MODES: Final[Mapping[str, frozenset[Mode]]] = {
    "registry": frozenset(Mode),
    "mqtt": frozenset(Mode) - {Mode.THROTTLED, Mode.SERVER_ERROR},
}


@dataclass
class Fault:
    where: str
    mode: Mode
    times: int
    match: str
    chance: float


class Faults:
    def __init__(self) -> None:
        self._pending: list[Fault] = []

    def add(self, document: Mapping[str, Any]) -> None:
        """From ``{"where", "mode", "times"?: 1, "match"?: "", "chance"?: 1.0}``. Raises HubError (ArgumentInvalid)."""
        where, mode = str(document.get("where")), str(document.get("mode"))
        times, match, chance = document.get("times", 1), document.get("match", ""), document.get("chance", 1.0)
        if where not in MODES or mode not in MODES[where]:
            raise HubError(Code.ARGUMENT_INVALID, f"no fault {mode!r} at {where!r}; there are {describe()}")
        if not isinstance(times, int) or times < 1 or not isinstance(match, str):
            raise HubError(Code.ARGUMENT_INVALID, "times is a number from 1, match a text")
        if not isinstance(chance, int | float) or not 0 <= chance <= 1:
            raise HubError(Code.ARGUMENT_INVALID, "chance is a number from 0 to 1")
        self._pending.append(Fault(where, Mode(mode), times, match, float(chance)))

    def take(self, where: str, operation: str) -> Mode | None:
        """The fault that strikes ``operation``, if any; it is used up once."""
        for fault in self._pending:
            if fault.where == where and operation.startswith(fault.match) and random.random() < fault.chance:
                fault.times -= 1
                if fault.times == 0:
                    self._pending.remove(fault)
                return fault.mode
        return None

    def pending(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self._pending]

    def clear(self) -> None:
        self._pending.clear()


def describe() -> str:
    return "; ".join(f"{where}: {', '.join(sorted(modes))}" for where, modes in MODES.items())
