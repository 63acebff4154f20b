"""Which key in the token is what, and which may go. Pure: what is there and what is on record in, roles out.

A key is ours when two things say so: its label, and an intent that was written down before it was made (the CKA_ID of
a credential or of the registrar). What lacks either is somebody else's and never touched, be it labelled like one of
ours: after a restored state directory that may be the very key that serves.

The intent stays on record for good. So a key that comes back, with a token restored from an old backup, is known for
what it is and collected again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from .lifecycle import UNFINISHED
from .model import Credential, CredentialState

GRACE: Final = timedelta(hours=1)
"""How long a key that nobody needs is kept, so that a person can still look at what went wrong with it. A superseded
one has had its time as the previous generation and goes at once."""

_PREFIX: Final = "gatewayd "


def key_label(device_id: str, generation: int) -> str:
    return f"{_PREFIX}{device_id} {generation}"


def registrar_label(device_id: str) -> str:
    return f"{_PREFIX}registrar {device_id}"


class Role(StrEnum):
    LIVE = "live"
    PREVIOUS = "previous"
    PENDING = "pending"
    REGISTRAR = "registrar"
    FACTORY = "factory"
    """Made by somebody else, and the gateway's first certificate hangs on it."""
    ORPHAN = "orphan"
    """Made by us, and no longer needed."""
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Claim:
    """What the records say about a key."""

    role: Role
    reason: str
    """One sentence."""
    collect_from: datetime | None = None
    """When it may go; None: it stays."""


@dataclass(frozen=True, slots=True)
class Held:
    """An object in the token."""

    id: bytes
    label: str
    is_key: bool


def claim(credential: Credential, *, revocation_open: bool = False) -> Claim:
    """What a credential says about its key. ``revocation_open``: its revocation is still on its way."""
    which = f"generation {credential.generation}"
    state, since = credential.state, credential.updated_at
    if state is CredentialState.CURRENT:
        return Claim(Role.LIVE, f"The key of {which}, which serves.")
    if state is CredentialState.PREVIOUS:
        return Claim(Role.PREVIOUS, f"The key of {which}, kept while the one after it proves itself.")
    if state in UNFINISHED:
        return Claim(Role.PENDING, f"The key of {which}, which is on its way ({state}).")
    if state is CredentialState.RETIRED:
        return Claim(Role.ORPHAN, f"The key of {which}, which was superseded or has expired.", since)
    if state is CredentialState.REJECTED:
        return Claim(Role.ORPHAN, f"The key of {which}, which was rejected.", since + GRACE)
    if revocation_open:
        return Claim(Role.ORPHAN, f"The key of {which}, whose revocation is not closed yet.")
    return Claim(Role.ORPHAN, f"The key of {which}, which was revoked.", since + GRACE)


REGISTRAR: Final = Claim(Role.REGISTRAR, "The key that the gateway's Entra application authenticates with.")
FACTORY: Final = Claim(Role.FACTORY, "The key of the factory-made certificate that the first own one was asked with.")

_UNRECORDED: Final = Claim(
    Role.FOREIGN, "Labelled like a key of gatewayd's, but not on record here: it is never touched."
)
_FOREIGN: Final = Claim(Role.FOREIGN, "Not made by gatewayd: it is never touched.")


def classify(held: Sequence[Held], claims: Mapping[bytes, Claim]) -> list[Claim]:
    """What each object is, in the same order. ``claims`` by CKA_ID."""
    return [_classify(each, claims.get(each.id)) for each in held]


def _classify(item: Held, found: Claim | None) -> Claim:
    if found is not None and found.role is Role.FACTORY:
        return found
    if not item.is_key or not item.label.startswith(_PREFIX):
        return _FOREIGN
    return found or _UNRECORDED


def collectable(held: Sequence[Held], claims: Mapping[bytes, Claim], now: datetime) -> list[bytes]:
    """The ids of the keys that may go now. One of whose halves is somebody else's stays."""
    due: dict[bytes, bool] = {}
    for item, is_what in zip(held, classify(held, claims), strict=True):
        if item.is_key:
            may_go = is_what.collect_from is not None and is_what.collect_from <= now
            due[item.id] = due.get(item.id, True) and may_go
    return [key_id for key_id, may_go in due.items() if may_go]


def missing(held: Iterable[Held], claims: Mapping[bytes, Claim]) -> dict[bytes, Claim]:
    """What should be in the token and is not."""
    there = {each.id for each in held if each.is_key}
    needed = (Role.LIVE, Role.REGISTRAR)
    return {key_id: each for key_id, each in claims.items() if each.role in needed and key_id not in there}
