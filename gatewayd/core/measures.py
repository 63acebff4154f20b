"""What is measured of a whole fleet, where a figure for each device would be too much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Left(StrEnum):
    """How much of a certificate's life is left. A renewal begins with half to a third of it left unless a policy says
    otherwise, and is an emergency in the last tenth."""

    EXPIRED = "expired"
    TENTH = "under-a-tenth"
    THIRD = "under-a-third"
    MORE = "more"


def left(not_before: datetime, not_after: datetime, now: datetime) -> Left:
    rest, life = not_after - now, not_after - not_before
    if rest <= timedelta(0):
        return Left.EXPIRED
    return Left.TENTH if rest * 10 < life else Left.THIRD if rest * 3 < life else Left.MORE


@dataclass(frozen=True, slots=True)
class Fleet:
    """The certificates in use: the gateway's and the leaves'."""

    counts: Mapping[Left, int]
    """Each of them named."""
    earliest: datetime | None
    """When the first of them ends, or has ended."""


@dataclass(frozen=True, slots=True)
class Queue:
    depth: int
    oldest: datetime | None
    """Since when the first of them waits."""
