"""Whether the time of day can be right. Pure: what is known of time, and what the system says, are handed in.

A gateway without a battery boots in 1970, one with a broken one anywhere. Two moments are remembered: the latest that
was *seen*, and the latest that was *proven*, seen while the kernel said that its clock is synchronised (NTP, PTP, GPS).
A time before the floor is certainly wrong; one far ahead of it, of which nobody says that it is synchronised, is not
believed. So an unsynchronised clock that was once too far ahead is put right as soon as it is synchronised, and one
that is synchronised is never taken back before what another synchronised moment has shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

SLACK: Final = timedelta(minutes=10)
"""A clock that is set back by no more than this was a little off, not wrong."""
FURTHEST: Final = timedelta(days=400)
"""How far ahead of the latest time seen an unsynchronised clock is believed: a gateway may be off for a year."""
FURTHEST_FROM_BUILD: Final = timedelta(days=20 * 365)
"""The same where no time was ever seen: an old package may be installed."""


class Verdict(StrEnum):
    SANE = "sane"
    BEHIND = "behind"
    """Before the floor: 1970, an empty battery."""
    AHEAD = "ahead"
    """Too far ahead to be believed without synchronisation."""


@dataclass(frozen=True, slots=True)
class KnownTime:
    """What is known of time, whatever the system says."""

    build: datetime
    """When this version was released."""
    seen: datetime | None = None
    proven: datetime | None = None

    def floor(self, synchronised: bool) -> datetime:
        """No time before this is believed."""
        kept = self.proven if synchronised else self.seen
        return max(self.build, kept) if kept is not None else self.build

    def after(self, moment: datetime, synchronised: bool) -> KnownTime:
        """With ``moment`` seen, at which the clock was judged sane."""
        if synchronised:
            return KnownTime(self.build, moment, moment)
        return KnownTime(self.build, moment, self.proven)


def judge(now: datetime, synchronised: bool, known: KnownTime) -> Verdict:
    if now < known.floor(synchronised) - SLACK:
        return Verdict.BEHIND
    if synchronised:
        return Verdict.SANE
    furthest = FURTHEST_FROM_BUILD if known.seen is None else FURTHEST
    return Verdict.AHEAD if now > known.floor(False) + furthest else Verdict.SANE
