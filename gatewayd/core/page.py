"""Who may use the technician's page: one-time links, and the sessions that they open. Values in, values out."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

MOST: Final = 32
"""Sessions at once; beyond it the oldest ends."""
LIFETIME: Final = range(60, 86400 + 1)
"""Seconds: from a minute to a day."""


@dataclass(frozen=True, slots=True)
class PageSession:
    number: int
    """Counts up; ``page:<number>`` in the journal."""
    secret: str
    """SHA-256 of the link's secret, and once that was used of the cookie's."""
    entered: bool
    """Whether the link was used. It works once."""
    expires_at: datetime

    @property
    def who(self) -> str:
        return f"page:{self.number}"


def new_secret() -> str:
    """128 random bits, fit for a URL and a cookie."""
    return secrets.token_urlsafe(16)


def digest(secret: str) -> str:
    """What is kept of a secret. A plain SHA-256 suffices: it has 128 random bits and lives for hours."""
    return hashlib.sha256(secret.encode()).hexdigest()


def admit(sessions: Iterable[PageSession], new: PageSession, now: datetime) -> list[PageSession]:
    """The sessions with a new one: without those that have expired."""
    return [*(each for each in sessions if now < each.expires_at), new][-MOST:]


def enter(
    sessions: Iterable[PageSession], link: str, cookie: str, now: datetime
) -> tuple[list[PageSession], PageSession | None]:
    """Use a link up: its session belongs from now on to whoever has ``cookie``. None when the link is not good."""
    kept = list(sessions)
    found = _find(kept, link, entered=False, now=now)
    if found is None:
        return kept, None
    entered = replace(found, secret=digest(cookie), entered=True)
    return [entered if each is found else each for each in kept], entered


def session_of(sessions: Iterable[PageSession], cookie: str, now: datetime) -> PageSession | None:
    return _find(sessions, cookie, entered=True, now=now)


def _find(sessions: Iterable[PageSession], secret: str, *, entered: bool, now: datetime) -> PageSession | None:
    wanted = digest(secret)
    return next((e for e in sessions if e.entered is entered and e.secret == wanted and now < e.expires_at), None)
