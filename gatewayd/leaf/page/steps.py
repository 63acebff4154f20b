"""How far a swap has come, in a technician's words. Pure: data as docs/json.md has it in, words out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ...core.replacement import Step
from ...errors import Internal, all_errors

Data = dict[str, Any]

WORDS: Final = {
    Step.OLD_CERTIFICATE_OUT: "Old hardware locked out",
    Step.ID_DISABLED: "Cloud closed to the old hardware, and checked",
    Step.CODE_OUT: "QR code made for the new hardware",
    Step.NEW_CERTIFICATE_IN: "New hardware has signed on here",
    Step.PINNED: "Cloud open to the new hardware alone",
}
"""Lifting the pin comes weeks later, by itself, and is none of a technician's business."""

_MILESTONES: Final = {
    Step.OLD_CERTIFICATE_OUT: ("revoked-at-ca",),
    Step.ID_DISABLED: ("reported", "disabled", "verified"),
}
_FOR_TECHNICIANS: Final = {
    "IssuerUnreachable": "The certificate authority cannot be reached. The gateway keeps trying. Check its network.",
    "IssuerSpared": "The certificate authority does not answer. The gateway keeps trying.",
    "HubUnreachable": "The cloud cannot be reached. The gateway keeps trying. Check its network.",
    "HubThrottled": "The cloud is busy. The gateway keeps trying.",
    "ResponderSilent": "The cloud has not answered yet. The gateway keeps asking.",
    "ReplacementUnfinished": "The old hardware is not fully locked out yet. It goes on by itself.",
}
"""By the error's name; for any other one: its own sentence, and its remedy for the administrator."""


class Mark(StrEnum):
    DONE = "done"
    WORKING = "working"
    TROUBLE = "trouble"
    NEXT = "next"


class Phase(StrEnum):
    """What the technician has to do."""

    SCAN = "scan"
    WAIT = "wait"
    FINISHED = "finished"
    GIVEN_UP = "given-up"


@dataclass(frozen=True, slots=True)
class Shown:
    name: str
    words: str
    mark: Mark
    trouble: str = ""


def phase(shown: Data) -> Phase | None:
    """None when the device was never replaced, or what came of it is history. ``shown``: ``device show``."""
    swap = shown.get("replacement")
    if swap is None:
        return None
    match swap["state"]:
        case "closing" | "awaiting" | "pinning":
            return Phase.WAIT if _is_heard(shown) else Phase.SCAN
        case "pinned" | "lifting":
            return Phase.FINISHED
        case "cancelled":
            return Phase.GIVEN_UP
        case _:
            return None


def steps(shown: Data) -> list[Shown]:
    """Of a device that has a ``replacement``."""
    swap = shown["replacement"]
    found: list[Shown] = []
    for step, words in WORDS.items():
        if _done(swap, step):
            found.append(Shown(step, words, Mark.DONE))
            continue
        error = _error(shown, step)
        mark = Mark.TROUBLE if error else Mark.WORKING if _is_due(swap, step) else Mark.NEXT
        found.append(Shown(step, words, mark, explained(error) if error else ""))
    return found


def explained(last_error: str) -> str:
    """``Name: sentence`` in words for whoever stands beside the device."""
    name, _, sentence = last_error.partition(": ")
    if words := _FOR_TECHNICIANS.get(name):
        return words
    remedy = all_errors().get(name, Internal).remedy
    return f"{sentence or last_error} For the administrator: {remedy}"


def _done(swap: Data, step: Step) -> bool:
    return any(each["name"] == step and "done_at" in each for each in swap["steps"])


def _is_heard(shown: Data) -> bool:
    """Whether the new hardware has asked for its certificate: its code is used then."""
    swap = shown["replacement"]
    begun = next(each["done_at"] for each in swap["steps"] if each["name"] == Step.CODE_OUT)
    newest: Data = next(iter(shown.get("credentials", ())), {})
    asked = newest.get("created_at", "") >= begun and newest["state"] not in ("rejected", "revoked")
    return asked or _done(swap, Step.NEW_CERTIFICATE_IN)


def _is_due(swap: Data, step: Step) -> bool:
    """Whether the daemon is at it, or the technician is."""
    if swap["state"] == "cancelled":
        return False
    if step is Step.PINNED:
        return _done(swap, Step.NEW_CERTIFICATE_IN)
    return True


def _error(shown: Data, step: Step) -> str | None:
    """What keeps a step from being done."""
    if names := _MILESTONES.get(step):
        for revocation in shown.get("revocations", ()):
            for milestone in revocation["milestones"]:
                if milestone["name"] in names and "done_at" not in milestone and "last_error" in milestone:
                    return str(milestone["last_error"])
    swap = shown["replacement"]
    if step is Step.ID_DISABLED and swap["state"] == "closing" and "last_error" in swap:
        return str(swap["last_error"])
    if step is Step.NEW_CERTIFICATE_IN or (step is Step.PINNED and _done(swap, Step.NEW_CERTIFICATE_IN)):
        newest: Data = next(iter(shown.get("credentials", ())), {})
        in_service = newest.get("state") in ("current", "previous", "retired", "revoked")
        if "last_error" in newest and not in_service:
            return str(newest["last_error"])
    return None
