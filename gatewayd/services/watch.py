"""The loop that looks at every source of what the CA says of revocations, each in its own time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from ..core.learning import Freshness, freshness, next_look
from ..errors import GatewayError, Internal
from ..messages import kind
from .clock import Clock
from .events import Alarm
from .health import Proven
from .own import OwnCertificates

log = logging.getLogger(__name__)

_LONGEST_SLEEP = 60.0
"""Seconds in which a CRL is noticed that a new certificate names."""
_AT_ONCE = 8
_SOON = timedelta(seconds=1)
"""When a certificate was in the engine's hands, and has to be looked at again."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look has come to."""

    next_update: datetime | None = None
    """When, by the source's own word, there is something newer."""
    held: tuple[str, ...] = ()
    """Devices with a certificate on hold."""
    detail: str = ""
    settled: bool = True
    error: GatewayError | None = None
    """Why nothing newer could be had than what was known before."""


class Source(Protocol):
    @property
    def kind(self) -> str:
        """``crl``, ``ocsp``, ``ca-list``: the origin of what is learned from it."""

    @property
    def name(self) -> str: ...

    async def look(self) -> Looked:
        """See what is new and have it written down. Raises any GatewayError when nothing is known."""


@dataclass(slots=True)
class Watched:
    """A source and how it fares."""

    source: Source
    proven: Proven
    latest: Looked | None = None
    next_look_at: datetime | None = None
    failures: int = 0
    warned: bool = False

    def freshness(self, interval: timedelta, now: datetime) -> Freshness:
        until = self.latest.next_update if self.latest else None
        return freshness(self.proven.last_success_at, until, interval, now)


class Watch:
    """``fixed`` are always watched, and so are the CRLs of ``crl_urls`` and, if ``follow`` says so, those that the own
    certificates name; ``crl`` makes the source for one. ``looked`` is called after each look."""

    def __init__(
        self,
        *,
        clock: Clock,
        interval: timedelta,
        own: OwnCertificates,
        fixed: Iterable[Source],
        crl: Callable[[str], Source],
        crl_urls: Iterable[str],
        follow: bool,
        looked: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self.interval = interval
        self._alarm = Alarm()
        self._watched = {each.name: Watched(each, Proven()) for each in fixed}
        self._fixed = frozenset(self._watched)
        self._own = own
        self._crl = crl
        self._crl_urls = frozenset(crl_urls)
        self._follow = follow
        self._looked = looked
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._followed = False

    def heard(self) -> bool:
        """Whether every source has been looked at since the start, or since ``hear_anew``, with success, and what it
        said is acted on."""
        return self._followed and all(
            each.latest is not None and each.latest.settled and each.latest.error is None
            for each in self._watched.values()
        )

    def hear_anew(self) -> None:
        """What was heard so far does not count any more: there is more on record. A look that is under way neither."""
        self._followed = False
        self._watched = {name: replace(each, latest=None, next_look_at=None) for name, each in self._watched.items()}
        self._alarm.ring()

    def take_up(self, interval: timedelta, crl_urls: Iterable[str], *, follow: bool) -> None:
        """These hold from now on; a look that is under way goes on."""
        self.interval, self._crl_urls, self._follow = interval, frozenset(crl_urls), follow
        for each in self._watched.values():
            if each.next_look_at is not None:
                each.next_look_at = min(each.next_look_at, self._clock.now() + interval)
        self._alarm.ring()

    @property
    def watched(self) -> Mapping[str, Watched]:
        return self._watched

    def ring(self) -> None:
        self._alarm.ring()

    async def run(self) -> None:
        try:
            await self._alarm.rounds("revocation sources", self._round, _LONGEST_SLEEP)
        finally:
            for task in self._looking.values():
                task.cancel()
            await asyncio.gather(*self._looking.values(), return_exceptions=True)

    async def _round(self) -> float:
        """Start the looks that are due; returns the seconds until the next."""
        if not self._clock.sane():
            return 1.0
        await self._own.refresh()
        self._follow_certificates()
        now = self._clock.now()
        for name, each in self._watched.items():
            if name in self._looking or len(self._looking) >= _AT_ONCE:
                continue
            if each.next_look_at is None or each.next_look_at <= now:
                self._looking[name] = asyncio.create_task(self._look(name, each))
        waits = [
            (each.next_look_at - now).total_seconds()
            for name, each in self._watched.items()
            if name not in self._looking and each.next_look_at is not None
        ]
        return max(min([*waits, _LONGEST_SLEEP, self.interval.total_seconds()]), 0.05)

    def _follow_certificates(self) -> None:
        self._followed = True
        wanted = set(self._crl_urls)
        if self._follow:
            wanted |= {url for each in self._own.all() for url in each.points}
        for url in wanted - self._watched.keys():
            self._watched[url] = Watched(self._crl(url), Proven())
        for url in self._watched.keys() - wanted - self._fixed - self._looking.keys():
            del self._watched[url]

    async def _look(self, name: str, it: Watched) -> None:
        try:
            latest = await it.source.look()
            error = latest.error
            it.latest = latest
        except GatewayError as failure:
            error = failure
        except Exception as unexpected:
            log.exception("%s failed unexpectedly", name)
            error = Internal(f"{name} could not be looked at: {type(unexpected).__name__}.")
        finally:
            del self._looking[name]
            self._alarm.ring()
        now = self._clock.now()
        self._note(it, error, now)
        later = it.latest.next_update if it.latest is not None else None
        it.next_look_at = next_look(now, self.interval, it.failures, self._clock.dice(), later)
        if error is None and it.latest is not None and not it.latest.settled:
            it.next_look_at = min(it.next_look_at, now + _SOON)
        self._looked()

    def _note(self, it: Watched, error: GatewayError | None, now: datetime) -> None:
        if error is None:
            it.failures = 0
            it.proven.last_success_at, it.proven.last_error, it.proven.last_error_at = now, None, None
        else:
            it.failures += 1
            it.proven.last_error, it.proven.last_error_at = f"{error.name()}: {error.message}", now
            log.warning("%s: %s", it.source.name, error)
        stale = it.freshness(self.interval, now) is Freshness.STALE
        if stale and not it.warned:
            log.warning("%s: what is known of revocations is out of date", it.source.name, extra=kind("source-stale"))
        it.warned = stale
