"""Whose renewal goes to the CA next: the rule is core.sparing's, the waiting line is the store's.

Only leaves' renewals wait here: they have a certificate that is valid for long yet. A first certificate, the
gateway's own, and what a person asks for are bounded by the rate limit alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

from ..core import sparing
from ..core.model import Credential
from ..core.renewal import RenewalPolicy
from ..core.sparing import Bucket, burst
from ..store.base import Store

_RATE_HOLDS: Final = 60.0
"""Seconds for which the pace is not worked out anew."""
_LOAD_HOLDS: Final = 3600.0
"""The same for the fleet's own rate, for which every certificate is read."""
_LOOK_AT: Final = 40
"""Of those that wait: more than can be under way, and as many again."""


class Gate(Protocol):
    """Whether the CA may be asked at all."""

    def pause(self) -> float: ...
    def on_trial(self) -> bool: ...


class Turns:
    def __init__(
        self,
        *,
        store: Store,
        policy: RenewalPolicy,
        gate: Gate,
        most: float,
        paced: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``most``: requests a second that the CA may be sent; not ``paced``: whoever is due has a turn at once."""
        self._store = store
        self.policy = policy
        self._gate = gate
        self._most = most
        self._monotonic = monotonic
        self.paced = paced
        self._bucket = Bucket()
        self._mean, self._mean_until = 0.0, float("-inf")
        self._rate, self._rate_until = sparing.LEAST_PACE, float("-inf")
        self._line = False
        """Whether somebody may be waiting: then nobody goes past."""

    async def next(
        self, now: datetime, limit: int, busy: Callable[[Credential], bool]
    ) -> tuple[list[Credential], float]:
        """At most ``limit`` whose turn it is, the most urgent first, and the seconds until another's may come.
        Those that are ``busy`` have had it."""
        if (pause := self._gate.pause()) > 0:
            return [], pause
        await self._work_out_rate(now)
        found = await self._store.read(lambda tx: tx.credentials.waiting(now, _LOOK_AT))
        waiting = [each for each in found if not busy(each)]
        going: list[Credential] = []
        for credential in (probe(waiting) if self._gate.on_trial() else waiting)[:limit]:
            if not self._take(credential):
                break
            going.append(credential)
        self._line = len(going) < len(waiting)
        # With a token left it is room that they wait for, or a probe: an end of a drive rings.
        return going, (self._wait() or float("inf")) if self._line else float("inf")

    def at_once(self, credential: Credential) -> bool:
        """Whether one that has just come need not wait; its turn is taken then."""
        return not self._line and self._gate.pause() == 0 and self._take(credential)

    def _take(self, credential: Credential) -> bool:
        if self._wait() > 0:
            return False
        requests = 2 if credential.attempts else 1  # it is looked for first: that is paid for afterwards
        self._bucket, _ = sparing.take(self._bucket, self._monotonic(), self._rate, burst(self._rate), requests)
        return True

    def _wait(self) -> float:
        return sparing.wait(self._bucket, self._monotonic(), self._rate, burst(self._rate)) if self.paced else 0.0

    async def _work_out_rate(self, now: datetime) -> None:
        at = self._monotonic()
        if at < self._rate_until:
            return
        if at >= self._mean_until:
            lives = await self._store.read(lambda tx: tx.credentials.load(now))
            self._mean = lives / ((self.policy.opens + self.policy.closes) / 2)
            self._mean_until = at + _LOAD_HOLDS
        deadlines = await self._store.read(lambda tx: tx.credentials.deadlines())
        rate = sparing.pace(self._mean, [(each - now).total_seconds() for each in deadlines])
        # What has gathered so far has gathered at the rate that held so far.
        self._bucket = Bucket(sparing.level(self._bucket, at, self._rate, burst(self._rate)), at)
        self._rate, self._rate_until = min(rate, self._most), at + _RATE_HOLDS


def probe(waiting: Sequence[Credential]) -> Sequence[Credential]:
    """The one to see with if the CA is back: rather one whose outcome is unclear already, and which has to be looked
    for at the CA anyway, than one more of that kind."""
    return [next((each for each in waiting if each.attempts), *waiting[:1])] if waiting else []
