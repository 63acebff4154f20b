"""When to renew, and when to try again. Pure: the clock and the dice are handed in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    """Fractions of a certificate's lifetime."""

    opens: float = 1 / 2
    closes: float = 2 / 3
    emergency: float = 1 / 10
    """With less than this left, a renewal is tried at the shortest interval."""


@dataclass(frozen=True, slots=True)
class RenewalPolicies:
    """What holds for which device: the first pattern that matches its id, else the CA's."""

    default: RenewalPolicy = field(default_factory=RenewalPolicy)
    by_device: Sequence[tuple[str, RenewalPolicy]] = ()
    """Shell-style patterns, such as ``pump-*``."""

    def of(self, device_id: str) -> RenewalPolicy:
        return next((policy for pattern, policy in self.by_device if fnmatchcase(device_id, pattern)), self.default)


class Window(NamedTuple):
    """When a CA would like a certificate to be renewed (as in RFC 9773, 4.2)."""

    start: datetime
    end: datetime


RETRY_FIRST = timedelta(minutes=1)
RETRY_LAST = timedelta(hours=6)
RETRY_EXPIRED = timedelta(minutes=15)
"""A device whose certificate is over is dead until there is a new one, and may be so for weeks: neither rare attempts
nor a busy loop."""
RETRY_BLOCKED = timedelta(hours=1)
"""The longest wait while a person has to mend something at the CA: mended, it is not to wait for hours."""
ASK_AGAIN_FIRST = timedelta(seconds=2)
"""For a CA that is at work and would like to be asked sooner."""
BELIEVED = RETRY_LAST + timedelta(minutes=5)
"""No attempt is put off for longer than RETRY_LAST. A moment further ahead than this was worked out while the clock was
ahead, and says nothing."""


def place(device_id: str, not_before: datetime) -> float:
    """A stable place in [0, 1) for this device and this certificate.

    The certificate's own start goes into the hash, so that a device is not the last of the fleet every time.
    """
    digest = hashlib.sha256(f"{device_id}\0{not_before.timestamp():.0f}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def renew_at(
    device_id: str,
    not_before: datetime,
    not_after: datetime,
    policy: RenewalPolicy,
    suggested: Window | None = None,
) -> datetime:
    """The moment at which this device's renewal is due: its own place in the window.

    A window that the CA suggests takes the place of the policy's, as far as it lies within the certificate's life and
    before the emergency; one that does not is ignored.
    """
    lifetime = not_after - not_before
    opens, closes = not_before + lifetime * policy.opens, not_before + lifetime * policy.closes
    if (
        suggested is not None
        and not_before < suggested.start <= suggested.end <= not_after - lifetime * policy.emergency
    ):
        opens, closes = suggested
    return opens + (closes - opens) * place(device_id, not_before)


def is_emergency(now: datetime, not_before: datetime, not_after: datetime, policy: RenewalPolicy) -> bool:
    return not_after - now < (not_after - not_before) * policy.emergency


def is_due(moment: datetime | None, now: datetime) -> bool:
    """Whether an attempt that was put off until ``moment`` may be made."""
    return moment is None or not now < moment <= now + BELIEVED


def ask_again_at(now: datetime, retry_after: float) -> datetime:
    """When to ask a CA again that is at work and has named a time (seconds): then, but within reason."""
    wait = timedelta(seconds=min(retry_after, RETRY_LAST.total_seconds()))  # however large a number it was
    return now + max(wait, ASK_AGAIN_FIRST)


def retry_at(
    now: datetime,
    attempts: int,
    dice: float,
    *,
    not_after: datetime | None = None,
    emergency: bool = False,
    retry_after: float | None = None,
    longest: timedelta = RETRY_LAST,
) -> datetime:
    """When to try again after ``attempts`` failures (1 = the first has just failed).

    Exponential with full jitter (``dice`` in [0, 1)), from RETRY_FIRST to the smaller of ``longest`` and a tenth of
    what remains until ``not_after``, or RETRY_EXPIRED once that is past. In an ``emergency`` it does not grow: it stays
    at RETRY_FIRST, or the tenth. A peer's Retry-After (seconds) is honoured up to RETRY_LAST. Never earlier than a
    second from now, so that a dying certificate does not turn into a busy loop.
    """
    if not_after is not None:
        longest = min(longest, (not_after - now) / 10 if now < not_after else RETRY_EXPIRED)
        if emergency and now < not_after:
            longest = min(longest, RETRY_FIRST)
    ceiling = min(RETRY_FIRST * float(2 ** min(max(attempts - 1, 0), 20)), longest)
    wait = max(ceiling * (0.5 + dice / 2) if attempts <= 1 else ceiling * dice, timedelta(seconds=1))
    if retry_after is not None:
        wait = max(wait, timedelta(seconds=min(retry_after, RETRY_LAST.total_seconds())))
    return now + wait
