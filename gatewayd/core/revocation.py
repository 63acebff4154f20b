"""A revocation's way to *verified*, as a table of what must precede what.

known → refused here → revoked at the CA → reported upstream → disabled in the hub → verified.

This is the order in which they are tried, and the order they come in when every peer answers. But a CA that is away
must not keep a stolen key alive in the hub, nor a hub that is away keep it valid at the CA: so a milestone waits only
for its true prerequisites, and each that fails is retried by itself, for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from .model import Milestone, MilestoneProgress, Revocation, RevocationScope
from .renewal import is_due

PREREQUISITES: Final[Mapping[Milestone, frozenset[Milestone]]] = MappingProxyType(
    {
        Milestone.REFUSED_HERE: frozenset(),
        Milestone.REVOKED_AT_CA: frozenset({Milestone.REFUSED_HERE}),
        Milestone.REPORTED: frozenset({Milestone.REFUSED_HERE}),
        Milestone.DISABLED: frozenset({Milestone.REFUSED_HERE}),
        Milestone.VERIFIED: frozenset({Milestone.DISABLED}),
    }
)

REPORT_FIRST: Final[Mapping[Milestone, frozenset[Milestone]]] = MappingProxyType(
    {**PREREQUISITES, Milestone.DISABLED: frozenset({Milestone.REFUSED_HERE, Milestone.REPORTED})}
)
"""Where the report comes first: for the gateway's own certificate, since a disabled gateway cannot report any more; and
where the report is what gets a device disabled."""


_ALL: Final = tuple(Milestone)

EXPECTED: Final[Mapping[RevocationScope, tuple[Milestone, ...]]] = MappingProxyType(
    {
        RevocationScope.DEVICE: tuple(Milestone),
        RevocationScope.CERTIFICATE: (Milestone.REFUSED_HERE, Milestone.REVOKED_AT_CA),
    }
)
"""What has to come true, in canonical order. A report of a revocation gets the device disabled, so that none is made of
a certificate's whose device goes on."""


def is_done(revocation: Revocation, milestone: Milestone) -> bool:
    return revocation.progress.get(milestone, MilestoneProgress()).done_at is not None


def may_speak(own: Iterable[Revocation]) -> bool:
    """Whether a revoked gateway, whose ``own`` revocations these are, still uses its certificate: to say what it must
    before it goes, and until it has been seen shut out."""
    return any(not is_done(each, Milestone.VERIFIED) for each in own)


def is_closed(revocation: Revocation) -> bool:
    return all(is_done(revocation, milestone) for milestone in EXPECTED[revocation.scope])


def due(
    revocation: Revocation,
    now: datetime,
    *,
    report_first: bool = False,
    among: Collection[Milestone] = _ALL,
) -> tuple[Milestone, ...]:
    """The milestones to attempt now, in canonical order, ``among`` these."""
    table = REPORT_FIRST if report_first else PREREQUISITES
    return tuple(
        milestone
        for milestone in EXPECTED[revocation.scope]
        if milestone in among
        and not is_done(revocation, milestone)
        and all(is_done(revocation, needed) for needed in table[milestone])
        and is_due(revocation.progress.get(milestone, MilestoneProgress()).next_attempt_at, now)
    )


def next_attempt(
    revocation: Revocation,
    now: datetime,
    *,
    report_first: bool = False,
    among: Collection[Milestone] = _ALL,
) -> datetime | None:
    """When something ``among`` these is due next; None when it is closed or nothing of it can be attempted."""
    table = REPORT_FIRST if report_first else PREREQUISITES
    moments = [
        revocation.progress.get(milestone, MilestoneProgress()).next_attempt_at or now
        for milestone in EXPECTED[revocation.scope]
        if milestone in among
        and not is_done(revocation, milestone)
        and all(is_done(revocation, needed) for needed in table[milestone])
    ]
    return min(moments, default=None)


def done(progress: MilestoneProgress, now: datetime, evidence: str) -> MilestoneProgress:
    return MilestoneProgress(done_at=now, attempts=progress.attempts + 1, evidence=evidence)


def waiting(progress: MilestoneProgress, look_at: datetime) -> MilestoneProgress:
    """Asked for, and not come true yet."""
    return MilestoneProgress(attempts=progress.attempts + 1, next_attempt_at=look_at)


def failed(progress: MilestoneProgress, error: str, retry_at: datetime) -> MilestoneProgress:
    return MilestoneProgress(attempts=progress.attempts + 1, next_attempt_at=retry_at, last_error=error)
