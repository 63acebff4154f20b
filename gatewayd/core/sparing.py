"""Sparing a CA: how often it is asked, when it is left alone, and whose renewal goes first. Pure.

Three bounds, from the outside in. The *breaker* leaves a CA alone that cannot serve anybody, and lets one request
through now and then to see whether it is back. The *limiter*, a bucket without a burst, keeps every request of the
daemon at a distance from the one before. The *pace* is for the renewals of leaves, which have time: after an outage,
or when a fleet was enrolled in one hour, they go one by one, the most urgent first, at little more than twice the rate
at which this fleet renews anyway; faster only when the certificates that wait would otherwise not all be on time.

Times are seconds on a clock that never jumps (``time.monotonic``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

# --- a token bucket ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bucket:
    level: float = 0.0
    """Tokens; below zero when some were taken in advance."""
    at: float = float("-inf")
    """When that was the level."""


def level(bucket: Bucket, now: float, rate: float, burst: float) -> float:
    """The tokens there are ``now``, filled at ``rate`` (a second) up to ``burst``."""
    return min(bucket.level + (now - bucket.at) * rate, burst) if bucket.at > float("-inf") else burst


def take(bucket: Bucket, now: float, rate: float, burst: float, tokens: float = 1.0) -> tuple[Bucket, float]:
    """Take tokens. Returns the bucket, and the seconds until they are there: 0 when they were."""
    left = level(bucket, now, rate, burst) - tokens
    return Bucket(left, now), max(-left / rate, 0.0)


def wait(bucket: Bucket, now: float, rate: float, burst: float) -> float:
    """Seconds until there is a whole token."""
    return max((1 - level(bucket, now, rate, burst)) / rate, 0.0)


# --- the circuit breaker -------------------------------------------------------------------------

OPENS_AFTER: Final = 5
"""Failures one after the other, of whichever devices."""
OPEN_FIRST: Final = 30.0
OPEN_LAST: Final = 900.0
RETRY_AFTER_LAST: Final = 6 * 3600.0
PROBE_WITHIN: Final = 120.0
"""Seconds for which one probe keeps others away, should it never come back."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """Closed while ``until`` is None; open before ``until``; from then on half open: one request may try."""

    failures: int = 0
    """In a row."""
    opened: int = 0
    """How often in a row it has opened."""
    until: float | None = None
    trying: bool = False
    """Whether the one probe is under way; ``until`` is then when it is given up."""


def pause(breaker: Breaker, now: float) -> float:
    """Seconds for which no request may go; 0 when one may."""
    return 0.0 if breaker.until is None else max(breaker.until - now, 0.0)


def begun(breaker: Breaker, now: float) -> Breaker:
    """A request goes out. When the breaker is half open it is the one probe."""
    return breaker if breaker.until is None else replace(breaker, until=now + PROBE_WITHIN, trying=True)


def abandoned(breaker: Breaker, now: float) -> Breaker:
    """A request ended without saying anything about the CA."""
    return breaker if breaker.until is None else replace(breaker, until=now, trying=False)


def failed(breaker: Breaker, now: float, dice: float, retry_after: float | None = None) -> Breaker:
    """The CA could not serve. Opens after OPENS_AFTER in a row, at once when the CA names a time (Retry-After) or a
    probe has failed; each time for twice as long, with jitter, so that many gateways do not come back as one."""
    failures = breaker.failures + 1
    if failures < OPENS_AFTER and breaker.until is None and retry_after is None:
        return Breaker(failures)
    open_for = min(OPEN_FIRST * 2.0 ** min(breaker.opened, 20), OPEN_LAST) * (0.5 + dice / 2)
    if retry_after is not None:
        open_for = max(open_for, min(retry_after, RETRY_AFTER_LAST))
    until = now + open_for
    if breaker.until is not None and not breaker.trying:  # one that was under way when it opened
        until = max(until, breaker.until)
    return Breaker(failures, breaker.opened + 1, until)


# --- the pace of renewals ------------------------------------------------------------------------

PACE: Final = 2.25
"""Times the fleet's own mean rate: below the 3 times at which a CA would feel a crowd, with room to catch up."""
LEAST_PACE: Final = 12 / 3600
"""A second: what no CA feels. A small plant never waits for more than a few minutes."""
LEAST_BURST: Final = 2.0
IN_TIME: Final = 0.9
"""The part of what remains to each certificate within which it is to be renewed."""
OVERDUE: Final = 6 * 3600.0
"""Seconds within which those that have next to nothing left, or have expired, are served at the latest."""


def pace(mean: float, remaining: Sequence[float]) -> float:
    """Renewals a second. ``mean`` is the rate (a second) at which the fleet renews anyway; ``remaining`` is how long
    (seconds) the waiting certificates live yet, the shortest first."""
    needed = max(
        (number / (IN_TIME * max(left, OVERDUE)) for number, left in enumerate(remaining, start=1)), default=0.0
    )
    return max(PACE * mean, LEAST_PACE, needed)


def burst(rate: float) -> float:
    """How many may go at once where nobody has gone for long: six in a small plant, two in a large one."""
    return max(1.5 * LEAST_PACE * 3600 - rate * 3600, LEAST_BURST)
