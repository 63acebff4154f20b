"""What the responder answers, in the gateway's desired properties: the one form that both sides read and write.

::

    "desired": {"gatewayd": {"answers": {"<key>": {"kind", "deviceId", "serial", "status", "etag", "detail", "at"}}}}

Desired properties outlive the gateway's being offline. The key is a hash, because a twin's keys cannot hold every
device id; the responder keeps only the latest ``KEPT`` of them, since a twin is bounded, and a gateway that has missed
one asks again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

KEPT: Final = 100
"""Answers of some 250 bytes: below the 32 KB that the desired properties of a twin hold."""
DETAIL_LIMIT: Final = 200
"""Characters."""


class Status(StrEnum):
    DISABLED = "disabled"
    """Read back from the registry after it was written."""
    ABSENT = "absent"
    """There is no such identity."""
    SHUT_OUT = "shut-out"
    """The identity is pinned to other certificates: it goes on, without the revoked one."""
    PRESENT = "present"
    """The identity is there, enabled, and the gateway's to speak for."""
    PINNED = "pinned"
    """It lets in the certificates that were asked for, and no others."""
    UNPINNED = "unpinned"
    """It is not pinned, or not by this gateway."""
    STALE = "stale"
    """It is another version than the one that was asked about: ask again with this ``etag``."""
    REFUSED = "refused"
    """Not this gateway's to speak for, or not to be had; ``detail`` says why."""


CLOSED: Final = frozenset({Status.DISABLED, Status.ABSENT, Status.SHUT_OUT})
"""What ends a revocation: the hub does not let the certificate in any more."""


@dataclass(frozen=True, slots=True)
class Answer:
    kind: str
    """Of the message that it answers."""
    device_id: str
    serial: str
    """Of the certificate concerned."""
    status: Status
    etag: str
    """The identity's, as it was read last; empty when there is none."""
    detail: str
    at: str
    """RFC 3339."""

    @property
    def key(self) -> str:
        return key_of(self.kind, self.device_id, self.serial)

    def document(self) -> dict[str, str]:
        return {
            "kind": self.kind,
            "deviceId": self.device_id,
            "serial": self.serial,
            "status": str(self.status),
            "etag": self.etag,
            "detail": self.detail[:DETAIL_LIMIT],
            "at": self.at,
        }


def key_of(kind: str, device_id: str, serial: str) -> str:
    return hashlib.sha256(f"{kind}\0{device_id}\0{serial}".encode()).hexdigest()[:16]


def parse(document: object) -> Answer | None:
    """None for what is no answer: a twin may hold anything."""
    if not isinstance(document, Mapping):
        return None
    names = ("kind", "deviceId", "serial", "status", "etag", "detail", "at")
    values = [document.get(name) for name in names]
    if not all(isinstance(value, str) for value in values):
        return None
    kind, device_id, serial, status, etag, detail, at = (str(value) for value in values)
    if status not in set(Status):
        return None
    return Answer(kind, device_id, serial, Status(status), etag, detail, at)


def of(desired: Mapping[str, Any]) -> list[Answer]:
    """The answers in a twin's desired section, or in a patch of it."""
    section = desired.get("gatewayd")
    found = section.get("answers") if isinstance(section, Mapping) else None
    if not isinstance(found, Mapping):
        return []
    return [answer for answer in map(parse, found.values()) if answer is not None]


def patch(present: Iterable[Answer], new: Iterable[Answer]) -> dict[str, Any]:
    """What to merge into the desired properties so that they hold ``new`` and the latest of what is ``present``."""
    documents: dict[str, dict[str, str] | None] = {answer.key: answer.document() for answer in new}
    older = sorted((each for each in present if each.key not in documents), key=lambda each: each.at)
    surplus = len(older) + len(documents) - KEPT
    documents |= dict.fromkeys((each.key for each in older[: max(surplus, 0)]), None)
    return {"gatewayd": {"answers": documents}}


class Answers:
    """What has come so far, on the gateway's side. Lost with the process: after a connect the twin tells all again."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}
        self._came: dict[str, asyncio.Event] = {}
        self._listeners: list[Callable[[Answer], None]] = []

    def on_answer(self, call: Callable[[Answer], None]) -> None:
        self._listeners.append(call)

    def take(self, desired: Mapping[str, Any]) -> None:
        """From the desired section or a patch of it."""
        for answer in of(desired):
            if self._answers.get(answer.key) == answer:
                continue
            self._answers[answer.key] = answer
            if event := self._came.get(answer.key):
                event.set()
            for call in self._listeners:
                call(answer)

    def get(self, kind: str, device_id: str, serial: str) -> Answer | None:
        return self._answers.get(key_of(kind, device_id, serial))

    def keep(self, answer: Answer) -> None:
        self._answers[answer.key] = answer

    def forget(self, answer: Answer) -> None:
        self._answers.pop(answer.key, None)

    async def wait(self, kind: str, device_id: str, serial: str, within: float) -> Answer | None:
        """The answer, as soon as it is there; None after ``within`` seconds."""
        key = key_of(kind, device_id, serial)
        event = self._came.setdefault(key, asyncio.Event())
        try:
            if key not in self._answers:
                async with asyncio.timeout(within):
                    await event.wait()
        except TimeoutError:
            pass
        finally:
            self._came.pop(key, None)
        return self._answers.get(key)
