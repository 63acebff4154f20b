"""What is to be done on this machine after the gateway has a new certificate. Pure.

A hook is due for as long as the certificate that it was last done for is not the live one: that is all that has to be
remembered, and a crash at any point leaves it due. So a hook may be done twice for one certificate, and never not at
all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from . import renewal

LONGEST: Final = timedelta(hours=1)
"""Between two attempts."""


@dataclass(frozen=True, slots=True)
class HookRecord:
    done_for: str | None = None
    """Thumbprint of the certificate that it was last done for."""
    done_at: datetime | None = None
    tried_for: str | None = None
    attempts: int = 0
    """Failed ones, for ``tried_for``."""
    next_attempt_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None


def is_due(record: HookRecord, live: str, now: datetime) -> bool:
    if record.done_for == live:
        return False
    return record.tried_for != live or renewal.is_due(record.next_attempt_at, now)


def done(live: str, now: datetime) -> HookRecord:
    return HookRecord(done_for=live, done_at=now)


def attempts_for(record: HookRecord, live: str) -> int:
    return record.attempts if record.tried_for == live else 0


def failed(record: HookRecord, live: str, words: str, now: datetime, again: datetime) -> HookRecord:
    return replace(
        record,
        tried_for=live,
        attempts=attempts_for(record, live) + 1,
        next_attempt_at=again,
        last_error=words,
        last_error_at=now,
    )
